"""Linear maps through which a tensor sees a factor: binned, broadened, shifted, on another grid.

A factor is declared once; tensor k sees ``L A`` in its place.  With the normal equations (G, M) of what it sees, the
question for A is a least-squares one with ``L`` inside; solvers are given an upper bound of it that touches at the
present factor and has the usual form, so every solver and every constraint works behind every operator.

Arrays are ``(size, columns)``; pixels of a map are merged as everywhere, the last dimension fastest.
"""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.errors import InvalidArgument, ModeMismatch

__all__ = ["AbstractOperator", "Bin", "Grid", "Matrix", "Parametric", "pull_back", "refine"]

_STEP_TOLERANCE = 1e-3
_SHORTER = (1.0, 0.5, 0.2, 0.05)


class Grid(NamedTuple):
    """The points of a mode.

    Attributes
    ----------
    mode
        Its name.
    shape
        Points along each dimension.
    coordinates
        One array per dimension, or None where there is none.
    units
        One text per dimension, or None.
    """

    mode: str
    shape: tuple[int, ...]
    coordinates: tuple[np.ndarray | None, ...]
    units: tuple[str | None, ...]

    @property
    def size(self) -> int:
        """Number of points."""
        return int(np.prod(self.shape))


class AbstractOperator(eqx.Module):
    """Base of every operator: a linear map with an exact adjoint; one with parameters to fit is also `Parametric`."""

    @abc.abstractmethod
    def settle(self, inside: Grid, outside: Grid) -> "AbstractOperator":
        """Return the operator with all that it needs as arrays.

        Parameters
        ----------
        inside
            The points of the factor.
        outside
            The points that the tensor has.

        Raises
        ------
        ModeMismatch
            When the two do not fit.
        """

    @abc.abstractmethod
    def inside_of(self, outside: Grid) -> Grid | None:
        """Return the points of the factor where no other tensor says them, or None when that is not settled."""

    @abc.abstractmethod
    def outside_of(self, inside: Grid) -> Grid:
        """Return the points that the operator makes of the factor's by itself, where another one follows."""

    @abc.abstractmethod
    def apply(self, factor: Float[Array, "size columns"], absolute: bool = False) -> Float[Array, "seen columns"]:
        """Return what the tensor sees of a factor; with `absolute`, by the map of the absolute coefficients."""

    def adjoint(
        self, values: Float[Array, "seen columns"], size: int, absolute: bool = False
    ) -> Float[Array, "size columns"]:
        """Return the transposed map of values on the tensor's points, exactly."""
        like = jax.ShapeDtypeStruct((size, values.shape[1]), values.dtype)
        (result,) = jax.linear_transpose(lambda factor: self.apply(factor, absolute), like)(values)
        return result


class Parametric(abc.ABC):
    """An operator with parameters that may be fitted together with the factors."""

    @abc.abstractmethod
    def parameters(self) -> Float[Array, " parameters"]:
        """Return the parameters that are fitted, on a scale without bounds; an empty array when none is."""

    @abc.abstractmethod
    def with_parameters(self, values: Float[Array, " parameters"]) -> AbstractOperator:
        """Return the operator with other values of the parameters that are fitted."""

    @abc.abstractmethod
    def reach(self) -> Float[Array, " parameters"]:
        """Return how far each parameter may move in one sweep."""

    @abc.abstractmethod
    def found(self) -> dict[str, float]:
        """Return the parameters that were fitted, by name, in the units of the coordinates."""


def pull_back(
    operator: AbstractOperator, equations: NormalEquations, factor: Float[Array, "size rank"]
) -> NormalEquations:
    """Return normal equations for a factor from those of what the tensor sees of it.

    They bound the objective from above and touch it at the present factor, by the inequality
    ``(sum_j L_ij d_j)^2 <= (sum_j |L_ij|) sum_j |L_ij| d_j^2``: whoever goes down by them goes down.

    Parameters
    ----------
    operator
        What stands between.
    equations
        Of the factor as the tensor sees it.
    factor
        The present one.
    """
    size, rank = factor.shape
    seen = operator.apply(factor)
    gram = equations.gram.astype(jnp.float64)
    wide = seen.astype(jnp.float64)
    product = jnp.einsum("nr,nrs->ns", wide, gram) if equations.per_row else wide @ gram
    slope = operator.adjoint(product - equations.right.astype(jnp.float64), size)
    sums = operator.apply(jnp.ones((size, 1), jnp.float64), absolute=True)
    if equations.per_row:
        spread = operator.adjoint((sums[:, :, None] * gram).reshape(len(sums), rank * rank), size, absolute=True)
        bound = spread.reshape(size, rank, rank)
        right = jnp.einsum("nr,nrs->ns", factor.astype(jnp.float64), bound) - slope
    else:
        bound = jnp.max(operator.adjoint(sums, size, absolute=True)) * gram
        right = factor.astype(jnp.float64) @ bound - slope
    return NormalEquations(bound, right.astype(factor.dtype))


def refine(
    operator: AbstractOperator, equations: NormalEquations, factor: Float[Array, "size rank"]
) -> AbstractOperator:
    """Return the operator after a Gauss-Newton step in its parameters, shortened until it leads down."""
    if not isinstance(operator, Parametric) or operator.parameters().size == 0:
        return operator
    present = operator.parameters()
    wide = factor.astype(jnp.float64)
    gram, right = equations.gram.astype(jnp.float64), equations.right.astype(jnp.float64)
    exact = NormalEquations(gram, right)

    def seen(values: Array) -> Array:
        assert isinstance(operator, Parametric)
        return operator.with_parameters(values).apply(wide)

    now, slopes = seen(present), jax.jacfwd(seen)(present)
    product = jnp.einsum("nr,nrs->ns", now, gram) if equations.per_row else now @ gram
    letters = "nrp,nrs,nsq->pq" if equations.per_row else "nrp,rs,nsq->pq"
    curvature = jnp.einsum(letters, slopes, gram, slopes)
    slope = jnp.einsum("nrp,nr->p", slopes, product - right)
    damped = curvature + (1e-9 * jnp.trace(curvature) + 1e-300) * jnp.eye(present.size)
    step = jnp.clip(-jnp.linalg.solve(damped, slope), -operator.reach(), operator.reach())
    tried = jnp.stack([present] + [present + share * step for share in _SHORTER])
    values = jax.lax.map(lambda values: exact.value(seen(values)), tried)
    return operator.with_parameters(tried[jnp.argmin(values)])


class Bin(AbstractOperator):
    """The tensor has coarser points: each is the mean of a block of the factor's.

    Parameters
    ----------
    size
        How many points make one, along every dimension of the mode, or one number for each.

    Raises
    ------
    InvalidArgument
        When it is no whole number of one or more.

    Examples
    --------
    >>> import numpy as np
    >>> grids = [Grid("pixel", (n,), (None,), (None,)) for n in (4, 2)]
    >>> Bin(2).settle(*grids).apply(np.array([[1.0], [3.0], [5.0], [5.0]])).tolist()
    [[2.0], [5.0]]
    """

    size: int | tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True, default=None, repr=False)

    def __check_init__(self) -> None:
        """Refuse sizes below one."""
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if not sizes or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in sizes):
            raise InvalidArgument(f"Bin({self.size!r}): expected a whole number of one or more, or one per dimension")

    def _sizes(self, grid: Grid) -> tuple[int, ...]:
        sizes = self.size if isinstance(self.size, tuple) else (self.size,) * len(grid.shape)
        if len(sizes) != len(grid.shape):
            raise ModeMismatch(
                f"Bin({self.size!r}): mode {grid.mode!r} has {len(grid.shape)} dimensions; give one number, or one each"
            )
        return sizes

    def settle(self, inside: Grid, outside: Grid) -> "Bin":
        """Return the operator with the block sizes and the grid."""
        sizes = self._sizes(inside)
        expected = tuple(n // b for n, b in zip(inside.shape, sizes, strict=True))
        if inside.shape != tuple(n * b for n, b in zip(outside.shape, sizes, strict=True)):
            raise ModeMismatch(
                f"Bin({self.size!r}): mode {inside.mode!r} has the shape {inside.shape}, so that a tensor behind it "
                f"needs {expected}; it has {outside.shape}"
            )
        for fine, coarse, b in zip(inside.coordinates, outside.coordinates, sizes, strict=True):
            if fine is None or coarse is None:
                continue
            binned = fine.reshape(-1, b).mean(axis=1)
            step = np.abs(np.diff(coarse)).min() if coarse.size > 1 else np.inf
            if np.abs(binned - coarse).max() > _STEP_TOLERANCE * step * b:
                raise ModeMismatch(
                    f"Bin({self.size!r}): the binned coordinates of mode {inside.mode!r} run from {binned[0]:g} to "
                    f"{binned[-1]:g}, those of the tensor from {coarse[0]:g} to {coarse[-1]:g}; align them, or drop "
                    "the coordinates of the tensor"
                )
        return Bin(sizes, inside.shape)

    def inside_of(self, outside: Grid) -> Grid | None:
        """Return None: coordinates of the finer points are not known."""
        del outside
        return None

    def outside_of(self, inside: Grid) -> Grid:
        """Return the middles of the blocks."""
        sizes = self._sizes(inside)
        if any(n % b for n, b in zip(inside.shape, sizes, strict=True)):
            raise ModeMismatch(f"Bin({self.size!r}): the shape {inside.shape} of mode {inside.mode!r} is no multiple")
        middles = tuple(
            None if fine is None else fine.reshape(-1, b).mean(axis=1)
            for fine, b in zip(inside.coordinates, sizes, strict=True)
        )
        shape = tuple(n // b for n, b in zip(inside.shape, sizes, strict=True))
        return inside._replace(shape=shape, coordinates=middles)

    def apply(self, factor: Float[Array, "size columns"], absolute: bool = False) -> Float[Array, "seen columns"]:
        """Return the means over blocks."""
        del absolute
        assert self.shape is not None and isinstance(self.size, tuple)
        factor = jnp.asarray(factor)
        pairs = [n for total, b in zip(self.shape, self.size, strict=True) for n in (total // b, b)]
        blocks = factor.reshape(*pairs, factor.shape[1])
        return blocks.mean(axis=tuple(range(1, 2 * len(self.shape), 2))).reshape(-1, factor.shape[1])


class Matrix(AbstractOperator):
    """Any linear map, as a matrix.

    Parameters
    ----------
    values
        Shape ``(points of the tensor, points of the factor)``.

    Raises
    ------
    InvalidArgument
        When it is no finite matrix.

    Examples
    --------
    >>> import numpy as np
    >>> Matrix(np.array([[0.5, 0.5, 0.0]])).apply(np.array([[1.0], [3.0], [5.0]])).tolist()
    [[2.0]]
    """

    values: Any
    needs: ClassVar[str] = "expected a finite matrix of shape (points of the tensor, points of the factor)"

    def __check_init__(self) -> None:
        """Refuse what is no finite matrix."""
        if isinstance(self.values, jax.Array):
            return
        array = np.asarray(self.values)
        if array.ndim != 2 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise InvalidArgument(f"Matrix of shape {array.shape}: {self.needs}")

    def settle(self, inside: Grid, outside: Grid) -> "Matrix":
        """Return the matrix as an array."""
        shape = np.shape(self.values)
        if shape != (outside.size, inside.size):
            raise ModeMismatch(
                f"Matrix of shape {shape}: mode {inside.mode!r} has {inside.size} points and the tensor "
                f"{outside.size}; expected the shape {(outside.size, inside.size)}"
            )
        return Matrix(np.asarray(self.values, float))

    def inside_of(self, outside: Grid) -> Grid | None:
        """Return points without coordinates."""
        del outside
        size = int(np.shape(self.values)[1])
        return Grid("", (size,), (None,), (None,))

    def outside_of(self, inside: Grid) -> Grid:
        """Return points without coordinates."""
        return Grid(inside.mode, (int(np.shape(self.values)[0]),), (None,), (None,))

    def apply(self, factor: Float[Array, "size columns"], absolute: bool = False) -> Float[Array, "seen columns"]:
        """Return the product."""
        factor = jnp.asarray(factor)
        matrix = jnp.abs(jnp.asarray(self.values)) if absolute else jnp.asarray(self.values)
        return matrix.astype(factor.dtype) @ factor
