"""Canonical polyadic (CP) factorization; for two modes it is matrix factorization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra import contract, lowrank
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.coupling.chain import as_operators
from tensorspec.coupling.links import Link, as_links
from tensorspec.coupling.operators import AbstractOperator
from tensorspec.coupling.sharing import FIND, as_share, components_seen
from tensorspec.errors import RankOutOfRange
from tensorspec.models.base import (
    AbstractModel,
    Compressible,
    ContractsFirst,
    TangentProducts,
    as_constraints,
    squares_from_equations,
)
from tensorspec.problem import Factors, Tensor
from tensorspec.scale import ScalePlan, plan_scale

__all__ = ["CP", "NMF", "as_rank"]


def as_rank(value: Any) -> int:
    """Return a number of components, or refuse what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RankOutOfRange(f"rank={value!r}: expected a whole number of components, 1 or more")
    if value < 1:
        raise RankOutOfRange(f"rank={value}: expected 1 or more components")
    return int(value)


def _as_tuple(given: Any) -> tuple[AbstractConstraint, ...]:
    return given if isinstance(given, tuple) else (given,)


class CP(AbstractModel, TangentProducts, Compressible, ContractsFirst):
    """A sum of `rank` components, each the product of one profile per mode.

    Parameters
    ----------
    rank
        Number of components.
    constraints
        One constraint or a list for each mode that has any.
    scale
        The mode that carries the amplitudes; by default the shared mode, else the first (where a constraint fixes the
        scale of that mode, each tensor's last).
    share
        Which components a tensor has, by its name and counted from 1, for example ``{"eels": [1, 2, 3]}``; a tensor
        that is not named has all of them.  ``"find"``: a penalty on the strength of each component in each tensor
        decides.
    operators
        What stands between a factor and a tensor, by tensor and mode, for example
        ``{("edx", "pixel"): Bin(2), ("edx", "xray_energy"): Broaden("fit")}``; a list of operators acts in its order.
    links
        Pairs of modes whose factors are softly equal, as `Link`.
    everywhere
        Constraints that every mode has beside its own.

    Raises
    ------
    RankOutOfRange
        When the rank is not a whole number of one or more.
    InvalidArgument
        When something given as a constraint is none.

    References
    ----------
    Kolda and Bader, SIAM Review 51 (2009) 455, doi:10.1137/07070111X.

    Examples
    --------
    >>> CP(2, {"pixel": NonNegative()}).rank
    2
    """

    rank: int = eqx.field(converter=as_rank, static=True)
    constraints: Mapping[str, tuple[AbstractConstraint, ...]] = eqx.field(converter=as_constraints, default=None)
    scale: str | None = eqx.field(default=None, static=True)
    share: Mapping[str, tuple[int, ...]] | str | None = eqx.field(converter=as_share, default=None)
    operators: Mapping[tuple[str, str], AbstractOperator] = eqx.field(converter=as_operators, default=None)
    links: tuple[Link, ...] = eqx.field(converter=as_links, default=(), kw_only=True)
    everywhere: tuple[AbstractConstraint, ...] = eqx.field(converter=_as_tuple, default=(), kw_only=True)

    @property
    def numbers_components(self) -> bool:
        """Whether tensors are given their components."""
        return self.share is not None and not isinstance(self.share, str)

    def shapes(self, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return the size of every mode with the rank; see the base class."""
        # Of a coupled model every tensor adds what it can determine, so the largest bound holds.
        bound = max(int(np.prod([sizes[m] for m in own]) // max(sizes[m] for m in own)) for own in names.values())
        if self.rank > bound:
            raise RankOutOfRange(
                f"rank={self.rank}: these data, with mode sizes {dict(sizes)}, determine at most {bound} components; "
                f"give a rank of 1 to {bound}"
            )
        return {mode: (size, self.rank) for mode, size in sizes.items()}

    def core_of(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> str | None:
        """Return None: component k of one mode meets component k of the others."""
        del tensor, names

    def core_constraints(self, tensor: str, names: Mapping[str, tuple[str, ...]]) -> tuple[AbstractConstraint, ...]:
        """Return none, as there are no cores."""
        del tensor, names
        return ()

    def scale_plan(
        self, names: Mapping[str, tuple[str, ...]], rules: Mapping[str, ModeConstraints], scale: str | None = None
    ) -> ScalePlan:
        """Return who carries the scale; see the base class."""
        fixed = {mode: rule.fixed_columns for mode, rule in rules.items()}
        linked = {mode for link in self.links for mode in link.modes}
        free = {mode: rule.scale_free and mode not in linked for mode, rule in rules.items()}
        seen = [own or (True,) * self.rank for own in components_seen(self.share, list(names), self.rank)]
        apart = self.share == FIND
        return plan_scale(list(names.values()), self.rank, fixed, free, self.scale or scale, seen, apart, linked)

    def linear_in(self, tensor: Tensor) -> str:
        """Return the first mode."""
        return tensor.modes[0]

    def constraints_for(self, mode: str) -> tuple[AbstractConstraint, ...]:
        """Return the constraints that every mode has and those given for this one."""
        given = self.constraints.get(mode, ())
        common = tuple(
            c for c in self.everywhere if not any(type(g) is type(c) and g.components is None for g in given)
        )
        return (*common, *given)

    def normal_equations(self, tensor: Tensor, factors: Factors, mode: str) -> NormalEquations:
        """Return Gram products and MTTKRP; see the base class."""
        axis = tensor.modes.index(mode)
        own = tensor.own(factors)
        row, onto = tensor.rows[axis], tensor.rows
        # Weights that are a product of vectors go onto the factors, so that the data are read as they lie in memory.
        # Compressed data hold the other half of them.
        if tensor.bases is not None:
            onto = tuple(None if u is None else jnp.sqrt(u) for u in tensor.rows)
        scaled = [f if u is None else f * u.astype(f.dtype)[:, None] for f, u in zip(own, onto, strict=True)]
        if tensor.bases is None:
            right = contract.mttkrp(tensor.blocks, scaled, axis, tensor.contracted)
        else:
            right = lowrank.mttkrp(tensor.blocks[0], tensor.bases, scaled, axis)
        # A scale or a weight rounded to float32 would bias every entry the same way, and with it the objective.
        right = right.astype(jnp.float64) * tensor.scale * tensor.weight
        if tensor.dense is None:
            gram = contract.gram(own, axis, tensor.rows)
        else:
            halves = [
                f if u is None else f * jnp.sqrt(u).astype(f.dtype)[:, None]
                for f, u in zip(own, tensor.rows, strict=True)
            ]
            gram = contract.weighted_gram(tensor.dense, halves, axis)
        shared, outer = None, onto[axis]
        if row is not None and outer is not None:
            right = right * outer[:, None]
            shared = None if gram.ndim == 3 else (gram * tensor.weight, row)
            gram = gram * row.astype(gram.dtype)[:, None, None]
        return NormalEquations(gram * tensor.weight, right.astype(own[0].dtype), shared)

    @property
    def settles_quickly(self) -> bool:
        """Whether few sweeps on all data are enough: they are."""
        return True

    def contracts_first(self, tensor: Tensor) -> bool:
        """Return that they do."""
        return tensor.core is None

    def compressible_axes(self, tensor: Tensor) -> tuple[bool, ...]:
        """Return that all may."""
        return (True,) * len(tensor.modes)

    def reconstruct(self, tensor: Tensor, factors: Factors) -> Float[Array, "..."]:
        """Return the sum over components of the outer products."""
        return contract.reconstruct(tensor.own(factors))

    def squared_residual(self, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
        """Return the weighted sum of squared residuals; see the base class."""
        if tensor.bases is not None:
            return squares_from_equations(self, tensor, factors)
        own = tensor.own(factors)
        return contract.squared_residual(tensor.blocks, own, tensor.scale, tensor.rows, tensor.dense)

    def tangent_product(
        self, tensor: Tensor, own: Sequence[Float[Array, "size rank"]], tangents: Sequence[Float[Array, "size rank"]]
    ) -> list[Float[Array, "size rank"]]:
        """Return the Gauss-Newton product by Gram matrices; see the base class."""
        return [item * tensor.weight for item in contract.tangent_product(own, tangents, tensor.rows)]


def NMF(
    rank: int,
    constraints: Mapping[str, Any] | None = None,
    scale: str | None = None,
    share: Mapping[str, Sequence[int]] | str | None = None,
    operators: Mapping[tuple[str, str], AbstractOperator | Sequence[AbstractOperator]] | None = None,
    *,
    links: Sequence[Link] = (),
) -> CP:
    """Return `CP` with `NonNegative` on every mode, the given constraints added.

    Parameters
    ----------
    rank
        Number of components.
    constraints
        One constraint or a list for each mode that has more than non-negativity.
    scale
        The mode that carries the amplitudes; see `CP`.
    share
        Which components a tensor has; see `CP`.
    operators
        What stands between a factor and a tensor; see `CP`.
    links
        Pairs of modes whose factors are softly equal; see `CP`.

    Returns
    -------
    CP
        The model.

    Raises
    ------
    RankOutOfRange
        When the rank is not a whole number of one or more.
    InvalidArgument
        When something given as a constraint is none.

    References
    ----------
    Lee and Seung, Nature 401 (1999) 788, doi:10.1038/44565.

    Examples
    --------
    >>> NMF(3).constraints_for("energy_loss")
    (NonNegative(),)
    """
    return CP(rank, constraints, scale, share, operators, links=as_links(links), everywhere=(NonNegative(),))
