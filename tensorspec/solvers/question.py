"""What a block is asked: normal equations where a loss has them, else a bound that touches it, or its quadratic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.majoriser import Majoriser, from_normal_equations, from_slopes
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.algebra.sparse import is_sparse
from tensorspec.coupling.links import link_equations
from tensorspec.coupling.through import inside
from tensorspec.losses.base import AbstractDivergence, AbstractRobustLoss
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.solvers.counted import loss_of_entries, pull_of_entries
from tensorspec.solvers.scoring import scored_tensor

__all__ = ["added", "ask", "doubled_loss", "fitted_in_data_units", "part_of"]


def ask(
    model: AbstractModel,
    problem: Problem,
    factors: Factors,
    mode: str,
    together: Sequence[str] = (),
    scored: bool = False,
) -> tuple[NormalEquations | Majoriser, dict[int, NormalEquations]]:
    """Return the question of a mode, and the parts of it that are exact for what their tensors see of the factor.

    Parameters
    ----------
    model, problem, factors, mode
        What is asked, and where.
    together
        The modes that are updated together with this one.
    scored
        Whether divergences are asked for their quadratic (see scoring.py), and not for their bound.
    """
    squares: dict[int, NormalEquations] = {}
    questions: list[NormalEquations | Majoriser] = list(link_equations(problem.links, mode, factors, together))
    for index in problem.containing(mode):
        tensor = problem.tensors[index]
        part = part_of(model, tensor, factors, mode, scored)
        if tensor.loss is None:
            assert isinstance(part, NormalEquations)
            squares[index] = part
        questions.append(part if isinstance(part, Majoriser) else inside(tensor, mode, part, factors[mode]))
    return added(questions, factors[mode]), squares


def part_of(
    model: AbstractModel, tensor: Tensor, factors: Factors, mode: str, scored: bool = False
) -> NormalEquations | Majoriser:
    """Return what one tensor asks of a mode: equations of what it sees of the factor, or a bound for the factor.

    Whatever the loss, the parts of blocks of pixels add up (those of the pixels themselves follow one another).
    """
    if tensor.loss is None:
        return model.normal_equations(tensor, factors, mode)
    if isinstance(tensor.loss, AbstractRobustLoss):
        return model.normal_equations(_reweighted(model, tensor, factors), factors, mode)
    if scored:
        return model.normal_equations(
            scored_tensor(tensor, fitted_in_data_units(model, tensor, factors)), factors, mode
        )
    return _bound(model, tensor, factors, mode)


def added(
    questions: Sequence[NormalEquations | Majoriser], factor: Float[Array, "size rank"]
) -> NormalEquations | Majoriser:
    """Return the sum of questions of one mode, asked at a factor."""
    squares = [item for item in questions if isinstance(item, NormalEquations)]
    bounds = [item for item in questions if isinstance(item, Majoriser)]
    if squares:
        total = squares[0]
        for part in squares[1:]:
            total = total.plus(part)
        if not bounds:
            return total
        bounds.append(from_normal_equations(total, factor))
    found = bounds[0]
    for bound in bounds[1:]:
        found = found.plus(bound)
    return found


def doubled_loss(model: AbstractModel, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
    """Return twice the loss of a tensor, without its weight, read off the data; for squares the weighted sum."""
    loss = tensor.loss
    if loss is None:
        return model.squared_residual(tensor, factors)
    if is_sparse(tensor.blocks):
        return 2 * loss_of_entries(tensor, factors) * jnp.square(tensor.scale)
    assert isinstance(loss, (AbstractDivergence, AbstractRobustLoss))
    total = jnp.zeros((), jnp.float64)
    start = 0
    fitted = fitted_in_data_units(model, tensor, factors)
    for index, block in enumerate(tensor.blocks):
        part = fitted[start : start + block.shape[0]]
        value = loss.entries(block.astype(part.dtype), part).astype(jnp.float64)
        if tensor.dense is not None:
            # An entry that is not used may have no finite loss.
            weight = tensor.dense[index].astype(jnp.float64)
            value = jnp.where(weight > 0, weight * jnp.where(weight > 0, value, 0), 0)
        for axis in range(value.ndim - 1, -1, -1):
            row = tensor.rows[axis]
            if row is None:
                value = value.sum(axis=axis)
            else:
                own = row[start : start + block.shape[0]] if axis == 0 else row
                value = jnp.sum(jnp.where(own > 0, own * jnp.where(own > 0, value, 0), 0), axis=axis)
        total = total + value
        start += block.shape[0]
    return 2 * total * jnp.square(tensor.scale)


def fitted_in_data_units(model: AbstractModel, tensor: Tensor, factors: Factors) -> Float[Array, "..."]:
    """Return the model in units of the data."""
    carrier = model.linear_in(tensor)
    scaled = (factors[carrier].astype(jnp.float64) / tensor.scale).astype(factors[carrier].dtype)
    return model.reconstruct(tensor, {**factors, carrier: scaled})


def _bound(model: AbstractModel, tensor: Tensor, factors: Factors, mode: str) -> Majoriser:
    """Return the bound of a divergence: one array of the size of the data at a time, and two where push has one."""
    loss = tensor.loss
    assert isinstance(loss, AbstractDivergence)
    if is_sparse(tensor.blocks):
        pull, push = pull_of_entries(tensor, factors, mode), _sums(model, tensor, factors, mode)
    else:
        fitted = fitted_in_data_units(model, tensor, factors)
        pull = _contracted(model, tensor, factors, mode, loss.pull, fitted)
        if loss.push(fitted[:0]) is None and tensor.dense is None:
            push = _sums(model, tensor, factors, mode)
        else:
            push = _contracted(model, tensor, factors, mode, _push_of(loss), fitted)
    operator = tensor.operator(mode)
    if operator is not None:
        # A map without negative entries takes the bound of what is seen to one of the factor, as in Richardson-Lucy.
        pull, push = (operator.adjoint(slope, len(factors[mode])) for slope in (pull, push))
    return from_slopes(jnp.maximum(pull, 0), jnp.maximum(push, 0), loss.powers, factors[mode])


def _push_of(loss: AbstractDivergence) -> Callable[[Array, Array], Array]:
    def push(data: Array, fitted: Array) -> Array:
        del data
        found = loss.push(fitted)
        return jnp.ones_like(fitted) if found is None else found

    return push


def _contracted(
    model: AbstractModel,
    tensor: Tensor,
    factors: Factors,
    mode: str,
    slope: Callable[[Array, Array], Array],
    fitted: Array,
) -> Float[Array, "size rank"]:
    """Return the contraction of a function of data and model with the other factors, weights included."""
    blocks, start = [], 0
    for index, block in enumerate(tensor.blocks):
        part = fitted[start : start + block.shape[0]]
        found = slope(block.astype(part.dtype), part)
        if tensor.dense is not None:
            weight = tensor.dense[index]
            found = jnp.where(weight > 0, found, 0) * weight.astype(part.dtype)
        blocks.append(found)
        start += block.shape[0]
    slopes = dataclasses.replace(tensor, blocks=tuple(blocks), dense=None, scale=jnp.ones_like(tensor.scale), loss=None)
    return model.normal_equations(slopes, factors, mode).right


def _sums(model: AbstractModel, tensor: Tensor, factors: Factors, mode: str) -> Float[Array, "size rank"]:
    """Return the contraction of ones: that of a tensor with a single point on every other mode, where the sums are."""
    small, rows, shape = dict(factors), [], []
    sizes = (sum(block.shape[0] for block in tensor.blocks), *tensor.blocks[0].shape[1:])
    for name, row, own, size in zip(tensor.modes, tensor.rows, tensor.own_or_whole(factors), sizes, strict=True):
        if name == mode or own is None:
            if own is not None:
                small[name] = own
            rows.append(row)
            shape.append(size)
            continue
        summed = own.astype(jnp.float64) if row is None else own * row[:, None]
        small[name] = summed.sum(axis=0, keepdims=True).astype(own.dtype)
        rows.append(None)
        shape.append(1)
    ones = Tensor(
        tensor.modes,
        (jnp.ones(shape, factors[mode].dtype),),
        jnp.ones_like(tensor.scale),
        tensor.weight,
        tuple(rows),
        None,
        tensor.square_norm,
        core=tensor.core,
    )
    return model.normal_equations(ones, small, mode).right


def _reweighted(model: AbstractModel, tensor: Tensor, factors: Factors) -> Tensor:
    """Return the least-squares tensor that touches a robust loss from above."""
    loss = tensor.loss
    assert isinstance(loss, AbstractRobustLoss)
    fitted, start = fitted_in_data_units(model, tensor, factors), 0
    blocks, weights = [], []
    for index, block in enumerate(tensor.blocks):
        part = fitted[start : start + block.shape[0]]
        data = block.astype(part.dtype)
        trust = loss.trust(data, part)
        if tensor.dense is not None:
            trust = trust * tensor.dense[index].astype(part.dtype)
        blocks.append(trust * data)
        weights.append(trust)
        start += block.shape[0]
    return dataclasses.replace(tensor, blocks=tuple(blocks), dense=tuple(weights), loss=None)
