"""A model whose profiles on one mode differ from sample to sample: labels, start and rows of that mode.

The factor of the evolving mode has a row for every point of every sample, and the dimensions of both modes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.entries import Entries
from tensorspec.constraints.base import AbstractConstraint, Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import NearSameCrossProduct, SameCrossProduct
from tensorspec.errors import ConstraintConflict, InvalidArgument, RankOutOfRange, UnknownMode, suggest
from tensorspec.fit.behind import Behind
from tensorspec.losses.base import AbstractDivergence, AbstractLoss
from tensorspec.models.base import AbstractModel
from tensorspec.models.parafac2 import PARAFAC2
from tensorspec.modes import ModeLabels
from tensorspec.problem import Problem
from tensorspec.recipe import constructor_repr
from tensorspec.starts.base import AbstractStart, StartContext
from tensorspec.starts.given import From

__all__ = [
    "check_evolving",
    "easier",
    "even_samples",
    "is_evolving",
    "per_row_modes",
    "seen_points",
    "settled",
    "stacked",
    "unfolded",
]


def stacked(behind: Behind, model: AbstractModel) -> Behind:
    """Return the modes with that of the evolving factor holding the points of all samples, and last in every tensor."""
    if not isinstance(model, PARAFAC2):
        return behind
    labels, along, evolving = behind.labels, model.along, model.evolving
    for what, mode in (("evolving", evolving), ("along", along)):
        if mode not in labels:
            raise UnknownMode(f"{what}={mode!r}: these data have modes {list(labels)}.{suggest(mode, labels)}")
    for key, own in behind.names.items():
        if evolving in own and along not in own:
            raise UnknownMode(
                f"tensor {key!r} has the evolving mode {evolving!r} but not {along!r}, along which it evolves; rename "
                "its dimension, so that it has a factor of its own"
            )
    for key, mode in model.operators:
        if mode in (along, evolving):
            raise InvalidArgument(
                f"operator of tensor {key!r} on mode {mode!r}: PARAFAC2 has no operators on its modes {along!r} and "
                f"{evolving!r}"
            )
    samples, points = labels[along], labels[evolving]
    if model.rank > points.size:
        raise RankOutOfRange(
            f"rank={model.rank}: mode {evolving!r} has {points.size} points, and no more components than that can have "
            f"the same cross-product in every sample; give a rank of 1 to {points.size}"
        )
    for key, own in behind.names.items():
        if evolving in own and len(own) < 3:
            raise InvalidArgument(
                f"tensor {key!r} has the modes {list(own)}: PARAFAC2 needs {along!r}, {evolving!r} and another mode "
                "that is the same in all samples, such as 'pixel'"
            )
    if samples.size < 2:
        raise InvalidArgument(f"along={along!r} has one point; PARAFAC2 compares two samples or more, use ts.CP")
    joint = ModeLabels(
        evolving, (*samples.dims, *points.dims), (*samples.shape, *points.shape), {**samples.coords, **points.coords}
    )
    names, operators = {}, {}
    for key, own in behind.names.items():
        order = sorted(
            range(len(own)), key=lambda k, own=own: (own[k] == evolving, evolving in own and own[k] == along)
        )
        given = behind.operators[key]
        names[key] = tuple(own[k] for k in order)
        operators[key] = None if given is None else tuple(given[k] for k in order)
    return behind._replace(labels={**labels, evolving: joint}, names=names, operators=operators)


def check_evolving(model: AbstractModel, losses: Mapping[str, AbstractLoss]) -> None:
    """Refuse what a model with evolving profiles cannot have."""
    if not isinstance(model, PARAFAC2):
        return
    for key, loss in losses.items():
        if isinstance(loss, AbstractDivergence):
            raise InvalidArgument(
                f"loss of tensor {key!r}, {constructor_repr(loss)}: PARAFAC2 is for least squares; use "
                "loss=ts.LeastSquares(scaling='poisson'), which weighs entries by their expected variance"
            )
    for item in model.constraints.get(model.evolving, ()):
        if item.separability != Separability.ENTRY:
            raise ConstraintConflict(
                f"{constructor_repr(item)} on mode {model.evolving!r}, whose profiles differ in every sample: only "
                "constraints that treat every entry by itself are possible there, such as NonNegative(), Box() or "
                "Sparse()"
            )
    if not isinstance(model.constraints_for(model.evolving)[-1], SameCrossProduct) and model.scale not in (
        None,
        model.evolving,
    ):
        raise InvalidArgument(
            f"scale={model.scale!r}: with a penalty on unequal cross-products the profiles carry the amplitudes; leave "
            "scale out"
        )
    for link in model.links:
        if model.evolving in link.modes:
            raise InvalidArgument(f"{constructor_repr(link)}: the evolving mode of PARAFAC2 cannot be linked")


def settled(
    constraints: Mapping[str, tuple[AbstractConstraint, ...]], model: AbstractModel, sizes: Mapping[str, int]
) -> dict[str, tuple[AbstractConstraint, ...]]:
    """Return the constraints with the number of samples in those that compare samples."""
    if not isinstance(model, PARAFAC2):
        return dict(constraints)
    samples = sizes[model.along]
    items = constraints[model.evolving]
    told = tuple(
        dataclasses.replace(item, samples=samples)
        if isinstance(item, (SameCrossProduct, NearSameCrossProduct))
        else item
        for item in items
    )
    return {**constraints, model.evolving: told}


def per_row_modes(model: AbstractModel) -> tuple[str, ...]:
    """Return the modes whose rows have Gram matrices of their own whatever the data."""
    return (model.along, model.evolving) if isinstance(model, PARAFAC2) else ()


def is_evolving(model: AbstractModel, mode: str) -> bool:
    """Return whether the factor of a mode has a row for every point of every sample."""
    return isinstance(model, PARAFAC2) and mode == model.evolving


def seen_points(valid: np.ndarray, names: tuple[str, ...], model: AbstractModel) -> np.ndarray:
    """Return which points of the evolving mode a tensor has measured, sample by sample."""
    assert isinstance(model, PARAFAC2)
    kept = (model.along, model.evolving)
    others = tuple(axis for axis, name in enumerate(names) if name not in kept)
    return np.asarray(valid.any(axis=others)).reshape(-1)


def unfolded(
    names: tuple[str, ...], values: np.ndarray | Entries, model: AbstractModel
) -> tuple[tuple[str, ...], np.ndarray | Entries]:
    """Return a tensor as a start sees it: samples and profiles are one mode, the evolving one."""
    if not isinstance(model, PARAFAC2) or model.evolving not in names:
        return names, values
    assert isinstance(values, np.ndarray)
    return (*names[:-2], names[-1]), values.reshape(*values.shape[:-2], -1)


def even_samples(
    factors: dict[str, np.ndarray], start: AbstractStart, context: StartContext, model: AbstractModel
) -> dict[str, np.ndarray]:
    """Return the factors of a start in which every component is equally strong in all samples, unless it was given.

    Where profiles may be negative they are those that fit the other factors best: strengths of samples that are fitted
    to random profiles get random signs, which hold the fit in a poor minimum.
    """
    if not isinstance(model, PARAFAC2) or isinstance(start, From):
        return factors
    found = {**factors, model.along: np.ones_like(factors[model.along])}
    if not context.nonnegative[model.evolving]:
        index = next(k for k, (modes, _) in enumerate(context.tensors) if model.evolving in modes)
        (modes, values), weight = context.tensors[index], context.weights[index]
        assert isinstance(values, np.ndarray)
        others = np.ones((1, model.rank))
        for mode in modes[:-1]:
            others = (others[:, None, :] * found[mode].astype(float)).reshape(-1, model.rank)
        pull = weight * (values.reshape(-1, values.shape[-1]).T @ others)
        found[model.evolving] = (pull @ np.linalg.pinv(others.T @ others)).astype(context.dtype)
    return found


def easier(problem: Problem, model: AbstractModel) -> list[Problem]:
    """Return the same problem with weaker penalties on unequal cross-products, which lead from a start to its answer.

    A strong penalty holds the profiles of a random start close to where they are: with a strength of 100, 10 of 36 fits
    of planted peaks ended in a poor minimum, with 10 one, and none that came through 1 and 10.
    """
    if not isinstance(model, PARAFAC2) or model.evolving not in problem.constraints:
        return []
    rules = problem.constraints[model.evolving]
    found = []
    for item in rules.members:
        if isinstance(item, NearSameCrossProduct):
            strengths = [10.0**k for k in range(20) if 10.0**k < (1 - 1e-9) * float(item.strength)]
            for strength in strengths:
                weaker = dataclasses.replace(item, strength=jnp.asarray(strength, jnp.float64))
                members = tuple(weaker if other is item else other for other in rules.members)
                changed = {**problem.constraints, model.evolving: ModeConstraints(members, rules.rank)}
                found.append(Problem(problem.tensors, changed, problem.links))
    return found
