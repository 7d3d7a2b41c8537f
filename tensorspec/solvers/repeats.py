"""How often the columns of a mode are gone through before the next product with the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tensorspec.constraints.base import Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.solvers.dispatch import BlockPlan
from tensorspec.solvers.hals import HALS

__all__ = ["with_repeats"]

# Points up to which going through a column costs hardly more than the call itself.
_FEW = 2048
# Columns that are gone through in all, and the most repeats.
_COLUMNS, _MOST = 240, 40


def with_repeats(
    blocks: Sequence[BlockPlan],
    rules: Mapping[str, ModeConstraints],
    shapes: Mapping[str, tuple[int, int]],
    per_row: Mapping[str, bool],
) -> tuple[BlockPlan, ...]:
    """Return the plan of a sweep in which short modes are solved nearly exactly.

    A product with the data costs the same whether the mode that it was made for has many points or few, while repeats
    cost by the points.  Measured on planted data (NMF of 16384 x 1024, Tucker of 64 x 64 x 1024): two thirds of the
    sweeps on compressed data to the same objective, and a minimum that is lower by up to 0.5 % for Tucker.

    Parameters
    ----------
    blocks
        As they were chosen, solvers that nobody asked for.
    rules, shapes
        Constraints, and size and columns, of every mode.
    per_row
        For every mode whether its rows have Gram matrices of their own, which makes a repeat dear.
    """
    return tuple(
        replace(block, solver=replace(block.solver, inner=_repeats(block, shapes)))
        if isinstance(block.solver, HALS) and block.solver.inner > 1 and _cheap(block, rules, shapes, per_row)
        else block
        for block in blocks
    )


def _repeats(block: BlockPlan, shapes: Mapping[str, tuple[int, int]]) -> int:
    columns = sum(shapes[mode][1] for mode in block.modes)
    return max(block.solver.inner, min(_MOST, _COLUMNS // columns))


def _cheap(
    block: BlockPlan,
    rules: Mapping[str, ModeConstraints],
    shapes: Mapping[str, tuple[int, int]],
    per_row: Mapping[str, bool],
) -> bool:
    """Return whether a repeat is: few points, entries that do not know each other, and no norm to be held."""
    if any(any(columns) for columns in block.held):
        return False
    return all(
        shapes[mode][0] <= _FEW and not per_row[mode] and rules[mode].separability == Separability.ENTRY
        for mode in block.modes
    )
