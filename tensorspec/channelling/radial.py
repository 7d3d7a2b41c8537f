"""Radial wave functions of a central field, bound and free, without or with scalar relativity.

Everything is in Hartree atomic units.  The mesh ``x = ln r + r / c`` is logarithmic near the nucleus and even far
out.  With ``P = sqrt(M) y``, ``M = 1 + (E - V) / (2 c_light**2)``, the scalar-relativistic equation (Koelling and
Harmon, J. Phys. C 10 (1977) 3107, https://doi.org/10.1088/0022-3719/10/16/019) has no first derivative,

    y'' = [l (l + 1) / r**2 + 2 M (V - E) - M' / (M r) - M'' / (2 M) + 3/4 (M' / M)**2] y,

and ``y = sqrt(dr/dx) u`` keeps that form on the mesh, which Numerov's rule asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["CentralField", "Mesh", "bound_orbitals", "free_orbitals", "mesh"]

LIGHT_SPEED = 137.035999
TINY = 1e-120


@dataclass(frozen=True)
class Mesh:
    """Radii (a0), ``dr/dx``, the step in x, and the term that the change of variable adds to the equation."""

    radius: np.ndarray
    slope: np.ndarray
    step: float
    curvature: np.ndarray


@dataclass(frozen=True)
class CentralField:
    """A potential energy and its first and second derivative as functions of the radius, in Hartree and a0."""

    energy: Callable[[np.ndarray], np.ndarray]
    first: Callable[[np.ndarray], np.ndarray]
    second: Callable[[np.ndarray], np.ndarray]
    relativistic: bool = True


def mesh(least: float, most: float, turn: float, points: int) -> Mesh:
    """Return a mesh from ``least`` to ``most`` that is logarithmic below ``turn`` and even above (a0).

    Examples
    --------
    >>> grid = mesh(1e-6, 50.0, 5.0, 800)
    >>> bool(abs(grid.radius[-1] - 50) < 1e-9)
    True
    """
    from scipy.special import wrightomega

    ends = np.log([least, most]) + np.array([least, most]) / turn
    x, step = np.linspace(float(ends[0]), float(ends[1]), points, retstep=True)
    radius = turn * wrightomega(x - np.log(turn))
    ratio = (turn / (turn + radius)) ** 2
    return Mesh(
        radius,
        radius * turn / (turn + radius),
        float(step),
        ratio**2 / 4 + ratio * radius * turn / (turn + radius) ** 2,
    )


def coefficients(
    field: CentralField, grid: Mesh, energy: np.ndarray, momentum: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return G of ``u'' = G u`` and M, each (point, state)."""
    r = grid.radius[:, None]
    potential = field.energy(grid.radius)[:, None]
    if field.relativistic:
        mass = 1 + (energy - potential) / (2 * LIGHT_SPEED**2)
        first = -field.first(grid.radius)[:, None] / (2 * LIGHT_SPEED**2) / mass
        second = -field.second(grid.radius)[:, None] / (2 * LIGHT_SPEED**2) / mass
        extra = -first / r - second / 2 + 0.75 * first**2
    else:
        mass, extra = np.ones((len(r), len(energy))), 0.0
    inner = momentum * (momentum + 1) / r**2 + 2 * mass * (potential - energy) + extra
    return grid.slope[:, None] ** 2 * inner + grid.curvature[:, None], mass


def recur(factor: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return w with ``w[n + 1] = factor[n] w[n] - w[n - 1] + source[n + 1]`` (Numerov's rule), row by row."""
    result = np.empty_like(factor)
    before, now = np.zeros_like(factor[0]), source[0].copy()
    result[0] = now
    for index in range(1, len(factor)):
        before, now = now, factor[index - 1] * now - before + source[index]
        result[index] = now
    return result


def bound_orbitals(
    field: CentralField,
    grid: Mesh,
    shells: list[tuple[int, int]],
    guess: np.ndarray,
    tolerance: float = 1e-9,
    most_steps: int = 80,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the energies and the normalised radial functions P(r) of these shells (n, l).

    Shooting outwards from the nucleus and inwards from far out, with the number of nodes as a bracket and the kink
    where the two meet as the correction of the energy, all shells at once.

    Parameters
    ----------
    field : CentralField
        That binds all of them.
    grid : Mesh
        Of radii.
    shells : list of (n, l)
        Wanted.
    guess : (shell,) array
        Energies to start from, Hartree.
    tolerance : float
        Of the energies, relative.
    most_steps : int
        Corrections at most.

    Returns
    -------
    energies, functions : (shell,) and (shell, point) arrays
        Hartree; and P with the integral of its square over r equal to 1.
    """
    number, momentum = np.array(shells).T
    nodes_wanted = number - momentum - 1
    energy = np.array(guess, float)
    charge = abs(field.energy(grid.radius[:1])[0]) * grid.radius[0]
    lowest = np.full(len(shells), -(charge**2) - 10)
    highest = np.full(len(shells), -1e-6)
    points, columns = len(grid.radius), np.arange(len(shells))
    rows = np.arange(points)[:, None]
    for _ in range(most_steps):
        curve, mass = coefficients(field, grid, energy, momentum)
        weight = 1 - grid.step**2 * curve / 12
        factor = 2 + grid.step**2 * curve / weight
        allowed = curve < 0
        meet = np.where(allowed.any(0), points - 1 - np.argmax(allowed[::-1], 0), points // 2)
        meet = np.clip(meet, 10, points - 10)
        decay = np.cumsum(np.sqrt(np.maximum(curve, 0)) * (rows > meet), 0) * grid.step
        far = np.minimum(np.argmax(decay > 45, 0) + points * (decay[-1] <= 45), points - 1)
        source = np.zeros_like(curve)
        start = np.sqrt(np.maximum(curve[0], 1e-12)) * grid.step
        source[0], source[1] = TINY, TINY * (np.exp(start) - factor[0])
        outward = recur(np.where(rows > meet + 1, 2.0, factor), source)
        source = np.zeros_like(curve)
        source[far, columns] = TINY
        inward = recur(np.where(rows < meet, 2.0, factor)[::-1], source[::-1])[::-1]
        inside = np.where(rows <= meet, outward, 0.0)
        nodes = ((inside[1:] * inside[:-1]) < 0).sum(0)
        wave = np.where(rows <= meet, outward / outward[meet, columns], inward / inward[meet, columns])
        kink = wave[meet + 1, columns] + wave[meet - 1, columns] - factor[meet, columns] * wave[meet, columns]
        u = wave / weight
        square = 2 * mass * (u * grid.slope[:, None]) ** 2
        change = -u[meet, columns] * kink / grid.step / (square.sum(0) * grid.step)
        highest = np.where(nodes > nodes_wanted, np.minimum(highest, energy), highest)
        lowest = np.where(nodes < nodes_wanted, np.maximum(lowest, energy), lowest)
        right = nodes == nodes_wanted
        lowest = np.where(right & (change > 0), np.maximum(lowest, energy), lowest)
        highest = np.where(right & (change < 0), np.minimum(highest, energy), highest)
        new = np.where(right, energy + change, (lowest + highest) / 2)
        far_off = (new < lowest) | (new > highest)
        middle = np.where(lowest < 4 * highest, -np.sqrt(lowest * highest), (lowest + highest) / 2)
        new = np.where(far_off | ~right, middle, new)
        done = right & (np.abs(change) <= tolerance * np.abs(energy) + 1e-12)
        energy = np.where(done, energy, new)
        if done.all():
            break
    function = np.sqrt(mass * grid.slope[:, None]) * u
    norm = np.sqrt((function**2 * grid.slope[:, None]).sum(0) * grid.step)
    sign = np.sign(function[np.argmax(np.abs(function) > 1e-3 * np.abs(function).max(0), axis=0), columns])
    return energy, (function / norm * sign).T


def free_orbitals(field: CentralField, grid: Mesh, energy: float, momenta: np.ndarray) -> np.ndarray:
    """Return the free radial functions P(r) of one energy and these angular momenta, normalised per Hartree.

    The amplitude comes from the last points of the mesh by the phase-amplitude method with its second-order
    correction; far out ``P -> sqrt(2 M / (pi k)) sin(...)``.

    Parameters
    ----------
    field : CentralField
        Whose potential ends in a Coulomb tail or in nothing.
    grid : Mesh
        Beyond every turning point; about 0.3 rad of phase or less in a step.
    energy : float
        Above the threshold, Hartree.
    momenta : (l,) array
        Angular momenta.

    Returns
    -------
    (l, point) array
        P, in 1 / sqrt(Hartree a0).
    """
    curve, mass = coefficients(field, grid, np.full(len(momenta), float(energy)), np.asarray(momenta))
    weight = 1 - grid.step**2 * curve / 12
    factor = 2 + grid.step**2 * curve / weight
    source = np.zeros_like(curve)
    start = np.sqrt(np.maximum(curve[0], 1e-12)) * grid.step
    source[0], source[1] = TINY, TINY * (np.exp(start) - factor[0])
    u = recur(factor, source) / weight
    last = 40
    end, wave_number = u[-last:], np.sqrt(np.maximum(-curve[-last:], 1e-6))
    first = np.gradient(wave_number, grid.step, axis=0)
    second = np.gradient(first, grid.step, axis=0)
    wave_number = np.sqrt(wave_number**2 + 0.75 * (first / wave_number) ** 2 - second / wave_number / 2)
    stencil = np.array([-1, 9, -45, 0, 45, -9, 1]) / (60 * grid.step)
    inner = slice(6, -6)
    moved = np.stack([np.roll(end, 3 - index, axis=0) for index in range(len(stencil))])
    derivative = np.tensordot(stencil, moved, axes=1)[inner]
    number, value = wave_number[inner], end[inner]
    slope = np.gradient(wave_number, grid.step, axis=0)[inner]
    amplitude = number * value**2 + (derivative + slope / (2 * number) * value) ** 2 / number
    scale = np.sqrt(2 / np.pi / amplitude.mean(0))
    return (np.sqrt(mass * grid.slope[:, None]) * u * scale).T
