"""One measurement in a process of its own; what it finds is printed as JSON.

It is called by `memory`, `cold` and `threads`: ``python -m benchmarks.child JOB`` with the job as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ChildFailed", "run"]

ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(RuntimeError):
    """The process ended with an error; the text is its last line."""


def run(job: Mapping[str, Any], environment: Mapping[str, str | None] | None = None) -> dict[str, float]:
    """Run a job in a fresh process and return what it found.

    Parameters
    ----------
    job
        ``kind`` is ``memory``, ``cold`` or ``threads``.
    environment
        Variables that are set for it, or taken away where None.

    Raises
    ------
    ChildFailed
        If it ends with an error.
    """
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    for name, value in (environment or {}).items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    command = [sys.executable, "-m", "benchmarks.child", json.dumps({**job, "began": time.time()})]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def memory(job: Mapping[str, Any]) -> dict[str, float]:
    """Return resident sizes in bytes: after import, after a first fit whose data are gone, and the peak of a second.

    The data of the second fit are read after the second figure was taken, so that they count.
    """
    import tensorspec as ts
    from benchmarks.methods import Tensorspec
    from benchmarks.stored import load

    folder = Path(job["folder"])
    imported = _status("VmRSS")

    def fit() -> int:
        workload = load(folder)
        # The call as it is typed, from the start that it chooses itself.
        method = Tensorspec(workload)
        result = ts.fit(method.data, method.model, loss=method.loss, max_sweeps=job["sweeps"], progress=False)
        dict(result.provenance)  # waits for the hash of the data, which are held until it is there
        return workload.stored

    fit()
    gc.collect()
    # What the allocator keeps of the first fit would hide the same amount of the second.
    ctypes.CDLL(None).malloc_trim(0)
    ready = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # from here on the peak counts anew
    stored = fit()
    return {"imported": imported, "ready": ready, "peak": _status("VmHWM"), "stored": stored}


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cold(job: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds from the start of the process to the first answer, without those of reading the data.

    Nothing is imported that the method does not need.
    """
    import numpy as np

    sweeps, tol = job["setting"]
    if job["method"] == "tensorspec":
        import xarray as xr

        import tensorspec as ts

        fit, model = ts.fit, ts.NMF(job["rank"])
        imported = time.time() - job["began"]
        data, start = _plain(job)
        reading = time.time() - job["began"] - imported
        labelled = xr.DataArray(data, dims=("y", "x", "energy"))
        fit(labelled, model, start=ts.From(start), max_sweeps=sweeps, tol=tol, progress=False)
    else:
        from tensorly.cp_tensor import CPTensor
        from tensorly.decomposition import non_negative_parafac_hals

        imported = time.time() - job["began"]
        data, start = _plain(job)
        reading = time.time() - job["began"] - imported
        given = CPTensor((np.ones(job["rank"], np.float32), [start["pixel"], start["energy"]]))
        matrix = data.reshape(len(start["pixel"]), -1)
        non_negative_parafac_hals(matrix, job["rank"], n_iter_max=sweeps, init=given, tol=0)
    return {"imported": imported, "seconds": time.time() - job["began"] - reading}


def _plain(job: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    import numpy as np

    with np.load(Path(job["folder"]) / "start.npz") as start:
        return np.load(Path(job["folder"]) / "data.npy"), dict(start)


def threads(job: Mapping[str, Any]) -> dict[str, float]:
    """Return the shortest of some calls on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])  # before anything counts them
    from benchmarks.bandwidth import seconds_of
    from benchmarks.methods import Setting
    from benchmarks.peers import methods_for
    from benchmarks.stored import load

    method = next(item for item in methods_for(load(Path(job["folder"]))) if item.name == job["method"])
    setting = Setting(*job["setting"])
    method.run(setting)
    return {"seconds": min(seconds_of(lambda: method.run(setting)) for _ in range(job["repeats"]))}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps({"memory": memory, "cold": cold, "threads": threads}[given["kind"]](given)))
