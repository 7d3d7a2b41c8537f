"""What a solver of one block offers.

A solver is a frozen bag of settings.  It updates the factors of one block of modes, given their normal equations:
``init`` makes the state that it keeps between sweeps, ``step`` improves the factors.  When to stop is the business of
the sweep, which is the same for all solvers.
"""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.majoriser import Majoriser
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.errors import InvalidArgument
from tensorspec.scale import ScalePlan

__all__ = [
    "AbstractAnySolver",
    "AbstractJointSolver",
    "AbstractSolver",
    "Block",
    "Undirected",
    "block_value",
    "check_compress",
    "rounding",
    "with_quadratic",
]


_ROUNDING = {jnp.dtype(jnp.float32): 1e-7, jnp.dtype(jnp.float64): 1e-15}


class Block(NamedTuple):
    """One or several modes that are updated together.

    Attributes
    ----------
    equations
        Normal equations of each mode, or the bound of a loss that has none; without the quadratic penalties.
    factors
        Factor of each mode, ``(size, rank)``.
    constraints
        Constraints of each mode.
    norms
        For each mode, ``(rank,)`` weights such that the weighted sum of squared norms over the block is one; zero where
        a column has no normalisation.  None where no column has one.
    """

    equations: Sequence[NormalEquations | Majoriser]
    factors: Sequence[Float[Array, "size rank"]]
    constraints: Sequence[ModeConstraints]
    norms: Sequence[Float[Array, " rank"]] | None


class AbstractAnySolver(eqx.Module):
    """Base of all that may be asked for as a solver."""


class AbstractSolver(AbstractAnySolver):
    """Base of every solver of a block."""

    extrapolate: eqx.AbstractVar[bool]
    # Which questions it can be asked: normal equations, and the bounds of divergences such as the Poisson likelihood.
    least_squares: eqx.AbstractClassVar[bool]
    divergences: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why the solver cannot take a mode, or None when it can.

        Parameters
        ----------
        constraints
            Constraints of the mode.
        per_row
            Whether every row has a Gram matrix of its own.
        held
            Which columns of the mode are held at unit norm while they are updated.
        """

    @abc.abstractmethod
    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return the state kept between sweeps."""

    @abc.abstractmethod
    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Return better factors of the block, feasible, and the new state."""


class AbstractJointSolver(AbstractAnySolver):
    """Base of every solver that moves all modes at once: it makes a whole sweep, where others update one block."""

    # How many sweeps of the solver that the table chooses come first, where no start was given.
    warm: eqx.AbstractVar[int]

    @abc.abstractmethod
    def refusal(self, mode: str, constraints: ModeConstraints) -> str | None:
        """Return why the solver cannot take a mode with these constraints, or None when it can."""

    @abc.abstractmethod
    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return the state kept between sweeps, for the factors of all modes in the order of their names."""

    @abc.abstractmethod
    def sweep(self, model: Any, plan: ScalePlan, problem: Any, state: Any) -> tuple[Any, Float[Array, ""]]:
        """Return the state after a sweep that does not raise the objective.

        Parameters
        ----------
        model, plan, problem
            What is solved, and how scale is carried.
        state
            The `SweepState` before.

        Returns
        -------
        state
            After the sweep; its counters of quiet sweeps and its status are left to the loop.
        tried
            The objective of the last point that was tried.
        """


class Undirected(abc.ABC):  # noqa: B024 - it is a mark, and asks for nothing
    """The mark of a solver whose updates follow a rule that belongs to no objective.

    Its sweeps are never refused, and the run ends when the objective changes by little, up or down.
    """


def check_compress(solver: Any) -> None:
    """Refuse an answer to whether a fit begins on compressed data that is none.

    Raises
    ------
    InvalidArgument
        When it is not ``"auto"``, True or False.
    """
    if solver.compress not in ("auto", True, False):
        raise InvalidArgument(f"{type(solver).__name__}(compress={solver.compress!r}): expected 'auto', True or False")


def with_quadratic(equations: NormalEquations, constraints: ModeConstraints, size: int) -> NormalEquations:
    """Return the normal equations with the quadratic penalties absorbed."""
    terms = constraints.quadratic(size, equations.gram.dtype)
    gram = equations.gram + terms.gram
    right = equations.right if terms.linear is None else equations.right + terms.linear.astype(equations.right.dtype)
    return NormalEquations(gram, right)


def block_value(block: Block, factors: Sequence[Float[Array, "size rank"]]) -> Float[Array, ""]:
    """Return the objective of the block's subproblem, up to a constant, in float64."""
    total = jnp.zeros((), jnp.float64)
    for equations, constraints, factor in zip(block.equations, block.constraints, factors, strict=True):
        total = total + equations.value(factor) + constraints.value(factor)
    return total


def rounding(factors: Mapping[str, Float[Array, "size rank"]]) -> float:
    """Return what rounding does to the objective of a sweep, as a share of the data's sum of squares."""
    return _ROUNDING[next(iter(factors.values())).dtype]
