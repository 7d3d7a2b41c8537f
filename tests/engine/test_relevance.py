"""What automatic relevance determination minimises falls at every sweep, and what has died stays dead."""

import numpy as np
import pytest

import tensorspec as ts

from .runs import RANK, noisy, prepared, random_factors, sweeps

ALPHA, CUT_OFF = 1.0, 0.01


def stated(factor, strength):
    """The documented value, in plain numpy."""
    factor = np.asarray(factor, float)
    size = len(factor)
    cut = CUT_OFF * np.sqrt(strength) * size
    return strength * (size + ALPHA + 1) * np.log1p(np.abs(factor).sum(axis=0) / cut).sum()


@pytest.mark.parametrize("solver", [ts.HALS(extrapolate=False), ts.HALS(), ts.AOADMM()], ids=str)
def test_the_stated_objective_falls_at_every_sweep(solver):
    sheet = noisy(("p", "s"), np.random.default_rng(3), level=0.3)
    values = sheet.values / np.sqrt(np.mean(sheet.values**2))
    model = ts.NMF(RANK, {"p": ts.ARD(0.02)})
    problem = prepared(sheet, model, solver=solver)
    died = 0
    for seed in range(4):
        first, last, kept, tried = sweeps(problem, random_factors(problem, seed))
        assert len(kept) > 20
        for state in (first, last):
            factors = {mode: np.asarray(state.factors[mode]) for mode in "ps"}
            np.testing.assert_allclose(np.linalg.norm(factors["s"], axis=0), 1, rtol=1e-12)
            own = 0.5 * np.square(values - factors["p"] @ factors["s"].T).sum() + stated(factors["p"], 0.02)
            np.testing.assert_allclose(float(state.objective), own, rtol=1e-12)
        assert (np.diff(kept) <= 0).all()
        if not solver.extrapolate:
            assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-12
        died += int(np.sum(np.asarray(last.factors["p"]).sum(axis=0) == 0))
    assert died > 0  # else nothing was at stake


def test_the_dead_stay_dead_and_everything_is_finite():
    sheet = noisy(("p", "s"), np.random.default_rng(3), level=0.3)
    problem = prepared(sheet, ts.NMF(RANK, {"p": ts.ARD(0.002)}))
    # So weak a prior would let the column come back: the data want it.
    factors = random_factors(problem, 0)
    factors["p"] = factors["p"].at[:, 1].set(0.0)
    _, last, kept, _ = sweeps(problem, factors)
    assert (np.asarray(last.factors["p"])[:, 1] == 0).all()
    assert all(np.isfinite(np.asarray(values)).all() for values in last.factors.values())
    assert np.isfinite(kept).all()
