"""How far each spectrum lies from the others, to a small part of a channel, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.prepare.steps import as_spectra, evenly_spaced, in_units_of, signal_dimension, usable
from tensorspec.prepare.zero_loss import NEAR
from tensorspec.shared_modes import units_of

__all__ = ["estimate_shifts", "needed"]

# Half width of the window about an X-ray line, keV: its own width and as much drift.
LINE = 0.25
# Rounds of building the reference, and of moving the spectra to it.
ROUNDS, STEPS = 4, 5
ROWS = 4096
# Share of the peak above which a channel tells of the noise.
BRIGHT = 0.1
# A drift is one where chance alone explains the shifts less often than this.
CHANCE = 1e-3


def estimate_shifts(
    data: xr.DataArray,
    on: str | float | Sequence[float] = "zero_loss",
    *,
    mask: xr.DataArray | None = None,
    dim: str | None = None,
) -> xr.Dataset:
    """Measure by how much each spectrum is shifted against the others.

    Parameters
    ----------
    data : DataArray
        With one spectrum a pixel, evenly spaced channels; counts or other numbers.
    on : {"zero_loss", "cross_correlation"}, float or (float, float)
        What is looked at: the zero-loss peak (10 eV about zero), all channels, an X-ray line at this energy (0.25 keV
        about it), or a range. Energies are in the units of the axis.
    mask : DataArray of bool, optional
        True where an entry is used. Missing values are left out too.
    dim : str, optional
        Dimension of the spectra, where it cannot be told.

    Returns
    -------
    Dataset
        ``offset``: place of each spectrum less the median place, in the units of the axis, NaN where a spectrum is
        empty; ``standard_error``: of the offset; ``attrs["place"]``: where the peak of the reference lies;
        ``attrs["drifts"]``: whether the shifts are more than chance makes of nothing (at the level of 0.001).

    Raises
    ------
    InvalidArgument
        If `on` is none of these, or its range holds fewer than five channels.
    InvalidData
        If all spectra are empty there.

    Notes
    -----
    A reference is made of all spectra, each moved back; then each spectrum is fitted by the reference times a factor,
    moved, by weighted least squares with a variance in proportion to the reference, which for counts is as good as
    maximum likelihood; and both are repeated. Ranges other than the zero-loss peak have a constant background too. The
    gain of the detector follows from what is left over, and goes into the standard error. A peak of less than two
    channels at half its height lies between the channels in a way that no reference follows: shifts of a peak of 1.2
    channels were wrong by up to a quarter of a channel (simulated), those of one of two channels by 0.03.

    Examples
    --------
    >>> energy = np.arange(-20, 40) * 0.5
    >>> places = np.array([0.0, 0.3, -0.4, 0.1])
    >>> peaks = 1e4 * np.exp(-0.5 * ((energy - places[:, None]) / 0.6) ** 2)
    >>> data = xr.DataArray(peaks, dims=("x", "energy_loss"), coords={"energy_loss": energy})
    >>> (estimate_shifts(data).offset.values + 0.05).round(2)
    array([ 0. ,  0.3, -0.4,  0.1])
    """
    data = as_spectra("estimate_shifts", data)
    dim = signal_dimension("estimate_shifts", data, dim)
    step = evenly_spaced("estimate_shifts", data, dim)
    mask = usable("estimate_shifts", data, mask)
    coord = data.coords[dim]
    low, high = _window(coord, dim, on)
    window = data.isel({dim: slice(low, high)}).transpose(..., dim)
    used = (
        window.notnull()
        if mask is None
        else window.notnull() & mask.isel({dim: slice(low, high)} if dim in mask.dims else {})
    )
    samples = [each for each in window.dims if each != dim]
    values = window.as_numpy().values.astype(float).reshape(-1, high - low)
    known = used.transpose(*samples, dim).as_numpy().values.reshape(values.shape)
    values = np.where(known, values, 0.0)
    held = (values > 0).sum(axis=1) >= 2
    if not held.any():
        raise InvalidData(
            f"estimate_shifts: all spectra are empty between {coord[low].item():g} and {coord[high - 1].item():g}."
        )
    shift, error = np.full(len(values), np.nan), np.full(len(values), np.nan)
    level = not (isinstance(on, str) and on == "zero_loss")
    shift[held], error[held], top = _measured(values[held], known[held], level)
    moved = shift[held]
    strange = float(np.nansum((moved / error[held]) ** 2))
    from scipy.stats import chi2

    drifts = bool(chi2.sf(strange, max(len(moved) - 1, 1)) < CHANCE) if len(moved) > 1 else False
    shape = [window.sizes[each] for each in samples]
    coords = {name: each for name, each in data.coords.items() if dim not in each.dims}
    units = units_of(coord)
    attrs = {} if units is None else {"units": units}
    return xr.Dataset(
        {
            "offset": (samples, step * shift.reshape(shape), attrs),
            "standard_error": (samples, step * error.reshape(shape), attrs),
        },
        coords=coords,
        attrs={"place": float(coord[low]) + step * top, "drifts": drifts, "on": str(on)},
    )


def needed(found: xr.Dataset) -> xr.DataArray:
    """Return the shifts to undo: none where nothing drifts, and none of a spectrum that is empty."""
    return found.offset.fillna(0.0) if found.attrs["drifts"] else xr.zeros_like(found.offset)


def _window(coord: xr.DataArray, dim: str, on: object) -> tuple[int, int]:
    energy = np.asarray(coord.values, dtype=float)
    if isinstance(on, str):
        if on == "cross_correlation":
            return 0, len(energy)
        if on != "zero_loss":
            raise InvalidArgument(
                f"estimate_shifts: on is {on!r}; expected 'zero_loss', 'cross_correlation', the energy of a line, or a "
                "range (lo, hi)."
            )
        half = float(in_units_of(coord, NEAR, "eV"))
        low, high = -half, half
    else:
        try:
            bounds = [float(on)] if np.isscalar(on) else [float(each) for each in on]  # type: ignore[arg-type, union-attr]
        except (TypeError, ValueError):
            bounds = []
        if len(bounds) not in (1, 2) or bounds[0] > bounds[-1]:
            raise InvalidArgument(f"estimate_shifts: on is {on!r}; expected an energy, or a range (lo, hi) that rises.")
        half = float(in_units_of(coord, LINE, "keV")) if len(bounds) == 1 else 0.0
        low, high = bounds[0] - half, bounds[-1] + half
    inside = np.flatnonzero((energy >= low) & (energy <= high))
    if len(inside) < 5:
        raise InvalidArgument(
            f"estimate_shifts: {len(inside)} channels lie between {low:g} and {high:g}; at least five are needed; "
            f"{dim!r} runs from {energy[0]:g} to {energy[-1]:g}."
        )
    return int(inside[0]), int(inside[-1]) + 1


def _measured(values: np.ndarray, known: np.ndarray, level: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return shifts and standard errors in channels, the median shift zero, and the place of the reference's peak."""
    from scipy.interpolate import CubicSpline

    channels = np.arange(values.shape[1], dtype=float)
    shift = _coarse(values)
    scale = np.ones(len(values))
    error = np.full(len(values), np.inf)
    for _ in range(ROUNDS):
        reference = CubicSpline(channels, _reference(values, known, shift, scale))
        for start in range(0, len(values), ROWS):
            rows = slice(start, start + ROWS)
            shift[rows], scale[rows], error[rows] = _moved(reference, values[rows], known[rows], shift[rows], level)
        shift -= np.median(shift)
    fine = np.linspace(0, len(channels) - 1, 50 * len(channels))
    return shift, error, float(fine[np.argmax(reference(fine))])


def _coarse(values: np.ndarray) -> np.ndarray:
    """Whole channels, by the largest cross-correlation with the sum; the sum sharpens as they are found."""
    count = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    transform = np.fft.rfft(centred / np.where(norms > 0, norms, 1), 2 * count, axis=1)
    order = np.fft.fftfreq(2 * count, 1 / (2 * count)).astype(int)
    near = np.flatnonzero(np.abs(order) <= count // 2)
    shift = np.zeros(len(values), dtype=int)
    frequency = np.arange(transform.shape[1])
    for _ in range(3):
        back = transform * np.exp(2j * np.pi * frequency * shift[:, None] / (2 * count))
        correlation = np.fft.irfft(transform * np.conj(back.sum(axis=0)), axis=1)
        shift = order[near[np.argmax(correlation[:, near], axis=1)]]
        shift = shift - int(np.median(shift))
    return shift.astype(float)


def _reference(values: np.ndarray, known: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the mean of all spectra, each moved back, weighed by what was seen of it."""
    del scale
    count = values.shape[1]
    place = np.arange(count) + shift[:, None]
    left = np.floor(place).astype(int)
    part = place - left
    total, seen = np.zeros(count), np.zeros(count)
    rows = np.arange(len(values))[:, None]
    # Four neighbours and a cubic between them (Keys 1981): two would broaden the reference.
    weights = [
        -0.5 * part + part**2 - 0.5 * part**3,
        1 - 2.5 * part**2 + 1.5 * part**3,
        0.5 * part + 2 * part**2 - 1.5 * part**3,
        -0.5 * part**2 + 0.5 * part**3,
    ]
    moved, whole = np.zeros(place.shape), np.ones(place.shape, dtype=bool)
    for k, weight in enumerate(weights):
        index = left + k - 1
        inside = (index >= 0) & (index < count)
        clipped = np.clip(index, 0, count - 1)
        moved += weight * values[rows, clipped]
        whole &= inside & known[rows, clipped]
    total = np.where(whole, moved, 0.0).sum(axis=0)
    bright = np.where(whole, values.sum(axis=1, keepdims=True), 0.0).sum(axis=0)
    seen = bright > 0
    mean = np.where(seen, total / np.where(seen, bright, 1), 0.0)
    if not seen.all():
        mean = np.interp(np.arange(count), np.flatnonzero(seen), mean[seen])
    return np.maximum(mean, 0) * float(values.sum()) / len(values)


def _moved(
    reference, values: np.ndarray, known: np.ndarray, shift: np.ndarray, level: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shift, factor and standard error of each spectrum against the reference."""
    channels = np.arange(values.shape[1], dtype=float)
    shift = shift.copy()
    bright = float(reference(channels).mean())
    for _ in range(STEPS + 1):
        place = channels - shift[:, None]
        outside = (place < 0) | (place > channels[-1])
        place = np.clip(place, 0, channels[-1])
        shape, slope = reference(place), reference(place, 1)
        own = np.maximum(values.sum(axis=1, keepdims=True), 1e-300) / np.maximum(
            np.where(known, shape, 0).sum(axis=1, keepdims=True), 1e-300
        )
        variance = np.maximum(own * shape, 0.02 * own * bright) + 1e-300
        weight = np.where(known & ~outside, 1 / variance, 0.0)
        columns = [shape, -own * slope] + ([np.ones_like(shape)] if level else [])
        normal = np.array([[(weight * a * b).sum(axis=1) for b in columns] for a in columns]).transpose(2, 0, 1)
        residual = values - own * shape
        right = np.array([(weight * a * residual).sum(axis=1) for a in columns]).T
        ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(len(columns)) + 1e-300 * np.eye(
            len(columns)
        )
        inverse = np.linalg.inv(normal + ridge)
        change = (inverse @ right[..., None])[..., 0]
        shift += np.clip(change[:, 1], -1.0, 1.0)
    left = residual - sum(change[:, k, None] * column for k, column in enumerate(columns))
    # Noise is judged where the peak is: in dark channels the assumed variance is a lower bound, not the true one.
    lit = (weight > 0) & (shape > BRIGHT * shape.max(axis=1, keepdims=True))
    each = (np.where(lit, left**2 / variance, 0)).sum(axis=1) / np.maximum(lit.sum(axis=1) - len(columns), 1)
    low, high = np.quantile(each, [0.02, 0.98])
    gain = float(each[(each >= low) & (each <= high)].mean())
    return shift, own[:, 0] + change[:, 0], np.sqrt(np.maximum(gain, 0) * inverse[:, 1, 1])
