"""Conjugate gradients on trees of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["conjugate_gradients", "dot"]


def dot(first: Any, second: Any) -> Float[Array, ""]:
    """Return the inner product of two trees."""
    parts = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), first, second))
    return sum(parts, jnp.zeros((), jnp.float64))


def conjugate_gradients(
    product: Callable[[Any], Any], precondition: Callable[[Any], Any], right: Any, forcing: float, limit: int
) -> Any:
    """Return a solution of ``H x = right`` that is a direction of descent whatever `H` is.

    It ends where the residual has fallen to the share `forcing` in the norm of the preconditioner, after `limit` steps,
    or at the first direction of negative curvature (Steihaug), with the solution up to there.

    Parameters
    ----------
    product, precondition
        The symmetric matrix, and the positive definite approximate inverse, as functions on trees.
    right
        The right-hand side.
    forcing, limit
        When to end.

    References
    ----------
    Steihaug, SIAM Journal on Numerical Analysis 20 (1983) 626, doi:10.1137/0720042.
    """
    ahead = precondition(right)
    start = dot(right, ahead)
    zero = jax.tree.map(jnp.zeros_like, right)

    def going(carry: Any) -> Array:
        count, _, _, _, size, upward = carry
        return (count < limit) & (size > forcing**2 * start) & upward

    def body(carry: Any) -> Any:
        count, solution, residual, direction, size, _ = carry
        image = product(direction)
        curvature = dot(direction, image)
        upward = curvature > 0
        length = jnp.where(upward, size / jnp.where(upward, curvature, 1), jnp.where(count == 0, 1.0, 0.0))
        solution = jax.tree.map(lambda x, d: x + length * d, solution, direction)
        residual = jax.tree.map(lambda r, i: r - length * i, residual, image)
        turned = precondition(residual)
        new = dot(residual, turned)
        direction = jax.tree.map(lambda t, d: t + new / jnp.where(size > 0, size, 1) * d, turned, direction)
        return count + 1, solution, residual, direction, new, upward

    first = (jnp.asarray(0, jnp.int32), zero, right, ahead, start, jnp.asarray(True))
    return jax.lax.while_loop(going, body, first)[1]
