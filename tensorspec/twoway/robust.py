"""Robust principal components of a matrix: projection pursuit, then the minimum covariance determinant."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from tensorspec.twoway.outlyingness import cutoff, half_size, outlyingness

__all__ = ["RobustComponents", "robust_components", "robust_prediction"]

MOST_COMPONENTS = 10
ROUNDING = 1e-12
STEPS, REWEIGHTED = 100, 5
# Parts of the points that are predicted in turn, how much more of them than noise a component has to take away, and by
# how many standard errors.
FOLDS, MORE, ERRORS = 10, 1.5, 4.0


@dataclass(frozen=True, eq=False)
class RobustComponents:
    """Centre, components and distances.

    Attributes
    ----------
    location : (columns,) array
        The centre.
    components : (columns, rank) array
        Orthonormal.
    values : (rank,) array
        Their robust variances.
    scores : (rows, rank) array
        Of every row.
    score_distance, orthogonal_distance : (rows,) arrays
        Within the subspace, in robust standard deviations; and from it, in the units of the matrix.
    score_cutoff, orthogonal_cutoff : float
        What one regular row in forty exceeds.
    press : (most,) array
        Mean squared distance of rows left out from the subspace of 0, 1, ... components; empty where a rank was given.
    """

    location: np.ndarray
    components: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    score_distance: np.ndarray
    orthogonal_distance: np.ndarray
    score_cutoff: float
    orthogonal_cutoff: float
    press: np.ndarray


def robust_components(matrix: np.ndarray, rank: int | None, alpha: float, seed: int) -> RobustComponents:
    """Return robust principal components.

    Parameters
    ----------
    matrix : (rows, columns) float64 array
        The data.
    rank : int, optional
        Number of components; by default as many as predict rows that were left out.
    alpha : float
        Share of the rows that estimates rest on, 0.5 to 1; up to one minus this share may be outliers.
    seed : int
        Of directions and subsets.

    Raises
    ------
    ArithmeticError
        If at least this share of the rows coincide, or fewer dimensions than components are left.

    Notes
    -----
    M. Hubert, P. J. Rousseeuw and K. Vanden Branden, Technometrics 47 (2005) 64, doi:10.1198/004017004000000563, with
    the improvement of S. Engelen et al. 2005: points near the first subspace define the second.
    """
    from scipy.stats import chi2

    rows = len(matrix)
    centre, axes, scores = _within(matrix)
    dimensions = scores.shape[1]
    most = min(MOST_COMPONENTS, rows // 2, dimensions)
    if rank is not None and rank > dimensions:
        raise ArithmeticError(f"{rank} components, but the rows lie in {dimensions} dimensions")
    half = half_size(rows, min(rank or most, rows), alpha)
    small = dimensions <= min(rows / 5, MOST_COMPONENTS)
    if half == rows:
        inner = np.arange(rows)
    elif small:
        inner = np.flatnonzero(_determinant(scores, half, seed)[0])
    else:
        inner = np.argsort(outlyingness(scores, half, seed), kind="stable")[:half]
    press = np.empty(0)
    if rank is None:
        press, rank = _press(scores, inner, half, most, seed)
    location, basis = _subspace(scores[inner], rank)
    # All points near the first subspace define the second.
    distance = np.linalg.norm(scores - location - (scores - location) @ basis @ basis.T, axis=1)
    near = distance <= cutoff(distance, half) if half < rows and rank < dimensions else np.ones(rows, bool)
    location, basis = _subspace(scores[near], rank)
    projected = (scores - location) @ basis
    # Points that lie off the subspace say nothing of how the others scatter within it.
    chosen = np.flatnonzero(near[inner])
    place = (np.cumsum(near) - 1)[inner[chosen]]
    shift, scatter = _scatter(projected[near], place, min(half, int(near.sum())), seed)
    values, turn = np.linalg.eigh(scatter)
    values, turn = values[::-1], turn[:, ::-1]
    location, basis = location + basis @ shift, basis @ turn
    projected = (scores - location) @ basis
    orthogonal = np.linalg.norm(scores - location - projected @ basis.T, axis=1)
    within = np.sqrt((projected**2 / np.maximum(values, np.finfo(float).tiny)).sum(axis=1))
    full = orthogonal.max(initial=0.0) <= 1e-9 * max(np.abs(scores).max(initial=0.0), 1e-300)
    return RobustComponents(
        location=centre + axes @ location,
        components=axes @ basis,
        values=values,
        scores=projected,
        score_distance=within,
        orthogonal_distance=orthogonal,
        score_cutoff=float(np.sqrt(chi2.ppf(0.975, rank))),
        orthogonal_cutoff=float(orthogonal.max(initial=0.0)) if full else cutoff(orthogonal, half),
        press=press,
    )


def robust_prediction(matrix: np.ndarray, alpha: float, seed: int) -> tuple[np.ndarray, int, bool]:
    """Return how rows left out are predicted by rising ranks, the rank that follows, and whether the mean adds one.

    Parameters
    ----------
    matrix, alpha, seed
        As for `robust_components`.

    Returns
    -------
    press : (most + 1,) array
        As `RobustComponents.press`.
    rank : int
        Number of components about the mean.
    apart : bool
        Whether the mean lies outside of what the components span: without centring there is one more then.
    """
    found = robust_components(matrix, None, alpha, seed)
    rank = found.components.shape[1]
    beyond = found.location - found.components @ (found.components.T @ found.location)
    left = matrix.shape[1] - rank
    noise = found.press[min(rank, len(found.press) - 1)] / max(left, 1)
    # Twice as far off as an average of noise is.
    return found.press, rank, bool(beyond @ beyond > 4 * noise * left / len(matrix))


def _within(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the axes of the space that the rows span about it, and the rows in them."""
    centre = matrix.mean(axis=0)
    centred = matrix - centre
    rows, columns = matrix.shape
    if columns <= rows:
        values, axes = np.linalg.eigh(centred.T @ centred)
        kept = values > ROUNDING * max(values[-1], 0.0)
        axes = axes[:, kept][:, ::-1]
    else:
        values, left = np.linalg.eigh(centred @ centred.T)
        kept = values > ROUNDING * max(values[-1], 0.0)
        axes = np.linalg.qr(centred.T @ left[:, kept][:, ::-1])[0]
    if not axes.shape[1]:
        raise ArithmeticError("all rows are equal")
    return centre, axes, centred @ axes


def _subspace(points: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and leading directions of some points."""
    location = points.mean(axis=0)
    centred = points - location
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(points) - 1, 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[0] <= 0 or values[rank - 1] <= ROUNDING * values[0]:
        held = int((values > ROUNDING * max(values[0], np.finfo(float).tiny)).sum())
        raise ArithmeticError(f"{rank} components, but most rows lie in {held} dimensions")
    return location, vectors[:, :rank]


def _press(scores: np.ndarray, inner: np.ndarray, half: int, most: int, seed: int) -> tuple[np.ndarray, int]:
    """Return the mean squared distance of rows left out, by rank, and the rank up to which components predict."""
    rows, dimensions = scores.shape
    most = min(most, dimensions - 1, len(inner) - len(inner) // FOLDS - 2)
    if most < 1:
        return np.array([float((scores**2).sum(axis=1).mean())]), 1
    # Rows that lie far off whatever is described by all components are not asked.
    most = min(most, int(np.linalg.matrix_rank(scores[inner] - scores[inner].mean(axis=0))))
    location, basis = _subspace(scores[inner], most)
    centred = scores - location
    distance = np.linalg.norm(centred - centred @ basis @ basis.T, axis=1)
    regular = distance <= cutoff(distance, half) if half < rows else np.ones(rows, bool)
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    inside = np.zeros(rows, bool)
    inside[inner] = True
    taken = np.zeros((rows, most))
    whole = np.zeros(rows)
    for part in range(FOLDS):
        out = fold == part
        own_location, own_basis = _subspace(scores[inside & ~out], most)
        difference = scores[out] - own_location
        taken[out] = (difference @ own_basis) ** 2
        whole[out] = (difference**2).sum(axis=1)
    taken, whole = taken[regular], whole[regular]
    left = whole[:, np.newaxis] - np.cumsum(np.concatenate([np.zeros((len(whole), 1)), taken], axis=1), axis=1)
    press = left.mean(axis=0)
    rank = 0
    for number in range(most):
        # A direction of noise takes its share of what is left, no more.
        share = left[:, number] / (dimensions - number)
        gain = taken[:, number] - MORE * share
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        if gain.mean() <= ERRORS * error:
            break
        rank = number + 1
    return press, max(rank, 1)


def _determinant(points: np.ndarray, half: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points have the covariance of least determinant, by the fast algorithm, their mean, and it."""
    from sklearn.covariance import MinCovDet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MinCovDet(support_fraction=min(half / len(points), 1.0), random_state=seed).fit(points)
    chosen = found.raw_support_
    own = points[chosen]
    return chosen, own.mean(axis=0), np.atleast_2d(np.cov(own.T))


def _scatter(points: np.ndarray, inner: np.ndarray, half: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return robust centre and covariance of points in few dimensions."""
    from scipy.stats import chi2

    rows, rank = points.shape
    if half == rows:
        return points.mean(axis=0), np.atleast_2d(np.cov(points.T))
    centre, covariance = _concentrated(points, inner, half)
    _, other_centre, other = _determinant(points, half, seed)
    if np.linalg.slogdet(other)[1] < np.linalg.slogdet(covariance)[1]:
        centre, covariance = other_centre, other
    # Half of all points lie nearer than the median, of regular ones more: a beginning.
    covariance = covariance * np.median(_distances(points, centre, covariance)) / chi2.ppf(0.5, rank)
    bound = chi2.ppf(0.975, rank)
    kept = chi2.cdf(bound, rank + 2) / chi2.cdf(bound, rank)
    for _ in range(REWEIGHTED):
        near = _distances(points, centre, covariance) <= bound
        centre, covariance = points[near].mean(axis=0), np.atleast_2d(np.cov(points[near].T)) / kept
    return centre, covariance


def _concentrated(points: np.ndarray, inner: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Go from some points to the same number that are nearest to their centre, until the determinant stands still."""
    before = np.inf
    centre, covariance = points[inner].mean(axis=0), np.atleast_2d(np.cov(points[inner].T))
    for _ in range(STEPS):
        sign, size = np.linalg.slogdet(covariance)
        if sign <= 0 or before - size < ROUNDING:
            break
        before = size
        nearest = np.argpartition(_distances(points, centre, covariance), half - 1)[:half]
        centre, covariance = points[nearest].mean(axis=0), np.atleast_2d(np.cov(points[nearest].T))
    return centre, covariance


def _distances(points: np.ndarray, centre: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    centred = points - centre
    return (centred @ np.linalg.pinv(covariance, hermitian=True) * centred).sum(axis=1)
