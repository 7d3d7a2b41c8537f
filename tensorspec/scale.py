"""Who carries the scale.

The scale of a component can hide in any mode, so a penalty on one mode could be dodged by moving scale to another.
Therefore each tensor has one mode that carries its amplitudes, and on the other modes the columns are normalised, as
far as the model leaves that freedom: the partners of a shared carrier jointly (the weighted sum of their squared norms
is one, which is the diagonal of the carrier's Gram matrix), every other mode by itself.  A column whose scale a
constraint fixes is left alone.

A normalisation is allowed when scale can be moved out of it without changing any tensor: the exponents of the move form
a vector that sums to zero over the modes of every tensor (the null space of the incidence matrix of tensors and modes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.errors import ConstraintConflict, UnknownMode, suggest

__all__ = ["Normalisation", "ScalePlan", "plan_scale"]


@dataclass(frozen=True)
class Normalisation:
    """Columns of one mode, or of several jointly, whose norm is one.

    Attributes
    ----------
    modes
        The modes whose squared norms are summed.
    tensors
        For each of them, the tensor whose weight multiplies its squared norm; None for a weight of one.
    columns
        Which components are normalised.
    exponents
        For every mode that takes part, the power of the norm that it is multiplied by when scale moves.
    free
        Whether moving scale changes no penalty, neither itself nor through a norm that it would disturb, so that a step
        may ignore the norm and move the scale afterwards.
    spread
        For a core among the modes that take part, which column of this mode each of its columns belongs to.
    """

    modes: tuple[str, ...]
    tensors: tuple[int | None, ...]
    columns: tuple[bool, ...]
    exponents: tuple[tuple[str, int], ...]
    free: bool
    spread: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class ScalePlan:
    """The carriers, the normalisations, and the order in which blocks of modes are updated.

    Attributes
    ----------
    carriers
        The carrying mode of each tensor.
    normalisations
        Those of single modes first, the joint ones last, so that applying them in order leaves all of them satisfied.
    blocks
        Modes that are updated together, in order; the last one is the main carrier.
    """

    carriers: tuple[str, ...]
    normalisations: tuple[Normalisation, ...]
    blocks: tuple[tuple[str, ...], ...]

    def of_block(self, block: tuple[str, ...]) -> tuple[Normalisation, ...]:
        """Return the normalisations of a block's modes."""
        return tuple(n for n in self.normalisations if set(n.modes) <= set(block))

    def retract(
        self,
        factors: Mapping[str, Float[Array, "size rank"]],
        previous: Mapping[str, Float[Array, "size rank"]],
        weights: Sequence[Float[Array, ""]],
        only_free: bool = False,
    ) -> dict[str, Float[Array, "size rank"]]:
        """Return the factors with every normalisation applied and the scale moved to the carriers.

        A column that vanished keeps the shape that it had in `previous`, and its amplitude becomes zero.
        """
        result = dict(factors)
        for item in self.normalisations:
            if only_free and not item.free:
                continue
            norms = jnp.sqrt(
                sum(
                    (1.0 if k is None else weights[k]) * jnp.sum(jnp.square(result[m].astype(jnp.float64)), axis=0)
                    for m, k in zip(item.modes, item.tensors, strict=True)
                )
            )
            chosen = jnp.asarray(item.columns)
            alive = norms > 0
            factor = jnp.where(chosen, jnp.where(alive, norms, 0.0), 1.0)
            inverse = jnp.where(chosen & alive, 1 / jnp.where(alive, norms, 1.0), 1.0)
            spread = dict(item.spread)
            for mode, power in item.exponents:
                scale = factor if power > 0 else inverse
                scale = scale[jnp.asarray(spread[mode])] if mode in spread else scale
                result[mode] = result[mode] * (scale ** abs(power)).astype(result[mode].dtype)
            for mode in item.modes:
                result[mode] = jnp.where(chosen & ~alive, previous[mode], result[mode])
        return result


def plan_scale(
    tensors: Sequence[tuple[str, ...]],
    rank: int,
    fixed: Mapping[str, tuple[bool, ...]],
    scale_free: Mapping[str, bool],
    scale: str | None = None,
    seen: Sequence[Sequence[bool]] | None = None,
    apart: bool = False,
    linked: Collection[str] = (),
) -> ScalePlan:
    """Return who carries the scale.

    Parameters
    ----------
    tensors
        The modes of each tensor, in order.
    rank
        Number of components.
    fixed
        For each mode, the components whose scale its constraints fix.
    scale_free
        For each mode, whether its constraints do not change when a column is scaled.
    scale
        The mode asked for, or None for the rule.
    seen
        For each tensor, the components that it has; None for all.
    apart
        Whether every tensor carries its own amplitudes, on its last mode that no other has, so that a shared mode is
        at unit norm and a penalty can act on the strength of a component in one tensor.
    linked
        Modes that are compared with another one, so that they carry no amplitudes where another mode can.

    Raises
    ------
    UnknownMode
        When no tensor has the mode asked for.
    ConstraintConflict
        When the mode asked for is shared and its own scale is fixed, so that nothing could carry it.
    """
    modes = list(dict.fromkeys(mode for tensor in tensors for mode in tensor))
    if scale is not None and scale not in modes:
        raise UnknownMode(f"scale={scale!r}: these data have modes {modes}.{suggest(scale, modes)}")
    holders = {mode: [k for k, tensor in enumerate(tensors) if mode in tensor] for mode in modes}
    main, carriers = _choose_carriers(tensors, modes, holders, fixed, scale, apart, linked)
    partners = _choose_partners(tensors, holders, main, fixed, scale_free)
    found: dict[tuple[tuple[str, ...], tuple[int | None, ...], tuple[tuple[str, int], ...]], list[bool]] = {}
    for column in range(rank):
        held = {mode for mode in modes if fixed[mode][column]}
        having = [k for k in range(len(tensors)) if seen is None or seen[k][column]]
        own = [tensors[k] for k in having]
        there = [mode for mode in modes if any(mode in tensor for tensor in own)]
        carrying = tuple(carriers[k] for k in having)
        joint = {mode: k for mode, k in partners.items() if k in having}
        for key in _normalise_column(own, there, main, carrying, joint if len(joint) > 1 else {}, held):
            found.setdefault(key, [False] * rank)[column] = True
    items = [
        Normalisation(names, weights, tuple(columns), exponents, all(scale_free[mode] for mode, _ in exponents))
        for (names, weights, exponents), columns in found.items()
    ]
    items = _settle_free(sorted(items, key=lambda item: len(item.modes)))
    return ScalePlan(carriers, tuple(items), _order_blocks(modes, main, carriers, items))


def _settle_free(items: list[Normalisation]) -> list[Normalisation]:
    """Return the normalisations with `free` withdrawn where moving scale would break a norm that is not free."""
    while True:
        bound = {mode for item in items if not item.free for mode in item.modes}
        settled = [
            replace(item, free=item.free and not any(mode in bound for mode, _ in item.exponents)) for item in items
        ]
        if settled == items:
            return items
        items = settled


def _choose_carriers(
    tensors: Sequence[tuple[str, ...]],
    modes: list[str],
    holders: Mapping[str, list[int]],
    fixed: Mapping[str, tuple[bool, ...]],
    scale: str | None,
    apart: bool,
    linked: Collection[str],
) -> tuple[str, tuple[str, ...]]:
    def last_free(tensor: tuple[str, ...]) -> str:
        private = [m for m in tensor if len(holders[m]) == 1 and not all(fixed[m])]
        loose = private or [m for m in tensor if not all(fixed[m])]
        unlinked = [m for m in loose if m not in linked]
        return (unlinked or loose or tensor)[-1]

    if scale is not None and all(fixed[scale]) and len(holders[scale]) > 1:
        raise ConstraintConflict(
            f"scale={scale!r}: this mode is shared by {len(holders[scale])} tensors and its constraints fix its own "
            "scale; let another mode carry the amplitudes (scale=None)"
        )
    main = scale or max(modes, key=lambda mode: (len(holders[mode]), mode not in linked, -modes.index(mode)))
    if scale is None and (apart or all(fixed[main])):
        carriers = tuple(last_free(tensor) for tensor in tensors)
        return carriers[0], carriers
    return main, tuple(main if main in tensor else last_free(tensor) for tensor in tensors)


def _choose_partners(
    tensors: Sequence[tuple[str, ...]],
    holders: Mapping[str, list[int]],
    main: str,
    fixed: Mapping[str, tuple[bool, ...]],
    scale_free: Mapping[str, bool],
) -> dict[str, int]:
    """Return the modes that are normalised jointly, each with its tensor; none where the carrier is not shared.

    A tensor offers one mode for all components, as two modes of one tensor could not be updated together: one without
    a penalty where there is one, so that penalties act on shapes whatever the order of the dimensions; else the last.
    """
    found: dict[str, int] = {}
    for k in holders[main]:
        private = [mode for mode in tensors[k] if holders[mode] == [k] and mode != main]
        if private:
            found[min(reversed(private), key=lambda mode: (sum(fixed[mode]), not scale_free[mode]))] = k
    return found if 1 < len(holders[main]) == len(found) else {}


def _normalise_column(
    tensors: Sequence[tuple[str, ...]],
    modes: list[str],
    main: str,
    carriers: tuple[str, ...],
    partners: Mapping[str, int],
    fixed: set[str],
) -> list[tuple[tuple[str, ...], tuple[int | None, ...], tuple[tuple[str, int], ...]]]:
    """Return the normalisations of one component: modes, weights and exponents of each."""
    found = []
    joint = {} if main in fixed or fixed & set(partners) else partners
    movable = [mode for mode in dict.fromkeys((*carriers, *joint)) if mode not in fixed]
    for mode in modes:
        if mode in carriers or mode in joint or mode in fixed:
            continue
        done = {names[0] for names, _, _ in found}
        others = [m for m in modes if m != mode and m not in fixed and m not in done]
        exponents = _exponents(tensors, mode, movable) or _exponents(tensors, mode, others)
        if exponents is not None:
            found.append(((mode,), (None,), exponents))
    if joint:
        exponents = ((main, 1), *((mode, -1) for mode in joint))
        found.append((tuple(joint), tuple(joint.values()), exponents))
    return found


def _exponents(tensors: Sequence[tuple[str, ...]], mode: str, movable: list[str]) -> tuple[tuple[str, int], ...] | None:
    """Return whole exponents that take the norm out of a mode and keep every tensor unchanged, or None.

    The scale goes into as few modes as possible, those named first before others.
    """
    incidence = np.array([[float(name in tensor) for name in (*movable, mode)] for tensor in tensors])
    matrix, target = incidence[:, :-1], incidence[:, -1]
    basis: list[int] = []
    for k in range(len(movable)):
        if np.linalg.matrix_rank(matrix[:, [*basis, k]]) > len(basis):
            basis.append(k)
    if not basis:
        return None
    whole = np.rint(np.linalg.lstsq(matrix[:, basis], target, rcond=None)[0])
    if not np.allclose(matrix[:, basis] @ whole, target):
        return None
    return ((mode, -1), *((movable[k], int(power)) for k, power in zip(basis, whole, strict=True) if power))


def _order_blocks(
    modes: list[str], main: str, carriers: tuple[str, ...], items: Sequence[Normalisation]
) -> tuple[tuple[str, ...], ...]:
    groups: list[set[str]] = [{mode} for mode in modes]
    for item in items:
        touching = [group for group in groups if group & set(item.modes)]
        groups = [group for group in groups if group not in touching] + [set().union(*touching)]
    last = {main, *carriers}
    ordered = sorted(
        (tuple(mode for mode in modes if mode in group) for group in groups),
        key=lambda block: (main in block, bool(set(block) & last), modes.index(block[0])),
    )
    return tuple(ordered)
