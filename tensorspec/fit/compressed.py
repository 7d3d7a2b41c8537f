"""Sweeps on compressed data in front of those on all data: when, and what comes back from them.

A least-squares sweep asks the data only for their products with the factors, and data that are a few components plus
noise give nearly the same products when they are projected onto their leading directions.  So a fit of large data
begins on such a projection, where a sweep costs next to nothing, and ends on the data themselves.  Constraints, norms,
links and operators act on the factors, which know nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensorspec.algebra.lowrank import columns_kept, compress
from tensorspec.algebra.sparse import is_sparse
from tensorspec.models.base import AbstractModel, Compressible
from tensorspec.problem import Problem, Tensor
from tensorspec.solvers.dispatch import joint_solver
from tensorspec.solvers.loop import Limits, Run
from tensorspec.solvers.sweep import Program, SweepState, beginning
from tensorspec.starts.base import Reduced

__all__ = [
    "AUTO",
    "FIRST_SWEEPS",
    "as_reduced",
    "carried",
    "compress_tensors",
    "compressible",
    "gained_little",
    "loose",
    "lost_something",
    "said",
]

AUTO = "auto"
# Sweeps on compressed data are cheap and not counted, but they end; and they end where only all data, which the
# compressed ones merely resemble, can lead further.
_SWEEPS, _TOL = 500, 1e-6
# Entries from which on a sweep costs so much that three more products with the data are repaid.
_ENTRIES = 1_000_000
# How many times fewer entries the compressed data must have.
_GAIN = 4
# Share of the objective that a start gains at the least on compressed data unless it was an answer already.
_NEXT_TO_NOTHING = 0.01
# How far the weakest kept direction may stand above noise; counts, whose noise is not the same everywhere, reach 1.2.
_BEYOND = 2.0
# After how many sweeps on all data the compression is judged, the share of the objective by which it may still fall
# over the later half of them, and the share of the data's that the objective counts for at the least.
FIRST_SWEEPS, _FALL, _LEAST = 8, 1e-4, 1e-6


def compressible(problem: Problem, program: Program, model: AbstractModel, asked: bool | str) -> bool:
    """Return whether a fit begins on compressed data.

    Parameters
    ----------
    problem, program, model
        What is to be solved.
    asked
        ``"auto"`` where it pays, True wherever it is possible, or False.
    """
    if asked is False or not isinstance(model, Compressible) or joint_solver(program.blocks) is not None:
        return False
    if program.undirected or any(tensor.loss is not None or tensor.dense is not None for tensor in problem.tensors):
        return False
    # Of few counts compression keeps too little, and sweeps over them cost less than it does.
    if any(is_sparse(tensor.blocks) for tensor in problem.tensors):
        return False
    shapes = [_shape(tensor) for tensor in problem.tensors]
    kept = _kept(problem, model)
    if not any(kept):
        return False
    small = [
        [size if k is None else k for size, k in zip(shape, own or (None,) * len(shape), strict=True)]
        for shape, own in zip(shapes, kept, strict=True)
    ]
    entries = sum(prod(shape) for shape in shapes)
    return asked is True or (entries >= _ENTRIES and entries >= _GAIN * sum(prod(shape) for shape in small))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return (sum(block.shape[0] for block in tensor.blocks), *tensor.blocks[0].shape[1:])


def _kept(problem: Problem, model: Compressible, wide: bool = False) -> list[tuple[int | None, ...] | None]:
    """Return for each tensor how many directions of each axis are kept, None for one that stays as it is."""
    cores = {tensor.core for tensor in problem.tensors}
    rank = max(rule.rank for name, rule in problem.constraints.items() if name not in cores)
    return [columns_kept(_shape(tensor), rank, wide, model.compressible_axes(tensor)) for tensor in problem.tensors]


def compress_tensors(problem: Problem, model: Compressible, dtype: np.dtype) -> tuple[Tensor, ...]:
    """Return the tensors of a problem projected onto their leading directions.

    Where the weakest of them stands above noise, the data hold more than components and noise, and more are kept.
    """
    found = []
    plans = zip(problem.tensors, _kept(problem, model), _kept(problem, model, wide=True), strict=True)
    for tensor, kept, wide in plans:
        if kept is not None:
            shape = _shape(tensor)
            given = (tensor.blocks, tensor.rows, tensor.square_norm, tensor.scale)
            core, bases, beyond = _compressed(*given, _sketches(shape, kept), dtype=jnp.dtype(dtype))
            if wide is not None and float(beyond) > _BEYOND:
                core, bases, _ = _compressed(*given, _sketches(shape, wide), dtype=jnp.dtype(dtype))
            tensor = dataclasses.replace(tensor, blocks=(core,), bases=bases)
        found.append(tensor)
    return tuple(found)


def _sketches(shape: tuple[int, ...], kept: tuple[int | None, ...]) -> tuple[np.ndarray | None, ...]:
    """Return the random numbers that the leading directions are found with, the same every time."""
    draw = np.random.default_rng(0).standard_normal
    return tuple(None if k is None else draw((size, k)) for size, k in zip(shape, kept, strict=True))


@partial(jax.jit, static_argnames=("dtype",))
def _compressed(blocks: Any, rows: Any, square: Array, scale: Array, sketches: Any, *, dtype: Any) -> Any:
    return compress(blocks, sketches, rows, square / jnp.square(scale), dtype)


def as_reduced(tensor: Tensor) -> Reduced | None:
    """Return a compressed tensor as a start takes it; None where weights would distort it."""
    if tensor.bases is None or any(row is not None and bool(jnp.any((row != 0) & (row != 1))) for row in tensor.rows):
        return None
    bases = [None if basis is None else np.asarray(basis) for basis in tensor.bases]
    return Reduced(np.asarray(tensor.blocks[0]), bases)


def carried(state: SweepState) -> SweepState:
    """Return the state of a run on compressed data as one on all data, whose objective the first sweep will say."""
    unknown = jax.device_put(np.asarray(np.inf, np.float64))
    return dataclasses.replace(state, objective=unknown, misfit=unknown, **beginning())


def loose(limits: Limits) -> Limits:
    """Return when sweeps on compressed data stop: a little later than those on all data would."""
    return Limits(_SWEEPS, max(_TOL, 0.1 * limits.tol), limits.deadline)


def lost_something(history: Sequence[float], square_norm: float) -> bool:
    """Return whether the first sweeps on all data show that the compressed ones led to the wrong place.

    From the right place the objective falls within two or three sweeps by what the compression left out, noise that
    the factors fit; a component that no kept direction holds is found slowly.  Measured from the fourth to the eighth
    sweep: up to 3e-5 of the objective for planted components, 2e-4 to 5e-3 for components below the noise of the
    singular values and for spectra that decay slowly.

    Parameters
    ----------
    history
        Objective before and after every sweep on all data.
    square_norm
        Half the sum of squares of the data.
    """
    if len(history) <= FIRST_SWEEPS:
        return False
    fall = history[FIRST_SWEEPS // 2] - history[FIRST_SWEEPS]
    return fall > _FALL * max(abs(history[FIRST_SWEEPS]), _LEAST * square_norm)


def gained_little(run: Run) -> bool:
    """Return whether a run on compressed data gained next to nothing, because it began from an answer."""
    return run.history[0] - run.history[-1] < _NEXT_TO_NOTHING * abs(run.history[0])


def said(sweeps: int, lost: bool) -> str:
    """Return what was done on compressed data in words."""
    if lost:
        return f"without compression, because {sweeps} sweeps on compressed data led to a place that all data left"
    return f"after {sweeps} sweeps on compressed data"
