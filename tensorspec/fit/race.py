"""Starts on all data that race: all make a few sweeps, the worse half is left, the others go on.

What goes on does so as it would have done alone, to the same bits, so that only the choice is at risk: a start that
begins slowly and ends lowest is missed.  (Fits of some pixels drawn at random, the best of which goes on with all, were
measured beside it.  They find no better answers, need a compiled program more, and are impossible where pixels are tied
or the counts of some pixels determine nothing.)

References
----------
Jamieson and Talwalkar, Proc. Machine Learning Research 51 (2016) 240 (successive halving).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log10

import numpy as np

from tensorspec.algebra.sparse import is_sparse
from tensorspec.problem import Problem, Tensor
from tensorspec.solvers.dispatch import joint_solver
from tensorspec.solvers.loop import Run, run_from_arrays, state_to_arrays
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import RUNNING, Program, SweepState

__all__ = ["Race", "first_round", "worth_racing"]

# How many starts and how many entries make a race worth while: below that eight complete starts, whose ends tell more,
# take a second or two.  For how many entries of dense squares one counts that is stored sparsely or has another loss.
_STARTS, _ENTRIES, _DEAR = 4, 2**21, 4
# Sweeps of the first round where the tolerance has six digits, and the power of the number of digits with which they
# grow, as those of whole fits do: for squares, and for a likelihood.  In any case the fewest, and the most.
_SQUARES, _LIKELIHOOD, _FEWEST, _MOST = (8, 4), (12, 6), 3, 24


def worth_racing(problem: Problem, program: Program, starts: int) -> bool:
    """Return whether starts on all data race, in place of going to their ends one after the other.

    Parameters
    ----------
    problem, program
        What is to be solved.
    starts
        How many starts there are.
    """
    if starts < _STARTS or joint_solver(program.blocks) is not None:
        return False
    # Where the objective may rise, or constraints learn and components die meanwhile, an early one tells too little.
    if program.undirected or any(rule.stateful for rule in problem.constraints.values()):
        return False
    return sum(_entries(tensor) for tensor in problem.tensors) >= _ENTRIES


def _entries(tensor: Tensor) -> int:
    """Return how many entries a sweep goes through, those that are stored, by what they cost."""
    if is_sparse(tensor.blocks):
        stored = sum(group.values.size for group in tensor.blocks[0].along[0].groups)
    else:
        stored = sum(block.size for block in tensor.blocks)
    return stored * (1 if tensor.loss is None and not is_sparse(tensor.blocks) else _DEAR)


def first_round(tol: float, likelihood: bool) -> int:
    """Return after how many sweeps the first starts are left.

    Parameters
    ----------
    tol
        When a start has converged.
    likelihood
        Whether a tensor has the loss of a likelihood, whose fits end slowly.

    Examples
    --------
    >>> [first_round(tol, False) for tol in (1e-4, 1e-5, 1e-6, 1e-9, 0.0)]
    [3, 4, 8, 24, 24]
    >>> [first_round(tol, True) for tol in (1e-4, 1e-5, 1e-6, 1e-9, 0.0)]
    [3, 4, 12, 24, 24]
    """
    digits = -log10(tol) if tol > 0 else inf
    sweeps, power = _LIKELIHOOD if likelihood else _SQUARES
    return round(min(max(sweeps * (max(digits, 0.0) / 6) ** power, _FEWEST), _MOST))


class Race:
    """How far every start has come, and which of them go on.

    Parameters
    ----------
    starts
        How many there are.
    sweeps
        Those of the first round; every further one ends after twice as many.
    most
        Largest number of sweeps of each start.

    Attributes
    ----------
    runs
        Each start as far as it has come, None before it has begun.
    left
        The starts that are still in it.
    sweeps
        After how many sweeps the present round ends.
    """

    def __init__(self, starts: int, sweeps: int, most: int) -> None:
        self.runs: list[Run | None] = [None] * starts
        self.left = list(range(starts))
        self.sweeps, self._most = min(sweeps, most), most
        self._rounds: list[int] = []

    @property
    def waiting(self) -> list[int]:
        """The starts that have not come to the end of the round."""
        return [index for index in self.left if not self._there(self.runs[index])]

    def _there(self, run: Run | None) -> bool:
        return run is not None and (int(run.state.status) != RUNNING or int(run.state.sweeps) >= self.sweeps)

    @property
    def decided(self) -> bool:
        """Whether one start is left."""
        return len(self.left) == 1

    def next_round(self) -> None:
        """Leave the worse half of the starts."""
        self.left = sorted(sorted(self.left, key=self._value)[: (len(self.left) + 1) // 2])
        self._rounds.append(self.sweeps)
        self.sweeps = min(2 * self.sweeps, self._most)

    def _value(self, index: int) -> float:
        run = self.runs[index]
        return run.history[-1] if run is not None and np.isfinite(run.history[-1]) else np.inf

    @property
    def leader(self) -> int:
        """The start with the lowest objective of those that have begun."""
        return min(range(len(self.runs)), key=self._value)

    @property
    def best(self) -> Run | None:
        """It, as far as it has come; None before any has begun."""
        return self.runs[self.leader]

    @property
    def values(self) -> list[float]:
        """Objective of every start that has begun, where it was left."""
        return [run.history[-1] for run in self.runs if run is not None]

    def said(self) -> str | None:
        """Return what was done in words, or None where no start has been left yet."""
        if not self._rounds:
            return None
        *others, last = map(str, self._rounds)
        when = f"{', '.join(others)} and {last}" if others else last
        return f"of {len(self.runs)} starts on all data the half with the higher objective was left after {when} sweeps"

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as plain arrays."""
        content = {"left": np.asarray(self.left), "sweeps": np.asarray(self.sweeps), "rounds": np.asarray(self._rounds)}
        for index, run in enumerate(self.runs):
            if run is not None:
                content |= {f"{index:04d}_{name}": value for name, value in state_to_arrays(run).items()}
                content[f"{index:04d}_status"] = np.asarray(run.status.name)
        return content

    def restore(self, content: Mapping[str, np.ndarray], like: SweepState) -> None:
        """Go on from what `to_arrays` wrote, with states in the structure of `like`."""
        self.left = [int(index) for index in content["left"]]
        self.sweeps = int(content["sweeps"])
        self._rounds = [int(sweeps) for sweeps in content["rounds"]]
        for index in range(len(self.runs)):
            prefix = f"{index:04d}_"
            own = {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
            if own:
                run = run_from_arrays(own, like)
                run.status = Status[str(own["status"])]
                self.runs[index] = run
