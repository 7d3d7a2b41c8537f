"""What every step of the preparation has in common: which dimension is the signal's, lazy data, and the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, UnknownMode, suggest
from tensorspec.modes import DEFAULT_GROUPS
from tensorspec.shared_modes import ENERGIES, is_numeric, units_of

__all__ = ["along_signal", "as_spectra", "evenly_spaced", "in_units_of", "recorded", "signal_dimension", "usable"]

SIGNALS = ("energy_loss", "xray_energy")
SAMPLES = tuple(dim for group in DEFAULT_GROUPS.values() for dim in group)
UNEVEN = 1e-3


def as_spectra(function: str, data: object, name: str = "data") -> xr.DataArray:
    """Check that an argument is a DataArray of real numbers.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    data : object
        As given.
    name : str
        Of the argument.

    Returns
    -------
    DataArray
        The same.

    Raises
    ------
    InvalidData
        If it is not a DataArray, is empty, or does not hold real numbers.

    Examples
    --------
    >>> as_spectra("align", xr.DataArray([1, 2], dims="energy_loss")).dims
    ('energy_loss',)
    """
    if not isinstance(data, xr.DataArray):
        raise InvalidData(
            f"{function}: {name} is a {type(data).__name__}; expected an xarray.DataArray: "
            f'xr.DataArray({name}, dims=("y", "x", "energy_loss")), or what ts.load gives.'
        )
    if data.dtype.kind not in "biuf":
        raise InvalidData(f"{function}: {name} is of dtype {data.dtype}; expected real numbers (integers or floats).")
    if data.size == 0:
        raise InvalidData(f"{function}: {name} is empty: {dict(data.sizes)}.")
    return data


def signal_dimension(function: str, data: xr.DataArray, dim: str | None = None) -> str:
    """Return the dimension along which a spectrum runs, with a numeric, strictly ascending coordinate.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    data : DataArray
        With one spectrum a sample.
    dim : str, optional
        By its name; else ``energy_loss``, ``xray_energy``, or the only dimension that counts no samples.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    UnknownMode
        If there is no such dimension.
    InvalidArgument
        If none was named and it cannot be told which is meant.
    InvalidData
        If it has no numeric coordinate, or one that does not ascend.

    Examples
    --------
    >>> data = xr.DataArray(np.ones((2, 3)), coords={"energy_loss": [0.0, 1, 2]}, dims=("x", "energy_loss"))
    >>> signal_dimension("align", data)
    'energy_loss'
    """
    dims = [str(each) for each in data.dims]
    if dim is not None:
        if dim not in dims:
            raise UnknownMode(f"{function}: no dimension {dim!r}; the data have {dims}.{suggest(dim, dims)}")
    else:
        found = [each for each in SIGNALS if each in dims] or [each for each in dims if each not in SAMPLES]
        if len(found) != 1:
            raise InvalidArgument(
                f"{function}: it cannot be told along which of the dimensions {dims} the spectra run; say it: dim=..."
            )
        dim = found[0]
    if dim not in data.coords or not is_numeric(data.coords[dim]):
        raise InvalidData(
            f"{function}: dimension {dim!r} has no numeric coordinate; give it one: "
            f"data.assign_coords({dim}=values), in eV or keV."
        )
    values = np.asarray(data.coords[dim].values, dtype=float)
    if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise InvalidData(f"{function}: the coordinate {dim!r} must ascend; sort it: data.sortby({dim!r}).")
    return dim


def evenly_spaced(function: str, data: xr.DataArray, dim: str) -> float:
    """Return the step of an evenly spaced coordinate, in its own units.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    data : DataArray
        Has the coordinate.
    dim : str
        Its name.

    Returns
    -------
    float
        Distance of neighbouring channels.

    Raises
    ------
    InvalidData
        If there are fewer than two channels, or they lie a thousandth of a step off an even grid.

    Examples
    --------
    >>> evenly_spaced("align", xr.DataArray([0, 0, 0], coords={"energy_loss": [1.0, 1.5, 2.0]}), "energy_loss")
    0.5
    """
    values = np.asarray(data.coords[dim].values, dtype=float)
    if len(values) < 2:
        raise InvalidData(f"{function}: {dim!r} has {len(values)} channels; at least two are needed.")
    step = (values[-1] - values[0]) / (len(values) - 1)
    if np.abs(values - values[0] - step * np.arange(len(values))).max() > UNEVEN * abs(step):
        raise InvalidData(
            f"{function}: the channels of {dim!r} are not evenly spaced; put the data on an even grid first: "
            f"data.interp({dim}=numpy.linspace({values[0]:g}, {values[-1]:g}, {len(values)}))."
        )
    return float(step)


def in_units_of(coord: xr.DataArray, value: Any, units: str) -> Any:
    """Convert energies to the units of a coordinate.

    Parameters
    ----------
    coord : DataArray
        With ``attrs["units"]``; without, the energies are taken to be in its units already.
    value : float or array
        Energies.
    units : {"meV", "eV", "keV"}
        Theirs.

    Returns
    -------
    float or array
        In the units of the coordinate.

    Examples
    --------
    >>> axis = xr.DataArray([0.0, 1.0], dims="xray_energy", attrs={"units": "keV"})
    >>> float(in_units_of(axis, 6400.0, "eV"))
    6.4
    """
    own = units_of(coord)
    return value if own is None or own not in ENERGIES else np.asarray(value) * (ENERGIES[units] / ENERGIES[own])


def usable(function: str, data: xr.DataArray, mask: object) -> xr.DataArray | None:
    """Check a mask (True = use) and broadcast nothing: dimensions that it lacks stay away.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    data : DataArray
        The data that it masks.
    mask : DataArray of bool, or None
        Has some of the dimensions of the data.

    Returns
    -------
    DataArray of bool, or None
        The mask.

    Raises
    ------
    InvalidData
        If it is not a boolean DataArray or its sizes differ.
    UnknownMode
        If it has a dimension that the data do not have.

    Examples
    --------
    >>> data = xr.DataArray(np.ones((2, 3)), dims=("x", "energy_loss"))
    >>> usable("align", data, xr.DataArray([True, False, True], dims="energy_loss")).dims
    ('energy_loss',)
    """
    if mask is None:
        return None
    if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
        raise InvalidData(f"{function}: mask is not a DataArray of bool (True = use); ts.mask_channels makes one.")
    for dim, size in mask.sizes.items():
        if dim not in data.dims:
            raise UnknownMode(
                f"{function}: the mask has a dimension {dim!r}; the data have {list(data.dims)}."
                f"{suggest(dim, data.dims)}"
            )
        if size != data.sizes[dim]:
            raise InvalidData(f"{function}: the mask has {size} points along {dim!r}, the data {data.sizes[dim]}.")
    return mask


def along_signal(
    function: Callable[..., Any],
    *arrays: xr.DataArray,
    signals: Sequence[Sequence[str]],
    results: Sequence[Sequence[str]],
    sizes: Mapping[str, int] | None = None,
    dtype: Any = np.float64,
    **settings: Any,
) -> Any:
    """Apply a function of plain arrays to spectra, block by block where the data are lazy.

    Parameters
    ----------
    function : callable
        Takes one array for each of `arrays`, their signal dimensions last, and returns one or several arrays.
    *arrays : DataArray
        Numpy- or dask-backed; sample dimensions broadcast by name.
    signals : sequence of sequence of str
        For each array the dimensions that the function needs whole; lazy data are rechunked along these.
    results : sequence of sequence of str
        For each result its own dimensions, after those of the samples.
    sizes : mapping of str to int, optional
        Sizes of dimensions that only a result has.
    dtype : dtype
        Of all results.
    **settings
        Further arguments of the function.

    Returns
    -------
    DataArray or tuple of DataArray
        Lazy where one of the arrays is.

    Examples
    --------
    >>> data = xr.DataArray(np.ones((2, 3)), dims=("x", "energy_loss"))
    >>> along_signal(lambda spectra: spectra.sum(axis=-1), data, signals=[["energy_loss"]], results=[[]]).values
    array([3., 3.])
    """
    lazy = any(array.chunks is not None for array in arrays)
    if lazy:
        whole = dict.fromkeys((dim for dims in signals for dim in dims), -1)
        arrays = tuple(
            array if array.chunks is None else array.chunk({dim: -1 for dim in whole if dim in array.dims})
            for array in arrays
        )
    return xr.apply_ufunc(
        function,
        *arrays,
        input_core_dims=[list(dims) for dims in signals],
        output_core_dims=[list(dims) for dims in results],
        exclude_dims=set(sizes or ()) & {dim for dims in signals for dim in dims},
        kwargs=settings,
        dask="parallelized" if lazy else "forbidden",
        output_dtypes=[dtype] * len(results),
        dask_gufunc_kwargs={"output_sizes": dict(sizes or {})} if lazy else None,
        keep_attrs=False,
    )


def recorded(result: xr.DataArray, source: xr.DataArray, step: str, **attrs: Any) -> xr.DataArray:
    """Give a result the name, attributes and history of its source, and one more line of history.

    Attributes of coordinates, such as units, are those of the source too.

    Parameters
    ----------
    result : DataArray
        New; its own attributes are replaced.
    source : DataArray
        What it was made from.
    step : str
        What was done, as a reader of the record wants to know it: the call and what it found.
    **attrs
        Attributes that the step changes.

    Returns
    -------
    DataArray
        A copy that shares the values.

    Examples
    --------
    >>> data = xr.DataArray([1.0], dims="energy_loss", attrs={"units": "counts"})
    >>> recorded(2 * data, data, "doubled").attrs
    {'units': 'counts', 'history': ['doubled']}
    """
    result = result.copy(deep=False)
    for name, coord in result.coords.items():
        if name in source.coords and coord.attrs != source.coords[name].attrs:
            result = result.assign_coords({name: coord.assign_attrs(source.coords[name].attrs)})
    result.name = source.name
    result.attrs = {**source.attrs, **attrs, "history": [*source.attrs.get("history", []), step]}
    return result
