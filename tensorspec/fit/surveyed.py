"""A tensor in blocks and what one pass over it has found, in the place of values in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.fit.block_findings import BlockFindings
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
    rows_kept
        Those that a fit begins with, NaN where an entry is not valid.
    binned
        Means over bins of pixels; NaN where nothing is valid.
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
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
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

    def rows_kept(self) -> np.ndarray:
        """Return the rows that a fit begins with, shape (rows, ...), NaN where an entry is not valid."""
        single = self.dtype.kind in "biu" or self.dtype == np.float32
        parts = []
        for rows, values, valid in self.kept:
            part = values.astype(np.float32 if single else np.float64)
            if valid is not None:
                part[~valid] = np.nan
            own = self.row_masks[0]
            if own is not None:
                part[own[rows] == 0] = np.nan
            parts.append(part)
        found = np.concatenate(parts)
        for axis, own in enumerate(self.row_masks[1:], start=1):
            if own is not None:
                found[(*[slice(None)] * axis, own == 0)] = np.nan
        return found

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

    def add(self, found: BlockFindings) -> None:
        """Add what a block holds; blocks are added in their order, so that sums do not depend on who read them."""
        self.total, self.square = self.total + found.total, self.square + found.square
        self.low, self.high, self.whole = (
            min(self.low, found.low),
            max(self.high, found.high),
            self.whole + float(found.whole),
        )
        self.count, self.missing = self.count + found.count, self.missing + found.missing
        self.precision, self.reference_sum = self.precision + found.precision, self.reference_sum + found.reference
        self.marginals[0][found.rows] = found.marginals[0]
        self.measured[0][found.rows] |= found.measured[0]
        for axis in range(1, self.ndim):
            self.marginals[axis] += found.marginals[axis]
            self.measured[axis] |= found.measured[axis]
        if found.sampled is not None:
            self.sampled.append(found.sampled)
        if found.kept is not None:
            self.kept.append(found.kept)
        if self.binned is not None and found.binned is not None and found.bin_counts is not None:
            self.binned[found.region] += found.binned
            self.bin_counts[found.region] += found.bin_counts

    def begin(self, sizes: Sequence[int], bins: int | None) -> None:
        """Make room for the binned copy."""
        if bins is not None:
            first = tuple(-(-size // bins) for size in sizes)
            rest = self.shape[1:] if self.blocks.dense else (1,) * (self.ndim - 1)
            self.binned = np.zeros((*first, *self.shape[1:]), np.float32)
            self.bin_counts = np.zeros((*first, *rest), np.float32)

    def close(self, loss: AbstractLoss) -> None:
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
        if self.binned is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                self.binned /= self.bin_counts
            for axis, own in enumerate(self.row_masks[1:], start=self.binned.ndim - self.ndim + 1):
                if own is not None:
                    self.binned[(*[slice(None)] * axis, own == 0)] = np.nan
        digest = hashlib.sha256(str((self.shape, self.dtype.str, self.count)).encode())
        for own in (*self.marginals, np.asarray([self.square])):
            digest.update(np.ascontiguousarray(own).tobytes())
        self.digest = f"of its totals: {digest.hexdigest()}"
