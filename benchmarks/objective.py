"""The objective of an answer, in float64, by the same functions for all methods."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from benchmarks.planted import Workload

__all__ = ["Answer", "Parts", "objective"]

# Entries that are worked on at once.
BLOCK = 2**21


class Parts(NamedTuple):
    """The model of one tensor in the units of the data: a factor ``(size, rank)`` for each mode, perhaps a core."""

    factors: list[np.ndarray]
    core: np.ndarray | None = None


# For each tensor its model.
Answer = dict[str, Parts]


def objective(workload: Workload, answer: Answer) -> float:
    """Return half the squared residual over all tensors, or the Kullback-Leibler divergence.

    Sparse data stay sparse: what the model holds where nothing was counted follows from the sums and the inner products
    of the factors.
    """
    total = 0.0
    for key, data in workload.arrays.items():
        left, right = _two_factors(answer[key])
        if not scipy.sparse.issparse(data):
            if workload.poisson:
                raise NotImplementedError("the divergence is written for sparse data")
            total += _squares(data.reshape(len(left), -1), left, right)
        elif workload.poisson:
            total += _divergence(data, left, right)
        else:
            total += _sparse_squares(data, left, right)
    return total


def _two_factors(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Return the model as that of a matrix with the first mode along its rows: ``left @ right.T``."""
    left, *others = (np.asarray(factor, np.float64) for factor in parts.factors)
    if parts.core is None:
        right = others[0]
        for factor in others[1:]:
            right = (right[:, None, :] * factor[None, :, :]).reshape(-1, left.shape[1])
        return left, right
    core = np.asarray(parts.core, np.float64)
    for factor in others:
        core = np.tensordot(core, factor, axes=(1, 1))
    return left, core.reshape(len(core), -1).T


def _squares(data: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    total, rows = 0.0, max(1, BLOCK // len(right))
    for k in range(0, len(left), rows):
        residual = left[k : k + rows] @ right.T
        residual -= data[k : k + rows]
        total += 0.5 * float(np.vdot(residual, residual))
    return total


def _at_counts(data: scipy.sparse.csr_array, left: np.ndarray, right: np.ndarray):
    """Yield the counts that are not zero, in blocks, with the model there."""
    rows = np.repeat(np.arange(data.shape[0]), np.diff(data.indptr))
    for k in range(0, data.nnz, BLOCK // 16):
        here = slice(k, k + BLOCK // 16)
        model = np.einsum("nr,nr->n", left[rows[here]], right[data.indices[here]])
        yield data.data[here].astype(np.float64), model


def _sparse_squares(data: scipy.sparse.csr_array, left: np.ndarray, right: np.ndarray) -> float:
    everywhere = float(np.vdot(left.T @ left, right.T @ right))
    return 0.5 * (everywhere + sum(float(np.sum(x * x - 2 * x * m)) for x, m in _at_counts(data, left, right)))


def _divergence(data: scipy.sparse.csr_array, left: np.ndarray, right: np.ndarray) -> float:
    total = float(left.sum(axis=0) @ right.sum(axis=0))
    for x, m in _at_counts(data, left, right):
        # A model of zero where something was counted makes it infinite, as it should.
        with np.errstate(divide="ignore"):
            total += float(np.sum(x * np.log(x / m) - x))
    return total
