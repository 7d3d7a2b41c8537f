"""Contractions of a tensor with factors and a core that says which of their columns meet.

A core is held as a factor of its own: a row for every point of the modes that are left whole, a column for every
combination of columns of the others, the last running fastest.  As a tensor it has one axis a mode, in the order of the
data.  None stands for the factor of a mode that is left whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from tensorspec.algebra.contract import cross_gram
from tensorspec.algebra.converted import left_product, right_product

__all__ = ["Data", "as_core", "as_factor", "core_equations", "expand", "grams", "mode_equations", "project", "times"]

_EXACT = jax.lax.Precision.HIGHEST
_barrier = jax.lax.optimization_barrier
_Factors = Sequence[Float[Array, "size columns"] | None]


class Data(NamedTuple):
    """What normal equations need of a tensor.

    Attributes
    ----------
    blocks
        The tensor, cut along its first axis; with dense weights, weight times value.
    rows, dense
        Entry weights, as a product of vectors, one an axis, or as an array cut as the tensor is; None for ones.
    bases
        Where the tensor is compressed, an orthonormal ``(size, kept)`` basis for each axis that is, None for the
        others; entries then stand for the data times the square roots of their row weights.
    """

    blocks: Sequence[Num[Array, "..."]]
    rows: Sequence[Float[Array, " size"] | None]
    dense: Sequence[Num[Array, "..."]] | None = None
    bases: Sequence[Float[Array, "size kept"] | None] | None = None

    @property
    def carried(self) -> Sequence[Float[Array, " size"] | None]:
        """The row weights that a product with the data still has to carry."""
        return self.rows if self.bases is None else [None if row is None else jnp.sqrt(row) for row in self.rows]


def times(values: Float[Array, "..."], matrix: Float[Array, "size columns"], axis: int) -> Float[Array, "..."]:
    """Return a tensor with one axis multiplied by the transpose of a matrix: its size becomes that of the columns."""
    return jnp.moveaxis(jnp.tensordot(values, matrix, axes=(axis, 0), precision=_EXACT), -1, axis)


def project(blocks: Sequence[Num[Array, "..."]], factors: _Factors) -> Float[Array, "..."]:
    """Return the tensor multiplied along every axis by the transpose of its factor, the data read once.

    Parameters
    ----------
    blocks
        The tensor, cut along its first axis.
    factors
        One ``(size, columns)`` factor an axis; None leaves the axis as it is.

    Returns
    -------
    Array
        Of the order of the tensor; an axis with a factor has the size of its columns.
    """
    parts, start = [], 0
    for block in blocks:
        stop = start + block.shape[0]
        first = None if factors[0] is None else factors[0][start:stop]
        parts.append(_project_block(block, [first, *factors[1:]]))
        start = stop
    if factors[0] is None:
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return reduce(jnp.add, parts)


def _project_block(block: Num[Array, "..."], factors: _Factors) -> Float[Array, "..."]:
    given = {axis: factor for axis, factor in enumerate(factors) if factor is not None}
    left, values = list(given), block
    # The first product reads the data and has to walk them as they lie: along the first axis, else along the last.
    if left and left[0] == 0:
        values = left_product(given[0].T, block.reshape(block.shape[0], -1))
        values = _barrier(values).reshape(-1, *block.shape[1:])
        left = left[1:]
    elif left and left[-1] == block.ndim - 1:
        flat = block.reshape(-1, block.shape[-1])
        values = right_product(flat, given[left[-1]]).reshape(*block.shape[:-1], -1)
        left = left[:-1]
    elif left:
        values = block.astype(given[left[0]].dtype)
    for axis in reversed(left):
        values = times(values, given[axis], axis)
    return values


def as_core(factor: Float[Array, "rows columns"], factors: _Factors, sizes: Sequence[int]) -> Float[Array, "..."]:
    """Return a core as a tensor, from the factor that holds it.

    Parameters
    ----------
    factor
        As the problem holds it.
    factors
        One an axis of the data, None for the axes that are left whole.
    sizes
        Size of each axis of the data.
    """
    whole = [axis for axis, own in enumerate(factors) if own is None]
    kept = [axis for axis, own in enumerate(factors) if own is not None]
    shape = [sizes[axis] for axis in whole] + [own.shape[1] for own in factors if own is not None]
    order = [*whole, *kept]
    return jnp.transpose(factor.reshape(shape), [order.index(axis) for axis in range(len(sizes))])


def as_factor(core: Float[Array, "..."], factors: _Factors) -> Float[Array, "rows columns"]:
    """Return the factor that holds a core; the inverse of `as_core`."""
    whole = [axis for axis, own in enumerate(factors) if own is None]
    kept = [axis for axis, own in enumerate(factors) if own is not None]
    rows = 1
    for axis in whole:
        rows *= core.shape[axis]
    return jnp.transpose(core, [*whole, *kept]).reshape(rows, -1)


def expand(core: Float[Array, "..."], factors: _Factors, but: int | None = None) -> Float[Array, "..."]:
    """Return the core multiplied by every factor (but that of one axis): the dense tensor, or what an axis meets."""
    for axis in reversed(range(core.ndim)):
        factor = factors[axis]
        if factor is not None and axis != but:
            core = times(core, factor.T, axis)
    return core


def grams(
    factors: _Factors, rows: Sequence[Float[Array, " size"] | None]
) -> list[Float[Array, "columns columns"] | Float[Array, " size"] | None]:
    """Return the Gram matrix of each factor in float64; of an axis left whole its weights, or None."""
    return [row if f is None else cross_gram(f, f, row) for f, row in zip(factors, rows, strict=True)]


def _weighed(core: Array, products: Sequence[Array | None], but: int | None) -> Array:
    """Return the core in float64 multiplied by the Gram matrix of every axis but one."""
    core = core.astype(jnp.float64)
    for axis, product in enumerate(products):
        if product is None or axis == but:
            continue
        if product.ndim == 2:
            core = times(core, product, axis)
        else:
            core = core * product.astype(jnp.float64).reshape([-1 if k == axis else 1 for k in range(core.ndim)])
    return core


def _projected_weights(
    dense: Sequence[Num[Array, "..."]],
    factors: _Factors,
    rows: Sequence[Float[Array, " size"] | None],
    but: int | None,
) -> tuple[Array, list[str], list[str], list[str]]:
    """Return the weights, contracted with all pairs of columns of every factor but one, in float64.

    Beside them stand the letters of their axes, and those of the two cores whose product they weigh.
    """
    pairs: list[Array | None] = []
    for axis, (factor, row) in enumerate(zip(factors, rows, strict=True)):
        if factor is None or axis == but:
            pairs.append(None)
            continue
        scaled = factor if row is None else factor * row.astype(factor.dtype)[:, None]
        pairs.append((scaled[:, :, None] * factor[:, None, :]).reshape(len(factor), -1))
    values = project(dense, pairs).astype(jnp.float64)
    values = _weighed(values, [row if f is None else None for f, row in zip(factors, rows, strict=True)], but)
    shape: list[int] = []
    letters: list[str] = []
    one: list[str] = []
    other: list[str] = []
    names = iter("abcdefghijklmnopqrstuvwxyz")
    for axis, factor in enumerate(factors):
        if axis == but:
            letter = next(names)
            shape.append(values.shape[axis])
            letters.append(letter)
            one.append(next(names))
            other.append(next(names))
        elif factor is None:
            letter = next(names)
            shape.append(values.shape[axis])
            letters.append(letter)
            one.append(letter)
            other.append(letter)
        else:
            left, right = next(names), next(names)
            shape += [factor.shape[1]] * 2
            letters.append(left + right)
            one.append(left)
            other.append(right)
    return values.reshape(shape), letters, one, other


def _projected(data: Data, factors: _Factors) -> Float[Array, "..."]:
    """Return what `project` does, in float64, with the weights that the data do not hold; compressed axes stay so."""
    scaled = [_scaled(f, row) for f, row in zip(factors, data.carried, strict=True)]
    if data.bases is not None:
        scaled = [
            f if f is None or basis is None else jnp.matmul(_barrier(basis.T), f, precision=_EXACT)
            for f, basis in zip(scaled, data.bases, strict=True)
        ]
    return project(data.blocks, scaled).astype(jnp.float64)


def mode_equations(
    data: Data, factors: _Factors, core: Float[Array, "..."], axis: int
) -> tuple[Float[Array, "..."], Float[Array, "size columns"]]:
    """Return Gram matrix (one a row with dense weights) and right-hand side of the factor of an axis, in float64.

    Parameters
    ----------
    data
        The tensor and its weights.
    factors
        One an axis; None for those left whole.
    core
        As a tensor.
    axis
        Whose factor is asked for; its own row weights are left to the caller.
    """
    rows, dense = data.rows, data.dense
    projected = _projected(data, [None if k == axis else f for k, f in enumerate(factors)])
    own = [None if k == axis or factors[k] is not None else row for k, row in enumerate(data.carried)]
    others = [k for k in range(core.ndim) if k != axis]
    wide = core.astype(jnp.float64)
    right = jnp.tensordot(projected, _weighed(wide, own, axis), axes=(others, others), precision=_EXACT)
    basis = None if data.bases is None else data.bases[axis]
    if basis is not None:
        right = jnp.matmul(basis.astype(right.dtype), right, precision=_EXACT)
    if dense is None:
        weighed = _weighed(wide, grams(factors, rows), axis)
        return jnp.tensordot(weighed, wide, axes=(others, others), precision=_EXACT), right
    weights, letters, one, other = _projected_weights(dense, factors, rows, axis)
    terms = f"{''.join(letters)},{''.join(one)},{''.join(other)}->{letters[axis]}{one[axis]}{other[axis]}"
    return jnp.einsum(terms, weights, wide, wide, precision=_EXACT), right


def core_equations(data: Data, factors: _Factors) -> tuple[Float[Array, "..."], Float[Array, "rows columns"]]:
    """Return Gram matrix (one a row where rows have weights) and right-hand side of the factor that holds the core.

    Without dense weights the Gram matrix is the Kronecker product of those of the factors.
    """
    rows, dense = data.rows, data.dense
    projected = _projected(data, factors)
    own = [None if factors[k] is not None else row for k, row in enumerate(rows)]
    pulled = [None if factors[k] is not None else row for k, row in enumerate(data.carried)]
    right = as_factor(_weighed(projected, pulled, None), factors)
    if dense is None:
        squares = [p for p, f in zip(grams(factors, rows), factors, strict=True) if f is not None and p is not None]
        gram = reduce(jnp.kron, squares, jnp.ones((1, 1), jnp.float64))
        weights = [row for row in own if row is not None]
        if not weights:
            return gram, right
        sizes = [projected.shape[k] for k, f in enumerate(factors) if f is None]
        each = [
            jnp.ones(size, jnp.float64) if row is None else row.astype(jnp.float64)
            for size, row in zip(sizes, [r for r, f in zip(rows, factors, strict=True) if f is None], strict=True)
        ]
        return reduce(lambda a, b: jnp.outer(a, b).reshape(-1), each)[:, None, None] * gram, right
    weights, letters, one, other = _projected_weights(dense, factors, rows, None)
    whole = [letter for letter, f in zip(letters, factors, strict=True) if f is None]
    left = [letter for letter, f in zip(one, factors, strict=True) if f is not None]
    across = [letter for letter, f in zip(other, factors, strict=True) if f is not None]
    ordered = jnp.einsum(f"{''.join(letters)}->{''.join(whole + left + across)}", weights)
    columns = right.shape[1]
    return ordered.reshape(right.shape[0], columns, columns), right


def _scaled(factor: Array | None, row: Array | None) -> Array | None:
    return factor if factor is None or row is None else factor * row.astype(factor.dtype)[:, None]
