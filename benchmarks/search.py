"""The cheapest call of a method whose answer is at a given level, found by the same rule for all methods.

A call is judged by its answer alone, in float64, and not by what the method reports: so it does not matter whether its
sweeps work on all data, on compressed data or on some of both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

from benchmarks.bandwidth import seconds_of
from benchmarks.methods import Method, Setting
from benchmarks.objective import objective
from benchmarks.planted import Workload

__all__ = ["PAUSE", "Search"]

# BLAS threads spin for a while after a product; the next method must not be timed beside them.
PAUSE = 0.2

# A method is followed until it is this near to the best that is known, or until its sweeps are used up.
_CLOSE = 2e-5


class Search:
    """One method on one workload, with what its calls have reached so far.

    Parameters
    ----------
    workload, method
        What is looked at.
    limit
        Sweeps at the most.
    patience
        Seconds after which a method is followed no further.
    """

    def __init__(self, workload: Workload, method: Method, limit: int, patience: float) -> None:
        self.workload, self.method = workload, method
        self._limit, self._patience = limit, patience
        self._calls: dict[Setting, float] = {}
        self._seconds: dict[Setting, float] = {}
        self._trace: list[Any] = []
        self.followed = 0

    def value(self, setting: Setting) -> float:
        """Return the objective of the answer of a whole call."""
        if setting not in self._calls:
            result: list[Any] = []
            time.sleep(PAUSE)
            self._seconds[setting] = seconds_of(lambda: result.append(self.method.run(setting)))
            self._calls[setting] = objective(self.workload, self.method.answer(result[0]))
        return self._calls[setting]

    def seconds(self, setting: Setting) -> float:
        """Return the wall time of the call that `value` made."""
        return self._seconds[setting]

    @property
    def reached(self) -> float:
        """Lowest objective of any call."""
        traced = self._traced(len(self._trace)) if self._trace else inf
        return min([*self._calls.values(), traced])

    def follow(self, known: float) -> None:
        """Go as far as the limits allow, or to the lowest objective that is known (infinite where there is none)."""
        enough = (1 + _CLOSE) * known if isfinite(known) else -inf
        if self.method.glimpse:
            self.value(Setting(1))
            self.followed = max(2, min(self._limit, int(self._patience / self.seconds(Setting(1)))))
            self.value(Setting(self.followed))
            return
        trace, ends = self.method.trace(), time.perf_counter() + self._patience
        if trace is not None:
            for answer in trace:
                self._trace.append(answer)
                number = len(self._trace)
                # Evaluating takes longer than a sweep; every twentieth part of the way is near enough to stop.
                near = number % max(1, number // 20) == 0 and self._traced(number) <= enough
                if near or number >= self._limit or time.perf_counter() > ends:
                    break
            self.followed = len(self._trace)
            return
        # No further than a quarter of the patience: the next call takes up to four times as long.
        taken = 0.0
        while self.followed < self._limit and time.perf_counter() + 3 * taken < ends:
            self.followed = min(max(16, 4 * self.followed), self._limit)
            if self.value(Setting(self.followed)) <= enough:
                break
            taken = self.seconds(Setting(self.followed))

    def _traced(self, number: int) -> float:
        """Return the objective after that many sweeps of the trace."""
        item = self._trace[number - 1]
        if not isinstance(item, float):
            item = self._trace[number - 1] = objective(self.workload, item)
        return item

    def settings_for(self, level: float) -> list[Setting]:
        """Return settings whose answers are at or below a level: which is the fastest is for the clock to say.

        They are the least number of sweeps without a tolerance, and beside that the loosest tolerance that gets there
        and the next finer one, each with the least number of sweeps at which it still does.
        """
        found, exact = [], self._least_sweeps(level, 0.0)
        if exact is not None:
            found.append(Setting(exact))
        for tol in self.method.tolerances:
            if len(found) == 3:
                break
            if self.value(Setting(self.followed, tol)) <= level:
                least = self._least_sweeps(level, tol)
                if least is not None:
                    found.append(Setting(least, tol))
        return found

    def _least_sweeps(self, level: float, tol: float) -> int | None:
        if self._trace:
            last = len(self._trace)
            if self._traced(last) > level:
                return None
            guess = _first(lambda number: self._traced(number) <= level, 0, last)
            # The answer of a plain call may differ from that of the trace in the last digits.
            while guess <= last and self.value(Setting(guess)) > level:
                guess += 1
            return guess if guess <= last else None
        below, above = 0, 1
        while self.value(Setting(above, tol)) > level:
            if above >= self.followed:
                return None
            below, above = above, min(2 * above, self.followed)
        return _first(lambda number: self.value(Setting(number, tol)) <= level, below, above)


def _first(holds: Callable[[int], bool], below: int, above: int) -> int:
    """Return the first number for which something holds that does not hold for one number and does for the other."""
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above
