"""From the factors of the problem as solved to those that a person reads: data units, unit norm, order, NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Outcome", "read_out"]


class Outcome(NamedTuple):
    """Factors and strengths in data units.

    Attributes
    ----------
    factors
        For each mode ``(size, rank)``; unit norm, except columns whose scale is fixed; NaN where never measured.
    weights
        ``(tensors, rank)``: the model of a tensor is the sum of weights times factors.
    order
        Which component of the problem became which, counted from 0.
    """

    factors: dict[str, np.ndarray]
    weights: np.ndarray
    order: np.ndarray


def read_out(
    factors: Mapping[str, np.ndarray],
    tensors: Sequence[tuple[str, ...]],
    scales: Sequence[float],
    carriers: Sequence[str],
    fixed: Mapping[str, Sequence[bool]],
    measured: Mapping[str, np.ndarray | None],
    keep_order: bool,
    seen: Sequence[Sequence[bool] | None] | None = None,
) -> Outcome:
    """Return factors and strengths in data units.

    Parameters
    ----------
    factors
        Of the problem as solved.
    tensors
        Modes of each tensor.
    scales
        What each tensor was multiplied by before it was solved.
    carriers
        The mode that carries the amplitudes of each tensor.
    fixed
        For each mode, the components whose scale its constraints fix.
    measured
        For each mode, which of its points any tensor has measured; None for all.
    keep_order
        Whether the components already have numbers.
    seen
        For each tensor, which components it has; None for all.
    """
    rank = next(iter(factors.values())).shape[1]
    unit: dict[str, np.ndarray] = {}
    norms: dict[str, np.ndarray] = {}
    sizes: dict[str, np.ndarray] = {}
    for mode, values in factors.items():
        columns = np.asarray(values).copy()
        points = measured[mode]
        if points is not None:
            columns[~points] = 0
        held = np.asarray(fixed[mode])
        owners = [k for k, carrier in enumerate(carriers) if carrier == mode]
        back = 1 / scales[owners[0]] if len(owners) == 1 else 1.0
        norm = np.sqrt(np.sum(np.square(columns, dtype=float), axis=0))
        alive = norm > 0
        factor = np.where(held, 1 / back, np.where(alive, norm, 1.0))
        columns = (columns / factor).astype(columns.dtype)
        norms[mode] = np.where(held, 1 / back, norm)
        sizes[mode] = np.where(held, norm * back, np.where(alive, 1.0, 0.0))
        if points is not None:
            columns[~points] = np.nan
        unit[mode] = columns
    weights = np.empty((len(tensors), rank))
    energy = np.zeros(rank)
    for k, modes in enumerate(tensors):
        strength = np.prod([norms[mode] for mode in modes], axis=0)
        own = None if seen is None else seen[k]
        strength = strength if own is None else strength * np.asarray(own)
        weights[k] = strength / scales[k]
        energy += np.square(strength * np.prod([sizes[mode] for mode in modes], axis=0))
    order = np.arange(rank) if keep_order else np.argsort(-energy, kind="stable")
    return Outcome({mode: values[:, order] for mode, values in unit.items()}, weights[:, order], order)
