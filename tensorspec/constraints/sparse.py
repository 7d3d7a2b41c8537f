"""Penalties that set entries, or whole columns, to zero."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractPenalty,
    Composable,
    Separability,
    Uniform,
    component_field,
    strength_field,
)

__all__ = ["GroupSparse", "Sparse"]


class Sparse(AbstractPenalty, Uniform):
    """The sum of absolute entries times a strength (lasso).

    On the mode that carries the amplitudes it acts on these; on every other mode the columns have unit norm and it
    acts on their shape, so it cannot be dodged by moving scale elsewhere.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved: the data divided by their root mean square, or the data
        themselves with ``rescale=False``.
    components
        Components it acts on, counted from 1; all of them by default.

    References
    ----------
    Tibshirani, Journal of the Royal Statistical Society B 58 (1996) 267, doi:10.1111/j.2517-6161.1996.tb02080.x.

    Examples
    --------
    >>> import numpy as np
    >>> Sparse(0.5).prox(np.array([-2.0, 0.1, 1.0]), step=1.0).tolist()
    [-1.5, 0.0, 0.5]
    """

    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 1

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the soft threshold at strength times step."""
        del column
        values = jnp.asarray(values)
        threshold = jnp.asarray(self.strength * step, values.dtype)
        return jnp.sign(values) * jnp.maximum(jnp.abs(values) - threshold, 0)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return strength times the sum of absolute entries."""
        return self.strength * jnp.sum(jnp.abs(factor))


class GroupSparse(AbstractPenalty, Composable):
    """The sum over components of the L2 norm of their columns, times a strength (group lasso).

    On the mode that carries the amplitudes it sets the weakest components to zero as a whole.  In a coupled fit, on a
    mode that only one tensor has, it acts on the share that this tensor has in each component, so that components end
    up in some tensors only.  On any other mode the columns have unit norm, and it adds a constant.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved: the data divided by their root mean square, or the data
        themselves with ``rescale=False``.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        When the strength is not a number of zero or more.

    Notes
    -----
    Together with cones and norms, such as `NonNegative`, `Sparse` and `TotalVariation`, the proximal map is exact:
    theirs first, then the column is shortened.

    References
    ----------
    Yuan and Lin, Journal of the Royal Statistical Society B 68 (2006) 49, doi:10.1111/j.1467-9868.2005.00532.x.

    Examples
    --------
    >>> import numpy as np
    >>> GroupSparse(2.5).prox(np.array([[3.0, 0.1], [4.0, 0.1]]), step=1.0).tolist()
    [[1.5, 0.0], [2.0, 0.0]]
    """

    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 1

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return every column shortened by strength times step, down to zero."""
        del column
        values = jnp.asarray(values)
        threshold = jnp.asarray(self.strength * step, values.dtype)
        norm = jnp.linalg.norm(values, axis=0, keepdims=values.ndim == 2)
        left = jnp.maximum(norm - threshold, 0)
        return values * (left / jnp.where(norm > 0, norm, 1))

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return strength times the sum of the norms of the columns."""
        return self.strength * jnp.sum(jnp.linalg.norm(factor, axis=0))

    def precedes(self, other: AbstractConstraint) -> bool:
        """Return False: the norm is to be taken of what the others leave."""
        del other
        return False

    def follows(self, other: AbstractConstraint) -> bool:
        """Return whether scaling a column down keeps the other one content: so it is for cones and norms."""
        return other.degree in (0, 1)
