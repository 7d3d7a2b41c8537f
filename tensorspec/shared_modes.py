"""When two tensors share a mode: do its dimensions, units and coordinates agree, and what is the way out if not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import xarray as xr

from tensorspec.errors import ModeMismatch

if TYPE_CHECKING:
    from tensorspec.modes import ModeLabels

__all__ = ["check_coordinates", "is_numeric", "merge_shared", "units_of"]

STEP_TOLERANCE = 1e-3  # coordinates of a shared mode agree within this fraction of their smallest step

# One file may give one scan in nm and in µm: units of the same kind are converted before they are compared.
LENGTHS = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "um": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9}
ENERGIES = {"meV": 1e-3, "eV": 1.0, "keV": 1e3}


def merge_shared(first: ModeLabels, second: ModeLabels, owner: str, tensor_name: str) -> ModeLabels:
    """Return a mode that two tensors share, with what either knows of it, or say how they differ."""
    if first.dims != second.dims:
        _mismatch(first, second, owner, tensor_name, "their dimensions differ")
    coords = dict(first.coords)
    for dim, size, other_size in zip(first.dims, first.shape, second.shape, strict=True):
        if size != other_size:
            _mismatch(first, second, owner, tensor_name, f"their sizes along {dim!r} differ")
        own, other = first.coords.get(dim), second.coords.get(dim)
        if other is None:
            continue
        if own is None:
            coords[dim] = other
            continue
        if why := _difference(own, other):
            _mismatch(first, second, owner, tensor_name, f"{why} along {dim!r}")
        if units_of(own) is None and units_of(other) is not None:
            coords[dim] = own.assign_attrs(units=units_of(other))
    for key, coord in second.coords.items():
        if key in first.dims:
            continue
        if key not in first.coords:
            coords[key] = coord
        elif not first.coords[key].variable.equals(coord.variable):
            del coords[key]  # as xarray does: an extra coordinate on which two operands disagree is dropped
    return replace(first, coords=coords)


def check_coordinates(values: xr.DataArray, coords: Mapping[str, xr.DataArray], what: str) -> None:
    """Refuse a mask (or the like) whose own coordinates differ from those of the tensor."""
    for dim, own in coords.items():
        if dim not in values.dims or dim not in values.coords:
            continue
        given = values.coords[dim]
        if why := _difference(own, given):
            raise ModeMismatch(
                f"the {what} differs from the tensor along {dim!r} ({why}): the tensor has "
                f"{_describe(dim, own, own.size)}, the {what} {_describe(dim, given, given.size)}. If they are the "
                f"same points, give the {what} the coordinates of the tensor, or none: {what}.drop_vars({dim!r})"
            )


def _difference(own: xr.DataArray, other: xr.DataArray) -> str | None:
    """Say how two coordinates of equal size differ, or return None when they agree."""
    factor = _conversion(units_of(other), units_of(own))
    if factor is None:
        return "their units differ"
    if not (is_numeric(own) and is_numeric(other)):
        return None if np.array_equal(own.values, other.values) else "their coordinates differ"
    values, others = np.asarray(own.values, dtype=float), factor * np.asarray(other.values, dtype=float)
    steps = np.abs(np.diff(values))
    steps = steps[steps > 0]
    # One point has no step: its value must agree to rounding.
    tolerance = STEP_TOLERANCE * steps.min() if steps.size else 1e-6 * np.abs(values).max(initial=0)
    if np.isclose(values, others, rtol=0, atol=tolerance, equal_nan=True).all():
        return None
    return "their coordinates differ" if factor == 1 else "their units differ, and what they mean too"


def _conversion(given: str | None, wanted: str | None) -> float | None:
    """Return the factor between two units, or None where there is none; units that are not given fit any."""
    if given is None or wanted is None or _plain(given) == _plain(wanted):
        return 1.0
    for kind in (LENGTHS, ENERGIES):
        if _plain(given) in kind and _plain(wanted) in kind:
            return kind[_plain(given)] / kind[_plain(wanted)]
    return None


def _mismatch(first: ModeLabels, second: ModeLabels, owner: str, tensor_name: str, why: str) -> NoReturn:
    dims = second.dims
    renamed = ", ".join(f'{dim}="{tensor_name}_{dim}"' for dim in dims)
    apart = f"{tensor_name}.rename({renamed})"
    if len(dims) > 1:
        new = tuple(f"{tensor_name}_{dim}" for dim in dims)
        apart += f" with modes={{'{tensor_name}_{second.name}': {new!r}}}"
    differing = next(
        (
            dim
            for dim in dims
            if dim in first.coords and dim in second.coords and first.dims == dims and first.shape == second.shape
            if _difference(first.coords[dim], second.coords[dim])
        ),
        None,
    )
    align = "align them (the same points, in the same order and units)"
    if differing is not None:
        align += f"; if they are the same points, {tensor_name}.assign_coords({differing}={owner}.{differing})"
    raise ModeMismatch(
        f"tensors {owner!r} and {tensor_name!r} share the mode {second.name!r}, but {why}: "
        f"{owner!r} has {_describe_mode(first)}; {tensor_name!r} has {_describe_mode(second)}. "
        f"Equal dimension names are one mode. Either {align}; "
        f"or, where they are different axes (as low loss and core loss are), rename one: {apart}"
    )


def _describe_mode(mode: ModeLabels) -> str:
    return " and ".join(
        _describe(dim, mode.coords.get(dim), size) for dim, size in zip(mode.dims, mode.shape, strict=True)
    )


def is_numeric(coord: xr.DataArray | None) -> bool:
    """Say whether there is a coordinate, and its values are numbers."""
    return coord is not None and coord.dtype.kind in "uif"


def units_of(coord: xr.DataArray | None) -> str | None:
    """Return the units of a coordinate, or None."""
    units = None if coord is None else coord.attrs.get("units")
    return None if units is None or units == "" else str(units)


def _describe(dim: str, coord: xr.DataArray | None, size: int) -> str:
    if coord is None or size == 0:
        return f"{dim}: {size} points without coordinates"
    first, last = coord.values[0], coord.values[-1]
    if is_numeric(coord):
        return f"{dim}: {size} points from {first:.6g} to {last:.6g} {units_of(coord) or '(no units)'}"
    return f"{dim}: {size} points from {first!s} to {last!s}"


def _plain(units: str) -> str:
    """Return units with one spelling of micro: files use the micro sign, the Greek letter and the letter u."""
    return units.strip().replace("\u03bc", "u").replace("\u00b5", "u")
