"""Dynamical diffraction: constants, extinction distances, two-beam solutions, unitarity, oracles, symmetry."""

import numpy as np
import pytest

import tensorspec as ts
from tensorspec.channelling.beams import Scan, systematic_row, zone_axis
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import lorentz_factor, speed, wavelength
from tensorspec.channelling.scattering import absorptive_factor, scattering_factor, structure_factors
from tensorspec.channelling.wavefield import (
    Coupling,
    amplitudes,
    coupling,
    exponential_amplitudes,
    integrated_density,
)

from .structures import CUBIC, gallium_arsenide, silicon, spinel


@pytest.mark.parametrize(
    ("energy", "length", "factor"),
    [(100, 0.037014, 1.19570), (200, 0.025079, 1.39139), (300, 0.019687, 1.58709), (1000, 0.008719, 2.95695)],
)
def test_the_electron(energy, length, factor):
    assert wavelength(energy) == pytest.approx(length, abs=6e-7)
    assert lorentz_factor(energy) == pytest.approx(factor, abs=6e-6)


EXTINCTION = {  # nm; without and with B = 0.463 for (111), (220), (400)
    100: (61.7, 62.4, 76.2, 78.7, 124.0, 132.1),
    200: (78.2, 79.1, 96.7, 99.8, 157.3, 167.5),
    300: (87.3, 88.4, 108.0, 111.4, 175.7, 187.1),
    1000: (105.8, 107.1, 130.8, 135.0, 212.9, 226.7),
}


@pytest.mark.parametrize("energy", EXTINCTION)
def test_extinction_distances_of_silicon(energy):
    found = []
    for debye_waller in (1e-9, 0.463):
        potential, _ = structure_factors(silicon(debye_waller), [[1, 1, 1], [2, 2, 0], [4, 0, 0]], energy)
        found.append(0.1 / (wavelength(energy) * np.abs(potential)))
    np.testing.assert_allclose(np.array(found).T.ravel(), EXTINCTION[energy], rtol=0.005)


def test_extinction_distance_goes_as_the_speed():
    found = [
        np.abs(structure_factors(silicon(), [[2, 2, 0]], energy)[0][0]) * wavelength(energy) for energy in (100, 200)
    ]
    assert found[0] / found[1] == pytest.approx(speed(200) / speed(100), rel=1e-9)


@pytest.mark.parametrize("element", ["O", "Mg", "Al", "Si", "Mn", "Ni"])
def test_two_sources_of_scattering_factors_agree_where_both_hold(element):
    from tensorspec.channelling.scattering import _electron_table

    s = np.linspace(0.45, 1.9, 30)
    np.testing.assert_allclose(scattering_factor(element, s), _electron_table(element, s), rtol=0.025)
    fine = np.linspace(0, 6, 6001)
    steps = np.diff(scattering_factor(element, fine))
    assert (steps < 0).all()


@pytest.mark.parametrize(  # at s = 0 and 1 of the public parameterisation of Thomas et al. (fprime, CC0), 200 kV
    ("element", "debye_waller", "values"),
    [
        ("O", 0.5, (0.01497, 0.00592)),
        ("Al", 0.4, (0.02947, 0.01458)),
        ("Mn", 0.4, (0.09723, 0.04875)),
        ("Ni", 0.3, (0.09805, 0.0548)),
    ],
)
def test_thermal_diffuse_absorption(element, debye_waller, values):
    np.testing.assert_allclose(absorptive_factor(element, debye_waller, [0.0, 1.0], 200), values, rtol=0.025)
    at_once, faster = (absorptive_factor(element, debye_waller, [0.3], energy)[0] for energy in (100, 300))
    assert at_once / faster == pytest.approx(speed(300) / speed(100), rel=1e-12)


def test_the_mean_absorption_is_the_cross_section_of_all_that_leaves():
    crystal, energy = silicon(), 200
    _, absorptive = structure_factors(crystal, [[0, 0, 0]], energy)
    mean = 2 * np.pi * wavelength(energy) * absorptive[0].real
    s, step = np.linspace(0, 25, 200_001, retstep=True)
    ring = scattering_factor("Si", s) ** 2 * -np.expm1(-2 * 0.463 * s**2) * 2 * np.pi * s
    section = 4 * wavelength(energy) ** 2 * lorentz_factor(energy) ** 2 * ring.sum() * step
    assert mean == pytest.approx(8 * section / crystal.volume, rel=0.003)
    assert 0.1 / mean == pytest.approx(784, rel=0.02)


def two_beams(potential, absorptive, deviation, wave_number=39.87):
    matrix = np.array([[0, potential], [potential, 0]], complex)
    matrix += 1j * np.array([[absorptive[0], absorptive[1]], [absorptive[1], absorptive[0]]])
    return Coupling(matrix, np.array([[0.0, 2 * wave_number * deviation]]), np.array([wave_number]))


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, -2.0])
def test_two_beams_without_absorption(w):
    extinction = 39.87 / 0.06
    found = two_beams(0.06, (0, 0), w / extinction)
    depth = np.linspace(0, 3 * extinction, 31)
    intensity = np.abs(amplitudes(found, depth)[0]) ** 2
    expected = np.sin(np.pi * depth * np.sqrt(1 + w**2) / extinction) ** 2 / (1 + w**2)
    np.testing.assert_allclose(intensity[:, 1], expected, atol=1e-9)
    np.testing.assert_allclose(intensity.sum(axis=1), 1, atol=1e-12)


def test_two_beams_with_absorption():
    found = two_beams(0.06, (0.004, 0.0025), 0.0)
    depth = np.linspace(0, 1500, 16)
    phase = np.pi * depth * (0.06 + 0.0025j) / 39.87
    expected = np.exp(-np.pi * depth * 0.004 / 39.87)[:, np.newaxis] * np.stack(
        [np.cos(phase), 1j * np.sin(phase)], axis=1
    )
    np.testing.assert_allclose(amplitudes(found, depth)[0], expected, atol=1e-12)


def row(tilts=5, orders=8):
    return systematic_row(spinel(), (4, 0, 0), np.linspace(-3, 3, tilts), 200, orders=orders, in_bragg_angles=True)


def test_without_absorption_nothing_is_lost_and_with_it_less_and_less_is_left():
    depth = np.linspace(0, 1000, 11)
    elastic = np.abs(amplitudes(coupling(spinel(), row(), absorption=False), depth)) ** 2
    np.testing.assert_allclose(elastic.sum(axis=2), 1, atol=1e-10)
    left = (np.abs(amplitudes(coupling(spinel(), row()), depth)) ** 2).sum(axis=2)
    assert (np.diff(left, axis=1) < 0).all() and left[:, -1].max() < 0.97


def test_eigenvectors_and_the_matrix_exponential_agree():
    found, depth = coupling(spinel(), row()), np.array([50.0, 400.0, 1000.0])
    np.testing.assert_allclose(amplitudes(found, depth), exponential_amplitudes(found, depth), atol=1e-9)


def test_the_thickness_integral_is_that_of_gauss():
    found = coupling(spinel(), row(3))
    nodes, weights = np.polynomial.legendre.leggauss(600)
    depth = 600 * (nodes + 1) / 2
    waves = amplitudes(found, depth)
    expected = np.einsum("t,otg,oth->ogh", 300 * weights, waves, waves.conj())
    np.testing.assert_allclose(integrated_density(found, np.array([600.0]))[:, 0], expected, rtol=0, atol=600e-10)


def test_the_thickness_integral_of_equal_bloch_waves():
    found = two_beams(0.06, (0, 0), 0.0)
    depth = np.array([1e-3, 700.0])
    result = integrated_density(found, depth)
    assert np.trace(result[0, 1]).real == pytest.approx(700, rel=1e-12)
    still = Coupling(np.zeros((2, 2), complex), np.zeros((1, 2)), np.array([39.87]))
    np.testing.assert_allclose(integrated_density(still, depth)[0, :, 0, 0], depth)


def test_turned_by_the_symmetry_of_the_zone_the_pattern_is_the_same():
    scan = zone_axis(spinel(), (0, 0, 1), np.linspace(-6, 6, 5), 200, largest=1.1)
    intensity = np.abs(amplitudes(coupling(spinel(), scan), np.array([300.0]))[:, 0, 0]).reshape(5, 5) ** 2
    np.testing.assert_allclose(intensity, intensity.T, atol=1e-9)
    np.testing.assert_allclose(intensity, intensity[::-1], atol=1e-9)
    assert intensity.std() > 0.005


def test_polarity_of_gallium_arsenide():
    depth = np.array([200.0])
    found = []
    for crystal in (gallium_arsenide(), gallium_arsenide(inverted=True)):
        scan = zone_axis(crystal, (1, 1, 0), (np.array([0.0]), np.linspace(-8, 8, 5)), 200, x=(0, 0, 2), largest=1.5)
        found.append(np.abs(amplitudes(coupling(crystal, scan), depth)[:, 0]) ** 2)
        beams = scan.beams
    minus = [int(np.flatnonzero((beams == -beam).all(axis=1))[0]) for beam in beams]
    # Inverted, and seen from the other side, it is the same crystal.
    np.testing.assert_allclose(found[0], found[1][::-1][:, minus], atol=1e-9)
    assert np.abs(found[0] - found[0][::-1][:, minus]).max() > 1e-3


def test_sites_of_spinel_and_their_editing():
    crystal = spinel()
    assert [len(site.positions) for site in crystal.sites] == [8, 16, 16, 32]
    assert crystal.amount("Mn") == pytest.approx(8 * 0.03 + 16 * 0.73)
    changed = crystal.occupy({"16c": {"Mn": 0.1}}).relabel({"8a": "tetrahedron"}).with_debye_waller({"32e": 0.9})
    assert changed.labels == ("tetrahedron", "16d", "16c", "32e") and changed.site("32e").debye_waller == 0.9
    halves = crystal.split("16d", {"a": range(8), "b": range(8, 16)})
    assert halves.labels == ("8a", "a", "b", "16c", "32e") and halves.amount("Mn") == crystal.amount("Mn")
    whole = structure_factors(crystal, [[4, 0, 0], [1, 1, 1]], 200)
    np.testing.assert_allclose(structure_factors(halves, [[4, 0, 0], [1, 1, 1]], 200), whole, rtol=1e-12)


CIF = """data_test
_cell_length_a 8.17
_cell_length_b 8.17
_cell_length_c 8.17
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F d -3 m:2'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_U_iso_or_equiv
Li1 Li 0.125 0.125 0.125 0.9 0.01
Mn1 Mn 0.125 0.125 0.125 0.1 0.01
Mn2 Mn 0.5 0.5 0.5 1.0 0.005
O1 O 0.263 0.263 0.263 1.0 0.009
"""


def test_a_file_with_mixed_occupation(tmp_path):
    path = tmp_path / "spinel.cif"
    path.write_text(CIF)
    crystal = Crystal.from_cif(path)
    assert crystal.labels == ("Li1/Mn1", "Mn2", "O1")
    assert dict(crystal.sites[0].occupants) == {"Li": 0.9, "Mn": 0.1}
    assert crystal.sites[0].debye_waller == pytest.approx(8 * np.pi**2 * 0.01)
    assert crystal.amount("Mn") == pytest.approx(16.8)
    path.write_text(CIF.replace(" 0.005", " ?"))
    with pytest.warns(UserWarning, match=r"no displacement of \['Mn2'\]"):
        assert Crystal.from_cif(path).site("Mn2").debye_waller == 0.5
    assert Crystal.from_cif(path, debye_waller=0.3).site("Mn2").debye_waller == 0.3


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("data_x\n_cell_length_a 3\n", ts.InvalidData, "no cell"),
        (CIF.split("loop_")[0], ts.InvalidData, "no atoms"),
        ("nonsense {", ts.UnreadableFile, "cannot be read as a CIF"),
    ],
)
def test_files_that_are_no_structures(tmp_path, text, error, said):
    path = tmp_path / "bad.cif"
    path.write_text(text)
    with pytest.raises(error, match=said):
        Crystal.from_cif(path)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Crystal.from_cif("nowhere.cif"), ts.MissingFile, "nowhere.cif"),
        (lambda: spinel().site("16dd"), ts.UnknownName, "Did you mean '16d'"),
        (lambda: spinel().occupy({"8a": {"Li": 0.9, "Mn": 0.2}}), ts.InvalidArgument, "above one"),
        (lambda: spinel().occupy({"8a": {"Xx": 0.9}}), ts.UnknownName, "no element 'Xx'"),
        (lambda: Crystal.from_space_group("F d 3 q", (1,) * 6, {}), ts.UnknownName, "no space group"),
        (lambda: Crystal((0, 1, 1, *CUBIC), silicon().sites), ts.InvalidData, "cell"),
        (lambda: systematic_row(spinel(), (4, 0, 0), [-50, 50], 200), ts.InvalidArgument, "give more orders"),
        (lambda: systematic_row(spinel(), (0, 0, 0), [0], 200), ts.InvalidArgument, "not all zero"),
        (lambda: systematic_row(spinel(), (4, 0, 0), [1, 0], 200), ts.InvalidArgument, "rising"),
        (
            lambda: zone_axis(spinel(), (0, 0, 1), [0.0], 200, x=(1, 1, 1)),
            ts.InvalidArgument,
            "no reflection of the zone",
        ),
        (lambda: wavelength(1), ts.InvalidArgument, "beam_energy"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_scan_has_its_tilts_in_mrad_and_every_beam_a_place():
    scan = row(7)
    assert isinstance(scan, Scan) and scan.dims == ("tilt_x",) and scan.shape == (7,)
    np.testing.assert_allclose(scan.tilts["tilt_x"][-1], 3 * 6.139, rtol=1e-3)
    np.testing.assert_allclose(np.hypot(*scan.plane.T), [spinel().length(beam) for beam in scan.beams])
    excited = coupling(spinel(), row(7)).excitation
    # At minus the Bragg angle the reflection itself is at its Bragg condition.
    tilted = scan.with_tilts(tilt_x=[-scan.tilts["tilt_x"][-1] / 3])
    assert np.abs(coupling(spinel(), tilted).excitation[0][(scan.beams == [4, 0, 0]).all(axis=1)]) < 1e-12
    assert excited.shape == (7, 17)
