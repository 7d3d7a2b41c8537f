"""EDX spectra of the phases of a phantom: characteristic lines as wide as a detector makes them, bremsstrahlung.

Line energies are tabulated ones; intensities are of the right order, no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["LINES", "resolution", "xray_spectrum"]

# Energy (keV) and intensity for one atom, in units of a K alpha line of the first transition series.
# J. A. Bearden, Rev. Mod. Phys. 39 (1967) 78, doi:10.1103/RevModPhys.39.78.
LINES: dict[str, dict[str, tuple[float, float]]] = {
    "C": {"Ka": (0.277, 0.25)},
    "O": {"Ka": (0.5249, 0.40)},
    "Ti": {"Ka": (4.5108, 1.0), "Kb": (4.9318, 0.13), "La": (0.4522, 0.12), "Ll": (0.3953, 0.04)},
    "Mn": {"Ka": (5.8988, 1.0), "Kb": (6.4905, 0.13), "La": (0.6374, 0.20), "Ll": (0.5563, 0.04)},
    "Fe": {"Ka": (6.4038, 1.0), "Kb": (7.0580, 0.13), "La": (0.7050, 0.22), "Ll": (0.6152, 0.04)},
    "Cu": {"Ka": (8.0478, 1.0), "Kb": (8.9053, 0.13), "La": (0.9297, 0.25)},
    "Sr": {
        "La": (1.8066, 0.85),
        "Lb1": (1.8717, 0.42),
        "Lb3": (1.9472, 0.05),
        "Lg3": (2.1965, 0.03),
        "Ll": (1.5821, 0.03),
    },
    "La": {
        "La": (4.6510, 1.0),
        "Lb1": (5.0421, 0.55),
        "Lb2": (5.3835, 0.20),
        "Lg1": (5.7885, 0.09),
        "Ll": (4.1245, 0.04),
        "Ma": (0.8330, 0.35),
    },
}
MANGANESE_KA = 5898.8
# Ionisation statistics of silicon: 8 ln 2 times Fano factor 0.115 times 3.65 eV a pair.
STATISTICS = 8 * np.log(2) * 0.115 * 3.65
WINDOW = 0.35
STRAY = {"Cu": 0.12, "C": 0.5}


def resolution(energy: np.ndarray | float, at_manganese: float = 130.0) -> np.ndarray:
    """Full width at half maximum of a line, eV.

    Parameters
    ----------
    energy : float or array
        Energy of the line, keV.
    at_manganese : float
        Width at Mn K alpha, eV.

    Returns
    -------
    array
        Grows with energy by the statistics of electron-hole pairs; 130 eV at Mn K alpha give 66 eV at O K.

    Examples
    --------
    >>> resolution(np.array([5.8988, 0.5249])).round(1)
    array([130. ,  66.3])
    """
    return np.sqrt(at_manganese**2 + STATISTICS * (1000 * np.asarray(energy, dtype=float) - MANGANESE_KA))


def xray_spectrum(energy: np.ndarray, atoms: Mapping[str, float], bremsstrahlung: float = 0.35) -> np.ndarray:
    """X-ray spectrum of one phase, intensity a channel.

    Parameters
    ----------
    energy : (channels,) array
        X-ray energy, keV, evenly spaced.
    atoms : mapping of str to float
        Atoms in a formula unit, by element; all must be in `LINES`. Copper and carbon of the support are added.
    bremsstrahlung : float
        Background at 2 keV, for each keV.

    Returns
    -------
    (channels,) array
        In units of a K alpha line of one atom.

    Examples
    --------
    >>> energy = 0.01 * np.arange(1024)
    >>> spectrum = xray_spectrum(energy, {"Fe": 3, "O": 4})
    >>> round(float(energy[np.argmax(spectrum * (energy > 1))]), 2)
    6.4
    """
    step = float(energy[1] - energy[0])
    present = dict(atoms)
    for element, amount in STRAY.items():
        present[element] = present.get(element, 0.0) + amount
    spectrum = np.zeros_like(energy)
    for element, amount in present.items():
        for centre, intensity in LINES[element].values():
            sigma = float(resolution(centre)) / 1000 / np.sqrt(8 * np.log(2))
            spectrum += (
                amount
                * intensity
                * step
                * np.exp(-0.5 * ((energy - centre) / sigma) ** 2)
                / (sigma * np.sqrt(2 * np.pi))
            )
    # A thin specimen: one over energy, absorbed in specimen, contact and window where it is soft, and cut off at the
    # threshold of the electronics.
    positive = np.maximum(energy, 1e-3)
    continuum = (2 / positive) * np.exp(-((WINDOW / positive) ** 2.5)) / (1 + np.exp(-(energy - 0.1) / 0.015))
    return spectrum + bremsstrahlung * step * continuum
