"""What the components of a fit amount to in the units of the data: sums, shares, model and residual of one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorspec import cores
from tensorspec.errors import InvalidArgument, InvalidData, UnknownMode, suggest
from tensorspec.modes import ModeLabels, from_arrays
from tensorspec.pieces import pieces

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = [
    "alive",
    "cancels",
    "compression",
    "marginal",
    "measured",
    "model_block",
    "reconstruct",
    "residual",
    "shares",
    "totals",
    "used_entries",
]

CANCELLATION = 0.5  # of the sum of magnitudes


def alive(fit: Fit) -> list[int]:
    """Return the numbers, from 1, of the components that any tensor shows with a strength other than zero."""
    shown = np.abs(np.stack([fit.strengths(name).values for name in fit.tensors])) > 0
    return [int(index) + 1 for index in np.flatnonzero(shown.any(axis=0))]


def marginal(fit: Fit, name: str, mode: str, what: str) -> xr.DataArray:
    """Return each component of a tensor summed over all its modes but one, in units of the data.

    Parameters
    ----------
    fit : Fit
        Factors and weights.
    name, mode : str
        The tensor, and the mode that stays.
    what : str
        Name of the result.

    Returns
    -------
    marginal : DataArray, dimensions (component, *the mode's own)
        NaN where the mode was never measured; entries of other modes never measured are absent from the sums.

    Raises
    ------
    UnknownMode
        If the tensor has no such mode.
    """
    record = fit.tensors[name]
    if mode not in record.modes:
        known = f"tensor {name!r} has modes {list(record.modes)}"
        raise UnknownMode(f"no mode {mode!r}; {known}.{suggest(mode, record.modes)}")
    if name in fit.cores:
        others = [other for other in record.modes if other != mode]
        amplitude, factor = cores.slice_amounts(fit, name, mode), fit.seen(name, mode)
    else:
        own = next(piece for piece in pieces(fit, name) if mode in piece.modes)
        others = [other for other in record.modes if other not in own.modes]
        amplitude, factor = _product(fit, name, others, power=1), own.on(mode)
    values = (_rows(factor) * amplitude[:, np.newaxis]).reshape(factor.shape)
    return _described(factor.copy(data=values), what, "signal summed over " + " and ".join(others), record.unit)


def compression(fit: Fit) -> float:
    """Return the number of entries of the data over that of the factors, strengths and cores.

    Examples
    --------
    >>> from tensorspec.assemble import assemble
    >>> data = {"data": xr.DataArray(np.ones((4, 6)), dims=("x", "energy_loss"))}
    >>> compression(assemble(data, {"pixel": np.ones((4, 1)), "energy_loss": np.ones((6, 1))}))
    2.1818181818181817
    """
    held = sum(factor.size for factor in fit.factors.values()) + sum(core.size for core in fit.cores.values())
    held += 0 if fit.weights is None else fit.weights.size
    return sum(int(np.prod(record.shape)) for record in fit.tensors.values()) / held


def totals(fit: Fit, name: str) -> xr.DataArray:
    """Return the sum of each component over a whole tensor: dimension ``component``, units of the data."""
    record = fit.tensors[name]
    total = fit.strengths(name).copy(data=_product(fit, name, record.modes, power=1))
    return _described(total, "totals", "signal summed over all modes", record.unit)


def shares(fit: Fit, name: str) -> xr.DataArray:
    """Return the share of each component in the model: of its sum, or of its energy where entries cancel."""
    record = fit.tensors[name]
    amounts, of = _product(fit, name, record.modes, power=1), record.unit or "signal"
    if (amounts < 0).any() or any(cancels(fit.seen(name, mode)).any() for mode in record.modes):
        amounts, of = _product(fit, name, record.modes, power=2), "energy"
    whole = amounts.sum()
    result = fit.strengths(name).copy(data=amounts / whole if whole > 0 else np.zeros_like(amounts))
    result.attrs = {"long_name": f"share of {of}", "of": of}
    return result.rename("shares")


def cancels(factor: xr.DataArray) -> np.ndarray:
    """Return for each column whether its entries cancel, so that its sum says nothing of its size: shape (rank,)."""
    rows = _rows(factor).astype(float)
    return np.abs(np.nansum(rows, axis=1)) < CANCELLATION * np.nansum(np.abs(rows), axis=1)


def reconstruct(fit: Fit, name: str) -> xr.DataArray:
    """Return the model of a tensor, with the dimensions, order and coordinates of the data, in their units."""
    record = fit.tensors[name]
    if name in fit.cores:
        modes = {
            mode: _labels(fit.seen(name, mode), mode) if mode in fit.factors else fit.modes[mode]
            for mode in record.modes
        }
    else:
        modes = {piece.modes[-1]: _labels(piece.array, piece.modes[-1]) for piece in pieces(fit, name)}
    order = [dim for mode in modes.values() for dim in mode.dims]
    values = model_block(fit, name).transpose([record.dims.index(dim) for dim in order])
    values = values.reshape([mode.size for mode in modes.values()])
    return _described(from_arrays(values, tuple(modes), modes, record.dims), "model", "model", record.unit)


def _labels(factor: xr.DataArray, mode: str) -> ModeLabels:
    """Return where the points of a factor lie."""
    dims = tuple(str(dim) for dim in factor.dims[1:])
    coords = {str(key): coord for key, coord in factor.coords.items() if set(coord.dims) <= set(dims)}
    return ModeLabels(mode, dims, tuple(factor.shape[1:]), coords)


def model_block(fit: Fit, name: str, region: Mapping[str, slice] | None = None) -> np.ndarray:
    """Return the model of a part of a tensor, one axis a dimension, in the order of the data.

    Parameters
    ----------
    fit : Fit
        Factors and weights.
    name : str
        The tensor.
    region : mapping of str to slice, optional
        The part, by dimension; by default the whole.
    """
    record = fit.tensors[name]
    if name in fit.cores:
        values, dims = cores.model_region(fit, name, dict(region or {}))
        return values.transpose([dims.index(dim) for dim in record.dims])
    factors = [piece.array.isel(region or {}, missing_dims="ignore") for piece in pieces(fit, name)]
    order = [dim for factor in factors for dim in factor.dims[1:]]
    rows = [_rows(factor) for factor in factors]
    left = rows[0] * fit.strengths(name).values.astype(np.result_type(*rows))[:, np.newaxis]
    rest = rows[1]
    for other in rows[2:]:
        rest = (rest[:, :, np.newaxis] * other[:, np.newaxis, :]).reshape(fit.rank, -1)
    values = (left.T @ rest).reshape([size for factor in factors for size in factor.shape[1:]])
    return values.transpose([order.index(dim) for dim in record.dims])


def measured(fit: Fit, name: str, data: Any = None) -> xr.DataArray:
    """Return the data of a tensor, held or given, in the order of dimensions in which they were fitted.

    Parameters
    ----------
    fit : Fit
        Holds its data, unless it was read from a file.
    name : str
        The tensor.
    data : DataArray or mapping of str to DataArray, optional
        The data, if not those held.

    Returns
    -------
    data : DataArray

    Raises
    ------
    InvalidArgument
        If one DataArray is given for a fit of several tensors.
    InvalidData
        If the data are neither given nor held, or have other dimensions or sizes than those fitted.
    """
    record, given = fit.tensors[name], fit.data if data is None else data
    if isinstance(data, xr.DataArray) and len(fit.tensors) > 1:
        raise InvalidArgument(f"tensors {list(fit.tensors)} were fitted: give a mapping, data={{{name!r}: ...}}")
    tensor = given.get(name) if isinstance(given, Mapping) else given
    if tensor is None:
        held = "holds no data, as it was read from a file" if given is None else f"was given data of {list(given)}"
        raise InvalidData(f"this fit {held}: give those of {name!r} with data=")
    if not isinstance(tensor, xr.DataArray) or set(tensor.dims) != set(record.dims):
        got = list(tensor.dims) if isinstance(tensor, xr.DataArray) else type(tensor).__name__
        raise InvalidData(
            f"data of {name!r}: a DataArray with dimensions {list(record.dims)} was fitted, given is {got}"
        )
    tensor = tensor.transpose(*record.dims)
    if tensor.shape != record.shape:
        raise InvalidData(f"data of {name!r}: those fitted had the shape {record.shape}, given is {tensor.shape}")
    return tensor


def used_entries(fit: Fit, name: str) -> xr.DataArray | None:
    """Return the mask of a tensor, True where an entry was used, without coordinates; None where there was none."""
    mask = fit.masks.get(name)
    return None if mask is None else mask.drop_vars(list(mask.coords)).astype(bool)


def residual(fit: Fit, name: str, data: Any = None) -> xr.DataArray:
    """Return data minus model of a tensor, NaN where a mask left entries out; see `measured` for the data."""
    tensor = measured(fit, name, data)
    values = tensor.data.todense() if hasattr(tensor.data, "todense") else tensor.data
    difference = tensor.copy(data=values - reconstruct(fit, name).values)
    used = used_entries(fit, name)
    difference = difference if used is None else difference.where(used)
    return _described(difference, "residual", "data minus model", fit.tensors[name].unit)


def _rows(factor: xr.DataArray) -> np.ndarray:
    """Return a factor as an array of shape (rank, size of the mode)."""
    return np.asarray(factor.values).reshape(factor.sizes["component"], -1)


def _product(fit: Fit, name: str, modes: tuple[str, ...] | list[str], power: int) -> np.ndarray:
    """Return strengths times the sums over these modes, shape (rank,), entries to a power (2: the energy)."""
    result = fit.strengths(name).values.astype(float) ** power
    for piece in pieces(fit, name):
        if set(piece.modes) <= set(modes):
            result = result * np.nansum(_rows(piece.array).astype(float) ** power, axis=1)
    return result


def _described(array: xr.DataArray, name: str, long_name: str, unit: str) -> xr.DataArray:
    """Return the array with this name and nothing but these attributes."""
    array = array.rename(name)
    array.attrs = {"long_name": long_name} | ({"units": unit} if unit else {})
    return array
