"""Edge intensities with the background in the fit, and with a power law fitted before the edge and subtracted.

    python -m benchmarks.background [--seeds 20]

A planted spectrum image with an edge at 532 eV on the backgrounds of two phases, with exponents of 2.75 and 3.3,
Poisson counts at three doses.  The fit has two components that are `Span` of powers of the energy and one for the edge
that is `Fixed` at zero below its onset; the planted exponents are none of the powers (2, 3, 4, 5), and are given in one
of the cases.  The classical way fits one power of the energy in the 60 eV before the edge, pixel by pixel, to the
logarithm of the counts or to the counts themselves (Poisson likelihood), extrapolates and subtracts.  All integrate
60 eV behind the onset, over the pixels that hold the edge.  Bias: the mean over seeds of what was found less what was
planted, and its standard error; spread: the standard deviation over seeds; pixel: the root mean square error of a
single pixel.  All are shares of the planted intensity.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

__all__ = ["DOSES", "ONSET", "WAYS", "by_fit", "by_window", "planted", "table"]

ONSET, EXPONENTS = 532.0, (2.75, 3.3)
DOSES = (1e3, 1e4, 1e5)  # counts a pixel
BEFORE, BEHIND = 60.0, 60.0
_SIDE, _CHANNELS = 16, 160


def planted(dose: float, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Return counts ``(y, x, energy_loss)`` and the expected map of the edge, within `BEHIND` of its onset."""
    energy = 430.0 + 1.5 * np.arange(_CHANNELS)
    y, x = np.mgrid[:_SIDE, :_SIDE] / (_SIDE - 1)
    amount = np.clip(1.5 - 2 * np.hypot(x - 0.4, y - 0.5), 0, 1)
    shares = np.stack([1.0 - 0.7 * y, 0.3 * x + 0.7 * y])
    background = np.einsum("kyx,ke->yxe", shares, (energy / energy[0]) ** -np.array(EXPONENTS)[:, None])
    above = energy >= ONSET
    shape = above * 0.12 * (1 - np.exp(-(energy - ONSET) / 2)) * (energy / ONSET) ** -3.0
    shape += above * 0.2 * np.exp(-(((energy - ONSET - 7) / 3.0) ** 2))
    edge = amount[..., None] * shape
    scale = dose / (background + edge).sum(axis=-1).mean()
    coords = {"energy_loss": ("energy_loss", energy, {"units": "eV"})}
    counts = np.random.default_rng([seed, int(dose)]).poisson(scale * (background + edge)).astype(np.uint32)
    data = xr.DataArray(counts, dims=("y", "x", "energy_loss"), coords=coords, attrs={"units": "counts"})
    return data, xr.DataArray(scale * edge[..., above & (energy < ONSET + BEHIND)].sum(axis=-1), dims=("y", "x"))


def by_fit(data: xr.DataArray, nonnegative: bool = True, powers: Sequence[float] = (2, 3, 4, 5)) -> xr.DataArray:
    """Return the map of the edge with the background in the fit."""
    import tensorspec as ts

    # Doubles: in single precision, which counts are fitted in, nearly parallel powers stop the fit before its minimum.
    data = data.astype(float)

    energy = data.energy_loss
    zeros = xr.where(energy < ONSET, 0.0, np.nan).expand_dims(component=[3])
    span = ts.Span(ts.background_powers(data, powers), nonnegative=nonnegative, components=[1, 2])
    model = ts.NMF(3, {"energy_loss": [span, ts.Fixed(zeros)]})
    fit = ts.fit(data, model, loss=ts.LeastSquares(scaling="poisson"), max_sweeps=3000, tol=1e-8, progress=False)
    spectrum = fit.spectra().sel(component=3)
    share = spectrum.where((energy >= ONSET) & (energy < ONSET + BEHIND), 0).sum() / spectrum.sum()
    return fit.maps().sel(component=3) * share


def by_window(data: xr.DataArray, steps: int = 0) -> xr.DataArray:
    """Return the map of the edge after a power law, fitted in the window before it, is subtracted.

    Without steps it is fitted to logarithms; with steps of Fisher scoring from there, to the counts.
    """
    energy = data.energy_loss.values
    before = (energy >= ONSET - BEFORE) & (energy < ONSET)
    behind = (energy >= ONSET) & (energy < ONSET + BEHIND)
    counts = data.values[..., before].reshape(-1, before.sum()).astype(float)
    offset = np.log(energy / ONSET)
    design = np.stack([offset[before], np.ones(before.sum())], axis=1)
    # The logarithm of an empty channel is not defined: half a count stands for it, as is usual.
    found = np.linalg.lstsq(design, np.log(np.maximum(counts, 0.5)).T, rcond=None)[0].T
    for _ in range(steps):
        expected = np.exp(found @ design.T)
        curvature = np.einsum("ne,ea,eb->nab", expected, design, design)
        found += np.linalg.solve(curvature, ((counts - expected) @ design)[..., None])[..., 0]
    below = np.exp(found[:, :1] * offset[behind] + found[:, 1:]).reshape(*data.shape[:2], -1)
    return xr.DataArray((data.values[..., behind] - below).sum(axis=-1), dims=("y", "x"))


WAYS = {
    "in the fit, coefficients of zero or more": by_fit,
    "in the fit, of both signs": partial(by_fit, nonnegative=False),
    "in the fit, the planted powers": partial(by_fit, powers=EXPONENTS),
    "window before, logarithms": by_window,
    "window before, counts": partial(by_window, steps=20),
}


def table(seeds: Sequence[int], doses: Sequence[float] = DOSES) -> list[dict[str, float | str]]:
    """Return a row for each dose and way: bias, its standard error, spread, and the error of a pixel, as shares."""
    rows: list[dict[str, float | str]] = []
    for dose in doses:
        errors: dict[str, list[tuple[float, float]]] = {}
        for seed in seeds:
            data, truth = planted(dose, seed)
            holds = truth > 0
            for name, way in WAYS.items():
                found = way(data)
                wrong = (found - truth).where(holds)
                pixel = float(np.sqrt((wrong**2).mean()) / truth.where(holds).mean())
                errors.setdefault(name, []).append((float(wrong.sum() / truth.sum()), pixel))
        for name, each in errors.items():
            total, pixel = np.array(each).T
            spread = float(total.std(ddof=1))
            rows.append({"dose": dose, "background": name, "bias": float(total.mean()),
                         "standard error": spread / len(total) ** 0.5, "spread": spread,
                         "pixel": float(pixel.mean())})  # fmt: skip
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    print("| counts a pixel | background | bias | standard error | spread | pixel |")
    print("|---|---|---|---|---|---|")
    for row in table(range(parser.parse_args().seeds)):
        figures = " | ".join(f"{100 * float(row[key]):.2f} %" for key in ("bias", "standard error", "spread", "pixel"))
        print(f"| {row['dose']:g} | {row['background']} | {figures} |")


if __name__ == "__main__":
    main()
