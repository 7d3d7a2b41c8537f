"""What a loss offers to the engine.

A loss says how the entries of a tensor are weighted and what a residual costs.  There are three kinds:

- `quadratic` losses have normal equations, and every least-squares solver takes them;
- an `AbstractDivergence` (Poisson, beta) splits its slope into a part that pulls the model up and one that pushes it
  down, from which a separable majoriser of every mode follows where nothing is negative;
- an `AbstractRobustLoss` (Huber) lies below a weighted sum of squares that touches it at the present model, so that it
  is least squares with weights that are renewed before every update.
"""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.algebra.entries import Entries

__all__ = ["AbstractDivergence", "AbstractLoss", "AbstractRobustLoss", "EntryWeights", "split_mask"]


class EntryWeights(NamedTuple):
    """Weights of the entries of a tensor: the product of one vector per axis, times a dense array.

    Attributes
    ----------
    rows
        One vector per axis, or None for ones.
    dense
        An array of the tensor's shape, or None for ones; boolean where it is only a mask.
    noise_variance
        Variance of the noise in data units squared where the loss knows it, averaged as the weights say; None else.
    """

    rows: tuple[np.ndarray | None, ...]
    dense: np.ndarray | None
    noise_variance: float | None


class AbstractLoss(eqx.Module):
    """Base of every loss."""

    # Whether the loss is 1/2 weight x residual^2, so that normal equations exist.
    quadratic: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def entry_weights(self, values: np.ndarray | Entries, valid: np.ndarray | None, normalise: bool) -> EntryWeights:
        """Return the weights of the entries.

        Parameters
        ----------
        values
            The data, one axis per mode; entries that are not valid hold zero.  Data that are mostly zero are `Entries`.
        valid
            Boolean array that broadcasts to the shape of `values` (True: use), or None.
        normalise
            Whether the weights are brought to a mean of one over the valid entries.
        """

    @abc.abstractmethod
    def value(
        self, data: Float[Array, "..."], model: Float[Array, "..."], weight: Float[Array, "..."] | float = 1.0
    ) -> Float[Array, ""]:
        """Return the loss summed over the entries."""


class AbstractDivergence(AbstractLoss):
    """A loss between data and a model of which neither is negative; in log-likelihood units, so never rescaled.

    With the slope by the model ``push - pull``, both parts of zero or more, a factor ``a`` with the present value
    ``a0`` has the majoriser with the slope ``PUSH (a / a0)^q - PULL (a / a0)^p``, ``p <= 0 <= q``; capitals are
    contracted with the other factors (Fevotte and Idier, doi:10.1162/NECO_a_00168).
    """

    quadratic: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def powers(self) -> tuple[float, float]:
        """The powers ``p`` and ``q`` of pull and push."""

    @property
    @abc.abstractmethod
    def zeros_allowed(self) -> bool:
        """Whether the data may be zero."""

    @abc.abstractmethod
    def entries(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the loss of every entry: zero where the model equals the data, infinite where it is impossible."""

    @abc.abstractmethod
    def pull(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the part of the slope that pulls the model up, zero or more."""

    @abc.abstractmethod
    def push(self, model: Float[Array, "..."]) -> Float[Array, "..."] | None:
        """Return the part of the slope that pushes the model down, zero or more; None where it is one everywhere."""

    def entry_weights(self, values: np.ndarray | Entries, valid: np.ndarray | None, normalise: bool) -> EntryWeights:
        """Return the mask; see the base class."""
        del normalise
        return split_mask(valid, values.shape)

    def value(
        self, data: Float[Array, "..."], model: Float[Array, "..."], weight: Float[Array, "..."] | float = 1.0
    ) -> Float[Array, ""]:
        """Return the weighted sum over the entries."""
        return jnp.sum(weight * self.entries(jnp.asarray(data), jnp.asarray(model)))


class AbstractRobustLoss(AbstractLoss):
    """A loss of the residual that grows more slowly than its square."""

    quadratic: ClassVar[bool] = False

    @abc.abstractmethod
    def entries(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the loss of every entry, in units of the data squared."""

    @abc.abstractmethod
    def trust(self, data: Float[Array, "..."], model: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the weight of every entry in the sum of squares that touches the loss from above at this model."""

    def entry_weights(self, values: np.ndarray | Entries, valid: np.ndarray | None, normalise: bool) -> EntryWeights:
        """Return the mask; see the base class."""
        del normalise
        return split_mask(valid, values.shape)

    def value(
        self, data: Float[Array, "..."], model: Float[Array, "..."], weight: Float[Array, "..."] | float = 1.0
    ) -> Float[Array, ""]:
        """Return the weighted sum over the entries."""
        return jnp.sum(weight * self.entries(jnp.asarray(data), jnp.asarray(model)))


def split_mask(valid: np.ndarray | None, shape: tuple[int, ...]) -> EntryWeights:
    """Return a mask as one vector per axis where it is such a product, else as an array."""
    none = (None,) * len(shape)
    if valid is None:
        return EntryWeights(none, None, None)
    valid = np.broadcast_to(valid, shape)
    axes = range(len(shape))
    # Along axes that only repeat the mask a single point is looked at.
    own = valid[tuple(slice(None) if step else slice(1) for step in valid.strides)]
    vectors = [np.asarray(own.any(axis=tuple(k for k in axes if k != axis))) for axis in axes]
    if int(np.prod([int(v.sum()) for v in vectors])) == int(own.sum()):
        vectors = [np.broadcast_to(v, n) if len(v) == 1 else v for v, n in zip(vectors, shape, strict=True)]
        return EntryWeights(tuple(None if v.all() else v.astype(float) for v in vectors), None, None)
    return EntryWeights(none, np.ascontiguousarray(valid), None)
