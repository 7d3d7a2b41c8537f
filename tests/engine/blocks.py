"""One block of a fit by itself: the question of one mode with the other factors held, and what a solver makes of it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.solvers.base import Block, block_value

SIZE, RANK, POINTS = 6, 3, 20
RNG = np.random.default_rng(11)
DESIGN = RNG.standard_normal((POINTS, RANK))
DATA = RNG.standard_normal((SIZE, POINTS)) + RNG.random((SIZE, RANK)) @ DESIGN.T
WEIGHTS = (RNG.random((SIZE, POINTS)) > 0.3) * RNG.uniform(0.5, 2, (SIZE, POINTS))
EQUATIONS = {
    "complete": (DESIGN.T @ DESIGN, DATA @ DESIGN),
    "weighted": (np.einsum("nk,kr,ks->nrs", WEIGHTS, DESIGN, DESIGN), (WEIGHTS * DATA) @ DESIGN),
}
# A step that is tried from an answer, as a share of the answer's own size, and the rounds that make it feasible.
NUDGE, ROUNDS = 1e-5, 50


class Outcome(NamedTuple):
    """What a solver made of a block."""

    factor: np.ndarray
    values: np.ndarray  # the objective of the start and after every step
    violation: float
    fall: float  # the steepest way down that is left, over the slope of the misfit at zero


def rules(items):
    """The constraints as `fit` makes them."""
    context = Context("mode", (SIZE,), (None,), (None,), RANK, 0.1, 1.0, 0.2)
    context = context._replace(carries=not any(type(item).__name__ == "Orthogonal" for item in items))
    ready = [item.resolve(context) if isinstance(item, Resolvable) else item for item in combine(items)]
    traced = [jax.tree.map(lambda leaf: jnp.asarray(leaf, float), item) for item in ready]
    return ModeConstraints(tuple(traced), RANK).init_state(SIZE)


def restored(values, own, held):
    """A nearby point that every constraint allows, at unit norm where columns are held."""

    def once(_, current):
        for split in range(own.splits):
            current = own.prox(current, 0.0, split=split)
        return current

    values = jax.lax.fori_loop(0, ROUNDS if own.splits > 1 else 1, once, values)
    return values / jnp.linalg.norm(values, axis=0) if held else values


# Many small programs, each run once: compiling them quickly matters more than running them quickly.
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@partial(jax.jit, static_argnames=("steps", "held"), compiler_options=HASTY)
def _stepped(equations, own, solver, steps, held):
    norms = [jnp.ones(RANK)] if held else None
    start = restored(jnp.asarray(np.random.default_rng(5).random((SIZE, RANK))), own, held)
    own = own.update_state(start)

    def block(factor, own):
        return Block([equations], [factor], [own], norms)

    def one(carry, _):
        factor, own, state = carry
        (factor,), state = solver.step(block(factor, own), state)
        own = own.update_state(factor)
        return (factor, own, state), block_value(block(factor, own), [factor])

    begin = (start, own, solver.init([start], [own]))
    (factor, own, _), values = jax.lax.scan(one, begin, None, length=steps)
    first = block_value(block(start, own), [start])
    return factor, own, jnp.concatenate([first[None], values]), own.violation(factor)


@partial(jax.jit, static_argnames=("held",), compiler_options=HASTY)
def _steepest(equations, own, factor, probes, held):
    """The steepest way down among some, over the slope of the misfit at zero."""
    size = jnp.linalg.norm(factor)
    slope = factor @ equations.gram - equations.right
    probes = jnp.concatenate([probes, -slope[None], -factor[None], factor[None]])
    probes = probes / jnp.linalg.norm(probes, axis=(1, 2), keepdims=True)

    def value(point):
        return equations.value(point) + own.value(point)

    def fall(probe):
        near = restored(factor + NUDGE * size * probe, own, held)
        lower = value(factor) - value(near)
        return jnp.where(own.violation(near) <= 1e-9, lower, 0) / (NUDGE * size)

    return jnp.max(jax.lax.map(fall, probes)) / jnp.linalg.norm(equations.right)


def outcome(items, solver, kind="complete", held=False, steps=60, stationary=False):
    """Run a solver on a block of the given equations, from an allowed start that is the same for every solver."""
    gram, right = EQUATIONS[kind]
    equations, own = NormalEquations(jnp.asarray(gram), jnp.asarray(right)), rules(items)
    factor, own, values, violation = _stepped(equations, own, solver, steps, held)
    fall = 0.0
    if stationary:
        single = np.eye(SIZE * RANK).reshape(-1, SIZE, RANK)
        mixed = np.random.default_rng(1).standard_normal((40, SIZE, RANK))
        fall = _steepest(equations, own, factor, np.concatenate([single, -single, mixed]), held)
    return Outcome(np.asarray(factor), np.asarray(values), float(violation), float(fall))
