"""Isotonic regression: the nearest rising sequence, for a sequence and for all of its beginnings at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["PrefixFits", "nearest_rising", "nearest_unimodal", "prefix_fits"]


class PrefixFits(NamedTuple):
    """The nearest rising sequences of all beginnings of some sequences.

    Attributes
    ----------
    last
        Entry k is the last value of the fit to the first k + 1 entries.
    error
        Entry k is the squared distance of that fit, clipped from below where that was asked for.
    """

    last: Float[Array, "rows entries"]
    error: Float[Array, "rows entries"]

    def fit(self, length: Array | int) -> Float[Array, "rows entries"]:
        """Return the fit to the first `length` entries, one number or one per row; what follows is infinite.

        Further entries only lower a fit, and a pool that is left as it is was made when its last entry came.  So the
        value of an entry is the least of the last values from there on.
        """
        place = jnp.arange(self.last.shape[1])
        used = jnp.where(place < jnp.reshape(jnp.asarray(length), (-1, 1)), self.last, jnp.inf)
        return jax.lax.cummin(used, axis=1, reverse=True)


class _Pool(NamedTuple):
    """The pool that each row is at work on."""

    end: Array  # its last entry
    start: Array  # its first entry
    level: Array  # its mean
    spread: Array  # the sum of squared differences from the mean


@jax.jit
def prefix_fits(values: Float[Array, "rows entries"], floor: float = -jnp.inf) -> PrefixFits:
    """Return the nearest rising sequences of all beginnings of each row, in time linear in the entries.

    Pool adjacent violators, the pools being known by their last entry: a pool that was left as it is stays on record.
    Means and spreads are updated, never differences of sums, so that float32 keeps its digits.

    Parameters
    ----------
    values
        One sequence per row.
    floor
        Values below it are clipped in the errors.  Clipping the fit gives the nearest rising sequence above the floor.

    References
    ----------
    Stout, Computational Statistics and Data Analysis 53 (2008) 289, doi:10.1016/j.csda.2008.08.005.

    Examples
    --------
    >>> fits = prefix_fits(jnp.array([[3.0, 1.0, 5.0]]))
    >>> fits.last.tolist(), fits.error.tolist()
    ([[3.0, 2.0, 5.0]], [[0.0, 2.0, 2.0]])
    """
    rows, size = values.shape
    dtype = values.dtype
    row = jnp.arange(rows)
    # Nothing is above the pad, so that rows that have finished change no more.
    padded = jnp.concatenate([values, jnp.max(values, axis=1, keepdims=True)], axis=1)
    # Row k + 1 of the record is the pool that ends at entry k; one before the first, and one for rows that are done.
    record = jnp.zeros((rows, size + 2, 3), dtype).at[:, 0, 0].set(-jnp.inf)
    starts = jnp.zeros((rows, size + 2), jnp.int32)
    zero = jnp.zeros(rows, jnp.int32)
    pool = _Pool(zero, zero, padded[:, 0], jnp.zeros(rows, dtype))

    def going(state: tuple[_Pool, Array, Array]) -> Array:
        return jnp.any(state[0].end < size)

    def step(state: tuple[_Pool, Array, Array]) -> tuple[_Pool, Array, Array]:
        pool, record, starts = state
        before = record[row, pool.start]
        level, spread, error = before[:, 0], before[:, 1], before[:, 2]
        first = starts[row, pool.start]
        mine = (pool.end + 1 - pool.start).astype(dtype)
        total = error + pool.spread + mine * jnp.square(jnp.maximum(pool.level, floor) - pool.level)
        record = record.at[row, pool.end + 1].set(jnp.stack([pool.level, pool.spread, total], axis=1))
        starts = starts.at[row, pool.end + 1].set(pool.start)
        merge = level > pool.level
        theirs = (pool.start - first).astype(dtype)
        share = mine / (mine + theirs)
        gap = jnp.where(merge, pool.level - level, 0)
        following = jnp.minimum(pool.end + 1, size)
        pool = _Pool(
            jnp.where(merge, pool.end, following),
            jnp.where(merge, first, following),
            jnp.where(merge, level + gap * share, padded[row, following]),
            jnp.where(merge, pool.spread + spread + jnp.square(gap) * theirs * share, 0),
        )
        return pool, record, starts

    _, record, _ = jax.lax.while_loop(going, step, (pool, record, starts))
    return PrefixFits(record[:, 1:-1, 0], record[:, 1:-1, 2])


@jax.jit
def nearest_rising(values: Float[Array, "rows entries"]) -> Float[Array, "rows entries"]:
    """Return the nearest sequence that never falls, row by row.

    Examples
    --------
    >>> nearest_rising(jnp.array([[1.0, 3.0, 2.0]])).tolist()
    [[1.0, 2.5, 2.5]]
    """
    return prefix_fits(values).fit(values.shape[1])


@jax.jit
def nearest_unimodal(values: Float[Array, "rows entries"], floor: float = -jnp.inf) -> Float[Array, "rows entries"]:
    """Return the nearest sequence that rises up to some entry and falls from there on, row by row.

    A rising beginning and a falling rest, whatever they are, make such a sequence; so the best cut is the best peak.

    Parameters
    ----------
    values
        One sequence per row.
    floor
        Least value that is allowed.  The best peak depends on it, so clipping afterwards would not do.

    References
    ----------
    Stout, Computational Statistics and Data Analysis 53 (2008) 289, doi:10.1016/j.csda.2008.08.005.

    Examples
    --------
    >>> nearest_unimodal(jnp.array([[1.0, 3.0, 0.0, 2.0]])).tolist()
    [[1.0, 3.0, 1.0, 1.0]]
    """
    rows, size = values.shape
    both = prefix_fits(jnp.concatenate([values, values[:, ::-1]]), floor)
    none = jnp.zeros((rows, 1), values.dtype)
    rising = jnp.concatenate([none, both.error[:rows]], axis=1)
    falling = jnp.concatenate([none, both.error[rows:]], axis=1)[:, ::-1]
    cut = jnp.argmin(rising + falling, axis=1)
    fits = both.fit(jnp.concatenate([cut, size - cut]))
    nearest = jnp.where(jnp.arange(size) < cut[:, None], fits[:rows], fits[rows:, ::-1])
    return jnp.maximum(nearest, floor)
