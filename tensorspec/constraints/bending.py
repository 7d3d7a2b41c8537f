"""The bending energy of a grid, and the values that bend less: what `Smooth` knows of its mode."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from math import prod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from tensorspec.algebra.pentadiagonal import solve_pentadiagonal
from tensorspec.constraints.base import Context
from tensorspec.constraints.grid import grid_steps, mean_step

__all__ = ["AbstractBending", "bending_of"]

# Eigenvectors whose eigenvalue is below this share of the largest are found again from the differences themselves.
_LOW = 1e-6
# A single axis with more points than this gets no full set of eigenvectors, as these take the cube of the points: those
# below this share of the largest eigenvalue, and a banded system for the rest, in which a larger product of strength
# and largest eigenvalue than this makes no difference that could be seen, but would drown the unit matrix in rounding.
_LONG, _SMOOTHEST, _STRONGEST = 1024, 1e-5, 1e14
# Iterations that find them, and how many more vectors take part; with ratios as (1 / 1.5)**4 all digits are there.
_ITERATIONS, _MORE = 25, 1.5


class AbstractBending(eqx.Module):
    """The sum of squared second divided differences times the area of a point."""

    steps: eqx.AbstractVar[tuple[Any, ...]]  # of each axis, (size - 1,)
    spacing: eqx.AbstractVar[tuple[Any, ...]]  # of each axis, the mean step

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""

    @abc.abstractmethod
    def smoothed(self, values: Float[Array, "size columns"], size: Any) -> Float[Array, "size columns"]:
        """Return ``argmin_A size/2 energy(A) + |A - values|^2 / 2``; `size` is a number, or one a column."""

    def energy(self, values: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the energy, over all columns."""
        grid = values.reshape(*self.shape, -1)
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


class _Modes(AbstractBending):
    """The bending energy in the basis of the eigenvectors of each axis."""

    steps: tuple[Any, ...]
    spacing: tuple[Any, ...]
    vectors: tuple[Any, ...]  # of each axis, (size, size)
    eigenvalues: Any  # of the shape of the grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return self.eigenvalues.shape

    def smoothed(self, values: Float[Array, "size columns"], size: Any) -> Float[Array, "size columns"]:
        """Return the values with every eigenvector shrunk by its own factor."""
        shrunk = self._transform(values, back=False) / (1 + size * jnp.asarray(self.eigenvalues).reshape(-1, 1))
        return self._transform(shrunk, back=True)

    def _transform(self, values: Array, back: bool) -> Array:
        result = values.reshape(*self.shape, -1)
        for axis, vectors in enumerate(self.vectors):
            result = jnp.moveaxis(jnp.tensordot(vectors, result, axes=(1 if back else 0, axis)), 0, axis)
        return result.reshape(values.shape)


class _LongAxis(AbstractBending):
    """The bending energy along one long axis: its smoothest eigenvectors, and its five diagonals for all others.

    A banded system alone would lose what bends least: the smallest eigenvalues are below the rounding of the largest.
    """

    steps: tuple[Any, ...]
    spacing: tuple[Any, ...]
    diagonals: tuple[Any, ...]  # the main one, and two above
    smoothest: Any  # (size, some)
    eigenvalues: Any  # (some,)
    largest: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along the axis."""
        return (len(self.diagonals[0]),)

    def smoothed(self, values: Float[Array, "size columns"], size: Any) -> Float[Array, "size columns"]:
        """Return the values with the smoothest eigenvectors shrunk each by its own factor, and the rest solved for."""
        basis = jnp.asarray(self.smoothest)
        size = jnp.reshape(jnp.asarray(size, values.dtype), (1, -1))
        share = basis.T @ values
        kept = share / (1 + size * jnp.asarray(self.eigenvalues)[:, None])
        bounded = jnp.minimum(size, _STRONGEST / self.largest)
        main, first, second = (jnp.asarray(item)[:, None] for item in self.diagonals)
        rest = solve_pentadiagonal(1 + bounded * main, bounded * first, bounded * second, values - basis @ share)
        return basis @ (kept - basis.T @ rest) + rest


def bending_of(context: Context) -> AbstractBending:
    """Return the bending energy of a mode's grid.

    Raises
    ------
    InvalidData
        When a coordinate neither rises nor falls.
    """
    steps = grid_steps(context, "Smooth")
    spacing = tuple(mean_step(item) for item in steps)
    # In single precision the banded system has too few digits.
    if len(steps) == 1 and context.size > _LONG and jnp.result_type(float) == jnp.float64:
        found = _long_axis(steps[0])
        if found is not None:
            return found
    total = np.zeros(context.shape)
    vectors = []
    for axis, item in enumerate(steps):
        own, basis = _eigenvectors(item)
        others = prod(spacing) / spacing[axis]
        total += others * own.reshape([-1 if k == axis else 1 for k in range(len(steps))])
        vectors.append(basis)
    return _Modes(steps, spacing, tuple(vectors), total)


def _differences(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three diagonals of the second divided differences times the root of their weight."""
    root = np.sqrt(0.5 * (steps[1:] + steps[:-1]))
    before, after = 1 / steps[:-1] / root, 1 / steps[1:] / root
    return before, -before - after, after


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
    rows = np.arange(size - 2)
    for k, diagonal in enumerate(_differences(h)):
        differences[rows, rows + k] = diagonal
    eigenvalues, vectors = np.linalg.eigh(differences.T @ differences)
    low = max(2, int(np.sum(eigenvalues < _LOW * eigenvalues[-1])))
    smooth = _orthonormal(h, vectors[:, :low])
    if low > 2:
        # Of the lines and `low` eigenvectors, which nearly hold them, two directions are rounding: the most bent.
        curved = smooth[:, 2:]
        _, bend, turn = np.linalg.svd(differences @ curved, full_matrices=False)
        kept = slice(len(bend) - (low - 2), None)
        vectors[:, 2:low] = (curved @ turn.T)[:, kept][:, ::-1]
        eigenvalues[2:low] = np.square(bend[kept][::-1])
    vectors[:, :2], eigenvalues[:2] = smooth[:, :2], 0
    # What was put in is orthogonal to the rest up to rounding times the ratio of the eigenvalues: now to all digits.
    return eigenvalues / scale**3, np.linalg.qr(vectors)[0]


def _orthonormal(steps: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of lines, which are its first two vectors, and of others."""
    place = np.concatenate([[0.0], np.cumsum(steps)])
    lines = np.stack([np.ones(len(place)), place - place.mean()], axis=1)
    return np.linalg.qr(np.concatenate([lines, vectors], axis=1))[0]


def _long_axis(steps: np.ndarray) -> _LongAxis | None:
    """Return the energy along a long axis, or None where uneven steps make too many eigenvectors smooth ones."""
    size, scale = len(steps) + 1, float(steps.mean())
    h = steps / scale
    before, middle, after = _differences(h)
    main = np.zeros(size)
    for k, diagonal in enumerate((before, middle, after)):
        main[k : size - 2 + k] += diagonal**2
    first = np.zeros(size - 1)
    first[:-1] += before * middle
    first[1:] += middle * after
    second = before * after
    banded = np.zeros((3, size))
    banded[2], banded[1, 1:], banded[0, 2:] = main, first, second
    largest = float(np.max(np.abs(main) + 2 * np.pad(np.abs(first), (0, 1)) + 2 * np.pad(np.abs(second), (0, 2))))
    few = _number_below(main, first, second, _SMOOTHEST * largest)
    count = int(_MORE * few) + 8
    if count > size // 4:
        return None
    banded[2] += 1e-13 * largest
    factor = scipy.linalg.cholesky_banded(banded)
    vectors = np.cos(np.pi * np.outer(np.arange(size) + 0.5, np.arange(count)) / size)
    for _ in range(_ITERATIONS):
        vectors = np.linalg.qr(scipy.linalg.cho_solve_banded((factor, False), vectors, check_finite=False))[0]
    # Lines are put in as they are; the first two vectors nearly are lines.
    vectors = _orthonormal(h, vectors[:, 2:])
    lines, curved = vectors[:, :2], vectors[:, 2:]
    bent = before[:, None] * curved[:-2] + middle[:, None] * curved[1:-1] + after[:, None] * curved[2:]
    _, bend, turn = np.linalg.svd(bent, full_matrices=False)
    kept = slice(len(bend) - (few - 2), None)
    basis = np.concatenate([lines, (curved @ turn.T)[:, kept]], axis=1)
    eigenvalues = np.concatenate([np.zeros(2), np.square(bend[kept])])
    diagonals = tuple(item / scale**3 for item in (main, first, second))
    return _LongAxis((steps,), (scale,), diagonals, basis, eigenvalues / scale**3, largest / scale**3)


def _number_below(main: np.ndarray, first: np.ndarray, second: np.ndarray, level: float) -> int:
    """Return how many eigenvalues of a matrix of five diagonals lie below a level, by the signs of its pivots."""
    count, one, two = 0, (1.0, 0.0, 0.0), (1.0, 0.0, 0.0)  # the last two pivots, with what they pass on
    for here, beside, beyond in zip(main - level, np.append(first, 0), np.append(second, [0, 0]), strict=True):
        pivot = here - one[1] ** 2 / one[0] - two[2] ** 2 / two[0]
        count += pivot < 0
        one, two = (pivot, beside - one[1] * one[2] / one[0], beyond), one
    return int(count)
