"""What the core of a fit amounts to in the units of the data: which components meet, and what each sums to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, UnknownMode

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["axes_of", "interactions", "model_region", "shares_of_entries", "slice_amounts"]


def axes_of(fit: Fit, name: str) -> np.ndarray:
    """Return the core of a tensor with one axis a mode: components, or the points of a mode that is left whole.

    A diagonal core is returned with all its zeros.
    """
    core, modes = fit.cores[name], fit.tensors[name].modes
    values = np.asarray(core.values, float)
    if core.dims == ("component",):
        full = np.zeros([len(values)] * len(modes))
        full[tuple(np.arange(len(values)) for _ in modes)] = values
        return full
    return values.reshape([fit.ranks[mode] if mode in fit.factors else fit.modes[mode].size for mode in modes])


def _rows(factor: xr.DataArray) -> np.ndarray:
    return np.asarray(factor.values, float).reshape(factor.sizes["component"], -1)


def _amounts(fit: Fit, name: str) -> np.ndarray:
    """Return the summed signal that each entry of the core stands for."""
    result = axes_of(fit, name)
    for axis, mode in enumerate(fit.tensors[name].modes):
        if mode in fit.factors:
            sums = np.nansum(_rows(fit.seen(name, mode)), axis=1)
            result = result * sums.reshape([-1 if k == axis else 1 for k in range(result.ndim)])
    return result


def slice_amounts(fit: Fit, name: str, mode: str) -> np.ndarray:
    """Return by what each column of a mode is multiplied when all other modes are summed over, shape (rank,).

    Raises
    ------
    UnknownMode
        If the mode is left whole, so that it has no components.
    """
    if mode not in fit.factors:
        raise UnknownMode(f"mode {mode!r} is left whole and has no components; those with components are {fit.ranks}")
    modes = fit.tensors[name].modes
    result = axes_of(fit, name)
    for axis, other in reversed(list(enumerate(modes))):
        if other == mode:
            continue
        if other in fit.factors:
            result = np.tensordot(result, np.nansum(_rows(fit.seen(name, other)), axis=1), axes=(axis, 0))
        else:
            result = result.sum(axis=axis)
    return result


def shares_of_entries(fit: Fit, name: str) -> tuple[np.ndarray, str]:
    """Return the share of every entry of the core in the model, and what it is a share of.

    Shares are of the summed signal where everything adds up, else of the sum of squares of the core, which for
    orthonormal factors is that of the model.
    """
    signal = _amounts(fit, name)
    columns = [_rows(fit.seen(name, mode)) for mode in fit.tensors[name].modes if mode in fit.factors]
    adds_up = (axes_of(fit, name) >= 0).all() and all((np.nan_to_num(own) >= 0).all() for own in columns)
    of = fit.tensors[name].unit or "signal"
    if not adds_up:
        signal, of = axes_of(fit, name) ** 2, "energy"
    whole = signal.sum()
    return (signal / whole if whole > 0 else np.zeros_like(signal)), of


def interactions(fit: Fit, name: str, most: int = 20) -> xr.Dataset:
    """Return the strongest entries of the core of a tensor, as a table.

    Parameters
    ----------
    fit : Fit
        With a core.
    name : str
        The tensor.
    most : int
        How many entries at the most.

    Returns
    -------
    table : Dataset, dimension ``entry``
        Sorted by ``share``.  Coordinates ``<mode>_component``: the components that meet, counted from 1.  ``value`` of
        the entry (its norm over modes that are left whole), and ``share`` of the model: of the summed signal where all
        of it adds up, else of the sum of squares of the core (``attrs["of"]``).

    Raises
    ------
    InvalidArgument
        Where the model has no core.
    """
    if name not in fit.cores:
        raise InvalidArgument("this fit has no core: component k of one mode meets component k of the others")
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise InvalidArgument(f"most={most!r}: expected a whole number of 1 or more")
    shares, of = shares_of_entries(fit, name)
    modes = fit.tensors[name].modes
    whole = tuple(axis for axis, mode in enumerate(modes) if mode not in fit.factors)
    values = axes_of(fit, name)
    if whole:
        shares, values = shares.sum(axis=whole), np.sqrt((values**2).sum(axis=whole))
    chosen = np.argsort(-shares, axis=None, kind="stable")[:most]
    chosen = chosen[values.reshape(-1)[chosen] != 0]
    places = np.unravel_index(chosen, values.shape)
    kept = [mode for mode in modes if mode in fit.factors]
    unit = fit.tensors[name].unit
    return xr.Dataset(
        {
            "value": ("entry", values.reshape(-1)[chosen], {"units": unit} if unit else {}),
            "share": ("entry", shares.reshape(-1)[chosen], {"long_name": f"share of {of}"}),
        },
        coords={
            "entry": np.arange(1, len(chosen) + 1),
            **{f"{mode}_component": ("entry", place + 1) for mode, place in zip(kept, places, strict=True)},
        },
        attrs={"of": of},
    )


def model_region(fit: Fit, name: str, region: dict[str, slice]) -> tuple[np.ndarray, list[str]]:
    """Return the model of a part of a tensor, one axis a dimension, and the dimensions in order.

    Parameters
    ----------
    fit : Fit
        With a core.
    name : str
        The tensor.
    region : dict of str to slice
        The part, by dimension.
    """
    core, modes = axes_of(fit, name), fit.tensors[name].modes
    dims: list[str] = []
    shape: list[int] = []
    for axis, mode in enumerate(modes):
        if mode in fit.factors:
            factor = fit.seen(name, mode).isel(region, missing_dims="ignore")
            core = np.moveaxis(np.tensordot(core, _rows(factor), axes=(axis, 0)), -1, axis)
            dims += [str(dim) for dim in factor.dims[1:]]
            shape += factor.shape[1:]
            continue
        own = fit.modes[mode]
        grid = np.arange(own.size).reshape(own.shape)[tuple(region.get(dim, slice(None)) for dim in own.dims)]
        core = np.take(core, grid.reshape(-1), axis=axis)
        dims += own.dims
        shape += grid.shape
    return core.reshape(shape), dims
