"""Factors that are known, wholly or in part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    AbstractPenalty,
    ChecksPartners,
    CompletesSquare,
    Context,
    OfSamples,
    Resolvable,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import ConstraintConflict

__all__ = ["Fixed", "Near"]


class Fixed(AbstractHardConstraint, Resolvable, ChecksPartners, OfSamples):
    """Entries with known values; NaN leaves an entry free.  It fixes the scale of the components it names.

    Parameters
    ----------
    values
        A DataArray with the dimensions (component, the mode's own), which `fit` aligns by coordinates, or a plain
        array of shape ``(size, components named)``.  In the units of the data where the mode carries the amplitudes.
    components
        Components it acts on, counted from 1; by default those that the DataArray names, or all.

    Examples
    --------
    >>> import numpy as np
    >>> known = Fixed(np.array([[1.0], [np.nan]]), components=[1])
    >>> known.project(np.array([[5.0], [5.0]])).tolist()
    [[1.0], [5.0]]
    """

    values: Any
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = None

    def resolve(self, context: Context) -> Fixed:
        """Return the constraint on exactly those components that have a known entry, in the problem's own units."""
        values, chosen = _settle("Fixed", self.values, self.components, context)
        return dataclasses.replace(self, values=values, components=chosen)

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse negative known values beside non-negativity."""
        values = np.asarray(self.values, dtype=float)
        negative = int(np.sum(values < 0))
        if negative and any(isinstance(other, NonNegative) for other in others):
            return (
                f"Fixed holds {negative} negative values (lowest {np.nanmin(values):.6g}), and NonNegative() forbids "
                "them; clip the values or drop NonNegative()"
            )
        return None

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the values with the known entries put in."""
        values = jnp.asarray(values)
        known = jnp.asarray(self.values, values.dtype)
        if values.ndim == 1:
            known = known[:, 0 if column is None else column]
        return jnp.where(jnp.isnan(known), values, known)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest difference from a known entry."""
        known = jnp.asarray(self.values, factor.dtype)
        return jnp.max(jnp.where(jnp.isnan(known), 0, jnp.abs(factor - known)), initial=0.0)


class Near(AbstractPenalty, Resolvable, CompletesSquare, OfSamples):
    """Half a strength times the squared distance to given values; NaN leaves an entry free.

    A soft `Fixed`: references that are nearly right.  It fixes the scale of the components it names, as the values
    have one.

    Parameters
    ----------
    values
        A DataArray with the dimensions (component, the mode's own), which `fit` aligns by coordinates, or a plain
        array of shape ``(size, components named)``.  In the units of the data where the mode carries the amplitudes.
    strength
        Weight in the objective of the problem as solved: the data, and the values with them, divided by the root mean
        square of the data, or the data themselves with ``rescale=False``.
    components
        Components it acts on, counted from 1; by default those that the DataArray names, or all.

    Raises
    ------
    InvalidArgument
        When the strength is not a number of zero or more.
    ConstraintConflict
        By `fit`, when the shape of the values is not that of the mode, or all of them are NaN.

    Notes
    -----
    With `Sparse`, bounds and `Fixed` on the same mode the proximal map is exact: the square is completed first, which
    moves the point and shortens the step that the others see, entry by entry.

    Examples
    --------
    >>> import numpy as np
    >>> Near(np.array([[1.0], [np.nan]]), 1.0, components=[1]).prox(np.array([[3.0], [3.0]]), step=1.0).tolist()
    [[2.0], [3.0]]
    """

    values: Any
    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = None

    def resolve(self, context: Context) -> Near:
        """Return the penalty on exactly those components that have a known entry, in the problem's own units."""
        values, chosen = _settle("Near", self.values, self.components, context)
        return dataclasses.replace(self, values=values, components=chosen)

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the mean of the values and the given ones, weighted with one over the step and the strength."""
        return self.complete_square(values, step, column)[0]

    def complete_square(
        self, values: Float[Array, "..."], step: Any, column: Any = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the weighted means, and one over the sum of the weights."""
        values = jnp.asarray(values)
        given = jnp.asarray(self.values, values.dtype)
        if values.ndim == 1:
            given = given[:, 0 if column is None else column]
        free = jnp.isnan(given)
        weight = jnp.where(free, 0, jnp.asarray(self.strength * step, values.dtype))
        return (values + weight * jnp.where(free, 0, given)) / (1 + weight), step / (1 + weight)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return half the strength times the sum of squared distances."""
        given = jnp.asarray(self.values, factor.dtype)
        return 0.5 * self.strength * jnp.sum(jnp.where(jnp.isnan(given), 0, jnp.square(factor - given)))


def _settle(
    name: str, given: Any, components: tuple[int, ...] | None, context: Context
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the columns with a known entry, in the units of the problem, and the components that they belong to."""
    values = np.asarray(given, dtype=float)
    named = components or tuple(range(1, context.rank + 1))
    if values.shape != (context.size, len(named)):
        raise ConstraintConflict(
            f"{name} on mode {context.mode!r}: expected values of shape (size {context.size}, components "
            f"{len(named)}), got {values.shape}; a DataArray with a 'component' dimension is aligned for you"
        )
    if np.isinf(values).any():
        raise ConstraintConflict(f"{name} on mode {context.mode!r} holds infinite values; NaN leaves an entry free")
    known = np.logical_not(np.isnan(values).all(axis=0)).tolist()
    if not any(known):
        raise ConstraintConflict(f"{name} on mode {context.mode!r} holds no known value; drop it")
    chosen = tuple(number for number, use in zip(named, known, strict=True) if use)
    return values[:, known] * context.data_scale, chosen
