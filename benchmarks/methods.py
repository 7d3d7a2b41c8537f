"""The methods that are compared: tensorspec, scikit-learn's NMF and tensorly's HALS, each as one plain call.

A method is a function of the number of sweeps.  Every one gets the same data and start, runs exactly that many sweeps
(a tolerance of zero) and is timed from the outside, whole: what its call does before and after the sweeps counts.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from planted import Workload

__all__ = ["Answer", "Method", "Sklearn", "Tensorly", "Tensorspec", "methods_for"]

# For each tensor the factor of each of its modes, in the units of the data.
Answer = dict[str, list[np.ndarray]]


class Method(ABC):
    """One method on one workload."""

    name: str

    @abstractmethod
    def run(self, sweeps: int) -> Any:
        """Run that many sweeps from the start: this is what is timed."""

    @abstractmethod
    def answer(self, result: Any) -> Answer:
        """Return the factors in what `run` returned; not timed."""

    @abstractmethod
    def trace(self, sweeps: int) -> Iterator[float | Answer]:
        """Yield the objective, or the factors, after each of the first sweeps; not timed."""


class Tensorspec(Method):
    """``ts.fit`` on labelled data, compile time apart (an earlier call on the same shapes has compiled)."""

    name = "tensorspec"

    def __init__(self, workload: Workload) -> None:
        import tensorspec as ts

        tensors, single = workload.tensors, len(workload.tensors) == 1
        self._fit, self._modes = ts.fit, workload.modes
        self._data = next(iter(tensors.values())) if single else tensors
        # Weights of one in the units of the data: then a coupled fit minimises what the fit of a concatenation does.
        units = {} if single else {"weights": 1.0, "rescale": False}
        self._options = {"start": ts.From(workload.start), "tol": 0.0, "progress": False, **units}
        self._model = ts.NMF(workload.rank)

    def run(self, sweeps: int) -> Any:
        """Return the fit."""
        return self._fit(self._data, self._model, max_sweeps=sweeps, **self._options)

    def answer(self, result: Any) -> Answer:
        """Return factors with the strengths on the pixels."""
        found = {}
        for key, modes in self._modes.items():
            factors = [
                result.factors[mode].transpose("component", ...).values.reshape(result.model.rank, -1).T
                for mode in modes
            ]
            found[key] = [factors[0] * result.strengths(key).values, *factors[1:]]
        return found

    def trace(self, sweeps: int) -> Iterator[float | Answer]:
        """Yield the objective that the fit itself reports, in the units of the data."""
        result = self.run(sweeps)
        unit = result.provenance["objective_times_this_is_in_data_units"] or 1.0
        yield from (float(value) * unit for value in result.history.values[1:])


class Tensorly(Method):
    """``tensorly.decomposition.non_negative_parafac_hals`` on numpy, with its five inner repeats."""

    name = "tensorly HALS"

    def __init__(self, workload: Workload) -> None:
        from tensorly.decomposition import non_negative_parafac_hals

        (self._key,) = workload.tensors
        self._decompose = non_negative_parafac_hals
        self._data, self._rank = workload.arrays[self._key], workload.rank
        self._start = [workload.start[mode] for mode in workload.modes[self._key]]

    def run(self, sweeps: int) -> Any:
        """Return the CP tensor."""
        return self._from(self._start, sweeps)

    def _from(self, factors: list[np.ndarray], sweeps: int) -> Any:
        from tensorly.cp_tensor import CPTensor

        start = CPTensor((np.ones(self._rank, np.float32), [factor.copy() for factor in factors]))
        return self._decompose(self._data, self._rank, n_iter_max=sweeps, init=start, tol=0)

    def answer(self, result: Any) -> Answer:
        """Return the factors."""
        return {self._key: [result.factors[0] * result.weights, *result.factors[1:]]}

    def trace(self, sweeps: int) -> Iterator[float | Answer]:
        """Yield the factors; a sweep depends on the factors alone, so each goes on from the one before."""
        factors = self._start
        for _ in range(sweeps):
            factors = self._from(factors, 1).factors
            yield {self._key: factors}


class Sklearn(Method):
    """``sklearn.decomposition.non_negative_factorization`` by coordinate descent, on the concatenation of tensors."""

    name = "scikit-learn cd"

    def __init__(self, workload: Workload) -> None:
        from sklearn.decomposition import non_negative_factorization

        self._factorize, self._rank = non_negative_factorization, workload.rank
        arrays, others = workload.arrays, [modes[1] for modes in workload.modes.values()]
        self._keys = list(arrays)
        self._data = np.concatenate(list(arrays.values()), axis=1) if len(arrays) > 1 else arrays[self._keys[0]]
        self._ends = np.cumsum([array.shape[1] for array in arrays.values()])[:-1]
        self._start = workload.start["pixel"], np.concatenate([workload.start[mode] for mode in others]).T

    def run(self, sweeps: int) -> Any:
        """Return both factors."""
        return self._from(*self._start, sweeps)

    def _from(self, left: np.ndarray, right: np.ndarray, sweeps: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged is asked for
            return self._factorize(
                self._data,
                W=left.copy(),
                H=np.ascontiguousarray(right),
                n_components=self._rank,
                init="custom",
                max_iter=sweeps,
                tol=0,
            )[:2]

    def answer(self, result: Any) -> Answer:
        """Return the factors of each tensor."""
        left, right = result
        parts = np.split(right.T, self._ends)
        return {key: [left, part] for key, part in zip(self._keys, parts, strict=True)}

    def trace(self, sweeps: int) -> Iterator[float | Answer]:
        """Yield the factors; a sweep depends on the factors alone, so each goes on from the one before."""
        state = self._start
        for _ in range(sweeps):
            state = self._from(*state, 1)
            yield self.answer(state)


def methods_for(workload: Workload) -> list[Method]:
    """Return tensorspec and the peers that can do the workload."""
    found: list[Method] = [Tensorspec(workload)]
    if len(workload.tensors) == 1:
        found.append(Tensorly(workload))
    if all(tensor.ndim == 3 for tensor in workload.tensors.values()):
        found.append(Sklearn(workload))
    return found
