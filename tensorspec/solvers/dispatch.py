"""Which solver takes which block of modes: the one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import SameCrossProduct
from tensorspec.errors import ConstraintConflict, InvalidArgument
from tensorspec.scale import ScalePlan
from tensorspec.solvers.adaptive import AdaptiveColumns, adaptive_mode, refusal_of_fit
from tensorspec.solvers.admm import AOADMM
from tensorspec.solvers.base import AbstractAnySolver, AbstractJointSolver, AbstractSolver
from tensorspec.solvers.direct_fitting import DirectFitting
from tensorspec.solvers.hals import HALS
from tensorspec.solvers.multiplicative import Multiplicative

__all__ = ["BlockPlan", "choose_for", "choose_solvers", "joint_solver"]


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
    ratios
        Whether a loss has only a bound made of ratios, under which an entry of zero would stay zero.
    scored
        Whether a loss that is not least squares is taken by its quadratic, in steps that are shortened until they pay.
    """

    modes: tuple[str, ...]
    solver: Any
    held: tuple[tuple[bool, ...], ...]
    projectable: tuple[bool, ...]
    ratios: bool = False
    scored: bool = False


def joint_solver(blocks: Sequence[BlockPlan]) -> AbstractJointSolver | None:
    """Return the solver that moves all modes at once, where there is one."""
    return next((block.solver for block in blocks if isinstance(block.solver, AbstractJointSolver)), None)


def choose_solvers(
    plan: ScalePlan,
    constraints: Mapping[str, ModeConstraints],
    per_row: Mapping[str, bool],
    asked: AbstractAnySolver | None = None,
    divergences: Collection[str] = (),
) -> tuple[tuple[BlockPlan, ...], str, str]:
    """Return the solver of every block, a name for the whole, and why.

    The table, first match:

    0. a solver of all modes at once, where it was asked for: one block, or a refusal;
    0. the published soft orthogonality on a mode: a solver of its own there, single passes of HALS on the other mode;
    1. the solver asked for, where it can take the block;
    2. a loss that is not least squares (Poisson, beta), constraints that separate by entry: multiplicative updates;
       anything else that has a proximal map: AO-ADMM on the quadratic of the loss (Fisher scoring), as any solver of
       least squares that is asked for;
    3. no proximal map at all and no column held: the exact least-squares solution (AO-ADMM without splits);
    4. profiles with the same cross-product in every sample, and nothing else: direct fitting of PARAFAC2;
    5. every constraint separates by entry or column: HALS;
    6. anything else that has a proximal map: AO-ADMM.

    `divergences` names the modes of tensors whose loss is of the second kind.

    Raises
    ------
    ConstraintConflict
        When no solver can take a block; the reasons are listed.
    InvalidArgument
        When the solver asked for cannot take the loss.
    """
    if isinstance(asked, AbstractJointSolver):
        return _choose_joint(asked, plan, constraints)
    assert asked is None or isinstance(asked, AbstractSolver)
    adaptive = adaptive_mode(constraints)
    if adaptive is not None:
        return _choose_adaptive(adaptive, plan, constraints, per_row, asked, bool(divergences))
    blocks, reasons = [], []
    for modes in plan.blocks:
        held = tuple(_held(plan, mode, constraints[mode].rank) for mode in modes)
        bounded = any(mode in divergences for mode in modes)
        rules, rows = [constraints[mode] for mode in modes], [per_row[mode] for mode in modes]
        solver, reason = choose_for(modes, rules, rows, held, asked, bounded)
        projectable = tuple(rule.splits <= 1 for rule in rules)
        ratios = bounded and solver.divergences
        blocks.append(BlockPlan(modes, solver, held, projectable, ratios, bounded and not ratios))
        reasons.append(f"{', '.join(modes)}: {reason}")
    names = list(dict.fromkeys(type(block.solver).__name__ for block in blocks))
    return tuple(blocks), " + ".join(names), "; ".join(reasons)


def _choose_joint(
    asked: AbstractJointSolver, plan: ScalePlan, constraints: Mapping[str, ModeConstraints]
) -> tuple[tuple[BlockPlan, ...], str, str]:
    """Return one block of all modes."""
    name = type(asked).__name__
    complaints = [text for text in (asked.refusal(mode, rule) for mode, rule in constraints.items()) if text]
    if complaints:
        raise ConstraintConflict(
            f"solver={name}() moves all modes at once, along derivatives: {'; '.join(complaints)}. Use solver='auto', "
            "or drop the constraint"
        )
    modes = tuple(sorted(constraints))
    held = tuple(_held(plan, mode, constraints[mode].rank) for mode in modes)
    return (BlockPlan(modes, asked, held, (False,) * len(modes)),), name, f"{name}, as asked: all modes at once"


def _choose_adaptive(
    adaptive: str,
    plan: ScalePlan,
    constraints: Mapping[str, ModeConstraints],
    per_row: Mapping[str, bool],
    asked: AbstractSolver | None,
    likelihood: bool,
) -> tuple[tuple[BlockPlan, ...], str, str]:
    """Return the solvers of the published soft orthogonality; refuse what it was not published for."""
    held = {mode: _held(plan, mode, constraints[mode].rank) for mode in constraints}
    complaint = "it is for least squares; give no other loss" if likelihood else refusal_of_fit(constraints, asked)
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
    bounded: bool = False,
) -> tuple[AbstractSolver, str]:
    """Return the first solver of the table that can take a block, and why."""

    def refused(solver: AbstractSolver) -> str | None:
        # The quadratic of a likelihood has weights of its own in every row.
        rows = [own or bounded for own in per_row]
        complaints = [solver.refusal(*items) for items in zip(rules, rows, held, strict=True)]
        return next((text for text in complaints if text), None)

    if bounded and asked is not None and not (asked.divergences or asked.least_squares):
        raise InvalidArgument(
            f"solver={type(asked).__name__}() takes neither the bound of a Poisson or beta loss on mode "
            f"{', '.join(modes)} nor its quadratic; use solver='auto', ts.Multiplicative() or ts.AOADMM()"
        )
    extrapolate = asked.extrapolate if asked is not None else True
    candidates: list[tuple[AbstractSolver, str]] = []
    if asked is not None:
        candidates.append((asked, f"{type(asked).__name__}, as asked"))
    if bounded:
        ratio = "multiplicative updates, the loss is not least squares and the constraints separate by entry"
        candidates.append((Multiplicative(extrapolate=extrapolate), ratio))
    elif not any(item.splits for item in rules) and not any(any(columns) for columns in held):
        candidates.append((AOADMM(extrapolate=extrapolate), "exact least squares, nothing constrains the entries"))
    if bounded:
        candidates.append((AOADMM(extrapolate=extrapolate), "AO-ADMM on the quadratic of the loss (Fisher scoring)"))
    else:
        if any(isinstance(item, SameCrossProduct) for rule in rules for item in rule.members):
            candidates.append((DirectFitting(extrapolate=extrapolate), "direct fitting of PARAFAC2"))
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
