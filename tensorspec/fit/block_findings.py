"""What the first pass finds in one block of a tensor, where the block is read.

What it returns is small beside the block: sums over its pixels and over its channels, sums over bins of pixels, a few
rows.  Blocks know nothing of each other, so that they can be read on several machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.blocks import Place
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.losses.base import AbstractLoss, AbstractRobustLoss
from tensorspec.losses.likelihood import Poisson
from tensorspec.solvers.tensor_blocks import TensorBlocks

__all__ = ["BlockFindings", "Surveying", "chosen_rows", "summed"]


@dataclass(frozen=True)
class BlockFindings:
    """What one block of a tensor holds.

    Attributes
    ----------
    rows
        Which rows of the first mode.
    total, square, low, high
        Sum, sum of squares, lowest and highest of the valid entries.
    count, missing, whole
        How many entries are valid, are not, and are whole numbers.
    precision, reference
        Sum of the weights, and what the block adds to the loss of no model (of `Poisson`, to the entropy).
    marginals
        Sums over all axes but one.
    measured
        For each axis, which of its points have a valid entry.
    sampled
        Some rows and which of their entries are valid; None where no row is looked at.
    kept
        Which rows a fit begins with, they, and which of their entries are valid.
    region
        Which bins the block has part of.
    binned, bin_counts
        Sums over these bins, and how many valid entries each has; None without bins.
    """

    rows: np.ndarray
    total: float
    square: float
    low: float
    high: float
    count: int
    missing: int
    whole: int
    precision: float
    reference: float
    marginals: list[np.ndarray]
    measured: list[np.ndarray]
    sampled: tuple[np.ndarray, np.ndarray | None] | None
    kept: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None
    region: Place
    binned: np.ndarray | None
    bin_counts: np.ndarray | None


@dataclass(frozen=True)
class Surveying:
    """Looks at a block of every tensor.

    Attributes
    ----------
    names, sources
        The tensors, and where their blocks come from.
    costs
        The loss of each tensor where the pass sums it (`Poisson`, robust ones); else None.
    steps
        Of each tensor, of how many rows one is kept.
    bins
        How many pixels, along every dimension, become one; None for no bins.
    share
        Share of the rows that a fit begins with.
    """

    names: tuple[str, ...]
    sources: tuple[TensorBlocks, ...]
    costs: tuple[AbstractLoss | None, ...]
    steps: tuple[int, ...]
    bins: int | None
    share: float = 0.0

    def __call__(self, place: Place) -> list[BlockFindings]:
        """Return what a block of each tensor holds.

        Raises
        ------
        InvalidData, InvalidArgument
            When the block cannot be read, or holds what no fit can take.
        """
        each = zip(self.names, self.sources, self.costs, self.steps, strict=True)
        return [_look_at(name, blocks, place, cost, step, self.bins, self.share) for name, blocks, cost, step in each]


def chosen_rows(rows: np.ndarray, share: float) -> np.ndarray:
    """Return which rows are kept: as good as drawn at random, the same ones wherever and however they are read.

    Examples
    --------
    >>> rows = np.arange(100_000)
    >>> chosen = chosen_rows(rows, 0.1)
    >>> bool(abs(chosen.mean() - 0.1) < 0.005), bool(chosen_rows(rows, 1.0).all())
    (True, True)
    >>> bool((chosen_rows(rows[500:600], 0.1) == chosen[500:600]).all())
    True
    """
    mixed = rows.astype(np.uint64)
    # The finaliser of MurmurHash3: every bit of a number goes into every bit of the result.
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(33)
    return (mixed >> np.uint64(11)) * 2.0**-53 < share


def _look_at(
    name: str,
    blocks: TensorBlocks,
    place: Place,
    cost: AbstractLoss | None,
    step: int,
    bins: int | None,
    share: float,
) -> BlockFindings:
    rows = blocks.source.rows(place)
    values, valid = blocks.values(place)
    gaps = blocks.gaps and valid is not None and bool(valid.all())
    known = None if gaps else valid
    weight = None
    if blocks.sigma is not None:
        _check_sigma(np.broadcast_to(blocks.sigma.read(place), values.shape), valid)
        weight = blocks.weights(place, valid, values.shape)
    points = [own if k else (None if own is None else own[rows]) for k, own in enumerate(blocks.points)]
    total, square, low, high, whole, marginals = _totals(values, known)
    if not np.isfinite(square):
        _refuse(name, values, place)
    count, missing, measured = _measured(known, points, values.shape)
    precision = reference = 0.0
    if weight is not None:
        precision = float(weight.sum())
        reference = float(np.sum(weight * np.square(values, dtype=float)))
    elif isinstance(cost, Poisson):
        reference = float(_entropy(jnp.asarray(values)))
    elif isinstance(cost, AbstractRobustLoss):
        reference = float(jnp.sum(cost.entries(jnp.asarray(values, float), jnp.zeros(values.shape))))
    picked = np.flatnonzero(rows % step == 0)
    sampled = None
    if len(picked):
        sampled = values[picked].copy(), None if known is None else np.asarray(known)[picked]
    kept = None
    if share > 0 and (picked := np.flatnonzero(chosen_rows(rows, share))).size:
        kept = rows[picked], values[picked].copy(), None if known is None else np.asarray(known)[picked]
    region, binned, bin_counts = place, None, None
    if bins is not None:
        region = tuple(slice(own.start // bins, -(-own.stop // bins)) for own in place)
        binned, bin_counts = _binned(place, values, known, points[0], blocks.dense, bins)
    return BlockFindings(
        rows=rows,
        total=total,
        square=square,
        low=low,
        high=high,
        count=count,
        missing=missing,
        whole=whole,
        precision=precision,
        reference=reference,
        marginals=marginals,
        measured=measured,
        sampled=sampled,
        kept=kept,
        region=region,
        binned=binned,
        bin_counts=bin_counts,
    )


def _measured(
    valid: np.ndarray | None, points: Sequence[np.ndarray | None], shape: tuple[int, ...]
) -> tuple[int, int, list[np.ndarray]]:
    """Return how many entries are valid, how many are not, and which points of each axis have a valid one."""
    if valid is None:
        along = [np.ones(n, bool) if own is None else own for n, own in zip(shape, points, strict=True)]
        return int(prod(int(own.sum()) for own in along)), 0, along
    axes = range(len(shape))
    along = [np.asarray(valid.any(axis=tuple(k for k in axes if k != axis))) for axis in axes]
    count = int(np.count_nonzero(valid))
    return count, int(valid.size) - count, along


def _refuse(name: str, values: np.ndarray, place: Place) -> NoReturn:
    where = ", ".join(f"{own.start}:{own.stop}" for own in place)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise InvalidData(
            f"tensor {name!r} holds {infinite} infinite values in the pixels [{where}]; mask them "
            "(mask=np.isfinite(data)) or set them to NaN, which means missing"
        )
    raise InvalidData(
        f"tensor {name!r} is NaN in {int(np.isnan(values).sum())} entries of the pixels [{where}] where the "
        "mask says True (use); set the mask to False there, or give no mask: NaN means missing"
    )


def _check_sigma(sigma: np.ndarray, valid: np.ndarray | None) -> None:
    used = sigma if valid is None else sigma[valid]
    if not (np.isfinite(used).all() and (used > 0).all()):
        raise InvalidArgument(
            f"LeastSquares(sigma=...): {int(np.sum(~(used > 0)))} of {used.size} standard deviations of valid "
            "entries are not positive numbers; mask those entries or give them a value"
        )


def _binned(
    place: Place,
    values: np.ndarray,
    valid: np.ndarray | None,
    pixels: np.ndarray | None,
    dense: bool,
    bins: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over bins of pixels, and how many valid entries each has; one for all channels if not dense."""
    sizes = [own.stop - own.start for own in place]
    starts = [own.start for own in place]
    rest = values.shape[1:] if dense else (1,) * (values.ndim - 1)
    counts = np.ones((len(values), *rest), np.float32)
    if valid is not None:
        counts = valid.astype(np.float32)
    elif pixels is not None:
        counts = counts * pixels.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return (
        summed(values.reshape(*sizes, *values.shape[1:]), starts, bins),
        summed(counts.reshape(*sizes, *counts.shape[1:]), starts, bins),
    )


def _totals(values: np.ndarray, valid: np.ndarray | None) -> tuple[float, float, float, float, int, list[np.ndarray]]:
    """Return sum, sum of squares, lowest, highest, how many whole numbers, and the sums over all axes but one.

    Values that are not valid are zero.  Numpy does this several times faster than XLA on a processor.
    """
    counts = values.dtype.kind in "iu"
    wide: Any = (np.int64 if values.dtype.kind == "i" else np.uint64) if counts else np.float64
    axes = range(values.ndim)
    sums = [values.sum(axis=tuple(k for k in axes if k != axis), dtype=wide).astype(float) for axis in axes]
    if valid is None:
        low, high = float(values.min()), float(values.max())
    else:
        low = float(values.min(where=valid, initial=values.max()))
        high = float(values.max(where=valid, initial=values.min()))
    flat = values.reshape(len(values), -1)
    # Sums of squares of small counts are whole numbers that single precision holds.
    short = counts and max(abs(low), abs(high)) ** 2 * flat.shape[1] < 2**24
    square, step = 0.0, max(2**21 // flat.shape[1], 1)
    for k in range(0, len(flat), step):
        piece = flat[k : k + step].astype(np.float32 if short else np.float64)
        square += float(np.einsum("ij,ij->i", piece, piece).sum(dtype=float))
    size = values.size if valid is None else int(np.count_nonzero(valid))
    whole = size if counts else int(np.count_nonzero((values == np.rint(values)) & (True if valid is None else valid)))
    return float(sums[0].sum()), square, low, high, whole, sums


@jax.jit
def _entropy(values: Any) -> Any:
    wide = values.astype(jnp.float64)
    return jnp.sum(jnp.where(wide > 0, wide * jnp.log(jnp.where(wide > 0, wide, 1)), 0))


def summed(values: np.ndarray, starts: Sequence[int], bins: int) -> np.ndarray:
    """Return sums over bins of the leading axes, in single precision.

    Parameters
    ----------
    values
        Part of an array.
    starts
        Where it begins there, along each of the axes that are binned.
    bins
        Points of a bin; the first one begins at the start of the array.
    """
    for axis, start in reversed(list(enumerate(starts))):
        size = values.shape[axis]
        first = start // bins
        out = np.zeros(
            (*values.shape[:axis], -(-(start + size) // bins) - first, *values.shape[axis + 1 :]), np.float32
        )
        for k in range(min(bins, size)):
            part = values[(slice(None),) * axis + (slice(k, None, bins),)]
            begin = (start + k) // bins - first
            out[(slice(None),) * axis + (slice(begin, begin + part.shape[axis]),)] += part
        values = out
    return values
