"""How strongly each site answers, line by line, at every orientation and thickness."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.beams import Scan, over_directions
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.split_operator import projection_grid, split_operator_density
from tensorspec.channelling.symmetry import distinct_orientations, plane_symmetries
from tensorspec.channelling.wavefield import Coupling, coupling, integrated_density
from tensorspec.errors import InvalidArgument

__all__ = ["FormFactor", "absorbed", "response"]

# Steps of thickness beyond which interpolation between them biases occupancies, nm.
COARSEST = 5.0
# Change of a response, with a quarter more beams in each direction, that is worth a warning.
TOLERANCE = 0.01
# Orientations that are solved at once: (orientations, beams, beams) complex numbers.
AT_ONCE = 2**24
# More beams than this, at more orientations, are for the split operator.
MANY_BEAMS, MANY_ORIENTATIONS = 40, 30
# Fewer than these are not worth looking for symmetry.
FEW_ORIENTATIONS = 8
NODES = 9


class FormFactor(Protocol):
    """What a line has to offer: how its ionization falls with the momentum that is exchanged."""

    def form_factor(self, s: np.ndarray) -> np.ndarray:
        """Return one at zero and less beyond; `s` is half the length of the reciprocal vector, one over angstrom."""
        ...


def response(
    crystal: Crystal,
    scan: Scan,
    lines: Sequence[str] | Mapping[str, FormFactor],
    thickness: Sequence[float] | np.ndarray,
    *,
    convergence: float | Sequence[float] | np.ndarray = 0.0,
    thickness_spread: float = 0.0,
    engine: str = "auto",
    absorption: bool = True,
    check: bool = True,
) -> xr.DataArray:
    """Return the ionization of an atom on each site, over that in a plane wave of the same electrons.

    Parameters
    ----------
    crystal : Crystal
        Structure: what diffracts, and the sites that are asked about, occupied or not.
    scan : Scan
        From `systematic_row` or `zone_axis`.
    lines : sequence of str, or mapping of str to FormFactor
        Lines such as ``"Mn K"`` or ``"Mn L23"``, by `ionization`; or form factors of your own by name.
    thickness : sequence of float
        Rising, nm, in steps of at most 5; the whole of 0 to the last is looked at.
    convergence : float or sequence of float
        Standard deviation of the beam's directions, mrad; of several, rising, the response has the dimension
        ``convergence``, and `fit_occupancy` finds out which it was.
    thickness_spread : float
        Standard deviation of the thickness within the probed area, nm.
    engine : {"auto", "eigenvectors", "split operator"}
        The first is exact, and quick for rows; the second serves many orientations and beams, in single precision and
        with an error below 3e-4 for slices of 2 angstrom.
    absorption : bool
        Whether thermal diffuse scattering takes electrons out of the beams. It always does: switch it off to see what
        that is worth.
    check : bool
        Whether to solve the middle and the ends again with a quarter more beams in each direction, and to warn where a
        response changes by more than 0.01; the change is in ``attrs["beam_convergence"]``.

    Returns
    -------
    DataArray
        Dimensions ``(site, line, tilt_y, tilt_x, convergence, thickness)``, without ``tilt_y`` for a row and without
        ``convergence`` for a single one. One is the answer of an
        atom that sees a plane wave; electrons that were scattered thermally count as such. ``attrs`` name the scan.

    Raises
    ------
    InvalidArgument
        If thicknesses do not rise from above zero, or their steps exceed 5 nm.
    UnknownName
        If a line is not in the tables.

    Warns
    -----
    UserWarning
        If there are too few beams.

    Notes
    -----
    Orientations that the symmetry of the projected crystal makes equal are computed once.

    Local approximation: ``mu_hg`` depends on ``h - g`` alone. Allen and Josefsson, Physical Review B 52 (1995) 3184,
    doi:10.1103/PhysRevB.52.3184; Oxley and Allen, Acta Crystallographica A56 (2000) 470,
    doi:10.1107/S0108767300007078. Electrons that were scattered thermally are taken to be a plane wave, without memory
    of the site: on heavy columns of more than 10 nm that is off by some per cent of the modulation. Electrons that lost
    energy are not followed on their way out (no double channelling).

    Examples
    --------
    >>> from tensorspec.channelling.beams import systematic_row
    >>> class Point:
    ...     def form_factor(self, s):
    ...         return np.ones_like(s)
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = systematic_row(silicon, (2, 2, 0), [-1.5, 1.5], 200, in_bragg_angles=True)
    >>> found = response(silicon, scan, {"Si K": Point()}, np.arange(5.0, 51, 5))
    >>> found.dims
    ('site', 'line', 'tilt_x', 'thickness')
    >>> bool((abs(found.isel(tilt_x=0) - found.isel(tilt_x=1)) < 1e-9).all())
    True
    """
    depths = _checked_thickness(thickness)
    directions = _checked_convergence(convergence)
    number("thickness_spread (nm)", thickness_spread, 0, float(depths[-1]))
    if engine not in ("auto", "eigenvectors", "split operator"):
        raise InvalidArgument(f"engine={engine!r}; expected 'auto', 'eigenvectors' or 'split operator'")
    factors = dict(lines) if isinstance(lines, Mapping) else _tabulated(lines, scan.beam_energy)
    if not factors:
        raise InvalidArgument("lines is empty; expected names such as 'Mn K'")
    inner = depths
    if thickness_spread > 0:
        beyond = depths[-1] + np.arange(COARSEST, 3.5 * thickness_spread + COARSEST, COARSEST)
        before = np.arange(COARSEST, depths[0], COARSEST)
        inner = np.concatenate([before, depths, beyond])
    values = _responses(crystal, scan, factors, inner, engine, absorption)
    if thickness_spread > 0:
        values = _over_thickness(values, inner, depths, thickness_spread)
    values = values.reshape(len(crystal.sites), len(factors), *scan.shape, len(depths))
    averaged = [over_directions(values, scan, own, first=2) for own in directions]
    several = np.ndim(convergence) > 0
    values = np.stack(averaged, axis=-2) if several else averaged[0]
    attrs: dict[str, Any] = {"scan": scan.name, "beam_energy": scan.beam_energy, "beams": len(scan.beams)}
    if check:
        attrs["beam_convergence"] = change = _beam_convergence(crystal, scan, factors, depths, absorption)
        if change > TOLERANCE:
            more = "orders=" if len(scan.dims) == 1 else "largest= and excitation="
            warnings.warn(
                f"response: a quarter more beams change it by up to {change:.3f}; give the scan more ({more})",
                UserWarning,
                stacklevel=2,
            )
    coords: dict[str, Any] = {"site": list(crystal.labels), "line": list(factors)}
    coords |= {dim: (dim, tilts, {"units": "mrad"}) for dim, tilts in scan.tilts.items()}
    if several:
        coords["convergence"] = ("convergence", directions, {"units": "mrad"})
    coords["thickness"] = ("thickness", depths, {"units": "nm"})
    return xr.DataArray(
        values,
        dims=tuple(coords),
        coords=coords,
        name="response",
        attrs={"long_name": "ionization over that in a plane wave", **attrs},
    )


def absorbed(found: xr.DataArray, attenuation: Mapping[str, float], *, exit_side: str = "entrance") -> xr.DataArray:
    """Return a response as a detector sees it that X-rays reach through part of the specimen.

    Parameters
    ----------
    found : DataArray
        From `response`.
    attenuation : mapping of str to float
        For lines, the attenuation along the depth, one over nm: the linear coefficient over the sine of the take-off
        angle.
    exit_side : {"entrance", "exit"}
        The surface that the detector looks at.

    Returns
    -------
    DataArray
        Over what a plane wave would give with the same absorption.

    Examples
    --------
    >>> flat = xr.DataArray(np.ones((1, 1, 1, 3)), dims=("site", "line", "tilt_x", "thickness"),
    ...                     coords={"line": ["O K"], "thickness": [5.0, 10.0, 15.0]})
    >>> absorbed(flat, {"O K": 0.01}).values.ravel().round(12).tolist()
    [1.0, 1.0, 1.0]
    """
    if exit_side not in ("entrance", "exit"):
        raise InvalidArgument(f"exit_side={exit_side!r}; expected 'entrance' or 'exit'")
    depths = found["thickness"].values
    total = (found * found["thickness"]).transpose(..., "thickness").values
    # The wave only goes forward: what is made above a depth does not know how thick the specimen is.
    made = np.diff(total, axis=-1, prepend=0.0)
    middle = depths - np.diff(depths, prepend=0.0) / 2
    result = found.transpose(..., "thickness").copy()
    for line, coefficient in attenuation.items():
        number(f"attenuation of {line}", coefficient, 0)
        place = list(found["line"].values).index(line) if line in found["line"].values else None
        if place is None:
            raise InvalidArgument(f"attenuation of {line!r}; the response has {list(found['line'].values)}")
        for t, depth in enumerate(depths):
            path = middle[: t + 1] if exit_side == "entrance" else depth - middle[: t + 1]
            weight = np.exp(-coefficient * path)
            plain = (weight * np.diff(depths, prepend=0.0)[: t + 1]).sum()
            own = result.isel(line=place, thickness=t)
            own.values[...] = (np.take(made, place, axis=1)[..., : t + 1] * weight).sum(axis=-1) / plain
            result[{"line": place, "thickness": t}] = own
    return result.transpose(*found.dims)


def _checked_thickness(thickness: Sequence[float] | np.ndarray) -> np.ndarray:
    depths = np.atleast_1d(np.asarray(thickness, dtype=float))
    if depths.ndim != 1 or not np.isfinite(depths).all() or depths[0] <= 0 or (np.diff(depths) <= 0).any():
        raise InvalidArgument("thickness: expected rising values above zero, nm")
    steps = np.diff(depths)
    if steps.size and steps.max() > COARSEST * (1 + 1e-9):
        raise InvalidArgument(
            f"thickness: steps of up to {steps.max():.3g} nm; expected at most {COARSEST:g}, as interpolation between "
            "coarser ones biases occupancies: np.arange(5, t + 5, 5)"
        )
    return depths


def _checked_convergence(convergence: float | Sequence[float] | np.ndarray) -> np.ndarray:
    if np.ndim(convergence) == 0:
        return np.array([number("convergence (mrad)", convergence, 0, 20)])
    directions = np.asarray(convergence, dtype=float)
    if directions.ndim != 1 or len(directions) < 3 or not (np.diff(directions) > 0).all():
        raise InvalidArgument(f"convergence={convergence!r}; expected one value, or three and more that rise, mrad")
    number("convergence (mrad)", float(directions[0]), 0, 20)
    number("convergence (mrad)", float(directions[-1]), 0, 20)
    return directions


def _tabulated(lines: Sequence[str], beam_energy: float) -> dict[str, FormFactor]:
    from tensorspec.channelling.shell_ionization import ionization

    if isinstance(lines, str):
        raise InvalidArgument(f"lines={lines!r}; expected a list of names, [{lines!r}]")
    return {str(line): ionization(str(line), beam_energy) for line in lines}


def _responses(
    crystal: Crystal, scan: Scan, factors: Mapping[str, FormFactor], depths: np.ndarray, engine: str, absorption: bool
) -> np.ndarray:
    """Return responses, (sites, lines, orientations, thicknesses)."""
    beams = scan.beams
    differences = (beams[np.newaxis] - beams[:, np.newaxis]).reshape(-1, 3)  # of (g, h): h - g
    distinct, back = np.unique(differences, axis=0, return_inverse=True)
    found = coupling(crystal, scan, absorption)
    every = np.arange(len(found.excitation))
    if len(every) > FEW_ORIENTATIONS:
        # What symmetry makes equal is computed once.
        chosen, every = distinct_orientations(scan, plane_symmetries(crystal, scan))
        found = Coupling(found.potential, found.excitation[chosen], found.wave_number[chosen])
    if engine == "auto":
        many = len(beams) > MANY_BEAMS and len(found.excitation) > MANY_ORIENTATIONS
        engine = "split operator" if many else "eigenvectors"
    if engine == "split operator":
        density = split_operator_density(found, 10 * depths, projection_grid(beams, distinct))
    else:
        density = _exact_density(found, 10 * depths, back.ravel(), len(distinct))
    lengths = np.linalg.norm(distinct @ crystal.metric, axis=1)
    middle = int(np.flatnonzero((distinct == 0).all(axis=1))[0])
    path = 10 * depths
    # Electrons that are in no beam any more are a plane wave.
    lost = path - np.real(density[..., middle])
    result = np.empty((len(crystal.sites), len(factors), *density.shape[:2]))
    for k, site in enumerate(crystal.sites):
        phases = np.exp(-2j * np.pi * distinct @ site.positions.T).mean(axis=1)
        phases *= np.exp(-site.debye_waller * lengths**2 / 4)
        for line, factor in enumerate(factors.values()):
            weight = phases * np.asarray(factor.form_factor(lengths / 2), dtype=float)
            result[k, line] = (np.real(density @ weight) + lost) / path
    return result[:, :, every]


def _exact_density(found: Coupling, depths: np.ndarray, back: np.ndarray, number_of: int) -> np.ndarray:
    """Return ``sum over h - g = D of integral psi_g psi_h^* dz``, as `split_operator_density` does, exactly."""
    from scipy.sparse import csr_matrix

    beams = len(found.potential)
    gather = csr_matrix((np.ones(beams**2), (np.arange(beams**2), back)), shape=(beams**2, number_of))
    step = max(1, AT_ONCE // (beams**2 * len(depths)))
    parts = []
    for start in range(0, len(found.excitation), step):
        own = Coupling(found.potential, found.excitation[start : start + step], found.wave_number[start : start + step])
        density = integrated_density(own, depths)
        flat = density.reshape(-1, beams**2)
        parts.append((gather.T @ flat.T).T.reshape(*density.shape[:2], number_of))
    return np.concatenate(parts)


def _over_thickness(values: np.ndarray, inner: np.ndarray, depths: np.ndarray, spread: float) -> np.ndarray:
    """Return responses averaged over a normal distribution of the thickness, by what is made in all of it."""
    from scipy.interpolate import CubicSpline

    at_zero = np.zeros((*values.shape[:-1], 1))
    made = CubicSpline(np.append(0.0, inner), np.concatenate([at_zero, values * inner], axis=-1), axis=-1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    total, plain = np.zeros((*values.shape[:-1], len(depths))), np.zeros(len(depths))
    for node, weight in zip(nodes, weights, strict=True):
        own = np.clip(depths + node * spread, 0.0, inner[-1])
        total += weight * made(own)
        plain += weight * own
    return total / plain


def _beam_convergence(
    crystal: Crystal, scan: Scan, factors: Mapping[str, FormFactor], depths: np.ndarray, absorption: bool
) -> float:
    """Return the largest change of a response, in the middle and at the ends, by a quarter more beams."""
    few = {dim: tilts[np.unique([0, len(tilts) // 2, len(tilts) - 1])] for dim, tilts in scan.tilts.items()}
    last = depths[-1:]
    own = _responses(crystal, scan.with_tilts(**few), factors, last, "eigenvectors", absorption)
    more = _responses(crystal, scan.larger(few), factors, last, "eigenvectors", absorption)
    return float(np.abs(own - more).max())
