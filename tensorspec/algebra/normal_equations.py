"""The one question that every least-squares model asks of a mode."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["NormalEquations"]


class NormalEquations(NamedTuple):
    """Minimise ``1/2 tr(A G A^T) - <M, A>`` over a factor ``A`` of shape ``(size, rank)``.

    Attributes
    ----------
    gram
        ``(rank, rank)``, or ``(size, rank, rank)``, one per row, where entries have weights or are missing.
    right
        ``(size, rank)``.
    shared
        Where every row has the same Gram matrix but for a weight of its own: that matrix and the weights, ``(size,)``.
        Who uses them spares the product of both, which is `gram`.
    """

    gram: Float[Array, "..."]
    right: Float[Array, "size rank"]
    shared: tuple[Float[Array, "rank rank"], Float[Array, " size"]] | None = None

    def plus(self, other: NormalEquations) -> NormalEquations:
        """Return the sum: this is what coupling two tensors means."""
        first, second = self.gram, other.gram
        if first.ndim != second.ndim:
            first = first[None] if first.ndim == 2 else first
            second = second[None] if second.ndim == 2 else second
        return NormalEquations(first + second, self.right + other.right)

    def scaled(self, weight: Float[Array, ""]) -> NormalEquations:
        """Return the equations of the objective times `weight`."""
        return NormalEquations(self.gram * weight, self.right * weight.astype(self.right.dtype))

    @property
    def per_row(self) -> bool:
        """Whether every row has a Gram matrix of its own."""
        return self.gram.ndim == 3

    def value(self, factor: Float[Array, "size rank"]) -> Float[Array, ""]:
        """Return ``1/2 tr(A G A^T) - <M, A>``, summed in float64."""
        factor = factor.astype(jnp.float64)
        linear = jnp.sum(self.right.astype(jnp.float64) * factor)
        if self.shared is not None:
            gram, weights = self.shared
            product = (factor @ gram.astype(jnp.float64)) * weights.astype(jnp.float64)[:, None]
            return 0.5 * jnp.sum(product * factor) - linear
        if self.per_row:
            product = jnp.einsum("nr,nrs->ns", factor, self.gram.astype(jnp.float64))
            return 0.5 * jnp.sum(product * factor) - linear
        return 0.5 * jnp.sum((factor.T @ factor) * self.gram.astype(jnp.float64)) - linear
