"""Divergences of data that are mostly zero: the model is looked at where there are counts, and its sum elsewhere."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra import sparse
from tensorspec.losses.base import AbstractDivergence
from tensorspec.problem import Factors, Tensor

__all__ = ["loss_of_entries", "pull_of_entries"]


def _in_data_units(tensor: Tensor, factors: Factors) -> list[Float[Array, "size rank"]]:
    own = tensor.own(factors)
    return [(own[0].astype(jnp.float64) / tensor.scale).astype(own[0].dtype), *own[1:]]


def pull_of_entries(tensor: Tensor, factors: Factors, mode: str) -> Float[Array, "size rank"]:
    """Return the part of the slope of a divergence that pulls a factor up: an empty entry has none."""
    loss = tensor.loss
    assert sparse.is_sparse(tensor.blocks) and isinstance(loss, AbstractDivergence)
    axis, own = tensor.modes.index(mode), _in_data_units(tensor, factors)
    pull = sparse.weighted_pull(tensor.blocks[0], own, axis, tensor.rows, loss.pull)
    if axis:  # the first factor was taken in units of the data, for the model
        pull = pull * tensor.scale
    return (pull * tensor.weight).astype(factors[mode].dtype)


def loss_of_entries(tensor: Tensor, factors: Factors) -> Float[Array, ""]:
    """Return a divergence whose value at an empty entry is the model there, summed in float64."""
    loss = tensor.loss
    assert sparse.is_sparse(tensor.blocks) and isinstance(loss, AbstractDivergence)
    own = _in_data_units(tensor, factors)
    sums = []
    for factor, row in zip(own, tensor.rows, strict=True):
        wide = factor.astype(jnp.float64)
        sums.append(jnp.sum(wide if row is None else wide * row[:, None], axis=0))
    counted = sparse.sum_at(
        tensor.blocks[0], own, tensor.rows, lambda data, model: loss.entries(data, model).astype(model.dtype) - model
    )
    return jnp.sum(reduce(jnp.multiply, sums)) + counted
