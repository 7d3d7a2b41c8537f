"""Planted truth for restoration: points, a step and a gradient, blurred and counted."""

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

WIDTH = 1.5
FULL_WIDTH = WIDTH * 2.3548200450309493


def scene(seed=0, size=96, dose=1.0):
    """Truth and counts: 12 points of 500 to 4000 counts and sigma 1 to 2.5, a step of 20 on a gradient of 10 to 20."""
    rng = np.random.default_rng(100 + seed)
    y, x = np.mgrid[:size, :size] * 1.0
    truth = 10 + 10 * x / size
    truth[size // 8 : size // 3, size // 2 :] += 20
    for place in range(12):
        sigma = 1 + 1.5 * place / 11
        centre = rng.uniform(8, size - 8, 2)
        total = rng.uniform(500, 4000)
        square = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
        truth += total / (2 * np.pi * sigma**2) * np.exp(-square / (2 * sigma**2))
    truth *= dose
    counts = np.random.default_rng(seed).poisson(gaussian_filter(truth, WIDTH))
    return truth, xr.DataArray(counts, dims=("y", "x"), attrs={"units": "counts"})


def error(found, truth):
    return float(np.sqrt(((np.asarray(found) - truth) ** 2).mean()))


def neighbours(residual):
    """Correlation of neighbouring residuals, mean of both axes."""
    both = (residual[1:] * residual[:-1]).mean(), (residual[:, 1:] * residual[:, :-1]).mean()
    return float(np.mean(both) / (residual**2).mean())
