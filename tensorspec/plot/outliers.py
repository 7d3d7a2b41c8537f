"""Figure of a robust principal component analysis: which pixels lie off, and in what way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tensorspec.errors import InvalidArgument
from tensorspec.plot.canvas import COLOURS, MISSING, MUTED, axis_label, clean, new_figure

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_outliers"]

SHADES = ("0.75", COLOURS[2], COLOURS[4], COLOURS[1])


def plot_outliers(fit: Fit) -> Figure:
    """Draw the outlier map, where the pixels of each kind are, and how well rising ranks predict pixels left out.

    Parameters
    ----------
    fit : Fit
        From `tensorspec.robpca`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Distance within the subspace against distance from it, with both cut-offs; the image of kinds where pixels form
        one; and R-PRESS where no rank was given.

    Raises
    ------
    InvalidArgument
        If the fit is not one of `tensorspec.robpca`.
    """
    known = fit.provenance
    if "score_distance" not in known or "kind" not in known:
        raise InvalidArgument("plot_outliers: this fit has no outlier map; it draws what ts.robpca(data) gives")
    kind = known["kind"]
    image = kind.ndim == 2
    panels = 1 + image + ("press" in known)
    figure = new_figure(3.7 * panels, 3.3)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_map(axes[0], fit)
    if image:
        ax = axes[1]
        colours = ListedColormap(list(SHADES))
        ax.imshow(
            np.ma.masked_invalid(kind.values),
            cmap=colours,
            norm=BoundaryNorm(np.arange(-0.5, 4), 4),
            interpolation="nearest",
        )
        ax.set_facecolor(MISSING)
        ax.set(
            xticks=[], yticks=[], xlabel=axis_label(kind, str(kind.dims[1])), ylabel=axis_label(kind, str(kind.dims[0]))
        )
    if "press" in known:
        ax, press = axes[-1], known["press"]
        ax.plot(press["rank"].values, press.values, color=COLOURS[0], marker="o", markersize=3, linewidth=1.2)
        ax.plot(fit.rank, float(press.sel(rank=fit.rank)), "o", color=COLOURS[1], markersize=7)
        ax.set(xlabel="number of components", ylabel="mean squared distance, pixels left out", yscale="log")
        ax.set_title(f"R-PRESS: {fit.rank}", loc="left", fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        clean(ax)
    return figure


def _draw_map(ax: Axes, fit: Fit) -> None:
    known = fit.provenance
    within, off = known["score_distance"].values.ravel(), known["orthogonal_distance"].values.ravel()
    kind = known["kind"].values.ravel()
    for index, name in enumerate(known["kinds"]):
        own = kind == index
        label = f"{name}: {int(own.sum())}"
        ax.plot(within[own], off[own], "o", color=SHADES[index], markersize=2.5, markeredgewidth=0, label=label)
    ax.axvline(known["score_cutoff"], color=MUTED, linewidth=0.8, linestyle="--")
    ax.axhline(known["orthogonal_cutoff"], color=MUTED, linewidth=0.8, linestyle="--")
    ax.set(xlabel="score distance", ylabel="orthogonal distance")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(0.0, 1.18), ncols=2, borderaxespad=0)
    clean(ax)
