"""The sweeps of the engine over data that come in blocks of pixels.

A sweep asks the data only for sums over pixels (what all other modes need) and for one answer a pixel.  So the data are
read block by block, the sums are added up in float64, and every update is the one that data in memory have: the
functions of `steps.py`, with whole factors, which are small.  Any constraint and any solver of a mode will do; results
differ from those of data in memory by the rounding of sums.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensorspec.algebra.blocks import Place
from tensorspec.algebra.majoriser import Majoriser
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.coupling.links import link_equations, link_value
from tensorspec.coupling.through import inside
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.solvers.base import rounding
from tensorspec.solvers.block_sums import Parts, add, as_factor, by_row, loss_of, parts_of
from tensorspec.solvers.block_work import Asking, Each, Referring, Solving, Summing, Work, one_by_one
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.feasible import put_on
from tensorspec.solvers.hals import HALS
from tensorspec.solvers.passes import rows_by_themselves, with_losses
from tensorspec.solvers.question import added
from tensorspec.solvers.steps import (
    Midway,
    Program,
    SweepState,
    beginning,
    begun,
    ended,
    following,
    misfit_of,
    momentum_following,
    stepped,
    updated_with,
)
from tensorspec.solvers.sweep import judged
from tensorspec.solvers.tensor_blocks import TensorBlocks

__all__ = ["Streamed"]

# Repeats of the first solution of the pixels, which begins far from it; a repeat costs little beside reading.
_FIRST_REPEATS = 40
_begun, _following = eqx.filter_jit(begun), eqx.filter_jit(following)
_stepped, _updated, _ended = eqx.filter_jit(stepped), eqx.filter_jit(updated_with), eqx.filter_jit(ended)
_judged = eqx.filter_jit(judged)


class Streamed:
    """Sweeps over data in blocks; it reads, adds up, and counts its passes.

    Parameters
    ----------
    model, program
        What is solved, and how.
    mode
        The mode that comes in blocks, the first of every tensor that has it.
    places
        Where the blocks lie, the same for all tensors.
    rows
        Which rows of the mode a place holds.
    sources
        For each tensor its blocks, or None where it does not have the mode and is in memory as a whole.
    watch
        Called after every block with the share of the pass that is done and the number of the pass.
    each
        What does work with every block: one after the other, or on the machines of a cluster.
    """

    def __init__(
        self,
        model: AbstractModel,
        program: Program,
        mode: str,
        places: Sequence[Place],
        rows: Callable[[Place], np.ndarray],
        sources: Sequence[TensorBlocks | None],
        watch: Callable[[float, int], None] = lambda share, number: None,
        each: Each = one_by_one,
    ) -> None:
        self._model, self._program, self._mode = model, program, mode
        self._places, self._rows, self._sources, self._watch, self._each = places, rows, sources, watch, each
        self._spared: tuple[SweepState, Parts | None] | None = None
        self._known: tuple[SweepState, Sequence[Any]] | None = None
        self.passes = 0
        self.seconds: list[float] = []

    def rough_state(self, problem: Problem, factors: Factors) -> SweepState:
        """Return a state before any sweep whose objective nobody knows: the data are not read."""
        return _first(self._program, problem, factors)

    def first_state(self, problem: Problem, factors: Factors) -> SweepState:
        """Return the state before the first sweep, its objective read off the data in one pass."""
        state = _first(self._program, problem, factors)
        midway = _begun(self._program, problem, state)
        squares, parts = self._sum_losses(problem, midway, range(len(problem.tensors)), self._program.blocks[0], midway)
        state = _with_objective(problem, state, squares)
        self._spared = (state, parts)
        self._known = (state, [squares[k] for k in range(len(problem.tensors))])
        return state

    def after_pixels(self, problem: Problem, factors: Factors) -> SweepState:
        """Return the state before the first sweep after one update of the pixels alone, whose factor may be rough."""
        state = _first(self._program, problem, factors)
        midway = Midway(dict(state.factors), dict(state.previous), (), problem.tensors, {})
        index = next(k for k, block in enumerate(self._program.blocks) if self._mode in block.modes)
        midway, losses, parts = self._update(problem, state, midway, index, resting=True)
        for k, tensor in enumerate(midway.tensors):
            if k not in midway.latest and losses[k] is None and self._sources[k] is None:
                losses[k] = loss_of(self._model, tensor, midway.factors)
        if any(loss is None and k not in midway.latest for k, loss in enumerate(losses)):
            left = [k for k, loss in enumerate(losses) if loss is None and k not in midway.latest]
            found, _ = self._sum_losses(problem, midway, left)
            losses = [found.get(k, loss) for k, loss in enumerate(losses)]
        states = (*state.solver_states[:index], *midway.solver_states, *state.solver_states[index + 1 :])
        whole = midway._replace(solver_states=states)
        misfit, squares = self._misfit(midway, losses)
        after, _ = _ended(self._program, problem, state, whole, misfit)
        after = dataclasses.replace(after, previous=dict(after.factors), **beginning())
        self._spared = None if parts is None else (after, parts)
        self._known = (after, squares)
        return after

    def advance(
        self,
        model: AbstractModel,
        program: Program,
        problem: Problem,
        state: SweepState,
        tol: float,
        limit: int,
        length: int,
    ) -> tuple[SweepState, np.ndarray, np.ndarray]:
        """Make one sweep; in place of `run_chunk`."""
        del model, limit, length
        midway = _begun(program, problem, state)
        spared = self._spared[1] if self._spared is not None and self._spared[0] is state else None
        losses: list[Any] = [None] * len(problem.tensors)
        for index in range(len(program.blocks)):
            given = spared if index == 0 else None
            midway, losses, parts = self._update(problem, state, midway, index, given)
        missing = [k for k in with_losses(problem) if losses[k] is None]
        if missing:
            ahead = _following(program, problem, state, midway)
            found, parts = self._sum_losses(problem, midway, missing, program.blocks[0], ahead)
            losses = [found.get(k, loss) for k, loss in enumerate(losses)]
        misfit, squares = self._misfit(midway, losses)
        after, info = _ended(program, problem, state, midway, misfit)
        floor = rounding(after.factors)
        limits = jnp.asarray(tol, jnp.float64), problem.square_norm
        after = _judged(state, after, info, *limits, floor, program.undirected)
        accepted = bool(info.accepted)
        self._spared = (after, parts) if parts is not None and accepted else None
        before = self._known[1] if self._known is not None and self._known[0] is state else None
        kept = squares if accepted else before
        self._known = None if kept is None else (after, kept)
        return after, np.asarray([float(info.objective)]), np.asarray([float(info.tried)])

    def known_squares(self, problem: Problem, state: SweepState) -> list[float]:
        """Return twice the loss of each tensor as the sweeps know it, without a pass; NaN where they do not."""
        if self._known is not None and self._known[0] is state:
            return [float(value) for value in self._known[1]]
        if len(problem.tensors) == 1:
            return [2 * float(state.misfit) / float(problem.tensors[0].weight)]
        return [float("nan")] * len(problem.tensors)

    def squares(self, problem: Problem, factors: Factors) -> list[float]:
        """Return twice the loss of each tensor (squares), read off the data without cancellation, in one pass."""
        midway = Midway(factors, {}, (), problem.tensors, {})
        found, _ = self._sum_losses(problem, midway, range(len(problem.tensors)))
        return [float(found[k]) for k in range(len(problem.tensors))]

    def refer(self, problem: Problem, levels: Mapping[int, float]) -> Parts:
        """Return twice the loss of constant models of some tensors (of none, for squares), in one pass."""
        return self.pass_over(Referring(*self._common(problem, {}), dict(levels)))[1]

    def pass_over(self, work: Work, *arrays: np.ndarray) -> tuple[list[tuple[np.ndarray, Any]], Parts]:
        """Do work with every block; return what belongs to rows, and sums."""
        began, number = time.monotonic(), self.passes + 1
        found = self._each(work, self._places, self._rows, arrays, lambda share: self._watch(share, number))
        self.passes = number
        self.seconds.append(round(time.monotonic() - began, 3))
        return found

    def _common(
        self, problem: Problem, factors: Factors
    ) -> tuple[AbstractModel, str, tuple[TensorBlocks | None, ...], tuple[Tensor, ...], Factors]:
        """Return what is the same for all kinds of work."""
        others = {name: factor for name, factor in factors.items() if name != self._mode}
        return self._model, self._mode, tuple(self._sources), problem.tensors, others

    def _update(
        self,
        problem: Problem,
        state: SweepState,
        midway: Midway,
        index: int,
        given: Parts | None = None,
        resting: bool = False,
    ) -> tuple[Midway, list[Any], Parts | None]:
        """Return the sweep after the update of one block, and the losses and first answers that came with it."""
        losses: list[Any] = [None] * len(problem.tensors)
        last = index + 1 == len(self._program.blocks)
        present = Problem(midway.tensors, problem.constraints, problem.links)
        if last and rows_by_themselves(self._program, problem, self._mode):
            return self._rows_at_once(present, state, midway, index, resting)
        block = self._program.blocks[index]
        parts = self._ask(present, midway.factors, block) if given is None else given
        questions = self._questions(present, midway.factors, block, parts)
        if resting:
            only = Program(self._program.plan, (block,))
            own = dataclasses.replace(state, solver_states=(state.solver_states[index],))
            return _stepped(only, problem, own, midway, 0, questions), losses, None
        return _stepped(self._program, problem, state, midway, index, questions), losses, None

    def _rows_at_once(
        self, problem: Problem, state: SweepState, midway: Midway, index: int, resting: bool
    ) -> tuple[Midway, list[Any], Parts | None]:
        """Solve the rows of every block as they are read, and let them answer what the next sweep asks first."""
        mode, block, first = self._mode, self._program.blocks[index], self._program.blocks[0]
        solver = HALS(inner=_FIRST_REPEATS) if resting else block.solver
        patient = dataclasses.replace(block, solver=solver)
        momentum = jnp.zeros((), jnp.float64) if resting else momentum_following(self._program, state)
        whole = np.asarray(midway.factors[mode])
        fresh, ahead = np.empty_like(whole), np.empty_like(whole)
        extrapolates = any(item.solver.extrapolate for item in self._program.blocks)
        given = (patient, first.modes, state.constraints[mode], momentum, extrapolates)
        work = Solving(*self._common(problem, midway.factors), *given)
        found, sums = self.pass_over(work, whole, np.asarray(state.factors[mode]))
        for rows, (new_rows, ahead_rows) in found:
            fresh[rows], ahead[rows] = new_rows, ahead_rows
        values = {key[1]: float(value) for key, value in sums.items() if not key[0]}
        parts: Parts = {key: part for key, part in sums.items() if key[0]}
        new = jnp.asarray(fresh)
        at = {**midway.factors, mode: jnp.asarray(ahead)}
        add(parts, self._in_memory(problem, at, first))
        # Of squares the value of the equations was summed; they themselves are spent.
        having = [k for k in values if problem.tensors[k].loss is None]
        losses: list[Any] = [None] * len(problem.tensors)
        for k, value in values.items():
            tensor = problem.tensors[k]
            losses[k] = tensor.square_norm + 2 * value / tensor.weight if k in having else value
        midway = _updated(
            Program(self._program.plan, (block,)) if resting else self._program,
            problem,
            state,
            midway,
            0 if resting else index,
            [{}],
            [new],
            state.solver_states[index],
        )
        latest = {k: item for k, item in midway.latest.items() if k not in having}
        return midway._replace(latest=latest), losses, parts

    def _misfit(self, midway: Midway, losses: list[Any]) -> tuple[Array, list[Array]]:
        """Return the misfit and twice the loss of each tensor; of squares without a loss their equations tell."""
        given = [
            tensor.square_norm if loss is None else jnp.asarray(loss, jnp.float64)
            for tensor, loss in zip(midway.tensors, losses, strict=True)
        ]
        latest = {k: item for k, item in midway.latest.items() if losses[k] is None}
        return _misfit(midway._replace(latest=latest), given)

    def _ask(self, problem: Problem, factors: Factors, block: BlockPlan) -> Parts:
        """Return what all tensors ask of the modes of a block, in one pass."""
        whole = np.asarray(factors[self._mode])
        found, sums = self.pass_over(Asking(*self._common(problem, factors), block.modes), whole)
        parts = self._in_memory(problem, factors, block)
        add(parts, sums)
        for key in found[0][1]:
            parts[key] = by_row([(rows, own[key]) for rows, own in found], len(whole))
        return parts

    def _in_memory(self, problem: Problem, factors: Factors, block: BlockPlan) -> Parts:
        """Return what the tensors ask that do not have the mode in blocks."""
        tensors = {k: problem.tensors[k] for k, source in enumerate(self._sources) if source is None}
        return parts_of(self._model, tensors, factors, block.modes) if tensors else {}

    def _questions(self, problem: Problem, factors: Factors, block: BlockPlan, parts: Parts) -> list[Any]:
        """Return the question of every mode of a block, and the parts of it that are exact."""
        found = []
        for mode in block.modes:
            questions: list[NormalEquations | Majoriser] = list(
                link_equations(problem.links, mode, factors, block.modes)
            )
            squares = {}
            for k in problem.containing(mode):
                part = as_factor(parts[mode, k], factors[mode])
                if problem.tensors[k].loss is None:
                    squares[k] = part
                bound = isinstance(part, Majoriser)
                questions.append(part if bound else inside(problem.tensors[k], mode, part, factors[mode]))
            found.append((added(questions, factors[mode]), squares))
        return found

    def _sum_losses(
        self,
        problem: Problem,
        midway: Midway,
        which: Sequence[int] | range,
        first: BlockPlan | None = None,
        ahead: Midway | None = None,
    ) -> tuple[dict[int, Any], Parts | None]:
        """Return twice the loss of some tensors, and what the first block of a sweep is asked with, in one pass."""
        present = Problem(midway.tensors, problem.constraints, problem.links)
        whole = np.asarray(midway.factors[self._mode])
        values: dict[int, Any] = {
            k: loss_of(self._model, midway.tensors[k], midway.factors) for k in which if self._sources[k] is None
        }
        asks = first is not None and ahead is not None and self._mode not in first.modes
        parts: Parts | None = None
        modes, others, there, operators = None, None, whole, ()
        if asks and first is not None and ahead is not None:
            parts = self._in_memory(Problem(ahead.tensors, problem.constraints), ahead.factors, first)
            others = {name: factor for name, factor in ahead.factors.items() if name != self._mode}
            modes, there = first.modes, np.asarray(ahead.factors[self._mode])
            operators = tuple(tensor.operators for tensor in ahead.tensors)
        work = Summing(*self._common(present, midway.factors), tuple(which), modes, others, operators)
        _, sums = self.pass_over(work, whole, there)
        values |= {key[1]: float(value) for key, value in sums.items() if not key[0]}
        if parts is not None:
            add(parts, {key: part for key, part in sums.items() if key[0]})
        return values, parts


@eqx.filter_jit
def _misfit(midway: Midway, losses: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Return the misfit after the last update, and twice the loss of each tensor; see `misfit_of`."""
    alone = midway._replace(latest={})
    shares = [
        misfit_of(midway._replace(tensors=(tensor,), latest={0: midway.latest[k]}), [loss])
        if k in midway.latest
        else misfit_of(alone._replace(tensors=(tensor,)), [loss])
        for k, (tensor, loss) in enumerate(zip(midway.tensors, losses, strict=True))
    ]
    squares = [2 * share / tensor.weight for share, tensor in zip(shares, midway.tensors, strict=True)]
    return misfit_of(midway, losses), squares


@eqx.filter_jit
def _first(program: Program, problem: Problem, factors: Factors) -> SweepState:
    """Return a start put onto constraints and norms, whose objective nobody knows yet."""
    constraints = {mode: rule.init_state(factors[mode].shape[0]) for mode, rule in problem.constraints.items()}
    ready = put_on(program.blocks, program.plan, problem, constraints, factors)
    constraints = {
        mode: rule.update_state(ready[mode]) if rule.stateful else rule for mode, rule in constraints.items()
    }
    states = [
        block.solver.init([ready[m] for m in block.modes], [constraints[m] for m in block.modes])
        for block in program.blocks
    ]
    unknown = jnp.asarray(jnp.inf, jnp.float64)
    operators = tuple(tensor.operators for tensor in problem.tensors)
    return SweepState(ready, ready, tuple(states), constraints, operators, unknown, unknown, **beginning())


@eqx.filter_jit
def _with_objective(problem: Problem, state: SweepState, squares: Mapping[int, Any]) -> SweepState:
    misfit = 0.5 * sum((t.weight * squares[k] for k, t in enumerate(problem.tensors)), jnp.zeros((), jnp.float64))
    penalty = sum(
        (rule.value(state.factors[mode]) for mode, rule in state.constraints.items()),
        link_value(problem.links, state.factors),
    )
    return dataclasses.replace(state, objective=misfit + penalty, misfit=misfit)
