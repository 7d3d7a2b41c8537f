"""Atoms and the ionization of their shells: exact cases, public figures, and the table that comes of it."""

import numpy as np
import pytest

import tensorspec as ts
from tensorspec.channelling.atom import atom, shells_of, states_in_box
from tensorspec.channelling.generalised_oscillator import ionized, mixed_form_factors
from tensorspec.channelling.make_ionization_table import BEAM_ENERGIES, S, compute
from tensorspec.channelling.shell_ionization import Ionization, ionization

HARTREE = 27.211386


def test_hydrogen_is_exact():
    hydrogen = atom(1)
    # One electron: Slater's exchange does not cancel its own field exactly, Latter's tail does.
    assert hydrogen.energies[1, 0] == pytest.approx(-0.5, abs=0.02)
    for momentum in range(3):
        states = states_in_box(hydrogen, momentum, 40.0, 200)
        assert states.energy[0] == pytest.approx(-0.5 / (momentum + 1) ** 2, abs=0.02)
        norms = (states.orbital**2 * states.weight).sum(axis=1)
        np.testing.assert_allclose(norms[:20], 1, atol=1e-8)
        overlap = states.orbital[:6] @ (states.orbital[:6] * states.weight).T
        np.testing.assert_allclose(overlap, np.eye(6), atol=1e-8)


@pytest.mark.parametrize(
    ("number", "edge"),
    [(8, 543.1), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((13, 1559.6), (25, 6539.0), (28, 8333.0)))],
)
def test_the_deepest_level_is_near_the_edge(number, edge):
    found = atom(number)
    assert -HARTREE * found.energies[1, 0] == pytest.approx(edge, rel=0.06)
    assert sum(shells_of(number).values()) == number
    far = np.array([25.0])
    assert found.potential(far)[0] == pytest.approx(-1 / 25.0, rel=1e-6)
    near = np.array([1e-5])
    assert found.potential(near)[0] * near[0] == pytest.approx(-number, rel=1e-3)


def test_the_strength_of_all_transitions_is_that_of_bethe():
    """Sum over final states of |<n|exp(iqr)|0>|^2 is one for each electron, bound states included."""
    helium = atom(2)
    start = states_in_box(helium, 0, 12.0, 160)
    from scipy.special import spherical_jn

    q = 1.7
    total = 0.0
    for final in range(12):
        states = states_in_box(helium, final, 12.0, 160)
        radial = (states.orbital * (start.orbital[0] * start.weight)) @ spherical_jn(final, q * start.radius)
        total += (2 * final + 1) * float((radial**2).sum())
    assert total == pytest.approx(1, abs=1e-5)


PUBLIC = {  # s = 0.1, 0.2, 0.5, 1 per angstrom at 200 kV, as muSTEM has them; barn
    "O K": ((0.799, 0.617, 0.339, 0.136), 6841, 0.13),
    "Al K": ((0.952, 0.855, 0.597, 0.345), 2018, 0.07),
    "Mn K": ((0.995, 0.983, 0.911, 0.747), 365, 0.02),
    "Ni K": ((0.995, 0.987, 0.936, 0.804), 271, 0.02),
    "Mn L23": ((0.825, 0.638, 0.335, 0.113), 19035, 0.11),
}


@pytest.mark.parametrize("line", PUBLIC)
def test_beside_public_figures(line):
    values, section, band = PUBLIC[line]
    found = ionization(line, 200)
    np.testing.assert_allclose(found.form_factor(np.array([0.1, 0.2, 0.5, 1.0])), values, rtol=band)
    assert found.cross_section * 1e8 == pytest.approx(section, rel=0.15)


def test_form_factors_fall_from_one_and_the_heavier_the_more_local():
    s = np.linspace(0, 12, 400)
    for line in ("Li K", "O K", "Ca K", "Mn K", "Zr K", "Ca L23", "Sn L23", "Lu L23"):
        values = ionization(line, 200).form_factor(s)
        assert values[0] == 1 and (values >= 0).all()
        assert (np.diff(values) < 1e-3).all()
    halves = [
        ionization(f"{element} K", 200).form_factor(np.array([0.5]))[0] for element in ("O", "Al", "Ca", "Mn", "Zr")
    ]
    assert (np.diff(halves) > 0).all()


def test_cross_sections_fall_with_beam_energy_and_edge():
    sections = [ionization("Mn K", energy).cross_section for energy in (80, 120, 200, 300, 1000)]
    assert (np.diff(sections) < 0).all()
    by_element = [ionization(f"{element} L23", 300).cross_section for element in ("Ca", "Mn", "Sn", "Lu")]
    assert (np.diff(by_element) < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "shell", "line"), [(25, "K", "Mn K"), (8, "K", "O K"), (25, "L23", "Mn L23")])
def test_the_table_is_what_the_generator_makes(number, shell, line):
    # 200 keV lies between two energies of the table.
    edge, sections, forms = compute(number, shell, np.array([200.0]))
    found = ionization(line, 200)
    assert found.edge == pytest.approx(edge)
    assert found.cross_section == pytest.approx(sections[0], rel=0.005)
    np.testing.assert_allclose(found.values, forms[0], atol=0.003)


@pytest.mark.slow
def test_more_momenta_splines_and_angles_change_little(monkeypatch):
    from tensorspec.channelling import generalised_oscillator as module

    q = 4 * np.pi * 0.529177 * np.array([0.0, 0.2, 0.5, 1.0])
    plain = ionized(atom(13), (1, 0), 1559.6 / HARTREE, q, 95.3)
    for name, value in (("MOMENTA", 120), ("RADIAL", 80), ("ANGLES", 20), ("GROUPS", 36), ("MULTIPOLES", 12)):
        monkeypatch.setattr(module, name, value)
    mixed_form_factors.cache_clear()
    fine = ionized(atom(13), (1, 0), 1559.6 / HARTREE, q, 95.3)
    mixed_form_factors.cache_clear()
    assert plain[0] == pytest.approx(fine[0], rel=0.01)
    np.testing.assert_allclose(plain[1], fine[1], atol=0.006)


def test_a_table_of_ones_own_and_its_limits():
    own = Ionization("Sn", "K", 200.0, 29200.0, 1e-7, np.array([0, 1.0, 2.0]), np.array([1.0, 0.95, 0.8]))
    np.testing.assert_allclose(own.form_factor(np.array([0, 1.0, 2.0])), [1, 0.95, 0.8])
    assert own.form_factor(np.array([4.0]))[0] == pytest.approx(0.8 / 16)
    assert len(BEAM_ENERGIES) == 5 and S[0] == 0


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ionization("Sn K", 200), ts.UnknownName, "Give your own form factor"),
        (lambda: ionization("manganese", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn M", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn L1", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn K2", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn Lxyz", 200), ts.InvalidArgument, "cannot be read"),
        (lambda: ionization("Mn K", 60), ts.InvalidArgument, "beam_energy"),
        (
            lambda: Ionization("X", "K", 200, 1, 1, np.arange(3.0), np.array([0.9, 0.5, 0.1])),
            ts.InvalidArgument,
            "one at",
        ),
        (lambda: Ionization("X", "K", 200, 1, 1, np.arange(1.0, 4), np.ones(3)), ts.InvalidArgument, "rising"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
