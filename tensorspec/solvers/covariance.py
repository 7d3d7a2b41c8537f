"""Standard errors of a fit to first order: the covariance of all free entries, from the Gauss-Newton matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tensorspec.errors import ConstraintConflict, InvalidArgument
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.scale import ScalePlan
from tensorspec.solvers.charts import chart_of, chart_refusal
from tensorspec.solvers.local import Point, local_model, point_of
from tensorspec.solvers.quadratic import brought_to_norms, penalty_of

__all__ = ["Covariance", "covariance_of"]

# Directions below this share of the largest curvature, every variable in units of its own, are not determined.
_UNDETERMINED = 1e-11
_LARGEST = 10_000


class Covariance(NamedTuple):
    """The covariance of what a fit has found.

    Attributes
    ----------
    matrix
        Of the free entries of all factors, the modes in the order of their names, then of the fitted parameters of
        operators.
    places
        For each mode ``(size, rank)``: where in the matrix an entry stands, -1 where it is known or at a bound.
    parameters
        Where the parameters stand, those of the first tensor first.
    undetermined
        Number of directions that the data do not determine, those of moving scale included.
    """

    matrix: Float[np.ndarray, "free free"]
    places: dict[str, np.ndarray]
    parameters: np.ndarray
    undetermined: int

    def standard_errors(self, mode: str) -> Float[np.ndarray, "size rank"]:
        """Return the standard errors of a factor; zero where an entry is known or at a bound."""
        own = self.places[mode]
        return np.where(own < 0, 0.0, np.sqrt(np.maximum(np.diag(self.matrix), 0))[np.maximum(own, 0)])


def covariance_of(
    model: AbstractModel, plan: ScalePlan, problem: Problem, factors: Factors, variance: float = 1.0
) -> Covariance:
    """Return the covariance of factors at a minimum, at the norms of the scale plan.

    With the matrix `S` of the misfit (Gauss-Newton; for divergences its second derivatives) and `H`, which adds those
    of the penalties, it is ``P H+ S H+ P^T`` times the variance of the noise: `P` brings a change to the norms, so that
    moving scale has no part in it, and ``+`` is the pseudo-inverse.

    Parameters
    ----------
    model, plan
        The model, and how scale is carried.
    problem
        With the operators that were found.
    factors
        Of a solved problem, in its units and at its norms.
    variance
        Of the noise of an entry in the units of the problem, divided by the entry's weight; one for likelihoods.

    Raises
    ------
    ConstraintConflict
        For constraints that tie entries together in a way that has no derivative.
    InvalidArgument
        When there are more than 10 000 free entries: the matrix would not fit.

    References
    ----------
    Seber and Wild, Nonlinear Regression, 1989, doi:10.1002/0471725315.
    """
    modes = sorted(factors)
    wide = {m: jnp.asarray(factors[m], jnp.float64) for m in modes}
    free: dict[str, np.ndarray] = {}
    for mode in modes:
        rule = problem.constraints[mode]
        complaint = chart_refusal(rule)
        chart = None if complaint else chart_of(rule, len(wide[mode]))
        if chart is None or not all(chart.by_entry):
            reason = complaint or "entries that are tied together have bounds of their own"
            raise ConstraintConflict(f"no covariance for mode {mode!r}: {reason}")
        low, high = chart.limits()
        free[mode] = np.asarray(chart.moving(len(wide[mode])) & (wide[mode] > low) & (wide[mode] < high))
    point = Point(wide, point_of(problem, {}).parameters)
    count = sum(int(own.sum()) for own in free.values())
    parameters = [np.asarray(leaf) for leaf in jax.tree.leaves(point.parameters)]
    size = count + sum(leaf.size for leaf in parameters)
    if size > _LARGEST:
        raise InvalidArgument(
            f"covariance of {size} free entries: the matrix would have {size}^2 entries; expected at most {_LARGEST}. "
            "Bin or crop the data, or take fewer components"
        )
    places, start = {}, 0
    for mode in modes:
        places[mode] = np.full(free[mode].shape, -1)
        places[mode][free[mode]] = start + np.arange(int(free[mode].sum()))
        start += int(free[mode].sum())
    dtype = next(iter(factors.values())).dtype
    units = _units(point, places, count, size)
    curved, bent, moved = _columns(model, plan, problem, point, units, dtype)
    matrix, penalised = _flat(curved, places, size), _flat(bent, places, size)
    norms = _flat(moved, places, size)
    inverse, undetermined = _pseudo_inverse(matrix + penalised)
    half = norms.T @ inverse
    return Covariance(variance * half @ matrix @ half.T, places, np.arange(count, size), undetermined)


def _units(point: Point, places: dict[str, np.ndarray], count: int, size: int) -> Point:
    """Return the unit vectors of all free variables, stacked."""
    factors = {}
    for mode, own in places.items():
        stacked = np.zeros((size, *own.shape))
        stacked[own[own >= 0], *np.nonzero(own >= 0)] = 1.0
        factors[mode] = jnp.asarray(stacked)
    leaves, structure = jax.tree.flatten(point.parameters)
    found, start = [], count
    for leaf in leaves:
        stacked = np.zeros((size, leaf.size))
        stacked[start + np.arange(leaf.size), np.arange(leaf.size)] = 1.0
        found.append(jnp.asarray(stacked))
        start += leaf.size
    return Point(factors, jax.tree.unflatten(structure, found))


@eqx.filter_jit
def _columns(
    model: AbstractModel, plan: ScalePlan, problem: Problem, point: Point, units: Point, dtype: Any
) -> tuple[Point, Point, Point]:
    """Return the columns of the matrix of the misfit, of that of the penalties, and of the change to unit norms."""
    misfit = local_model(model, problem, point, dtype)
    penalty = penalty_of(plan, problem)
    weights = [tensor.weight for tensor in problem.tensors]

    def one(unit: Point) -> tuple[Point, Point, Point]:
        bent = jax.tree.map(jnp.zeros_like, unit)
        if penalty is not None:
            bent = bent._replace(factors=jax.jvp(jax.grad(penalty), (point.factors,), (unit.factors,))[1])
        moved = jax.jvp(lambda f: brought_to_norms(plan, f, weights), (point.factors,), (unit.factors,))[1]
        return misfit.product(unit), bent, unit._replace(factors=moved)

    return jax.lax.map(one, units)


def _flat(columns: Point, places: dict[str, np.ndarray], size: int) -> np.ndarray:
    parts = [np.asarray(columns.factors[mode])[:, own >= 0] for mode, own in places.items()]
    parts += [np.asarray(leaf) for leaf in jax.tree.leaves(columns.parameters)]
    return np.concatenate([part.reshape(size, -1) for part in parts], axis=1)


def _pseudo_inverse(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the pseudo-inverse of a symmetric matrix, each variable in units of its own, and what was left out."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 0))
    unit = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T) * np.outer(unit, unit))
    used = values > _UNDETERMINED * values[-1]
    inverse = (vectors[:, used] / values[used]) @ vectors[:, used].T
    return inverse * np.outer(unit, unit), int(np.sum(~used))
