"""Penalties that set entries to zero."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import AbstractPenalty, Separability, component_field, strength_field

__all__ = ["Sparse"]


class Sparse(AbstractPenalty):
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

    strength: Any = strength_field()
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
