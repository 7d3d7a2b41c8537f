"""X-ray lines of elements as a silicon detector sees them: one shape a shell, or a subshell."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number, whole
from tensorspec.errors import InvalidArgument, InvalidData, MissingDependency, UnknownName, suggest
from tensorspec.prepare.steps import as_spectra, signal_dimension
from tensorspec.shared_modes import ENERGIES, units_of

__all__ = ["detector_width", "xray_lines"]

# Electrons of each subshell, from which ionisation takes them.
SUBSHELLS = {
    "K": {"K": 2},
    "L": {"L1": 2, "L2": 2, "L3": 4},
    "M": {"M1": 2, "M2": 2, "M3": 4, "M4": 4, "M5": 6},
}
# Energy of Mn K-alpha, at which the resolution of a detector is quoted, eV.
MN_K_ALPHA = 5898.8
# Silicon: energy of an electron-hole pair, eV, and Fano factor.
PAIR_ENERGY, FANO = 3.65, 0.115
TO_WIDTH = 2 * np.sqrt(2 * np.log(2))
# Lines below this share of their family are left out.
LEAST = 1e-4
# Energies below which the shapes of bremsstrahlung fall off, keV: window and sample absorb there.
ABSORPTION = (0.25, 3.0)


def detector_width(energy: Any, resolution: float = 130.0) -> Any:
    """Full width at half maximum of a line in a silicon detector.

    Parameters
    ----------
    energy : float or array
        Of the line, eV.
    resolution : float
        Full width at half maximum at Mn K-alpha (5.899 keV), eV.

    Returns
    -------
    float or array
        Width, eV.

    Raises
    ------
    InvalidArgument
        If the resolution is below what the statistics of electron-hole pairs allow.

    Notes
    -----
    ``width**2 = noise**2 + 8 ln 2 F e E`` with the Fano factor F = 0.115 and e = 3.65 eV for a pair in silicon; the
    electronic noise follows from the resolution.

    References
    ----------
    C. E. Fiori and D. E. Newbury, Scanning Electron Microscopy 1 (1978) 401; F. Scholze and M. Procop, X-Ray
    Spectrometry 38 (2009) 312, doi:10.1002/xrs.1165.

    Examples
    --------
    >>> round(float(detector_width(5898.8, 130.0)), 6), round(float(detector_width(1000.0, 130.0)), 1)
    (130.0, 74.1)
    """
    statistics = TO_WIDTH**2 * FANO * PAIR_ENERGY
    least = np.sqrt(statistics * MN_K_ALPHA)
    resolution = number("resolution", resolution, 0, above=True)
    if resolution < least:
        raise InvalidArgument(
            f"resolution is {resolution:g} eV at Mn K-alpha; a silicon detector cannot have less than {least:.0f} eV "
            "(did you give it in keV, or at another line?)."
        )
    return np.sqrt(resolution**2 + statistics * (np.asarray(energy, dtype=float) - MN_K_ALPHA))


def xray_lines(
    energy: xr.DataArray,
    elements: Sequence[str],
    resolution: float = 130.0,
    *,
    beam_energy: float | None = None,
    by: str = "shell",
    bremsstrahlung: int = 0,
) -> xr.DataArray:
    """Return a dictionary of the X-ray lines of elements, for `tensorspec.Span`.

    A spectrum that is a non-negative combination of them has elements for coefficients::

        lines = ts.xray_lines(data, ["O", "Si", "Fe"], bremsstrahlung=2)
        span = ts.Span(lines)
        fit = ts.fit(data, ts.NMF(3, {"xray_energy": span}))
        counts = span.coefficients(fit.spectra())     # of each family of lines in each component
        maps = xr.dot(counts, fit.maps() / fit.totals(), dim="component")     # and in each pixel

    Parameters
    ----------
    energy : DataArray
        The data, or their coordinate ``data.xray_energy``, in keV or eV by its ``units``: the middles of the channels.
    elements : sequence of str
        Symbols.
    resolution : float
        Full width at half maximum of the detector at Mn K-alpha, eV.
    beam_energy : float, optional
        Of the electrons, keV; by default ``attrs["beam_energy_keV"]`` of the data. Shells that they cannot ionise are
        left out. Without it all are taken.
    by : {"shell", "subshell"}
        One shape for all lines of a shell, ``"Fe L"``, with the ratios below, or one for each subshell, ``"Fe L3"``,
        whose ratios are then free.
    bremsstrahlung : int
        Number of smooth shapes of the continuum that are added.

    Returns
    -------
    dictionary : DataArray, (line, xray_energy)
        Every family sums to one over all energies, so that a coefficient is in counts, those beyond the ends of the
        axis too; ``line`` holds the names, the coordinate ``element`` the symbols and ``line_energy`` the energy of the
        strongest line, in the units of the axis. Continuum shapes sum to one over the axis.

    Raises
    ------
    InvalidData
        If the energy axis is missing or has no units of energy.
    UnknownName
        If there is no such element.
    InvalidArgument
        If an element has no line in the range, the resolution is none that a detector can have, or bremsstrahlung is
        asked for and the beam energy is not known.
    MissingDependency
        If xraydb is not installed.

    Notes
    -----
    Energies, ratios within a subshell, fluorescence yields and Coster-Kronig rates are those of xraydb (Elam, Ravel and
    Sieber). Subshells are ionised in proportion to their electrons and, where the beam energy E0 is known, to
    ``ln(E0 / Ec) / Ec`` (Bethe); vacancies that move to a higher subshell are followed. Ratios of L and M lines are
    uncertain by some ten per cent, and absorption in the sample changes them: with good statistics take
    ``by="subshell"``. A family belongs to the range where its strongest line does. Lines are Gaussians, integrated over
    every channel.

    The continuum is Kramers' law ``(E0 - E) / E`` times ``exp(-(Ea / E)**3)``, the fall of absorption, for several
    energies Ea from 0.25 to 3 keV: combinations of them follow what window and sample take away.

    References
    ----------
    W. T. Elam, B. D. Ravel and J. R. Sieber, Radiation Physics and Chemistry 63 (2002) 121,
    doi:10.1016/S0969-806X(01)00227-4; H. A. Kramers, Philosophical Magazine 46 (1923) 836,
    doi:10.1080/14786442308565244.

    Examples
    --------
    >>> axis = 0.01 * np.arange(1, 1025)
    >>> energy = xr.DataArray(axis, dims="xray_energy", coords={"xray_energy": ("xray_energy", axis, {"units": "keV"})})
    >>> lines = xray_lines(energy, ["O", "Fe"], beam_energy=200)
    >>> lines.line.values.tolist(), lines.line_energy.values.round(3).tolist()
    (['O K', 'Fe K', 'Fe L'], [0.525, 6.405, 0.705])
    >>> lines.sum("xray_energy").round(3).values.tolist()
    [1.0, 1.0, 1.0]
    """
    data = as_spectra("xray_lines", energy, "energy")
    dim = signal_dimension("xray_lines", data)
    coord = data.coords[dim]
    units = units_of(coord)
    if units not in ENERGIES:
        raise InvalidData(
            f"xray_lines: {dim!r} has units {units!r}; expected one of {list(ENERGIES)}: "
            f'data[{dim!r}].attrs["units"] = "keV".'
        )
    if by not in ("shell", "subshell"):
        raise InvalidArgument(f"xray_lines: by is {by!r}; expected 'shell' or 'subshell'.")
    to_ev = ENERGIES[units] / ENERGIES["eV"]
    centres = np.asarray(coord.values, dtype=float) * to_ev
    if len(centres) < 2:
        raise InvalidData(f"xray_lines: {dim!r} has {len(centres)} channels; at least two are needed.")
    detector_width(0.0, resolution)
    beam = _beam_energy(data, beam_energy)
    tables = _tables()
    edges = _edges(centres)
    found: list[tuple[str, str, float, np.ndarray]] = []
    for element in _symbols(elements, tables):
        families = [
            family
            for shell, subshells in SUBSHELLS.items()
            for family in _families(tables, element, shell, subshells, beam, by)
            if centres[0] <= family[1] <= centres[-1]
        ]
        if not families:
            limit = "" if beam is None else f" below the beam energy of {beam:g} keV"
            raise InvalidArgument(
                f"xray_lines: {element} has no line{limit} between {centres[0] / 1e3:.3g} and {centres[-1] / 1e3:.3g} "
                "keV; leave it out."
            )
        for name, strongest, lines in families:
            found.append((name, element, strongest, _drawn(lines, edges, resolution)))
    found += _continuum(centres, whole("bremsstrahlung", bremsstrahlung, 0), beam)
    names, symbols, energies, shapes = (list(each) for each in zip(*found, strict=True))
    return xr.DataArray(
        np.array(shapes),
        dims=("line", dim),
        coords={
            "line": names,
            "element": ("line", symbols),
            "line_energy": ("line", np.array(energies) / to_ev, {"units": units}),
            dim: coord,
        },
        attrs={"history": [f"X-ray lines of {', '.join(elements)}, resolution {resolution:g} eV at Mn K-alpha"]},
    )


def _tables() -> ModuleType:
    try:
        import xraydb
    except ImportError as error:
        raise MissingDependency(
            'xray_lines needs xraydb, which is not installed: pip install "tensorspec[xray]"'
        ) from error
    return xraydb


def _symbols(elements: Sequence[str], tables: ModuleType) -> list[str]:
    known = [tables.atomic_symbol(number) for number in range(3, 96)]
    if isinstance(elements, str) or not isinstance(elements, Sequence) or not len(elements):
        raise InvalidArgument(f"xray_lines: elements is {elements!r}; expected symbols such as ['O', 'Fe'].")
    for element in elements:
        if element not in known:
            raise UnknownName(
                f"xray_lines: no element {element!r} with X-ray lines; expected symbols such as 'O' or 'Fe'."
                f"{suggest(str(element).capitalize(), known)}"
            )
    return list(dict.fromkeys(elements))


def _beam_energy(data: xr.DataArray, given: float | None) -> float | None:
    known = data.attrs.get("beam_energy_keV") if given is None else given
    return None if known is None else number("beam_energy", known, 0, above=True)


def _families(
    tables: ModuleType, element: str, shell: str, subshells: dict[str, int], beam: float | None, by: str
) -> list[tuple[str, float, list[tuple[float, float]]]]:
    """Return name, energy of the strongest line, and energies (eV) and shares of all lines, for each family."""
    edges = tables.xray_edges(element)
    vacancies = {}
    for name, electrons in subshells.items():
        edge = edges.get(name)
        if edge is None or edge.energy <= 0 or (beam is not None and 1e3 * beam <= edge.energy):
            continue
        ionised = electrons if beam is None else electrons * np.log(1e3 * beam / edge.energy) / edge.energy
        vacancies[name] = float(ionised)
    names = list(vacancies)
    for place, inner in enumerate(names):
        for outer in names[place + 1 :]:
            vacancies[outer] += vacancies[inner] * _coster_kronig(tables, element, inner, outer)
    parts = {}
    for name, number_of in vacancies.items():
        emitted = tables.xray_lines(element, name)
        total = sum(line.intensity for line in emitted.values())
        strength = number_of * edges[name].fyield
        if total > 0 and strength > 0:
            parts[name] = [(line.energy, strength * line.intensity / total) for line in emitted.values()]
    groups = {shell: [line for lines in parts.values() for line in lines]} if by == "shell" else parts
    result = []
    for name, lines in groups.items():
        total = sum(strength for _, strength in lines)
        if total > 0:
            shares = [(place, strength / total) for place, strength in lines if strength > LEAST * total]
            whole_share = sum(share for _, share in shares)
            shares = [(place, share / whole_share) for place, share in shares]
            result.append((f"{element} {name}", max(shares, key=lambda line: line[1])[0], shares))
    return result


def _coster_kronig(tables: ModuleType, element: str, inner: str, outer: str) -> float:
    """Probability that a vacancy moves outwards within its shell, further subshells on the way left out."""
    try:
        return float(tables.ck_probability(element, inner, outer, total=False) or 0.0)
    except (KeyError, ValueError, AttributeError):
        return 0.0


def _edges(centres: np.ndarray) -> np.ndarray:
    middles = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def _drawn(lines: list[tuple[float, float]], edges: np.ndarray, resolution: float) -> np.ndarray:
    """Return the counts in each channel of lines as the detector broadens them."""
    from scipy.special import erf

    total = np.zeros(len(edges) - 1)
    for energy, share in lines:
        sigma = detector_width(energy, resolution) / TO_WIDTH
        total += share * 0.5 * np.diff(erf((edges - energy) / (np.sqrt(2) * sigma)))
    return total


def _continuum(centres: np.ndarray, count: int, beam: float | None) -> list[tuple[str, str, float, np.ndarray]]:
    if not count:
        return []
    if beam is None:
        raise InvalidArgument(
            "xray_lines: the shapes of bremsstrahlung need the beam energy; give it in keV: beam_energy=200."
        )
    energy = np.maximum(centres / 1e3, 1e-3)
    shapes = []
    for place, onset in enumerate(np.geomspace(*ABSORPTION, count) if count > 1 else [ABSORPTION[0]]):
        shape = np.where(centres > 0, np.maximum(beam - energy, 0) / energy * np.exp(-((onset / energy) ** 3)), 0.0)
        shapes.append((f"bremsstrahlung {place + 1}", "", 1e3 * float(onset), shape / shape.sum()))
    return shapes
