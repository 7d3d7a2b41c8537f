"""The misfit near a point: its slope, its Gauss-Newton product, and the blocks that precondition it.

A point is the factors of all modes and the fitted parameters of all operators.  Where the model has Gram products and
the loss is least squares with weights that are products of vectors, nothing but the slope reads the data; else a
product costs the derivative of the model in the size of the data, there and back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.coupling.operators import Parametric
from tensorspec.losses.base import AbstractDivergence, AbstractRobustLoss
from tensorspec.models.base import AbstractModel, TangentProducts
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.solvers.question import fitted_in_data_units

__all__ = ["Local", "Point", "local_model", "point_of", "tensor_at"]


class Point(NamedTuple):
    """Factors, and for each tensor the fitted parameters of the operators of its axes; None where there are none."""

    factors: Factors
    parameters: tuple[Any, ...]


class Local(NamedTuple):
    """The misfit near a point.

    Attributes
    ----------
    slope
        Its derivative.
    product
        The Gauss-Newton (Fisher) matrix times a change of the point.
    blocks
        For each mode an estimate of the block of that matrix that ties the entries of one row: ``(rank, rank)``, or
        ``(size, rank, rank)``.
    """

    slope: Point
    product: Callable[[Point], Point]
    blocks: dict[str, Float[Array, "..."]]


def point_of(problem: Problem, factors: Factors) -> Point:
    """Return the point of factors and of the operators as they are."""
    parameters = []
    for tensor in problem.tensors:
        own = []
        for operator in tensor.operators or ():
            values = operator.parameters() if isinstance(operator, Parametric) else None
            own.append(None if values is None or values.size == 0 else values.astype(jnp.float64))
        parameters.append(tuple(own))
    return Point(dict(factors), tuple(parameters))


def tensor_at(tensor: Tensor, parameters: tuple[Any, ...]) -> Tensor:
    """Return a tensor whose operators have the given parameters."""
    if not any(values is not None for values in parameters):
        return tensor
    assert tensor.operators is not None
    placed = tuple(
        operator if values is None else operator.with_parameters(values)
        for operator, values in zip(tensor.operators, parameters, strict=True)
    )
    return dataclasses.replace(tensor, operators=placed)


def local_model(model: AbstractModel, problem: Problem, point: Point, dtype: Any) -> Local:
    """Return the misfit near a point, all tensors together; what reads the data is computed in `dtype`."""
    slopes, products = [], []
    blocks: dict[str, Array] = {}
    for index, tensor in enumerate(problem.tensors):
        by_grams = isinstance(model, TangentProducts) and tensor.dense is None and tensor.loss is None
        slope, product, grams = (_by_grams if by_grams else _by_data)(model, tensor, index, point, dtype)
        slopes.append(slope)
        products.append(product)
        for mode, gram in grams.items():
            block = _before(tensor.operator(mode), gram, len(point.factors[mode]))
            blocks[mode] = blocks[mode] + block if mode in blocks else block

    def whole(change: Point) -> Point:
        return _added([item(change) for item in products])

    return Local(_added(slopes), whole, blocks)


def _by_grams(
    model: Any, tensor: Tensor, index: int, point: Point, dtype: Any
) -> tuple[Point, Callable[[Point], Point], dict[str, Float[Array, "..."]]]:
    """Return slope, product and the Gram matrices of one tensor, the data read for the slope alone."""
    own, along = jax.linearize(lambda at: tensor_at(tensor, at.parameters[index]).own(at.factors), point)
    back = jax.linear_transpose(along, point)
    plain, factors = _alone(tensor, own, point, dtype)
    slopes, grams = [], {}
    for mode, values in zip(tensor.modes, own, strict=True):
        equations = model.normal_equations(plain, factors, mode)
        grams[mode] = equations.gram.astype(jnp.float64)
        seen = jnp.einsum("nr,nrs->ns", values, grams[mode]) if equations.per_row else values @ grams[mode]
        slopes.append(seen - equations.right.astype(jnp.float64))

    def product(change: Point) -> Point:
        return back(model.tangent_product(plain, own, along(change)))[0]

    return back(slopes)[0], product, grams


def _by_data(
    model: AbstractModel, tensor: Tensor, index: int, point: Point, dtype: Any
) -> tuple[Point, Callable[[Point], Point], dict[str, Float[Array, "..."]]]:
    """Return slope, product and near enough Gram matrices of one tensor, by derivatives of the model itself."""

    def seen(at: Point) -> Array:
        placed = tensor_at(tensor, at.parameters[index])
        return fitted_in_data_units(model, placed, {m: f.astype(dtype) for m, f in at.factors.items()})

    fitted, along = jax.linearize(seen, point)
    back = jax.linear_transpose(along, point)
    slope, curvature = slope_and_curvature(tensor, fitted)

    def product(change: Point) -> Point:
        return back(curvature * along(change))[0]

    # As if the weight were the product of its means: enough to precondition, and exact for weights that are.
    wide, axes = curvature.astype(jnp.float64) / jnp.square(tensor.scale), range(curvature.ndim)
    mean = jnp.mean(wide)
    rows = [jnp.mean(wide, axis=tuple(k for k in axes if k != axis)) / jnp.where(mean > 0, mean, 1) for axis in axes]
    rows[0] = rows[0] * mean
    plain, factors = _alone(tensor, tensor.own_or_whole(point.factors), point, dtype)
    one = jnp.ones_like(tensor.weight)
    plain = dataclasses.replace(plain, dense=None, loss=None, rows=tuple(rows), weight=one, scale=one)
    grams = {name: model.normal_equations(plain, factors, name).gram.astype(jnp.float64) for name in factors}
    return back(slope)[0], product, grams


def slope_and_curvature(tensor: Tensor, fitted: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the derivative of the misfit by every entry of the model in data units, and its second one."""
    loss = tensor.loss
    data = jnp.concatenate(tensor.blocks).astype(fitted.dtype)
    weight: Any = jnp.square(tensor.scale) * tensor.weight
    for axis, row in enumerate(tensor.rows):
        if row is not None:
            weight = weight * row.reshape([-1 if k == axis else 1 for k in range(fitted.ndim)])
    if isinstance(loss, AbstractDivergence):
        push = loss.push(fitted)
        slope = (jnp.ones_like(fitted) if push is None else push) - loss.pull(data, fitted)
        curvature = _curvature(loss, data, fitted)
    elif isinstance(loss, AbstractRobustLoss):
        curvature = loss.trust(data, fitted)
        slope = curvature * (fitted - data)
    else:
        curvature, slope = jnp.ones_like(fitted), fitted - data
    if tensor.dense is not None:
        dense = jnp.concatenate(tensor.dense)
        used, dense = dense > 0, dense.astype(fitted.dtype)
        # Of least squares the data are stored with their weight.
        slope = jnp.where(used, dense * fitted - data if loss is None else dense * slope, 0)
        curvature = jnp.where(used, dense * curvature, 0)
    return (slope * weight).astype(fitted.dtype), (curvature * weight).astype(fitted.dtype)


def _curvature(loss: AbstractDivergence, data: Array, fitted: Array) -> Array:
    """Return the second derivative of a divergence, zero where it is below that."""

    def slope(values: Array) -> Array:
        push = loss.push(values)
        return (1.0 if push is None else push) - loss.pull(data, values)

    found = jax.jvp(slope, (fitted,), (jnp.ones_like(fitted),))[1]
    return jnp.where(fitted > 0, jnp.maximum(found, 0), 0)


def _before(operator: Any, gram: Float[Array, "..."], size: int) -> Float[Array, "..."]:
    """Return row blocks of a factor from those of what a tensor sees of it, from above."""
    if operator is None:
        return gram
    seen = operator.apply(jnp.ones((size, 1)), absolute=True)
    if gram.ndim == 2:
        return operator.adjoint(seen, size, absolute=True)[:, :, None] * gram
    spread = operator.adjoint((seen[:, :, None] * gram).reshape(len(seen), -1), size, absolute=True)
    return spread.reshape(size, *gram.shape[1:])


def _alone(tensor: Tensor, own: Sequence[Array | None], point: Point, dtype: Any) -> tuple[Tensor, Factors]:
    """Return the tensor as if the factors that it sees were its own, and these in the type of the data."""
    found = {mode: values.astype(dtype) for mode, values in zip(tensor.modes, own, strict=True) if values is not None}
    if tensor.core is not None:
        found[tensor.core] = point.factors[tensor.core].astype(dtype)
    return dataclasses.replace(tensor, operators=None, seen=None), found


def _added(items: list[Any]) -> Any:
    found = items[0]
    for item in items[1:]:
        found = jax.tree.map(jnp.add, found, item)
    return found
