"""What one block of pixels answers, and how answers of blocks become those of all pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tensorspec.algebra.majoriser import Majoriser
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Tensor
from tensorspec.solvers.base import Block
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.question import added, doubled_loss, part_of

__all__ = ["Parts", "add", "as_factor", "by_row", "loss_of", "parts_of", "solve_rows"]

# Normal equations or bounds, by mode and number of the tensor; losses under an empty name.
Parts = dict[tuple[str, int], Any]
loss_of = eqx.filter_jit(doubled_loss)


@eqx.filter_jit
def parts_of(model: AbstractModel, tensors: dict[int, Tensor], factors: Factors, modes: tuple[str, ...]) -> Parts:
    """Return what some pixels of each tensor ask of some modes, in float64."""
    return {
        (mode, k): _wide(part_of(model, tensor, factors, mode))
        for k, tensor in tensors.items()
        for mode in modes
        if mode in tensor.depends_on
    }


@eqx.filter_jit
def solve_rows(
    model: AbstractModel,
    block: BlockPlan,
    first: tuple[str, ...],
    mode: str,
    rule: Any,
    tensors: dict[int, Tensor],
    factors: Factors,
    before: Array,
    momentum: Array,
    extrapolates: bool,
) -> tuple[Array, Array, dict[int, Array], Parts]:
    """Return new rows, the same extrapolated, what each tensor has to say of them, and the first answers after them."""
    parts = {k: part_of(model, tensor, factors, mode) for k, tensor in tensors.items()}
    question = Block([added(list(parts.values()), factors[mode])], [factors[mode]], [rule], None)
    (fresh,), _ = block.solver.step(question, block.solver.init(question.factors, question.constraints))
    at = {**factors, mode: fresh}
    values = {
        k: part.value(fresh) if isinstance(part, NormalEquations) and tensors[k].loss is None
        else doubled_loss(model, tensors[k], at)
        for k, part in parts.items()
    }  # fmt: skip
    ahead = fresh
    if block.projectable[0] and extrapolates:
        ahead = rule.prox(fresh + momentum.astype(fresh.dtype) * (fresh - before), 0.0)
    return fresh, ahead, values, parts_of(model, tensors, {**factors, mode: ahead}, first)


def _wide(part: Any) -> Any:
    """Return sums in float64, in which they are added up."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), part)


def as_factor(part: Any, factor: Array) -> Any:
    """Return sums in the types in which data in memory have them."""
    if isinstance(part, NormalEquations):
        return part._replace(right=jnp.asarray(part.right).astype(factor.dtype))
    return Majoriser(part.powers, tuple(jnp.asarray(item).astype(factor.dtype) for item in part.coefficients))


def add(total: Parts, more: Parts) -> None:
    """Add the sums of a block to those of all blocks before."""
    for key, part in more.items():
        own = total.get(key)
        if own is None:
            total[key] = part
        elif not isinstance(part, (NormalEquations, Majoriser)):
            total[key] = own + part
        elif isinstance(part, NormalEquations):
            shared = part.shared
            if shared is not None:  # the weights of the channels are the same in every block
                shared = (own.shared[0] + shared[0], shared[1])
            total[key] = NormalEquations(own.gram + part.gram, own.right + part.right, shared)
        else:
            sums = tuple(a + b for a, b in zip(own.coefficients, part.coefficients, strict=True))
            total[key] = Majoriser(part.powers, sums)


def by_row(items: Sequence[tuple[np.ndarray, Any]], size: int) -> Any:
    """Return what the pixels of all blocks ask, one row a pixel."""

    def joined(pick: Callable[[Any], np.ndarray]) -> np.ndarray:
        whole = np.empty((size, *pick(items[0][1]).shape[1:]))
        for rows, part in items:
            whole[rows] = pick(part)
        return whole

    like = items[0][1]
    if isinstance(like, Majoriser):
        count = len(like.coefficients)
        return Majoriser(
            like.powers, tuple(jnp.asarray(joined(lambda p, c=c: p.coefficients[c])) for c in range(count))
        )
    gram = joined(lambda part: part.gram) if like.gram.ndim == 3 else like.gram
    shared = None
    if like.shared is not None:
        shared = (jnp.asarray(like.shared[0]), jnp.asarray(joined(lambda part: part.shared[1])))
    return NormalEquations(jnp.asarray(gram), jnp.asarray(joined(lambda part: part.right)), shared)
