"""Near-edge spectra for phantoms: shapes are made up, the trends with valence are those of oxides."""

from __future__ import annotations

import numpy as np

from tensorspec.arguments import number

__all__ = ["ENERGY", "manganese_white_lines", "nickel_white_lines", "oxygen_edge"]

ENERGY = np.arange(635.0, 665.0, 0.25)


def manganese_white_lines(valence: float, energy: np.ndarray = ENERGY) -> np.ndarray:
    """Return a spectrum like the L2,3 edge of manganese, of unit sum; shapes are made up, trends with valence are real.

    Parameters
    ----------
    valence : float
        2 to 4: with it the edge moves up by about 0.8 eV a charge, and the ratio of L3 to L2 falls.
    energy : array
        Energy losses, eV.

    Examples
    --------
    >>> third, fourth = manganese_white_lines(3), manganese_white_lines(4)
    >>> bool(ENERGY[third.argmax()] < ENERGY[fourth.argmax()])
    True
    """
    shift, ratio = 0.8 * (number("valence", valence, 1, 7) - 3), 2.6 - 0.6 * (valence - 3)
    lines = (641.5, 1.3, ratio), (652.8, 1.5, 1.0), (644.0, 1.5, 0.5)
    return _spectrum(energy, shift, lines, ((642.0, 0.15), (653.0, 0.08)))


def nickel_white_lines(valence: float, energy: np.ndarray) -> np.ndarray:
    """Return a spectrum like the L2,3 edge of nickel, of unit sum.

    Parameters
    ----------
    valence : float
        2 to 4: with it the edge moves up by about 0.9 eV a charge, and L3 gets a second peak above the first.
    energy : array
        Energy losses, eV.

    Examples
    --------
    >>> energy = np.arange(845.0, 885, 0.5)
    >>> energy[nickel_white_lines(2, energy).argmax()], energy[nickel_white_lines(4, energy).argmax()]
    (np.float64(853.5), np.float64(855.5))
    """
    charge = number("valence", valence, 1, 7) - 2
    lines = (853.5, 1.2, 3.2 - 0.3 * charge), (871.0, 1.6, 1.0), (855.8, 1.2, 0.4 + 0.5 * charge)
    return _spectrum(energy, 0.9 * charge, lines, ((854.0, 0.15), (871.5, 0.08)))


def oxygen_edge(valence: float, energy: np.ndarray) -> np.ndarray:
    """Return a spectrum like the K edge of oxygen beside a transition metal, of unit sum.

    Parameters
    ----------
    valence : float
        Of the metal, 2 to 4: with it grows the peak before the edge, and moves down.
    energy : array
        Energy losses, eV.

    Examples
    --------
    >>> energy = np.arange(520.0, 560, 0.5)
    >>> second, fourth = oxygen_edge(2, energy), oxygen_edge(4, energy)
    >>> bool(second[energy == 529] < fourth[energy == 529])
    True
    """
    charge = number("valence", valence, 1, 7) - 2
    lines = (531.0 - 0.8 * charge, 1.1, 0.3 + 0.5 * charge), (537.5, 2.2, 1.5), (542.5, 3.0, 1.2), (562.0, 7.0, 0.4)
    return _spectrum(energy, 0.0, lines, ((535.0, 0.5),))


def _spectrum(
    energy: np.ndarray,
    shift: float,
    lines: tuple[tuple[float, float, float], ...],
    steps: tuple[tuple[float, float], ...],
) -> np.ndarray:
    """Return Lorentzian lines (place, half width, height) on steps (place, height) that fall as the cube of energy."""
    result = np.zeros(len(energy))
    for place, width, height in lines:
        result += height / (1 + ((energy - place - shift) / width) ** 2)
    for place, height in steps:
        result += height / (1 + np.exp(-(energy - place - shift) / 0.6))
    return result / result.sum()
