"""A labelled array as one HDF5 group that is NeXus data and netCDF dimension scales at once, and back.

xarray (engine h5netcdf) sees dimensions, coordinates and units; HyperSpy's NeXus reader, h5web and silx see an NXdata.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import h5py
import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.recipe import from_recipe, to_recipe

__all__ = ["Attributes", "key_of", "name_of", "read_array", "write_array"]

Attributes = dict[str, dict[str, Any]]

NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable."
SIGNAL = "data"
COMPRESS_FROM = 16_384  # entries
EPOCH = {"M": " since 1970-01-01", "m": ""}
DIVISION_SLASH = "\u2215"  # HDF5 paths are split at slashes, names of modes are not


def key_of(name: Hashable) -> str:
    """Return the name of a mode, dimension or tensor as an HDF5 name.

    Examples
    --------
    >>> "/" in key_of("t/lambda"), name_of(key_of("t/lambda"))
    (False, 't/lambda')
    """
    return str(name).replace("/", DIVISION_SLASH)


def name_of(key: str) -> str:
    """Return the name that `key_of` was given."""
    return key.rpartition("/")[2].replace(DIVISION_SLASH, "/")


def write_array(group: h5py.Group, array: xr.DataArray) -> Attributes:
    """Write a labelled array into an empty group.

    Parameters
    ----------
    group : h5py.Group
        Becomes an NXdata; units and long names of array and coordinates are attributes of its datasets.
    array : DataArray
        Numbers; coordinates are numbers, text, booleans, dates or time spans.

    Returns
    -------
    attributes : dict
        All attributes, as JSON: those of the array under ``""``, those of coordinates under their names.  To be kept
        beside the arrays, for `read_array`: HDF5 attributes hold neither nested nor long values.

    Raises
    ------
    InvalidArgument
        If a coordinate is of a type that no file can hold.

    Examples
    --------
    >>> array = xr.DataArray([1.0, 2.0], dims="x", coords={"x": [0, 1]}, attrs={"units": "counts"})
    >>> with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
    ...     attributes = write_array(file, array)
    ...     again = read_array(file, attributes)
    >>> again.identical(array)
    True
    """
    multi = {
        str(dim): [str(level) for level in index.names]
        for dim, index in array.indexes.items()
        if dim in array.dims and index.nlevels > 1
    }
    plain = array.reset_index(list(multi)) if multi else array
    group.attrs.update({"NX_class": "NXdata", "signal": SIGNAL, "title": str(array.name or "")})
    if multi:
        group.attrs["multi_index"] = json.dumps(multi)
    data = _write_values(group, SIGNAL, array.values, array.attrs)
    # An axis of NeXus is numbers: readers take differences of it.
    numeric = [dim in plain.coords and plain.coords[dim].dtype.kind in "iuf" for dim in plain.dims]
    axes = [key_of(dim) if has else "." for dim, has in zip(plain.dims, numeric, strict=True)]
    if axes:
        group.attrs["axes"] = axes
    for position, dim in enumerate(plain.dims):
        _write_scale(group, plain, dim)
        data.dims[position].attach_scale(group[key_of(dim)])
        if numeric[position]:
            group.attrs[f"{key_of(dim)}_indices"] = position
    extra = [name for name in plain.coords if name not in plain.dims]
    for name in extra:
        coord = plain.coords[name]
        written = _write_values(group, key_of(name), coord.values, coord.attrs)
        for position, dim in enumerate(coord.dims):
            written.dims[position].attach_scale(group[key_of(dim)])
    if extra:
        data.attrs["coordinates"] = " ".join(key for key in map(key_of, extra) if " " not in key)
    attributes = {"": array.attrs} | {str(name): coord.attrs for name, coord in array.coords.items()}
    return {name: to_recipe(attrs, lenient=True) for name, attrs in attributes.items() if attrs}


def read_array(group: h5py.Group, attributes: Mapping[str, Mapping[str, Any]] | None = None) -> xr.DataArray:
    """Return the labelled array of a group that `write_array` wrote.

    Parameters
    ----------
    group : h5py.Group
        The group.
    attributes : mapping, optional
        As returned by `write_array`, read back by `tensorspec.recipe.from_recipe`; by default none.

    Returns
    -------
    array : DataArray
    """
    contents: Any = group  # h5py types every item as group, dataset or type
    known, data = attributes or {}, contents[SIGNAL]
    dims = [name_of(axis[0].name) for axis in data.dims]
    coords = {}
    for key, dataset in contents.items():
        name = name_of(key)
        if key == SIGNAL or _is_bare(dataset):
            continue
        own = (name,) if name in dims else tuple(name_of(axis[0].name) for axis in dataset.dims)
        coords[name] = xr.Variable(own, _values(dataset), from_recipe(dict(known.get(name, {}))))
    array = xr.DataArray(
        _values(data),
        dims=dims,
        coords={name: coords[name] for name in sorted(coords, key=lambda name: name not in dims)},
        name=contents.attrs["title"] or None,
        attrs=from_recipe(dict(known.get("", {}))),
    )
    for dim, levels in json.loads(contents.attrs.get("multi_index", "{}")).items():
        array = array.set_index({dim: levels})
    return array


def _write_scale(group: h5py.Group, array: xr.DataArray, dim: Hashable) -> None:
    """Write the coordinate of a dimension as a dimension scale; a bare one where it has no coordinate."""
    if dim in array.coords:
        coord = array.coords[dim]
        _write_values(group, key_of(dim), coord.values, coord.attrs).make_scale(key_of(dim))
    else:
        bare = group.create_dataset(key_of(dim), data=np.zeros(array.sizes[dim], "float32"))
        bare.make_scale(f"{NO_COORDINATE}{array.sizes[dim]:10d}")


def _write_values(group: h5py.Group, key: str, values: np.ndarray, attrs: Mapping[Any, Any]) -> h5py.Dataset:
    """Write numbers, text, booleans, dates or time spans, with units and long name."""
    values = np.asarray(values)
    extra = {name: str(attrs[name]) for name in ("units", "long_name") if attrs.get(name)}
    kind = values.dtype.kind
    options: dict[str, Any] = {}
    if kind in "OU":
        if not all(isinstance(item, str) for item in values.flat):
            raise InvalidArgument(f"{key!r} holds objects that are no text; give it numbers or text before saving")
        values, options = values.astype(object), {"dtype": h5py.string_dtype()}
    elif kind in "mM":
        resolution = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
        unit = np.datetime_data(values.dtype)[0]
        extra |= {"dtype_in_memory": values.dtype.str, "units": f"{resolution.get(unit, unit)}{EPOCH[kind]}"}
        values = values.astype("int64")
    elif kind == "b":
        extra |= {"dtype_in_memory": "bool"}
        values = values.astype("int8")
    elif kind not in "iufc":
        raise InvalidArgument(f"{key!r} has the type {values.dtype}, which cannot be saved")
    if values.size >= COMPRESS_FROM:
        options |= {"compression": "gzip", "shuffle": kind not in "OU"}
    dataset = group.create_dataset(key, data=values, **options)
    dataset.attrs.update(extra)
    return dataset


def _values(dataset: h5py.Dataset) -> np.ndarray:
    """Return the values of a dataset in the type that they had in memory."""
    if h5py.check_string_dtype(dataset.dtype):
        return np.asarray(dataset.asstr()[()]).astype(str)
    values = np.asarray(dataset[()])
    return values.astype(dataset.attrs["dtype_in_memory"]) if "dtype_in_memory" in dataset.attrs else values


def _is_bare(dataset: h5py.Dataset) -> bool:
    name = dataset.attrs.get("NAME", b"")
    return (name.decode() if isinstance(name, bytes) else str(name)).startswith(NO_COORDINATE)
