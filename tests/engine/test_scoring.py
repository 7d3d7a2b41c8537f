"""Likelihoods beside constraints that tie entries: the answer of cvxpy, descent in every sweep, and no lost zeros."""

import cvxpy as cp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.fit.likelihood import strength_units
from tensorspec.solvers.sweep import run_chunk

from . import reference
from .runs import LENGTH, RANK, SIZES, prepared, random_factors, sweeps

RNG = np.random.default_rng(8)
MAPS, SPECTRA = RNG.dirichlet([0.7] * RANK, SIZES["p"]), 40 * RNG.dirichlet([0.5] * SIZES["e"], RANK).T
COUNTS = {"attrs": {"noise": ts.NoiseModel().to_attrs()}}
SHEET = xr.DataArray(RNG.poisson(MAPS @ SPECTRA.T).astype(float), dims=("p", "e"), **COUNTS)
TILTS = 1 + RNG.random((SIZES["t"], RANK))
CUBE = xr.DataArray(
    RNG.poisson(np.einsum("pr,er,tr->pet", MAPS, SPECTRA, TILTS)).astype(float), dims=("p", "e", "t"), **COUNTS
)
MASK = xr.DataArray(RNG.random(CUBE.shape) > 0.3, dims=CUBE.dims)
POISSON = {"data": ts.Poisson()}


def settled(problem, factors, chunks=20):
    """The state when nothing changes any more, and the objective kept of every sweep."""
    _, state, kept, _ = sweeps(problem, factors, tol=1e-13)
    for _ in range(chunks):
        state, more, _ = run_chunk(problem.model, problem.program, problem.problem, state, 1e-13, LENGTH, LENGTH)
        kept = np.concatenate([kept, more[np.isfinite(more)]])
    return state, kept


def divergence(values, fitted, entries=1.0):
    return float(np.sum(entries * (fitted - values + values * np.log(np.where(values > 0, values / fitted, 1)))))


def bends(a):
    return 15 * cp.sum_squares(a[2:] - 2 * a[1:-1] + a[:-2])


def steps(a):
    return 4 * cp.sum(cp.abs(a[1:] - a[:-1]))


def sums(a):
    return cp.sum(a, axis=1) == 1


slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive
CONVEX = {
    "simplex": ([ts.SumToOne("component")], None, sums),
    "smooth": ([ts.Smooth(30.0)], bends, None),
    "columns sum to one": ([ts.SumToOne("mode")], None, lambda a: cp.sum(a, axis=0) == 1),
    "total variation": ([ts.TotalVariation(4.0)], steps, None),
    "group sparse": ([ts.GroupSparse(9.0)], lambda a: 9 * sum(cp.norm(a[:, r]) for r in range(RANK)), None),
    "monotone": ([ts.Monotone()], None, lambda a: a[1:] >= a[:-1]),
    "near": ([ts.Near(MAPS, 50.0)], lambda a: 25 * cp.sum_squares(a - MAPS), None),
}
QUICK = ("simplex", "smooth")


def by_cvxpy(penalty, allowed):
    a = cp.Variable(MAPS.shape, nonneg=True)
    cost = cp.sum(cp.kl_div(SHEET.values, a @ SPECTRA.T)) + (0 if penalty is None else penalty(a))
    problem = cp.Problem(cp.Minimize(cost), [] if allowed is None else [allowed(a)])
    return float(problem.solve(solver="CLARABEL", tol_gap_rel=1e-10, tol_gap_abs=1e-10, tol_feas=1e-10))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # cvxpy, at the tolerances asked for
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else slow) for n in CONVEX])
def test_the_minimum_of_cvxpy(name):
    """Spectra known, so that the question is convex; the start has zeros, and none is kept that should not be."""
    items, penalty, allowed = CONVEX[name]
    model = ts.NMF(RANK, {"e": ts.Fixed(SPECTRA), "p": items})
    problem = prepared(SHEET, model, loss=POISSON)
    assert "AOADMM" in problem.solver and "Fisher scoring" in problem.why
    start = random_factors(problem, 0)
    start["p"] = start["p"].at[::2, 0].set(0.0)
    state, kept = settled(problem, start)
    assert np.max(np.diff(kept)) <= 0
    assert float(problem.problem.constraints["p"].violation(state.factors["p"])) < 1e-10
    assert float(state.objective) == pytest.approx(by_cvxpy(penalty, allowed), rel=1e-7)


@pytest.mark.slow
def test_every_solver_of_least_squares_takes_a_likelihood():
    model = ts.NMF(RANK, {"e": ts.Fixed(SPECTRA)})
    found = {}
    for solver in (ts.HALS(), ts.AOADMM(), ts.Multiplicative()):
        problem = prepared(SHEET, model, loss=POISSON, solver=solver)
        assert problem.solver == type(solver).__name__
        found[problem.solver] = float(settled(problem, random_factors(problem, 0))[0].objective)
    assert list(found.values()) == pytest.approx([by_cvxpy(None, None)] * 3, rel=1e-8)


TIED = {
    "simplex": ({"p": ts.SumToOne("component")}, "e"),
    "smooth": ({"e": ts.Smooth(2.0)}, "et"),
    "unimodal, total variation": ({"e": ts.Unimodal(), "p": ts.TotalVariation(1.0)}, "et"),
    "volume, relevance": ({"e": ts.MinimumVolume(3.0), "p": ts.ARD(0.5)}, "et"),
}


def penalty_of(items, factors):
    total = 0.0
    for mode, given in items.items():
        values = np.asarray(factors[mode], float)
        for item in given if isinstance(given, list) else [given]:
            kind = type(item).__name__
            if kind == "Smooth":
                total += 0.5 * float(item.strength) * np.sum(np.diff(values, 2, axis=0) ** 2)
            elif kind == "TotalVariation":
                total += float(item.strength) * np.abs(np.diff(values, axis=0)).sum()
            elif kind == "MinimumVolume":
                total += float(item.strength) * np.linalg.slogdet(np.eye(RANK) + values.T @ values / 0.1)[1]
            elif kind == "ARD":
                cut = 0.01 * np.sqrt(0.5) * len(values)
                total += 0.5 * (len(values) + 2) * np.log1p(values.sum(axis=0) / cut).sum()
            elif kind == "Sparse":
                total += float(item.strength) * np.abs(values).sum()
    return float(total)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n if k < 2 else pytest.param(n, marks=exhaustive) for k, n in enumerate(TIED)])
def test_it_falls_in_every_sweep(name):
    """Of an order-3 tensor with gaps: the stated objective, and what is stated is what is minimised."""
    constraints, unit = TIED[name]
    problem = prepared(CUBE, ts.NMF(RANK, constraints), loss=POISSON, mask=MASK)
    assert "AOADMM" in problem.solver and problem.scales == [1.0]
    _, state, kept, _ = sweeps(problem, random_factors(problem, 1))
    assert np.max(np.diff(kept)) <= 0 and len(kept) > 20
    factors = {mode: np.asarray(values) for mode, values in state.factors.items()}
    own = divergence(CUBE.values, reference.model(factors, CUBE.dims), MASK.values)
    assert float(state.objective) == pytest.approx(own + penalty_of(constraints, factors), rel=1e-9)
    worst = [float(rule.violation(state.factors[mode])) for mode, rule in problem.problem.constraints.items()]
    assert max(worst) < 1e-9
    for mode in unit:
        np.testing.assert_allclose(np.linalg.norm(factors[mode], axis=0), 1, rtol=1e-9)


def test_automatic_strengths_in_units_of_the_likelihood():
    """The rule of least squares, times the curvature of the loss at the mean of the data."""
    mean, square = float(SHEET.mean()), float((SHEET**2).mean())
    for mode, unit in (("p", 1.0), ("e", square)):
        problem = prepared(SHEET, ts.NMF(RANK, {mode: ts.SoftOrthogonal()}), loss=POISSON)
        expected = 0.03 * np.sqrt(mean / square) / (1 - mean / square) / mean * unit
        text = next(item for item in problem.strengths[mode] if item.startswith("SoftOrthogonal"))
        assert float(text.split("=")[1].rstrip(")")) == pytest.approx(expected, rel=1e-9)
        assert problem.noise_level == pytest.approx(np.sqrt(mean / square))
    problem = prepared(SHEET, ts.NMF(RANK, {"p": ts.ARD()}), loss=POISSON)
    relevance = next(item for item in problem.problem.constraints["p"].members if isinstance(item, ts.ARD))
    assert (float(relevance.strength), float(relevance.noise)) == pytest.approx((1.0, np.sqrt(mean)))


def test_units_of_a_likelihood_change_nothing_for_squares():
    """Tensors of least squares with weights of one over the variance: the level that they have without a likelihood."""
    sheet = SHEET.rename(e="s") * 3.0 + 1.0
    data = {"sheet": SHEET, "other": sheet + 0.5 * np.random.default_rng(2).standard_normal(sheet.shape)}
    plain = prepared(data, ts.NMF(RANK))
    weights = {key: 1 / plain.noise[key][0] for key in data}
    level, deviation, amplitudes, shapes = strength_units(
        dict.fromkeys(data, ts.LeastSquares()), plain.clean, weights, plain.noise
    )
    assert (level, deviation, amplitudes) == pytest.approx((plain.noise_level, 1.0, 1.0))
    assert np.isnan(shapes)


@pytest.mark.slow
def test_tensors_of_counts_and_of_squares_share_a_simplex():
    """Both losses are asked for their quadratics on the shared mode, and the sum falls."""
    rng = np.random.default_rng(1)  # of its own, so that the data are the same whichever tests ran before
    squares = xr.DataArray(MAPS @ rng.random((RANK, SIZES["s"])) + 0.05 * rng.standard_normal((12, 8)), dims=("p", "s"))
    problem = prepared(
        {"counts": SHEET, "squares": squares},
        ts.NMF(RANK, {"p": ts.SumToOne("component")}),
        loss={"counts": ts.Poisson(), "squares": ts.LeastSquares(sigma=0.05)},
    )
    state, kept = settled(problem, random_factors(problem, 0), chunks=30)
    assert np.max(np.diff(kept)) <= 0
    maps, spectra, other = (np.asarray(state.factors[mode]) for mode in "pes")
    residual = squares.values - maps @ other.T
    own = divergence(SHEET.values, maps @ spectra.T) + 0.5 * np.sum(residual**2) / 0.05**2
    assert float(state.objective) == pytest.approx(own, rel=1e-9)
    # Every pixel has spent its unit where the slope is least: the gap of Frank and Wolfe, which bounds what is left.
    slope = (1 - SHEET.values / (maps @ spectra.T)) @ spectra - residual @ other / 0.05**2
    gap = np.sum(maps * slope) - np.sum(slope.min(axis=1))
    assert 0 <= gap < 1e-4 * own


@pytest.mark.slow
def test_single_precision():
    model = ts.NMF(RANK, {"e": ts.Fixed(SPECTRA), "p": ts.SumToOne("component")})
    problem = prepared(SHEET.astype(np.float32), model, loss=POISSON)
    assert problem.dtype == np.float32
    state, kept = settled(problem, random_factors(problem, 0), chunks=2)
    assert state.factors["p"].dtype == np.float32
    assert np.max(np.diff(kept)) <= 0
    assert float(state.objective) == pytest.approx(by_cvxpy(None, sums), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, pytest.param(3, marks=exhaustive)])
def test_beta_falls_too(beta):
    problem = prepared(SHEET + 0.5, ts.NMF(RANK, {"p": ts.SumToOne("component")}), loss={"data": ts.Beta(beta)})
    _, state, kept, _ = sweeps(problem, random_factors(problem, 0))
    assert np.max(np.diff(kept)) <= 0 and kept[-1] < 0.7 * kept[0]
    own = ts.Beta(beta).value(SHEET.values + 0.5, reference.model(state.factors, "pe"))
    assert float(state.objective) == pytest.approx(float(own), rel=1e-9)
