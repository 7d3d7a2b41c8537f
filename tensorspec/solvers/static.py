"""What of a program is not an array, as one hashable value."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["Static"]


class Static:
    """Whatever of some trees is not an array, made hashable, so that equal structures share a compiled program.

    Parameters
    ----------
    *trees
        Trees without arrays, as `equinox.partition` leaves them.
    """

    def __init__(self, *trees: Any) -> None:
        leaves, self._structure = jax.tree.flatten(trees, is_leaf=lambda x: x is None)
        self._leaves = tuple(leaves)

    @property
    def trees(self) -> tuple[Any, ...]:
        """The trees, with None in the place of their arrays."""
        return jax.tree.unflatten(self._structure, self._leaves)

    def __hash__(self) -> int:
        return hash((self._structure, self._leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._structure == other._structure and self._leaves == other._leaves
