"""Maps of a phantom: overlap, blur."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument

__all__ = ["blur_maps", "blur_to_overlap", "mean_overlap"]


def mean_overlap(maps: np.ndarray) -> float:
    """Mean over pairs of components of the cosine between their maps: 0 for disjoint maps, 1 for equal ones.

    Parameters
    ----------
    maps : (components, ...) array
        Non-negative.

    Returns
    -------
    float
        The mean; 0 for one component.

    Examples
    --------
    >>> mean_overlap(np.array([[1.0, 0.0], [1.0, 1.0]])).__round__(4)
    0.7071
    """
    rows = np.asarray(maps, dtype=float).reshape(len(maps), -1)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
    return float(cosines.mean()) if len(cosines) else 0.0


def blur_maps(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Blur every map by a Gaussian of ``sigma`` pixels; the sum over components stays what it is where it is even.

    Examples
    --------
    >>> blur_maps(np.ones((1, 4, 4)), 1.5).round(12).min()
    np.float64(1.0)
    """
    if sigma == 0:
        return np.array(maps, dtype=float)
    return np.array([gaussian_filter(np.asarray(one, dtype=float), sigma, mode="reflect") for one in maps])


def blur_to_overlap(maps: np.ndarray, least_sigma: float, overlap: float) -> tuple[np.ndarray, float]:
    """Blur maps until their mean overlap is the one asked for.

    Parameters
    ----------
    maps : (components, y, x) array
        Before any blur.
    least_sigma : float
        Blur that they have in any case (the probe), pixels.
    overlap : float
        Wanted mean cosine between maps.

    Returns
    -------
    maps : (components, y, x) array
        Blurred.
    sigma : float
        By how much, pixels; the probe included.

    Raises
    ------
    InvalidArgument
        If the overlap is out of reach: smaller than with the probe alone, or larger than with a blur of the whole
        image.
    """
    number("overlap", overlap, 0, 1)
    low, high = least_sigma, float(max(maps.shape[1:]))
    least, most = mean_overlap(blur_maps(maps, low)), mean_overlap(blur_maps(maps, high))
    if not least <= overlap <= most:
        raise InvalidArgument(
            f"overlap is {overlap}; with a probe of {least_sigma:g} pixels these maps can overlap by {least:.3f} to "
            f"{most:.3f}."
        )
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean_overlap(blur_maps(maps, middle)) < overlap else (low, middle)
    return blur_maps(maps, high), high
