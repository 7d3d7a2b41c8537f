"""Choose, merge and name the components of a fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from tensorspec import contributions
from tensorspec.errors import InvalidArgument, UnknownName
from tensorspec.pieces import refuse_evolving

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["map_views", "merge", "positions", "relabel", "select", "take"]


def positions(fit: Fit, components: int | str | Iterable[int | str]) -> list[int]:
    """Return positions from 0 of components named by number from 1 or by label.

    Raises
    ------
    UnknownName
        If a component does not exist.
    InvalidArgument
        If none is named, or one twice.
    """
    named = [components] if isinstance(components, int | str) else list(components)
    labels, found = fit.labels, []
    for name in named:
        if isinstance(name, str) and name and name in labels:
            found.append(labels.index(name))
        elif not isinstance(name, str | bool) and name in range(1, fit.rank + 1):
            found.append(int(name) - 1)
        else:
            also = f", labelled {labels}" if any(labels) else ""
            raise UnknownName(f"no component {name!r}; this fit has components 1 to {fit.rank}{also}")
    if not found or len(set(found)) < len(found):
        raise InvalidArgument(f"name one or more components, each once; given is {named!r}")
    return found


def take(fit: Fit, indices: Sequence[int]) -> Fit:
    """Return a fit with the components at these positions (from 0), in this order, counted from 1 again."""

    def chosen(array: xr.DataArray) -> xr.DataArray:
        return array.isel(component=list(indices)).assign_coords(component=np.arange(1, len(indices) + 1))

    factors = {mode: chosen(factor) for mode, factor in fit.factors.items()}
    return dataclasses.replace(fit, factors=factors, views=map_views(fit, chosen), weights=chosen(fit.all_strengths()))


def map_views(fit: Fit, change: Callable[[xr.DataArray], xr.DataArray]) -> dict[str, dict[str, xr.DataArray]]:
    """Return the factors that tensors see through operators, each changed."""
    return {name: {mode: change(view) for mode, view in own.items()} for name, own in fit.views.items()}


def select(fit: Fit, components: Sequence[int | str]) -> Fit:
    """Return a fit with these components only; see `tensorspec.solution.Fit.select`."""
    indices = positions(fit, components)
    return _derived(take(fit, indices), "select", indices)


def relabel(fit: Fit, labels: Mapping[int | str, str]) -> Fit:
    """Return a fit whose components carry these labels; see `tensorspec.solution.Fit.relabel`."""
    new = fit.labels
    for index, label in zip(positions(fit, labels), labels.values(), strict=True):
        new[index] = str(label)
    coord = {"label": ("component", np.array(new, dtype=str))}
    factors = {mode: factor.assign_coords(coord) for mode, factor in fit.factors.items()}
    views = map_views(fit, lambda view: view.assign_coords(coord))
    return dataclasses.replace(fit, factors=factors, views=views, weights=fit.all_strengths().assign_coords(coord))


def merge(fit: Fit, components: Sequence[int | str]) -> Fit:
    """Return a fit in which these components are one; see `tensorspec.solution.Fit.merge`.

    Notes
    -----
    The product of the marginals over a power of the total is the rank-one model nearest to the sum of the components
    in the Kullback-Leibler sense [1]_, and keeps every marginal, hence maps and spectra.  The marginal of a mode that
    tensors share is that of all their counts together.

    .. [1] Huang & Sidiropoulos, "Kullback-Leibler principal component for tensors is not NP-hard", 2017,
       arXiv:1711.07925.
    """
    refuse_evolving(fit, "merge", "merged maps and profiles have no single product; fit anew with a lower rank")
    indices = positions(fit, components)
    if len(indices) < 2:
        raise InvalidArgument(f"merge needs two or more components; given is {list(components)!r}")
    totals = {name: fit.totals(name).values[indices] for name in fit.tensors}
    place = min(indices)
    kept = [index for index in range(fit.rank) if index == place or index not in indices]
    result = take(fit, kept)
    at = kept.index(place)
    factors, lengths, shares = {}, {}, {}
    for mode, factor in fit.factors.items():
        pooled = sum(totals[name] for name, record in fit.tensors.items() if mode in record.modes)
        shares[mode], lengths[mode] = _pooled(factor[indices], np.asarray(pooled), mode, indices)
        factors[mode] = _replaced(result.factors[mode], at, factor[indices], shares[mode])
    # What a tensor sees is linear in the factor, so it is pooled with the same shares.
    views = {
        name: {mode: _replaced(result.views[name][mode], at, view[indices], shares[mode]) for mode, view in own.items()}
        for name, own in fit.views.items()
    }
    weights = result.all_strengths().copy(deep=True)
    for name, record in fit.tensors.items():
        own = views.get(name, {})
        sums = {mode: float(np.nansum(view.values[at])) for mode, view in own.items()}
        seen = [(1 / sums[mode] if sums[mode] else 0.0) if mode in sums else lengths[mode] for mode in record.modes]
        strength = totals[name].sum() * np.prod(seen)
        weights.loc[{"tensor": name, "component": at + 1} if "tensor" in weights.dims else {"component": at + 1}] = (
            strength
        )
    return _derived(dataclasses.replace(result, factors=factors, views=views, weights=weights), "merge", indices)


def _replaced(array: xr.DataArray, at: int, columns: xr.DataArray, shares: np.ndarray) -> xr.DataArray:
    """Return an array with one component replaced by the sum of shares times columns."""
    new = array.copy(deep=True)
    new.values[at] = np.tensordot(shares, columns.values.astype(float), axes=1)
    return new


def _pooled(columns: xr.DataArray, totals: np.ndarray, mode: str, indices: list[int]) -> tuple[np.ndarray, float]:
    """Return the shares of columns in their unit-norm mean, each scaled to its total, and its norm at a sum of one."""
    cancelling = contributions.cancels(columns)
    if cancelling.any():
        number = indices[int(np.argmax(cancelling))] + 1
        raise InvalidArgument(
            f"merge adds signals, but the entries of component {number} in mode {mode!r} cancel each other; "
            "fit with NonNegative() on that mode, or fit anew with a lower rank"
        )
    flat = columns.values.reshape(len(columns), -1).astype(float)
    sums = np.nansum(flat, axis=1)
    shares = np.divide(totals, sums, out=np.zeros_like(sums), where=sums != 0)
    whole = totals.sum()
    shares = shares / whole if whole else (np.arange(len(flat)) == 0).astype(float)
    norm = float(np.sqrt(np.nansum((shares @ flat) ** 2)))
    return (shares / norm if norm else shares), norm


def _derived(fit: Fit, verb: str, indices: Sequence[int]) -> Fit:
    """Return the fit without the figures that belonged to its components as fitted; provenance notes what was done."""
    tensors = {name: dataclasses.replace(record, explained=float("nan")) for name, record in fit.tensors.items()}
    note = {"step": verb, "components": [int(index) + 1 for index in indices]}
    provenance = {**fit.provenance, "derived": [*fit.provenance.get("derived", []), note]}
    return dataclasses.replace(fit, tensors=tensors, objective=float("nan"), provenance=provenance, summaries={})
