"""Restarts: what each begins from, the best kept, and checkpoints on the way."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.coupling.through import with_operators
from tensorspec.errors import InvalidArgument
from tensorspec.fit.alignment import align_values
from tensorspec.fit.compressed import (
    AUTO,
    FIRST_SWEEPS,
    as_reduced,
    carried,
    compress_tensors,
    compressible,
    gained_little,
    loose,
    lost_something,
    said,
)
from tensorspec.fit.core import cores_given
from tensorspec.fit.evolving import easier, even_samples, unfolded
from tensorspec.fit.gather import Gathered
from tensorspec.fit.merging import merge_alike
from tensorspec.fit.progress import Progress
from tensorspec.fit.record import versions
from tensorspec.problem import Factors, Problem
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.solvers.loop import Checkpoint, Limits, Run, run_from_arrays, solve, state_to_arrays
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import Program, init_state, objective
from tensorspec.starts.base import AbstractStart, Reduced, StartContext
from tensorspec.starts.core import core_for
from tensorspec.starts.given import From
from tensorspec.starts.hosvd import HOSVD
from tensorspec.starts.nndsvd import NNDSVD
from tensorspec.starts.random import Random

__all__ = ["make_starts", "open_checkpoint", "run_all"]


def make_starts(start: Any, gathered: Gathered, count: int, seed: int) -> list[tuple[AbstractStart, int]]:
    """Return what each restart begins from, and its seed."""
    nonnegative = all(rule.nonnegative for rule in gathered.problem.constraints.values())
    apart = any(tensor.seen is not None or tensor.operators is not None for tensor in gathered.problem.tensors)
    # The singular vectors of all tensors together know neither which component is whose nor what an operator hides.
    usual = Random() if apart or not (nonnegative or gathered.cores) else HOSVD() if gathered.cores else NNDSVD()
    first = usual if isinstance(start, str) else start
    if isinstance(first, From):
        first = From(_given_factors(first.source, gathered))
    chosen = [first] + [first if first.random or not isinstance(start, str) else Random()] * (count - 1)
    if count > 1 and not first.random and not isinstance(start, str):
        raise InvalidArgument(
            f"restarts={count} with start={constructor_repr(start)}: this start is the same every time; "
            "use restarts=1, or start=ts.Random()"
        )
    return [(item, seed if k == 0 else _seed_of(seed, k)) for k, item in enumerate(chosen)]


def _seed_of(seed: int, restart: int) -> int:
    """Return the seed of a restart, such that fits with neighbouring seeds share no start."""
    return int(np.random.SeedSequence([seed, restart]).generate_state(1)[0])


def _given_factors(source: Any, gathered: Gathered) -> dict[str, np.ndarray]:
    """Return given factors as arrays in the units of the problem."""
    labels, columns_of = gathered.labels, {mode: columns for mode, (_, columns) in gathered.shapes.items()}
    factors = source.factors if isinstance(source, Fit) else source
    if not isinstance(factors, Mapping):
        raise InvalidArgument(f"From({source!r}): expected a Fit or a mapping of mode names to factors")
    arrays = {}
    for mode, values in factors.items():
        if mode in labels and isinstance(values, xr.DataArray):
            columns, numbers = align_values(values, labels[mode], columns_of.get(mode, 1), None, "From(...)")
            arrays[mode] = columns[:, np.argsort(numbers)]
        else:
            arrays[mode] = np.asarray(values, dtype=float)
    if gathered.cores:
        return arrays | (cores_given(source, gathered) if isinstance(source, Fit) else {})
    rank = next(iter(columns_of.values()))
    if any(mode not in arrays or arrays[mode].shape[-1:] != (rank,) for mode in labels):
        return arrays  # the start itself says what is missing
    strengths = {key: np.ones(rank) for key in gathered.names}
    if isinstance(source, Fit):
        strengths |= {key: source.strengths(key).values for key in gathered.names if key in source.tensors}
    return _spread_strengths(arrays, strengths, gathered)


def _spread_strengths(
    arrays: dict[str, np.ndarray], strengths: Mapping[str, np.ndarray], gathered: Gathered
) -> dict[str, np.ndarray]:
    """Put strengths in data units onto those factors whose scale no constraint fixes, the carriers before others."""
    names, carriers = list(gathered.names.values()), gathered.program.plan.carriers
    modes = list(arrays)
    incidence = np.array([[float(mode in own) for mode in modes] for own in names])
    cheap = np.where([mode in carriers or incidence[:, k].sum() == 1 for k, mode in enumerate(modes)], 1.0, 1e-3)
    seen = np.array([t.seen or (True,) * len(next(iter(strengths.values()))) for t in gathered.problem.tensors])
    free = ~np.array([np.asarray(gathered.problem.constraints[mode].fixed_columns) for mode in modes])
    scaled = np.array([strengths[key] * s for key, s in zip(gathered.names, gathered.scales, strict=True)])
    # A component that one tensor does not show has no logarithm there; next to nothing will do.
    shown = np.maximum(scaled, 1e-12 * scaled.max(axis=0, initial=0.0))
    result = dict(arrays)
    for column in np.flatnonzero(scaled.max(axis=0, initial=0.0) > 0):
        ease = cheap * free[:, column]
        own = seen[:, column]
        powers = ease * np.linalg.lstsq(incidence[own] * ease, np.log(shown[own, column]), rcond=None)[0]
        for mode, power in zip(modes, powers, strict=True):
            result[mode] = result[mode].copy()
            result[mode][:, column] *= np.exp(power)
    for column in np.flatnonzero(scaled.max(axis=0, initial=0.0) == 0):
        for mode in carriers:
            result[mode] = np.where(np.arange(len(free[0])) == column, 0.0, result[mode])
    return result


def start_factors(
    gathered: Gathered, start: AbstractStart, seed: int, reduced: Sequence[Reduced | None] | None = None
) -> Factors:
    """Return the factors that a start gives, with nothing where nothing was measured.

    `reduced` is what stands for the tensors where they are compressed.
    """
    keys = list(gathered.names)
    context = StartContext(
        tensors=[unfolded(gathered.names[key], gathered.clean[key].values, gathered.model) for key in keys],
        weights=[s * float(np.sqrt(w)) for s, w in zip(gathered.scales, gathered.weights, strict=True)],
        sizes={mode: labels.size for mode, labels in gathered.labels.items() if mode in gathered.shapes},
        columns={mode: gathered.shapes[mode][1] for mode in gathered.labels if mode in gathered.shapes},
        carrier=gathered.program.plan.blocks[-1][-1],
        nonnegative={mode: rule.nonnegative for mode, rule in gathered.problem.constraints.items()},
        dtype=gathered.dtype,
        norms=[gathered.clean[key].rms * float(np.sqrt(gathered.clean[key].count)) for key in keys],
        reduced=reduced,
    )
    found = even_samples(start.factors(context, seed), start, context, gathered.model)
    for mode in found if not gathered.cores else ():
        having = [t.seen for t in gathered.problem.tensors if mode in t.modes]
        owned = [seen for seen in having if seen is not None]
        if len(owned) == len(having):
            found[mode] = np.where(np.any(owned, axis=0), found[mode], 0)
    for mode, seen in gathered.measured.items():
        if seen is not None and mode in found:
            found[mode] = np.where(seen[:, None], found[mode], 0)
    ready = {mode: jnp.asarray(found[mode], gathered.dtype) for mode in gathered.shapes if mode in found}
    for core, tensor in zip(gathered.cores.values(), gathered.problem.tensors, strict=False):
        if core not in ready:
            rules = gathered.problem.constraints[core]
            ready[core] = core_for(gathered.model, tensor, ready, gathered.shapes[core], rules)
    return {name: ready[name] for name in gathered.shapes}


@dataclass(frozen=True)
class Stage:
    """One of the problems that a start goes through; the last is the one that was asked for."""

    problem: Problem
    program: Program
    limits: Limits


class Outcome(NamedTuple):
    """What all starts came to.

    Attributes
    ----------
    best
        The run with the lowest objective.
    finals
        Objective of every start.
    compressed
        What was done on compressed data, in words; None where nothing was.
    """

    best: Run
    finals: list[float]
    compressed: str | None


class _CutOff(Exception):  # noqa: N818 - no error: it carries a run that was stopped
    def __init__(self, run: Run, judged: bool) -> None:
        self.run, self.judged = run, judged


def run_all(
    gathered: Gathered,
    starts: list[tuple[AbstractStart, int]],
    limits: Limits,
    stored: Checkpoint | None,
    bar: Progress,
    warm: Mapping[str, Any] | None = None,
    compress: bool | str = AUTO,
) -> Outcome:
    """Run every start, keep the best, and write checkpoints on the way.

    A prior such as soft orthogonality is turned on after a fit without it: turned on at once it holds a poor start in
    place (measured on a cross-section by EELS and EDX: 20 to 54 degrees from the true spectra instead of 0.1 to 2.4).
    With `warm` (see `first_sweeps`), a Poisson fit begins with a few sweeps of weighted least squares, and a solver of
    all modes at once with some of the usual one.

    Where it pays (see compressed.py), every start goes through all stages on compressed data, and the best of them goes
    on with the data themselves.  Where that shows that the compression has lost something, all starts run once more
    without it, and the lowest objective counts.
    """
    stages = [Stage(gathered.problem, gathered.program, limits)]
    if not isinstance(starts[0][0], From):
        weaker = easier(gathered.problem, gathered.model)
        stages = [*(Stage(problem, gathered.program, limits) for problem in weaker), *stages]
    if gathered.without is not None and not isinstance(starts[0][0], From):
        stages.insert(0, Stage(*gathered.without, limits))
    if warm is not None and gathered.warm is not None:
        short = replace(limits, max_sweeps=min(warm["max_sweeps"], limits.max_sweeps), tol=warm["tol"])
        stages.insert(0, Stage(*gathered.warm, short))
    runner = _Runner(gathered, starts, stored, bar)
    try:
        if compressible(gathered.problem, gathered.program, gathered.model, compress):
            runner.on_compressed_data(stages)
        else:
            runner.every_start(stages)
    except _CutOff as stop:
        runner.cut_off(stop.run, stop.judged)
    return runner.outcome()


class _Runner:
    """Starts one after the other, and what a checkpoint has to know of them."""

    def __init__(
        self,
        gathered: Gathered,
        starts: list[tuple[AbstractStart, int]],
        stored: Checkpoint | None,
        bar: Progress,
    ) -> None:
        self._gathered, self._starts, self._stored, self._bar = gathered, starts, stored, bar
        self._best: Run | None = None
        self._finals: list[float] = []
        # Part 0 are the starts, or on compressed data part 0 the starts, 1 the best on all data, 2 the starts on them.
        self._part, self._stage, self._sweeps = 0, 0, 0
        self._pending: dict[str, np.ndarray] | None = None
        content = stored.load() if stored is not None else None
        if content is not None:
            self._part, self._stage, self._sweeps = (int(content[name]) for name in ("part", "stage", "sweeps"))
            self._finals = [float(value) for value in content["finals"]]
            if "best_status" in content:
                # Any factors will do: only the structure counts.
                ones = {name: jnp.ones(shape, gathered.dtype) for name, shape in gathered.shapes.items()}
                like = init_state(gathered.model, gathered.program, gathered.problem, ones)
                self._best = run_from_arrays(_having(content, "best_"), like)
                self._best.status = Status[str(content["best_status"])]
            self._pending = _having(content, "run_") or None

    def outcome(self) -> Outcome:
        """Return what all starts came to."""
        assert self._best is not None
        return Outcome(self._best, self._finals, said(self._sweeps, self._part > 1) if self._sweeps else None)

    def every_start(self, stages: Sequence[Stage]) -> None:
        """Run every start that is left through all stages, and keep the best."""
        for index in range(len(self._finals), len(self._starts)):
            self._bar.restart(index, self._best)
            run = self._through(stages, start_factors(self._gathered, *self._starts[index]))
            self._keep(run, run.history[-1], last=index + 1 == len(self._starts))

    def on_compressed_data(self, stages: Sequence[Stage]) -> None:
        """Run every start on compressed data and the best of them on all data, which judge what was lost."""
        if self._part == 0:
            self._part = 1 if self._from_compressed(stages) else 2
        if self._part == 1 and self._on_all_data(stages[-1]):
            return
        if self._part == 1:
            self._part, self._best, self._finals = 2, None, []
            self._save(None, force=True)
        self.every_start(stages)

    def _from_compressed(self, stages: Sequence[Stage]) -> bool:
        """Run every start that is left on compressed data; return False where a start was an answer already."""
        gathered = self._gathered
        tensors = compress_tensors(gathered.problem, gathered.dtype)
        small = [as_reduced(tensor) for tensor in tensors]
        reduced = [
            Stage(Problem(tensors, item.problem.constraints, item.problem.links), item.program, loose(item.limits))
            for item in stages
        ]
        for index in range(len(self._finals), len(self._starts)):
            self._bar.restart(index, self._best)
            begin = start_factors(gathered, *self._starts[index], reduced=small)
            run = self._through(reduced, begin, compressed=True)
            if isinstance(self._starts[index][0], From) and gained_little(run):
                self._sweeps = 0
                return False
            self._keep(Run(carried(run.state), [run.history[-1]], run.status), run.history[-1], last=False)
        return True

    def _on_all_data(self, last: Stage) -> bool:
        """Go on with the best start on all data; return False where these say that the compression lost something."""
        begun = self._best
        assert begun is not None
        if self._stage == 0:
            self._bar.restart(0, None)
            first = replace(last, limits=replace(last.limits, max_sweeps=min(FIRST_SWEEPS, last.limits.max_sweeps)))
            run = self._solve(first, last.problem, begun)
            if lost_something(run.history, float(last.problem.square_norm)):
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
            following = dict(run.state.factors)
            if self._stage >= len(stages):
                following = None if compressed else merge_alike(problem, following)
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
            raise _CutOff(run, judged)
        return run

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
        if run is not None:
            content |= {f"run_{name}": value for name, value in state_to_arrays(run).items()}
        self._stored.save(content)

    def cut_off(self, run: Run, judged: bool) -> None:
        """Keep the best so far; a run that was cut off counts only where nothing better is there."""
        if not judged or not np.isfinite(float(run.state.objective)):
            run = self._judged(run)
        if self._part == 1:
            self._keep_polished(run)
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


def _having(content: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}


def open_checkpoint(
    path: Any, digest: Future[dict[str, str]], recipe: Any, starts: list[tuple[AbstractStart, int]]
) -> Checkpoint | None:
    """Return the checkpoint at a path, tied to everything that the result depends on; None without a path."""
    if path is None:
        return None
    settings = {key: value for key, value in recipe.items() if key != "max_sweeps"}
    given = [
        hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for start, _ in starts
        if isinstance(start, From)
        for value in start.source.values()
    ]
    text = json.dumps([digest.result(), settings, given, versions(), platform.machine()], sort_keys=True, default=str)
    return Checkpoint(path, hashlib.sha256(text.encode()).hexdigest())
