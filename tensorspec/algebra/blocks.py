"""The same sums over blocks of the first mode: a source of blocks over anything that can be sliced.

Rows of the first mode (pixels) come in blocks of whole spectra.  What a fit asks of the data are sums over the rows, or
one answer a row, so that larger data only mean more blocks, and data in memory are one block.  Blocks follow the
chunks of the store, so that every chunk is read once a pass; where the whole spectra of a chunk are more than a block
may hold, they are held as they are stored while the blocks in them take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tensorspec.errors import InvalidData

__all__ = ["ENTRIES", "HELD", "BlockSource", "Place", "plain_type"]

Place = tuple[slice, ...]
# Entries of a block: long enough to hide what starting one costs, short beside the memory of a small computer.
ENTRIES = 2**23
# Bytes of the whole spectra of a chunk that are held for several blocks; more would be too much for a small computer.
HELD = 2**28


class BlockSource:
    """Blocks of rows of an array: numpy, memory map, h5py, zarr, dask or sparse.

    Parameters
    ----------
    array
        Anything with ``shape``, ``dtype`` and slices; the dimensions of the first mode come first.
    leading
        How many dimensions make up the first mode.
    rest : tuple of int, optional
        Sizes of the other modes, where several dimensions are one mode; by default the other dimensions.
    entries
        About how many entries a block may have.  An array in memory is one block, however large.
    name
        What the array is called in messages.

    Attributes
    ----------
    shape
        One size a mode.
    dtype
        As stored: blocks come in this type.
    places
        Where the blocks lie: a slice for every dimension of the first mode, in the order in which they are read.
    held
        Bytes of the whole spectra of a chunk, as stored, where blocks are parts of them and they are held meanwhile; 0
        where a block holds whole chunks.
    repeats
        How often a chunk is read in one pass, at the least: once, unless whole spectra of its pixels are more than can
        be held.

    Examples
    --------
    >>> source = BlockSource(np.arange(24).reshape(2, 3, 4), 2)
    >>> source.shape, [(rows.tolist(), values.shape) for rows, values in source]
    ((6, 4), [([0, 1, 2, 3, 4, 5], (6, 4))])
    """

    def __init__(
        self,
        array: Any,
        leading: int = 1,
        rest: tuple[int, ...] | None = None,
        entries: int = ENTRIES,
        name: str = "data",
    ) -> None:
        self._array, self._name = array, name
        self._first = tuple(int(size) for size in array.shape[:leading])
        across = tuple(int(size) for size in array.shape[leading:])
        self.shape = (prod(self._first), *(across if rest is None else rest))
        self.dtype = np.dtype(array.dtype)
        in_memory = isinstance(array, np.ndarray) and not isinstance(array, np.memmap)
        width = max(prod(across), 1)
        self._width = width * self.dtype.itemsize
        pixels = self.shape[0] if in_memory else max(entries // width, 1)
        self._edges = [_edges(array, axis) for axis in range(leading)]
        largest = prod(int(max(np.diff(own), default=1)) for own in self._edges)
        larger = getattr(array, "chunks", None) is not None and largest > pixels
        self.places = _places(self._edges, pixels)
        whole = max(_pixels(self._around(place)) for place in self.places) * self._width if larger else 0
        self.held = whole if whole <= HELD else 0
        self.repeats = -(-largest // pixels) if larger and not self.held else 1
        self._now: tuple[Place, np.ndarray] | None = None
        if self.held:  # those that share chunks follow each other
            self.places.sort(key=lambda place: [own.start for own in (*self._around(place), *place)])

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to other processes: not what is held."""
        return {**self.__dict__, "_now": None}

    @property
    def ndim(self) -> int:
        """Number of modes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def cut(self) -> bool:
        """Whether chunks hold parts of spectra only."""
        leading = len(self._first)
        return any(len(_edges(self._array, axis)) > 2 for axis in range(leading, len(self._array.shape)))

    def rows(self, place: Place) -> np.ndarray:
        """Return which rows of the first mode a block holds, counted from 0."""
        grid = [np.arange(size)[own] for own, size in zip(place, self._first, strict=True)]
        found = np.zeros((1,) * len(grid), np.int64)
        for axis, (index, size) in enumerate(zip(grid, self._first, strict=True)):
            found = found * size + index.reshape([-1 if k == axis else 1 for k in range(len(grid))])
        return found.reshape(-1)

    def read(self, place: Place) -> np.ndarray:
        """Return one block, one axis a mode, in the type of the data.

        Raises
        ------
        InvalidData
            When the store cannot be read there, or ends early.
        """
        around = self._around(place) if self.held else place
        if around == place or _pixels(around) * self._width > self.held:
            return self._fetched(place)
        now, self._now = self._now, None
        if now is None or now[0] != around:
            now = around, self._fetched(around)
        if any(own.stop < whole.stop for own, whole in zip(place, around, strict=True)):  # not the last of them
            self._now = now
        starts = [whole.start for whole in around]
        inside = tuple(slice(own.start - k, own.stop - k) for own, k in zip(place, starts, strict=True))
        part = now[1].reshape(*(own.stop - own.start for own in around), *self.shape[1:])[inside]
        return np.ascontiguousarray(part).reshape(_pixels(place), *self.shape[1:])

    def _around(self, place: Place) -> Place:
        """Return the whole chunks that a block has part of."""
        found = []
        for own, edges in zip(place, self._edges, strict=True):
            first, last = np.searchsorted(edges, own.start, "right") - 1, np.searchsorted(edges, own.stop)
            found.append(slice(int(edges[first]), int(edges[last])))
        return tuple(found)

    def _fetched(self, place: Place) -> np.ndarray:
        where = ", ".join(f"{own.start}:{own.stop}" for own in place)
        try:
            part = self._array[place]
            # Threads of this process: a block is read where it is asked for, on a worker too.
            part = part.compute(scheduler="threads") if hasattr(part, "compute") else part
        except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidData(
                f"tensor {self._name!r}: its store cannot be read at [{where}] ({why}); nothing was written. Write the "
                "file again, or leave that part out: data.isel(...)"
            ) from error
        part = np.asarray(part.todense() if hasattr(part, "todense") else part)
        expected = _pixels(place)
        if part.size != expected * prod(self.shape[1:]):
            raise InvalidData(
                f"tensor {self._name!r}: its store ends early: {part.shape} came back at [{where}], and {expected} "
                "pixels were expected. Write the file again, or leave that part out: data.isel(...)"
            )
        return np.ascontiguousarray(part).reshape(expected, *self.shape[1:])

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows and the values of every block."""
        for place in self.places:
            yield self.rows(place), self.read(place)


def _pixels(place: Place) -> int:
    return prod(own.stop - own.start for own in place)


def _edges(array: Any, axis: int) -> np.ndarray:
    """Return where chunks begin along an axis, and its end."""
    size, chunks = int(array.shape[axis]), getattr(array, "chunks", None)
    if chunks is None:
        return np.array([0, size])
    own = chunks[axis]
    if isinstance(own, (int, np.integer)):  # h5py and zarr give one size, dask gives all
        return np.append(np.arange(0, size, int(own)), size)
    return np.cumsum((0, *own))


def _places(edges: list[np.ndarray], pixels: int) -> list[Place]:
    """Return blocks of whole chunks with about so many pixels; a chunk that is larger is cut."""
    found: list[Place] = []
    wide = [int(np.diff(own).max(initial=1)) for own in edges]
    bounds = []
    room = pixels
    # Chunks are put together from the last dimension on, as they lie in most stores.
    for axis in reversed(range(len(edges))):
        others = prod(wide[:axis])
        bounds.insert(0, _grouped(edges[axis], max(room // others, 1)))
        longest = int(np.diff(bounds[0]).max(initial=1))
        room = max(room // longest, 1)
    for corner in product(*(zip(own[:-1], own[1:], strict=True) for own in bounds)):
        found.append(tuple(slice(int(start), int(stop)) for start, stop in corner))
    return found


def _grouped(edges: np.ndarray, most: int) -> np.ndarray:
    """Return edges such that chunks are put together up to a length, and longer ones are cut."""
    kept = [0]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if stop - kept[-1] > most and start > kept[-1]:
            kept.append(int(start))
        if stop - kept[-1] > most:
            # The rest of a chunk that is cut is a block too: with the next chunk it would be read once more.
            kept.extend([*range(kept[-1] + most, int(stop), most), int(stop)])
    kept.append(int(edges[-1]))
    return np.unique(kept)


def plain_type(values: np.ndarray) -> np.ndarray:
    """Return values in the nearest type that is computed with, in the byte order of the machine."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    elif values.dtype == np.float16:
        values = values.astype(np.float32)
    elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
