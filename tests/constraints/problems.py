"""One block of a fit as a convex program, and the answer that two solvers and cvxpy should agree on."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.solvers.base import Block, block_value

SIZE, RANK, POINTS = 12, 2, 15
RNG = np.random.default_rng(7)
DESIGN = RNG.standard_normal((POINTS, RANK)) + 0.5
DATA = RNG.standard_normal((SIZE, POINTS)) + (2 * RNG.random((SIZE, RANK)) - 0.8) @ DESIGN.T
WEIGHTS = (RNG.random((SIZE, POINTS)) > 0.3) * RNG.uniform(0.5, 2, (SIZE, POINTS))
WEIGHTS[4] = 0  # a point that nobody measured


def context(shape=(SIZE,), coordinates=None, data_scale=1.0, rank=RANK):
    coordinates = coordinates or (None,) * len(shape)
    return Context("mode", shape, coordinates, (None,) * len(shape), rank, 0.1, data_scale)


def rules(items, own=None, rank=RANK):
    """The constraints as `fit` makes them."""
    own = own or context(rank=rank)
    ready = [item.resolve(own) if isinstance(item, Resolvable) else item for item in combine(items)]
    traced = [jax.tree.map(lambda x: jnp.asarray(x, float), item) for item in ready]
    return ModeConstraints(tuple(traced), rank)


@eqx.filter_jit
def _brought_in(constraints, values):
    """What all proximal maps, one after the other and fifty times, make of some values."""

    def turn(_, current):
        for split in range(constraints.splits):
            current = constraints.prox(current, 0.0, split=split)
        return current

    return jax.lax.fori_loop(0, 50, turn, values)


def question(items, weighted=False, own=None):
    constraints = rules(items, own)
    start = _brought_in(constraints, jnp.asarray(np.random.default_rng(5).random((SIZE, RANK))))
    if weighted:
        gram, right = np.einsum("nk,kr,ks->nrs", WEIGHTS, DESIGN, DESIGN), (WEIGHTS * DATA) @ DESIGN
    else:
        gram, right = DESIGN.T @ DESIGN, DATA @ DESIGN
    return Block([NormalEquations(jnp.asarray(gram), jnp.asarray(right))], [start], [constraints], None)


@eqx.filter_jit
def stepped(block, solver):
    return solver.step(block, solver.init(block.factors, block.constraints))[0][0]


def solved(block, solver):
    """The factor, and the objective of the block."""
    factor = stepped(block, solver)
    return np.asarray(factor), float(block_value(block, [factor]))


def optimum(penalty, bounds=lambda a: [], weighted=False):
    """The same program by cvxpy: the factor and the objective, up to the same constant."""
    a = cp.Variable((SIZE, RANK))
    weights = WEIGHTS if weighted else np.ones_like(WEIGHTS)
    misfit = cp.sum_squares(cp.multiply(np.sqrt(weights), DATA - a @ DESIGN.T)) / 2
    problem = cp.Problem(cp.Minimize(misfit + penalty(a)), bounds(a))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9)
    return a.value, problem.value - 0.5 * np.sum(weights * DATA**2)


def fit(data, model, **options):
    return ts.fit(data, model, progress=False, **options)


def angles(found, truth):
    """Degrees between the columns of two factors of shape (components, ...)."""
    found, truth = (np.asarray(x).reshape(len(truth), -1) for x in (found, truth))
    cosine = np.sum(found * truth, axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(truth, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def labelled(values, **coords):
    return xr.DataArray(values, dims=tuple(coords), coords={k: v for k, v in coords.items() if v is not None})
