"""Time to an objective, time of a sweep, and the floor under it.

Excess is ``f / f_best - 1`` with f_best the lowest value that any method reached on the workload.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import search
from benchmarks.bandwidth import read_bandwidth
from benchmarks.methods import Method, Setting
from benchmarks.planted import Workload
from benchmarks.search import Search

__all__ = ["Comparison", "Figures", "Timing", "compare", "slope_of", "sweep_over_floor", "timed"]


@dataclass
class Timing:
    """Repeated wall times of one call, in seconds."""

    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The shortest: what other programs disturbed least."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.seconds)


@dataclass
class Figures:
    """What was measured of one method.

    Attributes
    ----------
    name
        Of the method.
    compile
        Seconds that the first call took longer than the second.
    times
        For each target the settings that reach it, and the times of the whole calls.
    sweep
        Seconds of one sweep, from the difference of a short and a long call; NaN where there is none.
    around
        Seconds of a call that are not sweeps over all data.
    reached
        Lowest objective seen.
    followed
        Sweeps for which its objective was followed.
    glimpse
        Seconds of the only call, of a method that is too slow to be followed.
    """

    name: str
    compile: float = 0.0
    times: dict[float, dict[Setting, Timing]] = field(default_factory=dict)
    sweep: float = np.nan
    around: float = np.nan
    reached: float = np.inf
    followed: int = 0
    glimpse: float | None = None

    def fastest(self, target: float) -> tuple[Setting, Timing] | None:
        """Return the setting whose call has the shortest median among those that reach a target."""
        found = self.times.get(target)
        return min(found.items(), key=lambda item: item[1].median) if found else None


@dataclass
class Comparison:
    """All figures of one workload; ours come first.

    Attributes
    ----------
    floor
        Seconds that reading the data twice takes at the least; None for sparse data.
    """

    name: str
    title: str
    targets: tuple[float, ...]
    methods: list[Figures]
    best: float
    stored: int
    floor: float | None
    load: tuple[float, float]

    def method(self, name: str) -> Figures:
        """Return the figures of a method."""
        return next(item for item in self.methods if item.name == name)


def timed(method: Method, setting: Setting, into: Timing) -> Any:
    """Run a method once, add its wall time, and return what it returned."""
    time.sleep(search.PAUSE)
    began = time.perf_counter()
    result = method.run(setting)
    into.seconds.append(time.perf_counter() - began)
    return result


def compare(
    workload: Workload,
    methods: list[Method],
    repeats: int,
    limit: int,
    patience: float,
    say: Callable[[str], None],
    targets: Sequence[float] | None = None,
) -> Comparison:
    """Measure every method; repeats are interleaved, so that a change of load meets all of them.

    Parameters
    ----------
    workload
        Data and start.
    methods
        The first is followed first; its end is what the others are followed to.
    repeats
        Of every timed call; with 0 the only times are those of the calls by which the settings were found.
    limit
        Sweeps for which a method is followed.
    patience
        Seconds for which a method is followed.
    say
        Told what goes on.
    targets
        Excesses; by default those of the workload.
    """
    load = os.getloadavg()[0]
    targets = tuple(targets or workload.targets)
    found = [Figures(method.name) for method in methods]
    searches = [Search(workload, method, limit, patience) for method in methods]
    for method, figures in zip(methods, found, strict=True):
        if not method.glimpse:
            first, second = Timing(), Timing()
            timed(method, Setting(2), first)
            timed(method, Setting(2), second)
            figures.compile = max(first.best - second.best, 0.0)
    for figures, one in zip(found, searches, strict=True):
        one.follow(min(item.reached for item in found))
        figures.reached, figures.followed = one.reached, one.followed
        figures.glimpse = one.seconds(Setting(one.followed)) if one.method.glimpse else None
        say(f"{figures.name}: followed for {one.followed} sweeps to {figures.reached:.9g}")
    best = np.inf
    while best > (best := min(one.reached for one in searches)):  # the search itself may get lower
        for figures, one in zip(found, searches, strict=True):
            for target in targets if figures.glimpse is None else ():
                settings = one.settings_for((1 + target) * best)
                times = [[one.seconds(setting)] if repeats == 0 else [] for setting in settings]
                figures.times[target] = {k: Timing(v) for k, v in zip(settings, times, strict=True)}
    for figures, one in zip(found, searches, strict=True):
        figures.reached = one.reached
    slopes = [_Slope(method, 66 if k == 0 else 12) for k, method in enumerate(methods) if not method.glimpse]
    dense = [array for array in workload.arrays.values() if isinstance(array, np.ndarray)]
    bandwidth = 0.0
    for repeat in range(max(repeats, 1)):
        for target in targets if repeats else ():
            for method, figures in zip(methods, found, strict=True):
                for setting, timing in figures.times.get(target, {}).items():
                    timed(method, setting, timing)
        for slope in slopes:
            slope.repeat()
        if dense:
            bandwidth = max(bandwidth, read_bandwidth(dense))
        say(f"repeat {repeat + 1} of {max(repeats, 1)} done, load {os.getloadavg()[0]:.1f}")
    for figures, slope in zip((item for item in found if item.glimpse is None), slopes, strict=True):
        figures.sweep, figures.around = slope.sweep, slope.around
    floor = 2 * workload.stored / bandwidth if dense else None
    ends = (load, os.getloadavg()[0])
    return Comparison(workload.name, workload.title, targets, found, best, workload.stored, floor, ends)


class _Slope:
    """Times of a short and a long call, whose difference is that of the sweeps over all data that they made."""

    def __init__(self, method: Method, long: int) -> None:
        self._method = method
        self._settings, self._timings, self._sweeps = (Setting(2), Setting(long)), (Timing(), Timing()), [0, 0]

    def repeat(self) -> None:
        for k, (setting, timing) in enumerate(zip(self._settings, self._timings, strict=True)):
            self._sweeps[k] = self._method.sweeps(timed(self._method, setting, timing), setting)

    @property
    def sweep(self) -> float:
        more = self._sweeps[1] - self._sweeps[0]
        return (self._timings[1].best - self._timings[0].best) / more if more > 0 else np.nan

    @property
    def around(self) -> float:
        return max(self._timings[0].best - self._sweeps[0] * self.sweep, 0.0)


def slope_of(method: Method, repeats: int) -> float:
    """Return the seconds of one sweep over all data."""
    slope = _Slope(method, 66)
    method.run(Setting(2))
    for _ in range(repeats):
        slope.repeat()
    return slope.sweep


def sweep_over_floor(workload: Workload, method: Method, repeats: int) -> tuple[float, float]:
    """Return the seconds of a sweep over all data, and those of reading the data twice, measured in turn."""
    slope, bandwidth = _Slope(method, 66), 0.0
    method.run(Setting(2))
    for _ in range(repeats):
        slope.repeat()
        bandwidth = max(bandwidth, read_bandwidth(list(workload.arrays.values())))
    return slope.sweep, 2 * workload.stored / bandwidth
