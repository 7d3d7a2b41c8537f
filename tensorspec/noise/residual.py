"""Noise made visible: the residual of a low-rank model, in a frame where the noise is even."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorspec.noise.lowrank import low_rank

__all__ = ["NoiseSample", "sample_noise"]

MOST_COMPONENTS = 24
SPARSE_NONZERO = 0.5
MOST_LEVERAGE = 0.5
SINGLE_COUNT = 0.25
FLOOR, SPARSE_FLOOR = 0.05, 0.3
OUTLIER = 6.0


@dataclass(frozen=True)
class NoiseSample:
    """Squared residuals of a matrix that estimate its noise variance entry by entry.

    Attributes
    ----------
    residual : (rows, channels) array
        Data minus model, data units.
    variance : (rows, channels) array
        Squared residual divided by the share of the noise that the model left over: its expectation is the variance.
    mean : (rows, channels) array
        Non-negative guess of the mean that is fit to judge outliers by, data units.
    usable : (rows, channels) array of bool
        False where missing, or where the model has swallowed most of the noise.
    row_brightness, channel_brightness : arrays
        Mean over the row, over the channel.
    lone : (rows, channels) array of bool
        Entries that make a component all by themselves: spikes.
    kept : (rows, channels) array
        Share of the noise variance that the model left over.
    right : (channels, rank) array
        Orthonormal channel vectors to which the (evened) residual is orthogonal.
    """

    residual: np.ndarray
    variance: np.ndarray
    mean: np.ndarray
    usable: np.ndarray
    row_brightness: np.ndarray
    channel_brightness: np.ndarray
    lone: np.ndarray
    kept: np.ndarray
    right: np.ndarray

    def spikes(self, gain: float, read: float) -> np.ndarray:
        """Entries that are impossible under this noise, or that the model has made a component of."""
        return self.lone | (self.usable & ~self.inliers(gain, read))

    def inliers(self, gain: float, read: float) -> np.ndarray:
        """Entries whose residual is possible under this noise; a single event of ``gain`` always is."""
        bound = OUTLIER * (np.sqrt(gain * self.mean + read) + gain)
        return self.usable & (self.variance <= bound**2)


def sample_noise(
    matrix: np.ndarray,
    valid: np.ndarray,
    rank: int | None,
    gain: float,
    read: float,
    correlations: np.ndarray,
) -> NoiseSample:
    """Fit a low-rank model in the frame of a noise model, and collect what it leaves over.

    Parameters
    ----------
    matrix : (rows, channels) float64 array
        The data, zero where missing. No row or channel is all zero.
    valid : (rows, channels) array of bool
        Where they were measured.
    rank : int, optional
        Number of components; ``None`` takes those above the noise.
    gain, read : float
        Current guess of the noise: it sets the frame.
    correlations : (lags,) array
        Current guess of the correlation between channels at distance 1, 2, ...

    Returns
    -------
    NoiseSample
        In data units.
    """
    seen_in_row, seen_in_channel = valid.sum(axis=1), valid.sum(axis=0)
    row_brightness = matrix.sum(axis=1) / seen_in_row
    channel_brightness = matrix.sum(axis=0) / seen_in_channel
    grand = float(row_brightness.mean())
    bright = np.maximum(row_brightness, 0) / grand if grand > 0 else np.zeros(len(row_brightness))
    expected = np.multiply.outer(bright, np.maximum(channel_brightness, 0))

    nonzero = np.count_nonzero(matrix[valid]) / np.count_nonzero(valid)
    sparse = bool(nonzero < SPARSE_NONZERO and (matrix >= 0).all())
    if sparse:
        filled = np.where(valid, matrix, expected)
        totals = filled.sum(axis=0)
        group = _merge(totals, _enough(matrix.shape, gain))
        merged = np.add.reduceat(filled, np.flatnonzero(np.diff(group, prepend=-1)), axis=1)
        share = totals / np.maximum(merged.sum(axis=0)[group], np.finfo(float).tiny)
        known, correlations = np.ones(merged.shape, dtype=bool), np.zeros(0)
    else:
        group, merged, share = np.arange(matrix.shape[1]), matrix, np.ones(matrix.shape[1])
        known = valid
    shorter = min(merged.shape)
    most = max(1, min(MOST_COMPONENTS, shorter // 2 - 1, max(6, shorter // 8)))
    fit = low_rank(
        merged,
        min(rank, shorter - 1) if rank else None,
        most,
        *_frame(merged, known, gain, read, sparse),
        valid=known,
        correlations=correlations,
    )
    swallowed = (1 - fit.kept)[:, group] * share
    model = fit.model[:, group] * share
    residual = matrix - model
    row_full, channel_full = fit.row_leverage >= MOST_LEVERAGE, fit.channel_leverage[group] >= MOST_LEVERAGE
    usable = valid & (swallowed < 0.75) & ~row_full[:, None] & ~channel_full
    if usable.sum() < 0.25 * valid.sum():
        usable = valid & (swallowed < 1 - 1e-9)
    variance = np.divide(residual**2, 1 - swallowed, out=np.zeros_like(matrix), where=usable)
    return NoiseSample(
        residual=residual,
        variance=variance,
        mean=np.maximum(model, 0.3 * expected),
        usable=usable,
        row_brightness=row_brightness,
        channel_brightness=channel_brightness,
        lone=np.logical_and.outer(row_full, channel_full),
        kept=1 - swallowed,
        right=fit.right[group] * np.sqrt(share)[:, None],
    )


def _frame(
    matrix: np.ndarray, valid: np.ndarray, gain: float, read: float, sparse: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale of rows and channels under which noise of this gain and read variance is even.

    The floor keeps a single count in an empty row and channel from looking like a component.
    """
    variance = np.where(valid, gain * np.maximum(matrix, 0.0) + read, 0.0)
    row = variance.sum(axis=1) / valid.sum(axis=1)
    channel = variance.sum(axis=0) / valid.sum(axis=0)
    grand = float(row.mean())
    if grand <= 0:
        return np.ones(len(row)), np.ones(len(channel))
    row = np.maximum(row, (SPARSE_FLOOR if sparse else FLOOR) * grand)
    channel = np.maximum(channel, FLOOR * grand)
    return np.sqrt(row), np.sqrt(channel / grand)


def _enough(shape: tuple[int, int], gain: float) -> float:
    """Total that a merged channel needs, so that one event in a dark row is a quarter of the edge of the noise."""
    rows, channels = shape
    edge = np.sqrt(rows) + np.sqrt(channels)
    return max(gain, 1e-12) * rows / (SPARSE_FLOOR * (SINGLE_COUNT * edge) ** 2)


def _merge(totals: np.ndarray, least: float) -> np.ndarray:
    """Give neighbouring channels the same number until they hold this much; a dozen groups in any case."""
    least = min(least, float(totals.sum()) / 16)
    group = np.zeros(len(totals), dtype=int)
    number, held = 0, 0.0
    for channel, total in enumerate(totals):
        group[channel] = number
        held += total
        if held >= least:
            number, held = number + 1, 0.0
    if held and number:
        group[group == number] = number - 1
    return group
