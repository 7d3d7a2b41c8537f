"""The profiles of PARAFAC2 without constraints of their own, fitted directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.cross_product import common_root, polar
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import SameCrossProduct
from tensorspec.errors import InvalidArgument
from tensorspec.solvers.base import AbstractSolver, Block

__all__ = ["DirectFitting"]


class DirectFitting(AbstractSolver):
    """Profiles ``B_k = P_k D`` with orthonormal ``P_k``, in turn the best ``P_k`` and the best ``D``.

    Takes profiles with the same cross-product in every sample (`SameCrossProduct`) and nothing else.  The best ``P_k``
    are polar factors, the best ``D`` is a least-squares solution; neither step raises the objective, and the
    cross-products are the same after every step.  Where entries have weights or are missing, the steps are taken for a
    bound of the objective that touches it at the present profiles.

    Parameters
    ----------
    inner
        Steps for each product with the data.
    extrapolate
        Whether sweeps are extrapolated, with a restart where the objective would rise.

    Raises
    ------
    InvalidArgument
        When `inner` is not one or more.

    References
    ----------
    Kiers, ten Berge and Bro, Journal of Chemometrics 13 (1999) 275,
    doi:10.1002/(SICI)1099-128X(199905/06)13:3/4<275::AID-CEM543>3.0.CO;2-B.

    Examples
    --------
    >>> DirectFitting(inner=1)
    DirectFitting(inner=1)
    """

    inner: int = eqx.field(default=5, static=True)
    extrapolate: bool = eqx.field(default=True, static=True)
    least_squares: ClassVar[bool] = True
    divergences: ClassVar[bool] = False

    def __check_init__(self) -> None:
        """Refuse a number of steps below one."""
        if self.inner < 1:
            raise InvalidArgument(f"DirectFitting(inner={self.inner}): expected 1 or more steps")

    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why a mode cannot be updated; see the base class."""
        del per_row
        if [type(item) for item in constraints.members] != [SameCrossProduct]:
            return "it is for profiles with the same cross-product in every sample and nothing else"
        if any(held):
            return "it leaves the norm of the columns free"
        return None

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return nothing: no state is kept."""
        del factors, constraints
        return ()

    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Improve the profiles of every mode of the block."""
        return [
            self._improved(equations, factor, rules)
            for equations, factor, rules in zip(block.equations, block.factors, block.constraints, strict=True)
        ], state

    def _improved(self, equations: Any, factor: Array, rules: ModeConstraints) -> Array:
        assert isinstance(equations, NormalEquations)
        (same,) = rules.members
        assert isinstance(same, SameCrossProduct)
        assert same.samples is not None
        rank = factor.shape[1]
        right = equations.right.astype(jnp.float64).reshape(same.samples, -1, rank)
        gram = jnp.broadcast_to(equations.gram.astype(jnp.float64), (len(factor), rank, rank))
        gram = gram.reshape(*right.shape, rank)
        above = _above(gram)
        inverse = jnp.linalg.pinv(above.sum(axis=0), rtol=1e-12, hermitian=True)

        def once(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            profiles, root = carry
            # The bound of every sample is 1/2 tr(B above B^T) - <pull, B>.
            pull = right + jnp.einsum("kjr,krs->kjs", profiles, above) - jnp.einsum("kjr,kjrs->kjs", profiles, gram)
            bases = polar(jnp.einsum("kjr,tr->kjt", pull, root))
            root = jnp.einsum("kjt,kjr->tr", bases, pull) @ inverse
            return bases @ root, root

        profiles = factor.astype(jnp.float64).reshape(right.shape)
        profiles, _ = jax.lax.fori_loop(0, self.inner, once, (profiles, common_root(profiles)))
        return profiles.reshape(factor.shape).astype(factor.dtype)


def _above(gram: Float[Array, "samples size rank rank"]) -> Float[Array, "samples rank rank"]:
    """Return for every sample a matrix that is above the Gram matrices of all its rows, and equal where these are.

    It is a multiple of their sum; the multiple bounds the largest eigenvalue of the rows in its metric by trace and
    norm (Wolkowicz and Styan, doi:10.1016/0024-3795(80)90258-X).
    """
    rank = gram.shape[-1]
    total = gram.sum(axis=1)
    values, vectors = jnp.linalg.eigh(total)
    used = values > 1e-12 * jnp.max(values, axis=-1, keepdims=True)
    half = jnp.einsum("krs,ks,kts->krt", vectors, jnp.where(used, 1 / jnp.sqrt(jnp.where(used, values, 1)), 0), vectors)
    white = jnp.einsum("krs,kjst,ktu->kjru", half, gram, half)
    trace = jnp.trace(white, axis1=-2, axis2=-1)
    spread = jnp.maximum(jnp.sum(jnp.square(white), axis=(-2, -1)) - jnp.square(trace) / rank, 0)
    largest = trace / rank + jnp.sqrt(spread * (rank - 1) / rank)
    return jnp.max(largest, axis=1)[:, None, None] * total
