"""The question of one mode, with the other factors held: HALS, AO-ADMM and references that know neither."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize, nnls

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.constraints.simplex import Simplex
from tensorspec.solvers.base import Block, block_value

from . import reference

SIZE, RANK, POINTS = 6, 3, 20
RNG = np.random.default_rng(11)
DESIGN = RNG.standard_normal((POINTS, RANK))
DATA = RNG.standard_normal((SIZE, POINTS)) + RNG.random((SIZE, RANK)) @ DESIGN.T
WEIGHTS = (RNG.random((SIZE, POINTS)) > 0.3) * RNG.uniform(0.5, 2, (SIZE, POINTS))
KNOWN = np.full((SIZE, 2), np.nan)
KNOWN[:4, 0], KNOWN[:, 1] = 0.3, RNG.random(SIZE)

NN, Sparse = ts.NonNegative, ts.Sparse
CONVEX = {
    "none": [],
    "non-negative": [NN()],
    "sparse": [Sparse(2.0)],
    "non-negative and sparse": [NN(), Sparse(2.0)],
    "by component": [NN(components=[1]), Sparse(3.0, components=[2])],
    "box": [ts.Box(-0.2, 0.4)],
    "known": [NN(), Sparse(1.0), ts.Fixed(KNOWN, components=[1, 3])],
    "soft orthogonal": [NN(), ts.SoftOrthogonal(1.0)],
    "sum over the mode": [ts.SumToOne("mode")],
    "simplex over the mode": [NN(), ts.SumToOne("mode")],
    "simplex of two, the third non-negative": [NN(), ts.SumToOne("mode", components=[1, 3])],
}
# What ties a row together is for AO-ADMM alone.
ROWS = {
    "sum over components": [ts.SumToOne("component")],
    "simplex over components": [NN(), ts.SumToOne("component")],
    "simplex over two components": [NN(), ts.SumToOne("component", components=[1, 2])],
    "simplex, sparse": [NN(), ts.SumToOne("component"), Sparse(1.0, components=[2])],
    "simplex in a box": [NN(), ts.SumToOne("component"), ts.Box(0.0, 0.6)],
}
EQUATIONS = {
    "complete": (DESIGN.T @ DESIGN, DATA @ DESIGN),
    "weighted": (np.einsum("nk,kr,ks->nrs", WEIGHTS, DESIGN, DESIGN), (WEIGHTS * DATA) @ DESIGN),
}


def rules(constraints):
    traced = [jax.tree.map(lambda leaf: jnp.asarray(leaf, float), item) for item in combine(constraints)]
    return ModeConstraints(tuple(traced), RANK)


def block(constraints, kind):
    own = rules(constraints)
    start = jnp.asarray(np.random.default_rng(5).random((SIZE, RANK)))
    for _ in range(50):
        for split in range(own.splits):
            start = own.prox(start, 0.0, split=split)
    gram, right = EQUATIONS[kind]
    return Block([NormalEquations(jnp.asarray(gram), jnp.asarray(right))], [start], [own], None)


@eqx.filter_jit
def stepped(question, solver):
    return solver.step(question, solver.init(question.factors, question.constraints))[0][0]


def solved(question, solver):
    answer = stepped(question, solver)
    assert float(question.constraints[0].violation(answer)) < 1e-12
    return np.asarray(answer), float(block_value(question, [answer]))


def by_quadratic_program(constraints, kind):
    """The minimum by scipy alone: positive and negative parts, sums as linear constraints, one program for all."""
    gram, right = EQUATIONS[kind]
    gram = np.broadcast_to(gram, (SIZE, RANK, RANK)).copy()
    lower, upper = np.full((SIZE, RANK), -10.0), np.full((SIZE, RANK), 10.0)
    strength, sums = np.zeros(RANK), []
    for item in constraints:
        columns = [k - 1 for k in item.components] if item.components else list(range(RANK))
        match item:
            case ts.NonNegative():
                lower[:, columns] = np.maximum(lower[:, columns], 0)
            case ts.Box():
                lower[:, columns], upper[:, columns] = item.lower, item.upper
            case ts.Sparse():
                strength[columns] += item.strength
            case ts.Fixed():
                for column, values in zip(columns, item.values.T, strict=True):
                    held = ~np.isnan(values)
                    lower[held, column] = upper[held, column] = values[held]
            case ts.SoftOrthogonal():
                gram += item.strength * (np.ones((RANK, RANK)) - np.eye(RANK))
            case ts.SumToOne():
                for place in columns if item.axis == "mode" else range(SIZE):
                    chosen = np.zeros((SIZE, RANK))
                    chosen[(slice(None), place) if item.axis == "mode" else (place, columns)] = 1
                    sums.append(chosen.ravel())
    # With a = p - q, p and q of zero or more, the absolute value is p + q.
    both = [(max(lo, 0), max(hi, 0)) for lo, hi in zip(lower.ravel(), upper.ravel(), strict=True)]
    both += [(max(-hi, 0), max(-lo, 0)) for lo, hi in zip(lower.ravel(), upper.ravel(), strict=True)]
    cost = np.broadcast_to(strength, (SIZE, RANK)).ravel()

    def value(parts):
        factor = (parts[: SIZE * RANK] - parts[SIZE * RANK :]).reshape(SIZE, RANK)
        slope = np.einsum("nr,nrs->ns", factor, gram) - right
        total = 0.5 * np.sum(factor * (slope - right)) + cost @ (parts[: SIZE * RANK] + parts[SIZE * RANK :])
        return total, np.concatenate([slope.ravel() + cost, cost - slope.ravel()])

    equal = [
        {"type": "eq", "fun": lambda z, s=s: s @ (z[: len(s)] - z[len(s) :]) - 1, "jac": lambda z, s=s: np.r_[s, -s]}
        for s in sums
    ]
    start = np.clip(np.full(2 * SIZE * RANK, 0.2), [lo for lo, _ in both], [hi for _, hi in both])
    found = minimize(
        value, start, jac=True, bounds=both, constraints=equal, method="SLSQP", options={"maxiter": 2000, "ftol": 1e-12}
    )
    return float(found.fun)


def questions(names, quick):
    """Every set of constraints on both kinds of equations; most of the weighted ones in the slow run alone."""
    return [
        pytest.param(name, kind, marks=() if kind == "complete" or name in quick else pytest.mark.slow)
        for name in names
        for kind in EQUATIONS
    ]


@pytest.mark.parametrize(
    ("name", "kind"), questions(CONVEX, {"non-negative and sparse", "known", "soft orthogonal", "sum over the mode"})
)
def test_hals_and_admm_agree(name, kind):
    question = block(CONVEX[name], kind)
    exact = by_quadratic_program(CONVEX[name], kind)
    _, admm = solved(question, ts.AOADMM(inner=3000))
    assert admm == pytest.approx(exact, rel=1e-6)
    per_row = kind == "weighted"
    if ts.HALS().refusal(question.constraints[0], per_row, (False,) * RANK) is None:
        _, hals = solved(question, ts.HALS(inner=2000))
        assert hals == pytest.approx(exact, rel=1e-6)
        assert hals == pytest.approx(admm, rel=1e-9)
    else:
        assert per_row and "mode" in name or "third" in name


@pytest.mark.parametrize(("name", "kind"), questions(ROWS, {"simplex in a box"}))
def test_admm_takes_what_ties_rows(name, kind):
    question = block(ROWS[name], kind)
    assert ts.HALS().refusal(question.constraints[0], kind == "weighted", (False,) * RANK) is not None
    _, admm = solved(question, ts.AOADMM(inner=3000))
    assert admm == pytest.approx(by_quadratic_program(ROWS[name], kind), rel=1e-6)


def test_non_negative_least_squares_of_scipy():
    answer, _ = solved(block([NN()], "complete"), ts.HALS(inner=2000))
    np.testing.assert_allclose(answer, [nnls(DESIGN, row)[0] for row in DATA], atol=1e-10)
    answer, _ = solved(block([NN()], "weighted"), ts.HALS(inner=2000))
    for row, weight, found in zip(DATA, np.sqrt(WEIGHTS), answer, strict=True):
        np.testing.assert_allclose(found, nnls(DESIGN * weight[:, None], row * weight)[0], atol=1e-10)


def test_bounded_least_squares_of_scipy():
    answer, _ = solved(block(CONVEX["box"], "complete"), ts.HALS(inner=2000))
    exact = [lsq_linear(DESIGN, row, (-0.2, 0.4), tol=1e-14, method="bvls").x for row in DATA]
    np.testing.assert_allclose(answer, exact, atol=1e-10)


def test_lasso_by_coordinate_descent():
    answer, _ = solved(block(CONVEX["sparse"], "complete"), ts.AOADMM(inner=3000))
    np.testing.assert_allclose(answer, reference.lasso(DESIGN.T @ DESIGN, DATA @ DESIGN, 2.0), atol=1e-10)
    assert np.sum(answer == 0) > 0


def test_admm_goes_on_where_the_first_iterations_do_not_help():
    question = block([NN(), ts.SumToOne("component"), ts.Box(0.0, 0.6)], "complete")
    solver = ts.AOADMM(inner=2)
    state, values = solver.init(question.factors, question.constraints), []
    step = jax.jit(lambda q, s: solver.step(q, s))
    for _ in range(800):
        factors, state = step(question, state)
        question = question._replace(factors=factors)
        values.append(float(block_value(question, factors)))
    assert np.max(np.diff(values)) <= 1e-13 * abs(values[0])
    assert values[-1] == pytest.approx(by_quadratic_program(ROWS["simplex in a box"], "complete"), rel=1e-6)


def test_rows_without_data_are_zero_and_stay_finite():
    gram, right = (part.copy() for part in EQUATIONS["weighted"])
    gram[2], right[2] = 0, 0
    for constraints in ([], [NN()], [Sparse(0.1)]):
        own = rules(constraints)
        start = jnp.asarray(np.random.default_rng(0).random((SIZE, RANK)))
        question = Block([NormalEquations(jnp.asarray(gram), jnp.asarray(right))], [start], [own], None)
        for solver in (ts.HALS(), ts.AOADMM()):
            answer = stepped(question, solver)
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
