"""What spectra all data should begin from: those of some pixels, or of bins of pixels.

Run it from the root of the repository: ``python -m benchmarks.pixels_or_bins``.  Planted counts of 256 x 256 pixels,
256 channels and rank 6, as they are and with the pixels in random order; spectra of a fit of one pixel in sixteen, or
of bins of 4 x 4; then all pixels are solved for these spectra, and sweeps over all data follow.  Printed is the excess
of the objective over that of a long fit of all data.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

import tensorspec as ts
from benchmarks.planted import maps, spectra

SIDE, CHANNELS, RANK, BIN = 256, 256, 6, 4
DOSES, SWEEPS = (0.05, 0.5, 3.0, 20.0), (1, 3)


def counts(dose: float, shuffled: bool) -> xr.DataArray:
    """Return planted counts, `dose` an entry on average."""
    rng = np.random.default_rng(1)
    expected = maps(SIDE, RANK, rng) @ spectra(CHANNELS, RANK, rng).T
    values = rng.poisson(expected * (dose / expected.mean())).astype(np.float32)
    if shuffled:
        values = values[np.random.default_rng(3).permutation(SIDE**2)]
    return xr.DataArray(values.reshape(SIDE, SIDE, CHANNELS), dims=("y", "x", "energy"))


def as_rows(values: np.ndarray) -> xr.DataArray:
    """Return spectra without their place."""
    return xr.DataArray(values.reshape(-1, CHANNELS), dims=("sample", "energy"))


def some(data: xr.DataArray, bins: bool) -> xr.DataArray:
    """Return the mean of every bin, or as many pixels drawn at random, each a row."""
    if bins:
        return as_rows(data.coarsen(y=BIN, x=BIN).mean().values)
    picked = np.random.default_rng(0).choice(SIDE**2, SIDE**2 // BIN**2, replace=False)
    return as_rows(data.values.reshape(-1, CHANNELS)[np.sort(picked)])


def main() -> None:
    """Print a table in Markdown."""
    options = {"progress": False, "solver": ts.HALS(compress=False, inner=40), "tol": 0.0}
    print("| counts an entry | pixels | spectra of | " + " | ".join(f"{n} sweep(s)" for n in SWEEPS) + " |")
    print("|" + " --- |" * (3 + len(SWEEPS)))
    for dose in DOSES:
        for shuffled in (False, True):
            data = counts(dose, shuffled)
            best = ts.fit(data, ts.NMF(RANK), max_sweeps=300, tol=1e-9, progress=False).objective
            for bins in (True, False):
                first = ts.fit(some(data, bins), ts.NMF(RANK), max_sweeps=500, progress=False)
                shares = first.transform(as_rows(data.values))
                pixel = (shares * first.strengths()).transpose("sample", "component").values
                start = {"pixel": pixel, "energy": first.factors["energy"].transpose("energy", "component").values}
                cells = []
                for sweeps in SWEEPS:
                    fit = ts.fit(data, ts.NMF(RANK), start=ts.From(start), max_sweeps=sweeps, **options)
                    cells.append(f"{fit.objective / best - 1:.1e}")
                order = "in random order" if shuffled else "as they lie"
                print(f"| {dose:g} | {order} | {'bins' if bins else 'pixels'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
