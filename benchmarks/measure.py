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
    failure
        The error that it ended with.
    """

    name: str
    compile: float = 0.0
    times: dict[float, dict[Setting, Timing]] = field(default_factory=dict)
    sweep: float = np.nan
    around: float = np.nan
    reached: float = np.inf
    followed: int = 0
    glimpse: float | None = None
    failure: str = ""

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
    load, targets = os.getloadavg()[0], tuple(targets or workload.targets)
    courses = [_Course(method, Search(workload, method, limit, patience)) for method in methods]
    for course in courses:
        course.follow(min((other.search.reached for other in courses), default=np.inf), say)
    working = [course for course in courses if not course.figures.failure]
    followed = [course for course in working if not course.method.glimpse]
    best = np.inf
    while best > (best := min((course.search.reached for course in working), default=np.inf)):
        for course in followed:  # this search itself may get lower
            for target in targets:
                course.aim(target, (1 + target) * best, keep=repeats == 0)
    dense = [array for array in workload.arrays.values() if isinstance(array, np.ndarray)]
    bandwidth = 0.0
    for repeat in range(max(repeats, 1)):
        for target in targets if repeats else ():
            for course in followed:
                for setting, timing in course.figures.times[target].items():
                    timed(course.method, setting, timing)
        for course in followed:
            course.slope.repeat()
        if dense:
            bandwidth = max(bandwidth, read_bandwidth(dense))
        say(f"repeat {repeat + 1} of {max(repeats, 1)} done, load {os.getloadavg()[0]:.1f}")
    floor = 2 * workload.stored / bandwidth if dense else None
    ends = (load, os.getloadavg()[0])
    figures = [course.finished() for course in courses]
    return Comparison(workload.name, workload.title, targets, figures, best, workload.stored, floor, ends)


class _Course:
    """What is done with one method."""

    def __init__(self, method: Method, search: Search) -> None:
        self.method, self.search, self.figures = method, search, Figures(method.name)
        self.slope = _Slope(method, 66 if method.tolerances else 12)

    def follow(self, known: float, say: Callable[[str], None]) -> None:
        """Compile, and see how low it gets; a method that fails does not end the others."""
        figures, search = self.figures, self.search
        try:
            if not self.method.glimpse:
                first, second = Timing(), Timing()
                timed(self.method, Setting(2), first)
                timed(self.method, Setting(2), second)
                figures.compile = max(first.best - second.best, 0.0)
            search.follow(known)
        except Exception as error:
            figures.failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            say(f"{figures.name}: failed, {figures.failure}")
            return
        figures.followed = search.followed
        if self.method.glimpse:
            figures.glimpse = search.seconds(Setting(search.followed))
        say(f"{figures.name}: followed for {search.followed} sweeps to {search.reached:.9g}")

    def aim(self, target: float, level: float, keep: bool) -> None:
        """Find the settings that reach a level, with the times of those calls where they are to be kept."""
        settings = self.search.settings_for(level)
        times = [Timing([self.search.seconds(setting)] if keep else []) for setting in settings]
        self.figures.times[target] = dict(zip(settings, times, strict=True))

    def finished(self) -> Figures:
        figures = self.figures
        figures.reached = self.search.reached
        if not (figures.failure or self.method.glimpse):
            figures.sweep, figures.around = self.slope.sweep, self.slope.around
        return figures


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
