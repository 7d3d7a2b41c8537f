"""A free atom by Hartree and Slater: its potential, and the orbitals of bound and free electrons in it.

Everything here is in Hartree atomic units.  The exchange is that of Slater with alpha = 0.7, and an electron far out
sees the charge of an ion (Latter).  Relativity is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import eigh

__all__ = ["Atom", "Shells", "States", "atom", "states_in_box"]

ALPHA = 0.7
# Radius of the sphere in which the atom is solved, splines, and their order.
RADIUS, SPLINES, ORDER = 30.0, 90, 7
ROUNDS, MIXED, SETTLED = 150, 0.3, 1e-6
# Shells in the order in which they are filled.
FILLED = ("1s", "2s", "2p", "3s", "3p", "4s", "3d", "4p", "5s", "4d", "5p", "6s", "4f", "5d", "6p", "7s", "5f", "6d")
LETTERS = "spdf"

Shells = dict[tuple[int, int], float]


@dataclass(frozen=True, eq=False)
class States:
    """Orbitals of one angular momentum in a sphere.

    Attributes
    ----------
    energy : (states,) array
        Rising.
    radius, weight : (points,) arrays
        Points and weights of an integral over the radius.
    orbital : (states, points) array
        ``r`` times the radial function, normalised.
    """

    energy: np.ndarray
    radius: np.ndarray
    weight: np.ndarray
    orbital: np.ndarray


@dataclass(frozen=True, eq=False)
class Atom:
    """A neutral atom.

    Attributes
    ----------
    number : int
        Atomic number.
    shells : mapping
        Electrons by principal quantum number and angular momentum.
    energies : mapping
        Of the orbitals.
    radius, charge : (points,) arrays
        ``-charge / radius`` is the potential of one of its electrons, exchange included.
    """

    number: int
    shells: Shells
    energies: dict[tuple[int, int], float]
    radius: np.ndarray
    charge: np.ndarray

    def potential(self, radius: np.ndarray) -> np.ndarray:
        """Return the potential of an electron at some radii."""
        inside = np.interp(np.log(np.maximum(radius, 1e-12)), np.log(self.radius), self.charge)
        return (
            -np.where(radius < self.radius[0], self.number + (inside - self.number) * radius / self.radius[0], inside)
            / radius
        )


def shells_of(number: int) -> Shells:
    """Return how many electrons each shell has, by the order of filling.

    Examples
    --------
    >>> shells_of(8)
    {(1, 0): 2.0, (2, 0): 2.0, (2, 1): 4.0}
    """
    left, found = float(number), {}
    for name in FILLED:
        momentum = LETTERS.index(name[1])
        held = min(left, 2.0 * (2 * momentum + 1))
        if held > 0:
            found[int(name[0]), momentum] = held
        left -= held
    return found


@lru_cache(maxsize=128)
def atom(number: int) -> Atom:
    """Return the self-consistent neutral atom.

    Examples
    --------
    >>> helium = atom(2)
    >>> bool(-0.8 < helium.energies[1, 0] < -0.7)
    True
    """
    shells = shells_of(number)
    space = _Space(RADIUS, SPLINES, 1e-3 / number)
    radius, weight = space.radius, space.weight
    most = max(momentum for _, momentum in shells)
    # Thomas and Fermi, roughly, to begin with.
    x = radius * number ** (1 / 3) / 0.8853
    charge = np.maximum(number / (1 + 0.02747 * x**0.5 + 1.243 * x - 0.1486 * x**1.5 + 0.2302 * x**2), 1.0)
    energies: dict[tuple[int, int], float] = {}
    for _ in range(ROUNDS):
        density = np.zeros_like(radius)  # 4 pi r^2 rho
        new_energies = {}
        for momentum in range(most + 1):
            values, vectors = space.solve(-charge / radius, momentum)
            for (principal, own), held in shells.items():
                if own == momentum:
                    place = principal - momentum - 1
                    density += held * (vectors[:, place] @ space.values) ** 2
                    new_energies[principal, own] = float(values[place])
        change = max((abs(new_energies[key] - energies.get(key, 0.0)) for key in new_energies), default=0.0)
        energies = new_energies
        inner = np.cumsum(density * weight) - 0.5 * density * weight
        shell = density * weight / radius
        outer = shell[::-1].cumsum()[::-1] - 0.5 * shell
        electrons = inner + radius * outer
        local = density / (4 * np.pi * radius**2)
        exchange = 1.5 * ALPHA * (3 * np.maximum(local, 0) / np.pi) ** (1 / 3) * radius
        wanted = np.maximum(number - electrons + exchange, 1.0)
        charge = (1 - MIXED) * charge + MIXED * wanted
        if change < SETTLED * number**2:
            break
    return Atom(number, shells, energies, radius, charge)


def states_in_box(found: Atom, momentum: int, size: float, splines: int) -> States:
    """Return the orbitals of one angular momentum in a sphere: bound ones, and free ones in steps.

    Parameters
    ----------
    found : Atom
        Gives the potential.
    momentum : int
        Angular momentum.
    size : float
        Radius of the sphere; sums over free states are those over all energies if it is large beside the orbital that
        they start from.
    splines : int
        Number of splines: what wavelengths are resolved.
    """
    space = _Space(size, splines, 0.02 / found.number, even=True)
    values, vectors = space.solve(found.potential(space.radius), momentum)
    return States(values, space.radius, space.weight, vectors.T @ space.values)


class _Space:
    """Splines on a sphere, zero in the middle and at its surface."""

    def __init__(self, size: float, splines: int, first: float, even: bool = False) -> None:
        inner = splines - ORDER + 3
        if even:
            # Steps that grow from the nucleus to an even spacing, which free electrons need.
            x = np.linspace(0, 1, inner)
            breaks = size * (0.15 * x**3 + 0.85 * x) if first > size / inner else _growing(first, size, inner)
        else:
            breaks = np.concatenate([[0.0], np.geomspace(first, size, inner - 1)])
        knots = np.concatenate([np.zeros(ORDER), breaks, np.full(ORDER, size)])
        nodes, weights = np.polynomial.legendre.leggauss(ORDER + 2)
        middle, half = (breaks[1:] + breaks[:-1]) / 2, (breaks[1:] - breaks[:-1]) / 2
        self.radius = (middle[:, np.newaxis] + half[:, np.newaxis] * nodes).ravel()
        self.weight = (half[:, np.newaxis] * weights).ravel()
        count = len(knots) - ORDER - 1
        design = BSpline.design_matrix(self.radius, knots, ORDER).toarray()[:, 1:-1]
        slope = BSpline(knots, np.eye(count), ORDER).derivative()(self.radius)[:, 1:-1]
        self.values = design.T
        weighted = design * self.weight[:, np.newaxis]
        self.overlap = design.T @ weighted
        self.kinetic = 0.5 * slope.T @ (slope * self.weight[:, np.newaxis])

    def solve(self, potential: np.ndarray, momentum: int) -> tuple[np.ndarray, np.ndarray]:
        whole = potential + momentum * (momentum + 1) / (2 * self.radius**2)
        energy = self.kinetic + self.values @ (self.values * (whole * self.weight)).T
        return eigh((energy + energy.T) / 2, self.overlap)


def _growing(first: float, size: float, count: int) -> np.ndarray:
    """Return points from zero to the size whose steps grow by a factor until they are even."""
    few = count // 4
    even = size / (count - few)
    start = np.concatenate([[0.0], np.geomspace(first, max(even, 1.5 * first), few)])
    rest = np.linspace(start[-1], size, count - few)[1:]
    return np.concatenate([start, rest])
