"""Products with data that are stored in another type than the factors, converted piece by piece.

Counts are kept as the small integers that they are.  Converted as a whole they would take two or four times their
memory, so a large array is gone through in pieces of some megabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

__all__ = ["left_product", "over_pieces", "right_product"]

_EXACT = jax.lax.Precision.HIGHEST
_barrier = jax.lax.optimization_barrier
# Entries of a piece: large enough for fast products, small beside the data.
_PIECE = 2**21

# Numbers that a register of the processor holds; half as many go as fast.
_LANES = 16

Carry = TypeVar("Carry")
_Body = Callable[[Carry, Float[Array, "rows columns"], Int[Array, ""], Bool[Array, " rows"]], Carry]


def over_pieces(flat: Num[Array, "size columns"], dtype: jnp.dtype, body: _Body[Carry], begin: Carry) -> Carry:
    """Go through the rows of a matrix piece by piece, each converted.

    Parameters
    ----------
    flat
        The data as a matrix.
    dtype
        What they are converted to; where they are of that type, or few, they are one piece.
    body
        Called with what was carried, the piece, its first row, and which of its rows were in no piece before; returns
        what is carried on.
    begin
        What the first call is given.
    """
    size, columns = flat.shape
    if flat.dtype == dtype or flat.size <= 2 * _PIECE:
        return body(begin, flat.astype(dtype), jnp.asarray(0), jnp.ones(size, bool))
    rows = min(max(_PIECE // columns, 1), size)

    def one(index: Array, carry: Carry) -> Carry:
        # The last piece is as long as the others, so it may begin with rows of the one before.
        first = jnp.minimum(index * rows, size - rows)
        piece = jax.lax.dynamic_slice(flat, (first, jnp.zeros_like(first)), (rows, columns))
        return body(carry, piece.astype(dtype), first, jnp.arange(rows) >= index * rows - first)

    return jax.lax.fori_loop(0, -(-size // rows), one, begin)


def right_product(flat: Num[Array, "size columns"], matrix: Float[Array, "columns rank"]) -> Float[Array, "size rank"]:
    """Return the data times a matrix of few columns."""
    if flat.dtype == matrix.dtype:
        # Columns that fill whole registers go faster, by up to a third, than a few less.
        held = _barrier(jnp.pad(matrix, ((0, 0), (0, _filled(matrix.shape[1]) - matrix.shape[1]))))
        return _barrier(jnp.matmul(flat, held, precision=_EXACT))[:, : matrix.shape[1]]
    held = _barrier(matrix)

    def body(carry: Array, piece: Array, first: Array, fresh: Array) -> Array:
        del fresh
        product = jnp.matmul(piece, held, precision=_EXACT)
        return jax.lax.dynamic_update_slice(carry, product, (first, jnp.zeros_like(first)))

    return _barrier(over_pieces(flat, matrix.dtype, body, jnp.zeros((len(flat), matrix.shape[1]), matrix.dtype)))


def left_product(matrix: Float[Array, "rank size"], flat: Num[Array, "size columns"]) -> Float[Array, "rank columns"]:
    """Return a matrix of few rows times the data."""
    if flat.dtype == matrix.dtype:
        return jnp.matmul(matrix, flat, precision=_EXACT)
    held = _barrier(matrix)

    def body(carry: Array, piece: Array, first: Array, fresh: Array) -> Array:
        own = jax.lax.dynamic_slice(held, (jnp.zeros_like(first), first), (len(held), len(piece)))
        return carry + jnp.matmul(jnp.where(fresh, own, 0), piece, precision=_EXACT)

    return over_pieces(flat, matrix.dtype, body, jnp.zeros((len(matrix), flat.shape[1]), matrix.dtype))


def _filled(columns: int) -> int:
    """Return how many columns a thin matrix is given in a product, at least as many as it has."""
    if columns <= _LANES // 4:
        return columns
    unit = _LANES // 2 if columns <= _LANES // 2 else _LANES
    return -(-columns // unit) * unit
