"""Rows and channels of labelled data: the matrix in which noise is looked at."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidData
from tensorspec.modes import DEFAULT_GROUPS

__all__ = ["as_numbers", "pick_rows", "row_dims", "unfold"]

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


def unfold(data: xr.DataArray, most: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return samples x channels as float64, at most about ``most`` values of them.

    Parameters
    ----------
    data : DataArray
        Any order, numpy-, dask- or sparse-backed.
    most : int
        Number of values above which rows are subsampled; 1024 rows are kept in any case.

    Returns
    -------
    matrix : (rows, channels) array, data units
        The last dimension of the data runs fastest along the channels; missing values are zero.
    valid : (rows, channels) array of bool
        False where the data are NaN.
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
    picked = pick_rows(count, max(1024, most // max(channels, 1)))
    if len(picked) < count:
        index = {
            dim: xr.DataArray(positions, dims="__row__")
            for dim, positions in zip(rows, np.unravel_index(picked, shape), strict=True)
        }
        ordered = ordered.drop_vars(ordered.coords).isel(index).transpose("__row__", *rest)
    matrix = ordered.as_numpy().values.reshape(len(picked), channels).astype(np.float64)
    valid = ~np.isnan(matrix)
    matrix = np.where(valid, matrix, 0.0)
    if not np.isfinite(matrix).all():
        raise InvalidData("the data hold infinities; replace them by NaN (missing) or correct them.")
    return matrix, valid, (ordered.sizes[rest[-1]] if rest else 1)
