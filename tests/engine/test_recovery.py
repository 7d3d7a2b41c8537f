"""What was planted is found, from random starts and from starts that are partly dead."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.diagnose.match import match_factors

from .runs import RANK, SIZES, arrays, fit, noisy, planted, prepared, random_factors, sweeps

NN = ts.NonNegative


def test_signed_factors_of_order_three_and_rank_four_from_random_starts():
    rng = np.random.default_rng(1)
    truth = {mode: rng.standard_normal((size, 4)) for mode, size in (("p", 20), ("e", 18), ("t", 12))}
    data = planted("pet", rng, rank=4, factors=truth)
    scores = []
    for seed in range(10):
        found = fit(data, ts.CP(4), start=ts.Random(), seed=seed, max_sweeps=2000)
        scores.append(match_factors(list(truth.values()), [arrays(found)[mode] for mode in truth]).score)
    assert sum(score > 0.999 for score in scores) >= 9, scores


@pytest.mark.parametrize("dead", ["p", "e", "pet"])
def test_dead_columns_of_a_start_come_alive(dead):
    rng = np.random.default_rng(1)
    data = planted("pet", rng)
    start = {mode: rng.random((SIZES[mode], RANK)) for mode in "pet"}
    for mode in dead:
        start[mode][:, 1] = 0
    found = fit(data, ts.NMF(RANK), start=ts.From(start))
    assert all(np.isfinite(factor).all() for factor in found.factors.values())
    assert (found.weights > 0).all()
    assert np.linalg.norm(found.residual()) < 1e-5 * np.linalg.norm(data)


def test_a_start_of_zeros_is_no_worse():
    data = planted("pet", np.random.default_rng(1))
    start = {mode: np.zeros((SIZES[mode], RANK)) for mode in "pet"}
    found = fit(data, ts.NMF(RANK), start=ts.From(start))
    assert all(np.isfinite(factor).all() for factor in found.factors.values())
    assert float(found.explained) > 0.9  # components that start alike may stay alike


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_components_that_a_penalty_kills_stay_finite(solver):
    data = noisy("pet", np.random.default_rng(2)).clip(0)
    for strength, alive in ((1e4, False), (8.0, True)):
        model = ts.CP(RANK, {"p": [NN(), ts.Sparse(strength)], "e": NN(), "t": NN()})
        problem = prepared(data, model, solver=solver)
        _, last, kept, _ = sweeps(problem, random_factors(problem, 0))
        assert (np.diff(kept) <= 0).all() and np.isfinite(kept).all()
        assert all(np.isfinite(factor).all() for factor in last.factors.values())
        for mode in "et":
            np.testing.assert_allclose(np.linalg.norm(last.factors[mode], axis=0), 1, rtol=1e-12)
        assert np.any(np.asarray(last.factors["p"]) > 0) == alive
        if not alive:
            assert float(last.objective) == pytest.approx(float(problem.problem.square_norm), rel=1e-12)
            assert int(last.sweeps) < 64 or kept[-1] == kept[-2]


def test_rank_one_is_the_singular_value_decomposition():
    data = noisy("pe", np.random.default_rng(3))
    left, values, right = np.linalg.svd(data.values)
    found = fit(data, ts.CP(1), start=ts.Random(), tol=1e-12)
    assert float(found.weights[0]) == pytest.approx(values[0], rel=1e-9)
    expected = values[0] * np.outer(left[:, 0], right[0])
    np.testing.assert_allclose(found.reconstruct(), expected, atol=1e-6 * values[0])
    assert float(found.explained) == pytest.approx(values[0] ** 2 / np.sum(values**2), rel=1e-9)


@pytest.mark.parametrize(("modes", "rank"), [("st", 6), ("ets", 6 * 8)])
def test_the_highest_rank_reproduces_anything(modes, rank):
    shape = [SIZES[mode] for mode in modes]
    data = xr.DataArray(np.random.default_rng(4).standard_normal(shape), dims=tuple(modes))
    found = fit(data, ts.CP(rank), start=ts.Random(), max_sweeps=500)
    assert float(found.explained) > 1 - 1e-9
    with pytest.raises(ts.RankOutOfRange, match=f"determine at most {rank} components"):
        fit(data, ts.CP(rank + 1))
