"""Losses of counts and other quantities that are never negative: Poisson likelihood and beta-divergences."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.errors import InvalidArgument
from tensorspec.losses.base import AbstractDivergence

__all__ = ["Beta", "Poisson"]


def _ratio(above: Array, below: Array) -> Array:
    """Return the quotient, zero where the lower part is not above zero."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)


def _kullback_leibler(data: Array, model: Array) -> Array:
    """Return ``x log(x / m) - x + m``, in a form that keeps its digits where the model is close to the data."""
    some = data > 0
    reach = (model - data) / jnp.where(some, data, 1)
    inside = some & (model > 0)
    close = data * (reach - jnp.log1p(jnp.where(inside, reach, 0)))
    return jnp.where(model < 0, jnp.inf, jnp.where(some, jnp.where(inside, close, jnp.inf), model))


class Poisson(AbstractDivergence):
    """The negative log-likelihood of counts, less its value for a perfect model.

    For counts ``x`` and model ``m`` it is the sum of ``m - x log m`` (the negative log-likelihood without ``log x!``)
    minus ``x - x log x``: the generalised Kullback-Leibler divergence, zero where model and data agree.  Twice the
    minimum is the deviance; differences of two fits to the same data are log-likelihood ratios.

    Notes
    -----
    The data are not rescaled: they have to be counts, and strengths of penalties are in units of the log-likelihood.
    Nothing may be negative, neither data nor factors.

    References
    ----------
    Chi and Kolda, SIAM Journal on Matrix Analysis and Applications 33 (2012) 1272, doi:10.1137/110859063.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(Poisson().value(np.array([0.0, 2.0]), np.array([0.5, 1.0]))), 4)  # 0.5 + 2 log 2 - 2 + 1
    0.8863
    """

    @property
    def powers(self) -> tuple[float, float]:
        """The powers of the majoriser; see the base class."""
        return -1.0, 0.0

    @property
    def zeros_allowed(self) -> bool:
        """Zero is a count."""
        return True

    def entries(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return ``x log(x / m) - x + m``."""
        return _kullback_leibler(data, model)

    def pull(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return data over model."""
        return _ratio(data, model)

    def push(self, model: Float[Array, "..."]) -> None:
        """Return None: it is one everywhere."""
        del model


def _as_beta(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise InvalidArgument(
            f"Beta(beta={value!r}): expected a number: 2 least squares, 1 Kullback-Leibler, 0 Itakura-Saito"
        )
    return float(value)


class Beta(AbstractDivergence):
    """The beta-divergence, in the convention in which 2 is least squares, 1 Kullback-Leibler and 0 Itakura-Saito.

    For data ``x`` and model ``m``: ``(x^b + (b - 1) m^b - b x m^(b - 1)) / (b (b - 1))``, its limits at 0 and 1.  It
    is, up to constants, minus the log-likelihood of noise whose variance grows as ``m^(2 - b)``: constant for 2, as of
    counts for 1, with a constant relative error for 0.

    Parameters
    ----------
    beta
        The exponent; below or at zero the data have to be above zero.

    Raises
    ------
    InvalidArgument
        When it is not a number.

    Notes
    -----
    The data are not rescaled: the divergence of data times ``c`` is ``c^beta`` times as large.

    References
    ----------
    Fevotte and Idier, Neural Computation 23 (2011) 2421, doi:10.1162/NECO_a_00168.

    Examples
    --------
    >>> import numpy as np
    >>> float(Beta(2).value(np.array([1.0, 2.0]), np.array([1.0, 0.0])))
    2.0
    """

    beta: float = eqx.field(converter=_as_beta, static=True)

    @property
    def powers(self) -> tuple[float, float]:
        """The powers of the majoriser; see the base class."""
        return min(self.beta - 2, 0.0), max(self.beta - 1, 0.0)

    @property
    def zeros_allowed(self) -> bool:
        """Zero has an infinite divergence from everything else unless the exponent is above zero."""
        return self.beta > 0

    def entries(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the divergence of every entry; see the class."""
        beta = self.beta
        if beta == 1:
            return _kullback_leibler(data, model)
        if beta == 2:
            return jnp.where(model < 0, jnp.inf, 0.5 * jnp.square(data - model))
        # Powers cancel where the model is close to the data, so they are taken with all digits there are.
        data, model = data.astype(jnp.result_type(float)), model.astype(jnp.result_type(float))
        some, there = data > 0, model > 0
        x, m = jnp.where(some, data, 1), jnp.where(there, model, 1)
        if beta == 0:
            ratio = x / m
            found = ratio - jnp.log(ratio) - 1
            return jnp.where(some & there, found, jnp.where(some | there, jnp.inf, 0))
        powers = jnp.where(some, x**beta, 0) + (beta - 1) * jnp.where(there, m**beta, 0 if beta > 0 else jnp.inf)
        mixed = jnp.where(some, beta * data * jnp.where(there, m ** (beta - 1), 0 if beta > 1 else jnp.inf), 0)
        found = (powers - mixed) / (beta * (beta - 1))
        impossible = (model < 0) | (~there & some & (beta < 1)) | (~some & (beta < 0))
        return jnp.where(impossible, jnp.inf, found)

    def pull(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return ``x m^(b - 2)``."""
        there = model > 0
        return jnp.where(there, data * jnp.where(there, model, 1) ** (self.beta - 2), 0)

    def push(self, model: Float[Array, "..."]) -> Float[Array, "..."] | None:
        """Return ``m^(b - 1)``."""
        if self.beta == 1:
            return None
        there = model > 0
        return jnp.where(there, jnp.where(there, model, 1) ** (self.beta - 1), 0)
