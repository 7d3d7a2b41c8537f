"""The valence of an element on each of its sites, from energy losses over orientation, with bands."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tensorspec.arguments import number, whole
from tensorspec.channelling.mixture_likelihood import most_likely_mixtures
from tensorspec.channelling.spectra_of_sites import beside, tilts_and_energy
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise import NoiseModel
from tensorspec.twoway.regression import unmix

__all__ = ["site_valence"]

METHODS = ("references", "ratio", "position")
# Chi-squared per degree of freedom of the reference spectra that is worth a warning.
MISFIT = 1.5
FEWEST_DRAWS = 20


def site_valence(
    data: xr.DataArray,
    curves: xr.DataArray | Sequence[xr.DataArray],
    references: Mapping[float, xr.DataArray],
    *,
    method: str = "references",
    windows: Sequence[tuple[float, float]] | None = None,
    background: xr.DataArray | None = None,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Find the mean valence of an element on each site, calibrated with reference spectra of known valence.

    Parameters
    ----------
    data : DataArray
        Counts over orientation and energy loss, dimensions ``(*tilts, energy_loss)``.
    curves : DataArray or sequence of DataArray
        From `site_curves`, on the tilts of the data. Of several, which differ in what is not known for certain (shares,
        thickness, form factors), the first is believed, and the bands hold what the others would give.
    references : mapping of float to DataArray
        For two valences at least, a spectrum on the energies of the data; their sizes do not matter for the ratio and
        the position, and are made alike for the fit.
    method : {"references", "ratio", "position"}
        Each site is a sum of the references, zero or more of each; or the ratio of the counts in two windows (L3 and
        L2), or the mean energy within one window (L3), of the site's spectrum, read between those of the references.
    windows : sequence of (low, high)
        eV: two for the ratio, one for the position, none for the references.
    background : DataArray, optional
        Dimensions ``(component, *tilts)``: further curves, whose spectra are free, see `site_spectra`.
    draws : int
        Of the bootstrap: counts are drawn anew from what was fitted, and all is done again.
    level : float
        Of the bands.
    seed : int
        Of the draws.

    Returns
    -------
    Dataset
        By ``site``: ``valence``, ``standard_error``, and the band from ``low`` to ``high``. For the references also
        ``amount`` by ``reference``, counts of it for a share of one in a plane wave; for the others ``measured``, the
        ratio or the position. ``attrs["chi_squared"]`` is that of all counts for what was fitted.

    Raises
    ------
    InvalidArgument
        If there are fewer than two references, or the windows do not belong to the method or order the references.
    InvalidData
        If a reference is not on the energies of the data.

    Warns
    -----
    UserWarning
        If sums of the references do not explain the counts: the valence is then not to be trusted.

    Notes
    -----
    For the references ``counts[orientation, energy] ~ Poisson(sum over sites of curve * sum over references of amount *
    reference)``, the most likely amounts of all sites at once, and the valence their mean, weighted with the amounts.
    References are scaled to the same sum, as if an atom gave as many counts within the window in each valence. Read
    from a ratio or a position, a mixture of valences is a little off (3 and 4 with mean 3.6, spectra as in
    `phantoms.manganese_white_lines`: by 0.03 and 0.02), as neither is linear in the amounts. The bands are quantiles
    of a parametric bootstrap; what is wrong with references and with the one curve is not in them.

    Examples
    --------
    >>> from tensorspec.channelling.phantoms import manganese_white_lines
    >>> energy = xr.DataArray(np.arange(635.0, 665.0, 0.5), dims="energy_loss")
    >>> lines = {value: energy.copy(data=manganese_white_lines(value, energy.values)).assign_coords(energy_loss=energy)
    ...          for value in (2.0, 3.0, 4.0)}
    >>> tilt = np.linspace(-9, 9, 31)
    >>> values = np.stack([0.3 + 0.1 * np.cos(tilt), 0.7 - 0.2 * np.cos(tilt)])
    >>> curves = xr.DataArray(values, dims=("component", "tilt_x"), coords={
    ...     "component": [1, 2], "tilt_x": tilt, "site": ("component", ["8a", "16d"])})
    >>> mean = 1e5 * (curves[0] * lines[3.0] + curves[1] * lines[4.0])
    >>> counts = mean.copy(data=np.random.default_rng(0).poisson(mean))
    >>> found = site_valence(counts, curves, lines, draws=50)
    >>> bool((abs(found.valence - [3, 4]) < 0.1).all())
    True
    """
    believed, *others = [curves] if isinstance(curves, xr.DataArray) else list(curves)
    tilts, energy = tilts_and_energy("site_valence", data, believed)
    if method not in METHODS:
        raise InvalidArgument(f"method={method!r}; expected one of {list(METHODS)}")
    known = _checked_references(references, data[energy])
    parts = _checked_windows(method, windows, data[energy])
    whole("draws", draws, FEWEST_DRAWS)
    number("level", level, 0.5, 1)
    sites = [str(site) for site in believed["site"].values]
    every = [beside(own, background).drop_vars("site", errors="ignore") for own in (believed, *others)]

    reader: _Mixtures | _Measures
    if method == "references":
        reader = _Mixtures(every, known, len(sites), tilts, energy)
    else:
        reader = _Measures(every, known, len(sites), tilts, energy, parts)
    mean = reader.expected(data).transpose(*data.dims)
    valence, detail = reader.read(data, 0)
    rng = np.random.default_rng(seed)
    parts_of_draws = np.array_split(np.arange(draws), len(every))
    drawn = []
    for which, own in enumerate(parts_of_draws):
        if len(own):
            values = rng.poisson(np.broadcast_to(mean.values, (len(own), *mean.shape)))
            stacked = xr.DataArray(values, dims=("draw", *data.dims), coords={dim: data[dim] for dim in data.dims})
            drawn.append(reader.read(stacked, which)[0])
    scatter = np.concatenate(drawn)
    edges = np.nanquantile(scatter, [(1 - level) / 2, (1 + level) / 2], axis=0)
    behind = every[0].sizes["component"] - len(sites)
    free = len(sites) * (len(known) if method == "references" else mean.sizes[energy]) + behind * mean.sizes[energy]
    chi_squared = _chi_squared(data, mean, free)
    if method == "references" and chi_squared > MISFIT:
        warnings.warn(
            f"site_valence: chi-squared is {chi_squared:.3g} per degree of freedom: sums of the references do not "
            "explain the counts (energy scale, background, another valence, the curves?)",
            UserWarning,
            stacklevel=2,
        )
    result = xr.Dataset(
        {
            "valence": ("site", valence[0]),
            "standard_error": ("site", np.nanstd(scatter, axis=0, ddof=1)),
            "low": ("site", edges[0]),
            "high": ("site", edges[1]),
        },
        coords={"site": sites},
        attrs={"chi_squared": chi_squared, "method": method, "draws": draws, "level": level},
    )
    if method == "references":
        result["amount"] = (("site", "reference"), detail[0])
        return result.assign_coords(reference=list(known))
    result["measured"] = ("site", detail[0], {} if method == "ratio" else {"units": "eV"})
    return result


class _Mixtures:
    """Sites as sums of the references: the most likely amounts of all at once."""

    def __init__(
        self,
        curves: list[xr.DataArray],
        references: dict[float, xr.DataArray],
        sites: int,
        tilts: list[str],
        energy: str,
    ) -> None:
        self.tilts, self.energy, self.sites = tilts, energy, sites
        self.curves = [own.transpose("component", *tilts).values.reshape(own.sizes["component"], -1) for own in curves]
        self.valences = np.array(list(references))
        self.references = np.array([own.values for own in references.values()])

    def _solved(self, counts: xr.DataArray, which: int) -> tuple[np.ndarray, np.ndarray, xr.DataArray]:
        ordered = counts.transpose(..., *self.tilts, self.energy)
        values = ordered.values.reshape(-1, self.curves[which].shape[1], counts.sizes[self.energy])
        own = self.curves[which]
        return *most_likely_mixtures(values, own[: self.sites], self.references, own[self.sites :]), ordered

    def read(self, counts: xr.DataArray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean valences, (draws, sites), and the amounts, (draws, sites, references)."""
        amounts, _, _ = self._solved(counts, which)
        total = amounts.sum(axis=2)
        with np.errstate(invalid="ignore"):
            return amounts @ self.valences / np.where(total > 0, total, np.nan), amounts

    def expected(self, counts: xr.DataArray) -> xr.DataArray:
        """Return the counts that were fitted, zero at least."""
        _, mean, ordered = self._solved(counts, 0)
        return ordered.copy(data=np.maximum(mean, 0.0).reshape(ordered.shape))


class _Measures:
    """A ratio or a position of every site's own spectrum, read between those of the references."""

    def __init__(
        self,
        curves: list[xr.DataArray],
        references: dict[float, xr.DataArray],
        sites: int,
        tilts: list[str],
        energy: str,
        windows: list[tuple[float, float]],
    ) -> None:
        self.curves, self.sites, self.tilts, self.energy, self.windows = curves, sites, tilts, energy, windows
        scale = np.array([float(_measured(own, windows, energy)) for own in references.values()])
        valences = np.array(list(references))
        order = np.argsort(scale)
        self.scale, self.valences = scale[order], valences[order]
        steps = np.diff(self.valences)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InvalidArgument(
                f"windows={windows}: what is measured in them is {scale.round(4).tolist()} for the valences "
                f"{valences.tolist()}, which neither rises nor falls with the valence; choose others"
            )

    def read(self, counts: xr.DataArray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the valences, (draws, sites), and what was measured."""
        spectra = _spectra(counts, self.curves[which], self.tilts, self.energy).isel(component=slice(self.sites))
        own = _measured(spectra, self.windows, self.energy).transpose(..., "component").values.reshape(-1, self.sites)
        return _between(own, self.scale, self.valences), own

    def expected(self, counts: xr.DataArray) -> xr.DataArray:
        """Return the counts that were fitted."""
        own = self.curves[0].drop_vars("component", errors="ignore")
        return xr.dot(_spectra(counts, self.curves[0], self.tilts, self.energy), own, dim="component")


def _checked_references(references: Mapping[float, xr.DataArray], energy: xr.DataArray) -> dict[float, xr.DataArray]:
    """Return the references as counts of unit sum."""
    if not isinstance(references, Mapping) or len(references) < 2:
        raise InvalidArgument("references: expected spectra of two valences at least, {3.0: spectrum, 4.0: spectrum}")
    result = {}
    for valence, spectrum in references.items():
        value = number("references: valence", valence, -10, 10)
        if not isinstance(spectrum, xr.DataArray) or spectrum.dims != (energy.name,):
            raise InvalidData(f"reference {valence}: expected a DataArray with the dimension {energy.name!r} alone")
        if spectrum.sizes[energy.name] != energy.size or not np.allclose(spectrum[energy.name], energy, atol=1e-6):
            raise InvalidData(f"reference {valence}: its energies are not those of the data; interpolate it first")
        values = spectrum.values.astype(float)
        if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
            raise InvalidData(f"reference {valence}: expected finite values of zero or more, not all zero")
        result[value] = spectrum.copy(data=values / values.sum()).reset_coords(drop=True)
    return dict(sorted(result.items()))


def _checked_windows(
    method: str, windows: Sequence[tuple[float, float]] | None, energy: xr.DataArray
) -> list[tuple[float, float]]:
    expected = {"references": 0, "ratio": 2, "position": 1}[method]
    given = list(windows or [])
    if len(given) != expected:
        raise InvalidArgument(f"windows={windows!r}; method={method!r} needs {expected}, as (low, high) in eV")
    for low, high in given:
        if not int(((energy >= low) & (energy <= high)).sum()) > 2:
            raise InvalidArgument(
                f"window ({low}, {high}) holds fewer than three channels; the data run from {float(energy[0]):g} to "
                f"{float(energy[-1]):g} eV"
            )
    return [(float(low), float(high)) for low, high in given]


def _spectra(data: xr.DataArray, curves: xr.DataArray, tilts: list[str], energy: str) -> xr.DataArray:
    """Return the most likely spectrum of each curve."""
    others = [dim for dim in data.dims if dim not in (energy, *tilts)]
    found = unmix(data.transpose(*others, energy, *tilts), curves, method="poisson", noise=NoiseModel())
    return found.maps.drop_vars("component", errors="ignore")


def _measured(spectra: xr.DataArray, windows: list[tuple[float, float]], energy: str) -> xr.DataArray:
    """Return the ratio of the counts in two windows, or the mean energy in one."""
    parts = [spectra.where((spectra[energy] >= low) & (spectra[energy] <= high), 0.0) for low, high in windows]
    sums = [part.sum(energy) for part in parts]
    if len(windows) == 2:
        return sums[0] / sums[1].where(sums[1] > 0)
    return (parts[0] * spectra[energy]).sum(energy) / sums[0].where(sums[0] > 0)


def _between(values: np.ndarray, scale: np.ndarray, valences: np.ndarray) -> np.ndarray:
    """Return the valences of what was measured: between the references in straight lines, and on beyond the last."""
    place = np.clip(np.searchsorted(scale, values) - 1, 0, len(scale) - 2)
    slope = np.diff(valences) / np.diff(scale)
    return valences[place] + slope[place] * (values - scale[place])


def _chi_squared(data: xr.DataArray, mean: xr.DataArray, free: int) -> float:
    values, expected = data.values.astype(float), mean.values
    used = expected > 0
    score = (values[used] - expected[used]) ** 2 / expected[used]
    return float(score.sum() / max(int(used.sum()) - free, 1))
