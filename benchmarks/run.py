"""Compare tensorspec with scikit-learn and tensorly at equal objective.

python benchmarks/run.py --quick        smoke check, less than a minute, writes nothing
python benchmarks/run.py                all, some minutes on an idle machine; writes benchmarks/RESULTS.md
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
# Settings that slow numpy, and so the peers; they are read when its BLAS is loaded.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

_METHOD = """Planted non-negative low rank plus Poisson noise (`planted.py` says how); the same float32 data and random
start for every method; the objective 1/2 ||X - M||^2 of every answer evaluated in float64; excess f / f_best - 1 with
f_best the lowest value that any method reached.  Times are whole calls of as many sweeps as the excess takes, compiled
before (by a call on the same shapes in the same process, no persistent cache: column `compile`): the best of
interleaved repeats, and their median.  `sweep` is the slope between a short and a long call, `around` what a call takes
besides.  The read bandwidth is the best of a two-threaded BLAS dot, a two-threaded maximum and XLA's sum and
matrix-vector product on the same arrays."""


def main() -> int:
    """Run, print, and write the results."""
    options = _parser().parse_args()
    if any(name in os.environ for name in SLOWING):
        kept = {name: value for name, value in os.environ.items() if name not in SLOWING}
        os.execve(sys.executable, [sys.executable, *sys.argv], kept)

    import planted
    from measure import compare
    from methods import methods_for
    from report import environment, requirements, table

    workloads = {"W1": planted.two_way, "W3": planted.order_three, "W4": planted.coupled}
    limit = options.limit or (60 if options.quick else 600)
    repeats = options.repeats or (1 if options.quick else 3)
    found = {}
    for name in options.only or workloads:
        workload = workloads[name](options.quick, options.seed)
        print(f"{name}: {workload.title}", flush=True)
        found[name] = compare(workload, methods_for(workload), repeats, limit, lambda text: print(" ", text))
    lines = []
    for name, comparison in found.items():
        lines += table(name, comparison)
    checks = [] if options.quick else requirements(found)
    verdict = [f"- {'holds' if holds else '**does not hold**'}: {text}" for text, holds in checks]
    text = "\n".join([*_head(environment()), *lines, *(["## Requirements", "", *verdict, ""] if verdict else [])])
    print(text)
    output = options.output or (None if options.quick else HERE / "RESULTS.md")
    if output is not None:
        Path(output).write_text(text, encoding="utf-8")
    return 1 if options.check and not all(holds for _, holds in checks) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="benchmarks/run.py", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small data, for a smoke check")
    parser.add_argument("--only", nargs="+", choices=("W1", "W3", "W4"), help="these workloads")
    parser.add_argument("--repeats", type=int, help="of every timed call (default 3, quick 1)")
    parser.add_argument("--limit", type=int, help="sweeps for which a method is followed (default 600, quick 60)")
    parser.add_argument("--seed", type=int, default=1, help="of data and start (default 1)")
    parser.add_argument("--output", help="markdown file (default benchmarks/RESULTS.md, none with --quick)")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a requirement does not hold")
    return parser


def _head(machine: list[str]) -> list[str]:
    command = " ".join(["python", "benchmarks/run.py", *sys.argv[1:]])
    return [
        "# Benchmarks",
        "",
        f"`{command}` on {date.today().isoformat()}.",
        "",
        *(f"- {line}" for line in machine),
        "",
        _METHOD,
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
