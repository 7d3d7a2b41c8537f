"""What a detector makes of expected values: Poisson events, gain, read-out noise, spread over channels."""

from __future__ import annotations

import numpy as np

from tensorspec.arguments import number
from tensorspec.noise import MOST_CORRELATION, NoiseModel, spread_events

__all__ = ["record"]


def record(expected: np.ndarray, noise: NoiseModel, rng: np.random.Generator) -> np.ndarray:
    """Draw data with these expected values and this noise.

    Parameters
    ----------
    expected : (..., channels) array
        Non-negative, data units.
    noise : NoiseModel
        Gain, read variance, and the correlation of neighbouring channels (along the last axis), at most 0.7 in size.
    rng : Generator
        Source of the noise.

    Returns
    -------
    array, same shape
        Unsigned integers where the noise is that of counts; else float32.

    Raises
    ------
    InvalidArgument
        If the gain is zero, or the correlation is more than three channels can have.

    Notes
    -----
    The noise of each channel is spread over three with the weights (b, a, b), ``a^2 + 2 b^2 = 1``: the variance stays
    that of the model, neighbours correlate by ``2 a b``, next neighbours by ``b^2``. The expected values are not
    spread.

    Examples
    --------
    >>> data = record(np.full((2, 3), 100.0), NoiseModel(), np.random.default_rng(0))
    >>> data.dtype, data.shape
    (dtype('uint16'), (2, 3))
    """
    correlation = number("channel_correlation", noise.channel_correlation or 0.0, -MOST_CORRELATION, MOST_CORRELATION)
    gain = number("gain", noise.gain, 0, above=True)
    if gain == 1 and noise.read_variance == 0 and correlation == 0:
        counts = rng.poisson(expected)
        return counts.astype(np.promote_types(np.uint16, np.min_scalar_type(int(counts.max(initial=0)))))
    # One more channel on either side, so that the first and last get their neighbours' share too.
    padded = np.concatenate([expected[..., :1], expected, expected[..., -1:]], axis=-1)
    deviation = gain * rng.poisson(padded / gain) - padded
    if noise.read_variance:
        deviation += rng.normal(0.0, np.sqrt(noise.read_variance), padded.shape)
    return (expected + spread_events(deviation, correlation)).astype(np.float32)
