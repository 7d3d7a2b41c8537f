"""Labelled values of a constraint (a reference spectrum, a known map) on the points of a mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, ModeMismatch
from tensorspec.modes import ModeLabels

__all__ = ["align_atoms", "align_values"]

# Coordinates agree within this fraction of a step of the mode.
_TOLERANCE = 1e-3


def align_values(
    values: xr.DataArray, labels: ModeLabels, rank: int, components: Sequence[int] | None, what: str
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return labelled values as an array over the points of a mode, and the components that they belong to.

    Parameters
    ----------
    values
        Dimensions (component, the mode's own) or, for one component, the mode's own alone.
    labels
        The mode.
    rank
        Number of components of the model.
    components
        The components named in the constraint, from 1; None for those of the ``component`` coordinate, or all.
    what
        What the values are, for messages.

    Returns
    -------
    array : (size, components) ndarray
        NaN where the values do not reach.
    numbers : tuple of int
        The components, counted from 1.

    Raises
    ------
    InvalidArgument
        When dimensions or components do not fit the mode or the model.
    ModeMismatch
        When the coordinates share no point with those of the mode.

    Examples
    --------
    >>> mode = ModeLabels("e", ("e",), (3,), {"e": xr.DataArray([1.0, 2.0, 3.0], dims="e")})
    >>> known = xr.DataArray([[5.0, 7.0]], dims=("component", "e"), coords={"component": [2], "e": [2.0, 3.0]})
    >>> align_values(known, mode, 2, None, "Fixed")
    (array([[nan],
           [ 5.],
           [ 7.]]), (2,))
    """
    expected = ("component", *labels.dims)
    if "component" not in values.dims:
        values = values.expand_dims("component")
    if set(values.dims) != set(expected):
        raise InvalidArgument(
            f"{what} on mode {labels.name!r} has dimensions {tuple(values.dims)}; expected {expected} in any order"
        )
    values = values.transpose(*expected)
    numbers = _numbers(values, rank, components, f"{what} on mode {labels.name!r}")
    for dim, size in zip(labels.dims, labels.shape, strict=True):
        values = _along(values, dim, size, labels.coords.get(dim), f"{what} on mode {labels.name!r}")
    array = np.asarray(values.values, dtype=float).reshape(len(numbers), labels.size).T
    return array, numbers


def align_atoms(values: xr.DataArray, labels: ModeLabels, what: str) -> np.ndarray:
    """Return labelled shapes (a dictionary) as an array over the points of a mode.

    Parameters
    ----------
    values
        The mode's own dimensions and, for more than one atom, one of any other name.
    labels
        The mode.
    what
        What the values are, for messages.

    Returns
    -------
    array : (size, atoms) ndarray

    Raises
    ------
    InvalidArgument
        When the dimensions do not fit the mode.
    ModeMismatch
        When the coordinates do not reach every point of the mode.

    Examples
    --------
    >>> mode = ModeLabels("e", ("e",), (2,), {"e": xr.DataArray([2.0, 3.0], dims="e")})
    >>> powers = xr.DataArray([[1.0, 2.0, 3.0], [1.0, 4.0, 9.0]], dims=("power", "e"), coords={"e": [1.0, 2.0, 3.0]})
    >>> align_atoms(powers, mode, "Span")
    array([[2., 4.],
           [3., 9.]])
    """
    who = f"{what} on mode {labels.name!r}"
    others = [dim for dim in values.dims if dim not in labels.dims]
    if len(others) > 1 or not set(labels.dims) <= set(values.dims):
        raise InvalidArgument(
            f"{who} has dimensions {tuple(values.dims)}; expected {labels.dims} and one of atoms, in any order"
        )
    values = values.transpose(*others, *labels.dims)
    absent = values.isnull()
    for dim, size in zip(labels.dims, labels.shape, strict=True):
        values = _along(values, dim, size, labels.coords.get(dim), who)
    array = np.asarray(values.values, dtype=float).reshape(-1, labels.size).T
    missed = np.isnan(array).all(axis=1)
    if missed.any() and not bool(absent.any()):
        first = np.unravel_index(int(np.argmax(missed)), labels.shape)
        place = ", ".join(
            f"{dim} {labels.coords[dim].values[k]:.6g}" if dim in labels.coords else f"{dim} {k}"
            for dim, k in zip(labels.dims, first, strict=True)
        )
        raise ModeMismatch(
            f"{who} has no value at {int(missed.sum())} of {labels.size} points of the data, the first at {place}; "
            "make it on the coordinates of the data, or interpolate it onto them"
        )
    return array


def _numbers(values: xr.DataArray, rank: int, components: Sequence[int] | None, what: str) -> tuple[int, ...]:
    count = values.sizes["component"]
    if components is not None:
        numbers = tuple(components)
    elif "component" in values.coords:
        numbers = tuple(int(number) for number in values.coords["component"].values)
    elif count == rank:
        numbers = tuple(range(1, rank + 1))
    else:
        raise InvalidArgument(
            f"{what} holds {count} components of {rank}; say which with a 'component' coordinate or components=[...]"
        )
    if len(numbers) != count or not all(1 <= number <= rank for number in numbers) or len(set(numbers)) != count:
        raise InvalidArgument(
            f"{what} holds {count} components, named {list(numbers)}; expected distinct numbers from 1 to {rank}"
        )
    return numbers


def _along(values: xr.DataArray, dim: str, size: int, own: xr.DataArray | None, what: str) -> xr.DataArray:
    if own is None or dim not in values.coords or own.dtype.kind not in "iuf":
        if values.sizes[dim] != size:
            raise InvalidArgument(f"{what} has {values.sizes[dim]} points along {dim!r}, the data {size}")
        return values
    target, given = np.asarray(own.values, float), np.asarray(values.coords[dim].values, float)
    units, other = own.attrs.get("units"), values.coords[dim].attrs.get("units")
    if units and other and units != other:
        raise ModeMismatch(f"{what} has {dim!r} in {other}, the data in {units}; convert one of them")
    steps = np.abs(np.diff(target))
    tolerance = _TOLERANCE * float(steps[steps > 0].min()) if (steps > 0).any() else 1e-6
    order = np.argsort(given)
    place = np.clip(np.searchsorted(given[order], target), 1, max(len(given) - 1, 1)) if len(given) > 1 else None
    nearest = np.zeros(len(target), int)
    if place is not None:
        low, high = order[place - 1], order[place]
        nearest = np.where(np.abs(given[low] - target) <= np.abs(given[high] - target), low, high)
    hit = np.abs(given[nearest] - target) <= tolerance
    if not hit.any():
        raise ModeMismatch(
            f"{what} shares no point with the data along {dim!r}: it runs from {given.min():.6g} to {given.max():.6g}, "
            f"the data from {target.min():.6g} to {target.max():.6g} {units or ''}; interpolate it onto the data: "
            f"values.interp({dim}=data.{dim})"
        )
    picked = values.isel({dim: nearest}).astype(float)
    shape = [-1 if name == dim else 1 for name in picked.dims]
    return picked.copy(data=np.where(hit.reshape(shape), picked.values, np.nan))
