"""Transitions of one shell into the continuum: radial integrals and the generalised oscillator strength.

In Hartree atomic units.  A fast electron that hands over the momentum q and the energy E excites a full shell (n, l)
with the dynamic form factor

    S(q, E) = sum over l', lambda of 2 (2l+1) (2l'+1) (2 lambda+1) (l lambda l'; 000)**2 R(q)**2,
    R(q) = integral of P_nl(r) j_lambda(q r) P_El'(r) dr,

and the oscillator strength per electron and Hartree is ``2 E / q**2`` times S per electron (Inokuti, Rev. Mod. Phys.
43 (1971) 297, https://doi.org/10.1103/RevModPhys.43.297).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorspec.channelling.radial import LIGHT_SPEED, CentralField, Mesh, free_orbitals, mesh

__all__ = ["Transitions", "transitions", "wigner_squared"]


@dataclass(frozen=True)
class Transitions:
    """Radial integrals of a full shell (n, l) into the continuum.

    Attributes
    ----------
    shell : (n, l)
        The shell.
    energies : (energy,) array
        Of the free electron, Hartree.
    momenta : (momentum,) array
        q, 1 / a0, evenly spaced in the logarithm.
    multipoles, weights : (channel,) arrays
        lambda of each pair (lambda, l'), and what its ``R**2`` counts in S of the full shell.
    radial : (channel, energy, momentum) array
        R, in 1 / sqrt(Hartree).
    """

    shell: tuple[int, int]
    energies: np.ndarray
    momenta: np.ndarray
    multipoles: np.ndarray
    weights: np.ndarray
    radial: np.ndarray

    def form_factor(self) -> np.ndarray:
        """Return S(q, E) of the full shell per Hartree, (energy, momentum)."""
        return np.einsum("c,ceq->eq", self.weights, self.radial**2)

    def oscillator_strength(self, binding: float) -> np.ndarray:
        """Return df/dE per electron and Hartree, (energy, momentum), for this binding energy (Hartree)."""
        loss = binding + self.energies[:, None]
        return 2 * loss / self.momenta**2 * self.form_factor() / (4 * self.shell[1] + 2)


def wigner_squared(first: int, second: int, third: int) -> float:
    """Return the square of the Wigner 3j symbol (first second third; 0 0 0).

    Examples
    --------
    >>> round(wigner_squared(1, 1, 2), 6)
    0.133333
    """
    from math import factorial

    total = first + second + third
    half, odd = divmod(total, 2)
    sides = half - first, half - second, half - third
    if odd or min(sides) < 0:
        return 0.0
    triangle = np.prod([float(factorial(2 * side)) for side in sides]) / factorial(total + 1)
    return float(triangle * (factorial(half) / np.prod([float(factorial(side)) for side in sides])) ** 2)


def transitions(
    field: CentralField,
    grid: Mesh,
    function: np.ndarray,
    shell: tuple[int, int],
    energies: np.ndarray,
    momenta: np.ndarray,
    most: int,
) -> Transitions:
    """Return the radial integrals of a shell into free orbitals of a field.

    Parameters
    ----------
    field : CentralField
        Of the free electron.
    grid, function : Mesh, (point,) array
        The bound orbital P(r).
    shell : (n, l)
        Its quantum numbers.
    energies : (energy,) array
        Of the free electron, Hartree, above 0.
    momenta : (momentum,) array
        q, 1 / a0.
    most : int
        Highest multipole.

    Returns
    -------
    Transitions
        All channels (lambda, l') that are not zero by symmetry.

    Notes
    -----
    The monopole uses ``j_0 - 1``: the constant is orthogonality of bound and free orbitals, which holds exactly in
    one field and must be enforced where the two see different ones.
    """
    from scipy.interpolate import CubicSpline
    from scipy.special import spherical_jn

    start = shell[1]
    charge = np.cumsum(function**2 * grid.slope)
    extent = 1.6 * grid.radius[np.searchsorted(charge, (1 - 1e-7) * charge[-1])]
    nodes, node_weights = np.polynomial.legendre.leggauss(20)
    edges = np.sqrt(extent) * np.linspace(0, 1, 33)
    root = ((edges[1:] + edges[:-1])[:, None] + np.diff(edges)[:, None] * nodes).ravel() / 2
    radius, weight = root**2, (np.diff(edges)[:, None] * node_weights).ravel() * root
    bound = CubicSpline(np.log(grid.radius), function)(np.log(np.maximum(radius, grid.radius[0]))) * weight
    pairs = [
        (multipole, final)
        for multipole in range(most + 1)
        for final in range(abs(start - multipole), start + multipole + 1)
        if wigner_squared(start, multipole, final) > 0
    ]
    multipoles, finals = np.array(pairs).T
    weights = np.array(
        [2 * (2 * start + 1) * (2 * b + 1) * (2 * a + 1) * wigner_squared(start, a, b) for a, b in pairs]
    )
    free = np.stack([free_on(field, energy, int(finals.max()), radius, grid.radius[0]) for energy in energies])
    radial = np.empty((len(pairs), len(energies), len(momenta)))
    for multipole in range(most + 1):
        wave = spherical_jn(multipole, momenta[:, None] * radius) - (multipole == 0)
        for channel in np.flatnonzero(multipoles == multipole):
            radial[channel] = (free[:, finals[channel]] * bound) @ wave.T
    return Transitions(shell, np.asarray(energies), np.asarray(momenta), multipoles, weights, radial)


def free_on(field: CentralField, energy: float, most: int, radius: np.ndarray, least: float) -> np.ndarray:
    """Return the free orbitals up to angular momentum ``most`` of one energy at these radii, (l, radius)."""
    from scipy.interpolate import CubicSpline

    wave_number = np.sqrt(2 * energy * (1 + field.relativistic * energy / (2 * LIGHT_SPEED**2)))
    end = max(1.02 * radius[-1], min(60 / wave_number, 150.0))
    grid = mesh(least, end, min(4 / wave_number, 3.0), 1300)
    # A centrifugal barrier that reaches beyond the mesh keeps the electron away from the shell: nothing to integrate.
    inside = energy - field.energy(grid.radius[-40:]).max() > 1.1 * np.arange(most + 1) ** 2 / (
        2 * grid.radius[-40] ** 2
    )
    found = np.zeros((most + 1, len(radius)))
    functions = free_orbitals(field, grid, energy, np.flatnonzero(inside))
    found[inside] = CubicSpline(np.log(grid.radius), functions, axis=1)(np.log(radius))
    return found
