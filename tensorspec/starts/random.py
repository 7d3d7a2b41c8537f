"""A random start."""

from __future__ import annotations

from functools import reduce
from typing import ClassVar

import jax
import numpy as np

from tensorspec.algebra.entries import Entries
from tensorspec.starts.base import AbstractStart, StartContext

__all__ = ["Random"]


class Random(AbstractStart):
    """Independent entries, uniform where a mode is non-negative, else normal, scaled to the norm of the data.

    Examples
    --------
    >>> Random()
    Random()
    """

    random: ClassVar[bool] = True

    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return the factors drawn from `seed`."""
        keys = jax.random.split(jax.random.key(seed), len(context.sizes))
        drawn = {}
        for key, (mode, size) in zip(keys, context.sizes.items(), strict=True):
            draw = jax.random.uniform if context.nonnegative[mode] else jax.random.normal
            drawn[mode] = np.array(draw(key, (size, context.columns[mode]), dtype=context.dtype))
        return scaled_to_data(drawn, context)


def scaled_to_data(factors: dict[str, np.ndarray], context: StartContext) -> dict[str, np.ndarray]:
    """Return the factors with the carrier scaled so that the model has the norm of the data that it meets first."""
    for index, ((modes, values), weight) in enumerate(zip(context.tensors, context.weights, strict=True)):
        if context.carrier in modes:
            grams = [factors[m].astype(float).T @ factors[m].astype(float) for m in modes]
            norm = np.sqrt(max(float(np.sum(reduce(np.multiply, grams))), np.finfo(float).tiny))
            known = None if context.norms is None else context.norms[index]
            stored = values.stored if isinstance(values, Entries) else values
            target = weight * (np.sqrt(float(np.sum(np.square(stored, dtype=float)))) if known is None else known)
            return {**factors, context.carrier: (factors[context.carrier] * (target / norm)).astype(context.dtype)}
    return factors
