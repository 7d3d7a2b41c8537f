"""The noise of a data set, from what a low-rank model leaves over."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise.model import NoiseModel
from tensorspec.noise.residual import NoiseSample, sample_noise
from tensorspec.noise.unfold import as_numbers, check_mask, unfold

__all__ = ["difference_noise", "estimate_noise", "noise_at_a_glance"]

MOST_VALUES = 2**21
# What tells counts from other data, an eighth of it, takes a tenth of the time.
GLANCE_VALUES, GLANCE_ROWS = 2**18, 256
ROUNDS = 3
LAGS = 4
SYSTEMATIC = 0.02
SIGNIFICANT = 3.0
MOST_SPIKES = 0.01


def estimate_noise(data: xr.DataArray, rank: int | None = None, *, mask: xr.DataArray | None = None) -> NoiseModel:
    """Estimate gain, read variance and channel correlation from the data themselves.

    Parameters
    ----------
    data : DataArray
        A spectrum image of any order; ``z, y, x`` (and ``tilt_y, tilt_x``) count samples, the last of the other
        dimensions is the channel axis. Integers or floats, in memory or lazy; NaN are missing.
    rank : int, optional
        Number of components of the model whose residual is noise. By default every component that stands above the
        noise, at most 24.
    mask : DataArray of bool, optional
        True = use, such as ``ts.mask_spikes`` gives; it may lack dimensions of the data.

    Returns
    -------
    NoiseModel
        ``read_variance`` and ``channel_correlation`` are zero unless they stand three standard errors above it;
        the latter is ``None`` where there are too few channels to tell.

    Raises
    ------
    InvalidData
        If the data are no numbers, hold infinities, are all zero or missing, or have fewer than three values, or if
        the mask does not fit.
    UnknownMode
        If the mask has a dimension that the data do not have.
    InvalidArgument
        If the rank is not a positive integer.

    Notes
    -----
    The samples x channels matrix (1024 rows, or two million values of it) is divided by the square root of its
    rank-one expectation, so that noise of any gain is even; a truncated singular value decomposition is the model.
    To first order its residual at entry (i, j) has ``(1 - h_i)(1 - g_j)`` of the noise variance, with ``h`` and ``g``
    the leverages of row and channel, and is divided by that. Variance is regressed on mean over groups of rows and
    channels of equal brightness, spikes left out. Where most values are zero, channels are merged to at least 100
    counts for the model. Fixed patterns that a low-rank model cannot follow count as noise. Of fewer than four spectra
    the second differences along the channels are taken for noise, sharp lines among them.

    Examples
    --------
    >>> mean = np.multiply.outer(np.linspace(1, 2, 400), np.linspace(20, 100, 200))
    >>> counts = 3 * np.random.default_rng(0).poisson(mean / 3)
    >>> noise = estimate_noise(xr.DataArray(counts, dims=("x", "energy_loss")))
    >>> round(noise.gain, 1), noise.read_variance, noise.is_counts
    (3.0, 0.0, False)
    """
    as_numbers(data)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | np.integer) or rank < 1):
        raise InvalidArgument(f"estimate_noise: rank is {rank!r}; expected a positive integer, or None to choose it.")
    return _from_matrix(*unfold(data, MOST_VALUES, check_mask(data, mask)), rank)


def noise_at_a_glance(data: xr.DataArray) -> NoiseModel:
    """Return what `estimate_noise` does, from a quarter of a million values: good enough to recognise counts.

    Raises
    ------
    InvalidData
        As `estimate_noise`.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(3.0, (2000, 400))
    >>> noise_at_a_glance(xr.DataArray(counts, dims=("x", "energy_loss"))).is_counts
    True
    """
    as_numbers(data)
    return _from_matrix(*unfold(data, GLANCE_VALUES, None, GLANCE_ROWS), None)


def _from_matrix(matrix: np.ndarray, valid: np.ndarray, length: int, rank: int | None) -> NoiseModel:
    """Return the noise of samples x channels, as `unfold` gives them."""
    if valid.sum() < 3:
        raise InvalidData("noise cannot be estimated from fewer than three valid values.")
    if not matrix.any():
        raise InvalidData("the data are all zero: they say nothing about their noise.")
    rows, channels = matrix.any(axis=1), matrix.any(axis=0)
    matrix, valid = matrix[rows][:, channels], valid[rows][:, channels]
    if min(matrix.shape) < 4:
        variance, mean = difference_noise(matrix, valid)
        return NoiseModel(variance / mean, 0.0) if mean > 0 else NoiseModel(0.0, variance)

    positions = np.flatnonzero(channels)
    gain, read, correlations = 1.0, 0.0, np.zeros(0)
    for _ in range(ROUNDS):
        sample = sample_noise(matrix, valid, rank, gain, read, correlations)
        if sample.variance.sum() <= 1e-24 * (matrix**2).sum():
            return NoiseModel(0.0, 0.0)
        gain, read = _regress(sample, matrix)
        correlations = _correlations(sample, gain, read, positions, length)
        spikes = sample.spikes(gain, read)
        if 0 < spikes.sum() < MOST_SPIKES * valid.sum():
            valid = valid & ~spikes
            matrix = np.where(valid, matrix, 0.0)
    if not len(correlations):
        return NoiseModel(gain, read)
    correlation = float(np.clip(correlations[0], -0.99, 0.99))
    seen = abs(correlation) > SIGNIFICANT / np.sqrt(valid.sum())
    return NoiseModel(gain, read, correlation if seen else 0.0)


def difference_noise(matrix: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Noise variance and mean of data too small for a low-rank model, from second differences along the longer axis.

    Parameters
    ----------
    matrix : (rows, channels) float64 array
        The data, smooth along the longer axis but for noise.
    valid : (rows, channels) array of bool
        Where they were measured.

    Returns
    -------
    variance, mean : float
        Data units squared, data units; variance zero where fewer than three values stand in a row.
    """
    if matrix.shape[0] > matrix.shape[1]:
        matrix, valid = matrix.T, valid.T
    mean = float(matrix[valid].mean()) if valid.any() else 0.0
    complete = valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]
    if not complete.any():
        return 0.0, mean
    bend = (matrix[:, :-2] - 2 * matrix[:, 1:-1] + matrix[:, 2:])[complete]
    return float((bend**2).mean() / 6), mean


def _regress(sample: NoiseSample, matrix: np.ndarray) -> tuple[float, float]:
    """Fit ``variance = gain * mean + read`` over groups of entries of equal brightness."""
    gain, read = _start(sample, matrix)
    groups = np.add.outer(_groups(sample.row_brightness, 4) * 24, _groups(sample.channel_brightness, 24)).ravel()
    for _ in range(4):
        use = sample.inliers(gain, read)
        number = np.bincount(groups, use.ravel())
        filled = number > 0
        number = number[filled]
        mean = np.bincount(groups, (matrix * use).ravel())[filled] / number
        variance = np.bincount(groups, (sample.variance * use).ravel())[filled] / number
        gain, read = _line(np.maximum(mean, 0.0), variance, number, gain, read)
    return gain, read


def _start(sample: NoiseSample, matrix: np.ndarray) -> tuple[float, float]:
    """First guess of the gain: a median over channels, by which spikes and misfitted peaks drop out."""
    variance = np.where(sample.usable, sample.variance, 0.0).sum(axis=0)
    mean = np.where(sample.usable, matrix, 0.0).sum(axis=0)
    seen = (mean > 0) & (variance > 0)
    if not seen.any():
        return 0.0, float(sample.variance[sample.usable].mean())
    ratio = variance[seen] / mean[seen]
    order = np.argsort(ratio)
    # In sparse data most channels hold next to nothing: the median goes by signal-to-noise, not by number.
    weight = np.cumsum(np.sqrt(mean[seen][order]))
    return float(ratio[order][np.searchsorted(weight, 0.5 * weight[-1])]), 0.0


def _line(mean: np.ndarray, variance: np.ndarray, number: np.ndarray, gain: float, read: float) -> tuple[float, float]:
    """Weighted regression with both coefficients at zero or above, outlying groups weighted down (Huber)."""
    tiny = 1e-9 * float(variance.max()) + np.finfo(float).tiny
    huber = np.ones_like(mean)
    for _ in range(10):
        predicted = np.maximum(gain * mean + read, tiny)
        # Fourth moments of a scaled Poisson variable, and what no instrument keeps better than.
        error = np.sqrt((2 * predicted**2 + gain**2 * predicted) / number + (SYSTEMATIC * predicted) ** 2)
        weight = huber / error**2
        only_gain = float((weight * mean * variance).sum() / max((weight * mean**2).sum(), np.finfo(float).tiny))
        only_read = float((weight * variance).sum() / weight.sum())
        normal = np.array([[(weight * mean**2).sum(), (weight * mean).sum()], [(weight * mean).sum(), weight.sum()]])
        deviation = (variance - predicted) / error
        misfit = max(1.0, float(np.median(np.abs(deviation))) / 0.6745)
        huber = np.minimum(1.0, 2 * misfit / np.maximum(np.abs(deviation), 1e-12))
        if np.linalg.cond(normal) > 1e12 or not mean.any():
            gain, read = (only_gain, 0.0) if mean.any() else (0.0, only_read)
            continue
        both = np.linalg.solve(normal, [(weight * mean * variance).sum(), (weight * variance).sum()])
        sure = both > SIGNIFICANT * misfit * np.sqrt(np.diag(np.linalg.inv(normal)))
        if sure.all():
            gain, read = float(both[0]), float(both[1])
        elif sure[1] or (
            not sure[0] and _misfit(variance, only_read, weight) < _misfit(variance, only_gain * mean, weight)
        ):
            gain, read = 0.0, only_read
        else:
            gain, read = only_gain, 0.0
    return gain, read


def _misfit(variance: np.ndarray, predicted: np.ndarray | float, weight: np.ndarray) -> float:
    """Weighted sum of squares."""
    return float((weight * (variance - predicted) ** 2).sum())


def _groups(brightness: np.ndarray, most: int) -> np.ndarray:
    """Give rows (or channels) of equal brightness the same number, finer where it is bright."""
    order = np.argsort(brightness, kind="stable")
    weight = np.cumsum(np.sqrt(np.maximum(brightness[order], 0)) + 1e-12)
    group = np.empty(len(brightness), dtype=int)
    group[order] = np.minimum((weight / weight[-1] * most).astype(int), most - 1)
    return group


def _correlations(sample: NoiseSample, gain: float, read: float, positions: np.ndarray, length: int) -> np.ndarray:
    """Correlation of the noise between channels 1, 2, ... apart, freed from what the model has swallowed.

    The residual is orthogonal to the model's channel vectors V, which makes neighbours look anticorrelated:
    ``E[w^T T_k w] = sum_l rho_l trace(T_k Q T_l Q)`` with ``Q = 1 - V V^T`` and ``T_k`` the sum of both shifts by k.
    """
    lags = min(LAGS, len(positions) // 8, length - 1)
    if lags == 0:
        return np.zeros(0)
    use = sample.inliers(gain, read)
    scale = np.sqrt(gain * sample.mean + read)
    white = np.divide(sample.residual, scale, out=np.zeros_like(scale), where=use & (scale > 0))
    right = sample.right

    pairs = [_pairs(positions, length, lag) for lag in range(lags + 1)]

    def shifted(array: np.ndarray, lag: int) -> np.ndarray:
        """Apply T_lag along the first axis."""
        if lag == 0:
            return array
        result = np.zeros_like(array)
        here, there = pairs[lag]
        result[here] += array[there]
        result[there] += array[here]
        return result

    observed = np.array([np.einsum("ij,ij->", _columns(white, here), _columns(white, there)) for here, there in pairs])
    observed[1:] *= 2
    moved = [shifted(right, lag) for lag in range(lags + 1)]
    inner = [right.T @ one for one in moved]
    expected = np.empty((lags + 1, lags + 1))
    for k in range(lags + 1):
        for j in range(lags + 1):
            # trace(T_k T_j) counts pairs in both directions: of unequal shifts there are none.
            trace = (len(pairs[k][0]) * (2 if k else 1)) if k == j else 0
            expected[k, j] = trace - 2 * np.vdot(moved[k], moved[j]) + np.vdot(inner[k].T, inner[j])
    try:
        solution = np.linalg.solve(expected, observed)
    except np.linalg.LinAlgError:
        return np.zeros(0)
    return solution[1:] / solution[0] if solution[0] > 0 else np.zeros(0)


def _columns(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return some columns, ascending; a view where none is left out between them, as a copy would take longest here."""
    if len(index) and index[-1] - index[0] + 1 == len(index):
        return values[:, index[0] : index[-1] + 1]
    return values[:, index]


def _pairs(positions: np.ndarray, length: int, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of channels that lie `lag` apart within one run of the last dimension."""
    there = np.searchsorted(positions, positions + lag)
    here = np.flatnonzero(there < len(positions))
    there = there[here]
    real = (positions[there] == positions[here] + lag) & (positions[here] // length == positions[there] // length)
    return here[real], there[real]
