"""The report of occupancies: shares with errors, counts beside the fit, doubts, and everything fitted beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorspec.errors import InvalidArgument
from tensorspec.plot.occupancy import plot_occupancy
from tensorspec.recipe import to_recipe
from tensorspec.report.page import embedded, write_page

if TYPE_CHECKING:
    from tensorspec.channelling.occupancy import Occupancy

__all__ = ["report_occupancy"]

# Correlations that are shown, and from which size on.
MOST_SHOWN, CORRELATED = 6, 0.3


def report_occupancy(
    found: Occupancy, path: str | PathLike[str], *, title: str = "", settings: Mapping[str, Any] | None = None
) -> Path:
    """Write one HTML file that opens offline and holds all of a fit of occupancies.

    Parameters
    ----------
    found : Occupancy
        From `tensorspec.channelling.fit_occupancy`.
    path : path-like
        Where to; an older file is replaced when the new one is complete.
    title : str
        By default the names of the data sets.
    settings : mapping, optional
        What led to it, such as a recipe; shown as JSON.

    Returns
    -------
    path : Path

    Raises
    ------
    InvalidArgument
        If it is no occupancy.
    MissingDependency
        If Jinja2 is not installed.
    MissingFile
        If the folder does not exist.
    """
    if not hasattr(found, "model") or not hasattr(found, "by_line"):
        raise InvalidArgument(f"report_occupancy shows what fit_occupancy gives; got a {type(found).__name__}")
    return write_page(path, "of_occupancy.html", lambda: _contents(found, title, settings))


def _contents(found: Occupancy, title: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    elements = [str(element) for element in found.share["element"].values]
    total = sum(int(own.sum()) for own in found.counts.values())
    return {
        "title": title or "Occupancies from " + ", ".join(found.counts),
        "lead": f"{', '.join(elements)} over {', '.join(str(site) for site in found.share['site'].values)}",
        "facts": [
            (f"{found.chi_squared:.3f}", "chi-squared per degree of freedom"),
            (f"{total:,}".replace(",", " "), "counts"),
            *(
                (f"{depth:.1f} ± {found.thickness_error[name]:.1f} nm", f"thickness, {name}")
                for name, depth in found.thickness.items()
            ),
        ],
        "notes": list(found.doubts),
        "shares": list(_shares(found)),
        "figure": embedded(plot_occupancy(found)),
        "lines": [
            [
                name,
                str(line),
                f"{float(found.counts[name].sel(line=line).sum()):.0f}",
                f"{float(chi_squared):.2f}",
                f"{float(found.strength[name].sel(line=line)):.4g}",
                f"{float(found.background[name].sel(line=line)):.4g}",
            ]
            for name, own in found.by_line.items()
            for line, chi_squared in zip(own["line"].values, own.values, strict=True)
        ],
        "beside": list(_beside(found)),
        "correlations": list(_correlations(found)),
        "provenance": [("tensorspec", version("tensorspec"))],
        "settings": json.dumps(to_recipe(dict(settings), lenient=True), indent=2, ensure_ascii=False)
        if settings
        else "",
    }


def _shares(found: Occupancy) -> Iterator[list[str]]:
    for element in found.share["element"].values:
        own = found.share.sel(element=element)
        for site in own["site"].values:
            value, error = float(own.sel(site=site)), float(found.standard_error.sel(element=element, site=site))
            if not np.isfinite(value):
                continue
            fitted = not np.isnan(error) or bool(found.at_bound.sel(element=element, site=site))
            interval = "{:.4f} to {:.4f}".format(*found.interval(str(element), str(site))) if fitted else "one site"
            yield [
                str(element),
                str(site),
                f"{value:.4f}",
                "–" if np.isnan(error) else f"{error:.4f}".replace("inf", "∞"),
                interval,
            ]


def _beside(found: Occupancy) -> Iterator[tuple[str, str]]:
    for name, depth in found.thickness.items():
        yield f"{name}: thickness", f"{depth:.2f} ± {found.thickness_error[name]:.2f} nm"
        if name in found.convergence:
            yield f"{name}: convergence", f"{found.convergence[name]:.2f} ± {found.convergence_error[name]:.2f} mrad"
        for dim, offset in found.offset[name].items():
            yield f"{name}: offset of {dim.replace('_', ' ')}", f"{offset:.3f} mrad"
        if found.scale[name] != 1:
            yield f"{name}: scale of the tilts", f"{found.scale[name]:.4f}"


def _correlations(found: Occupancy) -> Iterator[tuple[str, str, str]]:
    names, values = found.correlation["parameter"].values, found.correlation.values
    first, second = np.triu_indices(len(names), 1)
    order = np.argsort(-np.abs(values[first, second]))[:MOST_SHOWN]
    for i, j in zip(first[order], second[order], strict=True):
        # Two shares of one element are what the other is not.
        if abs(values[i, j]) >= CORRELATED and abs(values[i, j]) < 1 - 1e-9:
            yield str(names[i]), str(names[j]), f"{values[i, j]:+.2f}"
