"""Poisson, beta and Huber: the stated objective falls in every sweep, alone, coupled, with gaps and penalties."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.algebra.majoriser import Majoriser
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.solvers.base import Block, block_value

from . import reference
from .runs import RANK, SIZES, planted, prepared, random_factors, sweeps

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(21)
NN, Sparse, Soft = ts.NonNegative, ts.Sparse, ts.SoftOrthogonal
COUNTS = {"attrs": {"noise": ts.NoiseModel().to_attrs()}}


def counts(modes, mean=4.0):
    clean = planted(modes, RNG)
    return xr.DataArray(RNG.poisson(clean / clean.mean() * mean).astype(float), dims=clean.dims, **COUNTS)


CUBE, SHEET = counts("pet"), counts("ps")
MASK = xr.DataArray(RNG.random(CUBE.shape) > 0.3, dims=CUBE.dims)
KNOWN = np.full((SIZES["e"], RANK), np.nan)
KNOWN[:, 0], KNOWN[3, 1] = RNG.random(SIZES["e"]), 0.5
PLAIN = ts.Multiplicative(extrapolate=False)

CASES = {
    "plain": ({}, "et"),
    "sparse": ({"p": Sparse(2.0), "e": Sparse(3.0), "t": Sparse(0.5), "s": Sparse(0.5)}, "et"),
    "soft orthogonal": ({"p": Soft(0.05), "e": Soft(5.0)}, "et"),
    "known": ({"p": Sparse(1.0), "e": ts.Fixed(KNOWN)}, "t"),
    "box": ({"e": ts.Box(0, 0.4)}, "t"),
}


def divergence(values, factors, modes, entries=1.0):
    fitted = reference.model(factors, modes)
    return float(np.sum(entries * (fitted - values + values * np.log(np.where(values > 0, values / fitted, 1)))))


def penalties(constraints, factors):
    return sum(reference.penalty(item, factors[mode]) for mode, item in constraints.items() if mode in factors)


SURPLUS = {"plain", "soft orthogonal"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.exhaustive] * (n in SURPLUS)) for n in CASES])
def test_poisson_falls_in_every_sweep(name):
    constraints, unit = CASES[name]
    constraints = {mode: item for mode, item in constraints.items() if mode in CUBE.dims}
    problem = prepared(
        CUBE, ts.NMF(RANK, constraints), solver=PLAIN, loss={"data": ts.Poisson()}, mask=MASK, rescale=True
    )
    assert problem.solver == "Multiplicative" and problem.scales == [1.0]
    for seed in range(2):
        _, last, _, tried = sweeps(problem, random_factors(problem, seed))
        assert len(tried) > 30
        assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-12
        factors = {mode: np.asarray(values) for mode, values in last.factors.items()}
        for mode in unit:
            free = [r for r in range(RANK) if not problem.problem.constraints[mode].fixed_columns[r]]
            np.testing.assert_allclose(np.linalg.norm(factors[mode][:, free], axis=0), 1, rtol=1e-12)
        own = divergence(CUBE.values, factors, CUBE.dims, MASK.values) + penalties(constraints, factors)
        np.testing.assert_allclose(float(last.objective), own, rtol=1e-9)
        assert max(float(r.violation(last.factors[m])) for m, r in problem.problem.constraints.items()) < 1e-15


@pytest.mark.parametrize("name", [pytest.param("plain", marks=pytest.mark.exhaustive), "sparse"])
@pytest.mark.parametrize("other", [ts.LeastSquares(sigma=0.5), ts.Poisson(), ts.Huber(1.0)], ids=repr)
def test_tensors_of_different_losses_fall_together(name, other):
    """All terms are in units of a log-likelihood, and a mode that both tensors have is updated by the sum of bounds."""
    sheet = SHEET if isinstance(other, ts.Poisson) else SHEET + 0.5 * RNG.standard_normal(SHEET.shape)
    constraints, _ = CASES[name]
    problem = prepared(
        {"cube": CUBE, "sheet": sheet},
        ts.NMF(RANK, constraints),
        solver=ts.Multiplicative(extrapolate=False) if not isinstance(other, ts.LeastSquares) else "auto",
        loss={"cube": ts.Poisson(), "sheet": other},
        mask={"cube": MASK},
    )
    assert problem.scales == [1.0, 1.0]
    for seed in range(2):
        _, last, kept, tried = sweeps(problem, random_factors(problem, seed))
        if not isinstance(other, ts.LeastSquares):
            assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-12
        assert np.max(np.diff(kept)) <= 0
        factors = {mode: np.asarray(values) for mode, values in last.factors.items()}
        residual = sheet.values - reference.model(factors, "ps")
        if isinstance(other, ts.LeastSquares):
            second = 0.5 * np.sum(residual**2) / 0.25
            assert problem.weights == [1.0, 1.0]
        elif isinstance(other, ts.Huber):
            size = np.abs(residual)
            second = problem.weights[1] * np.sum(np.where(size < 1, size**2 / 2, size - 0.5))
        else:
            second = divergence(sheet.values, factors, "ps")
        own = divergence(CUBE.values, factors, CUBE.dims, MASK.values) + second + penalties(constraints, factors)
        np.testing.assert_allclose(float(last.objective), own, rtol=1e-9)
        norms = {mode: np.sum(factors[mode] ** 2, axis=0) for mode in "ts"}
        np.testing.assert_allclose(sum(w * n for w, n in zip(problem.weights, norms.values(), strict=True)), 1)


@pytest.mark.parametrize("beta", [0, 1.5, 3, *(pytest.param(b, marks=pytest.mark.exhaustive) for b in (0.5, 1, 2))])
def test_beta_falls_in_every_sweep(beta):
    model = ts.NMF(RANK, {"e": Sparse(0.5)})
    problem = prepared(CUBE + 0.5, model, solver=PLAIN, loss={"data": ts.Beta(beta)}, mask=MASK)
    _, last, _, tried = sweeps(problem, random_factors(problem, 0))
    assert len(tried) > 30
    assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-10
    fitted = reference.model(last.factors, CUBE.dims)
    own = ts.Beta(beta).value(jnp.asarray(CUBE.values + 0.5), jnp.asarray(fitted), jnp.asarray(MASK.values))
    own += 0.5 * np.abs(last.factors["e"]).sum()
    np.testing.assert_allclose(float(last.objective), float(own), rtol=1e-9)


@pytest.mark.parametrize("solver", [ts.HALS(extrapolate=False), ts.AOADMM(extrapolate=False)], ids=["HALS", "AOADMM"])
def test_huber_falls_in_every_sweep(solver):
    data = CUBE.astype(float)
    data.values[RNG.random(data.shape) < 0.03] += 100
    problem = prepared(data, ts.NMF(RANK, {"e": Sparse(0.1)}), solver=solver, loss={"data": ts.Huber(3.0)}, mask=MASK)
    _, last, _, tried = sweeps(problem, random_factors(problem, 0))
    assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-12
    factors = {mode: np.asarray(values) for mode, values in last.factors.items()}
    scale = problem.scales[0]
    size = np.abs(scale * data.values - reference.model(factors, CUBE.dims)) * MASK.values
    delta = 3.0 * scale  # in units of the data, rescaled with them
    own = np.sum(np.where(size < delta, size**2 / 2, delta * (size - delta / 2))) + 0.1 * factors["e"].sum()
    np.testing.assert_allclose(float(last.objective), own, rtol=1e-9)


def test_extrapolation_pays_and_never_returns_a_higher_objective():
    first = {"data": ts.Poisson()}
    slow = prepared(CUBE, ts.NMF(RANK), solver=PLAIN, loss=first)
    fast = prepared(CUBE, ts.NMF(RANK), solver=ts.Multiplicative(), loss=first)
    rejected, gained = 0, 0
    for seed in range(4):
        start = random_factors(slow, seed)
        _, _, plain, _ = sweeps(slow, start)
        _, _, kept, tried = sweeps(fast, start)
        assert np.max(np.diff(kept)) <= 0
        rejected += int(np.sum(tried > kept))
        gained += kept[-1] < plain[-1]
    assert rejected > 0
    assert gained >= 3


def test_columns_at_unit_norm_are_the_minimum_of_the_bound():
    """The conditions of the minimum, for columns whose free minimum is too short and too long."""
    size = 4
    old = RNG.random((size, RANK))
    old /= np.linalg.norm(old, axis=0)
    pull = RNG.random((size, RANK)) * np.array([0.1, 0.2, 30.0])
    bound = Majoriser((-1.0, 0.0), (jnp.asarray(-old * pull), jnp.asarray(RNG.random((1, RANK)) + np.zeros_like(old))))
    rules = ModeConstraints((NN(), Sparse(jnp.asarray(0.5))), RANK)
    block = Block([bound], [jnp.asarray(old)], [rules], [jnp.ones(RANK)])
    found = np.asarray(ts.Multiplicative().step(block, ())[0][0])
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-12)
    assert float(block_value(block, [jnp.asarray(found)])) <= float(block_value(block, [jnp.asarray(old)]))
    for r, expected in enumerate((False, False, True)):
        weight = -np.asarray(bound.coefficients[0])[:, r]
        push = np.asarray(bound.coefficients[1])[:, r] + 0.5
        # Where the free minimum is too long, its bound is convex inside the unit ball; too short, a slope that on the
        # sphere is a constant less curvature is added, with the least factor that makes the column long enough.
        long = np.linalg.norm(weight / push) >= 1
        assert long == expected
        a = found[:, r]
        away = weight / a - push  # what is left of the slope: along the column, or along the old one
        along = a if long else -old[:, r]
        multiplier = (away @ along) / (along @ along)
        assert multiplier > 0
        np.testing.assert_allclose(away, multiplier * along, atol=1e-9 * np.abs(weight / a).max())
