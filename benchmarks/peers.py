"""The packages that are compared with: scikit-learn, tensorly, matcouply and pyttb."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.methods import Method, Setting, Tensorspec
from benchmarks.objective import Answer, Parts
from benchmarks.planted import Workload

__all__ = ["Matcouply", "Pyttb", "Sklearn", "Tensorly", "TensorlyTucker", "methods_for"]


class Tensorly(Method):
    """``tensorly.decomposition.non_negative_parafac_hals`` on numpy, with its five inner repeats."""

    name = "tensorly HALS"

    def __init__(self, workload: Workload) -> None:
        from tensorly.decomposition import non_negative_parafac_hals

        (self._key,) = workload.tensors
        self._decompose = non_negative_parafac_hals
        self._data, self._rank = workload.arrays[self._key], workload.rank
        self._start = [workload.start[mode] for mode in workload.modes[self._key]]

    def run(self, setting: Setting) -> Any:
        """Return the CP tensor."""
        return self._from(self._start, setting.sweeps)

    def _from(self, factors: list[np.ndarray], sweeps: int) -> Any:
        from tensorly.cp_tensor import CPTensor

        start = CPTensor((np.ones(self._rank, np.float32), [factor.copy() for factor in factors]))
        return self._decompose(self._data, self._rank, n_iter_max=sweeps, init=start, tol=0)

    def answer(self, result: Any) -> Answer:
        """Return the factors."""
        return {self._key: Parts([result.factors[0] * result.weights, *result.factors[1:]])}

    def trace(self) -> Iterator[Answer]:
        """Yield the factors; a sweep depends on the factors alone, so each goes on from the one before."""
        factors = self._start
        while True:
            factors = self._from(factors, 1).factors
            yield {self._key: Parts(factors)}


class TensorlyTucker(Method):
    """``tensorly.decomposition.non_negative_tucker_hals``: its steps for the core are as many as its sweeps."""

    name = "tensorly HALS"

    def __init__(self, workload: Workload) -> None:
        from tensorly.decomposition import non_negative_tucker_hals

        (self._key,) = workload.tensors
        self._decompose = partial(non_negative_tucker_hals, workload.arrays[self._key])
        self._start = workload.start["core"], [workload.start[mode] for mode in workload.modes[self._key]]

    def run(self, setting: Setting) -> Any:
        """Return the Tucker tensor."""
        core, factors = self._start
        start = core.copy(), [factor.copy() for factor in factors]
        return self._decompose(list(core.shape), n_iter_max=setting.sweeps, init=start, tol=0)

    def answer(self, result: Any) -> Answer:
        """Return factors and core."""
        return {self._key: Parts(list(result.factors), result.core)}


class Sklearn(Method):
    """``sklearn.decomposition.non_negative_factorization`` on the concatenation of tensors, sparse data as they are.

    Parameters
    ----------
    workload
        Data and start.
    solver
        ``"cd"`` (coordinate descent) or ``"mu"`` (multiplicative updates).
    """

    def __init__(self, workload: Workload, solver: str) -> None:
        from sklearn.decomposition import non_negative_factorization

        self.name = f"scikit-learn {solver}"
        loss = "kullback-leibler" if workload.poisson else "frobenius"
        self._factorize = partial(
            non_negative_factorization, n_components=workload.rank, init="custom", tol=0, solver=solver, beta_loss=loss
        )
        arrays, others = workload.arrays, [modes[1] for modes in workload.modes.values()]
        self._keys = list(arrays)
        self._data = np.concatenate(list(arrays.values()), axis=1) if len(arrays) > 1 else arrays[self._keys[0]]
        self._ends = np.cumsum([array.shape[1] for array in arrays.values()])[:-1]
        self._start = workload.start["pixel"], np.concatenate([workload.start[mode] for mode in others]).T

    def run(self, setting: Setting) -> Any:
        """Return both factors."""
        return self._from(*self._start, setting.sweeps)

    def _from(self, left: np.ndarray, right: np.ndarray, sweeps: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged is asked for
            return self._factorize(self._data, W=left.copy(), H=np.array(right, order="C"), max_iter=sweeps)[:2]

    def answer(self, result: Any) -> Answer:
        """Return the factors of each tensor."""
        left, right = result
        parts = np.split(right.T, self._ends)
        return {key: Parts([left, part]) for key, part in zip(self._keys, parts, strict=True)}

    def trace(self) -> Iterator[Answer]:
        """Yield the factors; a sweep depends on the factors alone, so each goes on from the one before."""
        state = self._start
        while True:
            state = self._from(*state, 1)
            yield self.answer(state)


class Matcouply(Method):
    """``matcouply.decomposition.cmf_aoadmm``, pixels as the mode that is shared."""

    name = "matcouply AO-ADMM"
    glimpse = True

    def __init__(self, workload: Workload) -> None:
        from matcouply.decomposition import cmf_aoadmm

        self._matrices = {key: np.ascontiguousarray(array.T) for key, array in workload.arrays.items()}
        self._decompose, self._rank = cmf_aoadmm, workload.rank
        self._start = [workload.start[modes[1]] for modes in workload.modes.values()], workload.start["pixel"]

    def run(self, setting: Setting) -> Any:
        """Return the factorization."""
        others, pixels = self._start
        strengths = np.ones((len(others), self._rank), np.float32)
        return self._decompose(
            list(self._matrices.values()),
            self._rank,
            init=(None, (strengths, [factor.copy() for factor in others], pixels.copy())),
            n_iter_max=setting.sweeps,
            non_negative=True,
            tol=None,
            absolute_tol=None,
            random_state=0,
        )

    def answer(self, result: Any) -> Answer:
        """Return the factors of each tensor."""
        _, (strengths, others, pixels) = result
        return {
            key: Parts([pixels * strengths[k], other])
            for k, (key, other) in enumerate(zip(self._matrices, others, strict=True))
        }


class Pyttb(Method):
    """``pyttb.cp_apr`` with multiplicative updates, ten inside each outer step."""

    name = "pyttb cp_apr mu"
    glimpse = True

    def __init__(self, workload: Workload) -> None:
        import pyttb

        ((self._key, data),) = workload.arrays.items()
        data = data.tocoo()
        places = np.stack([data.row, data.col], axis=1).astype(np.int64)
        self._data = pyttb.sptensor(places, data.data.astype(np.float64)[:, None], data.shape)
        self._run, self._ktensor, self._rank = pyttb.cp_apr, pyttb.ktensor, workload.rank
        self._start = [workload.start[mode].astype(np.float64) for mode in workload.modes[self._key]]

    def run(self, setting: Setting) -> Any:
        """Return the Kruskal tensor."""
        start = self._ktensor([np.asfortranarray(factor) for factor in self._start])
        options: dict[str, Any] = {"maxiters": setting.sweeps, "stoptol": 0.0, "printitn": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._run(self._data, self._rank, init=start, **options)[0]

    def answer(self, result: Any) -> Answer:
        """Return the factors."""
        first, *others = result.factor_matrices
        return {self._key: Parts([first * result.weights, *others])}


def methods_for(workload: Workload, glimpses: bool = True) -> list[Method]:
    """Return tensorspec and the peers that can do the workload; those that are too slow to be followed on request."""
    found: list[Method] = [Tensorspec(workload)]
    if workload.name in ("W1", "W3"):
        found.append(Tensorly(workload))
    if workload.name in ("W1", "W2", "W4"):
        found.append(Sklearn(workload, "cd"))
    if workload.name == "W5":
        found.append(TensorlyTucker(workload))
    if workload.name == "W6":
        found.append(Sklearn(workload, "mu"))
    if glimpses and workload.name == "W4" and find_spec("matcouply"):
        found.append(Matcouply(workload))
    if glimpses and workload.name == "W6" and find_spec("pyttb"):
        found.append(Pyttb(workload))
    return found
