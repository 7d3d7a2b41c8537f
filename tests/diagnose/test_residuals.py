"""The residual summary is what the full residual says, in units of the noise, whatever the blocks."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from tensorspec.assemble import assemble
from tensorspec.diagnose import residuals
from tensorspec.noise import NoiseModel

DIMS = ("energy_loss", "y", "x")


def counts(seed=0, gain=1.0, attrs=None, shape=(40, 9, 8)):
    """Return a fit whose data are its model with Poisson noise times a gain."""
    rng = np.random.default_rng(seed)
    spectra, maps = rng.random((shape[0], 2)) + 0.2, rng.random((shape[1] * shape[2], 2)) + 0.2
    data = xr.DataArray((spectra @ maps.T).reshape(shape) * 50, dims=DIMS, attrs={"units": "counts"} | (attrs or {}))
    factors = {"energy_loss": spectra, "pixel": maps}
    noisy = data.copy(data=gain * rng.poisson(data / gain))
    return assemble({"data": noisy}, factors, np.full(2, 50.0))


def with_noise_variance(fit, value):
    record = dataclasses.replace(fit.tensors["data"], noise_variance=value)
    return dataclasses.replace(fit, tensors={"data": record})


def test_poisson_counts_leave_residuals_of_one_noise_and_say_so():
    fit = counts(attrs={"noise": NoiseModel().to_attrs()})
    summary = fit.residual_summary()
    whole = float((fit.residual() ** 2).sum() / fit.reconstruct().sum())
    assert whole == pytest.approx(1, abs=4 * np.sqrt(2 / 2880))
    # Rank 2, 40 channels, 72 pixels; each component has one scale, not two.
    assert summary.attrs["chi2"] == pytest.approx(whole * 2880 / (2880 - 2 * (40 + 72 - 1)), rel=1e-12)
    assert summary["residual_map"].dims == ("y", "x") and summary["data_spectrum"].dims == ("energy_loss",)
    assert "from the data" in summary.attrs["noise"]
    variance = fit.reconstruct().sum("energy_loss")
    expected = np.sqrt((fit.residual() ** 2).sum("energy_loss") / variance)
    np.testing.assert_allclose(summary["residual_map"], expected, rtol=1e-12)
    np.testing.assert_allclose(summary["data_spectrum"], fit.data["data"].sum(["y", "x"]), rtol=1e-12)
    np.testing.assert_allclose(summary["model_spectrum"], fit.spectra().sum("component"), rtol=1e-12)
    by_channel = np.sqrt((fit.residual() ** 2).sum(["y", "x"]) / fit.spectra().sum("component"))
    np.testing.assert_allclose(summary["residual_spectrum"], by_channel, rtol=1e-12)


def test_a_noise_level_without_a_model_is_taken_in_proportion_to_the_signal():
    fit = counts(gain=17.0)
    mean = float(fit.reconstruct().mean())
    summary = with_noise_variance(fit, 17.0 * mean).residual_summary()
    assert "proportion" in summary.attrs["noise"]
    modelled = counts(gain=17.0, attrs={"noise": NoiseModel(17.0).to_attrs()}).residual_summary()
    np.testing.assert_allclose(summary["residual_map"], modelled["residual_map"], rtol=1e-12)


def test_signed_models_have_equal_noise_everywhere():
    fit = counts()
    factor = fit.factors["energy_loss"].copy()
    factor[0, 0] = -1e-3
    fit = dataclasses.replace(fit, factors={**fit.factors, "energy_loss": factor})
    summary = with_noise_variance(fit, 25.0).residual_summary()
    np.testing.assert_allclose(
        summary["residual_map"], np.sqrt((fit.residual() ** 2).mean("energy_loss")) / 5, rtol=1e-12
    )


def test_without_any_noise_level_residuals_are_in_units_of_the_data():
    fit = counts()
    summary = fit.residual_summary()
    assert summary["residual_map"].attrs["units"] == "counts" and not summary.attrs
    np.testing.assert_allclose(summary["residual_map"], np.sqrt((fit.residual() ** 2).mean("energy_loss")), rtol=1e-12)


@pytest.mark.parametrize("block", [1, 300, 1000])
@pytest.mark.parametrize("shape", [(40, 9, 8), (5, 9, 8), (5, 3, 30)])
def test_blocks_do_not_matter(monkeypatch, block, shape):
    fit = counts(attrs={"noise": {"gain": 1.0}}, shape=shape)
    whole = fit.residual_summary()
    monkeypatch.setattr(residuals, "BLOCK", block)
    parts = fit.residual_summary()
    xr.testing.assert_allclose(parts, whole, rtol=1e-12)
    assert {key: array.dims for key, array in parts.items()} == {key: array.dims for key, array in whole.items()}


def test_entries_not_measured_count_on_neither_side():
    fit = counts(attrs={"noise": {"gain": 1.0}})
    data = fit.data["data"].astype(float).copy()
    data[:, 2, 3], data[5] = np.nan, np.nan
    summary = fit.residual_summary(data=data)
    assert np.isnan(summary["residual_map"][2, 3]) and int(summary["residual_map"].isnull().sum()) == 1
    assert summary["data_spectrum"][5] == summary["model_spectrum"][5] == 0
    np.testing.assert_allclose(
        summary["model_spectrum"], fit.reconstruct().where(data.notnull()).sum(["y", "x"]), rtol=1e-12
    )
    kept = np.sqrt(
        ((data - fit.reconstruct()) ** 2).sum("energy_loss")
        / fit.reconstruct().where(data.notnull()).sum("energy_loss")
    )
    np.testing.assert_allclose(summary["residual_map"], kept, rtol=1e-12)


def test_dask_and_sparse_data_give_the_same():
    sparse, _ = pytest.importorskip("sparse"), pytest.importorskip("dask")
    fit = counts()
    data = fit.data["data"]
    expected = fit.residual_summary()
    xr.testing.assert_allclose(fit.residual_summary(data=data.chunk(y=4)), expected, rtol=1e-12)
    backed = data.copy(data=sparse.COO.from_numpy(data.values))
    xr.testing.assert_allclose(fit.residual_summary(data=backed), expected, rtol=1e-12)


def test_entries_that_a_mask_left_out_count_on_neither_side():
    fit = counts(attrs={"noise": {"gain": 1.0}})
    data = fit.data["data"].astype(float).copy()
    data[:, 2, 3], data[5, 0, 0] = 1e9, 1e9
    mask = (data < 1e8).transpose("x", "energy_loss", "y").assign_coords(x=np.arange(8) + 1e-7)
    spoiled = dataclasses.replace(fit, data={"data": data}, masks={"data": mask})
    expected = fit.residual_summary(data=data.where(data < 1e8))
    xr.testing.assert_identical(spoiled.residual_summary(), expected)
    xr.testing.assert_identical(spoiled.residual(), fit.residual(data=data.where(data < 1e8)))
    rows = dataclasses.replace(fit, masks={"data": xr.DataArray([True] * 8 + [False], dims="y")})
    assert rows.residual_summary()["residual_map"][8].isnull().all()
    assert rows.residual().dims == DIMS
