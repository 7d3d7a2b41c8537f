"""Columns that bend as little as the data allow."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
from math import prod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractPenalty,
    Context,
    Resolvable,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.constraints.grid import grid_steps, mean_step, plain_grid

__all__ = ["Smooth"]

# Eigenvectors whose eigenvalue is below this share of the largest are found again from the differences themselves.
_LOW = 1e-6


class _Bending(eqx.Module):
    """The bending energy of a grid, in the basis of the eigenvectors of each axis."""

    steps: tuple[Any, ...]  # of each axis, (size - 1,)
    spacing: tuple[Any, ...]  # of each axis, the mean step
    vectors: tuple[Any, ...]  # of each axis, (size, size)
    eigenvalues: Any  # of the shape of the grid

    def transform(self, values: Array, back: bool) -> Array:
        """Return columns ``(size, columns)`` in the basis of the eigenvectors, or back from it."""
        result = values.reshape(*self.eigenvalues.shape, -1)
        for axis, vectors in enumerate(self.vectors):
            result = jnp.moveaxis(jnp.tensordot(vectors, result, axes=(1 if back else 0, axis)), 0, axis)
        return result.reshape(values.shape)

    def energy(self, values: Array) -> Array:
        """Return the sum of squared second divided differences times the area of a point, over all columns."""
        grid = values.reshape(*self.eigenvalues.shape, -1)
        total = jnp.zeros((), values.dtype)
        for axis, steps in enumerate(self.steps):
            if len(steps) < 2:
                continue
            others = prod(item for k, item in enumerate(self.spacing) if k != axis)
            along = jnp.moveaxis(grid, axis, -1)
            width = 0.5 * (steps[1:] + steps[:-1])
            second = jnp.diff(jnp.diff(along, axis=-1) / steps, axis=-1) / width
            total = total + others * jnp.sum(jnp.square(second) * width)
        return total


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
        The eigenvectors of the grid, which `fit` settles; not to be given.

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
    eigenvectors of each axis and back.

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
        """Return the penalty with the eigenvectors of the mode's grid."""
        return Smooth(self.strength, components=self.components, bending=_bending(context))

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the smoothing spline of the values: every eigenvector shrunk by its own factor."""
        del column
        values = jnp.asarray(values)
        bending = self._on(values.shape[0])
        wide = values.reshape(values.shape[0], -1).astype(jnp.result_type(float))
        eigenvalues = jnp.asarray(bending.eigenvalues).reshape(-1, 1)
        shrunk = bending.transform(wide, back=False) / (1 + self.strength * step * eigenvalues)
        return bending.transform(shrunk, back=True).reshape(values.shape).astype(values.dtype)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return half the strength times the bending energy."""
        return 0.5 * self.strength * self._on(factor.shape[0]).energy(jnp.asarray(factor))

    def _on(self, size: int) -> _Bending:
        return _bending(plain_grid(size)) if self.bending is None else self.bending


def _bending(context: Context) -> _Bending:
    steps = grid_steps(context, "Smooth")
    spacing = tuple(mean_step(item) for item in steps)
    total = np.zeros(context.shape)
    vectors = []
    for axis, item in enumerate(steps):
        own, basis = _eigenvectors(item)
        others = prod(spacing) / spacing[axis]
        total += others * own.reshape([-1 if k == axis else 1 for k in range(len(steps))])
        vectors.append(basis)
    return _Bending(steps, spacing, tuple(vectors), total)


def _eigenvectors(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors of the bending energy along one axis.

    The smallest eigenvalues are far below the rounding of the largest, (number of points)**-4 of it.  So lines are put
    in as they are, and the smooth eigenvectors are the singular vectors of the differences in their span.
    """
    size = len(steps) + 1
    if size < 3:
        return np.zeros(size), np.eye(size)
    scale = float(steps.mean())  # of order one, so that no unit overflows
    h = steps / scale
    differences = np.zeros((size - 2, size))
    rows, width = np.arange(size - 2), 0.5 * (h[1:] + h[:-1])
    differences[rows, rows] = 1 / h[:-1]
    differences[rows, rows + 1] = -1 / h[:-1] - 1 / h[1:]
    differences[rows, rows + 2] = 1 / h[1:]
    differences /= np.sqrt(width)[:, None]
    eigenvalues, vectors = np.linalg.eigh(differences.T @ differences)
    low = max(2, int(np.sum(eigenvalues < _LOW * eigenvalues[-1])))
    place = np.concatenate([[0.0], np.cumsum(h)])
    lines = np.stack([np.ones(size), place - place.mean()], axis=1)
    smooth = np.linalg.qr(np.concatenate([lines, vectors[:, :low]], axis=1))[0]
    if low > 2:
        # The eigenvectors nearly hold the lines, so two of the directions are rounding: those that bend most.
        curved = smooth[:, 2:]
        _, bend, turn = np.linalg.svd(differences @ curved, full_matrices=False)
        kept = slice(len(bend) - (low - 2), None)
        vectors[:, 2:low] = (curved @ turn.T)[:, kept][:, ::-1]
        eigenvalues[2:low] = np.square(bend[kept][::-1])
    vectors[:, :2], eigenvalues[:2] = smooth[:, :2], 0
    # What was put in is orthogonal to the rest up to rounding times the ratio of the eigenvalues: now to all digits.
    return eigenvalues / scale**3, np.linalg.qr(vectors)[0]
