"""Ionization of shells: exact cases, an independent integral, public figures, and the table that comes of it."""

import numpy as np
import pytest

import tensorspec as ts
from tensorspec.channelling import shell_ionization
from tensorspec.channelling.atom import coulomb_field
from tensorspec.channelling.generalised_oscillator import transitions, wigner_squared
from tensorspec.channelling.ionization_integral import at_each_energy
from tensorspec.channelling.make_ionization_table import BEAM_ENERGIES, RANGES, S, compute
from tensorspec.channelling.radial import bound_orbitals, mesh
from tensorspec.channelling.shell_ionization import Ionization, ionization

GRID = mesh(1e-6, 120.0, 8.0, 900)
# s = 0.1, 0.2, 0.5, 1, 2 per angstrom at 200 kV as muSTEM has them, and the cross-section in barn.
PUBLIC = {
    "O K": ((0.799, 0.617, 0.339, 0.136, 0.022), 6841),
    "Al K": ((0.952, 0.855, 0.597, 0.345, 0.114), 2018),
    "Mn K": ((0.995, 0.983, 0.911, 0.747, 0.460), 365),
    "Ni K": ((0.995, 0.987, 0.936, 0.804, 0.537), 271),
    "Mn L23": ((0.825, 0.638, 0.335, 0.113, 0.008), 19035),
}


def hydrogen(shell, energies, momenta, most=12):
    """Return transitions of a hydrogen shell."""
    field = coulomb_field(1)
    _, functions = bound_orbitals(field, GRID, [shell], np.array([-0.3 / shell[0] ** 2]))
    return transitions(field, GRID, functions[0], shell, np.asarray(energies), np.asarray(momenta), most)


def bethe(energy, q):
    """Return S(q, E) per electron of the 1s shell of hydrogen (Bethe 1930; Inokuti 1971, his eq. 3.15)."""
    k = np.sqrt(2 * energy)
    angle = np.arctan2(2 * k, q**2 - k**2 + 1)
    shape = q**2 * (q**2 + (1 + k**2) / 3) / (((q + k) ** 2 + 1) ** 3 * ((q - k) ** 2 + 1) ** 3)
    return 256 * shape * np.exp(-2 / k * angle) / (1 - np.exp(-2 * np.pi / k))


def test_the_oscillator_strength_of_hydrogen_is_exact():
    energies, momenta = np.array([0.002, 0.05, 0.5, 2.0, 8.0]), np.array([0.02, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0])
    found = hydrogen((1, 0), energies, momenta, most=24)
    expected = bethe(energies[:, None], momenta)
    np.testing.assert_allclose(found.form_factor() / 2, expected, rtol=1e-3)
    strength = found.oscillator_strength(0.5)
    np.testing.assert_allclose(strength, 2 * (0.5 + energies[:, None]) / momenta**2 * expected, rtol=1e-3)


@pytest.mark.parametrize("q", [0.3, 1.5])
def test_all_strength_together_is_that_of_one_electron(q):
    """Bethe's sum rule: free and bound transitions of hydrogen, whatever the momentum."""
    from scipy.integrate import simpson
    from scipy.special import spherical_jn

    root = np.linspace(0.02, 6.0, 61)
    free = hydrogen((1, 0), root**2, [q], most=16).oscillator_strength(0.5)[:, 0]
    total = simpson(free * 2 * root, x=root) + free[0] * root[0] ** 2
    levels = range(2, 7)
    shells = [(n, momentum) for n in levels for momentum in range(min(n, 4))]
    energies, functions = bound_orbitals(
        coulomb_field(1), GRID, [(1, 0), *shells], np.array([-0.45, *(-0.45 / n**2 for n, _ in shells)])
    )
    per_level = dict.fromkeys(levels, 0.0)
    for (n, momentum), energy, function in zip(shells, energies[1:], functions[1:], strict=True):
        integrand = function * functions[0] * spherical_jn(momentum, q * GRID.radius) * GRID.slope
        excited = (2 * momentum + 1) * (integrand.sum() * GRID.step) ** 2
        per_level[n] += 2 * (energy - energies[0]) / q**2 * excited
    # Higher levels fall as n**-3.
    total += sum(per_level.values()) + per_level[6] * 6**3 * sum(n**-3.0 for n in range(7, 4000))
    assert total == pytest.approx(1, abs=3e-3)


def directly(shell, along, momentum):
    """Integrate S(q+, q-) / (q+ q-)**2 over the plane at one energy, in polar coordinates about one of the poles."""
    from scipy.interpolate import CubicSpline
    from scipy.special import eval_legendre

    nodes, weights = np.polynomial.legendre.leggauss(48)
    rise = (nodes + 1) / 2
    angle = np.concatenate([np.pi / 2 * rise, np.pi / 2 * (1 + rise**3)])
    around = np.pi / 4 * np.concatenate([weights, weights * 3 * rise**2])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    far = np.full(len(angle), shell.momenta[-1] / 2)
    back = np.cos(angle) < 0
    far[back] = np.minimum(far[back], momentum / 2 / -np.cos(angle[back]))
    near = np.minimum(1e-3 * along, far / 10)
    stretch = np.log(far / near)
    radius = near * np.exp(stretch * (nodes[:, None] + 1) / 2)
    measure = weights[:, None] * stretch / 2 * radius**2 * around
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    first, second = np.sqrt(radius**2 + along**2), np.sqrt((x + momentum) ** 2 + y**2 + along**2)
    cosine = (x * (x + momentum) + y**2 + along**2) / (first * second)
    curves = CubicSpline(np.log(shell.momenta), shell.radial[:, 0], axis=1)
    one, other = curves(np.log(first)), curves(np.log(second))
    legendre = np.array([eval_legendre(int(multipole), cosine) for multipole in shell.multipoles])
    mixed = np.einsum("c,cij,cij,cij->ij", shell.weights, legendre, one, other)
    return 4 * float((mixed / (first * second) ** 2 * measure).sum())


@pytest.mark.parametrize("shell", [(1, 0), (2, 1)])
def test_the_transforms_are_the_integral_over_the_plane(shell):
    along, wanted = 0.02, np.array([0.0, 0.05, 0.4, 1.5, 4.0])
    found = hydrogen(shell, [0.6], np.geomspace(1e-3, 40, 160), most=6)
    total, form = at_each_energy(found, np.array([along]), wanted)
    assert form[0, 0] == total[0]
    expected = [directly(found, along, momentum) for momentum in wanted[1:]]
    np.testing.assert_allclose(form[0, 1:], expected, atol=2e-4 * total[0])


def test_wigner_symbols():
    for first in range(4):
        for second in range(6):
            ways = [(2 * third + 1) * wigner_squared(first, second, third) for third in range(first + second + 1)]
            assert sum(ways) == pytest.approx(1)
    assert wigner_squared(1, 1, 1) == 0 and wigner_squared(2, 2, 2) == pytest.approx(2 / 35)


@pytest.mark.parametrize("line", PUBLIC)
def test_beside_public_figures(line):
    values, section = PUBLIC[line]
    found = ionization(line, 200)
    calculated = found.form_factor(np.array([0.1, 0.2, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(calculated[:4], values[:4], rtol=0.02)
    np.testing.assert_allclose(calculated[4], values[4], rtol=0.05, atol=0.001)
    assert found.cross_section * 1e8 == pytest.approx(section, rel=0.06)


def test_the_only_other_figures_of_magnesium():
    found = ionization("Mg K", 200)
    values = 0.937, 0.820, 0.623, 0.405, 0.301, 0.165
    np.testing.assert_allclose(found.form_factor(np.array([0.1, 0.2, 0.4, 0.75, 1.0, 1.5])), values, rtol=0.02)
    assert found.cross_section * 1e8 == pytest.approx(2498, rel=0.06)


def test_every_form_factor_falls_from_one():
    s = np.concatenate([np.linspace(0, 1, 101), np.linspace(1, 12, 111)[1:]])
    for shell, numbers in RANGES.items():
        table = shell_ionization._table()
        symbols = [symbol for symbol, own in table["places"] if own == shell]
        assert len(symbols) == len(numbers)
        # What the bound at one takes away, before it does: the error of the integral.
        assert (table["form"] < 1 + 3e-5).all()
        for symbol in symbols:
            for beam_energy in (80, 250, 1000):
                found = ionization(f"{symbol} {shell}", beam_energy)
                values = found.form_factor(s)
                assert values[0] == 1 and (values <= 1).all() and (np.diff(values[s <= 2]) < 1e-5).all()
                # Of a p shell it passes through zero where almost nothing is left.
                assert (values > (0 if shell == "K" else -0.003)).all()
                assert (np.diff(values) < 1e-3).all()
                np.testing.assert_allclose(found.form_factor(found.s), found.values, atol=1e-14)


def test_what_is_bound_more_tightly_is_rarer_and_more_local():
    for shell, elements in (("K", ("Li", "O", "Al", "Ca", "Mn", "Zr")), ("L23", ("Ca", "Mn", "Sn", "Tb", "Lu"))):
        found = [ionization(f"{element} {shell}", 200) for element in elements]
        assert (np.diff([each.form_factor(np.array(0.3)) for each in found]) > 0).all()
        assert (np.diff([each.cross_section for each in found]) < 0).all()
        assert (np.diff([each.edge for each in found]) > 0).all()
    sections = [ionization("Mn K", energy).cross_section for energy in (80, 120, 200, 300, 1000)]
    assert (np.diff(sections) < 0).all()
    # The faster the electron, the farther from it an atom is ionized.
    assert ionization("O K", 1000).form_factor(np.array(0.1)) < ionization("O K", 80).form_factor(np.array(0.1))


@pytest.mark.parametrize(
    ("number", "line"),
    [(8, "O K"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((3, "Li K"), (25, "Mn L"), (40, "Zr K")))],
)
def test_the_table_is_what_the_generator_makes_between_its_points_too(number, line):
    energies = np.array([200.0, 90.0, 250.0, 750.0])
    between = np.unique(np.concatenate([S, (S[1:] + S[:-1]) / 2]))
    edge, sections, forms = compute(number, ionization(line, 200).shell, energies, between)
    for energy, section, form in zip(energies, sections, forms, strict=True):
        found = ionization(line, energy)
        assert found.edge == pytest.approx(edge)
        assert found.cross_section == pytest.approx(section, rel=1e-6 if energy in BEAM_ENERGIES else 5e-4)
        np.testing.assert_allclose(found.form_factor(between), form, atol=7e-4)
        if energy in BEAM_ENERGIES:
            np.testing.assert_allclose(found.values, form[np.isin(between, S)], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Mn K", "Mn L23"])
def test_finer_steps_change_little(line, monkeypatch):
    from tensorspec.channelling import ionization_integral, make_ionization_table

    s = np.array([0.02, 0.1, 0.3, 1.0, 3.0])
    found = ionization(line, 200)
    for name, value in (("ENERGIES", 54), ("MULTIPOLES", 24), ("MOMENTA", 200), ("HIGHEST", 160.0)):
        monkeypatch.setattr(make_ionization_table, name, value)
    monkeypatch.setattr(ionization_integral, "POINTS", 1400)
    make_ionization_table.shell_transitions.cache_clear()
    _, sections, forms = compute(25, found.shell, np.array([200.0]), np.concatenate([[0.0], s]))
    make_ionization_table.shell_transitions.cache_clear()
    assert found.cross_section == pytest.approx(sections[0], rel=0.005)
    np.testing.assert_allclose(found.form_factor(s), forms[0, 1:], atol=0.002)


def test_a_window_near_the_edge_is_less_local():
    whole, narrow = ionization("Mn L", 200), ionization("Mn L", 200, window=50)
    s = np.array([0.1, 0.3, 0.6])
    assert narrow.cross_section < 0.5 * whole.cross_section
    assert (narrow.form_factor(s) < whole.form_factor(s)).all()
    assert narrow.edge == whole.edge and "50 eV" in narrow.source


@pytest.mark.slow
@pytest.mark.parametrize(("number", "shell", "window"), [(25, "K", 50.0), (40, "K", 1.0), (71, "L23", 10.0)])
def test_form_factors_of_windows_exceed_one_by_the_error_of_the_integral_at_most(number, shell, window):
    _, _, forms = compute(number, shell, np.array([80.0, 200.0, 1000.0]), window=window)
    assert forms.max() < 1 + 3e-5


@pytest.mark.slow
def test_a_wide_window_is_everything():
    whole, wide = ionization("O K", 200), ionization("O K", 200, window=25000)
    assert wide.cross_section == pytest.approx(whole.cross_section, rel=0.01)
    s = np.array([0.1, 0.5, 1.0])
    np.testing.assert_allclose(wide.form_factor(s), whole.form_factor(s), atol=0.003)


def test_ways_to_write_a_line():
    for line in ("Mn K", "Mn-K", "Mn_Ka", "MnK", " Mn Kb1 "):
        assert ionization(line, 200).shell == "K"
    for line in ("Mn L", "Mn L23", "Mn-L2,3", "Mn_La", "Mn L3"):
        assert (ionization(line, 200).element, ionization(line, 200).shell) == ("Mn", "L23")


def test_a_table_of_ones_own():
    s, values = np.array([0, 0.5, 1.0, 2.0]), np.array([1.0, 0.98, 0.95, 0.8])
    own = Ionization("Sn", "K", 200.0, 29200.0, 1e-7, s, values)
    again = Ionization.from_table("Sn-K", 200, s, 7 * values, 1e-7)
    np.testing.assert_allclose(own.form_factor(s), values, rtol=1e-14)
    np.testing.assert_allclose(again.form_factor(s), values)
    assert again.edge == 29200 and again.element == "Sn"
    assert own.form_factor(np.array(4.0)) == pytest.approx(0.8 / 16)
    fine = own.form_factor(np.linspace(-2, 2, 401))
    np.testing.assert_allclose(fine, fine[::-1], rtol=1e-14)
    assert (np.diff(fine[200:]) <= 0).all()
    s[1] = 0.7
    assert own.s[1] == 0.5


def test_the_table_is_small_and_read_late():
    import subprocess
    import sys

    assert shell_ionization.TABLE.stat().st_size < 1e6
    code = "import tensorspec.channelling.shell_ionization as m; assert m._table.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ionization("Sn K", 200), ts.UnknownName, "Li to Zr.*Ionization.from_table"),
        (lambda: ionization("O L", 200), ts.UnknownName, "no ionization of O L23"),
        (lambda: ionization("Mm K", 200), ts.UnknownName, "no ionization of Mm K"),
        (lambda: ionization("manganese", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn M", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn L1", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn K2", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn Lxyz", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn K", 60), ts.InvalidArgument, "beam_energy"),
        (lambda: ionization("Mn K", 200, window=0), ts.InvalidArgument, "window"),
        (
            lambda: Ionization("X", "K", 200, 1, 1, np.arange(3.0), np.array([0.9, 0.5, 0.1])),
            ts.InvalidArgument,
            "one at",
        ),
        (lambda: Ionization("X", "K", 200, 1, 1, np.arange(1.0, 4), np.ones(3)), ts.InvalidArgument, "rising"),
        (
            lambda: Ionization("X", "K", 200, 1, 0, np.arange(3.0), np.ones(3)),
            ts.InvalidArgument,
            "cross_section",
        ),
        (
            lambda: Ionization.from_table("Xx K", 200, np.arange(3.0), np.ones(3), 1.0),
            ts.UnknownName,
            "no element",
        ),
        (
            lambda: Ionization.from_table("Mn K", 200, np.arange(3.0), np.zeros(3), 1.0),
            ts.InvalidArgument,
            "above zero",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
