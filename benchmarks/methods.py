"""The methods that are compared, each as one plain call; tensorspec is here, the others in `peers`.

A method is a function of a `Setting`.  Every one gets the same data, and the same start where it takes one, and is
timed from the outside, whole: what its call does before and after the sweeps counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.objective import Answer, Parts
from benchmarks.planted import Workload

__all__ = ["Method", "Setting", "Tensorspec"]


class Setting(NamedTuple):
    """How far a call goes: at most that many sweeps, and perhaps a tolerance that stops it earlier."""

    sweeps: int
    tol: float = 0.0

    def __str__(self) -> str:
        return f"{self.sweeps} sweeps" + (f", tol={self.tol:g}" if self.tol else "")


class Method(ABC):
    """One method on one workload.

    Attributes
    ----------
    name
        Of the method.
    tolerances
        Tolerances worth trying, the loosest first; zero (exactly that many sweeps) is always tried.
    glimpse
        Whether it is so slow that it is only looked at once, for some seconds.
    """

    name: str
    tolerances: tuple[float, ...] = ()
    glimpse: bool = False

    @abstractmethod
    def run(self, setting: Setting) -> Any:
        """Run from the start: this is what is timed."""

    @abstractmethod
    def answer(self, result: Any) -> Answer:
        """Return the factors in what `run` returned; not timed."""

    def sweeps(self, result: Any, setting: Setting) -> int:
        """Return the sweeps over all data that the call made."""
        del result
        return setting.sweeps

    def trace(self) -> Iterator[Answer] | None:
        """Return the factors after each sweep, where a call of n sweeps is n calls of one; not timed."""
        return None


class Tensorspec(Method):
    """``ts.fit`` on labelled data, compile time apart (an earlier call on the same shapes has compiled).

    Parameters
    ----------
    workload
        Data and start.
    options
        Further arguments of ``ts.fit``.

    Attributes
    ----------
    data, model, loss
        The arguments of ``ts.fit``.
    """

    name = "tensorspec"
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)

    def __init__(self, workload: Workload, **options: Any) -> None:
        import tensorspec as ts

        self._fit, self._modes = ts.fit, workload.modes
        self.data = next(iter(workload.tensors.values())) if len(workload.tensors) == 1 else workload.tensors
        start, core = dict(workload.start), workload.start.get("core")
        self.model = ts.NMF(workload.rank)
        units: dict[str, Any] = {}
        if core is not None:
            modes = next(iter(self._modes.values()))
            self.model = ts.Tucker(
                dict.fromkeys(modes, workload.rank), dict.fromkeys((*modes, "core"), ts.NonNegative())
            )
            start["core"] = core.reshape(1, -1)
        if core is not None or len(workload.tensors) > 1:
            # Weights of one in the units of the data: then a coupled fit minimises what the fit of a concatenation
            # does, and a given core is in the same units as that of the others.
            units = {"weights": 1.0, "rescale": False}
        self.loss = ts.Poisson() if workload.poisson else None
        self._options = {"start": ts.From(start), "loss": self.loss, "progress": False, **units, **options}

    def run(self, setting: Setting) -> Any:
        """Return the fit."""
        return self._fit(self.data, self.model, max_sweeps=setting.sweeps, tol=setting.tol, **self._options)

    def answer(self, result: Any) -> Answer:
        """Return factors with the strengths on those of the first mode."""
        found = {}
        for key, modes in self._modes.items():
            factors = [_columns(result.factors[mode]) for mode in modes]
            if "core" in self.model.constraints:
                found[key] = Parts(factors, result.core.values)
            else:
                found[key] = Parts([factors[0] * result.strengths(key).values, *factors[1:]])
        return found

    def sweeps(self, result: Any, setting: Setting) -> int:
        """Return the sweeps that the fit reports."""
        del setting
        return int(result.sweeps)


def _columns(factor: Any) -> np.ndarray:
    return factor.transpose("component", ...).values.reshape(factor.sizes["component"], -1).T
