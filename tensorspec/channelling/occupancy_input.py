"""What is given to a fit of occupancies, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.line_model import tilts_of
from tensorspec.errors import InvalidArgument, InvalidData, UnknownName, suggest

__all__ = ["checked_counts", "given_for", "limits_of_sites", "of_several", "on_counts", "prior"]


def given_for(given: Any, name: str, what: str) -> Any:
    """Return what is given for a data set, or for all of them."""
    if isinstance(given, Mapping):
        if name not in given:
            raise UnknownName(f"no {what} for {name!r}; given for {list(given)}")
        return given[name]
    return given


def checked_counts(name: str, counts: Any, response: Any) -> xr.DataArray:
    """Return counts as floats with the line first, or say what is wrong with them or the response."""
    for what, each in (("counts", counts), ("response", response)):
        if not isinstance(each, xr.DataArray) or "line" not in each.dims:
            raise InvalidData(
                f"{what} of {name!r}: expected a DataArray with the dimension 'line' and those of the tilts"
            )
    tilts = tilts_of(response)
    if set(counts.dims) != {"line", *tilts}:
        raise InvalidData(f"counts of {name!r} have the dimensions {list(counts.dims)}; expected {['line', *tilts]}")
    counts = counts.transpose("line", *tilts).as_numpy().astype(float)
    if not np.isfinite(counts.values).all() or (counts.values < 0).any():
        wrong = int((~(counts.values >= 0)).sum())
        raise InvalidData(
            f"counts of {name!r}: {wrong} values are negative or not finite; expected counts of zero or more"
        )
    for line in counts["line"].values:
        if line not in response["line"].values:
            known = [str(each) for each in response["line"].values]
            raise UnknownName(f"no response of line {str(line)!r}; there are {known}.{suggest(str(line), known)}")
    for dim in tilts:
        own, there = counts[dim].values, response[dim].values
        margin = 1e-6 * max(float(np.ptp(there)), 1e-9)
        if own.min() < there.min() - margin or own.max() > there.max() + margin:
            raise InvalidData(
                f"counts of {name!r}: {dim} runs from {own.min():.4g} to {own.max():.4g} mrad, the response from "
                f"{there.min():.4g} to {there.max():.4g}; compute it for a wider scan"
            )
    return counts


def on_counts(given: Any, name: str, like: xr.DataArray, default: float, what: str) -> np.ndarray:
    """Return what is given, or a default, at every count (or orientation)."""
    if isinstance(given, Mapping):
        given = given.get(name)
    dims = ("line", *[dim for dim in like.dims if dim != "line"]) if "line" in like.dims else like.dims
    if given is None:
        return np.full([like.sizes[dim] for dim in dims], default)
    if not isinstance(given, xr.DataArray):
        given = xr.DataArray(number(what, given, 0))
    full = (xr.zeros_like(like, dtype=float) + given).transpose(*dims).values
    if full.shape != tuple(like.sizes[dim] for dim in dims) or not np.isfinite(full).all() or (full < 0).any():
        raise InvalidData(f"{what} of {name!r}: expected finite values of zero or more on the tilts of the counts")
    if what == "exposure" and not (full > 0).all():
        raise InvalidData(f"exposure of {name!r}: expected values above zero at every orientation")
    return full


def prior(what: str, unit: str, given: Any, name: str) -> tuple[float, float] | None:
    """Return mean and standard deviation of what is known of a data set, if anything is."""
    if isinstance(given, Mapping):
        given = given.get(name)
    if given is None:
        return None
    if not isinstance(given, Sequence) or len(given) != 2:
        raise InvalidArgument(f"{what}={given!r}; expected (mean, standard deviation) in {unit}")
    return number(f"{what}: mean", given[0], 0), number(f"{what}: standard deviation", given[1], 0, above=True)


def of_several(given: Any, name: str, response: xr.DataArray) -> tuple[float, float] | None:
    """Return what is known of the convergence, which has to be among those of the response."""
    known = prior("convergence", "mrad", given, name)
    if known is not None and "convergence" not in response.dims:
        raise InvalidArgument(
            f"convergence of {name!r} is given, but the response has only one; compute it for several: "
            "response(..., convergence=[0, 1, 2, 3])"
        )
    return known


def limits_of_sites(
    composition: Mapping[str, float] | None, places: Mapping[str, float] | None, candidates: Mapping[str, Sequence[str]]
) -> list[tuple[dict[tuple[str, str], float], float]]:
    """Return for each site how many atoms of which elements it holds at most."""
    if composition is None and places is None:
        return []
    if composition is None or places is None:
        raise InvalidArgument("composition and places belong together: atoms in the cell, and positions of every site")
    limits = []
    for site, most in places.items():
        own = {
            (element, site): float(amount)
            for element, amount in composition.items()
            if site in candidates.get(element, ())
        }
        if own:
            limits.append((own, float(most)))
    return limits
