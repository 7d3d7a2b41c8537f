"""The problem as arrays: what a solver sees."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from tensorspec.constraints.compose import ModeConstraints
from tensorspec.losses.base import AbstractLoss

__all__ = ["Factors", "Problem", "Tensor"]

Factors = dict[str, Float[Array, "size rank"]]


class Tensor(eqx.Module):
    """One tensor of a problem.

    Attributes
    ----------
    modes
        Names of its modes, one per axis.
    blocks
        The data as stored, cut along the first axis, zero where missing; with `dense` weights, weight times data.
    scale
        What the data are multiplied by: one over their root mean square, or one in log-likelihood units.
    weight
        Weight of the tensor in the objective.
    rows
        Weights along each axis, or None.
    dense
        Dense weights, cut as the data are, or None.
    square_norm
        Weighted sum of squares of the scaled data; with another loss twice its value for the best constant model (a
        divergence) or for none.
    loss
        None for (weighted) least squares, else the loss, in units of the data.
    """

    modes: tuple[str, ...] = eqx.field(static=True)
    blocks: tuple[Num[Array, "..."], ...]
    scale: Float[Array, ""]
    weight: Float[Array, ""]
    rows: tuple[Float[Array, " size"] | None, ...]
    dense: tuple[Num[Array, "..."], ...] | None
    square_norm: Float[Array, ""]
    loss: AbstractLoss | None = None


class Problem(eqx.Module):
    """Tensors, and the constraints of every mode."""

    tensors: tuple[Tensor, ...]
    constraints: Mapping[str, ModeConstraints]

    @property
    def square_norm(self) -> Float[Array, ""]:
        """Half the weighted sum of squares of all data: the objective of an empty model, or what stands for it."""
        return 0.5 * sum((t.weight * t.square_norm for t in self.tensors), start=jnp.zeros((), jnp.float64))

    def containing(self, mode: str) -> tuple[int, ...]:
        """Return the indices of the tensors that have a mode."""
        return tuple(k for k, tensor in enumerate(self.tensors) if mode in tensor.modes)
