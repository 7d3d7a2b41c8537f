"""Sweeps of the engine, one at a time, as `fit` makes them."""

import jax.numpy as jnp
import numpy as np
import xarray as xr

import tensorspec as ts
from tensorspec.fit.gather import gather
from tensorspec.solvers.sweep import init_state, run_chunk

# One set of sizes, so that programs are compiled once.
SIZES = {"p": 12, "e": 10, "t": 6, "s": 8}
RANK = 3
LENGTH = 64


def planted(modes, rng, rank=RANK, factors=None):
    """A noise-free tensor with the given modes."""
    factors = factors or {mode: rng.random((SIZES[mode], rank)) for mode in modes}
    letters = "abcdefgh"[: len(modes)]
    terms = ",".join(f"{letter}r" for letter in letters)
    return xr.DataArray(np.einsum(f"{terms}->{letters}", *[factors[mode] for mode in modes]), dims=tuple(modes))


def noisy(modes, rng, level=0.1, rank=RANK):
    clean = planted(modes, rng, rank)
    return clean + level * float(clean.std()) * rng.standard_normal(clean.shape)


def prepared(data, model, *, solver="auto", mask=None, weights=None, loss=None, rescale=True):
    """The problem as arrays, with its solvers."""
    tensors = {"data": data} if isinstance(data, xr.DataArray) else data
    losses = {name: (loss or {}).get(name, ts.LeastSquares()) for name in tensors}
    return gather(tensors, model, losses, mask, None, weights, solver, rescale)


def random_factors(problem, seed, signed=False):
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal if signed else rng.random
    return {
        mode: jnp.asarray(draw((own.size, problem.model.rank)), problem.dtype) for mode, own in problem.labels.items()
    }


def sweeps(problem, factors, count=LENGTH, tol=0.0):
    """The state before and after, the objective kept and the one tried of every sweep, the start's first."""
    first = init_state(problem.model, problem.program, problem.problem, factors)
    last, kept, tried = run_chunk(problem.model, problem.program, problem.problem, first, tol, count, LENGTH)
    done = int(last.sweeps)
    start = [float(first.objective)]
    return first, last, np.concatenate([start, kept[:done]]), np.concatenate([start, tried[:done]])


def fit(data, model, **options):
    return ts.fit(data, model, progress=False, **options)


def arrays(result):
    """The factors of a fit as (size, rank) arrays."""
    return {mode: np.asarray(factor.values).reshape(result.rank, -1).T for mode, factor in result.factors.items()}
