"""Data as a matrix with a row a pixel and a column a channel, read block by block, without empty rows and columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.modes import ModeLabels, broadcast_to_array, find_modes
from tensorspec.prepare.steps import as_spectra

__all__ = ["Matrix", "as_matrix"]

MAP_MODE = "pixel"
BLOCK = 2**22  # values held as float64 at once


@dataclass(frozen=True, eq=False)
class Matrix:
    """A DataArray of two modes as a matrix: what was measured of it, its totals, and its blocks.

    Attributes
    ----------
    data : DataArray
        As given.
    labels : mapping of str to ModeLabels
        The two modes.
    row_mode, column_mode : str
        The mode of the rows (``pixel``, else the first), and the other.
    measured_rows, measured_columns : array of bool
        Where anything was measured.
    row_totals, column_totals : array of float64
        Sums over what was measured; zero for rows and columns never measured.
    squares : float
        Sum of the squares of all that was measured.
    used_rows, used_columns : array of int
        Those that were measured and do not hold zeros only.
    digest : str
        Hash of all that was measured.
    """

    data: xr.DataArray
    labels: Mapping[str, ModeLabels]
    row_mode: str
    column_mode: str
    measured_rows: np.ndarray
    measured_columns: np.ndarray
    row_totals: np.ndarray
    column_totals: np.ndarray
    squares: float
    used_rows: np.ndarray
    used_columns: np.ndarray
    digest: str
    _place: np.ndarray = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of used rows and columns."""
        return len(self.used_rows), len(self.used_columns)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of used rows and columns: their places among the used rows, and their values in float64."""
        for rows, values in _blocks(self.data, self.labels[self.row_mode], self.labels[self.column_mode]):
            place = self._place[rows]
            if (place >= 0).any():
                yield place[place >= 0], values[place >= 0][:, self.used_columns].astype(np.float64)

    def spread(self, values: np.ndarray, rows: bool) -> np.ndarray:
        """Return (used, rank) values for all points of a mode: zero where it is empty, NaN where never measured."""
        measured, used = (self.measured_rows, self.used_rows) if rows else (self.measured_columns, self.used_columns)
        result = np.where(measured[:, np.newaxis], 0.0, np.nan) * np.ones((1, values.shape[1]))
        result[used] = values
        return result

    def mask(self) -> xr.DataArray | None:
        """Return where the data were used, with the dimensions that it needs; None where everything was."""
        result = None
        for mode, measured in ((self.row_mode, self.measured_rows), (self.column_mode, self.measured_columns)):
            if not measured.all():
                labels = self.labels[mode]
                part = xr.DataArray(measured.reshape(labels.shape), dims=labels.dims)
                result = part if result is None else result & part
        return result


def as_matrix(
    function: str,
    data: object,
    mask: xr.DataArray | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    keep_empty: bool = False,
) -> Matrix:
    """Read the totals of some data, and find out what of them was measured.

    Parameters
    ----------
    function : str
        Who asks, for messages.
    data : DataArray
        Of two modes; numpy-, dask- or sparse-backed.  Dask-backed data are read block by block.
    mask : DataArray of bool, optional
        True where an entry is used; whole rows and whole columns can be left out, single entries cannot.
    modes : mapping of str to sequence of str, optional
        Dimensions that make up a mode, by mode name.
    keep_empty : bool
        Whether rows and columns that hold zeros only are used, as they have to be where a mean is subtracted.

    Returns
    -------
    Matrix

    Raises
    ------
    InvalidData
        If the data are not a DataArray of real numbers, hold infinities, are all zero or have no valid entry, or
        single entries of a row are missing.
    InvalidArgument
        If they do not have two modes.

    Examples
    --------
    >>> matrix = as_matrix("pca", xr.DataArray([[[1, 2, 0]], [[3, 1, 0]]], dims=("y", "x", "energy_loss")))
    >>> matrix.row_mode, matrix.shape, matrix.row_totals
    ('pixel', (2, 2), array([3., 4.]))
    """
    tensor = as_spectra(function, data)
    labels, names = find_modes({"data": tensor}, modes)
    own = names["data"]
    if len(own) != 2:
        raise InvalidArgument(
            f"{function} takes data of two modes; these have {list(own)}: put dimensions together, "
            f"modes={{'sample': {tuple(labels[own[0]].dims + labels[own[1]].dims)!r}}}, or fit them with ts.CP"
        )
    row_mode = MAP_MODE if MAP_MODE in own else own[0]
    column_mode = next(mode for mode in own if mode != row_mode)
    used = None
    if mask is not None:
        if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
            raise InvalidData(f"{function}: mask is not a DataArray of bool (True = use)")
        used = broadcast_to_array(mask, (row_mode, column_mode), labels)
    rows, columns = labels[row_mode].size, labels[column_mode].size
    row_counts, row_totals, row_any = np.zeros(rows, int), np.zeros(rows), np.zeros(rows, bool)
    column_counts, column_totals, column_any = np.zeros(columns, int), np.zeros(columns), np.zeros(columns, bool)
    squares, digest = 0.0, hashlib.sha256()
    for place, values in _blocks(tensor, labels[row_mode], labels[column_mode]):
        valid = np.ones(values.shape, bool) if used is None else used[place]
        if values.dtype.kind == "f":
            if (infinite := np.isinf(values) & valid).any():
                raise InvalidData(
                    f"{function}: {int(infinite.sum())} values are infinite; correct them, or leave their channels "
                    "or pixels out with mask="
                )
            valid = valid & ~np.isnan(values)
        values = np.where(valid, values, 0).astype(np.float64)
        row_counts[place], row_totals[place], row_any[place] = valid.sum(1), values.sum(1), values.any(1)
        column_counts += valid.sum(0)
        column_totals += values.sum(0)
        column_any |= values.any(0)
        squares += float((values**2).sum())
        digest.update(values.data.cast("B") if values.flags.c_contiguous else values.tobytes())
    measured_rows, measured_columns = row_counts > 0, column_counts > 0
    if not measured_rows.any():
        raise InvalidData(f"{function}: no valid entry is left in the data; see the mask, and NaN in the data")
    whole = int(measured_rows.sum()) * int(measured_columns.sum())
    if int(row_counts.sum()) != whole:
        raise InvalidData(
            f"{function}: {whole - int(row_counts.sum())} single entries are missing (NaN or mask) in pixels and "
            f"channels that have others; {function} needs whole ones. Leave out the whole pixels or channels with "
            "mask=, or fit with missing entries: ts.fit(data, ts.CP(rank), mask=mask)"
        )
    if not row_any.any():
        raise InvalidData(f"{function}: the data are all zero")
    if keep_empty:
        row_any, column_any = measured_rows, measured_columns
    place = np.full(rows, -1)
    place[row_any] = np.arange(int(row_any.sum()))
    return Matrix(
        tensor,
        labels,
        row_mode,
        column_mode,
        measured_rows,
        measured_columns,
        row_totals,
        column_totals,
        squares,
        np.flatnonzero(row_any),
        np.flatnonzero(column_any),
        digest.hexdigest(),
        place,
    )


def _blocks(data: xr.DataArray, rows: ModeLabels, columns: ModeLabels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of some rows in their mode, and their values, one axis a mode, in the dtype of the data."""
    places = np.arange(rows.size).reshape(rows.shape)
    data = data.transpose(*rows.dims, *columns.dims)
    limit = max(BLOCK // max(columns.size, 1), 1)
    for region in _regions(data, rows, limit):
        block = data.isel(dict(zip(rows.dims, region, strict=True)))
        values = block.compute().data if block.chunks is not None else block.data
        values = values.todense() if hasattr(values, "todense") else np.asarray(values)
        at = places[region].ravel()
        yield at, values.reshape(len(at), columns.size)


def _regions(data: xr.DataArray, rows: ModeLabels, limit: int) -> Iterator[tuple[slice, ...]]:
    """Yield regions of the rows: the chunks of lazy data, cut along the first dimension where they are too large."""
    chunks = dict(zip(data.dims, data.chunks, strict=True)) if data.chunks is not None else {}
    edges = []
    for dim, size in zip(rows.dims, rows.shape, strict=True):
        ends = np.cumsum((0, *chunks.get(dim, (size,))))
        edges.append([slice(int(start), int(stop)) for start, stop in zip(ends[:-1], ends[1:], strict=True)])
    for first, *rest in product(*edges):
        across = int(np.prod([each.stop - each.start for each in rest]))
        step = max(limit // max(across, 1), 1)
        for start in range(first.start, first.stop, step):
            yield (slice(start, min(start + step, first.stop)), *rest)
