"""A tensor that is mostly zero, laid out for products with factors: time and memory go by what was counted.

For every axis the entries lie once more, in the order of that axis.  What one index of the axis has is cut in pieces of
at most sixteen entries, pieces of like length stand in one group (short ones filled up with zeros), and a group is an
array with one row a piece (a sliced ELLPACK layout).  A product then is a loop over pieces in which up to sixteen rows
of the other factors are gathered one after the other, written out so that the compiler makes one parallel loop of it;
the pieces of an index are added up at the end, in float64 where they are many.  Within a group pieces that lie near
each other in the other axis stand together, so that the rows which they gather stay in the cache.

Numbers of pieces are rounded up, so that data of the same shape run in the same compiled program.

References
----------
Monakov, Lokhmotov and Avetisyan, High Performance Embedded Architectures and Compilers (2010) 111,
doi:10.1007/978-3-642-11515-8_10; Smith, Ravindran, Sidiropoulos and Karypis, IEEE IPDPS (2015) 61,
doi:10.1109/IPDPS.2015.27.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from tensorspec.algebra.entries import Entries, order_by, smallest_integers

__all__ = ["SparseTensor", "is_sparse", "model_at", "mttkrp", "squared_residual", "sum_at", "weighted_pull"]

# Lengths of the groups: what a piece has less is filled up.  The longest is written out as often in a program.
_LENGTHS = (4, 8, 12, 16)
# The group of a piece by its length.
_GROUP_OF = np.searchsorted(_LENGTHS, np.arange(_LENGTHS[-1] + 1))
# From a piece's length before its middle on, ones as long as the piece and zeros behind.
_STEPS = np.repeat(np.array([1, 0], np.uint8), _LENGTHS[-1])
# Parts of the other axis by which the pieces of a group are ordered.
_TILES = 64
# Pieces of one index that are added up in the type of the factors.
_SHORT = 8


class Group(NamedTuple):
    """Pieces of like length: value zero where a piece is shorter, or where there is none.

    Attributes
    ----------
    values
        Shape (pieces, length).
    others
        For each other axis the index of each value.
    """

    values: Num[Array, "pieces length"]
    others: tuple[Int[Array, "pieces length"], ...]


class Along(NamedTuple):
    """The entries in the order of one axis.

    Attributes
    ----------
    groups
        From the shortest pieces to the longest.
    index
        The index of the axis that each piece of all groups belongs to.
    """

    groups: tuple[Group, ...]
    index: Int[Array, " pieces"]


class SparseTensor(eqx.Module):
    """The entries of a tensor that are not zero, laid out along every axis; it stands in for a block of a tensor.

    Attributes
    ----------
    shape
        Of the tensor.
    along
        They, for each axis.
    short
        For each axis, whether every index has so few pieces that their sum needs no double precision.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    along: tuple[Along, ...]
    short: tuple[bool, ...] = eqx.field(static=True)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @classmethod
    def build(cls, entries: Entries) -> SparseTensor:
        """Return the layout of some entries."""
        stored = _narrowed(entries.stored)
        # Sorting and copying in numpy let other threads run; arrays of JAX are made in this one, whose types hold.
        begins = _begins(entries.indices[0], entries.shape[0])
        with ThreadPoolExecutor(entries.ndim) as pool:
            along = list(pool.map(lambda axis: _groups(entries, stored, axis, begins), range(entries.ndim)))
        return cls(
            entries.shape,
            jax.tree.map(jnp.asarray, tuple(item for item, _ in along)),
            tuple(most <= _SHORT for _, most in along),
        )


def _narrowed(values: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest type that holds them."""
    if values.dtype.itemsize == 1 or not len(values):
        return values
    low, high = float(values.min()), float(values.max())
    for dtype in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            found = values.astype(dtype)
            return found if values.dtype.kind in "iu" or np.array_equal(found, values) else values
    return values


def _rounded_up(count: int) -> int:
    """Return a number of pieces with four significant binary digits, at least eight."""
    unit = 1 << max(count.bit_length() - 4, 3)
    return max(-(-count // unit), 1) * unit


def _groups(entries: Entries, stored: np.ndarray, axis: int, begins: np.ndarray) -> tuple[Along, int]:
    """Return the layout along an axis, as arrays of numpy, and the largest number of pieces of an index.

    `begins` says where the entries of every index of the first axis begin, and where those of the last one end.
    """
    size, longest = entries.shape[axis], _LENGTHS[-1]
    others = [k for k in range(entries.ndim) if k != axis]
    sizes = [entries.shape[k] for k in others]
    if axis and entries.ndim == 2:
        # Sorting by the second index is what bringing compressed rows to compressed columns does.
        import scipy.sparse  # loads slowly: not before it is needed

        matrix = scipy.sparse.csr_matrix((stored, entries.indices[1], begins), shape=(sizes[0], size)).tocsc()
        stored, indices, begins = matrix.data, [matrix.indices], matrix.indptr
    elif axis:
        order = order_by(entries.indices[axis], size)
        stored, indices = stored[order], [entries.indices[k][order] for k in others]
        begins = _begins(entries.indices[axis], size)
    else:
        indices = [entries.indices[k] for k in others]

    counts = np.diff(begins)
    pieces = -(-counts // longest)
    owner = np.repeat(np.arange(size, dtype=np.int32), pieces)
    before = (np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * longest
    begin = begins[owner] + before
    length = np.minimum(counts[owner] - before, longest).astype(np.uint8)
    group = _GROUP_OF[length]
    # The first of the other axes is the one whose rows are far apart in memory.
    tile = (indices[0][begin].astype(np.int64) * _TILES) // sizes[0]
    order = order_by(group * _TILES + tile, len(_LENGTHS) * _TILES)
    ends = np.cumsum(np.bincount(group, minlength=len(_LENGTHS)))

    found, owners = [], []
    # What a piece has less is taken from the entries that follow, at the end from ones made up, and weighs nothing.
    stored = _with_room(stored, stored.dtype)
    indices = [_with_room(index, smallest_integers(n)) for index, n in zip(indices, sizes, strict=True)]
    for width, stop, start in zip(_LENGTHS, ends, [0, *ends[:-1]], strict=True):
        own = order[start:stop]
        shape, first = (_rounded_up(len(own)), width), begin[own]
        values: Any = np.zeros(shape, stored.dtype)
        values[: len(own)] = _rows_of(stored, width, first)
        values[: len(own)] *= _rows_of(_STEPS, width, (longest - length[own]).astype(np.intp))
        gathered: list[Any] = []
        for index in indices:
            places = np.zeros(shape, index.dtype)
            places[: len(own)] = _rows_of(index, width, first)
            gathered.append(places)
        found.append(Group(values, tuple(gathered)))
        owners += [owner[own], np.zeros(shape[0] - len(own), np.int32)]
    index: Any = np.concatenate(owners)
    return Along(tuple(found), index), int(pieces.max(initial=0))


def _begins(index: np.ndarray, size: int) -> np.ndarray:
    """Return where the entries of every index would begin if they were sorted, and where the last one's would end."""
    found = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(index, minlength=size), out=found[1:])
    return found


def _with_room(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return values in a type, and behind them as many zeros as a piece is long."""
    found = np.zeros(len(values) + _LENGTHS[-1], dtype)
    found[: len(values)] = values
    return found


def _rows_of(values: np.ndarray, width: int, first: np.ndarray) -> np.ndarray:
    """Return for every place the values from there on, as many as a row is wide."""
    # As one item a row, which numpy copies several times as fast as rows of short items.
    item, step = np.dtype(f"V{width * values.itemsize}"), values.itemsize
    whole = np.ndarray((len(values) - width + 1,), item, values, strides=(step,))
    return whole[first].view(values.dtype).reshape(-1, width)


def is_sparse(blocks: Sequence[Any]) -> TypeGuard[tuple[SparseTensor]]:
    """Return whether the blocks of a tensor are one sparse tensor."""
    return len(blocks) == 1 and isinstance(blocks[0], SparseTensor)


def _rows(factor: Float[Array, "size rank"], index: Int[Array, "..."]) -> Float[Array, "... rank"]:
    return factor.at[index].get(mode="promise_in_bounds")


def _entries_of(factor: Float[Array, "size rank"], index: Int[Array, "..."], column: int) -> Float[Array, "..."]:
    return factor.at[index, column].get(mode="promise_in_bounds")


def _others(factors: Sequence[Float[Array, "size rank"]], axis: int) -> list[Float[Array, "size rank"]]:
    return [factor for k, factor in enumerate(factors) if k != axis]


def _held(stored: Any, factors: Sequence[Float[Array, "size rank"]]) -> tuple[Any, list[Float[Array, "size rank"]]]:
    """Return both as they are, tied together.

    In a loop of sweeps the compiler would take the conversion of all values and indices to wider types out of the loop,
    and so make every sweep read several times as much.
    """
    return jax.lax.optimization_barrier((stored, list(factors)))


def _contracted(
    tensor: SparseTensor, values: Sequence[Array], factors: Sequence[Float[Array, "size rank"]], axis: int
) -> Float[Array, "size rank"]:
    """Return the product of values in the place of those of the tensor with all other factors, as float64."""
    dtype = factors[0].dtype
    sums = []
    (along, values), factors = _held((tensor.along[axis], list(values)), factors)
    others = _others(factors, axis)
    for group, value in zip(along.groups, values, strict=True):
        total = jnp.zeros((), dtype)
        for slot in range(value.shape[1]):
            gathered = [_rows(factor, index[:, slot]) for factor, index in zip(others, group.others, strict=True)]
            total = total + value[:, slot].astype(dtype)[:, None] * reduce(jnp.multiply, gathered)
        sums.append(total)
    pieces = jnp.concatenate(sums)
    pieces = pieces if tensor.short[axis] else pieces.astype(jnp.float64)
    return jax.ops.segment_sum(pieces, along.index, tensor.shape[axis]).astype(jnp.float64)


def mttkrp(tensor: SparseTensor, factors: Sequence[Float[Array, "size rank"]], axis: int) -> Float[Array, "size rank"]:
    """Return the matricised tensor times Khatri-Rao product of the other factors, long sums in float64."""
    return _contracted(tensor, [group.values for group in tensor.along[axis].groups], factors, axis)


def model_at(
    tensor: SparseTensor, factors: Sequence[Float[Array, "size rank"]], axis: int
) -> list[Float[Array, "pieces length"]]:
    """Return the model at the entries of every group of an axis."""
    # Written out over the components: a sum over an axis of this length is several times slower.
    along, factors = _held(tensor.along[axis], factors)
    others, found = _others(factors, axis), []
    for group, index in zip(along.groups, _parts(along), strict=True):
        own = jax.lax.optimization_barrier(_rows(factors[axis], index))
        total = jnp.zeros((), own.dtype)
        for column in range(own.shape[1]):
            gathered = [_entries_of(factor, other, column) for factor, other in zip(others, group.others, strict=True)]
            total = total + own[:, column][:, None] * reduce(jnp.multiply, gathered)
        found.append(total)
    return found


def _parts(along: Along) -> list[Int[Array, " pieces"]]:
    """Return the index of the pieces of each group."""
    ends = np.cumsum([group.values.shape[0] for group in along.groups])
    return jnp.split(along.index, ends[:-1])


def _weights(
    group: Group, index: Int[Array, " pieces"], rows: Sequence[Float[Array, " size"] | None], axis: int, dtype: Any
) -> Float[Array, "pieces length"] | None:
    """Return the entry weights of a group, a product of one vector an axis; None for ones."""
    others = [row for k, row in enumerate(rows) if k != axis]
    found = [
        row.astype(dtype).at[place].get(mode="promise_in_bounds")
        for row, place in zip((rows[axis], *others), (index[:, None], *group.others), strict=True)
        if row is not None
    ]
    return reduce(jnp.multiply, found) if found else None


def weighted_pull(
    tensor: SparseTensor,
    factors: Sequence[Float[Array, "size rank"]],
    axis: int,
    rows: Sequence[Float[Array, " size"] | None],
    slope: Callable[[Array, Array], Array],
) -> Float[Array, "size rank"]:
    """Return the contraction of a function of data and model, zero where the data are, with the other factors.

    Parameters
    ----------
    tensor, factors, axis
        As for `mttkrp`.
    rows
        Weights along each axis, or None.
    slope
        Function of data and model.
    """
    dtype = factors[0].dtype
    along, factors = _held(tensor.along[axis], factors)

    def slopes() -> list[Array]:
        found = []
        for group, index, model in zip(along.groups, _parts(along), model_at(tensor, factors, axis), strict=True):
            value = slope(group.values.astype(dtype), model)
            weight = _weights(group, index, rows, axis, dtype)
            found.append(value if weight is None else value * weight)
        return found

    def nothing() -> list[Array]:
        return [jnp.zeros(group.values.shape, dtype) for group in along.groups]

    # The compiler would compute the slopes again for every component; it does not reach into a branch.
    found = jax.lax.cond(along.index[0] >= 0, slopes, nothing)
    return _contracted(tensor, found, factors, axis)


def sum_at(
    tensor: SparseTensor,
    factors: Sequence[Float[Array, "size rank"]],
    rows: Sequence[Float[Array, " size"] | None],
    value: Callable[[Array, Array], Array],
) -> Float[Array, ""]:
    """Return the weighted sum of a function of data and model over the entries that are stored, in float64."""
    dtype = factors[0].dtype
    # The axis in whose order the rows of the longest factor are gathered least often.
    axis = int(np.argmax(tensor.shape))
    along, factors = _held(tensor.along[axis], factors)
    total = jnp.zeros((), jnp.float64)
    for group, index, model in zip(along.groups, _parts(along), model_at(tensor, factors, axis), strict=True):
        data = group.values.astype(dtype)
        # In the type of the factors first: logarithms in double precision cost several times as much.
        found = jax.lax.optimization_barrier(jnp.where(data != 0, value(data, model), 0)).astype(jnp.float64)
        weight = _weights(group, index, rows, axis, jnp.float64)
        if weight is not None:
            found = jnp.where(weight > 0, weight * jnp.where(weight > 0, found, 0), 0)
        total = total + jnp.sum(found.sum(axis=1))
    return total


def squared_residual(
    tensor: SparseTensor,
    factors: Sequence[Float[Array, "size rank"]],
    rows: Sequence[Float[Array, " size"] | None],
) -> Float[Array, ""]:
    """Return the weighted sum of squares of tensor minus model: what the entries change in that of the model alone."""
    grams = []
    for factor, row in zip(factors, rows, strict=True):
        wide = factor.astype(jnp.float64)
        left = wide if row is None else wide * row.astype(jnp.float64)[:, None]
        grams.append(jnp.matmul(left.T, wide, precision=jax.lax.Precision.HIGHEST))
    # (x - m)^2 - m^2, without the difference of squares.
    change = sum_at(tensor, factors, rows, lambda data, model: data * (data - 2 * model))
    return jnp.maximum(jnp.sum(reduce(jnp.multiply, grams)) + change, 0)
