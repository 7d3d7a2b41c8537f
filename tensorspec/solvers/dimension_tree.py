"""The product that several modes of a sweep ask for: a tensor contracted with the factor of its first axis.

Every mode but the first begins its MTTKRP with the same contraction, which reads all data, and as long as the first
mode is not updated the factor changes by the scale of its columns at the most.  So the contraction is made once, before
the first mode that asks, and the modes that follow take it from there (a dimension tree of two levels): a sweep over
three or more modes reads the data twice, whatever their number.

References
----------
Phan, Tichavsky and Cichocki, IEEE Transactions on Signal Processing 61 (2013) 4834, doi:10.1109/TSP.2013.2269903.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tensorspec.algebra.contract import contracted
from tensorspec.algebra.sparse import is_sparse
from tensorspec.models.base import AbstractModel, ContractsFirst
from tensorspec.problem import Factors, Tensor
from tensorspec.solvers.dispatch import BlockPlan

__all__ = ["contracted_ahead", "without_contracted"]


def contracted_ahead(
    model: AbstractModel, blocks: Sequence[BlockPlan], index: int, tensors: Sequence[Tensor], factors: Factors
) -> tuple[Tensor, ...]:
    """Return the tensors with their contractions, where the block to be updated is the first of several to ask.

    Parameters
    ----------
    model
        What the tensors are fitted with.
    blocks, index
        The blocks of a sweep, and which of them comes next.
    tensors, factors
        As the sweep has them.
    """
    found = []
    for tensor in tensors:
        if tensor.contracted is None and _worth_it(model, tensor, blocks[index:]):
            first = tensor.own(factors)[0]
            row = tensor.rows[0]
            first = first if row is None else first * row.astype(first.dtype)[:, None]
            tensor = dataclasses.replace(tensor, contracted=contracted(tensor.blocks, first))
        found.append(tensor)
    return tuple(found)


def without_contracted(tensors: Sequence[Tensor], block: BlockPlan) -> tuple[Tensor, ...]:
    """Return the tensors without the contractions that the update of a block has made worthless."""
    return tuple(
        dataclasses.replace(tensor, contracted=None)
        if tensor.contracted is not None and tensor.modes[0] in block.modes
        else tensor
        for tensor in tensors
    )


def _worth_it(model: AbstractModel, tensor: Tensor, following: Sequence[BlockPlan]) -> bool:
    """Return whether the contraction will serve two modes, the next block among them, before it is worthless."""
    if not isinstance(model, ContractsFirst) or not model.contracts_first(tensor):
        return False
    # What an operator does to the first factor may be fitted, a loss makes other data in every sweep.
    if tensor.loss is not None or tensor.operators is not None or is_sparse(tensor.blocks) or tensor.bases is not None:
        return False
    first, *others = tensor.modes
    served = 0
    for number, block in enumerate(following):
        asking = len(set(others) & set(block.modes))
        if number == 0 and not asking:
            return False
        served += asking
        if first in block.modes:
            break
    return served > 1
