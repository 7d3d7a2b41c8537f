"""Spectra that change from sample to sample: NMF, one fitted offset for each sample, and PARAFAC2.

Three overlapping peaks, 36 pixels, ten samples, 80 channels, 5 % of noise.  Prints the mean and the largest angle
between true and found spectra over components, samples and five draws, in degrees; of PARAFAC2 also how far the
cross-products are from their mean.

Run it from the root of the repository: ``python -m benchmarks.drift``.
"""

import itertools
from functools import partial

import numpy as np
import xarray as xr

import tensorspec as ts

PIXELS, SAMPLES, CHANNELS, RANK, DRAWS, NOISE = 36, 10, 80, 3, 5, 0.05
NN = ts.NonNegative()
CASES = {
    "nothing moves": (0.0, 0.0, 0.0),
    "all drift alike, 10 channels": (10.0, 0.0, 0.0),
    "all drift alike, one also broadens by 30 %": (10.0, 0.0, 0.3),
    "all drift alike, one also moves 3 channels against them": (10.0, 3.0, 0.0),
    "only one moves, 10 channels": (0.0, 10.0, 0.0),
}


def draw(seed, drift, apart, broader):
    """Return data and true spectra, (samples, channels, components); what moves does so evenly over the samples."""
    rng = np.random.default_rng(seed)
    maps = rng.random((PIXELS, RANK)) * (rng.random((PIXELS, RANK)) > 0.3)
    strengths = rng.uniform(0.5, 1.5, (SAMPLES, RANK))
    course = np.linspace(0, 1, SAMPLES)[:, None, None]
    channel, last = np.arange(CHANNELS)[:, None], np.array([0.0, 0.0, 1.0])
    centre = np.array([22.0, 32.0, 44.0]) + course * (drift + apart * last)
    width = np.array([4.0, 5.0, 6.0]) * (1 + broader * course * last)
    spectra = np.exp(-0.5 * ((channel - centre) / width) ** 2)
    clean = np.einsum("ir,kr,kjr->ikj", maps, strengths, spectra)
    error = rng.standard_normal(clean.shape)
    data = clean + NOISE * np.linalg.norm(clean) / np.linalg.norm(error) * error
    return xr.DataArray(
        data, dims=("pixel", "time", "energy_loss"), coords={"energy_loss": np.arange(CHANNELS)}
    ), spectra


def angles(found, truth):
    """Return the angles in degrees, (samples, components), the components matched."""
    unit = [np.nan_to_num(item) / np.linalg.norm(np.nan_to_num(item), axis=1, keepdims=True) for item in (truth, found)]
    cosines = np.abs(np.einsum("kjr,kjs->krs", *unit))
    best = max(itertools.permutations(range(RANK)), key=lambda p: cosines[:, np.arange(RANK), p].sum())
    return np.degrees(np.arccos(np.clip(cosines[:, np.arange(RANK), best], 0, 1)))


def by_nmf(data):
    fit = ts.fit(data, ts.NMF(RANK), progress=False)
    return np.repeat(fit.factors["energy_loss"].values.T[None], SAMPLES, axis=0), np.nan


def by_shift(data):
    """One spectrum for all samples, each sample behind an offset that is fitted; the first one is not moved."""
    samples = {f"t{k}": data.isel(time=[k]).rename(time=f"time_{k}") for k in range(SAMPLES)}
    operators = {(name, "energy_loss"): ts.Shift("fit") for name in list(samples)[1:]}
    model = ts.NMF(RANK, operators=operators)
    fit = ts.fit(samples, model, restarts=3, weights=1.0, progress=False)
    return np.stack([fit.seen(name, "energy_loss").values.T for name in samples]), np.nan


def by_parafac2(data, strength=None):
    model = ts.PARAFAC2(RANK, {"pixel": NN, "time": NN, "energy_loss": NN}, strength=strength)
    fit = ts.fit(data, model, progress=False)
    return np.moveaxis(fit.factors["energy_loss"].values, 0, -1), fit.provenance["violations"]["energy_loss"]


def main():
    """Print one row for each case."""
    methods = {"NMF": by_nmf, "Shift": by_shift, "PARAFAC2": by_parafac2}
    methods["PARAFAC2, strength=0.1"] = partial(by_parafac2, strength=0.1)
    print("| mean (largest) angle, degrees | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for name, case in CASES.items():
        cells = []
        for method in methods.values():
            found, spread = [], []
            for data, truth in (draw(seed, *case) for seed in range(DRAWS)):
                profiles, violation = method(data)
                found.append(angles(profiles, truth))
                spread.append(violation)
            cells.append(f"{np.mean(found):.1f} ({np.max(found):.1f})")
            if np.isfinite(spread).all():
                cells[-1] += f", {np.mean(spread):.3f}"
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
