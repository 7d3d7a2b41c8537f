"""Channelling scans with known truth: a spinel whose metals are mixed, as X-rays and energy losses at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number, whole
from tensorspec.channelling.beams import systematic_row
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import bragg_angle
from tensorspec.channelling.site_response import response
from tensorspec.channelling.spectra_of_sites import site_curves
from tensorspec.errors import InvalidArgument
from tensorspec.phantoms import Phantom

__all__ = ["magnesium_spinel", "manganese_white_lines", "spinel", "spinel_scan"]

ENERGY = np.arange(635.0, 665.0, 0.25)
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


def manganese_white_lines(valence: float, energy: np.ndarray = ENERGY) -> np.ndarray:
    """Return a spectrum like the L2,3 edge of manganese, of unit sum; shapes are made up, trends with valence are real.

    Parameters
    ----------
    valence : float
        2 to 4: with it the edge moves up by about 0.8 eV a charge, and the ratio of L3 to L2 falls.
    energy : array
        Energy losses, eV.

    Examples
    --------
    >>> third, fourth = manganese_white_lines(3), manganese_white_lines(4)
    >>> bool(ENERGY[third.argmax()] < ENERGY[fourth.argmax()])
    True
    """
    number("valence", valence, 1, 7)
    shift, ratio = 0.8 * (valence - 3), 2.6 - 0.6 * (valence - 3)

    def line(place: float, width: float, height: float) -> np.ndarray:
        return height / (1 + ((energy - place - shift) / width) ** 2)

    steps = 0.15 / (1 + np.exp(-(energy - 642 - shift) / 0.6)) + 0.08 / (1 + np.exp(-(energy - 653 - shift) / 0.6))
    spectrum = line(641.5, 1.3, ratio) + line(652.8, 1.5, 1.0) + line(644, 1.5, 0.5) + steps
    return spectrum / spectrum.sum()


def spinel_scan(
    reflection: Sequence[int] = (4, 0, 0),
    *,
    crystal: Crystal | None = None,
    counts: Mapping[str, float] | None = None,
    losses: float = 3e5,
    valences: Mapping[str, float] | None = None,
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
        Mean counts of an energy-loss spectrum, manganese L2,3 only.
    valences : mapping of str to float
        Of manganese, by site.
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
        and in ``truth`` the shares of each element, the spectra of manganese by site, thickness and offset.

    Notes
    -----
    Simulated with the model that is fitted: what a fit finds on it says nothing of what the model leaves out.

    Examples
    --------
    >>> phantom = spinel_scan(tilts=13)
    >>> phantom["edx"].dims, phantom["eels"].sizes["energy_loss"]
    (('line', 'tilt_x'), 120)
    """
    whole("tilts", tilts, 5)
    crystal = crystal or spinel()
    counts = dict(counts or {"Mn K": 8000.0, "Ni K": 2500.0, "O K": 3000.0})
    valences = dict(valences or {"8a": 3.0, "16d": 4.0, "16c": 3.0})
    if abs(offset) > 2:
        raise InvalidArgument(f"offset={offset!r}; expected at most 2 mrad")
    angle = bragg_angle(beam_energy, crystal.length((4, 0, 0)))
    span = np.linspace(-3 * angle, 3 * angle, tilts)
    step = float(span[1] - span[0])
    wide = np.concatenate([span[0] - step * np.arange(4, 0, -1), span, span[-1] + step * np.arange(1, 5)])
    orders = max(8, int(np.ceil(wide[-1] / (0.7 * angle * crystal.length(reflection) / crystal.length((4, 0, 0))))))
    scan = systematic_row(crystal, reflection, wide, beam_energy, orders=orders)
    depths = np.arange(5.0, thickness + 31, 5.0)
    known = response(crystal, scan, [*counts, "Mn L23"], depths, check=False)
    shares = {element: _shares(crystal, element) for element in crystal.elements}
    rng = np.random.default_rng(seed)
    tables = []
    for line, mean in counts.items():
        curve = site_curves(
            known, line, shares[line.split()[0]], {"tilt_x": span}, thickness, offset={"tilt_x": offset}
        ).sum("component")
        tables.append(mean * (curve / curve.mean()).values)
    coords: dict[str, Any] = {"line": list(counts), "tilt_x": ("tilt_x", span, {"units": "mrad"})}
    lines = xr.DataArray(np.array(tables), dims=("line", "tilt_x"), coords=coords, attrs={"units": "counts"})
    edx = lines.copy(data=rng.poisson(lines.values))
    own = {site: share for site, share in shares["Mn"].items() if share > 0}
    curves = site_curves(known, "Mn L23", own, {"tilt_x": span}, thickness, offset={"tilt_x": offset})
    spectra = np.array([manganese_white_lines(valences[site]) for site in own])
    mean = losses * curves.values.T @ spectra / float(curves.sum("component").mean())
    coords = {"tilt_x": coords["tilt_x"], "energy_loss": ("energy_loss", ENERGY, {"units": "eV"})}
    edge = xr.DataArray(mean, dims=("tilt_x", "energy_loss"), coords=coords, attrs={"units": "counts"})
    eels = edge.copy(data=rng.poisson(mean))
    table = xr.DataArray(
        [[own.get(site, np.nan) for site in crystal.labels] for own in shares.values()],
        dims=("element", "site"),
        coords={"element": list(shares), "site": list(crystal.labels)},
    )
    truth = xr.Dataset(
        {
            "share": table,
            "edx_expected": lines,
            "eels_expected": edge,
            "spectrum": xr.DataArray(
                spectra,
                dims=("component", "energy_loss"),
                coords={"energy_loss": edge.energy_loss, "site": ("component", list(own))},
            ),
        },
        attrs={"thickness": thickness, "offset": offset},
    )
    return Phantom({"edx": edx, "eels": eels, "response": known}, truth, {})


def _shares(crystal: Crystal, element: str) -> dict[str, float]:
    total = crystal.amount(element)
    return {
        site.label: len(site.positions) * site.occupants.get(element, 0.0) / total
        for site in crystal.sites
        if site.label in SITES or element in site.occupants
    }
