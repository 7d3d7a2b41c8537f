"""Curves and images with units: the parts of every figure.  Figures are returned, never shown."""

from __future__ import annotations

import io

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import offset_copy

from tensorspec.modes import ModeLabels

__all__ = [
    "COLOURS",
    "FEW",
    "MAP_WIDTH",
    "MUTED",
    "ROUND",
    "axis_label",
    "clean",
    "colour_scale",
    "draw_component",
    "draw_curve",
    "draw_image",
    "is_image",
    "is_narrow",
    "new_figure",
    "projected",
]

# Okabe & Ito, without the yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
MISSING, MUTED = "0.85", "0.45"
MAP_WIDTH = 2.9  # inches
ROUND = [1, 2, 2.5, 5, 10]  # steps of ticks
FEW = 15  # points of a curve that are marked
AXIS_NAMES = {"xray_energy": "X-ray energy"}  # where words are not the name with its underscores taken out


class NotebookFigure(Figure):
    """A figure that notebooks show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size, in inches."""
    return NotebookFigure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))


def projected(values: xr.DataArray, ndim: int) -> xr.DataArray:
    """Return the sum over leading dimensions until so many are left, without dimensions of one point."""
    values = values.squeeze([dim for dim in values.dims if values.sizes[dim] == 1])
    values = values if values.ndim else values.expand_dims("point")
    leading = [str(dim) for dim in values.dims[: max(values.ndim - ndim, 0)]]
    return values.sum(leading, min_count=1, keep_attrs=True) if leading else values


def colour_scale(values: xr.DataArray) -> Normalize:
    """Return a colour scale whose bottom is zero, or whose middle where signs differ."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    limit = float(np.abs(finite).max(initial=0)) or 1.0
    return Normalize(-limit if (finite < 0).any() else 0.0, limit)


def draw_curve(ax: Axes, values: xr.DataArray, colour: str, last: bool, unit: str) -> None:
    """Draw values of one dimension: a curve, or bars where the coordinate holds names; the last names its axis."""
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
        ax.set_xlabel(axis_label(values, str(dim)))
    else:
        ax.tick_params(labelbottom=False)
    clean(ax)


def draw_image(ax: Axes, values: xr.DataArray, norm: Normalize) -> Axes:
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
        ax.set(xlabel=axis_label(values, str(values.dims[1])), ylabel=axis_label(values, str(values.dims[0])))
    bar = ax.inset_axes((1.2, 0.0, 0.3, 1.0) if is_narrow(values) else (1.04, 0.0, 0.05, 1.0))
    assert ax.figure is not None
    ax.figure.colorbar(image, cax=bar)
    bar.spines[:].set_visible(False)
    thin = values.shape[0] * aspect < 0.3 * values.shape[1]
    bar.yaxis.set_major_locator(MaxNLocator(1 if thin else 4, steps=ROUND))
    bar.yaxis.set_major_formatter(FuncFormatter(_short))
    bar.tick_params(labelsize="small")
    return bar


def draw_component(ax: Axes, values: xr.DataArray, colour: str, last: bool, unit: str) -> None:
    """Draw one component on one mode: a curve for one dimension, an image for two, a projection for more."""
    values = projected(values, 2)
    if values.ndim == 1:
        draw_curve(ax, values, colour, last, unit)
        return
    bar = draw_image(ax, values, colour_scale(values))
    if is_narrow(values):  # above the bar it would meet the name of the component
        bar.set_ylabel(unit, fontsize="small")
    else:
        bar.set_title(unit, loc="left", fontsize="small")


def is_image(mode: ModeLabels) -> bool:
    """Whether the components of a mode are drawn as images."""
    return sum(size > 1 for size in mode.shape) >= 2


def is_narrow(image: xr.DataArray) -> bool:
    """Whether an image is so much higher than wide that words over its colour bar would not fit."""
    return image.shape[1] < 0.5 * image.shape[0]


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


def axis_label(values: xr.DataArray, dim: str) -> str:
    """Return the name and unit of a dimension, as an axis says them."""
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


def clean(ax: Axes) -> None:
    """Leave left and lower spine, and few ticks with short labels."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        ax.yaxis.set_major_formatter(FuncFormatter(_short))
