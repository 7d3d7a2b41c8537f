"""One sweep over all blocks, and the compiled loop of sweeps.

The objective, for factors whose columns obey the normalisations of the scale plan, is

    sum over tensors of weight / 2 x |scaled data - model|^2  +  sum over modes of the constraints' values,

with another loss in place of the squares where a tensor has one.

A sweep updates the blocks in order and extrapolates each result for the blocks that follow; what a sweep returns are
those extrapolated factors, put back onto constraints and norms, and the fresh factor of the last block.  Their
objective costs no further product with the data (another loss is summed once more), and the sweep is accepted only if
it does not rise; else the factors from before come back and the next sweep is a plain one (a restart).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.coupling.links import link_value
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.solvers.base import rounding
from tensorspec.solvers.compiling import by_problem
from tensorspec.solvers.dimension_tree import contracted_ahead, without_contracted
from tensorspec.solvers.dispatch import joint_solver
from tensorspec.solvers.feasible import put_on
from tensorspec.solvers.question import ask, doubled_loss
from tensorspec.solvers.scoring import ScoringState
from tensorspec.solvers.static import Static
from tensorspec.solvers.steps import (
    CONVERGED,
    EXACT,
    RUNNING,
    Program,
    SweepInfo,
    SweepState,
    beginning,
    begun,
    ended,
    misfit_of,
    stepped,
)

__all__ = [
    "CONVERGED",
    "EXACT",
    "RUNNING",
    "Program",
    "SweepInfo",
    "SweepState",
    "beginning",
    "init_state",
    "judged",
    "objective",
    "run_chunk",
]

_PATIENCE = 3
_EXACT_SHARE = 1e-14


@eqx.filter_jit
def objective(
    model: AbstractModel, problem: Problem, factors: Factors
) -> tuple[Float[Array, ""], Float[Array, ""], list[Float[Array, ""]]]:
    """Return objective, misfit, and twice the loss of each tensor (squares), read off the data without cancellation."""
    squares = [doubled_loss(model, tensor, factors) for tensor in problem.tensors]
    misfit = 0.5 * sum(
        (t.weight * s for t, s in zip(problem.tensors, squares, strict=True)), jnp.zeros((), jnp.float64)
    )
    penalty = sum(
        (rule.value(factors[mode]) for mode, rule in problem.constraints.items()), link_value(problem.links, factors)
    )
    return misfit + penalty, misfit, squares


@by_problem(eqx.filter_jit)
def init_state(model: AbstractModel, program: Program, problem: Problem, factors: Factors) -> SweepState:
    """Return the state before the first sweep: the start put onto constraints and norms, and its objective."""
    constraints = {mode: rule.init_state(factors[mode].shape[0]) for mode, rule in problem.constraints.items()}
    ready = put_on(program.blocks, program.plan, problem, constraints, factors)
    if any(block.scored for block in program.blocks):
        # Counts where a start expects next to none would rule the quadratics, and with none there is no way on.
        other = put_on(program.blocks, program.plan, problem, constraints, factors, flat=True)
        first, second = (objective(model, problem, start)[1] for start in (ready, other))
        ready = {mode: jnp.where(first <= second, ready[mode], other[mode]) for mode in ready}
    constraints = {
        mode: rule.update_state(ready[mode]) if rule.stateful else rule for mode, rule in constraints.items()
    }
    value, misfit, _ = objective(model, Problem(problem.tensors, constraints, problem.links), ready)
    states = [
        block.solver.init([ready[m] for m in block.modes], [constraints[m] for m in block.modes])
        for block in program.blocks
    ]
    states = tuple(
        ScoringState.start(own) if block.scored else own for block, own in zip(program.blocks, states, strict=True)
    )
    return SweepState(
        factors=ready,
        previous=ready,
        solver_states=states,
        constraints=constraints,
        operators=tuple(tensor.operators for tensor in problem.tensors),
        objective=value,
        misfit=misfit,
        **beginning(),
    )


def _one_sweep(model: AbstractModel, program: Program, problem: Problem, state: SweepState) -> tuple[SweepState, Any]:
    midway = begun(program, problem, state)
    for index, block in enumerate(program.blocks):
        ready = contracted_ahead(model, program.blocks, index, midway.tensors, midway.factors)
        midway = midway._replace(tensors=ready)
        present = Problem(midway.tensors, problem.constraints, problem.links)
        questions = [ask(model, present, midway.factors, mode, block.modes, block.scored) for mode in block.modes]
        value = None
        if block.scored:
            whole = Problem(midway.tensors, state.constraints, problem.links)
            value = _value_of(model, whole, midway.factors, block.modes)
        midway = stepped(program, problem, state, midway, index, questions, value)
        midway = midway._replace(tensors=without_contracted(midway.tensors, block))
    losses = [t.square_norm if t.loss is None else doubled_loss(model, t, midway.factors) for t in midway.tensors]
    return ended(program, problem, state, midway, misfit_of(midway, losses))


def _value_of(
    model: AbstractModel, problem: Problem, factors: Factors, modes: tuple[str, ...]
) -> Callable[[Sequence[Array]], Array]:
    """Return the objective as a function of the factors of some modes, without what does not depend on them."""
    concerned = tuple(tensor for tensor in problem.tensors if set(tensor.depends_on) & set(modes))
    part = Problem(concerned, {mode: problem.constraints[mode] for mode in modes}, problem.links)
    return lambda updated: objective(model, part, {**factors, **dict(zip(modes, updated, strict=True))})[0]


def judged(
    before: SweepState, after: SweepState, info: SweepInfo, tol: Array, total: Array, floor: float, undirected: bool
) -> SweepState:
    """Return the state with its counters and status brought up to date."""
    decrease = before.objective - info.objective
    decrease = jnp.abs(decrease) if undirected else decrease
    small = decrease < tol * jnp.maximum(jnp.abs(info.objective), floor * total)
    # A rejected extrapolation says nothing about convergence: the plain sweep that follows does.
    counts = info.accepted | before.plain
    quiet = jnp.where(counts, jnp.where(small, before.quiet + 1, 0), before.quiet).astype(jnp.int32)
    status = jnp.where(quiet >= _PATIENCE, CONVERGED, RUNNING)
    status = jnp.where(after.misfit <= _EXACT_SHARE * total, EXACT, status).astype(jnp.int32)
    return eqx.tree_at(lambda s: (s.quiet, s.status), after, (quiet, status))


@by_problem(partial(jax.jit, static_argnames=("program", "static", "length")))
def _compiled(
    arrays: Any, problem: Any, tol: Any, limit: Any, *, program: Program, static: Static, length: int
) -> tuple[Any, Array, Array]:
    model, problem_static, state_static = static.trees
    problem = eqx.combine(problem, problem_static)
    state = eqx.combine(arrays, state_static)
    total = problem.square_norm
    floor, joint = rounding(state.factors), joint_solver(program.blocks)

    def going(carry: tuple[Any, Array, Array, Array]) -> Array:
        current, count, _, _ = carry
        return (count < limit) & (eqx.combine(current, state_static).status == RUNNING)

    def body(carry: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
        current, count, kept, tried = carry
        before = eqx.combine(current, state_static)
        if joint is None:
            after, info = _one_sweep(model, program, problem, before)
        else:
            after, last_tried = joint.sweep(model, program.plan, problem, before)
            info = SweepInfo(after.objective, last_tried, jnp.asarray(True))
        after = judged(before, after, info, tol, total, floor, program.undirected)
        return (
            eqx.filter(after, eqx.is_array),
            count + 1,
            jax.lax.dynamic_update_index_in_dim(kept, info.objective, count, 0),
            jax.lax.dynamic_update_index_in_dim(tried, info.tried, count, 0),
        )

    empty = jnp.full((length,), jnp.nan, jnp.float64)
    arrays, _, kept, tried = jax.lax.while_loop(going, body, (arrays, jnp.zeros((), jnp.int32), empty, empty))
    return arrays, kept, tried


def run_chunk(
    model: AbstractModel, program: Program, problem: Problem, state: SweepState, tol: float, limit: int, length: int
) -> tuple[SweepState, Array, Array]:
    """Run up to `limit` sweeps (at most `length`) in one compiled program.

    Returns
    -------
    state
        After the last sweep.
    kept, tried
        The objective kept and the one tried, for each sweep; NaN beyond the last.
    """
    arrays, state_static = eqx.partition(state, eqx.is_array)
    dynamic, problem_static = eqx.partition(problem, eqx.is_array)
    arrays, kept, tried = _compiled(
        arrays,
        dynamic,
        np.float64(tol),
        np.int32(min(limit, length)),
        program=program,
        static=Static(model, problem_static, state_static),
        length=length,
    )
    return eqx.combine(arrays, state_static), kept, tried
