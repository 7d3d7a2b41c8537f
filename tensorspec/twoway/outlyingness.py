"""How far points lie out, seen from many directions: projections judged by a robust centre and spread."""

from __future__ import annotations

import numpy as np

__all__ = ["cutoff", "half_size", "outlyingness", "robust_spread"]

DIRECTIONS = 250
EXACT = 1e-12
BLOCK = 2**24  # projected values held at once
REWEIGHTED = 3
# Points that judge a direction: its centre and spread need no more.
MOST_POINTS = 20_000


def half_size(points: int, rank: int, alpha: float) -> int:
    """Return how many points the robust estimates rest on, of so many, for a share ``alpha`` of them.

    Examples
    --------
    >>> half_size(500, 4, 0.75), half_size(500, 4, 1.0)
    (376, 500)
    """
    middle = (points + rank + 1) // 2
    return min(int(2 * middle - points + 2 * (points - middle) * alpha), points)


def robust_spread(values: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and standard deviation of each row: minimum covariance determinant in one dimension, reweighted.

    Parameters
    ----------
    values : (rows, points) array
        At least two points.
    half : int
        Number of points of the window with the least variance.

    Returns
    -------
    centre, deviation : (rows,) arrays
        The deviation is zero where `half` points coincide.

    Notes
    -----
    Rousseeuw and Leroy 1987; reweighted at the 97.5 % point of chi-squared, as Hubert et al. 2005 do.

    Examples
    --------
    >>> points = np.append(np.linspace(-1, 1, 21), [50.0, 60.0])
    >>> centre, deviation = robust_spread(points[None], 18)
    >>> bool(abs(centre[0]) < 0.2), bool(deviation[0] < 1)
    (True, True)
    """
    from scipy.stats import chi2

    rows, points = values.shape
    ordered = np.sort(values, axis=1)
    middle = np.median(ordered, axis=1, keepdims=True)
    shifted = ordered - middle
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(shifted, axis=1)], axis=1)
    squares = np.concatenate([np.zeros((rows, 1)), np.cumsum(shifted**2, axis=1)], axis=1)
    total = sums[:, half:] - sums[:, : points - half + 1]
    variance = (squares[:, half:] - squares[:, : points - half + 1] - total**2 / half) / max(half - 1, 1)
    best = variance.argmin(axis=1)
    each = np.arange(rows)
    centre = total[each, best] / half + middle[:, 0]
    spread = np.maximum(variance[each, best], 0.0)
    distance = (values - centre[:, np.newaxis]) ** 2
    nth = np.partition(distance, half - 1, axis=1)[:, half - 1]
    # The window of least variance is narrower than the distribution that it comes from.
    spread = nth / chi2.ppf(half / points, 1) if half < points else spread
    # What lies beyond the 97.5 % point is missing from the variance, of regular points too. Repeated, as the first
    # window is too wide where there are outliers.
    bound = chi2.ppf(0.975, 1)
    kept = chi2.cdf(bound, 3) / chi2.cdf(bound, 1)
    for _ in range(REWEIGHTED):
        near = (values - centre[:, np.newaxis]) ** 2 <= bound * spread[:, np.newaxis]
        count = np.maximum(near.sum(axis=1), 1)
        centre = np.where(near, values, 0.0).sum(axis=1) / count
        left = np.where(near, (values - centre[:, np.newaxis]) ** 2, 0.0).sum(axis=1)
        spread = left / np.maximum(count - 1, 1) / kept
    return centre, np.sqrt(spread)


def outlyingness(scores: np.ndarray, half: int, seed: int) -> np.ndarray:
    """Return the largest robust distance of every point from the centre, over directions through pairs of points.

    Parameters
    ----------
    scores : (points, dimensions) array
        Where they lie.
    half : int
        Points that the centre and spread of a direction rest on.
    seed : int
        Of the pairs.

    Returns
    -------
    (points,) array
        Infinite off a hyperplane that `half` points lie on exactly.

    Notes
    -----
    Stahel 1981, Donoho 1982, over 250 pairs of points or all there are.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(60, 3))
    >>> points[5] += 20
    >>> int(outlyingness(points, 45, 0).argmax())
    5
    """
    points = len(scores)
    rng = np.random.default_rng(seed)
    pairs = _pairs(points, rng)
    directions = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    length = np.linalg.norm(directions, axis=1)
    scale = np.abs(scores).max(initial=0.0)
    directions = directions[length > EXACT * scale] / length[length > EXACT * scale, np.newaxis]
    judges = np.arange(points)
    if points > MOST_POINTS:
        judges = np.sort(rng.choice(points, MOST_POINTS, replace=False))
    fewer = max(2, round(half * len(judges) / points))
    farthest = np.zeros(points)
    step = max(1, BLOCK // points)
    for start in range(0, len(directions), step):
        projected = directions[start : start + step] @ scores.T
        centre, deviation = robust_spread(projected[:, judges], fewer)
        distance = np.abs(projected - centre[:, np.newaxis])
        flat = deviation <= EXACT * scale
        usual = distance / np.where(flat, 1, deviation)[:, np.newaxis]
        off = np.where(distance > 1e-8 * scale, np.inf, 0.0)
        farthest = np.maximum(farthest, np.where(flat[:, np.newaxis], off, usual).max(axis=0, initial=0.0))
    return farthest


def cutoff(distances: np.ndarray, half: int) -> float:
    """Return the orthogonal distance that one regular point in forty exceeds.

    Parameters
    ----------
    distances : (points,) array
        Of zero or more; their power 2/3 is near normal (Wilson and Hilferty 1931).
    half : int
        Points that centre and spread rest on.

    Examples
    --------
    >>> distances = np.linalg.norm(np.random.default_rng(0).normal(size=(2000, 30)), axis=1)
    >>> bool(0.015 < (distances > cutoff(distances, 1500)).mean() < 0.04)
    True
    """
    from scipy.stats import norm

    centre, deviation = robust_spread(np.cbrt(distances[np.newaxis] ** 2), half)
    return float(max(centre[0] + norm.ppf(0.975) * deviation[0], 0.0) ** 1.5)


def _pairs(points: int, rng: np.random.Generator) -> np.ndarray:
    """Return pairs of different points: all of them, or 250 at random."""
    if points * (points - 1) // 2 <= DIRECTIONS:
        return np.array(np.triu_indices(points, 1)).T
    first = rng.integers(points, size=DIRECTIONS)
    second = (first + rng.integers(1, points, size=DIRECTIONS)) % points
    return np.stack([first, second], axis=1)
