"""The pixon method beside its peers: the same scenes, several seeds, errors against the truth.

Simulated, so that the truth is known: 96 x 96 points, twelve Gaussian points of 500 to 4000 counts and sigma 1 to 2.5,
a step of 20 on a gradient of 10 to 20, a psf of sigma 1.5, counts.  Peers get what no user has: the iteration, weight
or threshold that is best for this very truth ("oracle").  Those that cannot deconvolve are applied to the blurred
counts, and once more followed by Richardson-Lucy, at its best iteration.  The pixon method gets its defaults.

Prints the root mean square error (mean of the seeds, and the smallest and largest), the error in flux, and the
standard deviation that a flat field of 20 counts is left with.  Wavelets need PyWavelets, total variation and non-local
means scikit-image; without them these rows are left out.

Run it from the root of the repository: ``python -m benchmarks.restoration [SEEDS]``.
"""

import importlib.util
import sys
import warnings

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import tensorspec as ts
from tensorspec.algebra.kernels import gaussian
from tensorspec.restore.richardson_lucy import richardson_lucy

SIZE, WIDTH = 96, 1.5
FULL_WIDTH = WIDTH * 2.3548200450309493
PSF = gaussian(WIDTH, 2)
STEPS = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 56, 80)


def scene(seed, dose=1.0):
    """Return truth and counts."""
    rng = np.random.default_rng(1000 + seed)
    y, x = np.mgrid[:SIZE, :SIZE] * 1.0
    truth = 10 + 10 * x / SIZE
    truth[SIZE // 8 : SIZE // 3, SIZE // 2 :] += 20
    for place in range(12):
        sigma, (row, column) = 1 + 1.5 * place / 11, rng.uniform(8, SIZE - 8, 2)
        total = rng.uniform(500, 4000)
        truth += total / (2 * np.pi * sigma**2) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))
    truth *= dose
    return truth, np.random.default_rng(seed).poisson(gaussian_filter(truth, WIDTH)).astype(float)


def error(found, truth):
    return float(np.sqrt(((found - truth) ** 2).mean()))


def sharpened(counts):
    """Yield Richardson-Lucy at a growing number of steps."""
    field, done = None, 0
    for steps in STEPS:
        field = richardson_lucy(np.maximum(counts, 0), PSF, steps - done, start=field)
        done = steps
        yield field


def even(counts):
    """Counts on a scale where their noise is even (Anscombe), and the way back."""
    return 2 * np.sqrt(counts + 3 / 8), lambda values: np.maximum((values / 2) ** 2 - 1 / 8, 0)


def smoothed(method, counts):
    """Yield the results of a denoiser over its setting."""
    values, back = even(counts)
    if method == "total variation":
        from skimage.restoration import denoise_tv_chambolle

        for weight in (0.2, 0.5, 1, 2, 3, 4, 6):
            yield back(denoise_tv_chambolle(values, weight=weight))
    elif method == "wavelets":
        from skimage.restoration import denoise_wavelet

        for sigma in (0.5, 1, 1.5, 2, 3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                low, span = values.min(), np.ptp(values)
                yield back(low + span * denoise_wavelet((values - low) / span, sigma=sigma / span, wavelet="sym4"))
    elif method == "non-local means":
        from skimage.restoration import denoise_nl_means

        for strength in (0.4, 0.6, 0.8, 1.0, 1.3):
            yield back(denoise_nl_means(values, patch_size=5, patch_distance=9, h=strength, sigma=1.0))
    else:
        for width in np.arange(0.4, 2.6, 0.2):
            yield gaussian_filter(counts, width)


def best(candidates, truth):
    return min(candidates, key=lambda found: error(found, truth))


def peers():
    """Names and methods: each takes counts and truth, and returns its best result."""
    have = importlib.util.find_spec
    denoisers = ["Gaussian"]
    denoisers += ["total variation", "non-local means"] if have("skimage") else []
    denoisers += ["wavelets"] if have("skimage") and have("pywt") else []
    yield "as recorded", lambda counts, truth: counts
    yield "Richardson-Lucy, best iteration", lambda counts, truth: best(sharpened(counts), truth)
    yield "Richardson-Lucy, 300 iterations", lambda counts, truth: richardson_lucy(counts, PSF, 300)
    for name in denoisers:
        yield f"{name}, best setting", lambda counts, truth, name=name: best(smoothed(name, counts), truth)
        yield (
            f"{name}, best, then Richardson-Lucy, best",
            lambda counts, truth, name=name: best(
                (found for smooth in smoothed(name, counts) for found in sharpened(smooth)), truth
            ),
        )
    yield "pixon, quick (no deconvolution)", lambda counts, truth: restored(counts, method="quick")
    yield "pixon", lambda counts, truth: restored(counts, psf=FULL_WIDTH)


def restored(counts, **settings):
    return ts.pixon(xr.DataArray(counts, dims=("y", "x")), **settings).restored.values


def main(seeds=5):
    """Print the table at the dose of the scene and at five times that."""
    scenes = {dose: [scene(seed, dose) for seed in range(seeds)] for dose in (1.0, 5.0)}
    flat = np.random.default_rng(0).poisson(20.0, (SIZE, SIZE)).astype(float)
    print(f"{'method':46} {'error, dose 1':>20} {'error, dose 5':>20} {'flux, %':>8} {'flat':>6}")
    for name, method in peers():
        cells, flux = [], []
        for pairs in scenes.values():
            found = [method(counts, truth) for truth, counts in pairs]
            errors = [error(each, truth) for each, (truth, _) in zip(found, pairs, strict=True)]
            flux += [abs(each.sum() / counts.sum() - 1) * 100 for each, (_, counts) in zip(found, pairs, strict=True)]
            cells.append(f"{np.mean(errors):6.2f} ({min(errors):.2f}-{max(errors):.2f})")
        # What is best for a flat field is no filter's setting for a scene: only what needs no truth has this column.
        own = f"{method(flat, flat).std():6.2f}" if "best" not in name else "     -"
        print(f"{name:46} {cells[0]:>20} {cells[1]:>20} {max(flux):8.2f} {own:>6}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
