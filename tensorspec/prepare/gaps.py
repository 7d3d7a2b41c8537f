"""Gaps in spectra: masked and missing channels, bridged where a step needs spectra without holes."""

from __future__ import annotations

import numpy as np

__all__ = ["LEAST_SEEN", "ROWS", "bridge", "ends", "seen"]

LEAST_SEEN = 0.5
# Spectra that are worked on at once: their transforms stay in the cache.
ROWS = 256


def seen(spectra: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return which entries were measured: those that are no NaN and that the mask (True = use) keeps.

    Parameters
    ----------
    spectra : (rows, channels) array
        Data.
    mask : array of bool, optional
        Broadcasts to the spectra.

    Returns
    -------
    (rows, channels) array of bool

    Examples
    --------
    >>> seen(np.array([[1.0, np.nan, 2.0]]), np.array([True, True, False]))
    array([[ True, False, False]])
    """
    known = np.isfinite(spectra)
    return known if mask is None else known & mask


def bridge(spectra: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return spectra with a straight line over each gap; beyond the outermost known channels they are zero.

    A spectrum of which less than half is known becomes NaN: what would be made of it is not a measurement.

    Parameters
    ----------
    spectra : (rows, channels) float array
        Data.
    known : (rows, channels) array of bool
        Where they were measured.

    Returns
    -------
    (rows, channels) array
        New where there is a gap.

    Examples
    --------
    >>> bridge(np.array([[1.0, np.nan, 3.0, 4.0]]), np.array([[True, False, True, True]]))
    array([[1., 2., 3., 4.]])
    """
    if known.all():
        return spectra
    result = np.where(known, spectra, 0.0)
    channels = np.arange(spectra.shape[1])
    for row in np.flatnonzero(~known.all(axis=1)):
        here = known[row]
        if here.mean() < LEAST_SEEN:
            result[row] = np.nan
        else:
            result[row] = np.interp(channels, channels[here], spectra[row, here], left=0.0, right=0.0)
    return result


def ends(known: np.ndarray) -> np.ndarray:
    """One behind the last known channel of each spectrum, (rows,).

    Examples
    --------
    >>> ends(np.array([[True, False, True, False], [False, False, False, False]]))
    array([3, 0])
    """
    size = known.shape[1]
    return np.where(known.any(axis=1), size - known[:, ::-1].argmax(axis=1), 0)
