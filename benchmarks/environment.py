"""What was measured on: processor, versions, BLAS kernels."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

__all__ = ["SLOWING", "cores", "environment", "without_slowing_settings"]

# Settings that slow numpy, and so the peers; they are read when its BLAS is loaded.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_PACKAGES = (
    "tensorspec", "jax", "jaxlib", "numpy", "scipy", "scikit-learn", "tensorly", "matcouply", "pyttb", "sparse",
    "xarray",
)  # fmt: skip


def without_slowing_settings() -> None:
    """Start this process again where a setting that slows numpy stands in its environment."""
    if any(name in os.environ for name in SLOWING):
        kept = {name: value for name, value in os.environ.items() if name not in SLOWING}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], kept)


def environment() -> list[str]:
    """Return lines that name processor, versions and BLAS kernels."""
    from threadpoolctl import threadpool_info

    import tensorspec

    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} {tensorspec.__version__ if name == 'tensorspec' else 'not installed'}")
    kernels = {
        f"{item['internal_api']} {item.get('version')} {item.get('architecture', '')}, {item['num_threads']} threads"
        for item in threadpool_info()
        if item["user_api"] == "blas"
    }
    return [
        f"Processor: {_processor()}, {cores()} cores; Python {platform.python_version()}, {platform.system()}.",
        f"Versions: {', '.join(versions)}.",
        f"BLAS: {'; '.join(sorted(kernels))}; {' and '.join(SLOWING)} unset.",
    ]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
