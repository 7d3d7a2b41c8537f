"""What the engine owes to constraints on columns: their strength at unit norm, and a common step for all rows."""

import cvxpy as cp
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import tensorspec as ts
from tensorspec.solvers.base import Block, block_value

from .problems import DESIGN, RANK, SIZE, optimum, question, rules, solved

pytestmark = pytest.mark.slow

BEND = np.diff(np.eye(SIZE), 2, axis=0)


def on_sphere(block):
    start = block.factors[0]
    return block._replace(factors=[start / jnp.linalg.norm(start, axis=0)], norms=[jnp.ones(RANK)])


def repeated(block, solver, count):
    step = eqx.filter_jit(lambda factors, state: solver.step(block._replace(factors=factors), state))
    factors, state, values = block.factors, solver.init(block.factors, block.constraints), []
    for _ in range(count):
        factors, state = step(factors, state)
        values.append(float(block_value(block, factors)))
    return np.asarray(factors[0]), values


@pytest.mark.parametrize("nonnegative", [False, True], ids=["signed", "non-negative"])
@pytest.mark.parametrize("strength", [0.5, 50.0])
def test_a_quadratic_penalty_keeps_its_strength_at_unit_norm(strength, nonnegative):
    items = [ts.Smooth(strength)] + ([ts.NonNegative()] if nonnegative else [])
    block = on_sphere(question(items))
    assert "unit norm" in ts.HALS().refusal(block.constraints[0], False, (True,) * RANK) or nonnegative
    found, values = repeated(block, ts.AOADMM(), 200)
    gram, right = DESIGN.T @ DESIGN, np.asarray(block.equations[0].right)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-10)
    assert np.max(np.diff(values)) <= 1e-13 * abs(values[0])

    def cost(entries):
        factor = entries.reshape(SIZE, RANK)
        factor = factor / np.linalg.norm(factor, axis=0)
        bent = BEND @ factor
        return 0.5 * np.sum((factor.T @ factor) * gram) - np.sum(right * factor) + 0.5 * strength * np.sum(bent**2)

    best = minimize(
        cost,
        found.ravel(),
        method="SLSQP",
        bounds=[(0 if nonnegative else None, None)] * found.size,
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    assert values[-1] == pytest.approx(best.fun, rel=1e-8)


def test_rows_have_a_common_step_where_columns_are_tied():
    items = [ts.NonNegative(), ts.SumToOne("component"), ts.Smooth(2.0)]
    block = question(items, weighted=True)
    _, value = optimum(lambda a: cp.sum_squares(BEND @ a), lambda a: [a >= 0, cp.sum(a, axis=1) == 1], weighted=True)
    assert solved(block, ts.AOADMM(inner=3000))[1] == pytest.approx(value, rel=1e-7)


def test_a_column_that_its_cone_leaves_nothing_of_stays_in_the_cone():
    atoms = np.random.default_rng(0).random((SIZE, 3))
    block = on_sphere(question([ts.Span(atoms)]))
    equations = block.equations[0]._replace(right=-jnp.abs(block.equations[0].right) - 1)
    block = Block([equations], block.factors, block.constraints, block.norms)
    found, values = repeated(block, ts.HALS(inner=1), 60)
    assert float(rules([ts.Span(atoms)]).violation(jnp.asarray(found))) < 1e-12
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-12)
    assert np.max(np.diff(values)) <= 1e-12 * abs(values[0]) and values[-1] < values[0] - 1e-3
