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

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.coupling.links import link_value
from tensorspec.coupling.through import outside, refined, with_operators
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.scale import ScalePlan
from tensorspec.solvers.base import Block, Undirected, rounding
from tensorspec.solvers.dispatch import BlockPlan, joint_solver
from tensorspec.solvers.feasible import put_on
from tensorspec.solvers.multiplicative import kept_alive
from tensorspec.solvers.question import ask, doubled_loss
from tensorspec.solvers.scoring import ScoringState, scored_step
from tensorspec.solvers.static import Static

__all__ = ["RUNNING", "Program", "SweepInfo", "SweepState", "beginning", "init_state", "objective", "run_chunk"]

RUNNING, CONVERGED, EXACT = 0, 1, 2
# Extrapolation schedule of Ang, Cohen, Gillis and Hien (doi:10.1002/nla.2373): growth, growth of the cap, decay.
_GROWTH, _CAP_GROWTH, _DECAY, _START = 1.05, 1.01, 1.5, 0.5
_PATIENCE = 3
_EXACT_SHARE = 1e-14


class Program(NamedTuple):
    """What a compiled loop depends on besides shapes: hashable, and equal for equal questions."""

    plan: ScalePlan
    blocks: tuple[BlockPlan, ...]

    @property
    def undirected(self) -> bool:
        """Whether a block is updated by a rule that belongs to no objective, so that a rise is no reason to refuse."""
        return any(isinstance(block.solver, Undirected) for block in self.blocks)


class SweepState(eqx.Module):
    """Everything that the next sweep depends on, so that a run can be put down and taken up again.

    Attributes
    ----------
    factors
        The best factors, which would be returned.
    previous
        For the last block the factor before, for the others the update before extrapolation.
    solver_states
        What the solver of each block keeps.
    constraints
        The constraints, with what stateful ones have learnt.
    operators
        For each tensor its operators, with the parameters that are fitted.
    objective
        Objective of `factors`.
    misfit
        Its part without the constraints' values.
    momentum, cap
        Present strength of the extrapolation, and its upper limit.
    plain
        Whether the next sweep runs without extrapolation.
    quiet
        Sweeps in a row whose decrease was below the tolerance.
    status
        Running, converged or exact.
    sweeps
        Sweeps so far.
    """

    factors: Factors
    previous: Factors
    solver_states: tuple[Any, ...]
    constraints: Mapping[str, ModeConstraints]
    operators: tuple[Any, ...]
    objective: Float[Array, ""]
    misfit: Float[Array, ""]
    momentum: Float[Array, ""]
    cap: Float[Array, ""]
    plain: Array
    quiet: Int[Array, ""]
    status: Int[Array, ""]
    sweeps: Int[Array, ""]


def beginning() -> dict[str, Array]:
    """Return what a state says of extrapolation and stop before the first sweep."""
    return {
        "momentum": jnp.asarray(_START, jnp.float64),
        "cap": jnp.asarray(1.0, jnp.float64),
        "plain": jnp.asarray(True),
        "quiet": jnp.asarray(0, jnp.int32),
        "status": jnp.asarray(RUNNING, jnp.int32),
        "sweeps": jnp.asarray(0, jnp.int32),
    }


class SweepInfo(NamedTuple):
    """What happened in a sweep: the objective kept, the one that was tried, and whether it was accepted."""

    objective: Float[Array, ""]
    tried: Float[Array, ""]
    accepted: Array


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


@eqx.filter_jit
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


def _block_norms(block: BlockPlan, plan: ScalePlan, weights: list[Array]) -> list[Array] | None:
    if not any(any(columns) for columns in block.held):
        return None
    norms = []
    for mode, columns in zip(block.modes, block.held, strict=True):
        norm = jnp.zeros(len(columns), jnp.float64)
        for item in plan.of_block(block.modes):
            if mode in item.modes and not item.free:
                tensor = item.tensors[item.modes.index(mode)]
                norm = jnp.where(jnp.asarray(item.columns), 1.0 if tensor is None else weights[tensor], norm)
        norms.append(norm)
    return norms


def _one_sweep(model: AbstractModel, program: Program, problem: Problem, state: SweepState) -> tuple[SweepState, Any]:
    plan, weights = program.plan, [tensor.weight for tensor in problem.tensors]
    constraints = state.constraints
    extrapolates = any(block.solver.extrapolate for block in program.blocks)
    momentum = jnp.where(state.plain, 0.0, state.momentum) if extrapolates else jnp.zeros((), jnp.float64)

    def put_back(modes: tuple[str, ...], factors: Factors, safe: Factors) -> Factors:
        """Return factors with the given modes on their constraints, and their norms brought to one."""
        result = dict(factors)
        for mode in modes:
            result[mode] = constraints[mode].prox(result[mode], 0.0)
        held = [item for item in plan.normalisations if set(item.modes) & set(modes)]
        for item in held:
            square = sum(
                (1.0 if k is None else weights[k]) * jnp.sum(jnp.square(result[m].astype(jnp.float64)), axis=0)
                for m, k in zip(item.modes, item.tensors, strict=True)
            )
            norm = jnp.sqrt(square)
            chosen = jnp.asarray(item.columns)
            for mode in item.modes:
                unit = result[mode] * jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0).astype(
                    result[mode].dtype
                )
                result[mode] = jnp.where(chosen, jnp.where(norm > 0, unit, safe[mode]), result[mode])
        return result

    def extrapolated(block: BlockPlan, fresh: Factors, before: Factors, factors: Factors) -> Factors:
        result, moved = dict(factors), []
        for mode, can in zip(block.modes, block.projectable, strict=True):
            if can and extrapolates:
                step = momentum.astype(fresh[mode].dtype)
                result[mode] = fresh[mode] + step * (fresh[mode] - before[mode])
                if block.ratios:
                    result[mode] = kept_alive(result[mode], fresh[mode], before[mode], momentum)
                moved.append(mode)
            else:
                result[mode] = fresh[mode]
        if not moved:
            return result
        return put_back(block.modes if len(moved) == len(block.modes) else tuple(moved), result, fresh)

    tensors = list(with_operators(problem, state.operators).tensors)
    last = program.blocks[-1]
    factors = extrapolated(last, state.factors, state.previous, state.factors)
    previous, solver_states = dict(state.previous), []
    latest: dict[int, tuple[str, NormalEquations]] = {}
    fresh_parts: dict[str, dict[int, NormalEquations]] = {}
    for block, solver_state in zip(program.blocks, state.solver_states, strict=True):
        equations = []
        for mode in block.modes:
            present = Problem(tuple(tensors), problem.constraints, problem.links)
            whole, parts = ask(model, present, factors, mode, block.modes, block.scored)
            latest.update({k: (mode, part) for k, part in parts.items()})
            fresh_parts[mode] = parts
            equations.append(whole)
        question = Block(
            equations,
            [factors[mode] for mode in block.modes],
            [constraints[mode] for mode in block.modes],
            _block_norms(block, plan, weights),
        )
        if block.scored:
            value = _value_of(model, Problem(tuple(tensors), constraints, problem.links), factors, block.modes)
            updated, solver_state = scored_step(block.solver, question, solver_state, value)
        else:
            updated, solver_state = block.solver.step(question, solver_state)
        solver_states.append(solver_state)
        fresh = {**factors, **dict(zip(block.modes, updated, strict=True))}
        for mode in block.modes:
            for k, part in fresh_parts[mode].items():
                tensors[k] = refined(tensors[k], mode, part, fresh[mode])
        if block is last:
            factors = fresh
        else:
            fresh = plan.retract(fresh, factors, weights, only_free=True)
            before = {mode: state.previous[mode] for mode in block.modes}
            factors = extrapolated(block, fresh, before, fresh)
            previous.update({mode: fresh[mode] for mode in block.modes})
    previous.update({mode: state.factors[mode] for mode in last.modes})

    misfit = sum(
        (part.value(outside(tensors[k], mode, factors[mode])) for k, (mode, part) in latest.items()),
        jnp.zeros((), jnp.float64),
    )
    for t in tensors:
        misfit = misfit + 0.5 * t.weight * (t.square_norm if t.loss is None else doubled_loss(model, t, factors))
    penalty = sum((rule.value(factors[mode]) for mode, rule in constraints.items()), link_value(problem.links, factors))
    tried = misfit + penalty
    # A plain sweep leads down, so there a rise is rounding; refusing it would only undo what the solvers have learnt.
    accepted = tried <= state.objective + jnp.where(state.plain, rounding(factors) * problem.square_norm, 0.0)
    accepted = accepted | program.undirected

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b) if eqx.is_array(a) else a, new, old)

    kept = keep(factors, dict(state.factors))
    learnt = {
        mode: keep(rule.update_state(factors[mode]), rule) if rule.stateful else rule
        for mode, rule in constraints.items()
    }
    value = jnp.where(accepted, jnp.minimum(tried, state.objective), state.objective)
    value = tried if program.undirected else value
    misfit = jnp.where(accepted, misfit, state.misfit)
    if any(rule.shifting for rule in constraints.values()):
        # What was learnt changes the objective itself; the next sweep is judged by the new one.
        value = misfit + sum((rule.value(kept[mode]) for mode, rule in learnt.items()), link_value(problem.links, kept))
    cap = jnp.where(accepted, jnp.minimum(1.0, _CAP_GROWTH * state.cap), state.momentum)
    grown = jnp.minimum(cap, _GROWTH * state.momentum)
    return (
        SweepState(
            factors=kept,
            previous=keep(previous, dict(state.factors)),
            solver_states=tuple(keep(tuple(solver_states), state.solver_states)),
            constraints=learnt,
            operators=keep(tuple(tensor.operators for tensor in tensors), state.operators),
            objective=value,
            misfit=misfit,
            momentum=jnp.where(accepted, jnp.where(state.plain, state.momentum, grown), state.momentum / _DECAY),
            cap=jnp.where(state.plain & accepted, state.cap, cap),
            plain=~accepted,
            quiet=state.quiet,
            status=state.status,
            sweeps=state.sweeps + 1,
        ),
        SweepInfo(value, tried, accepted),
    )


def _value_of(
    model: AbstractModel, problem: Problem, factors: Factors, modes: tuple[str, ...]
) -> Callable[[Sequence[Array]], Array]:
    """Return the objective as a function of the factors of some modes, without what does not depend on them."""
    concerned = tuple(tensor for tensor in problem.tensors if set(tensor.depends_on) & set(modes))
    part = Problem(concerned, {mode: problem.constraints[mode] for mode in modes}, problem.links)
    return lambda updated: objective(model, part, {**factors, **dict(zip(modes, updated, strict=True))})[0]


def _judge(
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


@partial(jax.jit, static_argnames=("program", "static", "length"))
def _compiled(
    arrays: Any, problem: Any, tol: Array, limit: Array, *, program: Program, static: Static, length: int
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
        after = _judge(before, after, info, tol, total, floor, program.undirected)
        return (
            eqx.filter(after, eqx.is_array),
            count + 1,
            kept.at[count].set(info.objective),
            tried.at[count].set(info.tried),
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
        jnp.asarray(tol, jnp.float64),
        jnp.asarray(min(limit, length), jnp.int32),
        program=program,
        static=Static(model, problem_static, state_static),
        length=length,
    )
    return eqx.combine(arrays, state_static), kept, tried
