"""The one entry point: from labelled data and a model to a `Fit`.

Labels become arrays here, and arrays labels again; in between runs the one loop of `solvers.loop`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.alignment import align_values
from tensorspec.constraints.base import AbstractConstraint, Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, check_partners, combine
from tensorspec.errors import InvalidArgument, InvalidData, RankOutOfRange, UnknownMode, suggest
from tensorspec.losses import AbstractLoss, EntryWeights, LeastSquares
from tensorspec.models.base import AbstractModel
from tensorspec.modes import ModeLabels, broadcast_to_array, find_modes, from_arrays, split
from tensorspec.noise import NoiseModel, mean_noise_variance
from tensorspec.outcome import read_out
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.recipe import constructor_repr, to_recipe
from tensorspec.scale import ScalePlan, plan_scale
from tensorspec.solution import Fit, TensorRecord
from tensorspec.solvers.base import AbstractSolver
from tensorspec.solvers.dispatch import choose_solvers
from tensorspec.solvers.loop import Checkpoint, Limits, Run, run_from_arrays, solve, state_to_arrays
from tensorspec.solvers.status import Status
from tensorspec.solvers.sweep import Program, init_state, objective
from tensorspec.starts.base import AbstractStart, StartContext
from tensorspec.starts.given import From
from tensorspec.starts.nndsvd import NNDSVD
from tensorspec.starts.random import Random
from tensorspec.validate import (
    CleanTensor,
    as_mapping,
    by_tensor,
    check_count,
    check_kind,
    check_memory,
    clean,
)

__all__ = ["fit"]

_START_RANK_LIMIT = 1e-6  # noise variances below this share of the largest do not weigh tensors any further apart
_NOISE_FLOOR = 1e-10


class _Gathered(NamedTuple):
    """Everything that labels became."""

    problem: Problem
    program: Program
    model: AbstractModel
    labels: dict[str, ModeLabels]
    names: dict[str, tuple[str, ...]]
    clean: dict[str, CleanTensor]
    scales: list[float]
    weights: list[float]
    noise: dict[str, tuple[float, str] | None]
    measured: dict[str, np.ndarray | None]
    solver: str
    why: str
    dtype: np.dtype
    warnings: list[str]
    strengths: dict[str, list[str]]
    noise_level: float


def fit(
    data: xr.DataArray | Mapping[str, xr.DataArray],
    model: AbstractModel,
    *,
    loss: AbstractLoss | Mapping[str, AbstractLoss] | None = None,
    mask: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    weights: Mapping[str, float] | float | None = None,
    solver: AbstractSolver | str = "auto",
    start: AbstractStart | str = "auto",
    restarts: int = 1,
    max_sweeps: int = 1000,
    tol: float = 1e-6,
    seed: int = 0,
    progress: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    rescale: bool = True,
) -> Fit:
    """Fit a model to one or several tensors.

    Minimises the sum over tensors of weight times half the squared residual, plus the penalties.  Tensors that share a
    mode (the same dimension names) share its factor.

    Parameters
    ----------
    data
        A DataArray, or a mapping of names to DataArrays; numpy-, dask- or sparse-backed, counts or floats.  NaN means
        missing.
    model
        For instance ``CP(rank=4, constraints={...})`` or ``NMF(4)``.
    loss
        One loss for all tensors, or a mapping by tensor; by default `LeastSquares`.
    mask
        True where an entry is used; broadcasts; a mapping for several tensors.
    modes
        Which dimensions make one mode, for instance ``{"pixel": ("y", "x")}``; by default ``z, y, x`` are ``pixel`` and
        ``tilt_y, tilt_x`` are ``orientation``.
    weights
        Weights of the tensors; by default one over the estimated variance of their noise.
    solver
        ``"auto"``, or a solver such as `HALS` or `AOADMM`.
    start
        ``"auto"``, or a start such as `NNDSVD`, `Random` or ``From(fit)``.
    restarts
        Number of starts; the lowest objective is kept.
    max_sweeps
        Largest number of sweeps of each start.
    tol
        A start has converged when the objective decreases by less than this share in three consecutive sweeps.
    seed
        What random starts are drawn from.
    progress
        ``"auto"`` shows a bar on a terminal and in a notebook; True or False.
    checkpoint
        A file from which the same call goes on after it was killed; removed when the fit ends.
    time_limit
        Seconds after which the best so far is returned.
    rescale
        Divide each tensor by its root mean square, so that strengths and tolerances do not depend on its unit;
        ``False`` works in the data's own units.

    Returns
    -------
    Fit
        Factors with labels, strengths, history and provenance.

    Raises
    ------
    TensorspecError
        Before any work, when data, model and options do not fit together; the message says what to do.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from tensorspec.models.cp import NMF
    >>> maps, spectra = np.eye(2)[[0, 1, 1, 0]], np.array([[1.0, 2, 0], [0, 1, 3]])
    >>> data = xr.DataArray(maps @ spectra, dims=("x", "energy"))
    >>> result = fit(data, NMF(2), progress=False)
    >>> round(float(result.explained), 6)
    1.0
    """
    began = time.monotonic()
    tensors = as_mapping(data)
    _check_options(model, solver, start, tol, progress, time_limit)
    count = check_count("restarts", restarts)
    limit = check_count("max_sweeps", max_sweeps)
    for name, tensor in tensors.items():
        check_kind(name, tensor)
    plan = check_memory(tensors, masked=mask is not None)
    losses = by_tensor(loss, list(tensors), "loss", LeastSquares())
    with jax.enable_x64(True), ThreadPoolExecutor(1) as background:
        gathered = _gather(tensors, model, losses, mask, modes, weights, solver, rescale)
        digest = background.submit(_digest, gathered)
        recipe = _recipe(model, losses, solver, start, modes, weights, restarts, max_sweeps, tol, seed, rescale)
        limits = Limits(limit, float(tol), None if time_limit is None else began + float(time_limit))
        starts = _make_starts(start, gathered, count, seed)
        stored = _open_checkpoint(checkpoint, digest, recipe, starts)
        with _Progress(progress, len(starts), limits) as bar:
            best, finals = _run_all(gathered, starts, seed, limits, stored, bar)
        result = _finish(
            tensors, gathered, model, losses, best, finals, recipe, digest.result(), seed, began, plan, rescale, start
        )
    if stored is not None and best.status not in (Status.INTERRUPTED, Status.TIME_LIMIT):
        stored.path.unlink(missing_ok=True)
    return result


def _check_options(model: Any, solver: Any, start: Any, tol: Any, progress: Any, time_limit: Any) -> None:
    if not isinstance(model, AbstractModel):
        hint = f"; write it with brackets, ts.{model.__name__}(rank=3)" if isinstance(model, type) else ""
        raise InvalidArgument(f"model={model!r}: expected a model such as ts.NMF(3) or ts.CP(3, constraints){hint}")
    if not (solver == "auto" or isinstance(solver, AbstractSolver)):
        raise InvalidArgument(f"solver={solver!r}: expected 'auto' or a solver such as ts.HALS() or ts.AOADMM()")
    if not (start == "auto" or isinstance(start, AbstractStart)):
        raise InvalidArgument(f"start={start!r}: expected 'auto' or a start such as ts.Random() or ts.From(fit)")
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not (np.isfinite(tol) and tol >= 0):
        raise InvalidArgument(f"tol={tol!r}: expected a number of zero or more, such as 1e-6")
    if progress not in (True, False, "auto"):
        raise InvalidArgument(f"progress={progress!r}: expected True, False or 'auto'")
    if time_limit is not None and not (isinstance(time_limit, (int, float)) and time_limit > 0):
        raise InvalidArgument(f"time_limit={time_limit!r}: expected seconds above zero, or None")


def _gather(
    tensors: dict[str, xr.DataArray],
    model: AbstractModel,
    losses: dict[str, AbstractLoss],
    mask: Any,
    modes: Any,
    weights: Any,
    solver: Any,
    rescale: bool,
) -> _Gathered:
    """Turn labels into arrays, settle everything that has to be settled, and choose the solvers."""
    keys = list(tensors)
    for key, item in losses.items():
        if not isinstance(item, AbstractLoss):
            raise InvalidArgument(f"loss of tensor {key!r} is {item!r}: expected a loss such as ts.LeastSquares()")
    labels, names = find_modes(tensors, modes)
    # Pixels first, whatever the order of the dimensions, so that the same modes carry the amplitudes.
    names = {key: tuple(sorted(own, key=lambda mode: mode != "pixel")) for key, own in names.items()}
    order = sorted(labels, key=lambda mode: mode != "pixel")
    sizes = {mode: labels[mode].size for mode in order}
    _check_model(model, sizes, names)
    masks = by_tensor(mask, keys, "mask", None)
    cleaned = {key: clean(key, tensors[key], masks[key], names[key], labels) for key in keys}
    double = any(c.values.dtype == np.float64 or _too_large_for_float32(c.values) for c in cleaned.values())
    dtype = np.dtype(np.float64 if double else np.float32)
    constraints = {mode: _labelled(model.constraints_for(mode), labels[mode], model.rank) for mode in order}
    for mode, items in constraints.items():
        check_partners(mode, items)
    entry = {
        key: _with_arrays(losses[key], names[key], labels).entry_weights(c.values, c.valid, rescale)
        for key, c in cleaned.items()
    }
    scales = {key: 1 / c.rms if rescale else 1.0 for key, c in cleaned.items()}
    needs_noise = len(keys) > 1 or any("auto" in jax.tree.leaves(items) for items in constraints.values())
    noise = {key: _noise(tensors[key], cleaned[key], entry[key], model.rank) if needs_noise else None for key in keys}
    found = _tensor_weights(weights, keys, cleaned, scales, noise)
    level = _noise_level(keys, cleaned, found, noise) if needs_noise else float("nan")

    combined = {mode: combine(items) for mode, items in constraints.items()}
    rules = {mode: ModeConstraints(items, model.rank) for mode, items in combined.items()}
    resolved = _resolve(rules, labels, names, scales, model, level)
    scale_plan = _plan(resolved, names, model)
    built = {
        key: _tensor(names[key], cleaned[key], entry[key], scales[key], found[key], dtype) for key in keys
    }
    per_row = {
        mode: any(
            mode in built[key].modes
            and (built[key].dense is not None or built[key].rows[built[key].modes.index(mode)] is not None)
            for key in keys
        )
        for mode in order
    }
    blocks, solver_name, why = choose_solvers(
        scale_plan, resolved, per_row, solver if isinstance(solver, AbstractSolver) else None
    )
    measured, notes = _measured(cleaned, names, labels, order)
    return _Gathered(
        problem=Problem(tuple(built.values()), resolved),
        program=Program(scale_plan, blocks),
        model=dataclasses.replace(model, constraints={}),
        labels={mode: labels[mode] for mode in order},
        names=names,
        clean=cleaned,
        scales=[scales[key] for key in keys],
        weights=[found[key] for key in keys],
        noise=noise,
        measured=measured,
        solver=solver_name,
        why=why,
        dtype=dtype,
        warnings=notes,
        strengths={mode: [constructor_repr(item) for item in rule.members] for mode, rule in resolved.items()},
        noise_level=level,
    )


def _check_model(model: AbstractModel, sizes: Mapping[str, int], names: Mapping[str, tuple[str, ...]]) -> None:
    for mode in model.constraints:
        if mode not in sizes:
            listed = ", ".join(map(repr, sizes))
            raise UnknownMode(f"constraint given for mode {mode!r}; these data have modes {listed}.{suggest(mode, sizes)}")
    # Of a coupled model every tensor adds what it can determine, so the largest bound holds.
    bound = max(int(np.prod([sizes[m] for m in own]) // max(sizes[m] for m in own)) for own in names.values())
    if model.rank > bound:
        raise RankOutOfRange(
            f"rank={model.rank}: these data, with mode sizes {dict(sizes)}, determine at most {bound} components; "
            f"give a rank of 1 to {bound}"
        )
    for mode in sizes:
        for item in model.constraints_for(mode):
            if item.components is not None and max(item.components) > model.rank:
                raise InvalidArgument(
                    f"{constructor_repr(item)} on mode {mode!r}: there are components 1 to {model.rank}"
                )


def _too_large_for_float32(values: np.ndarray) -> bool:
    return values.dtype.kind in "ui" and values.dtype.itemsize > 2 and int(np.abs(values).max()) > 2**24


def _labelled(items: Sequence[AbstractConstraint], labels: ModeLabels, rank: int) -> tuple[AbstractConstraint, ...]:
    """Return the constraints with labelled values as plain arrays on the points of the mode."""
    found = []
    for item in items:
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            if isinstance(value, xr.DataArray):
                what = f"{type(item).__name__}({field.name}=...)"
                array, numbers = align_values(value, labels, rank, item.components, what)
                item = dataclasses.replace(item, **{field.name: array, "components": numbers})
        found.append(item)
    return tuple(found)


def _with_arrays(loss: AbstractLoss, names: tuple[str, ...], labels: Mapping[str, ModeLabels]) -> AbstractLoss:
    """Return the loss with labelled values broadcast to the axes of the tensor."""
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if isinstance(value, xr.DataArray):
            array = broadcast_to_array(value, names, labels, what=field.name)
            loss = dataclasses.replace(loss, **{field.name: array})
    return loss


def _noise(tensor: xr.DataArray, values: CleanTensor, entry: EntryWeights, rank: int) -> tuple[float, str]:
    if entry.noise_variance is not None:
        return float(entry.noise_variance), "known from the loss"
    return mean_noise_variance(values.values, values.valid, rank, NoiseModel.from_attrs(tensor.attrs))


def _tensor_weights(
    given: Any,
    keys: list[str],
    cleaned: Mapping[str, CleanTensor],
    scales: Mapping[str, float],
    noise: Mapping[str, tuple[float, str] | None],
) -> dict[str, float]:
    if given is not None:
        found = by_tensor(given, keys, "weights", 1.0)
        for key, value in found.items():
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
                raise InvalidArgument(f"weights: tensor {key!r} is given {value!r}; expected a number above zero")
        return {key: float(value) for key, value in found.items()}
    if len(keys) == 1:
        return {keys[0]: 1.0}
    variance = {key: (noise[key] or (0.0, ""))[0] * scales[key] ** 2 for key in keys}
    unit = {key: variance[key] / (cleaned[key].rms * scales[key]) ** 2 for key in keys}
    floor = max(_START_RANK_LIMIT * max(unit.values()), _NOISE_FLOOR)
    inverse = {key: 1 / (max(unit[key], floor) * (cleaned[key].rms * scales[key]) ** 2) for key in keys}
    total = sum(c.count for c in cleaned.values())
    mean = sum(inverse[key] * cleaned[key].count for key in keys)
    return {key: inverse[key] * total / mean for key in keys}


def _noise_level(
    keys: list[str],
    cleaned: Mapping[str, CleanTensor],
    weights: Mapping[str, float],
    noise: Mapping[str, tuple[float, str] | None],
) -> float:
    """Return the standard deviation of the noise over the root mean square of the data, over all tensors."""
    total = sum(c.count for c in cleaned.values())
    weighted = sum(
        (weights[key] if len(keys) > 1 else 1.0) * (noise[key] or (0.0, ""))[0] / cleaned[key].rms ** 2 * cleaned[key].count
        for key in keys
    )
    return float(np.sqrt(weighted / total))


def _plan(rules: Mapping[str, ModeConstraints], names: Mapping[str, tuple[str, ...]], model: AbstractModel) -> ScalePlan:
    fixed = {mode: rule.fixed_columns for mode, rule in rules.items()}
    free = {mode: rule.scale_free for mode, rule in rules.items()}
    return plan_scale(list(names.values()), model.rank, fixed, free, model.scale)


def _resolve(
    rules: Mapping[str, ModeConstraints],
    labels: Mapping[str, ModeLabels],
    names: Mapping[str, tuple[str, ...]],
    scales: Mapping[str, float],
    model: AbstractModel,
    level: float,
) -> dict[str, ModeConstraints]:
    """Settle automatic strengths, bring values to the units of the problem, and make every number traced data."""
    carriers = dict(zip(names, _plan(rules, names, model).carriers, strict=True))
    found = {}
    for mode, rule in rules.items():
        owners = [key for key, carrier in carriers.items() if carrier == mode]
        data_scale = scales[owners[0]] if len(owners) == 1 else 1.0
        own = labels[mode]
        context = Context(mode, own.shape, own.coordinates, own.units, model.rank, level, data_scale)
        members = [item.resolve(context) if isinstance(item, Resolvable) else item for item in rule.members]
        found[mode] = ModeConstraints(tuple(jax.tree.map(_traced, item) for item in members), model.rank)
    return found


def _traced(leaf: Any) -> Any:
    if isinstance(leaf, (float, np.ndarray, np.floating)):
        return jnp.asarray(leaf, jnp.float64)
    return leaf


def _tensor(
    names: tuple[str, ...], values: CleanTensor, entry: EntryWeights, scale: float, weight: float, dtype: np.dtype
) -> Tensor:
    stored, dense = values.values, entry.dense
    if dense is not None and dense.dtype.kind == "f":
        stored = (stored * dense).astype(dtype)
        dense = dense.astype(dtype)
    square = _weighted_square(values.values, entry) * scale**2
    return Tensor(
        modes=names,
        blocks=(jnp.asarray(stored),),
        scale=jnp.asarray(scale, jnp.float64),
        weight=jnp.asarray(weight, jnp.float64),
        rows=tuple(None if row is None else jnp.asarray(row, jnp.float64) for row in entry.rows),
        dense=None if dense is None else (jnp.asarray(dense),),
        square_norm=jnp.asarray(square, jnp.float64),
    )


def _weighted_square(values: np.ndarray, entry: EntryWeights) -> float:
    """Return the weighted sum of squares in float64, block by block."""
    total, step = 0.0, max(1, 2**22 // max(values[0].size, 1))
    for k in range(0, values.shape[0], step):
        part = np.square(values[k : k + step], dtype=np.float64)
        if entry.dense is not None:
            part = part * entry.dense[k : k + step]
        for axis in range(values.ndim - 1, -1, -1):
            row = entry.rows[axis]
            row = np.ones(part.shape[axis]) if row is None else (row[k : k + step] if axis == 0 else row)
            part = part @ row if axis == part.ndim - 1 else part
        total += float(part)
    return total


def _measured(
    cleaned: Mapping[str, CleanTensor],
    names: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, ModeLabels],
    order: Sequence[str],
) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """Return which points of each mode any tensor has measured, and a warning for those that none has."""
    found: dict[str, np.ndarray | None] = {}
    notes = []
    for mode in order:
        seen = np.zeros(labels[mode].size, bool)
        for key, own in names.items():
            if mode in own:
                valid = cleaned[key].valid
                others = tuple(axis for axis, name in enumerate(own) if name != mode)
                seen |= True if valid is None else valid.any(axis=others)
        found[mode] = None if seen.all() else seen
        if not seen.all():
            lost = np.flatnonzero(~seen)
            listed = ", ".join(_point(labels[mode], int(k)) for k in lost[:5]) + (", ..." if len(lost) > 5 else "")
            notes.append(
                f"{len(lost)} of {len(seen)} points of mode {mode!r} were measured in no tensor and come back NaN: {listed}"
            )
    return found, notes


def _point(labels: ModeLabels, index: int) -> str:
    place = np.unravel_index(index, labels.shape)
    return "(" + ", ".join(f"{dim} {int(k)}" for dim, k in zip(labels.dims, place, strict=True)) + ")"


# -- starts and runs -------------------------------------------------------------------------------------------------


def _make_starts(start: Any, gathered: _Gathered, count: int, seed: int) -> list[tuple[AbstractStart, int]]:
    """Return what each restart begins from, and its seed."""
    nonnegative = all(rule.nonnegative for rule in gathered.problem.constraints.values())
    first = (NNDSVD() if nonnegative else Random()) if isinstance(start, str) else start
    if isinstance(first, From):
        first = From(_given_factors(first.source, gathered))
    chosen = [first] + [first if first.random or not isinstance(start, str) else Random()] * (count - 1)
    if count > 1 and not first.random and not isinstance(start, str):
        raise InvalidArgument(
            f"restarts={count} with start={constructor_repr(start)}: this start is the same every time; "
            "use restarts=1, or start=ts.Random()"
        )
    return [(item, seed + k) for k, item in enumerate(chosen)]


def _given_factors(source: Any, gathered: _Gathered) -> dict[str, np.ndarray]:
    """Return given factors as arrays in the units of the problem."""
    labels, model = gathered.labels, gathered.model
    factors = source.factors if isinstance(source, Fit) else source
    if not isinstance(factors, Mapping):
        raise InvalidArgument(f"From({source!r}): expected a Fit or a mapping of mode names to factors")
    arrays = {}
    for mode, values in factors.items():
        if mode in labels and isinstance(values, xr.DataArray):
            columns, numbers = align_values(values.drop_vars("label", errors="ignore"), labels[mode], model.rank, None, "From(...)")
            arrays[mode] = columns[:, np.argsort(numbers)]
        else:
            arrays[mode] = np.asarray(values, dtype=float)
    if any(mode not in arrays or arrays[mode].shape[-1:] != (model.rank,) for mode in labels):
        return arrays  # the start itself says what is missing
    strengths = {key: np.ones(model.rank) for key in gathered.names}
    if isinstance(source, Fit):
        strengths |= {key: source.strengths(key).values for key in gathered.names if key in source.tensors}
    return _spread_strengths(arrays, strengths, gathered)


def _spread_strengths(
    arrays: dict[str, np.ndarray], strengths: Mapping[str, np.ndarray], gathered: _Gathered
) -> dict[str, np.ndarray]:
    """Put strengths in data units onto factors: on the carrier, and where it is shared, on a partner of each tensor."""
    plan, result = gathered.program.plan, dict(arrays)
    fixed = {mode: np.asarray(rule.fixed_columns) for mode, rule in gathered.problem.constraints.items()}
    groups: dict[str, list[int]] = {}
    for k, carrier in enumerate(plan.carriers):
        groups.setdefault(carrier, []).append(k)
    keys = list(gathered.names)
    for carrier, members in groups.items():
        scaled = {k: strengths[keys[k]] * gathered.scales[k] for k in members}
        if len(members) == 1:
            result[carrier] = result[carrier] * scaled[members[0]]
            continue
        amplitude = np.sqrt(sum(gathered.weights[k] * scaled[k] ** 2 for k in members))
        amplitude = np.where(amplitude > 0, amplitude, 1.0)
        result[carrier] = result[carrier] * amplitude
        for k in members:
            private = [
                mode
                for mode in gathered.names[keys[k]]
                if mode != carrier and sum(mode in own for own in gathered.names.values()) == 1
            ]
            if private:
                ratio = np.where(fixed[private[-1]], 1.0, scaled[k] / amplitude)
                result[private[-1]] = result[private[-1]] * ratio
    return result


def _start_factors(gathered: _Gathered, start: AbstractStart, seed: int) -> Factors:
    keys = list(gathered.names)
    context = StartContext(
        tensors=[(gathered.names[key], gathered.clean[key].values) for key in keys],
        weights=[s * float(np.sqrt(w)) for s, w in zip(gathered.scales, gathered.weights, strict=True)],
        sizes={mode: labels.size for mode, labels in gathered.labels.items()},
        rank=gathered.model.rank,
        carrier=gathered.program.plan.blocks[-1][-1],
        nonnegative={mode: rule.nonnegative for mode, rule in gathered.problem.constraints.items()},
        dtype=gathered.dtype,
    )
    found = start.factors(context, seed)
    for mode, seen in gathered.measured.items():
        if seen is not None:
            found[mode] = np.where(seen[:, None], found[mode], 0)
    return {mode: jnp.asarray(found[mode], gathered.dtype) for mode in gathered.labels}


def _run_all(
    gathered: _Gathered,
    starts: list[tuple[AbstractStart, int]],
    seed: int,
    limits: Limits,
    stored: Checkpoint | None,
    bar: _Progress,
) -> tuple[Run, list[float]]:
    """Run every start, keep the best, and write checkpoints on the way."""
    del seed
    content = stored.load() if stored is not None else None
    finals = [] if content is None else [float(value) for value in content["finals"]]
    best: Run | None = None
    pending = None
    problem, program, model = gathered.problem, gathered.program, gathered.model
    if content is not None:
        like = init_state(model, program, problem, _start_factors(gathered, *starts[0]))
        if finals:
            best = run_from_arrays({k[5:]: v for k, v in content.items() if k.startswith("best_")}, like)
            best.status = Status[str(content["best_status"])]
        pending = {k[4:]: v for k, v in content.items() if k.startswith("run_")} or None
    for index in range(len(finals), len(starts)):
        start, own_seed = starts[index]

        def store(run: Run, force: bool = False) -> None:
            if stored is not None and (force or stored.due()):
                stored.save(_checkpoint_content(finals, best, run))

        bar.restart(index, best)
        factors = _start_factors(gathered, start, own_seed)
        run = solve(model, program, problem, factors, limits, resume=pending, report=bar.report, store=store)
        pending = None
        if run.status in (Status.INTERRUPTED, Status.TIME_LIMIT):
            store(run, force=True)
            # What was cut off counts only if nothing better is there; the status tells that it was cut off.
            if best is None or run.history[-1] < best.history[-1]:
                return run, [*finals, run.history[-1]]
            best.status = run.status
            return best, finals
        finals.append(run.history[-1])
        if best is None or run.history[-1] < best.history[-1]:
            best = run
        if index + 1 < len(starts) and stored is not None:
            stored.save(_checkpoint_content(finals, best, None))
    assert best is not None
    return best, finals


def _checkpoint_content(finals: list[float], best: Run | None, run: Run | None) -> dict[str, np.ndarray]:
    content: dict[str, np.ndarray] = {"finals": np.asarray(finals, float)}
    if best is not None:
        content |= {f"best_{name}": value for name, value in state_to_arrays(best).items()}
        content["best_status"] = np.asarray(best.status.name)
    if run is not None:
        content |= {f"run_{name}": value for name, value in state_to_arrays(run).items()}
    return content


def _open_checkpoint(
    path: Any, digest: Future[dict[str, str]], recipe: Any, starts: list[tuple[AbstractStart, int]]
) -> Checkpoint | None:
    if path is None:
        return None
    settings = {key: value for key, value in recipe.items() if key != "max_sweeps"}
    given = [hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for start, _ in starts if isinstance(start, From) for value in start.source.values()]
    text = json.dumps([digest.result(), settings, given, _versions(), platform.machine()], sort_keys=True, default=str)
    return Checkpoint(path, hashlib.sha256(text.encode()).hexdigest())


def _digest(gathered: _Gathered) -> dict[str, str]:
    """Return the hash of each tensor's values and mask."""
    found = {}
    for key, values in gathered.clean.items():
        digest = hashlib.sha256(str((values.values.shape, values.values.dtype.str)).encode())
        digest.update(memoryview(values.values).cast("B"))
        if values.valid is not None:
            digest.update(np.ascontiguousarray(values.valid).tobytes())
        found[key] = digest.hexdigest()
    return found


def _versions() -> dict[str, str]:
    import tensorspec

    return {
        "tensorspec": tensorspec.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _recipe(
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
    solver: Any,
    start: Any,
    modes: Any,
    weights: Any,
    restarts: int,
    max_sweeps: int,
    tol: float,
    seed: int,
    rescale: bool,
) -> dict[str, Any]:
    """Return the settings of the call as JSON."""
    return {
        "model": to_recipe(model),
        "loss": {key: to_recipe(item) for key, item in losses.items()},
        "solver": solver if isinstance(solver, str) else to_recipe(solver),
        "start": start if isinstance(start, str) else ("given" if isinstance(start, From) else to_recipe(start)),
        "modes": None if modes is None else {str(k): list(v) for k, v in modes.items()},
        "weights": weights if weights is None or isinstance(weights, (int, float)) else {k: float(v) for k, v in weights.items()},
        "restarts": int(restarts),
        "max_sweeps": int(max_sweeps),
        "tol": float(tol),
        "seed": int(seed),
        "rescale": bool(rescale),
    }


# -- back to labels --------------------------------------------------------------------------------------------------


def _finish(
    tensors: Mapping[str, xr.DataArray],
    gathered: _Gathered,
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
    run: Run,
    finals: list[float],
    recipe: dict[str, Any],
    digest: dict[str, str],
    seed: int,
    began: float,
    plan: Mapping[str, int],
    rescale: bool,
    start: Any,
) -> Fit:
    """Give the answer its labels, units and record."""
    keys, problem = list(tensors), gathered.problem
    value, _, squares = objective(gathered.model, Problem(problem.tensors, run.state.constraints), run.state.factors)
    fixed = {mode: rule.fixed_columns for mode, rule in problem.constraints.items()}
    numbered = isinstance(start, From) or any(
        item.components is not None or item.degree is None and any(fixed[mode])
        for mode, rule in problem.constraints.items()
        for item in rule.members
    )
    outcome = read_out(
        {mode: np.asarray(factor) for mode, factor in run.state.factors.items()},
        [gathered.names[key] for key in keys],
        gathered.scales,
        gathered.program.plan.carriers,
        fixed,
        gathered.measured,
        numbered,
    )
    numbers = {"component": np.arange(1, model.rank + 1)}
    explained = [
        1 - float(square) / float(tensor.square_norm) for square, tensor in zip(squares, problem.tensors, strict=True)
    ]
    for text in gathered.warnings:
        warnings.warn(text, stacklevel=3)
    records = {
        key: _record(tensors[key], gathered, k, losses[key], explained[k]) for k, key in enumerate(keys)
    }
    dims = ("component",) if len(keys) == 1 else ("tensor", "component")
    return Fit(
        factors={mode: split(outcome.factors[mode].T, labels) for mode, labels in gathered.labels.items()},
        weights=xr.DataArray(
            outcome.weights[0] if len(keys) == 1 else outcome.weights,
            dims=dims,
            coords=numbers if len(keys) == 1 else {"tensor": keys, **numbers},
            name="weights",
        ),
        tensors=records,
        modes=gathered.labels,
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
        spread=xr.DataArray(
            finals, dims="restart", coords={"restart": np.arange(1, len(finals) + 1)}, name="objective"
        )
        if len(finals) > 1
        else None,
        recipe=recipe,
        provenance=_provenance(gathered, run, digest, seed, began, plan, rescale, outcome.order),
        data=dict(tensors),
    )


def _record(tensor: xr.DataArray, gathered: _Gathered, index: int, loss: AbstractLoss, explained: float) -> TensorRecord:
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


def _provenance(
    gathered: _Gathered,
    run: Run,
    digest: dict[str, str],
    seed: int,
    began: float,
    plan: Mapping[str, int],
    rescale: bool,
    order: np.ndarray,
) -> dict[str, Any]:
    device = jax.devices()[0]
    keys = list(gathered.names)
    violations = {
        mode: float(rule.violation(run.state.factors[mode])) for mode, rule in run.state.constraints.items() if rule.members
    }
    return {
        "seed": int(seed),
        "versions": _versions(),
        "device": f"{device.platform}: {device.device_kind}",
        "platform": f"{platform.system()} {platform.machine()}",
        "dtype": gathered.dtype.name,
        "input_sha256": digest,
        "wall_seconds": round(time.monotonic() - began, 3),
        "memory_plan_bytes": dict(plan),
        "rescale": rescale,
        "scales": dict(zip(keys, gathered.scales, strict=True)),
        "objective_times_this_is_in_data_units": 1 / gathered.scales[0] ** 2 if len(keys) == 1 else None,
        "tensor_weights": dict(zip(keys, gathered.weights, strict=True)),
        "noise": {
            key: None if noise is None else {"variance": noise[0], "how": noise[1]}
            for key, noise in gathered.noise.items()
        },
        "noise_level": None if np.isnan(gathered.noise_level) else gathered.noise_level,
        "carriers": dict(zip(keys, gathered.program.plan.carriers, strict=True)),
        "constraints_as_solved": gathered.strengths,
        "violations": violations,
        "component_order": [int(k) + 1 for k in order],
        "warnings": list(gathered.warnings),
    }


class _Progress:
    """A bar where somebody watches, nothing else where not."""

    def __init__(self, wanted: bool | str, restarts: int, limits: Limits) -> None:
        self._show = _somebody_watches() if wanted == "auto" else bool(wanted)
        self._restarts, self._limits = restarts, limits
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._limits.max_sweeps, unit="sweep", leave=False)
        return self

    def __exit__(self, *details: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def restart(self, index: int, best: Run | None) -> None:
        """Begin the bar of a restart."""
        if self._bar is not None:
            self._bar.reset(total=self._limits.max_sweeps)
            text = f"start {index + 1} of {self._restarts}"
            self._bar.set_description(text if best is None else f"{text}, best {best.history[-1]:.6g}")

    def report(self, value: float, sweeps: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.n = sweeps
            self._bar.set_postfix_str(f"objective {value:.6g}")


def _somebody_watches() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() or "ipykernel" in sys.modules
