"""A start put onto constraints and norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array

from tensorspec.constraints.compose import ModeConstraints
from tensorspec.problem import Factors, Problem
from tensorspec.scale import ScalePlan
from tensorspec.solvers.dispatch import BlockPlan

__all__ = ["put_on"]

# A start of ratios has no entry below this share of the mean of its column; one of quadratics of a likelihood may have
# this share of flat columns.
_FLOOR, _FLAT = 1e-12, 1e-2


def put_on(
    blocks: Sequence[BlockPlan],
    plan: ScalePlan,
    problem: Problem,
    constraints: Mapping[str, ModeConstraints],
    factors: Factors,
    flat: bool = False,
) -> Factors:
    """Return a start on constraints and norms.

    Modes that are updated by ratios have no zeros, which no ratio could bring back to life.

    Parameters
    ----------
    blocks, plan, problem, constraints
        Of what is to be solved; the constraints as they are before the first sweep.
    factors
        Any.
    flat
        Whether modes that are updated by the quadratic of a likelihood become flat by a small share.
    """
    ratios = {mode for block in blocks if block.ratios for mode in block.modes}
    mixed = {mode for block in blocks if block.scored for mode in block.modes}
    ready = {}
    for mode, rule in constraints.items():
        ready[mode] = _on(_lifted(factors[mode]) if mode in ratios else factors[mode], rule)
        if mode in mixed and flat:
            mean = jnp.mean(factors[mode], axis=0, keepdims=True)
            level = _on(jnp.broadcast_to(jnp.where(mean > 0, mean, 1), factors[mode].shape), rule)
            ready[mode] = ready[mode] + _FLAT * (level - ready[mode])
    safe = {mode: _shape(ready[mode], constraints[mode]) for mode in ready}
    return plan.retract(ready, safe, [tensor.weight for tensor in problem.tensors])


def _on(values: Array, rule: ModeConstraints) -> Array:
    """Return a factor put onto its constraints."""
    return rule.prox(values, 0.0) if rule.splits <= 1 else _project_all(values, rule)


def _shape(values: Array, rule: ModeConstraints) -> Array:
    """Return a factor with flat columns in place of zero ones, which no update could bring back to life."""
    return jnp.where(jnp.any(values != 0, axis=0), values, _on(jnp.ones_like(values), rule))


def _lifted(values: Array) -> Array:
    """Return a factor without zeros, which no ratio could bring back to life."""
    mean = jnp.mean(jnp.abs(values), axis=0)
    return jnp.maximum(values, (_FLOOR * jnp.where(mean > 0, mean, 1)).astype(values.dtype))


def _project_all(values: Array, rule: ModeConstraints) -> Array:
    for _ in range(20):
        for split in reversed(range(rule.splits)):
            values = rule.prox(values, 0.0, split=split)
    return values
