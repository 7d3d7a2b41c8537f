"""What a start offers: factors, before constraints and norms are applied."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np

__all__ = ["AbstractStart", "StartContext"]


class StartContext(NamedTuple):
    """What a start may look at.

    Attributes
    ----------
    tensors
        For each tensor its modes and its values, one axis per mode, zero where missing.
    weights
        What the values of each tensor are multiplied by so that all count alike (scale times the root of the weight).
    sizes
        Size of each mode, in order.
    rank
        Number of components.
    carrier
        The mode that carries the amplitudes of most tensors.
    nonnegative
        For each mode, whether its constraints keep it from going negative.
    dtype
        Type of the factors.
    """

    tensors: Sequence[tuple[tuple[str, ...], np.ndarray]]
    weights: Sequence[float]
    sizes: Mapping[str, int]
    rank: int
    carrier: str
    nonnegative: Mapping[str, bool]
    dtype: np.dtype


class AbstractStart(eqx.Module):
    """Base of every start."""

    # Whether another seed gives another start; a start that does not is not repeated.
    random: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return one ``(size, rank)`` factor per mode."""
