"""The noise of a field, as numbers that compiled code takes: its variance and its skewness at any mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["FieldNoise", "even_noise"]

_SMALL = 1e-12


class FieldNoise(NamedTuple):
    """Noise of values whose mean is ``m``: its variance is ``gain max(m + floor, 0) + read_variance``.

    Parameters
    ----------
    gain, read_variance : float
        As of a noise model; not both zero. The second may be an array, with one number a field.
    floor : float or array
        What was subtracted from the data, so that all that is restored is above zero.
    inflation : float
        Factor of the variance of sums over many points, above one where neighbours are correlated.
    """

    gain: float = 1.0
    read_variance: Any = 0.0
    floor: Any = 0.0
    inflation: float = 1.0

    def variance(self, mean: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the variance of values of this mean."""
        return self.gain * jnp.maximum(mean + self.floor, 0.0) + self.read_variance

    def moments(self, mean: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the second and third central moments, above zero also where a model says nothing at all."""
        least = _SMALL * jnp.maximum(jnp.abs(mean).max(), 1.0)
        events = jnp.maximum(mean + self.floor, least)
        return self.gain * events + self.read_variance, self.gain**2 * events


def even_noise(data: Float[np.ndarray, "fields ..."], valid: Float[np.ndarray, "fields ..."]) -> float:
    """Return the variance of noise that is the same everywhere, from second differences along every axis.

    They leave steps and slopes out; the median of their size takes no notice of a few features.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 3, (1, 200, 200))
    >>> round(even_noise(noise, np.ones_like(noise)) ** 0.5, 1)
    3.0
    """
    differences, known, norm = data, valid, 1.0
    for axis in range(1, data.ndim):
        count = differences.shape[axis]
        if count < 3:
            continue
        first, middle, last = (np.arange(start, count - 2 + start) for start in range(3))
        differences = differences.take(first, axis) - 2 * differences.take(middle, axis) + differences.take(last, axis)
        known = known.take(first, axis) * known.take(middle, axis) * known.take(last, axis)
        norm *= 6.0
    sizes = np.abs(differences[known > 0])
    # A normal variable lies within 0.6745 standard deviations half of the time.
    return float((np.median(sizes) / 0.67448975) ** 2 / norm) if sizes.size else 0.0
