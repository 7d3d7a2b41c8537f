"""Figure of what several criteria say of the number of components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tensorspec.plot.canvas import COLOURS, MUTED, clean, new_figure

if TYPE_CHECKING:
    from tensorspec.diagnose.evidence import Criterion, RankEvidence

__all__ = ["plot_rank"]

# Core consistencies far below zero say no more than zero does.
LOWEST = -50.0
_ACROSS, _WIDTH, _HEIGHT = 3, 3.4, 2.7  # panels in a row; inches


def plot_rank(evidence: RankEvidence) -> Figure:
    """Draw a panel for each criterion that has a curve, its answer marked, and the recommendation as the title.

    Parameters
    ----------
    evidence : RankEvidence
        As `tensorspec.estimate_rank` gives it.

    Returns
    -------
    figure : matplotlib.figure.Figure
    """
    drawn = [item for item in evidence.criteria if item.curves]
    across = min(_ACROSS, max(len(drawn), 1))
    down = max(-(-len(drawn) // across), 1)
    figure = new_figure(_WIDTH * across, _HEIGHT * down + 0.5)
    axes = np.atleast_1d(figure.subplots(down, across)).ravel()
    for ax, item in zip(axes, drawn, strict=False):
        _draw(ax, item)
    for ax in axes[len(drawn) :]:
        ax.set_visible(False)
    figure.suptitle(evidence.advice, x=0.01, ha="left", fontsize="medium", wrap=True)
    return figure


def _draw(ax: Axes, item: Criterion) -> None:
    (key, curve), *others = item.curves.items()
    dim = str(curve.dims[0])
    x, y = curve[dim].values, curve.values
    error = item.curves.get("standard error")
    if error is not None:
        ax.errorbar(x, y, yerr=error.values, color=COLOURS[0], marker="o", markersize=3, linewidth=1.2, capsize=2)
    else:
        ax.plot(x, y, color=COLOURS[0], marker="o", markersize=3, linewidth=1.2 if dim == "rank" else 0)
    for place, (name, other) in enumerate(others):
        if name != "standard error":
            ax.plot(x, other.values, color=COLOURS[place + 2], marker="s", markersize=3, linewidth=1, label=name)
            ax.get_lines()[0].set_label(key)
            ax.legend(frameon=False, fontsize="small", loc="lower left")
    if dim == "rank" and np.nanmin(y) < LOWEST:
        ax.set_ylim(LOWEST, 1.05 * np.nanmax(y))
    if dim == "component":
        ax.axhline(1, color=MUTED, linewidth=0.8, linestyle="--")
        ax.set_yscale("log")
        ax.set_xlabel("component")
    else:
        ax.set_xlabel("number of components")
    if item.answer is not None and item.answer in x:
        ax.plot(item.answer, y[list(x).index(item.answer)], "o", color=COLOURS[1], markersize=7)
    elif item.answer is None:
        ax.text(0.97, 0.95, "no answer", ha="right", va="top", transform=ax.transAxes, color=MUTED, fontsize="small")
    ax.set_ylabel(key, fontsize="small", wrap=True)
    ax.set_title(item.name if item.answer is None else f"{item.name}: {item.answer}", loc="left", fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(ax)
