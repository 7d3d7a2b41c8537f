"""Tucker factorization: a few components in every mode, and a core that says which of them meet, and how strongly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra import contract, multilinear
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint, Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.pattern import Pattern
from tensorspec.coupling.chain import as_operators
from tensorspec.coupling.links import Link
from tensorspec.coupling.operators import AbstractOperator
from tensorspec.errors import ConstraintConflict, InvalidArgument, RankOutOfRange, UnknownMode, UnknownName, suggest
from tensorspec.models.base import AbstractModel, Compressible, as_constraints, squares_from_equations
from tensorspec.models.cp import as_rank
from tensorspec.problem import Factors, Tensor
from tensorspec.recipe import constructor_repr
from tensorspec.scale import Normalisation, ScalePlan

__all__ = ["CORE", "Tucker"]

CORE = "core"
_EXAMPLE = "ranks={'pixel': 4, 'energy_loss': 3}"


def _as_ranks(given: Any) -> dict[str, int]:
    if not isinstance(given, Mapping) or not given:
        raise RankOutOfRange(f"ranks={given!r}: expected the number of components of each mode, as {_EXAMPLE}")
    return {str(mode): as_rank(rank) for mode, rank in given.items()}


def _as_pattern(given: Any) -> tuple[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], ...]:
    if not given:
        return ()
    example = "pattern={('pixel', 'energy_loss'): [(1, 1), (1, 2), (2, 3)]}"
    pairs = given.items() if isinstance(given, Mapping) else given
    found = []
    for modes, entries in pairs:
        modes = tuple(modes) if isinstance(modes, (tuple, list)) else (modes,)
        entries = [tuple(int(k) for k in entry) for entry in entries]
        if len(modes) < 2 or len(set(modes)) < len(modes) or not entries:
            raise InvalidArgument(f"pattern: {modes} is given {entries}; expected which components may meet, {example}")
        if any(len(entry) != len(modes) or min(entry) < 1 for entry in entries):
            raise InvalidArgument(
                f"pattern: {modes} is given {entries}; expected a component number for each of these modes, counted "
                f"from 1, {example}"
            )
        found.append((modes, tuple(dict.fromkeys(entries))))
    return tuple(found)


def _as_names(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(str(name) for name in given)


class Tucker(AbstractModel, Compressible):
    """Components of every mode by themselves, and for each tensor a core that says how strongly they meet.

    The model of a tensor is the sum over components p of its first mode, q of its second, ... of
    ``core[p, q, ...]`` times the product of their profiles.  In `CP` component k of one mode meets component k of the
    others and no other one; here a map may meet several spectra, and a spectrum several maps.

    Parameters
    ----------
    ranks
        Number of components of each mode.  A mode that is not named is left whole (partial Tucker): it has no factor,
        and the core has an axis for its points.
    constraints
        One constraint or a list for each mode that has any; under ``"core"`` those of the cores (of one tensor among
        several under ``"core of eels"``): constraints of single entries that leave the scale free, such as
        `NonNegative` and `Sparse`.
    pattern
        Which components may meet, counted from 1, for two modes or more, for example ``{("pixel", "energy_loss"):
        [(1, 1), (1, 2), (2, 3)]}``; all other entries of the cores are zero.  Modes that are not named are free.
    diagonal
        Names of tensors whose core is diagonal, as in `CP`: component k of one mode meets component k of the others.
        So a tensor with its CP model and another one with its Tucker model share a mode.
    operators
        What stands between a factor and a tensor; see `CP`.

    Raises
    ------
    RankOutOfRange
        When a rank is not a whole number of one or more.
    InvalidArgument
        When a pattern or constraint is none.

    Notes
    -----
    The cores carry the amplitudes: columns of all modes have unit norm, except where a constraint fixes their scale.
    Without constraints only the subspaces of the modes are determined by the data.  Such a mode comes back with
    orthonormal columns, turned so that the slices of the core are orthogonal and sorted by their norm (the form of the
    higher-order singular value decomposition).  With constraints the factors themselves have a meaning, as far as these
    make them unique.

    References
    ----------
    Tucker, Psychometrika 31 (1966) 279, doi:10.1007/BF02289464; De Lathauwer, De Moor and Vandewalle, SIAM J. Matrix
    Anal. Appl. 21 (2000) 1253, doi:10.1137/S0895479896305696; Kolda and Bader, SIAM Review 51 (2009) 455,
    doi:10.1137/07070111X.

    Examples
    --------
    >>> from tensorspec.constraints.sparse import Sparse
    >>> Tucker({"pixel": 4, "energy_loss": 3}, {"core": Sparse(0.1)}).constraints_for("core")
    (Sparse(strength=0.1),)
    """

    ranks: Mapping[str, int] = eqx.field(converter=_as_ranks)
    constraints: Mapping[str, tuple[AbstractConstraint, ...]] = eqx.field(converter=as_constraints, default=None)
    pattern: tuple[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], ...] = eqx.field(
        converter=_as_pattern, default=(), kw_only=True
    )
    diagonal: tuple[str, ...] = eqx.field(converter=_as_names, default=(), kw_only=True)
    operators: Mapping[tuple[str, str], AbstractOperator] = eqx.field(
        converter=as_operators, default=None, kw_only=True
    )
    # What CP has and this model does not.
    scale: str | None = eqx.field(default=None, init=False)
    share: Mapping[str, tuple[int, ...]] | str | None = eqx.field(default=None, init=False)
    links: tuple[Link, ...] = eqx.field(default=(), init=False)

    @property
    def numbers_components(self) -> bool:
        """Whether a pattern says which components meet."""
        return bool(self.pattern)

    def shapes(self, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return size and rank of every mode that is not left whole, then the cores; see the base class."""
        self._check(names, sizes)
        found = {mode: (size, self.ranks[mode]) for mode, size in sizes.items() if mode in self.ranks}
        for tensor, modes in names.items():
            if CORE in modes:
                raise InvalidArgument(
                    f"tensor {tensor!r} has a mode {CORE!r}, which is the name of the core; rename the dimension, "
                    f"data.rename({CORE}=...)"
                )
            kept = [self.ranks[mode] for mode in modes if mode in self.ranks]
            columns = kept[0] if tensor in self.diagonal else prod(kept)
            found[self._core(tensor, names)] = (prod(sizes[m] for m in modes if m not in self.ranks), columns)
        return found

    def _check(self, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> None:
        for mode in [*self.ranks, *(mode for modes, _ in self.pattern for mode in modes)]:
            if mode not in sizes:
                raise UnknownMode(f"no mode {mode!r}; these data have modes {list(sizes)}.{suggest(mode, sizes)}")
        for modes, entries in self.pattern:
            for place, mode in enumerate(modes):
                most = max(entry[place] for entry in entries)
                if mode not in self.ranks or most > self.ranks[mode]:
                    have = f"has {self.ranks[mode]} components" if mode in self.ranks else "is left whole"
                    raise InvalidArgument(f"pattern names component {most} of mode {mode!r}, which {have}")
            if not any(set(modes) <= set(own) for own in names.values()):
                raise InvalidArgument(f"pattern names the modes {modes}, which no tensor has together")
        for tensor in self.diagonal:
            if tensor not in names:
                raise UnknownName(f"diagonal names the tensor {tensor!r}; there are {list(names)}")
            ranks = {mode: self.ranks.get(mode) for mode in names[tensor]}
            if None in ranks.values() or len(set(ranks.values())) > 1:
                raise RankOutOfRange(
                    f"diagonal names the tensor {tensor!r}, whose modes then have one rank; given are {ranks}"
                )
        for mode, rank in self.ranks.items():
            # What a mode's components are combined with, in the tensor that allows most.
            bounds = []
            for tensor, modes in names.items():
                if mode in modes:
                    others = [self.ranks.get(other, sizes[other]) for other in modes if other != mode]
                    bounds.append(sizes[mode] if tensor in self.diagonal else min(sizes[mode], prod(others)))
            if rank > max(bounds):
                raise RankOutOfRange(
                    f"ranks: mode {mode!r} is given {rank} components; with {sizes[mode]} points, and the other ranks "
                    f"{ {m: r for m, r in self.ranks.items() if m != mode} }, at most {max(bounds)} can be told apart"
                )

    def _core(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> str:
        return CORE if len(names) == 1 else f"{CORE} of {tensor}"

    def core_of(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> str | None:
        """Return ``"core"``, with the name of the tensor where there are several."""
        return self._core(tensor, names)

    def constraints_for(self, mode: str) -> tuple[AbstractConstraint, ...]:
        """Return the constraints given for a mode, or for a core."""
        own = self.constraints.get(mode, ())
        if mode.startswith(f"{CORE} of "):
            own = (*self.constraints.get(CORE, ()), *own)
        return own

    def core_constraints(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> tuple[AbstractConstraint, ...]:
        """Return the constraints of a tensor's core, its pattern among them.

        Raises
        ------
        ConstraintConflict
            When one is not of single entries, or would fix the scale, which the core carries.
        """
        core = self._core(tensor, names)
        given = self.constraints_for(core)
        for item in given:
            if item.separability != Separability.ENTRY or item.degree is None or item.components is not None:
                why = (
                    "it fixes a scale, and the core carries the amplitudes"
                    if item.degree is None
                    else "components belong to modes; use pattern="
                    if item.components is not None
                    else "it ties entries together"
                )
                raise ConstraintConflict(
                    f"constraints of {core!r}: {constructor_repr(item)} cannot act on a core, because {why}; expected "
                    "constraints of single entries that leave the scale free, such as ts.NonNegative() or ts.Sparse(s)"
                )
        allowed = self._allowed(names[tensor])
        if allowed is None or tensor in self.diagonal:
            return given
        return (*given, Pattern(allowed.astype(float).reshape(1, -1)))

    def _allowed(self, modes: tuple[str, ...]) -> np.ndarray | None:
        """Return which entries of a core may differ from zero, one axis a mode that has components; None for all."""
        kept = [mode for mode in modes if mode in self.ranks]
        allowed = np.ones([self.ranks[mode] for mode in kept], bool)
        told = False
        for named, entries in self.pattern:
            if not set(named) <= set(kept):
                continue
            told = True
            own = np.zeros([self.ranks[mode] for mode in named], bool)
            own[tuple(np.array(entries).T - 1)] = True
            order = [named.index(mode) for mode in kept if mode in named]
            shape = [self.ranks[mode] if mode in named else 1 for mode in kept]
            allowed &= np.transpose(own, order).reshape(shape)
        if not told:
            return None
        for axis, mode in enumerate(kept):
            idle = np.flatnonzero(~allowed.any(axis=tuple(k for k in range(allowed.ndim) if k != axis)))
            if idle.size:
                raise InvalidArgument(
                    f"pattern: component {idle[0] + 1} of mode {mode!r} may meet no other; leave it out of the ranks"
                )
        return allowed

    def scale_plan(
        self, names: Mapping[str, tuple[str, ...]], rules: Mapping[str, ModeConstraints], scale: str | None = None
    ) -> ScalePlan:
        """Return the plan in which every tensor's core carries its amplitudes; see the base class."""
        del scale
        cores = {tensor: self._core(tensor, names) for tensor in names}
        items = []
        modes = [name for name in rules if name not in cores.values()]
        for mode in modes:
            having = [tensor for tensor, own in names.items() if mode in own]
            columns = tuple(not held for held in rules[mode].fixed_columns)
            if not any(columns):
                continue
            took = [cores[tensor] for tensor in having]
            spread = tuple(
                (cores[tensor], tuple(int(k) for k in self._columns_of(names[tensor], mode)))
                for tensor in having
                if tensor not in self.diagonal
            )
            free = all(rules[name].scale_free for name in (mode, *took))
            exponents = ((mode, -1), *((core, 1) for core in took))
            items.append(Normalisation((mode,), (None,), columns, exponents, free, spread))
        blocks = tuple((name,) for name in (*modes, *cores.values()))
        return ScalePlan(tuple(cores.values()), tuple(items), blocks)

    def _columns_of(self, modes: tuple[str, ...], mode: str) -> np.ndarray:
        """Return for every column of a core which component of a mode it belongs to."""
        kept = {name: self.ranks[name] for name in modes if name in self.ranks}
        grid = np.indices(tuple(kept.values()))
        return grid[list(kept).index(mode)].reshape(-1)

    def linear_in(self, tensor: Tensor) -> str:
        """Return the core."""
        assert tensor.core is not None
        return tensor.core

    def _is_diagonal(self, tensor: Tensor) -> bool:
        assert tensor.core is not None
        return bool(self.diagonal) and tensor.core.removeprefix(f"{CORE} of ") in (*self.diagonal, CORE)

    def normal_equations(self, tensor: Tensor, factors: Factors, mode: str) -> NormalEquations:
        """Return the equations of a mode or a core; see the base class."""
        assert tensor.core is not None
        if self._is_diagonal(tensor):
            gram, right = _diagonal_equations(tensor, factors, mode)
        else:
            own = tensor.own_or_whole(factors)
            data = multilinear.Data(tensor.blocks, tensor.rows, tensor.dense, tensor.bases)
            if mode == tensor.core:
                gram, right = multilinear.core_equations(data, own)
            else:
                axis = tensor.modes.index(mode)
                core = multilinear.as_core(factors[tensor.core], own, _sizes(tensor))
                gram, right = multilinear.mode_equations(data, own, core, axis)
                row, outer = tensor.rows[axis], data.carried[axis]
                if row is not None and outer is not None:
                    right = right * outer[:, None]
                    gram = gram * row.astype(gram.dtype)[:, None, None]
        right = right.astype(jnp.float64) * tensor.scale * tensor.weight
        return NormalEquations(gram * tensor.weight, right.astype(factors[mode].dtype))

    @property
    def settles_quickly(self) -> bool:
        """Whether few sweeps on all data are enough: no, along a core they go slowly everywhere."""
        return False

    def compressible_axes(self, tensor: Tensor) -> tuple[bool, ...]:
        """Return which modes have a factor; none where the core is diagonal."""
        return tuple(mode in self.ranks and not self._is_diagonal(tensor) for mode in tensor.modes)

    def reconstruct(self, tensor: Tensor, factors: Factors) -> Float[Array, "..."]:
        """Return the core multiplied by the factors of all modes."""
        assert tensor.core is not None
        own = tensor.own_or_whole(factors)
        if self._is_diagonal(tensor):
            first, *others = tensor.own(factors)
            return contract.reconstruct([first * factors[tensor.core], *others])
        return multilinear.expand(multilinear.as_core(factors[tensor.core], own, _sizes(tensor)), own)

    def squared_residual(self, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
        """Return the weighted sum of squared residuals; see the base class."""
        assert tensor.core is not None
        if tensor.bases is not None:
            return squares_from_equations(self, tensor, factors)
        strengths = factors[tensor.core]
        # In the data's own units: a scale rounded to float32 would bias all entries the same way.
        strengths = (strengths.astype(jnp.float64) / tensor.scale).astype(strengths.dtype)
        own = tensor.own_or_whole(factors)
        if self._is_diagonal(tensor):
            first, *others = tensor.own(factors)
            left, right = first * strengths, contract.khatri_rao(others).T
        else:
            core = multilinear.as_core(strengths, own, _sizes(tensor))
            left, right = _unfolded(core, own)
        square = contract.squares_left(tensor.blocks, left, right, tensor.rows, tensor.dense)
        return square * jnp.square(tensor.scale)


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return the size of every axis, whether it is compressed or not."""
    stored = (sum(block.shape[0] for block in tensor.blocks), *tensor.blocks[0].shape[1:])
    bases = tensor.bases or (None,) * len(stored)
    return tuple(size if basis is None else len(basis) for size, basis in zip(stored, bases, strict=True))


def _unfolded(core: Array, own: Sequence[Array | None]) -> tuple[Array | None, Array]:
    """Return the model unfolded along the first axis: a product of two matrices, or one where that axis is whole."""
    return own[0], multilinear.expand(core, own, but=0).reshape(core.shape[0], -1)


def _diagonal_equations(tensor: Tensor, factors: Factors, mode: str) -> tuple[Array, Array]:
    """Return Gram matrix and right-hand side of a tensor whose core is diagonal, without scale and weight."""
    assert tensor.core is not None
    own, strengths = tensor.own(factors), factors[tensor.core][0]
    scaled = [f if u is None else f * u.astype(f.dtype)[:, None] for f, u in zip(own, tensor.rows, strict=True)]
    axis = 0 if mode == tensor.core else tensor.modes.index(mode)
    right = contract.mttkrp(tensor.blocks, scaled, axis).astype(jnp.float64)
    if mode == tensor.core:
        right = jnp.sum(scaled[0].astype(jnp.float64) * right, axis=0, keepdims=True)
        if tensor.dense is None:
            ones = jnp.ones((1, own[0].shape[1]), own[0].dtype)
            return contract.gram([ones, *own], 0, [None, *tensor.rows]), right
        roots = [f if u is None else f * jnp.sqrt(u).astype(f.dtype)[:, None] for f, u in _paired(own, tensor)]
        each = contract.weighted_gram(tensor.dense, roots, 0)
        return jnp.einsum("nrs,nr,ns->rs", each, roots[0], roots[0]), right
    if tensor.dense is None:
        gram = contract.gram(own, axis, tensor.rows)
    else:
        roots = [f if u is None else f * jnp.sqrt(u).astype(f.dtype)[:, None] for f, u in _paired(own, tensor)]
        gram = contract.weighted_gram(tensor.dense, roots, axis)
    row = tensor.rows[axis]
    if row is not None:
        right = right * row[:, None]
        gram = gram * row.astype(gram.dtype)[:, None, None]
    return gram * jnp.outer(strengths, strengths), right * strengths


def _paired(own: Sequence[Array], tensor: Tensor) -> Iterable[tuple[Array, Array | None]]:
    return zip(own, tensor.rows, strict=True)
