"""Many small symmetric matrices at once, by products and sums alone.

The compiler hands decompositions of many matrices to LAPACK, in tasks for the threads that also wait for them: two such
calls of one program on a machine with two threads wait for each other for ever.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["eigenvalue_bound", "inverse"]

_EXACT = jax.lax.Precision.HIGHEST
# A matrix is squared so often; the bound of a matrix of rank r is above its eigenvalue by r^(1 / 2^n) at the most.
_SQUARINGS = 4


def inverse(matrices: Float[Array, "... rank rank"]) -> Float[Array, "... rank rank"]:
    """Return the inverse of symmetric positive definite matrices, by elimination without a choice of pivots.

    Parameters
    ----------
    matrices
        Positive definite, so that every diagonal entry is the pivot that it has to be.

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms (2002), chapter 14, doi:10.1137/1.9780898718027.

    Examples
    --------
    >>> (inverse(jnp.array([[2.0, 0.0], [0.0, 4.0]])) + 0.0).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    rank = matrices.shape[-1]

    def eliminate(k: Array, current: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(current, k, -2, keepdims=True)
        column = jax.lax.dynamic_index_in_dim(current, k, -1, keepdims=True)
        pivot = jax.lax.dynamic_index_in_dim(row, k, -1, keepdims=True)
        here = jnp.arange(rank) == k
        swept = current - column * row / pivot
        swept = jnp.where(here[:, None], row / pivot, swept)
        swept = jnp.where(here[None, :], -column / pivot, swept)
        return jnp.where(here[:, None] & here[None, :], 1 / pivot, swept)

    # Sweeping every row and column turns a symmetric matrix into its inverse.
    return jax.lax.fori_loop(0, rank, eliminate, matrices)


def eigenvalue_bound(matrices: Float[Array, "... rank rank"]) -> Float[Array, "..."]:
    """Return a number at or a little above the largest absolute eigenvalue of symmetric matrices.

    It is the root of the trace of a high power: at most ``rank ** (1 / 16)`` times the eigenvalue, 12 % for rank 6.

    Examples
    --------
    >>> round(float(eigenvalue_bound(jnp.array([[2.0, 1.0], [1.0, 2.0]]))), 6)
    3.0
    """
    scale = jnp.sqrt(jnp.sum(jnp.square(matrices), axis=(-2, -1)))
    power = matrices / jnp.where(scale > 0, scale, 1)[..., None, None]
    exponent = jnp.zeros_like(scale)
    for _ in range(_SQUARINGS):
        power = jnp.matmul(power, power, precision=_EXACT)
        size = jnp.trace(power, axis1=-2, axis2=-1)
        power = power / jnp.where(size > 0, size, 1)[..., None, None]
        exponent = 2 * exponent + jnp.log(jnp.where(size > 0, size, 1))
    return scale * jnp.exp(exponent / 2**_SQUARINGS)
