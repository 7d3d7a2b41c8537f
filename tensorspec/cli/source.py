"""The part of a file that is to be fitted: chosen, cropped and summed by name and coordinate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorspec.cli.recipe_file import Source
from tensorspec.errors import InvalidArgument, UnknownMode, suggest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load_source", "mask_of"]


def load_source(source: Source) -> xr.DataArray:
    """Load what a source names.

    Parameters
    ----------
    source : Source
        File, signal, and what is taken of it.

    Returns
    -------
    tensor : DataArray
        Its ``attrs["history"]`` says what was done.

    Raises
    ------
    TensorspecError
        If the file cannot be read, or does not have what is asked for.
    """
    from tensorspec.io.instrument import load

    options: dict[str, Any] = {} if source.reader is None else {"reader": source.reader}
    tensor = load(source.file, signal=source.signal, lazy=source.lazy, **options)
    steps = []
    if source.rename:
        for dim in source.rename:
            _check_dim(tensor, dim, source, "rename")
        tensor = tensor.rename(source.rename)
        steps.append(f"renamed {source.rename}")
    for dim, (low, high) in source.crop.items():
        inside = _inside(tensor, dim, low, high, source, "crop")
        tensor = tensor.isel({dim: inside})
        steps.append(f"cropped {dim} to {low:g} to {high:g}")
    for dim, count in source.bin.items():
        tensor = _binned(tensor, dim, count, source)
        steps.append(f"summed {count} neighbours along {dim}")
    if steps:
        tensor.attrs["history"] = [*tensor.attrs.get("history", []), *steps]
    return tensor


def _binned(tensor: xr.DataArray, dim: str, count: int, source: Source) -> xr.DataArray:
    _check_dim(tensor, dim, source, "bin")
    if not 1 <= count <= tensor.sizes[dim]:
        raise InvalidArgument(f"bin of {dim!r} is {count}; expected 1 to {tensor.sizes[dim]}")
    attrs = {str(key): coord.attrs for key, coord in tensor.coords.items()}
    blocks: Any = tensor.coarsen({dim: count}, boundary="trim")
    # A bin that holds a missing value is missing: the sum of what is left would be too small.
    binned = blocks.reduce(np.sum)
    whole = binned.dtype.kind in "ui"
    # What is on disk is read once more only where its type does not tell that sums are small.
    if whole and (count * int(np.iinfo(tensor.dtype).max) < 2**31 or int(abs(binned).max()) < 2**31):
        binned = binned.astype("uint32" if tensor.dtype.kind == "u" else "int32")
    binned.attrs = dict(tensor.attrs)
    for key, coord in binned.coords.items():
        coord.attrs.update(attrs.get(str(key), {}))
    return binned


def mask_of(tensor: xr.DataArray, source: Source) -> xr.DataArray | None:
    """Return what of a tensor is used.

    Parameters
    ----------
    tensor : DataArray
        As loaded.
    source : Source
        What is left out of it.

    Returns
    -------
    mask : DataArray of bool, or None
        True where an entry is used, along those dimensions of which something is left out; None where nothing is.

    Raises
    ------
    TensorspecError
        If there is no such dimension, or a range holds no point.
    """
    mask = None
    for dim, ranges in source.exclude.items():
        for low, high in ranges:
            outside = ~_inside(tensor, dim, low, high, source, "exclude")
            mask = outside if mask is None else mask & outside
    return mask


def _inside(tensor: xr.DataArray, dim: str, low: float, high: float, source: Source, what: str) -> xr.DataArray:
    _check_dim(tensor, dim, source, what)
    coord = tensor[dim]
    inside = (coord >= low) & (coord <= high)
    if not inside.any():
        units = coord.attrs.get("units", "")
        raise InvalidArgument(
            f"{what} of {dim!r} from {low:g} to {high:g} holds no point of {source.file.name!r}, which runs from "
            f"{float(coord[0]):g} to {float(coord[-1]):g} {units}".rstrip()
        )
    return inside


def _check_dim(tensor: xr.DataArray, dim: str, source: Source, what: str) -> None:
    if dim not in tensor.dims:
        known = ", ".join(map(str, tensor.dims))
        raise UnknownMode(
            f"{what} given for {dim!r}; {source.file.name!r} has the dimensions {known}.{suggest(dim, tensor.dims)}"
        )
