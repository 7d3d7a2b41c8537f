"""Convolution of fields that go on, beyond their ends, as in a mirror; and its exact adjoint."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["Convolution"]


def _quick_length(least: int) -> int:
    """Return the next length of at least this whose only prime factors are 2, 3 and 5."""
    length = max(1, least)
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


class Convolution:
    """Convolution with each of some kernels over the last axes of a field, mirrored at its ends (``b a | a b``).

    The kernels need not be symmetric. The field is padded by reflection, multiplied in Fourier space, and cut; the
    adjoint is the transpose of exactly this chain, so that ``<A x, y> = <x, A^T y>`` to rounding.

    Parameters
    ----------
    kernels : sequence of ndarray
        An odd number of points along each axis, with the centre in the middle.
    shape : sequence of int
        Of the field.
    mirrored : bool
        False: the field is zero beyond its ends.

    Examples
    --------
    >>> kernel = np.array([0.0, 0.5, 0.5])
    >>> with jax.enable_x64(True):
    ...     blur = Convolution([kernel], (4,))
    ...     (blur.apply(jnp.array([4.0, 0, 0, 2])).round(12) + 0.0).tolist()
    [4.0, 2.0, 0.0, 1.0]
    """

    def __init__(
        self, kernels: Sequence[Float[np.ndarray, "..."]], shape: Sequence[int], *, mirrored: bool = True
    ) -> None:
        self.mode = "symmetric" if mirrored else "constant"
        self.shape = tuple(int(size) for size in shape)
        axes = len(self.shape)
        self.axes = tuple(range(-axes, 0))
        self.reach = tuple(max(kernel.shape[axis] // 2 for kernel in kernels) for axis in range(axes))
        self.padded = tuple(_quick_length(size + 2 * reach) for size, reach in zip(self.shape, self.reach, strict=True))
        self.trivial = tuple(kernel.size == 1 and kernel.item() == 1.0 for kernel in kernels)
        # Even along every axis by itself: a tilted ellipse is symmetric about its centre, but its mirror image differs.
        self.even = all(
            np.allclose(kernel, np.flip(kernel, axis), rtol=1e-12, atol=0) for kernel in kernels for axis in range(axes)
        )
        transfers = np.stack([_transfer(np.asarray(kernel, dtype=float), self.padded) for kernel in kernels])
        self.transfers = jnp.asarray(np.real(transfers) if self.even else transfers)

    def spectrum(self, field: Float[Array, "..."]) -> Array:
        """Return the Fourier transform of the mirrored field."""
        widths = [(0, 0)] * (field.ndim - len(self.shape)) + [(reach, reach) for reach in self.reach]
        mirrored = jnp.pad(field, widths, mode=self.mode)
        return jnp.fft.rfftn(mirrored, self.padded, axes=self.axes)

    def field(self, spectrum: Array) -> Float[Array, "..."]:
        """Return the part of an inverse transform that belongs to the field."""
        whole = jnp.fft.irfftn(spectrum, self.padded, axes=self.axes)
        own = tuple(slice(reach, reach + size) for reach, size in zip(self.reach, self.shape, strict=True))
        return whole[(..., *own)]

    def apply(self, field: Float[Array, "..."], which: int | Array = 0) -> Float[Array, "..."]:
        """Return the field convolved with one of the kernels."""
        if isinstance(which, int) and self.trivial[which]:
            return field
        return self.field(self.spectrum(field) * self.transfers[which])

    def adjoint(self, field: Float[Array, "..."], which: int | Array = 0) -> Float[Array, "..."]:
        """Return the transposed convolution: what is beyond the ends is folded back into the field.

        With even kernels a mirrored convolution is its own transpose.
        """
        if self.even:
            return self.apply(field, which)
        shape = jax.ShapeDtypeStruct(field.shape, field.dtype)
        (result,) = jax.linear_transpose(lambda each: self.apply(each, which), shape)(field)
        return result


def _transfer(kernel: np.ndarray, padded: tuple[int, ...]) -> np.ndarray:
    """Return the Fourier transform of a kernel whose centre is at the origin."""
    whole = np.zeros(padded)
    whole[tuple(slice(size) for size in kernel.shape)] = kernel
    whole = np.roll(whole, [-(size // 2) for size in kernel.shape], axis=tuple(range(kernel.ndim)))
    return np.fft.rfftn(whole)
