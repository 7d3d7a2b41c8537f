"""Results as tensorly's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["to_tensorly"]


def to_tensorly(fit: Fit, name: str) -> Any:
    """Return the model of a tensor as a tensorly ``CPTensor``.

    Parameters
    ----------
    fit : Fit
        The fit.
    name : str
        The tensor.

    Returns
    -------
    CPTensor
        Weights ``(rank,)``, and for each mode of the tensor a factor of shape ``(size, rank)``.
    """
    from tensorly.cp_tensor import CPTensor

    columns = [fit.seen(name, mode).values.reshape(fit.rank, -1).T for mode in fit.tensors[name].modes]
    return CPTensor((fit.strengths(name).values, columns))
