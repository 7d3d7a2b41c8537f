"""Blocks of any store: every entry once, in the type of the data."""

import importlib
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorspec.algebra.blocks import BlockSource
from tensorspec.errors import InvalidData
from tensorspec.fit.block_findings import summed

blocks = importlib.import_module("tensorspec.algebra.blocks")
VALUES = np.arange(7 * 9 * 5, dtype=np.uint16).reshape(7, 9, 5)


def stores(tmp_path):
    h5py, dask = pytest.importorskip("h5py"), pytest.importorskip("dask.array")
    sparse = pytest.importorskip("sparse")
    file = h5py.File(tmp_path / "a.h5", "w")
    mapped = np.memmap(tmp_path / "a.raw", VALUES.dtype, "w+", shape=VALUES.shape)
    mapped[:] = VALUES
    found = {
        "numpy": VALUES,
        "memory map": mapped,
        "h5py": file.create_dataset("a", data=VALUES, chunks=(2, 4, 5)),
        "dask": dask.from_array(VALUES, chunks=((3, 4), (2, 7), 5)),
        "sparse": sparse.COO.from_numpy(VALUES),
    }
    try:
        import zarr

        found["zarr"] = zarr.array(VALUES, chunks=(3, 4, 5))
    except ImportError:
        pass
    return found


def together(source):
    found, times = np.zeros(source.shape, source.dtype), np.zeros(source.shape[0], int)
    for rows, values in source:
        assert values.dtype == source.dtype
        found[rows] = values
        times[rows] += 1
    assert (times == 1).all()
    return found


def test_every_store_comes_as_it_is(tmp_path):
    for name, store in stores(tmp_path).items():
        source = BlockSource(store, 2, entries=60)
        np.testing.assert_array_equal(together(source), VALUES.reshape(63, 5), err_msg=name)
        assert source.dtype == np.uint16 and (len(source) == 1) == (name in ("numpy",))


@settings(max_examples=60, deadline=None)
@given(
    y=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    x=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    e=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    entries=st.integers(1, 400),
)
@example(y=[1], x=[4, 1], e=[1], entries=3)  # a chunk that is cut, beside a short one
def test_ragged_chunks_are_read_once(y, x, e, entries):
    dask = pytest.importorskip("dask.array")
    values = np.arange(sum(y) * sum(x) * sum(e)).reshape(sum(y), sum(x), sum(e))
    source = BlockSource(dask.from_array(values, chunks=(tuple(y), tuple(x), tuple(e))), 2, entries=entries)
    np.testing.assert_array_equal(together(source), values.reshape(-1, sum(e)))
    assert source.cut == (len(e) > 1)
    # What is held for one block after the other overlaps nowhere, so that nothing is read twice.
    held = {str(place): place for place in map(source._around, source.places)}
    assert sum(np.prod([own.stop - own.start for own in place]) for place in held.values()) == source.shape[0]
    if max(y) * max(x) * sum(e) <= entries:
        assert source.repeats == 1
        edges = [set(np.cumsum([0, *own])) for own in (y, x)]
        for place in source.places:
            assert all({own.start, own.stop} <= edge for own, edge in zip(place, edges, strict=True))


class Counted:
    """A store that counts how often each of its chunks is decoded."""

    def __init__(self, values, chunks):
        self.values, self.shape, self.dtype, self.ndim, self.chunks = (
            values,
            values.shape,
            values.dtype,
            values.ndim,
            chunks,
        )
        self.times = np.zeros([-(-size // chunk) for size, chunk in zip(values.shape, chunks, strict=True)], int)

    def __getitem__(self, place):
        whole = [slice(0, size) for size in self.shape]
        place = (*place, *whole[len(place) :])
        spans = zip(place, self.chunks, strict=True)
        self.times[tuple(slice(own.start // chunk, -(-own.stop // chunk)) for own, chunk in spans)] += 1
        return self.values[place]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("chunks", "entries", "held"),
    [
        ((2, 4, 2), 40, 0),  # whole chunks in every block
        ((2, 4, 2), 15, 3 * 4 * 5 * 2),  # blocks are parts of chunks that cut spectra; the last ones share two
        ((3, 9, 5), 15, 3 * 9 * 5 * 2),  # and of chunks of whole spectra
        ((7, 2, 3), 10, 7 * 2 * 5 * 2),  # chunks that are higher than a block
    ],
)
def test_every_chunk_is_decoded_once_a_pass(monkeypatch, lazy, chunks, entries, held):
    store = Counted(VALUES, chunks)
    array = store
    if lazy:
        dask = pytest.importorskip("dask.array")
        array = dask.from_array(store, chunks=chunks, asarray=False, name=False, meta=VALUES[:0, :0, :0])
    source = BlockSource(array, 2, entries=entries)
    assert source.held == held and source.repeats == 1
    assert max(len(rows) for rows, _ in source) <= entries // 5
    store.times[:] = 0
    for times in (1, 2):
        np.testing.assert_array_equal(together(source), VALUES.reshape(63, 5))
        assert (store.times == times).all()
    assert source._now is None  # nothing is held after a pass
    if held:
        monkeypatch.setattr(blocks, "HELD", held - 1)
        store.times[:] = 0
        source = BlockSource(array, 2, entries=entries)
        assert source.held == 0 and source.repeats > 1
        np.testing.assert_array_equal(together(source), VALUES.reshape(63, 5))
        assert store.times.max() >= source.repeats


def test_what_is_held_stays_where_it_is():
    source = BlockSource(Counted(VALUES, (7, 9, 2)), 2, entries=15)
    first = source.read(source.places[0])
    assert source._now is not None
    sent = pickle.loads(pickle.dumps(source))
    assert sent._now is None
    np.testing.assert_array_equal(sent.read(sent.places[0]), first)


def test_a_store_that_ends_early():
    class Short:
        shape, dtype, chunks = (4, 5), np.dtype(float), None

        def __getitem__(self, place):
            return np.ones((3, 5))[place]

    with pytest.raises(InvalidData, match="its store ends early"):
        list(BlockSource(Short(), 1))


@settings(max_examples=30, deadline=None)
@given(bins=st.integers(1, 8), cut=st.integers(1, 6), across=st.integers(1, 8))
def test_bins_of_pieces_add_up(bins, cut, across):
    whole = np.zeros((-(-7 // bins), -(-9 // bins), 5), np.float32)
    for y in (slice(0, cut), slice(cut, 7)):
        for x in (slice(0, across), slice(across, 9)):
            part = summed(VALUES[y, x], [y.start, x.start], bins)
            whole[y.start // bins : -(-y.stop // bins), x.start // bins : -(-x.stop // bins)] += part
    expected = np.add.reduceat(np.add.reduceat(VALUES, range(0, 7, bins), axis=0), range(0, 9, bins), axis=1)
    np.testing.assert_array_equal(whole, expected)
