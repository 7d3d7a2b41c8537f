"""Fits that begin from purest pixels or from the corners of the signal subspace."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts


def mixed(seed, largest=1.0, counts=20_000, pixels=(20, 15), channels=90, rank=3):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(rank, 0.7), 20 * pixels[0] * pixels[1])
    shares = shares[shares.max(axis=1) < largest][: pixels[0] * pixels[1]]
    energy = np.arange(channels)
    places = rng.uniform(0.1, 0.9, (rank, 3)) * channels
    spectra = np.exp(-0.5 * ((energy - places[..., None]) / 2.0) ** 2).sum(axis=1)
    spectra /= spectra.sum(axis=1, keepdims=True)
    values = rng.poisson(counts * shares @ spectra).reshape(*pixels, channels)
    return xr.DataArray(values, dims=("y", "x", "energy_loss")), spectra


def angles(found, spectra):
    from scipy.optimize import linear_sum_assignment

    unit = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (found, spectra)]
    chord = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2)
    return np.degrees(2 * np.arcsin(chord[linear_sum_assignment(chord)] / 2))


@pytest.mark.parametrize("start", [ts.VCA(), ts.SPA(), ts.SSS()])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_one_sweep_from_pure_pixels_or_corners_is_nearly_there(start, dtype):
    data, spectra = mixed(0)
    began = ts.fit(data.astype(dtype), ts.NMF(3), start=start, max_sweeps=1, progress=False)
    assert angles(began.factors["energy_loss"].values, spectra).max() < 4
    other = ts.fit(data.astype(dtype), ts.NMF(3), start=ts.Random(), max_sweeps=1, progress=False)
    assert began.objective < 0.2 * other.objective


def test_without_pure_pixels_corners_are_the_better_start():
    data, spectra = mixed(1, largest=0.75)
    found = {
        type(start).__name__: angles(
            ts.fit(data, ts.NMF(3), start=start, max_sweeps=1, progress=False).factors["energy_loss"].values, spectra
        ).max()
        for start in (ts.VCA(), ts.SSS())
    }
    assert found["SSS"] < 2 and found["VCA"] > 3 * found["SSS"]


def test_order_three_coupled_tensors_empty_rows_and_seeds():
    rng = np.random.default_rng(2)
    maps = rng.dirichlet(np.full(3, 0.3), 60)
    maps[:3] = np.eye(3)
    time, spectra, other = rng.uniform(0.5, 1, (5, 3)), rng.gamma(0.3, size=(40, 3)), rng.gamma(0.3, size=(30, 3))
    first = xr.DataArray(np.einsum("ir,jr,kr->ijk", maps, time, spectra), dims=("x", "time", "energy_loss"))
    second = xr.DataArray(maps @ other.T, dims=("x", "xray_energy"))
    first[7], second[7] = 0, 0
    both = {"eels": first, "edx": second}
    for start in (ts.VCA(), ts.SPA()):
        fit = ts.fit(both, ts.NMF(3), start=start, progress=False, max_sweeps=500, tol=1e-9)
        assert (fit.explained > 0.9999).all()
        assert (fit.factors["pixel"].values[:, 7] == 0).all()
    one, two = (ts.fit(both, ts.NMF(3), start=ts.VCA(), seed=3, max_sweeps=2, progress=False) for _ in range(2))
    np.testing.assert_array_equal(one.factors["pixel"], two.factors["pixel"])
    again = ts.fit(second, ts.NMF(3), start=ts.VCA(), restarts=3, progress=False)
    assert again.spread.sizes == {"restart": 3}


def test_counts_that_are_mostly_zero_and_a_recipe_read_again(tmp_path):
    data, spectra = mixed(4, counts=40)
    fit = ts.fit(data, ts.NMF(3), loss=ts.Poisson(), start=ts.SPA(), progress=False)
    assert angles(fit.factors["energy_loss"].values, spectra).max() < 12
    again = ts.refit(fit.save(tmp_path / "fit.h5"), data)
    np.testing.assert_allclose(again.factors["pixel"], fit.factors["pixel"], rtol=1e-6, atol=1e-9)


def test_what_cannot_be_meant_is_refused():
    data, _ = mixed(3)
    with pytest.raises(ts.InvalidArgument, match="needs counts"):
        ts.fit(data - 5.0, ts.CP(3), start=ts.SSS(), progress=False)
    with pytest.raises(ts.InvalidArgument, match="same every time"):
        ts.fit(data, ts.NMF(3), start=ts.SPA(), restarts=3, progress=False)
    dark = data.copy()
    dark[2:] = 0
    dark[:, 1:] = 0
    with pytest.raises(ts.InvalidArgument, match="fewer than 3 components"):
        ts.fit(dark, ts.NMF(3), start=ts.VCA(), progress=False)
    with pytest.raises(ts.InvalidArgument, match="this start gives every mode the same components"):
        ts.fit(data, ts.Tucker({"pixel": 2, "energy_loss": 2}), start=ts.VCA(), progress=False)
