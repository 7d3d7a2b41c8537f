"""A sweep over three or more modes reads the data twice, and comes to what separate products come to."""

from math import prod

import jax
import jax.extend
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.solvers import dimension_tree
from tensorspec.solvers.sweep import _one_sweep, init_state
from tests.engine.runs import noisy, prepared, random_factors

NONNEGATIVE = {mode: ts.NonNegative() for mode in "pets"}


def products_with_data(jaxpr, size):
    """The matrix products of a program, within its branches too, that read as many entries as the data have."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found += any(prod(operand.aval.shape) == size for operand in equation.invars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += products_with_data(inner, size)
    return found


def a_sweep(problem, state):
    return _one_sweep(problem.model, problem.program, problem.problem, state)[0]


def begun(problem, seed=1):
    return init_state(problem.model, problem.program, problem.problem, random_factors(problem, seed))


@pytest.mark.parametrize("modes", ["pe", "pet", "pets"])
@pytest.mark.parametrize("scale", [None, "e"])
def test_the_data_are_read_twice_a_sweep(modes, scale):
    data = noisy(modes, np.random.default_rng(0))
    with jax.enable_x64(True):
        problem = prepared(data, ts.CP(3, {mode: NONNEGATIVE[mode] for mode in modes}, scale=scale))
        traced = jax.make_jaxpr(lambda state: a_sweep(problem, state))(begun(problem))
    assert products_with_data(traced.jaxpr, data.size) == 2


CASES = {
    "plain": ("pet", {}, None, {}),
    "order four": ("pets", {}, None, {}),
    "amplitudes on another mode": ("pet", {"scale": "t"}, None, {}),
    "rows without weight": ("pet", {}, "p", {}),
    "free factors": ("pet", {"constraints": {}}, None, {"signed": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_same_sweep(monkeypatch, case):
    modes, options, masked, start = CASES[case]
    data = noisy(modes, np.random.default_rng(0))
    mask = None if masked is None else (data[masked] != 3).broadcast_like(data).transpose(*modes)
    model = ts.CP(3, **{"constraints": {mode: NONNEGATIVE[mode] for mode in modes}} | options)
    with jax.enable_x64(True):
        problem = prepared(data, model, mask=mask)
        first = init_state(problem.model, problem.program, problem.problem, random_factors(problem, 1, **start))

        def history():
            sweep, state, values = jax.jit(lambda state: a_sweep(problem, state)), first, []
            for _ in range(12):
                state = sweep(state)
                values.append(float(state.objective))
            return values, state.factors

        shared, factors = history()
        asked = []
        monkeypatch.setattr(dimension_tree, "_worth_it", lambda *given: bool(asked.append(given)))
        apart, others = history()
    assert asked
    np.testing.assert_allclose(shared, apart, rtol=1e-11)
    assert shared[-1] < 0.9 * shared[0]
    for mode in factors:
        np.testing.assert_allclose(factors[mode], others[mode], rtol=1e-7, atol=1e-9)


def test_tensors_that_share_a_mode():
    data = {"a": noisy("pet", np.random.default_rng(0)), "b": noisy("ps", np.random.default_rng(1))}
    with jax.enable_x64(True):
        problem = prepared(data, ts.CP(3, NONNEGATIVE))
        traced = jax.make_jaxpr(lambda state: a_sweep(problem, state))(begun(problem))
    assert products_with_data(traced.jaxpr, data["a"].size) == 2
    assert products_with_data(traced.jaxpr, data["b"].size) == 2


def test_an_operator_on_the_first_mode_keeps_the_products_apart():
    binned = noisy("pet", np.random.default_rng(0)).coarsen(p=2).sum()
    data = {"a": binned, "b": noisy("ps", np.random.default_rng(1))}
    with jax.enable_x64(True):
        problem = prepared(data, ts.CP(3, NONNEGATIVE, operators={("a", "p"): ts.Bin(2)}))
        traced = jax.make_jaxpr(lambda state: a_sweep(problem, state))(begun(problem))
    assert products_with_data(traced.jaxpr, data["a"].size) == 3
