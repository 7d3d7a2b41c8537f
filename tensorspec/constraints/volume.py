"""Spectra that enclose the data as tightly as they can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractMajorisedPenalty,
    Assumption,
    ChecksPartners,
    Quadratic,
    Separability,
    component_field,
    overlap,
    strength_field,
)
from tensorspec.constraints.orthogonal import Orthogonal
from tensorspec.errors import InvalidArgument

__all__ = ["MinimumVolume"]


def _as_delta(value: Any) -> Any:
    if isinstance(value, (int, float, np.floating, np.integer)):
        if isinstance(value, bool) or not (np.isfinite(value) and value > 0):
            raise InvalidArgument(f"delta={value!r}: expected a finite number above zero")
        return float(value)
    return value  # an array that is being traced


class MinimumVolume(AbstractMajorisedPenalty, Assumption, ChecksPartners):
    r"""A strength times the logarithm of the volume that the columns span: :math:`\log\det(I + A^T A / \delta)`.

    A prior for spectra: among all that explain the data it takes those that lie closest together.  Where no pixel is
    pure, spectra from non-negativity alone are not unique, and the tightest ones are the true ones if the maps are
    spread widely enough.  Give it to the mode of the spectra, with `NonNegative`.

    A volume means something only where the scale of the columns is held.  On the mode that carries the amplitudes it
    acts on these: with ``SumToOne("component")`` on the pixels, the spectra carry them, and it is the volume of the
    simplex that the pixels lie in.  On every other mode the columns have unit norm, and it acts on their angles.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved.  Too much of it draws the spectra into the cloud of pixels.
    delta
        Squared length below which nothing is gained by a still flatter shape; in the units of the problem as solved,
        where data have a root mean square of one, and columns unit norm unless the mode carries the amplitudes.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        When the strength or `delta` is no such number.

    Notes
    -----
    Up to a constant this is ``strength * log det(A^T A + delta I)``.  It lies below its tangent in :math:`A^T A`, so
    every update of the mode uses the quadratic through the present factor,
    :math:`\mathrm{tr}(A (A_0^T A_0 + \delta I)^{-1} A^T)` times the strength, and the stated objective falls.

    References
    ----------
    Fu, Huang, Sidiropoulos and Ma, IEEE Signal Processing Magazine 36 (2019) 59, doi:10.1109/MSP.2018.2877582; Leplat,
    Ang and Gillis, ICASSP 2019, doi:10.1109/ICASSP.2019.8682280.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(MinimumVolume(2.0, delta=1.0).value(np.array([[1.0, 0.0], [0.0, 1.0]]))), 4)
    2.7726
    """

    strength: Any = strength_field()
    delta: Any = eqx.field(default=0.1, converter=_as_delta)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ROW
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 2

    def __check_init__(self) -> None:
        """Refuse an automatic strength: there is no rule for it."""
        if isinstance(self.strength, str):
            raise InvalidArgument(f"MinimumVolume(strength={self.strength!r}): expected a number; find it with ts.path")

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse orthonormal columns, whose volume is fixed, and a second one."""
        for other in others:
            if isinstance(other, Orthogonal) and overlap(self, other):
                return "MinimumVolume() says nothing beside Orthogonal(), which fixes the volume; drop one of them"
            if isinstance(other, MinimumVolume) and overlap(self, other):
                return "MinimumVolume() stands twice for the same components; add up the strengths"
        return None

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the strength times ``log det(I + A^T A / delta)``."""
        factor = jnp.asarray(factor)
        inside = jnp.eye(factor.shape[1], dtype=factor.dtype) + factor.T @ factor / self.delta
        return self.strength * jnp.linalg.slogdet(inside)[1]

    def bound(self, factor: Float[Array, "size columns"]) -> Quadratic:
        """Return the tangent of the logarithm at the factor, a quadratic of the columns."""
        own = factor.T @ factor
        inverse = jnp.linalg.inv(own + self.delta * jnp.eye(own.shape[0], dtype=own.dtype))
        gram = self.strength * (inverse + inverse.T)
        return Quadratic(gram, None, self.value(factor) - 0.5 * jnp.sum(gram * own))
