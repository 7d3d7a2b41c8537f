"""Columns that bend as little as the data allow."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractPenalty,
    Context,
    Resolvable,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.constraints.bending import AbstractBending, bending_of
from tensorspec.constraints.grid import plain_grid

__all__ = ["Smooth"]


class Smooth(AbstractPenalty, Resolvable):
    """Half a strength times the bending energy of every column: its squared second derivative, with free ends.

    In one dimension it is the integral of the squared second derivative over the coordinate.  The derivative at a point
    is the second divided difference of it and its two neighbours, and its weight is the mean of the two steps; the two
    ends have none, so nothing pulls them, and straight lines cost nothing.  On a grid of several axes, such as the
    pixels of a map, the energies along all axes are added up, the weight being that step times the mean steps of the
    other axes.  So the value does not depend on how finely a function is sampled; coordinates that are missing count
    as steps of one.

    Parameters
    ----------
    strength
        Weight in the objective of the problem as solved: the data divided by their root mean square, or the data
        themselves with ``rescale=False``.  Its unit is that of the coordinate to the third power (for maps, squared).
        As a measure: a ripple of period p in a spectrum of unit curvature is halved at
        ``strength = (p / 2 pi)**4 / step``.
    components
        Components it acts on, counted from 1; all of them by default.
    bending
        What the penalty has to know of the grid, which `fit` settles; not to be given.

    Raises
    ------
    InvalidArgument
        When the strength is not a number of zero or more.
    InvalidData
        By `fit`, when a coordinate of the mode neither rises nor falls.

    Notes
    -----
    On a mode of unit norm the penalty acts on the shape of a column, whose entries shrink when the mode is sampled more
    finely.  Together with bounds such as `NonNegative` it needs a solver that splits (AO-ADMM), as clipping the smooth
    solution does not give the smooth non-negative one.

    On a map there is no mixed derivative, so this is not the thin-plate energy, and a saddle ``x y`` costs nothing
    either.  In return the proximal map is exact and quick: the operators along the axes have common eigenvectors, the
    products of theirs, and with the mixed derivative they would have none.  It costs one product with the
    eigenvectors of each axis and back.  Along a single long axis, such as 2048 channels, the smoothest eigenvectors
    alone are made, and the rest is one system with five diagonals.

    Points that were never measured are filled in by the penalty while the fit runs; `fit` reports them as NaN.

    References
    ----------
    Eilers, Analytical Chemistry 75 (2003) 3631, doi:10.1021/ac034173t; Green and Silverman, Nonparametric Regression
    and Generalized Linear Models, 1993, doi:10.1201/b15710.

    Examples
    --------
    >>> import numpy as np
    >>> Smooth(1.0).value(np.array([[0.0], [1.0], [0.0]])).tolist()
    2.0
    >>> line = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> np.round(Smooth(1e3).prox(line, step=1.0), 5).ravel().tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    bending: Any = eqx.field(default=None, repr=False, kw_only=True)
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 2

    def resolve(self, context: Context) -> "Smooth":
        """Return the penalty with what it has to know of the mode's grid."""
        return Smooth(self.strength, components=self.components, bending=bending_of(context))

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the smoothing spline of the values."""
        del column
        values = jnp.asarray(values)
        wide = values.reshape(values.shape[0], -1).astype(jnp.result_type(float))
        smooth = self._on(values.shape[0]).smoothed(wide, self.strength * step)
        return smooth.reshape(values.shape).astype(values.dtype)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return half the strength times the bending energy."""
        return 0.5 * self.strength * self._on(factor.shape[0]).energy(jnp.asarray(factor))

    def _on(self, size: int) -> AbstractBending:
        return bending_of(plain_grid(size)) if self.bending is None else self.bending
