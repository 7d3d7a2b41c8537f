"""Richardson-Lucy: the multiplicative iteration towards the likeliest non-negative field, for counts and beyond."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tensorspec.algebra.map_operator import MapOperator
from tensorspec.algebra.reflection import Convolution

__all__ = ["multiplicative_step", "richardson_lucy", "smoothed"]

Operator = Callable[[Float[Array, "..."]], Float[Array, "..."]]
_TINY = 1e-30


def multiplicative_step(
    field: Float[Array, "..."],
    data: Float[Array, "..."],
    valid: Float[Array, "..."],
    variance: Operator,
    apply: Operator,
    adjoint: Operator,
) -> Float[Array, "..."]:
    """Return ``P A^T(D / V) / A^T(A P / V)``, where ``V`` is the variance of data with the mean ``A P``.

    For counts this is the step of expectation maximisation (Richardson-Lucy), for even noise that of the image space
    reconstruction algorithm; in between its fixed points are those of the quasi-likelihood. A field stays
    non-negative. Where no valid point sees it, it stays what it is, as missing values are taken from the model.

    Parameters
    ----------
    field : array
        Non-negative.
    data, valid : array
        Measured values, and 1 where they are used, 0 where they are missing.
    variance : callable
        Of the mean, which is above zero; for counts the mean itself.
    apply, adjoint : callable
        The linear operator and its transpose.

    References
    ----------
    Daube-Witherspoon and Muehllehner, IEEE Trans. Med. Imaging 5 (1986) 61-66, doi:10.1109/TMI.1986.4307748.
    """
    model = jnp.maximum(apply(field), _TINY)
    weight = 1 / variance(model)
    # Missing values are those of the model: without them a point that few others see could grow without end.
    up = jnp.maximum(adjoint(weight * jnp.where(valid > 0, data, model)), 0.0)
    down = adjoint(weight * model)
    return jnp.where(down > _TINY, field * up / jnp.maximum(down, _TINY), field)


def smoothed(
    operator: MapOperator,
    which: Int[Array, "..."],
    field: Float[Array, "..."],
    data: Float[Array, "..."],
    valid: Float[Array, "..."],
    variance: Operator,
    steps: int,
) -> Float[Array, "..."]:
    """Return the field after some steps from a pseudo-image, smoothed by a map of scales; it is zero or more."""

    def step(_: Any, current: Array) -> Array:
        return multiplicative_step(
            current,
            data,
            valid,
            variance,
            lambda each: operator.smooth(each, which),
            lambda each: operator.smooth_adjoint(each, which),
        )

    return jnp.maximum(operator.smooth(jax.lax.fori_loop(0, steps, step, field), which), 0.0)


def richardson_lucy(
    data: Float[np.ndarray, "..."],
    response: Float[np.ndarray, "..."],
    iterations: int,
    valid: Float[np.ndarray, "..."] | None = None,
    start: Float[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "..."]:
    """Deconvolve counts by so many steps of Richardson-Lucy, from an even field.

    Parameters
    ----------
    data : ndarray
        Counts; the last axes are those of `response`, axes before them are separate fields.
    response : ndarray
        Point spread function with a sum of one, an odd number of points along each axis and its centre in the middle.
    iterations : int
        Number of steps; the more, the sharper, and the noisier.
    valid : ndarray, optional
        1 where the data are used, 0 where they are missing.
    start : ndarray, optional
        Positive; by default the mean of the data.

    Returns
    -------
    ndarray of float64
        Like `data`. Once blurred again, its sum is that of the data.

    Notes
    -----
    The field is mirrored at its ends, in the blur and exactly so in its transpose, so that nothing piles up there.

    References
    ----------
    Richardson, J. Opt. Soc. Am. 62 (1972) 55-59, doi:10.1364/JOSA.62.000055; Lucy, Astron. J. 79 (1974) 745,
    doi:10.1086/111605.

    Examples
    --------
    >>> response = np.array([0.25, 0.5, 0.25])
    >>> sharp = richardson_lucy(np.array([1.0, 1, 3, 5, 3, 1, 1]), response, 200)
    >>> bool(sharp[3] > 6), round(float(sharp.sum()), 6)
    (True, 15.0)
    """
    data, response = np.asarray(data, dtype=float), np.asarray(response, dtype=float)
    with jax.enable_x64(True):
        measured = jnp.asarray(data)
        used = jnp.ones_like(measured) if valid is None else jnp.asarray(valid, dtype=float)
        mean = jnp.maximum((used * measured).sum() / used.sum(), _TINY)
        field = jnp.full_like(measured, mean) if start is None else jnp.asarray(start, dtype=float)
        run = _compiled(data.shape[data.ndim - response.ndim :], response.shape, response.tobytes())
        return np.asarray(run(measured, used, field, jnp.asarray(iterations)))


@functools.lru_cache(maxsize=4)
def _compiled(shape: tuple[int, ...], kernel: tuple[int, ...], response: bytes) -> Any:
    """Return all steps, compiled once for fields of a kind."""
    blur = Convolution([np.frombuffer(response).reshape(kernel)], shape)

    @jax.jit
    def run(measured: Array, used: Array, field: Array, steps: Array) -> Array:
        def step(_: Any, current: Array) -> Array:
            return multiplicative_step(current, measured, used, lambda mean: mean, blur.apply, blur.adjoint)

        return jax.lax.fori_loop(0, steps, step, field)

    return run
