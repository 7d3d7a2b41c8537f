"""Profiles that differ from sample to sample but have the same cross-product: what makes PARAFAC2 unique.

The factor holds the profiles of all samples one below the other; its grid is (samples, points).
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.cross_product import nearest_same_cross_product, relative_spread
from tensorspec.constraints.base import (
    AbstractHardConstraint,
    AbstractMajorisedPenalty,
    Quadratic,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.errors import InvalidArgument

__all__ = ["NearSameCrossProduct", "SameCrossProduct"]


def _apart(constraint: Any, factor: Array) -> Array:
    if constraint.samples is None:
        raise InvalidArgument(f"{type(constraint).__name__}: the number of samples is not settled; fit does that")
    # In float64, which is what the default float is in a fit.
    return jnp.asarray(factor, jnp.result_type(float)).reshape(constraint.samples, -1, factor.shape[-1])


class SameCrossProduct(AbstractHardConstraint):
    """Profiles ``B_k`` of the samples k with ``B_k^T B_k`` the same for every k.

    Whether it holds does not depend on the scale of the columns.  The set is not convex; the nearest point is that of
    the Bures-Wasserstein barycentre of the cross-products (see `tensorspec.algebra.cross_product`).

    Parameters
    ----------
    samples
        Number of samples; None until `fit` has settled it.

    References
    ----------
    Harshman, UCLA Working Papers in Phonetics 22 (1972) 30; Kiers, ten Berge and Bro, Journal of Chemometrics 13 (1999)
    275, doi:10.1002/(SICI)1099-128X(199905/06)13:3/4<275::AID-CEM543>3.0.CO;2-B.

    Examples
    --------
    >>> import numpy as np
    >>> profiles = np.array([[1.0], [0.0], [0.0], [3.0]])
    >>> (np.asarray(SameCrossProduct(2).project(profiles))[:, 0].round(5) + 0.0).tolist()
    [2.0, 0.0, 0.0, 2.0]
    """

    samples: int | None = eqx.field(default=None, static=True)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 0

    def project(self, values: Float[Array, "size columns"], column: Any = None) -> Float[Array, "size columns"]:
        """Return the nearest profiles that have the same cross-product in every sample."""
        del column
        values = jnp.asarray(values)
        found = nearest_same_cross_product(_apart(self, values))
        return found.reshape(values.shape).astype(values.dtype)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far a cross-product is from the mean, relative to its diagonal."""
        return relative_spread(_apart(self, factor))


class NearSameCrossProduct(AbstractMajorisedPenalty):
    """``strength / (2 K)`` times the squared distance of the profiles from ones with the same cross-product.

    With K samples, ``strength / (2 K) * min sum_k |B_k - P_k D|^2`` over all ``D`` and all ``P_k`` with orthonormal
    columns.  For fixed ``P_k`` and ``D`` it is a quadratic above the penalty that touches it, so every solver takes it,
    beside non-negativity too, and the objective falls at every sweep.  Where the profiles carry the amplitudes, the
    other columns having unit norm, a departure costs `strength` times what the same departure from the data costs in
    an average sample.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved.
    samples
        Number of samples; None until `fit` has settled it.

    References
    ----------
    Cohen and Bro, in Latent Variable Analysis and Signal Separation (2018) 89, doi:10.1007/978-3-319-93764-9_9.

    Examples
    --------
    >>> import numpy as np
    >>> profiles = np.array([[1.0], [0.0], [0.0], [3.0]])
    >>> round(float(NearSameCrossProduct(2.0, 2).value(profiles)), 5)
    1.0
    """

    strength: Any = strength_field(automatic=False)
    samples: int | None = eqx.field(default=None, static=True)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 2

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the penalty."""
        profiles = _apart(self, factor)
        # At the nearest profiles the distance does not change with these, so that its derivative is that for them held.
        nearest = nearest_same_cross_product(jax.lax.stop_gradient(profiles))
        distance = jnp.sum(jnp.square(profiles - nearest))
        return self.strength / (2 * profiles.shape[0]) * distance

    def bound(self, factor: Float[Array, "size columns"]) -> Quadratic:
        """Return the quadratic for the nearest profiles that have the same cross-product."""
        profiles = _apart(self, factor)
        nearest = nearest_same_cross_product(profiles).reshape(factor.shape)
        weight = self.strength / profiles.shape[0]
        return Quadratic(
            weight * jnp.eye(factor.shape[-1]), weight * nearest, 0.5 * weight * jnp.sum(jnp.square(nearest))
        )

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far a cross-product is from the mean, relative to its diagonal."""
        return relative_spread(_apart(self, factor))
