"""Add up components whose profiles are nearly the same, where a constraint asks for it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tensorspec.constraints.relevance import ARD
from tensorspec.problem import Factors, Problem

__all__ = ["merge_alike"]


def merge_alike(problem: Problem, factors: Factors) -> Factors | None:
    """Return factors in which components with nearly equal partners are one, or None where there are none.

    A component gives its amplitudes to the strongest one that it resembles, and is dead from then on; the fit that
    goes on from there settles the rest.

    Parameters
    ----------
    problem
        Whose constraints may ask for it: `ARD` with `merge`.
    factors
        Of a fit that has ended.
    """
    for mode, rule in problem.constraints.items():
        for item in rule.members:
            if isinstance(item, ARD) and item.merge is not None:
                columns = np.arange(rule.rank) if item.components is None else np.asarray(item.components) - 1
                amplitudes = np.array(factors[mode], float)
                if _merged(amplitudes, columns, _cosines(problem, factors, mode), item.merge):
                    return {**factors, mode: jnp.asarray(amplitudes, factors[mode].dtype)}
    return None


def _cosines(problem: Problem, factors: Factors, mode: str) -> np.ndarray:
    """Return the cosines between components of all that stands beside a mode, over all tensors that have it."""
    gram = np.zeros(())
    for index in problem.containing(mode):
        tensor = problem.tensors[index]
        partners = [np.asarray(factors[other], float) for other in tensor.modes if other != mode]
        gram = gram + float(tensor.weight) * np.prod([columns.T @ columns for columns in partners], axis=0)
    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    return gram / np.outer(norms, norms)


def _merged(amplitudes: np.ndarray, columns: np.ndarray, cosines: np.ndarray, threshold: float) -> bool:
    """Merge columns in place, the strongest first; return whether any were."""
    strength = amplitudes.sum(axis=0)
    left = [column for column in columns[np.argsort(-strength[columns], kind="stable")] if strength[column] > 0]
    any_merged = False
    while left:
        strongest, *left = left
        for weaker in [column for column in left if cosines[strongest, column] >= threshold]:
            amplitudes[:, strongest] += amplitudes[:, weaker]
            amplitudes[:, weaker] = 0
            left.remove(weaker)
            any_merged = True
    return any_merged
