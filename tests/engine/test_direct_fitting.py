"""The profiles of PARAFAC2: every step leads down and keeps the cross-products the same; every plain sweep too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.algebra.cross_product import nearest_same_cross_product
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import SameCrossProduct
from tensorspec.errors import InvalidArgument
from tensorspec.solvers.base import Block, block_value
from tensorspec.solvers.direct_fitting import DirectFitting

from .runs import RANK, SIZES, noisy, prepared, random_factors, sweeps

SAMPLES, POINTS = 5, 7
RULES = ModeConstraints((SameCrossProduct(SAMPLES),), RANK)


def block(weights):
    """Least squares for five samples of twenty rows each, the entries with weights."""
    rng = np.random.default_rng(0)
    design = rng.standard_normal((SAMPLES, 20, RANK))
    data = rng.standard_normal((SAMPLES, 20, POINTS))
    gram = np.einsum("kij,kir,kis->kjrs", weights, design, design).reshape(-1, RANK, RANK)
    right = np.einsum("kij,kij,kir->kjr", weights, data, design).reshape(-1, RANK)
    start = nearest_same_cross_product(jnp.asarray(rng.standard_normal((SAMPLES, POINTS, RANK))))
    return Block([NormalEquations(jnp.asarray(gram), jnp.asarray(right))], [start.reshape(-1, RANK)], [RULES], None)


def weights(kind):
    rng = np.random.default_rng(1)
    shape = (SAMPLES, 20, POINTS)
    if kind == "missing":
        return (rng.random(shape) > 0.4).astype(float)
    return np.ones(shape) if kind == "even" else rng.uniform(0.01, 10, (SAMPLES, 1, POINTS)) * np.ones(shape)


@jax.jit
def one_step(equations, factors):
    return DirectFitting(inner=1).step(Block(equations, factors, [RULES], None), ())[0]


@jax.jit
def nudged(equations, factors, move):
    allowed = [RULES.prox(factors[0] + move, 0.0)]
    return block_value(Block(equations, allowed, [RULES], None), allowed)


@pytest.mark.parametrize("kind", ["even", "missing", "uneven"])
def test_a_step_leads_down_and_stays_allowed(kind):
    asked = block(weights(kind))
    factors, values = asked.factors, [float(block_value(asked, asked.factors))]
    for _ in range(60):
        factors = one_step(asked.equations, factors)
        values.append(float(block_value(asked, factors)))
        assert float(RULES.violation(factors[0])) < 1e-11
    assert max(np.diff(values)) <= 1e-13 * abs(values[0])
    assert values[-1] < values[0]
    # No allowed profiles nearby are better: the end is a minimum of the block.
    moves = 1e-3 * np.random.default_rng(2).standard_normal((100, *factors[0].shape))
    around = [float(nudged(asked.equations, factors, move)) for move in moves]
    assert min(around) > values[-1] - 1e-6


def test_even_weights_are_solved_by_the_published_steps():
    """Polar factors and a least-squares solution, written out, reach the same objective."""
    asked = block(weights("even"))
    (equations,), (start,) = asked.equations, asked.factors
    gram = np.asarray(equations.gram).reshape(SAMPLES, POINTS, RANK, RANK)[:, 0]
    right = np.asarray(equations.right).reshape(SAMPLES, POINTS, RANK)
    products = np.asarray(start).reshape(SAMPLES, POINTS, RANK)[0]
    values, vectors = np.linalg.eigh(products.T @ products)
    root = (vectors * np.sqrt(values)) @ vectors.T
    for _ in range(5):
        left, _, right_vectors = np.linalg.svd(right @ root.T, full_matrices=False)
        bases = left @ right_vectors
        root = np.einsum("kjt,kjr->tr", bases, right) @ np.linalg.inv(gram.sum(axis=0))
    found, _ = DirectFitting(inner=5).step(asked, ())
    np.testing.assert_allclose(found[0], (bases @ root).reshape(-1, RANK), rtol=1e-8, atol=1e-10)


def test_what_it_does_not_take():
    both = ModeConstraints((SameCrossProduct(SAMPLES), ts.NonNegative()), RANK)
    assert "nothing else" in DirectFitting().refusal(both, True, (False,) * RANK)
    assert "norm" in DirectFitting().refusal(RULES, True, (True,) * RANK)
    with pytest.raises(InvalidArgument, match="1 or more"):
        DirectFitting(inner=0)


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [["p", "t", "e"], ["p", "t"]], ids=["nonnegative", "exact"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_plain_sweep_leads_down(constraints, masked):
    """Without extrapolation no sweep is refused, and the objective tried is below the one before, penalty and all."""
    data = noisy(("p", "t", "e"), np.random.default_rng(5), level=0.3)
    mask = xr.DataArray(np.random.default_rng(6).random(data.shape) > 0.3, dims=data.dims) if masked else None
    model = ts.PARAFAC2(RANK, {mode: ts.NonNegative() for mode in constraints}, evolving="e", along="t")
    problem = prepared(data, model, mask=mask, solver=ts.HALS(extrapolate=False))
    factors = random_factors(problem, 1)
    factors["e"] = jnp.asarray(np.random.default_rng(7).random((SIZES["t"] * SIZES["e"], RANK)))
    _, last, kept, tried = sweeps(problem, factors)
    assert last.sweeps > 20
    assert np.all(np.diff(tried) <= 1e-12 * tried[0])
    np.testing.assert_array_equal(kept, np.minimum.accumulate(tried))
