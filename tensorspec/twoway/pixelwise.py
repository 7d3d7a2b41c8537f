"""Amounts of known spectra in many pixels at once, with their standard errors: plain arrays in, plain arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tensorspec.algebra.block_pivoting import nonnegative, passive_inverse
from tensorspec.errors import InvalidData
from tensorspec.noise import NoiseModel

__all__ = ["Amounts", "METHODS", "solve"]

METHODS = ("nonnegative", "ordinary", "weighted", "poisson")
BLOCK = 2**22  # values of a pixel times channel array held at once
FLOOR = 1e-3  # share of the mean variance of a pixel below which no entry's variance is taken to be
MOST_STEPS, SETTLED = 100, 1e-9
EXPECTED = 0.01  # share of the expected curvature that is added to the observed one
LEAST_SHARE = 1e-9  # of the mean of a pixel
SINGULAR = 3e15  # condition of normal equations above which a pixel says nothing of some amount


class Amounts(NamedTuple):
    """For each pixel amounts and standard errors, 1 where a bound is active, chi-squared and degrees of freedom."""

    amounts: np.ndarray
    errors: np.ndarray
    bound: np.ndarray
    chi2: np.ndarray
    free: np.ndarray


class _Problem(NamedTuple):
    spectra: np.ndarray  # (channels, rank), columns of unit norm
    pairs: np.ndarray  # (channels, rank^2), products of the columns
    neighbours: np.ndarray  # (channels - 1, rank^2), products of each channel with the next, both ways
    sums: np.ndarray | None
    noise: NoiseModel


def solve(
    values: np.ndarray,
    valid: np.ndarray | None,
    spectra: np.ndarray,
    adjacent: np.ndarray,
    method: str,
    sum_to_one: bool,
    noise: NoiseModel,
) -> Amounts:
    """Return the amounts of known spectra in every pixel.

    Parameters
    ----------
    values : (pixels, channels) array
        NaN are missing.
    valid : (pixels, channels) array of bool, optional
        True where a value is used.
    spectra : (channels, rank) array
        Finite; no column is zero.
    adjacent : (channels - 1,) array of bool
        Whether a channel and the next were neighbours in the instrument.
    method : {"nonnegative", "ordinary", "weighted", "poisson"}
        As `unmix` takes it.
    sum_to_one : bool
        Whether the amounts of a pixel add up to one.
    noise : NoiseModel
        Variance for a given mean.

    Raises
    ------
    InvalidData
        For infinite values, and for negative ones with ``poisson``.
    """
    pixels, rank = len(values), spectra.shape[1]
    norms = np.linalg.norm(spectra, axis=0)
    unit = spectra / norms
    pairs = (unit[:, :, np.newaxis] * unit[:, np.newaxis, :]).reshape(-1, rank**2)
    across = unit[:-1, :, np.newaxis] * unit[1:, np.newaxis, :] * adjacent[:, np.newaxis, np.newaxis]
    neighbours = (across + across.transpose(0, 2, 1)).reshape(-1, rank**2)
    problem = _Problem(unit, pairs, neighbours, 1 / norms if sum_to_one else None, noise)
    parts = []
    for start in range(0, max(pixels, 1), max(BLOCK // max(len(spectra), rank**2), 1)):
        region = slice(start, start + max(BLOCK // max(len(spectra), rank**2), 1))
        block = np.asarray(values[region], dtype=np.float64)
        used = ~np.isnan(block) if valid is None else valid[region] & ~np.isnan(block)
        block = np.where(used, block, 0.0)
        if np.isinf(block).any():
            raise InvalidData(f"unmix: {int(np.isinf(block).sum())} values are infinite; leave them out with mask=")
        if method == "poisson" and (block < 0).any():
            raise InvalidData(
                f"unmix: method='poisson' needs counts, but {int((block < 0).sum())} values are negative; "
                "use method='weighted', or leave them out with mask="
            )
        parts.append(_solve_block(block, used, problem, method))
    amounts, errors, bound, chi2, free = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Amounts(amounts / norms, errors / norms, bound, chi2, free)


def _solve_block(values: np.ndarray, used: np.ndarray, problem: _Problem, method: str) -> Amounts:
    """Return amounts of unit-norm spectra in some pixels."""
    rank = problem.spectra.shape[1]
    weights = used.astype(np.float64)
    gram = _gram(weights, problem)
    # Pixels that lack the channels that tell components apart get none.
    eigenvalues = np.linalg.eigvalsh(gram)
    known = eigenvalues[:, 0] * SINGULAR > eigenvalues[:, -1]
    gram[~known] = np.eye(rank)
    passive = np.ones((len(values), rank), bool)
    if method in ("ordinary", "weighted"):
        amounts = _linear(gram, values @ problem.spectra, problem)
        if method == "weighted":
            amounts, weights = _reweighted(values, used, amounts, known, problem)
            gram = _gram(weights, problem)
    else:
        amounts, passive = nonnegative(gram, values @ problem.spectra, problem.sums)
        if method == "poisson":
            amounts, passive = _likeliest(values, used, amounts, known, problem)
            weights = used / _variance(amounts, used, problem)
            gram = _gram(weights, problem)
    gram[~known] = np.eye(rank)
    inverse, _ = passive_inverse(gram, passive, problem.sums)
    variance = _variance(amounts, used, problem)
    meat = _gram(weights**2 * variance, problem)
    correlation = float(np.clip(problem.noise.channel_correlation or 0.0, -0.5, 0.5))
    if correlation:
        deviation = weights * np.sqrt(variance)
        joint = (deviation[:, :-1] * deviation[:, 1:]) @ problem.neighbours
        meat = meat + correlation * joint.reshape(meat.shape)
    covariance = np.einsum("nij,njk,nki->ni", inverse, meat, inverse, optimize=True)
    bound = ~passive
    errors = np.where(bound, np.nan, np.sqrt(np.maximum(covariance, 0)))
    free = used.sum(axis=1) - passive.sum(axis=1) + (problem.sums is not None)
    residual = np.where(used, values - amounts @ problem.spectra.T, 0.0)
    with np.errstate(invalid="ignore"):
        chi2 = np.where(free > 0, (residual**2 / variance).sum(axis=1) / np.maximum(free, 1), np.nan)
    lost = ~known
    amounts[lost], errors[lost], bound[lost], chi2[lost] = np.nan, np.nan, False, np.nan
    return Amounts(amounts, errors, bound.astype(float), chi2, np.where(lost, 0, np.maximum(free, 0)).astype(float))


def _gram(weights: np.ndarray, problem: _Problem) -> np.ndarray:
    """Return the weighted normal matrices, (pixels, rank, rank)."""
    rank = problem.spectra.shape[1]
    return (weights @ problem.pairs).reshape(-1, rank, rank)


def _linear(gram: np.ndarray, right: np.ndarray, problem: _Problem) -> np.ndarray:
    inverse, shift = passive_inverse(gram, np.ones(right.shape, bool), problem.sums)
    return np.matmul(inverse, right[..., np.newaxis])[..., 0] + shift


def _variance(amounts: np.ndarray, used: np.ndarray, problem: _Problem) -> np.ndarray:
    """Return the noise variance that the model has in every entry, kept off zero."""
    variance = problem.noise.variance(amounts @ problem.spectra.T)
    mean = (variance * used).sum(axis=1) / np.maximum(used.sum(axis=1), 1)
    floor = np.where(mean > 0, FLOOR * mean, 1.0)
    return np.maximum(variance, floor[:, np.newaxis])


def _reweighted(
    values: np.ndarray, used: np.ndarray, amounts: np.ndarray, known: np.ndarray, problem: _Problem
) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted least squares with the variance of the model itself, and the weights: solved until they agree."""
    amounts = amounts.copy()
    open_ = np.flatnonzero(known)
    for step in range(MOST_STEPS):
        if not open_.size:
            break
        own = used[open_] / _variance(amounts[open_], used[open_], problem)
        new = _linear(_gram(own, problem), (own * values[open_]) @ problem.spectra, problem)
        change = np.abs(new - amounts[open_]).max(axis=1)
        # Two sets of weights that lead to each other would go on for ever: the mean of the two leads out.
        amounts[open_] = new if step < 10 else (new + amounts[open_]) / 2
        open_ = open_[change > SETTLED * np.abs(new).max(axis=1)]
    return amounts, used / _variance(amounts, used, problem)


def _likeliest(
    values: np.ndarray, used: np.ndarray, amounts: np.ndarray, known: np.ndarray, problem: _Problem
) -> tuple[np.ndarray, np.ndarray]:
    """Return the amounts of largest Poisson likelihood, zero or more, by Newton steps with a line search."""
    gain = problem.noise.gain if problem.noise.gain > 0 else 1.0
    rank = problem.spectra.shape[1]
    # A channel in which no spectrum has anything says nothing of the amounts.
    used = used & problem.spectra.any(axis=1)
    values = np.where(used, values, 0.0)
    amounts, passive = amounts.copy(), np.ones((len(values), rank), bool)
    # A start at which every channel that has counts is expected to have some.
    level = values.sum(axis=1) / np.maximum((used @ problem.spectra).sum(axis=1), np.finfo(float).tiny)
    inside = np.maximum(amounts, 0.01 * level[:, np.newaxis])
    if problem.sums is not None:
        inside = np.maximum(amounts, 0.01 / (rank * problem.sums))
        inside = inside / (inside @ problem.sums)[:, np.newaxis]
    filled = known & (values.sum(axis=1) > 0)
    amounts[filled] = inside[filled]
    open_ = np.flatnonzero(filled)
    empty = known & ~filled
    if problem.sums is None:
        amounts[empty], passive[empty] = 0.0, False
    for _ in range(MOST_STEPS):
        if not open_.size:
            break
        own, counts, seen = amounts[open_], values[open_], used[open_]
        model = own @ problem.spectra.T
        # Channels without counts of which nothing is expected any more: their square must not vanish.
        lowest = LEAST_SHARE * (seen * model).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        model = np.maximum(model, np.maximum(lowest, np.finfo(float).tiny ** 0.25)[:, np.newaxis])
        slope = (seen * (1 - counts / model)) @ problem.spectra
        curvature = _gram(seen * (counts + EXPECTED * model) / model**2, problem)
        curvature += 1e-12 * np.trace(curvature, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] * np.eye(rank)
        target = np.matmul(curvature, own[..., np.newaxis])[..., 0] - slope
        new, free = nonnegative(curvature, target, problem.sums)
        direction = new - own
        descent = (slope * direction).sum(axis=1)
        before = _misfit(own, counts, seen, problem)
        length, moved = np.ones(len(own)), np.zeros(len(own), bool)
        for _ in range(40):
            trial = own + length[:, np.newaxis] * direction
            better = _misfit(trial, counts, seen, problem) <= before + 1e-4 * length * descent + 1e-13 * np.abs(before)
            moved |= better
            if moved.all():
                break
            length = np.where(moved, length, length / 2)
        full = length[:, np.newaxis] == 1
        amounts[open_] = np.where(full, new, own + (length * moved)[:, np.newaxis] * direction)
        passive[open_] = free
        # In units of the log-likelihood, of which one half is a standard deviation.
        open_ = open_[(-descent > SETTLED * gain + 1e-13 * np.abs(before)) & moved]
    return np.where(passive, amounts, 0.0), passive


def _misfit(amounts: np.ndarray, counts: np.ndarray, used: np.ndarray, problem: _Problem) -> np.ndarray:
    """Return the negative log-likelihood of each pixel up to a constant; infinite where counts are not expected."""
    model = amounts @ problem.spectra.T
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = model - np.where(counts > 0, counts * np.log(np.maximum(model, 0.0)), 0.0)
    return np.where(used, terms, 0.0).sum(axis=1)
