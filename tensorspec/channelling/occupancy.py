"""Which site an element sits on, from how its lines change with orientation."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.occupancy_input import (
    checked_counts,
    given_for,
    limits_of_sites,
    of_several,
    on_counts,
    prior,
)
from tensorspec.channelling.occupancy_likelihood import OccupancyLikelihood
from tensorspec.channelling.scoring import Scored
from tensorspec.errors import InvalidArgument

__all__ = ["Occupancy", "fit_occupancy"]

# Standard error of the difference of two shares, all others of the element held, above which two sites are not told
# apart.
APART = 0.1
# The same error above which a share is not known at all: it would be anything from zero to one.
UNKNOWN = 1.0
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
        The same dimensions, from the inverse Fisher information; NaN for elements with one site,
        infinite where two sites cannot be told apart at all.
    at_bound : DataArray
        True where a share is zero or one: there a one-sided interval is right, see `interval`.
    thickness, thickness_error : mapping of str to float
        By data set, nm.
    convergence, convergence_error : mapping of str to float
        By data set whose response has several, mrad.
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
    doubts : tuple of str
        What was warned of.
    """

    share: xr.DataArray
    standard_error: xr.DataArray
    at_bound: xr.DataArray
    thickness: Mapping[str, float]
    thickness_error: Mapping[str, float]
    convergence: Mapping[str, float]
    convergence_error: Mapping[str, float]
    offset: Mapping[str, Mapping[str, float]]
    scale: Mapping[str, float]
    strength: Mapping[str, xr.DataArray]
    background: Mapping[str, xr.DataArray]
    counts: Mapping[str, xr.DataArray]
    model: Mapping[str, xr.DataArray]
    chi_squared: float
    by_line: Mapping[str, xr.DataArray]
    correlation: xr.DataArray
    doubts: tuple[str, ...]
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
            text = f"  {name}: {depth:.1f} +- {self.thickness_error[name]:.1f} nm"
            if name in self.convergence:
                text += f", convergence {self.convergence[name]:.2f} +- {self.convergence_error[name]:.2f} mrad"
            lines.append(text)
        for element in self.share["element"].values:
            cells = []
            for site in self.share["site"].values:
                value = float(self.share.sel(element=element, site=site))
                if np.isfinite(value):
                    error = float(self.standard_error.sel(element=element, site=site))
                    cells.append(f"{site} {value:.4f}" + (f" +- {error:.4f}" if not np.isnan(error) else ""))
            lines.append(f"  {element}: " + ", ".join(cells))
        lines += [f"  Doubt: {text}" for text in self.doubts]
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
    convergence: Any = None,
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
    convergence : (mean, standard deviation) or mapping of str to such a pair, optional
        What is known of it, mrad; it is fitted where the response was computed for several, see `response`.
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
    found = {name: given_for(response, name, "response") for name in sets}
    free = isinstance(background, str)
    if free and background != "free":
        raise InvalidArgument(f"background={background!r}; expected counts, 'free', or None")
    problem = OccupancyLikelihood(
        {name: checked_counts(name, own, found[name]) for name, own in sets.items()},
        found,
        {str(element): [str(site) for site in sites] for element, sites in candidates.items()},
        {name: on_counts(None if free else background, name, sets[name], 0.0, "background") for name in sets},
        {name: on_counts(background_variance, name, sets[name], 0.0, "background_variance") for name in sets},
        {name: on_counts(exposure, name, sets[name].isel(line=0, drop=True), 1.0, "exposure") for name in sets},
        {name: prior("thickness", "nm", thickness, name) for name in sets},
        {name: of_several(convergence, name, found[name]) for name in sets},
        free,
        orientation,
        limits_of_sites(composition, places, candidates),
    )
    # A few steps from several thicknesses show which are worth going on from.
    tried = [problem.solve(problem.start((k + 0.5) / STARTS), most=FEW) for k in range(STARTS)]
    tried.sort(key=lambda scored: problem.misfit(scored.x))
    best = min((problem.solve(scored.x) for scored in tried[:KEPT]), key=lambda scored: problem.misfit(scored.x))
    result = _read_out(problem, best)
    exchanges = _exchanges(problem, best)
    error = result.standard_error.copy()
    for (element, *pair), own in exchanges.items():
        if own > UNKNOWN:
            # What counts say nothing of has no error that the inverse information knows.
            error.loc[{"element": element, "site": pair}] = np.inf
    result = dataclasses.replace(result, standard_error=error)
    result = dataclasses.replace(result, doubts=tuple(_doubts(exchanges, best, result)))
    for text in result.doubts:
        warnings.warn(f"fit_occupancy: {text}", UserWarning, stacklevel=2)
    return result


def _read_out(problem: OccupancyLikelihood, scored: Scored) -> Occupancy:
    """Return the point with labels and errors."""
    x, deviation = scored.x, np.sqrt(np.maximum(np.diag(scored.covariance), 0))
    shape = (len(problem.elements), len(problem.sites))
    share, error, edge = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
    for (element, site), place in problem.shares.items():
        at = problem.elements.index(element), problem.sites.index(site)
        share[at] = np.clip(x[place], 0.0, 1.0)  # rounding leaves a bound by 1e-17
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
        convergence={name: float(x[place]) for name, place in problem.widths.items()},
        convergence_error={name: float(deviation[place]) for name, place in problem.widths.items()},
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
        doubts=(),
        _problem=problem,
        _scored=scored,
    )


def _exchanges(problem: OccupancyLikelihood, scored: Scored) -> dict[tuple[str, str, str], float]:
    """Return for each element and pair of its sites the standard error of what is moved from one to the other."""
    return {
        (element, first, second): problem.exchange_error(scored, element, first, second)
        for element in problem.elements
        for k, first in enumerate(problem.candidates[element])
        for second in problem.candidates[element][k + 1 :]
    }


def _doubts(exchanges: Mapping[tuple[str, str, str], float], scored: Scored, result: Occupancy) -> list[str]:
    """Return what has to be said about the answer."""
    said = [
        f"{element} on {first!r} and on {second!r} cannot be told apart with these orientations (standard error of the "
        f"difference {min(error, 99):.2g}); add a row or a pattern whose reflections differ for them, or leave one out"
        for (element, first, second), error in exchanges.items()
        if error > APART
    ]
    if result.chi_squared > MISFIT:
        said.append(
            f"chi-squared is {result.chi_squared:.3g} per degree of freedom: the model does not "
            "describe the counts (absorption, background, orientation, thickness, drift of the current?), and the "
            "errors do not hold"
        )
    if not scored.settled:
        said.append("the likelihood was still rising at the last step")
    return said


def _root(function: Any, low: float, high: float) -> float:
    from scipy.optimize import brentq

    found: Any = brentq(function, low, high, xtol=1e-5)
    return float(found)
