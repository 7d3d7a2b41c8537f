"""Powers of the energy and X-ray lines: their values, and what a fit makes of them."""

import sys

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.prepare.xray import detector_width

xraydb = pytest.importorskip("xraydb")


def axis(first=0.01, step=0.01, channels=1500, units="keV", **attrs):
    energy = first + step * np.arange(channels)
    return xr.DataArray(
        np.zeros(channels),
        dims="xray_energy",
        coords={"xray_energy": ("xray_energy", energy, {"units": units})},
        attrs=attrs,
    )


@pytest.mark.parametrize("element", ["C", "O", "Si", "Ti", "Fe", "Cu", "Mo", "La", "Au"])
def test_lines_lie_where_the_tables_say(element):
    lines = ts.xray_lines(axis(channels=2000), [element], beam_energy=200)
    for name, energy in zip(lines.line.values, lines.line_energy.values, strict=True):
        shell = name.split()[1]
        own = [line for line in xraydb.xray_lines(element).values() if line.initial_level.startswith(shell)]
        assert min(abs(1e3 * energy - line.energy) for line in own) < 1e-6
        shape = lines.sel(line=name)
        place = float(shape.xray_energy[int(np.argmax(shape.values))])
        assert place == pytest.approx(energy, abs=0.04)  # neighbouring lines pull the top towards them
    assert (lines.sum("xray_energy") <= 1 + 1e-9).all()


def test_ratios_within_families_and_the_detector():
    lines = ts.xray_lines(axis(), ["Fe"], beam_energy=200)
    iron = lines.sel(line="Fe K")
    beta = float(iron.sel(xray_energy=slice(6.8, 7.4)).sum())
    table = xraydb.xray_lines("Fe", "K")
    expected = sum(line.intensity for name, line in table.items() if name.startswith("Kb"))
    assert beta == pytest.approx(expected / sum(line.intensity for line in table.values()), rel=0.002)
    # The two K-alpha lines as one peak: its width is that of the detector and of their distance.
    alpha = iron.sel(xray_energy=slice(6.0, 6.8))
    energy = alpha.xray_energy.values
    centre = (alpha * energy).sum() / alpha.sum()
    variance = float((alpha * (energy - float(centre)) ** 2).sum() / alpha.sum())
    pair = [(line.energy, line.intensity) for name, line in table.items() if name in ("Ka1", "Ka2", "Ka3")]
    weights = np.array([share for _, share in pair])
    places = np.array([place for place, _ in pair]) / 1e3
    spread = float((weights * (places - (weights @ places) / weights.sum()) ** 2).sum() / weights.sum())
    width = detector_width(6400.0, 130.0) / 1e3 / 2.35482
    assert variance == pytest.approx(width**2 + spread + 0.01**2 / 12, rel=0.01)
    assert detector_width(5898.8, 130.0) == pytest.approx(130.0)
    assert detector_width(500.0, 130.0) < detector_width(10_000.0, 130.0)


def test_subshells_are_free_where_asked_and_sum_to_the_shell():
    options = {"beam_energy": 20.0}
    whole = ts.xray_lines(axis(), ["Au"], **options)
    parts = ts.xray_lines(axis(), ["Au"], by="subshell", **options)
    assert {"Au L3", "Au L2", "Au L1", "Au M5"} <= set(parts.line.values)
    family = parts.sel(line=[name for name in parts.line.values if name.startswith("Au L")]).values
    left = np.linalg.lstsq(family.T, whole.sel(line="Au L").values, rcond=None)
    assert np.sqrt(left[1]).max(initial=0) < 2e-3 * np.linalg.norm(whole.sel(line="Au L"))
    assert (left[0] > 0).all()


def test_the_beam_leaves_out_what_it_cannot_ionise():
    assert "Au L" not in ts.xray_lines(axis(), ["Au"], beam_energy=10).line.values
    assert "Au L" in ts.xray_lines(axis(), ["Au"]).line.values
    assert "Au L" not in ts.xray_lines(axis(beam_energy_keV=10.0), ["Au"]).line.values


def test_units_and_range():
    kilo = ts.xray_lines(axis(), ["O", "Fe"], beam_energy=200)
    plain = ts.xray_lines(axis(10.0, 10.0, units="eV"), ["O", "Fe"], beam_energy=200)
    np.testing.assert_allclose(kilo.values, plain.values, atol=1e-12)
    np.testing.assert_allclose(1e3 * kilo.line_energy, plain.line_energy)
    short = ts.xray_lines(axis(channels=300), ["Fe"], beam_energy=200)
    assert short.line.values.tolist() == ["Fe L"]


def test_counts_of_elements_come_back_from_a_fit():
    data = axis(beam_energy_keV=200.0)
    lines = ts.xray_lines(data, ["O", "Si", "Fe"], bremsstrahlung=2)
    assert lines.line.values.tolist()[-2:] == ["bremsstrahlung 1", "bremsstrahlung 2"]
    rng = np.random.default_rng(0)
    assert lines.line.values.tolist()[:-2] == ["O K", "Si K", "Si L", "Fe K", "Fe L"]
    amounts = np.array([[400.0, 0, 0, 900, 200, 300, 100], [300.0, 800, 50, 0, 0, 200, 200]])
    maps = np.stack([np.linspace(0, 1, 200), np.linspace(1, 0, 200)], axis=1)
    counts = rng.poisson(maps @ amounts @ lines.values)
    tensor = xr.DataArray(counts, dims=("x", "xray_energy"), coords={"xray_energy": data.xray_energy})
    span = ts.Span(lines)
    fit = ts.fit(tensor, ts.NMF(2, {"xray_energy": span}), loss=ts.LeastSquares(scaling="poisson"), progress=False)
    share = span.coefficients(fit.spectra())
    share = share / share.sum("line")
    total = float(fit.maps().sum())
    assert total == pytest.approx(float(tensor.sum()), rel=0.02)
    elements = (fit.maps().sum("x") * share).sum("component")
    true = (maps @ amounts).sum(axis=0)
    strong = np.flatnonzero(true[:5] > 0.05 * true.sum())
    assert len(strong) == 4
    np.testing.assert_allclose(elements.values[strong], true[strong], rtol=0.02)
    assert float(elements[5:].sum()) == pytest.approx(true[5:].sum(), rel=0.05)


def test_a_background_in_the_fit_finds_the_edge():
    from benchmarks.background import by_fit, by_window, planted

    errors = {by_fit: [], by_window: []}
    pixels = {by_fit: [], by_window: []}
    for seed in range(4):
        data, truth = planted(1e4, seed)
        for way in errors:
            found = way(data)
            errors[way].append(float(found.sum() / truth.sum()) - 1)
            pixels[way].append(float(np.sqrt(((found - truth) ** 2).mean()) / truth.mean()))
    assert abs(np.mean(errors[by_fit])) < 0.04
    assert np.mean(pixels[by_fit]) < 0.6 * np.mean(pixels[by_window])


def test_powers():
    energy = xr.DataArray(np.zeros(300), dims="energy_loss", coords={"energy_loss": 400 + 1.0 * np.arange(300)})
    powers = ts.background_powers(energy)
    assert powers.dims == ("power", "energy_loss") and powers.power.values.tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(powers.sum("energy_loss"), 1)
    slope = np.diff(np.log(powers.values), axis=1) / np.diff(np.log(energy.energy_loss.values))
    np.testing.assert_allclose(slope, -np.array([2, 3, 4, 5])[:, None] * np.ones(299), rtol=1e-9)
    assert ts.background_powers(energy.astype("float32").energy_loss).equals(powers)
    with pytest.raises(ts.InvalidData, match="above zero"):
        ts.background_powers(energy.assign_coords(energy_loss=np.arange(300.0)))
    with pytest.raises(ts.InvalidArgument, match="exponents"):
        ts.background_powers(energy, ())
    with pytest.raises(ts.InvalidArgument, match=r"powers\[1\]"):
        ts.background_powers(energy, (2, -1))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"elements": ["fe"]}, ts.UnknownName, "Did you mean 'Fe'"),
        ({"elements": "Fe"}, ts.InvalidArgument, "symbols"),
        ({"elements": ["Fe"], "resolution": 0.13}, ts.InvalidArgument, "keV"),
        ({"elements": ["Fe"], "by": "line"}, ts.InvalidArgument, "subshell"),
        ({"elements": ["Fe"], "bremsstrahlung": 2}, ts.InvalidArgument, "beam_energy=200"),
        ({"elements": ["Li"]}, ts.InvalidArgument, "Li has no line"),
        ({"energy": axis(units="channels"), "elements": ["Fe"]}, ts.InvalidData, "units"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, error, said):
    with pytest.raises(error, match=said):
        ts.xray_lines(**{"energy": axis(first=0.5), **options})


def test_without_xraydb_the_command_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "xraydb", None)
    with pytest.raises(ts.MissingDependency, match=r"pip install \"tensorspec\[xray\]\""):
        ts.xray_lines(axis(), ["Fe"])
