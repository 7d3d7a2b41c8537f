"""Singular value decomposition of a matrix that is read in blocks: dense, from its Gram matrix, or randomised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["Decomposition", "decompose"]

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]

DENSE = 2**22  # values up to which the matrix is held whole
GRAM = 8192  # columns up to which the Gram matrix is held
OVERSAMPLING = 10
LEAST_POWERS, MOST_POWERS = 4, 30
SETTLED = 1e-12  # relative change of the squared singular values between two power iterations


class Decomposition(NamedTuple):
    """Leading left vectors (rows, rank), all singular values known, leading right vectors (columns, rank)."""

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    method: str


def decompose(blocks: Blocks, shape: tuple[int, int], rank: int, method: str = "auto", seed: int = 0) -> Decomposition:
    """Return the leading singular triplets of a matrix that comes in blocks of rows.

    Parameters
    ----------
    blocks : callable
        Returns an iterator over pairs: places of the rows of a block, and their values in float64.
    shape : tuple of int
        Rows and columns.
    rank : int
        Number of triplets.
    method : {"auto", "exact", "randomised"}
        ``exact``: dense up to four million values; else from the Gram matrix of the shorter side, followed by a dense
        decomposition within the leading subspace.  ``auto``: exact unless the shorter side has more than 8192 entries.
    seed : int
        Of the randomised method.

    Returns
    -------
    Decomposition
        Exact: all ``min(shape)`` singular values; randomised: ``rank + 10`` at most.

    Notes
    -----
    A Gram matrix squares singular values, so those below 1e-8 of the largest are rounding.  Randomised: at least four
    power iterations with orthonormalisation, more until the squared singular values settle (Halko, Martinsson and
    Tropp 2011, doi:10.1137/090771806).

    Examples
    --------
    >>> matrix = np.outer([1.0, 2.0, 2.0], [0.0, 3.0, 4.0])
    >>> decompose(lambda: iter([(np.arange(3), matrix)]), (3, 3), 1).values.round(12) + 0.0
    array([15.,  0.,  0.])
    """
    rows, columns = shape
    if method == "randomised" or (method == "auto" and min(shape) > GRAM):
        right, values = _randomised(blocks, shape, rank, seed)
        used = "randomised"
    elif rows * columns <= DENSE:
        whole = np.empty(shape)
        for place, block in blocks():
            whole[place] = block
        from scipy.linalg import svd

        left, values, right = svd(whole, full_matrices=False, lapack_driver="gesdd")
        return Decomposition(left[:, :rank], values, right[:rank].T, "dense singular value decomposition")
    else:
        right, values = _from_gram(blocks, shape, rank)
        used = "eigenvectors of the Gram matrix"
    # The rows in the leading subspace, decomposed densely: left vectors that are orthonormal to rounding.
    scores = np.zeros((rows, right.shape[1]))
    for place, block in blocks():
        scores[place] = block @ right
    left, leading, turn = np.linalg.svd(scores, full_matrices=False)
    values = np.concatenate([leading, values[len(leading) :]])
    return Decomposition(left[:, :rank], values, (right @ turn.T)[:, :rank], used)


def _from_gram(blocks: Blocks, shape: tuple[int, int], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return leading right vectors and all singular values, from the Gram matrix of the shorter side."""
    rows, columns = shape
    if columns <= rows:
        gram = np.zeros((columns, columns))
        for _, block in blocks():
            gram += block.T @ block
        squares, vectors = np.linalg.eigh(gram)
        return vectors[:, ::-1][:, :rank], np.sqrt(np.maximum(squares[::-1], 0))
    whole = np.empty(shape)  # few rows: the matrix is held, and its Gram matrix is small
    for place, block in blocks():
        whole[place] = block
    squares, vectors = np.linalg.eigh(whole @ whole.T)
    right, _ = np.linalg.qr(whole.T @ vectors[:, ::-1][:, :rank])
    return right, np.sqrt(np.maximum(squares[::-1], 0))


def _randomised(blocks: Blocks, shape: tuple[int, int], rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a basis that holds the leading right vectors, by power iterations from a random start."""
    kept = min(rank + OVERSAMPLING, *shape)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((shape[1], kept)))
    before = np.zeros(rank)
    for iteration in range(MOST_POWERS):
        product = np.zeros_like(basis)
        for _, block in blocks():
            product += block.T @ (block @ basis)
        basis, triangle = np.linalg.qr(product)
        squares = np.linalg.svd(triangle, compute_uv=False)[:rank]
        if iteration + 1 >= LEAST_POWERS and (np.abs(squares - before) <= SETTLED * squares[0]).all():
            break
        before = squares
    return basis, np.zeros(0)
