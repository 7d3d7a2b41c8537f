"""Starts that go through stages, on compressed data or on all, the best kept, and checkpoints on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from tensorspec.coupling.through import with_operators
from tensorspec.fit.compressed import (
    FIRST_SWEEPS,
    as_reduced,
    carried,
    compress_tensors,
    gained_little,
    loose,
    lost_something,
    said,
)
from tensorspec.fit.gather import Gathered
from tensorspec.fit.merging import merge_alike
from tensorspec.fit.progress import Progress
from tensorspec.fit.race import Race
from tensorspec.models.base import Compressible
from tensorspec.problem import Factors, Problem
from tensorspec.solvers.loop import Checkpoint, Limits, Run, run_from_arrays, solve, state_to_arrays
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import Program, init_state, objective
from tensorspec.starts.base import AbstractStart
from tensorspec.starts.given import From

__all__ = ["CutOff", "Outcome", "Runner", "Stage"]


# After sweeps of another loss no entry of a mode that is updated by ratios is below this share of its column's mean.
_LIFT = 1e-3


@dataclass(frozen=True)
class Stage:
    """One of the problems that a start goes through; the last is the one that was asked for.

    Attributes
    ----------
    problem, program, limits
        What is solved, how, and for how long.
    warm
        Whether these are some first sweeps of another loss.
    compare
        Whether what it began from goes on in place of its factors where the next stage finds it better: factors that
        were given may be nearer to a minimum than what another loss made of them.
    """

    problem: Problem
    program: Program
    limits: Limits
    warm: bool = False
    compare: bool = False


class Outcome(NamedTuple):
    """What all starts came to.

    Attributes
    ----------
    best
        The run with the lowest objective.
    finals
        Objective of every start, where it was left.
    route
        How the best of them came there in words, on compressed data or in a race; None where all went to their ends on
        all data.
    """

    best: Run
    finals: list[float]
    route: str | None


class CutOff(Exception):  # noqa: N818 - no error, but how a run that was stopped leaves it all
    """Carries a run that was stopped, and whether the problem that was asked for has judged it.

    Parameters
    ----------
    run
        As it was left.
    judged
        Whether its objective is that of the problem that was asked for.
    """

    def __init__(self, run: Run, judged: bool) -> None:
        self.run, self.judged = run, judged


class Runner:
    """Starts one after the other, and what a checkpoint has to know of them.

    Parameters
    ----------
    gathered
        What is solved.
    starts
        What each restart begins from, and its seed.
    begin
        Factors of a start, for start, seed, and what stands for the tensors where they are compressed.
    stored
        Checkpoint to go on from and to write, or None.
    bar
        Where progress is shown.
    race
        How far starts on all data have come where they race, None where each goes to its end.
    """

    def __init__(
        self,
        gathered: Gathered,
        starts: Sequence[tuple[AbstractStart, int]],
        begin: Callable[..., Factors],
        stored: Checkpoint | None,
        bar: Progress,
        race: Race | None = None,
    ) -> None:
        self._gathered, self._starts, self._begin, self._stored, self._bar = gathered, starts, begin, stored, bar
        self._best: Run | None = None
        self._finals: list[float] = []
        self._race = race
        self._racer: int | None = None  # whose turn it is in the race
        # Part 0 are the starts, or on compressed data part 0 the starts, 1 the best on all data, 2 the starts on them.
        self._part, self._stage, self._sweeps = 0, 0, 0
        self._pending: dict[str, np.ndarray] | None = None
        content = stored.load() if stored is not None else None
        if content is not None:
            self._part, self._stage, self._sweeps = (int(content[name]) for name in ("part", "stage", "sweeps"))
            self._finals = [float(value) for value in content["finals"]]
            if "best_status" in content or race is not None:
                # Any factors will do: only the structure counts.
                ones = {name: jnp.ones(shape, gathered.dtype) for name, shape in gathered.shapes.items()}
                like = init_state(gathered.model, gathered.program, gathered.problem, ones)
            if race is not None:
                race.restore(_having(content, "race_"), like)
            if "best_status" in content:
                self._best = run_from_arrays(_having(content, "best_"), like)
                self._best.status = Status[str(content["best_status"])]
            self._pending = _having(content, "run_") or None

    def outcome(self) -> Outcome:
        """Return what all starts came to."""
        assert self._best is not None
        found = [said(self._sweeps, self._part > 1)] if self._sweeps else []
        raced = None if self._race is None else self._race.said()
        found += [] if raced is None else [raced]
        return Outcome(self._best, self._finals, "; ".join(found) or None)

    def on_all_data(self, stages: Sequence[Stage]) -> None:
        """Run the starts on all data: each to its end, or in a race."""
        if self._race is None:
            self.every_start(stages)
        else:
            self._racing(self._race, stages)

    def _racing(self, race: Race, stages: Sequence[Stage]) -> None:
        """Run all starts for some sweeps, leave the worse half, and so on; the last one goes to its end."""
        last = stages[-1]
        while not race.decided:
            short = replace(last, limits=replace(last.limits, max_sweeps=race.sweeps))
            for index in race.waiting:
                self._bar.restart(index, race.best)
                run, self._racer = race.runs[index], index
                if run is None:
                    run = self._through([*stages[:-1], short], self._begin(*self._starts[index]))
                else:
                    run = self._through([short], run)
                race.runs[index] = run
                self._save(None, force=True)
            race.next_round()
        self._racer, run = race.leader, race.best
        assert run is not None
        self._bar.restart(self._racer, run)
        race.runs[self._racer] = self._best = self._through([last], run)
        self._finals = race.values

    def every_start(self, stages: Sequence[Stage]) -> None:
        """Run every start that is left through all stages, and keep the best."""
        for index in range(len(self._finals), len(self._starts)):
            self._bar.restart(index, self._best)
            run = self._through(stages, self._begin(*self._starts[index]))
            self._keep(run, run.history[-1], last=index + 1 == len(self._starts))

    def on_compressed_data(self, stages: Sequence[Stage]) -> None:
        """Run every start on compressed data and the best of them on all data, which judge what was lost."""
        if self._part == 0:
            self._part = 1 if self._from_compressed(stages) else 2
        if self._part == 1 and self._polished(stages[-1]):
            return
        if self._part == 1:
            self._part, self._best, self._finals = 2, None, []
            self._save(None, force=True)
        self.on_all_data(stages)

    def _from_compressed(self, stages: Sequence[Stage]) -> bool:
        """Run every start that is left on compressed data; return False where a start was an answer already."""
        gathered = self._gathered
        assert isinstance(gathered.model, Compressible)
        tensors = compress_tensors(gathered.problem, gathered.model, gathered.dtype)
        small = [as_reduced(tensor) for tensor in tensors]
        reduced = [
            Stage(Problem(tensors, item.problem.constraints, item.problem.links), item.program, loose(item.limits))
            for item in stages
        ]
        for index in range(len(self._finals), len(self._starts)):
            self._bar.restart(index, self._best)
            begin = self._begin(*self._starts[index], reduced=small)
            run = self._through(reduced, begin, compressed=True)
            if isinstance(self._starts[index][0], From) and gained_little(run):
                self._sweeps = 0
                return False
            self._keep(Run(carried(run.state), [run.history[-1]], run.status), run.history[-1], last=False)
        return True

    def _polished(self, last: Stage) -> bool:
        """Go on with the best start on all data; return False where these say that the compression lost something."""
        begun = self._best
        assert begun is not None
        if self._stage == 0:
            self._bar.restart(0, None)
            first = replace(last, limits=replace(last.limits, max_sweeps=min(FIRST_SWEEPS, last.limits.max_sweeps)))
            run = self._solve(first, last.problem, begun)
            quick = isinstance(self._gathered.model, Compressible) and self._gathered.model.settles_quickly
            if quick and lost_something(run.history, _square_norm(last.problem)):
                return False
            if len(run.history) > 1 and run.history[0] < run.history[1]:
                run.history[0] = self._value(begun)
            begun = run
        self._keep_polished(self._through([last], begun))
        return True

    def _through(self, stages: Sequence[Stage], begun: Run | Factors, compressed: bool = False) -> Run:
        """Run one start, or what was left of it, through all stages."""
        run: Run | None = None
        while True:
            item = stages[min(self._stage, len(stages) - 1)]
            problem = item.problem if run is None else with_operators(item.problem, run.state.operators)
            run = self._solve(item, problem, begun, not compressed and self._stage >= len(stages) - 1)
            if compressed:
                self._sweeps += int(run.state.sweeps)
            self._stage += 1
            # Stages beyond the last go on from components that were merged; each merge leaves fewer.
            following: Run | Factors | None = dict(run.state.factors)
            if item.warm:
                following = _lifted(stages[self._stage].program, dict(run.state.factors))
                if item.compare and isinstance(begun, dict):
                    following = self._better(stages[self._stage], run, begun, following)
            if self._stage >= len(stages):
                following = None if compressed else merge_alike(problem, dict(run.state.factors))
            if following is None:
                self._stage = 0
                return run
            begun = following

    def _solve(self, item: Stage, problem: Problem, begun: Run | Factors, judged: bool = True) -> Run:
        """Run one stage, or what was left of it; one that was stopped is stored and ends it all."""
        run = solve(
            self._gathered.model,
            item.program,
            problem,
            begun,
            item.limits,
            resume=self._pending,
            report=self._bar.report,
            store=self._save,
        )
        self._pending = None
        if run.status in (Status.INTERRUPTED, Status.TIME_LIMIT):
            self._save(run, force=True)
            raise CutOff(run, judged)
        return run

    def _better(self, item: Stage, run: Run, given: Factors, found: Factors) -> Run:
        """Return the beginning of a stage from that of two factors with which its objective is lower."""
        problem = with_operators(item.problem, run.state.operators)
        before, after = (
            init_state(self._gathered.model, item.program, problem, dict(factors)) for factors in (given, found)
        )
        state = after if after.objective < before.objective else before
        return Run(state, [float(state.objective)])

    def _value(self, run: Run) -> float:
        """Return the objective of a run on all data."""
        problem = with_operators(self._gathered.problem, run.state.operators)
        solved = Problem(problem.tensors, run.state.constraints, problem.links)
        return float(objective(self._gathered.model, solved, run.state.factors)[0])

    def _keep(self, run: Run, value: float, last: bool) -> None:
        """Note the end of a start."""
        self._finals.append(value)
        if self._best is None or value < self._best.history[-1]:
            self._best = run
        if not last:
            self._save(None, force=True)

    def _keep_polished(self, run: Run) -> None:
        """Note the end of the best start; the others lie above it by as much as they did on compressed data."""
        assert self._best is not None
        change = run.history[-1] - self._best.history[-1]
        self._best, self._finals = run, [value + change for value in self._finals]

    def _save(self, run: Run | None, force: bool = False) -> None:
        """Write the checkpoint, if there is one and it is time."""
        if self._stored is None or not (force or self._stored.due()):
            return
        content: dict[str, np.ndarray] = {"finals": np.asarray(self._finals, float)}
        content |= {
            "part": np.asarray(self._part),
            "stage": np.asarray(self._stage),
            "sweeps": np.asarray(self._sweeps),
        }
        if self._best is not None:
            content |= {f"best_{name}": value for name, value in state_to_arrays(self._best).items()}
            content["best_status"] = np.asarray(self._best.status.name)
        if self._race is not None:
            content |= {f"race_{name}": value for name, value in self._race.to_arrays().items()}
        if run is not None:
            content |= {f"run_{name}": value for name, value in state_to_arrays(run).items()}
        self._stored.save(content)

    def cut_off(self, run: Run, judged: bool) -> None:
        """Keep the best so far; a run that was cut off counts only where nothing better is there."""
        if not judged or not np.isfinite(float(run.state.objective)):
            run = self._judged(run)
        if self._part == 1:
            self._keep_polished(run)
        elif self._race is not None and self._racer is not None:
            self._race.runs[self._racer] = run
            self._best, self._finals = self._race.best, self._race.values
            assert self._best is not None
            self._best.status = run.status
        elif self._best is None or run.history[-1] < self._best.history[-1]:
            self._best, self._finals = run, [*self._finals, run.history[-1]]
        else:
            self._best.status = run.status
            if not np.isfinite(float(self._best.state.objective)):
                self._best = self._judged(self._best)

    def _judged(self, run: Run) -> Run:
        """Return a run that knew other data or no priors, judged by the problem that was asked for."""
        found = with_operators(self._gathered.problem, run.state.operators)
        state = init_state(self._gathered.model, self._gathered.program, found, dict(run.state.factors))
        return Run(state, [float(state.objective)], run.status)


def _square_norm(problem: Problem) -> float:
    """Return half the weighted sum of squares of all data, of what is known before anything is compiled."""
    return 0.5 * sum(float(tensor.weight) * float(tensor.square_norm) for tensor in problem.tensors)


def _having(content: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}


def _lifted(program: Program, factors: Factors) -> Factors:
    """Return factors without entries near zero in modes that are updated by ratios, which would take long to grow."""
    ratios = {mode for block in program.blocks if block.ratios for mode in block.modes}
    least = {mode: _LIFT * jnp.mean(jnp.abs(factors[mode]), axis=0) for mode in ratios}
    return {mode: jnp.maximum(item, least[mode]) if mode in ratios else item for mode, item in factors.items()}
