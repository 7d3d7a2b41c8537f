"""Energy axes: offset and dispersion, given or from known lines and edges. Only coordinates change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.prepare.steps import as_spectra, evenly_spaced, recorded, signal_dimension
from tensorspec.shared_modes import units_of

__all__ = ["calibrate"]

# Channels on either side of the highest that a peak's place is read from, and over which an edge is smoothed.
PEAK, EDGE = 3, 2.0


def calibrate(
    data: xr.DataArray,
    known: Mapping[float, float] | Iterable[float] | None = None,
    *,
    find: str = "peak",
    within: float | None = None,
    offset: float | None = None,
    dispersion: float | None = None,
    dim: str | None = None,
) -> xr.DataArray:
    """Give the energy axis its right values.

    Parameters
    ----------
    data : DataArray
        With one spectrum a pixel; the values are not touched, lazy data not read unless something has to be found.
    known : mapping or iterable of float, optional
        What lies where: ``{place on the present axis: true energy}``; or true energies alone, which are looked for in
        the sum of all spectra. One gives the offset, two and more offset and dispersion by least squares.
    find : {"peak", "edge"}
        What is looked for: the top of a line, or the steepest rise of an edge.
    within : float, optional
        How far from its true energy it is looked for; by default twenty channels.
    offset : float, optional
        Added to the axis, in place of `known`.
    dispersion : float, optional
        New width of a channel, in place of `known`; the first channel stays where it is.
    dim : str, optional
        Dimension of the spectra, where it cannot be told.

    Returns
    -------
    DataArray
        The same values on the new axis, units kept; ``attrs["history"]`` says what was changed.

    Raises
    ------
    InvalidArgument
        If nothing is given, both ways are mixed, energies lie outside of the axis, or two known ones coincide.
    InvalidData
        If the axis is not evenly spaced, or there is no peak or edge where one is looked for.

    Examples
    --------
    >>> energy = 400 + 0.5 * np.arange(400)
    >>> peaks = np.exp(-(((energy - 456) / 2) ** 2)) + np.exp(-(((energy - 532) / 2) ** 2))
    >>> data = xr.DataArray(peaks, dims="energy_loss", coords={"energy_loss": energy + 3.2})
    >>> found = calibrate(data, [456, 532])
    >>> round(float(found.energy_loss[0]), 3), found.attrs["history"]
    (400.0, ['energy_loss calibrated: offset -3.2, dispersion 0.5 as before'])
    """
    data = as_spectra("calibrate", data)
    dim = signal_dimension("calibrate", data, dim)
    coord = data.coords[dim]
    energy = np.asarray(coord.values, dtype=float)
    step = evenly_spaced("calibrate", data, dim)
    units = units_of(coord)
    if known is not None:
        if offset is not None or dispersion is not None:
            raise InvalidArgument("calibrate: give either known energies, or offset and dispersion, not both.")
        if find not in ("peak", "edge"):
            raise InvalidArgument(f"calibrate: find is {find!r}; expected 'peak' or 'edge'.")
        places, true = _pairs(data, dim, known, find, 20 * step if within is None else number("within", within, step))
        if len(places) == 1:
            slope, level = 1.0, true[0] - places[0]
        else:
            slope, level = np.polyfit(places, true, 1)
        if not slope > 0:
            raise InvalidArgument("calibrate: the known energies are in another order than their places.")
        new = slope * energy + level
    elif offset is None and dispersion is None:
        raise InvalidArgument("calibrate: nothing is given; give known energies, offset= or dispersion=.")
    else:
        shift = 0.0 if offset is None else number("offset", offset, -np.inf)
        width = step if dispersion is None else number("dispersion", dispersion, 0, above=True)
        new = energy[0] + shift + width * np.arange(len(energy)) if dispersion is not None else energy + shift
    result = data.assign_coords({dim: (dim, new, dict(coord.attrs))})
    changed = (new[-1] - new[0]) / (len(new) - 1)
    same = abs(changed / step - 1) < 1e-9
    text = f"{dim} calibrated: offset {new[0] - energy[0]:.6g}{f' {units}' if units else ''}, dispersion "
    return recorded(result, data, text + (f"{step:g} as before" if same else f"{changed:.6g} instead of {step:.6g}"))


def _pairs(
    data: xr.DataArray, dim: str, known: Mapping[float, float] | Iterable[float], find: str, within: float
) -> tuple[list[float], list[float]]:
    energy = np.asarray(data.coords[dim].values, dtype=float)
    if isinstance(known, Mapping):
        places = [number("a place", place, -np.inf) for place in known]
        true = [number("a true energy", value, -np.inf) for value in known.values()]
        for place in places:
            if not energy[0] <= place <= energy[-1]:
                raise InvalidArgument(
                    f"calibrate: the place {place:g} lies outside of {dim!r}, {energy[0]:g} to {energy[-1]:g}; the "
                    "keys are places on the present axis, the values true energies."
                )
    else:
        true = [number("a known energy", value, -np.inf) for value in known]
        total = data.sum([each for each in data.dims if each != dim]).as_numpy().values.astype(float)
        places = [_found(energy, total, value, within, find) for value in true]
    if not places or len(set(places)) < len(places) or len(set(true)) < len(true):
        raise InvalidArgument("calibrate: known energies must be given, each once, and found in different places.")
    return places, true


def _found(energy: np.ndarray, total: np.ndarray, true: float, within: float, find: str) -> float:
    """Return the place of the peak, or of the steepest rise, nearest to where it should be."""
    from scipy.ndimage import gaussian_filter1d

    signal = total if find == "peak" else gaussian_filter1d(total, EDGE, order=1)
    near = np.flatnonzero(np.abs(energy - true) <= within)
    if len(near) < 3:
        raise InvalidArgument(
            f"calibrate: fewer than three channels lie within {within:g} of {true:g}; the axis runs from {energy[0]:g} "
            f"to {energy[-1]:g}."
        )
    top = int(near[np.argmax(signal[near])])
    inner = near[0] < top < near[-1] and 0 < top < len(signal) - 1
    if not inner or signal[top] <= np.median(signal[near]):
        what = "peak" if find == "peak" else "rising edge"
        raise InvalidData(
            f"calibrate: no {what} within {within:g} of {true:g}; say where it lies on the present axis, "
            f"known={{place: {true:g}}}, or look further: within=..."
        )
    # A parabola through the logarithm is exact for a Gaussian; through an edge's slope it is taken as it stands.
    around = slice(max(top - PEAK, 0), top + PEAK + 1)
    x, y = energy[around] - energy[top], signal[around]
    keep = y > 0.5 * signal[top]
    if keep.sum() >= 3:
        curve = np.polyfit(x[keep], np.log(y[keep]), 2, w=np.sqrt(y[keep]))
        if curve[0] < 0:
            return float(energy[top] + np.clip(-curve[1] / (2 * curve[0]), x[0], x[-1]))
    return float(energy[top])
