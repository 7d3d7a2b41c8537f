"""Channelling scans with known truth: a spinel whose metals are mixed, as X-rays and energy losses at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.channelling.beams import systematic_row
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import bragg_angle
from tensorspec.channelling.fine_structure import (
    ENERGY,
    manganese_white_lines,
    nickel_white_lines,
    oxygen_edge,
)
from tensorspec.channelling.site_response import response
from tensorspec.channelling.spectra_of_sites import site_curves
from tensorspec.errors import InvalidArgument, UnknownName
from tensorspec.phantoms import Phantom

__all__ = [
    "garnet",
    "magnesium_spinel",
    "manganese_white_lines",
    "nickel_white_lines",
    "oxygen_edge",
    "row_scan",
    "spinel",
    "spinel_scan",
]

# With more edges than that of manganese.
WIDE_ENERGY = np.arange(520.0, 890.0, 0.5)
SITES = ("8a", "16d", "16c")


def spinel(
    occupants: Mapping[str, Mapping[str, float]] | None = None, *, cell: float = 8.17, oxygen: float = 0.263
) -> Crystal:
    """Return a spinel with both octahedra: 16d, which is full, and 16c, which is empty in the ideal structure.

    Parameters
    ----------
    occupants : mapping of str to mapping of str to float
        By site; by default LiNi0.5Mn1.5O4 with a little exchange of lithium and nickel.
    cell : float
        Edge, angstrom.
    oxygen : float
        Its coordinate.

    Examples
    --------
    >>> spinel().labels
    ('8a', '16d', '16c', '32e')
    """
    held = {
        "8a": {"Li": 0.92, "Ni": 0.06, "Mn": 0.02},
        "16d": {"Mn": 0.74, "Ni": 0.22, "Li": 0.04},
        "16c": {},
        "32e": {"O": 1.0},
        **(occupants or {}),
    }
    sites = {
        "8a": ((1 / 8,) * 3, held["8a"], 0.7),
        "16d": ((1 / 2,) * 3, held["16d"], 0.4),
        "16c": ((0.0,) * 3, held["16c"], 0.4),
        "32e": ((oxygen,) * 3, held["32e"], 0.6),
    }
    return Crystal.from_space_group("F d -3 m:2", (cell, cell, cell, 90.0, 90.0, 90.0), sites, "spinel")


def magnesium_spinel(magnesium: float = 0.7, aluminium: float = 0.15, *, cell: float = 8.08) -> Crystal:
    """Return MgAl2O4 with exchange between tetrahedra and octahedra.

    Parameters
    ----------
    magnesium, aluminium : float
        Share of each that sits on the tetrahedra, 8a; with ``magnesium + 2 * aluminium`` above one they would not fit.
    cell : float
        Edge, angstrom.

    Raises
    ------
    InvalidArgument
        If a site would hold more than one atom a place.

    Examples
    --------
    >>> magnesium_spinel().site("8a")
    Site('8a': 8 x (Mg 0.7, Al 0.3), B=0.5)
    """
    held = {
        "8a": {"Mg": magnesium, "Al": 2 * aluminium},
        "16d": {"Mg": (1 - magnesium) / 2, "Al": 1 - aluminium},
    }
    sites = {
        "8a": ((1 / 8,) * 3, held["8a"], 0.5),
        "16d": ((1 / 2,) * 3, held["16d"], 0.4),
        "32e": ((0.2624,) * 3, {"O": 1.0}, 0.6),
    }
    return Crystal.from_space_group("F d -3 m:2", (cell, cell, cell, 90.0, 90.0, 90.0), sites, "MgAl2O4")


def spinel_scan(
    reflection: Sequence[int] = (4, 0, 0),
    *,
    crystal: Crystal | None = None,
    counts: Mapping[str, float] | None = None,
    losses: float = 3e5,
    edges: Mapping[str, float] | None = None,
    valences: Mapping[str, float] | None = None,
    nickel_valences: Mapping[str, float] | None = None,
    thickness: float = 80.0,
    beam_energy: float = 200.0,
    tilts: int = 61,
    offset: float = 0.3,
    seed: int = 0,
) -> Phantom:
    """Simulate a row of a spinel, recorded as X-rays and as energy losses at once.

    Parameters
    ----------
    reflection : sequence of int
        Of the row: (4, 0, 0) is blind for the difference of the two octahedra, (1, 1, 1) is not.
    crystal : Crystal
        By default `spinel`.
    counts : mapping of str to float
        Mean counts of X-ray lines at an orientation; by default Mn K, Ni K and O K.
    losses : float
        Mean counts of manganese L2,3 in an energy-loss spectrum.
    edges : mapping of str to float
        Mean counts of further edges, ``"O K"`` and ``"Ni L23"``: the spectra then reach from 520 to 890 eV, and each
        edge lies on the tails of those before it; by default manganese alone, 635 to 665 eV.
    valences, nickel_valences : mapping of str to float
        Of manganese, by default 4 on 16d and 3 elsewhere, and of nickel, by default 2, by site. Oxygen sees the mean of
        manganese.
    thickness : float
        nm.
    beam_energy : float
        keV.
    tilts : int
        Number of orientations, from minus to plus three Bragg angles of the lowest even reflection.
    offset : float
        By how much the recorded tilts are off, mrad.
    seed : int
        Of the counts.

    Returns
    -------
    Phantom
        ``"edx"`` with the dimensions (line, tilt_x), ``"eels"`` with (tilt_x, energy_loss), ``"response"`` as computed,
        and in ``truth`` the shares of each element, the spectra of every edge by site, thickness and offset.

    Notes
    -----
    Simulated with the model that is fitted: what a fit finds on it says nothing of what the model leaves out.

    Examples
    --------
    >>> phantom = spinel_scan(tilts=13)
    >>> phantom["edx"].dims, phantom["eels"].sizes["energy_loss"]
    (('line', 'tilt_x'), 120)
    """
    crystal = crystal or spinel()
    counts = dict(counts or {"Mn K": 8000.0, "Ni K": 2500.0, "O K": 3000.0})
    valences = dict(valences or {"8a": 3.0, "16d": 4.0, "16c": 3.0})
    nickel_valences = dict(nickel_valences or dict.fromkeys(SITES, 2.0))
    strengths = {"Mn L23": losses, **(edges or {})}
    for edge in strengths:
        if edge not in ("Mn L23", "Ni L23", "O K"):
            raise UnknownName(f"no edge {edge!r} of this phantom; there are 'O K' and 'Ni L23' beside 'Mn L23'")
    row = _row(crystal, reflection, (4, 0, 0), counts, list(strengths), thickness, beam_energy, tilts, offset)
    rng = np.random.default_rng(seed)
    edx = row.expected.copy(data=rng.poisson(row.expected.values))
    energy = WIDE_ENERGY if edges else ENERGY
    manganese = row.shares["Mn"]
    mean_valence = sum(share * valences[site] for site, share in manganese.items() if share > 0)
    mean = np.zeros((tilts, len(energy)))
    spectra, sites, lines = [], [], []
    for edge, strength in strengths.items():
        own = {site: share for site, share in row.shares[edge.split()[0]].items() if share > 0}
        curves = site_curves(row.response, edge, own, {"tilt_x": row.tilts}, thickness, offset={"tilt_x": offset})
        fine = {
            "Mn L23": lambda site: manganese_white_lines(valences[site], energy),
            "Ni L23": lambda site: nickel_white_lines(nickel_valences[site], energy),
            "O K": lambda site: oxygen_edge(mean_valence, energy),
        }[edge]
        shapes = np.array([fine(site) for site in own])
        mean += strength * curves.values.T @ shapes / float(curves.sum("component").mean())
        spectra += list(shapes)
        sites += list(own)
        lines += [edge] * len(own)
    coords = {"tilt_x": row.expected["tilt_x"], "energy_loss": ("energy_loss", energy, {"units": "eV"})}
    losses_expected = xr.DataArray(mean, dims=("tilt_x", "energy_loss"), coords=coords, attrs={"units": "counts"})
    eels = losses_expected.copy(data=rng.poisson(mean))
    truth = xr.Dataset(
        {
            "share": _table(crystal, row.shares),
            "edx_expected": row.expected,
            "eels_expected": losses_expected,
            "spectrum": xr.DataArray(
                np.array(spectra),
                dims=("component", "energy_loss"),
                coords={
                    "energy_loss": losses_expected.energy_loss,
                    "site": ("component", sites),
                    "edge": ("component", lines),
                },
            ),
        },
        attrs={"thickness": thickness, "offset": offset},
    )
    return Phantom({"edx": edx, "eels": eels, "response": row.response}, truth, {})


def garnet(occupants: Mapping[str, Mapping[str, float]] | None = None, *, cell: float = 12.0) -> Crystal:
    """Return an yttrium aluminium garnet: dodecahedra 24c, octahedra 16a, tetrahedra 24d.

    Parameters
    ----------
    occupants : mapping of str to mapping of str to float
        By site; by default with a little iron on the octahedra and the tetrahedra.
    cell : float
        Edge, angstrom.

    Notes
    -----
    Positions: Euler and Bruce, Acta Crystallographica 19 (1965) 971, doi:10.1107/S0365110X65004747.

    Examples
    --------
    >>> [len(site.positions) for site in garnet().sites]
    [24, 16, 24, 96]
    """
    held = {
        "24c": {"Y": 1.0},
        "16a": {"Al": 0.85, "Fe": 0.15},
        "24d": {"Al": 0.95, "Fe": 0.05},
        "96h": {"O": 1.0},
        **(occupants or {}),
    }
    sites = {
        "24c": ((1 / 8, 0, 1 / 4), held["24c"], 0.35),
        "16a": ((0, 0, 0), held["16a"], 0.35),
        "24d": ((3 / 8, 0, 1 / 4), held["24d"], 0.35),
        "96h": ((-0.0306, 0.0512, 0.15), held["96h"], 0.5),
    }
    return Crystal.from_space_group("I a -3 d", (cell, cell, cell, 90.0, 90.0, 90.0), sites, "garnet")


def row_scan(
    crystal: Crystal,
    reflection: Sequence[int],
    counts: Mapping[str, float],
    *,
    span: Sequence[int] = (4, 0, 0),
    thickness: float = 80.0,
    beam_energy: float = 200.0,
    tilts: int = 61,
    offset: float = 0.3,
    seed: int = 0,
) -> Phantom:
    """Simulate the X-ray lines of any crystal over a systematic row.

    Parameters
    ----------
    crystal : Crystal
        What is planted: shares follow from its occupants.
    reflection : sequence of int
        Of the row. In a garnet (4, 0, 0) is blind for the difference of 24c and 24d, (2, 1, 1) is not.
    counts : mapping of str to float
        Mean counts of lines at an orientation.
    span : sequence of int
        The scan goes from minus to plus three Bragg angles of this reflection.
    thickness : float
        nm.
    beam_energy : float
        keV.
    tilts : int
        Number of orientations.
    offset : float
        By how much the recorded tilts are off, mrad.
    seed : int
        Of the counts.

    Returns
    -------
    Phantom
        ``"edx"`` with the dimensions (line, tilt_x), ``"response"`` as computed for all sites of the crystal, and in
        ``truth`` the shares of each element, thickness and offset.

    Notes
    -----
    Simulated with the model that is fitted: what a fit finds on it says nothing of what the model leaves out.

    Examples
    --------
    >>> phantom = row_scan(magnesium_spinel(), (4, 0, 0), {"Mg K": 5000.0, "Al K": 9000.0}, tilts=13)
    >>> phantom["edx"].dims, phantom.truth["share"].sel(element="Mg", site="8a").item()
    (('line', 'tilt_x'), 0.7)
    """
    row = _row(crystal, reflection, span, counts, [], thickness, beam_energy, tilts, offset)
    edx = row.expected.copy(data=np.random.default_rng(seed).poisson(row.expected.values))
    truth = xr.Dataset(
        {"share": _table(crystal, row.shares), "edx_expected": row.expected},
        attrs={"thickness": thickness, "offset": offset},
    )
    return Phantom({"edx": edx, "response": row.response}, truth, {})


@dataclass(frozen=True, eq=False)
class _Row:
    response: xr.DataArray
    shares: dict[str, dict[str, float]]
    expected: xr.DataArray
    tilts: np.ndarray


def _row(
    crystal: Crystal,
    reflection: Sequence[int],
    span: Sequence[int],
    counts: Mapping[str, float],
    further: Sequence[str],
    thickness: float,
    beam_energy: float,
    tilts: int,
    offset: float,
) -> _Row:
    """Return responses a little wider than a scan, shares, and expected counts of its lines."""
    whole("tilts", tilts, 5)
    if abs(offset) > 2:
        raise InvalidArgument(f"offset={offset!r}; expected at most 2 mrad")
    end = 3 * bragg_angle(beam_energy, crystal.length(span))
    places = np.linspace(-end, end, tilts)
    step = float(places[1] - places[0])
    wide = np.concatenate([places[0] - step * np.arange(4, 0, -1), places, places[-1] + step * np.arange(1, 5)])
    orders = max(8, int(np.ceil(wide[-1] / (0.7 * bragg_angle(beam_energy, crystal.length(reflection))))))
    scan = systematic_row(crystal, reflection, wide, beam_energy, orders=orders)
    known = response(crystal, scan, [*counts, *further], np.arange(5.0, thickness + 31, 5.0), check=False)
    shares = {element: _shares(crystal, element) for element in crystal.elements}
    tables = []
    for line, mean in counts.items():
        curve = site_curves(
            known, line, shares[line.split()[0]], {"tilt_x": places}, thickness, offset={"tilt_x": offset}
        ).sum("component")
        tables.append(mean * (curve / curve.mean()).values)
    coords: dict[str, Any] = {"line": list(counts), "tilt_x": ("tilt_x", places, {"units": "mrad"})}
    lines = xr.DataArray(np.array(tables), dims=("line", "tilt_x"), coords=coords, attrs={"units": "counts"})
    return _Row(known, shares, lines, places)


def _table(crystal: Crystal, shares: Mapping[str, Mapping[str, float]]) -> xr.DataArray:
    return xr.DataArray(
        [[own.get(site, np.nan) for site in crystal.labels] for own in shares.values()],
        dims=("element", "site"),
        coords={"element": list(shares), "site": list(crystal.labels)},
    )


def _shares(crystal: Crystal, element: str) -> dict[str, float]:
    total = crystal.amount(element)
    return {
        site.label: len(site.positions) * site.occupants.get(element, 0.0) / total
        for site in crystal.sites
        if site.label in SITES or element in site.occupants
    }
