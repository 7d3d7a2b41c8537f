"""Edge intensities with the background in the fit, and with a power law fitted before the edge and subtracted.

    python -m benchmarks.background [--seeds 20]

A planted spectrum image with an edge at 532 eV on the backgrounds of two phases, with exponents of 2.75 and 3.3,
Poisson counts at three doses.  The fit has two components that are `Span` of powers of the energy and one for the edge
that is `Fixed` at zero below its onset.  The classical way fits one power of the energy to the logarithm of the counts
in the 60 eV before the edge, pixel by pixel, extrapolates and subtracts.  Both integrate 60 eV behind the onset, over
the pixels that hold the edge.  Bias: the mean over seeds of what was found less what was planted, and its standard
error; spread: the standard deviation over seeds; pixel: the root mean square error of a single pixel.  All are shares
of the planted intensity.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import xarray as xr

__all__ = ["DOSES", "ONSET", "by_fit", "by_window", "planted", "table"]

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


def by_fit(data: xr.DataArray) -> xr.DataArray:
    """Return the map of the edge with the background in the fit."""
    import tensorspec as ts

    energy = data.energy_loss
    zeros = xr.where(energy < ONSET, 0.0, np.nan).expand_dims(component=[3])
    span = ts.Span(ts.background_powers(data, (2.5, 3, 3.5, 4)), components=[1, 2])
    model = ts.NMF(3, {"energy_loss": [span, ts.Fixed(zeros)]})
    # Background components are nearly alike: single precision would stop in the valley between them.
    loss = ts.LeastSquares(scaling="poisson")
    fit = ts.fit(data.astype(float), model, loss=loss, max_sweeps=5000, tol=1e-8, progress=False)
    spectrum = fit.spectra().sel(component=3)
    share = spectrum.where((energy >= ONSET) & (energy < ONSET + BEHIND), 0).sum() / spectrum.sum()
    return fit.maps().sel(component=3) * share


def by_window(data: xr.DataArray) -> xr.DataArray:
    """Return the map of the edge after a power law, fitted in the window before it, is subtracted."""
    energy = data.energy_loss.values
    before = (energy >= ONSET - BEFORE) & (energy < ONSET)
    behind = (energy >= ONSET) & (energy < ONSET + BEHIND)
    # The logarithm of an empty channel is not defined: half a count stands for it, as is usual.
    values = np.log(np.maximum(data.values[..., before], 0.5))
    design = np.stack([np.log(energy[before]), np.ones(before.sum())], axis=1)
    slope, level = np.linalg.lstsq(design, values.reshape(-1, before.sum()).T, rcond=None)[0]
    below = np.exp(level[:, None] + slope[:, None] * np.log(energy[behind])).reshape(*data.shape[:2], -1)
    return xr.DataArray((data.values[..., behind] - below).sum(axis=-1), dims=("y", "x"))


def table(seeds: Sequence[int], doses: Sequence[float] = DOSES) -> list[dict[str, float | str]]:
    """Return a row for each dose and way: bias, its standard error, spread, and the error of a pixel, as shares."""
    rows: list[dict[str, float | str]] = []
    for dose in doses:
        errors: dict[str, list[tuple[float, float]]] = {}
        for seed in seeds:
            data, truth = planted(dose, seed)
            holds = truth > 0
            for name, found in (("in the fit", by_fit(data)), ("window before", by_window(data))):
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
