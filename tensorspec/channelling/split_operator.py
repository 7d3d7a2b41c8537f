"""The wave field at many orientations at once: a symmetric split operator with one propagator for the potential.

Between two slices a beam only turns its phase, at its own rate in every orientation; through a slice the potential
couples the beams, alike in all orientations.  So a step is a product of matrices, and can be differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from tensorspec.channelling.wavefield import Coupling

__all__ = ["Grid", "projection_grid", "split_operator_density"]

# Longest slice, and longest distance between points of the integral over depth, angstrom.
SLICE, DEPTH_STEP = 2.0, 10.0


@dataclass(frozen=True, eq=False)
class Grid:
    """Points of the projected cell on which intensities are summed exactly.

    Attributes
    ----------
    waves : (beams, points) complex array
        ``exp(2 pi i g r)``.
    to_differences : (points, differences) complex array
        From an intensity to its Fourier coefficients, ``sum over h - g = D of psi_g psi_h^*``.
    """

    waves: np.ndarray
    to_differences: np.ndarray


def projection_grid(beams: np.ndarray, differences: np.ndarray) -> Grid:
    """Return the points for some beams, and the Fourier coefficients that are asked of them.

    Parameters
    ----------
    beams : (beams, 3) array of int
        Indices.
    differences : (differences, 3) array of int
        Indices of ``h - g``.

    Examples
    --------
    >>> beams = np.array([[0, 0, 0], [2, 2, 0], [-2, -2, 0]])
    >>> grid = projection_grid(beams, np.array([[0, 0, 0], [4, 4, 0]]))
    >>> psi = np.array([0.8, 0.6j, 0.1])
    >>> (np.abs(psi @ grid.waves) ** 2 @ grid.to_differences).round(12)  # all |psi|^2, and psi of (-2 -2 0) (2 2 0)^*
    array([1.01+0.j  , 0.  -0.06j])
    """
    basis = _basis(beams)
    own, other = _coordinates(beams, basis), _coordinates(differences, basis)
    # Products of two waves reach twice as far as one; nothing of them may fold back onto another.
    sizes = [4 * int(np.abs(axis).max(initial=0)) + 1 for axis in own.T]
    places = np.stack(np.meshgrid(*(np.arange(n) / n for n in sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
    return Grid(np.exp(2j * np.pi * own @ places.T), np.exp(2j * np.pi * places @ other.T) / len(places))


def split_operator_density(
    found: Coupling, thickness: np.ndarray, grid: Grid, *, double: bool = False, slice_thickness: float = SLICE
) -> np.ndarray:
    """Return the Fourier coefficients of the intensity, summed over depth, (orientations, thicknesses, differences).

    Parameters
    ----------
    found : Coupling
        Of the beams.
    thickness : (thicknesses,) array
        Rising, angstrom.
    grid : Grid
        Of the same beams.
    double : bool
        Whether to compute in double precision.
    slice_thickness : float
        Longest slice, angstrom: the error goes as its square.

    Notes
    -----
    The potential acts with the mean wave number of all orientations, which differs from that of each by less than half
    the square of the tilt.
    """
    thickness = np.asarray(thickness, dtype=float)
    from scipy.linalg import expm

    mean = float(found.wave_number.mean())
    kind = (np.complex128, np.float64) if double else (np.complex64, np.float32)
    with jax.enable_x64(double):
        psi: Any = jnp.zeros(found.excitation.shape, kind[0]).at[:, 0].set(1)
        waves = jnp.asarray(grid.waves, kind[0])
        total = np.zeros((len(psi), waves.shape[1]))
        result = np.empty((len(psi), len(thickness), grid.to_differences.shape[1]), complex)
        before, known = 0.0, {}
        for t, depth in enumerate(thickness):
            length = depth - before
            if length > 0:
                pairs = max(int(np.ceil(length / (2 * DEPTH_STEP) - 1e-9)), 1)
                step = length / (2 * pairs)
                slices = max(int(np.ceil(step / slice_thickness - 1e-9)), 1)
                size = round(step / slices, 9)
                if size not in known:
                    propagator = expm(1j * np.pi * size / mean * found.potential).T
                    phase = np.exp(0.5j * np.pi * size * found.excitation / found.wave_number[:, np.newaxis])
                    known[size] = jnp.asarray(propagator, kind[0]), jnp.asarray(phase, kind[0])
                psi, own = _through(psi, *known[size], waves, pairs, slices)
                total += np.asarray(own, dtype=float) * step / 3
                before = depth
            result[:, t] = total @ grid.to_differences
    return result


@partial(jax.jit, static_argnames="slices")
def _through(
    psi: Complex[Array, "orientations beams"],
    propagator: Complex[Array, "beams beams"],
    phase: Complex[Array, "orientations beams"],
    waves: Complex[Array, "beams points"],
    pairs: int,
    slices: int,
) -> tuple[Complex[Array, "orientations beams"], Float[Array, "orientations points"]]:
    """Go through some slices, and sum the intensity over depth by Simpson's rule, without its factor."""

    def intensity(wave: Array) -> Array:
        return jnp.square(jnp.abs(wave @ waves))

    def one_step(wave: Array) -> Array:
        wave = (wave * phase) @ propagator
        wave = jax.lax.fori_loop(0, slices - 1, lambda _, w: (w * phase * phase) @ propagator, wave)
        return wave * phase

    def one_pair(_: Any, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        wave, total = carried
        wave = one_step(wave)
        total = total + 4 * intensity(wave)
        wave = one_step(wave)
        return wave, total + 2 * intensity(wave)

    start = intensity(psi)
    psi, total = jax.lax.fori_loop(0, pairs, one_pair, (psi, start))
    return psi, total - intensity(psi)


def _basis(beams: np.ndarray) -> np.ndarray:
    """Return one or two vectors of which all beams are whole multiples."""
    nonzero = beams[np.any(beams != 0, axis=1)]
    nonzero = nonzero[np.argsort((nonzero**2).sum(axis=1), kind="stable")]
    if not len(nonzero):
        return np.eye(3)[:1]
    chosen = [nonzero[0].astype(float)]
    for vector in nonzero[1:]:
        if np.linalg.norm(np.cross(chosen[0], vector)) > 1e-9:
            chosen.append(vector.astype(float))
            break
    basis = np.array(chosen)
    coordinates = np.linalg.lstsq(basis.T, beams.T.astype(float), rcond=None)[0].T
    for axis in range(len(basis)):
        parts = [_denominator(value) for value in np.unique(coordinates[:, axis].round(9))]
        basis[axis] /= lcm(*parts)
    return basis


def _denominator(value: float) -> int:
    for denominator in range(1, 49):
        if abs(value * denominator - round(value * denominator)) < 1e-6:
            return denominator
    raise ValueError(f"{value} is no simple fraction")


def _coordinates(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return np.rint(np.linalg.lstsq(basis.T, vectors.T.astype(float), rcond=None)[0].T).astype(int)
