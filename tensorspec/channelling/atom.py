"""The self-consistent atom: orbitals and potential of a free atom from its atomic number alone, no table.

Hartree-Slater: the electrons move in their own mean electrostatic field and in Slater's exchange potential, which is
a power of the local density; far out, where that falls short, the potential of one missing electron is put in
(Latter's tail).  Scalar-relativistic.  See Herman and Skillman, Atomic Structure Calculations (1963), and Latter,
Phys. Rev. 99 (1955) 510, https://doi.org/10.1103/PhysRev.99.510.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorspec.channelling.radial import CentralField, Mesh, bound_orbitals, mesh

__all__ = ["SHELL_LETTERS", "Atom", "Orbital", "configuration", "coulomb_field", "solve_atom"]

SHELL_LETTERS = "spdf"
# The order in which shells fill, and the atoms whose ground state differs from it.
FILLING = ("1s", "2s", "2p", "3s", "3p", "4s", "3d", "4p", "5s", "4d", "5p", "6s", "4f", "5d", "6p", "7s")
PROMOTED = {
    24: ("4s", "3d", 1),
    29: ("4s", "3d", 1),
    41: ("5s", "4d", 1),
    42: ("5s", "4d", 1),
    44: ("5s", "4d", 1),
    45: ("5s", "4d", 1),
    46: ("5s", "4d", 2),
    47: ("5s", "4d", 1),
    57: ("4f", "5d", 1),
    58: ("4f", "5d", 1),
    64: ("4f", "5d", 1),
    78: ("6s", "5d", 1),
    79: ("6s", "5d", 1),
}


@dataclass(frozen=True)
class Orbital:
    """A shell of an atom: quantum numbers, electrons in it, energy (Hartree) and P(r) on the radii of the atom."""

    principal: int
    angular: int
    electrons: float
    energy: float
    function: np.ndarray


@dataclass(frozen=True)
class Atom:
    """A free atom: atomic number, mesh of radii (a0), orbitals, and the field in which its electrons move."""

    number: int
    grid: Mesh
    orbitals: tuple[Orbital, ...]
    field: CentralField

    @property
    def density(self) -> np.ndarray:
        """Electrons per a0 of radius."""
        return np.sum([each.electrons * each.function**2 for each in self.orbitals], axis=0)

    def orbital(self, principal: int, angular: int) -> Orbital:
        """Return the shell with these quantum numbers."""
        return next(each for each in self.orbitals if (each.principal, each.angular) == (principal, angular))


def configuration(number: int) -> dict[tuple[int, int], float]:
    """Return the electrons of each shell (n, l) of the neutral atom in its ground state.

    Examples
    --------
    >>> configuration(25)
    {(1, 0): 2, (2, 0): 2, (2, 1): 6, (3, 0): 2, (3, 1): 6, (3, 2): 5, (4, 0): 2}
    """
    shells, left = {}, number
    for name in FILLING:
        room = 4 * SHELL_LETTERS.index(name[1]) + 2
        if left > 0:
            shells[name] = min(room, left)
        left -= room
    if number in PROMOTED:
        source, target, count = PROMOTED[number]
        shells[source] -= count
        shells[target] = shells.get(target, 0) + count
    found = {(int(name[0]), SHELL_LETTERS.index(name[1])): count for name, count in shells.items() if count}
    return dict(sorted(found.items()))


def coulomb_field(charge: float, *, relativistic: bool = False) -> CentralField:
    """Return the field of a bare point charge, the case with exact solutions.

    Examples
    --------
    >>> float(coulomb_field(2).energy(np.array(4.0)))
    -0.5
    """
    return CentralField(
        lambda r: -charge / r, lambda r: charge / r**2, lambda r: -2 * charge / r**3, relativistic=relativistic
    )


def solve_atom(
    number: int, *, exchange: float = 1.0, relativistic: bool = True, hole: tuple[int, int] | None = None
) -> Atom:
    """Return the self-consistent Hartree-Slater atom.

    Parameters
    ----------
    number : int
        Atomic number.
    exchange : float
        Slater's alpha: 1 is Slater's own, 2/3 that of Kohn and Sham.
    relativistic : bool
        Whether the scalar-relativistic equation is solved.
    hole : (n, l), optional
        Shell that lacks one electron.

    Returns
    -------
    Atom
        Neutral, or the ion with the hole.

    Examples
    --------
    >>> helium = solve_atom(2)
    >>> bool(abs((helium.density * helium.grid.slope).sum() * helium.grid.step - 2) < 1e-6)
    True
    """
    grid = mesh(1e-6 / number, 60.0, 6.0, 900)
    r, shells = grid.radius, configuration(number)
    if hole is not None:
        shells[hole] -= 1
    electrons = np.array(list(shells.values()), float)
    tail = number - electrons.sum() + 1
    # Start: a screened nucleus in the manner of Thomas and Fermi.
    scaled = r * number ** (1 / 3) / 0.8853
    product = -np.maximum((number - tail) / (1 + 0.53625 * scaled) ** 2 + tail, tail)
    energy = np.array([-0.5 * max((number / n) ** 2 * 0.6, 0.2) for n, _ in shells])
    history: list[tuple[np.ndarray, np.ndarray]] = []
    functions = np.zeros((len(shells), len(r)))
    for _ in range(150):
        field = field_of(grid, product, relativistic)
        energy, functions = bound_orbitals(field, grid, list(shells), energy)
        new = product_of(grid, electrons @ functions**2, number, exchange, tail)
        residual = new - product
        if np.abs(residual).max() < 1e-6 * number:
            break
        history = [*history[-4:], (product, residual)]
        product = mixed(history, grid)
    orbitals = tuple(
        Orbital(*shell, float(count), float(level), function)
        for shell, count, level, function in zip(shells, electrons, energy, functions, strict=True)
    )
    return Atom(number, grid, orbitals, field_of(grid, product, relativistic))


def product_of(grid: Mesh, density: np.ndarray, number: int, exchange: float, tail: float) -> np.ndarray:
    """Return r V(r) of the nucleus, of the electrons (per a0 of radius) and of Slater's exchange with Latter's tail."""
    from scipy.integrate import cumulative_simpson

    weight = density * grid.slope
    inside = cumulative_simpson(weight, dx=grid.step, initial=0.0)
    outside = cumulative_simpson(weight / grid.radius, dx=grid.step, initial=0.0)
    hartree = inside + grid.radius * (outside[-1] - outside)
    local = 1.5 * exchange * (3 * density / (4 * np.pi**2 * grid.radius**2)) ** (1 / 3)
    return np.minimum(-number + hartree - grid.radius * local, -tail)


def field_of(grid: Mesh, product: np.ndarray, relativistic: bool) -> CentralField:
    """Return the field whose r V(r) is given on the mesh; beyond it, a Coulomb tail."""
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(np.log(grid.radius), product)
    parts = spline, spline.derivative(1), spline.derivative(2)
    least, most = np.log(grid.radius[0]), np.log(grid.radius[-1])

    def at(r: np.ndarray, order: int) -> np.ndarray:
        x = np.log(r)
        value = parts[order](np.clip(x, least, most))
        return value if order == 0 else np.where((x < least) | (x > most), 0.0, value)

    return CentralField(
        lambda r: at(r, 0) / r,
        lambda r: (at(r, 1) - at(r, 0)) / r**2,
        lambda r: (at(r, 2) - 3 * at(r, 1) + 2 * at(r, 0)) / r**3,
        relativistic=relativistic,
    )


def mixed(history: list[tuple[np.ndarray, np.ndarray]], grid: Mesh, step: float = 0.4) -> np.ndarray:
    """Return the next r V(r) from the last ones and their residuals (Anderson's mixing)."""
    value, residual = history[-1]
    if len(history) > 1:
        weight = grid.slope / grid.radius
        steps = np.array([residual - older for _, older in history[:-1]])
        matrix = (steps * weight) @ steps.T
        matrix[np.diag_indices_from(matrix)] *= 1 + 1e-6
        share = np.linalg.solve(matrix, (steps * weight) @ residual)
        value = value - share @ np.array([value - older for older, _ in history[:-1]])
        residual = residual - share @ steps
    return value + step * residual
