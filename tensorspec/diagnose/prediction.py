"""How well fits of rising rank predict data that they have not seen: thinned counts, and entries left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidData
from tensorspec.fit import fit
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.noise import NoiseModel

__all__ = ["Prediction", "count_splitting", "held_out"]

# Share of a one-component model that is mixed into every prediction of counts: a single count where a fit says zero
# would otherwise cost infinitely much.
_MIXED = 0.02
# Channels of which one run is left out where the noise of neighbours is correlated; the inner ones are predicted.
_RUN, _MARGIN = 5, 1
_LEFT_OUT = 0.05


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was predicted of unseen data, by rank.

    Attributes
    ----------
    score : (ranks,) ndarray
        Mean loss of an unseen entry: half the deviance of counts, or half the squared residual over its variance.
    error : (ranks,) ndarray
        Standard error of the difference to the best rank.
    chosen : int
        The smallest rank whose loss is above the lowest by no more than one standard error of the difference.
    edge : bool
        Whether that is the largest rank that was tried.
    """

    score: np.ndarray
    error: np.ndarray
    chosen: int
    edge: bool


def count_splitting(
    data: xr.DataArray,
    model: Callable[[int], Any],
    ranks: Sequence[int],
    *,
    mask: xr.DataArray | None = None,
    splits: int = 2,
    seed: int = 0,
    **options: Any,
) -> Prediction:
    """Fit one half of the counts and predict the other: binomial thinning makes them independent.

    Parameters
    ----------
    data : DataArray
        Counts.
    model : callable
        Gives the model of a rank.
    ranks : sequence of int
        Ranks to try, rising.
    mask : DataArray of bool, optional
        True where an entry is used.
    splits : int
        Number of random halves; each trains once.
    seed : int
        Of the halves and of the fits.
    **options
        Further arguments of `fit`.

    Returns
    -------
    Prediction

    References
    ----------
    Neufeld et al., Biostatistics 25 (2024) 270, doi:10.1093/biostatistics/kxac047.
    """
    values = data.as_numpy().values
    if (values < 0).any() or not np.array_equal(values[np.isfinite(values)], np.rint(values[np.isfinite(values)])):
        raise InvalidData("count splitting needs counts: whole numbers of zero or more.")
    seen = np.isfinite(values) if mask is None else np.isfinite(values) & _broadcast(mask, data)
    counts = np.where(seen, np.nan_to_num(values), 0).astype(np.int64)
    rng = np.random.default_rng(seed)
    losses = [[] for _ in ranks]
    options = {"loss": LeastSquares(scaling="poisson"), **options}
    for split in range(splits):
        half = rng.binomial(counts, 0.5)
        train = data.copy(data=np.where(seen, half, np.nan) if not seen.all() else half.astype(np.float64))
        test = counts - half
        single = _single(half)
        for index, rank in enumerate(ranks):
            fitted = fit(train, model(rank), seed=seed + split, progress=False, **options)
            predicted = np.maximum(np.nan_to_num(fitted.reconstruct().transpose(*data.dims).values), 0)
            mean = (1 - _MIXED) * predicted + _MIXED * single
            mean *= half.sum() / max(float(mean[seen].sum()), 1e-300)
            losses[index].append(_deviance(test[seen], mean[seen]))
    return _judged(ranks, losses)


def held_out(
    data: xr.DataArray,
    noise: NoiseModel,
    model: Callable[[int], Any],
    ranks: Sequence[int],
    *,
    mask: xr.DataArray | None = None,
    folds: int = 2,
    seed: int = 0,
    **options: Any,
) -> Prediction:
    """Leave entries out of the fit and predict them.

    Parameters
    ----------
    data : DataArray
        Any values.
    noise : NoiseModel
        Residuals are divided by its standard deviation.  Where neighbouring channels are correlated, runs of five are
        left out and the inner three are predicted, as a channel would else give its neighbour away.
    model : callable
        Gives the model of a rank.
    ranks : sequence of int
        Ranks to try, rising.
    mask : DataArray of bool, optional
        True where an entry is used.
    folds : int
        How often a twentieth of the entries is left out.
    seed : int
        Of the choice and of the fits.
    **options
        Further arguments of `fit`.

    Returns
    -------
    Prediction

    References
    ----------
    Wold, Technometrics 20 (1978) 397, doi:10.1080/00401706.1978.10489693.
    """
    values = data.as_numpy().values.astype(np.float64)
    seen = np.isfinite(values) if mask is None else np.isfinite(values) & _broadcast(mask, data)
    rng = np.random.default_rng(seed)
    runs = abs(noise.channel_correlation or 0.0) > 0.05
    losses = [[] for _ in ranks]
    for fold in range(folds):
        out, tested = _chosen(values.shape, rng, runs)
        tested &= seen
        used = data.copy(data=seen & ~out)
        for index, rank in enumerate(ranks):
            fitted = fit(data, model(rank), mask=used, seed=seed + fold, progress=False, **options)
            predicted = fitted.reconstruct().transpose(*data.dims).values[tested]
            known = np.isfinite(predicted)
            variance = noise.variance(np.maximum(predicted, 0)) + 1e-12 * np.nanmean(values**2)
            # Where a fit says zero, one event is no surprise.
            variance = np.maximum(variance, 0.05 * noise.variance(float(np.nanmean(values))))
            loss = 0.5 * (values[tested] - predicted) ** 2 / variance
            losses[index].append(np.where(known, loss, 0.0))
    return _judged(ranks, losses)


def _chosen(shape: tuple[int, ...], rng: np.random.Generator, runs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries are left out, and which of them are predicted."""
    if not runs or shape[-1] < 4 * _RUN:
        out = rng.random(shape) < _LEFT_OUT
        return out, out.copy()
    pieces = -(-shape[-1] // _RUN)
    out = np.repeat(rng.random((*shape[:-1], pieces)) < _LEFT_OUT, _RUN, axis=-1)[..., : shape[-1]]
    place = np.arange(shape[-1]) % _RUN
    return out, out & (place >= _MARGIN) & (place < _RUN - _MARGIN)


def _judged(ranks: Sequence[int], losses: list[list[np.ndarray]]) -> Prediction:
    each = [np.concatenate(item) for item in losses]
    score = np.array([item.mean() for item in each])
    best = int(np.argmin(score))
    error = np.array([(item - each[best]).std() / np.sqrt(len(item)) for item in each])
    index = int(np.flatnonzero(score - score[best] <= error)[0])
    return Prediction(score, error, int(ranks[index]), index == len(ranks) - 1)


def _deviance(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Half the deviance of each entry; zero where a count equals its mean."""
    mean = np.maximum(mean, 1e-300)
    return mean - counts + np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / mean), 0.0)


def _single(counts: np.ndarray) -> np.ndarray:
    """Return the product of all marginal sums, scaled to the total: a model of one component."""
    total = float(counts.sum())
    result = np.full((1,) * counts.ndim, total)
    for axis in range(counts.ndim):
        own = counts.sum(axis=tuple(k for k in range(counts.ndim) if k != axis)) / max(total, 1)
        result = result * own.reshape([-1 if k == axis else 1 for k in range(counts.ndim)])
    return result


def _broadcast(mask: xr.DataArray, data: xr.DataArray) -> np.ndarray:
    full = xr.ones_like(data, dtype=bool) & mask
    return full.transpose(*data.dims).as_numpy().values
