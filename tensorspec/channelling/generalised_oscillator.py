"""Ionization of an inner shell by fast electrons: cross-section, and how it falls with the momentum exchanged.

In Hartree atomic units, like the atom.  The mixed dynamic form factor of a closed shell is a sum over final states and
multipoles; what is ionized in total is its integral over energy losses and scattering angles.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import spherical_jn

from tensorspec.channelling.atom import Atom, states_in_box

__all__ = ["ionized", "mixed_form_factors"]

MULTIPOLES = 9
# Energy losses are gathered in so many groups, up to this many times the edge.
GROUPS, HIGHEST = 18, 60.0
MOMENTA = 72
RADIAL, ANGLES = 40, 8
LIGHT = 137.035999


def ionized(
    found: Atom, shell: tuple[int, int], edge: float, momentum: np.ndarray, speed: float
) -> tuple[float, np.ndarray]:
    """Return the total cross-section of a shell, and the form factor of its ionization.

    Parameters
    ----------
    found : Atom
        The atom.
    shell : tuple of int
        Principal quantum number and angular momentum.
    edge : float
        Energy that is at least lost.
    momentum : (values,) array
        Momenta ``Q`` that are exchanged between two beams, across the beam.
    speed : float
        Of the fast electron; that of light is 137.036.

    Returns
    -------
    section : float
        In units of the Bohr radius squared.
    form : (values,) array
        One at zero.

    Notes
    -----
    ``sigma F(Q) = sum over losses of integral d^2 q 4 / v^2 * S(q + Q/2, q - Q/2) / (q_+^2 q_-^2)``, with ``q_z`` the
    loss over the speed: Oxley and Allen, Acta Crystallographica A56 (2000) 470, doi:10.1107/S0108767300007078.
    """
    grid, losses, matrices = mixed_form_factors(found, shell, edge)
    momentum = np.asarray(momentum, dtype=float)
    total = np.zeros(len(momentum))
    for loss, matrix in zip(losses, matrices, strict=True):
        along = loss / speed
        total += [_over_angles(grid, matrix, along, float(each)) for each in momentum]
    zero = sum(_over_angles(grid, matrix, loss / speed, 0.0) for loss, matrix in zip(losses, matrices, strict=True))
    section = 4 / speed**2 * zero
    return float(section), total / zero


@lru_cache(maxsize=4)
def mixed_form_factors(found: Atom, shell: tuple[int, int], edge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return momenta, energy losses, and for each loss the products of radial integrals, by multipole.

    Parameters
    ----------
    found, shell, edge
        As for `ionized`.

    Returns
    -------
    grid : (momenta,) array
    losses : (groups,) array
    matrices : (groups, multipoles, momenta, momenta) array
        ``S(q, q') = sum over multipoles of P(cos) * matrix(q, q')``.
    """
    principal, own = shell
    # How far out the shell reaches decides how large the sphere has to be, and how small the momenta.
    extent = max((own + 1.5) * principal / np.sqrt(2 * edge), 0.02)
    size = 14 * extent
    fastest = np.sqrt(2 * HIGHEST * edge)
    splines = int(min(max(120, 2.6 * size * fastest / np.pi), 420))
    initial = states_in_box(found, own, size, splines)
    place = principal - own - 1
    start = initial.orbital[place]
    grid = np.geomspace(2e-3 / extent, 30 / extent, MOMENTA)
    radius, weight = initial.radius, initial.weight
    bessel = [spherical_jn(multipole, grid[:, np.newaxis] * radius) for multipole in range(MULTIPOLES + own + 1)]
    edges = np.concatenate([[0.0], np.geomspace(0.05 * edge, HIGHEST * edge, GROUPS)])
    sums, weights = np.zeros(GROUPS), np.zeros(GROUPS)
    matrices = np.zeros((GROUPS, len(bessel), MOMENTA, MOMENTA))
    for final in range(MULTIPOLES + 1):
        states = states_in_box(found, final, size, splines)
        free = (states.energy > 0) & (states.energy < edges[-1])
        energy = states.energy[free]
        group = np.searchsorted(edges, energy) - 1
        products = states.orbital[free] * (start * weight)
        for multipole in range(abs(final - own), final + own + 1):
            coupled = _three_j(own, multipole, final) ** 2
            if coupled == 0 or multipole >= len(bessel):
                continue
            factor = 2 * (2 * own + 1) * (2 * final + 1) * (2 * multipole + 1) * coupled
            radial = products @ bessel[multipole].T
            for k in range(GROUPS):
                inside = radial[group == k]
                matrices[k, multipole] += factor * inside.T @ inside
        # Losses are weighed as the dipole part weighs them.
        if abs(final - own) == 1:
            strength = (products @ radius) ** 2
            np.add.at(sums, group, strength * energy)
            np.add.at(weights, group, strength)
    middle = np.sqrt(np.maximum(edges[1:] * np.maximum(edges[:-1], edges[1:] / 3), 0))
    losses = edge + np.where(weights > 0, sums / np.where(weights > 0, weights, 1), middle)
    return grid, losses, matrices


def _over_angles(grid: np.ndarray, matrix: np.ndarray, along: float, momentum: float) -> float:
    """Return the integral over the plane of ``S(q+, q-) / (q+^2 q-^2)``; `along` is the part of q along the beam."""
    nodes, node_weights = np.polynomial.legendre.leggauss(RADIAL)
    angles, angle_weights = np.polynomial.legendre.leggauss(ANGLES)
    # Forwards, and backwards, where the border between the two momenta comes in from far away: most angles there.
    u = 0.5 * (angles + 1)
    angle = np.concatenate([0.5 * np.pi * u, 0.5 * np.pi * (1 + u**3)])
    around = 0.25 * np.pi * np.concatenate([angle_weights, angle_weights * 3 * u**2])
    # From the point where one of the two momenta is smallest outwards, to the middle between both, or to the end.
    far = np.full(len(angle), grid[-1])
    if momentum > 0:
        backwards = np.cos(angle) < 0
        far[backwards] = np.minimum(momentum / 2 / -np.cos(angle[backwards]), far[backwards])
    near = np.minimum(1e-2 * along, far / 10)
    stretch = np.log(far / near)
    radius = near * np.exp(0.5 * stretch * (nodes[:, np.newaxis] + 1))
    measure = 0.5 * stretch * node_weights[:, np.newaxis] * radius**2 * around
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    minus = np.sqrt(radius**2 + along**2)
    plus = np.sqrt((x + momentum) ** 2 + y**2 + along**2)
    cosine = np.clip(((x + momentum) * x + y**2 + along**2) / (plus * minus), -1, 1)
    low, high = np.log(grid[0]), np.log(grid[-1])
    step = (high - low) / (len(grid) - 1)

    def place(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.clip((np.log(values) - low) / step, 0, len(grid) - 1.0001)
        whole = at.astype(int)
        return whole, at - whole

    (i, u), (j, v) = place(plus.ravel()), place(minus.ravel())
    # Divided by both momenta it is smooth down to none at all.
    even = (matrix / np.multiply.outer(grid, grid)).reshape(len(matrix), -1)
    size = len(grid)
    mixed = (1 - u) * (1 - v) * even[:, i * size + j] + u * (1 - v) * even[:, (i + 1) * size + j]
    mixed += (1 - u) * v * even[:, i * size + j + 1] + u * v * even[:, (i + 1) * size + j + 1]
    value = (_legendre(len(matrix), cosine.ravel()) * mixed).sum(axis=0)
    integrand = value.reshape(plus.shape) / (plus * minus)
    # Both halves of the plane, and both signs of y; without momentum all angles are the same plane.
    halves = 4.0 if momentum > 0 else 2.0
    return halves * float((integrand * measure).sum())


def _legendre(count: int, x: np.ndarray) -> np.ndarray:
    found = np.ones((count, len(x)))
    if count > 1:
        found[1] = x
    for k in range(2, count):
        found[k] = ((2 * k - 1) * x * found[k - 1] - (k - 1) * found[k - 2]) / k
    return found


def _three_j(first: int, second: int, third: int) -> float:
    """Return the Wigner symbol with all projections zero."""
    from math import factorial, sqrt

    total = first + second + third
    if total % 2 or third > first + second or third < abs(first - second):
        return 0.0
    half = total // 2
    root = sqrt(
        factorial(total - 2 * first)
        * factorial(total - 2 * second)
        * factorial(total - 2 * third)
        / factorial(total + 1)
    )
    return (
        (-1) ** half
        * root
        * factorial(half)
        / (factorial(half - first) * factorial(half - second) * factorial(half - third))
    )
