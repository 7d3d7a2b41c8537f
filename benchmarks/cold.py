"""The first answer of a fresh process, and one core against two: the same calls for both."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.environment import cores
from benchmarks.measure import compare
from benchmarks.methods import Setting
from benchmarks.peers import methods_for
from benchmarks.planted import two_way
from benchmarks.report import markdown
from benchmarks.stored import keep

__all__ = ["cold", "threads"]

# Seconds without and with a warm compilation cache.
GATES = (3.0, 1.2)
TARGET = 1e-4

# Where this is set Python compiles every module of this checkout in every process.
_BYTECODE: dict[str, str | None] = {"PYTHONDONTWRITEBYTECODE": None}

_COLD = """Seconds from the start of a process to the first answer to W1, at an excess of 1e-4 or less from a given
start: import included, reading the data not; the median of the repeats, and the least and the most.  Modules are
compiled already, as Python leaves them by itself after a first import.  Without a cache the folder of caches of the
user is an empty one; with a warm one the same call was made once before, in another process."""
_THREADS = """The shortest of some calls to W1 that reach an excess of 1e-4, compiled before, in a process that may use
one core and in one that may use two."""


def _settings(size: str, seed: int, folder: Path, say: Callable[[str], None]) -> dict[str, Setting]:
    """Return the fastest call of tensorspec and of tensorly that reaches the target, and keep the workload."""
    workload = two_way(size, seed)
    methods = [method for method in methods_for(workload) if method.name in ("tensorspec", "tensorly HALS")]
    found = compare(workload, methods, 1, 300, 30.0, say, (TARGET,))
    keep(workload, folder)
    fastest = {item.name: item.fastest(TARGET) for item in found.methods}
    return {name: Setting(300) if best is None else best[0] for name, best in fastest.items()}


def cold(size: str, seed: int, repeats: int, say: Callable[[str], None]) -> tuple[list[str], list[tuple[str, bool]]]:
    """Measure, and return the section and what has to hold."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "W1"
        settings = _settings(size, seed, folder, say)
        rows, checks = [], []

        def measure(title: str, method: str, environment: Callable[[int], dict[str, str | None]], gate: Any) -> None:
            job = {"kind": "cold", "method": method, "folder": str(folder), "setting": settings[method], "rank": 6}
            # The first leaves compiled modules behind for those that are measured.
            found = [child.run(job, {**environment(k), **_BYTECODE}) for k in range(repeats + 1)][1:]
            seconds, imported = ([item[key] for item in found] for key in ("seconds", "imported"))
            middle = statistics.median(seconds)
            holds = gate is None or middle <= gate
            figures = f"{middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
            say(f"{title}: {figures}")
            verdict = "" if gate is None else "yes" if holds else "**no**"
            rows.append([title, str(settings[method]), figures, f"{statistics.median(imported):.2f} s",
                         "" if gate is None else f"at most {gate:g} s", verdict])  # fmt: skip
            if gate is not None:
                checks.append((f"{title}: {figures}, at most {gate:g} s", holds))

        def empty(k: int) -> dict[str, str | None]:
            return {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": f"{place}/empty-{k}"}

        kept: dict[str, str | None] = {
            "XDG_CACHE_HOME": f"{place}/kept",
            "JAX_COMPILATION_CACHE_DIR": f"{place}/kept/compiled",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        measure("tensorspec without a cache", "tensorspec", empty, GATES[0])
        measure("tensorspec with a warm cache", "tensorspec", lambda k: kept, GATES[1])
        measure("tensorly HALS", "tensorly HALS", empty, None)
    head = ["", "call", "first answer", "of it, import", "gate", "holds"]
    return [_COLD, "", *markdown(head, rows)], checks


def threads(size: str, seed: int, repeats: int, say: Callable[[str], None]) -> list[str]:
    """Measure, and return the section."""
    numbers = [number for number in (1, 2) if number <= cores()]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "W1"
        settings = _settings(size, seed, folder, say)
        rows = []
        for method, setting in settings.items():
            job = {"kind": "threads", "method": method, "folder": str(folder), "setting": setting, "repeats": repeats}
            seconds = [child.run({**job, "cores": number})["seconds"] for number in numbers]
            say(f"{method}: {', '.join(f'{value:.3f} s' for value in seconds)}")
            rows.append(
                [method, str(setting), *(f"{value:.3f} s" for value in seconds), f"{seconds[0] / seconds[-1]:.2f}"]
            )
    head = ["", "call", *(f"{number} core{'s' * (number > 1)}" for number in numbers), "times as fast"]
    return [_THREADS, "", *markdown(head, rows)]
