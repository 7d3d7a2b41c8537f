"""Beam-rocking scans in mrad, and ratios without theory: planted scale, origin, sense, shares."""

from functools import lru_cache

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import RectBivariateSpline

import tensorspec as ts
from tensorspec.channelling.beams import systematic_row, zone_axis
from tensorspec.channelling.orientation import as_orientation, beam_intensity
from tensorspec.channelling.ratio import ratio_of_two_sites, statistical_alchemi

from .structures import gallium_arsenide, spinel
from .test_occupancy import drawn, expected, known


def bright_field(crystal=None, reflection=(4, 0, 0), thickness=60.0):
    crystal = crystal or spinel()
    scan = systematic_row(crystal, reflection, np.linspace(-4, 4, 161), 200, in_bragg_angles=True)
    return beam_intensity(crystal, scan, thickness, convergence=0.3)


def scanned(curve, scale, origin, points=81, drift=0.0, counts=20_000, seed=0):
    index = np.arange(points) - (points - 1) / 2
    values = np.interp(scale * index + origin, curve.tilt_x, curve) * (1 + drift * index / points)
    return xr.DataArray(np.random.default_rng(seed).poisson(counts * values), dims="x"), scale * index + origin


@pytest.mark.parametrize(("scale", "origin", "drift"), [(0.4, 0.0, 0.0), (0.45, 2.5, 0.2), (0.35, -3.0, -0.3)])
def test_scale_and_origin_of_a_row_from_its_bright_field(scale, origin, drift):
    curve = bright_field()
    reference, tilts = scanned(curve, scale, origin, drift=drift)
    data = xr.DataArray(np.zeros((81, 4)), dims=("x", "energy_loss"))
    found = as_orientation(data, row="x", step=0.4, reference=reference, expected=curve)
    np.testing.assert_allclose(found.tilt_x, tilts, atol=0.12)
    assert found.attrs["orientation"]["step"]["row"] == pytest.approx(scale, rel=0.005)
    assert found.attrs["orientation"]["explained"] > 0.9
    # The row is symmetric: nothing says which way it runs.
    if origin == 0:
        assert not found.attrs["orientation"]["sense_told"]


def test_a_flipped_axis_is_found_where_the_crystal_is_polar():
    crystal = gallium_arsenide()
    curve = beam_intensity(
        crystal,
        systematic_row(crystal, (0, 0, 2), np.linspace(-4, 4, 161), 200, in_bragg_angles=True),
        60.0,
        beam=(0, 0, 2),
    )
    reference, _ = scanned(curve, -0.2, 1.0, counts=200_000)
    data = xr.DataArray(np.arange(81.0)[:, None] * np.ones(2), dims=("x", "energy_loss"))
    found = as_orientation(data, row="x", step=0.2, reference=reference, expected=curve)
    assert found.attrs["orientation"]["sense_told"]
    assert found.attrs["orientation"]["step"]["row"] == pytest.approx(-0.2, rel=0.02)
    assert (np.diff(found.tilt_x) > 0).all() and float(found[0, 0]) == 80


@lru_cache
def pattern(polar=False):
    crystal = gallium_arsenide() if polar else spinel()
    axis, x, largest = ((1, 1, 0), (0, 0, 2), 0.8) if polar else ((0, 0, 1), (4, 0, 0), 0.6)
    scan = zone_axis(crystal, axis, np.linspace(-15, 15, 41), 200, x=x, largest=largest)
    return beam_intensity(crystal, scan, 50.0, beam=(0, 0, 2) if polar else (0, 0, 0), convergence=0.5)


def scanned_pattern(curve, scale, origin, counts, turn=0.0, size=25, drift=0.2):
    index = np.arange(size) - (size - 1) / 2
    v, u = np.meshgrid(scale[0] * index, scale[1] * index, indexing="ij")
    y, x = np.cos(turn) * v + np.sin(turn) * u + origin[0], np.cos(turn) * u - np.sin(turn) * v + origin[1]
    surface = RectBivariateSpline(curve.tilt_y, curve.tilt_x, curve.transpose("tilt_y", "tilt_x"))
    values = surface.ev(y, x) * (1 + drift * index[:, np.newaxis] / size)
    reference = xr.DataArray(np.random.default_rng(0).poisson(counts * values), dims=("y", "x"))
    return reference, scale[0] * index + origin[0], scale[1] * index + origin[1]


@pytest.mark.parametrize(("scale", "origin"), [((0.6, 0.6), (0.0, 0.0)), ((0.55, 0.62), (2.5, -1.5))])
def test_scale_and_origin_of_a_pattern_from_its_bright_field(scale, origin):
    reference, y, x = scanned_pattern(pattern(), scale, origin, 20_000)
    data = xr.DataArray(np.zeros((25, 25, 2)), dims=("y", "x", "energy_loss"))
    found = as_orientation(data, step=0.6, reference=reference, expected=pattern())
    np.testing.assert_allclose(found.tilt_y, y, atol=0.1)
    np.testing.assert_allclose(found.tilt_x, x, atol=0.1)
    record = found.attrs["orientation"]
    # Four mirrors: nothing says which way the axes run, so that it is the way of the steps.
    assert record["explained"] > 0.9 and record["sense_told"] == {"y": False, "x": False}
    assert abs(record["turn"]) < 0.5


def test_a_flipped_axis_of_a_pattern_is_found_where_the_crystal_is_polar():
    curve = pattern(polar=True)
    reference, _, _ = scanned_pattern(curve, (0.6, -0.6), (1.0, 0.5), 200_000)
    data = xr.DataArray(np.broadcast_to(np.arange(25.0), (25, 25)), dims=("y", "x"))
    found = as_orientation(data, step=0.6, reference=reference, expected=curve)
    # Across [0 0 1] lies a mirror, along it none.
    assert found.attrs["orientation"]["sense_told"] == {"y": False, "x": True}
    assert found.attrs["orientation"]["step"]["x"] == pytest.approx(-0.6, rel=0.02)
    assert found.attrs["orientation"]["origin"]["x"] == pytest.approx(0.5, abs=0.1)
    assert (np.diff(found.tilt_x) > 0).all() and float(found[0, 0]) == 24


def test_a_pattern_that_is_turned_or_larger_than_what_is_expected_is_refused():
    data = xr.DataArray(np.zeros((25, 25)), dims=("y", "x"))
    turned, _, _ = scanned_pattern(pattern(), (0.6, 0.6), (0.0, 0.0), 20_000, turn=np.radians(6))
    with pytest.raises(ts.InvalidData, match="turned by 6.. degrees|turned by 5.. degrees"):
        as_orientation(data, step=0.6, reference=turned, expected=pattern())
    large, _, _ = scanned_pattern(pattern(), (0.6, 0.6), (0.0, 0.0), 20_000)
    with pytest.raises(ts.InvalidData, match="larger than what is expected"):
        as_orientation(data, step=2.0, reference=large, expected=pattern())
    with pytest.raises(ts.InvalidData, match="25 points|points along"):
        as_orientation(data, step=0.6, reference=large[:20], expected=pattern())
    noise = large.copy(data=np.random.default_rng(1).poisson(1000, (25, 25)))
    with pytest.raises(ts.InvalidData, match="of the reference"):
        as_orientation(data, step=0.6, reference=noise, expected=pattern())


def test_two_tilts_and_a_row_that_is_summed_across():
    rng = np.random.default_rng(0)
    data = xr.DataArray(rng.poisson(5, (6, 5, 3)), dims=("y", "x", "energy_loss"), coords={"x": [1, 2, 3, 4, 5]})
    both = as_orientation(data, step={"y": 0.5, "x": -0.2})
    assert both.dims == ("tilt_y", "tilt_x", "energy_loss") and both.tilt_x.attrs["units"] == "mrad"
    np.testing.assert_allclose(both.tilt_y, 0.5 * (np.arange(6) - 2.5))
    np.testing.assert_array_equal(both.isel(tilt_x=0), data.isel(x=4))
    line = as_orientation(data, row="x", step=0.2)
    np.testing.assert_array_equal(line, data.sum("y"))
    assert "tilts in mrad" in line.attrs["history"][-1]


def test_another_row_is_refused():
    reference, _ = scanned(bright_field(), 0.4, 0.0)
    noise = reference.copy(data=np.random.default_rng(0).poisson(1000, 81))
    data = xr.DataArray(np.zeros((81, 2)), dims=("x", "energy_loss"))
    with pytest.raises(ts.InvalidData, match="of the reference"):
        as_orientation(data, row="x", step=0.4, reference=noise, expected=bright_field())
    for options, said in (
        ({}, "step is missing"),
        ({"step": 0.0}, "not zero"),
        ({"step": 0.4, "reference": reference}, "belong together"),
        ({"step": 0.4, "reference": reference, "expected": bright_field()}, "say row='x'"),
    ):
        with pytest.raises(ts.InvalidArgument, match=said):
            as_orientation(data, **options)
    with pytest.raises(ts.InvalidData, match="y and x"):
        as_orientation(data.rename(x="time"), step=0.4)


HOSTS = {"8a": "Ni K", "16d": "Mn K"}


def alloyed(share, seed, dose=10.0):
    """A line on both sites, and a host on each."""
    shares = {"Ni": {"8a": 1.0}, "Mn": {"16d": 1.0}, "O": {"8a": share, "16d": 1 - share}}
    return drawn(expected(("Ni K", "Mn K", "O K"), shares=shares, dose=dose), seed)


def test_without_theory_delocalisation_biases_and_the_correction_mends_it():
    theory = known().interp(thickness=100.0, method="cubic").sel(tilt_x=expected().tilt_x)
    plain, corrected, errors = [], [], []
    for seed in range(12):
        counts = alloyed(0.3, seed)
        level = counts.mean("tilt_x")
        # Strengths of the hosts, per atom, as a standard would give them.
        scaled = {"8a": float(level.sel(line="Ni K")), "16d": float(level.sel(line="Mn K"))}
        plain.append(float(statistical_alchemi(counts, "O K", HOSTS, scaled).share.sel(site="8a")))
        found = statistical_alchemi(counts, "O K", HOSTS, scaled, response=theory)
        corrected.append(float(found.share.sel(site="8a")))
        errors.append(float(found.standard_error.sel(site="8a")))
        assert found.chi_squared < 1.7
    assert abs(np.mean(corrected) - 0.3) < 0.02
    assert abs(np.mean(plain) - 0.3) > 2 * abs(np.mean(corrected) - 0.3)
    assert np.std(corrected) == pytest.approx(np.mean(errors), rel=0.6)


def test_the_noise_of_the_hosts_counts():
    shares = {"Ni": {"8a": 1.0}, "Mn": {"8a": 0.3, "16d": 0.7}, "O": {"16d": 1.0}}
    theory = known().interp(thickness=100.0, method="cubic").sel(tilt_x=expected().tilt_x)
    mean = expected(("Ni K", "Mn K", "O K"), shares=shares)
    hosts, atoms = {"8a": "Ni K", "16d": "O K"}, {"8a": 1, "16d": 1}
    # The hosts have fewer counts than the line: nearly all noise is theirs.
    found = [statistical_alchemi(drawn(mean, seed), "Mn K", hosts, atoms, response=theory) for seed in range(20)]
    assert np.mean([each.chi_squared for each in found]) == pytest.approx(1, abs=0.1)


def test_the_classic_formula_is_constant_only_with_the_right_responses():
    theory = known().interp(thickness=100.0, method="cubic").sel(line="Mn K")
    first, second = theory.sel(site="8a", drop=True), theory.sel(site="16d", drop=True)
    part = 0.1 * first / (0.1 * first + 0.9 * second)
    rng = np.random.default_rng(0)
    noisy = part + 0.004 * rng.normal(size=part.shape)
    error = xr.full_like(part, 0.004)
    ratio, deviation, chi_squared = ratio_of_two_sites(noisy, error, first, second)
    assert abs(ratio - 1 / 9) < 4 * deviation and chi_squared == pytest.approx(1, abs=0.4)
    other = known().interp(thickness=100.0, method="cubic").sel(line="Mn L23")
    wrong = ratio_of_two_sites(noisy, error, other.sel(site="8a"), other.sel(site="16d"))
    assert wrong[2] > 5


def test_what_cannot_be_meant_is_refused():
    counts = alloyed(0.3, 0)
    for call, error, said in (
        (lambda: statistical_alchemi(counts, "Fe K", HOSTS, {"8a": 1, "16d": 1}), ts.UnknownName, "no line 'Fe K'"),
        (lambda: statistical_alchemi(counts, "O K", {"8a": "Ni K"}, {"8a": 1}), ts.InvalidArgument, "two sites"),
        (lambda: statistical_alchemi(counts, "O K", HOSTS, {"8a": 1}), ts.InvalidArgument, "above zero"),
        (lambda: statistical_alchemi(-counts, "O K", HOSTS, {"8a": 1, "16d": 1}), ts.InvalidData, "negative"),
        (
            lambda: statistical_alchemi(counts, "O K", HOSTS, {"8a": 1, "16d": 1}, response=known()),
            ts.InvalidArgument,
            "one thickness",
        ),
    ):
        with pytest.raises(error, match=said):
            call()
