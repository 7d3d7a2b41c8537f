"""The problem as arrays: what a solver sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from tensorspec.algebra.contract import Contracted
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
        The data as stored, cut along the first axis, zero where missing; with `dense` weights, weight times data.  Data
        that are mostly zero are one `SparseTensor` (of algebra/sparse.py).
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
    seen
        Which components the tensor has; None for all.
    operators
        For each axis the operator through which the tensor sees the factor (of coupling/operators.py), or None.
    core
        Name of the factor that says which components of the modes meet, and how strongly; None where component k of
        one mode meets component k of the others.  A mode may then be left whole: it has no factor.
    bases
        None for data as they are.  For compressed data (of algebra/lowrank.py), which are one block, an orthonormal
        ``(size, kept)`` basis for each axis that is compressed, and None for the others; entries then stand for the
        data times the square roots of their row weights.
    contracted
        The data contracted with the factor of the first axis, where a sweep has this at hand (up to the scale of its
        columns); None else.
    """

    modes: tuple[str, ...] = eqx.field(static=True)
    blocks: tuple[Num[Array, "..."], ...]
    scale: Float[Array, ""]
    weight: Float[Array, ""]
    rows: tuple[Float[Array, " size"] | None, ...]
    dense: tuple[Num[Array, "..."], ...] | None
    square_norm: Float[Array, ""]
    loss: AbstractLoss | None = None
    seen: tuple[bool, ...] | None = eqx.field(static=True, default=None)
    operators: tuple[Any, ...] | None = None
    core: str | None = eqx.field(static=True, default=None)
    bases: tuple[Float[Array, "size kept"] | None, ...] | None = None
    contracted: Contracted | None = None

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the factors that its model may depend on: its modes, and its core."""
        return self.modes if self.core is None else (*self.modes, self.core)

    def operator(self, mode: str) -> Any:
        """Return the operator that stands before the factor of a mode, or None."""
        return None if self.operators is None or mode == self.core else self.operators[self.modes.index(mode)]

    def own(self, factors: Factors) -> list[Float[Array, "size rank"]]:
        """Return the factors of its modes as it sees them, in order; components that it does not have are zero."""
        found = self.own_or_whole(factors)
        assert all(factor is not None for factor in found)
        return [factor for factor in found if factor is not None]

    def own_or_whole(self, factors: Factors) -> list[Float[Array, "size rank"] | None]:
        """Return the factors of its modes as it sees them, in order; None for a mode that is left whole."""
        through = self.operators or (None,) * len(self.modes)
        found = [
            None if m not in factors else factors[m] if op is None else op.apply(factors[m])
            for m, op in zip(self.modes, through, strict=True)
        ]
        if self.seen is None:
            return found
        return [None if factor is None else factor * jnp.asarray(self.seen, factor.dtype) for factor in found]


class Problem(eqx.Module):
    """Tensors, the constraints of every mode, and what ties modes softly."""

    tensors: tuple[Tensor, ...]
    constraints: Mapping[str, ModeConstraints]
    links: tuple[Any, ...] = ()  # of coupling/links.py, which stands above this file

    @property
    def square_norm(self) -> Float[Array, ""]:
        """Half the weighted sum of squares of all data: the objective of an empty model, or what stands for it."""
        return 0.5 * sum((t.weight * t.square_norm for t in self.tensors), start=jnp.zeros((), jnp.float64))

    def containing(self, name: str) -> tuple[int, ...]:
        """Return the indices of the tensors whose model depends on a factor: that of a mode, or a core."""
        return tuple(k for k, tensor in enumerate(self.tensors) if name in tensor.depends_on)
