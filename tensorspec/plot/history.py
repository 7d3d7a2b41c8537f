"""Figure of the objective, sweep by sweep, and of how far apart the restarts ended, or were left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tensorspec.plot.canvas import COLOURS, FEW, clean, new_figure

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_history"]

ALIKE = 0.01  # per cent: restarts that differ by less ended at the same place


def plot_history(fit: Fit) -> Figure:
    """Draw the objective against the sweep and, after several restarts, how far apart they ended.

    Parameters
    ----------
    fit : Fit
        What to draw.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    several = fit.spread is not None and fit.spread.size > 1
    figure = new_figure(8.0 if several else 5.0, 3.2)
    axes = np.atleast_1d(figure.subplots(1, 2 if several else 1))
    values = np.asarray(fit.history.values, dtype=float)
    axes[0].plot(fit.history["sweep"], values, color=COLOURS[0], marker="." if values.size <= FEW else "")
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes[0].set_yscale("log")
    axes[0].set(xlabel="sweep", ylabel="objective")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_title(f"{fit.status.short} after {fit.sweeps} sweeps", loc="left", fontsize="medium")
    if several:
        _draw_spread(axes[1], np.asarray(fit.spread, dtype=float))
    for ax in axes:
        clean(ax)
    return figure


def _draw_spread(ax: Axes, final: np.ndarray) -> None:
    """Draw the objective of each restart, where it ended or was left, above the best, in per cent of it."""
    best = np.nanmin(final)
    above = 100 * (final - best) / abs(best) if best else final - best
    ax.plot(np.arange(1, final.size + 1), above, "o", color=COLOURS[0], markersize=5)
    ax.plot(int(np.nanargmin(final)) + 1, 0, "o", color=COLOURS[1], markersize=7, label="kept")
    ax.set(xlabel="restart", ylabel="above the best (%)" if best else "above the best")
    if best and np.nanmax(above) < ALIKE:
        ax.set_ylim(-0.05 * ALIKE, ALIKE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")
