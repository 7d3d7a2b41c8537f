"""Soft orthogonality as it was published: a rule for the update of a column that belongs to no objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.adaptive import AdaptiveSoftOrthogonal
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.recipe import constructor_repr
from tensorspec.solvers.base import AbstractSolver, Block, Undirected

__all__ = ["AdaptiveColumns", "adaptive_mode", "refusal_of_fit"]


class AdaptiveColumns(AbstractSolver, Undirected):
    """Column updates that are moved away from the other columns, clipped and brought to unit norm.

    With h the best column where nothing constrains it and c the sum of the others, h becomes
    ``h - w (c.h) / (c.c) c``, with w the weight of the rule, before clipping and scaling; the amplitudes stay in the
    other mode and are not readjusted.  For weights above zero this minimises nothing: the misfit may rise.

    References
    ----------
    Shiga et al., Ultramicroscopy 170 (2016) 43, doi:10.1016/j.ultramic.2016.08.006.

    Examples
    --------
    >>> AdaptiveColumns()
    AdaptiveColumns()
    """

    extrapolate: bool = eqx.field(default=False, static=True)
    least_squares: ClassVar[bool] = True
    divergences: ClassVar[bool] = False

    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why a mode cannot be updated so; see the base class."""
        if not all(held):
            return "its columns have unit norm, so that the other mode has to carry the amplitudes: give no scale"
        if per_row:
            return "it knows no missing entries and no weights of entries"
        return None if _rule(constraints) is not None else "the mode has no such rule"

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return nothing: no state is kept."""
        del factors, constraints
        return ()

    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Go through the columns once."""
        (equations,), (factor,), (constraints,) = block.equations, block.factors, block.constraints
        rule = _rule(constraints)
        assert rule is not None and isinstance(equations, NormalEquations)
        gram, right = equations.gram.astype(factor.dtype), equations.right.T

        def one_column(column: Array, rows: Array) -> Array:
            own = rows[column]
            others = jnp.sum(rows, axis=0) - own
            best = right[column] - gram[column] @ rows + gram[column, column] * own
            square = others @ others
            share = jnp.where(square > 0, (others @ best) / jnp.where(square > 0, square, 1), 0)
            moved = jnp.maximum(best - (rule.weight * share).astype(rows.dtype) * others, 0)
            norm = jnp.sqrt(moved @ moved)
            # A column of which nothing is left stays as it was: at zero it could never come back.
            return rows.at[column].set(jnp.where(norm > 0, moved / jnp.where(norm > 0, norm, 1), own))

        return [jax.lax.fori_loop(0, factor.shape[1], one_column, factor.T).T], state


def _rule(constraints: ModeConstraints) -> AdaptiveSoftOrthogonal | None:
    return next((item for item in constraints.members if isinstance(item, AdaptiveSoftOrthogonal)), None)


def adaptive_mode(constraints: Mapping[str, ModeConstraints]) -> str | None:
    """Return the mode that the rule is asked for on, or None."""
    return next((mode for mode, rules in constraints.items() if _rule(rules) is not None), None)


def refusal_of_fit(constraints: Mapping[str, ModeConstraints], asked: AbstractSolver | None) -> str | None:
    """Return why the rule cannot be used for a whole fit, or None when it can: it was published for plain NMF."""
    if asked is not None:
        return f"it is a solver of its own; leave out solver={asked!r}"
    if len(constraints) != 2:
        return f"it is for one tensor of two modes; here are the modes {list(constraints)}"
    others = [
        constructor_repr(item)
        for rules in constraints.values()
        for item in rules.members
        if not isinstance(item, (NonNegative, AdaptiveSoftOrthogonal))
    ]
    if others:
        return f"it takes no other constraint than NonNegative(); drop {', '.join(others)}"
    if sum(_rule(rules) is not None for rules in constraints.values()) > 1:
        return "it is for one mode only"
    if not all(rules.nonnegative for rules in constraints.values()):
        return "it needs NonNegative() on both modes; use NMF"
    return None
