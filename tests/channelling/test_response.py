"""Responses of sites: sum rule, limits, oracles, which sites a row can tell apart, averages, refusals."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.channelling.beams import systematic_row, zone_axis
from tensorspec.channelling.site_response import absorbed, response
from tensorspec.channelling.split_operator import projection_grid, split_operator_density
from tensorspec.channelling.wavefield import Coupling, coupling, integrated_density

from .structures import gallium_arsenide, spinel


class Falling:
    """A form factor like that of a K shell of a metal."""

    def __init__(self, width=2.0):
        self.width = width

    def form_factor(self, s):
        return 1 / (1 + (np.asarray(s) / self.width) ** 2) ** 2


LINES = {"metal": Falling(2.0), "oxygen": Falling(0.4)}


def row(reflection=(4, 0, 0), tilts=7, orders=8, crystal=None):
    return systematic_row(
        crystal or spinel(), reflection, np.linspace(-3, 3, tilts), 200, orders=orders, in_bragg_angles=True
    )


def test_over_all_incident_beams_every_site_answers_like_in_a_plane_wave():
    crystal, scan = spinel(), row(tilts=3)
    found = coupling(crystal, scan, absorption=False)
    beams = scan.beams
    difference = beams[np.newaxis] - beams[:, np.newaxis]
    lengths = np.linalg.norm(difference @ crystal.metric, axis=-1)
    site = crystal.site("8a")
    weight = np.exp(-2j * np.pi * difference @ site.positions.T).mean(axis=-1) * Falling().form_factor(lengths / 2)
    answers = []
    for entry in range(len(beams)):
        order = np.r_[entry, np.delete(np.arange(len(beams)), entry)]
        turned = Coupling(found.potential[np.ix_(order, order)], found.excitation[1:2, order], found.wave_number[1:2])
        density = integrated_density(turned, np.array([600.0]))[0, 0]
        answers.append((density * weight[np.ix_(order, order)]).sum().real / 600)
    assert np.mean(answers) == pytest.approx(1, abs=1e-12)
    assert np.std(answers) > 0.02


def test_what_is_scattered_thermally_answers_like_a_plane_wave_in_the_end():
    thin, thick = (
        response(spinel().with_debye_waller(dict.fromkeys(spinel().labels, 2.0)), row(), LINES, t, check=False)
        for t in (np.arange(5.0, 51, 5), np.arange(5.0, 3001, 5))
    )
    assert float(abs(thin - 1).max()) > 0.15
    assert float(abs(thick.isel(thickness=-1) - 1).max()) < 0.25 * float(abs(thin.isel(thickness=-1) - 1).max())


def test_very_thin_crystals_see_a_plane_wave():
    found = response(spinel(), row(), LINES, [0.01], check=False)
    assert float(abs(found - 1).max()) < 1e-3


def test_two_engines_agree_on_a_zone_axis_and_symmetry_holds():
    scan = zone_axis(spinel(), (0, 0, 1), np.linspace(-6, 6, 3), 200, largest=1.2)
    depths = np.arange(5.0, 41, 5)
    exact, split = (
        response(spinel(), scan, LINES, depths, engine=engine, check=False)
        for engine in ("eigenvectors", "split operator")
    )
    assert float(abs(exact - split).max()) < 2e-3
    assert exact.dims == ("site", "line", "tilt_y", "tilt_x", "thickness")
    np.testing.assert_allclose(exact.transpose(..., "tilt_x", "tilt_y", "thickness"), exact, atol=1e-9)
    assert float(exact.std(["tilt_x", "tilt_y"]).sel(site="16d", line="metal").max()) > 0.05


def test_the_split_operator_is_of_second_order():
    scan = zone_axis(spinel(), (0, 0, 1), np.linspace(-6, 6, 2), 200, largest=1.0)
    found, depth = coupling(spinel(), scan), np.array([200.0])
    difference = (scan.beams[np.newaxis] - scan.beams[:, np.newaxis]).reshape(-1, 3)
    distinct, back = np.unique(difference, axis=0, return_inverse=True)
    grid = projection_grid(scan.beams, distinct)
    fine = split_operator_density(found, depth, grid, double=True, slice_thickness=0.25)
    errors = [
        np.abs(split_operator_density(found, depth, grid, double=True, slice_thickness=size) - fine).max()
        for size in (5.0, 2.5)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    exact = np.zeros(fine.shape, complex)
    np.add.at(exact, (slice(None), slice(None), back.ravel()), integrated_density(found, depth).reshape(4, 1, -1))
    assert np.abs(exact - fine).max() / 200 < 3e-4
    assert np.abs(split_operator_density(found, depth, grid) - exact).max() / 200 < 3e-4  # as it is used


@pytest.mark.parametrize(("reflection", "apart"), [((4, 0, 0), False), ((2, 2, 0), False), ((1, 1, 1), True)])
def test_which_rows_tell_the_two_octahedra_of_spinel_apart(reflection, apart):
    crystal = spinel().with_debye_waller({"16c": 0.4, "16d": 0.4})
    found = response(crystal, row(reflection, crystal=crystal), LINES, np.arange(5.0, 51, 5), check=False)
    difference = float(abs(found.sel(site="16c") - found.sel(site="16d")).max())
    assert difference > 0.3 if apart else difference < 1e-9


def test_the_zero_layer_of_a_cube_axis_cannot_tell_the_octahedra_apart_either():
    crystal = spinel().with_debye_waller({"16c": 0.4, "16d": 0.4})
    scan = zone_axis(crystal, (0, 0, 1), np.linspace(-6, 6, 3), 200, largest=1.2)
    found = response(crystal, scan, LINES, np.arange(5.0, 31, 5), check=False, engine="eigenvectors")
    assert float(abs(found.sel(site="16c") - found.sel(site="16d")).max()) < 1e-9
    assert float(abs(found.sel(site="8a") - found.sel(site="16d")).max()) > 0.1


@pytest.mark.parametrize(
    ("crystal", "axis", "x", "number"),
    [
        (spinel(), (0, 0, 1), (4, 0, 0), 8),
        (spinel(), (1, 1, 0), (0, 0, 4), 4),
        (gallium_arsenide(), (1, 1, 0), (0, 0, 2), 2),
        (spinel().split("16d", {"a": range(4), "b": range(4, 16)}), (0, 0, 1), (4, 0, 0), None),
    ],
)
def test_what_symmetry_makes_equal_is_equal(crystal, axis, x, number, monkeypatch):
    from tensorspec.channelling import site_response
    from tensorspec.channelling.symmetry import distinct_orientations, plane_symmetries

    scan = zone_axis(crystal, axis, np.linspace(-6, 6, 5), 200, x=x, largest=0.8)
    turns = plane_symmetries(crystal, scan)
    chosen, _ = distinct_orientations(scan, turns)
    if number:
        assert len(turns) == number and len(chosen) == {8: 6, 4: 9, 2: 15}[number]
    depths = np.arange(5.0, 21, 5)
    reduced = response(crystal, scan, LINES, depths, check=False, engine="eigenvectors")
    monkeypatch.setattr(site_response, "FEW_ORIENTATIONS", 10**6)
    full = response(crystal, scan, LINES, depths, check=False, engine="eigenvectors")
    np.testing.assert_allclose(reduced, full, atol=1e-9)


def test_polarity_swaps_the_sites():
    def answer(crystal):
        scan = zone_axis(crystal, (1, 1, 0), (np.array([0.0]), np.linspace(-8, 8, 5)), 200, x=(0, 0, 2), largest=1.0)
        return response(crystal, scan, LINES, np.arange(5.0, 31, 5), check=False)

    straight, inverted = answer(gallium_arsenide()), answer(gallium_arsenide(inverted=True))
    np.testing.assert_allclose(straight.isel(tilt_x=slice(None, None, -1)), inverted, atol=1e-9)
    assert float(abs(straight - inverted).max()) > 0.01


def test_without_absorption_the_answer_is_another_one():
    found, without = (
        response(spinel(), row(), LINES, np.arange(5.0, 101, 5), absorption=on, check=False) for on in (True, False)
    )
    assert float(abs(found - without).sel(thickness=100).max()) > 0.03


def test_few_beams_are_warned_of_and_many_are_not():
    with pytest.warns(UserWarning, match="a quarter more beams change it"):
        narrow = systematic_row(spinel(), (4, 0, 0), [-1.4, 0, 1.4], 200, orders=2, in_bragg_angles=True)
        few = response(spinel(), narrow, LINES, np.arange(5.0, 51, 5))
    assert few.attrs["beam_convergence"] > 0.01
    many = response(spinel(), row(orders=9, tilts=3), LINES, np.arange(5.0, 51, 5))
    assert many.attrs["beam_convergence"] < 0.005


def test_a_spread_of_thickness_and_of_directions_average():
    depths = np.arange(5.0, 81, 5)
    scan = row(tilts=61)
    sharp = response(spinel(), scan, LINES, depths, check=False)
    spread = response(spinel(), scan, LINES, depths, thickness_spread=4.0, check=False)
    fine = response(spinel(), scan, LINES, np.arange(1.0, 101, 1.0), check=False)
    weight = np.exp(-0.5 * ((fine.thickness - 40) / 4) ** 2) * fine.thickness
    expected = (fine * weight).sum("thickness") / weight.sum()
    assert float(abs(spread.sel(thickness=40) - expected).max()) < 2e-3
    blurred = response(spinel(), scan, LINES, depths, convergence=1.0, check=False)
    own = np.exp(-0.5 * ((sharp.tilt_x - sharp.tilt_x[30]) / 1.0) ** 2)
    expected = (sharp * own).sum("tilt_x") / own.sum()
    assert float(abs(blurred.isel(tilt_x=30) - expected).max()) < 1e-3
    assert float(blurred.std("tilt_x").sel(site="16d", line="metal", thickness=40)) < float(
        sharp.std("tilt_x").sel(site="16d", line="metal", thickness=40)
    )


def test_absorption_of_x_rays_on_their_way_out():
    found = response(spinel(), row(), LINES, np.arange(1.0, 61, 1.0), check=False)
    none = absorbed(found, {"metal": 0.0})
    xr.testing.assert_allclose(none, found)
    near, far = (absorbed(found, {"oxygen": 5.0}, exit_side=side).sel(thickness=60) for side in ("entrance", "exit"))
    # What is seen is what was made near the surface that the detector looks at.
    made = (found * found.thickness).diff("thickness")
    np.testing.assert_allclose(near.sel(line="oxygen"), found.sel(line="oxygen", thickness=1), atol=2e-3)
    np.testing.assert_allclose(far.sel(line="oxygen"), made.sel(line="oxygen", thickness=60), atol=2e-3)
    assert float(abs(near - far).sel(line="oxygen").max()) > 0.02
    np.testing.assert_array_equal(near.sel(line="metal"), found.sel(line="metal", thickness=60))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: response(spinel(), row(), LINES, [10.0, 20.0]), "at most 5"),
        (lambda: response(spinel(), row(), LINES, [0.0, 5.0]), "rising values above zero"),
        (lambda: response(spinel(), row(), {}, [5.0]), "lines is empty"),
        (lambda: response(spinel(), row(), LINES, [5.0], engine="multislice"), "expected 'auto'"),
        (lambda: response(spinel(), row(), LINES, [5.0], convergence=-1), "convergence"),
        (lambda: absorbed(response(spinel(), row(), LINES, [5.0], check=False), {"Mn K": 0.1}), "the response has"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, said):
    with pytest.raises(ts.InvalidArgument, match=said):
        call()


def multislice(crystal, tilt, depths, line, sites, size=96, slice_thickness=1.0, furthest=5.5):
    """Ionization over that in a plane wave, by a multislice calculation in real space with a projected potential."""
    from tensorspec.channelling.electron import wavelength
    from tensorspec.channelling.scattering import structure_factors

    order = np.rint(np.fft.fftfreq(size, 1 / size)).astype(int)
    h, k = np.meshgrid(order, order, indexing="ij")
    indices = np.stack([h.ravel(), k.ravel(), np.zeros(size**2, int)], axis=1)
    g = np.linalg.norm(indices @ crystal.metric, axis=1)
    inside = g <= furthest
    coefficients = np.zeros(size**2, complex)
    coefficients[inside] = structure_factors(crystal, indices[inside], 200, absorption=False)[0]
    mean = coefficients[0].real
    coefficients[0] = 0
    wave_number = np.sqrt(wavelength(200) ** -2 + mean)
    potential = (np.fft.ifft2(coefficients.reshape(size, size)) * size**2).real
    transverse = 1e-3 * tilt / wavelength(200)
    gx = (h / crystal.cell[0]).astype(float)
    normal = np.sqrt(wave_number**2 - transverse**2)
    moved = np.exp(-1j * np.pi * slice_thickness * (2 * gx * transverse + g.reshape(size, size) ** 2) / normal)
    moved[g.reshape(size, size) > furthest] = 0
    transmitted = np.exp(1j * np.pi * slice_thickness * potential / normal)
    answers = []
    for site in sites:
        own = crystal.site(site)
        # The chance to ionize, at every point: a sum over atoms, smeared by their displacements.
        chance = np.exp(-2j * np.pi * indices @ own.positions.T).mean(axis=1)
        chance = chance * np.exp(-own.debye_waller * g**2 / 4) * line.form_factor(g / 2)
        answers.append((np.fft.ifft2(chance.reshape(size, size)) * size**2).real)
    wave = np.ones((size, size), complex)
    made, result, depth = np.zeros(len(sites)), [], 0.0

    def rate():
        return np.array([(np.abs(wave) ** 2 * chance).mean() for chance in answers])

    for _ in range(round(10 * depths[-1] / slice_thickness)):
        before = rate()
        wave = np.fft.ifft2(np.fft.fft2(wave * np.sqrt(transmitted)) * moved) * np.sqrt(transmitted)
        made = made + slice_thickness * (before + rate()) / 2
        depth += slice_thickness
        if np.isclose(depth / 10, depths).any():
            result.append(made / depth)
    return np.array(result).T


@pytest.mark.slow
@pytest.mark.parametrize("tilt", [0.0, 4.0])
def test_beside_multislice_in_real_space(tilt):
    crystal, depths = spinel(), np.arange(5.0, 31, 5)
    scan = zone_axis(
        crystal, (0, 0, 1), (np.zeros(1), np.array([tilt])), 200, x=(4, 0, 0), largest=3.0, excitation=0.15
    )
    sites = ["8a", "16d", "32e"]
    found = response(crystal, scan, LINES, depths, absorption=False, check=False, engine="eigenvectors")
    for name, line in LINES.items():
        own = found.sel(line=name, site=sites).isel(tilt_x=0, tilt_y=0)
        other = multislice(crystal, tilt, depths, line, sites)
        np.testing.assert_allclose(own, other, rtol=0.015)
        assert np.abs(other - 1).max() > 0.1
