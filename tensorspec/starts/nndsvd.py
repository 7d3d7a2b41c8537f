"""A start from the singular value decomposition, its signs resolved."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tensorspec.starts.base import AbstractStart, Reduced, StartContext, unfolded_along
from tensorspec.starts.random import scaled_to_data

__all__ = ["NNDSVD", "rank_one"]

_OVERSAMPLING = 10
_POWER_STEPS = 2


class NNDSVD(AbstractStart):
    """Non-negative double singular value decomposition of the tensors unfolded on the carrying mode.

    Of each pair of singular vectors the stronger of the two sign-consistent halves is taken; zeros are filled with a
    small share of the mean so that nothing starts dead.  Tensors that share the mode are decomposed together, each with
    its weight; the further modes of a tensor come from the best rank-one fit of its part.  The same for every seed.

    References
    ----------
    Boutsidis and Gallopoulos, Pattern Recognition 41 (2008) 1350, doi:10.1016/j.patcog.2007.09.010; Halko, Martinsson
    and Tropp, SIAM Review 53 (2011) 217, doi:10.1137/090771806.

    Examples
    --------
    >>> NNDSVD()
    NNDSVD()
    """

    random: ClassVar[bool] = False

    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return the factors; `seed` only steers the range finder."""
        rng = np.random.default_rng(seed)
        carrier, rank = context.carrier, context.rank
        chosen = [k for k, (modes, _) in enumerate(context.tensors) if carrier in modes]
        with_carrier = [(*context.tensors[k], context.weights[k]) for k in chosen]
        reduced = [] if context.reduced is None else [context.reduced[k] for k in chosen]
        axes = [modes.index(carrier) for modes, _, _ in with_carrier]
        known = [item for item in reduced if item is not None]
        if len(known) == len(chosen):
            left, right = _svd_of_reduced(known, [weight for _, _, weight in with_carrier], axes, rank)
        else:
            unfolded = [
                (unfolded_along(values, axis), weight)
                for (_, values, weight), axis in zip(with_carrier, axes, strict=True)
            ]
            left, right = _joint_svd(unfolded, rank, rng, context.dtype)
        widths = [values.size // context.sizes[carrier] for _, values, _ in with_carrier]
        found: dict[str, np.ndarray] = {}
        amplitudes = np.zeros((context.sizes[carrier], rank))
        parts: list[np.ndarray] = [np.zeros((width, rank)) for width in widths]
        stops = np.cumsum(widths)[:-1]
        for r in range(rank):
            if r < left.shape[1]:
                u, v = (
                    _stronger_half(left[:, r], right[:, r])
                    if all(context.nonnegative.values())
                    else (
                        left[:, r],
                        right[:, r],
                    )
                )
            else:  # more components than singular vectors: repeat with random weights
                u, v = rng.random(left.shape[0]), rng.random(right.shape[0])
            amplitudes[:, r] = u
            for part, piece in zip(parts, np.split(v, stops), strict=True):
                part[:, r] = piece
        found[carrier] = amplitudes
        for part, (modes, _, _) in zip(parts, with_carrier, strict=True):
            others = [mode for mode in modes if mode != carrier]
            for mode, factor in rank_one(part, [context.sizes[m] for m in others], others).items():
                found.setdefault(mode, factor)
        for mode, size in context.sizes.items():
            if mode not in found:
                found[mode] = rng.random((size, rank))
            if context.nonnegative[mode]:
                floor = 0.01 * np.abs(found[mode]).mean(axis=0) + np.finfo(context.dtype).tiny
                found[mode] = np.maximum(np.abs(found[mode]), floor)
            found[mode] = found[mode].astype(context.dtype)
        return scaled_to_data(found, context)


def _joint_svd(
    matrices: list[tuple[Any, float]], rank: int, rng: np.random.Generator, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return left (times singular value) and right singular vectors of the weighted matrices side by side."""
    rows = matrices[0][0].shape[0]
    count = min(rank + _OVERSAMPLING, rows, sum(matrix.shape[1] for matrix, _ in matrices))
    ready = [(matrix.astype(dtype, copy=False), weight) for matrix, weight in matrices]
    basis = np.zeros((rows, count), dtype)
    for matrix, weight in ready:
        basis += weight * (matrix @ rng.standard_normal((matrix.shape[1], count)).astype(dtype))
    for _ in range(_POWER_STEPS):
        basis = np.linalg.qr(basis.astype(float))[0].astype(dtype)
        basis = np.sum([weight**2 * (matrix @ (matrix.T @ basis)) for matrix, weight in ready], axis=0)
    basis = np.linalg.qr(basis.astype(float))[0]
    small = np.concatenate([weight * (basis.T.astype(dtype) @ matrix) for matrix, weight in ready], axis=1)
    u, s, vt = np.linalg.svd(small.astype(float), full_matrices=False)
    keep = min(rank, len(s))
    return (basis @ u[:, :keep]) * s[:keep], vt[:keep].T


def _svd_of_reduced(
    tensors: list[Reduced], weights: list[float], axes: list[int], rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `_joint_svd` does, from cores and bases; the data are not read."""
    own = [item.bases[axis] for item, axis in zip(tensors, axes, strict=True)]
    flat = [
        weight * np.moveaxis(item.core, axis, 0).reshape(item.core.shape[axis], -1).astype(float)
        for item, weight, axis in zip(tensors, weights, axes, strict=True)
    ]
    alone = len(tensors) == 1
    if not alone:  # tensors meet in the points of the mode, not in what each of them keeps of it
        flat = [part if basis is None else basis @ part for part, basis in zip(flat, own, strict=True)]
    joint = np.concatenate(flat, axis=1)
    if len(joint) > joint.shape[1]:
        vectors = np.linalg.eigh(joint.T @ joint)[1]
        small = vectors[:, ::-1][:, :rank]
    else:
        small = np.linalg.svd(joint, full_matrices=False)[2][:rank].T
    left = joint @ small
    left = own[0] @ left if alone and own[0] is not None else left
    parts = np.split(small, np.cumsum([part.shape[1] for part in flat])[:-1])
    wide = [_expanded(part, item, axis) for part, item, axis in zip(parts, tensors, axes, strict=True)]
    return left, np.concatenate(wide)


def _expanded(part: np.ndarray, item: Reduced, axis: int) -> np.ndarray:
    """Return right singular vectors of a core as those of the tensor, all axes but one multiplied by their bases."""
    others = [k for k in range(item.core.ndim) if k != axis]
    cube = part.reshape([item.core.shape[k] for k in others] + [part.shape[1]])
    for place, k in enumerate(others):
        basis = item.bases[k]
        if basis is not None:
            cube = np.moveaxis(np.tensordot(basis, cube, axes=(1, place)), 0, place)
    return cube.reshape(-1, part.shape[1])


def _stronger_half(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive or the negative halves of both vectors, whichever pair is larger, balanced in norm."""
    pairs = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1.0, -1.0)]
    sizes = [np.linalg.norm(a) * np.linalg.norm(b) for a, b in pairs]
    best = int(sizes[1] > sizes[0])
    a, b = pairs[best]
    norm = np.linalg.norm(b)
    return (a * norm, b / norm) if norm > 0 else (a, b)


def rank_one(part: np.ndarray, sizes: list[int], modes: list[str]) -> dict[str, np.ndarray]:
    """Return, for each further mode, the leading vector of every column's unfolding."""
    if len(modes) == 1:
        return {modes[0]: part}
    rank = part.shape[1]
    found = {mode: np.zeros((size, rank)) for mode, size in zip(modes, sizes, strict=True)}
    for r in range(rank):
        cube = part[:, r].reshape(sizes)
        for axis, mode in enumerate(modes):
            matrix = np.moveaxis(cube, axis, 0).reshape(sizes[axis], -1)
            vector = matrix.sum(axis=1)
            norm = np.linalg.norm(vector)
            found[mode][:, r] = vector / norm if norm > 0 else 1.0
    return found
