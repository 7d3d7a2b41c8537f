"""Bounds on the entries of a factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    Bijective,
    ChecksPartners,
    Context,
    Positive,
    Resolvable,
    Separability,
    component_field,
)
from tensorspec.errors import InvalidArgument

__all__ = ["Box", "NonNegative"]


class NonNegative(AbstractHardConstraint, Bijective, Positive):
    """Entries of zero or more.

    Parameters
    ----------
    components
        Components it acts on, counted from 1; all of them by default.

    Examples
    --------
    >>> import numpy as np
    >>> NonNegative().project(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the values with negative entries set to zero."""
        del column
        return jnp.maximum(values, 0)

    @property
    def positive(self) -> bool:
        """Always."""
        return True

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the size of the most negative entry."""
        return jnp.max(jnp.maximum(-factor, 0))

    def forward(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the squares; zero is a stationary point, so start above it."""
        return jnp.square(free)

    def inverse(self, factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the square roots."""
        return jnp.sqrt(jnp.maximum(factor, 0))


class Box(AbstractHardConstraint, Bijective, Resolvable, ChecksPartners):
    """Entries between two bounds.  It fixes the scale of its mode.

    Parameters
    ----------
    lower, upper
        Bounds, in the units of the data where the mode carries the amplitudes.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        When a bound is not a number, or the lower one is not below the upper one.

    Examples
    --------
    >>> import numpy as np
    >>> Box(0, 1).project(np.array([-1.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    lower: Any = eqx.field(converter=lambda value: float(value) if isinstance(value, (int, float)) else value)
    upper: Any = eqx.field(converter=lambda value: float(value) if isinstance(value, (int, float)) else value)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = None

    def __check_init__(self) -> None:
        """Refuse bounds that hold nothing."""
        if isinstance(self.lower, float) and isinstance(self.upper, float) and not self.lower < self.upper:
            raise InvalidArgument(
                f"Box(lower={self.lower}, upper={self.upper}): expected a lower bound below the upper one"
            )

    def resolve(self, context: Context) -> Box:
        """Return the box in the units of the problem as solved."""
        return Box(
            np.float64(self.lower * context.data_scale),
            np.float64(self.upper * context.data_scale),
            components=self.components,
        )

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse a box that leaves no non-negative value."""
        if any(isinstance(other, NonNegative) for other in others) and isinstance(self.upper, float) and self.upper < 0:
            return f"{self!r} lies wholly below zero, and NonNegative() forbids that; drop one of them"
        return None

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the values clipped to the bounds."""
        del column
        values = jnp.asarray(values)
        return jnp.clip(values, jnp.asarray(self.lower, values.dtype), jnp.asarray(self.upper, values.dtype))

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far the worst entry lies outside."""
        return jnp.max(jnp.maximum(jnp.maximum(self.lower - factor, factor - self.upper), 0))

    def forward(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the logistic map into the box."""
        return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(free)

    def inverse(self, factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the logit of the place within the box, kept off the walls."""
        share = jnp.clip((factor - self.lower) / (self.upper - self.lower), 1e-6, 1 - 1e-6)
        return jnp.log(share) - jnp.log1p(-share)
