"""Which points of each mode any tensor has measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorspec.fit.behind import points_seen
from tensorspec.fit.evolving import is_evolving, seen_points
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import CleanTensor
from tensorspec.models.base import AbstractModel
from tensorspec.modes import ModeLabels

__all__ = ["find_measured"]


def find_measured(
    cleaned: Mapping[str, CleanTensor],
    names: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, ModeLabels],
    operators: Mapping[str, Any],
    model: AbstractModel,
) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """Return which points of each mode any tensor has measured, and a warning for those that none has."""
    found: dict[str, np.ndarray | None] = {}
    notes = []
    for mode in labels:
        seen = np.zeros(labels[mode].size, bool)
        for key, own in names.items():
            if mode in own:
                valid = cleaned[key].valid
                others = tuple(axis for axis, name in enumerate(own) if name != mode)
                values = cleaned[key].values
                points = np.ones(values.shape[own.index(mode)], bool)
                if isinstance(values, Surveyed):
                    points = values.measured[own.index(mode)]
                points = points if valid is None else np.asarray(valid.any(axis=others))
                if is_evolving(model, mode):
                    seen |= True if valid is None else seen_points(valid, own, model)
                    continue
                operator = operators[key][own.index(mode)] if operators[key] else None
                seen |= points_seen(operator, points, labels[mode].size)
        found[mode] = None if seen.all() else seen
        if not seen.all():
            lost = np.flatnonzero(~seen)
            listed = ", ".join(_point(labels[mode], int(k)) for k in lost[:5]) + (", ..." if len(lost) > 5 else "")
            notes.append(
                f"{len(lost)} of {len(seen)} points of mode {mode!r} were measured in no tensor and come back NaN: "
                f"{listed}"
            )
    return found, notes


def _point(labels: ModeLabels, index: int) -> str:
    place = np.unravel_index(index, labels.shape)
    return "(" + ", ".join(f"{dim} {int(k)}" for dim, k in zip(labels.dims, place, strict=True)) + ")"
