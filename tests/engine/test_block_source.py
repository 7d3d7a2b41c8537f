"""Blocks of any store: every entry once, in the type of the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorspec.algebra.blocks import BlockSource
from tensorspec.errors import InvalidData
from tensorspec.fit.block_findings import summed

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
def test_ragged_chunks_are_read_once(y, x, e, entries):
    dask = pytest.importorskip("dask.array")
    values = np.arange(sum(y) * sum(x) * sum(e)).reshape(sum(y), sum(x), sum(e))
    source = BlockSource(dask.from_array(values, chunks=(tuple(y), tuple(x), tuple(e))), 2, entries=entries)
    np.testing.assert_array_equal(together(source), values.reshape(-1, sum(e)))
    assert source.cut == (len(e) > 1)
    if max(y) * max(x) * sum(e) <= entries:
        assert source.repeats == 1
        edges = [set(np.cumsum([0, *own])) for own in (y, x)]
        for place in source.places:
            assert all({own.start, own.stop} <= edge for own, edge in zip(place, edges, strict=True))


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
