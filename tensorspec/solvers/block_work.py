"""What is done with every block of a pass, as values that can be sent to where the block is read.

Work holds all that is the same for every block; called with a block it returns what belongs to its rows, and sums.
Both are small beside the block: a few numbers a row, and for every other mode as many as its factor has, or its rank
times as many.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.blocks import Place
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Tensor
from tensorspec.solvers.block_sums import Parts, add, loss_of, parts_of, solve_rows
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.tensor_blocks import Room, TensorBlocks

__all__ = ["Asking", "Each", "Found", "Referring", "Solving", "Summing", "Work", "one_by_one", "through"]

Found = tuple[Any, Parts]


@dataclass(frozen=True)
class Work(abc.ABC):
    """Base of what is done with a block.

    Attributes
    ----------
    model
        What is solved.
    mode
        The mode in blocks.
    sources
        For each tensor where its blocks come from; None where it does not have the mode.
    tensors
        The tensors without their data.
    others
        The factors of all other modes.
    """

    model: AbstractModel
    mode: str
    sources: tuple[TensorBlocks | None, ...]
    tensors: tuple[Tensor, ...]
    others: Factors

    def read(self, place: Place, rows: np.ndarray, room: Room) -> dict[int, Tensor]:
        """Return some pixels of all tensors that have them."""
        return {
            k: source.tensor(place, self.tensors[k], rows, room, k)
            for k, source in enumerate(self.sources)
            if source is not None
        }

    @abc.abstractmethod
    def __call__(self, place: Place, rows: np.ndarray, own: Sequence[np.ndarray], room: Room) -> Found:
        """Return what belongs to the rows of a block, and sums; `own` are arrays of whose rows it is given its own."""


@dataclass(frozen=True)
class Asking(Work):
    """What all tensors ask of some modes; takes the factor of the pixels."""

    modes: tuple[str, ...]

    def __call__(self, place: Place, rows: np.ndarray, own: Sequence[np.ndarray], room: Room) -> Found:
        """Return equations of the pixels themselves, and sums for other modes."""
        factors = {**self.others, self.mode: jnp.asarray(own[0])}
        found = parts_of(self.model, self.read(place, rows, room), factors, self.modes)
        return {key: found.pop(key) for key in list(found) if key[0] == self.mode}, found


@dataclass(frozen=True)
class Solving(Work):
    """New rows of the pixels, and what the next sweep asks first; takes their factor, and that before."""

    block: BlockPlan
    first: tuple[str, ...]
    rule: Any
    momentum: Any
    extrapolates: bool

    def __call__(self, place: Place, rows: np.ndarray, own: Sequence[np.ndarray], room: Room) -> Found:
        """Return new rows and the same extrapolated, and sums: losses, and answers."""
        factors = {**self.others, self.mode: jnp.asarray(own[0])}
        fresh, ahead, values, sums = solve_rows(
            self.model,
            self.block,
            self.first,
            self.mode,
            self.rule,
            self.read(place, rows, room),
            factors,
            jnp.asarray(own[1]),
            self.momentum,
            self.extrapolates,
        )
        return (fresh, ahead), {**sums, **{("", k): value for k, value in values.items()}}


@dataclass(frozen=True)
class Summing(Work):
    """Losses, and what a sweep that begins elsewhere asks first; takes two factors of the pixels."""

    which: tuple[int, ...]
    first: tuple[str, ...] | None
    ahead: Factors | None
    operators: tuple[Any, ...]

    def __call__(self, place: Place, rows: np.ndarray, own: Sequence[np.ndarray], room: Room) -> Found:
        """Return nothing for the rows, and sums."""
        factors, tensors = {**self.others, self.mode: jnp.asarray(own[0])}, self.read(place, rows, room)
        sums: Parts = {("", k): loss_of(self.model, tensors[k], factors) for k in self.which if k in tensors}
        if self.first is not None and self.ahead is not None:
            there = {**self.ahead, self.mode: jnp.asarray(own[1])}
            moved = {k: dataclasses.replace(t, operators=self.operators[k]) for k, t in tensors.items()}
            sums |= parts_of(self.model, moved, there, self.first)
        return None, sums


@dataclass(frozen=True)
class Referring(Work):
    """Twice the losses of constant models with some levels, of squares that of no model."""

    levels: dict[int, float]

    def __call__(self, place: Place, rows: np.ndarray, own: Sequence[np.ndarray], room: Room) -> Found:
        """Return nothing for the rows, and sums."""
        del own
        tensors = self.read(place, rows, room)
        return None, {("", k): _reference(tensors[k], level) for k, level in self.levels.items()}


def _reference(tensor: Tensor, level: float) -> Any:
    values = tensor.blocks[0].astype(jnp.float64)
    loss: Any = tensor.loss
    cost = jnp.square(values) if loss is None else 2 * loss.entries(values, jnp.full(values.shape, level))
    if loss is not None and tensor.dense is not None:
        cost = jnp.where(tensor.dense[0] > 0, cost, 0)
    for axis, row in enumerate(tensor.rows):
        if row is not None:
            cost = cost * row.reshape([-1 if k == axis else 1 for k in range(cost.ndim)])
    return jnp.sum(cost) * jnp.square(tensor.scale)


# Does work with every block; returns rows with what belongs to them, in the order of the blocks, and the sums.
Each = Callable[..., tuple[list[tuple[np.ndarray, Any]], Parts]]


def one_by_one(
    work: Work,
    places: Sequence[Place],
    rows_of: Callable[[Place], np.ndarray],
    arrays: Sequence[np.ndarray],
    watch: Callable[[float], None] = lambda share: None,
) -> tuple[list[tuple[np.ndarray, Any]], Parts]:
    """Do work with one block after the other, in this process.

    Parameters
    ----------
    work
        What is done.
    places, rows_of
        The blocks, and which rows they hold.
    arrays
        Of whose rows every block is given its own.
    watch
        Called after every block with the share of the pass that is done.
    """
    all_rows = [rows_of(place) for place in places]
    each = ((place, rows, [array[rows] for array in arrays]) for place, rows in zip(places, all_rows, strict=True))
    found, sums = through(work, each, lambda count: watch(count / len(places)))
    return list(zip(all_rows, found, strict=True)), sums


def through(
    work: Work,
    blocks: Iterable[tuple[Place, np.ndarray, Sequence[np.ndarray]]],
    watch: Callable[[int], None] = lambda count: None,
) -> tuple[list[Any], Parts]:
    """Do work with some blocks, one after the other; return what belongs to the rows of each, and sums.

    Parameters
    ----------
    work
        What is done.
    blocks
        Of each its place, its rows, and what arrays hold for these.
    watch
        Called after every block with how many are done.
    """
    found: list[Any] = []
    sums: Parts = {}
    room = Room()
    for place, rows, own in blocks:
        # Waiting for the answers frees the room for the next block.
        answer, parts = jax.block_until_ready(work(place, rows, own, room))
        found.append(jax.tree.map(np.asarray, answer))
        add(sums, parts)
        watch(len(found))
    return found, sums
