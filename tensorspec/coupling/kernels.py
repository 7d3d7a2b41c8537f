"""Operators along the coordinates of a mode: broadened, shifted, read off at other points.

Every map leaves a constant a constant.
"""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.coupling.operators import AbstractOperator, Grid, Parametric
from tensorspec.errors import InvalidArgument, ModeMismatch

__all__ = ["AbstractKernel", "Broaden", "Resample", "Shift", "Stretch"]

FIT = "fit"


class AbstractKernel(AbstractOperator):
    """A map that is a matrix along each dimension of the mode, made from the coordinates inside and outside."""

    inside: eqx.AbstractVar[tuple[Array, ...] | None]
    outside: eqx.AbstractVar[tuple[Array, ...] | None]

    @abc.abstractmethod
    def matrix(self, inside: Float[Array, " size"], outside: Float[Array, " seen"]) -> Float[Array, "seen size"]:
        """Return the map along one dimension."""

    @abc.abstractmethod
    def started(self, inside: tuple[np.ndarray, ...]) -> "AbstractKernel":
        """Return the operator with a first value of what is fitted."""

    def settle(self, inside: Grid, outside: Grid) -> AbstractOperator:
        """Return the operator with the coordinates settled; see the base class."""
        name = type(self).__name__
        axes = []
        for fine, coarse, n, m, unit, other in zip(
            inside.coordinates,
            outside.coordinates,
            inside.shape,
            outside.shape,
            inside.units,
            outside.units,
            strict=True,
        ):
            if unit is not None and other is not None and unit != other:
                raise ModeMismatch(
                    f"{name}: mode {inside.mode!r} is in {unit!r} for one tensor and in {other!r} for another; convert"
                )
            if (fine is None or coarse is None) and n != m:
                raise ModeMismatch(
                    f"{name}: mode {inside.mode!r} has {n} points for one tensor and {m} for another, and no "
                    "coordinates to say where they lie; give both coordinates"
                )
            known = fine is not None and coarse is not None
            axes.append((fine, coarse) if known else (np.arange(float(n)), np.arange(float(m))))
        for fine, coarse in axes:
            steps = np.diff(fine)
            if fine.size < 3 or not ((steps > 0).all() or (steps < 0).all()):
                raise ModeMismatch(
                    f"{name}: mode {inside.mode!r} needs three points or more, that rise or fall throughout"
                )
            if coarse.max() < fine.min() or coarse.min() > fine.max():
                raise ModeMismatch(
                    f"{name}: mode {inside.mode!r} runs from {fine[0]:g} to {fine[-1]:g}, the tensor from "
                    f"{coarse[0]:g} to {coarse[-1]:g}; they do not meet"
                )
        own = self.started(tuple(fine for fine, _ in axes))
        return dataclasses.replace(
            own,
            inside=tuple(np.asarray(fine, float) for fine, _ in axes),
            outside=tuple(np.asarray(coarse, float) for _, coarse in axes),
        )

    def inside_of(self, outside: Grid) -> Grid | None:
        """Return the tensor's own points."""
        return outside

    def outside_of(self, inside: Grid) -> Grid:
        """Return the same points."""
        return inside

    def apply(self, factor: Float[Array, "size columns"], absolute: bool = False) -> Float[Array, "seen columns"]:
        """Return the factor with the map of every dimension applied in turn."""
        assert self.inside is not None and self.outside is not None
        factor = jnp.asarray(factor)
        columns = factor.shape[1]
        values = factor.reshape(*(len(points) for points in self.inside), columns)
        for axis, (inside, outside) in enumerate(zip(self.inside, self.outside, strict=True)):
            matrix = self.matrix(inside, outside)
            matrix = (jnp.abs(matrix) if absolute else matrix).astype(factor.dtype)
            values = jnp.moveaxis(jnp.tensordot(matrix, values, axes=(1, axis)), 0, axis)
        return values.reshape(-1, columns)


def _interpolation(inside: Array, positions: Array) -> Array:
    """Return the matrix of cubic convolution (Keys, doi:10.1109/TASSP.1981.1163711), exact for parabolas."""
    size = len(inside)
    rising = inside[-1] > inside[0]
    ordered = jnp.where(rising, inside, inside[::-1])
    place = jnp.interp(positions, ordered, jnp.arange(float(size)))
    place = jnp.where(rising, place, size - 1 - place)
    distance = jnp.abs(place[:, None] - jnp.arange(-1.0, size + 1))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    padded = jnp.where(distance < 1, near, jnp.where(distance < 2, far, 0.0))
    # One point beyond each end, on the parabola of the last three.
    first, last = padded[:, :1], padded[:, -1:]
    beyond = jnp.array([[3.0, -3.0, 1.0]])
    matrix = padded[:, 1:-1]
    matrix = matrix.at[:, :3].add(first * beyond)
    return matrix.at[:, -3:].add(last * beyond[:, ::-1])


def _as_number(name: str, value: Any, positive: bool) -> Any:
    if isinstance(value, str):
        if value != FIT:
            raise InvalidArgument(f"{name}={value!r}: expected a number in the units of the coordinates, or 'fit'")
        return value
    if isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool):
        if not np.isfinite(value) or (positive and value <= 0):
            raise InvalidArgument(f"{name}={value!r}: expected a finite number{' above zero' if positive else ''}")
        return float(value)
    return value  # an array that is being traced


class Broaden(AbstractKernel, Parametric):
    """The tensor sees the factor through a Gaussian, read off at its own points.

    A poorer energy resolution, a broader probe.  Near the ends the Gaussian is cut off and brought back to a sum of
    one; a width far below the step is no broadening at all.

    Parameters
    ----------
    sigma
        Standard deviation in the units of the coordinates (in steps where there are none), along every dimension of the
        mode; or ``"fit"``, to find it together with the factors.
    start
        Where a fitted width begins; by default one step.

    Raises
    ------
    InvalidArgument
        When the width is no number above zero.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid("energy", (5,), (None,), (None,))
    >>> seen = Broaden(1.0).settle(grid, grid).apply(np.eye(5)[:, 2:3])
    >>> [round(float(value), 2) for value in seen[:, 0]]
    [0.08, 0.26, 0.4, 0.26, 0.08]
    """

    sigma: Any = eqx.field(converter=lambda value: _as_number("Broaden(sigma)", value, True))
    start: float | None = eqx.field(default=None, static=True)
    inside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    outside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    fitted: bool = eqx.field(default=False, static=True, repr=False)

    def started(self, inside: tuple[np.ndarray, ...]) -> "Broaden":
        """Return the operator with a number for its width."""
        step = float(np.median(np.abs(np.diff(inside[-1]))))
        fitted = isinstance(self.sigma, str)
        sigma = (self.start or step) if fitted else self.sigma
        return dataclasses.replace(self, sigma=float(sigma), fitted=fitted)

    def matrix(self, inside: Float[Array, " size"], outside: Float[Array, " seen"]) -> Float[Array, "seen size"]:
        """Return the Gaussian around each point, weighted by the spacing of the factor's; rows sum to one."""
        spacing = jnp.abs(jnp.asarray(jnp.gradient(inside)))
        exponent = -0.5 * jnp.square((inside[None, :] - outside[:, None]) / self.sigma)
        # Relative to the nearest point, so that a width far below the step leaves it and nothing else.
        weights = spacing * jnp.exp(exponent - jnp.max(exponent, axis=1, keepdims=True))
        return weights / jnp.sum(weights, axis=1, keepdims=True)

    def parameters(self) -> Float[Array, " parameters"]:
        """Return the logarithm of the width, if it is fitted."""
        return jnp.log(jnp.asarray(self.sigma))[None] if self.fitted else jnp.zeros(0)

    def with_parameters(self, values: Float[Array, " parameters"]) -> "Broaden":
        """Return the operator with another width."""
        return dataclasses.replace(self, sigma=jnp.exp(values[0])) if self.fitted else self

    def reach(self) -> Float[Array, " parameters"]:
        """Return how far the logarithm may move in one sweep."""
        return jnp.full(1, 0.5) if self.fitted else jnp.zeros(0)

    def found(self) -> dict[str, float]:
        """Return the width that was fitted."""
        return {"sigma": float(self.sigma)} if self.fitted else {}


class Shift(AbstractKernel, Parametric):
    """The tensor sees the factor moved along its coordinate, read off at its own points by cubic convolution.

    An energy offset between two detectors or sessions.

    Parameters
    ----------
    offset
        How far what the tensor sees lies above the factor, in the units of the coordinates (in steps where there are
        none); or ``"fit"``, to find it together with the factors.  Another tensor must see the factor without it.
    start
        Where a fitted offset begins.

    Raises
    ------
    InvalidArgument
        When the offset is no number.

    References
    ----------
    Keys, IEEE Trans. Acoust. Speech Signal Process. 29 (1981) 1153, doi:10.1109/TASSP.1981.1163711.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid("energy", (5,), (None,), (None,))
    >>> Shift(1.0).settle(grid, grid).apply(np.eye(5)[:, 2:3])[:, 0].tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0]
    """

    offset: Any = eqx.field(converter=lambda value: _as_number("Shift(offset)", value, False))
    start: float = eqx.field(default=0.0, static=True)
    inside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    outside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    fitted: bool = eqx.field(default=False, static=True, repr=False)

    def started(self, inside: tuple[np.ndarray, ...]) -> "Shift":
        """Return the operator with a number for its offset."""
        if len(inside) != 1:
            raise ModeMismatch(f"Shift: the mode has {len(inside)} dimensions; a shift is along one")
        fitted = isinstance(self.offset, str)
        offset = self.start if fitted else self.offset
        return dataclasses.replace(self, offset=float(offset), fitted=fitted)

    def matrix(self, inside: Float[Array, " size"], outside: Float[Array, " seen"]) -> Float[Array, "seen size"]:
        """Return the interpolation at the points moved back."""
        return _interpolation(inside, outside - self.offset)

    def parameters(self) -> Float[Array, " parameters"]:
        """Return the offset, if it is fitted."""
        return jnp.asarray(self.offset)[None] if self.fitted else jnp.zeros(0)

    def with_parameters(self, values: Float[Array, " parameters"]) -> "Shift":
        """Return the operator with another offset."""
        return dataclasses.replace(self, offset=values[0]) if self.fitted else self

    def reach(self) -> Float[Array, " parameters"]:
        """Return how far the offset may move in one sweep: two steps."""
        if not self.fitted or self.inside is None:
            return jnp.zeros(0)
        return 2 * jnp.median(jnp.abs(jnp.diff(self.inside[0])))[None]

    def found(self) -> dict[str, float]:
        """Return the offset that was fitted."""
        return {"offset": float(self.offset)} if self.fitted else {}


class Stretch(AbstractKernel, Parametric):
    """The tensor sees the factor stretched along its coordinate about one point, by cubic convolution.

    A spectrometer whose dispersion is not what its axis says; in a list with `Shift`, both errors of an axis.

    Parameters
    ----------
    factor
        How many times farther from the fixed point the tensor sees what the factor has; or ``"fit"``, to find it
        together with the factors.  Another tensor must see the factor without it.
    about
        The fixed point, in the units of the coordinates; the middle of the factor's points by default.
    start
        Where a fitted factor begins.

    Raises
    ------
    InvalidArgument
        When the factor is no number above zero.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid("energy", (5,), (None,), (None,))
    >>> Stretch(2.0, about=0.0).settle(grid, grid).apply(np.arange(5.0)[:, None])[:, 0].tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    factor: Any = eqx.field(converter=lambda value: _as_number("Stretch(factor)", value, True))
    about: float | None = eqx.field(default=None, static=True)
    start: float = eqx.field(default=1.0, static=True)
    inside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    outside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    fitted: bool = eqx.field(default=False, static=True, repr=False)

    def started(self, inside: tuple[np.ndarray, ...]) -> "Stretch":
        """Return the operator with a number for its factor, and its fixed point."""
        if len(inside) != 1:
            raise ModeMismatch(f"Stretch: the mode has {len(inside)} dimensions; a stretch is along one")
        fitted = isinstance(self.factor, str)
        factor = _as_number("Stretch(start)", self.start, True) if fitted else self.factor
        about = 0.5 * float(inside[0][0] + inside[0][-1]) if self.about is None else float(self.about)
        return dataclasses.replace(self, factor=float(factor), about=about, fitted=fitted)

    def matrix(self, inside: Float[Array, " size"], outside: Float[Array, " seen"]) -> Float[Array, "seen size"]:
        """Return the interpolation at the points moved back."""
        assert self.about is not None
        return _interpolation(inside, self.about + (outside - self.about) / self.factor)

    def parameters(self) -> Float[Array, " parameters"]:
        """Return the logarithm of the factor, if it is fitted."""
        return jnp.log(jnp.asarray(self.factor))[None] if self.fitted else jnp.zeros(0)

    def with_parameters(self, values: Float[Array, " parameters"]) -> "Stretch":
        """Return the operator with another factor."""
        return dataclasses.replace(self, factor=jnp.exp(values[0])) if self.fitted else self

    def reach(self) -> Float[Array, " parameters"]:
        """Return how far the logarithm may move in one sweep: two steps at the point farthest from the fixed one."""
        if not self.fitted or self.inside is None or self.about is None:
            return jnp.zeros(0)
        step = jnp.median(jnp.abs(jnp.diff(self.inside[0])))
        return (2 * step / jnp.max(jnp.abs(self.inside[0] - self.about)))[None]

    def found(self) -> dict[str, float]:
        """Return the factor that was fitted."""
        return {"factor": float(self.factor)} if self.fitted else {}


class Resample(AbstractKernel):
    """The tensor sees the factor at points of its own: another dispersion, another range of the same axis.

    Cubic convolution between the points of the factor.

    Examples
    --------
    >>> import numpy as np
    >>> fine = Grid("energy", (5,), (np.arange(5.0),), ("eV",))
    >>> own = Grid("energy", (2,), (np.array([0.5, 3.0]),), ("eV",))
    >>> Resample().settle(fine, own).apply(np.arange(5.0)[:, None] * 2).tolist()
    [[1.0], [6.0]]
    """

    inside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)
    outside: tuple[Array, ...] | None = eqx.field(default=None, repr=False)

    def started(self, inside: tuple[np.ndarray, ...]) -> "Resample":
        """Return the same."""
        del inside
        return self

    def inside_of(self, outside: Grid) -> Grid | None:
        """Return None: another tensor has to say where the factor lies."""
        del outside
        return None

    def matrix(self, inside: Float[Array, " size"], outside: Float[Array, " seen"]) -> Float[Array, "seen size"]:
        """Return the interpolation at the tensor's points."""
        return _interpolation(inside, outside)
