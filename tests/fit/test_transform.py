"""New samples with the other factors held, and fits over a strength."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

RNG = np.random.default_rng(2)
MAPS = RNG.random((4, 5, 3))
EELS = xr.DataArray(MAPS @ RNG.random((3, 12)), dims=("y", "x", "energy_loss"))
EDX = xr.DataArray(MAPS @ RNG.random((3, 10)) * 7, dims=("y", "x", "xray_energy"))


@pytest.fixture(scope="module")
def pair():
    return ts.fit({"eels": EELS, "edx": EDX}, ts.NMF(3), tol=1e-12, progress=False)


def test_the_data_themselves_give_the_factor_back(pair):
    again = pair.transform({"eels": EELS, "edx": EDX})
    xr.testing.assert_allclose(again, pair.factors["pixel"], atol=1e-6)
    assert again.dims == ("component", "y", "x")


def test_part_of_the_pixels_and_of_the_tensors(pair):
    again = pair.transform({"eels": EELS[1:3]})
    np.testing.assert_allclose(again, pair.factors["pixel"][:, 1:3], atol=1e-6)


def test_another_mode(pair):
    again = pair.transform({"edx": EDX}, mode="xray_energy")
    np.testing.assert_allclose(again, pair.factors["xray_energy"], atol=1e-6)


@pytest.mark.slow
def test_penalties_keep_their_meaning():
    noisy = EELS + 0.1 * np.random.default_rng(3).random(EELS.shape)
    model = ts.NMF(3, {"pixel": [ts.Sparse(0.3), ts.SoftOrthogonal(0.01)]})
    fit = ts.fit(noisy, model, tol=1e-13, max_sweeps=5000, progress=False)
    np.testing.assert_allclose(fit.transform(noisy), fit.factors["pixel"], atol=1e-5)


def test_a_pixel_without_data_is_nan(pair):
    lost = EELS.copy()
    lost[0, 0] = np.nan
    again = pair.transform({"eels": lost})
    assert again[:, 0, 0].isnull().all()
    assert again.isnull().sum() == 3


def test_mistakes(pair):
    with pytest.raises(ts.UnknownMode, match="Did you mean 'pixel'"):
        pair.transform({"eels": EELS}, mode="pixels")
    with pytest.raises(ts.ModeMismatch, match="energy_loss"):
        pair.transform({"eels": EELS[:, :, :5]})
    with pytest.raises(ts.InvalidData, match="'eels', 'edx'"):
        pair.transform({"other": EELS})
    with pytest.raises(ts.InvalidData, match="mapping by name"):
        pair.transform(EELS)


def test_a_path_over_strengths_ends_where_single_fits_end():
    sparse = ts.Sparse(0.1)
    noisy = EELS + 0.1 * np.random.default_rng(3).random(EELS.shape)
    model = ts.NMF(2, {"energy_loss": sparse})
    fits = ts.path(noisy, model, sparse, [0.01, 0.1, 1.0], tol=1e-10, progress=False)
    objectives = [fit.objective for fit in fits.values()]
    assert list(fits) == [0.01, 0.1, 1.0]
    assert objectives == sorted(objectives)
    alone = ts.fit(noisy, ts.NMF(2, {"energy_loss": ts.Sparse(1.0)}), tol=1e-10, progress=False)
    assert fits[1.0].objective <= alone.objective * (1 + 1e-4)
    assert fits[1.0].model.constraints["energy_loss"][0].strength == 1.0
    with pytest.raises(ts.InvalidArgument, match="does not hold"):
        ts.path(noisy, model, ts.Sparse(0.1), [1.0])
    with pytest.raises(ts.InvalidArgument, match="no strength"):
        ts.path(noisy, model, ts.NonNegative(), [1.0])
