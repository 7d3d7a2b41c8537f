"""What has to hold (gate), what a good implementation passes (aim), and whether it does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.measure import Comparison, Timing

__all__ = ["Verdict", "ratio_of", "verdicts"]


class Gate(NamedTuple):
    """Times as fast as a peer to an excess, at the least."""

    target: float
    against: str
    gate: float
    aim: float


GATES = {
    "W1": (Gate(1e-4, "tensorly HALS", 15, 50), Gate(1e-4, "scikit-learn cd", 50, 150)),
    "W2": (Gate(5e-4, "scikit-learn cd", 5, 20),),
    "W3": (Gate(1e-4, "tensorly HALS", 30, 120),),
    "W4": (Gate(1e-4, "scikit-learn cd", 15, 60),),
    "W5": (Gate(1e-2, "tensorly HALS", 30, 200),),
    "W6": (Gate(2e-2, "scikit-learn mu", 20, 50),),
}
# A sweep of W1 over all data, in times that reading the data twice takes.  A product that XLA lays out badly takes ten
# times as long as it should, and would be noticed here.
SWEEP_GATE, SWEEP_AIM = 4.0, 2.0


class Verdict(NamedTuple):
    """One line of the table; ``aimed`` is None where there is only a gate."""

    work: str
    to: str
    against: str
    measured: str
    gate: str
    aim: str
    holds: bool
    aimed: bool | None


def ratio_of(ours: Timing, peer: Timing) -> tuple[float, float, float]:
    """Return how many times as fast ours is: by the medians, and the least and the most over the repeats."""
    ratios = [theirs / mine for mine, theirs in zip(ours.seconds, peer.seconds, strict=True)]
    return peer.median / ours.median, min(ratios), max(ratios)


def verdicts(found: dict[str, Comparison]) -> list[Verdict]:
    """Return one line for each gate of the workloads that were measured."""
    lines = []
    for name, comparison in found.items():
        ours = comparison.methods[0]
        for gate in GATES[name]:
            lines.append(_speed(comparison, gate))
        if name == "W1" and comparison.floor is not None:
            lines.append(floor_verdict(ours.sweep / comparison.floor))
        if name == "W2":
            lines.append(_lowest(comparison, "scikit-learn cd"))
    return lines


def floor_verdict(ratio: float) -> Verdict:
    """Return the line of a sweep of W1 over the two-read floor."""
    return Verdict(
        "W1",
        "a sweep over all data",
        "two-read floor",
        f"{ratio:.2f} times",
        f"at most {SWEEP_GATE:g}",
        f"{SWEEP_AIM:g}",
        bool(ratio <= SWEEP_GATE),
        bool(ratio <= SWEEP_AIM),
    )


def _lowest(comparison: Comparison, against: str) -> Verdict:
    ours, theirs = comparison.methods[0].reached, comparison.method(against).reached
    above = f"{ours / theirs - 1:+.1e}" if np.isfinite(ours) else "failed"
    return Verdict(comparison.name, "lowest objective", against, above, "not above", "", ours <= theirs, None)


def _speed(comparison: Comparison, gate: Gate) -> Verdict:
    ours, peer = comparison.methods[0].fastest(gate.target), comparison.method(gate.against)
    theirs = peer.fastest(gate.target)
    if ours is None:
        measured, ratio = "failed" if comparison.methods[0].failure else "not reached", 0.0
    elif theirs is None:
        # What it did not reach in all the sweeps that it was followed for takes it longer than those.
        ratio = peer.followed * peer.sweep / ours[1].median
        measured = f"more than **{ratio:.1f}**: not reached in {peer.followed} sweeps"
    else:
        ratio, least, most = ratio_of(ours[1], theirs[1])
        measured = f"**{ratio:.1f}** ({least:.1f} to {most:.1f})"
    return Verdict(
        comparison.name,
        f"{gate.target:g}",
        gate.against,
        measured,
        f"{gate.gate:g}",
        f"{gate.aim:g}",
        ratio >= gate.gate,
        ratio >= gate.aim,
    )
