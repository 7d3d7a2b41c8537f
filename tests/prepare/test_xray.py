"""X-ray lines: energies and ratios against xraydb, widths, whole channels, ionisation, and elements as coefficients."""

import sys

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.prepare.xray import detector_width

xraydb = pytest.importorskip("xraydb")


def axis(first=0.0, last=20.0, step=0.01, units="keV", dtype=float):
    values = (first + step * np.arange(round((last - first) / step) + 1)).astype(dtype)
    return xr.DataArray(values, dims="xray_energy", coords={"xray_energy": ("xray_energy", values, {"units": units})})


def within(shape, low, high):
    return float(shape.sel(xray_energy=slice(low, high)).sum())


@pytest.mark.parametrize(
    ("element", "shell", "line"),
    [("O", "K", "Ka1"), ("Si", "K", "Ka1"), ("Fe", "K", "Ka1"), ("Fe", "L", "La1"), ("Mo", "L", "La1"),
     ("La", "L", "La1"), ("Hf", "L", "La1"), ("Hf", "M", "Ma"), ("U", "M", "Ma")],
)  # fmt: skip
def test_energies_are_those_of_the_tables(element, shell, line):
    lines = ts.xray_lines(axis(), [element], beam_energy=200)
    shape = lines.sel(line=f"{element} {shell}")
    energy = xraydb.xray_lines(element)[line].energy / 1e3
    assert float(shape.line_energy) == pytest.approx(energy, rel=1e-9)
    assert str(shape.element.values) == element
    # Lines that the detector does not separate pull the top by a part of its width.
    assert float(shape.xray_energy[int(shape.values.argmax())]) == pytest.approx(energy, abs=0.03)


@pytest.mark.parametrize("element", ["Ti", "Fe", "Cu", "Zr"])
def test_ratio_of_k_beta_to_k_alpha_is_that_of_the_tables(element):
    table = xraydb.xray_lines(element, "K")
    alpha = sum(line.intensity for name, line in table.items() if name.startswith("Ka"))
    beta = sum(line.intensity for name, line in table.items() if name.startswith("Kb"))
    middle = 0.5 * (table["Ka1"].energy + table["Kb1"].energy) / 1e3
    shape = ts.xray_lines(axis(), [element]).sel(line=f"{element} K")
    # Narrow channels and the best resolution: what passes the middle is nothing.
    assert within(shape, middle, None) / within(shape, None, middle) == pytest.approx(beta / alpha, rel=0.01)


@pytest.mark.parametrize("beam", [200.0, 6.0])
def test_subshells_share_the_vacancies(beam):
    # Electrons times Bethe's cross-section; then vacancies move outwards; then some of them become photons.
    vacancies = {}
    for name, electrons in (("L1", 2), ("L2", 2), ("L3", 4)):
        edge = xraydb.xray_edge("La", name).energy
        vacancies[name] = electrons * np.log(1e3 * beam / edge) / edge if 1e3 * beam > edge else 0.0
    move = {
        pair: xraydb.ck_probability("La", *pair, total=False) for pair in (("L1", "L2"), ("L1", "L3"), ("L2", "L3"))
    }
    assert min(move.values()) > 0.05
    vacancies["L2"] += vacancies["L1"] * move["L1", "L2"]
    vacancies["L3"] += vacancies["L1"] * move["L1", "L3"] + vacancies["L2"] * move["L2", "L3"]
    photons = {name: value * xraydb.xray_edge("La", name).fyield for name, value in vacancies.items() if value}
    expected = np.array(list(photons.values())) / sum(photons.values())

    parts = ts.xray_lines(axis(), ["La"], beam_energy=beam, by="subshell")
    names = [name for name in parts.line.values if name.startswith("La L")]
    assert names == [f"La {name}" for name in photons]
    whole = ts.xray_lines(axis(), ["La"], beam_energy=beam).sel(line="La L")
    shares = np.linalg.lstsq(parts.sel(line=names).values.T, whole.values, rcond=None)[0]
    np.testing.assert_allclose(shares, expected, atol=2e-4)


@pytest.mark.parametrize("resolution", [120.0, 130.0, 160.0])
def test_width_is_that_of_the_detector_and_grows_with_energy(resolution):
    statistics = 8 * np.log(2) * 0.115 * 3.65  # Fano factor and eV a pair in silicon
    widths = []
    for element in ("C", "N", "O", "F"):  # K alpha alone
        shape = ts.xray_lines(axis(-1.0, 2.0, 0.002), [element], resolution).sel(line=f"{element} K")
        mean = float((shape * shape.xray_energy).sum() / shape.sum())
        # The channels widen it too, but not by what the detector does.
        variance = float((shape * (shape.xray_energy - mean) ** 2).sum() / shape.sum()) - 0.002**2 / 12
        widths.append(1e3 * np.sqrt(8 * np.log(2) * variance))
        expected = np.sqrt(resolution**2 + statistics * (1e3 * float(shape.line_energy) - 5898.8))
        assert widths[-1] == pytest.approx(expected, rel=2e-3)
    assert (np.diff(widths) > 0).all()
    assert float(detector_width(5898.8, resolution)) == pytest.approx(resolution)


def test_a_whole_family_is_the_sum_of_its_gaussians():
    from scipy.stats import norm

    energy = axis(5.0, 9.0)
    edges = 1e3 * np.append(energy.values - 0.005, energy.values[-1] + 0.005)
    expected = np.zeros(energy.size)
    table = xraydb.xray_lines("Fe", "K").values()
    for line in table:
        width = np.sqrt(140.0**2 + 8 * np.log(2) * 0.115 * 3.65 * (line.energy - 5898.8))
        expected += line.intensity * np.diff(norm.cdf(edges, line.energy, width / np.sqrt(8 * np.log(2))))
    expected /= sum(line.intensity for line in table)
    shape = ts.xray_lines(energy, ["Fe"], 140.0).sel(line="Fe K")
    np.testing.assert_allclose(shape.values, expected, atol=1e-4 * expected.max())


def test_channels_hold_what_falls_into_them_however_wide_they_are():
    fine = ts.xray_lines(axis(-0.095, 10.0, 0.01), ["Fe", "O"])
    coarse = ts.xray_lines(axis(-0.05, 9.95, 0.1), ["Fe", "O"])
    np.testing.assert_allclose(fine.sum("xray_energy"), 1.0, atol=1e-6)
    summed = fine.isel(xray_energy=slice(0, 10 * 101)).values.reshape(3, 101, 10).sum(axis=2)
    np.testing.assert_allclose(coarse.values[:, :100], summed[:, :100], atol=1e-9)


def test_a_family_that_reaches_beyond_the_axis_is_counted_whole():
    # K beta of iron, 12 % of the family, lies above 6.7 keV.
    cut = ts.xray_lines(axis(1.0, 6.7), ["Fe"]).sel(line="Fe K")
    assert 0.85 < float(cut.sum()) < 0.90


def test_shells_that_the_beam_cannot_ionise_are_left_out():
    assert ts.xray_lines(axis(), ["Mo"], beam_energy=200).line.values.tolist() == ["Mo K", "Mo L"]
    assert "Mo K" not in ts.xray_lines(axis(), ["Mo"], beam_energy=15).line.values
    data = axis().assign_attrs(beam_energy_keV=15.0)
    assert "Mo K" not in ts.xray_lines(data, ["Mo"]).line.values
    assert "Mo K" in ts.xray_lines(data, ["Mo"], beam_energy=30).line.values
    # L1 lies at 2866 eV, L2 at 2625 eV, L3 at 2520 eV.
    kept = ts.xray_lines(axis(), ["Mo"], beam_energy=2.7, by="subshell").line.values
    assert {"Mo L2", "Mo L3"} <= set(kept)
    assert "Mo L1" not in kept


def test_units_types_and_lazy_data_make_no_difference():
    expected = ts.xray_lines(axis(), ["Fe", "O"])
    volts = ts.xray_lines(axis(0.0, 20e3, 10.0, "eV"), ["Fe", "O"])
    np.testing.assert_allclose(volts.values, expected.values, atol=1e-9)
    assert float(volts.line_energy[0]) == pytest.approx(1e3 * float(expected.line_energy[0]))
    single = ts.xray_lines(axis(dtype=np.float32), ["Fe", "O"])
    np.testing.assert_allclose(single.values, expected.values, atol=1e-5)
    dask = pytest.importorskip("dask.array")

    def never(block):
        raise AssertionError("the data were computed")

    energy = axis().xray_energy
    blocks = dask.zeros((2, 2, energy.size), dtype=np.uint8).map_blocks(never, dtype=np.uint8, meta=np.empty(0))
    lazy = xr.DataArray(blocks, dims=("y", "x", "xray_energy"), coords={"xray_energy": energy})
    np.testing.assert_array_equal(ts.xray_lines(lazy, ["Fe", "O"]).values, expected.values)


def test_continuum_is_smooth_and_ends_at_the_beam_energy():
    lines = ts.xray_lines(axis(), ["Fe"], beam_energy=15, bremsstrahlung=3)
    continuum = lines.sel(line=[name for name in lines.line.values if name.startswith("bremsstrahlung")])
    assert continuum.sizes["line"] == 3
    assert float(continuum.min()) == 0
    assert float(abs(continuum.sel(xray_energy=slice(15.0, None))).max()) == 0
    np.testing.assert_allclose(continuum.sum("xray_energy"), 1.0, rtol=1e-9)
    # Each rises to one top and falls from it; below 0.3 keV the last is zero to the last digit.
    signs = np.sign(np.diff(continuum.sel(xray_energy=slice(0.3, 14.9)).values, axis=1))
    assert all((np.diff(each[each != 0]) != 0).sum() <= 1 for each in signs)


@pytest.mark.parametrize(
    ("elements", "options", "error", "words"),
    [
        (["Fee"], {}, ts.UnknownName, "Did you mean 'Fe'"),
        (["fe"], {}, ts.UnknownName, "Did you mean 'Fe'"),
        ([26], {}, ts.UnknownName, "no element 26"),
        ("Fe", {}, ts.InvalidArgument, "expected symbols such as"),
        ([], {}, ts.InvalidArgument, "expected symbols such as"),
        (["Fe"], {"resolution": 0.13}, ts.InvalidArgument, "cannot have less than 117 eV"),
        (["Fe"], {"by": "line"}, ts.InvalidArgument, "'shell' or 'subshell'"),
        (["Fe"], {"bremsstrahlung": 2}, ts.InvalidArgument, "beam_energy=200"),
        (["Fe"], {"beam_energy": -1}, ts.InvalidArgument, "beam_energy is -1"),
    ],
)
def test_wrong_arguments(elements, options, error, words):
    with pytest.raises(error, match=words):
        ts.xray_lines(axis(), elements, **options)


def test_no_line_in_range_and_no_units():
    with pytest.raises(ts.InvalidArgument, match="Fe has no line between 2 and 5 keV"):
        ts.xray_lines(axis(2.0, 5.0), ["Fe"])
    with pytest.raises(ts.InvalidData, match="expected one of"):
        ts.xray_lines(axis(units="channels"), ["Fe"])


def test_without_xraydb_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xraydb", None)
    with pytest.raises(ts.MissingDependency, match=r'pip install "tensorspec\[xray\]"'):
        ts.xray_lines(axis(), ["Fe"])


def test_coefficients_of_a_fit_are_counts_of_elements_and_give_their_maps():
    rng = np.random.default_rng(0)
    energy = axis(0.2, 10.0, 0.02)
    lines = ts.xray_lines(energy, ["O", "Si", "Fe"], beam_energy=200, bremsstrahlung=1)
    assert lines.line.values.tolist() == ["O K", "Si K", "Fe K", "Fe L", "bremsstrahlung 1"]
    amounts = xr.DataArray(
        [[3e4, 0.0, 1e4, 5e3, 1e4], [2e4, 4e4, 0.0, 0.0, 1e4]], dims=("phase", "line"), coords={"line": lines.line}
    )
    share = xr.DataArray(rng.random((8, 9)), dims=("y", "x"))
    where = xr.concat([share, 1 - share], "phase").transpose("phase", "y", "x")
    truth = xr.dot(where, amounts, dim="phase") / share.size
    counts = xr.dot(truth, lines, dim="line").transpose("y", "x", "xray_energy")
    data = counts.copy(data=rng.poisson(100 * counts.values).astype(np.uint16)).assign_attrs(units="counts")
    span = ts.Span(lines)
    fit = ts.fit(data, ts.NMF(2, {"xray_energy": span}), loss=ts.LeastSquares(scaling="poisson"), progress=False)
    maps = xr.dot(span.coefficients(fit.spectra()), fit.maps() / fit.totals(), dim="component")
    assert set(maps.dims) == {"line", "y", "x"}
    total, expected = maps.sum(("y", "x")), 100 * truth.sum(("y", "x"))
    # Five standard deviations of counting, and what neighbours within a detector's width exchange.
    assert (abs(total - expected) < 5 * np.sqrt(expected) + 0.02 * float(expected.max())).all()
    for name in ("O K", "Si K", "Fe K"):
        assert np.corrcoef(maps.sel(line=name).values.ravel(), truth.sel(line=name).values.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_element_maps_of_a_real_mineral_beside_windows(shared_data):
    pytest.importorskip("rsciio")
    data = ts.load(shared_data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy")
    elements = ["Al", "Ca", "Cu", "Fe", "Hf", "Lu", "Mg", "Nd", "Si", "Sm", "U"]
    lines = ts.xray_lines(data, elements, bremsstrahlung=3)
    span = ts.Span(lines)
    fit = ts.fit(data, ts.NMF(4, {"xray_energy": span}), progress=False)
    maps = xr.dot(span.coefficients(fit.spectra()), fit.maps() / fit.totals(), dim="component")
    whole = data.sum(("y", "x")).astype(float)
    summed = span.coefficients(whole)
    model = xr.dot(summed, lines, dim="line")
    assert float(((whole - model) ** 2).sum() / (whole**2).sum()) < 0.02
    for name, half in (("Mg K", 0.1), ("Si K", 0.1), ("Fe K", 0.12)):
        energy = float(lines.line_energy.sel(line=name))
        window = data.sel(xray_energy=slice(energy - half, energy + half)).sum("xray_energy")
        pairs = [each.coarsen(y=4, x=4).sum().values.ravel() for each in (maps.sel(line=name), window.astype(float))]
        assert np.corrcoef(*pairs)[0, 1] > 0.98
        assert float(maps.sel(line=name).sum()) == pytest.approx(float(summed.sel(line=name)), rel=0.1)
