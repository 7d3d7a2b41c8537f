"""A start that is known: an earlier fit, or factors of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tensorspec.errors import InvalidArgument
from tensorspec.starts.base import AbstractStart, StartContext

__all__ = ["From"]


class From(AbstractStart):
    """Start from an earlier fit, or from a mapping of mode names to factors.

    Parameters
    ----------
    source
        A `Fit`, or a mapping of mode names to factors: DataArrays with a `component` dimension, or arrays of shape
        ``(size, rank)``.  Components keep their numbers.

    Examples
    --------
    >>> import numpy as np
    >>> From({"pixel": np.ones((4, 2))}).random
    False
    """

    source: Any
    random: ClassVar[bool] = False

    def factors(self, context: StartContext, seed: int) -> dict[str, np.ndarray]:
        """Return the given factors; what is missing or of another shape is refused."""
        del seed
        if not isinstance(self.source, Mapping):
            raise InvalidArgument(f"From({self.source!r}): expected a Fit or a mapping of mode names to factors")
        found = {}
        for mode, size in context.sizes.items():
            if mode not in self.source:
                raise InvalidArgument(
                    f"From(...): no factor for mode {mode!r}; there are factors for {list(self.source)}"
                )
            values = np.asarray(self.source[mode])
            if values.shape != (size, context.columns[mode]):
                raise InvalidArgument(
                    f"From(...): the factor of mode {mode!r} has shape {values.shape}; expected (size, rank) = "
                    f"{(size, context.columns[mode])}"
                )
            found[mode] = np.nan_to_num(values).astype(context.dtype)
        cores = {name: values for name, values in self.source.items() if name not in context.sizes}
        return found | {name: np.asarray(values, dtype=context.dtype) for name, values in cores.items()}
