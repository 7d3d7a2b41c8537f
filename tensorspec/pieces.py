"""The arrays whose product over dimensions is the model of a tensor, and the modes that they belong to.

Of most models these are the factors.  Where the profiles on one mode differ in every sample (PARAFAC2), the strengths
of the samples and the profiles are one array with the dimensions of both modes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from tensorspec.errors import InvalidArgument

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["Piece", "evolving_mode", "own_dims", "pieces", "refuse_evolving"]


class Piece(NamedTuple):
    """An array with the dimensions ``(component, ...)`` of one or two modes."""

    modes: tuple[str, ...]
    array: xr.DataArray

    def on(self, mode: str) -> xr.DataArray:
        """Return the array for one of its modes: of the strengths of samples, profiles are summed."""
        if mode == self.modes[-1]:
            return self.array
        dims = self.array.dims[1:]
        own = [dim for dim in dims if dim in self.array.attrs["along"]]
        return self.array.sum([dim for dim in dims if dim not in own], skipna=True, min_count=1)


def evolving_mode(fit: Fit, name: str) -> tuple[str, str] | None:
    """Return the mode on which the profiles of a tensor differ in every sample, and that of the samples; or None."""
    evolving, along = getattr(fit.model, "evolving", None), getattr(fit.model, "along", None)
    return (evolving, along) if evolving and along and evolving in fit.tensors[name].modes else None


def pieces(fit: Fit, name: str) -> list[Piece]:
    """Return the arrays whose product, times the strengths and summed over components, is the model of a tensor."""
    modes, pair = fit.tensors[name].modes, evolving_mode(fit, name)
    if pair is None:
        return [Piece((mode,), fit.seen(name, mode)) for mode in modes]
    evolving, along = pair
    strengths, profiles = fit.seen(name, along), fit.seen(name, evolving)
    values = strengths.values.reshape(*strengths.shape, *[1] * (profiles.ndim - strengths.ndim)) * profiles.values
    joint = profiles.copy(data=values)
    joint.attrs = {"along": list(strengths.dims[1:])}
    rest = [Piece((mode,), fit.seen(name, mode)) for mode in modes if mode not in pair]
    return [*rest, Piece((along, evolving), joint)]


def own_dims(fit: Fit, name: str, mode: str) -> tuple[str, ...]:
    """Return the dimensions of a mode in the data; those of the samples do not belong to the profiles there."""
    if mode not in fit.factors:  # left whole by a core
        return fit.modes[mode].dims
    dims, pair = tuple(map(str, fit.seen(name, mode).dims[1:])), evolving_mode(fit, name)
    if pair is None or mode != pair[0]:
        return dims
    return tuple(dim for dim in dims if dim not in fit.seen(name, pair[1]).dims)


def refuse_evolving(fit: Fit, what: str, instead: str) -> None:
    """Refuse what has no meaning where profiles differ in every sample.

    Raises
    ------
    InvalidArgument
        With what to do instead.
    """
    for name in fit.tensors:
        if (pair := evolving_mode(fit, name)) is not None:
            raise InvalidArgument(f"{what}: in this PARAFAC2 fit mode {pair[0]!r} differs along {pair[1]!r}; {instead}")
