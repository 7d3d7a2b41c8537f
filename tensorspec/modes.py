"""Which dimensions make one mode: merge them into an array axis, split a factor back, match modes among tensors.

Equal dimension names are the same mode.  The dimensions of a group that are there together (``z, y, x``) are one mode
(``pixel``); every other dimension is a mode of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, UnknownMode, suggest
from tensorspec.shared_modes import check_coordinates, is_numeric, merge_shared, units_of

__all__ = ["DEFAULT_GROUPS", "ModeLabels", "broadcast_to_array", "find_modes", "from_arrays", "split", "to_array"]

DEFAULT_GROUPS: dict[str, tuple[str, ...]] = {"pixel": ("z", "y", "x"), "orientation": ("tilt_y", "tilt_x")}


@dataclass(frozen=True, eq=False)
class ModeLabels:
    """What a mode is called, and where its points lie.

    Attributes
    ----------
    name : str
        Name of the mode, for instance ``"pixel"``.
    dims : tuple of str
        Its dimensions, in the order in which they are merged (the last varies fastest).
    shape : tuple of int
        Size of each dimension.
    coords : mapping of str to DataArray
        Coordinates that live on these dimensions only; attributes such as ``units`` are kept.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: Mapping[str, xr.DataArray]

    @property
    def size(self) -> int:
        """Number of points of the mode: the product of its dimension sizes."""
        return prod(self.shape)

    @property
    def coordinates(self) -> tuple[np.ndarray | None, ...]:
        """For each dimension its coordinate as floats, shape (size,), or None where it has none or is not numeric."""
        return tuple(
            np.asarray(coord.values, dtype=float) if coord is not None and is_numeric(coord) else None
            for coord in map(self.coords.get, self.dims)
        )

    @property
    def units(self) -> tuple[str | None, ...]:
        """For each dimension the units of its coordinate, or None."""
        return tuple(units_of(self.coords.get(dim)) for dim in self.dims)


def find_modes(
    data: Mapping[str, xr.DataArray], modes: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, ModeLabels], dict[str, tuple[str, ...]]]:
    """Find the modes of some tensors, and match those that share a name.

    Parameters
    ----------
    data : mapping of str to DataArray
        The tensors by name.
    modes : mapping of str to sequence of str, optional
        Dimensions that make up a mode, by mode name.  A dimension listed here leaves its default group.

    Returns
    -------
    labels : dict of str to ModeLabels
        All modes, in order of first appearance.
    names : dict of str to tuple of str
        For each tensor the names of its modes, in that same order.

    Raises
    ------
    InvalidArgument
        If `modes` uses a dimension twice or a mode is named like a dimension that is not in it.
    UnknownMode
        If `modes` lists a dimension that no tensor has.
    InvalidData
        If a tensor has fewer than two modes.
    ModeMismatch
        If a mode differs between two tensors: dimensions, sizes, units, or coordinates by more than a thousandth of
        their smallest step.

    Examples
    --------
    >>> eels = xr.DataArray(np.ones((4, 3, 10)), dims=("y", "x", "energy_loss"))
    >>> edx = xr.DataArray(np.ones((20, 4, 3)), dims=("xray_energy", "y", "x"))
    >>> labels, names = find_modes({"eels": eels, "edx": edx})
    >>> {name: mode.shape for name, mode in labels.items()}
    {'pixel': (4, 3), 'energy_loss': (10,), 'xray_energy': (20,)}
    >>> names
    {'eels': ('pixel', 'energy_loss'), 'edx': ('pixel', 'xray_energy')}
    """
    groups = _groups(data, modes)
    labels: dict[str, ModeLabels] = {}
    owners: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    for tensor_name, tensor in data.items():
        found = _modes_of(tensor_name, tensor, groups)
        names[tensor_name] = set(found)
        for mode in found.values():
            if mode.name in labels:
                labels[mode.name] = merge_shared(labels[mode.name], mode, owners[mode.name], tensor_name)
            else:
                labels[mode.name], owners[mode.name] = mode, tensor_name
    return labels, {key: tuple(mode for mode in labels if mode in own) for key, own in names.items()}


def to_array(tensor: xr.DataArray, names: Sequence[str], labels: Mapping[str, ModeLabels]) -> Any:
    """Return the values of a tensor with one axis a mode.

    Parameters
    ----------
    tensor : DataArray
        Has the dimensions of these modes, in any order; numpy-, dask- or sparse-backed.
    names : sequence of str
        The modes, one an axis of the result.
    labels : mapping of str to ModeLabels
        As found by `find_modes`.

    Returns
    -------
    array : ndarray or sparse array, one axis a mode
        In the dtype of the data; a view where that is possible.  Dask arrays are computed, sparse ones stay sparse.

    Raises
    ------
    InvalidData
        If the dimensions or sizes of the tensor are not those of the modes.

    Examples
    --------
    >>> tensor = xr.DataArray(np.arange(24).reshape(2, 3, 4), dims=("y", "x", "energy_loss"))
    >>> labels, names = find_modes({"eels": tensor})
    >>> to_array(tensor, names["eels"], labels).shape
    (6, 4)
    """
    sizes = _sizes(names, labels)
    if dict(tensor.sizes) != sizes:
        raise InvalidData(f"the tensor has dimensions {dict(tensor.sizes)}, but the modes {list(names)} need {sizes}")
    values = tensor.transpose(*sizes)
    if values.chunks is not None:
        values = values.compute()
    return values.data.reshape(tuple(labels[name].size for name in names))


def broadcast_to_array(
    values: xr.DataArray, names: Sequence[str], labels: Mapping[str, ModeLabels], what: str = "mask"
) -> np.ndarray:
    """Return a mask (or weights, or sigma) that may miss dimensions, broadcast to one axis a mode.

    Parameters
    ----------
    values : DataArray
        Has some of the dimensions of the modes; where it has coordinates, they must agree with the tensor's.
    names : sequence of str
        The modes of the tensor, one an axis of the result.
    labels : mapping of str to ModeLabels
        As found by `find_modes`.
    what : str
        What `values` are, for messages.

    Returns
    -------
    array : (size of each mode) ndarray of bool or float
        Read-only where it is broadcast: modes that `values` does not have take no memory.

    Raises
    ------
    InvalidData
        If `values` is not a numeric or boolean DataArray, or a size differs.
    UnknownMode
        If `values` has a dimension that the tensor does not have.
    ModeMismatch
        If its coordinates or their units differ from the tensor's.

    Examples
    --------
    >>> tensor = xr.DataArray(np.ones((2, 3, 4)), dims=("y", "x", "energy_loss"))
    >>> labels, names = find_modes({"eels": tensor})
    >>> broadcast_to_array(xr.DataArray([True, False, True], dims="x"), names["eels"], labels)[:, 0]
    array([ True, False,  True,  True, False,  True])
    """
    sizes = _sizes(names, labels)
    if not isinstance(values, xr.DataArray):
        raise InvalidData(
            f"the {what} is a {type(values).__name__}; it must be an xarray.DataArray with dimensions among"
            f" {list(sizes)}: xr.DataArray({what}, dims={tuple(sizes)!r})"
        )
    if values.dtype.kind not in "buif":
        raise InvalidData(f"the {what} has dtype {values.dtype}; it must be boolean or real numbers")
    for dim, size in values.sizes.items():
        if dim not in sizes:
            raise UnknownMode(
                f"the {what} has a dimension {dim!r}; the tensor has dimensions {list(sizes)}.{suggest(dim, sizes)}"
            )
        if size != sizes[dim]:
            raise InvalidData(f"the {what} has {size} points along {dim!r}, the tensor {sizes[dim]}")
    array = values.compute().data
    array = np.asarray(array if isinstance(array, np.ndarray) else array.todense())
    array = array if array.dtype.kind in "bf" else array.astype(float)
    check_coordinates(values, {dim: coord for name in names for dim, coord in labels[name].coords.items()}, what)
    array = array.transpose([values.dims.index(dim) for dim in sizes if dim in values.dims])
    array = array.reshape([size if dim in values.dims else 1 for dim, size in sizes.items()])
    # Within a mode, missing dimensions must be filled before merging; a mode that is missing altogether stays a view.
    own = {name for name in names if set(labels[name].dims) & set(values.dims)}
    shape = [size if name in own else 1 for name in names for size in labels[name].shape]
    array = np.broadcast_to(array, shape)
    array = array.reshape([labels[name].size if name in own else 1 for name in names])
    return np.broadcast_to(array, tuple(labels[name].size for name in names))


def split(
    values: np.ndarray,
    labels: ModeLabels,
    leading: Sequence[str] = ("component",),
    coords: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Give a factor its dimensions and coordinates back.

    Parameters
    ----------
    values : (..., size) ndarray
        One row a component; the last axis is the mode.
    labels : ModeLabels
        The mode.
    leading : sequence of str
        Names of the axes before the last.
    coords : mapping, optional
        Coordinates of the leading axes.  Components are otherwise counted from 1.

    Returns
    -------
    factor : DataArray
        Dimensions `leading`, then those of the mode, with their coordinates and units.

    Raises
    ------
    InvalidData
        If `values` does not have that many axes or points.

    Examples
    --------
    >>> labels, _ = find_modes({"map": xr.DataArray(np.ones((2, 3, 4)), dims=("y", "x", "energy_loss"))})
    >>> split(np.ones((5, 6)), labels["pixel"]).sizes
    Frozen({'component': 5, 'y': 2, 'x': 3})
    """
    values = np.asarray(values)
    if values.ndim != len(leading) + 1 or values.shape[-1] != labels.size:
        raise InvalidData(
            f"an array of shape {values.shape} cannot be split into {(*leading, *labels.dims)}: "
            f"its last of {len(leading) + 1} axes must have {labels.size} points"
        )
    named = dict(coords or {})
    if "component" in leading and "component" not in named:
        named["component"] = np.arange(1, values.shape[list(leading).index("component")] + 1)
    result = xr.DataArray(
        values.reshape(*values.shape[:-1], *labels.shape), dims=(*leading, *labels.dims), coords=named
    )
    return _with_coords(result, labels.coords)


def from_arrays(
    values: Any, names: Sequence[str], labels: Mapping[str, ModeLabels], dims: Sequence[Hashable] | None = None
) -> xr.DataArray:
    """Turn an array with one axis a mode into a DataArray: the reverse of `to_array`.

    Parameters
    ----------
    values : array, one axis a mode
        For instance a reconstruction.
    names : sequence of str
        The modes, one an axis.
    labels : mapping of str to ModeLabels
        As found by `find_modes`.
    dims : sequence of str, optional
        The order of dimensions wanted; by default that of the modes.

    Returns
    -------
    tensor : DataArray
        With the coordinates of all modes.

    Examples
    --------
    >>> tensor = xr.DataArray(np.arange(24).reshape(4, 2, 3), dims=("energy_loss", "y", "x"))
    >>> labels, names = find_modes({"eels": tensor})
    >>> array = to_array(tensor, names["eels"], labels)
    >>> from_arrays(array, names["eels"], labels, tensor.dims).identical(tensor)
    True
    """
    sizes = _sizes(names, labels)
    expected = tuple(labels[name].size for name in names)
    if tuple(values.shape) != expected:
        raise InvalidData(f"an array of shape {tuple(values.shape)} does not have the modes {list(names)}: {expected}")
    tensor = xr.DataArray(values.reshape(tuple(sizes.values())), dims=tuple(sizes))
    for name in names:
        tensor = _with_coords(tensor, labels[name].coords)
    return tensor if dims is None else tensor.transpose(*dims)


def _groups(data: Mapping[str, xr.DataArray], modes: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """Return the groups to use: the given ones, and the default ones without the dimensions given."""
    known = list(dict.fromkeys(dim for tensor in data.values() for dim in tensor.dims))
    given: dict[str, tuple[str, ...]] = {}
    used: dict[str, str] = {}
    for name, listed in (modes or {}).items():
        dims = (listed,) if isinstance(listed, str) else tuple(listed)
        if not dims:
            raise InvalidArgument(f"mode {name!r} is given no dimension; the data have dimensions {known}")
        for dim in dims:
            if dim not in known:
                raise UnknownMode(
                    f"mode {name!r} is given the dimension {dim!r}; the data have dimensions {known}."
                    f"{suggest(dim, known)}"
                )
            if dim in used:
                where = f"twice in mode {name!r}" if used[dim] == name else f"in the modes {used[dim]!r} and {name!r}"
                raise InvalidArgument(f"dimension {dim!r} is used {where}; a dimension belongs to one mode")
            used[dim] = name
        if name in known and name not in dims:
            _refuse_name(name, dims, f"the data have dimensions {known}")
        given[name] = dims
    defaults = {
        name: tuple(dim for dim in dims if dim not in used)
        for name, dims in DEFAULT_GROUPS.items()
        if name not in given
    }
    return given | defaults


def _modes_of(tensor_name: str, tensor: xr.DataArray, groups: Mapping[str, tuple[str, ...]]) -> dict[str, ModeLabels]:
    """Return the modes of one tensor, in the order in which their dimensions first appear."""
    group_of = {dim: name for name, dims in groups.items() for dim in dims}
    found: dict[str, ModeLabels] = {}
    for dim in tensor.dims:
        if not isinstance(dim, str) or dim == "component":
            raise InvalidArgument(
                f"tensor {tensor_name!r} has a dimension named {dim!r}; "
                + ("that is the name of the result's own dimension" if dim == "component" else "names must be text")
                + f": rename it, {tensor_name}.rename({{{dim!r}: 'another'}})"
            )
        name = group_of.get(dim, dim)
        if name in found and dim in found[name].dims:
            continue
        dims = tuple(other for other in groups[name] if other in tensor.dims) if dim in group_of else (dim,)
        if name in tensor.dims and name not in dims:
            _refuse_name(name, dims, f"tensor {tensor_name!r} has dimensions {list(tensor.dims)}")
        coords = {
            str(key): coord.reset_coords(drop=True)
            for key, coord in tensor.coords.items()
            if coord.dims and set(coord.dims) <= set(dims)
        }
        found[name] = ModeLabels(name, dims, tuple(tensor.sizes[each] for each in dims), coords)
    if len(found) < 2:
        raise InvalidData(
            f"tensor {tensor_name!r} has dimensions {list(tensor.dims)}, which make the modes {list(found)}; "
            "a factorization needs at least two modes (of a map alone, give modes={'rows': ('y',), 'columns': ('x',)})"
        )
    return found


def _refuse_name(name: str, dims: Sequence[str], where: str) -> NoReturn:
    raise InvalidArgument(
        f"the mode of {', '.join(map(repr, dims))} would be called {name!r}, but {where}, and {name!r} is not "
        f"among them; give the mode another name: modes={{'another': {tuple(dims)!r}}}"
    )


def _sizes(names: Iterable[str], labels: Mapping[str, ModeLabels]) -> dict[Hashable, int]:
    """Return the size of every dimension of these modes, in the order of the array axes before merging."""
    return {dim: size for name in names for dim, size in zip(labels[name].dims, labels[name].shape, strict=True)}


def _with_coords(tensor: xr.DataArray, coords: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return the tensor with these coordinates; a multi-index comes back as one."""
    plain = dict(coords)
    for key, coord in coords.items():
        if key in coord.dims and coord.indexes[key].nlevels > 1:
            index = coord.indexes[key]
            levels = xr.Coordinates.from_pandas_multiindex(index, key)
            for level, values in levels.items():
                values.attrs.update(plain.pop(str(level), values).attrs)
            tensor = tensor.assign_coords(levels)
    return tensor.assign_coords({key: coord.variable for key, coord in plain.items()})
