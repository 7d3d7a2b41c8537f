"""X-rays and energy losses over the same orientations with the same curves: simple, and mostly wrong."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.fit import fit
from tensorspec.losses.likelihood import Poisson
from tensorspec.models.cp import NMF
from tensorspec.solution import Fit

__all__ = ["curves_differ", "joint_spectra"]

# Standard errors of the mean curve by which two curves may differ.
WITHIN = 2.0


def curves_differ(curves: Mapping[str, xr.DataArray], counts: Mapping[str, float]) -> float:
    """Return by how many standard errors the curves of theory differ between signals, root mean square.

    Parameters
    ----------
    curves : mapping of str to DataArray
        For each signal, from `site_curves` with its own shell: the same sites and tilts.
    counts : mapping of str to float
        Mean counts of each signal at an orientation.

    Returns
    -------
    float
        The largest over pairs of signals and sites: well below one, and one curve serves both; above two, it does not.

    Examples
    --------
    >>> tilt = np.linspace(0, 6, 20)
    >>> first, second = (xr.DataArray([1 + size * np.cos(tilt)], dims=("component", "tilt_x")) for size in (0.4, 0.1))
    >>> both = {"edx": first, "eels": second}
    >>> bool(curves_differ(both, {"edx": 1e4, "eels": 1e5}) > 2)
    True
    """
    names = list(curves)
    worst = 0.0
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            own = []
            for name in (first, second):
                flat = curves[name].values.reshape(curves[name].sizes["component"], -1)
                own.append((flat / flat.mean(axis=1, keepdims=True), flat.mean(axis=1) / flat.mean(axis=1).sum()))
            if own[0][0].shape != own[1][0].shape:
                raise InvalidData(f"curves of {first!r} and {second!r} have different sites or tilts")
            for site in range(len(own[0][0])):
                # What a site contributes at an orientation is counted with this relative error.
                variance = sum(
                    1 / max(counts[name] * part[1][site], 1e-300)
                    for name, part in zip((first, second), own, strict=True)
                )
                difference = own[0][0][site] - own[1][0][site]
                worst = max(worst, float(np.sqrt((difference**2).mean() / variance)))
    return worst


def joint_spectra(
    data: Mapping[str, xr.DataArray],
    curves: Mapping[str, xr.DataArray] | None = None,
    *,
    rank: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Fit:
    """Factorize several signals over the same orientations with one set of curves for all of them.

    The curves of a K line and of an L edge of the same element differ, so that this is right for none of them as a
    rule; `fit_occupancy` and `site_spectra` share the occupancies instead. It is here to compare with, and warns.

    Parameters
    ----------
    data : mapping of str to DataArray
        Counts over the same tilts, such as lines of X-rays and energy losses.
    curves : mapping of str to DataArray, optional
        Of theory, by signal, from `site_curves`: to be compared with each other.
    rank : int, optional
        Number of components; by default that of the curves.
    seed : int
        Of the start.
    **options
        Further arguments of `fit`.

    Returns
    -------
    Fit
        Non-negative; spectra by signal, and the shared curves as the factor of the orientations.

    Raises
    ------
    InvalidArgument
        If neither curves nor a rank are given.

    Warns
    -----
    UserWarning
        If theory says that the curves differ by more than the noise, or says nothing.
    """
    if curves is None and rank is None:
        raise InvalidArgument("joint_spectra: give curves of theory, or a rank")
    if curves is None:
        said = "no curves of theory were given to tell whether one set serves all signals"
    else:
        tilts = [dim for dim in next(iter(curves.values())).dims if dim != "component"]
        level = {
            name: float(own.sum([dim for dim in own.dims if dim not in tilts]).mean()) for name, own in data.items()
        }
        apart = curves_differ({name: curves[name] for name in data}, level)
        rank = rank or next(iter(curves.values())).sizes["component"]
        said = (
            ""
            if apart <= WITHIN
            else f"theory says that the curves of {list(data)} differ by {apart:.1f} standard errors"
        )
    if said:
        warnings.warn(
            f"joint_spectra: {said}; the spectra are mixtures then: use fit_occupancy and site_spectra",
            UserWarning,
            stacklevel=2,
        )
    assert rank is not None
    options = {"loss": Poisson(), "progress": False, **options}
    return fit(dict(data), NMF(rank), seed=seed, **options)
