"""The spectrum of an element on each of its sites, from energy losses over orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.occupancy import Occupancy
from tensorspec.constraints.known import Fixed, Near
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import InvalidArgument, InvalidData, UnknownName, suggest
from tensorspec.fit import fit
from tensorspec.losses.likelihood import Poisson
from tensorspec.models.cp import CP
from tensorspec.noise import NoiseModel
from tensorspec.solution import Fit
from tensorspec.twoway.regression import unmix

__all__ = ["beside", "share_of", "site_curves", "site_spectra", "tilts_and_energy"]


def site_curves(
    response: xr.DataArray,
    line: str,
    share: Mapping[str, float],
    tilts: Mapping[str, Any],
    thickness: float,
    *,
    offset: Mapping[str, float] | None = None,
    scale: float = 1.0,
    convergence: float | None = None,
    exposure: xr.DataArray | None = None,
) -> xr.DataArray:
    """Return how strongly each site contributes to an edge, at every orientation.

    Parameters
    ----------
    response : DataArray
        From `response`, with the shell of the edge among its lines: that of an L edge is not that of a K line.
    line : str
        Which of them.
    share : mapping of str to float
        Share of the element on each of its sites.
    tilts : mapping of str to array
        Where the spectra were recorded, mrad, by dimension.
    thickness : float
        nm.
    offset, scale : mapping of str to float, float
        What the tilts have to be moved by, mrad, after they are multiplied.
    convergence : float, optional
        mrad, of a response that was computed for several.
    exposure : DataArray, optional
        Live time times beam current; its mean does not matter.

    Returns
    -------
    DataArray
        Dimensions ``(component, *tilts)``, with the labels of the sites as the coordinate ``site``: share times
        response.

    Raises
    ------
    UnknownName
        If there is no such line or site.

    Examples
    --------
    >>> known = xr.DataArray(np.ones((2, 1, 3, 2)), dims=("site", "line", "tilt_x", "thickness"), coords={
    ...     "site": ["8a", "16d"], "line": ["Mn L23"], "tilt_x": [-1.0, 0, 1], "thickness": [5.0, 10]})
    >>> site_curves(known, "Mn L23", {"8a": 0.2, "16d": 0.8}, {"tilt_x": [0.0, 0.5]}, 7.0).values
    array([[0.2, 0.2],
           [0.8, 0.8]])
    """
    lines, sites = [str(each) for each in response["line"].values], [str(each) for each in response["site"].values]
    if line not in lines:
        raise UnknownName(f"no response of line {line!r}; there are {lines}.{suggest(line, lines)}")
    for site in share:
        if site not in sites:
            raise UnknownName(f"no response of site {site!r}; there are {sites}.{suggest(site, sites)}")
    own = _at(response.sel(line=line, site=list(share), drop=True), "thickness", thickness, "nm")
    if "convergence" in own.dims:
        own = _at(own, "convergence", convergence, "mrad")
    for dim, places in tilts.items():
        observed = np.asarray(places, dtype=float)
        there = scale * observed + (offset or {}).get(dim, 0.0)
        grid = own[dim].values
        inside = np.clip(there, grid[0], grid[-1])
        own = own.interp({dim: inside}, method="cubic" if len(grid) > 3 else "linear")
        own = own.assign_coords({dim: (dim, observed, {"units": "mrad"})})
    weights = xr.DataArray([number(f"share of {site}", value, 0, 1) for site, value in share.items()], dims="site")
    own = own.drop_vars("site") * weights
    if exposure is not None:
        own = own * (exposure / exposure.mean())
    own = own.rename(site="component").transpose("component", *tilts)
    return own.assign_coords(component=np.arange(1, len(share) + 1), site=("component", list(share))).rename("curves")


def site_spectra(
    data: xr.DataArray,
    curves: xr.DataArray,
    *,
    strength: float | None = None,
    background: xr.DataArray | None = None,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Return the spectrum of each site: a factorization whose curves over orientation are those of theory.

    Parameters
    ----------
    data : DataArray
        Counts over orientation and energy loss, dimensions ``(tilt_y, tilt_x, energy_loss)`` or without ``tilt_y``.
    curves : DataArray
        From `site_curves`, on the tilts of the data.
    strength : float, optional
        How strongly the curves are pulled towards theory (see `tensorspec.Near`); by default they are held. Without
        theory the data cannot tell which spectrum a minority site has.
    background : DataArray, optional
        Dimensions ``(component, *tilts)``: further curves, whose spectra are free, such as the intensity of a window
        before the edge.
    seed : int
        Of the start.
    **options
        Further arguments of `fit`.

    Returns
    -------
    Dataset
        ``spectrum`` and ``standard_error``, dimensions ``(component, energy_loss)``, counts for a share of one in a
        plane wave, with the sites as coordinate; ``curves`` as used; ``chi_squared`` by channel. ``attrs["condition"]``
        is the condition number of the curves: by so much noise can grow.

    Raises
    ------
    InvalidData
        If the data are no counts over the orientations of the curves.

    Notes
    -----
    ``counts[orientation, energy] ~ Poisson(sum over sites of curve * spectrum)``, solved by `tensorspec.fit` with
    `Fixed` or `Near` on the orientations. Errors are those of spectra for these curves; what is wrong with the curves
    is not among them.

    Examples
    --------
    >>> tilt, energy = np.linspace(-9, 9, 31), np.arange(630.0, 660.0)
    >>> true = np.stack([np.exp(-0.5 * ((energy - place) / 2) ** 2) for place in (641, 646)])
    >>> values = np.stack([0.2 + 0.1 * np.cos(tilt), 0.8 - 0.3 * np.cos(tilt)])
    >>> curves = xr.DataArray(values, dims=("component", "tilt_x"), coords={
    ...     "component": [1, 2], "tilt_x": tilt, "site": ("component", ["8a", "16d"])})
    >>> counts = np.random.default_rng(0).poisson(1e4 * curves.values.T @ true)
    >>> data = xr.DataArray(counts, dims=("tilt_x", "energy_loss"), coords={"tilt_x": tilt, "energy_loss": energy})
    >>> found = site_spectra(data, curves)
    >>> energy[found.spectrum.values.argmax(axis=1)].tolist()
    [641.0, 646.0]
    """
    tilts, energy = tilts_and_energy("site_spectra", data, curves)
    if strength is not None:
        number("strength", strength, 0, above=True)
    known = beside(curves, background)
    every = known.drop_vars("site", errors="ignore")
    rank = known.sizes["component"]
    held = Fixed(every) if strength is None else Near(every, strength)
    orientation = "orientation" if len(tilts) > 1 or _is_mode(data) else tilts[0]
    options = {"loss": Poisson(), "progress": False, **options}
    found: Fit = fit(data, CP(rank, {orientation: [held, NonNegative()], energy: NonNegative()}), seed=seed, **options)
    used = found.factors[orientation]
    seen = used.drop_vars("site", errors="ignore")
    amounts = unmix(data.transpose(energy, *tilts), seen, method="poisson", noise=NoiseModel())
    scale = xr.ones_like(known.isel({dim: 0 for dim in tilts}, drop=True)).drop_vars("site", errors="ignore")
    if strength is not None:
        # What is pulled keeps the size that theory gives it, so that spectra stay comparable.
        scale = np.sqrt((every**2).sum(tilts)) / np.sqrt((used**2).sum(tilts))
    sites = known["site"].values if "site" in known.coords else np.arange(1, rank + 1)
    spectrum = (amounts.maps / scale).transpose("component", energy).assign_coords(site=("component", sites))
    error = (amounts.standard_error / scale).transpose("component", energy).assign_coords(site=("component", sites))
    flat = every.transpose("component", *tilts).values.reshape(rank, -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return xr.Dataset(
        {
            "spectrum": spectrum.assign_attrs(units="counts", long_name="spectrum of a site"),
            "standard_error": error.assign_attrs(units="counts"),
            "curves": (used * scale).assign_coords(site=("component", sites)),
            "chi_squared": amounts.chi_squared,
        },
        attrs={"condition": float(np.linalg.cond(unit))},
    )


def _at(response: xr.DataArray, dim: str, value: float | None, unit: str) -> xr.DataArray:
    """Return a response at a place between those that it was computed for."""
    places = response[dim].values
    if value is None or not places[0] <= value <= places[-1]:
        raise InvalidArgument(f"{dim}={value!r}; the response runs from {places[0]:g} to {places[-1]:g} {unit}")
    return response.interp({dim: float(value)}, method="cubic" if len(places) > 3 else "linear").drop_vars(dim)


def tilts_and_energy(who: str, data: xr.DataArray, curves: xr.DataArray) -> tuple[list[str], str]:
    """Return the dimensions of data over orientation and energy loss, or refuse what is no such data."""
    tilts = [str(dim) for dim in curves.dims if dim != "component"]
    others = [str(dim) for dim in data.dims if dim not in tilts]
    if not set(tilts) <= set(data.dims) or len(others) != 1:
        raise InvalidData(
            f"{who}: data have dimensions {list(data.dims)}; expected {tilts} of the curves, and one of energy"
        )
    return tilts, others[0]


def beside(curves: xr.DataArray, background: xr.DataArray | None) -> xr.DataArray:
    """Return the curves of sites and, behind them, those of a background."""
    if background is None:
        return curves
    first = curves.sizes["component"]
    numbers = np.arange(first + 1, first + 1 + background.sizes["component"])
    more = background.drop_vars([name for name in background.coords if name not in curves.dims])
    names = [f"background {k + 1}" for k in range(len(numbers))]
    more = more.assign_coords(component=numbers, site=("component", names))
    return xr.concat([curves, more], "component")


def _is_mode(data: xr.DataArray) -> bool:
    from tensorspec.modes import find_modes

    return "orientation" in find_modes({"data": data})[0]


def share_of(found: Occupancy, element: str) -> dict[str, float]:
    """Return the shares of an element from a fit, as `site_curves` takes them.

    Raises
    ------
    UnknownName
        If the element was not fitted.
    """
    if element not in found.share["element"].values:
        raise UnknownName(f"no element {element!r}; fitted were {list(found.share['element'].values)}")
    own = found.share.sel(element=element)
    return {
        str(site): float(own.sel(site=site)) for site in own["site"].values if np.isfinite(float(own.sel(site=site)))
    }
