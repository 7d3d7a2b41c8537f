"""How the cost grows with pixels, channels, rank and order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Timing, slope_of, timed
from benchmarks.methods import Setting, Tensorspec
from benchmarks.planted import Workload, matrix, with_order
from benchmarks.report import markdown

__all__ = ["growth"]

SWEEPS = 20
# Each with what is varied, and the workload at a value of it.
SERIES: dict[str, dict[str, tuple[list[int], Callable[[int, int], Workload]]]] = {
    "full": {
        "pixels": ([32**2, 48**2, 64**2, 96**2, 128**2], lambda n, seed: matrix(n, 1024, 6, seed)),
        "channels": ([64, 128, 256, 512, 1024], lambda n, seed: matrix(128**2, n, 6, seed)),
        "rank": ([2, 4, 8, 16, 32], lambda n, seed: matrix(64**2, 1024, n, seed)),
        "order": ([2, 3, 4, 5], lambda n, seed: with_order(_SHAPES[n], 6, seed)),
    },
    "tiny": {
        "rank": ([2, 3], lambda n, seed: matrix(8**2, 32, n, seed)),
    },
}
# Shapes with the same number of entries, 4 194 304.
_SHAPES = {2: (4096, 1024), 3: (1024, 64, 64), 4: (256, 16, 32, 32), 5: (64, 16, 16, 16, 16)}
_FIXED = {
    "pixels": "1024 channels, rank 6",
    "channels": "16384 pixels, rank 6",
    "rank": "4096 x 1024",
    "order": "4.2 million entries each, rank 6",
}

_METHOD = f"""Planted counts; a whole call of {SWEEPS} sweeps, compiled before, and one sweep over all data (the slope
between calls of 2 and of 66 sweeps): the shortest of the repeats.  The exponent is the slope of a straight line through
the logarithms; one is linear, and less than one says that there is a part that does not grow.  That of the order is
over data of equal size."""


def growth(size: str, seed: int, repeats: int, picture: Path | None, say: Callable[[str], None]) -> list[str]:
    """Measure, draw, and return the section."""
    found = {name: _series(name, *series, seed, repeats, say) for name, series in SERIES[size].items()}
    rows = []
    for name, (values, calls, sweeps) in found.items():
        exponents = [f"**{_exponent(values, seconds):.2f}**" for seconds in (calls, sweeps)]
        listed = [", ".join(f"{1e3 * item:.3g}" for item in seconds) for seconds in (calls, sweeps)]
        rows.append([name, _FIXED[name], ", ".join(map(str, values)), listed[0], exponents[0], listed[1], exponents[1]])
    head = ["varied", "fixed", "values", "call, ms", "exponent", "sweep, ms", "exponent"]
    lines = [_METHOD, "", *markdown(head, rows)]
    if picture is not None:
        draw(found, picture)
        lines += [
            "",
            f"![Time of a call and of a sweep over pixels, channels, rank and order](../{_from_root(picture)})",
        ]
    return lines


def _from_root(picture: Path) -> str:
    root = Path(__file__).resolve().parent.parent
    return str(picture.relative_to(root) if picture.is_relative_to(root) else picture)


def _series(
    name: str,
    values: list[int],
    make: Callable[[int, int], Workload],
    seed: int,
    repeats: int,
    say: Callable[[str], None],
) -> tuple[list[int], list[float], list[float]]:
    calls, sweeps = [], []
    for value in values:
        method, call = Tensorspec(make(value, seed)), Timing()
        method.run(Setting(SWEEPS))
        for _ in range(repeats):
            timed(method, Setting(SWEEPS), call)
        calls.append(call.best)
        sweeps.append(slope_of(method, repeats))
        say(f"{name} {value}: a call {1e3 * calls[-1]:.1f} ms, a sweep {1e3 * sweeps[-1]:.3f} ms")
    return values, calls, sweeps


def _exponent(values: list[int], seconds: list[float]) -> float:
    """Return the slope in logarithms, of those that were not lost in noise."""
    x, y = np.asarray(values, float), np.asarray(seconds)
    use = y > 0
    return float(np.polyfit(np.log(x[use]), np.log(y[use]), 1)[0]) if use.sum() > 1 else np.nan


def draw(found: dict[str, tuple[list[int], list[float], list[float]]], picture: Path) -> None:
    """Write one plot for each of what was varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, (values, calls, sweeps)) in zip(axes, found.items(), strict=True):
        for label, seconds, mark in ((f"call of {SWEEPS} sweeps", calls, "o"), ("sweep", sweeps, "s")):
            x, y = np.asarray(values, float), 1e3 * np.asarray(seconds)
            exponent = _exponent(values, seconds)
            (line,) = axis.loglog(x, np.where(y > 0, y, np.nan), mark, label=f"{label}, exponent {exponent:.2f}")
            use = y > 0
            if use.sum() > 1:
                fit = np.polyfit(np.log(x[use]), np.log(y[use]), 1)
                axis.loglog(x, np.exp(np.polyval(fit, np.log(x))), color=line.get_color(), linewidth=1)
        axis.set_xticks(values, [str(value) for value in values], rotation=45)
        axis.minorticks_off()
        axis.set_xlabel(f"{name} ({_FIXED[name]})", fontsize="small")
        axis.set_ylabel("time / ms")
        axis.legend(fontsize="x-small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
