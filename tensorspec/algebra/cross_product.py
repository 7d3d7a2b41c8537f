"""Matrices that have the same cross-product as each other, and the nearest such matrices to given ones.

Matrices ``B_k`` of shape (size, rank) have the same cross-product ``B_k^T B_k`` where ``B_k = P_k D`` with orthonormal
columns in every ``P_k``.  For a given ``D`` the nearest ``P_k`` is the polar factor of ``B_k D^T``, and what is left of
the squared distance is that of Bures and Wasserstein between ``B_k^T B_k`` and ``D^T D``.  The best ``D^T D`` is
therefore the barycentre of the cross-products, a convex question, and alternating between the ``P_k`` and ``D`` is the
fixed-point iteration that solves it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["common_root", "nearest_same_cross_product", "polar", "relative_spread"]

# The iteration ends where the square of the distance changes by less than this share of the squares of the matrices.
_STANDSTILL = 1e-15
_MOST_ROUNDS = 100


def polar(matrices: Float[Array, "... size rank"]) -> Float[Array, "... size rank"]:
    """Return the nearest matrices with orthonormal columns."""
    left, _, right = jnp.linalg.svd(matrices, full_matrices=False)
    return left @ right


def common_root(matrices: Float[Array, "samples size rank"]) -> Float[Array, "rank rank"]:
    """Return the symmetric root of the mean cross-product: the one of each where all have the same."""
    mean = jnp.mean(jnp.einsum("kjr,kjs->krs", matrices, matrices), axis=0)
    values, vectors = jnp.linalg.eigh(mean)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T


def nearest_same_cross_product(
    matrices: Float[Array, "samples size rank"],
) -> Float[Array, "samples size rank"]:
    """Return the nearest matrices that all have the same cross-product.

    Parameters
    ----------
    matrices
        One of shape (size, rank) for each sample; no fewer rows than columns.

    References
    ----------
    Alvarez-Esteban, del Barrio, Cuesta-Albertos and Matran, Journal of Mathematical Analysis and Applications 441
    (2016) 744, doi:10.1016/j.jmaa.2016.04.045 (the iteration, for Gaussian distributions).

    Examples
    --------
    >>> import numpy as np
    >>> given = np.array([[[1.0], [0.0]], [[0.0], [3.0]]])
    >>> (np.asarray(nearest_same_cross_product(given)).round(5) + 0.0).tolist()
    [[[2.0], [0.0]], [[0.0], [2.0]]]
    """
    matrices = jnp.asarray(matrices)
    # Everything but the orthonormal bases happens in matrices of shape (rank, rank).
    bases, small = jnp.linalg.qr(matrices)
    total = jnp.sum(jnp.square(small))

    def turned(root: Array) -> Array:
        return polar(jnp.einsum("krs,ts->krt", small, root))

    def going(state: tuple[Array, Array, Array]) -> Array:
        _, gain, count = state
        return (gain > _STANDSTILL * total) & (count < _MOST_ROUNDS)

    def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        root, _, count = state
        new = jnp.mean(jnp.einsum("krt,krs->kts", turned(root), small), axis=0)
        # The distance falls by the square of the move and by what the polar factors gain.
        return new, len(small) * jnp.sum(jnp.square(new - root)), count + 1

    begin = (common_root(small), jnp.asarray(jnp.inf, small.dtype), jnp.asarray(0))
    root, _, _ = jax.lax.while_loop(going, improve, begin)
    return bases @ (turned(root) @ root)


def relative_spread(matrices: Float[Array, "samples size rank"]) -> Float[Array, ""]:
    """Return how far the worst entry of a cross-product is from the mean over samples.

    In units of the geometric mean of the two diagonal entries of that mean, so that scaling a column changes nothing.
    """
    products = jnp.einsum("kjr,kjs->krs", matrices, matrices)
    mean = jnp.mean(products, axis=0)
    size = jnp.sqrt(jnp.diagonal(mean))
    unit = size[:, None] * size[None, :]
    return jnp.max(jnp.where(unit > 0, jnp.abs(products - mean) / jnp.where(unit > 0, unit, 1), 0))
