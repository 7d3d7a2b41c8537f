"""Columns that are smooth, at every point, over the length that a map gives: fine where there is detail."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tensorspec.algebra.map_operator import MapOperator
from tensorspec.constraints.base import (
    AbstractPenalty,
    Context,
    Iterated,
    Resolvable,
    Separability,
    atoms_field,
    component_field,
    strength_field,
)
from tensorspec.errors import InvalidArgument

__all__ = ["LocallySmooth"]

# Every radius costs a convolution a step.
_MOST_RADII = 32
# Conjugate gradients end when the residual is below this share of the right-hand side, in double and single precision.
_AGREEMENT = {8: 1e-13, 4: 1e-6}
# The same for those that go on from the last one.
_ROUGH_AGREEMENT = {8: 1e-9, 4: 1e-6}
_MOST_STEPS = 1000


class LocallySmooth(AbstractPenalty, Resolvable, Iterated):
    """Half a strength times the squared difference of every column from its own local means.

    The local mean at a point is that over a paraboloid ``max(0, 1 - r^2 / s^2)``, whose radius ``s`` a map gives point
    by point: for instance ``ts.pixon(data.sum("energy_loss")).scale``, which is small only where the counts show
    detail. A radius of 1 is the point by itself, which nothing pulls; where it is large, all that is finer costs.
    `Smooth`, which is the same everywhere, blurs a sharp particle before it takes the noise off its surroundings.

    Parameters
    ----------
    scale
        Radii in points, 1 or more: a DataArray with the mode's own dimensions, which `fit` aligns by coordinates, or a
        plain array of shape ``(size,)``.
    strength
        Weight in the objective of the problem as solved: the data divided by their root mean square, or the data
        themselves with ``rescale=False``.
    components
        Components it acts on, counted from 1; all of them by default.
    means
        What the penalty has to know of the grid, which `fit` settles; not to be given.

    Raises
    ------
    InvalidArgument
        When the strength is not a number of zero or more; by `fit`, when the radii are below 1, wider than half the
        mode, of more than 32 kinds or not finite, or the mode has more than two axes.
    ModeMismatch
        By `fit`, when the map misses points of the data.

    Notes
    -----
    With ``K`` the local means it is ``strength / 2 |a - K a|^2``, in points: coordinates do not enter. Beyond its ends
    a map goes on as in a mirror. Constant columns cost nothing, and slopes only at the ends and where the radius
    changes. The proximal map solves ``(1 + t (1 - K)^T (1 - K)) a = v`` by conjugate gradients; as no eigenvalue of
    ``K`` is far from the unit interval, they are few.

    The map is data that have been looked at: where it was made of the very counts that are fitted, what it holds is
    used twice. It was made at a chance of false alarms that `pixon` states, so that noise hardly opens it.

    References
    ----------
    The kernels and the map: Pina and Puetter, Publ. Astron. Soc. Pac. 105 (1993) 630, doi:10.1086/133207.

    Examples
    --------
    >>> import numpy as np
    >>> scale = np.array([4.0, 4.0, 4.0, 1.0, 4.0, 4.0, 4.0, 4.0])
    >>> single = np.zeros((8, 1))
    >>> single[3] = 1
    >>> float(LocallySmooth(np.ones(8), 1.0).value(single))
    0.0
    >>> np.round(LocallySmooth(scale, 10.0).prox(np.full(8, 2.0), step=1.0), 5).tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """

    scale: Any = atoms_field()
    strength: Any = strength_field(automatic=False)
    components: tuple[int, ...] | None = component_field()
    means: Any = eqx.field(default=None, repr=False, kw_only=True)
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 2

    def resolve(self, context: Context) -> "LocallySmooth":
        """Return the penalty with the local means of the mode's grid."""
        scale = np.asarray(self.scale, dtype=float)
        if scale.size != context.size:
            raise InvalidArgument(
                f"LocallySmooth on mode {context.mode!r}: scale has the shape {scale.shape}, the mode has "
                f"{context.size} points; give one radius a point"
            )
        return dataclasses.replace(self, means=_local_means(scale.reshape(context.shape), repr(context.mode)))

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the columns that are near the values and near their own local means."""
        del column
        values = jnp.asarray(values)
        return self._pulled(values, step, values.T, _AGREEMENT).astype(values.dtype)

    def memory(self, size: int) -> Array:
        """Return a column of zeros, where the first one begins."""
        return jnp.zeros(size, jnp.result_type(float))

    def prox_from(
        self, values: Float[Array, "..."], step: Any, memory: Array, column: Any = None
    ) -> tuple[Float[Array, "..."], Array]:
        """Return the same to fewer digits, found from the last ones, and what the next ones begin with."""
        del column
        values = jnp.asarray(values)
        found = self._pulled(values, step, memory, _ROUGH_AGREEMENT)
        return found.astype(values.dtype), found.T

    def _pulled(self, values: Array, step: Any, start: Array, agreement: dict[int, float]) -> Array:
        wide = values.reshape(values.shape[0], -1).astype(jnp.result_type(float))
        size = jnp.broadcast_to(jnp.asarray(self.strength * step, wide.dtype).reshape(-1), (wide.shape[1],))
        rows = start.reshape(-1, len(wide)).astype(wide.dtype)
        return self._on().pulled(wide, size, rows, agreement[wide.dtype.itemsize]).reshape(values.shape)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return half the strength times the squared difference from the local means."""
        return 0.5 * self.strength * jnp.sum(jnp.square(self._on().difference(jnp.asarray(factor).T)))

    def _on(self) -> "_LocalMeans":
        return _local_means(np.asarray(self.scale, dtype=float).ravel(), "'mode'") if self.means is None else self.means


class _LocalMeans(eqx.Module):
    """Local means on a grid: the radii that there are, and for every point which of them it has."""

    shape: tuple[int, ...] = eqx.field(static=True)
    radii: tuple[float, ...] = eqx.field(static=True)
    which: Int[Any, "..."]

    def difference(self, rows: Float[Array, "columns size"]) -> Float[Array, "columns size"]:
        """Return columns less their local means; they come and go as rows."""
        grid = rows.reshape(-1, *self.shape)
        return (grid - MapOperator(self.radii, None, self.shape).smooth(grid, self.which)).reshape(rows.shape)

    def normal(self, rows: Float[Array, "columns size"]) -> Float[Array, "columns size"]:
        """Return the difference followed by its transpose."""
        left = self.difference(rows)
        back = MapOperator(self.radii, None, self.shape).smooth_adjoint(left.reshape(-1, *self.shape), self.which)
        return left - back.reshape(rows.shape)

    def pulled(
        self,
        values: Float[Array, "size columns"],
        sizes: Float[Array, " columns"],
        start: Float[Array, "columns size"],
        agreement: float,
    ) -> Float[Array, "size columns"]:
        """Return ``argmin_A size/2 |A - K A|^2 + |A - values|^2 / 2``, each column by conjugate gradients."""
        rows, weights = values.T, sizes[:, None]
        least = jnp.square(agreement) * jnp.sum(jnp.square(rows), axis=1, keepdims=True)

        def going(state: tuple[Array, ...]) -> Array:
            return jnp.any(state[3] > least) & (state[4] < _MOST_STEPS)

        def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
            found, left, along, square, count = state
            image = along + weights * self.normal(along)
            # A column that is done stays as it is.
            moves = square > least
            pace = jnp.where(moves, square / jnp.where(moves, jnp.sum(along * image, axis=1, keepdims=True), 1), 0)
            found, left = found + pace * along, left - pace * image
            new = jnp.sum(jnp.square(left), axis=1, keepdims=True)
            along = left + jnp.where(moves, new / jnp.where(moves, square, 1), 0) * along
            return found, left, along, new, count + 1

        left = rows - (start + weights * self.normal(start))
        state = (start, left, left, jnp.sum(jnp.square(left), axis=1, keepdims=True), jnp.zeros((), int))
        return jax.lax.while_loop(going, step, state)[0].T


def _local_means(scale: Float[np.ndarray, "..."], mode: str) -> _LocalMeans:
    """Return the local means over radii given on the grid of a mode, checked."""
    who = f"LocallySmooth on mode {mode}"
    if scale.ndim > 2:
        raise InvalidArgument(f"{who}: the mode has {scale.ndim} axes; expected one or two, such as ('y', 'x')")
    if not np.isfinite(scale).all() or scale.min() < 1:
        raise InvalidArgument(f"{who}: scale holds values that are below 1 or no numbers; expected radii in points")
    if 2 * scale.max() > min(scale.shape) and scale.max() > 1:
        raise InvalidArgument(
            f"{who}: the radius {scale.max():g} is wider than half of the grid {scale.shape}; scale.clip(max=...)"
        )
    radii, which = np.unique(scale, return_inverse=True)
    if len(radii) > _MOST_RADII:
        raise InvalidArgument(
            f"{who}: scale holds {len(radii)} different radii; expected {_MOST_RADII} at the most, such as those of "
            "ts.pixon(...).scale"
        )
    # The first one is the point by itself, which needs no convolution.
    if radii[0] > 1:
        radii, which = np.append(1.0, radii), which + 1
    return _LocalMeans(scale.shape, tuple(map(float, radii)), which.reshape(scale.shape).astype(np.int32))
