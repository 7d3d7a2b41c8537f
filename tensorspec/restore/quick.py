"""The quick pixon method, which takes noise away but no blur: at each point the largest kernel that fits the counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tensorspec.restore.field_noise import FieldNoise
from tensorspec.restore.full import Restoration
from tensorspec.restore.kernels import paraboloid, pixons_per_point
from tensorspec.restore.reflection import Convolution
from tensorspec.restore.significance import FilterBank, limit_of, matched_filters

__all__ = ["denoise"]

# A kernel is refused where the misfit within it is above its mean by so many standard deviations.
MOST = 2.5


def denoise(
    data: Float[np.ndarray, "fields ..."],
    valid: Float[np.ndarray, "fields ..."],
    scales: Sequence[float],
    noise: FieldNoise,
    false_alarm: float,
) -> Restoration:
    """Return fields smoothed, at each point, by the largest kernel whose mean the data within it agree with.

    For a kernel with ``n`` points and the mean ``S`` the misfit ``sum (D - S)^2 / V(S)`` may be
    ``n + 2.5 sqrt(n (2 + k))`` at the most; ``k`` is the excess kurtosis of the noise, one over the mean for counts.
    The variance is that of the mean: with that of each datum itself, bright noise would weigh less than dark noise.

    Parameters
    ----------
    data, valid, scales, noise
        As for `tensorspec.restore.full.restore`.
    false_alarm : float
        Of the limit that is returned; the map does not depend on it.

    Returns
    -------
    Restoration
        Its model is its image, as there is no blur.
    """
    shape = data.shape[1:]
    axes = len(shape)
    kernels = [paraboloid(scale, axes) for scale in scales]
    filters = matched_filters(None, axes, shape)
    several = data.shape[0] > 1
    with jax.enable_x64(True):
        measured, used = jnp.asarray(data), jnp.asarray(valid)
        mean_of = Convolution(kernels, shape)
        sum_of = Convolution([(kernel > 0) * 1.0 for kernel in kernels], shape, mirrored=False)
        weighted, weights = mean_of.spectrum(used * measured), mean_of.spectrum(used)
        spectra = [sum_of.spectrum(each) for each in (used, used * measured, used * measured**2)]
        overall = (used * measured).sum() / jnp.maximum(used.sum(), 1.0)
        image = jnp.full_like(measured, overall)
        scale = jnp.full(shape, len(scales) - 1)
        for which in range(len(scales)):
            under = mean_of.field(weights * mean_of.transfers[which])
            smooth = mean_of.field(weighted * mean_of.transfers[which]) / jnp.where(under > 1e-9, under, 1.0)
            count, first, second = (jnp.round(sum_of.field(spectra[0] * sum_of.transfers[which])), *(
                sum_of.field(each * sum_of.transfers[which]) for each in spectra[1:]
            ))
            variance, _ = noise.moments(smooth)
            kurtosis = noise.gain**2 * (variance - noise.read_variance) / variance**2
            misfit = ((second - 2 * smooth * first + count * smooth**2) / variance).sum(0)
            number, spread = count.sum(0), (count * (2 + kurtosis)).sum(0)
            fits = (misfit <= number + MOST * jnp.sqrt(spread)) & (under > 1e-9).all(0)
            # Later, larger kernels replace smaller ones; the smallest needs no leave.
            fits = fits | ((which == 0) & (under > 1e-9).all(0))
            image = jnp.where(fits, smooth, image)
            scale = jnp.where(fits, which, scale)
        variance, third = noise.moments(image)
        score = FilterBank(filters, shape).scores_of_stack(measured - image, variance, third, used, noise.inflation)
        chi_square = float((used * (measured - image) ** 2 / variance).sum()) / max(float(used.sum()), 1.0)
    score, image, place = np.asarray(score), np.asarray(image), np.asarray(scale)
    strongest = np.take_along_axis(score, np.abs(score).argmax(axis=0)[None], axis=0)[0][: data.shape[0]]
    freedom = float(pixons_per_point(scales, axes)[place].sum()) * data.shape[0]
    history = np.array([(chi_square, freedom, float(np.abs(score).max()), math.nan)])
    limit = limit_of(filters, shape, false_alarm, data.shape[0] + several)
    return Restoration(image, image, place, strongest, limit, freedom, history, True)
