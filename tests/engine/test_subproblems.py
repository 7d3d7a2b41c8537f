"""The question of one mode against references that know neither HALS nor AO-ADMM, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.simplex import Simplex
from tensorspec.solvers.base import Block

from . import reference
from .blocks import DATA, DESIGN, EQUATIONS, RANK, SIZE, WEIGHTS, outcome, rules

NN, Sparse = ts.NonNegative, ts.Sparse


def test_non_negative_least_squares_of_scipy():
    answer = outcome([NN()], ts.HALS(inner=50)).factor
    np.testing.assert_allclose(answer, [nnls(DESIGN, row)[0] for row in DATA], atol=1e-10)
    answer = outcome([NN()], ts.HALS(inner=50), "weighted").factor
    for row, weight, found in zip(DATA, np.sqrt(WEIGHTS), answer, strict=True):
        np.testing.assert_allclose(found, nnls(DESIGN * weight[:, None], row * weight)[0], atol=1e-10)


def test_bounded_least_squares_of_scipy():
    answer = outcome([ts.Box(-0.2, 0.4)], ts.HALS(inner=50)).factor
    exact = [lsq_linear(DESIGN, row, (-0.2, 0.4), tol=1e-14, method="bvls").x for row in DATA]
    np.testing.assert_allclose(answer, exact, atol=1e-10)


def test_lasso_by_coordinate_descent():
    answer = outcome([Sparse(2.0)], ts.AOADMM(inner=50)).factor
    np.testing.assert_allclose(answer, reference.lasso(DESIGN.T @ DESIGN, DATA @ DESIGN, 2.0), atol=1e-10)
    assert np.sum(answer == 0) > 0


def test_rows_without_data_are_zero_and_stay_finite():
    gram, right = (part.copy() for part in EQUATIONS["weighted"])
    gram[2], right[2] = 0, 0
    for constraints in ([], [NN()], [Sparse(0.1)]):
        own = rules(constraints)
        start = jnp.asarray(np.random.default_rng(0).random((SIZE, RANK)))
        question = Block([NormalEquations(jnp.asarray(gram), jnp.asarray(right))], [start], [own], None)
        for solver in (ts.HALS(), ts.AOADMM()):
            answer = jax.jit(lambda q, s: s.step(q, s.init(q.factors, q.constraints))[0][0])(question, solver)
            assert np.isfinite(answer).all()
            if isinstance(solver, ts.HALS) or not constraints:
                assert (np.asarray(answer)[2] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 6])
def test_simplex_is_the_nearest_point(size):
    rng = np.random.default_rng(size)
    for scale in (0.1, 1.0, 30.0):
        values = scale * rng.standard_normal(size)
        found = np.asarray(Simplex("mode").project(jnp.asarray(values[:, None])))[:, 0]
        assert found.min() >= 0 and found.sum() == pytest.approx(1, abs=1e-12)
        # Nearest: no feasible direction leads closer, that is, <values - found, corner - found> <= 0 for every corner.
        assert max((values - found) @ (corner - found) for corner in np.eye(size)) <= 1e-12 * scale
        by_row = np.asarray(Simplex("component").project(jnp.asarray(values[None])))[0]
        np.testing.assert_allclose(by_row, found, atol=1e-15)
        sums = np.asarray(ts.SumToOne("mode").project(jnp.asarray(values[:, None])))[:, 0]
        np.testing.assert_allclose(sums, values - (values.sum() - 1) / size, atol=1e-13 * max(scale, 1))


def test_a_partner_keeps_its_other_components():
    own = rules([NN(), ts.SumToOne("mode", components=[1, 3])])
    assert own.splits == 1 and own.nonnegative
    values = jnp.asarray(np.random.default_rng(0).standard_normal((SIZE, RANK)))
    found = np.asarray(own.prox(values, 1.0))
    assert found.min() == 0
    np.testing.assert_allclose(found[:, [0, 2]].sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_array_equal(found[:, 1], np.maximum(values[:, 1], 0))
    for column in range(RANK):
        np.testing.assert_allclose(own.prox(values[:, column], 1.0, column=column), found[:, column], atol=1e-15)
