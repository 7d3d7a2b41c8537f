"""Maximum likelihood of counts under linear constraints: Fisher scoring with an exact quadratic step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Bounds", "Scored", "maximise", "null_space", "quadratic_step"]

STEPS, HALVINGS = 200, 40
SETTLED = 1e-10  # of the log-likelihood, over the number of values: far below what a standard error notices
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Bounds:
    """Linear constraints on a vector ``x``.

    Attributes
    ----------
    equal : (rows, size) array
        ``equal @ x`` is what it is at the start, always.
    above : (rows, size) array
        ``above @ x >= least``.
    least : (rows,) array
        Lower bounds.
    """

    equal: np.ndarray
    above: np.ndarray
    least: np.ndarray


@dataclass(frozen=True, eq=False)
class Scored:
    """Where the likelihood is largest.

    Attributes
    ----------
    x : (size,) array
        The point.
    active : (rows,) array of bool
        Which bounds hold with equality.
    fisher : (size, size) array
        Expected information at the point.
    covariance : (size, size) array
        Inverse of the information within what the active constraints leave free.
    settled : bool
        Whether the iteration ended by itself.
    """

    x: np.ndarray
    active: np.ndarray
    fisher: np.ndarray
    covariance: np.ndarray
    settled: bool


def maximise(
    counts: np.ndarray,
    mean: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    bounds: Bounds,
    extra_variance: np.ndarray | float = 0.0,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    most: int = STEPS,
) -> Scored:
    """Return the most likely point.

    Parameters
    ----------
    counts : (values,) array
        What was counted.
    mean : callable
        Gives the expected counts, and their derivatives ``(values, size)``, at a point.
    start : (size,) array
        Within the bounds.
    bounds : Bounds
        Linear constraints.
    extra_variance : (values,) array or float
        Variance of what was counted beyond that of counts, as of a background that was measured and subtracted.
    prior : pair of (size,) arrays, optional
        Mean and standard deviation of a normal prior; infinite where there is none.
    most : int
        Number of steps after which to end.

    Notes
    -----
    With extra variance the squared residual over ``mean + extra`` is minimised, its weights those of the point before.

    Examples
    --------
    >>> design = np.array([[1.0, 0], [1, 1], [1, 2]])
    >>> bounds = Bounds(np.zeros((0, 2)), np.eye(2), np.zeros(2))
    >>> found = maximise(np.array([9.0, 12, 15]), lambda x: (design @ x, design), np.ones(2), bounds)
    >>> found.x.round(6)
    array([9., 3.])
    """
    x = np.asarray(start, dtype=float).copy()
    extra = np.broadcast_to(np.asarray(extra_variance, dtype=float), counts.shape)
    centre, spread = prior or (np.zeros(len(x)), np.full(len(x), np.inf))
    precision = np.where(np.isfinite(spread), 1 / np.where(np.isfinite(spread), spread, 1) ** 2, 0.0)
    active, settled = np.zeros(len(bounds.least), bool), False
    value, slope = mean(x)
    for _ in range(most):
        value = np.maximum(value, ROUNDING)
        weight = 1 / (value + extra)
        fisher = slope.T @ (slope * weight[:, np.newaxis]) + np.diag(precision)
        gradient = slope.T @ (weight * (counts - value)) - precision * (x - centre)
        step, active = quadratic_step(fisher, gradient, x, bounds, active)
        expected = float(gradient @ step)
        before = _misfit(counts, value, extra, weight) + 0.5 * float(precision @ (x - centre) ** 2)
        length = 1.0
        for _ in range(HALVINGS):
            trial = x + length * step
            new_value, new_slope = mean(trial)
            after = _misfit(counts, np.maximum(new_value, ROUNDING), extra, weight)
            after += 0.5 * float(precision @ (trial - centre) ** 2)
            if after <= before - 1e-4 * length * expected + 1e-12 * abs(before) + 1e-12:
                break
            length /= 2
        else:
            break
        x, value, slope = trial, new_value, new_slope
        if expected <= SETTLED * len(counts):
            settled = True
            break
    value = np.maximum(value, ROUNDING)
    fisher = slope.T @ (slope / (value + extra)[:, np.newaxis]) + np.diag(precision)
    scale = np.maximum(np.abs(bounds.least), 1.0)
    active = bounds.above @ x - bounds.least <= 1e-9 * scale
    return Scored(x, active, fisher, _covariance(fisher, bounds, active), settled)


def quadratic_step(
    fisher: np.ndarray, gradient: np.ndarray, x: np.ndarray, bounds: Bounds, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the step that maximises ``g d - d F d / 2`` within the bounds, and which of them it ends at.

    Parameters
    ----------
    fisher : (size, size) array
        Positive semi-definite.
    gradient : (size,) array
        Slope of the likelihood.
    x : (size,) array
        A point within the bounds.
    bounds : Bounds
        Linear constraints.
    active : (rows,) array of bool
        A guess of which hold at the end.

    Notes
    -----
    The active-set method: from a point within the bounds to the optimum with those that hold, on the way stopped by
    others, and away from those that pull the wrong way.

    Examples
    --------
    >>> bounds = Bounds(np.ones((1, 2)), np.eye(2), np.zeros(2))
    >>> step, active = quadratic_step(np.eye(2), np.array([3.0, -3.0]), np.array([0.5, 0.5]), bounds, np.zeros(2, bool))
    >>> step.round(9), active.tolist()
    (array([ 0.5, -0.5]), [False, True])
    """
    room = bounds.above @ x - bounds.least
    held = active & (room <= ROUNDING * np.maximum(np.abs(bounds.least), 1))
    scale = np.sqrt(np.maximum(np.diag(fisher), ROUNDING))
    step = np.zeros(len(x))
    for _ in range(20 * (len(room) + len(x)) + 20):
        rows = np.concatenate([bounds.equal, bounds.above[held]])
        free = null_space(rows / scale, len(x)) / scale[:, np.newaxis]
        inner = free.T @ fisher @ free
        inner += 1e-12 * max(float(np.trace(inner)), 1e-300) / max(len(inner), 1) * np.eye(len(inner))
        move = free @ np.linalg.solve(inner, free.T @ (gradient - fisher @ step)) if len(inner) else np.zeros(len(x))
        rate = bounds.above @ move
        left = room + bounds.above @ step
        falling = ~held & (rate < -ROUNDING * np.abs(bounds.above) @ np.abs(move)) & (rate < 0)
        reach = np.where(falling, np.maximum(left, 0) / np.where(falling, -rate, 1), np.inf)
        if reach.size and reach.min() < 1:
            step = step + reach.min() * move
            held[int(np.argmin(reach))] = True
            continue
        step = step + move
        if not held.any():
            break
        pull = np.linalg.lstsq(rows.T, gradient - fisher @ step, rcond=None)[0][len(bounds.equal) :]
        if pull.max() <= 1e-9 * max(float(np.abs(gradient).max()), 1e-300):
            break
        held[np.flatnonzero(held)[int(np.argmax(pull))]] = False
    return step, held


def _misfit(counts: np.ndarray, value: np.ndarray, extra: np.ndarray, weight: np.ndarray) -> float:
    if extra.any():
        return 0.5 * float((weight * (counts - value) ** 2).sum())
    positive = counts > 0
    logs = np.zeros(len(counts))
    logs[positive] = counts[positive] * np.log(counts[positive] / value[positive])
    return float((value - counts + logs).sum())


def null_space(rows: np.ndarray, size: int) -> np.ndarray:
    """Return orthonormal columns that all rows are orthogonal to, ``(size, free)``.

    Examples
    --------
    >>> abs(null_space(np.array([[1.0, 0.0]]), 2)).tolist()
    [[0.0], [1.0]]
    """
    if not len(rows):
        return np.eye(size)
    _, values, right = np.linalg.svd(rows)
    rank = int((values > 1e-10 * values.max(initial=0)).sum())
    return right[rank:].T


def _covariance(fisher: np.ndarray, bounds: Bounds, active: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.maximum(np.diag(fisher), ROUNDING))
    rows = np.concatenate([bounds.equal, bounds.above[active]])
    free = null_space(rows / scale, len(fisher)) / scale[:, np.newaxis]
    inner = free.T @ fisher @ free
    return free @ np.linalg.pinv(inner, rcond=1e-13, hermitian=True) @ free.T
