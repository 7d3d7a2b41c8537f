"""Figure of a model with a core: the components of every mode by themselves, and which of them meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensorspec.cores import interactions, shares_of_entries
from tensorspec.plot.canvas import COLOURS, MAP_WIDTH, MUTED, clean, draw_component, is_image, new_figure

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_core"]

CURVE_WIDTH, CORE_WIDTH, ROW_HEIGHT = 3.6, 2.6, 1.9  # inches
MOST = 12  # entries of a core that are drawn


def plot_core(fit: Fit) -> Figure:
    """Draw a column of components for every mode, and for every tensor the strongest entries of its core as bars.

    Parameters
    ----------
    fit : Fit
        With a core.  Maps and spectra are in units of the data where everything adds up, else at unit norm, as the
        sums of components with both signs say nothing.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Save it with ``figure.savefig(path)``; notebooks show it.
    """
    widths = [MAP_WIDTH if is_image(fit.modes[mode]) else CURVE_WIDTH for mode in fit.factors]
    widths += [CORE_WIDTH] * len(fit.cores)
    rows = max(fit.ranks.values())
    figure = new_figure(sum(widths), max(ROW_HEIGHT * rows, 2.6) + 0.4)
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths)
    for column, (mode, rank) in enumerate(fit.ranks.items()):
        name = next(key for key, record in fit.tensors.items() if mode in record.modes)
        in_units = shares_of_entries(fit, name)[1] != "energy"
        values = fit.spectra(name, mode=mode) if in_units else fit.seen(name, mode)
        unit = str(values.attrs.get("units") or "signal") if in_units else "unit norm"
        for index in range(rank):
            ax = figure.add_subplot(grid[index, column])
            colour = COLOURS[index % len(COLOURS)]
            draw_component(ax, values[index], colour, index == rank - 1, unit)
            ax.set_title(f"{mode.replace('_', ' ')} {index + 1}", loc="left", color=colour, fontweight="bold")
    for place, name in enumerate(fit.cores):
        ax = figure.add_subplot(grid[:, len(fit.factors) + place])
        _draw_bars(ax, fit, name)
    return figure


def _draw_bars(ax: Axes, fit: Fit, name: str) -> None:
    """Draw the share of the strongest entries of a core, the strongest on top."""
    table = interactions(fit, name, MOST)
    kept = [mode for mode in fit.tensors[name].modes if mode in fit.factors]
    numbers = zip(*(table[f"{mode}_component"].values for mode in kept), strict=True)
    shares = 100 * np.asarray(table["share"].values)
    places = np.arange(len(shares))
    ax.barh(places, shares, color=MUTED, height=0.7)
    ax.set_yticks(places, [" \N{MIDDLE DOT} ".join(map(str, own)) for own in numbers])
    ax.invert_yaxis()
    several = f"{name}: " if len(fit.cores) > 1 else ""
    ax.set_title(f"{several}which meet", loc="left", fontweight="bold")
    ax.set_ylabel(" \N{MIDDLE DOT} ".join(mode.replace("_", " ") for mode in kept))
    ax.set_xlabel(f"share of {table.attrs['of']} (%)")
    labels = [text.get_text() for text in ax.get_yticklabels()]
    clean(ax)
    ax.set_yticks(places, labels)
