"""EELS spectra of the phases of a phantom: power law, edges with fine structure, plural scattering.

Onsets, white lines and fine structure stand where they are found in oxides; strengths are of the right order, no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ONSETS", "Edge", "Peak", "core_loss", "oxide_edges"]

# Onset energies of the edges, eV (C. C. Ahn and O. L. Krivanek, EELS Atlas, 1983).
ONSETS = {"Ti": 456.0, "O": 532.0, "Mn": 640.0, "Fe": 708.0, "La": 832.0}
# Distance between the two onsets of a spin-orbit doublet, eV.
SPLITTING = {"Ti": 6.0, "Mn": 11.0, "Fe": 13.0, "La": 17.0}
# Height of the continuum step for one atom in a formula unit, in units of the background at 450 eV.
STEP = {"Ti": 0.20, "O": 0.085, "Mn": 0.12, "Fe": 0.085, "La": 0.11}
DECAY = {"Ti": 2.5, "O": 3.5, "Mn": 2.5, "Fe": 2.5, "La": 1.5}
STEP_WIDTH = 0.8
BACKGROUND_FROM = 450.0
# Electrons are scattered into the range from this far below it, but from no smaller loss than this (eV).
MARGIN, LEAST_LOSS = 300.0, 50.0


@dataclass(frozen=True)
class Peak:
    """A line of the fine structure: position (eV), height in steps of its edge, full width at half maximum (eV)."""

    energy: float
    height: float
    width: float


@dataclass(frozen=True)
class Edge:
    """One core-loss edge.

    Attributes
    ----------
    onsets : sequence of float
        Where the continuum starts, eV; two for a spin-orbit doublet.
    step : float
        Height of the whole step, in units of the background at 450 eV.
    decay : float
        Exponent with which the continuum falls behind the onset.
    peaks : sequence of Peak
        White lines and fine structure.
    """

    onsets: Sequence[float]
    step: float
    decay: float
    peaks: Sequence[Peak]

    def intensity(self, energy: np.ndarray) -> np.ndarray:
        """Intensity at these energies (eV), without background."""
        total = np.zeros_like(energy)
        for onset, share in zip(self.onsets, (1.0,) if len(self.onsets) == 1 else (0.65, 0.35), strict=True):
            rise = 0.5 + np.arctan((energy - onset) / (0.5 * STEP_WIDTH)) / np.pi
            total += share * rise * (np.maximum(energy, onset) / onset) ** -self.decay
        for peak in self.peaks:
            # Half Gaussian, half Lorentzian, as the instrument and the lifetime make it.
            offset = (energy - peak.energy) / (0.5 * peak.width)
            total += peak.height * 0.5 * (np.exp(-np.log(2) * offset**2) + 1 / (1 + offset**2))
        return self.step * total


def oxide_edges(
    atoms: Mapping[str, float],
    oxygen: Sequence[Peak],
    shift: Mapping[str, float] | None = None,
    ratio: Mapping[str, float] | None = None,
) -> list[Edge]:
    """Edges of an oxide, with white lines for its metals and the given fine structure for oxygen.

    Parameters
    ----------
    atoms : mapping of str to float
        Atoms in a formula unit, by element; those without an edge in range are skipped.
    oxygen : sequence of Peak
        Fine structure of the O K edge, absolute energies.
    shift : mapping of str to float, optional
        Chemical shift of an element's edge, eV.
    ratio : mapping of str to float, optional
        Height of the first white line over the second, by element; 2 by default.

    Returns
    -------
    list of Edge
        In the order of ``ONSETS``.
    """
    shift, ratio = dict(shift or {}), dict(ratio or {})
    edges = []
    for element, onset in ONSETS.items():
        if not atoms.get(element):
            continue
        step = STEP[element] * atoms[element]
        if element == "O":
            edges.append(Edge((onset,), step, DECAY[element], tuple(oxygen)))
            continue
        first = onset + shift.get(element, 0.0)
        second = first + SPLITTING[element]
        edges.append(Edge((first, second), step, DECAY[element], _white_lines(element, first, second, ratio)))
    return edges


def _white_lines(element: str, first: float, second: float, ratio: Mapping[str, float]) -> tuple[Peak, ...]:
    """White lines just above the two onsets; those of Ti4+ are split by the crystal field."""
    if element == "Ti":
        return (
            Peak(first + 1.6, 1.5, 1.2),
            Peak(first + 3.9, 2.1, 1.7),
            Peak(second + 1.1, 1.6, 1.6),
            Peak(second + 3.4, 1.9, 2.2),
        )
    height = 5.5 if element == "La" else 3.4
    width = 2.6 if element == "La" else 3.0
    return (Peak(first + 1.8, height, width), Peak(second + 1.8, height / ratio.get(element, 2.0), width * 1.15))


def core_loss(
    energy: np.ndarray,
    edges: Sequence[Edge],
    exponent: float,
    thickness: float | None = None,
    plasmon: tuple[float, float] = (26.0, 12.0),
) -> np.ndarray:
    """Core-loss spectrum of one phase, in units of the single-scattering background at 450 eV.

    Parameters
    ----------
    energy : (channels,) array
        Energy loss, eV, evenly spaced.
    edges : sequence of Edge
        What stands on the background.
    exponent : float
        Of the power law ``(energy / 450 eV) ** -exponent``.
    thickness : float, optional
        Thickness over inelastic mean free path: each edge and the background are scattered once more, twice more, ...
        by the plasmon, with Poisson probabilities. ``None``: single scattering.
    plasmon : (float, float)
        Energy and width of the plasmon, eV.

    Returns
    -------
    (channels,) array
        Intensity.

    Notes
    -----
    With the Fourier transform S of the unit-area plasmon loss function, the plural spectrum is the single one times
    ``exp(t (S - 1))``: the convolution with a low loss of zero-loss peak and plasmons, which Fourier-ratio and
    Fourier-log deconvolution undo (R. F. Egerton, EELS in the Electron Microscope, 2011,
    doi:10.1007/978-1-4419-9583-4).

    Examples
    --------
    >>> energy = 430 + 0.5 * np.arange(1024)
    >>> background = core_loss(energy, [], exponent=3.0)
    >>> float(background[40])  # at 450 eV
    1.0
    """
    if thickness is None:
        return _single(energy, edges, exponent)
    step = float(energy[1] - energy[0])
    below = int(max(min(MARGIN, energy[0] - LEAST_LOSS), 0.0) / step)
    wide = energy[0] + step * np.arange(-below, len(energy))
    single = _single(wide, edges, exponent)
    loss = step * np.arange(len(wide))
    centre, width = plasmon
    low = loss * width * centre**2 / ((loss**2 - centre**2) ** 2 + (loss * width) ** 2)
    low /= low.sum()
    length = 2 * len(wide)
    transform = np.fft.rfft(single, length) * np.exp(thickness * (np.fft.rfft(low, length) - 1))
    return np.fft.irfft(transform, length)[below : len(wide)]


def _single(energy: np.ndarray, edges: Sequence[Edge], exponent: float) -> np.ndarray:
    """Background and edges, each electron having lost energy once."""
    return (energy / BACKGROUND_FROM) ** -exponent + sum(
        (edge.intensity(energy) for edge in edges), start=np.zeros_like(energy)
    )
