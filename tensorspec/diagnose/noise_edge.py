"""How many singular values stand above those that noise alone would have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.noise import NoiseModel
from tensorspec.noise.lowrank import leading_singular_values, noise_edge
from tensorspec.noise.residual import sample_noise
from tensorspec.noise.unfold import row_dims, unfold

__all__ = ["SingularValues", "singular_values_above_noise", "sum_neighbours", "summed_pixels"]

_MOST_VALUES = 8_000_000
# A row with next to nothing in it that meets such a channel makes a large singular value by itself.
_LEAST_IN_ROW, _LEAST_IN_CHANNEL = 20, 100
_MARGIN, _WEAK = 1.02, 1.15
# The largest of nineteen draws: noise alone exceeds it once in twenty times.  Of large data fewer are enough, as their
# largest singular value hardly varies.
_MOST_DRAWS, _FEWEST_DRAWS, _DRAWN_VALUES = 19, 5, 5_000_000
_ROUNDS, _MOST_SPIKES, _SPIKE = 5, 0.003, 6.0
# Share of a singular value above which a single entry makes it.
_ALONE = 0.25


@dataclass(frozen=True, eq=False)
class SingularValues:
    """Singular values of data in a frame where their noise is even.

    Attributes
    ----------
    ratio : (k,) ndarray
        The leading ones over the largest that noise alone has in an infinitely large matrix of this shape.
    above : int
        How many are above it, by a margin of 2 %.
    weak : tuple of int
        Numbers, from 1, of those that stand above noise by less than 15 %.
    parallel : float or None
        What noise alone reaches in draws of counts with the same row and channel sums and a single component: the
        largest of their second singular values, over the limit, and one standard deviation more; None where the data
        are not counts.
    above_parallel : int or None
        How many are above that.
    shape : (int, int)
        Rows and channels that were left: dark rows are dropped, channels merged, pixels of large data summed.
    spikes : int
        Entries that were taken for spikes and replaced.
    summed : int
        How many pixels make one row.
    """

    ratio: np.ndarray
    above: int
    weak: tuple[int, ...]
    parallel: float | None
    above_parallel: int | None
    shape: tuple[int, int]
    spikes: int
    summed: int


def singular_values_above_noise(
    data: xr.DataArray, noise: NoiseModel, looked: int = 24, seed: int = 0
) -> SingularValues:
    """Compare the singular values of pixels times channels with those of noise.

    Parameters
    ----------
    data : DataArray
        Any order; pixels (or the first dimension) against all else.
    noise : NoiseModel
        What noise they have.
    looked : int
        Number of singular values to return.
    seed : int
        Of the draws.

    Returns
    -------
    SingularValues

    Notes
    -----
    Counts ``X`` with row sums ``a``, channel sums ``b`` and total ``s`` are divided by ``sqrt(a b / s)`` [1]_: then
    noise has unit variance and its largest singular value is ``sqrt(rows) + sqrt(channels)`` [2]_.  Before that, rows
    of less than 20 counts are dropped, neighbouring channels merged to 100 counts, spikes replaced.  Other data are
    brought to even noise by their noise model; where neighbouring channels are correlated, the limit is that of such
    noise.

    References
    ----------
    .. [1] Keenan and Kotula, Surface and Interface Analysis 36 (2004) 203, doi:10.1002/sia.1657.
    .. [2] Marchenko and Pastur, Mathematics of the USSR-Sbornik 1 (1967) 457, doi:10.1070/SM1967v001n04ABEH001994.

    Examples
    --------
    >>> maps, spectra = np.eye(3)[np.arange(600) % 3], np.eye(3)[:, np.arange(60) % 3] + 0.1
    >>> counts = np.random.default_rng(0).poisson(4 * maps @ spectra)
    >>> found = singular_values_above_noise(xr.DataArray(counts, dims=("x", "energy_loss")), NoiseModel())
    >>> found.above, found.above_parallel
    (3, 3)
    """
    data, summed = summed_pixels(data, _MOST_VALUES)
    noise = NoiseModel(noise.gain, summed * noise.read_variance, noise.channel_correlation)
    matrix, valid, _ = unfold(data, _MOST_VALUES)
    matrix, spikes = _filled(matrix, valid, noise)
    unit = noise.gain if noise.gain > 0 and noise.read_variance == 0 else 1.0
    count = min(looked, *matrix.shape)
    for _ in range(_ROUNDS):
        scaled, matrix = _even(matrix, noise, unit)
        found = leading_singular_values(scaled, min(count, *scaled.shape))
        alone = _alone(scaled, *found)
        if not len(alone):
            break
        spikes += len(alone)
        used = np.ones(matrix.shape, dtype=bool)
        used[tuple(alone.T)] = False
        matrix, unit = np.where(used, matrix, _one_component(matrix, used)), 1.0
    rows, channels = scaled.shape
    correlation = noise.channel_correlation or 0.0
    limit = noise_edge(rows, channels, None if noise.is_counts else np.array([np.clip(correlation, -0.5, 0.5)]))
    ratio = found[1] / limit
    parallel = _parallel(matrix, seed) if noise.is_counts else None
    least = _MARGIN if parallel is None else max(parallel, 1.0)
    return SingularValues(
        ratio=ratio,
        above=int(np.count_nonzero(ratio > _MARGIN)),
        weak=tuple(int(k) + 1 for k in np.flatnonzero((ratio > least) & (ratio <= _WEAK))),
        parallel=parallel,
        above_parallel=None if parallel is None else int(np.count_nonzero(ratio > parallel)),
        shape=(rows, channels),
        spikes=spikes,
        summed=summed,
    )


def summed_pixels(data: xr.DataArray, most: int, least: float = 0.0) -> tuple[xr.DataArray, int]:
    """Sum neighbouring pixels, two by two along the longer side, until few enough values and enough counts are left.

    Counts stay counts, and none is lost.

    Parameters
    ----------
    data : DataArray
        Coordinates of the pixels are lost where something is summed.
    most : int
        Number of values; no side is made shorter than 16.
    least : float
        Sum over a pixel, on average.

    Returns
    -------
    data : DataArray
        The same where nothing had to be summed, else in memory.
    summed : int
        How many pixels make one.

    Examples
    --------
    >>> few, summed = summed_pixels(xr.DataArray(np.ones((64, 64, 3)), dims=("y", "x", "energy_loss")), 4000)
    >>> few.shape, summed, float(few.max())
    ((32, 32, 3), 4, 4.0)
    """
    summed = 1
    dims = row_dims(data)
    count = math.prod(data.sizes[dim] for dim in dims)
    brightness = float(data.sum()) / count if least else 0.0
    while data.size > most or summed * brightness < least:
        dim = max(dims, key=lambda each: data.sizes[each])
        if data.sizes[dim] < 32:
            break
        data = sum_neighbours(data, dim, 2)
        summed *= 2
    # Lazy data are summed chunk by chunk, once, and the sums are small.
    return data.compute() if summed > 1 and data.chunks is not None else data, summed


def sum_neighbours(data: xr.DataArray, dim: str, number: int) -> xr.DataArray:
    """Sum so many neighbours along a dimension; coordinates along it are lost, and what is missing spoils its sum.

    Examples
    --------
    >>> sum_neighbours(xr.DataArray([1, 2, 3, 4, 5], dims="x"), "x", 2).values
    array([3., 7.])
    """
    data = data.drop_vars([name for name, coord in data.coords.items() if dim in coord.dims])
    blocks: Any = data.astype(np.float64).coarsen({dim: number}, boundary="trim")
    return blocks.reduce(np.sum)


def _alone(scaled: np.ndarray, left: np.ndarray, values: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return row and channel of entries that by themselves make a good part of a singular value above noise."""
    found = set()
    for k in range(1, len(values)):
        if values[k] < noise_edge(*scaled.shape):
            break
        for i in np.argsort(-np.abs(left[:, k]))[:4]:
            for j in np.argsort(-np.abs(right[:, k]))[:4]:
                if scaled[i, j] * left[i, k] * right[j, k] > _ALONE * values[k]:
                    found.add((int(i), int(j)))
    return np.array(sorted(found), dtype=int).reshape(-1, 2)


def _filled(matrix: np.ndarray, valid: np.ndarray, noise: NoiseModel) -> tuple[np.ndarray, int]:
    """Replace what is missing, and spikes, by row mean times channel mean over the grand mean."""
    rows, channels = matrix.any(axis=1), matrix.any(axis=0)
    matrix, valid = matrix[rows][:, channels], valid[rows][:, channels]
    if min(matrix.shape, default=0) < 4:
        return matrix, 0
    correlations = np.array([noise.channel_correlation or 0.0])
    used, expected = valid, _one_component(matrix, valid)
    for _ in range(_ROUNDS):
        held = np.where(used, matrix, expected)
        sample = sample_noise(held, used, None, noise.gain, noise.read_variance, correlations)
        # The rows and channels of two spikes meet in two further entries, which are none.
        high = np.abs(matrix - expected) > _SPIKE * (np.sqrt(noise.variance(expected)) + noise.gain)
        found = sample.spikes(noise.gain, noise.read_variance) & used & high
        if not found.any():
            break
        used = used & ~found
        expected = _one_component(matrix, used)
    spikes = int(valid.sum() - used.sum())
    # More than a few in a thousand are no spikes but structure that the model did not follow.
    if spikes > _MOST_SPIKES * valid.sum():
        used, spikes, expected = valid, 0, _one_component(matrix, valid)
    return np.where(used, matrix, expected), spikes


def _one_component(matrix: np.ndarray, used: np.ndarray) -> np.ndarray:
    held = np.where(used, matrix, 0.0)
    row = held.sum(axis=1) / np.maximum(used.sum(axis=1), 1)
    channel = held.sum(axis=0) / np.maximum(used.sum(axis=0), 1)
    grand = held.sum() / max(int(used.sum()), 1)
    return np.outer(row, channel) / grand if grand else np.zeros_like(matrix)


def _even(matrix: np.ndarray, noise: NoiseModel, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix whose noise is even, as far as scaling rows and channels goes, and the counts themselves."""
    if noise.read_variance > 0 or (matrix < 0).any():
        variance = noise.variance(matrix)
        row, channel = variance.mean(axis=1), variance.mean(axis=0)
        grand = float(row.mean())
        scale = np.sqrt(np.outer(np.maximum(row, 0.05 * grand), np.maximum(channel, 0.05 * grand)) / grand)
        return matrix / np.where(scale > 0, scale, 1), matrix
    matrix = matrix / unit
    matrix = matrix[matrix.sum(axis=1) >= _LEAST_IN_ROW] if (matrix.sum(axis=1) >= _LEAST_IN_ROW).any() else matrix
    matrix = _merged(matrix)
    a, b = matrix.sum(axis=1), matrix.sum(axis=0)
    return matrix / np.sqrt(np.outer(a, b) / matrix.sum()), matrix


def _merged(matrix: np.ndarray) -> np.ndarray:
    """Merge neighbouring channels until each has its hundred counts; a dozen are left in any case."""
    total = matrix.sum(axis=0)
    least = min(_LEAST_IN_CHANNEL, total.sum() / 12)
    starts, held = [0], 0.0
    for channel, one in enumerate(total):
        if held >= least:
            starts.append(channel)
            held = 0.0
        held += one
    if held < least and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(matrix, starts, axis=1)


def _parallel(matrix: np.ndarray, seed: int) -> float:
    """Return the largest second singular value, over the limit, of counts with the same sums and a single component."""
    rng = np.random.default_rng(seed)
    expected = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    found = []
    for _ in range(int(np.clip(_DRAWN_VALUES // matrix.size, _FEWEST_DRAWS, _MOST_DRAWS))):
        drawn = rng.poisson(expected).astype(float)
        a, b = drawn.sum(axis=1), drawn.sum(axis=0)
        drawn, a, b = drawn[a > 0][:, b > 0], a[a > 0], b[b > 0]
        _, values, _ = leading_singular_values(drawn / np.sqrt(np.outer(a, b) / drawn.sum()), 2)
        found.append(values[-1] / noise_edge(*drawn.shape))
    return float(np.max(found) + np.std(found))
