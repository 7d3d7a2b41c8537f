"""The spread of detected events over neighbouring channels, which correlates their noise."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST_CORRELATION", "event_shares", "spread_events"]

# Of an event that is spread over three channels, the variance kept.
MOST_CORRELATION = 0.7


def event_shares(correlation: float | None) -> tuple[float, float]:
    """Return the weights ``(a, b)`` of a channel and of each neighbour, ``a^2 + 2 b^2 = 1`` and ``2 a b`` as asked.

    Parameters
    ----------
    correlation : float, optional
        Of the noise in neighbouring channels; beyond 0.7 in size, which three channels cannot have, taken as 0.7.

    Examples
    --------
    >>> [round(share, 3) for share in event_shares(0.4)]
    [0.954, 0.21]
    """
    known = float(np.clip(correlation or 0.0, -MOST_CORRELATION, MOST_CORRELATION))
    angle = 0.5 * np.arcsin(np.sqrt(2) * known)
    return float(np.cos(angle)), float(np.sin(angle) / np.sqrt(2))


def spread_events(padded: np.ndarray, correlation: float | None, axis: int = -1) -> np.ndarray:
    """Return independent noise spread over three channels each, its variance kept.

    Parameters
    ----------
    padded : array
        Independent noise, with one channel more on either side of the axis, so that the first and the last get their
        neighbours' share too.
    correlation : float, optional
        Of the result in neighbouring channels; see `event_shares`.
    axis : int
        Of the channels.

    Examples
    --------
    >>> spread_events(np.array([0.0, 0, 1, 0, 0]), 0.4).round(3)
    array([0.21 , 0.954, 0.21 ])
    """
    centre, side = event_shares(correlation)
    along = np.moveaxis(padded, axis, -1)
    return np.moveaxis(side * (along[..., :-2] + along[..., 2:]) + centre * along[..., 1:-1], -1, axis)
