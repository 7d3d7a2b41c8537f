"""Poisson scaling: divide by the square root of the rank-one expectation, so that the noise is even.

M. R. Keenan and P. G. Kotula, Surface and Interface Analysis 36 (2004) 203, doi:10.1002/sia.1657.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.modes import find_modes, to_array
from tensorspec.noise.unfold import as_numbers

__all__ = ["outer_product", "poisson_marginals", "poisson_scale", "undo_poisson_scale"]

PREFIX = "poisson_scale_"
SWEEPS = 50
TOLERANCE = 1e-10


def poisson_marginals(values: np.ndarray, valid: np.ndarray | None = None) -> list[np.ndarray]:
    """One vector a mode whose product is the expected value of every entry under independence.

    Parameters
    ----------
    values : array, one axis a mode
        Counts, or anything whose noise variance grows with the mean; single entries may be negative.
    valid : array of bool, same shape, optional
        True where an entry counts. By default everything but NaN.

    Returns
    -------
    list of (size of the mode,) arrays of float64
        ``u_m`` with ``prod_m u_m[i_m]`` the expected value: for a matrix ``row sum * column sum / total``. All have
        the same sum. Zero for a row that is empty.

    Raises
    ------
    InvalidData
        If a row or channel has a negative total: then it cannot be the variance of counts.

    Notes
    -----
    With missing entries the sums say less where more is missing; the vectors then solve the likelihood equations of
    the rank-one Poisson model over the valid entries, by iterative proportional fitting.

    Examples
    --------
    >>> rows, columns = poisson_marginals(np.array([[1, 3], [2, 6], [0, 0]]))
    >>> np.round(np.outer(rows, columns), 12)
    array([[1., 3.],
           [2., 6.],
           [0., 0.]])
    """
    values = np.asarray(values)
    if valid is None and values.dtype.kind == "f" and np.isnan(values).any():
        valid = ~np.isnan(values)
    if valid is not None and not valid.all():
        values = np.where(valid, values, 0)
    else:
        valid = None
    sums = [_sum_over_others(values, axis) for axis in range(values.ndim)]
    for axis, total in enumerate(sums):
        # A total of floats that should be zero is rounding, not a negative signal.
        rounding = 1e-9 * max(float(np.abs(total).max(initial=0.0)), np.finfo(float).tiny)
        if (total < -rounding).any():
            raise InvalidData(
                f"Poisson scaling needs counts, but {int((total < -rounding).sum())} of the {len(total)} rows along "
                f"axis {axis} have a negative total; mask them, or leave the scaling out."
            )
        np.maximum(total, 0.0, out=total)
    grand = float(sums[0].sum())
    if grand <= 0:
        return [np.zeros_like(total) for total in sums]
    vectors = [total / grand ** (1 - 1 / values.ndim) for total in sums]
    return vectors if valid is None else _proportional_fit(sums, vectors, valid)


def poisson_scale(data: xr.DataArray) -> xr.DataArray:
    """Divide counts by the square root of their rank-one expectation: the noise gets variance one everywhere.

    Parameters
    ----------
    data : DataArray
        Counts. ``z, y, x`` are merged as one mode, every other dimension is a mode of its own.

    Returns
    -------
    DataArray
        Scaled data, without units: same dimensions, floats. The scale of each mode is kept as the coordinate
        ``poisson_scale_<mode>``, by which `undo_poisson_scale` multiplies back. Empty rows and channels stay zero,
        NaN stay NaN.

    Raises
    ------
    InvalidData
        If the data are no numbers, hold infinities, are all zero, or a row or channel has a negative total.
    InvalidArgument
        If the data are already scaled.

    Notes
    -----
    With ``a`` the pixel totals, ``b`` the channel totals and ``s`` the grand total, entry (i, j) is divided by
    ``sqrt(a_i b_j / s)``. The largest singular value of the scaled matrix is then ``sqrt(s)``, and pure noise stays
    below ``sqrt(rows) + sqrt(channels)``. Keenan & Kotula (2004), doi:10.1002/sia.1657.

    Examples
    --------
    >>> counts = xr.DataArray(np.array([[4, 12], [4, 12]]), dims=("x", "energy_loss"))
    >>> scaled = poisson_scale(counts)
    >>> scaled.values.round(3)
    array([[2.   , 3.464],
           [2.   , 3.464]])
    >>> bool(np.allclose(undo_poisson_scale(scaled), counts))
    True
    """
    as_numbers(data)
    already = _scales(data)
    if already:
        raise InvalidArgument(f"the data are scaled already (coordinate {already[0]!r}); undo_poisson_scale first.")
    labels, names = find_modes({"data": data})
    modes = names["data"]
    array = to_array(data, modes, labels)
    array = array if isinstance(array, np.ndarray) else array.todense()
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise InvalidData("the data hold infinities; replace them by NaN (missing) or correct them.")
    scaled = data.as_numpy().astype(data.dtype if data.dtype.kind == "f" else np.float64)
    coords: dict[str, xr.DataArray] = {}
    for name, vector in zip(modes, poisson_marginals(array), strict=True):
        mode = labels[name]
        if not vector.any():
            raise InvalidData("the data are all zero: there is nothing to scale.")
        scale = xr.DataArray(np.sqrt(vector).reshape(mode.shape), dims=mode.dims)
        inverse = xr.where(scale > 0, 1 / scale.where(scale > 0, 1), 0.0)
        scaled = scaled * inverse.astype(scaled.dtype)
        coords[PREFIX + name] = scale
    scaled = scaled.transpose(*data.dims).assign_coords(coords)
    scaled.name = data.name
    scaled.attrs = {key: value for key, value in data.attrs.items() if key not in ("units", "noise")}
    if "units" in data.attrs:
        scaled.attrs["unscaled_units"] = data.attrs["units"]
    return scaled


def undo_poisson_scale(data: xr.DataArray) -> xr.DataArray:
    """Multiply scaled data, or a model of them, back to counts.

    Parameters
    ----------
    data : DataArray
        With the coordinates ``poisson_scale_<mode>`` that `poisson_scale` adds.

    Returns
    -------
    DataArray
        In the units before scaling.

    Raises
    ------
    InvalidArgument
        If there are no such coordinates.
    """
    names = _scales(data)
    if not names:
        raise InvalidArgument(
            f"the data carry no Poisson scale: no coordinate named {PREFIX}<mode>; they have {list(data.coords)}."
        )
    result = data.drop_vars(names)
    for name in names:
        result = result * data[name].drop_vars(data[name].coords).astype(data.dtype)
    result = result.transpose(*data.dims)
    result.name = data.name
    result.attrs = {key: value for key, value in data.attrs.items() if key != "unscaled_units"}
    if "unscaled_units" in data.attrs:
        result.attrs["units"] = data.attrs["unscaled_units"]
    return result


def outer_product(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the product of one vector a mode, as an array with one axis a mode."""
    result = np.asarray(vectors[0])
    for vector in vectors[1:]:
        result = np.multiply.outer(result, vector)
    return result


def _sum_over_others(values: np.ndarray, axis: int) -> np.ndarray:
    """Total of each row along one axis, in float64."""
    return values.sum(axis=tuple(other for other in range(values.ndim) if other != axis), dtype=np.float64)


def _proportional_fit(sums: list[np.ndarray], vectors: list[np.ndarray], valid: np.ndarray) -> list[np.ndarray]:
    """Scale each vector in turn until the model has the totals of the data over the valid entries."""
    weight = valid.astype(np.float64)
    vectors = [vector.copy() for vector in vectors]
    for _ in range(SWEEPS):
        change = 0.0
        for axis, total in enumerate(sums):
            seen = weight
            for other in reversed(range(weight.ndim)):
                if other != axis:
                    seen = np.tensordot(seen, vectors[other], axes=(other, 0))
            new = np.divide(total, seen, out=np.zeros_like(total), where=seen > 0)
            change = max(change, float(np.abs(new - vectors[axis]).max()) / max(float(new.max()), np.finfo(float).tiny))
            vectors[axis] = new
        if change < TOLERANCE:
            break
    grand = float(np.prod([vector.sum() for vector in vectors]))
    return [vector * (grand ** (1 / len(vectors)) / vector.sum()) for vector in vectors]


def _scales(data: xr.DataArray) -> list[str]:
    """Names of the coordinates that hold a Poisson scale."""
    return [str(name) for name in data.coords if str(name).startswith(PREFIX)]
