"""The wave in the crystal: beams that scatter into each other, at all orientations, with absorption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorspec.channelling.beams import Scan
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import wavelength
from tensorspec.channelling.scattering import structure_factors

__all__ = ["Coupling", "amplitudes", "coupling", "exponential_amplitudes", "integrated_density"]

# Below this, exp(x) - 1 over x is its series.
SERIES = 1e-6


@dataclass(frozen=True, eq=False)
class Coupling:
    """What couples the beams: ``d psi / dz = (i pi / K) A psi``, with lengths in angstrom.

    Attributes
    ----------
    potential : (beams, beams) complex array
        ``U_{g-h} + i U'_{g-h}``, one over angstrom squared, the diagonal ``i U'_0``.
    excitation : (orientations, beams) array
        ``2 K s_g = -(2 K_t g + g^2)``, one over angstrom squared.
    wave_number : (orientations,) array
        ``K_n``, the part along the surface normal, of the wave in the crystal, one over angstrom.
    """

    potential: np.ndarray
    excitation: np.ndarray
    wave_number: np.ndarray


def coupling(crystal: Crystal, scan: Scan, absorption: bool = True) -> Coupling:
    """Return what couples the beams of a scan.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    scan : Scan
        Orientations and beams.
    absorption : bool
        Whether thermal diffuse scattering takes electrons away; switched off only to test.

    Examples
    --------
    >>> from tensorspec.channelling.beams import systematic_row
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> found = coupling(silicon, systematic_row(silicon, (2, 2, 0), [0.0], 200, orders=1))
    >>> found.potential.shape, bool(found.potential[0, 0].imag > 0)
    ((3, 3), True)
    """
    difference = scan.beams[:, np.newaxis] - scan.beams[np.newaxis]
    distinct, back = np.unique(difference.reshape(-1, 3), axis=0, return_inverse=True)
    real, imaginary = structure_factors(crystal, distinct, scan.beam_energy, absorption)
    mean = float(real[(distinct == 0).all(axis=1)][0].real)
    potential = (real + 1j * imaginary)[back.ravel()].reshape(difference.shape[:2])
    potential[np.diag_indices(len(potential))] = 1j * imaginary[(distinct == 0).all(axis=1)][0].real
    squared = wavelength(scan.beam_energy) ** -2 + mean
    transverse = scan.transverse
    excitation = -(2 * transverse @ scan.plane.T + (scan.plane**2).sum(axis=1))
    return Coupling(potential, excitation, np.sqrt(squared - (transverse**2).sum(axis=1)))


def amplitudes(found: Coupling, thickness: np.ndarray) -> np.ndarray:
    """Return the amplitudes of all beams, (orientations, thicknesses, beams), by the exact eigen-solution.

    Parameters
    ----------
    found : Coupling
        Of the beams.
    thickness : (thicknesses,) array
        Angstrom.
    """
    values, vectors, excited = _states(found)
    waves = np.exp(2j * np.pi * values[:, np.newaxis, :] * np.asarray(thickness)[np.newaxis, :, np.newaxis])
    return np.einsum("ogj,otj,oj->otg", vectors, waves, excited, optimize=True)


def exponential_amplitudes(found: Coupling, thickness: np.ndarray) -> np.ndarray:
    """Return the same by the matrix exponential: slow, and without eigenvectors that could be ill-conditioned."""
    from scipy.linalg import expm

    result = np.empty((len(found.excitation), len(thickness), len(found.potential)), complex)
    for k, (excitation, wave_number) in enumerate(zip(found.excitation, found.wave_number, strict=True)):
        matrix = found.potential + np.diag(excitation)
        for t, depth in enumerate(thickness):
            result[k, t] = expm(1j * np.pi * depth / wave_number * matrix)[:, 0]
    return result


def integrated_density(found: Coupling, thickness: np.ndarray) -> np.ndarray:
    """Return ``integral of psi_g psi_h^* dz`` from the surface, (orientations, thicknesses, beams, beams), angstrom.

    Parameters
    ----------
    found : Coupling
        Of the beams.
    thickness : (thicknesses,) array
        Angstrom.

    Notes
    -----
    The integral is analytic: each pair of Bloch waves gives ``(exp(L t) - 1) / L`` with
    ``L = 2 pi i (gamma_j - gamma_j'^*)``.
    """
    thickness = np.asarray(thickness, dtype=float)
    values, vectors, excited = _states(found)
    waves = vectors * excited[:, np.newaxis, :]
    orientations, beams, _ = waves.shape
    result = np.empty((orientations, len(thickness), beams, beams), complex)
    rate = 2j * np.pi * (values[:, :, np.newaxis] - values[:, np.newaxis, :].conj())
    for t, depth in enumerate(thickness):
        x = rate * depth
        small = np.abs(x) < SERIES
        integral = depth * np.where(small, 1 + x / 2 + x**2 / 6, np.expm1(x) / np.where(small, 1, x))
        result[:, t] = waves @ integral @ waves.conj().transpose(0, 2, 1)
    return result


def _states(found: Coupling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the wave numbers of the Bloch waves, their beams, and how strongly each is excited."""
    orientations, beams = found.excitation.shape
    matrices = np.broadcast_to(found.potential, (orientations, beams, beams)).copy()
    matrices[:, np.arange(beams), np.arange(beams)] += found.excitation
    values, vectors = np.linalg.eig(matrices)
    entrance = np.zeros((orientations, beams, 1), complex)
    entrance[:, 0] = 1
    excited: Any = np.linalg.solve(vectors, entrance)[..., 0]
    return values / (2 * found.wave_number[:, np.newaxis]), vectors, excited
