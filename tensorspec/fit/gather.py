"""Labels to arrays: everything that is settled before the first sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.constraints.base import AbstractConstraint, Assumption, Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, check_partners, combine
from tensorspec.constraints.relevance import ARD
from tensorspec.coupling.links import Link, check_links
from tensorspec.coupling.sharing import FIND, components_seen, strength_penalties
from tensorspec.errors import InvalidArgument, RankOutOfRange, UnknownMode, suggest
from tensorspec.fit.alignment import align_atoms, align_values
from tensorspec.fit.behind import Behind, find_modes_behind
from tensorspec.fit.deviation import noise_deviation
from tensorspec.fit.likelihood import (
    check_counts,
    check_model,
    check_operators,
    reference_loss,
    strength_units,
    warm_start,
)
from tensorspec.fit.measured import find_measured
from tensorspec.fit.validate import CleanTensor, by_tensor, clean
from tensorspec.fit.weights import noise_level, noise_of, tensor_weights
from tensorspec.losses.base import AbstractDivergence, AbstractLoss, AbstractRobustLoss, EntryWeights
from tensorspec.losses.likelihood import Poisson
from tensorspec.models.base import AbstractModel
from tensorspec.modes import ModeLabels, broadcast_to_array
from tensorspec.problem import Problem, Tensor
from tensorspec.recipe import constructor_repr
from tensorspec.scale import ScalePlan, plan_scale
from tensorspec.solvers.adaptive import adaptive_mode
from tensorspec.solvers.base import AbstractSolver
from tensorspec.solvers.dispatch import choose_solvers
from tensorspec.solvers.sweep import Program

__all__ = ["Gathered", "build_tensor", "gather", "labelled", "traced", "with_arrays"]


class Gathered(NamedTuple):
    """Everything that labels became."""

    problem: Problem
    program: Program
    without: tuple[Problem, Program] | None  # the same without what is only believed
    warm: tuple[Problem, Program] | None  # the same with least squares in place of the Poisson likelihood
    model: AbstractModel
    labels: dict[str, ModeLabels]
    names: dict[str, tuple[str, ...]]
    behind: Behind
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
    noise_deviation: float
    curvatures: tuple[float, ...]  # of the misfit, along amplitudes and along entries of other modes


def gather(
    tensors: dict[str, xr.DataArray],
    model: AbstractModel,
    losses: dict[str, AbstractLoss],
    mask: Any,
    modes: Any,
    weights: Any,
    solver: Any,
    rescale: bool,
) -> Gathered:
    """Turn labels into arrays, settle everything that has to be settled, and choose the solvers."""
    keys = list(tensors)
    for key, item in losses.items():
        if not isinstance(item, AbstractLoss):
            raise InvalidArgument(f"loss of tensor {key!r} is {item!r}: expected a loss such as ts.LeastSquares()")
        if not (item.quadratic or isinstance(item, (AbstractDivergence, AbstractRobustLoss))):
            raise InvalidArgument(
                f"loss of tensor {key!r}, {constructor_repr(item)}, is neither quadratic, nor a divergence, nor "
                "robust: no solver here can take it; expected a loss such as ts.LeastSquares()"
            )
    behind = find_modes_behind(tensors, modes, model.operators)
    labels, names, order = behind.labels, behind.names, list(behind.labels)
    operators = jax.tree.map(traced, behind.operators)
    sizes = {mode: labels[mode].size for mode in order}
    _check_model(model, sizes, names, labels)
    seen = components_seen(model.share, keys, model.rank)
    check_links(model.links, names, sizes)
    links = tuple(jax.tree.map(traced, link) for link in model.links)
    masks = by_tensor(mask, keys, "mask", None)
    cleaned = {key: clean(key, tensors[key], masks[key], names[key], behind.own[key]) for key in keys}
    double = any(c.values.dtype == np.float64 or _too_large_for_float32(c.values) for c in cleaned.values())
    dtype = np.dtype(np.float64 if double else np.float32)
    constraints = {mode: labelled(model.constraints_for(mode), labels[mode], model.rank) for mode in order}
    for mode, items in constraints.items():
        check_partners(mode, items)
    likelihood = any(isinstance(item, AbstractDivergence) for item in losses.values())
    notes = check_counts(losses, tensors, cleaned, names, behind.own) if likelihood else []
    # Counts are counts: beside a likelihood every term stays in its own units.
    rescale = rescale and not likelihood
    entry = {
        key: with_arrays(losses[key], names[key], behind.own[key]).entry_weights(c.values, c.valid, rescale)
        for key, c in cleaned.items()
    }
    scales = {key: 1 / c.rms if rescale else 1.0 for key, c in cleaned.items()}
    automatic = [item for items in constraints.values() for item in items if _is_automatic(item)]
    if likelihood:
        check_model(losses, constraints, model.rank)
    check_operators(losses, behind, operators)
    needs_noise = len(keys) > 1 or bool(automatic)
    noise = {key: noise_of(tensors[key], cleaned[key], entry[key], model.rank) if needs_noise else None for key in keys}
    found = tensor_weights(weights, keys, cleaned, scales, noise, losses if likelihood else None)
    level = noise_level(keys, cleaned, found, noise) if needs_noise else float("nan")

    if model.share == FIND:
        sizes_of = {key: (c.count, found[key]) for key, c in cleaned.items()}
        for mode, penalty in strength_penalties(names, sizes_of, constraints).items():
            constraints[mode] = (*constraints[mode], penalty)
    combined = {mode: combine(items) for mode, items in constraints.items()}
    rules = {mode: ModeConstraints(items, model.rank) for mode, items in combined.items()}
    along = any(isinstance(item, ARD) for items in constraints.values() for item in items) and needs_noise
    deviation = noise_deviation(tensors, cleaned, entry, noise, scales, found) if along else float("nan")
    curvatures = (1.0, 1.0)
    if likelihood and automatic:
        level, deviation, *curvatures = strength_units(losses, cleaned, found, noise)
    resolved = _resolve(rules, labels, names, scales, model, level, deviation, curvatures)
    scale_plan = _plan(resolved, names, model)
    built = {
        key: build_tensor(
            names[key], cleaned[key], entry[key], scales[key], found[key], dtype, losses[key], own, operators[key]
        )
        for key, own in zip(keys, seen, strict=True)
    }
    per_row = {
        mode: any(
            mode in built[key].modes
            and (
                isinstance(built[key].loss, AbstractRobustLoss)
                or built[key].dense is not None
                or built[key].rows[built[key].modes.index(mode)] is not None
            )
            for key in keys
        )
        for mode in order
    }
    chosen = solver if isinstance(solver, AbstractSolver) else None
    bounded = {mode for key in keys if isinstance(losses[key], AbstractDivergence) for mode in names[key]}
    blocks, solver_name, why = choose_solvers(scale_plan, resolved, per_row, chosen, bounded)
    measured, unseen = find_measured(cleaned, names, labels, operators)
    without = _without_assumptions(tuple(built.values()), resolved, links, names, model, per_row, chosen, bounded)
    warm = None
    if any(isinstance(losses[key], Poisson) for key in keys):
        first = resolved if without is None else without[0].constraints
        plain = {
            key: build_tensor(
                names[key], cleaned[key], other, scales[key], found[key], dtype, None, built[key].seen, operators[key]
            )
            for key, other in warm_start(losses, cleaned).items()
        }
        warm = _warm(tuple(plain.get(key, built[key]) for key in keys), first, links, names, model, losses)
    return Gathered(
        problem=Problem(tuple(built.values()), resolved, links),
        program=Program(scale_plan, blocks),
        without=without,
        warm=warm,
        model=dataclasses.replace(model, constraints={}, share=None, operators={}, links=()),
        labels=labels,
        names=names,
        behind=behind,
        clean=cleaned,
        scales=[scales[key] for key in keys],
        weights=[found[key] for key in keys],
        noise=noise,
        measured=measured,
        solver=solver_name,
        why=why,
        dtype=dtype,
        warnings=[*notes, *unseen],
        strengths={mode: [constructor_repr(item) for item in rule.members] for mode, rule in resolved.items()},
        noise_level=level,
        noise_deviation=deviation,
        curvatures=tuple(curvatures),
    )


def _check_model(
    model: AbstractModel,
    sizes: Mapping[str, int],
    names: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, ModeLabels],
) -> None:
    for mode in model.constraints:
        if mode not in sizes:
            listed = ", ".join(map(repr, sizes))
            inside = next((name for name, own in labels.items() if mode in own.dims), None)
            hint = f" The dimension {mode!r} is part of the mode {inside!r}." if inside else suggest(mode, sizes)
            raise UnknownMode(f"constraint given for mode {mode!r}; these data have modes {listed}.{hint}")
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


def labelled(items: Sequence[AbstractConstraint], labels: ModeLabels, rank: int) -> tuple[AbstractConstraint, ...]:
    """Return the constraints with labelled values as plain arrays on the points of the mode."""
    found = []
    for item in items:
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            if isinstance(value, xr.DataArray):
                what = f"{type(item).__name__}({field.name}=...)"
                if field.metadata.get("atoms"):
                    item = dataclasses.replace(item, **{field.name: align_atoms(value, labels, what)})
                    continue
                array, numbers = align_values(value, labels, rank, item.components, what)
                item = dataclasses.replace(item, **{field.name: array, "components": numbers})
        found.append(item)
    return tuple(found)


def with_arrays(loss: AbstractLoss, names: tuple[str, ...], labels: Mapping[str, ModeLabels]) -> AbstractLoss:
    """Return the loss with labelled values broadcast to the axes of the tensor."""
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if isinstance(value, xr.DataArray):
            array = broadcast_to_array(value, names, labels, what=field.name)
            loss = dataclasses.replace(loss, **{field.name: array})
    return loss


def _plan(
    rules: Mapping[str, ModeConstraints], names: Mapping[str, tuple[str, ...]], model: AbstractModel
) -> ScalePlan:
    fixed = {mode: rule.fixed_columns for mode, rule in rules.items()}
    linked = {mode for link in model.links for mode in link.modes}
    free = {mode: rule.scale_free and mode not in linked for mode, rule in rules.items()}
    seen = [own or (True,) * model.rank for own in components_seen(model.share, list(names), model.rank)]
    apart = model.share == FIND
    adaptive = adaptive_mode(rules)
    # The published soft orthogonality is a rule for maps of unit norm, so another mode carries the amplitudes.
    partner = None if adaptive is None else next((mode for mode in rules if mode != adaptive), None)
    return plan_scale(list(names.values()), model.rank, fixed, free, model.scale or partner, seen, apart, linked)


def _without_assumptions(
    tensors: tuple[Tensor, ...],
    rules: Mapping[str, ModeConstraints],
    links: tuple[Link, ...],
    names: Mapping[str, tuple[str, ...]],
    model: AbstractModel,
    per_row: Mapping[str, bool],
    solver: AbstractSolver | None,
    divergences: Collection[str],
) -> tuple[Problem, Program] | None:
    """Return the problem without the constraints that are only believed, or None when there is none."""
    left = {
        mode: ModeConstraints(tuple(item for item in rule.members if not isinstance(item, Assumption)), rule.rank)
        for mode, rule in rules.items()
    }
    if all(len(left[mode].members) == len(rule.members) for mode, rule in rules.items()):
        return None
    plan = _plan(left, names, model)
    return Problem(tensors, left, links), Program(plan, choose_solvers(plan, left, per_row, solver, divergences)[0])


def _warm(
    tensors: tuple[Tensor, ...],
    rules: Mapping[str, ModeConstraints],
    links: tuple[Link, ...],
    names: Mapping[str, tuple[str, ...]],
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
) -> tuple[Problem, Program] | None:
    """Return the problem with least squares in place of the Poisson likelihood, whose solution is a good start."""
    plan = _plan(rules, names, model)
    bounded = {
        mode
        for key, tensor in zip(names, tensors, strict=True)
        if tensor.loss is not None and isinstance(losses[key], AbstractDivergence)
        for mode in names[key]
    }
    blocks = choose_solvers(plan, rules, dict.fromkeys(rules, True), None, bounded)[0]
    return Problem(tensors, rules, links), Program(plan, blocks)


def _is_automatic(item: AbstractConstraint) -> bool:
    return any(isinstance(leaf, str) for leaf in jax.tree.leaves(item))


def _resolve(
    rules: Mapping[str, ModeConstraints],
    labels: Mapping[str, ModeLabels],
    names: Mapping[str, tuple[str, ...]],
    scales: Mapping[str, float],
    model: AbstractModel,
    level: float,
    deviation: float,
    curvatures: Sequence[float],
) -> dict[str, ModeConstraints]:
    """Settle automatic strengths, bring values to the units of the problem, and make every number traced data."""
    carriers = dict(zip(names, _plan(rules, names, model).carriers, strict=True))
    found = {}
    for mode, rule in rules.items():
        owners = [key for key, carrier in carriers.items() if carrier == mode]
        data_scale = scales[owners[0]] if len(owners) == 1 else 1.0
        own = labels[mode]
        grid = (own.shape, own.coordinates, own.units)
        curvature = curvatures[0 if owners else 1]
        context = Context(mode, *grid, model.rank, level, data_scale, deviation, bool(owners), curvature)
        members = [item.resolve(context) if isinstance(item, Resolvable) else item for item in rule.members]
        found[mode] = ModeConstraints(tuple(jax.tree.map(traced, item) for item in members), model.rank)
    return found


def traced(leaf: Any) -> Any:
    """Return a number of a constraint as traced data, so that another value never compiles again."""
    if isinstance(leaf, (float, np.ndarray, np.floating)):
        return jnp.asarray(leaf, jnp.float64)
    return leaf


def build_tensor(
    names: tuple[str, ...],
    values: CleanTensor,
    entry: EntryWeights,
    scale: float,
    weight: float,
    dtype: np.dtype,
    loss: AbstractLoss | None = None,
    seen: tuple[bool, ...] | None = None,
    operators: tuple[Any, ...] | None = None,
) -> Tensor:
    """Return a tensor of the problem."""
    stored, dense = values.values, entry.dense
    if dense is not None and dense.dtype.kind == "f":
        stored = (stored * dense).astype(dtype)
        dense = dense.astype(dtype)
    if loss is None or loss.quadratic:
        square, loss = _weighted_square(values.values, entry) * scale**2, None
    else:
        square = 2 * reference_loss(loss, values) * scale**2
    return Tensor(
        modes=names,
        blocks=(jnp.asarray(stored),),
        scale=jnp.asarray(scale, jnp.float64),
        weight=jnp.asarray(weight, jnp.float64),
        rows=tuple(None if row is None else jnp.asarray(row, jnp.float64) for row in entry.rows),
        dense=None if dense is None else (jnp.asarray(dense),),
        square_norm=jnp.asarray(square, jnp.float64),
        loss=None if loss is None else jax.tree.map(traced, loss),
        seen=seen,
        operators=operators,
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
