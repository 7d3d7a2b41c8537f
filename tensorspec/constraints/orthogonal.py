"""Components that are orthogonal on a mode, exactly or as far as the data allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

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

# Measured: 0.03 times the relative noise lands within a factor 1.4 of the best strength from 500 to 100 000 counts.
_STRENGTH_PER_NOISE = 0.03


class SoftOrthogonal(AbstractQuadraticPenalty, Assumption, Resolvable, ChecksPartners):
    """A strength times the sum over pairs of components of their inner products.

    A prior: it assumes that the true maps hardly overlap.  It adds a constant to the off-diagonal entries of the Gram
    matrix, so every solver takes it at no cost and the objective stays fixed.  Needs `NonNegative` on the same mode.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved; ``"auto"`` takes 0.03 times the noise standard deviation over
        the root mean square of the data.  Above 0.1 a component is deformed to dodge the penalty.
    components
        Components it acts on, counted from 1; all of them by default.

    References
    ----------
    The idea: Shiga et al., Ultramicroscopy 170 (2016) 43, doi:10.1016/j.ultramic.2016.08.006; here in a form with a
    fixed objective.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(SoftOrthogonal(0.1).value(np.array([[1.0, 2.0], [0.0, 3.0]]))), 6)
    0.2
    """

    strength: Any = strength_field(default="auto")
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.ROW
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 2

    def resolve(self, context: Context) -> SoftOrthogonal:
        """Return the penalty with its automatic strength settled."""
        if not isinstance(self.strength, str):
            return self
        return dataclasses.replace(self, strength=_STRENGTH_PER_NOISE * context.noise_level)

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse to stand without non-negativity: signed columns would make the penalty reward anti-correlation."""
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
    CP.  It stands beside penalties only: no other set of factors has a known nearest point in common with it.

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
