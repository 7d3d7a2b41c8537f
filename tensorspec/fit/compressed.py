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
from tensorspec.models.base import AbstractModel, Compressible
from tensorspec.problem import Problem, Tensor
from tensorspec.solvers.dispatch import joint_solver
from tensorspec.solvers.loop import Limits, Run
from tensorspec.solvers.sweep import RUNNING, Program, SweepState, objective

__all__ = ["AUTO", "carried", "compress_tensors", "compressible", "is_small", "loose", "lost_something", "said"]

AUTO = "auto"
# Sweeps on compressed data are cheap and not counted, but they end; and they end where the rest of the way is shorter on
# all data, which the compressed ones only resemble.
_SWEEPS, _TOL = 500, 1e-6
# Entries from which on a sweep costs so much that three more products with the data are repaid.
_ENTRIES = 1_000_000
# How many times fewer entries the compressed data must have.
_GAIN = 4
# Share of the objective that a start gains at the least on compressed data unless it was an answer already.
_NEXT_TO_NOTHING = 0.01


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
    shapes = [_shape(tensor) for tensor in problem.tensors]
    kept = _kept(problem)
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


def _kept(problem: Problem) -> list[tuple[int | None, ...] | None]:
    """Return for each tensor how many directions of each axis are kept, None for one that stays as it is."""
    rank = max(rule.rank for rule in problem.constraints.values())
    return [columns_kept(_shape(tensor), rank) for tensor in problem.tensors]


def compress_tensors(problem: Problem, dtype: np.dtype) -> tuple[Tensor, ...]:
    """Return the tensors of a problem projected onto their leading directions."""
    found = []
    for tensor, kept in zip(problem.tensors, _kept(problem), strict=True):
        if kept is not None:
            core, bases = _compressed(tensor.blocks, tensor.rows, kept=kept, dtype=jnp.dtype(dtype))
            tensor = dataclasses.replace(tensor, blocks=(core,), bases=bases)
        found.append(tensor)
    return tuple(found)


@partial(jax.jit, static_argnames=("kept", "dtype"))
def _compressed(blocks: Any, rows: Any, *, kept: tuple[int | None, ...], dtype: Any) -> tuple[Array, Any]:
    return compress(blocks, kept, rows, dtype)


def carried(model: AbstractModel, problem: Problem, state: SweepState) -> SweepState:
    """Return the state of a run on compressed data as one on all data: with their objective, and its count at zero."""
    solved = Problem(problem.tensors, state.constraints, problem.links)
    value, misfit, _ = objective(model, solved, state.factors)
    return dataclasses.replace(
        state,
        objective=value,
        misfit=misfit,
        plain=jnp.asarray(True),
        quiet=jnp.asarray(0, jnp.int32),
        status=jnp.asarray(RUNNING, jnp.int32),
        sweeps=jnp.asarray(0, jnp.int32),
    )


def loose(limits: Limits) -> Limits:
    """Return when sweeps on compressed data stop."""
    return Limits(_SWEEPS, max(limits.tol, _TOL), limits.deadline)


def lost_something(history: Sequence[float]) -> bool:
    """Return whether the sweeps on all data show that the compressed ones led to the wrong place."""
    return False


def is_small(decrease: float, run: Run) -> bool:
    """Return whether a run on compressed data gained next to nothing."""
    return decrease < _NEXT_TO_NOTHING * abs(run.history[0])


def said(sweeps: int, part: int) -> str:
    """Return what was done on compressed data in words."""
    text = f"{sweeps} sweeps on compressed data first"
    return text if part < 2 else f"{text}, which had lost something, so that all starts ran without compression too"
