"""A tensor projected onto the few directions that hold it: what a sweep over a low-rank model needs of the data.

A compressed tensor is a small core and, for every compressed axis, an orthonormal basis ``(size, kept)``; the tensor is
close to the core multiplied by the bases.  The range of an axis is found by random projection and one power step, so
the data are read three times; the further axes of a tensor are compressed in what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from tensorspec.algebra import contract
from tensorspec.algebra.converted import left_product, right_product
from tensorspec.algebra.multilinear import times

__all__ = ["columns_kept", "compress", "mttkrp", "orthonormal"]

_barrier = jax.lax.optimization_barrier
_EXACT = jax.lax.Precision.HIGHEST
# An axis is worth compressing where it becomes at least this many times shorter.
_SHORTER = 4
# Share of the largest squared singular value below which a direction is rounding.
_ROUNDING = 1e-14
# Share of the sum of squares below which what is lacking is rounding.
_NOISELESS = 1e-7
# Power steps on what is small already.
_POWER_STEPS = 2
_Rows = Sequence[Float[Array, " size"] | None]


def columns_kept(
    shape: Sequence[int], rank: int, wide: bool = False, allowed: Sequence[bool] | None = None
) -> tuple[int | None, ...] | None:
    """Return how many directions of each axis are kept, None for an axis left as it is; None where nothing is gained.

    Parameters
    ----------
    shape
        Of the tensor.
    rank
        Components of the model: twice as many directions are kept, and no fewer than four beyond the rank.
    wide
        Whether more are kept, for data that hold more than the model.
    allowed
        Which axes may be compressed; all where it is not given.
    """
    allowed = (True,) * len(shape) if allowed is None else allowed
    kept = 4 * rank + 8 if wide else rank + max(4, rank)
    least = _SHORTER * kept // 2 if wide else _SHORTER * kept
    if len(shape) == 2:
        axis = 0 if shape[0] < shape[1] else 1
        return (
            None if shape[axis] < least or not allowed[axis] else tuple(kept if k == axis else None for k in range(2))
        )
    found: list[int | None] = [None] * len(shape)
    sizes = list(shape)
    for axis in sorted((k for k in range(len(shape)) if allowed[k]), key=lambda k: -shape[k]):
        # What is left has to be small beside the factors, and need not be smaller.
        if sizes[axis] < least or prod(sizes) <= sum(shape):
            break
        found[axis] = sizes[axis] = kept
    return tuple(found) if any(item is not None for item in found) else None


def orthonormal(columns: Float[Array, "size columns"]) -> Float[Array, "size columns"]:
    """Return an orthonormal basis of what the columns span, in float64; a direction that is rounding becomes zero.

    Products with the Gram matrix only, done twice: for long columns this takes a small share of what a Householder
    decomposition does, and in float64 it is as exact where the columns were rounded to float32 before.

    References
    ----------
    Stathopoulos and Wu, SIAM Journal on Scientific Computing 23 (2002) 2165, doi:10.1137/S1064827500370883.
    """
    found = columns.astype(jnp.float64)
    for _ in range(2):
        size = jnp.sqrt(jnp.sum(jnp.square(found), axis=0))
        found = found / jnp.where(size > 0, size, 1)
        values, vectors = jnp.linalg.eigh(contract.cross_gram(found, found))
        used = values > _ROUNDING * values[-1]
        turn = vectors * jnp.where(used, 1 / jnp.sqrt(jnp.where(used, values, 1)), 0)
        found = jnp.matmul(found, turn, precision=_EXACT)
    return found


def compress(
    blocks: Sequence[Num[Array, "..."]],
    sketches: Sequence[Float[Array, "size kept"] | None],
    rows: _Rows,
    square: Float[Array, ""],
    dtype: jnp.dtype,
) -> tuple[Float[Array, "..."], tuple[Float[Array, "size kept"] | None, ...], Float[Array, ""]]:
    """Return core and bases of a tensor whose entries are multiplied by the square roots of row weights.

    Parameters
    ----------
    blocks
        The tensor, cut along its first axis; any numeric type.
    sketches
        Random normal numbers for every axis to compress, a column for each direction to keep; None leaves an axis as it
        is.
    rows
        Weights along each axis, or None.
    square
        Weighted sum of squares of the tensor.
    dtype
        Of core and bases.

    Returns
    -------
    core
        Shape as the tensor's, compressed axes as long as directions are kept.
    bases
        ``(size, kept)`` for every compressed axis, orthonormal columns; None for the others.
    beyond
        Weakest direction that was kept over the strongest that noise alone would have (see `_above_noise`); above one
        where the tensor has structure in more directions than are kept.

    References
    ----------
    Halko, Martinsson and Tropp, SIAM Review 53 (2011) 217, doi:10.1137/090771806.
    """
    roots = [None if row is None else jnp.sqrt(row).astype(dtype) for row in rows]
    order = len(sketches)
    chosen = [axis for axis in range(order) if sketches[axis] is not None]
    sizes = [sum(block.shape[0] for block in blocks), *blocks[0].shape[1:]]
    # The data have to be walked as they lie: unfolded along the first axis, or along the last; the longer one, as what
    # has to be made orthonormal is as long as all others together.
    first = max((axis for axis in (0, order - 1) if axis in chosen), key=lambda axis: sizes[axis], default=chosen[0])
    sketch = sketches[first]
    assert sketch is not None
    core, basis = (_first_axis if first == 0 else _other_axis)(blocks, sizes, first, sketch.astype(dtype), roots, dtype)
    bases: list[Array | None] = [basis if axis == first else None for axis in range(order)]
    rest, beyond = _above_noise(core, first, sizes[first], square)
    for axis in chosen:
        sketch = sketches[axis]
        if axis != first and sketch is not None:
            bases[axis] = basis = _range_of(core, axis, sketch.astype(dtype)).astype(dtype)
            core = times(core, basis, axis)
            rest, other = _above_noise(core, axis, sizes[axis], rest)
            beyond = jnp.maximum(beyond, other)
    return core, tuple(bases), beyond


def _above_noise(core: Array, axis: int, size: int, square: Array) -> tuple[Array, Array]:
    """Return the sum of squares of a core, and how far its weakest direction along an axis stands above noise.

    What the core lacks of the sum of squares is taken as white noise, whose largest squared singular value is known.

    References
    ----------
    Marchenko and Pastur, Mathematics of the USSR-Sbornik 1 (1967) 457, doi:10.1070/SM1967v001n04ABEH001994.
    """
    flat = jnp.moveaxis(core, axis, 0).reshape(core.shape[axis], -1).astype(jnp.float64)
    kept = jnp.sum(jnp.square(flat))
    weakest = jnp.linalg.eigvalsh(jnp.matmul(flat, flat.T, precision=_EXACT))[0]
    lacking = jnp.maximum(square - kept, _NOISELESS * square)
    other = flat.shape[1]
    largest = lacking / (size * other) * (size**0.5 + other**0.5) ** 2
    return kept, jnp.where(square > 0, weakest / jnp.where(square > 0, largest, 1), 0)


def mttkrp(
    core: Float[Array, "..."],
    bases: Sequence[Float[Array, "size kept"] | None],
    factors: Sequence[Float[Array, "size rank"]],
    axis: int,
) -> Float[Array, "size rank"]:
    """Return the matricised tensor times Khatri-Rao product of the other factors, from core and bases."""
    small = [
        factor if basis is None else jnp.matmul(_barrier(basis.T), factor, precision=_EXACT)
        for factor, basis in zip(factors, bases, strict=True)
    ]
    found = contract.mttkrp((core,), small, axis)
    own = bases[axis]
    return found if own is None else jnp.matmul(own, found, precision=_EXACT)


def _first_axis(
    blocks: Sequence[Array],
    sizes: Sequence[int],
    axis: int,
    sketch: Array,
    roots: Sequence[Array | None],
    dtype: jnp.dtype,
) -> tuple[Array, Array]:
    """Compress the first axis; in every product the data stand on the right or on the left of a thin matrix."""
    flat = [block.reshape(block.shape[0], -1) for block in blocks]
    own, others = roots[axis], _joint([roots[k] for k in range(1, len(sizes))], sizes[1:])
    wide = _across(_left(flat, _weighed(sketch, own)).T, others, dtype)
    basis = orthonormal(_weighed(_right(flat, wide), own)).astype(dtype)
    core = _left(flat, _weighed(basis, own))
    core = core if others is None else core * others
    return core.reshape(-1, *sizes[1:]), basis


def _other_axis(
    blocks: Sequence[Array],
    sizes: Sequence[int],
    axis: int,
    sketch: Array,
    roots: Sequence[Array | None],
    dtype: jnp.dtype,
) -> tuple[Array, Array]:
    """Compress the last axis, or one between, which is moved there."""
    flat = [jnp.moveaxis(block, axis, -1).reshape(-1, sizes[axis]) for block in blocks]
    rest = [k for k in range(len(sizes)) if k != axis]
    own, others = roots[axis], _joint([roots[k] for k in rest], [sizes[k] for k in rest])
    long = _across(_right(flat, _weighed(sketch, own)), others, dtype)
    basis = orthonormal(_weighed(_left(flat, long).T, own)).astype(dtype)
    core = _weighed(_right(flat, _weighed(basis, own)), others)
    return jnp.moveaxis(core.reshape(*[sizes[k] for k in rest], -1), -1, axis), basis


def _across(columns: Array, roots: Array | None, dtype: jnp.dtype) -> Array:
    """Return a basis of columns on the other side of the data, their weights on both ends of the product."""
    return _weighed(orthonormal(_weighed(columns, roots)).astype(dtype), roots)


def _weighed(columns: Array, roots: Array | None) -> Array:
    return columns if roots is None else columns * roots[:, None]


def _joint(roots: Sequence[Array | None], sizes: Sequence[int]) -> Array | None:
    """Return the product of the roots over several axes, the last running fastest."""
    if all(root is None for root in roots):
        return None
    each = [jnp.ones(size) if root is None else root for root, size in zip(roots, sizes, strict=True)]
    dtype = next(root for root in roots if root is not None).dtype
    return contract.khatri_rao([own.astype(dtype)[:, None] for own in each])[:, 0]


def _right(flat: Sequence[Array], matrix: Array) -> Array:
    """Return the unfolded data times a thin matrix."""
    parts = [right_product(block, matrix) for block in flat]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _left(flat: Sequence[Array], matrix: Array) -> Array:
    """Return the transpose of a thin matrix times the unfolded data."""
    start, total = 0, None
    for block in flat:
        stop = start + block.shape[0]
        part = left_product(matrix[start:stop].T, block)
        total, start = part if total is None else total + part, stop
    assert total is not None
    return _barrier(total)


def _range_of(core: Array, axis: int, sketch: Array) -> Array:
    """Return a basis of the leading directions of one axis of something small."""
    flat = jnp.moveaxis(core, axis, 0).reshape(core.shape[axis], -1)
    basis = sketch
    for _ in range(_POWER_STEPS):
        basis = jnp.matmul(flat, jnp.matmul(basis.T, flat, precision=_EXACT).T, precision=_EXACT)
        basis = orthonormal(basis).astype(core.dtype)
    return basis
