"""Abundances in which every component is alone somewhere: a sample with pure pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    ChecksPartners,
    Combinable,
    Context,
    Positive,
    Resolvable,
    Separability,
    component_field,
    overlap,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.constraints.simplex import Simplex, SumToOne
from tensorspec.errors import ConstraintConflict

__all__ = ["PurePixel", "PureSimplex", "assign"]


class PurePixel(AbstractHardConstraint, Combinable, ChecksPartners):
    """Every component has at least one pixel in which it alone is present.

    A belief about the sample: its spectra were then all measured somewhere, and a factorization under it is nearly
    unique.  It goes with ``SumToOne("component")`` and `NonNegative` on the mode of the maps, which make the factor one
    of abundances: for each component one row of it is a unit vector.  Without them it would say nothing, as a dark
    pixel can be made pure at hardly any cost.

    Parameters
    ----------
    components
        Components that have a pure pixel, counted from 1; all of them by default.

    Raises
    ------
    ConstraintConflict
        When the two partners are missing, or the mode has fewer points than there are pure components.

    Notes
    -----
    The projection is exact: rows go to the nearest point of the unit simplex, and those pixels become pure, a different
    one for each component, for which that costs least in total.  It is a linear assignment problem, solved by shortest
    augmenting paths; only the cheapest pixels of each component, as many as there are components, can be in a best
    assignment.

    The set is not convex, and which pixels are pure is a choice that a fit makes early: use restarts.

    References
    ----------
    Near-separable factorization: Gillis and Vavasis, IEEE Transactions on Pattern Analysis and Machine Intelligence 36
    (2014) 698, doi:10.1109/TPAMI.2013.226.  The assignment: Jonker and Volgenant, Computing 38 (1987) 325,
    doi:10.1007/BF02278710.

    Examples
    --------
    >>> import numpy as np
    >>> maps = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    >>> np.asarray(PurePixel().project(maps)).round(6).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = None

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse to stand without non-negative abundances that add up to one, or twice."""
        if any(isinstance(other, PurePixel) and overlap(self, other) for other in others):
            return "PurePixel() stands twice for the same components; drop one"
        sums = [o for o in others if isinstance(o, SumToOne) and o.axis == "component" and _within(self, o)]
        if not sums or not any(isinstance(o, NonNegative) and _within(sums[0], o) for o in others):
            return (
                "PurePixel() needs NonNegative() and SumToOne('component') on the same mode (and components): without "
                "them a pixel with hardly any signal becomes pure at no cost; add both to the list"
            )
        if any(isinstance(o, PurePixel) for o in others):
            return "two PurePixel constraints on one mode have no joint projection; name all components in one"
        return None

    def combine(self, other: AbstractConstraint) -> AbstractConstraint | None:
        """Return one constraint for abundances with pure pixels."""
        if isinstance(other, (SumToOne, Simplex)) and other.axis == "component" and _within(self, other):
            if self.components is None:
                return PureSimplex(components=other.components)
            numbers = other.components
            places = [k - 1 if numbers is None else numbers.index(k) for k in self.components]
            return PureSimplex(tuple(places), components=numbers)
        return None

    def project(self, values: Float[Array, "size columns"], column: Any = None) -> Float[Array, "size columns"]:
        """Return the nearest abundances with a pure pixel for every component."""
        return PureSimplex().project(values, column)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far the worst component is from having a pure pixel, or an abundance from what is allowed."""
        return PureSimplex().violation(factor)


class PureSimplex(AbstractHardConstraint, Positive, Resolvable):
    """What `PurePixel`, `NonNegative` and ``SumToOne("component")`` are together.

    Parameters
    ----------
    pure
        Which of the columns that add up to one have a pure pixel, counted from 0; None for all.
    components
        Components that add up to one, counted from 1; all of them by default.
    """

    pure: tuple[int, ...] | None = eqx.field(default=None, static=True)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = None

    @property
    def positive(self) -> bool:
        """Always."""
        return True

    def resolve(self, context: Context) -> PureSimplex:
        """Return the constraint as it is, once the mode is known to have enough points."""
        rank = context.rank if self.components is None else len(self.components)
        count = len(self._places(rank))
        if count > context.size:
            raise ConstraintConflict(
                f"PurePixel() on mode {context.mode!r}: {count} components need as many pixels, and there are "
                f"{context.size}; name fewer with components=[...], or lower the rank"
            )
        return self

    def project(self, values: Float[Array, "size columns"], column: Any = None) -> Float[Array, "size columns"]:
        """Return the nearest abundances with a pure pixel for every component that has one."""
        del column
        values = jnp.asarray(values)
        nearest = Simplex("component").project(values)
        places = jnp.asarray(self._places(values.shape[1]))
        # |v - e|^2 - |v - s|^2, without the squares that cancel.
        cost = 1 - jnp.sum(jnp.square(nearest), axis=1) + 2 * jnp.sum(values * nearest, axis=1)
        pixels = assign((cost[:, None] - 2 * values)[:, places].T)
        pure = jnp.eye(values.shape[1], dtype=values.dtype)[places]
        return nearest.at[pixels].set(pure)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far the worst component is from having a pure pixel, or an abundance from what is allowed."""
        pure = jnp.eye(factor.shape[1], dtype=factor.dtype)[jnp.asarray(self._places(factor.shape[1]))]
        apart = jnp.max(jnp.abs(factor[:, None, :] - pure), axis=2)
        return jnp.maximum(Simplex("component").violation(factor), jnp.max(jnp.min(apart, axis=0)))

    def _places(self, columns: int) -> tuple[int, ...]:
        return tuple(range(columns)) if self.pure is None else self.pure


def _within(inner: AbstractConstraint, outer: AbstractConstraint) -> bool:
    """Return whether all components of the first are among those of the second."""
    if outer.components is None:
        return True
    return inner.components is not None and set(inner.components) <= set(outer.components)


def assign(cost: Float[Array, "rows columns"]) -> Int[Array, " rows"]:
    """Return a different column for each row, such that the sum of the costs is least.

    Parameters
    ----------
    cost
        With at least as many columns as rows.

    Examples
    --------
    >>> import numpy as np
    >>> assign(np.array([[1.0, 2.0, 9.0], [1.0, 5.0, 9.0]])).tolist()
    [1, 0]
    """
    cost = jnp.asarray(cost)
    rows, total = cost.shape
    if total > rows * rows:
        # A row needs no column beyond its cheapest ones: of as many as there are rows, the others leave one free.
        cheapest = jax.lax.top_k(-cost, rows)[1].ravel()
        chosen = jnp.unique(cheapest, size=rows * rows, fill_value=total)
        wide = jnp.pad(cost, ((0, 0), (0, 1)), constant_values=jnp.inf)
        return chosen[_by_shortest_paths(wide[:, chosen])]
    return _by_shortest_paths(cost)


def _by_shortest_paths(cost: Float[Array, "rows columns"]) -> Int[Array, " rows"]:
    """Return the best assignment, one row after the other along the shortest augmenting path.

    Column 0 and row 0 are put in front: the column holds the row that comes in, the row stands for none.
    """
    rows, columns = cost.shape
    cost = jnp.pad(cost, ((1, 0), (1, 0)))

    def one_row(row: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        prices, discounts, owner = carry
        owner = owner.at[0].set(row)

        def searching(state: tuple[Array, ...]) -> Array:
            return owner[state[0]] != 0

        def search(state: tuple[Array, ...]) -> tuple[Array, ...]:
            at, reached, distance, before, prices, discounts = state
            reached = reached.at[at].set(True)
            new = cost[owner[at]] - prices[owner[at]] - discounts
            closer = ~reached & (new < distance)
            distance, before = jnp.where(closer, new, distance), jnp.where(closer, at, before)
            open_distance = jnp.where(reached, jnp.inf, distance)
            nearest = jnp.argmin(open_distance)
            step = open_distance[nearest]
            prices = prices.at[owner].add(jnp.where(reached, step, 0))
            discounts = jnp.where(reached, discounts - step, discounts)
            distance = jnp.where(reached, distance, distance - step)
            return nearest, reached, distance, before, prices, discounts

        start = (
            jnp.asarray(0),
            jnp.zeros(columns + 1, bool),
            jnp.full(columns + 1, jnp.inf, cost.dtype),
            jnp.zeros(columns + 1, int),
            prices,
            discounts,
        )
        at, _, _, before, prices, discounts = jax.lax.while_loop(searching, search, start)

        def augment(state: tuple[Array, Array]) -> tuple[Array, Array]:
            at, owner = state
            return before[at], owner.at[at].set(owner[before[at]])

        _, owner = jax.lax.while_loop(lambda state: state[0] != 0, augment, (at, owner))
        return prices, discounts, owner

    start = (jnp.zeros(rows + 1, cost.dtype), jnp.zeros(columns + 1, cost.dtype), jnp.zeros(columns + 1, int))
    owner = jax.lax.fori_loop(1, rows + 1, one_row, start)[2][1:]
    return jnp.zeros(rows + 1, int).at[owner].set(jnp.arange(columns), mode="drop")[1:]
