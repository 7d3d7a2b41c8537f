"""Ionization of inner shells: cross-sections and form factors, from the table that this project makes, or your own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, MissingDependency, UnknownName

__all__ = ["Ionization", "ionization"]

TABLE = Path(__file__).with_name("ionization_table.npz")
# The shell, or a line that fills it: K, Ka, Kb1; L, L23, L2,3, L3, La. An L1 shell is another one.
LINE = re.compile(r"\s*([A-Z][a-z]?)[\s_-]*(?:(K)(?:[ab]\d?)?|L(?:2,?3|2|3|[ab]\d?)?)\s*")
# A form factor is even in s until it falls below this, and runs with the logarithm of s beyond.
BEND = 0.95


@dataclass(frozen=True, eq=False)
class Ionization:
    """Ionization of one shell by electrons of one energy; also the way in for a table of your own.

    Attributes
    ----------
    element, shell : str
        Which.
    beam_energy : float
        keV.
    edge : float
        eV.
    cross_section : float
        Square angstrom, of all scattering angles.
    s, values : (points,) arrays
        The form factor at ``s = |g| / 2``, one over angstrom, without two pi; one at zero.
    source : str
        Where it comes from.

    Raises
    ------
    InvalidArgument
        If s does not rise from zero, or the values are no form factor.

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
        s, values = np.array(self.s, dtype=float), np.array(self.values, dtype=float)
        name = f"Ionization of {self.element} {self.shell}"
        rising = s.ndim == 1 and s.shape == values.shape and len(s) >= 3 and s[0] == 0 and bool((np.diff(s) > 0).all())
        if not (rising and np.isfinite(s[-1])):
            raise InvalidArgument(
                f"{name}: s has shape {s.shape}, values {values.shape}; expected "
                "three or more rising s from zero, one over angstrom, and as many values."
            )
        if not (abs(values[0] - 1) <= 1e-6 and bool((np.abs(values) <= 1 + 1e-6).all())):
            raise InvalidArgument(f"{name}: values are to be one at s = 0, and nowhere above; divide by the first.")
        number(f"{name}: cross_section (square angstrom)", self.cross_section, 0, above=True)
        object.__setattr__(self, "s", s)
        object.__setattr__(self, "values", values)

    @classmethod
    def from_table(
        cls, line: str, beam_energy: float, s: np.ndarray, values: np.ndarray, cross_section: float
    ) -> Ionization:
        """Return the ionization behind a line or an edge from a table of your own, in any scale.

        Parameters
        ----------
        line : str
            Element and shell, such as ``"Sn K"``.
        beam_energy : float
            keV.
        s, values : (points,) arrays
            Rising s from zero, one over angstrom, and what is proportional to the form factor there.
        cross_section : float
            Square angstrom.

        Examples
        --------
        >>> Ionization.from_table("Sn K", 200, np.array([0, 1.0, 2.0]), np.array([4.0, 3.8, 3.2]), 1e-7).edge
        29200.0
        """
        element, shell = read_line(line)
        energy = number("beam_energy (keV)", beam_energy, 0, above=True)
        values = np.asarray(values, dtype=float)
        if values.ndim != 1 or len(values) == 0 or not values[0] > 0:
            raise InvalidArgument(
                f"values of {line!r} have to start above zero, at s = 0; divide nothing, give them all."
            )
        return cls(element, shell, energy, _edge(element, shell), cross_section, s, values / values[0])

    def form_factor(self, s: np.ndarray) -> np.ndarray:
        """Return the form factor at these s (one over angstrom).

        Exact at the points of the table and monotone where they are; beyond the last it goes on as ``s**-4``.
        """
        from scipy.interpolate import CubicHermiteSpline, CubicSpline

        s = np.abs(np.asarray(s, dtype=float))
        last = self.s[-1]
        bend = max(float(np.interp(-BEND, -np.minimum.accumulate(self.values), self.s)), 1e-6)
        x = np.log1p((self.s / bend) ** 2)
        # The slopes of a cubic spline, cut back where they would overshoot (Fritsch and Carlson, SIAM J. Numer.
        # Anal. 17 (1980) 238, https://doi.org/10.1137/0717021).
        chords = np.diff(self.values) / np.diff(x)
        before, after = np.append(chords[:1], chords), np.append(chords, chords[-1:])
        most = 3 * np.minimum(np.abs(before), np.abs(after)) * (before * after > 0)
        slopes = np.clip(CubicSpline(x, self.values).derivative()(x) * np.sign(after), 0, most) * np.sign(after)
        curve = CubicHermiteSpline(x, self.values, slopes)
        inside = curve(np.log1p((np.minimum(s, last) / bend) ** 2))
        return inside * np.minimum(1.0, last / np.maximum(s, last)) ** 4


def ionization(line: str, beam_energy: float, window: float | None = None) -> Ionization:
    """Return the ionization behind an X-ray line or an edge.

    Parameters
    ----------
    line : str
        Element and shell: ``"Mn K"``, ``"Mn-K"``, ``"Ni_Ka"``, ``"Mn L"``, ``"Mn L23"``.
    beam_energy : float
        keV, 80 to 1000.
    window : float, optional
        For energy losses from the edge up to so many eV above it, as in EELS; computed when it is first asked for,
        in a few seconds; of all scattering angles.  By default all losses count, as they do for an X-ray line.

    Returns
    -------
    Ionization
        Interpolated in the beam energy.  Of ``L23`` the edge is that of L3, the cross-section that of both.

    Raises
    ------
    InvalidArgument
        If the line cannot be read, or an energy lies outside.
    UnknownName
        If the table has no such shell.
    MissingDependency
        If a window is asked for and xraydb is not installed.

    Notes
    -----
    K shells of Li to Zr and L2,3 shells of Ca to Lu, all scattering angles.  Scalar-relativistic Hartree-Slater
    orbitals of the atom, free orbitals in the field of the relaxed ion, multipoles to the 18th, energy losses to
    81 times the edge; transitions into empty bound orbitals (white lines) are not counted.

    Examples
    --------
    >>> ionization("Mn K", 200).form_factor(np.array([0.0, 0.5])).round(2).tolist()
    [1.0, 0.91]
    """
    element, shell = read_line(line)
    table = _table()
    energies = table["beam_energy"]
    energy = number("beam_energy (keV)", beam_energy, float(energies[0]), float(energies[-1]))
    place = table["places"].get((element, shell))
    if place is None:
        raise UnknownName(
            f"no ionization of {element} {shell}; there are {_what_exists()}. Give a table of your own: "
            f"Ionization.from_table({str(line)!r}, {energy:g}, s, values, cross_section)."
        )
    edge = float(table["edge"][place])
    if window is not None:
        return _within(element, shell, energy, number("window (eV)", window, 1.0, 50 * edge))
    from scipy.interpolate import CubicSpline

    from tensorspec.channelling.electron import speed

    # Bethe: the cross-section falls as one over the square of the speed, times a logarithm that varies slowly.
    over, wanted = np.array([np.log(speed(float(each))) for each in energies]), np.log(speed(energy))
    section = np.exp(CubicSpline(over, np.log(table["section"][place]) + 2 * over)(wanted) - 2 * wanted)
    form = CubicSpline(over, table["form"][place].astype(float))(wanted)
    # No form factor is above one (Cauchy and Schwarz).  Where it is almost that, below s of 0.005 per angstrom, the
    # fast Hankel transforms of the integral have it above by their error, 2e-5 at most.
    form = np.minimum(form / form[0], 1.0)
    return Ionization(element, shell, energy, edge, float(section), table["s"], form, "tensorspec, Hartree-Slater")


def read_line(line: str) -> tuple[str, str]:
    """Return element and shell of a line.

    Examples
    --------
    >>> read_line("Ni_Ka"), read_line("Mn L")
    (('Ni', 'K'), ('Mn', 'L23'))
    """
    read = LINE.fullmatch(str(line))
    if not read:
        raise InvalidArgument(f"line {line!r} cannot be read; expected element and shell, such as 'Mn K' or 'Mn L23'.")
    return read[1], read[2] or "L23"


@lru_cache(maxsize=16)
def _within(element: str, shell: str, beam_energy: float, window: float) -> Ionization:
    tables = _xray_tables("ionization with a window")
    from tensorspec.channelling.make_ionization_table import S, compute

    energies = np.array([beam_energy])
    edge, sections, forms = compute(tables.atomic_number(element), shell, energies, window=window)
    source = f"tensorspec, Hartree-Slater, losses to {window:g} eV above the edge"
    return Ionization(element, shell, beam_energy, edge, float(sections[0]), S, np.minimum(forms[0], 1.0), source)


def _edge(element: str, shell: str) -> float:
    try:
        edges = _xray_tables("Ionization.from_table").xray_edges(element)
    except ValueError:
        raise UnknownName(f"there is no element {element!r}; expected a chemical symbol, such as 'Mn'.") from None
    name = "K" if shell == "K" else "L3"
    if name not in edges:
        raise UnknownName(f"{element} has no {name} edge; it has {', '.join(edges)}.")
    return float(edges[name].energy)


def _xray_tables(who: str) -> ModuleType:
    try:
        import xraydb
    except ImportError as error:
        raise MissingDependency(
            f'{who} needs xraydb, which is not installed: pip install "tensorspec[channelling]"'
        ) from error
    return xraydb


def _what_exists() -> str:
    """Return the shells of the table in words; those of neighbouring elements as a range."""
    table, parts = _table(), []
    for shell in ("K", "L23"):
        symbols = table["element"][table["shell"] == shell]
        edges = table["edge"][table["shell"] == shell]
        whole = len(symbols) > 12 and bool((np.diff(edges) > 0).all())
        parts.append(f"{shell} of {symbols[0]} to {symbols[-1]}" if whole else f"{shell} of {', '.join(symbols)}")
    return " and ".join(parts)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    with np.load(TABLE) as stored:
        table: dict[str, Any] = dict(stored)
    pairs = zip(table["element"], table["shell"], strict=True)
    table["places"] = {(str(element), str(shell)): place for place, (element, shell) in enumerate(pairs)}
    return table
