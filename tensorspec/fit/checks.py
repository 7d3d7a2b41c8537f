"""Whether constraints name modes and components that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorspec.errors import ConstraintConflict, InvalidArgument, UnknownMode, suggest
from tensorspec.models.base import AbstractModel
from tensorspec.models.tucker import CORE
from tensorspec.modes import ModeLabels
from tensorspec.recipe import constructor_repr

__all__ = ["check_constraints"]


def check_constraints(
    model: AbstractModel,
    shapes: Mapping[str, tuple[int, int]],
    labels: Mapping[str, ModeLabels],
    cores: Sequence[str],
) -> None:
    """Refuse constraints of modes or components that do not exist.

    Raises
    ------
    UnknownMode
        For a mode that the data do not have.
    ConstraintConflict
        For one that is left whole.
    InvalidArgument
        For a component beyond the last.
    """
    known = {**shapes, **({CORE: None} if cores else {})}
    for mode in model.constraints:
        if mode in known:
            continue
        if mode in labels:
            raise ConstraintConflict(
                f"constraint given for mode {mode!r}, which is left whole: it has no factor. Give it a rank too"
            )
        inside = next((name for name, own in labels.items() if mode in own.dims), None)
        hint = f" The dimension {mode!r} is part of the mode {inside!r}." if inside else suggest(mode, known)
        what = f"; the model has {', '.join(map(repr, cores))}" if cores else ""
        raise UnknownMode(
            f"constraint given for mode {mode!r}; these data have modes {', '.join(map(repr, labels))}{what}.{hint}"
        )
    for mode, (_, columns) in shapes.items():
        for item in model.constraints_for(mode):
            if mode in labels and item.components is not None and max(item.components) > columns:
                raise InvalidArgument(f"{constructor_repr(item)} on mode {mode!r}: there are components 1 to {columns}")
