"""A tensor of a problem whose data come block by block."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from tensorspec.algebra.blocks import BlockSource, Place, plain_type
from tensorspec.problem import Tensor

__all__ = ["Room", "TensorBlocks"]

_ALIGNED = 64


class Room:
    """Memory in which the blocks of a pass take turns.

    New memory costs far more than what is done with it: 20 ms for 17 MB where the copy takes 2.  On a processor JAX
    uses aligned memory as it is, so nothing may be put in a place before what it held has been used.
    """

    def __init__(self) -> None:
        self._places: dict[object, np.ndarray] = {}

    def put(self, place: object, values: np.ndarray) -> jax.Array:
        """Return an array on the device, in the memory that the last one of this place had."""
        if jax.default_backend() != "cpu":
            return jax.device_put(values)
        held = self._places.get(place)
        if held is None or held.nbytes < values.nbytes + _ALIGNED:
            held = self._places[place] = np.empty(values.nbytes + _ALIGNED, np.uint8)
        start = -held.ctypes.data % _ALIGNED
        own = held[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        np.copyto(own, values)
        return jax.device_put(own)


@dataclass(frozen=True)
class TensorBlocks:
    """What makes a tensor out of some of its pixels.

    Attributes
    ----------
    source
        The data.
    use
        Which entries count, over the same pixels, or None; ones where a mode has a single point.
    sigma
        Standard deviation of every entry, over the same pixels, or None.
    unit
        Where `sigma` is given, what a weight of one over its square is divided by.
    points
        For each axis which of its points count at all, or None; masks that leave out whole pixels or channels.
    gaps
        Whether entries that are NaN are missing.
    dtype
        In which weighted data are kept.
    """

    source: BlockSource
    use: BlockSource | None
    sigma: BlockSource | None
    unit: float
    points: tuple[np.ndarray | None, ...]
    gaps: bool
    dtype: np.dtype

    @property
    def dense(self) -> bool:
        """Whether entries have weights of their own."""
        return self.gaps or self.use is not None or self.sigma is not None

    def values(self, place: Place) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the data of some pixels, zero where missing, and which entries count; None for all."""
        values = plain_type(self.source.read(place))
        for axis, points in enumerate(self.points):
            if points is not None:
                own = points if axis else points[self.source.rows(place)]
                own = own.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
                values = np.where(own, values, np.zeros((), values.dtype))
        valid = None
        if self.use is not None:
            valid = np.broadcast_to(self.use.read(place).astype(bool), values.shape)
        elif self.gaps:
            valid = ~np.isnan(values)
        if valid is not None:
            values = np.where(valid, values, np.zeros((), values.dtype))
        return values, valid

    def weights(self, place: Place, valid: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the weight of every entry of some pixels, boolean where it is only a mask; None for ones."""
        if self.sigma is None:
            return valid
        sigma = np.broadcast_to(self.sigma.read(place).astype(float), shape)
        weight = 1 / (np.square(np.where(sigma > 0, sigma, 1.0)) * self.unit)
        return weight if valid is None else np.where(valid, weight, 0.0)

    def tensor(self, place: Place, like: Tensor, rows: np.ndarray, room: Room, key: int) -> Tensor:
        """Return the tensor of some pixels.

        Parameters
        ----------
        place
            Where they lie.
        like
            The whole tensor, without its data.
        rows
            Which rows of the first mode they are.
        room, key
            Where the data are put, and the number of the tensor there.
        """
        values, valid = self.values(place)
        weight = self.weights(place, valid, values.shape)
        if weight is not None and weight.dtype.kind == "f":
            values, weight = (values * weight).astype(self.dtype), weight.astype(self.dtype)
        first = like.rows[0]
        own: Any = None if first is None else first[rows]
        return dataclasses.replace(
            like,
            blocks=(room.put(key, values),),
            dense=None if weight is None else (room.put((key, "weight"), weight),),
            rows=(own, *like.rows[1:]),
        )
