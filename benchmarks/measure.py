"""Time to an objective, time of a sweep, and the floor under it.

The objective of every answer is evaluated here, in float64, by the same function for all methods and outside the timed
calls.  Excess is ``f / f_best - 1`` with f_best the lowest value that any method reached on the workload.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from methods import Answer, Method
from planted import Workload

__all__ = ["Comparison", "Figures", "TARGETS", "Timing", "compare", "objective", "read_bandwidth"]

TARGETS = (1e-2, 1e-3, 1e-4)
# BLAS threads spin for a while after a product; the next method must not be timed beside them.
_PAUSE = 0.2
# A peer is followed until it is this near to the best that is known, or until its sweeps are used up.
_CLOSE = 2e-5


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


@dataclass
class Figures:
    """What was measured of one method.

    Attributes
    ----------
    name
        Of the method.
    compile
        Seconds that the first call took longer than the second.
    sweeps
        For each target the sweeps that it took, None where it was not reached.
    times
        For each target the whole call.
    short, long
        Calls of few and of many sweeps, whose difference is the time of a sweep.
    reached
        Lowest objective seen.
    followed
        Sweeps for which its objective was followed.
    """

    name: str
    compile: float = 0.0
    sweeps: dict[float, int | None] = field(default_factory=dict)
    times: dict[float, Timing] = field(default_factory=dict)
    short: tuple[int, Timing] = (0, Timing())
    long: tuple[int, Timing] = (0, Timing())
    reached: float = np.inf
    followed: int = 0

    @property
    def sweep(self) -> float:
        """Seconds of one sweep."""
        return (self.long[1].best - self.short[1].best) / (self.long[0] - self.short[0])

    @property
    def around(self) -> float:
        """Seconds of a call that are not sweeps."""
        return max(self.short[1].best - self.short[0] * self.sweep, 0.0)


@dataclass
class Comparison:
    """All figures of one workload."""

    title: str
    methods: list[Figures]
    best: float
    data_bytes: int
    bandwidth: float
    load: tuple[float, float]

    @property
    def floor(self) -> float:
        """Seconds that reading the data twice takes at the least."""
        return 2 * self.data_bytes / self.bandwidth


def objective(workload: Workload, answer: Answer) -> float:
    """Return half the squared residual over all tensors, in float64."""
    total = 0.0
    for key, data in workload.arrays.items():
        first, *others = (np.asarray(factor, np.float64) for factor in answer[key])
        flat = others[0]
        for factor in others[1:]:
            flat = (flat[:, None, :] * factor[None, :, :]).reshape(-1, workload.rank)
        rows = max(1, 2**21 // len(flat))
        for k in range(0, len(first), rows):
            residual = first[k : k + rows] @ flat.T
            residual -= data[k : k + rows].reshape(len(residual), -1)
            total += 0.5 * float(np.vdot(residual, residual))
    return total


def read_bandwidth(arrays: list[np.ndarray], repeats: int = 7) -> float:
    """Return the bytes per second at which two threads read the data, the best of several ways.

    A way is a BLAS dot product or a maximum in two threads, each over half the data, and the compiled sum and
    matrix-vector product of XLA.  The arrays are those of the workload, so that a cache that holds them counts.
    """
    import jax

    flats = [array.reshape(-1) for array in arrays]
    halves = [[flat[: flat.size // 2] for flat in flats], [flat[flat.size // 2 :] for flat in flats]]
    on_device = [jax.device_put(array.reshape(array.shape[0], -1)) for array in arrays]
    ones = [jax.device_put(np.ones(array.shape[1], array.dtype)) for array in on_device]
    summed = jax.jit(lambda parts: [part.sum() for part in parts])
    product = jax.jit(lambda parts, vectors: [part @ vector for part, vector in zip(parts, vectors, strict=True)])
    with ThreadPoolExecutor(2) as pool:
        ways: list[Callable[[], Any]] = [
            lambda: list(pool.map(lambda half: [float(np.dot(part, part)) for part in half], halves)),
            lambda: list(pool.map(lambda half: [float(part.max()) for part in half], halves)),
            lambda: jax.block_until_ready(summed(on_device)),
            lambda: jax.block_until_ready(product(on_device, ones)),
        ]
        for way in ways:
            way()
        best = min(_seconds(way) for _ in range(repeats) for way in ways)
    return sum(flat.nbytes for flat in flats) / best


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _timed(method: Method, sweeps: int, into: Timing) -> Any:
    time.sleep(_PAUSE)
    began = time.perf_counter()
    result = method.run(sweeps)
    into.seconds.append(time.perf_counter() - began)
    return result


class Trace:
    """The objective after each sweep of a method, evaluated where it is asked for; it falls from sweep to sweep.

    Parameters
    ----------
    workload, method
        What is followed.
    limit
        Sweeps at the most.
    known
        Lowest objective known so far: near to it there is nothing more to follow.

    Attributes
    ----------
    reported
        Whether the values are those that the method itself reports.
    """

    def __init__(self, workload: Workload, method: Method, limit: int, known: float) -> None:
        self._workload = workload
        self._items: list[float | Answer] = []
        self.reported = False
        for item in method.trace(limit):
            self._items.append(item)
            self.reported = isinstance(item, float)
            # Evaluating takes longer than a sweep; every twentieth part of the way is near enough to stop.
            if np.isfinite(known) and len(self) % max(1, len(self) // 20) == 0 and self[-1] <= (1 + _CLOSE) * known:
                break

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> float:
        item = self._items[index]
        if not isinstance(item, float):
            item = self._items[index] = objective(self._workload, item)
        return item

    def first_below(self, level: float) -> int | None:
        """Return the number of sweeps after which the objective is at or below a level, by bisection."""
        if self[-1] > level:
            return None
        low, high = 0, len(self)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self[middle - 1] <= level else (middle, high)
        return high


def compare(
    workload: Workload, methods: list[Method], repeats: int, limit: int, say: Callable[[str], None]
) -> Comparison:
    """Measure every method; repeats are interleaved, so that a change of load meets all of them.

    Parameters
    ----------
    workload
        Data and start.
    methods
        The first is followed first; its end is what the others are followed to.
    repeats
        Of every timed call.
    limit
        Sweeps for which a method is followed.
    say
        Told what goes on.
    """
    load = os.getloadavg()[0]
    found = [Figures(method.name) for method in methods]
    for method, figures in zip(methods, found, strict=True):
        first, second = Timing(), Timing()
        _timed(method, 2, first)
        _timed(method, 2, second)
        figures.compile = max(first.best - second.best, 0.0)
    bandwidth = read_bandwidth(list(workload.arrays.values()))

    traces = []
    for method, figures in zip(methods, found, strict=True):
        trace = Trace(workload, method, limit, min(item.reached for item in found))
        # The objective that a fit reports comes from float32 products: what it reached is evaluated like the rest.
        figures.reached = objective(workload, method.answer(method.run(limit))) if trace.reported else trace[-1]
        figures.followed = len(trace)
        traces.append(trace)
        say(f"{workload.name} {method.name}: followed for {len(trace)} sweeps to {figures.reached:.9g}")
    best = min(figures.reached for figures in found)

    for method, figures, trace in zip(methods, found, traces, strict=True):
        for target in TARGETS:
            figures.sweeps[target] = _sweeps_to(workload, method, trace, (1 + target) * best)
            figures.times[target] = Timing()
        quick = figures.name == methods[0].name
        figures.short, figures.long = (2, Timing()), (66 if quick else 12, Timing())
    for repeat in range(repeats):
        for target in TARGETS:
            for method, figures in zip(methods, found, strict=True):
                if figures.sweeps[target] is not None:
                    _timed(method, figures.sweeps[target], figures.times[target])
        for method, figures in zip(methods, found, strict=True):
            for sweeps, timing in (figures.short, figures.long):
                _timed(method, sweeps, timing)
        bandwidth = max(bandwidth, read_bandwidth(list(workload.arrays.values())))
        say(f"{workload.name}: repeat {repeat + 1} of {repeats} done, load {os.getloadavg()[0]:.1f}")
    size = sum(array.nbytes for array in workload.arrays.values())
    return Comparison(workload.title, found, best, size, bandwidth, (load, os.getloadavg()[0]))


def _sweeps_to(workload: Workload, method: Method, trace: Trace, level: float) -> int | None:
    """Return the sweeps after which the answer of a plain call is at the level, evaluated in float64."""
    guess = trace.first_below(level)
    while guess is not None and guess <= len(trace):
        if objective(workload, method.answer(method.run(guess))) <= level:
            return guess
        guess += 1
    return None
