"""The tables, and the file that keeps them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.gates import Verdict, ratio_of
from benchmarks.measure import Comparison, Figures

__all__ = ["markdown", "put_section", "table", "verdict_table"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def put_section(path: Path, title: str, lines: Sequence[str]) -> None:
    """Write a section of a file, in the place of the one with the same title where there is one."""
    old = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    head, *sections = re.split(r"(?m)^(?=## )", old)
    new = "\n".join([f"## {title}", "", *lines]).rstrip() + "\n\n"
    places = [k for k, section in enumerate(sections) if section.splitlines()[0] == f"## {title}"]
    if places:
        sections[places[0]] = new
    else:
        sections.append(new)
    text = head.rstrip() + "\n\n" + "".join(section.rstrip() + "\n\n" for section in sections)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def verdict_table(lines: Sequence[Verdict]) -> list[str]:
    """Return gates and aims as markdown."""
    head = ["work", "to", "against", "times as fast (least to most over repeats)", "gate", "aim", "holds"]
    return markdown(head, [[*line[:6], _holds(line)] for line in lines])


def _holds(line: Verdict) -> str:
    if not line.holds:
        return "**no**"
    return "yes" if line.aimed is None else "yes, and the aim" if line.aimed else "yes, the aim not"


def table(found: Comparison) -> list[str]:
    """Return the figures of one workload as markdown."""
    ours = found.methods[0]
    head = ["", *(f"to {target:g}" for target in found.targets), "sweep", "around", "compile", "lowest f / best - 1"]
    rows = []
    for item in found.methods:
        if item.failure:
            rows.append([item.name, f"failed: {item.failure}", *[""] * (len(head) - 2)])
            continue
        reached = f"{item.reached / found.best - 1:.1e} in {item.followed}"
        if item.glimpse is not None:
            reached += f", {item.glimpse:.1f} s"
            rows.append([item.name, *["only looked at"] * len(found.targets), "", "", "", reached])
            continue
        cells = [_time(item, target) for target in found.targets]
        rows.append(
            [item.name, *cells, _milliseconds(item.sweep), _seconds(item.around), f"{item.compile:.2f} s", reached]
        )
    for item in found.methods[1:]:
        if item.glimpse is None and not item.failure and not ours.failure:
            cells = [_ratio(ours, item, target) for target in found.targets]
            rows.append([f"**{item.name} / ours**", *cells, f"{item.sweep / ours.sweep:.2f}", "", "", ""])
    floor = ""
    if found.floor is not None and ours.sweep > 0:
        floor = (
            f" reading them twice takes {1e3 * found.floor:.2f} ms, and a sweep of ours over all of them "
            f"**{ours.sweep / found.floor:.2f} times** as long;"
        )
    return [
        f"### {found.name}: {found.title}",
        "",
        *markdown(head, rows),
        "",
        f"f_best {found.best:.9g}; data {found.stored / 1e6:.0f} MB as stored;{floor} load average "
        f"{found.load[0]:.1f} at the beginning, {found.load[1]:.1f} at the end.",
        "",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds > 0 else "lost in noise"


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if np.isfinite(value) else ""


def _time(item: Figures, target: float) -> str:
    found = item.fastest(target)
    if found is None:
        return f"not in {item.followed} sweeps"
    setting, timing = found
    return f"{timing.median:.3f} s ({timing.best:.3f} to {timing.worst:.3f}; {setting})"


def _ratio(ours: Figures, peer: Figures, target: float) -> str:
    mine, other = ours.fastest(target), peer.fastest(target)
    if mine is None:
        return "not reached"
    if other is None:
        return "peer did not reach it"
    ratio, least, most = ratio_of(mine[1], other[1])
    return f"{ratio:.1f} ({least:.1f} to {most:.1f})"
