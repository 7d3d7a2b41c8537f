"""Arrays in memory of our own: what a solver takes over as it is, and what nobody else changes while it is hashed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["ALIGNED", "own_copy", "sum_of_squares"]

# JAX takes over memory that begins at a multiple of so many bytes, and copies all else in one thread, page by page.
ALIGNED = 64
_PIECE = 2**17


def own_copy(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a copy that begins where JAX takes it over, and the sum of squares; the values are read once.

    Parameters
    ----------
    values
        In the order of C.
    """
    memory = np.empty(values.nbytes + ALIGNED, np.uint8)
    begin = -memory.ctypes.data % ALIGNED
    copy = memory[begin : begin + values.nbytes].view(values.dtype)
    total = _in_two_threads(values.reshape(-1), copy)
    return copy.reshape(values.shape), total


def sum_of_squares(values: np.ndarray) -> float:
    """Return the sum of squares in float64; it is not finite exactly where an entry is not, or where it overflows."""
    return _in_two_threads(values.reshape(-1), None)


def _in_two_threads(flat: np.ndarray, copy: np.ndarray | None) -> float:
    if flat.size <= 4 * _PIECE:
        return _part(flat, copy)
    half = flat.size // 2
    parts = [(flat[piece], None if copy is None else copy[piece]) for piece in (slice(half), slice(half, None))]
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda part: _part(*part), parts))


def _part(flat: np.ndarray, copy: np.ndarray | None) -> float:
    """Copy, square and sum in pieces that stay in the cache."""
    total, memory = 0.0, np.empty(min(_PIECE, flat.size))
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        if copy is not None:
            copy[start : start + _PIECE] = piece
        wide = memory[: piece.size]
        wide[...] = piece
        # No product of BLAS: its own threads would wait for each other.
        total += float(np.einsum("i,i->", wide, wide))
    return total
