"""Ways to a Poisson fit: updates by ratios, a Newton step for every row, and a coarse fit before the fine one.

Run it from the root of the repository: ``python -m benchmarks.poisson_routes``.  Planted counts; whole calls of a given
number of sweeps from the same random start, compiled before; the shortest time in which a call reached an excess of the
objective over the lowest that any way found.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import xarray as xr

import tensorspec as ts
from benchmarks.methods import Setting, Tensorspec
from benchmarks.objective import objective
from benchmarks.planted import maps, poisson, spectra

SWEEPS = (1, 2, 3, 5, 8, 12, 20, 40, 80, 160)
EXCESSES = (1e-2, 1e-3, 1e-4, 1e-5)

# Sweeps to seconds and objective.
Way = Callable[[int], tuple[float, float]]


def dense(mean: float, side: int = 64, channels: int = 512, rank: int = 6) -> dict[str, Way]:
    """Return the ways to fit dense counts: ratios, and Fisher scoring with a Gram matrix of its own for every row."""
    rng = np.random.default_rng(1)
    expected = maps(side, rank, rng) @ spectra(channels, rank, rng).T
    counts = rng.poisson(expected * (mean / expected.mean())).astype(np.float32)
    data = xr.DataArray(counts.reshape(side, side, channels), dims=("y", "x", "energy"))
    data.attrs["noise"] = ts.NoiseModel().to_attrs()  # they are counts: nobody has to look
    start = {"pixel": rng.random((side**2, rank)) * mean / rank * 2, "energy": rng.random((channels, rank))}

    def way(solver: ts.Multiplicative | ts.AOADMM) -> Way:
        def call(sweeps: int) -> tuple[float, float]:
            began = time.perf_counter()
            fit = ts.fit(
                data,
                ts.NMF(rank),
                loss=ts.Poisson(),
                solver=solver,
                start=ts.From({mode: factor.astype(np.float32) for mode, factor in start.items()}),
                max_sweeps=sweeps,
                tol=0.0,
                progress=False,
            )
            return time.perf_counter() - began, float(fit.objective)

        return call

    return {"ratios": way(ts.Multiplicative()), "a Newton step for every row": way(ts.AOADMM())}


def sparse(bin_side: int = 4, coarse_sweeps: int = 20) -> dict[str, Way]:
    """Return the ways to fit counts that are mostly zero: at once, and from a fit of sums over neighbouring pixels."""
    workload = poisson("full")
    method = Tensorspec(workload)
    data, rank = method.data, workload.rank

    def at_once(sweeps: int) -> tuple[float, float]:
        began = time.perf_counter()
        fit = method.run(Setting(sweeps))
        return time.perf_counter() - began, objective(workload, method.answer(fit))

    def coarse_first(sweeps: int) -> tuple[float, float]:
        began = time.perf_counter()
        height, width, channels = data.shape
        tiles = (height // bin_side, bin_side, width // bin_side, bin_side)
        sums = data.data.reshape((*tiles, channels)).sum(axis=(1, 3)).todense().astype(np.float32)
        start = dict(workload.start)
        start["pixel"] = start["pixel"].reshape(*tiles, rank).sum(axis=(1, 3)).reshape(-1, rank)
        options = {"loss": method.loss, "progress": False}
        coarse = ts.fit(
            xr.DataArray(sums, dims=data.dims, attrs={"noise": ts.NoiseModel().to_attrs()}),
            ts.NMF(rank),
            start=ts.From(start),
            max_sweeps=coarse_sweeps,
            **options,
        )
        pixels = (coarse.factors["pixel"] * coarse.strengths("data")).transpose("y", "x", "component").values
        pixels = np.repeat(np.repeat(pixels, bin_side, 0), bin_side, 1).reshape(-1, rank) / bin_side**2
        begin = {"pixel": pixels, "energy": coarse.factors["energy"].transpose("energy", "component").values}
        fit = ts.fit(data, ts.NMF(rank), start=ts.From(begin), max_sweeps=sweeps, tol=0.0, **options)
        return time.perf_counter() - began, objective(workload, method.answer(fit))

    return {"at once": at_once, f"{bin_side} x {bin_side} pixels together first": coarse_first}


def row(title: str, ways: dict[str, Way]) -> list[str]:
    """Return a line of the table for every way."""
    found = {}
    for name, way in ways.items():
        way(1)  # compiles
        found[name] = [min(way(sweeps) for _ in range(2)) for sweeps in SWEEPS]
    best = min(value for calls in found.values() for _, value in calls)
    lines = []
    for name, calls in found.items():
        cells = []
        for excess in EXCESSES:
            seconds = [second for second, value in calls if value <= best * (1 + excess)]
            cells.append(f"{min(seconds):.2f} s" if seconds else "not reached")
        lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print a table in Markdown."""
    print("| counts | way | " + " | ".join(f"to {excess:g}" for excess in EXCESSES) + " |")
    print("|" + " --- |" * (2 + len(EXCESSES)))
    for mean in (0.3, 3.0, 30.0):
        print("\n".join(row(f"64 x 64 x 512, {mean:g} an entry", dense(mean))), flush=True)
    print("\n".join(row("256 x 256 x 2048, 1 % of the entries not zero", sparse())), flush=True)


if __name__ == "__main__":
    main()
