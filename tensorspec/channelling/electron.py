"""The fast electron: wavelength, speed, and where a reflection meets its Bragg condition."""

from __future__ import annotations

import math

from tensorspec.arguments import number

__all__ = ["bragg_angle", "lorentz_factor", "speed", "wavelength"]

# Rest energy of the electron, keV; Planck's constant times the speed of light, keV angstrom (CODATA 2018).
REST_ENERGY = 510.99895
PLANCK_LIGHT = 12.398419843
# Below, back-scattering and large angles count; above, no microscope is.
LOWEST, HIGHEST = 30.0, 3000.0


def wavelength(beam_energy: float) -> float:
    """Return the wavelength of the electron, angstrom.

    Parameters
    ----------
    beam_energy : float
        Kinetic energy, keV.

    Raises
    ------
    InvalidArgument
        If it is not between 30 and 3000 keV.

    Examples
    --------
    >>> round(wavelength(200), 6)
    0.025079
    """
    energy = _energy(beam_energy)
    return PLANCK_LIGHT / math.sqrt(energy * (2 * REST_ENERGY + energy))


def lorentz_factor(beam_energy: float) -> float:
    """Return the mass of the electron over its rest mass.

    Examples
    --------
    >>> round(lorentz_factor(200), 5)
    1.39139
    """
    return 1 + _energy(beam_energy) / REST_ENERGY


def speed(beam_energy: float) -> float:
    """Return the speed of the electron over that of light.

    Examples
    --------
    >>> round(speed(200) / speed(100), 5)
    1.26831
    """
    return math.sqrt(1 - lorentz_factor(beam_energy) ** -2)


def bragg_angle(beam_energy: float, length: float) -> float:
    """Return the Bragg angle of a reflection, mrad.

    Parameters
    ----------
    beam_energy : float
        keV.
    length : float
        Length of the reciprocal vector, one over angstrom, without two pi.

    Examples
    --------
    >>> round(bragg_angle(200, 4 / 8.17), 2)
    6.14
    """
    return 1e3 * wavelength(beam_energy) * length / 2


def _energy(beam_energy: float) -> float:
    return number("beam_energy (keV)", beam_energy, LOWEST, HIGHEST)
