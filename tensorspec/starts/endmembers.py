"""Starts from the geometry of the data: purest pixels, or the corners of the signal subspace."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np

from tensorspec.algebra.block_pivoting import nonnegative
from tensorspec.endmembers.spa import successive_projections
from tensorspec.endmembers.sss import subspace_spectra
from tensorspec.endmembers.vca import vertex_components
from tensorspec.errors import InvalidArgument
from tensorspec.starts.base import AbstractStart, StartContext, unfolded_along
from tensorspec.starts.nndsvd import rank_one
from tensorspec.starts.random import scaled_to_data

__all__ = ["SPA", "SSS", "VCA"]

# Of the largest squared norm, added to each, so that spectra that are alike leave the amounts defined.
RIDGE = 1e-10
# Relative errors of a channel's sum up to which it may constrain the spectra, the strictest first.
RELATIVE = (0.01, 0.02, 0.05)


class _Endmembers(AbstractStart):
    """Spectra from the rows of the carrying mode, and the amounts of them that the rows have."""

    random: ClassVar[bool] = False
    weighed: ClassVar[bool] = True

    @abc.abstractmethod
    def spectra(self, matrix: np.ndarray, rank: int, seed: int) -> np.ndarray:
        """Return ``(rank, channels)`` spectra of a matrix without empty rows."""

    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return spectra, and amounts by least squares; of tensors that share the mode, of all side by side."""
        carrier, rank = context.carrier, context.rank
        chosen = [k for k, (modes, _) in enumerate(context.tensors) if carrier in modes]
        parts = []
        for k in chosen:
            modes, values = context.tensors[k]
            part = unfolded_along(values, modes.index(carrier))
            part = np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
            parts.append(part * context.weights[k] if self.weighed else part)
        matrix = np.concatenate(parts, axis=1)
        lit, seen = np.flatnonzero(matrix.any(axis=1)), np.flatnonzero(matrix.any(axis=0))
        if min(len(lit), len(seen)) < rank:
            raise InvalidArgument(
                f"start={type(self).__name__}(): {len(lit)} points of {carrier!r} and {len(seen)} channels have "
                f"signal, fewer than {rank} components; use start=ts.Random()"
            )
        small = matrix[np.ix_(lit, seen)]
        found = np.zeros((rank, matrix.shape[1]))
        found[:, seen] = self.spectra(small, rank, seed)
        positive = all(context.nonnegative.values())
        found = np.maximum(found, 0) if positive else found
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        found = found / np.where(norm > 0, norm, 1)
        amounts = np.zeros((len(matrix), rank))
        amounts[lit] = _amounts(small, found[:, seen], positive)
        factors = {carrier: amounts}
        rng = np.random.default_rng(seed)
        columns = np.split(found.T, np.cumsum([part.shape[1] for part in parts])[:-1])
        for k, part in zip(chosen, columns, strict=True):
            others = [mode for mode in context.tensors[k][0] if mode != carrier]
            for mode, factor in rank_one(part, [context.sizes[mode] for mode in others], others).items():
                factors.setdefault(mode, factor)
        for mode, size in context.sizes.items():
            factor = factors[mode] if mode in factors else rng.random((size, rank))
            if context.nonnegative[mode]:
                factor = np.maximum(np.abs(factor), 1e-3 * np.abs(factor).mean(axis=0) + np.finfo(context.dtype).tiny)
            factors[mode] = factor.astype(context.dtype)
        return scaled_to_data(factors, context)


class VCA(_Endmembers):
    """Start from the purest pixels, by vertex component analysis (see `tensorspec.vca`).

    Another seed gives other directions, and may give other pixels.

    Examples
    --------
    >>> VCA()
    VCA()
    """

    random: ClassVar[bool] = True

    def spectra(self, matrix: np.ndarray, rank: int, seed: int) -> np.ndarray:
        """Return the spectra of the purest pixels."""
        return vertex_components(matrix, rank, seed)[0]


class SPA(_Endmembers):
    """Start from the purest pixels, by successive projections (see `tensorspec.spa`); the same for every seed.

    Examples
    --------
    >>> SPA()
    SPA()
    """

    def spectra(self, matrix: np.ndarray, rank: int, seed: int) -> np.ndarray:
        """Return the spectra of pixels that lie farthest out."""
        del seed
        return successive_projections(matrix, rank)[0]


class SSS(_Endmembers):
    """Start from the corners of the signal subspace of counts (see `tensorspec.sss`); it needs no pure pixel.

    Examples
    --------
    >>> SSS()
    SSS()
    """

    weighed: ClassVar[bool] = False

    def spectra(self, matrix: np.ndarray, rank: int, seed: int) -> np.ndarray:
        """Return the corners, admitting the channels that are known best and still bound them."""
        if (matrix < 0).any():
            raise InvalidArgument("start=SSS() needs counts of zero or more; use start=ts.VCA() or ts.Random()")
        totals = matrix.sum(axis=0)
        for relative in RELATIVE:
            admitted = totals >= relative**-2
            if admitted.sum() < rank:
                continue
            try:
                return subspace_spectra(matrix, rank, admitted, seed).spectra
            except ArithmeticError:
                continue
        raise InvalidArgument(
            f"start=SSS(): no channels are known well enough to bound {rank} spectra; use start=ts.VCA() or ts.Random()"
        )


def _amounts(matrix: np.ndarray, spectra: np.ndarray, positive: bool) -> np.ndarray:
    """Return least-squares amounts, positive where they have to be."""
    gram, right = spectra @ spectra.T, matrix @ spectra.T
    if not positive:
        return np.linalg.lstsq(gram, right.T, rcond=None)[0].T
    return nonnegative(gram + RIDGE * max(float(gram.diagonal().max()), 1e-300) * np.eye(len(gram)), right)[0]
