"""Profiles of one component in every sample, in one set of axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from tensorspec.plot.canvas import MUTED, axis_label, clean, projected

__all__ = ["draw_family"]

PALEST, MOST = 0.75, 60  # share of white in the first sample's colour; curves beyond which samples are left out


def draw_family(ax: Axes, values: xr.DataArray, own: Sequence[str], colour: str, last: bool, unit: str) -> None:
    """Draw a curve for every sample, from pale for the first to full colour for the last.

    Parameters
    ----------
    ax
        Where to.
    values
        Dimensions of the samples and of the profiles.
    own
        The dimensions of the profiles.
    colour
        Of the component.
    last
        Whether the horizontal axis is named here.
    unit
        Of the values.
    """
    samples = [dim for dim in values.dims if dim not in own]
    curves = values.stack(sample=samples).transpose("sample", *own)
    shown = np.unique(np.linspace(0, curves.sizes["sample"] - 1, MOST).astype(int))
    dim = own[-1]
    x = values[dim].values if dim in values.coords and values[dim].dtype.kind in "iuf" else np.arange(values.sizes[dim])
    full = np.array(to_rgb(colour))
    for place, index in zip(np.linspace(PALEST, 0, len(shown)), shown, strict=True):
        curve = projected(curves.isel(sample=index, drop=True), 1)
        ax.plot(x, curve, color=tuple(place + (1 - place) * full), linewidth=0.9)
    ax.margins(x=0)
    if np.nanmin(values, initial=0) >= 0:
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.set_ylabel(unit)
    if last:
        named = " and ".join(str(name).replace("_", " ") for name in samples)
        ax.set_xlabel(f"{axis_label(values, dim)}; pale to full colour: {named}")
    else:
        ax.tick_params(labelbottom=False)
    clean(ax)
