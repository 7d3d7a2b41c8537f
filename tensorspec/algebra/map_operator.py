"""The operator of the pixon method: a pseudo-image, smoothed at each point by the kernel of its scale, then blurred."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tensorspec.algebra.kernels import paraboloid
from tensorspec.algebra.reflection import Convolution

__all__ = ["MapOperator"]


class MapOperator:
    """``A = H K``: ``K`` smooths each point of a field by the kernel that a map assigns to it, ``H`` is the response.

    ``(K P)(x) = sum over y of k_{s(x)}(x - y) P(y)``, applied as a sum over scales of mask times convolution. Scales
    that the map does not hold cost nothing. The transpose of ``K`` is the sum over scales of the convolution of mask
    times field, since a mirrored convolution with an even kernel is symmetric.

    Parameters
    ----------
    scales : sequence of float
        Radii of the paraboloids in pixels, ascending.
    response : ndarray, optional
        Point spread function or detector response, with its centre in the middle; none for no blur.
    shape : sequence of int
        Of the field; arrays may have leading axes, which share the map.
    """

    def __init__(
        self, scales: Sequence[float], response: Float[np.ndarray, "..."] | None, shape: Sequence[int]
    ) -> None:
        self.scales = tuple(scales)
        self.shape = tuple(shape)
        self.smoothing = Convolution([paraboloid(scale, len(self.shape)) for scale in scales], shape)
        self.response = None if response is None else Convolution([response], shape)

    def blur(self, field: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return what the instrument makes of an image."""
        return field if self.response is None else self.response.apply(field)

    def blur_adjoint(self, field: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the transpose of `blur`."""
        return field if self.response is None else self.response.adjoint(field)

    def smooth(self, field: Float[Array, "..."], scale: Int[Array, "..."]) -> Float[Array, "..."]:
        """Return the image of a pseudo-image; ``scale`` holds, for every point, the position of its scale."""
        spectrum = self.smoothing.spectrum(field)

        def add(which: Array, total: Array) -> Array:
            here = scale == which
            return jax.lax.cond(
                here.any(),
                lambda: total + here * self.smoothing.field(spectrum * self.smoothing.transfers[which]),
                lambda: total,
            )

        return jax.lax.fori_loop(1, len(self.scales), add, jnp.where(scale == 0, self.smoothing.apply(field, 0), 0.0))

    def smooth_adjoint(self, field: Float[Array, "..."], scale: Int[Array, "..."]) -> Float[Array, "..."]:
        """Return the transpose of `smooth`."""

        def add(which: Array, total: Array) -> Array:
            here = scale == which
            return jax.lax.cond(
                here.any(),
                lambda: total + self.smoothing.spectrum(here * field) * self.smoothing.transfers[which],
                lambda: total,
            )

        nothing = jnp.zeros_like(self.smoothing.spectrum(field))
        others = self.smoothing.field(jax.lax.fori_loop(1, len(self.scales), add, nothing))
        return others + self.smoothing.apply(jnp.where(scale == 0, field, 0.0), 0)

    def apply(self, field: Float[Array, "..."], scale: Int[Array, "..."]) -> Float[Array, "..."]:
        """Return the expected data of a pseudo-image."""
        return self.blur(self.smooth(field, scale))

    def adjoint(self, field: Float[Array, "..."], scale: Int[Array, "..."]) -> Float[Array, "..."]:
        """Return the transpose of `apply`."""
        return self.smooth_adjoint(self.blur_adjoint(field), scale)
