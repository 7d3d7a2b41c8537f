"""Channels that are left out of a fit: strobe peaks, the tail of the zero-loss peak, the ends of a detector."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.prepare.steps import as_spectra, signal_dimension
from tensorspec.shared_modes import units_of

__all__ = ["mask_channels"]


def mask_channels(data: xr.DataArray, ranges: Iterable[tuple[float, float]], *, dim: str | None = None) -> xr.DataArray:
    """Return a mask that leaves out ranges of channels; the data stay as they are.

    Give it to a fit, ``ts.fit(data, model, mask=mask)``, or combine masks: ``spikes & channels``.

    Parameters
    ----------
    data : DataArray
        With one spectrum a pixel.
    ranges : iterable of (float, float)
        First and last energy of each range, both left out, in the units of the coordinate; infinity for an end.
    dim : str, optional
        Dimension of the spectra, where it cannot be told.

    Returns
    -------
    mask : DataArray of bool
        True where a channel is used; along the dimension of the spectra alone.

    Raises
    ------
    InvalidArgument
        If a range is not two numbers in rising order, holds no channel, or nothing would be left.

    Examples
    --------
    >>> data = xr.DataArray(np.ones((2, 5)), dims=("x", "energy_loss"), coords={"energy_loss": [0.0, 1, 2, 3, 4]})
    >>> mask_channels(data, [(-np.inf, 0.5), (3, 3)]).values
    array([False,  True,  True, False,  True])
    """
    data = as_spectra("mask_channels", data)
    dim = signal_dimension("mask_channels", data, dim)
    coord = data.coords[dim]
    energy = np.asarray(coord.values, dtype=float)
    units = units_of(coord) or ""
    used = np.ones(len(energy), dtype=bool)
    said = []
    for bounds in ranges:
        try:
            low, high = (float(bound) for bound in bounds)
        except (TypeError, ValueError):
            raise InvalidArgument(
                f"mask_channels: a range is {bounds!r}; expected two energies: mask_channels(data, [(lo, hi)])."
            ) from None
        if not low <= high:
            raise InvalidArgument(f"mask_channels: the range {low:g} to {high:g} does not rise.")
        inside = (energy >= low) & (energy <= high)
        if not inside.any():
            raise InvalidArgument(
                f"mask_channels: no channel lies between {low:g} and {high:g}; {dim!r} runs from {energy[0]:g} to "
                f"{energy[-1]:g} {units}".rstrip()
                + "."
            )
        used &= ~inside
        said.append(f"{low:g} to {high:g} {units}".rstrip())
    if not used.any():
        raise InvalidArgument("mask_channels: the ranges leave no channel.")
    return xr.DataArray(
        used, dims=dim, coords={dim: coord}, attrs={"history": [f"channels left out: {', '.join(said) or 'none'}"]}
    )
