"""Hierarchical alternating least squares: one column at a time, each solved exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.errors import InvalidArgument
from tensorspec.solvers.base import AbstractSolver, Block, block_value, check_compress, with_quadratic

__all__ = ["HALS"]


class HALS(AbstractSolver):
    """Hierarchical alternating least squares with inner repeats and, between sweeps, extrapolation.

    Takes every constraint that separates by entry or by column.

    Parameters
    ----------
    inner
        How often the columns are gone through before the next product with the data, which costs far more.
    extrapolate
        Whether sweeps are extrapolated, with a restart where the objective would rise.
    compress
        Whether a fit begins on compressed data: ``"auto"`` where that pays, True wherever it is possible, or False.

    Raises
    ------
    InvalidArgument
        When `inner` is not one or more, or `compress` is something else.

    References
    ----------
    Cichocki and Phan, IEICE Transactions E92-A (2009) 708, doi:10.1587/transfun.E92.A.708; Gillis and Glineur, Neural
    Computation 24 (2012) 1085, doi:10.1162/NECO_a_00256; Ang, Cohen, Gillis and Hien, Numerical Linear Algebra with
    Applications 28 (2021) e2373, doi:10.1002/nla.2373.

    Examples
    --------
    >>> HALS(inner=1)
    HALS(inner=1)
    """

    inner: int = eqx.field(default=5, static=True)
    extrapolate: bool = eqx.field(default=True, static=True)
    compress: bool | str = eqx.field(default="auto", static=True)
    least_squares: ClassVar[bool] = True
    divergences: ClassVar[bool] = False

    def __check_init__(self) -> None:
        """Refuse a number of repeats below one, and words that say nothing."""
        if self.inner < 1:
            raise InvalidArgument(f"HALS(inner={self.inner}): expected 1 or more repeats")
        check_compress(self)

    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why a mode cannot be updated by column; see the base class."""
        if constraints.unheard:
            return f"{', '.join(constraints.unheard)} has neither a proximal map nor a quadratic"
        if constraints.splits > 1:
            return "its constraints have no joint proximal map"
        if constraints.separability > Separability.COLUMN:
            return "a constraint ties the components of a row together"
        if any(held) and not constraints.exact_on_sphere(held):
            return "a constraint fixes entries while the column is held at unit norm"
        if constraints.separability == Separability.COLUMN and per_row:
            return "a constraint ties the entries of a column together while entries differ in weight"
        return None

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return for each mode what the iterations of its proximal map begin with, a row a column; mostly nothing."""
        return [rule.memory(factor.shape[0])[:1] for factor, rule in zip(factors, constraints, strict=True)]

    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Go through the columns `inner` times; every column step is an exact minimisation.

        Proximal maps that take iterations come nearer from step to step, and the result is kept where it is better.
        """
        rank = block.factors[0].shape[1]
        members: list[tuple[Any, Array, ModeConstraints]] = []
        for equations, factor, constraints in zip(block.equations, block.factors, block.constraints, strict=True):
            assert isinstance(equations, NormalEquations)
            touching = constraints.touching(factor)
            if equations.shared is not None and not touching.has_quadratic:
                if block.norms is None:
                    members.append((*_solved_by_row(*equations.shared, equations.right.T, factor.dtype), constraints))
                    continue
                gram, weights = (item.astype(factor.dtype) for item in equations.shared)
                members.append(((gram, weights), equations.right.T, constraints))
                continue
            full = with_quadratic(equations, touching, factor.shape[0])
            if full.gram.ndim == 2 and block.norms is None:
                members.append((*_solved(full.gram, full.right.T, factor.dtype), constraints))
                continue
            members.append((full.gram.astype(factor.dtype), full.right.T, constraints))
        norms = block.norms
        if norms is not None:
            norms = [norm.astype(factor.dtype) for norm, factor in zip(norms, block.factors, strict=True)]

        def one_column(step: Array, carry: tuple[tuple[Array, ...], Any]) -> tuple[tuple[Array, ...], Any]:
            column, (current, memories) = step % rank, carry
            both = list(zip(members, current, strict=True))
            known = jax.tree.map(lambda rows: _at(rows, column), memories)
            found = [_plain_column(*member, rows, column, own) for (member, rows), own in zip(both, known, strict=True)]
            plain, known = [value for value, _ in found], [own for _, own in found]
            memories = jax.tree.map(lambda rows, own: _with(rows, own, column), memories, known)
            if norms is not None:
                free = [_linear_and_curvature(gram, right, rows, column) for (gram, right, _), rows in both]
                rules = [rule for _, _, rule in members]
                held = _held_columns(free, [rows[column] for rows in current], rules, norms, column)
                plain = [
                    jnp.where(norm[column] > 0, sphere, loose)
                    for norm, sphere, loose in zip(norms, held, plain, strict=True)
                ]
            return tuple(_with(rows, new, column) for rows, new in zip(current, plain, strict=True)), memories

        # Rows of (rank, size) lie together in memory, so the columns are worked on transposed.
        start = tuple(factor.T for factor in block.factors)
        final, memories = jax.lax.fori_loop(0, self.inner * rank, one_column, (start, state))
        result = [rows.T for rows in final]
        if jax.tree.leaves(memories):
            better = block_value(block, result) <= block_value(block, block.factors)
            result = [jnp.where(better, new, old) for new, old in zip(result, block.factors, strict=True)]
        return result, memories


def _linear_and_curvature(
    gram: Array | tuple[Array, Array], right: Array, rows: Array, column: Array
) -> tuple[Array, Array]:
    """Return h and g of the column's problem ``1/2 g |a|^2 - <h, a>``; g is a number, or one per row."""
    own = rows[column]
    if isinstance(gram, tuple):
        shared, scale = gram
        weights = jax.lax.dynamic_index_in_dim(shared, column, 0, keepdims=False)
        return right[column] + scale * (weights[column] * own - weights @ rows), scale * weights[column]
    if gram.ndim == 2:
        weights = jax.lax.dynamic_index_in_dim(gram, column, 0, keepdims=False)
        curvature = weights[column]
        return right[column] - weights @ rows + curvature * own, curvature
    weights = jax.lax.dynamic_index_in_dim(gram, column, 1, keepdims=False)
    curvature = jax.lax.dynamic_index_in_dim(weights, column, 1, keepdims=False)
    return right[column] - jnp.einsum("nr,rn->n", weights, rows) + curvature * own, curvature


class _Solved(NamedTuple):
    """What is left of a Gram matrix where the equation of every column is solved for that column.

    Attributes
    ----------
    others
        Shape (rank, rank): how much of each column goes into another one.
    step
        Shape (rank,): one over the curvature, zero for a column without.
    spread
        Shape (size,), where every row has a weight: one over that weight, zero for a row without; else None.
    """

    others: Array
    step: Array
    spread: Array | None = None


def _solved(gram: Array, right: Array, dtype: Any) -> tuple[_Solved, Array]:
    """Return equations solved for each column, and their right-hand sides; so a column costs no more than a product."""
    own = jnp.eye(len(gram), dtype=bool)
    curvature = jnp.sum(jnp.where(own, gram, 0), axis=1)
    alive = curvature > 0
    step = jnp.where(alive, 1 / jnp.where(alive, curvature, 1), 0)
    # A column whose partner died keeps its shape: what goes into it is itself.
    others = jnp.where(own, jnp.where(alive, 0, -1)[:, None], gram * step[:, None])
    step = step.astype(dtype)
    return _Solved(others.astype(dtype), step), right.astype(dtype) * step[:, None]


def _solved_by_row(gram: Array, weights: Array, right: Array, dtype: Any) -> tuple[_Solved, Array]:
    """Return the same for rows that share a Gram matrix but for a weight, which says nothing of where they lie."""
    having = weights > 0
    spread = jnp.where(having, 1 / jnp.where(having, weights, 1), 0).astype(dtype)
    solved, right = _solved(gram, right.astype(dtype) * spread, dtype)
    return solved._replace(spread=spread), right


def _at(values: Array, column: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(values, column, 0, keepdims=False)


def _with(rows: Array, new: Array, column: Array) -> Array:
    # As a slice: an update by index looks whether it is inside, in kernels of its own.
    return jax.lax.dynamic_update_index_in_dim(rows, new.astype(rows.dtype), column, 0)


def _plain_column(
    gram: _Solved | Array | tuple[Array, Array],
    right: Array,
    constraints: ModeConstraints,
    rows: Array,
    column: Array,
    memory: tuple[Any, ...],
) -> tuple[Array, tuple[Any, ...]]:
    """Return the exact minimiser of the column, free in norm, and what is remembered for the next one."""

    def nearest(values: Array, step: Array) -> tuple[Array, tuple[Any, ...]]:
        if not memory:
            return constraints.prox(values, step, column), memory
        found, kept = constraints.prox_from(values, step, memory[0], column)
        return found, (kept,)

    if isinstance(gram, _Solved):
        into, own_right, step = (_at(values, column) for values in (gram.others, right, gram.step))
        whole = own_right - into @ rows
        if gram.spread is None:
            return nearest(whole, step)
        best, kept = nearest(whole, step * gram.spread)
        # Of a row without data nothing is known.
        return jnp.where(gram.spread > 0, best, constraints.prox(jnp.zeros_like(whole), 0.0, column)), kept
    linear, curvature = _linear_and_curvature(gram, right, rows, column)
    own, alive = rows[column], curvature > 0
    step = 1 / jnp.where(alive, curvature, 1)
    best, kept = nearest(linear * step, step)
    # Without curvature nothing is known: a row without data is zero, a column whose partner died keeps its shape.
    idle = own if curvature.ndim == 0 else constraints.prox(jnp.zeros_like(own), 0.0, column)
    return jnp.where(alive, best, idle), kept


def _held_columns(
    free: Sequence[tuple[Array, Array]],
    own: Sequence[Array],
    constraints: Sequence[ModeConstraints],
    norms: Sequence[Array],
    column: Array,
) -> list[Array]:
    """Return better columns of a block under the joint unit norm (cones and norms), the best where that is known."""
    weights = [norm[column] for norm in norms]
    curvature = [item[1] for item in free]
    pulled = [rule.prox(linear, 1.0, column) for (linear, _), rule in zip(free, constraints, strict=True)]
    if len(free) == 1 and curvature[0].ndim == 0:
        # The quadratic term is a number, so the linear one decides.
        left = jnp.any(pulled[0] != 0)
        if constraints[0].separability == Separability.ENTRY:
            instead = _favourable_entry(free[0][0], constraints[0], column)
        else:
            # A single entry need not be allowed, nor the best.
            instead = _bound_step(free, own, constraints, weights, column, left)[0]
        return _to_unit_norm([jnp.where(left, pulled[0], instead)], own, weights)
    shift = _secular_root(pulled, curvature, weights)
    shifted = [g + shift * weight for g, weight in zip(curvature, weights, strict=True)]
    raw = [p / jnp.where(d > 0, d, 1) for p, d in zip(pulled, shifted, strict=True)]
    # Left of a pole the root is no minimum, so there a bound is minimised that touches the objective at the old column.
    convex = jnp.all(jnp.stack([jnp.min(d) >= 0 for d in shifted]))
    bound = _bound_step(free, own, constraints, weights, column, convex)
    return _to_unit_norm([jnp.where(convex, a, b) for a, b in zip(raw, bound, strict=True)], own, weights)


def _bound_step(
    free: Sequence[tuple[Array, Array]],
    own: Sequence[Array],
    constraints: Sequence[ModeConstraints],
    weights: Sequence[Array],
    column: Array,
    skip: Array,
) -> list[Array]:
    """Return, up to its norm, the minimiser of the objective with its curvature raised to a multiple of the norm's.

    The multiple grows until something is left after the proximal map, so that only a stationary column stays.
    """
    positive = [jnp.where(weight > 0, weight, 1) for weight in weights]
    steepest = jnp.max(jnp.stack([jnp.max(g) / weight for (_, g), weight in zip(free, positive, strict=True)]))
    size = jnp.sqrt(
        sum(jnp.sum(jnp.square(linear)) / weight for (linear, _), weight in zip(free, positive, strict=True))
    )

    def minimiser(multiple: Array) -> list[Array]:
        return [
            rule.prox(linear + (multiple * weight - g) * old, 1.0, column) / weight
            for (linear, g), rule, old, weight in zip(free, constraints, own, positive, strict=True)
        ]

    def nothing(state: tuple[Array, Array]) -> Array:
        multiple, count = state
        return ~skip & (count < 40) & ~jnp.any(jnp.stack([jnp.any(value != 0) for value in minimiser(multiple)]))

    multiple, _ = jax.lax.while_loop(
        nothing, lambda state: (2 * state[0] + size, state[1] + 1), (steepest, jnp.asarray(0))
    )
    return minimiser(multiple)


def _to_unit_norm(values: Sequence[Array], own: Sequence[Array], weights: Sequence[Array]) -> list[Array]:
    """Return the columns with the joint norm brought to one; the old ones where there is nothing to scale."""
    norm = jnp.sqrt(sum(weight * jnp.sum(jnp.square(value)) for weight, value in zip(weights, values, strict=True)))
    usable = jnp.isfinite(norm) & (norm > 0)
    return [jnp.where(usable, value / jnp.where(usable, norm, 1), old) for value, old in zip(values, own, strict=True)]


def _favourable_entry(linear: Array, rule: ModeConstraints, column: Array) -> Array:
    """Return the signed unit vector that the linear term likes best: the minimiser where all is thresholded away."""
    ones = jnp.ones_like(linear)
    up = jnp.where(rule.prox(ones, 0.0, column) > 0, linear, -jnp.inf)
    down = jnp.where(rule.prox(-ones, 0.0, column) < 0, -linear, -jnp.inf)
    best = jnp.argmax(jnp.maximum(up, down))
    sign = jnp.where(up[best] >= down[best], 1, -1)
    return jnp.where((jnp.arange(linear.size) == best) & jnp.any(linear != 0), sign, 0).astype(linear.dtype)


def _secular_root(pulled: Sequence[Array], curvature: Sequence[Array], weights: Sequence[Array]) -> Array:
    """Return the multiplier for which the weighted norm of ``p / (g + multiplier w)`` is one.

    The norm falls with the multiplier right of the last pole, so a bracket and safeguarded Newton steps on one over the
    norm find it; see the trust-region literature (More and Sorensen, doi:10.1137/0904038).
    """
    value = jnp.concatenate([p * jnp.sqrt(w) for p, w in zip(pulled, weights, strict=True)])
    pole = jnp.concatenate([jnp.broadcast_to(g, p.shape) for p, g in zip(pulled, curvature, strict=True)])
    slope = jnp.concatenate([jnp.broadcast_to(w, p.shape) for p, w in zip(pulled, weights, strict=True)])
    used = (value != 0) & (slope > 0)
    slope = jnp.where(used, slope, 1)
    size = jnp.where(used, jnp.abs(value), 0)
    low = jnp.max(jnp.where(used, (size - pole) / slope, -jnp.inf))
    high = jnp.sqrt(jnp.sum(jnp.square(size / slope))) - jnp.min(jnp.where(used, pole / slope, jnp.inf))

    def body(_: Array, bracket: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, at = bracket
        denominator = jnp.where(used, pole + at * slope, 1)
        share = jnp.where(used, size / denominator, 0)
        square = jnp.sum(jnp.square(share))
        derivative = -2 * jnp.sum(jnp.square(share) * slope / denominator)
        low, high = jnp.where(square >= 1, at, low), jnp.where(square >= 1, high, at)
        newton = at + 2 * (square - square**1.5) / jnp.where(derivative < 0, derivative, -1)
        inside = (newton >= low) & (newton <= high)
        return low, high, jnp.where(inside, newton, 0.5 * (low + high))

    return jax.lax.fori_loop(0, 15, body, (low, high, low))[2]
