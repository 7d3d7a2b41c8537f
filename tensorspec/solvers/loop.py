"""The one outer loop: compiled chunks of sweeps, and between them progress, time limit, Ctrl-C and checkpoints."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.errors import InvalidArgument, UnreadableFile
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import CONVERGED, EXACT, RUNNING, Program, SweepState, init_state, run_chunk

__all__ = ["Checkpoint", "Limits", "Run", "Stopped", "solve"]

# A chunk is long enough to hide the cost of starting it and short enough to stop at once when asked.
_CHUNK, _SECOND_CHUNK = 512, 16
_SECONDS_PER_CHUNK = 0.3
_SECONDS_PER_CHECKPOINT = 2.0


@dataclass(frozen=True)
class Limits:
    """When to stop."""

    max_sweeps: int
    tol: float
    deadline: float | None = None


@dataclass
class Run:
    """What a run from one start came to.

    Attributes
    ----------
    state
        After the last sweep.
    history
        Objective of the start and after every sweep.
    status
        How it ended.
    """

    state: SweepState
    history: list[float] = field(default_factory=list)
    status: Status = Status.MAX_SWEEPS


class Stopped(Exception):  # noqa: N818 - no error: what it ends is returned
    """Ends a run from inside, as Ctrl-C does from outside."""


class Checkpoint:
    """A file from which a killed run goes on: arrays only, no pickle, written whole or not at all.

    Parameters
    ----------
    path
        The npz file.
    fingerprint
        Hash of everything that the result depends on; a file of another fit is refused.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self._written = 0.0

    def load(self) -> dict[str, np.ndarray] | None:
        """Return what the file holds, or None when there is no file.

        Raises
        ------
        UnreadableFile
            When the file is no checkpoint.
        InvalidArgument
            When it belongs to another fit.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                content = {name: stored[name] for name in stored.files}
            fingerprint = str(content.pop("fingerprint"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UnreadableFile(f"checkpoint={str(self.path)!r} is not a checkpoint of a fit: {error}") from error
        if fingerprint != self.fingerprint:
            raise InvalidArgument(
                f"checkpoint={str(self.path)!r} belongs to a fit of other data, model, options or versions; delete it "
                "or give another path"
            )
        return content

    def due(self) -> bool:
        """Return whether it is time to write again."""
        return time.monotonic() - self._written > _SECONDS_PER_CHECKPOINT

    def save(self, content: dict[str, np.ndarray]) -> None:
        """Write the file, whole or not at all."""
        part = self.path.with_name(self.path.name + ".part")
        try:
            with open(part, "wb") as stream:
                np.savez(stream, allow_pickle=False, fingerprint=np.asarray(self.fingerprint), **content)
            os.replace(part, self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._written = time.monotonic()


def state_to_arrays(run: Run) -> dict[str, np.ndarray]:
    """Return a run as plain arrays."""
    leaves = jax.tree.leaves(run.state)
    content = {f"state_{k:04d}": np.asarray(leaf) for k, leaf in enumerate(leaves)}
    return {**content, "history": np.asarray(run.history, float)}


def run_from_arrays(content: dict[str, np.ndarray], like: SweepState) -> Run:
    """Return the run that `state_to_arrays` wrote, in the structure of `like`."""
    leaves, structure = jax.tree.flatten(like)
    stored = [jnp.asarray(content[f"state_{k:04d}"], dtype=leaf.dtype) for k, leaf in enumerate(leaves)]
    return Run(jax.tree.unflatten(structure, stored), [float(value) for value in content["history"]])


def solve(
    model: AbstractModel,
    program: Program,
    problem: Problem,
    start: Factors | Run,
    limits: Limits,
    *,
    resume: dict[str, np.ndarray] | None = None,
    report: Callable[[float, int], None] = lambda objective, sweeps: None,
    store: Callable[[Run], None] = lambda run: None,
    advance: Callable[..., tuple[SweepState, Any, Any]] | None = None,
) -> Run:
    """Run from one start until it has converged, or until a limit is met; Ctrl-C returns the best so far.

    Parameters
    ----------
    model, program, problem
        What is solved, and how.
    start
        Factors, before constraints and norms; or a run to go on from, whose last objective need not be that of this
        problem.
    limits
        When to stop.
    resume
        Arrays of a run that was cut off, to go on from.
    report
        Called with objective and sweeps after every chunk.
    store
        Called with the run after every chunk.
    advance
        Makes the sweeps in place of `run_chunk`, which it takes after; for a start that is a run.
    """
    if isinstance(start, Run):
        run = Run(start.state, start.history)
    else:
        state = init_state(model, program, problem, start)
        run = Run(state, [float(state.objective)])
    run = run if resume is None else run_from_arrays(resume, run.state)
    length, limit = _CHUNK, 2
    try:
        while True:
            done = int(run.state.sweeps)
            code = int(run.state.status)
            if code != RUNNING or done >= limits.max_sweeps:
                run.status = {CONVERGED: Status.CONVERGED, EXACT: Status.EXACT}.get(code, Status.MAX_SWEEPS)
                return run
            if limits.deadline is not None and time.monotonic() > limits.deadline:
                run.status = Status.TIME_LIMIT
                return run
            began = time.monotonic()
            count = min(limit, limits.max_sweeps - done)
            sweep = run_chunk if advance is None else advance
            state, kept, _ = sweep(model, program, problem, run.state, limits.tol, count, length)
            jax.block_until_ready(state)
            values = np.asarray(kept)
            run = Run(state, run.history + [float(v) for v in values[np.isfinite(values)]])
            seconds = (time.monotonic() - began) / max(int(state.sweeps) - done, 1)
            # The first chunk holds the compilation, so it is short; the length never changes the result.
            limit = int(np.clip(_SECONDS_PER_CHUNK / max(seconds, 1e-6), 1, length)) if done else _SECOND_CHUNK
            report(run.history[-1], int(state.sweeps))
            store(run)
    except (KeyboardInterrupt, Stopped):
        run.status = Status.INTERRUPTED
        return run
