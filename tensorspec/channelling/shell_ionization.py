"""Ionization of inner shells: cross-sections and form factors, from the table that this project makes, or your own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tensorspec.arguments import number
from tensorspec.channelling.crystal import element_of
from tensorspec.errors import InvalidArgument, UnknownName

__all__ = ["Ionization", "ionization"]

TABLE = Path(__file__).with_name("ionization_table.npz")
# The shell, or a line that fills it: K, Ka, Kb1; L, L23, L2,3, L3, La. An L1 shell is another one.
LINE = re.compile(r"\s*([A-Z][a-z]?)[\s_-]*(K(?:[ab]\d?)?|L(?:2,?3|2|3|[ab]\d?)?)\s*")


@dataclass(frozen=True, eq=False)
class Ionization:
    """Ionization of one shell by electrons of one energy.

    Attributes
    ----------
    element, shell : str
        Which.
    beam_energy : float
        keV.
    edge : float
        eV.
    cross_section : float
        Angstrom squared, of all energy losses and angles.
    s, values : (points,) arrays
        The form factor: one at zero.
    source : str
        Where it comes from.

    Examples
    --------
    >>> own = Ionization("Mn", "K", 200.0, 6539.0, 3.7e-6, np.array([0, 1.0, 2.0]), np.array([1, 0.74, 0.45]))
    >>> own.form_factor(np.array([0.0, 1.0])).tolist()
    [1.0, 0.74]
    """

    element: str
    shell: str
    beam_energy: float
    edge: float
    cross_section: float
    s: np.ndarray
    values: np.ndarray
    source: str = "given"

    def __post_init__(self) -> None:
        """Refuse what no form factor is."""
        s, values = np.asarray(self.s, dtype=float), np.asarray(self.values, dtype=float)
        if s.ndim != 1 or s.shape != values.shape or len(s) < 3 or s[0] != 0 or (np.diff(s) <= 0).any():
            raise InvalidArgument(
                f"Ionization of {self.element} {self.shell}: s has shape {s.shape}, values {values.shape}; expected "
                "rising s from zero, one over angstrom, and as many values"
            )
        if abs(values[0] - 1) > 1e-6 or (values < 0).any():
            raise InvalidArgument(
                f"Ionization of {self.element} {self.shell}: values are to be one at s = 0, and zero or more"
            )
        object.__setattr__(self, "s", s)
        object.__setattr__(self, "values", values)

    def form_factor(self, s: np.ndarray) -> np.ndarray:
        """Return the form factor; beyond the last point it goes on as one over the fourth power."""
        from scipy.interpolate import PchipInterpolator

        s = np.abs(np.asarray(s, dtype=float))
        last = self.s[-1]
        # In the square of s it starts with a slope, and not flat.
        curve = PchipInterpolator(self.s**2, self.values)
        values = np.maximum(curve(np.minimum(s, last) ** 2), 0.0)
        return values * np.minimum(1.0, last / np.maximum(s, last)) ** 4


def ionization(line: str, beam_energy: float) -> Ionization:
    """Return the ionization behind a line or an edge.

    Parameters
    ----------
    line : str
        Element and shell: ``"Mn K"``, ``"Ni_Ka"``, ``"Mn L23"``.
    beam_energy : float
        keV, 80 to 1000.

    Returns
    -------
    Ionization
        Interpolated in the beam energy.

    Raises
    ------
    InvalidArgument
        If the line cannot be read, or the energy lies outside.
    UnknownName
        If the table has no such shell.

    Notes
    -----
    K shells of Li to Zr and L2,3 shells of Ca to Lu, all losses and angles (so that of an X-ray line; a window of an
    energy-loss spectrum close to the edge is less local). Non-relativistic Hartree-Slater atoms, monopole to nine-fold
    multipoles. Beside tables of others at 200 kV (Oxley and Allen as in muSTEM; s up to 1 per angstrom): Mn K and Ni K
    within 1.7 %, Al K 6.1 %, O K 11.8 %, Mn L2,3 9.7 %; cross-sections 7 to 11 % higher, which occupancies do not
    depend on.

    Examples
    --------
    >>> ionization("Mn K", 200).form_factor(np.array([0.0, 0.5])).round(2).tolist()
    [1.0, 0.91]
    """
    read = LINE.fullmatch(str(line))
    if not read:
        raise InvalidArgument(f"line {line!r} cannot be read; expected element and shell, such as 'Mn K' or 'Mn L23'")
    element, shell = read[1], "K" if read[2][0] == "K" else "L23"
    table = _table()
    energies = table["beam_energy"]
    energy = number("beam_energy (keV)", beam_energy, float(energies[0]), float(energies[-1]))
    place = table["places"].get((element, shell))
    if place is None:
        ranges = "K shells of Li to Zr and L2,3 shells of Ca to Lu"
        raise UnknownName(
            f"no ionization of {element} {shell}; there are {ranges}. Give your own form factor: response(..., "
            f"{{{str(line)!r}: Ionization({element!r}, {shell!r}, beam_energy, edge, cross_section, s, values)}})"
        )
    from scipy.interpolate import CubicSpline

    over = np.log(energies)
    section = np.exp(CubicSpline(over, np.log(table["section"][place]))(np.log(energy)))
    form = CubicSpline(over, table["form"][place].astype(float))(np.log(energy))
    form = np.maximum(form / form[0], 0.0)
    source = "tensorspec, Hartree-Slater"
    return Ionization(element, shell, energy, float(table["edge"][place]), float(section), table["s"], form, source)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    with np.load(TABLE) as stored:
        table: dict[str, Any] = dict(stored)
    names = [element_of(int(each)).name for each in table["number"]]
    table["places"] = {(name, str(shell)): k for k, (name, shell) in enumerate(zip(names, table["shell"], strict=True))}
    return table
