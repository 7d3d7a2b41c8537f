"""What a model offers: factors to data, and the normal equations of a mode."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.coupling.links import Link
from tensorspec.coupling.operators import AbstractOperator
from tensorspec.errors import InvalidArgument
from tensorspec.problem import Factors, Tensor
from tensorspec.scale import ScalePlan

__all__ = [
    "AbstractModel",
    "Compressible",
    "ContractsFirst",
    "TangentProducts",
    "as_constraints",
    "squares_from_equations",
]


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

    # These are always fields; as variables of a dataclass they would come first among the arguments of every model.
    @property
    @abc.abstractmethod
    def constraints(self) -> Mapping[str, tuple[AbstractConstraint, ...]]:
        """The constraints given, by mode."""

    @property
    @abc.abstractmethod
    def scale(self) -> str | None:
        """The mode that carries the amplitudes, where the user said it."""

    @property
    @abc.abstractmethod
    def share(self) -> Mapping[str, tuple[int, ...]] | str | None:
        """Which components a tensor has."""

    @property
    @abc.abstractmethod
    def links(self) -> tuple[Link, ...]:
        """Pairs of modes whose factors are softly equal."""

    @property
    @abc.abstractmethod
    def operators(self) -> Mapping[tuple[str, str], AbstractOperator]:
        """What stands between a factor and a tensor."""

    @property
    @abc.abstractmethod
    def numbers_components(self) -> bool:
        """Whether the settings name components by their number, so that they keep the order that they have."""

    @abc.abstractmethod
    def shapes(self, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return the shape of every factor, in order: those of modes, then cores.

        Parameters
        ----------
        names
            The modes of each tensor.
        sizes
            The points of each mode.

        Raises
        ------
        RankOutOfRange
            When the data cannot determine so many components.
        """

    @abc.abstractmethod
    def core_of(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> str | None:
        """Return the name of the factor that is the core of a tensor, or None where the model has no cores."""

    @abc.abstractmethod
    def core_constraints(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> tuple[AbstractConstraint, ...]:
        """Return the constraints of the core of a tensor.

        Raises
        ------
        ConstraintConflict
            When one of them cannot act on a core.
        """

    @abc.abstractmethod
    def constraints_for(self, mode: str) -> tuple[AbstractConstraint, ...]:
        """Return the constraints of a mode."""

    @abc.abstractmethod
    def scale_plan(
        self, names: Mapping[str, tuple[str, ...]], rules: Mapping[str, ModeConstraints], scale: str | None = None
    ) -> ScalePlan:
        """Return who carries the scale.

        Parameters
        ----------
        names
            The modes of each tensor.
        rules
            The constraints of every factor.
        scale
            The mode that carries the amplitudes where the model itself leaves it open.
        """

    @abc.abstractmethod
    def linear_in(self, tensor: Tensor) -> str:
        """Return the name of a factor that carries the whole of a tensor: multiplied by a number, the model is too."""

    @abc.abstractmethod
    def normal_equations(self, tensor: Tensor, factors: Factors, mode: str) -> NormalEquations:
        """Return the equations of a factor for one tensor, its weight included, the other factors held."""

    @abc.abstractmethod
    def reconstruct(self, tensor: Tensor, factors: Factors) -> Float[Array, "..."]:
        """Return the dense tensor that the factors stand for."""

    @abc.abstractmethod
    def squared_residual(self, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
        """Return the weighted sum of squared residuals, without the tensor's weight, read off the data itself."""


class Compressible(abc.ABC):
    """A model that takes tensors with `bases`: compressed ones."""

    @property
    @abc.abstractmethod
    def settles_quickly(self) -> bool:
        """Whether few sweeps lead from a minimum on compressed data to that on all, so that many mean a loss."""

    @abc.abstractmethod
    def compressible_axes(self, tensor: Tensor) -> tuple[bool, ...]:
        """Return for each axis of a tensor whether it may be compressed."""


class ContractsFirst(abc.ABC):
    """A model whose normal equations can begin with data that are contracted with the factor of their first axis."""

    @abc.abstractmethod
    def contracts_first(self, tensor: Tensor) -> bool:
        """Return whether they do for a tensor; its `contracted` then serves every mode but the first."""


def squares_from_equations(model: AbstractModel, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
    """Return the weighted sum of squared residuals of a tensor whose data are not at hand, from normal equations.

    The sum of squares of the data is that of all of them, so the part of the data that no basis holds counts as noise.
    """
    mode = model.linear_in(tensor)
    part = model.normal_equations(dataclasses.replace(tensor, weight=jnp.ones_like(tensor.weight)), factors, mode)
    operator = tensor.operator(mode)
    seen = factors[mode] if operator is None else operator.apply(factors[mode])
    return tensor.square_norm + 2 * part.value(seen)


class TangentProducts(abc.ABC):
    """A model whose Gauss-Newton products need no array of the size of the data, where weights are one per row."""

    @abc.abstractmethod
    def tangent_product(
        self, tensor: Tensor, own: Sequence[Float[Array, "size rank"]], tangents: Sequence[Float[Array, "size rank"]]
    ) -> list[Float[Array, "size rank"]]:
        """Return ``J^T W J`` times a change of the factors as a tensor sees them, its weight included."""
