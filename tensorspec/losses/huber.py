"""Huber's loss: squares for small residuals, absolute values for large ones."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.errors import InvalidArgument
from tensorspec.losses.base import AbstractRobustLoss

__all__ = ["Huber"]


def _as_delta(value: Any) -> Any:
    if isinstance(value, (int, float, np.number)):
        if isinstance(value, bool) or not (np.isfinite(value) and value > 0):
            raise InvalidArgument(f"Huber(delta={value!r}): expected a number above zero, in units of the data")
        return float(value)
    if isinstance(value, (str, type(None))):
        raise InvalidArgument(f"Huber(delta={value!r}): expected a number above zero, in units of the data")
    return value  # an array that is being traced


class Huber(AbstractRobustLoss):
    """Half the square of a residual up to `delta`; beyond, it grows in proportion: spikes pull no harder than that.

    Parameters
    ----------
    delta
        The residual at which squares end, in units of the data; two to three standard deviations of the noise leave
        ordinary noise to the squares.

    Raises
    ------
    InvalidArgument
        When it is not a number above zero.

    Notes
    -----
    It is solved by least squares with the weight ``delta / |residual|`` for entries beyond `delta`, renewed before
    every update: a weighted sum of squares that touches the loss from above, so the loss never rises (Huber).

    References
    ----------
    Huber, Annals of Mathematical Statistics 35 (1964) 73, doi:10.1214/aoms/1177703732.

    Examples
    --------
    >>> import numpy as np
    >>> float(Huber(1.0).value(np.array([1.0, 11.0]), np.array([0.0, 1.0])))  # 0.5 and 10 - 0.5
    10.0
    """

    delta: Any = eqx.field(converter=_as_delta)

    def entries(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return ``r^2 / 2``, or ``delta |r| - delta^2 / 2`` beyond `delta`."""
        size = jnp.abs(data - model)
        delta = jnp.asarray(self.delta, size.dtype)
        # With the smaller of both the slope is right on either side, and no branch overflows.
        near = jnp.minimum(size, delta)
        return near * (size - 0.5 * near)

    def trust(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return one, or ``delta / |r|`` beyond `delta`."""
        size = jnp.abs(data - model)
        delta = jnp.asarray(self.delta, size.dtype)
        return delta / jnp.maximum(size, delta)
