"""How far each spectrum lies from the others, to a small part of a channel, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.prepare.registration import register, whole_channels
from tensorspec.prepare.steps import as_spectra, evenly_spaced, in_units_of, signal_dimension, usable
from tensorspec.prepare.zero_loss import NEAR
from tensorspec.shared_modes import units_of

__all__ = ["estimate_shifts", "needed"]

# Half width of the window about an X-ray line, keV: its own width and as much drift.
LINE = 0.25
# Spectra, and channels on either side of the window, from which the noise is estimated; fewer do not tell.
ROWS, WIDE, FEWEST = 1024, 256, 5


def estimate_shifts(
    data: xr.DataArray,
    on: str | float | Sequence[float] = "zero_loss",
    *,
    mask: xr.DataArray | None = None,
    noise: NoiseModel | None = None,
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
    noise : NoiseModel, optional
        Of the data: for standard errors, and to tell a drift from chance. By default that in ``attrs["noise"]``, else
        estimated from the data.
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
        If all spectra are empty there, or the zero-loss peak lies outside of its window.

    Notes
    -----
    All spectra are fitted by one shape times a factor, moved, plus a constant: the shape is a cubic spline, found from
    all spectra at the places that they have, in turn with the places. Peaks narrower than three channels have a knot at
    every half channel, which spectra at different parts of a channel determine together. Of the zero-loss peak only
    what lies between its feet is used, so that plasmons do not pull.

    Simulated with 10 000 counts in a Gaussian peak, 300 spectra moved by up to two channels: a standard deviation of
    the error of 0.008 channels for a peak 1.2 channels wide at half its height, 0.013 for 3, 0.025 for 6, 0.043 for
    10; the statistical limits are 0.006, 0.013, 0.026 and 0.043. At 0.8 channels it is 0.03. Eight spectra do not
    determine a shape narrower than two channels: their errors reached 0.2.

    Standard errors hold for noise that is correlated between channels and for read-out noise. The estimate is also
    made of simulated spectra of the same shape and noise that do not drift; errors are scaled by what those scatter by.
    ``drifts`` says that the shifts are more than chance makes of none (once in a thousand times), that their mean
    square is more than twice that of their errors, without which undoing them makes it worse, and that there are 25
    events in the median spectrum. A drift that is slow beside its errors is better smoothed along the scan and given
    to `tensorspec.align`.

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
    noise = noise or NoiseModel.from_attrs(data.attrs) or _noise(data, mask, dim, values, low)
    if isinstance(on, str) and on == "zero_loss":
        _check_peak(values[held].sum(axis=0), np.asarray(coord.values[low:high], dtype=float), units_of(coord))
    shift, error = np.full(len(values), np.nan), np.full(len(values), np.nan)
    found = register(values[held], known[held], noise, isinstance(on, str) and on == "zero_loss")
    shift[held], error[held] = found.shift, found.error
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
        attrs={"place": float(coord[low]) + step * found.top, "drifts": found.drifts, "on": str(on)},
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


def _check_peak(total: np.ndarray, energy: np.ndarray, units: str | None) -> None:
    """Refuse a window whose brightest channel is its first or last: the peak lies elsewhere."""
    top = int(np.argmax(total))
    if top in (0, len(total) - 1):
        raise InvalidData(
            f"estimate_shifts: no zero-loss peak between {energy[0]:g} and {energy[-1]:g} {units or ''}: the sum of "
            "all spectra is highest at the end of this window; calibrate first: ts.calibrate(data, {place: 0})."
        )


def _noise(data: xr.DataArray, mask: xr.DataArray | None, dim: str, values: np.ndarray, low: int) -> NoiseModel:
    """Estimate the noise of spectra that drift: whole channels are undone, and the rest is low-rank."""
    samples = [each for each in data.dims if each != dim]
    if len(values) < FEWEST:
        # Too few to tell drift from noise before it is undone: far too little, and what is left over then sets it.
        return NoiseModel(1e-6 * float(np.abs(values).max()))
    rows = np.linspace(0, len(values) - 1, min(len(values), ROWS)).astype(int)
    place = np.unravel_index(rows, [data.sizes[each] for each in samples])
    picked = data if mask is None else data.where(mask)
    picked = picked.isel({each: xr.DataArray(at, dims="row") for each, at in zip(samples, place, strict=True)})
    # The camera's noise is that of all channels, some hundred of which are enough.
    channels = slice(max(low - WIDE, 0), low + values.shape[1] + WIDE)
    plain = picked.isel({dim: channels}).transpose("row", dim).as_numpy().values.astype(float)
    moves = whole_channels(values[rows]).astype(int)
    place = np.arange(plain.shape[1]) + moves[:, None]
    inside = (place >= 0) & (place < plain.shape[1])
    moved = np.where(inside, np.take_along_axis(plain, np.clip(place, 0, plain.shape[1] - 1), axis=1), np.nan)
    # The shape that all have, and twice what differs: a rest of the shift, and the thickness.
    return estimate_noise(xr.DataArray(moved, dims=("x", "channel")), rank=3)
