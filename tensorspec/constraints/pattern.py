"""Entries that are zero by what is known: which components of one mode may meet which of another."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import AbstractHardConstraint, Separability, component_field
from tensorspec.errors import InvalidArgument

__all__ = ["Pattern"]


class Pattern(AbstractHardConstraint):
    """Entries outside a pattern are zero.

    `Tucker` makes it of ``pattern=``; it leaves the scale free, as `Fixed` at zero would not.

    Parameters
    ----------
    allowed
        Array of the shape of the factor, above zero where an entry may differ from zero; axes of size one broadcast.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        When nothing is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> Pattern(np.array([[1.0, 0.0]])).project(np.array([[3.0, 4.0]])).tolist()
    [[3.0, 0.0]]
    """

    allowed: Any
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    def __check_init__(self) -> None:
        """Refuse a pattern without an entry."""
        if isinstance(self.allowed, np.ndarray) and not (self.allowed > 0).any():
            raise InvalidArgument("Pattern: no entry is allowed to differ from zero")

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the values with those outside the pattern set to zero."""
        values = jnp.asarray(values)
        allowed = jnp.asarray(self.allowed) > 0
        if values.ndim == 1:
            allowed = allowed[:, 0 if column is None or allowed.shape[1] == 1 else column]
        return jnp.where(allowed, values, 0)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the size of the largest entry outside the pattern."""
        return jnp.max(jnp.where(jnp.asarray(self.allowed) > 0, 0, jnp.abs(factor)), initial=0.0)
