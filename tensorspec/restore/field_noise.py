"""The noise of a field, as numbers that compiled code takes: its variance and its skewness at any mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["EvenNoise", "FieldNoise", "even_noise", "uneven_noise"]

_SMALL = 1e-12
# More than this neighbours do not correlate where events are spread to them alone.
_MOST = 0.6
# Along two axes the variances of noise alone agree within this factor.
_ALIKE = 1.1
# Variance of a normal variable that is known to lie within two standard deviations.
_WITHIN_TWO = 0.77374


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
    shared : float
        Factor of the variance of the sum of the fields of a stack, above one where they are correlated.
    """

    gain: float = 1.0
    read_variance: Any = 0.0
    floor: Any = 0.0
    inflation: float = 1.0
    shared: float = 1.0

    def variance(self, mean: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the variance of values of this mean."""
        return self.gain * jnp.maximum(mean + self.floor, 0.0) + self.read_variance

    def moments(self, mean: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the second and third central moments, above zero also where a model says nothing at all."""
        least = _SMALL * jnp.maximum(jnp.abs(mean).max(), 1.0)
        events = jnp.maximum(mean + self.floor, least)
        return self.gain * events + self.read_variance, self.gain**2 * events


class EvenNoise(NamedTuple):
    """Noise that is the same everywhere: its variance, and the factor by which sums over neighbours vary more."""

    variance: float
    inflation: float


def even_noise(data: Float[np.ndarray, "..."], valid: Float[np.ndarray, "..."]) -> EvenNoise:
    """Return the noise of a field where it is the same everywhere, from second differences along its axes.

    They leave slopes out, and large ones, those of features, are not counted; of two axes that differ the quieter is
    taken. Where neighbours are correlated, differences are smaller than the noise. If every event is spread to its
    neighbours, which then correlate by ``rho``, and the next but one by about ``rho^2 / 4``, second differences two
    points apart correlate by ``(1 - 4 rho + 1.5 rho^2) / (6 - 8 rho + 0.5 rho^2)``: 1/6 for white noise. It is used
    where it is no chance: above 0.06 in a field of 96 x 96, above 0.3 in a spectrum of 400 channels.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 3, (200, 200))
    >>> found = even_noise(noise, np.ones_like(noise))
    >>> round(found.variance**0.5, 1), found.inflation
    (3.0, 1.0)
    """
    along = [_along(np.moveaxis(data, axis, -1), np.moveaxis(valid, axis, -1)) for axis in range(data.ndim)]
    least = min(found.variance for found in along)
    variance = np.mean([found.variance for found in along if found.variance <= _ALIKE * least])
    return EvenNoise(float(variance), float(np.prod([found.inflation for found in along])))


def _along(data: Float[np.ndarray, "..."], valid: Float[np.ndarray, "..."]) -> EvenNoise:
    """Return the noise from second differences along the last axis."""
    differences = np.diff(data, 2)
    known = valid[..., :-2] * valid[..., 1:-1] * valid[..., 2:]
    sizes = np.abs(differences[known > 0])
    # A normal variable lies within 0.6745 standard deviations half of the time.
    deviation = float(np.median(sizes)) / 0.67448975 if sizes.size else 0.0
    if not deviation > 0:
        return EvenNoise(0.0, 1.0)
    # Of the values within two standard deviations, few of which are features, the variance is far less scattered.
    variance = float((sizes[sizes < 2 * deviation] ** 2).mean()) / _WITHIN_TWO
    quiet = (known > 0) & (np.abs(differences) < 3 * deviation)
    pairs = quiet[..., :-2] & quiet[..., 2:]
    products = (differences[..., :-2] * differences[..., 2:])[pairs]
    apart = float(products.mean()) / variance if products.size else 1 / 6
    # The smaller root of (1 - 4 rho + 1.5 rho^2) = apart (6 - 8 rho + 0.5 rho^2).
    square, middle, rest = 1.5 - 0.5 * apart, 8 * apart - 4, 1 - 6 * apart
    rho = min((-middle - max(middle**2 - 4 * square * rest, 0.0) ** 0.5) / (2 * square), _MOST)
    # Its standard error is 2.7 over the root of the pairs.
    if rho < 6 / max(products.size, 1) ** 0.5:
        return EvenNoise(variance / 6, 1.0)
    return EvenNoise(variance / (6 - 8 * rho + 0.5 * rho**2), 1 + 2 * rho + 0.5 * rho**2)


def uneven_noise(data: Float[np.ndarray, "..."], valid: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Return the median second difference in the darkest quarter of a field and in the brightest.

    They are sorted by the sum of the same three points, which white noise leaves independent of the difference. Of two
    axes it is that along which they are more alike.

    Examples
    --------
    >>> level = np.repeat([20.0, 2000.0], 2000)
    >>> counts = np.random.default_rng(0).poisson(level).astype(float)
    >>> dark, bright = uneven_noise(counts, np.ones(4000))
    >>> bool(7 < bright / dark < 12)
    True
    """
    found = []
    for axis in range(data.ndim):
        values, used = np.moveaxis(data, axis, -1), np.moveaxis(valid, axis, -1)
        known = used[..., :-2] * used[..., 1:-1] * used[..., 2:] > 0
        sizes = np.abs(np.diff(values, 2))[known]
        order = np.argsort((values[..., :-2] + values[..., 1:-1] + values[..., 2:])[known], kind="stable")
        quarter = len(order) // 4
        if quarter:
            found.append(tuple(float(np.median(sizes[each])) for each in (order[:quarter], order[-quarter:])))
    return min(found, key=lambda pair: pair[1] / max(pair[0], _SMALL * pair[1], 1e-300), default=(0.0, 0.0))
