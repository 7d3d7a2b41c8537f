"""Figure of where the pixels lie among endmembers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from tensorspec.errors import InvalidArgument
from tensorspec.plot.canvas import COLOURS, MUTED, new_figure
from tensorspec.twoway.endmembers import shares_among

__all__ = ["plot_simplex"]

MOST_POINTS = 20_000


def plot_simplex(data: xr.DataArray, spectra: xr.DataArray, *, mask: xr.DataArray | None = None) -> Figure:
    """Draw the cloud of pixels among two or three endmembers: a line, or a triangle with a corner for each.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes.
    spectra : DataArray
        Endmembers, from `tensorspec.vca`, `tensorspec.spa` or `tensorspec.sss`, or spectra of your own, with the
        dimension ``component``.
    mask : DataArray of bool, optional
        True where data are used.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Pixels outside of the triangle are noise, or spectra that the endmembers do not hold; a corner without pixels is
        a component that is pure nowhere.

    Raises
    ------
    InvalidArgument
        If there are not two or three endmembers.
    """
    rank = spectra.sizes.get("component", 0)
    if rank not in (2, 3):
        raise InvalidArgument(f"plot_simplex draws two or three endmembers; these are {rank}: choose some, spectra[:3]")
    shares = shares_among(data, spectra, mask=mask)
    shares = shares[:: max(1, len(shares) // MOST_POINTS)]
    figure = new_figure(4.4, 4.0 if rank == 3 else 2.6)
    ax = figure.subplots()
    names = [str(value) for value in spectra["component"].values] if "component" in spectra.coords else ["1", "2", "3"]
    if rank == 2:
        ax.hist(shares[:, 1], bins=80, color=COLOURS[0])
        for place in (0, 1):
            ax.axvline(place, color=COLOURS[1], linewidth=1)
        ax.set(xlabel=f"share of component {names[1]}", ylabel="pixels")
        ax.spines[["top", "right"]].set_visible(False)
        return figure
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    points = shares @ corners
    ax.plot(*points.T, ".", color=MUTED, markersize=2, alpha=0.5)
    ax.plot(*np.append(corners, corners[:1], axis=0).T, color=COLOURS[1], linewidth=1)
    for corner, name in zip(corners, names, strict=False):
        away = corner - corners.mean(axis=0)
        ax.annotate(
            f"component {name}",
            corner,
            xytext=14 * away / np.linalg.norm(away),
            textcoords="offset points",
            ha="center",
            va="center",
        )
    ax.set_aspect("equal")
    ax.margins(0.14)
    ax.set_axis_off()
    return figure
