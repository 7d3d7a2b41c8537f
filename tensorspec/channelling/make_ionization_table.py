"""Make the table of inner-shell ionization: ``python -m tensorspec.channelling.make_ionization_table [PATH]``.

For K shells of Li to Zr and L2,3 shells of Ca to Lu the atom is solved, with and without a hole in the shell, and the
ionization of the shell integrated at eight beam energies: a few seconds per shell and processor.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from tensorspec.channelling.atom import solve_atom
from tensorspec.channelling.generalised_oscillator import Transitions, transitions
from tensorspec.channelling.ionization_integral import HARTREE, energy_nodes, ionized
from tensorspec.channelling.scattering import BOHR

__all__ = ["BEAM_ENERGIES", "RANGES", "S", "compute", "main", "shell_transitions"]

BEAM_ENERGIES = np.array([80.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0, 1000.0])
# Half the length of the reciprocal vector, one over angstrom.
S = np.array(
    [0, 0.001, 0.002, 0.0035, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2]
    + [0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8]
    + [9, 10]
)
SHELLS = {"K": (1, 0), "L23": (2, 1)}
RANGES = {"K": range(3, 41), "L23": range(20, 72)}
# Slater's alpha, between that of Kohn and Sham, 2/3, and Slater's, 1.
EXCHANGE = 0.7
# Losses are counted up to this many times the edge above it; multipoles, energies and momenta that this needs.
HIGHEST, MULTIPOLES, ENERGIES, MOMENTA = 80.0, 18, 36, 120


@lru_cache(maxsize=2)
def shell_transitions(number: int, shell: str, window: float | None = None) -> tuple[float, float, Transitions]:
    """Return edge and mean binding energy (eV) of a shell, and its transitions, up to a window (eV) above the edge.

    The bound orbital is that of the neutral atom, the free ones those of the relaxed ion with a hole in the shell, in
    which the electron that leaves moves.  Losses begin at the measured edge, not at the energy of the orbital.

    Examples
    --------
    >>> shell_transitions(3, "K", 50.0)[0]
    54.7
    """
    import xraydb

    edges = xraydb.xray_edges(xraydb.atomic_symbol(number))
    edge = float(edges["K" if shell == "K" else "L3"].energy)
    # A full 2p shell has four electrons in L3 and two in L2.
    binding = edge if shell == "K" else (2 * edge + float(edges["L2"].energy)) / 3
    least = binding / HARTREE
    energies = energy_nodes(least, HIGHEST * least if window is None else window / HARTREE, ENERGIES)
    momenta = np.geomspace(1e-3, 2.5 * np.sqrt(2 * energies[-1]) + 8 * np.sqrt(2 * least) + 5, MOMENTA)
    atom = solve_atom(number, exchange=EXCHANGE)
    ion = solve_atom(number, exchange=EXCHANGE, hole=SHELLS[shell])
    function = atom.orbital(*SHELLS[shell]).function
    found = transitions(ion.field, atom.grid, function, SHELLS[shell], energies, momenta, MULTIPOLES)
    return edge, binding, found


def compute(
    number: int,
    shell: str,
    beam_energies: np.ndarray = BEAM_ENERGIES,
    s: np.ndarray = S,
    window: float | None = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return edge, cross-sections and form factors of a shell.

    Parameters
    ----------
    number : int
        Atomic number.
    shell : {"K", "L23"}
        Which.
    beam_energies : array
        keV.
    s : array
        Half the length of the reciprocal vector, one over angstrom.
    window : float, optional
        Energy losses are counted from the edge up to so many eV above it; by default all of them.

    Returns
    -------
    edge : float
        eV, of K or of L3.
    sections : (energies,) array
        Square angstrom, of all scattering angles.
    forms : (energies, s) array
        1 at s = 0.

    Notes
    -----
    A transition into a free orbital is counted, one into an empty bound orbital (a white line) is not.
    """
    edge, binding, found = shell_transitions(number, shell, window)
    momentum = 4 * np.pi * BOHR * np.asarray(s, float)
    limit = None if window is None else window / HARTREE
    pairs = [ionized(found, binding / HARTREE, float(energy), momentum, limit) for energy in beam_energies]
    sections, forms = zip(*pairs, strict=True)
    return edge, np.array(sections) * BOHR**2, np.array(forms)


def _one(task: tuple[int, str]) -> tuple[float, np.ndarray, np.ndarray]:
    return compute(*task)


def main(path: str | None = None, tasks: list[tuple[int, str]] | None = None) -> None:
    """Write the table, by default all of it and where the package reads it."""
    import xraydb

    path = path or str(Path(__file__).with_name("ionization_table.npz"))
    tasks = tasks or [(number, shell) for shell, numbers in RANGES.items() for number in numbers]
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(_one, tasks))
    np.savez_compressed(
        path,
        element=np.array([xraydb.atomic_symbol(number) for number, _ in tasks]),
        shell=np.array([shell for _, shell in tasks]),
        edge=np.array([edge for edge, _, _ in found]),
        beam_energy=BEAM_ENERGIES,
        s=S,
        section=np.array([section for _, section, _ in found]),
        form=np.array([form for _, _, form in found]).astype(np.float32),
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
