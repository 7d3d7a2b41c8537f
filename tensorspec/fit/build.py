"""One tensor of the problem, from its clean values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.entries import Entries
from tensorspec.algebra.sparse import SparseTensor
from tensorspec.fit.likelihood import reference_loss
from tensorspec.fit.own import ALIGNED, own_copy
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import CleanTensor
from tensorspec.losses.base import AbstractLoss, EntryWeights
from tensorspec.problem import Tensor

__all__ = ["build_tensor", "on_device", "traced"]


def traced(leaf: Any) -> Any:
    """Return a number of a constraint as traced data, so that another value never compiles again."""
    if isinstance(leaf, (float, np.ndarray, np.floating)):
        return jax.device_put(np.asarray(leaf, np.float64))
    return leaf


def on_device(values: np.ndarray) -> jax.Array:
    """Return an array for the solvers to read; in the memory of the processor it is copied once, or not at all."""
    if jax.default_backend() == "cpu" and values.ctypes.data % ALIGNED:
        values, _ = own_copy(values)
    return jax.device_put(values)


def build_tensor(
    names: tuple[str, ...],
    values: CleanTensor,
    entry: EntryWeights,
    scale: float,
    weight: float,
    dtype: np.dtype,
    loss: AbstractLoss | None = None,
    seen: tuple[bool, ...] | None = None,
    operators: tuple[Any, ...] | None = None,
    core: str | None = None,
    blocks: tuple[Any, ...] | None = None,
) -> Tensor:
    """Return a tensor of the problem; `blocks` are its data where they are there already."""
    stored, dense = values.values, entry.dense
    if isinstance(stored, Surveyed):
        # Only that entries have weights of their own is known; they and the data come block by block.
        blocks, dense = (), None
    elif isinstance(stored, Entries):
        blocks = (SparseTensor.build(stored),) if blocks is None else blocks
    else:
        if dense is not None and dense.dtype.kind == "f":
            stored = (stored * dense).astype(dtype)
            dense = dense.astype(dtype)
        blocks = (on_device(stored),)
    if isinstance(stored, Surveyed):
        found = float("nan") if stored.reference is None else stored.reference
        quadratic = loss is None or loss.quadratic
        square, loss = found * scale**2 * (1 if quadratic else 2), None if quadratic else loss
    elif loss is None or loss.quadratic:
        square, loss = _weighted_square(values, entry) * scale**2, None
    else:
        square = 2 * reference_loss(loss, values) * scale**2
    return Tensor(
        modes=names,
        blocks=blocks,
        scale=jax.device_put(np.asarray(scale, np.float64)),
        weight=jax.device_put(np.asarray(weight, np.float64)),
        rows=tuple(None if row is None else jnp.asarray(row, jnp.float64) for row in entry.rows),
        dense=()
        if isinstance(stored, Surveyed) and stored.blocks.dense
        else None
        if dense is None
        else (on_device(dense),),
        square_norm=jax.device_put(np.asarray(square, np.float64)),
        loss=None if loss is None else jax.tree.map(traced, loss),
        seen=seen,
        operators=operators,
        core=core,
    )


def _weighted_square(clean: CleanTensor, entry: EntryWeights) -> float:
    """Return the weighted sum of squares in float64, block by block."""
    values = clean.values
    if entry.dense is None and all(row is None for row in entry.rows):
        return clean.rms**2 * clean.count
    if isinstance(values, Entries):
        return values.weighted_square(entry.rows)
    total, step = 0.0, max(1, 2**22 // max(values[0].size, 1))
    for k in range(0, values.shape[0], step):
        part = np.square(values[k : k + step], dtype=np.float64)
        if entry.dense is not None:
            part = part * entry.dense[k : k + step]
        for axis in range(values.ndim - 1, -1, -1):
            row = entry.rows[axis]
            row = np.ones(part.shape[axis]) if row is None else (row[k : k + step] if axis == 0 else row)
            part = part @ row if axis == part.ndim - 1 else part
        total += float(part)
    return total
