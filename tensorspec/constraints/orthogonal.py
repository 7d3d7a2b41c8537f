"""Components that share as little of a mode as possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from tensorspec.constraints.adaptive import AdaptiveSoftOrthogonal
from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractQuadraticPenalty,
    Assumption,
    ChecksPartners,
    Context,
    Quadratic,
    Resolvable,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import InvalidArgument

__all__ = ["SoftOrthogonal"]

# Measured: 0.03 times the relative noise lands within a factor 1.4 of the best strength from 500 to 100 000 counts.
_STRENGTH_PER_NOISE = 0.03
_PUBLISHED_WEIGHT = 0.1
_METHODS = ("penalty", "shiga2016")


def _as_method(value: Any) -> str:
    if value not in _METHODS:
        raise InvalidArgument(f"method={value!r}: expected 'penalty' or 'shiga2016'")
    return value


class SoftOrthogonal(AbstractQuadraticPenalty, Assumption, Resolvable, ChecksPartners):
    """A strength times the sum over pairs of components of their inner products.

    A prior: it assumes that the true maps hardly overlap.  It adds a constant to the off-diagonal entries of the Gram
    matrix, so every solver takes it at no cost and the objective stays fixed.  Needs `NonNegative` on the same mode.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved; ``"auto"`` takes 0.03 times the noise standard deviation over
        the root mean square of the data.  Above 0.1 a component is deformed to dodge the penalty.  With
        ``method="shiga2016"`` the weight w of the published rule, 0 to 1; 0.1 by default.
    method
        ``"penalty"``, or ``"shiga2016"``: the published rule with its adaptive strength.
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        When the method has another name, or its weight is above one.

    Notes
    -----
    The published rule moves every map, before it is clipped and brought to unit norm, by a share w of what would make
    it orthogonal to the sum of the others.  No function is minimised by that.  The objective and the history of such a
    fit are the misfit alone and may rise from sweep to sweep; it ends when the misfit changes by less than `tol`, up or
    down, in three consecutive sweeps, and returns the last sweep: the lowest misfit on the way belongs to maps that
    are not yet orthogonal.  The spectra carry the amplitudes.  One tensor of two modes, `NonNegative` on both, no gaps.

    References
    ----------
    The idea, and the published rule: Shiga et al., Ultramicroscopy 170 (2016) 43,
    doi:10.1016/j.ultramic.2016.08.006; the penalty is a form of it with a fixed objective.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(SoftOrthogonal(0.1).value(np.array([[1.0, 2.0], [0.0, 3.0]]))), 6)
    0.2
    """

    strength: Any = strength_field(default="auto")
    method: str = eqx.field(default="penalty", converter=_as_method, static=True)
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ROW
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 2

    def __check_init__(self) -> None:
        """Refuse a weight of the published rule beyond that of orthogonal maps."""
        if self.method == "shiga2016" and isinstance(self.strength, float) and self.strength > 1:
            raise InvalidArgument(
                f"SoftOrthogonal({self.strength!r}, method='shiga2016'): expected a weight of 0 to 1, for example 0.1"
            )

    def resolve(self, context: Context) -> SoftOrthogonal | AdaptiveSoftOrthogonal:
        """Return the penalty with its automatic strength settled, or the published rule."""
        if self.method == "shiga2016":
            return AdaptiveSoftOrthogonal(_PUBLISHED_WEIGHT if isinstance(self.strength, str) else self.strength)
        if not isinstance(self.strength, str):
            return self
        return dataclasses.replace(self, strength=_STRENGTH_PER_NOISE * context.noise_level)

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse to stand without non-negativity: signed columns would make the penalty reward anti-correlation."""
        if self.method == "shiga2016" and self.components is not None:
            return "SoftOrthogonal(method='shiga2016') is a rule for all components; leave out components="
        covered = [other for other in others if isinstance(other, NonNegative)]
        mine = self.components
        for other in covered:
            if other.components is None or (mine is not None and set(mine) <= set(other.components)):
                return None
        return "SoftOrthogonal needs NonNegative() on the same mode (and components); add it to the list"

    def quadratic(self, size: int, columns: int) -> Quadratic:
        """Return the constant that is added to every off-diagonal entry of the Gram matrix."""
        del size
        if isinstance(self.strength, str):
            raise InvalidArgument("SoftOrthogonal(strength='auto') has to be resolved first; fit does that")
        return Quadratic(self.strength * (jnp.ones((columns, columns)) - jnp.eye(columns)))
