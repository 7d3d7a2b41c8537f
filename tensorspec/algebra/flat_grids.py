"""Columns of flat pieces on a grid: the proximal map of the total variation on several axes, by its dual.

Between every two neighbours of the grid acts a pull of minus one to one, which moves both towards each other, or apart,
by as much; the map adds the sum of all pulls, times a size, to the values, and where two neighbours still differ their
pull is at its end.  The pulls are found by accelerated projected gradients, which may begin anywhere: near the answer
where those of similar values are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["flatten_grid", "no_pulls"]

# Steps between two looks at how far they have come, which cost as much as a step.
_STEPS = 16


def no_pulls(shape: Sequence[int]) -> tuple[Float[Array, " points"], ...]:
    """Return for each axis of a grid a pull of zero between each point and its next neighbour along that axis."""
    return tuple(jnp.zeros(prod(shape), jnp.result_type(float)) for _ in shape)


def flatten_grid(
    values: Float[Array, " points"],
    size: Float[Array, ""],
    shape: tuple[int, ...],
    edges: Sequence[Any],
    pulls: tuple[Float[Array, " points"], ...],
    agreement: float,
    most: int,
) -> tuple[Float[Array, " points"], tuple[Float[Array, " points"], ...]]:
    """Return the values with flat pieces on a grid, and the pulls that make them flat.

    Parameters
    ----------
    values
        Points of the grid, its last axis the fastest.
    size
        Strength of the total variation times the step of the proximal map.
    shape, edges
        Of the grid, and for each axis the weight of a difference between neighbours.
    pulls
        For each axis what acts between a point and its next neighbour, where the iterations begin; see `no_pulls`.
    agreement
        They end when a step changes no difference by more than this share of the largest value,
    most
        or after about so many steps.

    References
    ----------
    Beck and Teboulle, IEEE Transactions on Image Processing 18 (2009) 2419, doi:10.1109/TIP.2009.2028250; momentum that
    starts anew where it leads up: O'Donoghue and Candes, Foundations of Computational Mathematics 15 (2015) 715,
    doi:10.1007/s10208-013-9150-3.

    Examples
    --------
    >>> found, _ = flatten_grid(jnp.array([0.0, 0.0, 4.0, 5.0]), 0.5, (2, 2), (1.0, 1.0), no_pulls((2, 2)), 1e-9, 500)
    >>> found.round(6).tolist()
    [0.5, 0.5, 4.0, 4.0]
    """
    count = len(values)
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    ahead_of = max(strides)
    # All axes lie in one row, in which neighbours are a stride apart; the last point along an axis has no next one.
    has_next = [
        jnp.asarray((np.arange(count) // stride) % length < length - 1, values.dtype)
        for stride, length in zip(strides, shape, strict=True)
    ]
    room = jnp.zeros(ahead_of, values.dtype)
    steepest = 4 * sum(edge * edge for edge in edges)
    acting = size > 0
    pace = jnp.where(acting, 1 / (jnp.where(acting, size, 1) * steepest), 0)

    def pulled(current: Sequence[Array]) -> Array:
        total = jnp.zeros((), values.dtype)
        for edge, stride, own in zip(edges, strides, current, strict=True):
            whole = jnp.concatenate([room, own])
            total = total + edge * (own - whole[ahead_of - stride : ahead_of - stride + count])
        return values + size * total

    def step(ahead: Sequence[Array]) -> tuple[Array, ...]:
        # Held, or the sums would be made again for every axis.
        found = jax.lax.optimization_barrier(jnp.concatenate([pulled(ahead), room]))
        return tuple(
            jnp.clip(own + pace * edge * (found[stride : stride + count] - found[:count]), -has, has)
            for edge, stride, own, has in zip(edges, strides, ahead, has_next, strict=True)
        )

    def onward(now: Sequence[Array], new: Sequence[Array], inertia: Array) -> tuple[tuple[Array, ...], Array]:
        grown = 0.5 * (1 + jnp.sqrt(1 + 4 * jnp.square(inertia)))
        gain = (inertia - 1) / grown
        return tuple(fresh + gain * (fresh - old) for fresh, old in zip(new, now, strict=True)), grown

    def unseen(_: Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        now, ahead, inertia = state
        new = step(ahead)
        return (new, *onward(now, new, inertia))

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        now, ahead, inertia = jax.lax.fori_loop(0, _STEPS - 1, unseen, state[:3])
        new = step(ahead)
        moves = [(fresh - old, fresh - before) for fresh, old, before in zip(new, ahead, now, strict=True)]
        apart = jnp.max(jnp.stack([jnp.max(jnp.abs(move)) for move, _ in moves])) * steepest * size
        uphill = sum((jnp.sum(move * gain) for move, gain in moves), jnp.zeros((), values.dtype)) < 0
        return (new, *onward(now, new, jnp.where(uphill, 1.0, inertia)), state[3] + _STEPS, apart)

    limit = agreement * jnp.max(jnp.abs(values))

    def going(state: tuple[Any, ...]) -> Array:
        return (state[4] > limit) & (state[3] < most)

    begin = (pulls, pulls, jnp.ones((), values.dtype), jnp.asarray(0), jnp.asarray(jnp.inf, values.dtype))
    found = jax.lax.while_loop(going, body, begin)[0]
    return pulled(found), found
