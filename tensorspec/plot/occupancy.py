"""Figure of a channelling scan: counts of every line over orientation, and what was fitted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from tensorspec.errors import InvalidArgument
from tensorspec.plot.canvas import COLOURS, MUTED, clean, new_figure

if TYPE_CHECKING:
    from tensorspec.channelling.occupancy import Occupancy

__all__ = ["plot_occupancy"]


def plot_occupancy(found: Occupancy) -> Figure:
    """Draw counts over their mean and the fit, and below them the residual in standard deviations.

    Parameters
    ----------
    found : Occupancy
        From `tensorspec.channelling.fit_occupancy`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A column for every data set over one tilt; of two tilts the sum over one is drawn.

    Raises
    ------
    InvalidArgument
        If it is no occupancy.
    """
    if not hasattr(found, "model") or not hasattr(found, "counts"):
        raise InvalidArgument(f"plot_occupancy draws what fit_occupancy gives; got a {type(found).__name__}")
    sets = found.counts
    figure = new_figure(4.2 * len(sets), 4.6)
    axes = figure.subplots(2, len(sets), squeeze=False, sharex="col", height_ratios=(3, 1))
    for column, (name, counts) in enumerate(sets.items()):
        above, below = axes[:, column]
        own, model = _over_one(counts), _over_one(found.model[name])
        dim = str(own.dims[-1])
        for k, line in enumerate(own["line"].values):
            colour = COLOURS[k % len(COLOURS)]
            level = float(own[k].mean())
            above.plot(own[dim], own[k] / level, "o", color=colour, markersize=2.5)
            above.plot(own[dim], model[k] / level, color=colour, linewidth=1.1, label=str(line))
            below.plot(
                own[dim], (own[k] - model[k]) / np.sqrt(np.maximum(model[k], 1e-12)), color=colour, linewidth=0.8
            )
        below.axhline(0, color=MUTED, linewidth=0.6)
        above.set_title(name, loc="left", fontsize="medium")
        below.set_xlabel(f"{dim.replace('_', ' ')} (mrad)")
        if column == 0:
            above.set_ylabel("counts over their mean")
            below.set_ylabel("residual\n(standard deviations)")
        above.legend(frameon=False, fontsize="small")
        clean(above)
        clean(below)
    return figure


def _over_one(counts: xr.DataArray) -> xr.DataArray:
    tilts = [dim for dim in counts.dims if dim != "line"]
    return counts.sum(tilts[:-1]).transpose("line", tilts[-1])
