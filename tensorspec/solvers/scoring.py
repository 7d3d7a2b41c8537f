"""Fisher scoring: a likelihood as least squares whose weights are renewed, and steps that are shortened until they pay.

At the present model ``m`` a divergence has a slope, and a curvature that is its expectation if the model were right
(``1 / m`` for counts).  The quadratic through both has normal equations, so that every solver of least squares takes a
likelihood with whatever constraints it knows.  It is no bound, so a step counts only where it lowers the objective
itself; else the quadratic is made steeper and asked again.
"""

# No postponed annotations in this file: equinox has to see its fields as they are.
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.losses.base import AbstractDivergence
from tensorspec.problem import Tensor
from tensorspec.solvers.base import AbstractSolver, Block

__all__ = ["ScoringState", "expected_curvature", "scored_step", "scored_tensor"]

# Shares of the mean below which a model is taken for larger in the curvature: where nothing was counted a step to zero
# is as good as any, where something was counted the curvature is real.
_EMPTY, _COUNTED = 1e-2, 1e-9
# Share of data and model below which a divergence is too small for its curvature to be read off its value.
_NEAR = 1e-3
# How the curvature is raised after a step that did not pay, and lowered after one that did; tries in one sweep.
_FIRST, _STEEPER, _FLATTER, _NONE, _TRIES = 1.0, 4.0, 0.25, 1e-2, 8


class ScoringState(eqx.Module):
    """What a scored block keeps between sweeps.

    Attributes
    ----------
    inner
        State of the solver of least squares.
    damping
        Share by which the curvature is raised.
    """

    inner: Any
    damping: Float[Array, ""]

    @classmethod
    def start(cls, inner: Any) -> "ScoringState":
        """Return the state before the first sweep."""
        return cls(inner, jnp.zeros((), jnp.float64))


def scored_tensor(tensor: Tensor, fitted: Float[Array, "..."]) -> Tensor:
    """Return the weighted least-squares tensor with the slope of a divergence at a model, and its expected curvature.

    Parameters
    ----------
    tensor
        With a divergence as its loss.
    fitted
        The model in units of the data.

    References
    ----------
    Green, Journal of the Royal Statistical Society B 46 (1984) 149, doi:10.1111/j.2517-6161.1984.tb01288.x.
    """
    loss = tensor.loss
    assert isinstance(loss, AbstractDivergence)
    mean = jnp.mean(fitted)
    start, responses, weights = 0, [], []
    for index, block in enumerate(tensor.blocks):
        model = fitted[start : start + block.shape[0]]
        data = block.astype(model.dtype)
        least = jnp.where(data > 0, _COUNTED, _EMPTY) * jnp.where(mean > 0, mean, 1)
        slope = _slope(loss, data, model)
        weight = expected_curvature(loss, jnp.maximum(model, least.astype(model.dtype)))
        weight = jnp.maximum(weight, _curvature_of_gain(loss, data, model, slope))
        response = weight * model - slope
        if tensor.dense is not None:
            known = tensor.dense[index].astype(model.dtype)
            weight, response = known * weight, jnp.where(known > 0, known * response, 0)
        weights.append(weight)
        responses.append(response)
        start += block.shape[0]
    return dataclasses.replace(tensor, blocks=tuple(responses), dense=tuple(weights), loss=None)


def _slope(loss: AbstractDivergence, data: Array, model: Array) -> Array:
    push = loss.push(model)
    return (1 if push is None else push) - loss.pull(data, model)


def expected_curvature(loss: AbstractDivergence, model: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the derivative of the slope by the model where the data are what the model expects."""
    ones = jnp.ones_like(model)
    return jax.jvp(lambda changed: _slope(loss, model, changed), (model,), (ones,))[1]


def _curvature_of_gain(loss: AbstractDivergence, data: Array, model: Array, slope: Array) -> Array:
    """Return the curvature at which the quadratic promises no more than the whole divergence of an entry.

    Where far more was counted than the model expects, the expected curvature promises hundreds of times that.
    """
    whole = loss.entries(data, model).astype(model.dtype)
    known = (data > model) & jnp.isfinite(whole) & (whole > _NEAR * (data + model))
    return jnp.where(known, jnp.square(slope) / (2 * jnp.where(known, whole, 1)), 0)


def scored_step(
    solver: AbstractSolver,
    block: Block,
    state: ScoringState,
    value: Callable[[Sequence[Float[Array, "size rank"]]], Float[Array, ""]],
) -> tuple[list[Float[Array, "size rank"]], ScoringState]:
    """Return factors of a block at which the objective is no higher, and the new state.

    Parameters
    ----------
    solver
        Of least squares.
    block
        Its equations are the quadratics at its factors.
    state
        From the sweep before.
    value
        The objective itself, as far as it depends on the factors of the block.
    """
    before = value(block.factors)
    equations = [item for item in block.equations if isinstance(item, NormalEquations)]

    def attempt(count: Array, damping: Array, inner: Any) -> tuple[Any, ...]:
        steeper = [_damped(item, factor, damping) for item, factor in zip(equations, block.factors, strict=True)]
        found, inner = solver.step(block._replace(equations=steeper), inner)
        return count + 1, damping, found, inner, value(found)

    def again(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        count, damping, _, inner, after = carry
        # A step that did not move has left the solver with better multipliers; one that led up was too long.
        up = (after > before) | jnp.isnan(after)
        return attempt(count, jnp.where(up, jnp.maximum(_FIRST, _STEEPER * damping), damping), inner)

    def fails(carry: tuple[Any, ...]) -> Array:
        return ~(carry[4] < before) & (carry[0] < _TRIES)

    first = attempt(jnp.asarray(0), state.damping, state.inner)
    count, damping, found, inner, after = jax.lax.while_loop(fails, again, first)
    kept = [jnp.where(after < before, new, old) for new, old in zip(found, block.factors, strict=True)]
    eased = jnp.where(damping > _NONE, _FLATTER * damping, 0.0)
    return kept, ScoringState(inner, jnp.where(count == 1, eased, damping))


def _damped(equations: NormalEquations, factor: Array, damping: Array) -> NormalEquations:
    """Return the equations with the same slope at a factor and a curvature that is raised by a share."""
    gram = equations.gram.astype(jnp.float64)
    wide = factor.astype(jnp.float64)
    product = jnp.einsum("nr,nrs->ns", wide, gram) if equations.per_row else wide @ gram
    right = equations.right + (damping * product).astype(equations.right.dtype)
    return NormalEquations(equations.gram * (1 + damping).astype(equations.gram.dtype), right)
