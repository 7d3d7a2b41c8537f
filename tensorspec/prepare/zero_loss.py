"""The zero-loss peak of low-loss spectra, separated from what has lost energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.prepare.steps import in_units_of

__all__ = ["NEAR", "SEPARATIONS", "ZeroLoss", "check_separation", "near_zero", "separate"]

SEPARATIONS = ("tail", "minimum")
# The peak is looked for this far around the zero of the axis, eV.
NEAR = 10.0
# Widths of the peak: between the first two the mirrored tail takes over, between the other two it is matched.
RAMP, MATCHED = (1.0, 2.5), (0.75, 1.5)
MOST_ASYMMETRY = 4.0
# The minimum is looked for between these distances from the peak, in its widths, and no further than to where the
# spectrum has risen to so many times its lowest value, by this share of the peak.
MINIMUM = (1.0, 12.0)
RISEN, RISEN_OF_PEAK = 2.0, 3e-3


@dataclass(frozen=True)
class ZeroLoss:
    """Zero-loss peaks of several spectra.

    Attributes
    ----------
    intensity : (rows, channels) array
        The peaks alone, data units.
    centre, width : (rows,) arrays
        Position and full width at half maximum, channels.
    """

    intensity: np.ndarray
    centre: np.ndarray
    width: np.ndarray


def check_separation(function: str, separation: object, coord: xr.DataArray) -> str | tuple[int, int]:
    """Return how to separate the zero-loss peak, a window as channels (first, one behind the last).

    Parameters
    ----------
    function : str
        Who asks, for the message.
    separation : {"tail", "minimum"} or (float, float)
        As given; a window is in the units of the coordinate.
    coord : DataArray
        Energy loss, ascending.

    Returns
    -------
    str or (int, int)

    Raises
    ------
    InvalidArgument
        If it is neither, or the window holds no channel.

    Examples
    --------
    >>> check_separation("thickness", (-2, 2), xr.DataArray(np.arange(-5.0, 20), dims="energy_loss"))
    (3, 8)
    """
    if isinstance(separation, str):
        if separation not in SEPARATIONS:
            raise InvalidArgument(
                f"{function}: zero_loss is {separation!r}; expected 'tail', 'minimum', or a window (lo, hi)."
            )
        return separation
    values = np.asarray(coord.values, dtype=float)
    try:
        low, high = (float(bound) for bound in separation)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{function}: zero_loss is {separation!r}; expected 'tail', 'minimum', or a window (lo, hi)."
        ) from None
    inside = np.flatnonzero((values >= low) & (values <= high))
    if not len(inside):
        raise InvalidArgument(
            f"{function}: the zero-loss window {low:g} to {high:g} holds no channel; {coord.name!r} runs from "
            f"{values[0]:g} to {values[-1]:g}."
        )
    return int(inside[0]), int(inside[-1]) + 1


def near_zero(function: str, coord: xr.DataArray) -> tuple[int, int]:
    """Return the channels (first, one behind the last) among which the zero-loss peak is looked for.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    coord : DataArray
        Energy loss, ascending.

    Returns
    -------
    (int, int)

    Raises
    ------
    InvalidData
        If the axis does not hold its zero.

    Examples
    --------
    >>> near_zero("thickness", xr.DataArray(np.arange(-5.0, 20), dims="energy_loss", attrs={"units": "eV"}))
    (0, 16)
    """
    values = np.asarray(coord.values, dtype=float)
    if not values[0] < 0 < values[-1]:
        raise InvalidData(
            f"{function}: the zero loss is not in these spectra: {coord.name!r} runs from {values[0]:g} to "
            f"{values[-1]:g}; give a low loss, or calibrate its axis first."
        )
    near = float(in_units_of(coord, NEAR, "eV"))
    inside = np.flatnonzero(np.abs(values) <= near)
    return int(inside[0]), int(inside[-1]) + 1


def separate(spectra: np.ndarray, how: str | tuple[int, int], near: tuple[int, int]) -> ZeroLoss:
    """Separate the zero-loss peak of each spectrum.

    Parameters
    ----------
    spectra : (rows, channels) float array
        Without gaps.
    how : {"tail", "minimum"} or (int, int)
        ``"tail"``: the data up to one width above the peak, and, smoothly from there to two and a half widths, the
        mirrored lower tail, scaled so that it holds as much as the data about the joint. ``"minimum"``: the data up
        to the minimum behind the peak. A window: the data in these channels.
    near : (int, int)
        Channels among which the peak is the highest.

    Returns
    -------
    ZeroLoss
        Of NaN where a spectrum is.

    Notes
    -----
    No electron gains energy, so the lower side of the peak is free of inelastic scattering; mirrored about the
    interpolated centre it is what hides under the losses on the upper side (R. F. Egerton, EELS in the Electron
    Microscope, 2011, chapter 5.1, doi:10.1007/978-1-4419-9583-4). Only the tail is mirrored: a peak of two
    channels' width, mirrored as a whole, would turn a twentieth of a channel into several percent.

    Examples
    --------
    >>> energy = np.arange(-20.0, 60)
    >>> peak = 1e4 * np.exp(-0.5 * (energy / 1.5) ** 2)
    >>> found = separate((peak + 300 * (energy > 10))[None], "tail", (10, 31))
    >>> round(float(found.intensity.sum() / peak.sum()), 4)
    1.0
    """
    centre, width = _centre_and_width(spectra, near)
    channel = np.arange(spectra.shape[1])
    if isinstance(how, tuple):
        keep = np.broadcast_to((channel >= how[0]) & (channel < how[1]), spectra.shape)
        return ZeroLoss(np.where(keep | np.isnan(spectra), spectra, 0.0), centre, width)
    distance = channel - centre[:, None]
    if how == "minimum":
        smooth = spectra if spectra.shape[1] < 3 else _smooth(spectra)
        low, high = (factor * np.maximum(width, 2.0)[:, None] for factor in MINIMUM)
        looked = np.where((distance >= low) & (distance <= high), smooth, np.inf)
        top = spectra[:, near[0] : near[1]].max(axis=1, keepdims=True)
        bound = RISEN * np.minimum.accumulate(looked, axis=1) + RISEN_OF_PEAK * top
        risen = np.maximum.accumulate(np.isfinite(looked) & (looked > bound), axis=1)
        cut = np.where(risen, np.inf, looked).argmin(axis=1)
        return ZeroLoss(np.where((channel <= cut[:, None]) | np.isnan(spectra), spectra, 0.0), centre, width)

    mirrored = _interpolate(spectra, 2 * centre[:, None] - channel)
    widths = distance / np.maximum(width, 2.0)[:, None]
    matched = (widths > MATCHED[0]) & (widths <= MATCHED[1])
    above, below = (spectra * matched).sum(axis=1), (mirrored * matched).sum(axis=1)
    sure = (above > 0) & (below > 0)
    scale = np.clip(np.divide(above, below, out=np.ones_like(above), where=sure), 1 / MOST_ASYMMETRY, MOST_ASYMMETRY)
    # A step here would be a loss with all frequencies in it.
    ramp = np.sin(0.5 * np.pi * np.clip((widths - RAMP[0]) / (RAMP[1] - RAMP[0]), 0, 1)) ** 2
    return ZeroLoss(spectra - ramp * (spectra - mirrored * scale[:, None]), centre, width)


def _centre_and_width(spectra: np.ndarray, near: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centre (a parabola through the logarithm of the three highest channels) and full width at half maximum."""
    rows, last = np.arange(len(spectra)), spectra.shape[1] - 1
    window = spectra[:, near[0] : near[1]]
    # A NaN row has no maximum; any channel will do for it.
    peak = np.where(np.isnan(window), -np.inf, window).argmax(axis=1) + near[0]
    top = spectra[rows, peak]
    left, right = (spectra[rows, np.clip(peak + step, 0, last)] for step in (-1, 1))
    floor = np.maximum(1e-3 * np.abs(top), np.finfo(float).tiny)
    a, b, c = (np.log(np.maximum(value, floor)) for value in (left, top, right))
    bend = a - 2 * b + c
    shift = np.divide(0.5 * (a - c), bend, out=np.zeros_like(bend), where=bend < 0)
    centre = np.where((peak > 0) & (peak < last), peak + np.clip(shift, -0.5, 0.5), peak)

    half = 0.5 * top[:, None]
    channel = np.arange(spectra.shape[1])
    lower = spectra < half
    left_of = np.where(lower & (channel < peak[:, None]), channel, -1).max(axis=1)
    right_of = np.where(lower & (channel > peak[:, None]), channel, last + 1).min(axis=1)

    def crossing(outside: np.ndarray, step: int) -> np.ndarray:
        """Where the line between two channels passes half the height."""
        out = np.clip(outside, 0, last)
        inner = np.clip(out + step, 0, last)
        rise = spectra[rows, inner] - spectra[rows, out]
        share = np.divide(half[:, 0] - spectra[rows, out], rise, out=np.zeros_like(rise), where=rise > 0)
        return out + step * np.clip(share, 0, 1)

    sides = np.stack([centre - crossing(left_of, 1), crossing(right_of, -1) - centre])
    # A side that the detector cuts off, or on which a plasmon hides the fall, is the wider one.
    return centre, 2 * np.maximum(sides.min(axis=0), 0.25)


def _interpolate(spectra: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Values at fractional channels, (rows, channels); zero outside of the spectrum."""
    last = spectra.shape[1] - 1
    below = np.clip(np.floor(position).astype(int), 0, last - 1)
    share = position - below
    first, second = np.take_along_axis(spectra, below, 1), np.take_along_axis(spectra, below + 1, 1)
    return np.where((position >= 0) & (position <= last), first + share * (second - first), 0.0)


def _smooth(spectra: np.ndarray) -> np.ndarray:
    """Mean over three neighbouring channels."""
    padded = np.pad(spectra, ((0, 0), (1, 1)), mode="edge")
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
