"""The end of a spectrum continued by a power law, its exponent taken from two neighbouring windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["PowerTail", "upper_tail"]

RATIO = 2**0.5
# Losses beyond the last plasmon fall at least this steeply; a flatter end is noise or an offset of the detector, of
# which nothing can be said further on.
LEAST_EXPONENT, MOST_EXPONENT = 2.0, 5.0
LEAST_CHANNELS = 8


@dataclass(frozen=True)
class PowerTail:
    """The power law ``height * (loss / last) ** -exponent`` for each spectrum, beyond its last channel.

    Attributes
    ----------
    height : (rows,) array
        Value at the end of the last channel, data units; zero where nothing can be said.
    exponent : (rows,) array
        How steeply it falls.
    last : (rows,) array
        Loss at the end of the last channel, in channels from the zero-loss peak.
    slopes : ((rows,) array, (rows,) array)
        Change of the integral with the sum over the first and over the second window, from ``last / 2`` to
        ``last / 2**0.5`` and on to ``last``.
    """

    height: np.ndarray
    exponent: np.ndarray
    last: np.ndarray
    slopes: tuple[np.ndarray, np.ndarray]

    @property
    def integral(self) -> np.ndarray:
        """Sum over all channels beyond the last one, (rows,), data units."""
        return self.height * self.last / (self.exponent - 1)

    def values(self, loss: np.ndarray) -> np.ndarray:
        """Values in channels centred at these losses, (rows, channels), in channels from the zero-loss peak."""
        relative = np.maximum(loss / self.last[:, None], 1e-12)
        return self.height[:, None] * relative ** -self.exponent[:, None]


def upper_tail(spectra: np.ndarray, centre: np.ndarray, end: np.ndarray) -> PowerTail:
    """Fit the upper half of each spectrum by a power law of the energy loss.

    Parameters
    ----------
    spectra : (rows, channels) array
        Without gaps; zero from `end` on.
    centre : (rows,) array
        Position of the zero-loss peak, channels.
    end : (rows,) array of int
        One behind the last measured channel.

    Returns
    -------
    PowerTail

    Notes
    -----
    The sums over two windows whose bounds have the same ratio q, from ``last / q^2`` to ``last / q`` and on to
    ``last``, q the root of two, stand as ``q^(exponent - 1)``: the two-area method (R. F. Egerton, EELS in the
    Electron Microscope, 2011, chapter 4.4, doi:10.1007/978-1-4419-9583-4).

    Examples
    --------
    >>> spectrum = 1e6 * (np.arange(400) + 0.5) ** -3.0
    >>> tail = upper_tail(spectrum[None], np.array([-0.5]), np.array([400]))
    >>> round(float(tail.exponent[0]), 2)
    3.0
    """
    # The edge below channel k lies at loss k - 0.5 - centre.
    last = end - 0.5 - centre
    total = np.concatenate([np.zeros((len(spectra), 1)), np.cumsum(spectra, axis=1)], axis=1)

    def below(loss: np.ndarray) -> np.ndarray:
        """Sum of what lies below this loss; a channel is cut in proportion."""
        position = np.clip(loss + centre + 0.5, 0, end)
        first = np.minimum(position.astype(int), spectra.shape[1] - 1)[:, None]
        lower, upper = np.take_along_axis(total, first, 1)[:, 0], np.take_along_axis(total, first + 1, 1)[:, 0]
        return lower + (position - first[:, 0]) * (upper - lower)

    middle = below(last / RATIO)
    first, second = middle - below(last / RATIO**2), below(last) - middle
    sure = (first > 0) & (second > 0) & (last > LEAST_CHANNELS)
    quotient = np.divide(first, second, out=np.ones_like(first), where=sure)
    free = 1 + np.log(quotient) / np.log(RATIO)
    sure &= free >= LEAST_EXPONENT
    exponent = np.clip(free, LEAST_EXPONENT, MOST_EXPONENT)
    # The sum over the second window is height * last * (q^(exponent - 1) - 1) / (exponent - 1).
    scale = (exponent - 1) / (RATIO ** (exponent - 1) - 1)
    height = np.where(sure, second * scale / np.maximum(last, 1), 0.0)
    # While the exponent is free the integral is second^2 / (first - second); else it is in proportion to the second.
    share = 1 / (RATIO ** (exponent - 1) - 1)
    free_here = free == exponent
    slopes = np.where(free_here, -(share**2), 0.0) * sure, np.where(free_here, 2 * share + share**2, share) * sure
    return PowerTail(height, exponent, np.maximum(last, 1.0), slopes)
