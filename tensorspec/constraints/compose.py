"""All constraints of one mode as one object: what a solver holds.

Entry-separable constraints are composed into one proximal map (squares completed first, then penalties, bounds and
known entries: exact in one dimension).  Any other joins them where the composition is exact, and else keeps a map of
its own, a split.  One split is enough for column-wise solvers and for extrapolation; several need ADMM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    AbstractMajorisedPenalty,
    AbstractPenalty,
    AbstractQuadraticPenalty,
    ChecksPartners,
    Combinable,
    CompletesSquare,
    Composable,
    Iterated,
    Majorised,
    Positive,
    Quadratic,
    Separability,
    Stateful,
    component_field,
)
from tensorspec.constraints.known import Fixed
from tensorspec.constraints.nonnegative import NonNegative
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
    if isinstance(constraint, CompletesSquare):
        return -1
    if isinstance(constraint, Fixed):
        return 3
    if isinstance(constraint, AbstractHardConstraint):
        return 1 if constraint.degree == 0 else 2
    return 0


def _apply(member: Any, values: Array, step: Any, column: Any = None, memory: Any = None) -> tuple[Array, Any, Any]:
    """Return a proximal map of the values, the step that is left for the maps that follow, and what is remembered."""
    if isinstance(member, CompletesSquare):
        changed, step = member.complete_square(values, step, column)
    elif memory is not None:
        changed, memory = member.prox_from(values, step, memory, column)
    else:
        changed = member.prox(values, step) if column is None else member.prox(values, step, column)
    return changed.astype(values.dtype), step, memory


def _exact(first: AbstractConstraint, second: AbstractConstraint) -> bool:
    """Return whether the second's proximal map after the first's is that of both."""
    return (isinstance(first, Composable) and first.precedes(second)) or (
        isinstance(second, Composable) and second.follows(first)
    )


class _Bound(AbstractQuadraticPenalty):
    """The quadratic through a factor that stands for a majorised penalty while a block is updated."""

    gram: Any
    linear: Any
    constant: Any
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ROW
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 2

    def quadratic(self, size: int, columns: int) -> Quadratic:
        del size, columns
        return Quadratic(self.gram, self.linear, self.constant)


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
            for split in splits:
                place = self._place(index, split)
                if place is not None:
                    split.insert(place, index)
                    break
            else:
                splits.append([index])
        return tuple(tuple(split) for split in splits)

    def _place(self, index: int, split: Sequence[int]) -> int | None:
        """Return where in a split a member's map can go, exactly, or None."""
        member, own = self.members[index], set(self._acting(self.members[index]))
        met = [other for other in (self.members[k] for k in split) if own & set(self._acting(other))]
        if all(_exact(other, member) for other in met):
            return len(split)
        return 0 if all(_exact(member, other) for other in met) else None

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
    def ties_rows(self) -> bool:
        """Whether any proximal map looks across rows, so that they need a common step."""
        kinds = [self.members[index].separability for split in self._proximal for index in split]
        return any(kind in (Separability.COLUMN, Separability.MATRIX) for kind in kinds)

    @property
    def nonnegative(self) -> bool:
        """Whether no entry can go below zero."""
        members = [member for member in self.members if isinstance(member, Positive) and member.positive]
        return len({column for member in members for column in self._columns(member)}) == self.rank

    @property
    def convex(self) -> bool:
        """Whether every member is convex."""
        return all(member.convex for member in self.members)

    @property
    def convex_maps(self) -> bool:
        """Whether every member with a proximal map is convex."""
        return all(self.members[index].convex for split in self._proximal for index in split)

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
        heard = (AbstractHardConstraint, AbstractPenalty, AbstractQuadraticPenalty, AbstractMajorisedPenalty)
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
        implied = {
            column
            for other in self.members
            if isinstance(other, Positive) and other.positive and not isinstance(other, NonNegative)
            for column in self._columns(other)
        }
        return tuple(column for column in columns if column not in implied)

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None, split: int = 0) -> Float[Array, "..."]:
        """Return the proximal map of one split; a column ``(size,)`` when its index is given."""
        return self.prox_from(values, step, None, column, split)[0]

    def memory(self, size: int) -> tuple[tuple[Any, ...], ...]:
        """Return for each split what the iterations of its members begin with, a row for each component."""

        def rows(member: Any) -> Any:
            own = member.memory(size) if isinstance(member, Iterated) else None
            return jax.tree.map(lambda values: jnp.tile(values, (self.rank, 1)), own)

        return tuple(tuple(rows(self.members[index]) for index in split) for split in self._proximal)

    def prox_from(
        self, values: Float[Array, "..."], step: Any, memory: Any, column: Any = None, split: int = 0
    ) -> tuple[Float[Array, "..."], Any]:
        """Return the proximal map of one split, begun from what is remembered of similar values, and the same of these.

        With `column`, `memory` is that of the column; with None every map is found from the beginning, as far as its
        constraint documents.
        """
        own = self._proximal[split] if self._proximal else ()
        kept = []
        for index, known in zip(own, (None,) * len(own) if memory is None else memory, strict=True):
            member = self.members[index]
            assert isinstance(member, (AbstractHardConstraint, AbstractPenalty))
            columns = self._acting(member)
            everywhere = len(columns) == self.rank
            if column is not None:
                place = jnp.asarray([columns.index(r) if r in columns else -1 for r in range(self.rank)])[column]
                changed, left, known = _apply(member, values, step, jnp.maximum(place, 0), known)
                values = changed if everywhere else jnp.where(place >= 0, changed, values)
                step = left if everywhere else jnp.where(place >= 0, left, step)
            elif everywhere and columns == tuple(range(self.rank)):
                values, step, known = _apply(member, values, step, None, known)
            else:
                local = step[..., jnp.asarray(columns)] if jnp.ndim(step) == 2 and jnp.shape(step)[1] > 1 else step
                chosen = jnp.asarray(columns)
                mine = jax.tree.map(lambda rows, at=chosen: rows[at], known)
                changed, left, mine = _apply(member, values[:, chosen], local, None, mine)
                known = jax.tree.map(lambda rows, new, at=chosen: rows.at[at].set(new), known, mine)
                values = values.at[:, chosen].set(changed)
                if left is not local:
                    step = jnp.broadcast_to(jnp.asarray(step, left.dtype), values.shape).at[:, chosen].set(left)
            kept.append(known)
        return values, tuple(kept)

    def touching(self, factor: Float[Array, "size rank"]) -> ModeConstraints:
        """Return the constraints with majorised penalties replaced by their quadratics through a factor."""
        members = []
        for member in self.members:
            if isinstance(member, AbstractMajorisedPenalty):
                columns = jnp.asarray(self._columns(member))
                terms = member.bound(factor.astype(jnp.float64)[:, columns])
                member = _Bound(terms.gram, terms.linear, terms.constant, components=member.components)
            members.append(member)
        return ModeConstraints(tuple(members), self.rank)

    @property
    def has_quadratic(self) -> bool:
        """Whether a member is a quadratic penalty, or stands for one."""
        return any(isinstance(member, (AbstractQuadraticPenalty, AbstractMajorisedPenalty)) for member in self.members)

    def quadratic(self, size: int, dtype: Any) -> Quadratic:
        """Return the sum of the quadratic penalties."""
        total = jnp.zeros((self.rank, self.rank), dtype)
        linear, constant = None, 0.0
        for member in self.members:
            # Left as it is, it would be left out; `touching` comes first.
            assert not isinstance(member, AbstractMajorisedPenalty)
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
