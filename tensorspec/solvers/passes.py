"""How often a sweep over blocks of pixels reads the data.

- one for each block of modes (two for a matrix), and for a likelihood one more that sums it, which also answers the
  first question of the next sweep, were this one accepted;
- one in all where the pixels are updated last and by themselves, each entry on its own (`NonNegative`, `Box`, `Sparse`
  under HALS): then the rows of a block are solved as soon as they are read, and the same block answers the first
  question of the next sweep.  After a sweep that was not accepted (a restart of the extrapolation) that answer is void
  and costs a pass.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from tensorspec.constraints.base import Separability
from tensorspec.problem import Problem
from tensorspec.solvers.hals import HALS
from tensorspec.solvers.steps import Program

__all__ = ["passes_of_a_sweep", "rows_by_themselves", "with_losses"]


def rows_by_themselves(program: Program, problem: Problem, mode: str) -> bool:
    """Return whether the pixels are updated last, and every entry of a row without a look at other rows."""
    block, rule = program.blocks[-1], problem.constraints[mode]
    if block.modes != (mode,) or len(program.blocks) < 2 or not isinstance(block.solver, HALS):
        return False
    if block.scored or any(any(columns) for columns in block.held) or rule.splits > 1 or rule.stateful:
        return False
    # Values of their own for every pixel (known maps, bounds of an image) stay with the whole factor.
    flat = all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(rule) if eqx.is_array(leaf))
    linked = any(mode in link.modes for link in problem.links)
    return flat and rule.separability == Separability.ENTRY and not rule.has_quadratic and not linked


def passes_of_a_sweep(program: Program, problem: Problem, mode: str) -> int:
    """Return how often a sweep reads the data, where no extrapolation has to be taken back."""
    if rows_by_themselves(program, problem, mode):
        return len(program.blocks) - 1
    spared = 1 if with_losses(problem) else 0  # the pass that sums the loss answers the first question
    return len(program.blocks) + len(with_losses(problem)[:1]) - spared


def with_losses(problem: Problem) -> list[int]:
    """Return which tensors have a loss other than squares."""
    return [k for k, tensor in enumerate(problem.tensors) if tensor.loss is not None]
