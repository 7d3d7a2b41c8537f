"""Deconvolution of plural scattering: planted single scattering comes back, whatever the type, mask or axis."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.prepare.deconvolve import deconvolve

PHANTOM = ts.phantoms.dual_eels(shape=(8, 24), core_channels=768, seed=3)
TRUTH = PHANTOM.truth
CORE, LOW = PHANTOM["core"], PHANTOM["low"]
SINGLE = (TRUTH.maps * TRUTH.core_spectra).sum("component").transpose(*CORE.dims)
EDGES = slice(455, 810)


def binned(item):
    """Mean over lines and over 16 channels."""
    return item.mean("y").sel(energy_loss=EDGES).coarsen(energy_loss=16, boundary="trim").mean()


# ---- ratio


def test_ratio_gives_back_single_scattering_where_ignoring_it_is_wrong_by_a_third():
    truth, thick = binned(SINGLE), TRUTH.thickness.mean("y")
    assert float(thick.max()) > 1.5
    assert float((binned(CORE) / truth - 1).isel(x=slice(16, None)).max()) > 0.3
    exact = abs(binned(deconvolve(PHANTOM.expected("core"), PHANTOM.expected("low"), intensity="total")) / truth - 1)
    assert float(exact.mean()) < 0.008
    assert float(exact.where(thick < 1.0).max()) < 0.025
    assert float(exact.max()) < 0.07
    # With noise: no worse than counting makes it, each electron standing for exp(t) of them.
    found = binned(deconvolve(CORE, LOW, intensity="total"))
    error = np.sqrt(binned(PHANTOM.expected("core")) / (8 * 16)) * np.exp(thick)
    pull = (found - truth) / error
    assert float(np.sqrt((pull**2).mean())) < 1.4
    assert abs(float(pull.mean())) < 0.5


def test_edges_without_background_come_back_exactly():
    still = ts.phantoms.dual_eels(shape=(8, 24), core_channels=768, drift=0.0)
    edge = TRUTH.core_spectra - TRUTH.core_spectra.isel(energy_loss=0)
    edge = np.maximum(edge.isel(component=3), 0).where(TRUTH.energy_loss > 500, 0.0)
    low = still.expected("low")
    kernel = (low / low.sum("low_energy_loss")).isel(y=0).values
    size = edge.size
    plural = np.array([np.convolve(edge.values, one)[40 : 40 + size] for one in kernel])
    plural = xr.DataArray(plural, dims=("x", "energy_loss"), coords={"energy_loss": TRUTH.energy_loss})
    found = deconvolve(plural, low.isel(y=0), modifier=1.2, intensity="total")
    sharp = deconvolve(plural.isel(x=[0]) * 0 + edge, xr.where(low.low_energy_loss == 0, 1.0, 0.0), modifier=1.2)
    inside = slice(60, size - 60)
    np.testing.assert_allclose(
        found.values[:, inside], np.broadcast_to(sharp.values, found.shape)[:, inside], atol=0.012 * edge.values.max()
    )
    assert float(abs(plural - edge).max()) > 0.2 * edge.values.max()


def test_noise_is_not_amplified_by_the_zero_loss_peak_as_modifier():
    expected = PHANTOM.expected("core")
    noise = CORE - deconvolve(expected, LOW) * 0 - expected
    processed = deconvolve(CORE, LOW) - deconvolve(expected, LOW)
    assert float(processed.std() / noise.std()) < 1.03
    narrow = deconvolve(CORE, LOW, modifier=0.6) - deconvolve(expected, LOW, modifier=0.6)
    wide = deconvolve(CORE, LOW, modifier=3.0) - deconvolve(expected, LOW, modifier=3.0)
    assert float(narrow.std()) > 1.5 * float(processed.std()) > 2 * float(wide.std())


def test_where_the_low_loss_is_noise_nothing_is_done():
    # Of a peak of eight channels little is left at high frequencies; ten thousand counts leave noise there.
    broad = ts.phantoms.dual_eels((8, 24), zero_loss_width=4.0, low_counts=1e4, core_channels=512)
    found = deconvolve(broad["core"], broad["low"])
    rough = [float((item.diff("energy_loss", 2) ** 2).mean()) ** 0.5 for item in (found, broad["core"].astype(float))]
    assert rough[0] == pytest.approx(rough[1], rel=0.12)


def test_intensities_differ_by_what_has_lost_energy():
    one, all_of_them = deconvolve(CORE, LOW), deconvolve(CORE, LOW, intensity="total")
    ratio = (all_of_them.sum("energy_loss") / one.sum("energy_loss")).values
    np.testing.assert_allclose(np.log(ratio), TRUTH.thickness.values, rtol=0.03, atol=0.01)


def test_one_low_loss_for_all_and_one_for_each_line():
    mean = LOW.mean(["y", "x"])
    found = deconvolve(CORE, mean)
    assert found.dims == CORE.dims
    one_by_one = deconvolve(CORE.isel(y=2, x=[5]), mean, pre_edge=(430, 445))
    assert one_by_one.sizes["energy_loss"] == CORE.sizes["energy_loss"]
    line = deconvolve(CORE, LOW.isel(y=0))
    same = deconvolve(CORE, LOW.isel(y=[0] * 8).assign_coords(y=CORE.y))
    xr.testing.assert_allclose(line, same)
    assert float(abs(line - found).max()) > 1


def test_scale_of_the_low_loss_and_place_of_its_peak_drop_out():
    found = deconvolve(CORE, LOW)
    xr.testing.assert_allclose(deconvolve(CORE, LOW * 7.0), found, rtol=2e-3, atol=0.5)
    moved = LOW.assign_coords(low_energy_loss=LOW.low_energy_loss + 1.25)
    xr.testing.assert_allclose(deconvolve(CORE, moved), found, rtol=1e-9, atol=1e-6)


def test_finer_low_loss_is_rebinned_and_coarser_refused():
    core = PHANTOM.expected("core").coarsen(energy_loss=2).sum()
    low = PHANTOM.expected("low")
    found = deconvolve(core, low)
    same = deconvolve(core, low.coarsen(low_energy_loss=2).sum())
    np.testing.assert_allclose(found, same, rtol=0.01)
    gaussian = deconvolve(core, low, modifier=2.0)
    np.testing.assert_allclose(gaussian[..., 10:-10], found[..., 10:-10], rtol=0.08)
    near = deconvolve(core, low.coarsen(low_energy_loss=2).sum(), modifier=2.0)
    np.testing.assert_allclose(gaussian[..., 10:-10], near[..., 10:-10], rtol=0.03)
    kept = deconvolve(PHANTOM.expected("core"), low).coarsen(energy_loss=2).sum()
    np.testing.assert_allclose(found, kept, rtol=0.02)
    with pytest.raises(ts.InvalidData, match=r"2 times as wide.*core\.coarsen\(energy_loss=2"):
        deconvolve(CORE, low.coarsen(low_energy_loss=2).sum())
    in_kev = low.assign_coords(low_energy_loss=("low_energy_loss", low.low_energy_loss.values / 1e3, {"units": "keV"}))
    xr.testing.assert_allclose(deconvolve(core, in_kev), found)


# ---- log


def test_log_gives_back_single_scattering_within_its_noise():
    found = deconvolve(LOW, method="log")
    behind = slice(8, 230)
    pull = ((found - TRUTH.single_low) / np.sqrt(PHANTOM.expected("low"))).sel(low_energy_loss=behind)
    assert abs(float(pull.mean())) < 0.03
    assert float(pull.std()) < 1.1
    area = found.sel(low_energy_loss=behind).sum("low_energy_loss")
    true = TRUTH.single_low.sel(low_energy_loss=behind).sum("low_energy_loss")
    np.testing.assert_allclose(area, true, rtol=0.02)
    raw = LOW.sel(low_energy_loss=behind).sum("low_energy_loss")
    assert float((raw / true).max()) > 2


def test_log_of_a_very_thick_specimen():
    thick = ts.phantoms.dual_eels(
        shape=(8, 8), thickness=(3.5, 4.0), low_counts=1e8, low_channels=1024, core_channels=64
    )
    found = deconvolve(thick["low"], method="log").mean(["y", "x"])
    true = thick.truth.single_low.mean(["y", "x"])
    window = slice(12, 60)
    np.testing.assert_allclose(
        found.sel(low_energy_loss=window), true.sel(low_energy_loss=window), atol=0.04 * float(true.max())
    )


def test_log_of_a_spliced_spectrum_has_its_edge_once():
    channels, step, t = 4096, 0.5, 1.2
    loss = step * np.arange(channels)
    plasmon = loss * 12 * 26**2 / ((loss**2 - 26**2) ** 2 + (loss * 12) ** 2)
    edge = np.where(loss > 400, 1e-4 * (np.maximum(loss, 400) / 400) ** -4.0, 0.0)
    once = t * (plasmon / plasmon.sum() + edge)
    many = np.fft.irfft(np.exp(np.fft.rfft(once, 4 * channels) - once.sum()), 4 * channels)
    energy = np.arange(-20, 700, step)
    peak = np.exp(-4 * np.log(2) * (energy / 1.2) ** 2)
    peak *= 1e9 / peak.sum()
    spliced, single = (np.convolve(peak, part)[: len(energy)] for part in (many, np.exp(-once.sum()) * once))
    data = xr.DataArray(spliced, dims="energy_loss", coords={"energy_loss": ("energy_loss", energy, {"units": "eV"})})
    found = deconvolve(data, method="log").values
    window = (energy > 10) & (energy < 650)
    np.testing.assert_allclose(found[window], single[window], rtol=0.01)
    # Behind the edge the record holds plasmons on top of it.
    jump = [item[energy == 430] - item[energy == 390] for item in (spliced, single)]
    assert jump[0] > 1.5 * jump[1]


def test_log_with_a_gaussian_and_with_all_electrons():
    zero = deconvolve(LOW, method="log")
    everything = deconvolve(LOW, method="log", intensity="total")
    ratio = everything.sum("low_energy_loss") / zero.sum("low_energy_loss")
    np.testing.assert_allclose(np.log(ratio), TRUTH.thickness, rtol=0.03, atol=0.01)
    smooth = deconvolve(LOW, method="log", modifier=2.0)
    # Areas stay, but for what the broader lines carry across the ends.
    np.testing.assert_allclose(smooth.sum("low_energy_loss"), zero.sum("low_energy_loss"), rtol=0.01)
    bend = [float(np.abs(item.diff("low_energy_loss", 2)).mean()) for item in (smooth, zero)]
    assert bend[0] < 0.3 * bend[1]


def test_nothing_moves():
    low = PHANTOM.expected("low")
    # The zero-loss peak of the phantom has a width of 1.2 eV, and drifts.
    kept, gaussian = (deconvolve(PHANTOM.expected("core"), low, modifier=item) for item in ("zero_loss", 1.2))
    inside = {"energy_loss": slice(20, 740)}
    np.testing.assert_allclose(gaussian.isel(inside), kept.isel(inside), rtol=0.03)
    kept, gaussian = (deconvolve(low, method="log", modifier=item) for item in ("zero_loss", 1.2))
    inside = {"low_energy_loss": slice(60, 480)}
    np.testing.assert_allclose(gaussian.isel(inside), kept.isel(inside), rtol=0.03)


# ---- labels, types, lazy data, masks


@pytest.mark.parametrize("method", ["ratio", "log"])
def test_labels_types_and_lazy_data(method):
    data, low = (CORE, LOW) if method == "ratio" else (LOW, None)
    data = data.assign_attrs(history=["measured"])
    before = data.copy(deep=True)
    found = deconvolve(data, low, method)
    xr.testing.assert_identical(data, before)
    assert found.dims == data.dims and found.dtype == np.float64 and found.name == data.name
    assert found.attrs["units"] == "counts" and "noise" not in found.attrs
    assert found.attrs["history"][0] == "measured" and found.attrs["history"][1].startswith("deconvolve: Fourier")
    for dim in data.dims:
        xr.testing.assert_identical(found[dim], data[dim])
    single = deconvolve(data.astype(np.float32), low, method)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, rtol=1e-4, atol=1e-4 * float(found.max()))
    turned = data.transpose(data.dims[2], "x", "y")
    other = deconvolve(turned, low, method)
    assert other.dims == turned.dims
    xr.testing.assert_allclose(other.transpose(*found.dims), found)
    lazy_low = None if low is None else low.chunk({"y": 4, "low_energy_loss": 100})
    lazy = deconvolve(data.chunk({"x": 7, data.dims[2]: 200}), lazy_low, method)
    assert lazy.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), found)


def test_masked_channels_are_bridged_and_missing_in_the_result():
    found = deconvolve(CORE, LOW)
    spoiled, low = CORE.astype(float), LOW.astype(float)
    spoiled[:, :, 300] = 1e6
    spoiled[2, 5, 500] = 1e6
    low[:, :, 150] = 1e6
    mask = xr.ones_like(CORE, dtype=bool)
    mask[:, :, 300] = False
    mask[2, 5, 500] = False
    low_mask = xr.DataArray(np.arange(LOW.sizes["low_energy_loss"]) != 150, dims="low_energy_loss")
    masked = deconvolve(spoiled, low, mask=mask, low_mask=low_mask)
    assert np.isnan(masked).sum() == np.count_nonzero(~mask)
    np.testing.assert_allclose(masked.where(mask), found.where(mask), atol=12)
    xr.testing.assert_allclose(deconvolve(spoiled.where(mask), low, low_mask=low_mask), masked)
    assert float(abs(deconvolve(spoiled, low) - found).max()) > 1000
    pixels = xr.DataArray(np.arange(24) > 4, dims="x", coords={"x": CORE.x})
    some = deconvolve(CORE, LOW, mask=pixels)
    assert np.isnan(some.isel(x=slice(0, 5))).all() and np.isfinite(some.isel(x=slice(5, None))).all()
    gone = deconvolve(CORE, LOW, low_mask=pixels)
    assert np.isnan(gone.isel(x=slice(0, 5))).all() and np.isfinite(gone.isel(x=slice(5, None))).all()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((CORE, LOW, "wiener"), {}, ts.InvalidArgument, "there are 'ratio'.*and 'log'"),
        ((CORE,), {}, ts.InvalidArgument, "needs the low loss"),
        ((LOW, LOW, "log"), {}, ts.InvalidArgument, "and no low"),
        ((CORE, None, "log"), {}, ts.InvalidData, "zero loss is not in these spectra"),
        ((CORE, CORE), {}, ts.InvalidData, "zero loss is not in these spectra"),
        ((CORE, LOW), {"modifier": "gaussian"}, ts.InvalidArgument, "expected 'zero_loss', or the width"),
        ((CORE, LOW), {"modifier": -1.0}, ts.InvalidArgument, "deconvolve: modifier is -1.0"),
        ((CORE, LOW), {"intensity": "all"}, ts.InvalidArgument, "'zero_loss' or 'total'"),
        ((CORE, LOW), {"pre_edge": (10, 20)}, ts.InvalidArgument, "pre-edge window 10 to 20 holds 0 channels"),
        ((CORE, LOW), {"pre_edge": 450}, ts.InvalidArgument, "expected two energies"),
        ((CORE, LOW), {"dim": "energy"}, ts.UnknownMode, "no dimension 'energy'"),
        ((CORE, LOW.isel(y=slice(0, 3))), {}, ts.ModeMismatch, "3 points of the low loss along 'y', 8"),
        ((CORE, LOW.rename(y="z")), {}, ts.UnknownMode, "the low loss has a dimension 'z'"),
        ((CORE, LOW.assign_coords(x=LOW.x + 3)), {}, ts.ModeMismatch, "lie at different 'x'"),
        ((CORE.values, LOW), {}, ts.InvalidData, "core is a ndarray"),
        ((CORE, LOW.values), {}, ts.InvalidData, "low is a ndarray"),
    ],
)
def test_wrong_arguments_get_one_clear_line(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        deconvolve(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_real_line_scan(shared_data):
    pytest.importorskip("rsciio")
    folder = shared_data / "lsmo_eels"
    core = ts.load(folder / "LSMO_linescan.hdf5", reader="HSPY")
    low = ts.load(folder / "LSMO_linescan_low_loss.hdf5", reader="HSPY")
    found = deconvolve(core, low)
    assert found.dims == core.dims and np.isfinite(found).all()
    # What came from below is gone, and noise has not grown.
    assert float(found.sum() / core.sum()) < 0.8
    rough = [float(np.abs(item.diff("energy_loss", 2)).mean()) for item in (found, core)]
    assert rough[0] < 1.05 * rough[1]
    once = deconvolve(low, method="log").mean("x")
    assert 15 < float(once.sel(energy_loss=slice(8, 100)).idxmax()) < 40
