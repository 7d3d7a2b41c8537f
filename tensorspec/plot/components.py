"""Figure of the components of a fit: maps, and beside them their spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr
from matplotlib.figure import Figure

from tensorspec.components import positions
from tensorspec.overview import percent
from tensorspec.pieces import evolving_mode, own_dims
from tensorspec.plot.canvas import (
    COLOURS,
    MAP_WIDTH,
    MUTED,
    draw_component,
    is_image,
    new_figure,
)
from tensorspec.plot.core import plot_core
from tensorspec.plot.family import draw_family

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_components"]

CURVE_WIDTH, ROW_HEIGHT = 4.0, 2.0  # inches


def plot_components(fit: Fit, components: Sequence[int | str] | None = None) -> Figure:
    """Draw one row a component: its map, and beside it its spectrum in every tensor.

    Parameters
    ----------
    fit : Fit
        What to draw.  Modes beyond map and spectrum have columns of their own; line scans are drawn as profiles.
        Principal components and their rotations, in whose sums entries of both signs cancel, are drawn at unit norm.
        Of a model with a core see `tensorspec.plot.core.plot_core`.
    components : sequence of int or str, optional
        Which components, by number from 1 or by label; by default all.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Save it with ``figure.savefig(path)``; notebooks show it.

    Raises
    ------
    UnknownName
        If a component does not exist.
    """
    if fit.cores and components is None:
        return plot_core(fit)
    chosen = positions(fit, components) if components is not None else list(range(fit.rank))
    panels = _panels(fit)
    widths = [
        MAP_WIDTH if is_image(fit.modes[mode]) and not _evolves(fit, name, mode) else CURVE_WIDTH
        for name, mode in panels
    ]
    figure = new_figure(sum(widths), ROW_HEIGHT * len(chosen) + 0.4)
    axes = figure.subplots(len(chosen), len(panels), squeeze=False, width_ratios=widths)
    shares = {name: fit.shares(name) for name in fit.tensors}
    for column, (name, mode) in enumerate(panels):
        values, evolves = fit.spectra(name, mode=mode), _evolves(fit, name, mode)
        cancelling = bool({"singular_values", "eigenvalues"} & set(fit.provenance)) and not evolves
        values = fit.seen(name, mode) if cancelling else values
        for row, index in enumerate(chosen):
            ax, colour = axes[row, column], COLOURS[index % len(COLOURS)]
            last, unit = row == len(chosen) - 1, "unit norm" if cancelling else _unit(values, name, fit)
            if evolves:
                draw_family(ax, values[index], own_dims(fit, name, mode), colour, last, unit)
            else:
                draw_component(ax, values[index], colour, last, unit)
            if column == 0:
                label = fit.labels[index]
                title = f"{index + 1} {label}" if label else f"component {index + 1}"
                ax.set_title(title, loc="left", color=colour, fontweight="bold")
            if mode == fit.signal_mode(name):
                share = percent(float(shares[name][index]), digits=1)
                ax.set_title(f"{share} of {shares[name].attrs['of']}", loc="right", color=MUTED, fontsize="small")
                if len(fit.tensors) > 1:
                    ax.set_title(name, loc="left", fontsize="small")
    return figure


def _panels(fit: Fit) -> list[tuple[str, str]]:
    """Return tensor and mode of each column: maps first, then spectra, then further modes; shared ones once."""
    panels: list[tuple[str, str]] = []
    for name, record in fit.tensors.items():
        first = [fit.map_mode(name), fit.signal_mode(name)]
        for mode in [*first, *(mode for mode in record.modes if mode not in first)]:
            if mode not in [shown for _, shown in panels]:
                panels.append((name, mode))
    return panels


def _evolves(fit: Fit, name: str, mode: str) -> bool:
    pair = evolving_mode(fit, name)
    return pair is not None and mode == pair[0]


def _unit(values: xr.DataArray, name: str, fit: Fit) -> str:
    """Return the unit of a map or spectrum; of a map that tensors share, with the tensor in which it is counted."""
    unit = str(values.attrs.get("units") or "signal")
    dims = set(values.dims[1:])
    shared = sum(dims <= set(record.dims) for record in fit.tensors.values()) > 1
    return f"{unit}, {name}" if shared else unit
