"""Single entries that no noise explains: cosmic rays, dead and hot entries."""

from __future__ import annotations

import numpy as np

from tensorspec.noise.model import NoiseModel
from tensorspec.noise.residual import sample_noise

__all__ = ["find_spikes"]

ROUNDS = 15
# Of what is improbable, that is left out first which deviates by at least this share of the largest deviation.
FIRST = 0.3
TINY = 1e-300
# Leverage from which on an entry's prediction without itself is not to be trusted.
KEPT = 0.25
# Share of what a row, and a channel, that make a component have beyond one component, in a single entry.
ALONE = 0.2
# An expected value is no lower than this share of a one-component model, or than one event where that is less: a fit
# may say zero where one count is normal.
LEAST = 0.3


def find_spikes(matrix: np.ndarray, valid: np.ndarray, noise: NoiseModel, false_alarms: float) -> np.ndarray:
    """Return which entries are spikes.

    Parameters
    ----------
    matrix : (rows, channels) float64 array
        The data; no row or channel is all zero.
    valid : (rows, channels) array of bool
        Where they were measured.
    noise : NoiseModel
        What noise they have.
    false_alarms : float
        Expected number of entries among all that are called spikes though they are none.

    Returns
    -------
    (rows, channels) array of bool

    Notes
    -----
    Every entry is compared with what the other entries predict of it: a low-rank model of all components above the
    noise, made without the spikes found so far, and less the entry's own part in it (its leverage). It is judged by
    the tails of the Poisson distribution of its events, to which read-out noise is added as a constant background,
    about a mean that is uncertain by the error of the prediction.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(np.multiply.outer(np.linspace(1, 2, 60), np.linspace(5, 9, 40)))
    >>> counts[10, 20] = 60
    >>> np.argwhere(find_spikes(counts.astype(float), counts >= 0, NoiseModel(), 0.05)).tolist()
    [[10, 20]]
    """
    limit = false_alarms / max(int(valid.sum()), 1)
    correlations = np.array([noise.channel_correlation or 0.0])
    found, current = np.zeros_like(valid), matrix
    for _ in range(ROUNDS):
        single = _one_component(current, valid, noise.gain)
        sample = sample_noise(current, valid, None, noise.gain, noise.read_variance, correlations)
        # Without itself: the residual of an entry is its deviation times the share of its noise that is left over.
        kept = np.maximum(sample.kept, KEPT)
        predicted = current - sample.residual / kept
        mean = np.maximum(predicted, np.minimum(LEAST * np.maximum(single, 0), noise.gain))
        # The model is evened for one component, so that its own error is the same share of that variance everywhere.
        uncertain = (1 - kept) / kept * noise.variance(single)
        strange = _improbable(matrix, mean, uncertain, noise, limit) & valid & (sample.kept > KEPT)
        # A large spike pulls the model away from its neighbours, which are then no less strange: the strangest first.
        size = np.where(strange, np.abs(matrix - mean) / np.sqrt(noise.variance(mean) + uncertain + TINY), 0.0)
        alone = _alone(current, single, sample.kept, valid, noise, limit)
        now = (strange & (found | (size >= FIRST * size.max(initial=0)))) | alone | (found & (sample.kept <= KEPT))
        # What is left out is replaced by what the others predict of it, and predicted anew in the next round.
        current = np.where(now, np.where(sample.kept > KEPT, predicted, single), matrix)
        if np.array_equal(now, found):
            break
        found = now
    return found


def _improbable(
    values: np.ndarray, mean: np.ndarray, uncertain: np.ndarray, noise: NoiseModel, limit: float
) -> np.ndarray:
    """Return where a value is less probable than the limit, either tail having half of it.

    Events are Poisson about a mean that is itself uncertain (as a gamma distribution): a negative binomial.
    """
    from scipy.special import betainc
    from scipy.stats import norm

    # Most entries are near their mean: the tails of the few others are looked up, not those of all.
    far = np.abs(values - mean) > 3 * np.sqrt(noise.variance(mean) + uncertain)
    strange = np.zeros(values.shape, dtype=bool)
    if noise.gain == 0:
        spread = np.sqrt(noise.read_variance + uncertain[far])
        strange[far] = np.abs(values - mean)[far] > norm.isf(limit / 2) * spread
        return strange
    # Events, and read-out noise as if it were that of a constant background: right in mean and variance.
    background = noise.read_variance / noise.gain**2
    events = np.maximum(values[far] / noise.gain + background, 0.0)
    expected = np.maximum(mean[far] / noise.gain + background, 1e-9)
    spread = np.maximum(uncertain[far] / noise.gain**2, 1e-6 * expected)
    shape, share = expected**2 / spread, expected / (expected + spread)
    high = np.where(events > 0, betainc(np.maximum(events, 1e-9), shape, 1 - share), 1.0) < limit / 2
    low = betainc(shape, events + 1, share) < limit / 2
    strange[far] = high | low
    return strange


def _alone(
    matrix: np.ndarray, single: np.ndarray, kept: np.ndarray, valid: np.ndarray, noise: NoiseModel, limit: float
) -> np.ndarray:
    """Return entries that the model has made a component of, each by itself a good part of its row and its channel.

    A line of a phase that is in one pixel only is several channels wide, so no entry of it holds that much.
    """
    suspect = valid & (kept <= KEPT) & _improbable(matrix, np.maximum(single, 0), np.zeros_like(single), noise, limit)
    if not suspect.any():
        return suspect
    beyond = np.where(valid & (kept <= KEPT), (matrix - single) ** 2 / np.maximum(noise.variance(single), TINY), 0.0)
    across = beyond / np.maximum(beyond.sum(axis=1, keepdims=True), TINY)
    down = beyond / np.maximum(beyond.sum(axis=0, keepdims=True), TINY)
    return suspect & (across > ALONE) & (down > ALONE)


def _one_component(matrix: np.ndarray, used: np.ndarray, gain: float) -> np.ndarray:
    """Row mean times channel mean over the grand mean, of the entries used, each entry itself counting for one event.

    A spike that is brighter than all the rest would otherwise be what makes its row and its channel bright.
    """
    held = np.where(used, matrix, 0.0)
    beyond = np.maximum(held - gain, 0)
    row = (held.sum(axis=1, keepdims=True) - beyond) / np.maximum(used.sum(axis=1, keepdims=True), 1)
    channel = (held.sum(axis=0, keepdims=True) - beyond) / np.maximum(used.sum(axis=0, keepdims=True), 1)
    grand = (held.sum() - beyond) / max(int(used.sum()), 1)
    return np.divide(row * channel, grand, out=np.zeros_like(matrix), where=grand > 0)
