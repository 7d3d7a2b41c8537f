"""Power series: inverse and logarithm, under convolution, of spectra that begin with one sharp peak."""

from __future__ import annotations

import numpy as np

__all__ = ["inverse", "logarithm", "product", "transform_length"]


def transform_length(least: int) -> int:
    """Return a length of at least so many channels for which a Fourier transform is fast.

    Examples
    --------
    >>> transform_length(2039)
    2048
    """
    from scipy.fft import next_fast_len

    return int(next_fast_len(least, real=True))  # pyright: ignore[reportArgumentType]


def product(one: np.ndarray, other: np.ndarray, length: int) -> np.ndarray:
    """First channels of a convolution, row by row.

    Examples
    --------
    >>> product(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]]), 3).round(12)
    array([[1., 3., 2.]])
    """
    padded = transform_length(one.shape[1] + other.shape[1] - 1)
    return np.fft.irfft(np.fft.rfft(one, padded, axis=1) * np.fft.rfft(other, padded, axis=1), padded, axis=1)[
        :, :length
    ]


def inverse(series: np.ndarray) -> np.ndarray:
    """Return the series whose convolution with this one, over its first channel, is one.

    Parameters
    ----------
    series : (rows, channels) array
        Coefficients; those of channel zero are positive.

    Returns
    -------
    (rows, channels) array
        Up to the same length, by Newton's iteration, which doubles the number of right channels.

    Examples
    --------
    >>> inverse(np.array([[2.0, 1.0, 0.0, 0.0]])).round(12)[0]
    array([ 1.   , -0.5  ,  0.25 , -0.125])
    """
    size = series.shape[1]
    unit = series / series[:, :1]
    result, right = np.ones((len(series), 1)), 1
    while right < size:
        right = min(2 * right, size)
        correction = -product(unit[:, :right], result, right)
        correction[:, 0] += 2
        result = product(result, correction, right)
    return result


def logarithm(series: np.ndarray, inverted: np.ndarray | None = None) -> np.ndarray:
    """Return s with ``series = series[0] exp(s)``, products being convolutions, up to the same length.

    Parameters
    ----------
    series : (rows, channels) array
        Coefficients; those of channel zero are positive.
    inverted : (rows, channels) array, optional
        Its `inverse`, where it is at hand.

    Returns
    -------
    (rows, channels) array
        Its first channel is zero.

    Notes
    -----
    A coefficient depends on those below it alone: what lies beyond the end of the series does not matter, unlike in
    a Fourier logarithm, and no phase has to be followed. It is ``s' = series' / series``.

    Examples
    --------
    >>> exponential = np.array([1, 0.5, 0.25 + 0.5**2 / 2, 0.5 * 0.25 + 0.5**3 / 6])
    >>> logarithm(3 * exponential[None]).round(12)[0]
    array([0.  , 0.5 , 0.25, 0.  ])
    """
    inverted = inverse(series) if inverted is None else inverted
    channel = np.arange(series.shape[1])
    derivative = product(series / series[:, :1] * channel, inverted, series.shape[1])
    return np.divide(derivative, channel, out=np.zeros_like(derivative), where=channel > 0)
