"""Systems with two diagonals on either side of the main one, many at once, in few steps that each treat all points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["solve_pentadiagonal"]


def solve_pentadiagonal(
    main: Float[Array, "size systems"],
    first: Float[Array, "size-1 systems"],
    second: Float[Array, "size-2 systems"],
    right: Float[Array, "size columns"],
) -> Float[Array, "size columns"]:
    """Return the solutions of symmetric positive definite systems, by parallel cyclic reduction of 2 x 2 blocks.

    In each round every block eliminates its two neighbours, so that it is coupled to those twice as far away, and after
    a logarithm of rounds to none.  A loop over the points would be as many steps as there are points.

    Parameters
    ----------
    main, first, second
        The diagonals; one system for each column of `right`, or a single one for all.
    right
        Right-hand sides; three rows or more.

    References
    ----------
    Hockney and Jesshope, Parallel Computers, 1981; for the plain case Hockney, Journal of the ACM 12 (1965) 95,
    doi:10.1145/321250.321259.

    Examples
    --------
    >>> import numpy as np
    >>> diagonals = (np.full((3, 1), 6.0), np.full((2, 1), -4.0), np.ones((1, 1)))
    >>> matrix = np.array([[6.0, -4.0, 1.0], [-4.0, 6.0, -4.0], [1.0, -4.0, 6.0]])
    >>> right = matrix @ np.array([[1.0], [2.0], [3.0]])
    >>> np.asarray(solve_pentadiagonal(*diagonals, right)).round(4).ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    size = right.shape[0]
    odd = size % 2
    # An unknown that is coupled to none makes the number even; blocks then have no unknown left over.
    main = jnp.pad(jnp.asarray(main), ((0, odd), (0, 0)), constant_values=1)
    first = jnp.pad(jnp.asarray(first), ((0, odd), (0, 0)))
    second = jnp.pad(jnp.asarray(second), ((0, odd), (0, 0)))
    values = jnp.pad(jnp.asarray(right), ((0, odd), (0, 0))).reshape(-1, 2, right.shape[1])
    values = jnp.moveaxis(values, 1, 0)

    one, two = jnp.pad(first, ((0, 1), (0, 0))), jnp.pad(second, ((0, 2), (0, 0)))
    none = jnp.zeros_like(one[::2])
    blocks = _matrix(main[::2], one[::2], one[::2], main[1::2])
    up = _matrix(two[::2], none, one[1::2], two[1::2])  # from a block to the next
    down = jnp.roll(jnp.swapaxes(up, 0, 1), 1, axis=2)  # from a block to the one before; nothing from the last
    count = blocks.shape[2]
    place = jnp.arange(count)

    def once(level: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        blocks, down, up, values = state
        apart = 2**level
        before, after = place - apart, place + apart

        def at(items: Array, where: Array) -> Array:
            inside = ((where >= 0) & (where < count))[:, None]
            return jnp.where(inside, jnp.take(items, where, axis=-2, mode="clip"), 0)

        inverse = _inverse(blocks)
        left, right = -_product(down, at(inverse, before)), -_product(up, at(inverse, after))
        return (
            blocks + _product(left, at(up, before)) + _product(right, at(down, after)),
            _product(left, at(down, before)),
            _product(right, at(up, after)),
            values + _applied(left, at(values, before)) + _applied(right, at(values, after)),
        )

    rounds = max(count - 1, 0).bit_length()
    blocks, _, _, values = jax.lax.fori_loop(0, rounds, once, (blocks, down, up, values))
    solved = _applied(_inverse(blocks), values)
    return jnp.moveaxis(solved, 0, 1).reshape(-1, right.shape[1])[:size]


def _matrix(a: Array, b: Array, c: Array, d: Array) -> Float[Array, "2 2 blocks systems"]:
    return jnp.stack([jnp.stack([a, b]), jnp.stack([c, d])])


def _product(x: Array, y: Array) -> Array:
    return jnp.stack([jnp.stack([x[i, 0] * y[0, j] + x[i, 1] * y[1, j] for j in (0, 1)]) for i in (0, 1)])


def _applied(x: Array, values: Array) -> Array:
    return jnp.stack([x[i, 0] * values[0] + x[i, 1] * values[1] for i in (0, 1)])


def _inverse(x: Array) -> Array:
    determinant = x[0, 0] * x[1, 1] - x[0, 1] * x[1, 0]
    return _matrix(x[1, 1], -x[0, 1], -x[1, 0], x[0, 0]) / determinant
