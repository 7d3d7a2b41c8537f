"""Measure tensorspec beside other packages, at equal objective.

python -m benchmarks               W1 to W6 beside the peers: many minutes on an idle machine
python -m benchmarks --quick       W1 and W4 to an excess of 1e-4, less than a minute, writes nothing
python -m benchmarks floor         a sweep of W1 over the time of reading its data twice
python -m benchmarks memory        largest resident size during a fit
python -m benchmarks cold          the first answer of a fresh process
python -m benchmarks threads       one core against two
python -m benchmarks growth        over pixels, channels, rank and order, with a figure
python -m benchmarks all           all of these

Each writes its section of benchmarks/RESULTS.md.  It runs from the root of the repository.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks.environment import SLOWING, without_slowing_settings

__all__ = ["SLOWING", "main"]

HERE = Path(__file__).resolve().parent
FIGURE = HERE.parent / "docs" / "_static" / "benchmarks" / "growth.png"
WORK = ("W1", "W2", "W3", "W4", "W5", "W6")

_METHOD = """Planted non-negative low rank plus Poisson noise (`planted.py` says how); the same float32 data and
random start for every method; the objective of every answer evaluated in float64 by the same function (half the
squared residual; W6 the Kullback-Leibler divergence); excess f / f_best - 1 with f_best the lowest value that any
method reached. Times are those of whole calls, compiled before (column `compile`: what the first call took longer;
no persistent cache): the median of interleaved repeats, and the shortest and the longest. Each method makes the
fastest call whose answer is below the target: as few sweeps as that takes, with or without a tolerance where it has
one (`search.py`). `sweep` is the slope between a short and a long call over the sweeps on all data that they made,
`around` what a call takes besides. The read bandwidth is the best of a two-threaded BLAS dot, a two-threaded
maximum and XLA's sum and matrix-vector product on the same arrays. Methods that are only looked at make one call
from the same start, of as many sweeps as their time allows."""


def main() -> int:
    """Run, print, and write the results."""
    options = _parser().parse_args()
    without_slowing_settings()
    measures: dict[str, Callable[[argparse.Namespace], tuple[str, list[str], list[tuple[str, bool]]]]] = {
        "peers": _peers,
        "floor": _floor,
        "memory": _memory,
        "cold": _cold,
        "threads": _threads,
        "growth": _growth,
    }
    chosen = list(measures) if options.what == "all" else [options.what]
    output = Path(options.output) if options.output else None if options.quick or options.tiny else HERE / "RESULTS.md"
    failed = []
    for name in chosen:
        from benchmarks.environment import environment

        before = os.getloadavg()[0]
        title, lines, checks = measures[name](options)
        today = date.today().isoformat()
        about = f"Measured on {today} with `{_command(name)}`; load average {before:.1f} at the beginning."
        section = [about, "", *(f"- {line}" for line in environment()), "", *lines]
        print("\n".join([f"## {title}", "", *section, ""]), flush=True)
        if output is not None:
            from benchmarks.report import put_section

            put_section(output, title, section)
        failed += [text for text, holds in checks if not holds]
    for text in failed:
        print(f"does not hold: {text}", file=sys.stderr)
    return 1 if options.check and failed else 0


def _size(options: argparse.Namespace) -> str:
    return "tiny" if options.tiny else "full"


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _peers(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.gates import verdicts
    from benchmarks.measure import compare
    from benchmarks.peers import methods_for
    from benchmarks.planted import WORKLOADS
    from benchmarks.report import table, verdict_table

    quick = options.quick
    limit = options.limit or (128 if quick or options.tiny else 600)
    patience = options.patience or (20.0 if quick else 60.0)
    found = {}
    for name in options.only or (("W1", "W4") if quick else WORK):
        workload = WORKLOADS[name](_size(options), options.seed)
        print(f"{name}: {workload.title}", flush=True)
        targets = workload.targets[-1:] if quick else workload.targets
        methods = methods_for(workload, glimpses=not quick)
        found[name] = compare(workload, methods, _repeats(options), limit, patience, _say, targets)
        print("\n".join(table(found[name])), flush=True)
    lines = verdicts(found)
    body = [line for comparison in found.values() for line in table(comparison)]
    checks = [(f"{line.work} to {line.to} against {line.against}: {line.measured}", line.holds) for line in lines]
    return "Beside other packages", [_METHOD, "", *verdict_table(lines), "", *body], checks


def _floor(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.gates import floor_verdict
    from benchmarks.measure import sweep_over_floor
    from benchmarks.methods import Tensorspec
    from benchmarks.planted import two_way
    from benchmarks.report import verdict_table

    workload = two_way(_size(options), options.seed)
    sweep, floor = sweep_over_floor(workload, Tensorspec(workload), max(_repeats(options), 1))
    line = floor_verdict(sweep / floor)
    text = f"A sweep takes {1e3 * sweep:.2f} ms, reading the data twice {1e3 * floor:.2f} ms."
    checks = [(f"a sweep of W1 over the two-read floor: {line.measured}, {line.gate}", line.holds)]
    return "A sweep over the floor", [text, "", *verdict_table([line])], checks


def _memory(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.memory import memory

    return "Memory", *memory(_size(options), options.only, options.seed, _say)


def _cold(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.cold import cold

    return "First answer", *cold(_size(options), options.seed, max(_repeats(options), 1), _say)


def _threads(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.cold import threads

    return "Threads", threads(_size(options), options.seed, max(_repeats(options), 1), _say), []


def _growth(options: argparse.Namespace) -> tuple[str, list[str], list[tuple[str, bool]]]:
    from benchmarks.growth import growth

    picture = None if options.tiny else FIGURE
    return "Growth", growth(_size(options), options.seed, max(_repeats(options), 1), picture, _say), []


def _repeats(options: argparse.Namespace) -> int:
    return (0 if options.quick else 1 if options.tiny else 3) if options.repeats is None else options.repeats


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="peers",
        choices=("peers", "floor", "memory", "cold", "threads", "growth", "all"),
        help="what to measure (default peers)",
    )
    parser.add_argument("--quick", action="store_true", help="W1 and W4 to the last target, one repeat")
    parser.add_argument("--tiny", action="store_true", help="data of no meaning, to see that all runs")
    parser.add_argument("--only", nargs="+", choices=WORK, help="these workloads")
    parser.add_argument(
        "--repeats", type=int, help="of every timed call (default 3; --quick: only those of the search)"
    )
    parser.add_argument("--limit", type=int, help="sweeps for which a method is followed (default 600; quick 128)")
    parser.add_argument("--patience", type=float, help="seconds for which a method is followed (default 60; quick 20)")
    parser.add_argument("--seed", type=int, default=1, help="of data and start (default 1)")
    parser.add_argument("--output", help="markdown file (default benchmarks/RESULTS.md, none with --quick)")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a gate does not hold")
    return parser


def _command(name: str) -> str:
    left_out = {"all", name}
    if "--output" in sys.argv:  # where somebody writes to is nobody else's matter
        left_out |= set(sys.argv[sys.argv.index("--output") :][:2])
    given = [item for item in sys.argv[1:] if item not in left_out]
    return " ".join(["python -m benchmarks", *([] if name == "peers" else [name]), *given])


if __name__ == "__main__":
    sys.exit(main())
