"""Small quadratic problems, one a pixel and all pixels at once: non-negative least squares by block pivoting."""

from __future__ import annotations

import numpy as np

__all__ = ["nonnegative", "passive_inverse"]

FULL_EXCHANGES = 3
ROUNDING = 1e-13
MOST_EXCHANGES = 10_000  # only where a matrix is singular to rounding
PENALTY, MULTIPLIER_STEPS = 1e3, 8


def nonnegative(gram: np.ndarray, right: np.ndarray, sums: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Minimise ``c G c / 2 - r c`` over ``c >= 0`` for many right-hand sides, and on request with ``sums c = 1``.

    Parameters
    ----------
    gram : (rank, rank) or (pixels, rank, rank) array
        Positive definite.
    right : (pixels, rank) array
        Right-hand sides.
    sums : (rank,) array, optional
        Positive coefficients of the sum that is one.

    Returns
    -------
    solution : (pixels, rank) array
        Exactly zero at the bound.
    passive : (pixels, rank) array of bool
        True where the bound is not active.

    Notes
    -----
    Block principal pivoting, exact in finitely many steps: Kim and Park, SIAM Journal on Scientific Computing 33 (2011)
    3261, doi:10.1137/110821172.  The sum is brought in by the method of multipliers, and is exact at the end.

    Examples
    --------
    >>> nonnegative(np.eye(2), np.array([[1.0, -1.0], [2.0, 3.0]]))[0]
    array([[1., 0.],
           [2., 3.]])
    >>> nonnegative(np.eye(2), np.array([[1.0, -1.0]]), np.ones(2))[0]
    array([[1., 0.]])
    """
    if sums is None:
        return _pivot(gram, right, None)
    gram = np.broadcast_to(gram, (len(right), *gram.shape[-2:]))
    size = PENALTY * np.trace(gram, axis1=1, axis2=2) / (sums @ sums)
    stiff = gram + size[:, np.newaxis, np.newaxis] * np.outer(sums, sums)
    multiplier, passive, solution = np.zeros(len(right)), None, right
    for _ in range(MULTIPLIER_STEPS):
        solution, passive = _pivot(stiff, right + (size - multiplier)[:, np.newaxis] * sums, passive)
        multiplier = multiplier + size * (solution @ sums - 1)
    assert passive is not None
    inverse, shift = passive_inverse(gram, passive, sums)
    return np.where(passive, np.maximum(_times(inverse, right) + shift, 0.0), 0.0), passive


def passive_inverse(
    gram: np.ndarray, passive: np.ndarray, sums: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``H`` and ``h`` such that ``H r + h`` solves the problem on the passive set, zero outside of it.

    Parameters
    ----------
    gram : (rank, rank) or (pixels, rank, rank) array
        Positive definite.
    passive : (pixels, rank) array of bool
        The entries that are not held at zero.
    sums : (rank,) array, optional
        Coefficients of the sum that is one.

    Examples
    --------
    >>> inverse, shift = passive_inverse(np.eye(2), np.array([[True, True]]), np.ones(2))
    >>> inverse[0], shift[0]
    (array([[ 0.5, -0.5],
           [-0.5,  0.5]]), array([0.5, 0.5]))
    """
    rank = passive.shape[1]
    both = passive[:, :, np.newaxis] & passive[:, np.newaxis, :]
    inverse = np.where(both, np.linalg.inv(np.where(both, gram, np.eye(rank))), 0.0)
    if sums is None:
        return inverse, np.zeros(passive.shape)
    along = inverse @ sums
    whole = along @ sums
    share = along / np.where(whole > 0, whole, 1)[:, np.newaxis]
    return inverse - along[:, :, np.newaxis] * share[:, np.newaxis, :], share


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.matmul(matrices, vectors[..., np.newaxis])[..., 0]


def _pivot(gram: np.ndarray, right: np.ndarray, passive: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Exchange infeasible entries between the passive and the active set until none is left."""
    pixels, rank = right.shape
    gram = np.broadcast_to(gram, (pixels, rank, rank))
    solution = np.zeros_like(right)
    passive = (right > 0) if passive is None else passive.copy()
    least, left = np.full(pixels, rank + 1), np.full(pixels, FULL_EXCHANGES)
    open_ = np.arange(pixels)
    size = ROUNDING * np.maximum(np.abs(right).max(axis=1, initial=0), np.finfo(float).tiny)
    for _ in range(MOST_EXCHANGES):
        if not open_.size:
            break
        own, target = passive[open_], right[open_]
        both = own[:, :, np.newaxis] & own[:, np.newaxis, :]
        held = np.where(both, gram[open_], np.eye(rank))
        found = np.linalg.solve(held, np.where(own, target, 0.0)[..., np.newaxis])[..., 0]
        slope = _times(gram[open_], found) - target
        scale = np.abs(found).max(axis=1, initial=0)[:, np.newaxis]
        wrong = np.where(own, found < -ROUNDING * scale, slope < -size[open_, np.newaxis] * 10)
        count = wrong.sum(axis=1)
        solution[open_] = np.where(own, np.maximum(found, 0.0), 0.0)
        fewer = count < least[open_]
        least[open_] = np.where(fewer, count, least[open_])
        all_of_them = fewer | (left[open_] > 0)
        left[open_] = np.where(fewer, FULL_EXCHANGES, left[open_] - 1)
        # The last of them only: with this rule the search cannot run in circles.
        last = np.arange(rank) == (rank - 1 - np.argmax(wrong[:, ::-1], axis=1))[:, np.newaxis]
        flip = np.where(all_of_them[:, np.newaxis], wrong, wrong & last)
        passive[open_] = own ^ flip
        open_ = open_[count > 0]
    return solution, passive
