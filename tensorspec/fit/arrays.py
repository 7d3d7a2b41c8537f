"""Labelled values in constraints and losses, as plain arrays on the points of the modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import xarray as xr

from tensorspec.constraints.base import AbstractConstraint
from tensorspec.fit.alignment import align_atoms, align_values
from tensorspec.losses.base import AbstractLoss
from tensorspec.modes import ModeLabels, broadcast_to_array

__all__ = ["labelled", "with_arrays"]


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
