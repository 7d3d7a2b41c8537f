"""Arrays to labels, and the record of what was done."""

from __future__ import annotations

import hashlib
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.constraints.orthogonal import Orthogonal
from tensorspec.coupling.through import parameters_found, with_operators
from tensorspec.fit.assumptions import compare_without
from tensorspec.fit.behind import views
from tensorspec.fit.core import label_core, read_out_cores
from tensorspec.fit.gather import Gathered
from tensorspec.fit.likelihood import first_sweeps
from tensorspec.fit.outcome import read_out
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import CleanTensor
from tensorspec.losses.base import AbstractDivergence, AbstractLoss
from tensorspec.models.base import AbstractModel
from tensorspec.modes import from_arrays, split
from tensorspec.problem import Factors, Problem
from tensorspec.provenance import Provenance
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit, TensorRecord
from tensorspec.solvers.compiling import by_problem
from tensorspec.solvers.loop import Limits, Run
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import objective
from tensorspec.starts.given import From

__all__ = ["digest_of", "finish", "versions"]


def digest_of(clean: Mapping[str, CleanTensor]) -> dict[str, str]:
    """Return the hash of each tensor's values and mask."""
    found = {}
    for key, values in clean.items():
        if isinstance(values.values, Surveyed):
            found[key] = values.values.digest
            continue
        digest = hashlib.sha256(str((values.values.shape, values.values.dtype.str)).encode())
        if isinstance(values.values, Entries):
            for part in values.values.digested():
                digest.update(np.ascontiguousarray(part).data.cast("B"))
        else:
            digest.update(values.values.data.cast("B"))
        if values.valid is not None:
            own = values.valid
            if isinstance(values.values, Entries):  # what a mask repeats takes no memory
                own = own[tuple(slice(None) if step else slice(1) for step in own.strides)]
            digest.update(np.ascontiguousarray(own).tobytes())
        found[key] = digest.hexdigest()
    return found


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import tensorspec

    return {
        "tensorspec": tensorspec.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def finish(
    tensors: Mapping[str, xr.DataArray],
    gathered: Gathered,
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
    run: Run,
    finals: list[float],
    recipe: dict[str, Any],
    hashed: Callable[[], Future[dict[str, str]]],
    seed: int,
    began: float,
    plan: Mapping[str, int],
    rescale: bool,
    start: Any,
    limits: Limits,
    judge: Callable[[Problem, Factors], tuple[Any, list[Any]]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Fit:
    """Give the answer its labels, units and record.

    `hashed` begins to hash the data; `judge` returns the objective and twice the loss of each tensor where the data are
    not in memory; `more` is added to the record.
    """
    keys, problem = list(tensors), gathered.problem
    digest = None if all(_is_own(item) for item in gathered.clean.values()) else hashed()
    found = with_operators(problem, run.state.operators)
    solved = Problem(found.tensors, run.state.constraints, problem.links)
    ruled = {mode: rule for mode, rule in run.state.constraints.items() if rule.members}
    alone = problem.tensors[0] if len(problem.tensors) == 1 else None
    if judge is None and alone is not None and alone.loss is not None and np.isfinite(float(run.state.misfit)):
        # Sweeps of a likelihood sum it entry by entry, so that there is nothing to look at again.
        value, squares = run.state.objective, [2 * run.state.misfit / alone.weight]
        violations = _violations(ruled, run.state.factors)
    elif judge is None:
        value, squares, violations = _last_look(gathered.model, solved, ruled, run.state.factors)
    else:
        value, squares = judge(solved, run.state.factors)
        violations = _violations(ruled, run.state.factors)
    fixed = {mode: rule.fixed_columns for mode, rule in problem.constraints.items()}
    numbered = (
        isinstance(start, From)
        or model.numbers_components
        or any(item.components is not None for rule in problem.constraints.values() for item in rule.members)
    )
    answer = _read_out(gathered, run, problem, fixed, numbered)
    explained = [
        1 - float(square) / float(tensor.square_norm) for square, tensor in zip(squares, problem.tensors, strict=True)
    ]
    for text in gathered.warnings:
        warnings.warn(text, stacklevel=3)
    records = {key: _record(tensors[key], gathered, k, losses[key], explained[k]) for k, key in enumerate(keys)}
    return Fit(
        factors=answer.factors,
        weights=answer.weights,
        cores=answer.cores,
        tensors=records,
        modes=gathered.labels,
        views=views(
            gathered.behind,
            {key: tensor.operators for key, tensor in zip(keys, found.tensors, strict=True)},
            answer.columns,
        ),
        model=model,
        losses=dict(losses),
        solver=gathered.solver,
        why=gathered.why,
        status=run.status,
        objective=float(value),
        history=xr.DataArray(
            np.asarray(run.history), dims="sweep", coords={"sweep": np.arange(len(run.history))}, name="objective"
        ),
        sweeps=int(run.state.sweeps),
        spread=xr.DataArray(finals, dims="restart", coords={"restart": np.arange(1, len(finals) + 1)}, name="objective")
        if len(finals) > 1
        else None,
        recipe=recipe,
        provenance=Provenance(
            _provenance(gathered, seed, began, plan, rescale, answer.order, start, violations)
            | {"operators": parameters_found(keys, found)}
            | dict(more or {})
            | {
                "without_assumptions": None
                if run.status in (Status.INTERRUPTED, Status.TIME_LIMIT)
                else compare_without(gathered, run, limits, answer.order)
            },
            # Arrays are of our own memory, and their hash can wait until nothing else needs the processor; a mask and
            # the entries of a sparse array may be somebody else's to change.
            {"input_sha256": hashed() if digest is None else _settled(digest)},
        ),
        data=dict(tensors),
        masks={
            key: from_arrays(c.valid, gathered.names[key], gathered.behind.own[key])
            for key, c in gathered.clean.items()
            if c.valid is not None
        },
    )


def _is_own(clean: CleanTensor) -> bool:
    return isinstance(clean.values, np.ndarray) and clean.valid is None


def _settled(digest: Future[dict[str, str]]) -> Future[dict[str, str]]:
    """Return the hashes when they are there."""
    digest.result()
    return digest


class _Answer(NamedTuple):
    """Factors and strengths with their labels, and as they were before."""

    factors: dict[str, xr.DataArray]
    weights: xr.DataArray | None
    cores: dict[str, xr.DataArray]
    columns: dict[str, np.ndarray]
    order: dict[str, np.ndarray]


def _read_out(
    gathered: Gathered, run: Run, problem: Problem, fixed: Mapping[str, tuple[bool, ...]], numbered: bool
) -> _Answer:
    """Return factors and strengths in data units, with labels."""
    keys = list(gathered.names)
    # A compiled program gives mappings back sorted by name.
    found = {mode: np.asarray(run.state.factors[mode]) for mode in gathered.shapes}
    if gathered.cores:
        turned = read_out_cores(
            found,
            gathered.names,
            gathered.cores,
            {mode: own.size for mode, own in gathered.labels.items()},
            gathered.scales,
            fixed,
            _turnable(gathered, problem),
            gathered.measured,
            numbered,
        )
        kept = set(turned.factors)
        return _Answer(
            {mode: split(values.T, gathered.labels[mode]) for mode, values in turned.factors.items()},
            None,
            {key: label_core(core, gathered.names[key], gathered.labels, kept) for key, core in turned.cores.items()},
            turned.factors,
            turned.order,
        )
    outcome = read_out(
        found,
        list(gathered.names.values()),
        gathered.scales,
        gathered.program.plan.carriers,
        fixed,
        gathered.measured,
        numbered,
        [tensor.seen for tensor in problem.tensors],
    )
    numbers = {"component": np.arange(1, outcome.weights.shape[1] + 1)}
    weights = (
        xr.DataArray(outcome.weights[0], dims="component", coords=numbers, name="weights")
        if len(keys) == 1
        else xr.DataArray(
            outcome.weights, dims=("tensor", "component"), coords={"tensor": keys, **numbers}, name="weights"
        )
    )
    return _Answer(
        {mode: split(outcome.factors[mode].T, labels) for mode, labels in gathered.labels.items()},
        weights,
        {},
        outcome.factors,
        dict.fromkeys(outcome.factors, outcome.order),
    )


def _turnable(gathered: Gathered, problem: Problem) -> set[str]:
    """Return the modes of which the data determine only the space that their columns span."""

    def free(name: str) -> bool:
        return all(
            isinstance(item, Orthogonal) and item.components is None for item in problem.constraints[name].members
        )

    found = set()
    for mode in gathered.labels:
        if mode in gathered.shapes and free(mode):
            having = [key for key, own in gathered.names.items() if mode in own]
            # A diagonal core has as many entries as the mode has components, and does not allow a turn.
            full = all(gathered.shapes[gathered.cores[key]] == _full_shape(gathered, key) for key in having)
            bare = not any(problem.constraints[gathered.cores[key]].members for key in having)
            if full and bare:
                found.add(mode)
    return found


def _full_shape(gathered: Gathered, key: str) -> tuple[int, int]:
    kept = [gathered.shapes[mode][1] for mode in gathered.names[key] if mode in gathered.shapes]
    whole = [gathered.labels[mode].size for mode in gathered.names[key] if mode not in gathered.shapes]
    return prod(whole), prod(kept)


def _numbers(order: Mapping[str, np.ndarray]) -> Any:
    """Return which component of the problem became which, counted from 1: one list, or one a mode where they differ."""
    lists = {mode: [int(k) + 1 for k in own] for mode, own in order.items()}
    same = len({tuple(own) for own in lists.values()}) == 1
    return next(iter(lists.values())) if same else lists


def _record(tensor: xr.DataArray, gathered: Gathered, index: int, loss: AbstractLoss, explained: float) -> TensorRecord:
    key = list(gathered.names)[index]
    noise = gathered.noise[key]
    return TensorRecord(
        dims=tuple(str(dim) for dim in tensor.dims),
        modes=gathered.names[key],
        shape=tuple(tensor.shape),
        attrs={str(name): value for name, value in tensor.attrs.items()},
        unit=str(tensor.attrs.get("units", "")),
        explained=explained,
        noise_variance=None if noise is None else noise[0],
        data_weight=gathered.weights[index],
        rms=gathered.clean[key].rms,
        loss=constructor_repr(loss),
    )


@eqx.filter_jit
def _violations(rules: Any, factors: Any) -> Any:
    return {mode: rule.violation(factors[mode]) for mode, rule in rules.items()}


@by_problem(eqx.filter_jit)
def _last_look(model: AbstractModel, problem: Problem, rules: Any, factors: Any) -> tuple[Any, list[Any], Any]:
    """Return objective, twice the loss of each tensor, and the violation of each mode, in one program."""
    value, _, squares = objective(model, problem, factors)
    return value, squares, _violations(rules, factors)


def _provenance(
    gathered: Gathered,
    seed: int,
    began: float,
    plan: Mapping[str, int],
    rescale: bool,
    order: Mapping[str, np.ndarray],
    start: Any,
    violations: Mapping[str, Any],
) -> dict[str, Any]:
    device = jax.devices()[0]
    likelihood = any(isinstance(tensor.loss, AbstractDivergence) for tensor in gathered.problem.tensors)
    keys = list(gathered.names)
    return {
        "seed": int(seed),
        "versions": versions(),
        "device": f"{device.platform}: {device.device_kind}",
        "platform": f"{platform.system()} {platform.machine()}",
        "dtype": gathered.dtype.name,
        "wall_seconds": round(time.monotonic() - began, 3),
        "memory_plan_bytes": dict(plan),
        "rescale": rescale and not likelihood,
        "warm_start": None if gathered.warm is None else first_sweeps(gathered.program.blocks, start),
        "scales": dict(zip(keys, gathered.scales, strict=True)),
        "objective_times_this_is_in_data_units": 1 / gathered.scales[0] ** 2 if len(keys) == 1 else None,
        "tensor_weights": dict(zip(keys, gathered.weights, strict=True)),
        "noise": {
            key: None if noise is None else {"variance": noise[0], "how": noise[1]}
            for key, noise in gathered.noise.items()
        },
        "noise_level": None if np.isnan(gathered.noise_level) else gathered.noise_level,
        "noise_deviation": None if np.isnan(gathered.noise_deviation) else gathered.noise_deviation,
        "misfit_curvatures": [None if np.isnan(value) else value for value in gathered.curvatures],
        "carriers": dict(zip(keys, gathered.program.plan.carriers, strict=True)),
        "constraints_as_solved": gathered.strengths,
        "violations": {mode: float(value) for mode, value in violations.items()},
        "component_order": _numbers(order),
        "warnings": list(gathered.warnings),
    }
