"""Data in float32: what decides does not lose digits."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.solvers.sweep import objective

from . import reference
from .runs import RANK, SIZES, arrays, fit, noisy, prepared, random_factors, sweeps

pytestmark = pytest.mark.slow

NN, Sparse = ts.NonNegative, ts.Sparse
RNG = np.random.default_rng(13)
CUBE = noisy("pet", RNG, 0.2).astype(np.float32)
SHEET = noisy("ps", RNG, 0.2).astype(np.float32)
MASK = xr.DataArray(RNG.random(CUBE.shape) > 0.3, dims=CUBE.dims)
MODEL = ts.CP(RANK, {"p": [NN(), Sparse(0.05)], "e": [NN(), Sparse(0.1)], "t": NN(), "s": NN()})
DATA, WEIGHTS = {"cube": CUBE, "sheet": SHEET}, {"cube": 1.7, "sheet": 0.3}


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
@pytest.mark.parametrize("masked", [False, True], ids=["complete", "masked"])
def test_the_objective_is_that_of_the_factors_in_float64(solver, masked):
    mask = {"cube": MASK} if masked else None
    problem = prepared(DATA, MODEL, solver=solver, weights=WEIGHTS, mask=mask)
    first, last, kept, _ = sweeps(problem, random_factors(problem, 0), count=30)
    entries = MASK.values if masked else np.ones(CUBE.shape)
    cube = CUBE.values.astype(float) / np.sqrt(np.mean(CUBE.values.astype(float)[entries > 0] ** 2))
    sheet = SHEET.values.astype(float) / np.sqrt(np.mean(SHEET.values.astype(float) ** 2))
    for state in (first, last):
        assert all(factor.dtype == np.float32 for factor in state.factors.values())
        factors = {mode: np.asarray(factor, float) for mode, factor in state.factors.items()}
        own = (
            reference.misfit(cube, factors, CUBE.dims, 1.7, entries)
            + reference.misfit(sheet, factors, SHEET.dims, 0.3)
            + 0.05 * np.abs(factors["p"]).sum()
            + 0.1 * np.abs(factors["e"]).sum()
        )
        direct = float(objective(problem.model, problem.problem, state.factors)[0])
        assert direct == pytest.approx(own, rel=1e-7)
        # The one that the sweeps compare comes from normal equations, and loses what they do.
        assert float(state.objective) == pytest.approx(own, abs=1e-7 * float(problem.problem.square_norm))
    assert (np.diff(kept) <= 0).all()


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_the_minimum_of_float64_is_reached(solver):
    start = ts.From({mode: np.random.default_rng(3).random((size, RANK)) for mode, size in SIZES.items()})
    single, double = (
        fit({k: v.astype(kind) for k, v in DATA.items()}, MODEL, weights=WEIGHTS, solver=solver, start=start, tol=1e-8)
        for kind in (np.float32, np.float64)
    )
    assert single.factors["p"].dtype == np.float32 and double.factors["p"].dtype == np.float64
    assert single.objective == pytest.approx(double.objective, rel=1e-5)
    assert single.history.dtype == np.float64
    for mode, factor in arrays(single).items():
        np.testing.assert_allclose(factor, arrays(double)[mode], atol=5e-3)


def test_counts_are_fitted_as_they_are():
    counts = xr.DataArray(RNG.poisson(20 * CUBE.clip(0).values), dims=CUBE.dims)
    start = ts.From({mode: np.random.default_rng(3).random((SIZES[mode], RANK)) for mode in CUBE.dims})
    whole, single = (fit(counts.astype(kind), ts.NMF(RANK), start=start) for kind in (np.uint16, np.float32))
    assert whole.factors["p"].dtype == np.float32
    assert whole.objective == pytest.approx(single.objective, rel=1e-12)
    for mode in CUBE.dims:
        np.testing.assert_array_equal(whole.factors[mode], single.factors[mode])
