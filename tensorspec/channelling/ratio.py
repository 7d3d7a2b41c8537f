"""Statistical ALCHEMI: where an element sits from the lines of hosts whose sites are known, without theory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, UnknownName, suggest

__all__ = ["SiteRatio", "ratio_of_two_sites", "statistical_alchemi"]


@dataclass(frozen=True, eq=False)
class SiteRatio:
    """Shares of an element over the sites of the hosts.

    Attributes
    ----------
    share, standard_error : DataArray
        Dimension ``site``.
    chi_squared : float
        Per degree of freedom, with the noise of the hosts in it.
    """

    share: xr.DataArray
    standard_error: xr.DataArray
    chi_squared: float


def statistical_alchemi(
    counts: xr.DataArray,
    line: str,
    hosts: Mapping[str, str],
    atoms: Mapping[str, float],
    *,
    response: xr.DataArray | None = None,
    constant: bool = False,
) -> SiteRatio:
    """Fit the line of an element by those of hosts that sit on one site each.

    Parameters
    ----------
    counts : DataArray
        Dimension ``line`` and those of the orientations.
    line : str
        Whose element is asked about.
    hosts : mapping of str to str
        For each site the line of the host that sits there and nowhere else.
    atoms : mapping of str to float
        Atoms of the host on each site, in the cell.
    response : DataArray, optional
        From `response` at one thickness, on the tilts of the counts: corrects for the delocalisation, in which the
        lines of light elements see less of the channelling than those of heavy ones.
    constant : bool
        Whether a constant is fitted too.

    Returns
    -------
    SiteRatio

    Raises
    ------
    UnknownName
        If a line is not among the counts.
    InvalidArgument
        If there are fewer than two hosts, or a host has no atoms.
    InvalidData
        If counts are negative.

    Notes
    -----
    ``I_x = sum over sites of alpha_i I_i``, shares ``n_i alpha_i`` over their sum: Rossouw, Forwood, Gibson and Miller,
    Philosophical Magazine A 74 (1996) 57, doi:10.1080/01418619608239690; the correction: Oxley, Allen and Rossouw,
    Ultramicroscopy 80 (1999) 109, doi:10.1016/S0304-3991(99)00099-3. The hosts have noise as the line has: the squared
    distance over the variance of both is minimised.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> first, second = 1 + 0.4 * np.cos(np.linspace(0, 9, 50)), 1 - 0.3 * np.cos(np.linspace(0, 9, 50))
    >>> mean = np.stack([1e5 * first, 2e5 * second, 3e4 * (0.25 * first + 0.75 * second)])
    >>> counts = xr.DataArray(rng.poisson(mean), dims=("line", "tilt_x"), coords={"line": ["Mg K", "Al K", "Fe K"]})
    >>> found = statistical_alchemi(counts, "Fe K", {"8a": "Mg K", "16d": "Al K"}, {"8a": 8, "16d": 16})
    >>> bool(abs(found.share.sel(site="8a") - 0.25) < 0.02)
    True
    """
    from scipy.optimize import least_squares

    lines = [str(each) for each in counts["line"].values]
    for each in (line, *hosts.values()):
        if each not in lines:
            raise UnknownName(f"no line {each!r}; the counts have {lines}.{suggest(each, lines)}")
    if len(hosts) < 2:
        raise InvalidArgument(f"hosts={dict(hosts)}; expected two sites or more, each with a host of its own")
    if any(not atoms.get(site, 0) > 0 for site in hosts):
        raise InvalidArgument(f"atoms={dict(atoms)}; expected a number above zero for each of {list(hosts)}")
    flat = counts.transpose("line", ...).values.reshape(len(lines), -1).astype(float)
    if not (flat >= 0).all():
        raise InvalidData("statistical_alchemi: counts are negative or not finite")
    own = flat[lines.index(line)]
    seen, variance = [], []
    for site, host in hosts.items():
        values = flat[lines.index(host)]
        factor = np.ones_like(values) if response is None else _correction(response, site, line, host, counts)
        seen.append(factor * values)
        variance.append(factor**2 * values)
    design, spread = np.array(seen).T, np.array(variance).T
    if constant:
        design = np.column_stack([design, np.full(len(own), own.mean())])
        spread = np.column_stack([spread, np.zeros(len(own))])
    scale = own.mean() / design.mean(axis=0)

    def left(alpha: np.ndarray) -> np.ndarray:
        weights = alpha * scale
        # The noise of a count is judged by what is expected of it.
        return (own - design @ weights) / np.sqrt(np.maximum(design @ weights, 1.0) + spread @ weights**2)

    found = least_squares(left, np.full(design.shape[1], 1 / design.shape[1]), x_scale="jac")
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * np.outer(scale, scale)
    alpha = found.x * scale
    number_of = np.array([float(atoms[site]) for site in hosts])
    amounts = number_of * alpha[: len(hosts)]
    whole = amounts.sum()
    jacobian = np.diag(number_of) / whole - np.outer(amounts, number_of) / whole**2
    errors = np.sqrt(np.diag(jacobian @ covariance[: len(hosts), : len(hosts)] @ jacobian.T))
    coords = {"site": list(hosts)}
    return SiteRatio(
        xr.DataArray(amounts / whole, dims="site", coords=coords, name="share"),
        xr.DataArray(errors, dims="site", coords=coords, name="standard_error"),
        2 * float(found.cost) / max(len(own) - len(alpha), 1),
    )


def ratio_of_two_sites(
    part: xr.DataArray, error: xr.DataArray, first: xr.DataArray, second: xr.DataArray
) -> tuple[float, float, float]:
    """Return the ratio of the numbers of atoms on two sites by the classic formula, its error, and how constant it is.

    Parameters
    ----------
    part, error : DataArray
        Share ``C`` of a signal that comes from the first site, at every orientation, and its standard error.
    first, second : DataArray
        Responses of the two sites at the same orientations.

    Returns
    -------
    ratio, standard_error : float
        Atoms on the first site over those on the second, the mean over orientations by their precision.
    chi_squared : float
        Of its constancy, per degree of freedom: one where the formula holds.

    Raises
    ------
    InvalidData
        If a share is not between zero and one.

    Notes
    -----
    ``N_1 / N_2 = C / (1 - C) * r_2 / r_1`` at each orientation.

    Examples
    --------
    >>> tilt = np.linspace(0, 6, 30)
    >>> first, second = (xr.DataArray(1 + size * np.cos(tilt), dims="tilt_x") for size in (0.4, -0.3))
    >>> part = 0.25 * first / (0.25 * first + 0.75 * second)
    >>> ratio, _, chi_squared = ratio_of_two_sites(part, xr.full_like(part, 0.01), first, second)
    >>> round(ratio, 6), round(chi_squared, 6)
    (0.333333, 0.0)
    """
    c = part.values.astype(float).ravel()
    if not ((c > 0) & (c < 1)).all():
        raise InvalidData("ratio_of_two_sites: expected shares between zero and one at every orientation")
    each = c / (1 - c) * (second / first).values.ravel()
    spread = error.values.ravel() / (1 - c) ** 2 * (second / first).values.ravel()
    weight = 1 / spread**2
    mean = float((weight * each).sum() / weight.sum())
    chi_squared = float((weight * (each - mean) ** 2).sum() / max(len(each) - 1, 1))
    return mean, float(weight.sum() ** -0.5), chi_squared


def _correction(response: xr.DataArray, site: str, line: str, host: str, counts: xr.DataArray) -> np.ndarray:
    """Return by how much more the line of the element follows the channelling on a site than that of the host."""
    for dim in ("thickness", "convergence"):
        if dim in response.dims:
            raise InvalidArgument(f"response: choose one {dim}, response.sel({dim}=...)")
    for name, known, asked in (
        ("site", response["site"], site),
        ("line", response["line"], line),
        ("line", response["line"], host),
    ):
        if asked not in known.values:
            raise UnknownName(f"the response has no {name} {asked!r}, but {[str(each) for each in known.values]}")
    tilts = [dim for dim in counts.dims if dim != "line"]
    own = response.sel(site=site).transpose("line", *tilts)
    return (own.sel(line=line) / own.sel(line=host)).values.ravel()
