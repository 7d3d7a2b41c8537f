"""Cores of a Tucker model, and the factors beside them, as a person reads them; and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from tensorspec.cores import axes_of
from tensorspec.modes import ModeLabels
from tensorspec.solution import Fit

__all__ = ["CoreOutcome", "core_as_factor", "cores_given", "label_core", "read_out_cores"]


class CoreOutcome(NamedTuple):
    """Factors and cores in data units.

    Attributes
    ----------
    factors
        For each mode that has one ``(size, rank)``; unit norm, except columns whose scale is fixed; NaN where never
        measured.
    cores
        For each tensor, one axis a mode: its components, or its points where the mode is left whole.
    order
        For each mode, which component of the problem became which, counted from 0.
    """

    factors: dict[str, np.ndarray]
    cores: dict[str, np.ndarray]
    order: dict[str, np.ndarray]


def read_out_cores(
    factors: Mapping[str, np.ndarray],
    names: Mapping[str, tuple[str, ...]],
    core_names: Mapping[str, str],
    sizes: Mapping[str, int],
    scales: Sequence[float],
    fixed: Mapping[str, Sequence[bool]],
    turnable: Collection[str],
    measured: Mapping[str, np.ndarray | None],
    keep_order: bool,
) -> CoreOutcome:
    """Return factors and cores in data units, modes that nothing holds in the form of the higher-order SVD.

    Parameters
    ----------
    factors
        Of the problem as solved, cores among them.
    names, core_names
        The modes of each tensor, and the name of the factor that is its core.
    sizes
        Points of each mode.
    scales
        What each tensor was multiplied by before it was solved.
    fixed
        For each mode with a factor, the components whose scale its constraints fix.
    turnable
        Modes whose columns may be replaced by others that span the same: nothing constrains them, or their cores.
    measured
        For each mode, which of its points any tensor has measured; None for all.
    keep_order
        Whether the components already have numbers.
    """
    modes = [mode for mode in factors if mode not in core_names.values()]
    columns = {mode: np.asarray(factors[mode], float).copy() for mode in modes}
    for mode in modes:
        points = measured.get(mode)
        if points is not None:
            columns[mode][~points] = 0
    cores = {
        key: _as_tensor(np.asarray(factors[core], float) / scale, names[key], columns, sizes)
        for (key, core), scale in zip(core_names.items(), scales, strict=True)
    }
    for mode in modes:
        if mode in turnable:
            columns[mode], triangle = np.linalg.qr(columns[mode])
            cores = {key: _along(core, triangle, names[key], mode) for key, core in cores.items()}
        else:
            norm = np.linalg.norm(columns[mode], axis=0)
            norm = np.where(np.asarray(fixed[mode]) | (norm == 0), 1.0, norm)
            columns[mode] = columns[mode] / norm
            cores = {key: _along(core, np.diag(norm), names[key], mode) for key, core in cores.items()}
    turns = {mode: _singular_vectors(cores, names, mode) for mode in modes if mode in turnable}
    for mode, turn in turns.items():
        columns[mode] = columns[mode] @ turn
        signs = np.sign(columns[mode][np.argmax(np.abs(columns[mode]), axis=0), np.arange(turn.shape[1])])
        columns[mode] = columns[mode] * signs
        cores = {key: _along(core, (turn * signs).T, names[key], mode) for key, core in cores.items()}
    order = {mode: np.arange(columns[mode].shape[1]) for mode in modes}
    if not keep_order:
        order = _sorted(columns, cores, names, modes)
    for mode in modes:
        columns[mode] = columns[mode][:, order[mode]]
        points = measured.get(mode)
        if points is not None:
            columns[mode][~points] = np.nan
    for key, own in names.items():
        for axis, mode in enumerate(own):
            if mode in order and cores[key].ndim == len(own):
                cores[key] = np.take(cores[key], order[mode], axis=axis)
        if cores[key].ndim == 1:
            cores[key] = cores[key][order[own[0]]]
    dtype = np.asarray(factors[modes[0]]).dtype
    return CoreOutcome({m: c.astype(dtype) for m, c in columns.items()}, cores, order)


def _as_tensor(
    core: np.ndarray, modes: tuple[str, ...], columns: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> np.ndarray:
    """Return a core with one axis a mode; a diagonal one as the vector that it is."""
    whole = [axis for axis, mode in enumerate(modes) if mode not in columns]
    kept = [axis for axis, mode in enumerate(modes) if mode in columns]
    shape = [sizes[modes[axis]] for axis in whole] + [columns[modes[axis]].shape[1] for axis in kept]
    if core.size != np.prod(shape):
        return core.reshape(-1)
    order = [*whole, *kept]
    return core.reshape(shape).transpose([order.index(axis) for axis in range(len(modes))])


def _along(core: np.ndarray, matrix: np.ndarray, modes: tuple[str, ...], mode: str) -> np.ndarray:
    """Return a core whose axis of a mode is multiplied by a matrix; a diagonal one by the diagonal of it."""
    if mode not in modes:
        return core
    if core.ndim < len(modes):
        return core * np.diag(matrix)
    axis = modes.index(mode)
    return np.moveaxis(np.tensordot(matrix, core, axes=(1, axis)), 0, axis)


def _singular_vectors(cores: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, ...]], mode: str) -> np.ndarray:
    """Return the left singular vectors of the cores unfolded along a mode, each core at unit norm, side by side."""
    unfolded = []
    for key, core in cores.items():
        if mode in names[key]:
            matrix = np.moveaxis(core, names[key].index(mode), 0)
            matrix = matrix.reshape(len(matrix), -1)
            unfolded.append(matrix / (np.linalg.norm(matrix) or 1.0))
    left = np.linalg.svd(np.hstack(unfolded), full_matrices=True)[0]
    return left


def _sorted(
    columns: Mapping[str, np.ndarray],
    cores: Mapping[str, np.ndarray],
    names: Mapping[str, tuple[str, ...]],
    modes: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the order of the components of every mode: the largest share in the cores first.

    Modes of a tensor with a diagonal core have one order, that of their first mode.
    """
    energy = {mode: np.zeros(columns[mode].shape[1]) for mode in modes}
    tied: list[set[str]] = []
    for key, own in names.items():
        core = cores[key] / (np.linalg.norm(cores[key]) or 1.0)
        if core.ndim < len(own):
            tied.append(set(own))
            for mode in own:
                energy[mode] += core**2
            continue
        for axis, mode in enumerate(own):
            if mode in energy:
                others = tuple(k for k in range(core.ndim) if k != axis)
                size = np.linalg.norm(columns[mode], axis=0) ** 2
                energy[mode] += np.sum(core**2, axis=others) * size
    for group in tied:
        total = np.sum([energy[mode] for mode in group], axis=0)
        for mode in group:
            energy[mode] = total
    return {mode: np.argsort(-values, kind="stable") for mode, values in energy.items()}


def label_core(core: np.ndarray, modes: tuple[str, ...], labels: Mapping[str, ModeLabels], kept: Any) -> xr.DataArray:
    """Return a core with names: ``<mode>_component`` for modes with components, the own dimensions of the others.

    Parameters
    ----------
    core
        One axis a mode; a diagonal one is a vector.
    modes, labels
        The modes of the tensor.
    kept
        The modes that have components.
    """
    if core.ndim < len(modes):
        return xr.DataArray(core, dims="component", coords={"component": np.arange(1, len(core) + 1)}, name="core")
    dims: list[str] = []
    shape: list[int] = []
    coords: dict[str, Any] = {}
    for mode, size in zip(modes, core.shape, strict=True):
        if mode in kept:
            dims.append(f"{mode}_component")
            shape.append(size)
            coords[f"{mode}_component"] = np.arange(1, size + 1)
        else:
            dims += labels[mode].dims
            shape += labels[mode].shape
            coords |= labels[mode].coords
    return xr.DataArray(core.reshape(shape), dims=dims, coords=coords, name="core")


def core_as_factor(fit: Fit, name: str) -> np.ndarray:
    """Return the core of a tensor of a fit as the problem holds one, (points left whole, columns), in data units."""
    core, modes = fit.cores[name], fit.tensors[name].modes
    if core.dims == ("component",):
        return np.asarray(core.values, float).reshape(1, -1)
    kept = [axis for axis, mode in enumerate(modes) if mode in fit.factors]
    whole = [axis for axis, mode in enumerate(modes) if mode not in fit.factors]
    values = axes_of(fit, name).transpose([*whole, *kept])
    return values.reshape(int(np.prod(values.shape[: len(whole)])), -1)


def cores_given(source: Fit, gathered: Any) -> dict[str, np.ndarray]:
    """Return the cores of an earlier fit as factors in the units of the problem; those that have its shape."""
    found = {}
    for (key, name), scale in zip(gathered.cores.items(), gathered.scales, strict=True):
        if key in source.cores:
            core = core_as_factor(source, key) * scale
            if core.shape == gathered.shapes[name]:
                found[name] = core
    return found
