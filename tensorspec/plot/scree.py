"""Figure of the singular values of a principal component analysis, and of the edge below which noise stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tensorspec.errors import InvalidArgument
from tensorspec.plot.canvas import COLOURS, MUTED, new_figure

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["plot_scree"]


def plot_scree(fit: Fit, most: int = 50) -> Figure:
    """Draw singular values in falling order, those of the components marked, and where it is known the noise edge.

    Parameters
    ----------
    fit : Fit
        From `tensorspec.pca`.
    most : int
        How many are drawn at most, and no fewer than the components and ten more.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The edge, ``sqrt(rows) + sqrt(columns)``, is drawn after Poisson scaling: noise of counts stays below it.

    Raises
    ------
    InvalidArgument
        If the fit is not one of `tensorspec.pca`.
    """
    if "singular_values" not in fit.provenance:
        raise InvalidArgument("plot_scree: this fit has no singular values; it draws what ts.pca(data, rank) gives")
    values = np.asarray(fit.provenance["singular_values"].values, dtype=float)
    rank, record = fit.rank, next(iter(fit.tensors.values()))
    shown = values[: max(most, rank + 10)]
    shown = shown[shown > 1e-12 * values[0]]
    numbers = np.arange(1, len(shown) + 1)
    figure = new_figure(5.4, 3.4)
    ax = figure.subplots()
    ax.plot(numbers[rank:], shown[rank:], "o", color=MUTED, markersize=3.5, label="left out")
    ax.plot(numbers[:rank], shown[:rank], "o", color=COLOURS[0], markersize=5, label="components")
    edge = fit.provenance.get("noise_edge")
    if edge is not None:
        ax.axhline(edge, color=COLOURS[1], linewidth=1, linestyle="--", label="edge of the noise of counts")
    ax.set_yscale("log")
    ax.set(xlabel="component", ylabel="singular value" + (", in units of the noise" if edge is not None else ""))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if shown[0] < 30 * shown[-1]:  # less than a decade or so: every label of a logarithmic axis would be a power of ten
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    explained = 100 * record.explained
    ax.set_title(f"{record.explained_as} of {rank}: {explained:.4g} %", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return figure
