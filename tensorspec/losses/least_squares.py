"""Least squares, with weights from the noise where it is known."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra.entries import Entries
from tensorspec.errors import InvalidArgument
from tensorspec.losses.base import AbstractLoss, EntryWeights, split_mask

__all__ = ["LeastSquares"]


class LeastSquares(AbstractLoss):
    """Half the (weighted) sum of squared residuals.

    Parameters
    ----------
    scaling
        ``"poisson"`` weights every entry with the inverse of its expected variance under the rank-one model of the
        data (Keenan and Kotula), which is what Poisson scaling of the data means, without changing the data.
    sigma
        Standard deviation of the noise in data units: a number, or a DataArray that broadcasts against the data.

    Raises
    ------
    InvalidArgument
        For another scaling, both options at once, or a standard deviation that is not positive.

    Notes
    -----
    With ``rescale=True`` the weights are brought to a mean of one, so that the strength of a penalty means the same
    with and without them; with ``rescale=False`` they are ``1 / sigma**2`` as given.

    References
    ----------
    Keenan and Kotula, Surface and Interface Analysis 36 (2004) 203, doi:10.1002/sia.1657.

    Examples
    --------
    >>> import numpy as np
    >>> float(LeastSquares().value(np.array([1.0, 2.0]), np.array([1.0, 0.0])))
    2.0
    """

    scaling: Literal["poisson"] | None = eqx.field(default=None, static=True)
    sigma: Any = None
    quadratic: ClassVar[bool] = True

    def __check_init__(self) -> None:
        """Refuse options that cannot be meant."""
        if self.scaling not in (None, "poisson"):
            raise InvalidArgument(f"LeastSquares(scaling={self.scaling!r}): expected None or 'poisson'")
        if self.scaling is not None and self.sigma is not None:
            raise InvalidArgument("LeastSquares: scaling='poisson' and sigma= both set the weights; give one of them")
        if isinstance(self.sigma, (int, float)) and not (np.isfinite(self.sigma) and self.sigma > 0):
            raise InvalidArgument(f"LeastSquares(sigma={self.sigma!r}): expected a positive standard deviation")

    def entry_weights(self, values: np.ndarray | Entries, valid: np.ndarray | None, normalise: bool) -> EntryWeights:
        """Return the mask times the inverse variance; see the base class."""
        mask = split_mask(valid, values.shape)
        if self.scaling == "poisson":
            return _poisson_weights(values, mask, normalise)
        if self.sigma is None:
            return mask
        sigma = np.asarray(self.sigma, dtype=float)
        used = sigma.reshape(1) if sigma.ndim == 0 else np.broadcast_to(sigma, values.shape)
        if valid is not None and sigma.ndim:
            used = used[np.broadcast_to(valid, values.shape)]
        if not (np.isfinite(used).all() and (used > 0).all()):
            raise InvalidArgument(
                f"LeastSquares(sigma=...): {int(np.sum(~(used > 0)))} of {used.size} standard deviations of valid "
                "entries are not positive numbers; mask those entries or give them a value"
            )
        mean = float(np.mean(1 / np.square(used)))
        factor = mean if normalise else 1.0
        if sigma.ndim == 0:
            uniform = None if normalise else np.full(values.shape[0], 1 / float(sigma) ** 2)
            first = mask.rows[0] if uniform is None else (uniform if mask.rows[0] is None else uniform * mask.rows[0])
            return EntryWeights((first, *mask.rows[1:]), mask.dense, 1 / mean)
        weight = np.broadcast_to(1 / (np.square(np.where(sigma > 0, sigma, 1.0)) * factor), values.shape)
        if valid is not None:
            weight = np.where(np.broadcast_to(valid, values.shape), weight, 0.0)
        return EntryWeights((None,) * values.ndim, np.ascontiguousarray(weight), 1 / mean)

    def value(
        self, data: Float[Array, "..."], model: Float[Array, "..."], weight: Float[Array, "..."] | float = 1.0
    ) -> Float[Array, ""]:
        """Return half the weighted sum of squared residuals."""
        return 0.5 * jnp.sum(weight * jnp.square(jnp.asarray(data) - jnp.asarray(model)))


def _poisson_weights(values: np.ndarray | Entries, mask: EntryWeights, normalise: bool) -> EntryWeights:
    axes = range(values.ndim)
    total = float(values.sum(dtype=float))
    stored = values.stored if isinstance(values, Entries) else values
    if total <= 0 or (stored < 0).any():
        raise InvalidArgument(
            f"LeastSquares(scaling='poisson'): expected counts of zero or more, found {int((stored < 0).sum())} "
            f"negative values (lowest {stored.min():.6g}); use LeastSquares() or LeastSquares(sigma=...)"
        )
    # The expected entry is the product of the marginal means; rows and channels without counts get no weight.
    rows, mean = [], total
    for axis in axes:
        marginal = values.sum(axis=tuple(k for k in axes if k != axis), dtype=float)
        share = marginal / total
        inverse = np.divide(1.0, share, out=np.zeros_like(share), where=share > 0)
        if mask.rows[axis] is not None:
            inverse = inverse * mask.rows[axis]
        rows.append(inverse)
    if mask.dense is None:
        used = [np.ones(n) if row is None else row for n, row in zip(values.shape, mask.rows, strict=True)]
        mean = float(np.prod([row.sum() for row in rows]) / np.prod([u.sum() for u in used])) / total
    else:
        weight = mask.dense.astype(float)
        for row in reversed(rows):
            weight = weight @ row
        mean = float(weight) / float(mask.dense.sum()) / total
    rows[0] = rows[0] / total / (mean if normalise else 1.0)
    return EntryWeights(tuple(rows), mask.dense, 1 / mean)
