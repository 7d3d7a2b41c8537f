"""Data on disk that are larger than the memory: passes, excess and memory, beside the lazy methods of other packages.

python -m benchmarks.out_of_core scaled    512 x 512 x 1024 counts (0.5 GB), beside HyperSpy and scikit-learn
python -m benchmarks.out_of_core full      1024 x 1024 x 2048 counts (4.3 GB)
python -m benchmarks.out_of_core tiny      64 x 64 x 256, a rehearsal
python -m benchmarks.out_of_core cluster   scaled, two dask workers of one core each against one process on both

The store is a phantom written block by block: nothing ever holds it as a whole.  Every measurement runs in a process of
its own whose data segment is limited to 4 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"full": (1024, 1024, 2048), "scaled": (512, 512, 1024), "tiny": (64, 64, 256)}
RANK, CHUNK, DOSE = 8, 32, 4.0
LIMIT = 4 * 2**30


def truth(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Soft maps ``(y, x, rank)`` that overlap, and spectra ``(rank, energy)`` on a common falling background."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(0, 1, size) for size in shape[:2]), indexing="ij")
    energy = np.linspace(1, 3, shape[2])
    maps, spectra = [], []
    for k in range(RANK):
        cy, cx, width = rng.random(), rng.random(), 0.12 + 0.2 * rng.random()
        grain = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(2, 9) * y + rng.uniform(2, 9) * x + rng.random()))
        maps.append((0.15 + np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / width**2) * grain) / (1 + 0.5 * k))
        peaks = sum(
            rng.random() * np.exp(-(((energy - rng.uniform(1.1, 2.9)) / rng.uniform(0.02, 0.15)) ** 2))
            for _ in range(4)
        )
        spectra.append(0.6 * energy**-2.5 + peaks)
    found = np.stack(spectra)
    return np.stack(maps, axis=-1).astype(np.float32), (found / found.mean(axis=1, keepdims=True)).astype(np.float32)


def write(path: Path, shape: tuple[int, int, int], compressed: bool, seed: int = 0) -> None:
    """Write counts block by block, in chunks of whole spectra."""
    import zarr
    from numcodecs import Zstd

    maps, spectra = truth(shape, seed)
    store = zarr.open(
        str(path), mode="w", shape=shape, chunks=(CHUNK, CHUNK, shape[2]), dtype="u2",
        compressor=Zstd(1) if compressed else None,
    )  # fmt: skip
    for begin in range(0, shape[0], CHUNK):
        mean = DOSE * maps[begin : begin + CHUNK] @ spectra
        store[begin : begin + CHUNK] = np.random.default_rng([seed, begin]).poisson(mean).astype(np.uint16)


def opened(path: Path) -> Any:
    """The store as a lazy DataArray."""
    import dask.array
    import xarray as xr
    import zarr

    store = zarr.open(str(path), mode="r")
    return xr.DataArray(dask.array.from_array(store, chunks=store.chunks), dims=("y", "x", "energy_loss"))


def resident(peak: bool = False) -> int:
    """Resident size of this process, or the largest so far, in bytes."""
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))


def limited() -> None:
    """Limit the data segment of this process."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))


def reading(path: Path) -> float:
    """Seconds of a plain read of the store, in the blocks of the fit."""
    from tensorspec.algebra.blocks import BlockSource

    began = time.perf_counter()
    for _, _ in BlockSource(opened(path).data, 2):
        pass
    return time.perf_counter() - began


def ours(path: Path, sweeps: int) -> dict[str, Any]:
    """A fit of so many sweeps; plain reads before and after it."""
    limited()
    import tensorspec as ts

    data = opened(path)
    before = reading(path)
    imported = resident()
    began = time.perf_counter()
    fit = ts.fit(data, ts.NMF(RANK), blocks=True, max_sweeps=sweeps, tol=0, progress=False)
    seconds = time.perf_counter() - began
    peak = resident(peak=True)
    return {
        "objective": fit.objective / fit.provenance["scales"]["data"] ** 2,
        "history": [float(v) / fit.provenance["scales"]["data"] ** 2 for v in fit.history.values],
        "seconds": seconds,
        "passes": fit.provenance["pass_seconds"],
        "bins": fit.provenance["bins"],
        "blocks": fit.provenance["blocks"],
        "above": peak - imported,
        "imported": imported,
        "reads": [before, reading(path)],
        "why": fit.why,
    }


def on_workers(path: Path, sweeps: int, workers: int) -> dict[str, Any]:
    """A fit of so many sweeps on dask workers of one core each, or (none) in this process."""
    import os
    from contextlib import ExitStack

    import tensorspec as ts

    with ExitStack() as stack:
        if workers:
            from distributed import Client, LocalCluster

            cluster = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
            client = stack.enter_context(Client(cluster))
            pids = sorted(client.run(os.getpid).values())
            client.run(to_one_core, pids)
        fit = ts.fit(opened(path), ts.NMF(RANK), blocks=True, max_sweeps=sweeps, tol=0, progress=False)
    return {"objective": fit.objective, "passes": fit.provenance["pass_seconds"], "blocks": fit.provenance["blocks"]}


def to_one_core(pids: list[int]) -> None:
    """Bind this process to a core of its own."""
    import os

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[pids.index(os.getpid()) % len(cores)]})


def compare_workers(folder: Path, repeats: int = 3) -> None:
    """Print how long a later pass takes on two workers and in one process."""
    path = folder / "scaled.zarr"
    if not path.exists():
        write(path, SIZES["scaled"], True)
    pairs = []
    for _ in range(repeats):
        found = [child({"kind": "workers", "path": str(path), "sweeps": 12, "workers": n}, 600) for n in (0, 2)]
        if any("failed" in item for item in found):
            print(found)
            return
        # Of the sweeps: the first three passes come before them, or compile.
        pairs.append([float(np.median(item["passes"][4:-1])) for item in found])
        print(f"one process {pairs[-1][0]:.2f} s a pass, two workers {pairs[-1][1]:.2f} s", flush=True)
        print(f"objectives {found[0]['objective']:.12g}, {found[1]['objective']:.12g}", flush=True)
    ratios = sorted(two / one for one, two in pairs)
    print(f"two workers take {np.median(ratios):.2f} times as long ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def objective(path: Path, maps: np.ndarray, spectra: np.ndarray) -> float:
    """Half the squared residual in float64."""
    from tensorspec.algebra.blocks import BlockSource

    flat, total = maps.reshape(-1, len(spectra)), 0.0
    for rows, values in BlockSource(opened(path).data, 2):
        total += 0.5 * float(np.sum(np.square(values - flat[rows] @ spectra, dtype=np.float64)))
    return total


def minibatch(path: Path, passes: int) -> dict[str, Any]:
    """scikit-learn's MiniBatchNMF, fed block by block, then the maps."""
    from sklearn.decomposition import MiniBatchNMF

    from tensorspec.algebra.blocks import BlockSource

    source = BlockSource(opened(path).data, 2)
    imported, began = resident(), time.perf_counter()
    method = MiniBatchNMF(RANK, init="nndsvda", random_state=0)
    for _ in range(passes):
        for _, values in source:
            method.partial_fit(values.astype(np.float32))
    maps = np.empty((source.shape[0], RANK), np.float32)
    for rows, values in source:
        maps[rows] = method.transform(values.astype(np.float32))
    seconds = time.perf_counter() - began
    peak = resident(peak=True)
    return {
        "objective": objective(path, maps, method.components_.astype(np.float32)),
        "seconds": seconds,
        "above": peak - imported,
    }


def hyperspy(path: Path, algorithm: str, share: int) -> dict[str, Any]:
    """HyperSpy's lazy decomposition of one in `share` of the rows of pixels."""
    import hyperspy.api as hs

    data = opened(path).data
    part = data[: max(data.shape[0] // share, 1)]
    imported, began = resident(), time.perf_counter()
    signal = hs.signals.Signal1D(part).as_lazy()
    signal.change_dtype("float32")
    signal.decomposition(algorithm=algorithm, output_dimension=RANK, print_info=False)
    seconds = time.perf_counter() - began
    peak = resident(peak=True)
    model = signal.learning_results.loadings @ signal.learning_results.factors.T
    values = np.asarray(part.reshape(-1, part.shape[-1]), np.float32)
    found = 0.5 * float(np.sum(np.square(values - model, dtype=np.float64)))
    return {"objective": found, "seconds": seconds, "above": peak - imported, "share": share}


def child(job: dict[str, Any], patience: float) -> dict[str, Any]:
    """Run a job in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.out_of_core", "--job", json.dumps(job)],
            capture_output=True, text=True, timeout=patience, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {patience:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: str, compressed: bool, folder: Path, peers: bool, longest: int) -> None:
    """Write the store, run, and print a section of the results."""
    shape = SIZES[size]
    path = folder / f"{size}{'-zstd' if compressed else ''}.zarr"
    if not path.exists():
        began = time.perf_counter()
        write(path, shape, compressed)
        print(f"store {path.name} written in {time.perf_counter() - began:.0f} s", flush=True)
    results = {n: child({"kind": "ours", "path": str(path), "sweeps": n}, 3000) for n in (1, 2, longest)}
    best = min(r["objective"] for r in results.values() if "objective" in r)
    print(
        f"\n{' x '.join(map(str, shape))} uint16, rank {RANK}, {'zstd' if compressed else 'raw'}; f_best {best:.8g}\n"
    )
    print("| sweeps | passes before the last | seconds | excess | above import | read | slowest pass / read |")
    print("|---|---|---|---|---|---|---|")
    for sweeps, found in results.items():
        if "failed" in found:
            print(f"| {sweeps} | failed: {found['failed']} |")
            continue
        read, passes = float(np.median(found["reads"])), found["passes"]
        print(
            f"| {sweeps} | {len(passes) - 1} | {found['seconds']:.1f} | {found['objective'] / best - 1:.2e} | "
            f"{found['above'] / 1e6:.0f} MB | {found['reads'][0]:.2f}, {found['reads'][1]:.2f} s | "
            f"{max(passes) / read:.2f} ({', '.join(f'{p:.2f}' for p in passes[:6])} s) |"
        )
    print(f"\n{results[1].get('why')}; bins {results[1].get('bins')}\n", flush=True)
    if not peers:
        return
    print("| peer | seconds | excess | above import |\n|---|---|---|---|")
    jobs = {
        "scikit-learn MiniBatchNMF, 1 pass and maps": {"kind": "minibatch", "path": str(path), "passes": 1},
        "HyperSpy lazy ORNMF, 1/32 of the rows": {
            "kind": "hyperspy", "path": str(path), "algorithm": "ORNMF", "share": 32,
        },
        "HyperSpy lazy ORPCA, 1/32 of the rows": {
            "kind": "hyperspy", "path": str(path), "algorithm": "ORPCA", "share": 32,
        },
    }  # fmt: skip
    for name, job in jobs.items():
        found = child(job, 300)
        if "failed" in found:
            print(f"| {name} | {found['failed'][:100]} | | |", flush=True)
            continue
        excess = "of its part only" if "share" in found else f"{found['objective'] / best - 1:.2e}"
        print(f"| {name} | {found['seconds']:.1f} | {excess} | {found['above'] / 1e6:.0f} MB |", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=(*SIZES, "cluster"), default="scaled")
    parser.add_argument("--raw", action="store_true", help="without compression")
    parser.add_argument("--folder", help="where the store is kept; by default a temporary one")
    parser.add_argument("--sweeps", type=int, default=15, help="of the longest run, which stands for the best")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = json.loads(options.job)
        kind, path = job.pop("kind"), Path(job.pop("path"))
        kinds = {"ours": ours, "minibatch": minibatch, "hyperspy": hyperspy, "workers": on_workers}
        print(json.dumps(kinds[kind](path, **job)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.folder or place)
        if options.size == "cluster":
            compare_workers(folder)
            return
        measure(options.size, not options.raw, folder, options.size != "full", options.sweeps)


if __name__ == "__main__":
    main()
