"""Occupancies beyond one fit: a potential that follows them, and what errors of the model are worth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.occupancy import Occupancy, fit_occupancy
from tensorspec.errors import InvalidArgument

__all__ = ["Refined", "occupied", "refine_occupancy", "systematic_errors"]


@dataclass(frozen=True, eq=False)
class Refined:
    """Occupancies, and the crystal that has them.

    Attributes
    ----------
    occupancy : Occupancy
        Of the last round.
    crystal : Crystal
        With these occupancies.
    change : list of float
        Largest change of a share in each round after the first.
    """

    occupancy: Occupancy
    crystal: Crystal
    change: list[float]


def occupied(crystal: Crystal, found: Occupancy) -> Crystal:
    """Return the crystal with the shares that were fitted: each element keeps its number of atoms.

    Parameters
    ----------
    crystal : Crystal
        Holds the amounts; elements without a fitted share stay where they are.
    found : Occupancy
        From `fit_occupancy`.

    Raises
    ------
    InvalidArgument
        If a site would hold more than it has places for; fit with ``composition=`` and ``places=`` then.
    """
    fitted = [str(element) for element in found.share["element"].values]
    occupants: dict[str, dict[str, float]] = {}
    for site in crystal.sites:
        held = {element: value for element, value in site.occupants.items() if element not in fitted}
        for element in fitted:
            share = (
                float(found.share.sel(element=element, site=site.label)) if site.label in found.share["site"] else 0.0
            )
            value = share * crystal.amount(element) / len(site.positions) if np.isfinite(share) else 0.0
            if value > 0:
                held[element] = value
        if sum(held.values()) > 1 + 1e-3:
            raise InvalidArgument(
                f"site {site.label!r} would hold {sum(held.values()):.3f} atoms a place: {held}; fit with "
                "composition= and places=, which forbid it"
            )
        most = max(sum(held.values()), 1.0)
        occupants[site.label] = {element: value / most for element, value in held.items()}
    return crystal.occupy(occupants)


def refine_occupancy(
    counts: Any,
    crystal: Crystal,
    respond: Callable[[Crystal], Any],
    candidates: Mapping[str, Sequence[str]],
    *,
    rounds: int = 3,
    **options: Any,
) -> Refined:
    """Fit occupancies, compute the responses of the crystal that has them, and fit again.

    Parameters
    ----------
    counts, candidates
        As `fit_occupancy` takes them.
    crystal : Crystal
        To begin with; its amounts of each element are kept.
    respond : callable
        Gives the responses of a crystal, as `fit_occupancy` takes them:
        ``lambda crystal: response(crystal, scan, lines, thickness)``.
    rounds : int
        How often responses are computed; two or three are enough where some ten per cent of the atoms move.
    **options
        Further arguments of `fit_occupancy`.

    Returns
    -------
    Refined

    Raises
    ------
    InvalidArgument
        If `rounds` is no whole number of one or more, or a site cannot hold what is fitted.
    """
    whole("rounds", rounds, 1)
    found, before, changes = None, None, []
    for turn in range(rounds):
        with warnings.catch_warnings():
            if turn < rounds - 1:  # only the last round is the answer
                warnings.simplefilter("ignore", UserWarning)
            found = fit_occupancy(counts, respond(crystal), candidates, **options)
        if before is not None:
            changes.append(float(abs(found.share - before).max()))
        before = found.share
        crystal = occupied(crystal, found)
    assert found is not None
    return Refined(found, crystal, changes)


def systematic_errors(
    counts: Any,
    responses: Mapping[str, Any],
    candidates: Mapping[str, Sequence[str]],
    *,
    reference: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Fit with several responses, and tell how far the shares move: the error that counts do not have.

    Parameters
    ----------
    counts, candidates
        As `fit_occupancy` takes them.
    responses : mapping of str to response
        The model as it is believed, first, and as it might be: displacements 20 % larger and smaller, other form
        factors, another convergence.
    reference : str, optional
        Which of them is believed; by default the first.
    **options
        Further arguments of `fit_occupancy`.

    Returns
    -------
    Dataset
        ``share`` and ``chi_squared`` by ``model``; ``standard_error`` of the believed one; ``systematic``, the root
        mean square of the differences from it; ``total``, both together.

    Raises
    ------
    InvalidArgument
        If there are fewer than two responses, or no such reference.
    """
    if len(responses) < 2:
        raise InvalidArgument(f"responses has {list(responses)}; expected the believed one and one other at least")
    reference = next(iter(responses)) if reference is None else reference
    if reference not in responses:
        raise InvalidArgument(f"reference={reference!r}; expected one of {list(responses)}")
    fits = {}
    for name, each in responses.items():
        with warnings.catch_warnings():
            if name != reference:
                warnings.simplefilter("ignore", UserWarning)
            fits[name] = fit_occupancy(counts, each, candidates, **options)
    share = xr.concat([each.share for each in fits.values()], xr.DataArray(list(fits), dims="model", name="model"))
    believed = fits[reference]
    others = share.sel(model=[name for name in fits if name != reference])
    systematic = np.sqrt(((others - believed.share) ** 2).mean("model"))
    chi_squared = xr.DataArray([each.chi_squared for each in fits.values()], dims="model")
    error = believed.standard_error
    return xr.Dataset(
        {
            "share": share,
            "chi_squared": chi_squared,
            "standard_error": error,
            "systematic": systematic.where(error.notnull() | believed.at_bound),
            "total": np.sqrt(error**2 + systematic**2),
        },
        attrs={"reference": reference},
    )
