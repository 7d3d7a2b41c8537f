"""Rows and channels of labelled data: the matrix in which noise is looked at."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidData, UnknownMode, suggest
from tensorspec.modes import DEFAULT_GROUPS

__all__ = ["as_numbers", "check_mask", "pick_rows", "row_dims", "unfold"]

# Share of the rows that must hold something, or they are picked anew.
FEW = 0.25
SAMPLE_DIMS = tuple(dim for group in DEFAULT_GROUPS.values() for dim in group)


def row_dims(data: xr.DataArray) -> tuple[str, ...]:
    """Return the dimensions that count samples: pixels and orientations; else the first one.

    Examples
    --------
    >>> row_dims(xr.DataArray(np.zeros((2, 3, 4)), dims=("y", "x", "energy_loss")))
    ('y', 'x')
    """
    dims = tuple(str(dim) for dim in data.dims)
    rows = tuple(dim for dim in dims if dim in SAMPLE_DIMS)
    return rows if 0 < len(rows) < len(dims) else dims[:1]


def pick_rows(count: int, most: int) -> np.ndarray:
    """Choose at most ``most`` of ``count`` rows, the same ones every time.

    Drawn at random with a fixed seed: a regular stride would see the same columns of the image in every line.
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, size=most, replace=False))


def as_numbers(data: xr.DataArray) -> xr.DataArray:
    """Check that the data are a DataArray of real numbers, finite or NaN."""
    if not isinstance(data, xr.DataArray):
        raise InvalidData(
            f"expected an xarray.DataArray, got {type(data).__name__}; "
            'wrap the array: xr.DataArray(values, dims=("y", "x", "energy_loss")).'
        )
    if data.dtype.kind not in "biuf":
        raise InvalidData(f"the data are of dtype {data.dtype}; expected real numbers (integers or floats).")
    if data.size == 0:
        raise InvalidData(f"the data are empty: shape {data.shape}.")
    return data


def check_mask(data: xr.DataArray, mask: object) -> xr.DataArray | None:
    """Check that a mask is boolean (True = use) and has dimensions of the data, of their sizes.

    Examples
    --------
    >>> data = xr.DataArray(np.zeros((2, 3)), dims=("x", "energy_loss"))
    >>> check_mask(data, xr.DataArray([True, False, True], dims="energy_loss")).dims
    ('energy_loss',)
    """
    if mask is None:
        return None
    if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
        raise InvalidData("mask is not a DataArray of bool (True = use).")
    for dim, size in mask.sizes.items():
        if dim not in data.dims:
            raise UnknownMode(
                f"the mask has a dimension {dim!r}; the data have {list(data.dims)}.{suggest(dim, data.dims)}"
            )
        if size != data.sizes[dim]:
            raise InvalidData(f"the mask has {size} points along {dim!r}, the data {data.sizes[dim]}.")
    return mask


def unfold(
    data: xr.DataArray, most: int, mask: xr.DataArray | None = None, fewest: int = 1024
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return samples x channels as float64, at most about ``most`` values of them.

    Parameters
    ----------
    data : DataArray
        Any order, numpy-, dask- or sparse-backed.
    most : int
        Number of values above which rows are subsampled. Where less than a quarter of these hold anything, they are
        taken from those that do.
    mask : DataArray of bool, optional
        True = use; may lack dimensions of the data.
    fewest : int
        Number of rows that are kept in any case.

    Returns
    -------
    matrix : (rows, channels) array, data units
        The last dimension of the data runs fastest along the channels; missing values are zero.
    valid : (rows, channels) array of bool
        False where the data are NaN or masked.
    length : int
        Size of the last dimension: channels ``length * k - 1`` and ``length * k`` are no neighbours.

    Raises
    ------
    InvalidData
        If the data hold infinities.
    """
    rows = row_dims(data)
    rest = tuple(str(dim) for dim in data.dims if dim not in rows)
    ordered = data.transpose(*rows, *rest)
    shape = tuple(ordered.sizes[dim] for dim in rows)
    count, channels = math.prod(shape), math.prod(ordered.sizes[dim] for dim in rest)
    most_rows = max(fewest, most // max(channels, 1))
    plain = None if mask is None else mask.drop_vars(mask.coords)
    picked = pick_rows(count, most_rows)
    matrix, valid = _rows(ordered, plain, rows, shape, picked if len(picked) < count else None)
    if len(picked) < count and np.count_nonzero(matrix.any(axis=1)) < FEW * len(picked):
        filled = np.flatnonzero((ordered != 0).any(rest).as_numpy().values)
        picked = filled[pick_rows(len(filled), most_rows)]
        if len(picked):
            matrix, valid = _rows(ordered, plain, rows, shape, picked)
    return matrix, valid, (ordered.sizes[rest[-1]] if rest else 1)


def _rows(
    ordered: xr.DataArray,
    mask: xr.DataArray | None,
    rows: tuple[str, ...],
    shape: tuple[int, ...],
    picked: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Values and validity of these rows, all if None."""
    if picked is not None:
        index = {
            dim: xr.DataArray(positions, dims="__row__")
            for dim, positions in zip(rows, np.unravel_index(picked, shape), strict=True)
        }
        rest = [dim for dim in ordered.dims if dim not in rows]
        ordered = ordered.drop_vars(ordered.coords).isel(index).transpose("__row__", *rest)
        if mask is not None:
            mask = mask.isel({dim: at for dim, at in index.items() if dim in mask.dims})
    count = math.prod(shape) if picked is None else len(picked)
    matrix = ordered.as_numpy().values.reshape(count, -1).astype(np.float64)
    valid = ~np.isnan(matrix)
    if mask is not None:
        use = xr.Variable(mask.dims, mask.as_numpy().values).set_dims(dict(ordered.sizes))
        valid &= use.transpose(*ordered.dims).values.reshape(matrix.shape)
    matrix = np.where(valid, matrix, 0.0)
    if not np.isfinite(matrix).all():
        raise InvalidData("the data hold infinities; replace them by NaN (missing) or correct them.")
    return matrix, valid
