"""One minimum for both solvers: where one has converged, the other has nothing to gain."""

import numpy as np
import pytest

import tensorspec as ts

from .runs import RANK, SIZES, fit, noisy

ADMM = ts.AOADMM(inner=3)  # few iterations reach the tolerance in fewer sweeps along the flat valleys of these cases
NN, Sparse, Soft = ts.NonNegative, ts.Sparse, ts.SoftOrthogonal
RNG = np.random.default_rng(12)
DATA = {"cube": noisy("pet", RNG).clip(0), "sheet": noisy("ps", RNG).clip(0)}
WEIGHTS = {"cube": 0.8, "sheet": 1.4}
KNOWN = RNG.random((SIZES["e"], 1))
EVERYWHERE = dict.fromkeys(SIZES, NN())
CASES = {
    "signed": {},
    "sparse": {mode: [NN(), Sparse(0.1)] for mode in SIZES},
    "soft orthogonal": {**EVERYWHERE, "p": [NN(), Soft(0.02)]},
    "known, simplex": {
        **EVERYWHERE,
        "p": [NN(), Sparse(0.05)],
        "e": [NN(), ts.Fixed(KNOWN, components=[2])],
        "s": [NN(), ts.SumToOne("mode")],
    },
}


@pytest.mark.parametrize(
    "name", [name if name == "sparse" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_the_other_solver_finds_nothing_more(name):
    model = ts.CP(RANK, CASES[name])
    options = {"weights": WEIGHTS, "tol": 1e-10, "max_sweeps": 3000}
    for one, other in ((ts.HALS(), ADMM), (ADMM, ts.HALS())):
        first = fit(DATA, model, solver=one, start=ts.Random(), **options)
        assert first.converged and type(one).__name__ in first.solver
        second = fit(DATA, model, solver=other, start=ts.From(first), **options)
        assert float(second.history[0]) == pytest.approx(first.objective, rel=1e-10)
        assert second.objective == pytest.approx(first.objective, rel=1e-6)
        assert second.objective <= first.objective * (1 + 1e-12)
