"""Planted factors are found again, and the same call gives the same bits."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.diagnose.match import match_factors

RNG = np.random.default_rng(7)
SIZES = {"x": 12, "energy": 11, "time": 9}
TRUTH = {mode: RNG.random((size, 4)) for mode, size in SIZES.items()}
CUBE = xr.DataArray(np.einsum("ar,br,cr->abc", *TRUTH.values()), dims=tuple(SIZES))


def score(fit, truth):
    found = [fit.factors[{"x": "pixel"}.get(mode, mode)].values.T for mode in truth]
    return match_factors(found, list(truth.values())).score


def test_three_modes_from_random_starts():
    """Noise-free, order 3, rank 4: a factor match score above 0.999 from at least 9 of 10 random starts."""
    scores = []
    for seed in range(10):
        fit = ts.fit(CUBE, ts.NMF(4), start=ts.Random(), seed=seed, tol=1e-9, max_sweeps=5000, progress=False)
        scores.append(score(fit, TRUTH))
    assert sum(value > 0.999 for value in scores) >= 9, scores


def test_four_modes():
    truth = {**TRUTH, "dose": RNG.random((3, 4))}
    data = xr.DataArray(np.einsum("ar,br,cr,dr->abcd", *truth.values()), dims=tuple(truth))
    assert score(ts.fit(data, ts.NMF(4), tol=1e-9, max_sweeps=5000, progress=False), truth) > 0.999


def test_three_tensors_on_one_mode():
    data = {
        "a": CUBE,
        "b": xr.DataArray(TRUTH["x"] @ RNG.random((4, 8)), dims=("x", "xray")),
        "c": xr.DataArray(TRUTH["x"] @ RNG.random((4, 6)) * 100, dims=("x", "light")),
    }
    fit = ts.fit(data, ts.NMF(4), tol=1e-10, max_sweeps=5000, progress=False)
    assert score(fit, TRUTH) > 0.999
    for name, tensor in data.items():
        assert float(np.sqrt((fit.residual(name) ** 2).mean() / (tensor**2).mean())) < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_call_gives_the_same_bits(dtype):
    data = xr.DataArray(RNG.poisson(CUBE * 20).astype(dtype), dims=CUBE.dims)
    options = {"start": ts.Random(), "seed": 3, "restarts": 2, "max_sweeps": 30, "progress": False}
    first, second = (ts.fit(data, ts.NMF(3), **options) for _ in range(2))
    for mode in first.factors:
        np.testing.assert_array_equal(first.factors[mode], second.factors[mode])
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.history, second.history)
    other = ts.fit(data, ts.NMF(3), **{**options, "seed": 4})
    assert not np.array_equal(first.factors["pixel"], other.factors["pixel"])
