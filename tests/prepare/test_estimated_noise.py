"""Estimated noise: what phantoms were made with, masks, lazy data, and public measurements."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("gain", [1.0, 17.0])
@pytest.mark.parametrize("read", [0.0, 400.0])
@pytest.mark.parametrize("correlation", [0.0, 0.43])
def test_noise_of_a_phantom(gain, read, correlation):
    phantom = ts.phantoms.cross_section(
        (24, 32), eels_counts=3e5, gain=gain, read_variance=read, channel_correlation=correlation, seed=2
    )
    found = ts.estimate_noise(phantom["eels"])
    level = float(phantom["eels"].mean())
    # Where read-out drowns the counts only the sum of both is certain.
    assert found.variance(level) == pytest.approx(gain * level + read, rel=0.03)
    assert found.gain == pytest.approx(gain, rel=0.05, abs=0.1 if read else 0.0)
    assert found.read_variance == pytest.approx(read, rel=0.1, abs=0.03 * gain * level if gain > 1 else 3.0)
    assert found.channel_correlation == pytest.approx(correlation, abs=0.02)


def test_dual_eels_are_counts():
    phantom = ts.phantoms.dual_eels((16, 20))
    for data in phantom.data.values():
        assert ts.estimate_noise(data).is_counts


def test_masked_channels_and_pixels_do_not_count():
    data = ts.phantoms.cross_section((24, 32), gain=5.0, seed=1)["eels"]
    clean = ts.estimate_noise(data)
    rng = np.random.default_rng(0)
    spoiled = data.copy(deep=True)
    spoiled[:, :, 300:340] += 3000 * rng.standard_normal((24, 32, 40)).astype(np.float32)
    spoiled[5] += 3000 * rng.standard_normal((32, 1024)).astype(np.float32)
    assert ts.estimate_noise(spoiled).gain > 50
    channels = np.arange(1024)
    mask = xr.DataArray((channels < 300) | (channels >= 340), dims="energy_loss")
    lines = xr.DataArray(np.arange(24) != 5, dims="y", coords={"y": data.y})
    found = ts.estimate_noise(spoiled, mask=mask & lines)
    assert found.gain == pytest.approx(clean.gain, rel=0.02)
    assert found.read_variance == pytest.approx(clean.read_variance, abs=50)
    same = ts.estimate_noise(spoiled.where(mask & lines))
    assert same.gain == pytest.approx(found.gain, rel=1e-9)


def test_masks_follow_the_rows_that_are_picked(monkeypatch):
    import tensorspec.noise.estimate as estimate

    data = ts.phantoms.cross_section((48, 64), eels_channels=256, gain=3.0)["eels"]
    monkeypatch.setattr(estimate, "MOST_VALUES", 1)
    rng = np.random.default_rng(0)
    mask = xr.DataArray(rng.random(data.shape) > 0.1, dims=data.dims)
    spoiled = data.where(mask, 1e5)
    found = ts.estimate_noise(spoiled, mask=mask)
    assert found.gain == pytest.approx(3.0, rel=0.05)
    assert ts.estimate_noise(spoiled).variance(300.0) > 10 * found.variance(300.0)
    turned = ts.estimate_noise(
        spoiled.chunk({"y": 10, "energy_loss": 100}), mask=mask.transpose("energy_loss", "y", "x")
    )
    assert turned == found


@pytest.mark.parametrize("lazy", [False, True])
def test_a_map_that_is_empty_but_for_a_few_lines(lazy):
    rng = np.random.default_rng(0)
    spectrum = 30 * np.exp(-np.linspace(0, 5, 2048))
    values = np.zeros((90, 100, 2048), dtype=np.uint16)
    values[40, 20:60] = rng.poisson(spectrum * rng.uniform(0.5, 2, (40, 1)))
    data = xr.DataArray(values, dims=("y", "x", "xray_energy"))
    found = ts.estimate_noise(data.chunk({"y": 30}) if lazy else data)
    assert found.gain == pytest.approx(1, abs=0.05) and found.is_counts
    assert found.channel_correlation is not None


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones(3, bool), ts.InvalidData, "not a DataArray of bool"),
        (xr.DataArray([1, 0], dims="x"), ts.InvalidData, "not a DataArray of bool"),
        (xr.DataArray([True, False], dims="x"), ts.InvalidData, "2 points along 'x', the data 4"),
        (xr.DataArray([True, False], dims="energy"), ts.UnknownMode, "dimension 'energy'.*Did you mean 'energy_loss'"),
        (xr.DataArray([False] * 4, dims="x"), ts.InvalidData, "fewer than three valid"),
    ],
)
def test_masks_that_do_not_fit(mask, error, message):
    data = xr.DataArray(np.ones((4, 8)), dims=("x", "energy_loss"))
    with pytest.raises(error, match=message):
        ts.estimate_noise(data, mask=mask)


@pytest.mark.slow
def test_public_measurements(shared_data):
    """What is known of the instruments, or can be counted without a model: the noise between neighbours."""
    pytest.importorskip("rsciio")
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.noise_of_real_data import sets
    finally:
        sys.path.remove(str(ROOT))
    photons = ("scifi_eels: EDX", "espm_eds", "bcf_p45", "tofsims")
    seen = 0
    for name, data in sets(shared_data):
        if name.startswith("formats"):
            break
        if name.startswith(photons):
            found = ts.estimate_noise(data)
            assert found.is_counts and found.gain == pytest.approx(1, abs=0.05), name
            seen += 1
        elif name == "sio2_eds":
            # Not quite counts: neighbouring channels differ by less than counts can.
            values = data.values.astype(np.float64)
            pairs = np.diff(values, axis=2) ** 2
            apart = pairs.sum() / (values[..., 1:] + values[..., :-1]).sum()
            found = ts.estimate_noise(data)
            assert apart == pytest.approx(0.84, abs=0.01)
            assert found.gain * (1 - found.channel_correlation) == pytest.approx(apart, abs=0.02)
            seen += 1
        elif name == "carbs_raman":
            # A mixture of three known spectra in known shares: what is left over is noise.
            with np.load(shared_data / "carbs_raman" / "carbs.npz") as held:
                rest = held["D"] - held["C"] @ held["S"].T
            assert ts.estimate_noise(data).variance(float(data.mean())) == pytest.approx(rest.var(), rel=0.03)
            seen += 1
        elif "EELS" in name or "lsmo" in name:
            assert not ts.estimate_noise(data).is_counts, name
            seen += 1
    assert seen >= 13
