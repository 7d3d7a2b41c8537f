"""Spectra moved onto one another, and others recorded with them moved along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise import NoiseModel
from tensorspec.prepare.shifts import estimate_shifts, needed
from tensorspec.prepare.steps import along_signal, as_spectra, evenly_spaced, recorded, signal_dimension
from tensorspec.shared_modes import ENERGIES, units_of

__all__ = ["align"]

INTERPOLATIONS = ("linear", "cubic", "nearest")
# Channels.
_ROUNDING = 1e-6


def align(
    data: xr.DataArray,
    on: str | float | Sequence[float] | xr.DataArray = "zero_loss",
    *,
    also: Sequence[xr.DataArray] = (),
    interpolation: str = "linear",
    crop: bool = True,
    mask: xr.DataArray | None = None,
    noise: NoiseModel | None = None,
    dim: str | None = None,
) -> Any:
    """Move every spectrum so that what it is aligned on lies in the same place.

    Parameters
    ----------
    data : DataArray
        With one spectrum a pixel, evenly spaced channels.
    on : {"zero_loss", "cross_correlation"}, float, (float, float) or DataArray
        What shifts are measured on, as for `tensorspec.estimate_shifts`; or shifts to undo, in the units of the axis,
        such as ``estimate_shifts(data).offset``, smoothed perhaps. With the zero-loss peak the axis is moved so that
        the peak lies at zero.
    also : sequence of DataArray
        Data of the same pixels that are shifted by the same energies: the core loss beside the low loss.
    interpolation : {"linear", "cubic", "nearest"}
        Between channels. Linear keeps counts at or above zero and their sum, and broadens by at most half a channel;
        cubic keeps lines sharper but rings beside them; nearest moves by whole channels, so that counts stay counts.
    crop : bool
        Whether channels that not all spectra have any more are cut off; else they are missing (NaN).
    mask : DataArray of bool, optional
        True where an entry is used to measure shifts.
    noise : NoiseModel, optional
        As for `tensorspec.estimate_shifts`.
    dim : str, optional
        Dimension of the spectra, where it cannot be told.

    Returns
    -------
    DataArray, or tuple of DataArray
        The aligned data; with `also`, all of them. Where the shifts are no more than chance makes of nothing, the
        values are those that were given, untouched. ``attrs["history"]`` says what was found.

    Raises
    ------
    InvalidArgument, InvalidData
        As `tensorspec.estimate_shifts`; if data of `also` have other pixels or no units of energy; if a spectrum would
        be moved off its axis.

    Notes
    -----
    Interpolated channels share counts with their neighbours: noise becomes smaller and correlated by up to a half, and
    differently from pixel to pixel. Where that matters, leave the data as they are and give the shifts to the fit: a
    tensor whose shift is the same for all pixels through the operator `tensorspec.Shift`; spectra that move from sample
    to sample through `tensorspec.PARAFAC2`, which needs no shifts at all but more than a few samples. Align where
    shifts are larger than the features that matter and differ from pixel to pixel, which is drift of the high tension.

    Examples
    --------
    >>> energy = np.arange(-20, 40) * 0.5
    >>> peaks = 1e4 * np.exp(-0.5 * ((energy - np.array([[0.0], [0.5], [-0.5]])) / 0.6) ** 2)
    >>> data = xr.DataArray(peaks, dims=("x", "energy_loss"), coords={"energy_loss": energy})
    >>> aligned = align(data)
    >>> bool(np.allclose(aligned[0], aligned[1], rtol=1e-3, atol=1)), aligned.sizes["energy_loss"]
    (True, 58)
    """
    data = as_spectra("align", data)
    dim = signal_dimension("align", data, dim)
    if interpolation not in INTERPOLATIONS:
        raise InvalidArgument(f"align: interpolation is {interpolation!r}; expected one of {list(INTERPOLATIONS)}.")
    others = _others(data, dim, also)
    place = 0.0
    if isinstance(on, xr.DataArray):
        shift, found = _given(data, dim, on), "given shifts"
    else:
        measured = estimate_shifts(data, on, mask=mask, noise=noise, dim=dim)
        shift = needed(measured)
        place = measured.attrs["place"] if isinstance(on, str) and on == "zero_loss" else 0.0
        error = float(measured.standard_error.median())
        found = f"on {on}, standard error {error:.2g}"
    unit = units_of(data.coords[dim])
    results = []
    for each, own in [(data, dim), *others]:
        factor = ENERGIES[unit] / ENERGIES[units_of(each.coords[own]) or ""] if unit in ENERGIES else 1.0
        results.append(_moved(each, own, factor * shift, factor * place, interpolation, crop, found, unit))
    return tuple(results) if also else results[0]


def _others(data: xr.DataArray, dim: str, also: Any) -> list[tuple[xr.DataArray, str]]:
    if isinstance(also, xr.DataArray):
        raise InvalidArgument("align: also is one DataArray; expected a list of them: also=[core].")
    pixels = {each: data.sizes[each] for each in data.dims if each != dim}
    found = []
    for place, other in enumerate(also):
        other = as_spectra("align", other, f"also[{place}]")
        free = [str(each) for each in other.dims if each not in pixels]
        own = free[0] if len(free) == 1 else signal_dimension("align", other)
        signal_dimension("align", other, own)
        sizes = {each: other.sizes[each] for each in other.dims if each != own}
        if any(pixels.get(each) != size for each, size in sizes.items()):
            raise InvalidData(f"align: also[{place}] has pixels {sizes}, the data {pixels}; they must be the same.")
        unit, other_unit = units_of(data.coords[dim]), units_of(other.coords[own])
        if unit != other_unit and not {unit, other_unit} <= set(ENERGIES):
            raise InvalidData(
                f"align: {own!r} of also[{place}] has units {other_unit!r}, {dim!r} of the data {unit!r}; give both "
                'units of energy: data[dim].attrs["units"] = "eV".'
            )
        found.append((other, own))
    return found


def _given(data: xr.DataArray, dim: str, shift: xr.DataArray) -> xr.DataArray:
    pixels = {each: data.sizes[each] for each in data.dims if each != dim}
    if dim in shift.dims or any(pixels.get(each) != size for each, size in shift.sizes.items()):
        raise InvalidData(f"align: the shifts have dimensions {dict(shift.sizes)}; expected some of {pixels}.")
    return shift.fillna(0.0)


def _moved(
    data: xr.DataArray,
    dim: str,
    shift: xr.DataArray,
    place: float,
    interpolation: str,
    crop: bool,
    found: str,
    unit: str | None,
) -> xr.DataArray:
    """Return data whose spectra are moved back by their shifts, and their axis by the place of the peak."""
    step = evenly_spaced("align", data, dim)
    channels = shift.as_numpy().astype(float) / step
    # What is left of a whole channel by rounding would cost a channel at the ends.
    whole = channels.round()
    channels = whole if interpolation == "nearest" else channels.where(abs(channels - whole) > _ROUNDING, whole)
    least, most = float(channels.min()), float(channels.max())
    if max(-least, most, most - least) >= data.sizes[dim] - 2:
        raise InvalidData(f"align: shifts of {least:.1f} to {most:.1f} channels would move a spectrum off its axis.")
    moved = bool((channels != 0).any())
    result = data
    if moved:
        keeps = interpolation == "nearest" and crop and data.dtype.kind in "iu"
        result = along_signal(
            _shifted,
            data,
            channels.reset_coords(drop=True),
            signals=[[dim], []],
            results=[[dim]],
            dtype=data.dtype if keeps or data.dtype.kind == "f" else np.float64,
            cubic=interpolation == "cubic",
            fill=0 if keeps else np.nan,
        ).transpose(*data.dims)
        result = result.assign_coords({dim: data.coords[dim]})
        if crop:
            # A channel needs both its neighbours.
            reach = 2 if interpolation == "cubic" else 1 if interpolation == "linear" else 0
            first = int(np.ceil(-least)) + (reach - 1 if reach > 1 and least < 0 else 0) if least < 0 else 0
            last = int(np.ceil(most)) + (reach - 1 if reach > 1 and most > 0 else 0) if most > 0 else 0
            result = result.isel({dim: slice(first, data.sizes[dim] - last)})
    coord = result.coords[dim]
    if place:
        result = result.assign_coords({dim: (dim, np.asarray(coord.values, dtype=float) - place, dict(coord.attrs))})
    named = f" {unit}" if unit else ""
    text = f"aligned {found}: shifts of {float(shift.min()):.3g} to {float(shift.max()):.3g}{named} undone"
    if not moved:
        text = f"aligned {found}: nothing drifts, values untouched"
    if place:
        text += f", axis moved by {-place:.4g}{named}"
    return recorded(result, data, text)


def _shifted(spectra: np.ndarray, channels: np.ndarray, *, cubic: bool, fill: float) -> np.ndarray:
    """Return spectra read so many channels further on; what lies beyond an end is missing."""
    count = spectra.shape[-1]
    shape = np.broadcast_shapes(spectra.shape[:-1], channels.shape)
    spectra = np.broadcast_to(spectra, (*shape, count)).reshape(-1, count)
    place = np.arange(count) + np.broadcast_to(channels, shape).reshape(-1, 1)
    left = np.floor(place).astype(int)
    part = place - left
    if cubic:
        weights = [
            (-1, -0.5 * part + part**2 - 0.5 * part**3),
            (0, 1 - 2.5 * part**2 + 1.5 * part**3),
            (1, 0.5 * part + 2 * part**2 - 1.5 * part**3),
            (2, -0.5 * part**2 + 0.5 * part**3),
        ]
    else:
        weights = [(0, 1 - part), (1, part)]
    rows = np.arange(len(spectra))[:, None]
    total = np.zeros(place.shape, dtype=float)
    beyond = np.zeros(place.shape, dtype=bool)
    for offset, weight in weights:
        index = left + offset
        outside = (index < 0) | (index >= count)
        beyond |= outside & (weight != 0)
        total += np.where(weight != 0, weight * spectra[rows, np.clip(index, 0, count - 1)], 0.0)
    kind = spectra.dtype if spectra.dtype.kind == "f" or not np.isnan(fill) else np.float64
    return np.where(beyond, fill, total).astype(kind).reshape(*shape, count)
