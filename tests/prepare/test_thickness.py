"""Thickness over mean free path: planted plural scattering, standard errors, masks, lazy data, wrong arguments."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.prepare.power_tail import upper_tail
from tensorspec.prepare.series import inverse, logarithm
from tensorspec.prepare.thickness import thickness
from tensorspec.prepare.zero_loss import separate

STEP = 0.5


def spectrum(t, end=230.0, plasmon=(26.0, 12.0), width=1.0, place=0.13):
    """Expected low loss of unit sum, from -20 eV, of so many mean free paths: zero-loss peak times exp(t (S - 1))."""
    channels = 8192
    loss = STEP * np.arange(channels)
    centre, broad = plasmon
    once = loss * broad * centre**2 / ((loss**2 - centre**2) ** 2 + (loss * broad) ** 2)
    transform = np.fft.rfft(once / once.sum(), 2 * channels)
    many = np.fft.irfft(np.exp(t * (transform - 1)), 2 * channels)[:channels]
    energy = np.arange(-20.0, end, STEP)
    offset = (np.arange(-200, 201) * STEP - place) / width
    peak = 0.97 * np.exp(-4 * np.log(2) * offset**2) / 1.0645 + 0.03 * (2 / np.pi) / (1 + 4 * offset**2)
    full = np.convolve(np.concatenate([np.zeros(400), many]), peak / peak.sum(), "same")
    return energy, full[400 - 40 : 400 - 40 + len(energy)]


def counted(t, counts=1e6, pixels=60, seed=0, **options):
    energy, expected = spectrum(t, **options)
    values = np.random.default_rng(seed).poisson(counts * expected, (pixels, len(energy)))
    return xr.DataArray(
        values,
        dims=("x", "energy_loss"),
        coords={"x": ("x", np.arange(pixels) * 2.0, {"units": "nm"}), "energy_loss": ("energy_loss", energy)},
        attrs={"units": "counts", "history": ["measured"]},
    ).assign_coords(energy_loss=("energy_loss", energy, {"units": "eV"}))


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("end", [60.0, 100.0, 230.0])
@pytest.mark.parametrize("how", ["tail", "minimum"])
def test_planted_plural_scattering_is_found_within_three_percent(t, end, how):
    found = thickness(counted(t, end=end), how)
    assert float(found.mean()) == pytest.approx(t, rel=0.02)
    if end > 200:
        np.testing.assert_allclose(found, t, rtol=0.03, atol=0.003)


@pytest.mark.parametrize("place", [-0.25, 0.0, 0.2, 3.3])
@pytest.mark.parametrize("width", [0.7, 1.5, 3.0])
def test_place_and_width_of_the_peak_do_not_matter(place, width):
    assert float(thickness(counted(1.0, place=place, width=width)).mean()) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("plasmon", [(15.0, 1.5), (22.0, 20.0)])
def test_sharp_and_broad_plasmons(plasmon):
    for t in (0.3, 2.0):
        assert float(thickness(counted(t, plasmon=plasmon, end=150.0)).mean()) == pytest.approx(t, rel=0.02)


def test_without_correction_a_short_record_is_too_thin():
    data = counted(2.0, end=60.0)
    assert float(thickness(data, extrapolate=False).mean()) < 1.9
    plain = thickness(data, (-20, 5), extrapolate=False)
    elastic = data.sel(energy_loss=slice(-20, 5)).sum("energy_loss")
    np.testing.assert_allclose(plain, np.log(data.sum("energy_loss") / elastic))


def test_vacuum_has_no_thickness():
    found = thickness(counted(0.0), standard_error=True)
    assert abs(float(found.thickness.mean())) < 3e-3


@pytest.mark.parametrize(("t", "end", "extrapolate"), [(0.5, 230.0, True), (1.0, 150.0, True), (1.0, 230.0, False)])
@pytest.mark.parametrize("counts", [1e4, 1e6])
def test_standard_error_is_the_scatter(t, end, extrapolate, counts):
    data = counted(t, counts, pixels=400, end=end)
    found = thickness(data, standard_error=True, extrapolate=extrapolate)
    assert float(found.thickness.std()) == pytest.approx(float(found.standard_error.mean()), rel=0.15)


def test_standard_error_of_a_thick_specimen_and_a_short_record_is_an_upper_bound():
    found = thickness(counted(2.0, 1e6, pixels=400, end=100.0), standard_error=True)
    assert 0.5 < float(found.thickness.std() / found.standard_error.mean()) < 1.15


def test_standard_error_with_gain_and_read_noise():
    energy, expected = spectrum(0.8)
    rng = np.random.default_rng(0)
    values = 5 * rng.poisson(2e5 / 5 * expected, (400, len(energy))) + rng.normal(0, 20, (400, len(energy)))
    data = xr.DataArray(values, dims=("x", "energy_loss"), coords={"energy_loss": energy})
    with pytest.raises(ts.InvalidArgument, match="estimate_noise"):
        thickness(data, standard_error=True)
    found = thickness(data, standard_error=True, noise=ts.NoiseModel(5, 400, 0))
    assert float(found.thickness.std()) == pytest.approx(float(found.standard_error.mean()), rel=0.15)
    kept = thickness(data.assign_attrs(noise=ts.NoiseModel(5, 400, 0).to_attrs()), standard_error=True)
    xr.testing.assert_equal(kept, found)


def test_labels_history_and_units():
    data = counted(1.0, pixels=4)
    before = data.copy(deep=True)
    found = thickness(data)
    assert found.dims == ("x",) and found.name == "thickness"
    assert found.attrs["units"] == "1"
    assert found.x.attrs == {"units": "nm"}
    assert found.attrs["history"] == ["measured", "thickness: log-ratio, zero loss by 'tail', extrapolated"]
    xr.testing.assert_identical(data, before)


@pytest.mark.parametrize(("units", "scale"), [("keV", 1e-3), ("meV", 1e3)])
def test_other_units_of_energy(units, scale):
    data = counted(1.0, pixels=4)
    other = data.assign_coords(energy_loss=("energy_loss", data.energy_loss.values * scale, {"units": units}))
    np.testing.assert_allclose(thickness(other), thickness(data), rtol=1e-9)
    np.testing.assert_allclose(thickness(other, (-5 * scale, 4 * scale)), thickness(data, (-5, 4)), rtol=1e-9)


def test_types_order_of_dimensions_and_lazy_data():
    data = counted(1.2, pixels=600).coarsen(x=1).construct(x=("x", "one")).isel(one=0, drop=True).astype(np.uint32)
    found = thickness(data)
    np.testing.assert_allclose(thickness(data.astype(np.float32)), found, rtol=1e-5)
    np.testing.assert_allclose(thickness(data.transpose("energy_loss", "x")), found, rtol=1e-12)
    lazy = thickness(data.chunk({"x": 50, "energy_loss": 100}), standard_error=True)
    assert lazy.thickness.chunks is not None
    np.testing.assert_allclose(lazy.thickness, found, rtol=1e-10)
    single = thickness(data.isel(x=0))
    assert single.dims == () and float(single) == pytest.approx(float(found[0]), rel=1e-10)


def test_masks_and_missing_values():
    data = counted(1.0, pixels=40)
    found = thickness(data)
    spoiled = data.copy(deep=True)
    spoiled[:, 200] = 10**7
    spoiled[3, 90] = 10**7
    assert float(thickness(spoiled).mean()) > 1.5
    mask = xr.ones_like(data, dtype=bool)
    mask[:, 200] = False
    mask[3, 90] = False
    np.testing.assert_allclose(thickness(spoiled, mask=mask), found, rtol=2e-3)
    np.testing.assert_allclose(thickness(spoiled.where(mask)), found, rtol=2e-3)
    channel = xr.DataArray(np.arange(data.sizes["energy_loss"]) != 200, dims="energy_loss")
    np.testing.assert_allclose(thickness(spoiled, mask=channel).drop_isel(x=3), found.drop_isel(x=3), rtol=2e-3)
    pixels = xr.DataArray(np.arange(40) % 2 == 0, dims="x")
    some = thickness(data, mask=pixels)
    assert np.isnan(some[1::2]).all() and np.isfinite(some[::2]).all()
    np.testing.assert_allclose(some[::2], found[::2])
    # What lies behind the end of a mask is no zero: it is not recorded.
    short = xr.DataArray(data.energy_loss.values < 120, dims="energy_loss")
    np.testing.assert_allclose(thickness(data, mask=short).mean(), 1.0, rtol=0.01)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"zero_loss": "left"}, ts.InvalidArgument, "expected 'tail', 'minimum', or a window"),
        ({"zero_loss": 3.0}, ts.InvalidArgument, "expected 'tail', 'minimum', or a window"),
        ({"zero_loss": (900, 950)}, ts.InvalidArgument, "holds no channel"),
        ({"dim": "energy"}, ts.UnknownMode, "no dimension 'energy'"),
        ({"noise": 3, "standard_error": True}, ts.InvalidArgument, "expected a NoiseModel"),
        ({"mask": xr.DataArray([1, 0], dims="x")}, ts.InvalidData, "not a DataArray of bool"),
    ],
)
def test_wrong_arguments_get_one_clear_line(change, error, message):
    with pytest.raises(error, match=message) as caught:
        thickness(counted(1.0, pixels=4), **change)
    assert "\n" not in str(caught.value)


def test_spectra_without_zero_loss_are_refused():
    data = counted(1.0, pixels=4)
    with pytest.raises(ts.InvalidData, match="zero loss is not in these spectra"):
        thickness(data.assign_coords(energy_loss=data.energy_loss + 100))
    with pytest.raises(ts.InvalidData, match=r"expected an xarray\.DataArray"):
        thickness(data.values)


def test_series_are_exact():
    once = np.random.default_rng(0).random((3, 50)) * 0.1
    once[:, 0] = 0
    total, term = np.zeros((3, 50)), np.zeros((3, 50))
    total[:, 0] = term[:, 0] = 1
    for order in range(1, 60):
        term = np.array([np.convolve(a, b)[:50] for a, b in zip(term, once, strict=True)]) / order
        total += term
    np.testing.assert_allclose(logarithm(7 * total), once, atol=1e-12)
    unit = np.array([np.convolve(a, b)[:50] for a, b in zip(inverse(total), total, strict=True)])
    np.testing.assert_allclose(unit, np.eye(1, 50).repeat(3, 0), atol=1e-12)


def test_tail_beyond_the_record():
    loss = np.arange(1, 20001) - 0.5
    for exponent in (2.5, 3.0, 4.0):
        full = 1e9 * loss**-exponent
        tail = upper_tail(full[None, :500], np.array([-0.5]), np.array([500]))
        assert float(tail.integral[0]) == pytest.approx(full[500:].sum(), rel=0.03)
        np.testing.assert_allclose(tail.values(loss[None, 500:900])[0], full[500:900], rtol=0.02)


def test_left_tail_stands_for_what_the_losses_hide():
    energy = np.arange(-30.0, 60)
    peak = 1e5 / (1 + (energy / 1.5) ** 2) ** 1.5
    loss = np.where(energy > 6, 8e3, 0.0)
    found = separate((peak + loss)[None], "tail", (20, 41))
    assert float(found.intensity.sum()) == pytest.approx(peak.sum(), rel=3e-3)
    cut = separate((peak + loss)[None], "minimum", (20, 41)).intensity[0]
    assert np.count_nonzero(cut) in (35, 36, 37)
    # A plasmon that ends within twelve widths of a broad peak has no part in the search.
    bump = 3e4 * np.exp(-0.5 * ((energy - 15) / 3) ** 2)
    assert np.count_nonzero(separate((peak + bump)[None], "minimum", (20, 41)).intensity) < 40


def test_real_line_scans(shared_data):
    pytest.importorskip("rsciio")
    for name, least, most in (("LSMO_linescan_low_loss", 0.3, 1.0), ("LSMO_STO_linescan_low_loss", 0.3, 1.5)):
        low = ts.load(shared_data / "lsmo_eels" / f"{name}.hdf5", reader="HSPY")
        tail, minimum = thickness(low), thickness(low, "minimum")
        assert float(tail.min()) > least and float(tail.max()) < most
        np.testing.assert_allclose(tail, minimum, rtol=0.08)
