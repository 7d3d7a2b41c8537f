"""Columns made of few levels: the sum of absolute differences between neighbours."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
from math import prod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.flat_grids import flatten_grid, no_pulls
from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractPenalty,
    Composable,
    Context,
    Iterated,
    Resolvable,
    Separability,
    Uniform,
    component_field,
    strength_field,
)
from tensorspec.constraints.grid import grid_steps, mean_step

__all__ = ["TotalVariation"]

# On several axes the proximal map ends when a step changes no difference by more than this share of the largest entry,
# or after so many steps; and one that goes on from the last one.
_AGREEMENT, _MOST_STEPS = 1e-10, 20_000
_ROUGH_AGREEMENT, _ROUGH_STEPS = 1e-8, 96
# Gains below this many roundings are no gains, so that a constant piece stays in one piece.
_ROUNDINGS = 32


class TotalVariation(AbstractPenalty, Resolvable, Composable, Iterated):
    """A strength times the sum of absolute differences between neighbours in every column.

    It is the integral of the absolute derivative: in one dimension the step of the coordinate cancels.  On a grid of
    several axes, such as the pixels of a map, the sums along all axes are added up (anisotropic), each times the mean
    steps of the other axes, that is, the length of an edge between two pixels; coordinates that are missing count as
    steps of one.  What it favours are flat pieces with sharp edges.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved: the data divided by their root mean square, or the data
        themselves with ``rescale=False``.  For maps, one over the unit of the coordinates.
    components
        Components it acts on, counted from 1; all of them by default.
    grid
        The grid of the mode, which `fit` settles; not to be given.

    Raises
    ------
    InvalidArgument
        When the strength is not a number of zero or more.
    InvalidData
        By `fit`, when a coordinate of the mode neither rises nor falls.

    Notes
    -----
    Along one axis the proximal map is exact: the column is cut into those parts that lie above and below its mean
    level, each by the exact minimum over all ways to cut, and so on with the parts.  On several axes it is found by
    accelerated gradients of its dual, until a step changes no difference between neighbours by more than 1e-10 of the
    largest entry.  A fit takes some steps of it at a time and goes on where it stopped.  Entry-wise constraints that
    are the same for all entries (`NonNegative`, `Box`, `Sparse`) may follow; together they are exact.

    References
    ----------
    Rudin, Osher and Fatemi, Physica D 60 (1992) 259, doi:10.1016/0167-2789(92)90242-F.  The cuts: Hochbaum, Journal of
    the ACM 48 (2001) 686, doi:10.1145/502090.502093; Chambolle and Darbon, International Journal of Computer Vision 84
    (2009) 288, doi:10.1007/s11263-009-0238-9.  The dual: Beck and Teboulle, IEEE Transactions on Image Processing 18
    (2009) 2419, doi:10.1109/TIP.2009.2028250.

    Examples
    --------
    >>> import numpy as np
    >>> TotalVariation(2.0).value(np.array([[0.0], [1.0], [-1.0]])).tolist()
    6.0
    >>> TotalVariation(0.5).prox(np.array([0.0, 0.0, 4.0, 5.0]), step=1.0).tolist()
    [0.25, 0.25, 4.0, 4.5]
    """

    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    grid: Any = eqx.field(default=None, repr=False, kw_only=True)
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 1

    def resolve(self, context: Context) -> "TotalVariation":
        """Return the penalty on the mode's grid."""
        steps = grid_steps(context, "TotalVariation")
        spacing = [mean_step(item) for item in steps]
        edges = tuple(prod(spacing[:axis] + spacing[axis + 1 :]) for axis in range(len(steps)))
        return TotalVariation(self.strength, components=self.components, grid=_Grid(context.shape, edges))

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the column of few levels that is nearest to the values."""
        del column
        return self._flat(jnp.asarray(values), step, None)[0]

    def memory(self, size: int) -> Any:
        """Return no pulls between neighbours; None along one axis, where the map is found without iterations."""
        grid = self._on(size)
        return no_pulls(grid.shape) if sum(count > 1 for count in grid.shape) > 1 else None

    def prox_from(
        self, values: Float[Array, "..."], step: Any, memory: Any, column: Any = None
    ) -> tuple[Float[Array, "..."], Any]:
        """Return roughly the same, and the pulls between neighbours, with which the next one begins."""
        del column
        return self._flat(jnp.asarray(values), step, memory)

    def _flat(self, values: Array, step: Any, memory: Any) -> tuple[Array, Any]:
        wide = values.reshape(values.shape[0], -1).astype(jnp.result_type(float))
        size = jnp.broadcast_to(jnp.asarray(self.strength * step, wide.dtype).reshape(-1), (wide.shape[1],))
        grid, rough = self._on(values.shape[0]), memory is not None
        if not rough:
            memory = jax.tree.map(lambda zeros: jnp.tile(zeros, (wide.shape[1], 1)), no_pulls(grid.shape))
        elif values.ndim == 1:
            memory = jax.tree.map(lambda own: own[None], memory)
        found, kept = _proximal_map(wide, size, grid, memory, rough)
        if rough and values.ndim == 1:
            kept = jax.tree.map(lambda own: own[0], kept)
        return found.reshape(values.shape).astype(values.dtype), kept

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the strength times the sum of absolute differences."""
        factor = jnp.asarray(factor)
        grid = self._on(factor.shape[0])
        values = factor.reshape(*grid.shape, -1)
        total = jnp.zeros((), factor.dtype)
        for axis, edge in enumerate(grid.edges):
            total = total + edge * jnp.sum(jnp.abs(jnp.diff(values, axis=axis)))
        return self.strength * total

    def precedes(self, other: AbstractConstraint) -> bool:
        """Return whether the other treats all entries alike: then it keeps their order, which is all that counts."""
        return isinstance(other, Uniform)

    def follows(self, other: AbstractConstraint) -> bool:
        """Return False: flattening undoes what others have done."""
        del other
        return False

    def _on(self, size: int) -> "_Grid":
        return _Grid((size,), (1.0,)) if self.grid is None else self.grid


class _Grid(eqx.Module):
    """Shape of a grid, and for each axis the length of the edge between two neighbours."""

    shape: tuple[int, ...] = eqx.field(static=True)
    edges: tuple[Any, ...]


def _proximal_map(
    values: Float[Array, "size columns"], sizes: Float[Array, " columns"], grid: _Grid, memory: Any, rough: bool
) -> tuple[Array, Any]:
    """Return the proximal map of the total variation on a grid, one size a column, and what it ended with."""
    axes = [axis for axis, count in enumerate(grid.shape) if count > 1]
    if not axes:
        return values, memory
    if len(axes) == 1:
        return _flatten_lines(values, sizes * grid.edges[axes[0]]), memory
    agreement, most = (_ROUGH_AGREEMENT, _ROUGH_STEPS) if rough else (_AGREEMENT, _MOST_STEPS)

    def column(own: Array, size: Array, pulls: Any) -> tuple[Array, Any]:
        return flatten_grid(own, size, grid.shape, grid.edges, pulls, agreement, most)

    return jax.vmap(column, in_axes=(1, 0, 0), out_axes=(1, 0))(values, sizes, memory)


def _flatten_lines(values: Float[Array, "size lines"], sizes: Float[Array, " lines"]) -> Array:
    """Return the exact proximal map of the total variation of every line.

    Each round cuts every piece into what lies above and what lies below the piece's mean, at the cost of the cuts; a
    piece that is better left whole is flat, at that mean.  The cut edges pull at their two sides by the size.
    """
    count = values.shape[0]
    tolerance = _ROUNDINGS * jnp.finfo(values.dtype).eps * (jnp.max(jnp.abs(values), axis=0) + sizes)

    def going(state: tuple[Array, Array, Array]) -> Array:
        return state[2]

    def cut(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rises, _, _ = state
        pull = rises * sizes
        target = values + jnp.pad(pull, ((0, 1), (0, 0))) - jnp.pad(pull, ((1, 0), (0, 0)))
        level = _piece_means(target, rises)
        cost = level - target
        hold = jnp.where(rises == 0, sizes, 0)
        gain = cost + _messages(cost, hold)
        above = gain < -tolerance
        fresh = jnp.where(rises == 0, above[1:].astype(values.dtype) - above[:-1].astype(values.dtype), rises)
        return fresh, level, jnp.any(fresh != rises)

    # Without a size there is nothing to flatten: every edge counts as cut, and the mean of a point is the point.
    rises = jnp.broadcast_to(jnp.where(sizes > 0, 0.0, 1.0).astype(values.dtype), (count - 1, values.shape[1]))
    return jax.lax.while_loop(going, cut, (rises, values, jnp.asarray(True)))[1]


def _piece_means(values: Float[Array, "size lines"], rises: Float[Array, "edges lines"]) -> Array:
    """Return at every point the mean of its piece; pieces end where `rises` is not zero."""
    last = jnp.pad(rises != 0, ((0, 1), (0, 0)), constant_values=True)
    zeros = jnp.zeros_like(values[0])

    def add(running: tuple[Array, Array], point: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        total, count = running[0] + point[0], running[1] + 1
        return (jnp.where(point[1], 0, total), jnp.where(point[1], 0, count)), total / count

    def spread(mean: Array, point: tuple[Array, Array]) -> tuple[Array, Array]:
        mean = jnp.where(point[1], point[0], mean)
        return mean, mean

    _, running = jax.lax.scan(add, (zeros, zeros), (values, last), unroll=4)
    return jax.lax.scan(spread, zeros, (running, last), reverse=True, unroll=4)[1]


def _messages(cost: Float[Array, "size lines"], hold: Float[Array, "edges lines"]) -> Array:
    """Return for every point by how much "above" is dearer than "below" for all other points of its piece, at best.

    What lies on one side says so by a message, which a point passes on as ``clip(message + cost, -hold, hold)``.
    """
    lines = cost.shape[1]
    costs = jnp.concatenate([cost[:-1], cost[:0:-1]], axis=1)
    holds = jnp.concatenate([hold, hold[::-1]], axis=1)

    def pass_on(message: Array, point: tuple[Array, Array]) -> tuple[Array, Array]:
        message = jnp.clip(message + point[0], -point[1], point[1])
        return message, message

    passed = jax.lax.scan(pass_on, jnp.zeros_like(costs[0]), (costs, holds), unroll=4)[1]
    before, after = passed[:, :lines], passed[::-1, lines:]
    return jnp.pad(before, ((1, 0), (0, 0))) + jnp.pad(after, ((0, 1), (0, 0)))
