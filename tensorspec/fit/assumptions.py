"""What a prior changed: the answer without it, beside the answer.

Soft orthogonality and its like are beliefs about the sample.  The data cannot tell whether a belief is right, so the
fit is continued without it, and how far the answer moves is part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorspec.coupling.through import with_operators
from tensorspec.fit.gather import Gathered
from tensorspec.solvers.loop import Limits, Run, solve

__all__ = ["compare_without"]


def compare_without(
    gathered: Gathered, run: Run, limits: Limits, order: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Return how the answer moves when every assumption is dropped, or None when there is none.

    Parameters
    ----------
    gathered, run, limits
        The problem, its answer, and when to stop.
    order
        For each mode, which component of the problem became which, counted from 0.

    Returns
    -------
    dict
        ``modes``: for each mode with an assumption, the largest cosine of each component with another, with and
        without it.  ``moved_degrees``: for each mode, the angle between each component with and without.
        ``misfit_change``: share by which the misfit falls without it.
    """
    if gathered.without is None:
        return None
    problem, program = gathered.without
    problem = with_operators(problem, run.state.operators)
    other = solve(gathered.model, program, problem, dict(run.state.factors), limits)
    believed = [
        mode
        for mode, rule in problem.constraints.items()
        if len(rule.members) < len(gathered.problem.constraints[mode].members)
    ]
    answer = {mode: np.asarray(run.state.factors[mode], float)[:, own] for mode, own in order.items()}
    without = {mode: np.asarray(other.state.factors[mode], float)[:, own] for mode, own in order.items()}
    misfit, lower = float(run.state.misfit), float(other.state.misfit)
    return {
        "modes": {
            mode: {
                "constraints": gathered.strengths[mode],
                "overlap": _largest_cosine(answer[mode]).tolist(),
                "overlap_without": _largest_cosine(without[mode]).tolist(),
            }
            for mode in believed
        },
        "moved_degrees": {mode: _angles(answer[mode], without[mode]).tolist() for mode in answer},
        "misfit_change": (misfit - lower) / misfit if misfit > 0 else 0.0,
        "status_without": other.status.name,
    }


def _unit(columns: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(columns, axis=0)
    return columns / np.where(norms > 0, norms, 1)


def _largest_cosine(columns: np.ndarray) -> np.ndarray:
    cosine = _unit(columns).T @ _unit(columns)
    np.fill_diagonal(cosine, 0.0)
    return cosine.max(axis=1, initial=0.0)


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angle between columns in degrees, from the chord, which keeps small angles."""
    chord = np.linalg.norm(_unit(first) - _unit(second), axis=0)
    return np.rad2deg(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
