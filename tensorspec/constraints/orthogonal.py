"""Components that are orthogonal on a mode, exactly or as far as the data allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.adaptive import AdaptiveSoftOrthogonal
from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    AbstractQuadraticPenalty,
    Assumption,
    ChecksPartners,
    Context,
    Quadratic,
    Resolvable,
    Separability,
    component_field,
    overlap,
    strength_field,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.constraints.simplex import SumToOne
from tensorspec.errors import ConstraintConflict, InvalidArgument

__all__ = ["Orthogonal", "SoftOrthogonal"]

# Measured from 100 to 100 000 counts: 0.03 times the noise over the signal, in units where the data have a root mean
# square of one, and never so much that a component is deformed to dodge the penalty.
_STRENGTH_PER_NOISE, _STRONGEST = 0.03, 0.1
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
        Weight in the objective of the problem as solved; ``"auto"`` takes 0.03 s / (1 - s^2), with s the noise
        standard deviation over the root mean square of the data, and at most 0.1: above that a component is deformed
        to dodge the penalty.  Beside a likelihood all this is times the curvature of the misfit, which for counts is
        one over their mean.  With ``method="shiga2016"`` the weight w of the published rule, 0 to 1; 0.1 by default.
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
        if not np.isfinite(context.curvature):
            raise InvalidArgument(
                f"SoftOrthogonal() on mode {context.mode!r}: beside a likelihood of several tensors there is an "
                "automatic strength for the mode that carries the amplitudes alone; here give a number, in units of "
                "the log-likelihood"
            )
        # The less of the data is signal, the smaller are the amplitudes that the penalty acts on.
        signal = max(1 - context.noise_level**2, np.finfo(float).tiny)
        strength = min(_STRENGTH_PER_NOISE * context.noise_level / signal, _STRONGEST)
        return dataclasses.replace(self, strength=strength * context.curvature)

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


class Orthogonal(AbstractHardConstraint, ChecksPartners, Resolvable):
    """Columns of unit norm that are orthogonal to each other.

    It fixes the scale of its mode, so another mode carries the amplitudes.  The set is not convex; the projection is
    the polar factor.  With it on one mode and nothing else, a matrix is fitted as well as by its truncated singular
    value decomposition, though up to a rotation; with three modes or more the answer is unique as that of any other
    CP.  It stands beside penalties only: no other set of factors has a known nearest point in common with it.  Beside
    a penalty with a proximal map of its own, such as `Sparse`, the objective falls but may stop short of a minimum.

    Parameters
    ----------
    components
        Components it acts on, counted from 1; all of them by default.  The others are orthogonal to nothing.

    Raises
    ------
    ConstraintConflict
        When there are more components than points, when no other mode can carry the amplitudes, or beside a constraint
        that cannot hold at the same time.

    References
    ----------
    Schoenemann, Psychometrika 31 (1966) 1, doi:10.1007/BF02289451.

    Examples
    --------
    >>> import numpy as np
    >>> np.asarray(Orthogonal().project(np.array([[2.0, 0.0], [0.0, -3.0], [0.0, 0.0]]))).round(6).tolist()
    [[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]
    """

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.MATRIX
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = None

    def resolve(self, context: Context) -> Orthogonal:
        """Return the constraint as it is, once the mode is known to be large enough."""
        columns = context.rank if self.components is None else len(self.components)
        if columns > context.size:
            raise ConstraintConflict(
                f"{self!r} on mode {context.mode!r}: {columns} components cannot be orthogonal on {context.size} "
                "points; name fewer with components=[...], lower the rank, or use another mode"
            )
        if context.carries and columns == context.rank:
            raise ConstraintConflict(
                f"{self!r} on mode {context.mode!r}, which would have to carry the amplitudes: its columns have unit "
                "norm; leave the scale of another mode free, and let that one carry them (scale=None in the model)"
            )
        return self

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse every other set, and penalties that it leaves without a meaning, on the same components."""
        for other in others:
            if not overlap(self, other):
                continue
            if isinstance(other, NonNegative):
                return (
                    "Orthogonal() and NonNegative() together put every point into one component at most (hard "
                    "clustering), and the nearest such factor is not known; use SoftOrthogonal() with NonNegative(), "
                    "or drop one (CP instead of NMF adds no NonNegative)"
                )
            if isinstance(other, SumToOne):
                return (
                    "Orthogonal() fixes the norms of the columns, and SumToOne() fixes sums of the same entries; "
                    "drop one of them"
                )
            if isinstance(other, SoftOrthogonal):
                return "SoftOrthogonal() says nothing beside Orthogonal() on the same components; drop one of them"
            if isinstance(other, Orthogonal):
                return "Orthogonal() stands twice for the same components; drop one"
            if isinstance(other, AbstractHardConstraint):
                return (
                    f"Orthogonal() and {type(other).__name__}: the nearest factor that obeys both is not known; drop "
                    "one, or give them different components"
                )
        return None

    def project(self, values: Float[Array, "size columns"], column: Any = None) -> Float[Array, "size columns"]:
        """Return the polar factor, the nearest matrix with orthonormal columns."""
        del column
        left, _, right = jnp.linalg.svd(jnp.asarray(values), full_matrices=False)
        return left @ right

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return how far the worst inner product is from that of orthonormal columns."""
        return jnp.max(jnp.abs(factor.T @ factor - jnp.eye(factor.shape[1], dtype=factor.dtype)))
