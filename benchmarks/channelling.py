"""How long responses of a spinel take once compiled, for a systematic row and for a zone axis, and their memory.

Run it from the root of the repository: ``python -m benchmarks.channelling``.
"""

import resource
import time
from unittest import mock

import numpy as np

from tensorspec import channelling as ch
from tensorspec.channelling import site_response

LINES = ["Mn K", "Ni K", "O K", "Mn L23", "Ni L23"]
MORE_LINES = [*LINES, "Ca L23", "Li K"]
DEPTHS = np.arange(5.0, 101, 5)
REPEATS = 3


def seconds(crystal: ch.Crystal, scan: ch.Scan, lines: list[str]) -> float:
    """Return the shortest of some calls, the first of which is not counted."""
    taken = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        ch.response(crystal, scan, lines, DEPTHS, check=False)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def main() -> None:
    """Print a table in Markdown."""
    crystal = ch.phantoms.spinel()
    row = ch.systematic_row(crystal, (4, 0, 0), np.linspace(-3, 3, 61), 200, in_bragg_angles=True)
    zone = ch.zone_axis(crystal, (0, 0, 1), np.linspace(-12, 12, 41), 200, largest=1.35)
    print("| scan | orientations | beams | lines | seconds |")
    print("|---|---|---|---|---|")
    print(f"| row (400) | 61 | {len(row.beams)} | {len(LINES)} | {seconds(crystal, row, LINES):.2f} |")
    every = "| zone [001]{} | 41 x 41 | {} | {} | {:.2f} |"
    quick = seconds(crystal, zone, MORE_LINES)
    print(every.format(", its symmetry used", len(zone.beams), len(MORE_LINES), quick))
    with mock.patch.object(site_response, "FEW_ORIENTATIONS", 10**9):
        plain = seconds(crystal, zone, MORE_LINES)
    print(every.format(", each orientation", len(zone.beams), len(MORE_LINES), plain))
    print(f"\nPeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
