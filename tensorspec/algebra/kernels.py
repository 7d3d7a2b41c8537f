"""Small kernels on an even grid of one or two axes: paraboloids, Gaussians, and how much of a field one takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["DEFAULT_SCALES", "folded", "gaussian", "paraboloid", "pixons_per_point", "scales_that_fit", "spread"]

# Radii in pixels. The first is a single pixel: a paraboloid of radius one is zero at the neighbours.
DEFAULT_SCALES = (1.0, 1.5, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)
# Gaussians are cut off where they have fallen to 3e-4 of their maximum.
_REACH = 4.0


def paraboloid(scale: float, axes: int) -> Float[np.ndarray, "..."]:
    """Return the kernel ``max(0, 1 - r^2 / scale^2)``, with a sum of one and its centre in the middle.

    Parameters
    ----------
    scale : float
        Radius in pixels, at least 1.
    axes : int
        Number of axes.

    Returns
    -------
    ndarray
        An odd number of points along each axis.

    Examples
    --------
    >>> paraboloid(2.0, 1)
    array([0.3, 0.4, 0.3])
    """
    reach = int(np.ceil(scale)) - 1
    offsets = np.arange(-reach, reach + 1.0)
    squared = sum(np.meshgrid(*[offsets**2] * axes, indexing="ij"))
    values = np.maximum(0.0, 1 - np.asarray(squared) / scale**2)
    return values / values.sum()


def gaussian(width: Sequence[float] | float, axes: int) -> Float[np.ndarray, "..."]:
    """Return a Gaussian of that standard deviation in pixels, with a sum of one and its centre in the middle.

    Examples
    --------
    >>> gaussian(0.0, 2).shape, gaussian((1.0, 0.5), 2).shape
    ((1, 1), (9, 5))
    """
    widths = np.broadcast_to(np.asarray(width, dtype=float), (axes,))
    result = np.ones(())
    for own in widths:
        reach = int(np.ceil(_REACH * own))
        offsets = np.arange(-reach, reach + 1.0)
        profile = np.exp(-0.5 * (offsets / own) ** 2) if own > 0 else np.ones(1)
        result = result[..., None] * (profile / profile.sum())
    return result


def folded(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the full convolution of two kernels; their centres, if in the middle, stay there.

    Examples
    --------
    >>> folded(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25]))
    array([0.125, 0.375, 0.375, 0.125, 0.   ])
    """
    shape = [one + other - 1 for one, other in zip(first.shape, second.shape, strict=True)]
    axes = tuple(range(len(shape)))
    product = np.fft.rfftn(first, shape, axes=axes) * np.fft.rfftn(second, shape, axes=axes)
    result = np.fft.irfftn(product, shape, axes=axes)
    # Rounding must not make a kernel of counts negative.
    return np.where(np.abs(result) < 1e-15 * np.abs(result).max(), 0.0, result)


def pixons_per_point(scales: Sequence[float], axes: int) -> Float[np.ndarray, "scales"]:
    """Return for each scale the share of a free number that one point costs: the sum of its squared kernel.

    Examples
    --------
    >>> pixons_per_point((1.0, 2.0), 1).round(2)
    array([1.  , 0.34])
    """
    return np.array([(paraboloid(scale, axes) ** 2).sum() for scale in scales])


def scales_that_fit(scales: Sequence[float], shape: Sequence[int]) -> tuple[float, ...]:
    """Return the scales whose kernels span no more than half of every axis; at least the smallest one.

    Examples
    --------
    >>> scales_that_fit((1.0, 4.0, 16.0), (20, 300))
    (1.0, 4.0)
    """
    fits = tuple(scale for scale in scales if 4 * scale <= min(shape))
    return fits or (scales[0],)


def spread(kernel: Float[np.ndarray, "..."]) -> float:
    """Return the standard deviation of a kernel in pixels, along the axis where it is widest.

    Examples
    --------
    >>> round(spread(gaussian((1.0, 2.0), 2)), 2)
    2.0
    """
    found = []
    for axis in range(kernel.ndim):
        profile = kernel.sum(axis=tuple(other for other in range(kernel.ndim) if other != axis))
        places = np.arange(len(profile)) - len(profile) // 2
        mean = (profile * places).sum() / profile.sum()
        found.append(float(np.sqrt((profile * (places - mean) ** 2).sum() / profile.sum())))
    return max(found)
