"""Which solver takes which block of modes: the one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorspec.constraints.compose import ModeConstraints
from tensorspec.errors import ConstraintConflict
from tensorspec.scale import ScalePlan
from tensorspec.solvers.adaptive import AdaptiveColumns, adaptive_mode, refusal_of_fit
from tensorspec.solvers.admm import AOADMM
from tensorspec.solvers.base import AbstractSolver
from tensorspec.solvers.hals import HALS

__all__ = ["BlockPlan", "choose_for", "choose_solvers"]


@dataclass(frozen=True)
class BlockPlan:
    """How one block of modes is updated.

    Attributes
    ----------
    modes
        Its modes.
    solver
        What updates them.
    held
        For each mode, the components that are held at unit norm during the update (none where scale moves freely).
    projectable
        For each mode, whether a point can be put back onto all constraints, so that it may be extrapolated.
    """

    modes: tuple[str, ...]
    solver: AbstractSolver
    held: tuple[tuple[bool, ...], ...]
    projectable: tuple[bool, ...]


def choose_solvers(
    plan: ScalePlan,
    constraints: Mapping[str, ModeConstraints],
    per_row: Mapping[str, bool],
    asked: AbstractSolver | None = None,
) -> tuple[tuple[BlockPlan, ...], str, str]:
    """Return the solver of every block, a name for the whole, and why.

    The table, first match:

    0. the published soft orthogonality on a mode: a solver of its own there, single passes of HALS on the other mode;
    1. the solver asked for, where it can take the block;
    2. no proximal map at all and no column held: the exact least-squares solution (AO-ADMM without splits);
    3. every constraint separates by entry or column: HALS;
    4. anything else that has a proximal map: AO-ADMM.

    Raises
    ------
    ConstraintConflict
        When no solver can take a block; the reasons are listed.
    """
    adaptive = adaptive_mode(constraints)
    if adaptive is not None:
        return _choose_adaptive(adaptive, plan, constraints, per_row, asked)
    blocks, reasons = [], []
    for modes in plan.blocks:
        held = tuple(_held(plan, mode, constraints[mode].rank) for mode in modes)
        solver, reason = choose_for(modes, [constraints[m] for m in modes], [per_row[m] for m in modes], held, asked)
        blocks.append(BlockPlan(modes, solver, held, tuple(constraints[mode].splits <= 1 for mode in modes)))
        reasons.append(f"{', '.join(modes)}: {reason}")
    names = list(dict.fromkeys(type(block.solver).__name__ for block in blocks))
    return tuple(blocks), " + ".join(names), "; ".join(reasons)


def _choose_adaptive(
    adaptive: str,
    plan: ScalePlan,
    constraints: Mapping[str, ModeConstraints],
    per_row: Mapping[str, bool],
    asked: AbstractSolver | None,
) -> tuple[tuple[BlockPlan, ...], str, str]:
    """Return the solvers of the published soft orthogonality; refuse what it was not published for."""
    held = {mode: _held(plan, mode, constraints[mode].rank) for mode in constraints}
    complaint = refusal_of_fit(constraints, asked)
    complaint = complaint or AdaptiveColumns().refusal(constraints[adaptive], any(per_row.values()), held[adaptive])
    if complaint:
        raise ConstraintConflict(f"SoftOrthogonal(method='shiga2016') on mode {adaptive!r}: {complaint}")
    solvers = {mode: AdaptiveColumns() if mode == adaptive else HALS(inner=1, extrapolate=False) for mode in held}
    blocks = tuple(BlockPlan((mode,), solvers[mode], (held[mode],), (True,)) for (mode,) in plan.blocks)
    reasons = {mode: "HALS, single passes" for mode in held} | {adaptive: "the published rule, as asked"}
    names = " + ".join(type(block.solver).__name__ for block in blocks)
    return blocks, names, "; ".join(f"{mode}: {reasons[mode]}" for (mode,) in plan.blocks)


def _held(plan: ScalePlan, mode: str, rank: int) -> tuple[bool, ...]:
    held = [False] * rank
    for item in plan.normalisations:
        if mode in item.modes and not item.free:
            held = [old or new for old, new in zip(held, item.columns, strict=True)]
    return tuple(held)


def choose_for(
    modes: Sequence[str],
    rules: Sequence[ModeConstraints],
    per_row: Sequence[bool],
    held: Sequence[tuple[bool, ...]],
    asked: AbstractSolver | None,
) -> tuple[AbstractSolver, str]:
    """Return the first solver of the table that can take a block, and why."""

    def refused(solver: AbstractSolver) -> str | None:
        complaints = [solver.refusal(*items) for items in zip(rules, per_row, held, strict=True)]
        return next((text for text in complaints if text), None)

    extrapolate = asked.extrapolate if asked is not None else True
    candidates: list[tuple[AbstractSolver, str]] = []
    if asked is not None:
        candidates.append((asked, f"{type(asked).__name__}, as asked"))
    if not any(item.splits for item in rules) and not any(any(columns) for columns in held):
        candidates.append((AOADMM(extrapolate=extrapolate), "exact least squares, nothing constrains the entries"))
    candidates.append((HALS(extrapolate=extrapolate), "HALS, the constraints separate by entry or column"))
    candidates.append((AOADMM(extrapolate=extrapolate), "AO-ADMM"))
    complaints: list[str] = []
    for solver, reason in candidates:
        complaint = refused(solver)
        if complaint is None:
            because = f", because {complaints[-1].split(': ', 1)[1]}" if complaints else ""
            return solver, reason + because
        complaints.append(f"{type(solver).__name__}: {complaint}")
    raise ConstraintConflict(
        f"no solver can take mode {', '.join(modes)} with {[list(item.members) for item in rules]}: "
        + "; ".join(dict.fromkeys(complaints))
    )
