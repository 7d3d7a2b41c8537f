"""The tables, and what they were measured on."""

from __future__ import annotations

import platform
from importlib import metadata

from measure import TARGETS, Comparison, Figures, Timing
from threadpoolctl import threadpool_info

__all__ = ["environment", "requirements", "table"]

_PACKAGES = ("tensorspec", "jax", "jaxlib", "numpy", "scipy", "scikit-learn", "tensorly", "xarray")


def environment() -> list[str]:
    """Return lines that name processor, versions and BLAS kernels."""
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
        f"Processor: {_processor()}, {len_affinity()} cores; Python {platform.python_version()}, {platform.system()}.",
        f"Versions: {', '.join(versions)}.",
        f"BLAS: {'; '.join(sorted(kernels))}.",
    ]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def len_affinity() -> int:
    """Return the number of cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(name: str, found: Comparison) -> list[str]:
    """Return the figures of one workload as markdown."""
    ours = found.methods[0]
    head = ["", *(f"to {target:g} (sweeps)" for target in TARGETS), "sweep", "around", "compile", "lowest f / best - 1"]
    rows = [head, ["---"] * len(head)]
    for item in found.methods:
        cells = [_time(item, target, found) for target in TARGETS]
        reached = item.reached / found.best - 1
        rows.append(
            [
                item.name,
                *cells,
                _milliseconds(item.sweep),
                f"{item.around:.3f} s",
                f"{item.compile:.2f} s",
                f"{reached:.1e} in {item.followed}",
            ]
        )
    for item in found.methods[1:]:
        cells = [_ratio(ours, item, target) for target in TARGETS]
        rows.append([f"**ours / {item.name}**", *cells, f"{ours.sweep / item.sweep:.2f}", "", "", ""])
    return [
        f"## {name}: {found.title}",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"f_best {found.best:.9g}; data {found.data_bytes / 1e6:.0f} MB; read at {found.bandwidth / 1e9:.1f} GB/s, so "
        f"two reads take {1e3 * found.floor:.2f} ms and a sweep of ours takes **{ours.sweep / found.floor:.2f} times** "
        f"the two-read floor; load average {found.load[0]:.1f} at the beginning, {found.load[1]:.1f} at the end.",
        "",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds > 0 else "lost in noise"


def _time(item: Figures, target: float, found: Comparison) -> str:
    sweeps = item.sweeps[target]
    if sweeps is None:
        return f"not in {item.followed} sweeps"
    timing: Timing = item.times[target]
    return f"{timing.best:.3f} s, median {timing.median:.3f} ({sweeps})"


def _ratio(ours: Figures, peer: Figures, target: float) -> str:
    mine, other = ours.times[target].seconds, peer.times[target].seconds
    if not mine:
        return "not reached"
    if not other:
        return "peer did not reach it"
    return (
        f"{ours.times[target].best / peer.times[target].best:.2f}, "
        f"medians {ours.times[target].median / peer.times[target].median:.2f}"
    )


def requirements(found: dict[str, Comparison]) -> list[tuple[str, bool]]:
    """Return what has to hold, in words with the figure, and whether it does."""
    lines = []
    for name in ("W1", "W3"):
        if name in found:
            ours, peer = (next(m for m in found[name].methods if m.name == n) for n in ("tensorspec", "tensorly HALS"))
            reached, other = ours.sweeps[1e-3] is not None, peer.sweeps[1e-3] is not None
            holds = reached and (not other or ours.times[1e-3].best <= peer.times[1e-3].best)
            lines.append((f"{name} to 1e-3 no slower than tensorly HALS: {_ratio(ours, peer, 1e-3)}", holds))
    if "W1" in found:
        ratio = found["W1"].methods[0].sweep / found["W1"].floor
        lines.append((f"W1 sweep within 5 times the two-read floor: {ratio:.2f}", ratio <= 5))
    return lines
