"""PARAFAC2: spectra that shift or change their shape from sample to sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import NearSameCrossProduct, SameCrossProduct
from tensorspec.coupling.chain import as_operators
from tensorspec.coupling.links import Link, as_links
from tensorspec.coupling.operators import AbstractOperator
from tensorspec.coupling.sharing import as_share
from tensorspec.errors import InvalidArgument
from tensorspec.models.base import AbstractModel, as_constraints
from tensorspec.models.cp import CP, as_rank
from tensorspec.problem import Factors, Tensor
from tensorspec.scale import ScalePlan

__all__ = ["PARAFAC2"]

# Of the penalty that stands for the constraint where the profiles have constraints of their own.
DEFAULT_STRENGTH = 1.0
_JOINT = "samples and profiles"


def _as_mode(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{value!r}: expected the name of a mode, for example evolving='energy_loss'")
    return value


def _as_strength(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        raise InvalidArgument(f"strength={value!r}: expected a number above zero, or None for the exact constraint")
    return float(value)


class PARAFAC2(AbstractModel):
    """A sum of `rank` components whose profile on one mode may differ in every sample.

    With samples k along the mode `along`, the model of a sample is ``X_k = A diag(c_k) B_k^T``: the maps A are the
    same for all samples, ``c_k`` says how strong each component is, and its profiles ``B_k`` on the mode `evolving` may
    shift and change their shape (energy drift, a chemical shift).  Only the cross-products ``B_k^T B_k`` are the same
    for all samples: how much the profiles of two components overlap does not change.  That is what makes the answer
    unique.  It holds for profiles that shift together, and for ones that do not overlap; a drift that is the same in
    all pixels and known is better corrected with an operator such as `Shift`.

    Minimised is, as with any model, the sum of half the squared residuals and the penalties.  Without a constraint
    on `evolving` the cross-products are exactly the same.  With constraints there, such as `NonNegative`, these hold
    exactly and the penalty

        ``strength / (2 K) * min sum_k |B_k - P_k D|^2``   over D and all P_k with orthonormal columns

    with K samples keeps the profiles close to ones with the same cross-product; the evolving mode then carries the
    amplitudes.  ``fit.provenance["violations"]`` says how far the cross-products differ from their mean.

    Parameters
    ----------
    rank
        Number of components; no more than the points of `evolving`.
    constraints
        One constraint or a list for each mode that has any.  On `evolving`: those that treat every entry by itself
        (`NonNegative`, `Sparse`, `Box`).
    evolving
        The mode on which the profiles differ; its factor has the dimensions of `along` and its own.
    along
        The mode of the samples.
    strength
        Strength of the penalty: with 1 a departure from equal cross-products costs as much as the same departure from
        the data of an average sample.  None: the exact constraint without constraints on `evolving`, 1 with.
    scale
        The mode that carries the amplitudes; by default that of `CP`, or `evolving` with the penalty.
    share, operators, links
        As of `CP`, for other tensors; a tensor without the mode `evolving` is fitted by `CP`.

    Raises
    ------
    RankOutOfRange
        When the rank is not a whole number of one or more.
    InvalidArgument
        When something given as a constraint is none, or `evolving` and `along` are the same.

    References
    ----------
    Harshman, UCLA Working Papers in Phonetics 22 (1972) 30; Kiers, ten Berge and Bro, Journal of Chemometrics 13 (1999)
    275, doi:10.1002/(SICI)1099-128X(199905/06)13:3/4<275::AID-CEM543>3.0.CO;2-B; with constraints on the profiles:
    Cohen and Bro, LVA/ICA (2018) 89, doi:10.1007/978-3-319-93764-9_9; Roald and others, SIAM Journal on Mathematics of
    Data Science 4 (2022) 1191, doi:10.1137/21M1450033.

    Examples
    --------
    >>> from tensorspec.constraints.nonnegative import NonNegative
    >>> PARAFAC2(3, {"pixel": NonNegative(), "time": NonNegative()}).constraints_for("energy_loss")
    (SameCrossProduct(),)
    """

    rank: int = eqx.field(converter=as_rank, static=True)
    constraints: Mapping[str, tuple[AbstractConstraint, ...]] = eqx.field(converter=as_constraints, default=None)
    evolving: str = eqx.field(default="energy_loss", converter=_as_mode, static=True, kw_only=True)
    along: str = eqx.field(default="time", converter=_as_mode, static=True, kw_only=True)
    strength: float | None = eqx.field(default=None, converter=_as_strength, static=True, kw_only=True)
    scale: str | None = eqx.field(default=None, static=True, kw_only=True)
    share: Mapping[str, tuple[int, ...]] | str | None = eqx.field(converter=as_share, default=None, kw_only=True)
    operators: Mapping[tuple[str, str], AbstractOperator] = eqx.field(
        converter=as_operators, default=None, kw_only=True
    )
    links: tuple[Link, ...] = eqx.field(converter=as_links, default=(), kw_only=True)

    def __check_init__(self) -> None:
        """Refuse one mode in both places."""
        if self.evolving == self.along:
            raise InvalidArgument(
                f"evolving={self.evolving!r} and along={self.along!r} are the same mode; name the mode on which the "
                "profiles differ, and the mode of the samples"
            )

    @property
    def numbers_components(self) -> bool:
        """Whether tensors are given their components."""
        return self.share is not None and not isinstance(self.share, str)

    def shapes(self, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return the size of every mode with the rank, where that of the evolving one has the points of all samples."""
        return CP(self.rank).shapes(names, sizes)

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
        """Return the plan of CP; profiles that a penalty holds carry the amplitudes, and they come before strengths."""
        if scale is None and not rules[self.evolving].scale_free:
            scale = self.evolving
        last = {self.evolving: 1, self.along: 2}
        ordered = {key: tuple(sorted(own, key=lambda mode: last.get(mode, 0))) for key, own in names.items()}
        plain = CP(self.rank, scale=self.scale, share=self.share, links=self.links)
        return plain.scale_plan(ordered, rules, scale)

    def linear_in(self, tensor: Tensor) -> str:
        """Return a mode that is the same in all samples."""
        return next(mode for mode in tensor.modes if mode not in (self.evolving, self.along))

    def constraints_for(self, mode: str) -> tuple[AbstractConstraint, ...]:
        """Return the constraints given for a mode, and on the evolving one what is said of the cross-products."""
        given = self.constraints.get(mode, ())
        if mode != self.evolving:
            return given
        if self.strength is None and not given:
            return (SameCrossProduct(),)
        return (*given, NearSameCrossProduct(DEFAULT_STRENGTH if self.strength is None else self.strength))

    def normal_equations(self, tensor: Tensor, factors: Factors, mode: str) -> NormalEquations:
        """Return those of CP for samples and profiles as one mode, and what they say of each of the two."""
        plain = CP(self.rank)
        if self.evolving not in tensor.modes:
            return plain.normal_equations(tensor, factors, mode)
        joint, inside = self._joined(tensor, factors)
        if mode not in (self.evolving, self.along):
            return plain.normal_equations(joint, inside, mode)
        gram, right, _ = plain.normal_equations(joint, inside, _JOINT)
        strengths, profiles = factors[self.along], self._apart(factors)
        gram = gram.astype(jnp.float64)
        gram = gram[None, None] if gram.ndim == 2 else gram.reshape(*profiles.shape, profiles.shape[-1])
        right = right.reshape(profiles.shape)
        if mode == self.along:
            products = _pairs(profiles)
            own = jnp.sum(gram * products, axis=1)
            total = jnp.sum(right.astype(jnp.float64) * profiles, axis=1)
            return NormalEquations(own, total.astype(strengths.dtype))
        own = gram * _pairs(strengths)[:, None]
        own = jnp.broadcast_to(own, (*profiles.shape, profiles.shape[-1]))
        right = right * strengths[:, None]
        return NormalEquations(own.reshape(-1, *own.shape[2:]), right.reshape(-1, right.shape[-1]))

    def reconstruct(self, tensor: Tensor, factors: Factors) -> Float[Array, "..."]:
        """Return the sum over components of the outer products, each sample with its own profiles."""
        plain = CP(self.rank)
        if self.evolving not in tensor.modes:
            return plain.reconstruct(tensor, factors)
        values = plain.reconstruct(*self._joined(tensor, factors))
        values = values.reshape(*values.shape[:-1], *self._apart(factors).shape[:2])
        order = (*self._rest(tensor.modes), self.along, self.evolving)
        return values.transpose([order.index(name) for name in tensor.modes])

    def squared_residual(self, tensor: Tensor, factors: Factors) -> Float[Array, ""]:
        """Return the weighted sum of squared residuals; see the base class."""
        plain = CP(self.rank)
        if self.evolving not in tensor.modes:
            return plain.squared_residual(tensor, factors)
        return plain.squared_residual(*self._joined(tensor, factors))

    def _rest(self, modes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(mode for mode in modes if mode not in (self.along, self.evolving))

    def _apart(self, factors: Factors) -> Float[Array, "samples size rank"]:
        """Return the profiles of every sample."""
        return factors[self.evolving].reshape(len(factors[self.along]), -1, self.rank)

    def _joined(self, tensor: Tensor, factors: Factors) -> tuple[Tensor, Factors]:
        """Return tensor and factors with samples and profiles as one mode, the last: there the model is CP."""
        rest, modes = self._rest(tensor.modes), tensor.modes
        order = [modes.index(name) for name in (*rest, self.along, self.evolving)]
        blocks, dense = tensor.blocks, tensor.dense
        if modes[0] not in rest:
            blocks = (jnp.concatenate(blocks),)
            dense = None if dense is None else (jnp.concatenate(dense),)

        def joined(block: Array) -> Array:
            block = block.transpose(order)
            return block.reshape(*block.shape[:-2], -1)

        rows = [tensor.rows[k] for k in order]
        sizes = [len(factors[self.along]), len(factors[self.evolving]) // len(factors[self.along])]
        row = None
        if any(item is not None for item in rows[-2:]):
            first, second = (
                jnp.ones(n, jnp.float64) if u is None else u for n, u in zip(sizes, rows[-2:], strict=True)
            )
            row = (first[:, None] * second[None, :]).reshape(-1)
        operators = tensor.operators
        changed = dataclasses.replace(
            tensor,
            modes=(*rest, _JOINT),
            blocks=tuple(joined(block) for block in blocks),
            rows=(*rows[:-2], row),
            dense=None if dense is None else tuple(joined(block) for block in dense),
            operators=None if operators is None else (*(operators[k] for k in order[:-2]), None),
        )
        return changed, {**factors, _JOINT: _joint(factors[self.along], self._apart(factors))}


def _joint(strengths: Float[Array, "samples rank"], profiles: Float[Array, "samples size rank"]) -> Array:
    """Return the factor of samples and profiles as one mode."""
    return (strengths[:, None] * profiles).reshape(-1, strengths.shape[1])


def _pairs(factor: Float[Array, "... rank"]) -> Float[Array, "... rank rank"]:
    """Return the products of all pairs of columns, row by row."""
    factor = factor.astype(jnp.float64)
    return factor[..., :, None] * factor[..., None, :]
