"""Shifts near the statistical limit; errors that hold whatever the noise; nothing that drifts by chance."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

import tensorspec as ts
from tensorspec.phantoms.counting import record
from tensorspec.prepare.shifts import estimate_shifts

STEP = 0.5


def low_loss(places, width, counts=1e4, noise=None, seed=0, thickness=(0.2, 1.0)):
    """Return spectra with a peak `width` channels wide, at these channels, before plasmons of varying strength."""
    rng = np.random.default_rng(seed)
    sigma = width / np.sqrt(8 * np.log(2))
    offset = np.arange(-20, 100) - np.asarray(places)[:, None]
    mean = ndtr((offset + 0.5) / sigma) - ndtr((offset - 0.5) / sigma)
    strength = rng.uniform(*thickness, len(offset))[:, None]
    mean = counts * (mean + strength * np.exp(-0.5 * ((offset - 44) / 8) ** 2) / (8 * np.sqrt(2 * np.pi)))
    values = record(mean, noise or ts.NoiseModel(), rng)
    coords = {"energy_loss": ("energy_loss", STEP * np.arange(-20, 100), {"units": "eV"})}
    return xr.DataArray(values, dims=("x", "energy_loss"), coords=coords)


@pytest.mark.parametrize("width", [0.8, 1.2, 2.0, 3.0, 6.0, 10.0])
def test_errors_are_near_the_statistical_limit(width):
    places = np.random.default_rng(1).uniform(-2, 2, 300)
    found = estimate_shifts(low_loss(places, width))
    error = found.offset.values / STEP - (places - np.median(places))
    assert np.std(error) < 0.05
    if width > 1:
        # A channel adds its own width; a shape that is known from three hundred spectra adds little.
        assert np.std(error) < 1.35 * np.hypot(width / 2.3548, 12**-0.5) / np.sqrt(1e4)
        assert 0.6 < np.std(error) / float(found.standard_error.median() / STEP) < 1.4
    assert found.attrs["drifts"]


@pytest.mark.parametrize("pixels", [10, 300])
@pytest.mark.parametrize(
    "noise",
    [ts.NoiseModel(), ts.NoiseModel(17.0, 0.0, 0.43), ts.NoiseModel(1.0, 1e4), ts.NoiseModel(15.0, 3000.0, 0.4)],
    ids=str,
)
def test_chance_is_no_drift_whatever_the_noise(noise, pixels):
    for given in (None, noise):
        scatter = []
        for seed in range(3):
            data = low_loss(np.full(pixels, 0.3), 4.0, counts=2e4, noise=noise, seed=seed)
            found = estimate_shifts(data, noise=given)
            scatter.append(float(((found.offset / found.standard_error) ** 2).mean()))
            assert not found.attrs["drifts"]
        # The noise of ten spectra is known to a fifth or so.
        assert 0.75 < np.sqrt(np.mean(scatter)) < (1.3 if pixels < 50 else 1.15)


@pytest.mark.parametrize("noise", [ts.NoiseModel(), ts.NoiseModel(17.0, 0.0, 0.43)], ids=str)
def test_a_drift_of_three_standard_errors_is_one(noise):
    width, counts, pixels = 4.0, 2e4, 60
    limit = (width / 2.3548) * np.sqrt(noise.gain / counts) * (1 + 2 * (noise.channel_correlation or 0)) ** 0.5
    places = 3 * limit * np.random.default_rng(3).standard_normal(pixels)
    found = estimate_shifts(low_loss(places, width, counts, noise))
    assert found.attrs["drifts"]
    assert np.corrcoef(found.offset.values, places)[0, 1] > 0.9


@pytest.mark.parametrize("pixels", [2, 3, 4])
def test_few_spectra(pixels):
    still, moved = [], []
    for seed in range(8):
        places = 0.5 * np.arange(pixels) - 0.2
        found = estimate_shifts(low_loss(places, 3.0, seed=seed, thickness=(0.4, 0.4)))
        np.testing.assert_allclose(found.offset / STEP, places - np.median(places), atol=0.06)
        moved.append(found.attrs["drifts"])
        still.append(estimate_shifts(low_loss(0 * places, 3.0, seed=seed, thickness=(0.4, 0.4))).attrs["drifts"])
    assert sum(moved) == 8 and sum(still) == 0


def test_one_spectrum_has_a_place_and_no_shift():
    found = estimate_shifts(low_loss([0.4], 3.0))
    assert float(found.offset[0]) == 0 and np.isnan(found.standard_error[0]) and not found.attrs["drifts"]
    assert found.attrs["place"] == pytest.approx(0.4 * STEP, abs=0.06)


def test_too_few_events_are_left_where_they_are():
    for seed in range(4):
        data = low_loss(np.zeros(300), 4.0, counts=8, seed=seed)
        aligned = ts.align(data)
        np.testing.assert_array_equal(aligned.values, data.values)


def test_a_peak_outside_of_its_window_is_refused():
    data = low_loss(np.zeros(5), 3.0)
    away = data.assign_coords(energy_loss=("energy_loss", data.energy_loss.values + 11.0, {"units": "eV"}))
    with pytest.raises(ts.InvalidData, match="no zero-loss peak between 1 and 10 eV"):
        estimate_shifts(away)


def test_a_measured_line_scan_agrees_with_its_centroids(shared_data):
    pytest.importorskip("rsciio")
    low = ts.load(shared_data / "lsmo_eels" / "LSMO_linescan_low_loss.hdf5", reader="HSPY")
    found = estimate_shifts(low)
    peak = low.sel(energy_loss=slice(0.2, 6.3))
    centre = (peak * peak.energy_loss).sum("energy_loss") / peak.sum("energy_loss")
    # A peak of two channels, which moves by half a channel over the scan: its own tails pull the centroid a little.
    slope = np.polyfit(centre - centre.median(), found.offset, 1)[0]
    assert slope == pytest.approx(1.0, abs=0.06)
    assert float(np.corrcoef(centre, found.offset)[0, 1]) > 0.995
