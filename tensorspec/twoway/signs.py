"""Signs of components that have none of their own."""

from __future__ import annotations

import numpy as np

__all__ = ["SIGN_RULE", "signs_of"]

SIGN_RULE = "the sum of the cubes of a spectrum is positive; where it is nearly zero, its largest entry"
BALANCED = 1e-6  # share of the sum of magnitudes below which a sum of cubes has no sign


def signs_of(columns: np.ndarray) -> np.ndarray:
    """Return +1 or -1 for each column: the sign of the sum of its cubes, or of its largest entry where that is nothing.

    Parameters
    ----------
    columns : (size, rank) array
        NaN count as absent.

    Examples
    --------
    >>> signs_of(np.array([[-2.0, 1.0], [1.0, -1.0]]))
    array([-1.,  1.])
    """
    columns = np.nan_to_num(columns)
    largest = np.abs(columns).max(axis=0, initial=0.0)
    cubes = (columns / np.where(largest > 0, largest, 1)) ** 3
    total, size = cubes.sum(axis=0), np.abs(cubes).sum(axis=0)
    # Entries that are equal but for rounding: the first of them decides.
    first = np.argmax(np.abs(columns) >= (1 - 1e-9) * largest, axis=0)
    leading = np.take_along_axis(columns, first[np.newaxis], axis=0)[0]
    decided = np.where(np.abs(total) > BALANCED * size, total, leading)
    return np.where(decided < 0, -1.0, 1.0)
