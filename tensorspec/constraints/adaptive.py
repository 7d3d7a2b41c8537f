"""Soft orthogonality with an adaptive strength, as it was published."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import AbstractConstraint, Assumption, Separability, component_field, strength_field

__all__ = ["AdaptiveSoftOrthogonal"]


class AdaptiveSoftOrthogonal(AbstractConstraint, Assumption):
    """The rule that ``SoftOrthogonal(method="shiga2016")`` stands for; a solver of its own applies it.

    It adds nothing to the objective: the share by which a column is moved away from the others is a rule for its
    update, not a function that the update would minimise.

    Parameters
    ----------
    weight
        Share, 0 to 1, of the multiplier that would make the column orthogonal to the sum of the others.
    components
        None: it is for all of them.

    References
    ----------
    Shiga et al., Ultramicroscopy 170 (2016) 43, doi:10.1016/j.ultramic.2016.08.006.

    Examples
    --------
    >>> import numpy as np
    >>> float(AdaptiveSoftOrthogonal(0.1).value(np.ones((4, 2))))
    0.0
    """

    weight: Any = strength_field()
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    # Not 0, so that the columns are held at unit norm while they are updated, as the rule has it.
    degree: ClassVar[int | None] = 2

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: the rule belongs to no objective."""
        return jnp.zeros((), jnp.result_type(factor))

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: the rule forbids nothing."""
        return jnp.zeros((), jnp.result_type(factor))
