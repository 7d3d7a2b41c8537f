"""Counts of lines over orientation, from a table of comma-separated values."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import MissingFile, UnreadableFile

__all__ = ["read_line_counts"]

TILT, ACROSS, EXPOSURE, BACKGROUND = "tilt_x", "tilt_y", "exposure", " background"


def read_line_counts(path: Path) -> xr.Dataset:
    """Read a table of line counts: a column ``tilt_x`` in mrad, for a pattern ``tilt_y`` too, and one for every line.

    Parameters
    ----------
    path : Path
        A CSV file with a header: ``tilt_x, Mn K, Ni K, ...``; further ``exposure``, and ``Mn K background``.

    Returns
    -------
    Dataset
        ``counts`` and ``background``, dimensions (line, tilt_x) or (line, tilt_y, tilt_x), and ``exposure``.

    Raises
    ------
    MissingFile
        If there is no such file.
    UnreadableFile
        If it has no column of tilts, no lines, or something that is no number; or if two tilts do not make a grid.
    """
    if not path.is_file():
        raise MissingFile(f"no file {str(path)!r}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    if len(rows) < 4:
        raise UnreadableFile(f"{path.name} has {len(rows)} lines; expected a header, and one for every orientation")
    head, body = rows[0], rows[1:]
    if TILT not in head:
        raise UnreadableFile(f"{path.name} has the columns {head}; one has to be {TILT!r}, in mrad")
    for number, row in enumerate(body, start=2):
        if len(row) != len(head):
            raise UnreadableFile(f"{path.name}, line {number}: {len(row)} cells, and {len(head)} columns")
    try:
        values = np.array(body, dtype=float).T
    except ValueError as error:
        raise UnreadableFile(f"{path.name}: {error}") from None
    columns = dict(zip(head, values, strict=True))
    grid = _grid(path, columns)
    shape = tuple(len(values) for values in grid.values())
    order = np.lexsort([columns[dim] for dim in reversed(grid)])
    lines = [name for name in head if name not in (TILT, ACROSS, EXPOSURE) and not name.endswith(BACKGROUND)]
    if not lines:
        raise UnreadableFile(f"{path.name} has the columns {head}; expected lines such as 'Mn K' beside {TILT!r}")
    for name in head:
        if name.endswith(BACKGROUND) and name.removesuffix(BACKGROUND) not in lines:
            raise UnreadableFile(f"{path.name}: {name!r} is a background without its line; there are {lines}")
    coords: dict[str, Any] = {"line": lines} | {dim: (dim, own, {"units": "mrad"}) for dim, own in grid.items()}
    zeros = np.zeros(len(order))
    stacked = {
        "counts": [columns[line][order].reshape(shape) for line in lines],
        "background": [columns.get(line + BACKGROUND, zeros)[order].reshape(shape) for line in lines],
    }
    table = {key: (("line", *grid), np.array(value)) for key, value in stacked.items()}
    exposure = columns.get(EXPOSURE, np.ones(len(order)))[order].reshape(shape)
    return xr.Dataset({**table, "exposure": (tuple(grid), exposure)}, coords=coords)


def _grid(path: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tilts along each dimension, rising."""
    if ACROSS not in columns:
        return {TILT: np.sort(columns[TILT])}
    # What differs by rounding is one tilt.
    grid = {dim: np.unique(columns[dim].round(6)) for dim in (ACROSS, TILT)}
    places = np.stack([columns[dim].round(6) for dim in grid], axis=1)
    if len(places) != np.prod([len(own) for own in grid.values()]) or len(np.unique(places, axis=0)) != len(places):
        raise UnreadableFile(
            f"{path.name}: {len(places)} orientations with {len(grid[ACROSS])} values of {ACROSS} and "
            f"{len(grid[TILT])} of {TILT}; expected each pair of them once"
        )
    return grid
