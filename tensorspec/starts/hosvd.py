"""A start from the singular vectors of every mode."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tensorspec.starts.base import AbstractStart, Reduced, StartContext, unfolded_along

__all__ = ["HOSVD"]

# Rows up to which the squared unfolding is diagonalised; beyond, its leading part is found by random projection.
_EXACT_ROWS = 3000
_OVERSAMPLING, _POWER_STEPS = 10, 2


class HOSVD(AbstractStart):
    """Leading left singular vectors of the data unfolded along every mode: the usual start of `Tucker`.

    Tensors that share a mode are unfolded side by side, each with its weight.  Where a mode is non-negative, of each
    vector the stronger of its two sign-consistent halves is taken, and zeros are filled with a small share of the mean
    so that nothing starts dead.  The core follows by least squares.  The same for every seed.

    References
    ----------
    De Lathauwer, De Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000) 1253, doi:10.1137/S0895479896305696;
    Boutsidis and Gallopoulos, Pattern Recognition 41 (2008) 1350, doi:10.1016/j.patcog.2007.09.010.

    Examples
    --------
    >>> HOSVD()
    HOSVD()
    """

    random: ClassVar[bool] = False

    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return the factors; `seed` only steers the range finder of long modes, and columns beyond the data's rank."""
        rng = np.random.default_rng(seed)
        found = {}
        for mode, size in context.sizes.items():
            count = context.columns[mode]
            reduced = context.reduced or (None,) * len(context.tensors)
            unfolded = [
                (_unfolded(values, small, modes.index(mode)), weight)
                for (modes, values), small, weight in zip(context.tensors, reduced, context.weights, strict=True)
                if mode in modes and values.shape[modes.index(mode)] == size
            ]
            vectors = _leading(unfolded, size, count, rng)
            if vectors.shape[1] < count:
                vectors = np.hstack([vectors, rng.standard_normal((size, count - vectors.shape[1]))])
            if context.nonnegative[mode]:
                vectors = np.where(vectors.sum(axis=0) < 0, -vectors, vectors)
                positive, negative = np.maximum(vectors, 0), np.maximum(-vectors, 0)
                stronger = np.linalg.norm(positive, axis=0) >= np.linalg.norm(negative, axis=0)
                vectors = np.where(stronger, positive, negative)
                vectors = np.maximum(vectors, 0.01 * vectors.mean(axis=0) + np.finfo(context.dtype).tiny)
            found[mode] = vectors.astype(context.dtype)
        return found


def _unfolded(values: Any, small: Reduced | None, axis: int) -> Any:
    """Return a tensor unfolded along an axis, or what stands for it: other axes may be turned to other bases."""
    if small is None:
        return unfolded_along(values, axis)
    flat, basis = np.moveaxis(small.core, axis, 0).reshape(small.core.shape[axis], -1), small.bases[axis]
    return flat if basis is None else basis @ flat


def _leading(unfolded: list[tuple[Any, float]], size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the leading left singular vectors of weighted matrices side by side."""
    if not unfolded:
        return np.zeros((size, 0))

    def squared(vectors: np.ndarray) -> np.ndarray:
        return np.sum([weight**2 * (matrix @ (matrix.T @ vectors)) for matrix, weight in unfolded], axis=0)

    ready = [(matrix.astype(np.float32 if matrix.dtype.itemsize <= 4 else float), w) for matrix, w in unfolded]
    unfolded = ready
    if size <= _EXACT_ROWS:
        square = np.sum([weight**2 * _dense(matrix @ matrix.T).astype(float) for matrix, weight in unfolded], axis=0)
        vectors = np.linalg.eigh(square)[1][:, ::-1]
        return vectors[:, :count]
    wide = min(count + _OVERSAMPLING, size, sum(matrix.shape[1] for matrix, _ in unfolded))
    basis = np.linalg.qr(squared(rng.standard_normal((size, wide))))[0]
    for _ in range(_POWER_STEPS):
        basis = np.linalg.qr(squared(basis))[0]
    small = np.concatenate([weight * (basis.T @ matrix) for matrix, weight in unfolded], axis=1)
    return (basis @ np.linalg.svd(small, full_matrices=False)[0])[:, :count]


def _dense(matrix: Any) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
