"""Eight starts against one: whole calls on W1, from random starts.

Run with ``python -m benchmarks.restarts``.
"""

from __future__ import annotations

import statistics
import time

import tensorspec as ts
from benchmarks.planted import two_way

__all__ = ["main"]

REPEATS = 5


def main() -> None:
    """Print how many times as long eight starts take as one."""
    data = next(iter(two_way("full").tensors.values()))

    def seconds(count: int) -> float:
        began = time.perf_counter()
        ts.fit(data, ts.NMF(6), start=ts.Random(), restarts=count, tol=1e-5, progress=False)
        return time.perf_counter() - began

    seconds(2)
    # Interleaved, so that a busy moment of the machine meets both.
    pairs = [(seconds(1), seconds(8)) for _ in range(REPEATS)]
    ratios = sorted(eight / one for one, eight in pairs)
    one, eight = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"one start {one:.3f} s, eight {eight:.3f} s: {eight / one:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
