"""How long a fit takes under each constraint, beside the same fit without it.

Run with ``python -m benchmarks.constraints [SIDE]``.  Every call is whole and was made once before, so that nothing is
compiled in it; the shorter of two counts.  A constraint that costs far more than its neighbours shows here.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

import tensorspec as ts
from benchmarks.report import markdown

__all__ = ["main"]

CHANNELS, RANK = 256, 3


def image(side: int, seed: int = 0) -> tuple[xr.DataArray, np.ndarray]:
    """Return counts of three phases with sharp edges, 7 an entry on average, and their spectra."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * 64 / side
    maps = np.stack([x < 30, 0.7 * ((y > 20) & (x > 15)), 1.3 * ((x - 40) ** 2 + (y - 40) ** 2 < 200)])
    channel = np.linspace(0, 255, CHANNELS)
    peaks = [np.exp(-(((channel - at) / width) ** 2) / 2) for at, width in ((60, 10), (110, 25), (180, 15))]
    spectra = np.stack(peaks) + 0.3 * np.exp(-channel / 100)
    counts = rng.poisson(20 * np.einsum("ryx,rk->yxk", maps, spectra)).astype(np.float32)
    coords = {"y": np.arange(side) * 0.5, "x": np.arange(side) * 0.5, "energy": channel}
    return xr.DataArray(counts, dims=("y", "x", "energy"), coords=coords), spectra


def cases(spectra: np.ndarray, side: int) -> dict[str, Mapping[str, Sequence[Any]]]:
    """Return further constraints, beside non-negative entries, by what they are called."""
    known = np.full((CHANNELS, RANK), np.nan)
    known[:, 0] = spectra[0]
    pixels: dict[str, Any] = {
        "SumToOne": ts.SumToOne("component"),
        "SumToOne and PurePixel": [ts.SumToOne("component"), ts.PurePixel()],
        "Sparse(0.1)": ts.Sparse(0.1),
        "GroupSparse(0.1)": ts.GroupSparse(0.1),
        "ARD": ts.ARD(),
        "Smooth(0.1)": ts.Smooth(0.1),
        "LocallySmooth(0.1)": ts.LocallySmooth(np.full(side * side, 2.0), 0.1),
        "TotalVariation(0.01)": ts.TotalVariation(0.01),
        "TotalVariation(0.1)": ts.TotalVariation(0.1),
        "SoftOrthogonal": ts.SoftOrthogonal(),
    }
    energies: dict[str, Any] = {
        "Smooth(0.1)": ts.Smooth(0.1),
        "Unimodal": ts.Unimodal(),
        "Monotone": ts.Monotone(),
        "TotalVariation(0.1)": ts.TotalVariation(0.1),
        "MinimumVolume": ts.MinimumVolume(0.1),
        "Near(1.0)": ts.Near(known, 1.0),
        "Fixed": ts.Fixed(known),
        "Span": ts.Span(np.vstack([spectra, np.ones(CHANNELS)]).T),
    }
    both = {"pixel": [ts.NonNegative()], "energy": [ts.NonNegative()]}
    found: dict[str, Mapping[str, Sequence[Any]]] = {"NonNegative alone": both}
    for mode, where, items in (("pixel", "pixels", pixels), ("energy", "energies", energies)):
        for name, item in items.items():
            more = item if isinstance(item, list) else [item]
            found[f"{name} on {where}"] = both | {mode: [ts.NonNegative(), *more]}
    return found


def main(side: int = 64) -> None:
    """Print a table of seconds."""
    data, spectra = image(side)
    rows, plain = [], None
    for name, constraints in cases(spectra, side).items():
        times = []
        for _ in range(3):
            began = time.perf_counter()
            fit = ts.fit(data, ts.NMF(RANK, constraints), max_sweeps=300, progress=False)
            times.append(time.perf_counter() - began)
        seconds = min(times[1:])
        plain = plain or seconds
        rows.append([name, fit.solver, f"{seconds:.2f} s", f"{seconds / plain:.1f}", str(fit.sweeps)])
        print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)
    print("\n".join(markdown(["constraint", "solver", "a fit", "of the first", "sweeps on all data"], rows)))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(*map(int, sys.argv[1:]))
