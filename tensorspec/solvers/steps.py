"""The parts of a sweep: where it begins, one update for every block, and what it came to.

They are functions of factors and normal equations, and never see the data.  `sweep.py` makes one compiled program of
them, for data in memory; `streamed.py` calls them one by one, between passes over data that come in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.coupling.links import link_value
from tensorspec.coupling.through import outside, refined, with_operators
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.scale import ScalePlan
from tensorspec.solvers.base import Block, Undirected, rounding
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.multiplicative import kept_alive
from tensorspec.solvers.scoring import scored_step

__all__ = [
    "CONVERGED",
    "EXACT",
    "RUNNING",
    "Midway",
    "Program",
    "SweepInfo",
    "SweepState",
    "beginning",
    "begun",
    "ended",
    "following",
    "misfit_of",
    "momentum_following",
    "stepped",
    "updated_with",
]

RUNNING, CONVERGED, EXACT = 0, 1, 2
# Extrapolation schedule of Ang, Cohen, Gillis and Hien (doi:10.1002/nla.2373): growth, growth of the cap, decay.
_GROWTH, _CAP_GROWTH, _DECAY, _START = 1.05, 1.01, 1.5, 0.5


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
    # Numbers of numpy: those of Python would be converted by programs of their own, which have to be compiled.
    return {
        "momentum": jax.device_put(np.asarray(_START, np.float64)),
        "cap": jax.device_put(np.asarray(1.0, np.float64)),
        "plain": jax.device_put(np.asarray(True)),
        "quiet": jax.device_put(np.asarray(0, np.int32)),
        "status": jax.device_put(np.asarray(RUNNING, np.int32)),
        "sweeps": jax.device_put(np.asarray(0, np.int32)),
    }


class SweepInfo(NamedTuple):
    """What happened in a sweep: the objective kept, the one that was tried, and whether it was accepted."""

    objective: Float[Array, ""]
    tried: Float[Array, ""]
    accepted: Array


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


class Midway(NamedTuple):
    """A sweep between two of its updates.

    Attributes
    ----------
    factors
        As the next block is to be asked with.
    previous
        What the next sweep will extrapolate from.
    solver_states
        Of the blocks that have been updated.
    tensors
        With the operators as they have been refined.
    latest
        For each tensor that has one, the mode whose equations are the latest, and these.
    """

    factors: Factors
    previous: Factors
    solver_states: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    latest: dict[int, tuple[str, NormalEquations]]


def begun(program: Program, problem: Problem, state: SweepState) -> Midway:
    """Return a sweep before its first update: the last block of the sweep before is extrapolated."""
    tensors = with_operators(problem, state.operators).tensors
    last = program.blocks[-1]
    momentum = _momentum(program, state)
    factors = _extrapolated(program, problem, state, momentum, last, state.factors, state.previous, state.factors)
    return Midway(factors, dict(state.previous), (), tensors, {})


def stepped(
    program: Program,
    problem: Problem,
    state: SweepState,
    midway: Midway,
    index: int,
    questions: Sequence[tuple[Any, Mapping[int, NormalEquations]]],
    value: Callable[[Sequence[Array]], Array] | None = None,
) -> Midway:
    """Return the sweep after the update of one block.

    Parameters
    ----------
    program, problem, state
        What is solved, and the state before the sweep.
    midway
        The sweep so far.
    index
        Which block is updated.
    questions
        For each of its modes the question, and the parts of it that are exact, by tensor.
    value
        For a block that is scored, the objective as a function of its factors.
    """
    block, constraints, factors = program.blocks[index], state.constraints, midway.factors
    weights = [tensor.weight for tensor in problem.tensors]
    question = Block(
        [whole for whole, _ in questions],
        [factors[mode] for mode in block.modes],
        [constraints[mode] for mode in block.modes],
        _block_norms(block, program.plan, weights),
    )
    solver_state = state.solver_states[index]
    if value is not None:
        updated, solver_state = scored_step(block.solver, question, solver_state, value)
    else:
        updated, solver_state = block.solver.step(question, solver_state)
    return updated_with(
        program, problem, state, midway, index, [parts for _, parts in questions], updated, solver_state
    )


def updated_with(
    program: Program,
    problem: Problem,
    state: SweepState,
    midway: Midway,
    index: int,
    parts: Sequence[Mapping[int, NormalEquations]],
    updated: Sequence[Array],
    solver_state: Any,
) -> Midway:
    """Return the sweep after the update of one block, which has been solved by now."""
    block, plan, factors = program.blocks[index], program.plan, midway.factors
    weights = [tensor.weight for tensor in problem.tensors]
    latest, tensors, previous = dict(midway.latest), list(midway.tensors), dict(midway.previous)
    fresh = {**factors, **dict(zip(block.modes, updated, strict=True))}
    for mode, own in zip(block.modes, parts, strict=True):
        for k, part in own.items():
            latest[k] = (mode, part)
            tensors[k] = refined(tensors[k], mode, part, fresh[mode])
    if index + 1 == len(program.blocks):
        factors = fresh
        previous.update({mode: state.factors[mode] for mode in block.modes})
    else:
        fresh = plan.retract(fresh, factors, weights, only_free=True)
        before = {mode: state.previous[mode] for mode in block.modes}
        momentum = _momentum(program, state)
        factors = _extrapolated(program, problem, state, momentum, block, fresh, before, fresh)
        previous.update({mode: fresh[mode] for mode in block.modes})
    return Midway(factors, previous, (*midway.solver_states, solver_state), tuple(tensors), latest)


def misfit_of(midway: Midway, losses: Sequence[Array]) -> Float[Array, ""]:
    """Return the misfit after the last update.

    `losses` are twice the loss of each tensor; of those whose equations are at hand, of squares, that of no model.
    """
    found = sum(
        (
            part.value(outside(midway.tensors[k], mode, midway.factors[mode]))
            for k, (mode, part) in midway.latest.items()
        ),
        jnp.zeros((), jnp.float64),
    )
    for tensor, loss in zip(midway.tensors, losses, strict=True):
        found = found + 0.5 * tensor.weight * loss
    return found


def ended(
    program: Program, problem: Problem, state: SweepState, midway: Midway, misfit: Float[Array, ""]
) -> tuple[SweepState, SweepInfo]:
    """Return what a sweep came to: it is kept only where the objective does not rise."""
    constraints, factors = state.constraints, midway.factors
    penalty = sum((rule.value(factors[mode]) for mode, rule in constraints.items()), link_value(problem.links, factors))
    tried = misfit + penalty
    # A plain sweep leads down, so there a rise is rounding; refusing it would only undo what the solvers have learnt.
    accepted = tried <= state.objective + jnp.where(state.plain, rounding(factors) * problem.square_norm, 0.0)
    accepted = accepted | program.undirected

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b) if eqx.is_array(a) else a, new, old)

    kept = keep(dict(factors), dict(state.factors))
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
    momentum, cap = _schedule(state, accepted)
    return (
        SweepState(
            factors=kept,
            previous=keep(dict(midway.previous), dict(state.factors)),
            solver_states=tuple(keep(midway.solver_states, state.solver_states)),
            constraints=learnt,
            operators=keep(tuple(tensor.operators for tensor in midway.tensors), state.operators),
            objective=value,
            misfit=misfit,
            momentum=momentum,
            cap=cap,
            plain=~accepted,
            quiet=state.quiet,
            status=state.status,
            sweeps=state.sweeps + 1,
        ),
        SweepInfo(value, tried, accepted),
    )


def following(program: Program, problem: Problem, state: SweepState, midway: Midway) -> Midway:
    """Return where the next sweep would begin, were this one accepted."""
    momentum, cap = _schedule(state, jnp.asarray(True))
    operators = tuple(tensor.operators for tensor in midway.tensors)
    spots = (midway.factors, midway.previous, operators, momentum, cap, jnp.asarray(False))
    after = eqx.tree_at(
        lambda s: (s.factors, s.previous, s.operators, s.momentum, s.cap, s.plain),
        state,
        spots,
        is_leaf=lambda leaf: leaf is None,
    )
    return begun(program, problem, after)


def momentum_following(program: Program, state: SweepState) -> Float[Array, ""]:
    """Return how far the next sweep would extrapolate, were this one accepted."""
    momentum, _ = _schedule(state, jnp.asarray(True))
    return momentum if any(block.solver.extrapolate for block in program.blocks) else jnp.zeros((), jnp.float64)


def _schedule(state: SweepState, accepted: Array) -> tuple[Array, Array]:
    """Return strength and cap of the extrapolation after a sweep."""
    cap = jnp.where(accepted, jnp.minimum(1.0, _CAP_GROWTH * state.cap), state.momentum)
    grown = jnp.minimum(cap, _GROWTH * state.momentum)
    momentum = jnp.where(accepted, jnp.where(state.plain, state.momentum, grown), state.momentum / _DECAY)
    return momentum, jnp.where(state.plain & accepted, state.cap, cap)


def _momentum(program: Program, state: SweepState) -> Float[Array, ""]:
    extrapolates = any(block.solver.extrapolate for block in program.blocks)
    return jnp.where(state.plain, 0.0, state.momentum) if extrapolates else jnp.zeros((), jnp.float64)


def _extrapolated(
    program: Program,
    problem: Problem,
    state: SweepState,
    momentum: Array,
    block: BlockPlan,
    fresh: Factors,
    before: Factors,
    factors: Factors,
) -> Factors:
    result, moved = dict(factors), []
    extrapolates = any(block.solver.extrapolate for block in program.blocks)
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
    modes = block.modes if len(moved) == len(block.modes) else tuple(moved)
    return _put_back(program.plan, problem, state.constraints, modes, result, fresh)


def _put_back(
    plan: ScalePlan,
    problem: Problem,
    constraints: Mapping[str, ModeConstraints],
    modes: tuple[str, ...],
    factors: Factors,
    safe: Factors,
) -> Factors:
    """Return factors with the given modes on their constraints, and their norms brought to one."""
    result, weights = dict(factors), [tensor.weight for tensor in problem.tensors]
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
            unit = result[mode] * jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0).astype(result[mode].dtype)
            result[mode] = jnp.where(chosen, jnp.where(norm > 0, unit, safe[mode]), result[mode])
    return result
