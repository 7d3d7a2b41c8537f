"""What a model offers: factors to data, and the normal equations of a mode."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.coupling.links import Link
from tensorspec.coupling.operators import AbstractOperator
from tensorspec.errors import InvalidArgument
from tensorspec.problem import Factors, Tensor

__all__ = ["AbstractModel", "TangentProducts", "as_constraints"]


def as_constraints(given: Any) -> dict[str, tuple[AbstractConstraint, ...]]:
    """Return constraints, one or a list per mode, as a tuple per mode.

    Raises
    ------
    InvalidArgument
        When it is not a mapping, or holds something that is not a constraint.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidArgument(
            f"constraints={given!r}: expected a mapping of mode names to constraints, for example "
            "constraints={'pixel': ts.NonNegative()}"
        )
    found = {}
    for mode, items in given.items():
        items = tuple(items) if isinstance(items, (list, tuple)) else (items,)
        for item in items:
            if not isinstance(item, AbstractConstraint):
                hint = "; write it with brackets, ts.NonNegative()" if isinstance(item, type) else ""
                raise InvalidArgument(
                    f"constraint of mode {mode!r} is {item!r}: expected constraint objects such as "
                    f"ts.NonNegative(){hint}"
                )
        found[str(mode)] = items
    return found


class AbstractModel(eqx.Module):
    """Base of every model."""

    rank: eqx.AbstractVar[int]
    constraints: eqx.AbstractVar[Mapping[str, tuple[AbstractConstraint, ...]]]
    scale: eqx.AbstractVar[str | None]
    share: eqx.AbstractVar[Mapping[str, tuple[int, ...]] | str | None]
    links: eqx.AbstractVar[tuple[Link, ...]]
    operators: eqx.AbstractVar[Mapping[tuple[str, str], AbstractOperator]]

    @abc.abstractmethod
    def constraints_for(self, mode: str) -> tuple[AbstractConstraint, ...]:
        """Return the constraints of a mode."""

    @abc.abstractmethod
    def normal_equations(self, tensor: Tensor, factors: Factors, mode: str) -> NormalEquations:
        """Return the equations of a mode for one tensor, its weight included, the other factors held."""

    @abc.abstractmethod
    def reconstruct(self, modes: tuple[str, ...], factors: Factors) -> Float[Array, "..."]:
        """Return the dense tensor that the factors stand for."""

    @abc.abstractmethod
    def squared_residual(self, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
        """Return the weighted sum of squared residuals, without the tensor's weight, read off the data itself."""


class TangentProducts(abc.ABC):
    """A model whose Gauss-Newton products need no array of the size of the data, where weights are one per row."""

    @abc.abstractmethod
    def tangent_product(
        self, tensor: Tensor, own: Sequence[Float[Array, "size rank"]], tangents: Sequence[Float[Array, "size rank"]]
    ) -> list[Float[Array, "size rank"]]:
        """Return ``J^T W J`` times a change of the factors as a tensor sees them, its weight included."""
