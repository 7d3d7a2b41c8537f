"""Columns at unit norm, where the question is not convex: descent, stationarity, the best point where it is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.solvers.base import Block, block_value

# A block is one mode, or two whose columns have unit norm together; rows have one curvature, or each its own.
KINDS = {"one": (5,), "one, by row": (5,), "joint": (3, 2), "joint, by row": (3, 2)}
CONSTRAINTS = {
    "signed": (False, 0.0),
    "non-negative": (True, 0.0),
    "sparse": (True, 0.4),
    "far too sparse": (True, 3.0),
}


@eqx.filter_jit
def repeat(question, solver, count):
    def one(_, carry):
        factors, state = carry
        return solver.step(question._replace(factors=factors), state)

    state = solver.init(question.factors, question.constraints)
    return jax.lax.fori_loop(0, count, one, (list(question.factors), state))[0]


class Column:
    """One column over a block: curvatures, pulls and weights of the norm of all its entries."""

    def __init__(self, kind, nonnegative, strength, seed):
        rng = np.random.default_rng(seed)
        self.sizes, self.nonnegative, self.strength = KINDS[kind], nonnegative, strength
        self.by_row, joint = kind.endswith("by row"), len(self.sizes) > 1
        # Pulls that are large, small, and all negative: where nothing is favourable the answer is least obvious.
        size, shift = rng.choice([0.2, 1.0, 5.0]), rng.choice([0.0, 2.0, -2.0])
        self.curvature = [rng.uniform(0, 3, n) if self.by_row else np.full(n, rng.uniform(0, 3)) for n in self.sizes]
        self.pull = [size * (rng.standard_normal(n) + shift) for n in self.sizes]
        self.weight = [rng.uniform(0.3, 1.5) if joint else 1.0 for _ in self.sizes]
        members = ((ts.NonNegative(),) if nonnegative else ()) + (ts.Sparse(strength),)
        members = jax.tree.map(jnp.asarray, members)
        start = [rng.uniform(0.1, 1, (n, 1)) for n in self.sizes]
        norm = np.sqrt(sum(w * np.sum(a**2) for w, a in zip(self.weight, start, strict=True)))
        self.question = Block(
            [
                NormalEquations(jnp.asarray(g[:, None, None] if self.by_row else g[:1, None]), jnp.asarray(h[:, None]))
                for g, h in zip(self.curvature, self.pull, strict=True)
            ],
            [jnp.asarray(a / norm) for a in start],
            [ModeConstraints(members, 1) for _ in self.sizes],
            [jnp.asarray([w]) for w in self.weight],
        )
        self.g, self.h = np.concatenate(self.curvature), np.concatenate(self.pull)
        self.w = np.concatenate([np.full(n, w) for n, w in zip(self.sizes, self.weight, strict=True)])

    def value(self, a):
        return 0.5 * np.sum(self.g * a * a) - self.h @ a + self.strength * np.abs(a).sum()

    def solve(self, solver, count):
        found = np.concatenate([np.asarray(part)[:, 0] for part in repeat(self.question, solver, jnp.asarray(count))])
        assert np.sum(self.w * found**2) == pytest.approx(1, abs=1e-12)
        assert not self.nonnegative or found.min() >= 0
        before = float(block_value(self.question, self.question.factors))
        assert self.value(found) <= before + 1e-14 * abs(before)
        return found

    def stationarity(self, a):
        """Size of what is left of the gradient along the sphere, by the conditions of Karush, Kuhn and Tucker."""
        slope = self.g * a - self.h
        multiplier = -np.sum(a * (slope + self.strength * np.sign(a)))
        inside = a != 0
        left = np.abs(slope + self.strength * np.sign(a) + multiplier * self.w * a)[inside].max()
        at_zero = slope[~inside] + self.strength
        if not self.nonnegative:
            at_zero = self.strength - np.abs(slope[~inside])
        return max(left, np.max(-at_zero, initial=0)) / (np.abs(self.h).max() + self.strength)

    def convex_at(self, a):
        """Whether the curvature under the multiplier is nowhere negative: then no point is better."""
        multiplier = -np.sum(a * (self.g * a - self.h + self.strength * np.sign(a)))
        return (self.g + multiplier * self.w).min() >= 0

    def brute_force(self, rng, starts=6):
        best = np.inf
        for _ in range(starts):
            free = rng.standard_normal(len(self.g))

            def on_sphere(z):
                z = z * z if self.nonnegative else z
                return self.value(z / np.sqrt(self.w) / np.linalg.norm(z))

            best = min(best, minimize(on_sphere, free, method="BFGS", options={"gtol": 1e-9}).fun)
        return best


def columns(names, quick):
    """Every kind of column with every constraint; most of those without a sign in the slow run alone."""
    return [
        pytest.param(kind, name, marks=() if name in quick or (kind, name) in quick else pytest.mark.slow)
        for kind in KINDS
        for name in names
    ]


@pytest.mark.parametrize(
    ("kind", "name"), columns(CONSTRAINTS, {"non-negative", "far too sparse", ("joint, by row", "signed")})
)
def test_hals_goes_down_to_a_stationary_column_and_to_the_best_where_it_is_known(kind, name):
    best_known = 0
    for seed in range(12):
        column = Column(kind, *CONSTRAINTS[name], seed)
        found = column.solve(ts.HALS(inner=1), 1000)
        assert column.stationarity(found) < 1e-5
        exact = column.brute_force(np.random.default_rng(seed))
        if kind == "one" or column.convex_at(found):
            best_known += 1
            assert column.value(found) <= exact + 1e-9 * abs(exact)
    assert best_known >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_is_already_the_best(kind):
    """The column is solved exactly, not approached, wherever the objective under the multiplier is convex."""
    tried = 0
    for seed in range(30):
        column = Column(kind, True, 0.1, seed)
        found = column.solve(ts.HALS(inner=1), 1)
        if kind == "one" or column.convex_at(found):
            tried += 1
            assert column.stationarity(found) < 1e-12
    assert tried >= 8


@pytest.mark.parametrize(
    ("kind", "name"), columns(["signed", "sparse", "far too sparse"], {"sparse", "far too sparse"})
)
def test_admm_goes_down_to_a_stationary_column(kind, name):
    nonnegative, strength = CONSTRAINTS[name]
    for seed in range(8):
        column = Column(kind, nonnegative, strength, seed)
        found = column.solve(ts.AOADMM(), 500)
        assert column.stationarity(found) < 1e-4


def test_a_column_without_data_keeps_its_shape():
    column = Column("one", True, 0.1, 0)
    equations = [NormalEquations(jnp.zeros((1, 1)), jnp.zeros((5, 1)))]
    question = column.question._replace(equations=equations, constraints=[ModeConstraints((ts.NonNegative(),), 1)])
    for solver in (ts.HALS(), ts.AOADMM()):
        np.testing.assert_allclose(repeat(question, solver, jnp.asarray(3))[0], question.factors[0], rtol=1e-12)
