"""How much memory a fit takes beside the data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import child
from benchmarks.planted import WORKLOADS
from benchmarks.report import markdown
from benchmarks.stored import keep

__all__ = ["CASES", "memory"]

CASES = [(name, dtype) for name in ("W1", "W3", "W4") for dtype in ("float32", "uint16")]
CASES += [("W2", "sparse"), ("W6", "sparse")]
# Times the data as stored; sparse data stay below their dense size instead.
GATE = 2.5

_METHOD = """Largest resident size of a process during its second fit, above the resident size after import, compilation
and a first fit whose data and result are gone (and with the memory that the allocator kept of it returned to the
system).  The data of the second fit are read after that, so they count: 1.0 times is the data alone.  The calls are
`ts.fit(data, model, max_sweeps={sweeps})` with everything else as it is by itself, the start too."""


def memory(
    size: str, only: list[str] | None, seed: int, say: Callable[[str], None], sweeps: int = 20
) -> tuple[list[str], list[tuple[str, bool]]]:
    """Measure, and return the section and what has to hold."""
    rows, checks = [], []
    with tempfile.TemporaryDirectory() as place:
        for name, dtype in CASES:
            if only and name not in only:
                continue
            folder = Path(place) / f"{name}-{dtype}"
            workload = WORKLOADS[name](size, seed)
            title, dense = workload.title, workload.dense
            keep(workload, folder, "float32" if dtype == "sparse" else dtype)
            del workload
            gate = f"below dense size, {dense / 1e6:.0f} MB" if dtype == "sparse" else f"at most {GATE:g} times"
            try:
                found = child.run({"kind": "memory", "folder": str(folder), "sweeps": sweeps})
            except child.ChildFailed as error:
                say(f"{name} {dtype}: failed, {error}")
                rows.append([f"{title}, {dtype}", *[""] * 4, f"failed: {error}", gate, "**no**"])
                checks.append((f"{name} {dtype}: failed, {error}", False))
                continue
            above, stored = found["peak"] - found["ready"], found["stored"]
            holds = above < dense if dtype == "sparse" else above <= GATE * stored
            ratio = f"{above / stored:.2f} times" + (f", {above / dense:.2f} of dense" if dtype == "sparse" else "")
            say(f"{name} {dtype}: {ratio} ({above / 1e6:.0f} MB)")
            sizes = [f"{value / 1e6:.0f} MB" for value in (found["imported"], found["ready"], stored, above)]
            rows.append([f"{title}, {dtype}", *sizes, f"**{ratio}**", gate, "yes" if holds else "**no**"])
            checks.append((f"{name} {dtype}: {ratio}, {gate}", holds))
    head = ["", "after import", "after the first fit", "data as stored", "above", "of the data", "gate", "holds"]
    return [_METHOD.format(sweeps=sweeps), "", *markdown(head, rows)], checks
