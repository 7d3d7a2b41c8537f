"""Labels to arrays: everything that is settled before the first sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.constraints.base import AbstractConstraint, Assumption, Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, check_partners, combine
from tensorspec.constraints.relevance import ARD
from tensorspec.coupling.links import Link, check_links
from tensorspec.coupling.sharing import FIND, components_seen, strength_penalties
from tensorspec.errors import InvalidArgument
from tensorspec.fit.arrays import labelled, with_arrays
from tensorspec.fit.behind import Behind, find_modes_behind
from tensorspec.fit.build import build_tensor, traced
from tensorspec.fit.checks import check_constraints
from tensorspec.fit.deviation import noise_deviation
from tensorspec.fit.evolving import check_evolving, per_row_modes, settled, stacked
from tensorspec.fit.likelihood import check_counts, check_model, check_operators, strength_units, warm_start
from tensorspec.fit.measured import find_measured
from tensorspec.fit.sparsity import NeedsDense, by_counts, check_dense, refusal, with_few_repeats
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import CleanTensor, by_tensor, clean
from tensorspec.fit.weights import noise_level, noise_of, tensor_weights
from tensorspec.losses.base import AbstractDivergence, AbstractLoss, AbstractRobustLoss
from tensorspec.losses.likelihood import Poisson
from tensorspec.models.base import AbstractModel
from tensorspec.modes import ModeLabels
from tensorspec.problem import Problem, Tensor
from tensorspec.recipe import constructor_repr
from tensorspec.scale import ScalePlan
from tensorspec.solvers.adaptive import adaptive_mode
from tensorspec.solvers.base import AbstractAnySolver, AbstractJointSolver
from tensorspec.solvers.dispatch import choose_solvers
from tensorspec.solvers.repeats import with_repeats
from tensorspec.solvers.sweep import Program

__all__ = ["Gathered", "gather"]


class Gathered(NamedTuple):
    """Everything that labels became."""

    problem: Problem
    program: Program
    without: tuple[Problem, Program] | None  # the same without what is only believed
    warm: tuple[Problem, Program] | None  # the same for some first sweeps
    model: AbstractModel
    shapes: dict[str, tuple[int, int]]
    cores: dict[str, str]
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
    surveyed: Mapping[str, Surveyed] | None = None,
) -> Gathered:
    """Turn labels into arrays, settle everything that has to be settled, and choose the solvers.

    Tensors that come in blocks are `surveyed`, by name; their data are not read again.
    """
    dense: dict[str, str] = {}
    while True:
        try:
            return _gather(tensors, model, losses, mask, modes, weights, solver, rescale, dense, surveyed or {})
        except NeedsDense as found:
            dense[found.tensor] = found.reason


def _gather(
    tensors: dict[str, xr.DataArray],
    model: AbstractModel,
    losses: dict[str, AbstractLoss],
    mask: Any,
    modes: Any,
    weights: Any,
    solver: Any,
    rescale: bool,
    dense: dict[str, str],
    surveyed: Mapping[str, Surveyed],
) -> Gathered:
    """Return what `gather` does; tensors in `dense` are not taken by their counts, for the reason given."""
    keys = list(tensors)
    for key, item in losses.items():
        if not isinstance(item, AbstractLoss):
            raise InvalidArgument(f"loss of tensor {key!r} is {item!r}: expected a loss such as ts.LeastSquares()")
        if not (item.quadratic or isinstance(item, (AbstractDivergence, AbstractRobustLoss))):
            raise InvalidArgument(
                f"loss of tensor {key!r}, {constructor_repr(item)}, is neither quadratic, nor a divergence, nor "
                "robust: no solver here can take it; expected a loss such as ts.LeastSquares()"
            )
    behind = stacked(find_modes_behind(tensors, modes, model.operators), model)
    check_evolving(model, losses)
    labels, names, order = behind.labels, behind.names, list(behind.labels)
    operators = jax.tree.map(traced, behind.operators)
    sizes = {mode: labels[mode].size for mode in order}
    shapes, cores = model.shapes(names, sizes), {key: model.core_of(key, names) for key in keys}
    check_constraints(model, shapes, labels, [core for core in cores.values() if core is not None])
    seen = components_seen(model.share, keys, max(columns for _, columns in shapes.values()))
    check_links(model.links, names, sizes)
    links = tuple(jax.tree.map(traced, link) for link in model.links)
    masks = by_tensor(mask, keys, "mask", None)
    chosen = solver if isinstance(solver, AbstractAnySolver) else None
    dense = {
        key: reason for key in keys if (reason := dense.get(key) or refusal(model, losses[key], chosen)) is not None
    }
    for key, reason in dense.items():
        check_dense(tensors[key], key, reason)
    cleaned = {
        key: surveyed[key].clean
        if key in surveyed
        else clean(key, tensors[key], masks[key], names[key], behind.own[key], None if key in dense else losses[key])
        for key in keys
    }
    double = any(c.values.dtype == np.float64 or _too_large_for_float32(c.values) for c in cleaned.values())
    dtype = np.dtype(np.float64 if double else np.float32)
    constraints = {
        mode: labelled(model.constraints_for(mode), labels[mode], shape[1])
        for mode, shape in shapes.items()
        if mode in labels
    }
    constraints |= {core: model.core_constraints(key, names) for key, core in cores.items() if core is not None}
    constraints = settled(constraints, model, sizes)
    for mode, items in constraints.items():
        check_partners(mode, items)
    likelihood = any(isinstance(item, AbstractDivergence) for item in losses.values())
    notes = check_counts(losses, tensors, cleaned, names, behind.own) if likelihood else []
    # Counts are counts: beside a likelihood every term stays in its own units.
    rescale = rescale and not likelihood
    entry = {
        key: surveyed[key].entry_weights(losses[key], rescale)
        if key in surveyed
        else with_arrays(losses[key], names[key], behind.own[key]).entry_weights(c.values, c.valid, rescale)
        for key, c in cleaned.items()
    }
    for key, found in entry.items():
        if found.dense is not None and isinstance(cleaned[key].values, Entries):
            raise NeedsDense(key, "a mask or weight that is no product of one per mode")
    scales = {key: 1 / c.rms if rescale else 1.0 for key, c in cleaned.items()}
    automatic = [item for items in constraints.values() for item in items if _is_automatic(item)]
    if likelihood:
        check_model(losses, constraints, {mode: columns for mode, (_, columns) in shapes.items()})
    check_operators(losses, behind, operators)
    needs_noise = (len(keys) > 1 and (weights is None or likelihood)) or bool(automatic)
    largest = max((columns for mode, (_, columns) in shapes.items() if mode in labels), default=1)
    # Of a tensor in blocks some rows tell of its noise.
    looked = (
        {key: surveyed[key].sample if key in surveyed else cleaned[key] for key in keys} if needs_noise else cleaned
    )
    noise = {key: noise_of(tensors[key], looked[key], entry[key], largest) if needs_noise else None for key in keys}
    found = tensor_weights(weights, keys, cleaned, scales, noise, losses if likelihood else None)
    level = noise_level(keys, cleaned, found, noise) if needs_noise else float("nan")

    if model.share == FIND:
        sizes_of = {key: (c.count, found[key]) for key, c in cleaned.items()}
        for mode, penalty in strength_penalties(names, sizes_of, constraints).items():
            constraints[mode] = (*constraints[mode], penalty)
    combined = {mode: combine(items) for mode, items in constraints.items()}
    rules = {mode: ModeConstraints(items, shapes[mode][1]) for mode, items in combined.items()}
    along = any(isinstance(item, ARD) for items in constraints.values() for item in items) and needs_noise
    deviation = noise_deviation(tensors, looked, entry, noise, scales, found) if along else float("nan")
    curvatures = (1.0, 1.0)
    if likelihood and automatic:
        level, deviation, *curvatures = strength_units(losses, cleaned, found, noise)
    resolved = _resolve(rules, labels, names, scales, model, level, deviation, curvatures)
    scale_plan = _plan(resolved, names, model)
    built = {
        key: build_tensor(
            names[key],
            cleaned[key],
            entry[key],
            scales[key],
            found[key],
            dtype,
            losses[key],
            own,
            operators[key],
            cores[key],
        )
        for key, own in zip(keys, seen, strict=True)
    }
    own_rows = per_row_modes(model)
    per_row = {
        name: name in own_rows or any(_weighs_rows(tensor, name) for tensor in built.values()) for name in shapes
    }
    bounded = {
        name for key in keys if isinstance(losses[key], AbstractDivergence) for name in built[key].depends_on
    } & set(shapes)
    blocks, solver_name, why = choose_solvers(scale_plan, resolved, per_row, chosen, bounded)
    blocks = with_repeats(blocks, resolved, shapes, per_row) if chosen is None else blocks
    blocks = with_few_repeats(blocks, cleaned, chosen)
    why += by_counts(cleaned)
    if any(block.scored for block in blocks):
        for key in keys:
            if isinstance(cleaned[key].values, Entries) and isinstance(losses[key], AbstractDivergence):
                raise NeedsDense(key, f"{solver_name} with loss={constructor_repr(losses[key])}")
    measured, unseen = find_measured(cleaned, names, labels, operators, model)
    without = _without_assumptions(tuple(built.values()), resolved, links, names, model, per_row, chosen, bounded)
    warm = None
    if surveyed:
        without = None  # a fit of binned data comes first, and knows of priors and warm starts
    elif any(isinstance(losses[key], Poisson) for key in keys):
        first = resolved if without is None else without[0].constraints
        plain = {
            key: build_tensor(
                names[key],
                cleaned[key],
                other,
                scales[key],
                found[key],
                dtype,
                None,
                built[key].seen,
                operators[key],
                cores[key],
                built[key].blocks if isinstance(cleaned[key].values, Entries) else None,
            )
            for key, other in warm_start(losses, cleaned).items()
        }
        warm = _warm(tuple(plain.get(key, built[key]) for key in keys), first, links, names, model, losses)
    elif isinstance(chosen, AbstractJointSolver) and chosen.warm:
        first = resolved if without is None else without[0].constraints
        warm = _warm(tuple(built.values()), first, links, names, model, losses)
    return Gathered(
        problem=Problem(tuple(built.values()), resolved, links),
        program=Program(scale_plan, blocks),
        without=without,
        warm=warm,
        model=_bare(model),
        shapes=shapes,
        cores={key: core for key, core in cores.items() if core is not None},
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


def _weighs_rows(tensor: Tensor, name: str) -> bool:
    """Return whether every row of a factor has a Gram matrix of its own."""
    if name not in tensor.depends_on:
        return False
    if isinstance(tensor.loss, AbstractRobustLoss) or tensor.dense is not None:
        return True
    if name == tensor.core:  # its rows are points of modes that are left whole
        return any(row is not None for row in tensor.rows)
    return tensor.rows[tensor.modes.index(name)] is not None


def _too_large_for_float32(values: Any) -> bool:
    if values.dtype.kind not in "ui" or values.dtype.itemsize <= 2:
        return False
    if isinstance(values, Surveyed):
        return max(abs(values.low), abs(values.high)) > 2**24
    stored = values.stored if isinstance(values, Entries) else values
    return int(np.abs(stored).max()) > 2**24


def _plan(
    rules: Mapping[str, ModeConstraints], names: Mapping[str, tuple[str, ...]], model: AbstractModel
) -> ScalePlan:
    adaptive = adaptive_mode(rules)
    # The published soft orthogonality is a rule for maps of unit norm, so another mode carries the amplitudes.
    partner = None if adaptive is None else next((mode for mode in rules if mode != adaptive), None)
    return model.scale_plan(names, rules, partner)


def _without_assumptions(
    tensors: tuple[Tensor, ...],
    rules: Mapping[str, ModeConstraints],
    links: tuple[Link, ...],
    names: Mapping[str, tuple[str, ...]],
    model: AbstractModel,
    per_row: Mapping[str, bool],
    solver: AbstractAnySolver | None,
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
    """Return the problem that a fit begins with: the usual solvers, and the tensors given, some as least squares."""
    plan = _plan(rules, names, model)
    bounded = {
        mode
        for key, tensor in zip(names, tensors, strict=True)
        if tensor.loss is not None and isinstance(losses[key], AbstractDivergence)
        for mode in tensor.depends_on
    } & set(rules)
    blocks = choose_solvers(plan, rules, dict.fromkeys(rules, True), None, bounded)[0]
    return Problem(tensors, rules, links), Program(plan, blocks)


def _bare(model: AbstractModel) -> AbstractModel:
    """Return the model without what the problem holds by now, so that equal programs are recognised."""
    settings = {"constraints": {}, "share": None, "operators": {}, "links": (), "pattern": ()}
    known = {field.name for field in dataclasses.fields(model) if field.init}
    return dataclasses.replace(model, **{name: value for name, value in settings.items() if name in known})


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
        own = labels.get(mode)
        grid = ((1,), (None,), (None,)) if own is None else (own.shape, own.coordinates, own.units)
        curvature = curvatures[0 if owners else 1]
        context = Context(mode, *grid, rule.rank, level, data_scale, deviation, bool(owners), curvature)
        members = [item.resolve(context) if isinstance(item, Resolvable) else item for item in rule.members]
        found[mode] = ModeConstraints(tuple(jax.tree.map(traced, item) for item in members), rule.rank)
    return found
