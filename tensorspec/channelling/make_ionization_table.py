"""Make the table of inner-shell ionization: ``python -m tensorspec.channelling.make_ionization_table [PATH]``.

It takes some minutes: for K shells of Li to Zr and L2,3 shells of Ca to Lu the atom is solved, and the ionization of
the shell integrated at five beam energies.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from tensorspec.channelling.crystal import element_of
from tensorspec.channelling.electron import speed
from tensorspec.channelling.scattering import BOHR

__all__ = ["BEAM_ENERGIES", "S", "compute", "main"]

BEAM_ENERGIES = np.array([80.0, 150.0, 280.0, 530.0, 1000.0])
# Half the length of the reciprocal vector, one over angstrom.
S = np.array(
    [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0]
)
HARTREE = 27.211386245988  # eV
SHELLS = {"K": (1, 0), "L23": (2, 1)}
RANGES = {"K": range(3, 41), "L23": range(20, 72)}


def compute(number: int, shell: str, beam_energies: np.ndarray = BEAM_ENERGIES) -> tuple[float, np.ndarray, np.ndarray]:
    """Return edge, cross-sections and form factors of a shell.

    Parameters
    ----------
    number : int
        Atomic number.
    shell : {"K", "L23"}
        Which.
    beam_energies : array
        keV.

    Returns
    -------
    edge : float
        eV, from the X-ray tables; of L2,3 the mean, by the number of electrons.
    sections : (energies,) array
        Angstrom squared, of all losses and angles.
    forms : (energies, s) array
        At `S`.
    """
    import xraydb

    from tensorspec.channelling.atom import atom
    from tensorspec.channelling.generalised_oscillator import ionized

    edges = xraydb.xray_edges(element_of(number).name)
    edge = edges["K"].energy if shell == "K" else (2 * edges["L3"].energy + edges["L2"].energy) / 3
    sections, forms = [], []
    for energy in beam_energies:
        section, form = ionized(
            atom(number), SHELLS[shell], float(edge) / HARTREE, 4 * np.pi * S * BOHR, 137.035999 * speed(float(energy))
        )
        sections.append(section * BOHR**2)
        forms.append(np.maximum(form, 0.0))
    return float(edge), np.array(sections), np.array(forms)


def _one(task: tuple[int, str]) -> tuple[float, np.ndarray, np.ndarray]:
    return compute(*task)


def main(path: str | None = None) -> None:
    """Write the table, by default where the package reads it."""
    path = path or str(Path(__file__).with_name("ionization_table.npz"))
    tasks = [(number, shell) for shell, numbers in RANGES.items() for number in numbers]
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(_one, tasks))
    np.savez_compressed(
        path,
        number=np.array([number for number, _ in tasks]),
        shell=np.array([shell for _, shell in tasks]),
        edge=np.array([edge for edge, _, _ in found]),
        beam_energy=BEAM_ENERGIES,
        s=S,
        section=np.array([section for _, section, _ in found]),
        form=np.array([form for _, _, form in found]).astype(np.float32),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
