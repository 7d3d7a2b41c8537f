"""Workloads in a folder, for processes that must not have made the data themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.planted import Workload

__all__ = ["keep", "load"]


def keep(workload: Workload, folder: Path, dtype: str = "float32") -> None:
    """Write a workload; dense data in the given dtype."""
    folder.mkdir(parents=True)
    about = {field: getattr(workload, field) for field in ("name", "title", "rank", "targets", "poisson")}
    about["tensors"] = {key: list(map(str, tensor.dims)) for key, tensor in workload.tensors.items()}
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
    np.savez(folder / "start.npz", **workload.start)
    for key, tensor in workload.tensors.items():
        if isinstance(tensor.data, np.ndarray):
            np.save(folder / f"{key}.npy", tensor.values.astype(dtype))
        else:
            np.savez(folder / f"{key}.npz", coords=tensor.data.coords, data=tensor.data.data, shape=tensor.shape)


def load(folder: Path) -> Workload:
    """Read it."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    tensors = {}
    for key, dims in about.pop("tensors").items():
        tensors[key] = xr.DataArray(_array(folder, key), dims=dims)
    with np.load(folder / "start.npz") as start:
        return Workload(tensors=tensors, start=dict(start), **about | {"targets": tuple(about["targets"])})


def _array(folder: Path, key: str) -> Any:
    if (folder / f"{key}.npy").exists():
        return np.load(folder / f"{key}.npy")
    import sparse

    with np.load(folder / f"{key}.npz") as stored:
        shape = tuple(int(size) for size in stored["shape"])
        return sparse.COO(stored["coords"], stored["data"], shape=shape, has_duplicates=False, sorted=True)
