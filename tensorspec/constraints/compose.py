"""All constraints of one mode as one object: what a solver holds.

Entry-separable constraints are composed into one proximal map (penalties first, then bounds, then known entries: exact
in one dimension); any other keeps a map of its own, a split.  One split is enough for column-wise solvers and for
extrapolation; several need ADMM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    AbstractPenalty,
    AbstractQuadraticPenalty,
    ChecksPartners,
    Combinable,
    Majorised,
    Quadratic,
    Separability,
    Stateful,
)
from tensorspec.constraints.known import Fixed
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.constraints.simplex import Simplex
from tensorspec.errors import ConstraintConflict

__all__ = ["ModeConstraints", "check_partners", "combine"]


def check_partners(mode: str, constraints: Sequence[AbstractConstraint]) -> None:
    """Refuse contradictory constraints by name.

    Raises
    ------
    ConstraintConflict
        With the reason that the constraint itself gives.
    """
    for index, constraint in enumerate(constraints):
        if isinstance(constraint, ChecksPartners):
            reason = constraint.complaint([*constraints[:index], *constraints[index + 1 :]])
            if reason:
                raise ConstraintConflict(f"constraints of mode {mode!r}: {reason}")


def combine(constraints: Sequence[AbstractConstraint]) -> tuple[AbstractConstraint, ...]:
    """Return the constraints with every pair that has a known joint proximal map replaced by one.

    A partner that acts on more components than the pair stays, for those.
    """
    left = list(constraints)
    for first in constraints:
        if not (isinstance(first, Combinable) and any(item is first for item in left)):
            continue
        for second in list(left):
            joint = None if second is first else first.combine(second)
            if joint is not None:
                spent = second.components == joint.components
                left = [joint if item is first else item for item in left if not (spent and item is second)]
                break
    return tuple(left)


def _order(constraint: AbstractConstraint) -> int:
    if isinstance(constraint, Fixed):
        return 3
    if isinstance(constraint, AbstractHardConstraint):
        return 1 if constraint.degree == 0 else 2
    return 0


class ModeConstraints(eqx.Module):
    """The constraints of one mode, resolved.

    Parameters
    ----------
    members
        The constraints, as `combine` left them.
    rank
        Number of components.
    """

    members: tuple[AbstractConstraint, ...]
    rank: int = eqx.field(static=True)

    @property
    def _proximal(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the members of each split; members that meet on no component share one."""
        entry, rest = [], []
        for index, member in enumerate(self.members):
            if isinstance(member, (AbstractHardConstraint, AbstractPenalty)) and self._acting(member):
                (entry if member.separability == Separability.ENTRY else rest).append(index)
        entry.sort(key=lambda index: _order(self.members[index]))
        splits = [entry] if entry else []
        for index in rest:
            own = set(self._acting(self.members[index]))
            for split in splits:
                if not any(own & set(self._acting(self.members[other])) for other in split):
                    split.append(index)
                    break
            else:
                splits.append([index])
        return tuple(tuple(split) for split in splits)

    @property
    def splits(self) -> int:
        """Number of proximal maps that cannot be composed into one."""
        return len(self._proximal)

    @property
    def separability(self) -> Separability:
        """The worst separability among the proximal maps."""
        kinds = [self.members[index].separability for split in self._proximal for index in split]
        return max(kinds, default=Separability.ENTRY)

    @property
    def nonnegative(self) -> bool:
        """Whether no entry can go below zero."""
        members = [member for member in self.members if isinstance(member, (NonNegative, Simplex))]
        return len({column for member in members for column in self._columns(member)}) == self.rank

    @property
    def convex(self) -> bool:
        """Whether every member is convex."""
        return all(member.convex for member in self.members)

    @property
    def scale_free(self) -> bool:
        """Whether scaling a column up never changes what the constraints say (cones only)."""
        return all(member.degree == 0 for member in self.members)

    def exact_on_sphere(self, held: Sequence[bool]) -> bool:
        """Return whether the normalised proximal map of the held columns is the minimiser at unit norm.

        So it is for cones and norms: where h = p + q with p the proximal map, <h, b> - norm(b) is largest along p.
        """
        acting = [self.members[index] for split in self._proximal for index in split]
        return all(
            member.degree in (0, 1) for member in acting if any(held[column] for column in self._columns(member))
        )

    @property
    def unheard(self) -> tuple[str, ...]:
        """Names of the members that offer none of the channels: only a solver made for them can take them."""
        heard = (AbstractHardConstraint, AbstractPenalty, AbstractQuadraticPenalty)
        return tuple(type(member).__name__ for member in self.members if not isinstance(member, heard))

    @property
    def fixed_columns(self) -> tuple[bool, ...]:
        """Which components have their scale fixed on this mode."""
        fixed = [False] * self.rank
        for member in self.members:
            if member.degree is None:
                for column in self._columns(member):
                    fixed[column] = True
        return tuple(fixed)

    def _columns(self, member: AbstractConstraint) -> tuple[int, ...]:
        if member.components is None:
            return tuple(range(self.rank))
        return tuple(number - 1 for number in member.components)

    def _acting(self, member: AbstractConstraint) -> tuple[int, ...]:
        """Return the columns where a member says more than another one does."""
        columns = self._columns(member)
        if not isinstance(member, NonNegative):
            return columns
        implied = {column for other in self.members if isinstance(other, Simplex) for column in self._columns(other)}
        return tuple(column for column in columns if column not in implied)

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None, split: int = 0) -> Float[Array, "..."]:
        """Return the proximal map of one split; a column ``(size,)`` when its index is given."""
        if not self._proximal:
            return values
        for index in self._proximal[split]:
            member = self.members[index]
            assert isinstance(member, (AbstractHardConstraint, AbstractPenalty))
            columns = self._acting(member)
            everywhere = len(columns) == self.rank
            if column is not None:
                place = jnp.asarray([columns.index(r) if r in columns else -1 for r in range(self.rank)])[column]
                changed = member.prox(values, step, jnp.maximum(place, 0)).astype(values.dtype)
                values = changed if everywhere else jnp.where(place >= 0, changed, values)
            elif everywhere and columns == tuple(range(self.rank)):
                values = member.prox(values, step).astype(values.dtype)
            else:
                local = step[..., jnp.asarray(columns)] if jnp.ndim(step) == 2 and jnp.shape(step)[1] > 1 else step
                chosen = jnp.asarray(columns)
                values = values.at[:, chosen].set(member.prox(values[:, chosen], local).astype(values.dtype))
        return values

    def quadratic(self, size: int, dtype: Any) -> Quadratic:
        """Return the sum of the quadratic penalties."""
        total = jnp.zeros((self.rank, self.rank), dtype)
        linear, constant = None, 0.0
        for member in self.members:
            if isinstance(member, AbstractQuadraticPenalty):
                columns = jnp.asarray(self._columns(member))
                terms = member.quadratic(size, len(columns))
                total = total.at[columns[:, None], columns[None, :]].add(terms.gram.astype(dtype))
                constant = constant + terms.constant
                if terms.linear is not None:
                    linear = jnp.zeros((size, self.rank), dtype) if linear is None else linear
                    linear = linear.at[:, columns].add(terms.linear.astype(dtype))
        return Quadratic(total, linear, constant)

    def value(self, factor: Float[Array, "size rank"]) -> Float[Array, ""]:
        """Return what the constraints add to the objective, summed in float64."""
        factor = factor.astype(jnp.float64)
        total = jnp.zeros((), jnp.float64)
        for member in self.members:
            total = total + member.value(factor[:, jnp.asarray(self._columns(member))])
        return total

    def violation(self, factor: Float[Array, "size rank"]) -> Float[Array, ""]:
        """Return the worst violation."""
        worst = jnp.zeros((), jnp.float64)
        for member in self.members:
            worst = jnp.maximum(worst, member.violation(factor[:, jnp.asarray(self._columns(member))]))
        return worst

    def init_state(self, size: int) -> ModeConstraints:
        """Return the constraints with the states that the first sweep starts from."""
        return ModeConstraints(
            tuple(
                member.init_state(size, len(self._columns(member))) if isinstance(member, Stateful) else member
                for member in self.members
            ),
            self.rank,
        )

    def update_state(self, factor: Float[Array, "size rank"]) -> ModeConstraints:
        """Return the constraints with their states after a sweep."""
        return ModeConstraints(
            tuple(
                member.update_state(factor[:, jnp.asarray(self._columns(member))])
                if isinstance(member, Stateful)
                else member
                for member in self.members
            ),
            self.rank,
        )

    @property
    def stateful(self) -> bool:
        """Whether any member learns while the fit runs."""
        return any(isinstance(member, Stateful) for member in self.members)

    @property
    def shifting(self) -> bool:
        """Whether what a member learns changes its value, and not only the bound that its proximal map minimises."""
        return any(isinstance(member, Stateful) and not isinstance(member, Majorised) for member in self.members)
