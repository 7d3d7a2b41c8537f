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
    ChecksPartners,
    Context,
    Resolvable,
    Separability,
    component_field,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import ConstraintConflict

__all__ = ["Fixed"]


class Fixed(AbstractHardConstraint, Resolvable, ChecksPartners):
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
        values = np.asarray(self.values, dtype=float)
        named = self.components or tuple(range(1, context.rank + 1))
        if values.shape != (context.size, len(named)):
            raise ConstraintConflict(
                f"Fixed on mode {context.mode!r}: expected values of shape (size {context.size}, components "
                f"{len(named)}), got {values.shape}; a DataArray with a 'component' dimension is aligned for you"
            )
        known = np.logical_not(np.isnan(values).all(axis=0)).tolist()
        if not any(known):
            raise ConstraintConflict(f"Fixed on mode {context.mode!r} holds no known value; drop it")
        chosen = tuple(number for number, use in zip(named, known, strict=True) if use)
        return dataclasses.replace(self, values=values[:, known] * context.data_scale, components=chosen)

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
