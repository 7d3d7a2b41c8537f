"""Plural scattering as products of Fourier transforms, and how they are undone: plain arrays, the last axis energy."""

from __future__ import annotations

import numpy as np

from tensorspec.prepare.gaps import ROWS, bridge, ends, seen
from tensorspec.prepare.power_tail import upper_tail
from tensorspec.prepare.series import transform_length
from tensorspec.prepare.zero_loss import ZeroLoss, separate

__all__ = ["fourier_log", "fourier_ratio"]

# The pre-edge window holds a background to continue where its mean stands so many standard errors above zero.
SEEN = 5.0
# Below so many times the noise of what has lost energy, a transform of the low loss says nothing.
ABOVE_NOISE = 3.0
MOST_BACKGROUND_EXPONENT = 8.0


def fourier_log(
    spectra: np.ndarray,
    mask: np.ndarray,
    *,
    how: str | tuple[int, int],
    near: tuple[int, int],
    width: float | None,
    total: bool,
    along: bool,
) -> np.ndarray:
    """Single scattering of spectra with their zero-loss peak: ``Z ln(J / Z)``.

    Parameters
    ----------
    spectra : (..., channels) array
        Counts.
    mask : array of bool
        True = use; its last axis is that of the channels if `along`.
    how, near
        As `separate` takes them.
    width : float, optional
        Full width at half maximum of the Gaussian modifier, channels; else the zero-loss peak.
    total : bool
        Whether the intensity is that of all electrons.
    along : bool
        Whether the mask has the axis of the channels.

    Returns
    -------
    (..., channels) array
        Same shape; NaN where the spectra are not known.
    """
    shape, size = spectra.shape, spectra.shape[-1]
    flat = spectra.reshape(-1, size)
    use = _flat_mask(mask, along, shape)
    result = np.empty(flat.shape, dtype=np.float32 if flat.dtype == np.float32 else np.float64)
    length = transform_length(4 * size)
    for first in range(0, len(flat), ROWS):
        part = slice(first, first + ROWS)
        known = seen(flat[part], use[part])
        rows, lost = _sound(bridge(flat[part].astype(np.float64), known), near)
        zero = separate(rows, how, near)
        noise = _noise_power(rows, zero)
        rows = _continued(rows, known, zero.centre, length - size)
        data, peak = np.fft.rfft(rows, length, axis=1), np.fft.rfft(zero.intensity, length, axis=1)
        quotient = (data * peak.conj() + noise) / (np.abs(peak) ** 2 + noise)
        scattered = _logarithm(quotient)
        found = np.fft.irfft(_modifier(peak, zero, width, length) * scattered, length, axis=1)[:, :size]
        if total:
            found *= rows.sum(axis=1, keepdims=True) / zero.intensity.sum(axis=1, keepdims=True)
        result[part] = np.where(known & ~lost[:, None], found, np.nan)
    return result.reshape(shape)


def fourier_ratio(
    core: np.ndarray,
    mask: np.ndarray,
    low: np.ndarray,
    low_mask: np.ndarray,
    mean: np.ndarray,
    *,
    how: str | tuple[int, int],
    near: tuple[int, int],
    width: float | None,
    total: bool,
    along: tuple[bool, bool],
    rebin: float | None,
    window: tuple[int, int],
    first: float,
    lowest: float,
) -> np.ndarray:
    """Single scattering of core losses: ``J Z / L``.

    Parameters
    ----------
    core, low : (..., channels) arrays
        Counts; the other axes of the low loss broadcast to those of the core loss.
    mask, low_mask : arrays of bool
        True = use.
    mean : (channels,) array
        Mean core loss: the exponent of the background is taken from it.
    how, near, width, total
        As in `fourier_log`; `width` in channels of the core loss.
    along : (bool, bool)
        Whether mask and low-loss mask have the axis of the channels.
    rebin : float, optional
        Channels of the low loss to one of the core loss; None for one.
    window : (int, int)
        Channels of the pre-edge window.
    first : float
        Energy of the first channel, in channels.
    lowest : float
        Share of that energy down to which the core loss is continued.

    Returns
    -------
    (..., channels) array
        Like `core`; NaN where it is not known, and where the low loss is not.
    """
    shape, size = core.shape, core.shape[-1]
    flat = core.reshape(-1, size)
    use = _flat_mask(mask, along[0], shape)
    low_use = _broadcast_mask(low_mask, along[1], low)
    alone = low.size == low.shape[-1]
    if not alone:
        low, low_use = (np.broadcast_to(item, (*shape[:-1], low.shape[-1])) for item in (low, low_use))
    low, low_use = (item.reshape(-1, low.shape[-1]) for item in (low, low_use))

    reach = int(low.shape[-1] / (rebin or 1.0))
    below = min(reach, int(first * (1 - lowest))) if first > 0 else 0
    exponent = _exponent(mean.reshape(-1, size)[0], window, first)
    # Both ends are brought down to zero outside of the record: a step there is all frequencies, the noisy ones too.
    fade = max(size // 8, 8)
    padded = fade + below + size + fade
    length = transform_length(padded + max(reach, padded))
    result = np.empty(flat.shape, dtype=np.float32 if flat.dtype == np.float32 else np.float64)
    kernel = _kernel(low, low_use, how, near, width, total, rebin, length) if alone else np.zeros(0)
    for start in range(0, len(flat), ROWS):
        part = slice(start, start + ROWS)
        if not alone:
            kernel = _kernel(low[part], low_use[part], how, near, width, total, rebin, length)
        known = seen(flat[part], use[part])
        rows = bridge(flat[part].astype(np.float64), known)
        rows = np.concatenate([_background(rows, window, first, exponent, below), rows], axis=1)
        rows = _faded(rows, fade)
        found = np.fft.irfft(np.fft.rfft(rows, length, axis=1) * kernel, length, axis=1)[
            :, fade + below : fade + below + size
        ]
        result[part] = np.where(known, found, np.nan)
    return result.reshape(shape)


def _kernel(
    low: np.ndarray,
    use: np.ndarray,
    how: str | tuple[int, int],
    near: tuple[int, int],
    width: float | None,
    total: bool,
    rebin: float | None,
    length: int,
) -> np.ndarray:
    """Transform by which that of a core loss is multiplied, (rows, frequencies)."""
    known = seen(low, use)
    rows, lost = _sound(bridge(low.astype(np.float64), known), near)
    zero = separate(rows, how, near)
    size, noise = rows.shape[1], _noise_power(rows, zero)
    rows = _continued(rows, known, zero.centre, max(int(length * (rebin or 1.0)) - size, 0))
    peak = np.pad(zero.intensity, ((0, 0), (0, rows.shape[1] - size)))
    if rebin is not None:
        rows, peak = _rebinned(rows, rebin), _rebinned(peak, rebin)
        zero = ZeroLoss(peak, (zero.centre + 0.5) / rebin - 0.5, zero.width / rebin)
    rows, peak = rows[:, :length], peak[:, :length]
    elastic, everything = peak.sum(axis=1, keepdims=True), rows.sum(axis=1, keepdims=True)
    data, peak = np.fft.rfft(rows, length, axis=1), np.fft.rfft(peak, length, axis=1)
    wanted = _modifier(peak, zero, width, length)
    # Where the low loss is noise alone its inelastic part has nothing to say, and the peak is all there is.
    flat = noise if width is None else 0.0
    kernel = (wanted * data.conj() + flat) / (np.abs(data) ** 2 + noise)
    kernel[lost] = np.nan
    return kernel * (everything / elastic) if total else kernel


def _sound(rows: np.ndarray, near: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Spectra with one lone peak in place of those that are missing or have no zero-loss peak, and which these are."""
    lost = np.isnan(rows).any(axis=1) | ~(np.nan_to_num(rows[:, near[0] : near[1]]).max(axis=1) > 0)
    if lost.any():
        rows = np.where(lost[:, None], 0.0, rows)
        rows[lost, (near[0] + near[1]) // 2] = 1.0
    return rows, lost


def _noise_power(rows: np.ndarray, zero: ZeroLoss) -> np.ndarray:
    """Power below which a transform is noise, (rows, 1): from second differences of what has lost energy.

    The zero-loss peak stands in both parts of a quotient, its noise too: that of the rest alone makes them differ.
    """
    rest = rows - zero.intensity
    bend = rest[:, 2:] - 2 * rest[:, 1:-1] + rest[:, :-2]
    power = (bend**2).sum(axis=1, keepdims=True) / 6 * ABOVE_NOISE**2
    return np.maximum(power, 1e-24 * rows.sum(axis=1, keepdims=True) ** 2 + np.finfo(float).tiny)


def _modifier(peak: np.ndarray, zero: ZeroLoss, width: float | None, length: int) -> np.ndarray:
    """Transform of what a sharp line becomes: the zero-loss peak, or a Gaussian of its intensity at its place."""
    if width is None:
        return peak
    frequency = np.arange(length // 2 + 1) / length
    sigma = width / np.sqrt(8 * np.log(2))
    height = zero.intensity.sum(axis=1, keepdims=True)
    turn = np.exp(-2j * np.pi * frequency * zero.centre[:, None])
    return height * np.exp(-2 * (np.pi * sigma * frequency) ** 2) * turn


def _logarithm(quotient: np.ndarray) -> np.ndarray:
    """Complex logarithm; the phase is followed from zero frequency as far as a specimen can turn it."""
    modulus, phase = np.abs(quotient), np.angle(quotient)
    thick = np.log(np.maximum(modulus[:, 0], 1e-300)) > 0.8 * np.pi
    if thick.any():
        # At most as many radians as mean free paths: below pi the principal value is right.
        phase[thick] = np.unwrap(phase[thick], axis=1)
    return np.log(np.maximum(modulus, 1e-300)) + 1j * phase


def _continued(rows: np.ndarray, known: np.ndarray, centre: np.ndarray, count: int) -> np.ndarray:
    """Spectra with so many more channels, in which they fall by their power law."""
    size = rows.shape[1]
    end = np.where(known.any(axis=1), ends(known), size)
    middle = np.where(np.isnan(centre), 0.0, centre)
    tail = upper_tail(np.nan_to_num(rows), middle, end)
    channel = np.arange(size + count)
    result = np.pad(rows, ((0, 0), (0, count)))
    return np.where(channel >= end[:, None], tail.values(channel - middle[:, None]), result)


def _exponent(mean: np.ndarray, window: tuple[int, int], first: float) -> float | None:
    """Exponent of the background in the pre-edge window of the mean spectrum; None where there is no background."""
    values = mean[window[0] : window[1]]
    energy = first + np.arange(window[0], window[1])
    good = np.isfinite(values) & (energy > 0)
    values, energy = values[good], energy[good]
    if len(values) < 4 or not values.mean() > 0:
        return None
    scatter = np.abs(np.diff(values)).mean() / np.sqrt(len(values))
    half = len(values) // 2
    lower, upper = values[:half].sum(), values[-half:].sum()
    if values.mean() < SEEN * scatter or not lower > upper > 0:
        return None
    slope = np.log(lower / upper) / np.log(energy[-half:].mean() / energy[:half].mean())
    return float(min(slope, MOST_BACKGROUND_EXPONENT))


def _background(
    rows: np.ndarray, window: tuple[int, int], first: float, exponent: float | None, below: int
) -> np.ndarray:
    """So many channels below the first one, (rows, below), by the power law at each spectrum's own height."""
    if exponent is None or below == 0:
        return np.zeros((len(rows), below))
    energy = first + np.arange(window[0], window[1])
    law = (energy / first) ** -exponent
    height = rows[:, window[0] : window[1]].sum(axis=1) / law.sum()
    lower = (first + np.arange(-below, 0)) / first
    return height[:, None] * lower**-exponent


def _faded(rows: np.ndarray, count: int) -> np.ndarray:
    """So many more channels at either end, in which the spectrum goes down to zero along half a cosine."""
    fall = 0.5 * (1 + np.cos(np.pi * (np.arange(count) + 0.5) / count))
    few = min(4, rows.shape[1])
    left, right = rows[:, :few].mean(axis=1, keepdims=True), rows[:, -few:].mean(axis=1, keepdims=True)
    return np.concatenate([left * fall[::-1], rows, right * fall], axis=1)


def _rebinned(rows: np.ndarray, ratio: float) -> np.ndarray:
    """Channels `ratio` times as wide, from the same lower edge; intensity is kept."""
    total = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    edges = np.arange(0, rows.shape[1] + 1e-9, ratio)
    below = np.minimum(edges.astype(int), rows.shape[1] - 1)
    at = total[:, below] + (edges - below) * (total[:, below + 1] - total[:, below])
    return np.diff(at, axis=1)


def _flat_mask(mask: np.ndarray, along: bool, shape: tuple[int, ...]) -> np.ndarray:
    """Mask as (rows, channels)."""
    return np.broadcast_to(mask if along else mask[..., None], shape).reshape(-1, shape[-1])


def _broadcast_mask(mask: np.ndarray, along: bool, data: np.ndarray) -> np.ndarray:
    """Mask in the shape of the data, or in the larger one that both have together."""
    mask = mask if along else mask[..., None]
    return np.broadcast_to(mask, np.broadcast_shapes(mask.shape, data.shape))
