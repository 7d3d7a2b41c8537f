"""Damped Gauss-Newton steps of all modes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractHardConstraint,
    AbstractMajorisedPenalty,
    AbstractQuadraticPenalty,
    CompletesSquare,
    Stateful,
)
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.sparse import Sparse
from tensorspec.coupling.operators import Parametric
from tensorspec.coupling.through import with_operators
from tensorspec.errors import InvalidArgument
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.scale import ScalePlan
from tensorspec.solvers.base import AbstractJointSolver, rounding
from tensorspec.solvers.charts import chart_of, chart_refusal
from tensorspec.solvers.gradients import conjugate_gradients, dot
from tensorspec.solvers.local import Point, point_of, tensor_at
from tensorspec.solvers.quadratic import quadratic_model
from tensorspec.solvers.sweep import SweepState, objective

__all__ = ["GaussNewton", "NewtonState"]

# Steps that are tried from one point, each with more damping than the one before.
_TRIES = 8
_LEAST_DAMPING, _MOST_DAMPING = 1e-12, 1e12
_FORCING = 1e-2


class NewtonState(eqx.Module):
    """What is kept between sweeps.

    Attributes
    ----------
    free
        The free variables of every mode, in the order of the names.
    damping, growth
        The present damping, and what it is multiplied by when a step fails.
    """

    free: tuple[Float[Array, "size rank"], ...]
    damping: Float[Array, ""]
    growth: Float[Array, ""]


class _Try(NamedTuple):
    """The last step that was tried from a point."""

    count: Array
    damping: Array
    growth: Array
    accepted: Array
    hopeless: Array
    free: Any
    factors: Any
    parameters: Any
    objective: Array
    misfit: Array


class GaussNewton(AbstractJointSolver):
    """Gauss-Newton steps of all modes at once, damped by Levenberg and Marquardt: to polish a fit.

    Block solvers such as `HALS` go down quickly at first and crawl where components are nearly collinear, as each block
    has to wait for the others.  Here all factors and the fitted parameters of operators move together, so that a fit
    that is close to its end gets there in a few sweeps, each some times as dear as one of theirs.

    From a cold start (any but ``From(fit)``) the solver that ``"auto"`` would choose makes the first `warm` sweeps.

    Parameters
    ----------
    inner
        Largest number of steps of conjugate gradients that solve for one Gauss-Newton step.
    damping
        Damping of the first step, relative to the mean curvature of each mode.
    warm
        Sweeps of the usual solver before the first step, fewer where they gain less than 1e-3 each.

    Raises
    ------
    InvalidArgument
        When a number is out of range.
    ConstraintConflict
        By `fit`, for a constraint that free variables cannot express or a penalty without a derivative, by name.

    Notes
    -----
    Constraints are expressed by free variables: `NonNegative` by squares, `Box` by a logistic map, `Monotone` by sums
    of positive steps, `Fixed` entries by none.  The square stands still at zero, the logistic map at its walls.  So an
    entry at or next to a bound, nearer than a tenth of its slope over its curvature (times the rank, so that all of a
    row may do it at once), is taken out of the step and moves by just that, off the bound or onto it.  Entries are
    zero exactly, and where a fit ends none of them wants to leave.  Of `Monotone` columns steps of zero are approached.

    The objective is the one of the other solvers, with unit norms on the modes that carry no scale: the penalties are
    those of the factors brought to these norms, and are derived through that.  To the Gauss-Newton matrix of the misfit
    come the second derivatives of the penalties and, next to a bound, the bend of the map from the free variables.
    With `Poisson` or `Beta` the matrix has the second derivatives of the loss where they are above zero, with `Huber`
    the weights of the squares that touch the loss.

    The linear system is solved by conjugate gradients, preconditioned with the block of each row, which comes from the
    Gram matrices; with least squares and weights that are products of vectors no step of it touches the data.

    References
    ----------
    Tomasi and Bro, Computational Statistics and Data Analysis 50 (2006) 1700, doi:10.1016/j.csda.2004.11.013; Sorber,
    Van Barel and De Lathauwer, SIAM Journal on Optimization 23 (2013) 695, doi:10.1137/120868323; Nielsen, Damping
    parameter in Marquardt's method, IMM-REP-1999-05, Technical University of Denmark.

    Examples
    --------
    >>> GaussNewton(warm=10)
    GaussNewton(warm=10)
    """

    inner: int = eqx.field(default=100, static=True)
    damping: float = eqx.field(default=1e-3, static=True)
    warm: int = eqx.field(default=30, static=True)

    def __check_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, least in (("inner", 1), ("warm", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgument(f"GaussNewton({name}={value!r}): expected a whole number of {least} or more")
        if not isinstance(self.damping, (int, float)) or not 0 < self.damping < float("inf"):
            raise InvalidArgument(f"GaussNewton(damping={self.damping!r}): expected a number above zero")

    def refusal(self, mode: str, constraints: ModeConstraints) -> str | None:
        """Return why derivatives are not enough for a mode; see the base class."""
        if constraints.unheard:
            return f"{constraints.unheard[0]} on mode {mode!r} is a rule that belongs to no objective"
        for member in constraints.members:
            name = type(member).__name__
            if isinstance(member, Stateful):
                return f"{name} on mode {mode!r} changes while the fit runs, and what it minimises has no derivative"
            smooth = isinstance(member, (AbstractQuadraticPenalty, AbstractMajorisedPenalty, CompletesSquare))
            if isinstance(member, AbstractHardConstraint) or smooth or member.degree == 2:
                continue
            if isinstance(member, Sparse):
                if constraints.nonnegative:
                    continue
                return f"{name} on mode {mode!r} has no derivative at zero where entries may change their sign"
            return f"{name} on mode {mode!r} has no derivative where it matters: at the kinks that it looks for"
        complaint = chart_refusal(constraints)
        return None if complaint is None else f"mode {mode!r}: {complaint}"

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> NewtonState:
        """Return the free variables of the factors, and the first damping."""
        free = tuple(
            chart_of(rule, len(factor)).inverse(factor.astype(jnp.float64))
            for factor, rule in zip(factors, constraints, strict=True)
        )
        return NewtonState(free, jnp.asarray(self.damping, jnp.float64), jnp.asarray(2.0, jnp.float64))

    def sweep(
        self, model: AbstractModel, plan: ScalePlan, problem: Problem, state: SweepState
    ) -> tuple[SweepState, Float[Array, ""]]:
        """Take one step that does not raise the objective, with as much damping as that needs."""
        names = sorted(state.factors)
        kept: NewtonState = state.solver_states[0]
        present = with_operators(Problem(problem.tensors, state.constraints, problem.links), state.operators)
        charts = {mode: chart_of(present.constraints[mode], len(state.factors[mode])) for mode in names}
        free = Point(dict(zip(names, kept.free, strict=True)), point_of(present, {}).parameters)
        dtype = state.factors[names[0]].dtype
        local = quadratic_model(model, plan, present, charts, free, dtype)
        weights = [tensor.weight for tensor in problem.tensors]
        nothing = rounding(state.factors) * problem.square_norm

        def attempt(last: _Try) -> _Try:
            damped = local.damped(last.damping)
            step = conjugate_gradients(
                damped.product, damped.precondition, jax.tree.map(jnp.negative, local.slope), _FORCING, self.inner
            )
            step = _within_reach(present, step)
            goal, gain = local.released(last.damping)
            gain = gain - dot(local.slope, step) - 0.5 * dot(step, local.product(step))
            moved = jax.tree.map(jnp.add, free, step)
            variables = {m: jnp.where(local.bound[m], goal[m], charts[m].clipped(moved.factors[m])) for m in names}
            factors = {m: charts[m].forward(variables[m]) for m in names}
            factors = plan.retract(factors, local.point.factors, weights)
            variables = {m: charts[m].inverse(factors[m], variables[m]) for m in names}
            found = {m: factors[m].astype(dtype) for m in names}
            tensors = tuple(map(tensor_at, present.tensors, moved.parameters))
            tried, misfit, _ = objective(model, Problem(tensors, present.constraints, present.links), found)
            accepted = tried <= state.objective
            ratio = (state.objective - tried) / jnp.where(gain > 0, gain, 1)
            shrink = jnp.maximum(1 / 3, 1 - (2 * jnp.clip(ratio, 0, 1) - 1) ** 3)
            damping = jnp.where(accepted, last.damping * shrink, last.damping * last.growth)
            return _Try(
                last.count + 1,
                jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING),
                jnp.where(accepted, 2.0, 2 * last.growth),
                accepted,
                gain <= nothing,
                variables,
                found,
                moved.parameters,
                tried,
                misfit,
            )

        first = _Try(
            jnp.asarray(0, jnp.int32),
            kept.damping,
            kept.growth,
            jnp.asarray(False),
            jnp.asarray(False),
            free.factors,
            {m: state.factors[m] for m in names},
            free.parameters,
            state.objective,
            state.misfit,
        )
        last = jax.lax.while_loop(lambda t: (t.count < _TRIES) & ~t.accepted & ~t.hopeless, attempt, first)

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(last.accepted, a, b), new, old)

        factors: Factors = keep(last.factors, dict(state.factors))
        parameters = keep(last.parameters, free.parameters)
        variables = keep(last.free, free.factors)
        # A growth that has run away would stop the next sweep before it has begun.
        growth = jnp.where(last.accepted, last.growth, 2.0)
        after = dataclasses.replace(
            state,
            factors=factors,
            previous=factors,
            solver_states=(NewtonState(tuple(variables[m] for m in names), last.damping, growth),),
            operators=tuple(tensor_at(t, own).operators for t, own in zip(present.tensors, parameters, strict=True)),
            objective=jnp.where(last.accepted, last.objective, state.objective),
            misfit=jnp.where(last.accepted, last.misfit, state.misfit),
            sweeps=state.sweeps + 1,
        )
        return after, last.objective


def _within_reach(problem: Problem, step: Point) -> Point:
    """Return a step, shortened until no parameter of an operator moves farther than it may."""
    share = jnp.ones(())
    for tensor, own in zip(problem.tensors, step.parameters, strict=True):
        for operator, change in zip(tensor.operators or (), own, strict=False):
            if change is not None:
                assert isinstance(operator, Parametric)
                size = jnp.abs(change)
                share = jnp.minimum(share, jnp.min(jnp.where(size > 0, operator.reach() / size, jnp.inf)))
    return jax.tree.map(lambda item: share * item, step)
