"""Figure of what a fit leaves of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from tensorspec.plot.canvas import (
    COLOURS,
    MAP_WIDTH,
    MUTED,
    ROUND,
    axis_label,
    clean,
    colour_scale,
    draw_curve,
    draw_image,
    new_figure,
    projected,
)

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_residual"]


def plot_residual(fit: Fit, name: str | None = None, data: Any = None) -> Figure:
    """Draw where the model differs from the data: a map of the residual, and the spectra of data and model.

    Parameters
    ----------
    fit : Fit
        What to draw.
    name : str, optional
        The tensor; by default all, one row each.
    data : DataArray or mapping of str to DataArray, optional
        The data, if neither the fit nor its file holds a residual summary.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Residuals are root mean squares, in units of the noise where that is known: then a map and a spectrum without
        structure, at 1, mean that nothing but noise is left.

    Raises
    ------
    UnknownName
        If there is no tensor of that name.
    InvalidData
        If the data are needed.
    """
    names = [name] if name is not None else list(fit.tensors)
    summaries = {key: fit.residual_summary(key, data) for key in names}
    figure = new_figure(MAP_WIDTH + 5.2, 3.2 * len(names) + 0.2)
    grid = figure.add_gridspec(2 * len(names), 2, width_ratios=[MAP_WIDTH, 5.2], height_ratios=[2.2, 1] * len(names))
    for row, (key, summary) in enumerate(summaries.items()):
        left = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
        top = figure.add_subplot(grid[2 * row, 1])
        bottom = figure.add_subplot(grid[2 * row + 1, 1], sharex=top)
        _draw_residual(left, summary)
        left.set_title(f"{key}, residual" if len(fit.tensors) > 1 else "residual", loc="left", fontweight="bold")
        _draw_spectra(top, bottom, summary)
    return figure


def _draw_residual(ax: Axes, summary: xr.Dataset) -> None:
    """Draw the residual on the map mode; in units of the noise, white is what noise alone leaves."""
    residual, in_noise = summary["residual_map"], "chi2" in summary.attrs
    residual = residual.mean([str(dim) for dim in residual.dims[:-2]], keep_attrs=True).squeeze()
    unit = "residual / noise" if in_noise else str(residual.attrs.get("units") or "signal")
    note = f"$\\chi^2$ per degree of freedom {summary.attrs['chi2']:.3f}" if in_noise else ""
    if residual.ndim < 2:
        draw_curve(ax, residual, COLOURS[0], last=True, unit=unit)
        ax.text(0.03, 0.04, note, transform=ax.transAxes, fontsize="small", color=MUTED)
        return
    high = max(2.0, float(residual.max()))
    bar = draw_image(ax, residual, TwoSlopeNorm(1.0, 0.0, high) if in_noise else colour_scale(residual))
    bar.set_ylabel(unit, fontsize="small")
    if in_noise:
        above = [
            tick for tick in MaxNLocator(3, steps=ROUND).tick_values(1, high) if 1 + 0.2 * (high - 1) < tick <= high
        ]
        bar.yaxis.set_major_locator(FixedLocator([0, 1, *above]))
    ax.text(0, -0.03, note, transform=ax.transAxes, va="top", fontsize="small", color=MUTED)


def _draw_spectra(top: Axes, bottom: Axes, summary: xr.Dataset) -> None:
    """Draw the spectra of data and model, and below them the residual at every channel."""
    measured, model = summary["data_spectrum"], summary["model_spectrum"]
    measured, model = projected(measured, 1), projected(model, 1)
    dim = str(measured.dims[0])
    numeric = dim in measured.coords and measured[dim].dtype.kind in "iuf"
    x = measured[dim].values if numeric else np.arange(measured.size)
    top.fill_between(x, measured, step="mid", color="0.8", linewidth=0, label="data")
    top.plot(x, model, color=COLOURS[0], linewidth=1.1, label="model")
    top.set_ylabel(f"{measured.attrs.get('units', 'signal')}, summed")
    top.legend(frameon=False, fontsize="small")
    top.tick_params(labelbottom=False)
    residual, in_noise = summary["residual_spectrum"], "chi2" in summary.attrs
    residual = residual.mean([str(dim) for dim in residual.dims[:-1]])
    bottom.axhline(1.0 if in_noise else 0.0, color=MUTED, linewidth=0.6)
    bottom.plot(x, residual, color=COLOURS[1], linewidth=0.8, drawstyle="steps-mid")
    bottom.set_ylabel("residual\n/ noise" if in_noise else "residual")
    if in_noise:
        low, high = float(residual.min()), float(residual.max())
        bottom.set_ylim(min(0.8, low) - 0.05, max(1.2, high) + 0.05)
    bottom.set_xlabel(axis_label(measured, dim))
    top.margins(x=0)
    if np.nanmin(measured) >= 0:
        top.set_ylim(bottom=0)
    for ax in (top, bottom):
        clean(ax)
