"""How much of what is left over is more than noise: matched filters, and the limit that pure noise hardly reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra.kernels import folded, gaussian
from tensorspec.algebra.reflection import Convolution

__all__ = ["WIDTHS", "FilterBank", "limit_of", "matched_filters", "normal_score", "sharpening_filter", "strongest"]

# Standard deviations, in pixels, of the Gaussians by which the filters are wider than the response.
WIDTHS = (0.0, 1.5, 3.0, 6.0)
_TINY = 1e-300


def matched_filters(
    response: Float[np.ndarray, "..."] | None, axes: int, shape: Sequence[int], widths: Sequence[float] = WIDTHS
) -> list[Float[np.ndarray, "..."]]:
    """Return the response, and the response folded with Gaussians; widths that outgrow the field are left out.

    Examples
    --------
    >>> [each.shape for each in matched_filters(None, 1, (20,))]
    [(1,), (13,), (25,)]
    """
    own = np.ones((1,) * axes) if response is None else np.asarray(response, dtype=float)
    fitting = [width for width in widths if 6 * width <= min(shape)]
    return [folded(own, gaussian(width, axes)) if width > 0 else own for width in fitting]


def sharpening_filter(
    response: Float[np.ndarray, "..."] | None, axes: int, shape: Sequence[int]
) -> list[Float[np.ndarray, "..."]]:
    """Return the response less one that is wider by 1.5 points: what a peak that is still too broad leaves over.

    Examples
    --------
    >>> abs(float(sharpening_filter(None, 1, (20,))[0].sum())) < 1e-12
    True
    """
    narrow, *wider = matched_filters(response, axes, shape, WIDTHS[:2])
    if not wider:
        return []
    rims = [((size - own) // 2,) * 2 for size, own in zip(wider[0].shape, narrow.shape, strict=True)]
    return [np.pad(narrow, rims) - wider[0]]


class FilterBank:
    """Matched filters over a field: the significance of an excess or deficit of their shapes at every point.

    Parameters
    ----------
    filters : sequence of ndarray
        Expected shapes of a feature in the data, with the centre in the middle.
    shape : sequence of int
        Of the field.
    """

    def __init__(self, filters: Sequence[Float[np.ndarray, "..."]], shape: Sequence[int]) -> None:
        # Correlation with a shape is convolution with the flipped shape. Nothing was measured beyond the ends: a mirror
        # would count the noise there twice.
        self.count = len(filters)
        self.once = Convolution([np.flip(each) for each in filters], shape, mirrored=False)
        self.squared = Convolution([np.flip(each) ** 2 for each in filters], shape, mirrored=False)
        self.cubed = Convolution([np.flip(each) ** 3 for each in filters], shape, mirrored=False)

    def scores(
        self,
        residual: Float[Array, "..."],
        variance: Float[Array, "..."],
        third: Float[Array, "..."],
        valid: Float[Array, "..."],
    ) -> Float[Array, "filters ..."]:
        """Return the score of every filter, in standard deviations of a normal distribution of the same chance.

        Parameters
        ----------
        residual, variance, third : array
            What is left over, and the second and third central moments that noise alone would give it.
        valid : array
            1 where a point was measured, 0 elsewhere.
        """
        own = self.once.spectrum(valid * residual / variance)
        spread = self.squared.spectrum(valid / variance)
        skew = self.cubed.spectrum(valid * third / variance**3)
        found = []
        for which in range(self.count):
            total = self.once.field(own * self.once.transfers[which])
            second = self.squared.field(spread * self.squared.transfers[which])
            seen = second > 1e-9 * second.max()
            second = jnp.where(seen, second, 1.0)
            skewness = self.cubed.field(skew * self.cubed.transfers[which]) / second**1.5
            found.append(jnp.where(seen, normal_score(total / jnp.sqrt(second), skewness), 0.0))
        return jnp.stack(found)

    def amplitudes(
        self, residual: Float[Array, "..."], variance: Float[Array, "..."], valid: Float[Array, "..."]
    ) -> tuple[Float[Array, "filters ..."], Float[Array, "filters ..."]]:
        """Return the best amplitude of every filter at every point, and its standard error; zero where unseen."""
        own, spread = self.once.spectrum(valid * residual / variance), self.squared.spectrum(valid / variance)
        found, errors = [], []
        for which in range(self.count):
            second = self.squared.field(spread * self.squared.transfers[which])
            seen = second > 1e-9 * second.max()
            second = jnp.where(seen, second, 1.0)
            found.append(jnp.where(seen, self.once.field(own * self.once.transfers[which]) / second, 0.0))
            errors.append(jnp.where(seen, 1 / jnp.sqrt(second), 0.0))
        return jnp.stack(found), jnp.stack(errors)

    def scores_of_stack(
        self,
        residual: Float[Array, "fields ..."],
        variance: Float[Array, "fields ..."],
        third: Float[Array, "fields ..."],
        valid: Float[Array, "fields ..."],
        inflation: float = 1.0,
        shared: float = 1.0,
    ) -> Float[Array, "filters more ..."]:
        """Return the scores of several fields and, behind them, of their sum, where what they share adds up.

        `inflation` and `shared` are those of a `FieldNoise`.
        """
        if residual.shape[0] > 1:
            sums = [(valid * each).sum(0, keepdims=True) for each in (residual, variance, third)]
            seen = valid.any(0, keepdims=True)
            sums[1] = jnp.where(seen, sums[1] * shared, 1.0)
            sums[2] = sums[2] * shared**1.5
            pairs = [(residual, sums[0]), (variance, sums[1]), (third, sums[2]), (valid, seen * 1.0)]
            residual, variance, third, valid = (jnp.concatenate(pair) for pair in pairs)
        root = inflation**0.5
        return self.scores(residual, variance * inflation, third * inflation * root, valid)


def strongest(score: Float[np.ndarray, "filters ..."]) -> Float[np.ndarray, "..."]:
    """Return, at every point, the score of the filter that stands out most, with its sign.

    Examples
    --------
    >>> strongest(np.array([[1.0, 2.0], [-3.0, 0.5]]))
    array([-3.,  2.])
    """
    return np.take_along_axis(score, np.abs(score).argmax(axis=0)[None], axis=0)[0]


def normal_score(score: Float[Array, "..."], skewness: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the score that a normal variable would have at the same chance as a skew one of mean 0, variance 1.

    Sums of few counts are skew: an excess of five standard deviations is then no rarity. The variable is taken for a
    count of mean ``1 / skewness^2`` in its own units, and the score is the signed root of its deviance, which is right
    within 0.2 for means above 0.5 and too high by 0.4 at most for means down to 0.001.

    Examples
    --------
    >>> round(float(normal_score(jnp.asarray(5.0), jnp.asarray(0.0))), 3)
    5.0
    >>> bool(normal_score(jnp.asarray(5.0), jnp.asarray(1.0)) < 4)
    True
    """
    own = jnp.maximum(skewness, 1e-4)
    # With the count n = mean (1 + x): its deviance is 2 mean ((1 + x) ln(1 + x) - x). There are no counts below zero.
    excess = jnp.maximum(own * score, -1 + 1e-12)
    deviance = jnp.maximum((1 + excess) * jnp.log1p(excess) - excess, 0.0)
    return jnp.where(skewness <= 1e-4, score, jnp.sign(score) * jnp.sqrt(2 * deviance) / own)


def limit_of(
    filters: Sequence[Float[np.ndarray, "..."]], shape: Sequence[int], false_alarm: float, fields: int = 1
) -> float:
    """Return the score that noise exceeds somewhere in the field, with any filter, at a chance of `false_alarm`.

    Parameters
    ----------
    filters : sequence of ndarray
        As for `FilterBank`.
    shape : sequence of int
        Of the field, of one axis or two.
    false_alarm : float
        Family-wise error: of the whole field, with all filters and both signs.
    fields : int
        Number of fields of this size that are looked through.

    Returns
    -------
    float
        In standard deviations.

    Notes
    -----
    The chance that a Gaussian field with the autocorrelation of a filter exceeds a high level is its expected Euler
    characteristic (Worsley et al., Hum. Brain Mapp. 4 (1996) 58-73); where the filter is narrow, it is at most that of
    independent points. The lower of the two, added up over filters, is an upper bound.

    Examples
    --------
    >>> single = [np.ones((1, 1))]
    >>> round(limit_of(single, (96, 96), 0.05), 2), round(limit_of(single, (512, 512), 0.05), 2)
    (4.55, 5.21)
    """
    lengths = [_resolution_lengths(each, shape) for each in filters]

    def chance(level: float) -> float:
        return 2 * fields * sum(_exceedance(level, shape, own) for own in lengths)

    low, high = 1.0, 40.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) > false_alarm else (low, middle)
    return high


def _resolution_lengths(kernel: Float[np.ndarray, "..."], shape: Sequence[int]) -> list[float]:
    """Return the size of the field along each axis over the length on which filtered noise changes.

    The length is one over the standard deviation of the difference of neighbours, at unit variance of the field.
    """
    total = (kernel**2).sum()
    found = []
    for axis, size in enumerate(shape):
        count = kernel.shape[axis]
        pairs = (np.take(kernel, range(1, count), axis) * np.take(kernel, range(count - 1), axis)).sum()
        found.append((size - 1) * math.sqrt(max(2 - 2 * float(pairs / total), 0.0)))
    return found


def _exceedance(level: float, shape: Sequence[int], lengths: Sequence[float]) -> float:
    """Return an upper bound of the expected number of places of a field above a level."""
    tail = NormalDist().cdf(-level)
    density = math.exp(-(level**2) / 2)
    euler = tail + sum(lengths) * density / (2 * math.pi)
    if len(lengths) == 2:
        euler += math.prod(lengths) * level * density / (2 * math.pi) ** 1.5
    return min(math.prod(shape) * tail, euler)
