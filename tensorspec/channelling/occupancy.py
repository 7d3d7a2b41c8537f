"""Which site an element sits on, from how its lines change with orientation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.occupancy_likelihood import OccupancyLikelihood
from tensorspec.channelling.scoring import Scored
from tensorspec.errors import InvalidArgument, InvalidData, UnknownName, suggest

__all__ = ["Occupancy", "fit_occupancy"]

# Standard error of the difference of two shares, all others of the element held, above which two sites are not told
# apart.
APART = 0.1
# Chi-squared per degree of freedom that is worth a warning.
MISFIT = 1.5
STARTS, FEW, KEPT = 6, 3, 2


@dataclass(frozen=True, eq=False, repr=False)
class Occupancy:
    """Shares of elements over sites, with errors, and everything that was fitted beside them.

    Attributes
    ----------
    share : DataArray
        Dimensions ``(element, site)``: which part of the element sits there; NaN where a site was not asked about.
    standard_error : DataArray
        The same dimensions, from the inverse Fisher information; NaN for elements with one site.
    at_bound : DataArray
        True where a share is zero or one: there a one-sided interval is right, see `interval`.
    thickness, thickness_error : mapping of str to float
        By data set, nm.
    offset, scale : mapping
        By data set: what has to be added to the tilts, mrad by dimension, and what they are multiplied by.
    strength, background : mapping of str to DataArray
        By data set, counts of each line at an exposure of one.
    counts, model : mapping of str to DataArray
        As counted, and as expected, by data set.
    chi_squared : float
        Pearson's, per degree of freedom.
    by_line : mapping of str to DataArray
        The same for every line, by data set.
    correlation : DataArray
        Between all parameters that were free.
    """

    share: xr.DataArray
    standard_error: xr.DataArray
    at_bound: xr.DataArray
    thickness: Mapping[str, float]
    thickness_error: Mapping[str, float]
    offset: Mapping[str, Mapping[str, float]]
    scale: Mapping[str, float]
    strength: Mapping[str, xr.DataArray]
    background: Mapping[str, xr.DataArray]
    counts: Mapping[str, xr.DataArray]
    model: Mapping[str, xr.DataArray]
    chi_squared: float
    by_line: Mapping[str, xr.DataArray]
    correlation: xr.DataArray
    _problem: OccupancyLikelihood = field(repr=False)
    _scored: Scored = field(repr=False)

    def interval(self, element: str, site: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of a share by the profile of the likelihood, right at its bounds too.

        Parameters
        ----------
        element, site : str
            Whose share.
        level : float
            Confidence, for instance 0.95.

        Raises
        ------
        UnknownName
            If the share was not fitted.
        """
        from scipy.stats import chi2

        place = self._problem.place(element, site)
        limit = 0.5 * float(chi2.ppf(number("level", level, 0.5, 1), 1))
        best = self._problem.misfit(self._scored.x)
        at = float(self._scored.x[place])

        def rise(value: float) -> float:
            return self._problem.misfit(self._problem.solve(self._scored.x, held=(place, value)).x) - best - limit

        low = 0.0 if at <= 1e-9 or rise(0.0) < 0 else _root(rise, 0.0, at)
        high = 1.0 if at >= 1 - 1e-9 or rise(1.0) < 0 else _root(rise, at, 1.0)
        return low, high

    def __repr__(self) -> str:
        lines = [f"<Occupancy> chi-squared {self.chi_squared:.3f} per degree of freedom"]
        for name, depth in self.thickness.items():
            lines.append(f"  {name}: {depth:.1f} +- {self.thickness_error[name]:.1f} nm")
        for element in self.share["element"].values:
            cells = []
            for site in self.share["site"].values:
                value = float(self.share.sel(element=element, site=site))
                if np.isfinite(value):
                    error = float(self.standard_error.sel(element=element, site=site))
                    cells.append(f"{site} {value:.4f}" + (f" +- {error:.4f}" if np.isfinite(error) else ""))
            lines.append(f"  {element}: " + ", ".join(cells))
        return "\n".join(lines)


def fit_occupancy(
    counts: xr.DataArray | Mapping[str, xr.DataArray],
    response: xr.DataArray | Mapping[str, xr.DataArray],
    candidates: Mapping[str, Sequence[str]],
    *,
    background: Any = None,
    background_variance: Any = None,
    exposure: Any = None,
    thickness: Any = None,
    orientation: str = "offset",
    composition: Mapping[str, float] | None = None,
    places: Mapping[str, float] | None = None,
) -> Occupancy:
    """Fit where elements sit to the counts of their lines over orientation, by the likelihood of counts.

    Parameters
    ----------
    counts : DataArray or mapping of str to DataArray
        Dimensions ``(line, tilt_y, tilt_x)`` or ``(line, tilt_x)``, whole counts; tilts in mrad. Several data sets
        (rows, EDX and EELS) have the shares in common and nothing else: each shell has its own response.
    response : DataArray or mapping
        From `response`, of the same lines, on tilts that reach as far.
    candidates : mapping of str to sequence of str
        For each element that has a line (``"Mn"`` of ``"Mn K"``) the sites that it may sit on.
    background : DataArray, mapping or "free", optional
        Known counts beside the line, measured in windows at its sides, with the dimensions of the counts or fewer; or a
        free constant for every line, which costs precision; or none.
    background_variance : DataArray or mapping, optional
        Variance of that background, where it was measured with few counts.
    exposure : DataArray or mapping, optional
        Live time times beam current at every orientation, in any unit.
    thickness : (mean, standard deviation) or mapping of str to such a pair, optional
        What is known of it, nm.
    orientation : {"offset", "fixed", "offset and scale"}
        What of the tilts is fitted.
    composition : mapping of str to float, optional
        Atoms of each element in the cell; with `places` no site can hold more than it has.
    places : mapping of str to float, optional
        Number of positions of each site in the cell.

    Returns
    -------
    Occupancy

    Raises
    ------
    InvalidData
        If counts are negative or not finite, or tilts lie outside of those of the response.
    UnknownName
        If a line or site is not in the response, or an element has no candidates.
    InvalidArgument
        If a setting cannot be meant, or the composition does not fit the sites.

    Warns
    -----
    UserWarning
        If two sites cannot be told apart with these orientations, or the misfit is larger than counts make it.

    Notes
    -----
    ``counts ~ Poisson(exposure (strength * sum over sites of share * response + constant) + background)``, shares of an
    element zero or more and one in sum, maximised by Fisher scoring from several thicknesses. Errors are those of the
    counts; that of the model (scattering factors, displacements, the local approximation) is not among them: fit with
    other responses and see how far the shares move.

    Examples
    --------
    >>> tilt, depth = np.linspace(-9, 9, 31), np.arange(5.0, 61, 5)
    >>> wave = np.cos(tilt)[:, None] * np.sin(depth / 40)
    >>> values = np.stack([1 + 0.4 * wave, 1 - 0.3 * wave])[:, None]
    >>> sites = {"site": ["tetrahedron", "octahedron"], "line": ["Mn K"], "tilt_x": tilt, "thickness": depth}
    >>> known = xr.DataArray(values, dims=list(sites), coords=sites)
    >>> mean = 20_000 * (0.3 * known[0] + 0.7 * known[1]).sel(thickness=40)
    >>> drawn = mean.copy(data=np.random.default_rng(0).poisson(mean))
    >>> found = fit_occupancy(drawn, known, {"Mn": ["tetrahedron", "octahedron"]}, thickness=(40, 0.5))
    >>> bool(abs(found.share.sel(element="Mn", site="tetrahedron") - 0.3) < 0.03)
    True
    """
    if orientation not in ("offset", "fixed", "offset and scale"):
        raise InvalidArgument(f"orientation={orientation!r}; expected 'offset', 'fixed' or 'offset and scale'")
    sets = dict(counts) if isinstance(counts, Mapping) else {"data": counts}
    found = {name: _of(response, name, "response") for name in sets}
    free = isinstance(background, str)
    if free and background != "free":
        raise InvalidArgument(f"background={background!r}; expected counts, 'free', or None")
    problem = OccupancyLikelihood(
        {name: _checked_counts(name, own, found[name]) for name, own in sets.items()},
        found,
        {str(element): [str(site) for site in sites] for element, sites in candidates.items()},
        {name: _on_counts(None if free else background, name, sets[name], 0.0, "background") for name in sets},
        {name: _on_counts(background_variance, name, sets[name], 0.0, "background_variance") for name in sets},
        {name: _on_counts(exposure, name, sets[name].isel(line=0, drop=True), 1.0, "exposure") for name in sets},
        {name: _prior(thickness, name) for name in sets},
        free,
        orientation,
        _limits(composition, places, candidates),
    )
    # A few steps from several thicknesses show which are worth going on from.
    tried = [problem.solve(problem.start((k + 0.5) / STARTS), most=FEW) for k in range(STARTS)]
    tried.sort(key=lambda scored: problem.misfit(scored.x))
    best = min((problem.solve(scored.x) for scored in tried[:KEPT]), key=lambda scored: problem.misfit(scored.x))
    result = _read_out(problem, best)
    for text in _doubts(problem, best, result):
        warnings.warn(text, UserWarning, stacklevel=2)
    return result


def _read_out(problem: OccupancyLikelihood, scored: Scored) -> Occupancy:
    """Return the point with labels and errors."""
    x, deviation = scored.x, np.sqrt(np.maximum(np.diag(scored.covariance), 0))
    shape = (len(problem.elements), len(problem.sites))
    share, error, edge = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
    for (element, site), place in problem.shares.items():
        at = problem.elements.index(element), problem.sites.index(site)
        share[at] = x[place]
        if len(problem.candidates[element]) > 1:
            edge[at] = x[place] < 1e-9 or x[place] > 1 - 1e-9
            error[at] = np.nan if edge[at] else deviation[place]
    coords = {"element": problem.elements, "site": problem.sites}
    mean = problem.mean(x)[0]
    pearson = (problem.values - mean) ** 2 / np.maximum(mean + problem.extra, 1e-12)
    free = len(x) - len(problem.bounds.equal) - int(scored.active.sum())
    models, by_line, at = {}, {}, 0
    for name, own in problem.counts.items():
        size = own.size
        models[name] = own.copy(data=mean[at : at + size].reshape(own.shape)).rename("model")
        each = pearson[at : at + size].reshape(own.sizes["line"], -1).mean(axis=1)
        by_line[name] = xr.DataArray(each, dims="line", coords={"line": own["line"].values})
        at += size
    varied = np.flatnonzero(deviation > 1e-12 * np.maximum(np.abs(x), 1))
    matrix = scored.covariance[np.ix_(varied, varied)] / np.outer(deviation[varied], deviation[varied])
    labels = [problem.names[place] for place in varied]

    def each_line(places: Mapping[tuple[str, str], int], name: str) -> xr.DataArray:
        lines = [str(line) for line in problem.counts[name]["line"].values]
        values = [x[places[name, line]] if (name, line) in places else 0.0 for line in lines]
        return xr.DataArray(values, dims="line", coords={"line": lines})

    return Occupancy(
        share=xr.DataArray(share, dims=list(coords), coords=coords, name="share"),
        standard_error=xr.DataArray(error, dims=list(coords), coords=coords, name="standard_error"),
        at_bound=xr.DataArray(edge, dims=list(coords), coords=coords, name="at_bound"),
        thickness={name: float(x[place]) for name, place in problem.depth.items()},
        thickness_error={name: float(deviation[place]) for name, place in problem.depth.items()},
        offset={
            name: {dim: float(x[problem.moves[name, dim]]) for dim in model.tilts if (name, dim) in problem.moves}
            for name, model in problem.models.items()
        },
        scale={name: float(x[problem.scales[name]]) if name in problem.scales else 1.0 for name in problem.counts},
        strength={name: each_line(problem.strengths, name) for name in problem.counts},
        background={name: each_line(problem.constants, name) for name in problem.counts},
        counts=dict(problem.counts),
        model=models,
        chi_squared=float(pearson.sum() / max(len(pearson) - int(free), 1)),
        by_line=by_line,
        correlation=xr.DataArray(
            matrix, dims=("parameter", "other"), coords={"parameter": labels, "other": labels}, name="correlation"
        ),
        _problem=problem,
        _scored=scored,
    )


def _doubts(problem: OccupancyLikelihood, scored: Scored, result: Occupancy) -> list[str]:
    """Return what has to be said about the answer."""
    said = []
    for element in problem.elements:
        sites = problem.candidates[element]
        for k, first in enumerate(sites):
            for second in sites[k + 1 :]:
                error = problem.exchange_error(scored, element, first, second)
                if error > APART:
                    said.append(
                        f"fit_occupancy: {element} on {first!r} and on {second!r} cannot be told apart with these "
                        f"orientations (standard error of the difference {min(error, 99):.2g}); add a row or a "
                        "pattern whose reflections differ for them, or leave one out"
                    )
    if result.chi_squared > MISFIT:
        said.append(
            f"fit_occupancy: chi-squared is {result.chi_squared:.3g} per degree of freedom: the model does not "
            "describe the counts (absorption, background, orientation, thickness, drift of the current?), and the "
            "errors do not hold"
        )
    if not scored.settled:
        said.append("fit_occupancy: the likelihood was still rising at the last step")
    return said


def _root(function: Any, low: float, high: float) -> float:
    from scipy.optimize import brentq

    found: Any = brentq(function, low, high, xtol=1e-5)
    return float(found)


def _of(given: Any, name: str, what: str) -> Any:
    if isinstance(given, Mapping):
        if name not in given:
            raise UnknownName(f"no {what} for {name!r}; given for {list(given)}")
        return given[name]
    return given


def _checked_counts(name: str, counts: Any, response: Any) -> xr.DataArray:
    for what, each in (("counts", counts), ("response", response)):
        if not isinstance(each, xr.DataArray) or "line" not in each.dims:
            raise InvalidData(
                f"{what} of {name!r}: expected a DataArray with the dimension 'line' and those of the tilts"
            )
    tilts = [dim for dim in response.dims if dim not in ("site", "line", "thickness")]
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


def _on_counts(given: Any, name: str, like: xr.DataArray, default: float, what: str) -> np.ndarray:
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


def _prior(thickness: Any, name: str) -> tuple[float, float] | None:
    if isinstance(thickness, Mapping):
        thickness = thickness.get(name)
    if thickness is None:
        return None
    if not isinstance(thickness, Sequence) or len(thickness) != 2:
        raise InvalidArgument(f"thickness={thickness!r}; expected (mean, standard deviation) in nm")
    return number("thickness: mean", thickness[0], 0), number(
        "thickness: standard deviation", thickness[1], 0, above=True
    )


def _limits(
    composition: Mapping[str, float] | None, places: Mapping[str, float] | None, candidates: Mapping[str, Sequence[str]]
) -> list[tuple[dict[tuple[str, str], float], float]]:
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
