"""Calibration, shifts and alignment: planted drifts, nothing that moves where nothing drifts, what goes along."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

STEP = 0.5


def low_loss(counts, drift, seed=0, pixels=300, width=1.0, gain=1):
    """Return low-loss spectra with a zero-loss peak of so many counts, and where each peak lies, eV."""
    rng = np.random.default_rng(seed)
    energy = np.arange(-20, 40, STEP)
    places = 0.13 + drift * rng.standard_normal(pixels)
    offset = energy - places[:, None]
    peak = np.exp(-4 * np.log(2) * (offset / width) ** 2) * STEP / (1.0645 * width)
    plasmon = 0.5 * np.exp(-(((offset - 22) / 8) ** 2)) * STEP / (8 * np.sqrt(np.pi))
    values = gain * rng.poisson(counts * (peak + plasmon) / gain)
    coords = {"x": np.arange(pixels), "energy_loss": ("energy_loss", energy, {"units": "eV"})}
    return xr.DataArray(values, dims=("x", "energy_loss"), coords=coords, attrs={"units": "counts"}), places


@pytest.mark.parametrize("drift", [0.3, 3.0])
@pytest.mark.parametrize(("width", "gain"), [(1.0, 1), (2.0, 1), (1.5, 5)])
def test_shifts_to_a_twentieth_of_a_channel_at_ten_thousand_counts(drift, width, gain):
    data, places = low_loss(1e4, drift, width=width, gain=gain)
    found = ts.estimate_shifts(data)
    error = (found.offset.values - (places - np.median(places))) / STEP
    assert np.sqrt(np.mean(error**2)) < 0.05
    assert found.attrs["drifts"]
    assert found.attrs["place"] == pytest.approx(np.median(places), abs=0.05)
    assert found.offset.attrs["units"] == "eV" and found.offset.dims == ("x",)


@pytest.mark.parametrize("counts", [1e2, 1e4])
@pytest.mark.parametrize("gain", [1, 5])
def test_standard_errors_are_what_shifts_scatter_by(counts, gain):
    data, places = low_loss(counts * gain, 0.0, gain=gain, seed=3)
    found = ts.estimate_shifts(data)
    scatter = (found.offset.values - 0) / found.standard_error.values
    assert 0.85 < np.std(scatter) < 1.15
    assert not found.attrs["drifts"]


def test_nothing_moves_where_nothing_drifts():
    data, _ = low_loss(1e4, 0.0)
    core = data.rename(energy_loss="core_energy")
    aligned, along = ts.align(data, also=[core])
    assert aligned.dtype == data.dtype
    np.testing.assert_array_equal(aligned.values, data.values)
    np.testing.assert_array_equal(along.values, core.values)
    assert "nothing drifts" in aligned.attrs["history"][-1]
    # The peak lies at 0.13 eV in all spectra: that is an offset of the axis.
    np.testing.assert_allclose(aligned.energy_loss, data.energy_loss - 0.13, atol=0.05)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("crop", [True, False])
def test_spectra_lie_on_one_another_afterwards(interpolation, crop):
    data, _ = low_loss(1e6, 1.5, width=2.5)
    aligned = ts.align(data, interpolation=interpolation, crop=crop)
    again = ts.estimate_shifts(aligned)
    assert float(np.abs(again.offset).max()) < 0.05 * STEP
    assert again.attrs["place"] == pytest.approx(0, abs=0.05)
    assert bool(aligned.isnull().any()) is not crop
    assert aligned.attrs["units"] == "counts" and aligned.energy_loss.attrs["units"] == "eV"
    inner = aligned.sel(energy_loss=slice(-8, 25)).sum("energy_loss")
    np.testing.assert_allclose(inner, float(inner.mean()), rtol=0.005)


def test_whole_channels_keep_counts():
    data, _ = low_loss(1e4, 1.5)
    aligned = ts.align(data, interpolation="nearest")
    assert aligned.dtype.kind in "iu"
    found = ts.estimate_shifts(data).offset
    one = int(np.argmax(np.abs(found.values)))
    moved = int(np.rint(float(found[one]) / STEP))
    place = int(np.argmin(np.abs(aligned.energy_loss.values - 10)))
    first = int(
        np.rint((float(aligned.energy_loss[0] - data.energy_loss[0]) + ts.estimate_shifts(data).attrs["place"]) / STEP)
    )
    np.testing.assert_array_equal(aligned[one, place : place + 20], data[one, first + place + moved :][:20])


def test_the_core_loss_goes_along_by_the_same_energy():
    low, places = low_loss(1e5, 2.0, pixels=60)
    energy = np.arange(500, 600, 0.25)  # half the dispersion, and in keV
    edges = 1e4 * np.exp(-0.5 * ((energy - 532 - (places[:, None] - 0.13)) / 2.0) ** 2)
    core = xr.DataArray(edges, dims=("x", "core"), coords={"core": ("core", energy / 1e3, {"units": "keV"})})
    _, along = ts.align(low, also=[core])
    centre = (along * along.core).sum("core") / along.sum("core") * 1e3
    assert float(centre.std()) < 0.05
    untouched = (core * core.core).sum("core") / core.sum("core") * 1e3
    assert float(untouched.std()) > 1.5
    assert float(centre.mean()) == pytest.approx(532 - 0.0, abs=0.3)


@pytest.mark.parametrize("on", [1.74, (1.5, 2.0), "cross_correlation"])
def test_an_x_ray_line_that_drifts(on):
    rng = np.random.default_rng(0)
    energy = np.arange(0.5, 4.0, 0.01)
    places = 0.02 * rng.standard_normal(100)
    lines = 2000 * np.exp(-0.5 * ((energy - 1.74 - places[:, None]) / 0.035) ** 2) * 0.01 / (0.035 * 2.5066)
    data = xr.DataArray(
        rng.poisson(lines + 0.5),
        dims=("x", "xray_energy"),
        coords={"xray_energy": ("xray_energy", energy, {"units": "keV"})},
    )
    found = ts.estimate_shifts(data, on)
    error = found.offset.values - (places - np.median(places))
    assert np.sqrt(np.mean(error**2)) < 1.3 * 0.035 / np.sqrt(2000) + 0.0002
    assert float(ts.align(data, on).sel(xray_energy=slice(1.6, 1.9)).sum()) == pytest.approx(
        float(data.sel(xray_energy=slice(1.6, 1.9)).sum()), rel=0.01
    )


def test_lazy_masked_missing_and_two_dimensional_data():
    data, places = low_loss(1e4, 1.0)
    plain = ts.align(data)
    lazy = ts.align(data.chunk({"x": 100, "energy_loss": 40}))
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.compute(), plain)
    square = data.copy().expand_dims(y=1).transpose("energy_loss", "y", "x")
    turned = ts.align(square)
    assert turned.dims == ("energy_loss", "y", "x")
    np.testing.assert_allclose(turned.isel(y=0).transpose("x", "energy_loss"), plain)
    spoilt = data.astype(float)
    spoilt[:, 45] = 1e7
    mask = xr.DataArray(np.arange(data.sizes["energy_loss"]) != 45, dims="energy_loss")
    error = ts.estimate_shifts(spoilt, mask=mask).offset.values - (places - np.median(places))
    assert np.sqrt(np.mean(error**2)) < 0.05 * STEP
    missing = ts.estimate_shifts(spoilt.where(mask)).offset
    np.testing.assert_allclose(missing, ts.estimate_shifts(spoilt, mask=mask).offset, atol=1e-9)
    empty = data.copy()
    empty[7] = 0
    assert np.isnan(ts.estimate_shifts(empty).offset[7]) and np.isfinite(ts.align(empty)).all()
    single = ts.align(data.astype("float32"))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, plain, rtol=1e-4, atol=0.05)


def test_given_shifts_are_undone():
    data, places = low_loss(1e5, 1.0)
    given = xr.DataArray(places, dims="x")
    found = ts.estimate_shifts(ts.align(data, given))
    assert float(np.abs(found.offset).max()) < 0.08 * STEP


@pytest.mark.slow
def test_aligning_first_beats_a_fit_of_what_drifts():
    rng = np.random.default_rng(1)
    energy = np.arange(-20, 60, STEP)
    maps = rng.dirichlet([0.4, 0.4], size=300)
    places = 2.0 * rng.standard_normal(300)

    def spectra(place):
        offset = energy - place
        zero = np.exp(-4 * np.log(2) * (offset / 1.5) ** 2)
        return np.stack([zero + 0.4 * np.exp(-(((offset - c) / w) ** 2)) for c, w in ((18, 3), (25, 4))])

    expected = np.stack([share @ spectra(place) for share, place in zip(maps, places, strict=True)])
    data = xr.DataArray(
        rng.poisson(2e3 * expected),
        dims=("x", "energy_loss"),
        coords={"energy_loss": ("energy_loss", energy, {"units": "eV"})},
    )

    def wrong(tensor):
        fit = ts.fit(tensor, ts.NMF(2), restarts=3, progress=False)
        found = fit.maps().transpose("component", "x").values
        shares = found / found.sum(axis=0)
        both = [np.abs(shares - truth.T).mean() for truth in (maps, maps[:, ::-1])]
        return min(both)

    assert wrong(ts.align(data)) < 0.3 * wrong(data)


def test_an_axis_from_known_lines_and_edges():
    energy = 400 + 0.5 * np.arange(600)
    true = 1.01 * energy - 3.0
    rises = sum(1 / (1 + np.exp(-(true - onset) / 0.6)) for onset in (456, 640))
    coords = {"energy_loss": ("energy_loss", energy, {"units": "eV"})}
    edges = xr.DataArray(1e4 * ((true / 400) ** -3 + 0.5 * rises), dims="energy_loss", coords=coords)
    found = ts.calibrate(edges, [456, 640], find="edge")
    np.testing.assert_allclose(found.energy_loss, true, atol=0.15)
    assert found.energy_loss.attrs["units"] == "eV"
    np.testing.assert_array_equal(found.values, edges.values)
    exact = ts.calibrate(edges, {(456 + 3) / 1.01: 456, (640 + 3) / 1.01: 640})
    np.testing.assert_allclose(exact.energy_loss, true, atol=1e-9)
    np.testing.assert_allclose(ts.calibrate(edges, {450: 451}).energy_loss, energy + 1)
    np.testing.assert_allclose(ts.calibrate(edges, dispersion=0.25, offset=-1).energy_loss, 399 + 0.25 * np.arange(600))
    assert "dispersion 0.505 instead of 0.5" in exact.attrs["history"][-1]
    assert ts.calibrate(edges.chunk(), offset=1.0).chunks is not None


LOW = low_loss(1e3, 0.0, pixels=5)[0]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.align(LOW.values), ts.InvalidData, "DataArray"),
        (lambda: ts.align(LOW, "zero-loss"), ts.InvalidArgument, "'zero_loss'"),
        (lambda: ts.align(LOW, (300, 310)), ts.InvalidArgument, "-20 to 39.5"),
        (lambda: ts.align(LOW, also=LOW), ts.InvalidArgument, "a list"),
        (lambda: ts.align(LOW, also=[LOW.isel(x=slice(2)).rename(energy_loss="e")]), ts.InvalidData, "same"),
        (lambda: ts.align(LOW, interpolation="spline"), ts.InvalidArgument, "'cubic'"),
        (lambda: ts.align(LOW, xr.DataArray([1.0, 2.0], dims="x")), ts.InvalidData, "'x': 5"),
        (lambda: ts.align(LOW, xr.DataArray([0.0, 0, 0, 0, 1e3], dims="x")), ts.InvalidData, "off its axis"),
        (lambda: ts.align(0 * LOW), ts.InvalidData, "empty"),
        (lambda: ts.calibrate(LOW), ts.InvalidArgument, "nothing is given"),
        (lambda: ts.calibrate(LOW, {500: 532}), ts.InvalidArgument, "-20 to 39.5"),
        (lambda: ts.calibrate(LOW, [532]), ts.InvalidArgument, "-20 to 39.5"),
        (lambda: ts.calibrate(LOW, [0], offset=1), ts.InvalidArgument, "not both"),
        (lambda: ts.calibrate(LOW, {1: 5, 5: 1}), ts.InvalidArgument, "another order"),
        (lambda: ts.calibrate(LOW, [-12.0], within=3), ts.InvalidData, "no peak"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_rounding_of_a_whole_channel_costs_no_channel():
    spectra = xr.DataArray(
        np.random.default_rng(0).random((3, 60)), dims=("x", "energy_loss"), coords={"energy_loss": np.arange(60) * 0.5}
    )
    shifts = xr.DataArray([0.0, 0.5, -0.5], dims="x")
    expected = ts.align(spectra, shifts)
    assert expected.sizes["energy_loss"] == 58
    xr.testing.assert_allclose(ts.align(spectra, shifts * (1 + 1e-10)), expected, rtol=1e-12)
    assert ts.align(spectra, shifts * (1 + 1e-4)).sizes["energy_loss"] == 56
