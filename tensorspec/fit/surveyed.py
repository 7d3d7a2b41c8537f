"""A tensor in blocks and what one pass over it has found, in the place of values in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.blocks import Place
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.fit.validate import CleanTensor
from tensorspec.losses.base import AbstractDivergence, AbstractLoss, AbstractRobustLoss, EntryWeights
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.losses.likelihood import Poisson
from tensorspec.solvers.tensor_blocks import TensorBlocks

__all__ = ["Surveyed"]


class Surveyed:
    """A tensor in blocks, and what one pass over it has found; it stands where data in memory have their values.

    Attributes
    ----------
    shape, dtype, ndim, size
        As of the array.
    blocks
        Where its blocks come from.
    marginals
        Sums over all axes but one, float64.
    measured
        For each axis, which of its points have a valid entry.
    square
        Sum of squares of the valid entries.
    low, high
        Of the valid entries.
    count
        Number of valid entries.
    fractional
        Share of the entries that are no whole numbers.
    reference
        Weighted sum of squares, or the loss of the best constant model (of none for a robust loss); None where a pass
        of its own has to find it.
    sample
        Some rows.
    binned
        Sums over bins of pixels, divided by the share of each that is valid; NaN where nothing is.
    digest
        Hash of the totals.
    """

    def __init__(self, name: str, blocks: TensorBlocks, names: tuple[str, ...]) -> None:
        self.name, self.blocks, self.names = name, blocks, names
        self.row_masks = [None if own is None else own.astype(float) for own in blocks.points]
        self.shape, self.dtype = blocks.source.shape, blocks.source.dtype
        self.marginals = [np.zeros(size) for size in self.shape]
        self.measured = [np.zeros(size, bool) for size in self.shape]
        self.total = self.square = self.precision = self.reference_sum = self.whole = 0.0
        self.low, self.high, self.count = np.inf, -np.inf, 0
        self.missing = 0
        self.reference: float | None = None
        self.sampled: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.binned: np.ndarray | None = None
        self.digest = ""

    @property
    def ndim(self) -> int:
        """Number of modes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def sum(self, dtype: Any = None) -> float:
        """Return the sum of the valid entries."""
        del dtype
        return self.total

    @property
    def fractional(self) -> float:
        """Share of the valid entries that are no whole numbers."""
        return 1 - self.whole / max(self.count, 1)

    @property
    def clean(self) -> CleanTensor:
        """What `clean` finds of data in memory."""
        return CleanTensor(self, None, float(np.sqrt(self.square / self.count)), self.count)  # type: ignore[arg-type]

    @property
    def sample(self) -> CleanTensor:
        """Some rows, in the place of all, for a look at the noise."""
        values = np.concatenate([values for values, _ in self.sampled])
        valid = None
        if self.blocks.dense and self.sampled[0][1] is not None:
            valid = np.concatenate([np.asarray(own) for _, own in self.sampled])
        return CleanTensor(values, valid, self.clean.rms, self.count)

    def entry_weights(self, loss: AbstractLoss, normalise: bool) -> EntryWeights:
        """Return the weights of the entries, as the loss gives them to data in memory; dense ones stay in blocks."""
        rows: list[np.ndarray | None] = list(self.row_masks)
        dense: Any = () if self.blocks.dense else None
        if not isinstance(loss, LeastSquares):
            return EntryWeights(tuple(rows), dense, None)
        if loss.scaling == "poisson":
            return self._poisson_weights(normalise)
        if loss.sigma is None:
            return EntryWeights(tuple(rows), dense, None)
        if self.blocks.sigma is None:
            sigma = float(np.asarray(loss.sigma))
            if not normalise:
                uniform = np.full(self.shape[0], 1 / sigma**2)
                rows[0] = uniform if rows[0] is None else uniform * rows[0]
                self.reference = self.square / sigma**2
            return EntryWeights(tuple(rows), dense, sigma**2)
        mean = self.precision / self.count
        self.blocks = replace(self.blocks, unit=mean if normalise else 1.0)
        if self.reference is not None:
            self.reference = self.reference_sum / self.blocks.unit
        return EntryWeights(tuple(rows), dense, 1 / mean)

    def _poisson_weights(self, normalise: bool) -> EntryWeights:
        """Return what `LeastSquares(scaling='poisson')` makes of the marginal means."""
        if self.low < 0 or self.total <= 0:
            raise InvalidArgument(
                f"LeastSquares(scaling='poisson'): expected counts of zero or more in tensor {self.name!r}, found "
                f"{self.low:.6g}; use LeastSquares() or LeastSquares(sigma=...)"
            )
        if self.blocks.dense:
            raise InvalidArgument(
                f"tensor {self.name!r} in blocks: LeastSquares(scaling='poisson') with single entries missing needs "
                "all data at once; load them (data.load()), or leave out whole pixels or channels with mask="
            )
        rows = []
        for axis, marginal in enumerate(self.marginals):
            share = marginal / self.total
            inverse = np.divide(1.0, share, out=np.zeros_like(share), where=share > 0)
            own = self.row_masks[axis]
            rows.append(inverse if own is None else inverse * own)
        used = [np.ones(n) if row is None else row for n, row in zip(self.shape, self.row_masks, strict=True)]
        mean = float(np.prod([row.sum() for row in rows]) / np.prod([u.sum() for u in used])) / self.total
        rows[0] = rows[0] / self.total / (mean if normalise else 1.0)
        self.reference = None
        return EntryWeights(tuple(rows), None, 1 / mean)

    def add(self, place: Place, rows: np.ndarray, loss: AbstractLoss, bins: int, every: int) -> None:
        """Add what a block holds."""
        values, valid = self.blocks.values(place)
        gaps = self.blocks.gaps and valid is not None and bool(valid.all())
        known = None if gaps else valid
        weight = None
        if self.blocks.sigma is not None:
            self._check_sigma(place, valid, values.shape)
            weight = self.blocks.weights(place, valid, values.shape)
        flat = [own if k else (None if own is None else own[rows]) for k, own in enumerate(self.row_masks)]
        total, square, low, high, whole, sums = _totals(values, known)
        if not np.isfinite(square):
            self._refuse(values, place)
        self.total, self.square = self.total + total, self.square + square
        self.low, self.high, self.whole = (
            min(self.low, float(low)),
            max(self.high, float(high)),
            self.whole + float(whole),
        )
        for axis, own in enumerate(sums):
            if axis:
                self.marginals[axis] += own
            else:
                self.marginals[0][rows] = own
        self._note_measured(rows, known, flat, values.shape)
        if weight is not None:
            self.precision += float(weight.sum())
            self.reference_sum += float(np.sum(weight * np.square(values, dtype=float)))
        elif isinstance(loss, Poisson):
            self.reference_sum += float(_entropy(jnp.asarray(values)))
        elif isinstance(loss, AbstractRobustLoss):
            cost = loss.entries(jnp.asarray(values, float), jnp.zeros(values.shape))
            self.reference_sum += float(jnp.sum(cost))
        picked = np.flatnonzero(rows % every == 0)
        if len(picked):
            self.sampled.append((values[picked].copy(), None if known is None else np.asarray(known)[picked]))
        if self.binned is not None:
            self._bin(place, values, known, flat[0], bins)

    def _note_measured(
        self, rows: np.ndarray, valid: np.ndarray | None, flat: Sequence[np.ndarray | None], shape: tuple[int, ...]
    ) -> None:
        if valid is None:
            along = [np.ones(n, bool) if own is None else own > 0 for n, own in zip(shape, flat, strict=True)]
            self.count += int(prod(int(own.sum()) for own in along))
        else:
            self.missing += int(valid.size - np.count_nonzero(valid))
            self.count += int(np.count_nonzero(valid))
            along = [valid.any(axis=tuple(k for k in range(self.ndim) if k != axis)) for axis in range(self.ndim)]
        self.measured[0][rows] |= along[0]
        for axis in range(1, self.ndim):
            self.measured[axis] |= along[axis]

    def _refuse(self, values: np.ndarray, place: Place) -> None:
        where = ", ".join(f"{own.start}:{own.stop}" for own in place)
        infinite = int(np.isinf(values).sum())
        if infinite:
            raise InvalidData(
                f"tensor {self.name!r} holds {infinite} infinite values in the pixels [{where}]; mask them "
                "(mask=np.isfinite(data)) or set them to NaN, which means missing"
            )
        raise InvalidData(
            f"tensor {self.name!r} is NaN in {int(np.isnan(values).sum())} entries of the pixels [{where}] where the "
            "mask says True (use); set the mask to False there, or give no mask: NaN means missing"
        )

    def _check_sigma(self, place: Place, valid: np.ndarray | None, shape: tuple[int, ...]) -> None:
        assert self.blocks.sigma is not None
        sigma = np.broadcast_to(self.blocks.sigma.read(place), shape)
        used = sigma if valid is None else sigma[valid]
        if not (np.isfinite(used).all() and (used > 0).all()):
            raise InvalidArgument(
                f"LeastSquares(sigma=...): {int(np.sum(~(used > 0)))} of {used.size} standard deviations of valid "
                "entries are not positive numbers; mask those entries or give them a value"
            )

    def _bin(
        self, place: Place, values: np.ndarray, valid: np.ndarray | None, pixels: np.ndarray | None, bins: int
    ) -> None:
        assert self.binned is not None
        region = tuple(slice(own.start // bins, -(-own.stop // bins)) for own in place)
        sizes = [own.stop - own.start for own in place]
        starts = [own.start for own in place]
        self.binned[region] += _summed(values.reshape(*sizes, *self.shape[1:]), starts, bins)
        counts = np.ones((len(values), *self.bin_counts.shape[len(place) :]), np.float32)
        if valid is not None:
            counts = valid.astype(np.float32)
        elif pixels is not None:
            counts = counts * pixels.astype(np.float32).reshape(-1, *[1] * (self.ndim - 1))
        self.bin_counts[region] += _summed(counts.reshape(*sizes, *counts.shape[1:]), starts, bins)

    def begin(self, sizes: Sequence[int], bins: int | None) -> None:
        """Make room for the binned copy."""
        if bins is not None:
            first = tuple(-(-size // bins) for size in sizes)
            rest = self.shape[1:] if self.blocks.dense else (1,) * (self.ndim - 1)
            self.binned = np.zeros((*first, *self.shape[1:]), np.float32)
            self.bin_counts = np.zeros((*first, *rest), np.float32)

    def close(self, loss: AbstractLoss, bins: int | None, sizes: Sequence[int]) -> None:
        """Draw what follows from all blocks."""
        if not self.count:
            raise InvalidData(f"tensor {self.name!r} has no valid entry: every one is NaN or masked")
        if self.square == 0:
            raise InvalidData(f"tensor {self.name!r} is zero everywhere; there is nothing to fit")
        if self.blocks.gaps and not self.missing:
            self.blocks = replace(self.blocks, gaps=False)
        if isinstance(loss, AbstractDivergence):
            if self.low < 0 or (self.low == 0 and not loss.zeros_allowed):
                raise InvalidData(
                    f"tensor {self.name!r} has values down to {self.low:.6g}, which {type(loss).__name__} cannot take; "
                    "mask them, or use a loss that takes them, such as ts.LeastSquares(). Data from which a background "
                    "was subtracted are no counts any more: fit them before the subtraction"
                )
            if isinstance(loss, Poisson):
                found = self.reference_sum - self.total * np.log(self.total / self.count)
                self.reference = found if found > 0 else abs(self.total)
        elif isinstance(loss, AbstractRobustLoss) or self.blocks.sigma is not None:
            self.reference = self.reference_sum
        else:
            self.reference = self.square
        if self.binned is not None and bins is not None:
            full = _summed(np.ones(tuple(sizes), np.float32), [0] * len(sizes), bins)
            full = full.reshape(*full.shape, *[1] * (self.ndim - 1))
            with np.errstate(invalid="ignore", divide="ignore"):
                self.binned *= (full if isinstance(loss, AbstractDivergence) else 1.0) / self.bin_counts
            for axis, own in enumerate(self.row_masks[1:], start=self.binned.ndim - self.ndim + 1):
                if own is not None:
                    self.binned[(*[slice(None)] * axis, own == 0)] = np.nan
        digest = hashlib.sha256(str((self.shape, self.dtype.str, self.count)).encode())
        for own in (*self.marginals, np.asarray([self.square])):
            digest.update(np.ascontiguousarray(own).tobytes())
        self.digest = f"of its totals: {digest.hexdigest()}"


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


def _summed(values: np.ndarray, starts: Sequence[int], bins: int) -> np.ndarray:
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
