"""Columns that only rise, only fall, or have a single peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.isotonic import nearest_rising, nearest_unimodal
from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    Bijective,
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
from tensorspec.errors import ConstraintConflict

__all__ = ["Monotone", "NonNegativeMonotone", "NonNegativeUnimodal", "Unimodal"]

# A step of zero has no logarithm; its free variable stands this far off.
_SMALLEST_STEP = 1e-12


class Monotone(AbstractHardConstraint, Bijective, Combinable, ChecksPartners, Resolvable):
    """Columns that never fall, or never rise, along the points of the mode as they stand.

    A convex cone; the projection is isotonic regression.  With `NonNegative` beside it, negative values of the
    projection become zero, which is the exact projection onto both.  A background that only decays is
    ``Monotone(increasing=False)``; where coordinates run backwards, so does the meaning.

    Parameters
    ----------
    increasing
        Whether columns may only rise; else they may only fall.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    ConstraintConflict
        When the points of the mode form a grid of more than one dimension, which has no order.

    References
    ----------
    Ayer et al., Annals of Mathematical Statistics 26 (1955) 641, doi:10.1214/aoms/1177728423.

    Examples
    --------
    >>> import numpy as np
    >>> Monotone().project(np.array([1.0, 3.0, 2.0])).tolist()
    [1.0, 2.5, 2.5]
    >>> Monotone(increasing=False).project(np.array([1.0, 3.0, 2.0])).tolist()
    [2.0, 2.0, 2.0]
    """

    increasing: bool = eqx.field(default=True, static=True, converter=bool)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    def resolve(self, context: Context) -> Monotone:
        """Return the constraint as it is, once the mode is known to have an order."""
        _require_order(self, context)
        return self

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse another direction, and a single peak, on the same components."""
        for other in others:
            if isinstance(other, Monotone) and overlap(self, other):
                if other.increasing == self.increasing:
                    return f"{self!r} stands twice for the same components; drop one"
                return (
                    "Monotone(increasing=True) and Monotone(increasing=False) on the same components leave only flat "
                    "columns; drop one, or give them different components"
                )
            if isinstance(other, Unimodal) and overlap(self, other):
                return "Unimodal() says nothing beside Monotone() on the same components; drop one of them"
        return None

    def combine(self, other: AbstractConstraint) -> AbstractConstraint | None:
        """Return one constraint for both when the other is non-negativity of the same components."""
        if isinstance(other, NonNegative) and other.components in (None, self.components):
            return NonNegativeMonotone(self.increasing, components=self.components)
        return None

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest columns that never turn."""
        del column
        return _by_column(nearest_rising if self.increasing else _nearest_falling, values)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest step in the wrong direction."""
        steps = jnp.diff(factor, axis=0)
        return jnp.max(-steps if self.increasing else steps, initial=0.0)

    def forward(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the running sums of the first value and of steps that are above zero."""
        steps = jax.nn.softplus(free[1:])
        return jnp.cumsum(jnp.concatenate([free[:1], steps if self.increasing else -steps]), axis=0)

    def inverse(self, factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the first value and the free variables of the steps, these kept off zero."""
        steps = jnp.diff(factor, axis=0)
        return jnp.concatenate([factor[:1], _inverse_softplus(steps if self.increasing else -steps)])


class NonNegativeMonotone(AbstractHardConstraint, Positive, Bijective, Resolvable):
    """What `Monotone` and `NonNegative` are together."""

    increasing: bool = eqx.field(default=True, static=True, converter=bool)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    @property
    def positive(self) -> bool:
        """Always."""
        return True

    def resolve(self, context: Context) -> NonNegativeMonotone:
        """Return the constraint as it is, once the mode is known to have an order."""
        _require_order(Monotone(self.increasing), context)
        return self

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest columns without a negative entry that never turn."""
        # A bound moves no pool of an isotonic regression, it only cuts off the levels beyond it.
        return jnp.maximum(Monotone(self.increasing).project(values, column), 0)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest step in the wrong direction, or the size of the most negative entry."""
        return jnp.maximum(Monotone(self.increasing).violation(factor), jnp.max(-factor, initial=0.0))

    def forward(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the running sums, from the lower end, of steps that are above zero."""
        steps = jax.nn.softplus(free)
        return jnp.cumsum(steps, axis=0) if self.increasing else jnp.cumsum(steps[::-1], axis=0)[::-1]

    def inverse(self, factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the free variables of the steps from zero at the lower end, kept off zero."""
        if self.increasing:
            return _inverse_softplus(jnp.diff(factor, axis=0, prepend=jnp.zeros_like(factor[:1])))
        return _inverse_softplus(-jnp.diff(factor, axis=0, append=jnp.zeros_like(factor[:1])))


class Unimodal(AbstractHardConstraint, Combinable, ChecksPartners, Resolvable):
    """Columns with a single peak: up to some point they never fall, from there on they never rise.

    The peak may be at an end, and each column finds its own.  The projection is the best over all peaks, in time linear
    in the points.  The set is a cone but not convex, so that the peak of a column can stay where a start has put it:
    use restarts.  Without `NonNegative` a column of negative values counts as it is: a dip is no peak.

    Parameters
    ----------
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    ConstraintConflict
        When the points of the mode form a grid of more than one dimension, which has no order.

    References
    ----------
    Bro and Sidiropoulos, Journal of Chemometrics 12 (1998) 223,
    doi:10.1002/(SICI)1099-128X(199807/08)12:4<223::AID-CEM511>3.0.CO;2-2; the algorithm: Stout, Computational
    Statistics and Data Analysis 53 (2008) 289, doi:10.1016/j.csda.2008.08.005.

    Examples
    --------
    >>> import numpy as np
    >>> Unimodal().project(np.array([1.0, 3.0, 0.0, 2.0])).tolist()
    [1.0, 3.0, 1.0, 1.0]
    """

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 0

    def resolve(self, context: Context) -> Unimodal:
        """Return the constraint as it is, once the mode is known to have an order."""
        _require_order(self, context)
        return self

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse to stand twice."""
        if any(isinstance(other, Unimodal) and overlap(self, other) for other in others):
            return "Unimodal() stands twice for the same components; drop one"
        return None

    def combine(self, other: AbstractConstraint) -> AbstractConstraint | None:
        """Return one constraint for both when the other is non-negativity of the same components."""
        if isinstance(other, NonNegative) and other.components in (None, self.components):
            return NonNegativeUnimodal(components=self.components)
        return None

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest columns with a single peak."""
        del column
        return _by_column(nearest_unimodal, values)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest step in the wrong direction, with the peak where that is smallest."""
        return _peak_violation(factor)


class NonNegativeUnimodal(AbstractHardConstraint, Positive, Resolvable):
    """What `Unimodal` and `NonNegative` are together; to clip afterwards could leave the wrong peak."""

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 0

    @property
    def positive(self) -> bool:
        """Always."""
        return True

    def resolve(self, context: Context) -> NonNegativeUnimodal:
        """Return the constraint as it is, once the mode is known to have an order."""
        _require_order(Unimodal(), context)
        return self

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest columns with a single peak and without a negative entry."""
        del column
        return _by_column(lambda rows: nearest_unimodal(rows, floor=0.0), values)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest step in the wrong direction, or the size of the most negative entry."""
        return jnp.maximum(_peak_violation(factor), jnp.max(-factor, initial=0.0))


def _require_order(constraint: AbstractConstraint, context: Context) -> None:
    if sum(length > 1 for length in context.shape) > 1:
        raise ConstraintConflict(
            f"{constraint!r} on mode {context.mode!r}, whose points form a grid of shape {tuple(context.shape)}: "
            "expected points in a row, because rising and falling need an order; give it to a mode of one dimension"
        )


def _by_column(of_rows: Any, values: Any) -> Array:
    values = jnp.asarray(values)
    return of_rows(values[None, :])[0] if values.ndim == 1 else of_rows(values.T).T


def _nearest_falling(rows: Array) -> Array:
    return -nearest_rising(-rows)


def _peak_violation(factor: Array) -> Array:
    steps = jnp.diff(factor, axis=0)
    none = jnp.zeros_like(factor[:1])
    falls = jax.lax.cummax(jnp.concatenate([none, -steps]), axis=0)
    rises = jax.lax.cummax(jnp.concatenate([steps, none]), axis=0, reverse=True)
    return jnp.max(jnp.min(jnp.maximum(jnp.maximum(falls, rises), 0), axis=0))


def _inverse_softplus(steps: Array) -> Array:
    steps = jnp.maximum(steps, _SMALLEST_STEP)
    return steps + jnp.log(-jnp.expm1(-steps))
