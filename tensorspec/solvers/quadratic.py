"""The objective near a point as a quadratic in the free variables of all modes and of the operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.small import inverse
from tensorspec.constraints.base import AbstractHardConstraint
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.sparse import Sparse
from tensorspec.coupling.links import link_value
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.scale import ScalePlan
from tensorspec.solvers.charts import Chart, slopes_and_bends
from tensorspec.solvers.gradients import dot
from tensorspec.solvers.local import Point, local_model

__all__ = ["Damped", "Quadratic", "brought_to_norms", "penalty_of", "quadratic_model"]


class Damped(NamedTuple):
    """The matrix with damping, and an approximate inverse of it."""

    product: Callable[[Point], Point]
    precondition: Callable[[Point], Point]


class Quadratic(NamedTuple):
    """The objective near a point.

    Attributes
    ----------
    point
        The factors, and the parameters of the operators.
    pull
        Slope by the factors themselves.
    slope
        Slope by the free variables, zero for entries that are known or at a bound.
    product
        The matrix times a change of the free variables.
    bound
        Entries at a bound or next to one, which move by themselves.
    damped
        The matrix with some damping.
    released
        For some damping, the free variables of the entries at a bound, and by how much the objective should fall.
    """

    point: Point
    pull: dict[str, Float[Array, "size rank"]]
    slope: Point
    product: Callable[[Point], Point]
    bound: dict[str, Array]
    damped: Callable[[Float[Array, ""]], Damped]
    released: Callable[[Float[Array, ""]], tuple[dict[str, Array], Float[Array, ""]]]


def penalty_of(plan: ScalePlan, problem: Problem) -> Callable[[Factors], Float[Array, ""]] | None:
    """Return the penalties of factors that are first brought to their norms, or None where there are none."""
    penalised = any(
        not isinstance(member, AbstractHardConstraint)
        for rule in problem.constraints.values()
        for member in rule.members
    )
    if not penalised and not problem.links:
        return None
    weights = [tensor.weight for tensor in problem.tensors]

    def penalty(factors: Factors) -> Float[Array, ""]:
        unit = brought_to_norms(plan, factors, weights)
        total = link_value(problem.links, unit)
        for mode, rule in problem.constraints.items():
            total = total + _value(rule, unit[mode])
        return total

    return penalty


def _value(rule: ModeConstraints, factor: Float[Array, "size rank"]) -> Float[Array, ""]:
    """Return the penalties of a factor, smooth where no entry is below zero."""
    total = jnp.zeros((), jnp.float64)
    for member in rule.members:
        if isinstance(member, AbstractHardConstraint):
            continue
        own = factor if member.components is None else factor[:, jnp.asarray(member.components) - 1]
        total = total + (member.strength * jnp.sum(own) if isinstance(member, Sparse) else member.value(own))
    return total


def brought_to_norms(plan: ScalePlan, factors: Factors, weights: list[Array]) -> Factors:
    """Return what `ScalePlan.retract` does where no column vanishes, with a derivative also where one does."""
    result = dict(factors)
    for item in plan.normalisations:
        square = sum(
            (1.0 if k is None else weights[k]) * jnp.sum(jnp.square(result[m]), axis=0)
            for m, k in zip(item.modes, item.tensors, strict=True)
        )
        chosen = jnp.asarray(item.columns) & (square > 0)
        norm, spread = jnp.sqrt(jnp.where(chosen, square, 1.0)), dict(item.spread)
        for mode, power in item.exponents:
            own = norm[jnp.asarray(spread[mode])] if mode in spread else norm
            result[mode] = result[mode] * own**power
    return result


def quadratic_model(
    model: AbstractModel, plan: ScalePlan, problem: Problem, charts: Mapping[str, Chart], free: Point, dtype: Any
) -> Quadratic:
    """Return the objective near a point.

    Parameters
    ----------
    model, plan, problem
        What is solved.
    charts
        The free variables of each mode.
    free
        Where.
    dtype
        In which the data are read.
    """
    modes = sorted(charts)
    point = Point({m: charts[m].forward(free.factors[m]) for m in modes}, free.parameters)
    misfit = local_model(model, problem, point, dtype)
    pull, bending = dict(misfit.slope.factors), None
    penalty = penalty_of(plan, problem)
    if penalty is not None:
        slope, bending = jax.linearize(jax.grad(penalty), point.factors)
        pull = jax.tree.map(jnp.add, pull, slope)
    diagonals = {m: _diagonal(misfit.blocks[m], len(point.factors[m])) for m in modes}
    own = {m: _above_nothing(diagonals[m]) * diagonals[m].shape[1] for m in modes}
    bound = {m: charts[m].at_bounds(point.factors[m], pull[m], own[m])[0] for m in modes}
    moving = {m: charts[m].moving(len(point.factors[m])) & ~bound[m] for m in modes}

    forward = {m: jax.linearize(charts[m].forward, free.factors[m])[1] for m in modes}
    back = {m: jax.linear_transpose(forward[m], free.factors[m]) for m in modes}
    bent = {m: slopes_and_bends(charts[m], free.factors[m], pull[m]) for m in modes}
    along = {m: jnp.where(moving[m], bent[m][0], 0) for m in modes}
    # Farther inside, what is lost where the bend is downward is no less than what this would gain, and nearly flat
    # directions would look curved.
    close = {
        m: charts[m].within(1.0, point.factors[m], pull[m] / own[m]) | ~jnp.asarray(charts[m].by_entry) for m in modes
    }
    bends = {m: jnp.where(moving[m] & close[m], bent[m][1], 0) for m in modes}

    def to_free(change: dict[str, Array]) -> dict[str, Array]:
        return {m: jnp.where(moving[m], back[m](change[m])[0], 0) for m in modes}

    def product(change: Point) -> Point:
        inside = {m: forward[m](jnp.where(moving[m], change.factors[m], 0)) for m in modes}
        image = misfit.product(Point(inside, change.parameters))
        whole = image.factors if bending is None else jax.tree.map(jnp.add, image.factors, bending(inside))
        outside = to_free(whole)
        return Point({m: outside[m] + bends[m] * change.factors[m] for m in modes}, image.parameters)

    level = {m: _above_nothing(jnp.mean(jnp.square(along[m]) * diagonals[m])) for m in modes}
    of_parameters = _parameter_curvatures(product, free)

    def damped(damping: Float[Array, ""]) -> Damped:
        inverses = {m: _inverse(along[m], misfit.blocks[m], bends[m] + damping * level[m], charts[m]) for m in modes}

        def with_damping(change: Point) -> Point:
            image = product(change)
            return Point(
                {m: image.factors[m] + damping * level[m] * change.factors[m] for m in modes},
                jax.tree.map(lambda i, c, d: i + damping * d * c, image.parameters, change.parameters, of_parameters),
            )

        def precondition(change: Point) -> Point:
            return Point(
                {m: _times(inverses[m], change.factors[m]) for m in modes},
                jax.tree.map(lambda c, d: c / ((1 + damping) * d), change.parameters, of_parameters),
            )

        return Damped(with_damping, precondition)

    def released(damping: Float[Array, ""]) -> tuple[dict[str, Array], Float[Array, ""]]:
        goals, gain = {}, jnp.zeros((), jnp.float64)
        for m in modes:
            curvature = own[m] + damping * _above_nothing(jnp.mean(diagonals[m]))
            goal = charts[m].at_bounds(point.factors[m], pull[m], curvature)[1]
            change = jnp.where(bound[m], goal - point.factors[m], 0)
            goals[m] = charts[m].inverse(goal)
            gain = gain - jnp.sum(pull[m] * change) - 0.5 * jnp.sum(own[m] * jnp.square(change))
        return goals, gain

    slope = Point(to_free(pull), misfit.slope.parameters)
    return Quadratic(point, pull, slope, product, bound, damped, released)


def _above_nothing(values: Array) -> Array:
    return jnp.where(values > 0, values, 1.0)


def _diagonal(block: Float[Array, "..."], size: int) -> Float[Array, "size rank"]:
    """Return the diagonal of the blocks of all rows."""
    own = jnp.diagonal(block, axis1=-2, axis2=-1)
    return jnp.broadcast_to(own, (size, own.shape[-1]))


def _inverse(
    along: Float[Array, "size rank"], block: Float[Array, "..."], added: Float[Array, "..."], chart: Chart
) -> Float[Array, "..."]:
    """Return the inverse of the block of each row in the free variables, positive definite by construction."""
    rank = block.shape[-1]
    if chart.plain and block.ndim == 2:
        whole = block + jnp.mean(added) * jnp.eye(rank)
    else:
        whole = along[:, :, None] * block * along[:, None, :]
        whole = whole + (added + jnp.zeros_like(along))[:, :, None] * jnp.eye(rank)
    # Of collinear components a block is singular to rounding, and would have no root.
    whole = whole + 1e-14 * jnp.trace(whole, axis1=-2, axis2=-1)[..., None, None] * jnp.eye(rank)
    return inverse(whole)


def _times(inverse: Float[Array, "..."], values: Float[Array, "size rank"]) -> Float[Array, "size rank"]:
    return jnp.einsum("nrs,ns->nr", inverse, values) if inverse.ndim == 3 else values @ inverse


def _parameter_curvatures(product: Callable[[Point], Point], free: Point) -> tuple[Any, ...]:
    """Return the diagonal of the matrix for the parameters of operators, which are few."""
    zero = jax.tree.map(jnp.zeros_like, free)
    leaves, structure = jax.tree.flatten(free.parameters)
    found = []
    for index, leaf in enumerate(leaves):

        def one(unit: Array, index: int = index) -> Array:
            change = [unit if k == index else jnp.zeros_like(other) for k, other in enumerate(leaves)]
            direction = Point(zero.factors, jax.tree.unflatten(structure, change))
            return dot(direction, product(direction))

        found.append(_above_nothing(jax.lax.map(one, jnp.eye(leaf.size))))
    return jax.tree.unflatten(structure, found)
