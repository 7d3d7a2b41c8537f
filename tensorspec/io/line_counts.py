"""Counts of lines over orientation, from a table of comma-separated values."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import MissingFile, UnreadableFile

__all__ = ["read_line_counts"]

TILT, EXPOSURE, BACKGROUND = "tilt_x", "exposure", " background"


def read_line_counts(path: Path) -> xr.Dataset:
    """Read a table of line counts: a column ``tilt_x`` in mrad, and one for every line.

    Parameters
    ----------
    path : Path
        A CSV file with a header: ``tilt_x, Mn K, Ni K, ...``; further ``exposure``, and ``Mn K background``.

    Returns
    -------
    Dataset
        ``counts`` and ``background``, dimensions (line, tilt_x), and ``exposure``.

    Raises
    ------
    MissingFile
        If there is no such file.
    UnreadableFile
        If it has no column of tilts, no lines, or something that is no number.
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
    order = np.argsort(columns[TILT])
    lines = [name for name in head if name not in (TILT, EXPOSURE) and not name.endswith(BACKGROUND)]
    if not lines:
        raise UnreadableFile(f"{path.name} has the columns {head}; expected lines such as 'Mn K' beside {TILT!r}")
    for name in head:
        if name.endswith(BACKGROUND) and name.removesuffix(BACKGROUND) not in lines:
            raise UnreadableFile(f"{path.name}: {name!r} is a background without its line; there are {lines}")
    coords: dict[str, Any] = {"line": lines, TILT: (TILT, columns[TILT][order], {"units": "mrad"})}
    zeros = np.zeros(len(order))
    stacked = {
        "counts": [columns[line][order] for line in lines],
        "background": [columns.get(line + BACKGROUND, zeros)[order] for line in lines],
    }
    table = {key: (("line", TILT), np.array(value)) for key, value in stacked.items()}
    exposure = columns.get(EXPOSURE, np.ones(len(order)))[order]
    return xr.Dataset({**table, "exposure": (TILT, exposure)}, coords=coords)
