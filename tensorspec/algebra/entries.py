"""A tensor that is mostly zero, as its entries that are not: coordinates and values, in the order of memory.

This is the form in which such data are checked, summed and hashed.  The arrays that products are made of are built from
it by sparse.py.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Entries", "order_by", "smallest_integers"]

_DIGIT = 2**16


class Entries:
    """The entries of a tensor that are not zero.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor.
    indices : tuple of ndarray of int, shape (stored,)
        Where the entries are, one array an axis; sorted, the last axis running fastest, none twice.
    stored : ndarray, shape (stored,)
        Their values, none of them zero.

    Examples
    --------
    >>> entries = Entries.from_dense(np.array([[0, 3, 0], [1, 0, 2]]))
    >>> entries.indices, entries.stored.tolist(), entries.sum(axis=0).tolist()
    ((array([0, 1, 1]), array([1, 0, 2])), [3, 1, 2], [1, 3, 2])
    """

    def __init__(self, shape: tuple[int, ...], indices: tuple[np.ndarray, ...], stored: np.ndarray) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.indices = indices
        self.stored = stored
        self._sums: dict[int, np.ndarray] = {}

    @classmethod
    def from_dense(cls, values: np.ndarray) -> Entries:
        """Return the entries of an array that are not zero."""
        flat = np.ascontiguousarray(values).reshape(-1)
        place = np.flatnonzero(flat)
        return cls(values.shape, np.unravel_index(place, values.shape), flat[place])

    @classmethod
    def from_coordinates(cls, shape: tuple[int, ...], indices: tuple[np.ndarray, ...], values: np.ndarray) -> Entries:
        """Return the entries at some coordinates, in any order, none twice; zeros are left out."""
        indices = tuple(np.asarray(index) for index in indices)
        values = np.asarray(values)
        if not np.all(values):
            there = values != 0
            indices, values = tuple(index[there] for index in indices), values[there]
        if not _is_sorted(shape, indices):
            order = None
            for index, size in zip(reversed(indices), reversed(shape), strict=True):
                order = order_by(index, size) if order is None else order[order_by(index[order], size)]
            assert order is not None
            indices, values = tuple(index[order] for index in indices), values[order]
        return cls(shape, indices, values)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries, zeros included."""
        return prod(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.stored.dtype

    @property
    def filled(self) -> float:
        """Share of the entries that are not zero."""
        return len(self.stored) / max(self.size, 1)

    def __len__(self) -> int:
        return self.shape[0]

    def sum(self, axis: int | tuple[int, ...] | None = None, dtype: Any = None) -> Any:
        """Return the sum over all entries, or over all axes but one, which is made once and not to be written to."""
        del dtype
        if axis is None:
            return self.stored.sum(dtype=self._accumulator)
        axes = {k % self.ndim for k in ((axis,) if isinstance(axis, int) else axis)}
        kept = [k for k in range(self.ndim) if k not in axes]
        if len(kept) != 1:
            raise NotImplementedError(f"sums over the axes {sorted(axes)} of {self.ndim}")
        if kept[0] not in self._sums:
            found = np.bincount(self.indices[kept[0]], self.stored, minlength=self.shape[kept[0]])
            found = found.astype(self._accumulator, copy=False)
            found.flags.writeable = False
            self._sums[kept[0]] = found
        return self._sums[kept[0]]

    @property
    def _accumulator(self) -> type:
        return np.float64 if self.dtype.kind == "f" else np.int64

    @cached_property
    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """The different values, zero first, and how often each is stored (zero never)."""
        low, high = (float(self.stored.min()), float(self.stored.max())) if len(self.stored) else (0.0, 0.0)
        if 0 <= low and high < _DIGIT and np.array_equal(whole := self.stored.astype(np.uint16), self.stored):
            often = np.bincount(whole)
            kept = np.flatnonzero(often)
            kept = kept[kept > 0]
            values, often = kept.astype(np.float64), often[kept]
        else:
            values, often = np.unique(self.stored.astype(np.float64), return_counts=True)
        return np.concatenate([[0.0], values]), np.concatenate([[0], often])

    def weighted_square(self, rows: tuple[np.ndarray | None, ...]) -> float:
        """Return the sum of squares in float64, weighted by a product of vectors."""
        square = np.square(self.stored, dtype=np.float64)
        for index, row in zip(self.indices, rows, strict=True):
            if row is not None:
                square *= row[index]
        return float(square.sum())

    def unfolded(self, axis: int) -> scipy.sparse.csr_matrix:
        """Return the matrix of an axis against all others, the last running fastest.

        Raises
        ------
        ValueError
            When there are more columns than an index can count.
        """
        others = [k for k in range(self.ndim) if k != axis]
        width = prod(self.shape[k] for k in others)
        columns = np.zeros(len(self.stored), np.int64)
        for k in others:
            columns = columns * self.shape[k] + self.indices[k]
        rows = self.indices[axis]
        import scipy.sparse  # loads slowly: not before it is needed

        return scipy.sparse.csr_matrix((self.stored, (rows, columns)), shape=(self.shape[axis], width))

    def rows(self, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return some rows of the first axis against all others, as far as these rows have counts, as a dense matrix.

        Returns
        -------
        matrix
            Shape (rows, columns with counts), float64.
        columns
            Which columns these are.
        """
        matrix = self.unfolded(0)[picked]
        columns = np.unique(matrix.indices)
        return matrix[:, columns].toarray().astype(np.float64), columns

    def digested(self) -> list[np.ndarray]:
        """Return arrays that say all there is to say, as short as they can be: counts by row, places, values."""
        places = [
            index.astype(smallest_integers(size)) for index, size in zip(self.indices[1:], self.shape[1:], strict=True)
        ]
        return [np.bincount(self.indices[0], minlength=self.shape[0]).astype(np.int32), *places, self.stored]

    def todense(self) -> np.ndarray:
        """Return the dense array."""
        found = np.zeros(self.shape, self.dtype)
        found[self.indices] = self.stored
        return found


def _is_sorted(shape: tuple[int, ...], indices: tuple[np.ndarray, ...]) -> bool:
    place = np.zeros(len(indices[0]), np.int64 if prod(shape) < 2**62 else object)
    for index, size in zip(indices, shape, strict=True):
        place = place * size + index
    return bool(np.all(place[1:] > place[:-1]))


def order_by(index: np.ndarray, size: int) -> np.ndarray:
    """Return the stable order of whole numbers from 0 to `size` - 1, by counting.

    Examples
    --------
    >>> order_by(np.array([2, 0, 2, 1]), 3).tolist()
    [1, 3, 0, 2]
    """
    count = len(index)
    if count >= 2**31 or size >= 2**31:
        return np.argsort(index, kind="stable")
    # Columns of a matrix with a single row: bringing it to columns is a counting sort in C.
    import scipy.sparse

    single = scipy.sparse.csr_matrix(
        (np.arange(count, dtype=np.int32), np.asarray(index, np.int32), np.array([0, count], np.int32)),
        shape=(1, size),
        copy=False,
    )
    return single.tocsc().data


def smallest_integers(size: int) -> type:
    """Return the smallest type that holds 0 to `size` - 1."""
    return np.uint16 if size <= _DIGIT else np.int32 if size <= 2**31 else np.int64
