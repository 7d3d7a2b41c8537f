"""What a start offers: factors, before constraints and norms are applied."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from tensorspec.algebra.entries import Entries
from tensorspec.errors import InvalidArgument

__all__ = ["AbstractStart", "Reduced", "StartContext", "unfolded_along"]


class Reduced(NamedTuple):
    """A core and, for each axis, an orthonormal ``(size, kept)`` basis or None, that come close to a tensor."""

    core: np.ndarray
    bases: Sequence[np.ndarray | None]


class StartContext(NamedTuple):
    """What a start may look at.

    Attributes
    ----------
    tensors
        For each tensor its modes and its values, one axis per mode, zero where missing; of data that are mostly zero
        their entries.
    weights
        What the values of each tensor are multiplied by so that all count alike (scale times the root of the weight).
    sizes
        Size of each mode that has a factor, in order.
    columns
        Number of components of each of them.
    carrier
        The mode that carries the amplitudes of most tensors; the name of a core where the model has one.
    nonnegative
        For each mode, whether its constraints keep it from going negative.
    dtype
        Type of the factors.
    norms
        Root of the sum of squares of the values of each tensor; None where it is not known yet.
    reduced
        Something small that stands for each tensor; None where there is none.
    """

    tensors: Sequence[tuple[tuple[str, ...], np.ndarray | Entries]]
    weights: Sequence[float]
    sizes: Mapping[str, int]
    columns: Mapping[str, int]
    carrier: str
    nonnegative: Mapping[str, bool]
    dtype: np.dtype
    norms: Sequence[float] | None = None
    reduced: Sequence[Reduced | None] | None = None

    @property
    def rank(self) -> int:
        """Number of components of all modes.

        Raises
        ------
        InvalidArgument
            When they differ, as in a Tucker model.
        """
        if self.carrier not in self.sizes:
            raise InvalidArgument(
                f"this start gives every mode the same components, which meet one to one, and the model has a core and "
                f"the ranks {dict(self.columns)}; use start='auto', ts.HOSVD() or ts.Random()"
            )
        return next(iter(self.columns.values()))


class AbstractStart(eqx.Module):
    """Base of every start."""

    # Whether another seed gives another start; a start that does not is not repeated.
    random: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return one ``(size, rank)`` factor per mode."""


def unfolded_along(values: np.ndarray | Entries, axis: int) -> Any:
    """Return the matrix of an axis against all others; one of SciPy where the values are entries."""
    if isinstance(values, Entries):
        return values.unfolded(axis)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
