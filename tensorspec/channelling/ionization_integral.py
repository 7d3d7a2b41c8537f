"""Ionization of a shell by fast electrons: the cross-section and how local it is, from the transitions of the shell.

Between two plane waves that differ by the transverse momentum Q, with all scattering angles collected,

    sigma F(Q) = integral dE 4 / v**2 integral d2q S(q + Q/2, q - Q/2) / (q_+**2 q_-**2),   q_z = E / v

(Hartree atomic units; Oxley and Allen, Acta Cryst. A56 (2000) 470, https://doi.org/10.1107/S0108767300007078).
The inner integral is an autocorrelation of the amplitudes ``R(q) Y_lm(q) / q**2`` of each channel, so in real space,
across the beam, it is a density: the sum of their squared Hankel transforms.  Its transform is sigma F(Q).  All of it
is done by fast Hankel transforms on logarithmic grids (Hamilton, Mon. Not. R. Astron. Soc. 312 (2000) 257,
https://doi.org/10.1046/j.1365-8711.2000.03071.x).
"""

from __future__ import annotations

import numpy as np

from tensorspec.channelling.electron import speed
from tensorspec.channelling.generalised_oscillator import Transitions
from tensorspec.channelling.radial import LIGHT_SPEED

__all__ = ["HARTREE", "energy_nodes", "ionized"]

HARTREE = 27.211386245988  # eV
# Points of the logarithmic grids across the beam, and how far these go below the least momentum and beyond the last.
POINTS, BELOW, BEYOND = 840, 1e-6, 30.0
# Exponent that balances the ends of the last transform, which wrap around.
BALANCE = -0.3


def energy_nodes(binding: float, most: float, count: int) -> np.ndarray:
    """Return energies of the free electron from the threshold to ``most`` (Hartree), close together at the threshold.

    Examples
    --------
    >>> energy_nodes(10.0, 30.0, 3).round(2).tolist()
    [0.01, 4.14, 30.0]
    """
    found = binding * np.expm1(np.log1p(most / binding) * np.linspace(0, 1, count) ** 2)
    # An electron of no energy has no wavelength; the first node stays below the second, however narrow the window.
    return np.maximum(found, min(0.001 * binding, found[1] / 3))


def ionized(
    shell: Transitions, binding: float, beam_energy: float, momentum: np.ndarray, window: float | None = None
) -> tuple[float, np.ndarray]:
    """Return the cross-section and the form factor of the ionization of a shell.

    Parameters
    ----------
    shell : Transitions
        At `energy_nodes` of the same binding energy.
    binding : float
        Least energy loss, Hartree.
    beam_energy : float
        keV.
    momentum : (Q,) array
        Transverse momentum between the two waves, 1 / a0.
    window : float, optional
        Losses up to this far above the edge are counted, Hartree; by default all that leave the fast electron faster
        than the freed one, or up to the last energy of the transitions.

    Returns
    -------
    cross_section, form_factor : float and (Q,) array
        a0**2, for the full shell; and 1 at Q = 0.
    """
    from scipy.interpolate import CubicSpline

    velocity = LIGHT_SPEED * speed(beam_energy)
    total, form = at_each_energy(shell, (binding + shell.energies) / velocity, np.asarray(momentum, float))
    # Integral over the energy in the variable in which the nodes are even: fast near the threshold, slow far above.
    most = (1000 * beam_energy / HARTREE - binding) / 2 if window is None else window
    even = np.sqrt(np.log1p(shell.energies / binding))
    end = min(float(np.sqrt(np.log1p(most / binding))), even[-1])
    per_node = 4 / velocity**2 * (binding + shell.energies) * 2 * even
    section = float(CubicSpline(even, total * per_node).integrate(0, end))
    return section, CubicSpline(even, form * per_node[:, None]).integrate(0, end) / section


def at_each_energy(shell: Transitions, along: np.ndarray, momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the integral over the transverse momentum, for Q = 0 and for the wanted Q, at each energy.

    Parameters
    ----------
    shell : Transitions
        Of the shell.
    along : (energy,) array
        Momentum lost along the beam, 1 / a0.
    momentum : (Q,) array
        Transverse momentum between the two waves, 1 / a0.

    Returns
    -------
    total, form : (energy,) and (energy, Q) arrays
        a0**2 per Hartree.
    """
    from scipy.fft import fht
    from scipy.interpolate import CubicSpline

    log_least, log_most = np.log(BELOW * along.min()), np.log(BEYOND * shell.momenta[-1])
    logarithm, step = np.linspace(log_least, log_most, POINTS, retstep=True)
    across = np.exp(logarithm)
    size = np.sqrt(across**2 + along[:, None] ** 2)
    cosine, sine = along[:, None] / size, across / size
    place, inside = np.log(np.minimum(size, shell.momenta[-1])), size <= shell.momenta[-1]
    amplitude = np.empty((len(shell.multipoles), *size.shape))
    for index in range(len(along)):
        spline = CubicSpline(np.log(shell.momenta), shell.radial[:, index], axis=1)
        amplitude[:, index] = spline(place[index]) * (inside[index] / size[index] ** 2)
    amplitude *= np.sqrt(4 * np.pi * shell.weights / (2 * shell.multipoles + 1))[:, None, None]
    density, total = np.zeros(size.shape), np.zeros(len(along))
    highest = int(shell.multipoles.max())
    for order in range(highest + 1):
        angular = legendre(order, highest, cosine, sine)
        channels = shell.multipoles >= order
        part = amplitude[channels] * angular[shell.multipoles[channels] - order] * across
        twice = 1 if order == 0 else 2
        total += twice * 2 * np.pi * step * (part**2).sum((0, 2))
        density += twice * (np.asarray(fht(part, step, order)) ** 2).sum(0)
    radius = 1 / across[::-1]
    return total, transformed(density / radius**2, radius, float(step), total, np.abs(momentum))


def transformed(
    density: np.ndarray, radius: np.ndarray, step: float, total: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Return the transform of order 0 of each density in the plane at the wanted momenta; at 0 it is ``total``."""
    from scipy.fft import fht
    from scipy.interpolate import CubicSpline

    across = 1 / radius[::-1]
    curve = 2 * np.pi * np.asarray(fht(density * radius, step, 0, bias=BALANCE)) / across
    found = CubicSpline(np.log(across), curve, axis=1)(np.log(np.maximum(wanted, across[0])))
    return np.where(wanted == 0, total[:, None], found)


def legendre(order: int, most: int, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Return the polar parts of the spherical harmonics of this order and degrees order ... most, normalised."""
    found = np.empty((most - order + 1, *cosine.shape))
    found[0] = np.sqrt(1 / (4 * np.pi))
    for index in range(1, order + 1):
        found[0] *= sine * np.sqrt((2 * index + 1) / (2 * index))
    if most > order:
        found[1] = np.sqrt(2 * order + 3) * cosine * found[0]
    for degree in range(order + 2, most + 1):
        first = np.sqrt((4 * degree**2 - 1) / (degree**2 - order**2))
        second = np.sqrt(((degree - 1) ** 2 - order**2) / (4 * (degree - 1) ** 2 - 1))
        row = degree - order
        found[row] = first * (cosine * found[row - 1] - second * found[row - 2])
    return found
