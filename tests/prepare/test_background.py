"""Powers of the energy loss: what they are, and what they do for edges in a fit beside a window before the edge."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

ONSET = 532.0
ENERGY = 430.0 + 1.5 * np.arange(160)


def along(energy, units="eV"):
    return xr.DataArray(energy, dims="energy_loss", coords={"energy_loss": ("energy_loss", energy, {"units": units})})


def planted(counts=None, seed=0):
    """An edge on sums of two powers, another sum in every pixel; expected values, or counts of this dose a pixel."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0.2, 1.0, (144, 2))
    amount = rng.uniform(0.0, 1.0, 144) * (rng.random(144) > 0.3)
    background = shares @ (ENERGY / ENERGY[0]) ** -np.array([[2.0], [4.0]])
    rise = np.maximum(ENERGY - ONSET, 0)
    edge = 0.15 * (1 - np.exp(-rise / 2)) * (ENERGY / ONSET) ** -3.0
    values = background + amount[:, None] * edge
    scale = (counts or 1.0) / values.sum(axis=1).mean()
    values = rng.poisson(scale * values) if counts else scale * values
    dims = {"y": np.arange(12), "x": np.arange(12), "energy_loss": along(ENERGY).energy_loss}
    data = xr.DataArray(values.reshape(12, 12, -1), dims=tuple(dims), coords=dims, attrs={"units": "counts"})
    return data, xr.DataArray((scale * amount * edge.sum()).reshape(12, 12), dims=("y", "x"))


def edge_map(data, **options):
    zeros = xr.where(data.energy_loss < ONSET, 0.0, np.nan).expand_dims(component=[3])
    span = ts.Span(ts.background_powers(data), components=[1, 2])
    fit = ts.fit(data, ts.NMF(3, {"energy_loss": [span, ts.Fixed(zeros)]}), progress=False, **options)
    return fit.maps().sel(component=3), fit


def subtracted(data):
    """The classical way: one power, fitted to logarithms in the 60 eV before the edge, extrapolated, subtracted."""
    before, behind = (ENERGY >= ONSET - 60) & (ENERGY < ONSET), ENERGY >= ONSET
    logs = np.log(np.maximum(data.values[..., before], 0.5)).reshape(-1, before.sum())
    design = np.stack([np.log(ENERGY[before]), np.ones(before.sum())], axis=1)
    slope, level = np.linalg.lstsq(design, logs.T, rcond=None)[0]
    below = np.exp(level[:, None] + slope[:, None] * np.log(ENERGY[behind]))
    return data.values[..., behind] - below.reshape(*data.shape[:2], -1)


def test_every_atom_is_its_power_with_a_sum_of_one():
    powers = ts.background_powers(along(ENERGY), powers=(2, 3.5))
    assert powers.dims == ("power", "energy_loss")
    assert powers.power.values.tolist() == [2.0, 3.5]
    np.testing.assert_allclose(powers.sum("energy_loss"), 1.0, rtol=1e-12)
    slopes = np.diff(np.log(powers.values), axis=1) / np.diff(np.log(ENERGY))
    np.testing.assert_allclose(slopes, -np.broadcast_to([[2.0], [3.5]], slopes.shape), rtol=1e-9)
    assert powers.energy_loss.attrs["units"] == "eV"
    assert "2, 3.5" in powers.attrs["history"][-1]


def test_units_types_and_lazy_data_make_no_difference():
    expected = ts.background_powers(along(ENERGY)).values
    np.testing.assert_allclose(ts.background_powers(along(ENERGY / 1e3, "keV")).values, expected, rtol=1e-9)
    np.testing.assert_allclose(ts.background_powers(along(ENERGY.astype(np.float32))).values, expected, rtol=1e-5)
    data, _ = planted(100.0)
    np.testing.assert_array_equal(ts.background_powers(data).values, expected)
    dask = pytest.importorskip("dask.array")

    def never(block):
        raise AssertionError("the data were computed")

    lazy = data.copy(data=dask.from_array(data.values).map_blocks(never, dtype=data.dtype, meta=np.empty(0)))
    np.testing.assert_array_equal(ts.background_powers(lazy).values, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones(3),), ts.InvalidData, "expected an xarray.DataArray"),
        ((xr.DataArray(np.ones(3), dims="energy_loss"),), ts.InvalidData, "no numeric coordinate"),
        ((along(ENERGY - 430),), ts.InvalidData, "begins at 0 eV; powers need energies above zero"),
        ((along(ENERGY), ()), ts.InvalidArgument, "expected exponents such as"),
        ((along(ENERGY), "23"), ts.InvalidArgument, "expected exponents such as"),
        ((along(ENERGY), (2, -1)), ts.InvalidArgument, r"powers\[1\] is -1"),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        ts.background_powers(*arguments)


def test_an_edge_on_sums_of_powers_is_recovered_from_expected_values():
    data, truth = planted()
    found, fit = edge_map(data, max_sweeps=6000, tol=1e-12)
    # The background of every component that is one is made of the atoms; the edge has none of it.
    assert float(fit.factors["energy_loss"].sel(component=3, energy_loss=slice(None, ONSET - 1)).max()) == 0
    assert float(abs(found - truth).max() / truth.max()) < 0.01
    assert float(abs(found.sum() / truth.sum() - 1)) < 0.002


def test_counts_give_the_edge_without_bias_and_nothing_is_negative():
    wrong, window = [], []
    for seed in range(4):
        data, truth = planted(1e4, seed)
        # Doubles: neighbouring powers differ by less than single precision resolves at these counts.
        found, _ = edge_map(data.astype(float), loss=ts.LeastSquares(scaling="poisson"), max_sweeps=1500, tol=1e-8)
        assert float(found.min()) >= 0
        wrong.append([float((found - truth).sum() / truth.sum()), float(np.sqrt(((found - truth) ** 2).mean()))])
        net = subtracted(data)
        assert (net[truth.values == 0] < 0).mean() > 0.3
        window.append(float(np.sqrt(((net.sum(axis=-1) - truth.values) ** 2).mean())))
    bias, pixel = np.array(wrong).T
    assert abs(bias.mean()) < 0.05
    assert pixel.mean() < 0.6 * np.mean(window)
