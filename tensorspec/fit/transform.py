"""New samples of one mode, all other factors held."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.constraints.base import Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.constraints.known import Fixed
from tensorspec.errors import ConstraintConflict, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.fit.gather import build_tensor, labelled, traced, with_arrays
from tensorspec.fit.validate import SINGLE, as_mapping, check_kind, clean
from tensorspec.modes import find_modes, split
from tensorspec.solution import Fit
from tensorspec.solvers.base import AbstractSolver, Block
from tensorspec.solvers.dispatch import choose_for
from tensorspec.solvers.hals import HALS

__all__ = ["transform"]

_MAX_STEPS = 200
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
        sum of ``fit.weights`` times this and the other factors.

    Raises
    ------
    UnknownMode
        When the fit has no such mode.
    InvalidData
        When no tensor of the new data is one of the fit's with that mode.
    ModeMismatch
        When another mode has other points than in the fit.
    """
    chosen = mode or ("pixel" if "pixel" in fit.modes else next(iter(fit.modes)))
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
    grouping = {own.name: own.dims for own in fit.modes.values() if own.dims != (own.name,)}
    labels, _ = find_modes(tensors, _present(grouping, tensors))
    for name in tensors:
        for other in fit.tensors[name].modes:
            if other != chosen and (other not in labels or labels[other].shape != fit.modes[other].shape):
                shape = labels[other].shape if other in labels else "absent"
                raise ModeMismatch(
                    f"mode {other!r} of tensor {name!r} has shape {shape} in the new data, {fit.modes[other].shape} in "
                    f"the fit; only mode {chosen!r} may be new"
                )
    with jax.enable_x64(True):
        values = _solve(fit, tensors, labels, chosen)
    return split(values.T, labels[chosen], coords={"component": fit.weights.coords["component"].values})


def _present(grouping: dict[str, tuple[str, ...]], tensors: dict[str, xr.DataArray]) -> dict[str, tuple[str, ...]]:
    dims = {dim for tensor in tensors.values() for dim in tensor.dims}
    kept = {name: tuple(dim for dim in own if dim in dims) for name, own in grouping.items()}
    return {name: own for name, own in kept.items() if own}


def _solve(fit: Fit, tensors: dict[str, xr.DataArray], labels: Any, mode: str) -> np.ndarray:
    rank, size = fit.rank, labels[mode].size
    dtype = np.dtype(fit.provenance.get("dtype", "float64"))
    rescale = bool(fit.provenance.get("rescale", True))
    scales = {name: 1 / fit.tensors[name].rms if rescale else 1.0 for name in tensors}
    weight = {name: fit.tensors[name].data_weight for name in tensors}
    strengths = {name: np.asarray(fit.strengths(name).values) * scales[name] for name in tensors}
    # The amplitudes that the fit itself had on this mode, so that penalties keep their meaning.
    joint = {name: np.asarray(fit.strengths(name).values) / fit.tensors[name].rms for name in fit.tensors}
    carries = mode in fit.provenance.get("carriers", {}).values()
    amplitude = np.ones(rank)
    if carries:
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
    equations, seen = None, np.zeros(size, bool)
    for name, tensor in tensors.items():
        names = fit.tensors[name].modes
        values = clean(name, tensor, None, names, labels)
        axis = names.index(mode)
        others = tuple(k for k in range(len(names)) if k != axis)
        seen |= True if values.valid is None else values.valid.any(axis=others)
        entry = with_arrays(fit.losses[name], names, labels).entry_weights(values.values, values.valid, rescale)
        built = build_tensor(names, values, entry, scales[name], weight[name], dtype)
        factors = {
            other: jnp.asarray(np.nan_to_num(fit.factors[other].values.reshape(rank, -1).T), dtype)
            for other in names
            if other != mode
        }
        first = next(other for other in names if other != mode)
        factors[first] = factors[first] * jnp.asarray(strengths[name] / amplitude, dtype)
        factors[mode] = jnp.zeros((size, rank), dtype)
        part = fit.model.normal_equations(built, factors, mode)
        equations = part if equations is None else equations.plus(part)
    assert equations is not None
    held = (False,) * rank
    solver, _ = choose_for([mode], [rules], [equations.per_row], [held], HALS(inner=50))
    start = rules.prox(jnp.full((size, rank), 1e-3, dtype), 0.0)
    found = np.asarray(_iterate(solver, Block([equations], [start], [rules], None))) / amplitude
    found[~seen] = np.nan
    return found


def _iterate(solver: AbstractSolver, block: Block) -> Any:
    """Repeat the step of a block, whose equations do not change, until its factor stands still."""
    step = eqx.filter_jit(solver.step)
    state = solver.init(block.factors, block.constraints)
    for _ in range(_MAX_STEPS):
        factors, state = step(block, state)
        moved = float(jnp.max(jnp.abs(factors[0] - block.factors[0])))
        block = block._replace(factors=factors)
        if moved <= _TOLERANCE * float(jnp.max(jnp.abs(factors[0]))):
            break
    return block.factors[0]


def _rules(fit: Fit, labels: Any, mode: str, scales: dict[str, float]) -> ModeConstraints:
    """Return the constraints of the mode, for its new points."""
    items = combine(labelled(fit.model.constraints_for(mode), labels[mode], fit.rank))
    if any(isinstance(item, Fixed) for item in items):
        raise ConstraintConflict(f"mode {mode!r} has Fixed values, which belong to the samples that were fitted")
    own = labels[mode]
    owners = [name for name, carrier in fit.provenance.get("carriers", {}).items() if carrier == mode]
    scale = scales.get(owners[0], 1.0) if len(owners) == 1 else 1.0
    level = fit.provenance.get("noise_level") or float("nan")
    deviation = fit.provenance.get("noise_deviation") or float("nan")
    grid = (own.shape, own.coordinates, own.units)
    context = Context(mode, *grid, fit.rank, level, scale, deviation, carries=bool(owners))
    resolved = [item.resolve(context) if isinstance(item, Resolvable) else item for item in items]
    return ModeConstraints(tuple(jax.tree.map(traced, item) for item in resolved), fit.rank)
