"""Which data are taken by their entries that are not zero, and what has no way to do so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.algebra.blocks import plain_type
from tensorspec.algebra.entries import Entries
from tensorspec.errors import InvalidArgument
from tensorspec.losses.base import AbstractDivergence, AbstractLoss
from tensorspec.models.base import AbstractModel
from tensorspec.models.cp import CP
from tensorspec.modes import ModeLabels
from tensorspec.noise.unfold import pick_rows
from tensorspec.recipe import constructor_repr
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.hals import HALS

__all__ = [
    "NeedsDense",
    "by_counts",
    "better_dense",
    "check_dense",
    "entries_of",
    "mostly_zero",
    "refusal",
    "sample_rows",
    "stored_bytes",
    "with_few_repeats",
]

# Dense data with fewer entries that are not zero than this share go by them, from this size on.  Measured on 16384 x
# 1024 entries: with 10 % filled sweeps by counts still take a quarter of the time; but least squares of dense data can
# be compressed before.
_FILLED, _FILLED_SQUARES, _LARGE = 0.1, 0.04, 2**22
# Sparse data with a larger share are made dense where that is small.
_FULL = 0.25
# Sparse data that a fit cannot take by their entries are made dense up to this many bytes, and refused above.
_DENSE_BYTES = 2**28
# Entries that are not zero in the first chunks of lazy data, where a bright part says nothing of the whole.
_ROOM = 2**22
# Values that are looked at for the noise.
_SAMPLE = 2**22
# Repeats of HALS between two products with the data.
_REPEATS = 3


class NeedsDense(Exception):
    """A tensor cannot be taken by its entries.

    Parameters
    ----------
    tensor : str
        Its name.
    reason : str
        What has no way to do so.
    """

    def __init__(self, tensor: str, reason: str) -> None:
        super().__init__(tensor, reason)
        self.tensor = tensor
        self.reason = reason


def _coordinates(data: Any) -> Any:
    """Return a sparse array in coordinate form, or None for what is none or has zeros that are stored as such."""
    if isinstance(data, np.ndarray) or not hasattr(data, "todense"):
        return None
    data = data.tocoo() if hasattr(data, "tocoo") and not hasattr(data, "coords") else data
    if not hasattr(data, "coords") or not hasattr(data, "data") or np.any(getattr(data, "fill_value", 0) != 0):
        return None
    return data


def stored_bytes(tensor: xr.DataArray) -> int | None:
    """Return the bytes that the entries of a sparse tensor take once they are laid out; None for a dense one."""
    if tensor.chunks is not None:
        return _expected_bytes(tensor)
    if (found := _coordinates(tensor.data)) is None:
        return None
    return int(found.data.size) * (found.data.dtype.itemsize + 4 * tensor.ndim)


def _expected_bytes(tensor: xr.DataArray) -> int | None:
    """Return about how many bytes the entries of a lazy tensor take, by the chunk in its middle; None where many."""
    if tensor.size < _LARGE:
        return None
    middle = tuple(
        slice(sum(sizes[: len(sizes) // 2]), sum(sizes[: len(sizes) // 2 + 1])) for sizes in tensor.chunks or ()
    )
    chunk = tensor.data[middle].compute()
    filled = np.count_nonzero(chunk if isinstance(chunk, np.ndarray) else chunk.todense()) / max(chunk.size, 1)
    if filled > _FILLED_SQUARES:
        return None
    return int(filled * tensor.size) * (tensor.dtype.itemsize + 4 * tensor.ndim)


def _by_chunks(tensor: xr.DataArray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Return coordinates and values of a lazy tensor that is mostly zero, chunk by chunk; None for any other.

    Readers of event streams count the events of one chunk at a time, and no dense array has to hold them all.
    """
    coords, values, seen, kept = [], [], 0, 0
    for place in np.ndindex(*tensor.data.numblocks):
        own = [slice(sum(sizes[:k]), sum(sizes[: k + 1])) for sizes, k in zip(tensor.chunks or (), place, strict=True)]
        chunk = tensor.data[tuple(own)].compute()
        if not isinstance(chunk, np.ndarray):
            chunk = chunk.todense()
        found = Entries.from_dense(chunk)
        seen, kept = seen + chunk.size, kept + len(found.stored)
        if kept > _FILLED_SQUARES * seen + _ROOM or not np.all(np.isfinite(found.stored)):
            return None
        coords.append([index + part.start for index, part in zip(found.indices, own, strict=True)])
        values.append(found.stored)
    return [np.concatenate(axis) for axis in zip(*coords, strict=True)], np.concatenate(values)


def entries_of(tensor: xr.DataArray, names: tuple[str, ...], labels: Mapping[str, ModeLabels]) -> Entries | None:
    """Return the entries of a sparse tensor with one axis a mode; None for data that are not sparse.

    Parameters
    ----------
    tensor
        Any; what dask holds is computed chunk by chunk, as far as it stays mostly zero.
    names, labels
        The modes, one an axis.
    """
    if tensor.chunks is not None:
        if tensor.size < _LARGE or (chunks := _by_chunks(tensor)) is None:
            return None
        coords, values = chunks
    else:
        found = _coordinates(tensor.data)
        if found is None:
            return None
        coords, values = found.coords, np.asarray(found.data)
    place = {str(dim): index for dim, index in zip(tensor.dims, coords, strict=True)}
    indices = []
    for name in names:
        index = place[labels[name].dims[0]]
        if len(labels[name].dims) > 1:
            index = np.asarray(index, np.int64)
            for dim, size in zip(labels[name].dims[1:], labels[name].shape[1:], strict=True):
                index = index * size + place[dim]
        indices.append(index)
    return Entries.from_coordinates(tuple(labels[name].size for name in names), tuple(indices), plain_type(values))


def mostly_zero(values: np.ndarray, loss: AbstractLoss) -> bool:
    """Return whether dense data go faster by their entries."""
    share = _FILLED_SQUARES if loss.quadratic else _FILLED
    if values.size < _LARGE or values.ndim < 2:
        return False
    rows = values.reshape(len(values), -1)
    # A look at some rows is enough to leave most data alone.
    some = rows[:: max(1, len(rows) // 64)]
    if np.count_nonzero(some) > 2 * share * some.size:
        return False
    if np.count_nonzero(values) > share * values.size:
        return False
    return values.dtype.kind in "biu" or bool(np.isfinite(values).all())


def better_dense(entries: Entries) -> bool:
    """Return whether sparse data go faster as a dense array, which is small."""
    return entries.filled > _FULL and entries.size * 8 <= _DENSE_BYTES


def refusal(model: AbstractModel, loss: AbstractLoss, chosen: Any) -> str | None:
    """Return what cannot take a tensor by its entries, or None.

    Parameters
    ----------
    model, loss
        What is fitted.
    chosen
        The solver asked for, or None.
    """
    if not isinstance(model, CP):
        return f"{type(model).__name__}"
    if isinstance(loss, AbstractDivergence):
        # Where the slope of an empty entry is not the same everywhere, all of them have to be looked at.
        return None if loss.push(jnp.zeros(0)) is None else f"loss={constructor_repr(loss)}"
    if not loss.quadratic:
        return f"loss={constructor_repr(loss)}"
    if chosen is not None and not hasattr(chosen, "refusal"):
        return f"solver={type(chosen).__name__}()"
    return None


def check_dense(tensor: xr.DataArray, name: str, reason: str) -> None:
    """Refuse to make a sparse tensor dense where that is large.

    Raises
    ------
    InvalidArgument
        With the size that it would have.
    """
    if tensor.chunks is not None or stored_bytes(tensor) is None:
        return
    size = tensor.size * (8 if tensor.dtype == np.float64 else 4)
    if size > _DENSE_BYTES:
        raise InvalidArgument(
            f"tensor {name!r} is sparse, and {reason} cannot take it by its counts; as a dense array it would be "
            f"{size / 2**30:.2f} GiB: data.copy(data=data.data.todense()). Without it: ts.CP or ts.NMF with "
            "ts.LeastSquares() or ts.Poisson(), and masks that are products of one per mode"
        )


def sample_rows(values: Any) -> tuple[np.ndarray, float]:
    """Return rows of the first axis against all others, without what is empty, to look at the noise.

    Parameters
    ----------
    values
        A `CleanTensor` of entries.

    Returns
    -------
    matrix
        At most about four million values, float64.
    share
        Which share of the entries that count lies in rows and columns that are not empty.
    """
    entries: Entries = values.values
    full = np.unique(entries.indices[0])
    picked = full[pick_rows(len(full), 1024)]
    matrix, _ = entries.rows(picked)
    if matrix.size > _SAMPLE:
        matrix = matrix[: max(_SAMPLE // matrix.shape[1], 1)]
        matrix = matrix[:, matrix.any(axis=0)]
    covered = len(full) / len(entries) * matrix.shape[1] / max(entries.size // len(entries), 1)
    return matrix, min(covered * entries.size / values.count, 1.0)


def with_few_repeats(blocks: Sequence[BlockPlan], cleaned: Mapping[str, Any], chosen: Any) -> tuple[BlockPlan, ...]:
    """Return solvers that repeat less often before the next product where that is cheap, as it is with few counts."""
    if chosen is not None or not all(isinstance(item.values, Entries) for item in cleaned.values()):
        return tuple(blocks)
    return tuple(
        replace(block, solver=HALS(inner=_REPEATS, extrapolate=block.solver.extrapolate))
        if isinstance(block.solver, HALS) and block.solver.inner > _REPEATS
        else block
        for block in blocks
    )


def by_counts(cleaned: Mapping[str, Any]) -> str:
    """Return which tensors are taken by their counts, for the record of how a fit was solved."""
    shares = {key: item.values.filled for key, item in cleaned.items() if isinstance(item.values, Entries)}
    listed = ", ".join(f"{key!r} ({share:.2%} of its entries are not zero)" for key, share in shares.items())
    return f"; by its counts alone: {listed}" if listed else ""
