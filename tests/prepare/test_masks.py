"""Spikes and channels that are left out: what is found, what is not, at the rate that is stated."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

SHAPE = (900, 240)


def expected(mean, seed):
    """Three phases with sharp lines on a background, sharp borders; `mean` events an entry."""
    rng = np.random.default_rng(seed)
    maps = np.eye(3)[np.repeat(np.arange(3), SHAPE[0] // 3)]
    maps[::50] = rng.dirichlet(np.ones(3), size=len(maps[::50]))
    energy = np.arange(SHAPE[1])
    spectra = 0.3 * np.exp(-energy / 120) * np.ones((3, 1))
    for spectrum in spectra:
        for centre in rng.uniform(10, SHAPE[1] - 10, 3):
            spectrum += np.exp(-0.5 * ((energy - centre) / 1.5) ** 2)
    values = maps @ spectra
    return values * mean / values.mean()


def labelled(values):
    return xr.DataArray(values, dims=("x", "energy_loss"), coords={"energy_loss": np.arange(values.shape[1]) * 1.0})


@pytest.mark.parametrize("gain", [1, 17])
@pytest.mark.parametrize("mean", [0.1, 2.0, 200.0])
def test_false_alarms_come_at_the_stated_rate(mean, gain):
    alarms = []
    for seed in range(4):
        counts = gain * np.random.default_rng(seed).poisson(expected(mean, seed))
        mask = ts.mask_spikes(labelled(counts), 3.0, noise=ts.NoiseModel(gain))
        assert mask.attrs["channels"] == 0
        alarms.append(mask.attrs["spikes"])
    assert sum(alarms) <= 20  # 12 expected; more than 20 once in a hundred times


@pytest.mark.parametrize(("mean", "least"), [(2.0, 0.85), (30.0, 0.99), (1000.0, 0.98)])
@pytest.mark.parametrize("together", [False, True])
def test_spikes_of_eight_sigma_are_found(mean, least, together):
    found, planted = 0, 0  # at a few counts, and at lines that few channels share, not all
    for seed in range(2):
        rng = np.random.default_rng([7, seed])
        level = expected(mean, seed)
        counts = rng.poisson(level)
        rows = rng.choice(SHAPE[0], 80, replace=False)
        channels = rng.integers(1, SHAPE[1] - 1, 80)
        if together:  # two in each spectrum
            rows[1::2] = rows[::2]
            channels[1::2] = (channels[::2] + 40) % (SHAPE[1] - 2) + 1
        counts[rows, channels] = np.ceil(level[rows, channels] + 8 * np.sqrt(level[rows, channels]) + 4).astype(int)
        mask = ts.mask_spikes(labelled(counts), noise=ts.NoiseModel())
        found += int((~mask.values[rows, channels]).sum())
        planted += len(rows)
    assert found >= least * planted


def test_giant_spikes_dead_and_hot_channels_and_pixels():
    level = expected(50.0, 0)
    counts = np.random.default_rng(0).poisson(level)
    counts[[3, 3, 200, 555], [20, 90, 90, 130]] = 100_000
    counts[:, 60] = 0
    counts[:, 150] *= 9
    counts[77] = 0
    mask = ts.mask_spikes(labelled(counts))
    assert mask.attrs == {**mask.attrs, "spikes": 4, "channels": 2, "pixels": 1}
    assert not mask[:, [60, 150]].any() and not mask[77].any()
    assert not mask.values[[3, 3, 200, 555], [20, 90, 90, 130]].any()
    assert int((~mask).sum()) == 4 + 2 * 900 + 240 - 2
    assert "4 entries, 2 channels, 1 pixels" in mask.attrs["history"][-1]


def test_a_phase_in_a_single_pixel_is_no_spike():
    level = expected(50.0, 1)
    level[431] += 300 * np.exp(-0.5 * ((np.arange(240) - 117) / 4.0) ** 2)
    counts = np.random.default_rng(1).poisson(level)
    assert ts.mask_spikes(labelled(counts)).values[431].mean() > 0.97


def test_noise_of_a_scintillator_is_no_spike():
    phantom = ts.phantoms.cross_section(
        shape=(24, 24), eels_channels=256, edx_channels=32, gain=15.0, channel_correlation=0.4
    )
    mask = ts.mask_spikes(phantom["eels"], 1.0)
    assert int((~mask).sum()) <= 5


@pytest.mark.slow
def test_a_fit_is_better_without_the_spikes():
    level = expected(5.0, 2)
    rng = np.random.default_rng(2)
    counts = rng.poisson(level)
    spoilt = counts.copy()
    spoilt[rng.integers(0, 900, 60), rng.integers(0, 240, 60)] += 3000
    data = labelled(spoilt)

    def wrong(**options):
        fit = ts.fit(options.pop("data", data), ts.NMF(3), restarts=4, progress=False, **options)
        return float(np.sqrt(np.mean((fit.reconstruct().values - level) ** 2)))

    with_mask, without, clean = wrong(mask=ts.mask_spikes(data)), wrong(), wrong(data=labelled(counts))
    assert with_mask < 1.05 * clean < 0.1 * without


def test_lazy_missing_masked_turned_and_float32():
    counts = np.random.default_rng(3).poisson(expected(20.0, 3))
    counts[100, 50] = 900
    data = labelled(counts)
    mask = ts.mask_spikes(data)
    assert mask.dims == data.dims and int((~mask).sum()) == 1
    cube = xr.DataArray(counts.reshape(30, 30, 240), dims=("y", "x", "energy_loss"), attrs={"history": ["measured"]})
    turned = ts.mask_spikes(cube.transpose("energy_loss", "x", "y"))
    assert turned.dims == ("energy_loss", "x", "y") and turned.attrs["history"][0] == "measured"
    np.testing.assert_array_equal(turned.transpose("y", "x", "energy_loss").values.reshape(SHAPE), mask)
    lazy = ts.mask_spikes(cube.chunk({"y": 7}))
    np.testing.assert_array_equal(lazy.values.reshape(SHAPE), mask)
    np.testing.assert_array_equal(ts.mask_spikes(data.astype("float32")), mask)
    missing = data.astype(float)
    missing[5, :20] = np.nan
    held = ts.mask_spikes(missing)
    assert not held[5, :20].any() and int((~held).sum()) == 21
    given = xr.DataArray(np.arange(240) != 50, dims="energy_loss")
    both = ts.mask_spikes(data, mask=given)
    assert not both[:, 50].any() and int((~both).sum()) == 900 and both.attrs["spikes"] == 0


def test_large_data_are_read_in_blocks(monkeypatch):
    counts = np.random.default_rng(3).poisson(expected(20.0, 3))
    counts[[10, 800], [50, 60]] = 900
    monkeypatch.setattr("tensorspec.prepare.spikes.BLOCK", 60_000)
    mask = ts.mask_spikes(labelled(counts))
    assert np.argwhere(~mask.values).tolist() == [[10, 50], [800, 60]]


def test_channels_are_left_out_by_energy():
    data = xr.DataArray(
        np.ones((3, 101)),
        dims=("x", "xray_energy"),
        coords={"xray_energy": ("xray_energy", np.linspace(0, 1, 101), {"units": "keV"})},
    )
    mask = ts.mask_channels(data, [(0.0, 0.105), (0.495, 0.505), (0.945, np.inf)])
    assert mask.dims == ("xray_energy",) and int((~mask).sum()) == 11 + 1 + 6
    assert "0 to 0.105 keV" in mask.attrs["history"][0]
    with pytest.warns(UserWarning, match="18 of 101 points"):
        fit = ts.fit(data, ts.NMF(1), mask=mask, progress=False)
    assert float(fit.explained) == pytest.approx(1.0)


DATA = labelled(np.random.default_rng(0).poisson(5.0, (20, 30)))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.mask_spikes(DATA.values), ts.InvalidData, "DataArray"),
        (lambda: ts.mask_spikes(DATA, 0), ts.InvalidArgument, "false_alarms"),
        (lambda: ts.mask_spikes(DATA[:2]), ts.InvalidData, "at least four"),
        (lambda: ts.mask_spikes(DATA.where(DATA > 3, np.inf), noise=ts.NoiseModel()), ts.InvalidData, "infinities"),
        (lambda: ts.mask_spikes(DATA, mask=DATA), ts.InvalidData, "DataArray of bool"),
        (lambda: ts.mask_channels(DATA, [(5, 3)]), ts.InvalidArgument, "does not rise"),
        (lambda: ts.mask_channels(DATA, [(50, 60)]), ts.InvalidArgument, "0 to 29"),
        (lambda: ts.mask_channels(DATA, [5]), ts.InvalidArgument, "two energies"),
        (lambda: ts.mask_channels(DATA, [(0, 100)]), ts.InvalidArgument, "no channel"),
        (lambda: ts.mask_channels(DATA, [(0, 1)], dim="energy_los"), ts.UnknownMode, "Did you mean 'energy_loss'"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_few_counts_make_no_channel_hot_or_dead():
    for seed in range(5):
        counts = np.random.default_rng(seed).poisson(2e-4, (8000, 400))
        mask = ts.mask_spikes(labelled(counts), noise=ts.NoiseModel())
        assert mask.attrs["channels"] == 0 and bool(mask[:, 5].any())


def test_a_giant_spike_makes_its_neighbours_neither_hot_nor_dead():
    counts = np.random.default_rng(4).poisson(0.5, (300, 60))
    counts[[5, 6, 7], 30] = 100_000
    mask = ts.mask_spikes(labelled(counts), noise=ts.NoiseModel())
    assert mask.attrs["channels"] == 0 and int((~mask).sum()) == 3


def test_a_zero_loss_peak_of_one_channel_is_no_hot_channel():
    rng = np.random.default_rng(0)
    energy = np.arange(-20.0, 60.0)
    spectrum = 5000 * np.exp(-0.5 * (energy / 0.45) ** 2) + 40 * np.exp(-0.5 * ((energy - 22) / 6) ** 2) + 2
    counts = rng.poisson(np.multiply.outer(rng.uniform(0.5, 2, 200), spectrum))
    counts[:, 55] *= 5
    data = xr.DataArray(counts, dims=("x", "energy_loss"), coords={"energy_loss": ("energy_loss", energy)})
    mask = ts.mask_spikes(data, noise=ts.NoiseModel())
    assert np.flatnonzero(~mask.values.any(axis=0)).tolist() == [55]
