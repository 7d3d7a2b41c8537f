"""Radial functions and free atoms: exact cases, and measured edges."""

import numpy as np
import pytest
from scipy.special import spherical_jn

from tensorspec.channelling.atom import configuration, coulomb_field, solve_atom
from tensorspec.channelling.radial import LIGHT_SPEED, CentralField, bound_orbitals, free_orbitals, mesh

HARTREE = 27.211386245988
SHELLS = [(1, 0), (2, 0), (2, 1), (3, 2), (4, 3), (5, 0)]


def overlap(grid, first, second):
    return float((first * second * grid.slope).sum() * grid.step)


@pytest.mark.parametrize("charge", [1, 2, 40])
def test_bound_orbitals_of_a_point_charge_are_exact(charge):
    grid = mesh(1e-6 / charge, 120 / charge, 8 / charge, 900)
    guess = -0.3 * charge**2 / np.array([n**2 for n, _ in SHELLS])
    energies, functions = bound_orbitals(coulomb_field(charge), grid, SHELLS, guess)
    np.testing.assert_allclose(energies, [-0.5 * charge**2 / n**2 for n, _ in SHELLS], rtol=1e-6)
    r = charge * grid.radius
    np.testing.assert_allclose(functions[0], np.sqrt(charge) * 2 * r * np.exp(-r), atol=1e-6 * np.sqrt(charge))
    twice = np.sqrt(charge) * r**2 * np.exp(-r / 2) / (2 * np.sqrt(6))
    np.testing.assert_allclose(functions[2], twice, atol=1e-6 * np.sqrt(charge))
    norms = [overlap(grid, each, each) for each in functions]
    np.testing.assert_allclose(norms, 1, atol=1e-12)
    assert abs(overlap(grid, functions[0], functions[1])) < 1e-6
    assert abs(overlap(grid, functions[1], functions[5])) < 1e-6


@pytest.mark.parametrize("charge", [2, 40, 71])
def test_relativity_gives_the_level_of_dirac(charge):
    grid = mesh(1e-7 / charge, 60 / charge, 8 / charge, 1200)
    energies, _ = bound_orbitals(coulomb_field(charge, relativistic=True), grid, [(1, 0)], np.array([-0.4 * charge**2]))
    fine = (charge / LIGHT_SPEED) ** 2
    assert energies[0] == pytest.approx((np.sqrt(1 - fine) - 1) * LIGHT_SPEED**2, rel=3e-6)


@pytest.mark.parametrize("energy", [0.5, 20.0])
def test_free_orbitals_without_a_field_are_bessel_functions(energy):
    nothing = CentralField(np.zeros_like, np.zeros_like, np.zeros_like, relativistic=False)
    wave_number = np.sqrt(2 * energy)
    grid = mesh(1e-5, 60 / wave_number, 4 / wave_number, 1300)
    momenta = np.array([0, 1, 3, 8])
    found = free_orbitals(nothing, grid, energy, momenta)
    phase = wave_number * grid.radius
    expected = [np.sqrt(2 / (np.pi * wave_number)) * phase * spherical_jn(momentum, phase) for momentum in momenta]
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_ground_states():
    for number in range(1, 72):
        assert sum(configuration(number).values()) == number
    assert configuration(24)[3, 2] == 5 and configuration(24)[4, 0] == 1
    assert configuration(29)[3, 2] == 10 and configuration(64)[5, 2] == 1


@pytest.mark.parametrize("symbol", ["O", "Al", "Mn", "Ni", "Zr", "Lu"])
def test_levels_beside_measured_edges(symbol):
    """With Slater's own exchange; edges are of solids, and ions relax: hence a band of 2 %, of 3 % for L."""
    xraydb = pytest.importorskip("xraydb")
    atom = solve_atom(xraydb.atomic_number(symbol))
    edges = xraydb.xray_edges(symbol)
    assert -HARTREE * atom.orbital(1, 0).energy == pytest.approx(edges["K"].energy, rel=0.02)
    if atom.number > 20:
        mean = (2 * edges["L3"].energy + edges["L2"].energy) / 3
        assert -HARTREE * atom.orbital(2, 1).energy == pytest.approx(mean, rel=0.03)


def test_relativity_is_needed_for_heavy_atoms():
    plain = solve_atom(40, relativistic=False).orbital(1, 0).energy
    assert solve_atom(40).orbital(1, 0).energy / plain == pytest.approx(1.024, abs=0.003)


def test_an_atom_is_neutral_and_an_ion_is_not():
    for hole, charge in ((None, 1.0), ((1, 0), 2.0)):
        atom = solve_atom(25, hole=hole)
        electrons = float((atom.density * atom.grid.slope).sum() * atom.grid.step)
        assert electrons == pytest.approx(26 - charge, abs=1e-9)
        far, near = np.array([40.0, 500.0]), np.array([1e-6])
        # What an electron sees that is far away from the others, and what it sees beside the nucleus.
        np.testing.assert_allclose(atom.field.energy(far) * far, -charge, rtol=1e-4)
        np.testing.assert_allclose(atom.field.energy(near) * near, -25, rtol=1e-3)
    assert solve_atom(25, hole=(1, 0)).orbital(1, 0).energy < solve_atom(25).orbital(1, 0).energy


def test_orbitals_of_an_atom_are_orthonormal_and_solve_their_own_field():
    atom = solve_atom(25, relativistic=False)
    same = [each for each in atom.orbitals if each.angular == 0]
    matrix = [[overlap(atom.grid, a.function, b.function) for a in same] for b in same]
    np.testing.assert_allclose(matrix, np.eye(len(same)), atol=2e-6)
    shells = [(each.principal, each.angular) for each in atom.orbitals]
    energies, _ = bound_orbitals(atom.field, atom.grid, shells, np.array([each.energy for each in atom.orbitals]))
    np.testing.assert_allclose(energies, [each.energy for each in atom.orbitals], rtol=1e-5)


def test_exchange_of_slater_for_helium():
    """Herman and Skillman (1963) have -1.721 rydberg for the 1s level of helium."""
    assert 2 * solve_atom(2).orbital(1, 0).energy == pytest.approx(-1.721, abs=0.01)
