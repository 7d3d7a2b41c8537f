"""New samples of one mode, all other factors held."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.algebra.majoriser import Majoriser
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import Context, OfSamples, Resolvable
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.errors import ConstraintConflict, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.fit.arrays import labelled, with_arrays
from tensorspec.fit.behind import find_own_modes
from tensorspec.fit.build import build_tensor, traced
from tensorspec.fit.core import core_as_factor
from tensorspec.fit.validate import SINGLE, as_mapping, check_kind, clean
from tensorspec.losses.base import AbstractDivergence
from tensorspec.models.base import AbstractModel
from tensorspec.modes import split
from tensorspec.pieces import evolving_mode, own_dims, refuse_evolving
from tensorspec.problem import Factors, Problem, Tensor
from tensorspec.solution import Fit
from tensorspec.solvers.base import Block
from tensorspec.solvers.dispatch import choose_for
from tensorspec.solvers.hals import HALS
from tensorspec.solvers.question import added, ask, doubled_loss
from tensorspec.solvers.scoring import ScoringState, scored_step

__all__ = ["transform"]

_MAX_STEPS, _MAX_RENEWALS = 200, 2000
_TOLERANCE = 1e-9


def transform(fit: Fit, new_data: Any, mode: str | None = None) -> xr.DataArray:
    """Return the factor of one mode for new samples, the other factors of a fit held.

    Parameters
    ----------
    fit
        The fit whose other factors are used.
    new_data
        New data with the other modes of the fit: a DataArray, or a mapping by tensor; of several tensors some may be
        missing.
    mode
        The mode whose samples are new; by default ``pixel``, or else the first.

    Returns
    -------
    DataArray
        Dimensions (component, the mode's own), in the units of ``fit.factors[mode]``: the model of the new data is the
        sum of ``fit.weights`` (or the core) times this and the other factors.

    Raises
    ------
    UnknownMode
        When the fit has no such mode, or left it whole.
    InvalidData
        When no tensor of the new data is one of the fit's with that mode.
    ModeMismatch
        When another mode has other points than in the fit.
    """
    chosen = mode or ("pixel" if "pixel" in fit.modes else next(iter(fit.modes)))
    if chosen in fit.modes and chosen not in fit.factors:
        raise UnknownMode(f"mode={chosen!r} is left whole and has no factor; modes with one are {list(fit.factors)}")
    if chosen not in fit.modes:
        raise UnknownMode(f"mode={mode!r}: this fit has modes {list(fit.modes)}.{suggest(chosen, fit.modes)}")
    tensors = as_mapping(new_data)
    if list(tensors) == [SINGLE] and SINGLE not in fit.tensors:
        raise InvalidData(f"the fit has the tensors {list(fit.tensors)}; give a mapping by name of those you have")
    for name, tensor in tensors.items():
        if name not in fit.tensors or chosen not in fit.tensors[name].modes:
            known = [key for key, record in fit.tensors.items() if chosen in record.modes]
            raise InvalidData(f"tensor {name!r} of the new data: the fit knows {known} on mode {chosen!r}")
        check_kind(name, tensor)
    for pair in filter(None, (evolving_mode(fit, name) for name in tensors)):
        if chosen in pair:
            refuse_evolving(fit, f"transform on mode {chosen!r}", "new samples have profiles of their own, so fit anew")
    grouping = {own.name: dims for own in fit.modes.values() if (dims := _dims_in_data(fit, own.name)) != (own.name,)}
    through = [name for name in tensors if chosen in fit.views.get(name, {})]
    if through:
        raise InvalidData(
            f"tensor {through[0]!r} sees mode {chosen!r} through an operator, which new samples of that "
            "mode do not have; leave it out, or fit anew"
        )
    pairs = [(name, other) for name in tensors for other in fit.views.get(name, {})]
    labels, _, hidden = find_own_modes(tensors, _present(grouping, tensors), pairs)
    own = {name: labels | {other: mode for (key, other), mode in hidden.items() if key == name} for name in tensors}
    for name in tensors:
        for other in fit.tensors[name].modes:
            expected = fit.modes[other].shape
            if other in fit.factors:
                expected = tuple(fit.seen(name, other).sizes[dim] for dim in own_dims(fit, name, other))
            if other != chosen and (other not in own[name] or own[name][other].shape != expected):
                shape = own[name][other].shape if other in own[name] else "absent"
                raise ModeMismatch(
                    f"mode {other!r} of tensor {name!r} has shape {shape} in the new data, {expected} in "
                    f"the fit; only mode {chosen!r} may be new"
                )
    with jax.enable_x64(True):
        values = _solve(fit, tensors, own, chosen)
    return split(values.T, labels[chosen], coords={"component": fit.factors[chosen].coords["component"].values})


def _dims_in_data(fit: Fit, mode: str) -> tuple[str, ...]:
    """Return the dimensions that a mode has in the data."""
    name = next(key for key, record in fit.tensors.items() if mode in record.modes)
    return own_dims(fit, name, mode) if evolving_mode(fit, name) is not None else fit.modes[mode].dims


def _present(grouping: dict[str, tuple[str, ...]], tensors: dict[str, xr.DataArray]) -> dict[str, tuple[str, ...]]:
    dims = {dim for tensor in tensors.values() for dim in tensor.dims}
    kept = {name: tuple(dim for dim in own if dim in dims) for name, own in grouping.items()}
    return {name: own for name, own in kept.items() if own}


def _solve(fit: Fit, tensors: dict[str, xr.DataArray], own: dict[str, Any], mode: str) -> np.ndarray:
    labels = own[next(iter(tensors))]
    rank, size = fit.ranks[mode], labels[mode].size
    dtype = np.dtype(fit.provenance.get("dtype", "float64"))
    rescale = bool(fit.provenance.get("rescale", True))
    scales = {name: 1 / fit.tensors[name].rms if rescale else 1.0 for name in tensors}
    weight = {name: fit.tensors[name].data_weight for name in tensors}
    carries = mode in fit.provenance.get("carriers", {}).values()
    amplitude = np.ones(rank)
    if carries:
        # The amplitudes that the fit itself had on this mode, so that penalties keep their meaning.
        joint = {name: np.asarray(fit.strengths(name).values) / fit.tensors[name].rms for name in fit.tensors}
        square = sum(
            fit.tensors[name].data_weight * (joint[name] if rescale else joint[name] * fit.tensors[name].rms) ** 2
            for name, record in fit.tensors.items()
            if mode in record.modes
        )
        if len(fit.tensors) == 1:
            square = square / fit.tensors[next(iter(fit.tensors))].data_weight
        amplitude = np.where(square > 0, np.sqrt(square), 1.0)
    rules = _rules(fit, labels, mode, scales)
    if rules.stateful:  # what was learnt from the samples of the fit
        fitted = np.nan_to_num(fit.factors[mode].values.reshape(rank, -1).T) * amplitude
        rules = rules.init_state(len(fitted)).update_state(jnp.asarray(fitted))
    parts: list[tuple[Tensor, Factors]] = []
    seen = np.zeros(size, bool)
    for name, tensor in tensors.items():
        names = fit.tensors[name].modes
        values = clean(name, tensor, None, names, own[name])
        axis = names.index(mode)
        others = tuple(k for k in range(len(names)) if k != axis)
        seen |= True if values.valid is None else values.valid.any(axis=others)
        entry = with_arrays(fit.losses[name], names, own[name]).entry_weights(values.values, values.valid, rescale)
        core = fit.model.core_of(name, {key: record.modes for key, record in fit.tensors.items()})
        loss = fit.losses[name]
        built = build_tensor(names, values, entry, scales[name], weight[name], dtype, loss, core=core)
        factors = {
            other: jnp.asarray(np.nan_to_num(fit.seen(name, other).values.reshape(fit.ranks[other], -1).T), dtype)
            for other in names
            if other != mode and other in fit.factors
        }
        if core is None:
            strengths = np.asarray(fit.strengths(name).values) * scales[name]
            first = next(other for other in names if other != mode)
            factors[first] = factors[first] * jnp.asarray(strengths / amplitude, dtype)
        else:
            factors[core] = jnp.asarray(core_as_factor(fit, name) * scales[name], dtype)
        factors[mode] = jnp.zeros((size, rank), dtype)
        parts.append((built, factors))
    start = rules.prox(jnp.full((size, rank), 1e-3, dtype), 0.0)
    found = np.asarray(_solved(fit.model, parts, mode, rules, start)) / amplitude
    found[~seen] = np.nan
    return found


def _solved(
    model: AbstractModel, parts: list[tuple[Tensor, Factors]], mode: str, rules: ModeConstraints, start: Any
) -> Any:
    """Repeat the step of a block until its factor stands still; a loss without normal equations is asked anew."""

    def question(factor: Any, scored: bool = False) -> NormalEquations | Majoriser:
        asked = [
            ask(model, Problem((tensor,), {}), {**factors, mode: factor}, mode, scored=scored)[0]
            for tensor, factors in parts
        ]
        return added(asked, factor)

    fixed = question(start) if all(tensor.loss is None for tensor, _ in parts) else None
    bounded = any(isinstance(tensor.loss, AbstractDivergence) for tensor, _ in parts)
    per_row = fixed is None or (isinstance(fixed, NormalEquations) and fixed.per_row)
    asked = None if bounded else HALS(inner=50)
    solver, _ = choose_for([mode], [rules], [per_row], [(False,) * rules.rank], asked, bounded)
    scored = bounded and not solver.divergences

    def value(factor: Any) -> Any:
        losses = [tensor.weight * doubled_loss(model, tensor, {**factors, mode: factor}) for tensor, factors in parts]
        return 0.5 * sum(losses) + rules.value(factor)

    @eqx.filter_jit
    def step(factor: Any, state: Any, fixed: Any) -> Any:
        equations = question(factor, scored) if fixed is None else fixed
        block = Block([equations], [factor], [rules], None)
        if scored:
            factors, state = scored_step(solver, block, state, lambda found: value(found[0]))
        else:
            factors, state = solver.step(block, state)
        return factors[0], state

    factor, state = start, solver.init([start], [rules])
    state = ScoringState.start(state) if scored else state
    for _ in range(_MAX_STEPS if fixed is not None else _MAX_RENEWALS):
        new, state = step(factor, state, fixed)
        moved = float(jnp.max(jnp.abs(new - factor)))
        factor = new
        if moved <= _TOLERANCE * float(jnp.max(jnp.abs(factor))):
            break
    return factor


def _rules(fit: Fit, labels: Any, mode: str, scales: dict[str, float]) -> ModeConstraints:
    """Return the constraints of the mode, for its new points."""
    items = combine(labelled(fit.model.constraints_for(mode), labels[mode], fit.ranks[mode]))
    held = [type(item).__name__ for item in items if isinstance(item, OfSamples)]
    if held:
        raise ConstraintConflict(f"mode {mode!r} has {held[0]} values, which belong to the samples that were fitted")
    own = labels[mode]
    owners = [name for name, carrier in fit.provenance.get("carriers", {}).items() if carrier == mode]
    scale = scales.get(owners[0], 1.0) if len(owners) == 1 else 1.0
    level = fit.provenance.get("noise_level") or float("nan")
    deviation = fit.provenance.get("noise_deviation") or float("nan")
    grid = (own.shape, own.coordinates, own.units)
    curvature = (fit.provenance.get("misfit_curvatures") or (1.0, 1.0))[0 if owners else 1] or float("nan")
    context = Context(mode, *grid, fit.ranks[mode], level, scale, deviation, bool(owners), curvature)
    resolved = [item.resolve(context) if isinstance(item, Resolvable) else item for item in items]
    return ModeConstraints(tuple(jax.tree.map(traced, item) for item in resolved), fit.ranks[mode])
