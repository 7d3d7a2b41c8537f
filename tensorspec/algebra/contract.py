"""Contractions of a tensor with factors, the only places where the data are read.

A tensor of order N is a tuple of blocks along its first axis; in memory there is one block, and larger data only mean
more of them.  Every function below is a sum (or a concatenation) over the blocks.  Factors are ``(size, rank)``.

Entry weights (a mask, an inverse variance) come in two forms: `rows`, one vector per axis whose product is the weight,
which costs nothing, and a dense array of the tensor's shape, whose Gram matrix is an MTTKRP of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from tensorspec.algebra import sparse
from tensorspec.algebra.converted import left_product, over_pieces, right_product

__all__ = [
    "Contracted",
    "contracted",
    "cross_gram",
    "gram",
    "mttkrp",
    "reconstruct",
    "squared_residual",
    "squares_left",
    "tangent_product",
    "weighted_gram",
]

# XLA folds a transpose into the product and then walks memory against its grain (a sweep of 77 ms instead of 8);
# the barriers keep the operands as they are laid out here.  The highest precision keeps TF32 out on GPUs.
_barrier = jax.lax.optimization_barrier
_EXACT = jax.lax.Precision.HIGHEST


class Contracted(NamedTuple):
    """A tensor contracted with the factor of its first axis, which every other axis asks for.

    Attributes
    ----------
    product
        Shape (rank, ...), the other axes in order.
    norms
        Those of the factor's columns: a factor whose columns have been scaled since gives the same rows, scaled.
    """

    product: Float[Array, "rank ..."]
    norms: Float[Array, " rank"]

    def with_columns_as(self, factor: Float[Array, "size rank"]) -> Float[Array, "rank ..."]:
        """Return the contraction with a factor whose columns are those from before times numbers not below zero."""
        scale = _norms(factor) / jnp.where(self.norms > 0, self.norms, 1)
        return self.product * scale.astype(self.product.dtype).reshape(-1, *[1] * (self.product.ndim - 1))


def _norms(factor: Float[Array, "size rank"]) -> Float[Array, " rank"]:
    return jnp.sqrt(jnp.sum(jnp.square(factor.astype(jnp.float64)), axis=0))


def contracted(blocks: Sequence[Num[Array, "..."]], factor: Float[Array, "size rank"]) -> Contracted:
    """Return the contraction of a dense tensor with the factor of its first axis; the tensor is read once."""
    total, start = None, 0
    for block in blocks:
        stop = start + block.shape[0]
        part = left_product(factor[start:stop].T, block.reshape(block.shape[0], -1))
        total, start = part if total is None else total + part, stop
    assert total is not None
    return Contracted(total.reshape(factor.shape[1], *blocks[0].shape[1:]), _norms(factor))


def cross_gram(
    left: Float[Array, "size rank"], right: Float[Array, "size other"], rows: Float[Array, " size"] | None = None
) -> Float[Array, "rank other"]:
    """Return ``left.T @ diag(rows) @ right`` accumulated in float64."""
    left, right = left.astype(jnp.float64), right.astype(jnp.float64)
    if rows is not None:
        left = left * rows.astype(jnp.float64)[:, None]
    return jnp.matmul(left.T, right, precision=_EXACT)


def gram(
    factors: Sequence[Float[Array, "size rank"]], axis: int, rows: Sequence[Float[Array, " size"] | None]
) -> Float[Array, "rank rank"]:
    """Return the Hadamard product of the Gram matrices of every factor but that of `axis`."""
    parts = [cross_gram(f, f, u) for m, (f, u) in enumerate(zip(factors, rows, strict=True)) if m != axis]
    return reduce(jnp.multiply, parts)


def mttkrp(
    blocks: Sequence[Num[Array, "..."]],
    factors: Sequence[Float[Array, "size rank"]],
    axis: int,
    known: Contracted | None = None,
) -> Float[Array, "size rank"]:
    """Return the matricised tensor times Khatri-Rao product of the other factors, the tensor read once.

    Parameters
    ----------
    blocks
        The tensor, cut along its first axis; any numeric type, converted to that of the factors when it is used.
    factors
        One ``(size, rank)`` factor per axis, in order.
    axis
        Axis whose factor is left out.
    known
        The tensor contracted with the factor of its first axis, up to the scale of columns; then the tensor is not read
        again for any other axis.

    Returns
    -------
    Array
        Shape ``(size of axis, rank)``.

    References
    ----------
    Kolda and Bader, SIAM Review 51 (2009) 455, doi:10.1137/07070111X.
    """
    if sparse.is_sparse(blocks):
        return sparse.mttkrp(blocks[0], factors, axis)
    if known is not None and axis:
        return _rest(known.with_columns_as(factors[0]), factors, axis)
    parts, start = [], 0
    for block in blocks:
        stop = start + block.shape[0]
        local = [factors[0][start:stop], *factors[1:]]
        parts.append(_mttkrp_block(block, local, axis))
        start = stop
    if axis == 0:
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return reduce(jnp.add, parts)


def _mttkrp_block(
    block: Num[Array, "..."], factors: Sequence[Float[Array, "size rank"]], axis: int
) -> Float[Array, "size rank"]:
    rank = factors[0].shape[1]
    flat = block.reshape(block.shape[0], -1)
    if axis == 0:
        return right_product(flat, khatri_rao(factors[1:]))
    return _rest(left_product(factors[0].T, flat).reshape(rank, *block.shape[1:]), factors, axis)


def _rest(
    rest: Float[Array, "rank ..."], factors: Sequence[Float[Array, "size rank"]], axis: int
) -> Float[Array, "size rank"]:
    """Return the contraction of all axes but the first, which has been contracted, and one more."""
    if rest.ndim == 2:
        return _barrier(rest).T
    letters = "abcdefgh"[: rest.ndim - 1]
    others = [m for m in range(1, rest.ndim) if m != axis]
    terms = ",".join(f"{letters[m - 1]}z" for m in others)
    return jnp.einsum(
        f"z{letters},{terms}->{letters[axis - 1]}z", rest, *(factors[m] for m in others), precision=_EXACT
    )


def khatri_rao(factors: Sequence[Float[Array, "size rank"]]) -> Float[Array, "product rank"]:
    """Return the column-wise Kronecker product, the last factor running fastest."""
    rank = factors[0].shape[1]
    return reduce(lambda left, right: (left[:, None, :] * right[None, :, :]).reshape(-1, rank), factors)


def weighted_gram(
    weights: Sequence[Num[Array, "..."]], factors: Sequence[Float[Array, "size rank"]], axis: int
) -> Float[Array, "size rank rank"]:
    """Return one Gram matrix per row of `axis`, for dense entry weights.

    It is the MTTKRP of the weights with the pairwise products of the columns, so it costs ``(rank + 1) / 2`` times a
    plain MTTKRP and makes every least-squares step with missing entries exact.
    """
    rank = factors[0].shape[1]
    upper = [(r, s) for r in range(rank) for s in range(r, rank)]
    left = jnp.asarray([r for r, _ in upper])
    right = jnp.asarray([s for _, s in upper])
    packed = mttkrp(weights, [f[:, left] * f[:, right] for f in factors], axis)
    position = {pair: k for k, pair in enumerate(upper)}
    unpack = jnp.asarray([[position[min(r, s), max(r, s)] for s in range(rank)] for r in range(rank)])
    return packed[:, unpack]


def reconstruct(factors: Sequence[Float[Array, "size rank"]]) -> Float[Array, "..."]:
    """Return the dense tensor that the factors stand for."""
    flat = jnp.matmul(factors[0], khatri_rao(factors[1:]).T, precision=_EXACT)
    return flat.reshape(tuple(f.shape[0] for f in factors))


def squared_residual(
    blocks: Sequence[Num[Array, "..."]],
    factors: Sequence[Float[Array, "size rank"]],
    scale: Float[Array, ""],
    rows: Sequence[Float[Array, " size"] | None],
    weights: Sequence[Num[Array, "..."]] | None,
) -> Float[Array, ""]:
    """Return the weighted sum of squares of ``scale * tensor - model``, summed in float64 without cancellation.

    Blocks of a tensor with dense weights hold weight times value (zero where the weight is zero).
    """
    # In the data's own units: a scale rounded to float32 would bias all entries the same way.
    first = (factors[0].astype(jnp.float64) / scale).astype(factors[0].dtype)
    if sparse.is_sparse(blocks):
        return sparse.squared_residual(blocks[0], [first, *factors[1:]], rows) * jnp.square(scale)
    square = squares_left(blocks, first, khatri_rao(factors[1:]).T, rows, weights)
    return square * jnp.square(scale)


def squares_left(
    blocks: Sequence[Num[Array, "..."]],
    first: Float[Array, "size rank"] | None,
    others: Float[Array, "rank product"],
    rows: Sequence[Float[Array, " size"] | None],
    weights: Sequence[Num[Array, "..."]] | None,
) -> Float[Array, ""]:
    """Return the weighted sum of squares of a tensor minus a product of two matrices, summed in float64.

    As matrices, row sums first: so the compiler makes one parallel loop of it and the model is never in memory.

    Parameters
    ----------
    blocks
        The tensor, cut along its first axis; with dense weights, weight times value.
    first, others
        The model, unfolded along the first axis, in units of the data: a product, or without a first the second alone.
    rows, weights
        Entry weights, as a product of vectors or as an array cut as the tensor is.
    """
    total, start, dtype = jnp.zeros((), jnp.float64), 0, others.dtype
    shape = (len(others if first is None else first), *blocks[0].shape[1:])
    along = [jnp.ones(n, jnp.float64) if u is None else u for n, u in zip(shape, rows, strict=True)]
    columns = None
    if any(row is not None for row in rows[1:]):
        columns = khatri_rao([row.astype(jnp.float64)[:, None] for row in along[1:]])[:, 0]
    for index, block in enumerate(blocks):
        stop = start + block.shape[0]
        flat, row = block.reshape(block.shape[0], -1), along[0][start:stop].astype(jnp.float64)
        if weights is None and first is not None:
            total = total + _squares_of(flat, first[start:stop], others, row, columns)
            start = stop
            continue
        model = others[start:stop] if first is None else jnp.matmul(first[start:stop], others, precision=_EXACT)
        data = flat.astype(dtype)
        if weights is None:
            square = jnp.square((data - model).astype(jnp.float64))
        else:
            weight = weights[index].reshape(data.shape).astype(jnp.float64)
            difference = (data - weight * model).astype(jnp.float64)
            square = jnp.where(weight > 0, jnp.square(difference) / jnp.where(weight > 0, weight, 1), 0)
        if columns is not None:
            square = square * columns
        total = total + jnp.sum(square.sum(axis=1) * row)
        start = stop
    return total


def _squares_of(
    flat: Num[Array, "size product"],
    first: Float[Array, "size rank"],
    others: Float[Array, "rank product"],
    row: Float[Array, " size"],
    columns: Float[Array, " product"] | None,
) -> Float[Array, ""]:
    """Return the weighted sum of squares of a matrix minus a product, converted piece by piece."""

    def body(total: Array, piece: Array, begin: Array, fresh: Array) -> Array:
        own = jax.lax.dynamic_slice(first, (begin, jnp.zeros_like(begin)), (len(piece), first.shape[1]))
        weight = jnp.where(fresh, jax.lax.dynamic_slice(row, (begin,), (len(piece),)), 0)
        square = jnp.square((piece - jnp.matmul(own, others, precision=_EXACT)).astype(jnp.float64))
        square = square if columns is None else square * columns
        return total + jnp.sum(square.sum(axis=1) * weight)

    return over_pieces(flat, others.dtype, body, jnp.zeros((), jnp.float64))


def tangent_product(
    factors: Sequence[Float[Array, "size rank"]],
    tangents: Sequence[Float[Array, "size rank"]],
    rows: Sequence[Float[Array, " size"] | None],
) -> list[Float[Array, "size rank"]]:
    """Return ``J^T W J`` times a change of all factors, by Gram products: nothing has the size of the data.

    `J` is the derivative of the model by all factors, and `W` the weights, a product of one vector per axis.

    References
    ----------
    Tomasi and Bro, Computational Statistics and Data Analysis 50 (2006) 1700, doi:10.1016/j.csda.2004.11.013; Sorber,
    Van Barel and De Lathauwer, SIAM Journal on Optimization 23 (2013) 695, doi:10.1137/120868323.
    """
    axes = range(len(factors))
    grams = [cross_gram(f, f, u) for f, u in zip(factors, rows, strict=True)]
    crossed = [cross_gram(t, f, u) for t, f, u in zip(tangents, factors, rows, strict=True)]
    found = []
    for n in axes:
        own = reduce(jnp.multiply, [grams[k] for k in axes if k != n])
        pairs = [
            reduce(jnp.multiply, [crossed[m], *(grams[k] for k in axes if k not in (m, n))]) for m in axes if m != n
        ]
        product = jnp.matmul(tangents[n], own, precision=_EXACT) + jnp.matmul(
            factors[n], reduce(jnp.add, pairs), precision=_EXACT
        )
        row = rows[n]
        found.append(product if row is None else product * row.astype(product.dtype)[:, None])
    return found
