"""Figures of a fit: components, residual, history.  They are returned, never shown; colours are colour-blind safe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from matplotlib.transforms import offset_copy

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
ROUND = [1, 2, 2.5, 5, 10]  # steps of ticks
ALIKE = 0.01  # per cent: restarts that differ by less ended at the same place
FEW = 15  # points of a curve that are marked
AXIS_NAMES = {"xray_energy": "X-ray energy"}  # where words are not the name with its underscores taken out


class _Figure(Figure):
    """A figure that notebooks show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def _new_figure(width: float, height: float) -> Figure:
    return _Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))


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
    figure = _new_figure(sum(widths), ROW_HEIGHT * len(chosen) + 0.4)
    axes = figure.subplots(len(chosen), len(panels), squeeze=False, width_ratios=widths)
    shares = {name: fit.shares(name) for name in fit.tensors}
    for column, (name, mode) in enumerate(panels):
        values = fit.spectra(name, mode=mode)
        for row, index in enumerate(chosen):
            ax, colour = axes[row, column], COLOURS[index % len(COLOURS)]
            _draw(ax, values[index], colour, last=row == len(chosen) - 1, unit=_unit(values, name, fit))
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
    figure = _new_figure(MAP_WIDTH + 5.2, 3.2 * len(names) + 0.2)
    grid = figure.add_gridspec(2 * len(names), 2, width_ratios=[MAP_WIDTH, 5.2], height_ratios=[2.2, 1] * len(names))
    for row, (key, summary) in enumerate(summaries.items()):
        left = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
        top = figure.add_subplot(grid[2 * row, 1])
        bottom = figure.add_subplot(grid[2 * row + 1, 1], sharex=top)
        _draw_residual(left, summary)
        left.set_title(f"{key}, residual" if len(fit.tensors) > 1 else "residual", loc="left", fontweight="bold")
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
    figure = _new_figure(8.0 if several else 5.0, 3.2)
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


def _unit(values: xr.DataArray, name: str, fit: Fit) -> str:
    """Return the unit of a map or spectrum; of a map that tensors share, with the tensor in which it is counted."""
    unit = str(values.attrs.get("units") or "signal")
    dims = set(values.dims[1:])
    shared = sum(dims <= set(record.dims) for record in fit.tensors.values()) > 1
    return f"{unit}, {name}" if shared else unit


def _draw(ax: Axes, values: xr.DataArray, colour: str, last: bool, unit: str) -> None:
    """Draw one component on one mode: a curve for one dimension, an image for two, a projection for more."""
    values = _projected(values, 2)
    if values.ndim == 1:
        _draw_curve(ax, values, colour, last, unit)
    else:
        bar = _draw_image(ax, values, _norm(values))
        if _is_narrow(values):  # above the bar it would meet the name of the component
            bar.set_ylabel(unit, fontsize="small")
        else:
            bar.set_title(unit, loc="left", fontsize="small")


def _is_narrow(image: xr.DataArray) -> bool:
    return image.shape[1] < 0.5 * image.shape[0]


def _projected(values: xr.DataArray, ndim: int) -> xr.DataArray:
    """Return the sum over leading dimensions until so many are left, without dimensions of one point."""
    values = values.squeeze([dim for dim in values.dims if values.sizes[dim] == 1])
    values = values if values.ndim else values.expand_dims("point")
    leading = [str(dim) for dim in values.dims[: max(values.ndim - ndim, 0)]]
    return values.sum(leading, min_count=1, keep_attrs=True) if leading else values


def _norm(values: xr.DataArray) -> Normalize:
    """Return a colour scale whose bottom is zero, or whose middle where signs differ."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    limit = float(np.abs(finite).max(initial=0)) or 1.0
    return Normalize(-limit if (finite < 0).any() else 0.0, limit)


def _draw_curve(ax: Axes, values: xr.DataArray, colour: str, last: bool, unit: str) -> None:
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
    ax.set_ylabel(unit)
    if last:
        ax.set_xlabel(_axis_label(values, str(dim)))
    else:
        ax.tick_params(labelbottom=False)
    _clean(ax)


def _draw_image(ax: Axes, values: xr.DataArray, norm: Normalize) -> Axes:
    """Draw a map with a scale bar, or named axes where there is no common unit; return the axes of its colour bar."""
    down, across = (_step(values, str(dim)) for dim in values.dims)
    unit = across[1] if down and across and down[1] == across[1] else None
    aspect = down[0] / across[0] if down and across and unit is not None else 1.0
    diverging = isinstance(norm, TwoSlopeNorm) or norm(0.0) > 0
    image = ax.imshow(
        np.ma.masked_invalid(np.asarray(values.values, dtype=float)),
        cmap=DIVERGING if diverging else SEQUENTIAL,
        norm=norm,
        interpolation="nearest",
        aspect=aspect,
    )
    ax.set_facecolor(MISSING)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if across and unit:
        _scale_bar(ax, across[0] * values.shape[1], unit, dark=_is_bright(image))
    else:
        ax.set(xlabel=_axis_label(values, str(values.dims[1])), ylabel=_axis_label(values, str(values.dims[0])))
    bar = ax.inset_axes((1.2, 0.0, 0.3, 1.0) if _is_narrow(values) else (1.04, 0.0, 0.05, 1.0))
    assert ax.figure is not None
    ax.figure.colorbar(image, cax=bar)
    bar.spines[:].set_visible(False)
    thin = values.shape[0] * aspect < 0.3 * values.shape[1]
    bar.yaxis.set_major_locator(MaxNLocator(1 if thin else 4, steps=ROUND))
    bar.yaxis.set_major_formatter(FuncFormatter(_short))
    bar.tick_params(labelsize="small")
    return bar


def _draw_residual(ax: Axes, summary: xr.Dataset) -> None:
    """Draw the residual on the map mode; in units of the noise, white is what noise alone leaves."""
    residual, in_noise = summary["residual_map"], "chi2" in summary.attrs
    residual = residual.mean([str(dim) for dim in residual.dims[:-2]], keep_attrs=True).squeeze()
    unit = "residual / noise" if in_noise else str(residual.attrs.get("units") or "signal")
    note = f"$\\chi^2$ per degree of freedom {summary.attrs['chi2']:.3f}" if in_noise else ""
    if residual.ndim < 2:
        _draw_curve(ax, residual, COLOURS[0], last=True, unit=unit)
        ax.text(0.03, 0.04, note, transform=ax.transAxes, fontsize="small", color=MUTED)
        return
    high = max(2.0, float(residual.max()))
    bar = _draw_image(ax, residual, TwoSlopeNorm(1.0, 0.0, high) if in_noise else _norm(residual))
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
    measured, model = _projected(measured, 1), _projected(model, 1)
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
    bottom.set_xlabel(_axis_label(measured, dim))
    top.margins(x=0)
    if np.nanmin(measured) >= 0:
        top.set_ylim(bottom=0)
    for ax in (top, bottom):
        _clean(ax)


def _draw_spread(ax: Axes, final: np.ndarray) -> None:
    """Draw the final objective of each restart above the best, in per cent of it."""
    best = np.nanmin(final)
    above = 100 * (final - best) / abs(best) if best else final - best
    ax.plot(np.arange(1, final.size + 1), above, "o", color=COLOURS[0], markersize=5)
    ax.plot(int(np.nanargmin(final)) + 1, 0, "o", color=COLOURS[1], markersize=7, label="kept")
    ax.set(xlabel="restart", ylabel="above the best (%)" if best else "above the best")
    if best and np.nanmax(above) < ALIKE:
        ax.set_ylim(-0.05 * ALIKE, ALIKE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small")


def _is_bright(image: AxesImage) -> bool:
    """Whether the lower left corner of an image is so bright that dark letters stand out better."""
    array = np.ma.asarray(image.get_array())
    corner = array[-max(array.shape[0] // 4, 1) :, : max(array.shape[1] // 3, 1)]
    colours = np.asarray(image.cmap(image.norm(corner)))[..., :3]
    return bool((colours @ np.array([0.299, 0.587, 0.114])).mean() > 0.55)


def _scale_bar(ax: Axes, width: float, unit: str, dark: bool) -> None:
    """Draw a bar of a round length, at most a third of the width, in the lower left corner."""
    decade = 10.0 ** np.floor(np.log10(width / 3))
    length = max(factor * decade for factor in (1, 2, 5) if factor * decade <= width / 3 * (1 + 1e-9))
    ends, (colour, around) = (0.05, 0.05 + length / width), ("black", "white") if dark else ("white", "black")
    outline = [withStroke(linewidth=4, foreground=around)]
    figure = ax.get_figure(root=True)
    place = offset_copy(ax.transAxes, figure, y=5, units="points")
    ax.add_line(
        Line2D(ends, (0, 0), transform=place, color=colour, linewidth=2.5, solid_capstyle="butt", path_effects=outline)
    )
    text = ax.text(sum(ends) / 2, 0, f"{length:g} {unit}", transform=offset_copy(place, figure, y=3, units="points"))
    text.set(
        color=colour,
        ha="center",
        va="bottom",
        fontsize="small",
        path_effects=[withStroke(linewidth=1.5, foreground=around)],
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
    name = str(attrs.get("long_name") or AXIS_NAMES.get(dim) or dim.replace("_", " "))
    return f"{name} ({attrs['units']})" if attrs.get("units") else name


def _short(value: float, position: int | None = None) -> str:
    """Return a tick label of few letters: 2500 as 2.5k, so that no power of ten stands apart from its axis.

    Examples
    --------
    >>> [_short(value) for value in (0.0, 0.25, 2500.0, 4e6, 3e-5)]
    ['0', '0.25', '2.5k', '4M', '3e-5']
    """
    text = f"{value:.6g}".replace("e-0", "e-")
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size * (1 - 1e-9) <= abs(value) < 1e12:
            text = f"{value / size:.6g}{suffix}"
            break
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text


def _clean(ax: Axes) -> None:
    """Leave left and lower spine, and few ticks with short labels."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        ax.yaxis.set_major_formatter(FuncFormatter(_short))
