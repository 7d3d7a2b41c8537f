"""Figures of a fit: components, residual, history.  They are returned, never shown; colours are colour-blind safe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from tensorspec.components import positions
from tensorspec.overview import percent

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["COLOURS", "plot_components", "plot_history", "plot_residual"]

# Okabe & Ito, without the yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
MISSING, MUTED = "0.85", "0.45"
MAP_WIDTH, CURVE_WIDTH, ROW_HEIGHT = 2.9, 4.0, 2.0  # inches
FEW = 15  # points of a curve that are marked


class _Figure(Figure):
    """A figure that notebooks show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def plot_components(fit: Fit, components: Sequence[int | str] | None = None) -> Figure:
    """Draw one row a component: its map, and beside it its spectrum in every tensor.

    Parameters
    ----------
    fit : Fit
        What to draw.  Modes beyond map and spectrum have columns of their own; line scans are drawn as profiles.
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
    chosen = positions(fit, components) if components is not None else list(range(fit.rank))
    panels = _panels(fit)
    widths = [MAP_WIDTH if _is_image(fit, mode) else CURVE_WIDTH for _, mode in panels]
    figure = _Figure(figsize=(sum(widths), ROW_HEIGHT * len(chosen) + 0.4), layout="constrained")
    axes = figure.subplots(len(chosen), len(panels), squeeze=False, width_ratios=widths)
    shares = {name: fit.shares(name) for name in fit.tensors}
    for column, (name, mode) in enumerate(panels):
        values = fit.spectra(name, mode=mode)
        for row, index in enumerate(chosen):
            ax, colour = axes[row, column], COLOURS[index % len(COLOURS)]
            _draw(ax, values[index], colour, last=row == len(chosen) - 1)
            if column == 0:
                title = f"{index + 1} {fit.labels[index]}".strip()
                ax.set_title(title, loc="left", color=colour, fontweight="bold")
            if mode == fit.signal_mode(name):
                share = percent(float(shares[name][index]), digits=1)
                ax.set_title(f"{share} of {shares[name].attrs['of']}", loc="right", color=MUTED, fontsize="small")
                if len(fit.tensors) > 1:
                    ax.set_title(name, loc="left", fontsize="small")
    return figure


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
        Residuals are in units of the noise where that is known: a map without structure at 1, and a spectrum between
        -2 and 2, mean that nothing but noise is left.

    Raises
    ------
    UnknownName
        If there is no tensor of that name.
    InvalidData
        If the data are needed.
    """
    names = [name] if name is not None else list(fit.tensors)
    summaries = {key: fit.residual_summary(key, data) for key in names}
    figure = _Figure(figsize=(MAP_WIDTH + 5.2, 3.2 * len(names) + 0.2), layout="constrained")
    grid = figure.add_gridspec(2 * len(names), 2, width_ratios=[MAP_WIDTH, 5.2], height_ratios=[2.2, 1] * len(names))
    for row, (key, summary) in enumerate(summaries.items()):
        left = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
        top = figure.add_subplot(grid[2 * row, 1])
        bottom = figure.add_subplot(grid[2 * row + 1, 1], sharex=top)
        residual = summary["residual_map"]
        in_noise = "spectrum_noise" in summary
        _draw(left, residual, COLOURS[0], last=True, label="residual / noise" if in_noise else None)
        title = f"{key}, residual" if len(fit.tensors) > 1 else "residual"
        left.set_title(title, loc="left", fontweight="bold")
        if in_noise:
            left.set_title(
                f"$\\chi^2$ per entry {summary.attrs['chi2']:.3g}", loc="right", fontsize="small", color=MUTED
            )
        _draw_spectra(top, bottom, summary)
    return figure


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
    figure = _Figure(figsize=(8.0 if several else 5.0, 3.2), layout="constrained")
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
        _clean(ax)
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


def _is_image(fit: Fit, mode: str) -> bool:
    return sum(size > 1 for size in fit.modes[mode].shape) >= 2


def _draw(ax: Axes, values: xr.DataArray, colour: str, last: bool, label: str | None = None) -> None:
    """Draw one component on one mode: a curve for one dimension, an image for two, a projection for more."""
    values = values.squeeze([dim for dim in values.dims if values.sizes[dim] == 1 and values.ndim > 1])
    label = label or values.attrs.get("units") or "signal"
    if values.ndim == 1:
        _draw_curve(ax, values, colour, last, label)
        return
    while values.ndim > 2:
        dim = values.dims[0]
        values, label = values.sum(dim, min_count=1, keep_attrs=True), f"{label}, sum over {dim}"
    _draw_image(ax, values, label)


def _draw_curve(ax: Axes, values: xr.DataArray, colour: str, last: bool, label: str) -> None:
    dim = values.dims[0]
    marker = "o" if values.size <= FEW else ""
    if dim in values.coords and values[dim].dtype.kind not in "iufM":
        ax.bar(np.arange(values.size), values, color=colour, width=0.6)
        ax.set_xticks(np.arange(values.size), [str(item) for item in values[dim].values])
    else:
        x = values[dim].values if dim in values.coords else np.arange(values.size)
        ax.plot(x, values, color=colour, linewidth=1.2, marker=marker, markersize=3)
        ax.margins(x=0.04 if marker else 0)
    if np.nanmin(values, initial=0) >= 0:
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.set_ylabel(label)
    if last:
        ax.set_xlabel(_axis_label(values, str(dim)))
    else:
        ax.tick_params(labelbottom=False)
    _clean(ax)


def _draw_image(ax: Axes, values: xr.DataArray, label: str) -> None:
    """Draw a map: zero is the bottom of the scale, or its middle where signs differ."""
    array = np.asarray(values.values, dtype=float)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    signed = low < 0
    limit = max(abs(low), abs(high)) or 1.0
    norm = Normalize(-limit if signed else 0.0, limit)
    down, across = (_step(values, str(dim)) for dim in values.dims)
    metric = down is not None and across is not None and down[1] == across[1]
    image = ax.imshow(
        np.ma.masked_invalid(array),
        cmap=DIVERGING if signed else SEQUENTIAL,
        norm=norm,
        interpolation="nearest",
        aspect=down[0] / across[0] if metric and down and across else "equal",
    )
    ax.set_facecolor(MISSING)
    assert ax.figure is not None
    bar = ax.figure.colorbar(image, ax=ax, label=label, shrink=0.9, pad=0.03, aspect=14)
    bar.locator = MaxNLocator(3)
    bar.formatter = _formatter()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if metric and across and across[1]:
        _scale_bar(ax, across[0], across[1], array.shape)
    else:
        ax.set_xlabel(str(values.dims[1]))
        ax.set_ylabel(str(values.dims[0]))


def _draw_spectra(top: Axes, bottom: Axes, summary: xr.Dataset) -> None:
    """Draw the spectra of data and model, and their difference below."""
    measured, model = summary["data_spectrum"], summary["model_spectrum"]
    while measured.ndim > 1:
        measured, model = measured.sum(measured.dims[0], keep_attrs=True), model.sum(model.dims[0], keep_attrs=True)
    dim = str(measured.dims[0])
    numeric = dim in measured.coords and measured[dim].dtype.kind in "iuf"
    x = measured[dim].values if numeric else np.arange(measured.size)
    top.fill_between(x, measured, step="mid", color="0.8", linewidth=0, label="data")
    top.plot(x, model, color=COLOURS[0], linewidth=1.1, label="model")
    top.set_ylabel(f"{measured.attrs.get('units', 'signal')}, summed")
    top.legend(frameon=False, fontsize="small")
    top.tick_params(labelbottom=False)
    difference = np.asarray(measured - model)
    if "spectrum_noise" in summary and summary["spectrum_noise"].ndim == 1:
        noise = np.asarray(summary["spectrum_noise"])
        difference = np.divide(difference, noise, out=np.zeros_like(difference), where=noise > 0)
        bottom.axhspan(-2, 2, color="0.9", linewidth=0)
        bottom.set_ylabel("residual\n/ noise")
    else:
        bottom.set_ylabel("residual")
    bottom.axhline(0, color=MUTED, linewidth=0.6)
    bottom.plot(x, difference, color=COLOURS[1], linewidth=0.8, drawstyle="steps-mid")
    bottom.set_xlabel(_axis_label(measured, dim))
    bottom.margins(x=0)
    for ax in (top, bottom):
        _clean(ax)


def _draw_spread(ax: Axes, final: np.ndarray) -> None:
    """Draw the final objective of each restart above the best, in per cent of it."""
    best = np.nanmin(final)
    above = 100 * (final - best) / abs(best) if best else final - best
    ax.plot(np.arange(1, final.size + 1), above, "o", color=COLOURS[0], markersize=5)
    ax.plot(int(np.nanargmin(final)) + 1, 0, "o", color=COLOURS[1], markersize=7, label="kept")
    ax.set(xlabel="restart", ylabel="above the best (%)" if best else "above the best")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")


def _scale_bar(ax: Axes, step: float, unit: str, shape: tuple[int, ...]) -> None:
    """Draw a bar of a round length, at most a third of the width, in the lower left corner."""
    width = step * shape[1]
    decade = 10.0 ** np.floor(np.log10(width / 3))
    length = max(factor * decade for factor in (1, 2, 5) if factor * decade <= width / 3 * (1 + 1e-9))
    left, bottom, thickness = 0.05, 0.06, 0.025
    fraction = length / width
    outline = [withStroke(linewidth=2.5, foreground="black", alpha=0.6)]
    ax.add_patch(
        Rectangle(
            (left, bottom),
            fraction,
            thickness,
            transform=ax.transAxes,
            color="white",
            path_effects=outline,
            linewidth=0,
        )
    )
    ax.text(
        left + fraction / 2,
        bottom + thickness + 0.02,
        f"{length:g} {unit}",
        transform=ax.transAxes,
        color="white",
        ha="center",
        va="bottom",
        fontsize="small",
        path_effects=outline,
    )


def _step(values: xr.DataArray, dim: str) -> tuple[float, str] | None:
    """Return step and unit of an evenly spaced coordinate; None where there is none."""
    if dim not in values.coords or values[dim].dtype.kind not in "iuf" or values.sizes[dim] < 2:
        return None
    steps = np.abs(np.diff(values[dim].values.astype(float)))
    if steps.min() <= 0 or steps.max() - steps.min() > 1e-2 * steps.mean():
        return None
    return float(steps.mean()), str(values[dim].attrs.get("units", ""))


def _axis_label(values: xr.DataArray, dim: str) -> str:
    attrs = values[dim].attrs if dim in values.coords else {}
    name = str(attrs.get("long_name") or dim).replace("_", " ")
    return f"{name} ({attrs['units']})" if attrs.get("units") else name


def _formatter() -> ScalarFormatter:
    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-3, 4))
    return formatter


def _clean(ax: Axes) -> None:
    """Leave left and lower spine, few ticks, and powers of ten outside the labels."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_formatter(_formatter())
