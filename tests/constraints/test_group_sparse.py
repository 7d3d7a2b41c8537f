"""GroupSparse: columns that are short vanish as a whole."""

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorspec as ts

from .problems import RANK, SIZE, fit, optimum, question, rules, solved


def norms(a):
    return sum(cp.norm2(a[:, r]) for r in range(RANK))


def test_joint_proximal_maps_by_an_independent_program():
    values = np.random.default_rng(0).standard_normal((SIZE, RANK)) + 0.2
    for sparse in (0.0, 0.5):
        for nonnegative in (False, True):
            items = [ts.GroupSparse(0.9), ts.Sparse(sparse)] + ([ts.NonNegative()] if nonnegative else [])
            both = rules(items)
            assert both.splits == 1
            a = cp.Variable((SIZE, RANK))
            cost = 0.5 * cp.sum_squares(a - values) + 0.7 * (0.9 * norms(a) + sparse * cp.norm1(cp.vec(a, order="C")))
            cp.Problem(cp.Minimize(cost), [a >= 0] if nonnegative else []).solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(both.prox(jnp.asarray(values), 0.7), a.value, atol=1e-4)
    assert rules([ts.GroupSparse(1.0), ts.Box(0.1, 1.0)]).splits == 2
    assert rules([ts.GroupSparse(1.0), ts.Smooth(1.0)]).splits == 2


@pytest.mark.parametrize("strength", [3.0, 12.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["complete", "weighted"])
def test_the_minimum_by_an_independent_program(strength, weighted):
    block = question([ts.NonNegative(), ts.GroupSparse(strength)], weighted)
    _, value = optimum(lambda a: strength * norms(a), lambda a: [a >= 0], weighted)
    assert solved(block, ts.AOADMM(inner=2000))[1] == pytest.approx(value, rel=1e-6)
    if not weighted:
        assert solved(block, ts.HALS(inner=500))[1] == pytest.approx(value, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-2, 1))
def test_the_proximal_map_is_firmly_non_expansive(seed, exponent):
    a, b = np.random.default_rng(seed).standard_normal((2, SIZE, 2))
    item = ts.GroupSparse(10**exponent)
    gap = np.asarray(item.prox(a, 1.0)) - np.asarray(item.prox(b, 1.0))
    assert np.sum(gap**2) <= np.sum(gap * (a - b)) + 1e-12


def image(scale=1.0):
    rng = np.random.default_rng(1)
    clean = (rng.random((8, 8, 2)) ** 2) @ (rng.random((2, 20)) ** 2)
    return xr.DataArray(
        scale * (clean + 0.05 * clean.std() * rng.standard_normal(clean.shape)), dims=("y", "x", "energy")
    )


@pytest.mark.slow
def test_components_too_many_die_at_any_unit_of_the_data():
    model = ts.NMF(4, {"pixel": ts.GroupSparse(2.0)})
    result = fit(image(), model, tol=1e-8, max_sweeps=3000)
    assert result.solver == "HALS"
    assert int((result.weights.values > 0).sum()) == 2
    assert int((fit(image(), ts.NMF(4)).weights.values > 0).sum()) == 4
    for scale in (1e-6, 1e6):
        other = fit(image(scale), model, tol=1e-8, max_sweeps=3000)
        np.testing.assert_allclose(other.weights.values, scale * result.weights.values, rtol=1e-4)


def test_on_unit_norm_it_adds_a_constant():
    strength = 300.0  # more than would leave anything of a column without the norm
    result = fit(image(), ts.NMF(2, {"energy": ts.GroupSparse(strength)}), tol=1e-10, start=ts.Random())
    plain = fit(image(), ts.NMF(2), tol=1e-10, start=ts.Random())
    assert result.objective - 2 * strength == pytest.approx(plain.objective, rel=1e-3)
