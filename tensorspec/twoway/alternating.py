"""Alternating least squares on a matrix: each factor in turn the exact minimiser under its constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tensorspec.algebra.block_pivoting import nonnegative

__all__ = ["FactorRules", "Iterated", "alternate", "blocks_of_rows", "minimise"]

# What keeps a matrix of equal spectra invertible, as a share of its mean diagonal.
RIDGE = 1e-13
COLUMN_ROUNDS, COLUMN_TOL = 200, 1e-10
RESEEDED = 3
# Rows of a residual that are formed at once.
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class FactorRules:
    """What one factor has to satisfy.

    Attributes
    ----------
    nonnegative : (rank,) array of bool
        Which columns are zero or more.
    known : (size, rank) array
        Entries that are given, NaN where free.
    closed : bool
        Whether the entries of every row sum to one.
    project : callable, optional
        ``project(values, column)`` returns the nearest column that is allowed, for what ties the entries of a column;
        it then does all that the others say.
    """

    nonnegative: np.ndarray
    known: np.ndarray
    closed: bool = False
    project: Callable[[np.ndarray, int], np.ndarray] | None = None

    @property
    def scaled(self) -> np.ndarray:
        """Which columns have a scale of their own, that must not be moved to the other factor."""
        return np.isfinite(self.known).any(axis=0) | np.full(len(self.nonnegative), self.closed)


@dataclass(frozen=True, eq=False)
class Iterated:
    """Where the iteration ended.

    Attributes
    ----------
    maps, spectra : (rows, rank) and (columns, rank) arrays
        The pair with the least sum of squares.
    squares : list of float
        Weighted sum of squared residuals of every iteration.
    settled : bool
        Whether it ended by itself.
    """

    maps: np.ndarray
    spectra: np.ndarray
    squares: list[float]
    settled: bool


def minimise(gram: np.ndarray, right: np.ndarray, rules: FactorRules, start: np.ndarray) -> np.ndarray:
    """Return the factor that minimises ``tr(A G A^T) / 2 - <M, A>`` under its rules.

    Parameters
    ----------
    gram : (rank, rank) array
        ``G``, positive semi-definite.
    right : (size, rank) array
        ``M``.
    rules : FactorRules
        What it has to satisfy.
    start : (size, rank) array
        Where columns are searched from; rows do not need one.

    Examples
    --------
    >>> rules = FactorRules(np.array([True, False]), np.array([[np.nan, np.nan], [2.0, np.nan]]))
    >>> minimise(np.eye(2), np.array([[-1.0, -1.0], [5.0, 1.0]]), rules, np.zeros((2, 2)))
    array([[ 0., -1.],
           [ 2.,  1.]])
    """
    rank = len(gram)
    gram = gram + RIDGE * max(float(np.trace(gram)) / rank, np.finfo(float).tiny) * np.eye(rank)
    if rules.project is not None:
        return _by_columns(gram, right, rules, start)
    result = np.empty_like(right)
    given = np.isfinite(rules.known)
    for pattern in np.unique(given, axis=0):
        rows = np.flatnonzero((given == pattern).all(axis=1))
        result[rows] = _by_rows(gram, right[rows], rules, pattern, np.where(pattern, rules.known[rows], 0.0))
    return result


def alternate(
    values: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    rules: tuple[FactorRules, FactorRules],
    start: tuple[np.ndarray | None, np.ndarray | None],
    max_iterations: int,
    tol: float,
) -> Iterated:
    """Solve for the maps with the spectra held, and for the spectra with the maps held, until nothing changes.

    Parameters
    ----------
    values : (rows, columns) float64 array
        The data.
    weights : (rows,) and (columns,) arrays
        The squared residual of an entry counts by the product of both.
    rules : pair of FactorRules
        Of maps and spectra.
    start : pair of (size, rank) arrays
        Maps and spectra; one of them None, the other of which it is then solved for first.
    max_iterations : int
        Never exceeded.
    tol : float
        The end: the lack of fit changes by less than ten times this share, and both factors by less than this.

    Returns
    -------
    Iterated
    """
    row_weights, column_weights = weights
    whole = float(row_weights @ (values**2) @ column_weights)
    maps, spectra = start
    if spectra is None:
        assert maps is not None
        spectra = np.zeros((values.shape[1], maps.shape[1]))
        spectra = _solved(values.T, row_weights, maps, rules[1], spectra)
    maps = np.zeros((len(values), spectra.shape[1])) if maps is None else maps
    free = ~(rules[0].scaled | rules[1].scaled)
    left, history, settled, reseeded = np.inf, [], False, 0
    best = (np.inf, maps, spectra)
    for _ in range(max_iterations):
        before = maps, spectra, left
        maps = _solved(values, column_weights, spectra, rules[0], maps)
        spectra = _solved(values.T, row_weights, maps, rules[1], spectra)
        maps, spectra = _balanced(maps, spectra, free)
        left = _left(values, weights, maps, spectra, whole)
        history.append(left)
        # The first of equals: below rounding of the data's sum of squares nothing is better.
        if left < best[0]:
            best = left, maps, spectra
        dead = np.flatnonzero((np.abs(maps).sum(axis=0) == 0) | (np.abs(spectra).sum(axis=0) == 0))
        dead = dead[free[dead]]
        if dead.size and reseeded < RESEEDED * maps.shape[1]:
            reseeded += 1
            spectra = _reseeded(values, maps, spectra, int(dead[0]))
            continue
        change = max(_change(maps, before[0]), _change(spectra, before[1]))
        fall = abs(np.sqrt(before[2]) - np.sqrt(left)) if np.isfinite(before[2]) else np.inf
        if change < tol and fall <= 10 * tol * np.sqrt(left) + 1e-12 * np.sqrt(whole):
            settled = True
            break
    return Iterated(best[1], best[2], history, settled)


def _solved(
    values: np.ndarray, weights: np.ndarray, other: np.ndarray, rules: FactorRules, start: np.ndarray
) -> np.ndarray:
    heavy = weights[:, np.newaxis] * other
    return minimise(other.T @ heavy, values @ heavy, rules, start)


def _by_rows(
    gram: np.ndarray, right: np.ndarray, rules: FactorRules, given: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Solve rows in which the same entries are given."""
    result = known.copy()
    free = np.flatnonzero(~given)
    if not free.size:
        return result
    target = right[:, free] - known @ gram[:, free]
    own, signed = gram[np.ix_(free, free)], ~rules.nonnegative[free]
    if rules.closed:
        result[:, free] = _closed(own, target, signed, 1 - known.sum(axis=1))
        return result
    bound = np.flatnonzero(~signed)
    if not signed.any():
        result[:, free] = nonnegative(own, target)[0]
        return result
    # Columns of both signs are eliminated; what is left is non-negative least squares.
    loose = np.flatnonzero(signed)
    inverse = np.linalg.inv(own[np.ix_(loose, loose)])
    between = own[np.ix_(bound, loose)]
    found = np.zeros_like(target)
    if bound.size:
        reduced = own[np.ix_(bound, bound)] - between @ inverse @ between.T
        found[:, bound] = nonnegative(reduced, target[:, bound] - target[:, loose] @ inverse @ between.T)[0]
    found[:, loose] = (target[:, loose] - found[:, bound] @ between) @ inverse
    result[:, free] = found
    return result


def _closed(gram: np.ndarray, target: np.ndarray, signed: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Solve rows whose entries sum to a total."""
    rank = len(gram)
    if signed.any():
        # Only all of them: the caller refuses to have closure with some columns of both signs.
        inverse = np.linalg.inv(gram)
        along = inverse @ np.ones(rank)
        found = target @ inverse
        return found + np.multiply.outer((total - found.sum(axis=1)) / along.sum(), along)
    result = np.zeros_like(target)
    some = total > 0
    if some.any():
        result[some] = (
            total[some, np.newaxis] * nonnegative(gram, target[some] / total[some, np.newaxis], np.ones(rank))[0]
        )
    return result


def _by_columns(gram: np.ndarray, right: np.ndarray, rules: FactorRules, start: np.ndarray) -> np.ndarray:
    """Go round the columns, each its own exact minimiser with the others held, until none moves."""
    assert rules.project is not None
    result = start.copy()
    for _ in range(COLUMN_ROUNDS):
        before = result.copy()
        for column in range(len(gram)):
            own = gram[column, column]
            target = result[:, column] + (right[:, column] - result @ gram[:, column]) / own
            result[:, column] = rules.project(target, column)
        if _change(result, before) < COLUMN_TOL:
            break
    return result


def _balanced(maps: np.ndarray, spectra: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring the spectra of components without a scale of their own to unit norm, the strength to the maps."""
    norm = np.linalg.norm(spectra, axis=0)
    scale = np.where(free & (norm > 0), norm, 1.0)
    return maps * scale, spectra / scale


def _left(
    values: np.ndarray, weights: tuple[np.ndarray, np.ndarray], maps: np.ndarray, spectra: np.ndarray, whole: float
) -> float:
    """Return the weighted sum of squared residuals; directly where it is too small for the difference of sums."""
    heavy = weights[1][:, np.newaxis] * spectra
    weighted = weights[0][:, np.newaxis] * maps
    left = (
        whole
        - 2 * float(((values @ heavy) * weighted).sum())
        + float(((maps.T @ weighted) * (spectra.T @ heavy)).sum())
    )
    if left > 1e-9 * whole:
        return left
    return sum(
        float(weights[0][rows] @ (values[rows] - maps[rows] @ spectra.T) ** 2 @ weights[1])
        for rows in blocks_of_rows(len(values))
    )


def blocks_of_rows(rows: int) -> list[slice]:
    """Return the rows in blocks, so that no residual is formed whole.

    Examples
    --------
    >>> blocks_of_rows(5000)
    [slice(0, 4096, None), slice(4096, 5000, None)]
    """
    return [slice(at, min(at + BLOCK, rows)) for at in range(0, rows, BLOCK)]


def _reseeded(values: np.ndarray, maps: np.ndarray, spectra: np.ndarray, dead: int) -> np.ndarray:
    """Give a dead component the residual of the row that is fitted worst."""
    lengths = [((values[rows] - maps[rows] @ spectra.T) ** 2).sum(axis=1) for rows in blocks_of_rows(len(values))]
    row = int(np.argmax(np.concatenate(lengths)))
    residual = np.maximum(values[row] - spectra @ maps[row], 0)
    result = spectra.copy()
    norm = np.linalg.norm(residual)
    result[:, dead] = residual / norm if norm > 0 else 1 / np.sqrt(len(residual))
    return result


def _change(new: np.ndarray, old: np.ndarray) -> float:
    size = np.linalg.norm(new)
    return float(np.linalg.norm(new - old) / size) if size > 0 else 0.0
