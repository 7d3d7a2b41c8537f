"""What this machine and installation are: to be sent along with a question."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

from tensorspec.cli.cache import cache_folder, keep_compiled_programs
from tensorspec.cli.output import say

__all__ = ["run_doctor"]

NEEDED = ("numpy", "scipy", "xarray", "jax", "jaxlib", "equinox", "h5py", "matplotlib", "scikit-learn", "tensorly")
OPTIONAL = {
    "rosettasciio": "io",
    "hyperspy": "hyperspy",
    "exspy": "hyperspy",
    "dask": "cluster",
    "distributed": "cluster",
    "gemmi": "channelling",
    "xraydb": "channelling",
    "jinja2": "report",
}
THREADS = ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "JAX_PLATFORMS")


def run_doctor(as_json: bool) -> None:
    """Print versions, threads, devices, memory and the folder of compiled programs.

    Parameters
    ----------
    as_json : bool
        Print JSON instead of lines.
    """
    jax = _jax()  # first, since what comes after may load JAX too
    found = {
        "versions": _versions(),
        "not installed": _missing(),
        "machine": _machine(),
        "memory": _memory(),
        "jax": jax,
    }
    if as_json:
        say(json.dumps(found, indent=1))
        return
    lines = []
    for title, content in found.items():
        lines.append(title)
        width = max(map(len, content), default=0)
        lines += [f"  {name.ljust(width)}  {value}" for name, value in content.items()] or ["  nothing"]
    say("\n".join(lines))


def _versions() -> dict[str, str]:
    from tensorspec import __version__

    found = {"tensorspec": __version__, "python": platform.python_version()}
    for name in (*NEEDED, *OPTIONAL):
        version = _version(name)
        if version is not None:
            found[name] = version
    return found


def _missing() -> dict[str, str]:
    missing = {name: "broken installation: pip install tensorspec" for name in NEEDED if _version(name) is None}
    optional = {name: f'pip install "tensorspec[{extra}]"' for name, extra in OPTIONAL.items() if not _version(name)}
    return missing | optional


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, str]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "system": platform.platform(),
        "interpreter": sys.executable,
        "threads": f"{count} usable of {os.cpu_count()}",
    }
    return found | {name: os.environ[name] for name in THREADS if os.environ.get(name)}


def _memory() -> dict[str, str]:
    from tensorspec.fit.validate import available_memory

    free = available_memory()
    found = {"free": "not known" if free is None else f"{free / 2**30:.1f} GiB"}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["total"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return found


def _jax() -> dict[str, str]:
    folder = cache_folder()
    kept = [path.stat().st_size for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    keep_compiled_programs()
    began = time.monotonic()
    import jax

    loaded = time.monotonic()
    try:
        devices = ", ".join(f"{device.platform} {device.id}: {device.device_kind}" for device in jax.devices())
        jax.jit(lambda value: value @ value)(jax.numpy.ones((8, 8))).block_until_ready()
        works = f"yes, in {time.monotonic() - loaded:.1f} s"
    except RuntimeError as error:  # what JAX raises where a device is there but cannot be used
        devices, works = "none", f"no: {str(error).splitlines()[0]}"
    found: dict[str, Any] = {
        "devices": devices,
        "compiles": works,
        "loads in": f"{loaded - began:.1f} s",
        "compiled programs": f"{folder} ({len(kept)} files, {sum(kept) / 2**20:.1f} MiB)",
    }
    return found
