"""Modes of tensors that see a factor through an operator: whose points are whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.coupling.operators import AbstractOperator, Grid
from tensorspec.errors import ModeMismatch, UnknownMode, UnknownName, suggest
from tensorspec.modes import ModeLabels, find_modes, split
from tensorspec.recipe import constructor_repr

__all__ = ["Behind", "find_modes_behind", "find_own_modes", "points_seen", "views"]


class Behind(NamedTuple):
    """Modes of the factors, and of each tensor.

    Attributes
    ----------
    labels
        The modes of the factors.
    names
        The modes of each tensor, in order.
    own
        For each tensor, its modes with the points that it has itself.
    operators
        For each tensor, what stands before each of its modes, in order; None where nothing does.
    """

    labels: dict[str, ModeLabels]
    names: dict[str, tuple[str, ...]]
    own: dict[str, dict[str, ModeLabels]]
    operators: dict[str, tuple[AbstractOperator | None, ...] | None]


def find_modes_behind(
    tensors: Mapping[str, xr.DataArray],
    modes: Mapping[str, Sequence[str]] | None,
    operators: Mapping[tuple[str, str], AbstractOperator],
) -> Behind:
    """Return the modes of some tensors, those behind an operator matched by what the operator makes of them.

    Raises
    ------
    UnknownName, UnknownMode
        When an operator is given for a tensor or mode that does not exist.
    ModeMismatch
        When the points of a tensor are not what its operator makes of the factor's, or nothing says where these lie.
    """
    for (key, mode), operator in operators.items():
        if key not in tensors:
            raise UnknownName(
                f"operators name the tensor {key!r}; there are {list(tensors)}.{suggest(key, tensors)} Call a single "
                "tensor by giving a mapping, {'name': data}"
            )
        alone, _ = find_modes({key: tensors[key]}, _present(modes or {}, tensors[key]))
        if mode not in alone:
            raise UnknownMode(
                f"{constructor_repr(operator)} is given for mode {mode!r} of tensor {key!r}, which has the modes "
                f"{list(alone)}.{suggest(mode, alone)}"
            )
    labels, names, seen = find_own_modes(tensors, modes, operators)
    for (key, mode), operator in operators.items():
        if mode not in labels:
            labels[mode] = _latent(key, mode, operator, seen[key, mode])
    # Pixels first, whatever the order of the dimensions, so that the same modes carry the amplitudes.
    plain = {key: tuple(sorted(own, key=lambda mode: mode != "pixel")) for key, own in names.items()}
    return Behind(
        {mode: labels[mode] for mode in sorted(labels, key=lambda mode: mode != "pixel")},
        plain,
        {key: {mode: seen.get((key, mode), labels[mode]) for mode in own} for key, own in plain.items()},
        {key: _settled(key, own, labels, seen, operators) for key, own in plain.items()},
    )


def find_own_modes(
    tensors: Mapping[str, xr.DataArray],
    modes: Mapping[str, Sequence[str]] | None,
    pairs: Iterable[tuple[str, str]],
) -> tuple[dict[str, ModeLabels], dict[str, tuple[str, ...]], dict[tuple[str, str], ModeLabels]]:
    """Return the modes that tensors share, the modes of each, and those of some pairs of tensor and mode by themselves.

    The points of these pairs are not compared with those of other tensors.
    """
    renamed, groups, alias = dict(tensors), dict(modes or {}), dict[str, tuple[str, str]]()
    seen: dict[tuple[str, str], ModeLabels] = {}
    for key, mode in pairs:
        seen[key, mode] = find_modes({key: tensors[key]}, _present(modes or {}, tensors[key]))[0][mode]
        hidden = {dim: f"{dim} of {key}" for dim in seen[key, mode].dims}
        renamed[key] = renamed[key].rename(hidden)
        name = f"{mode} of {key}"
        groups[name], alias[name] = tuple(hidden.values()), (key, mode)
    groups = {name: dims for name, dims in groups.items() if _any(dims, renamed)}
    found, names = find_modes(renamed, groups or None)
    labels = {name: own for name, own in found.items() if name not in alias}
    return labels, {k: tuple(alias[m][1] if m in alias else m for m in own) for k, own in names.items()}, seen


def _present(groups: Mapping[str, Sequence[str]], tensor: xr.DataArray) -> dict[str, tuple[str, ...]] | None:
    kept = {name: tuple(dim for dim in dims if dim in tensor.dims) for name, dims in groups.items()}
    return {name: dims for name, dims in kept.items() if dims} or None


def _any(dims: Sequence[str], tensors: Mapping[str, xr.DataArray]) -> bool:
    return any(dim in tensor.dims for dim in dims for tensor in tensors.values())


def _grid(labels: ModeLabels) -> Grid:
    return Grid(labels.name, labels.shape, labels.coordinates, labels.units)


def _latent(key: str, mode: str, operator: AbstractOperator, own: ModeLabels) -> ModeLabels:
    """Return the points of a factor that every tensor sees through an operator."""
    grid = operator.inside_of(_grid(own))
    if grid is None:
        raise ModeMismatch(
            f"{constructor_repr(operator)} of tensor {key!r}: no tensor has the points of mode {mode!r} itself, so "
            "nothing says where those of the factor lie; add a tensor that has them"
        )
    if grid.shape == own.shape:
        return own
    return ModeLabels(mode, (mode,), grid.shape, {})


def _settled(
    key: str,
    names: tuple[str, ...],
    labels: Mapping[str, ModeLabels],
    seen: Mapping[tuple[str, str], ModeLabels],
    operators: Mapping[tuple[str, str], AbstractOperator],
) -> tuple[AbstractOperator | None, ...] | None:
    found: list[AbstractOperator | None] = []
    for mode in names:
        operator = operators.get((key, mode))
        if operator is not None:
            operator = operator.settle(_grid(labels[mode]), _grid(seen[key, mode]))
        found.append(operator)
    return tuple(found) if any(operator is not None for operator in found) else None


def points_seen(operator: AbstractOperator | None, valid: np.ndarray, size: int) -> np.ndarray:
    """Return which points of a factor a tensor has measured, from which of its own it has."""
    if operator is None:
        return valid
    weights = operator.adjoint(jnp.asarray(valid, jnp.float64)[:, None], size, absolute=True)
    return np.asarray(weights)[:, 0] > 0


def views(behind: Behind, operators: Mapping[str, Any], factors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return for each tensor the factors that it sees through an operator, labelled with its own points.

    Parameters
    ----------
    behind
        The modes.
    operators
        As settled, with the parameters that were found.
    factors
        Each ``(size, rank)``, NaN where never measured.
    """
    found: dict[str, Any] = {}
    for key, names in behind.names.items():
        for mode, operator in zip(names, operators[key] or (), strict=False):
            if operator is not None:
                seen = np.asarray(operator.apply(np.nan_to_num(factors[mode])))
                found.setdefault(key, {})[mode] = split(seen.T, behind.own[key][mode])
    return found
