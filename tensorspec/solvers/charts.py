"""Free variables behind the constraints of a mode: the factor is a smooth function of them, whatever they are."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    Bijective,
    Positive,
    Separability,
)
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.known import Fixed
from tensorspec.constraints.nonnegative import Box, NonNegative

__all__ = ["Chart", "chart_of", "chart_refusal", "slopes_and_bends"]

# An entry is at a bound when it is this much nearer than it would go if it were alone.
_NEAR = 0.1


class Chart(eqx.Module):
    """The map from free variables to the factor of one mode, column by column.

    Attributes
    ----------
    columns
        Columns that share a map, counted from 0.
    members
        The bijection of each group of columns; None where the factor itself is free.
    known
        ``(size, rank)`` known entries, NaN where free; None where none is known.
    """

    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    members: tuple[Any, ...]
    known: Float[Array, "size rank"] | None

    def forward(self, free: Float[Array, "size rank"]) -> Float[Array, "size rank"]:
        """Return the factor."""
        return self._fill(self._mapped(free, [None if m is None else m.forward for m in self.members]))

    def inverse(
        self, factor: Float[Array, "size rank"], present: Float[Array, "size rank"] | None = None
    ) -> Float[Array, "size rank"]:
        """Return free variables of a factor; with `present`, the columns in a box keep theirs, as scale never moves."""
        found = self._mapped(
            factor, [_logit(m) if isinstance(m, Box) else None if m is None else m.inverse for m in self.members]
        )
        if present is None:
            return found
        boxed = [c for group, m in zip(self.columns, self.members, strict=True) if isinstance(m, Box) for c in group]
        return found.at[:, jnp.asarray(boxed)].set(present[:, jnp.asarray(boxed)]) if boxed else found

    def clipped(self, free: Float[Array, "size rank"]) -> Float[Array, "size rank"]:
        """Return free variables of which no square has gone through zero: it would come back out of it."""
        squares = self._each(lambda member: isinstance(member, NonNegative))
        return jnp.where(jnp.asarray(squares), jnp.maximum(free, 0), free)

    def moving(self, size: int) -> Array:
        """Return which entries are not known."""
        shape = (size, sum(map(len, self.columns)))
        return jnp.ones(shape, bool) if self.known is None else jnp.isnan(self.known)

    @property
    def by_entry(self) -> tuple[bool, ...]:
        """For each column whether every entry has a variable of its own."""
        return self._each(lambda member: member is None or member.separability == Separability.ENTRY)

    @property
    def plain(self) -> bool:
        """Whether the factor itself is free, all of it."""
        return self.known is None and all(member is None for member in self.members)

    def limits(self) -> tuple[Float[Array, " rank"], Float[Array, " rank"]]:
        """Return the bounds on the entries of each column."""
        rank = sum(map(len, self.columns))
        low, high = jnp.full(rank, -jnp.inf), jnp.full(rank, jnp.inf)
        for group, member in zip(self.columns, self.members, strict=True):
            chosen = jnp.asarray(group)
            if isinstance(member, NonNegative):
                low = low.at[chosen].set(0.0)
            elif isinstance(member, Box):
                low, high = low.at[chosen].set(member.lower), high.at[chosen].set(member.upper)
        return low, high

    def at_bounds(
        self,
        factor: Float[Array, "size rank"],
        slope: Float[Array, "size rank"],
        curvature: Float[Array, "size rank"],
    ) -> tuple[Array, Float[Array, "size rank"]]:
        """Return which entries are at a bound or all but there, and where they go instead of taking part in a step.

        At a bound the derivative by the free variable vanishes, and close to it a Newton step goes far too far, so that
        squares never reach zero, nor leave it.  Close means: small beside ``slope / curvature``, the way that the entry
        would go if it were alone.  That way is taken, up to the bound or off it.
        """
        low, high = self.limits()
        step = -slope / curvature
        return self.within(_NEAR, factor, step), jnp.clip(factor + step, low, high)

    def within(self, share: float, factor: Float[Array, "size rank"], step: Float[Array, "size rank"]) -> Array:
        """Return which entries that are not known are nearer to a bound than a share of a step."""
        low, high = self.limits()
        near = jnp.minimum(factor - low, high - factor) <= share * jnp.abs(step)
        return near & self.moving(len(factor))

    def _each(self, rule: Any) -> tuple[bool, ...]:
        answer = {c: rule(m) for group, m in zip(self.columns, self.members, strict=True) for c in group}
        return tuple(bool(answer[column]) for column in sorted(answer))

    def _mapped(self, values: Array, maps: list[Any]) -> Array:
        for group, function in zip(self.columns, maps, strict=True):
            if function is None:
                continue
            if len(group) == values.shape[1]:
                values = function(values)
            else:
                chosen = jnp.asarray(group)
                values = values.at[:, chosen].set(function(values[:, chosen]))
        return values

    def _fill(self, factor: Array) -> Array:
        if self.known is None:
            return factor
        free = jnp.isnan(self.known)
        return jnp.where(free, factor, jnp.where(free, 0, self.known))


def _logit(box: Box) -> Any:
    """Return the inverse of the logistic map of a box; unlike the box's own it takes the walls to infinity."""

    def inverse(factor: Array) -> Array:
        # Known entries may lie outside; their variables stand for nothing.
        share = jnp.clip((factor - box.lower) / (box.upper - box.lower), 0, 1)
        return jnp.log(share) - jnp.log1p(-share)

    return inverse


def _by_column(rule: ModeConstraints) -> list[list[AbstractConstraint]]:
    """Return for each column the bijections that act on it, without non-negativity where another one implies it."""
    found: list[list[AbstractConstraint]] = [[] for _ in range(rule.rank)]
    for member in rule.members:
        if isinstance(member, Bijective):
            for column in _columns(member, rule.rank):
                found[column].append(member)
    for own in found:
        implied = any(isinstance(m, (Box, Positive)) and not isinstance(m, NonNegative) for m in own)
        if implied or sum(isinstance(m, NonNegative) for m in own) > 1:
            kept = [m for m in own if not isinstance(m, NonNegative)]
            own[:] = kept or [next(m for m in own if isinstance(m, NonNegative))]
    return found


def _columns(member: AbstractConstraint, rank: int) -> tuple[int, ...]:
    return tuple(range(rank)) if member.components is None else tuple(number - 1 for number in member.components)


def chart_refusal(rule: ModeConstraints) -> str | None:
    """Return why the constraints of a mode cannot be expressed by free variables, or None when they can."""
    for member in rule.members:
        if isinstance(member, AbstractHardConstraint) and not isinstance(member, (Bijective, Fixed)):
            return f"{type(member).__name__} has no free variables behind it"
    known = {c for m in rule.members if isinstance(m, Fixed) for c in _columns(m, rule.rank)}
    for column, own in enumerate(_by_column(rule)):
        if len(own) > 1:
            return f"{' and '.join(type(m).__name__ for m in own)} on one component have no free variables in common"
        if own and column in known and own[0].separability != Separability.ENTRY:
            return f"{type(own[0]).__name__} ties entries together of which Fixed knows some"
    return None


def chart_of(rule: ModeConstraints, size: int) -> Chart:
    """Return the free variables of a mode whose constraints `chart_refusal` lets pass."""
    groups: dict[int, tuple[Any, list[int]]] = {}
    positive = {c for m in rule.members if isinstance(m, NonNegative) for c in _columns(m, rule.rank)}
    for column, own in enumerate(_by_column(rule)):
        member: Any = own[0] if own else None
        key = -1 if member is None else next(k for k, item in enumerate(rule.members) if item is member)
        if isinstance(member, Box) and column in positive:
            key += len(rule.members)
            member = Box(jnp.maximum(jnp.asarray(member.lower), 0.0), jnp.asarray(member.upper))
        groups.setdefault(key, (member, []))[1].append(column)
    known = None
    for item in rule.members:
        if isinstance(item, Fixed):
            chosen = jnp.asarray(_columns(item, rule.rank))
            known = jnp.full((size, rule.rank), jnp.nan) if known is None else known
            values = jnp.asarray(item.values, known.dtype)
            known = known.at[:, chosen].set(jnp.where(jnp.isnan(values), known[:, chosen], values))
    return Chart(
        tuple(tuple(columns) for _, columns in groups.values()), tuple(member for member, _ in groups.values()), known
    )


def slopes_and_bends(
    chart: Chart, free: Float[Array, "size rank"], slope: Float[Array, "size rank"]
) -> tuple[Float[Array, "size rank"], Float[Array, "size rank"]]:
    """Return how an entry moves with its variable, and the curvature that the bend of the map adds where it is upward.

    Where variables have no entry of their own the first is a root mean square over the column.
    """
    ones = jnp.ones_like(free)
    along = jax.jvp(chart.forward, (free,), (ones,))[1]
    if not all(chart.by_entry):
        signs = jax.random.rademacher(jax.random.key(0), free.shape, dtype=free.dtype)
        spread = jax.jvp(chart.forward, (free,), (signs,))[1]
        mean = jnp.broadcast_to(jnp.sqrt(jnp.mean(jnp.square(spread), axis=0)), free.shape)
        along = jnp.where(jnp.asarray(chart.by_entry), along, mean)
    bend = jax.jvp(jax.grad(lambda u: jnp.sum(slope * chart.forward(u))), (free,), (ones,))[1]
    return along, jnp.maximum(bend, 0)
