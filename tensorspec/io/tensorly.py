"""Results as tensorly's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorspec.cores import axes_of
from tensorspec.pieces import refuse_evolving

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["to_tensorly"]


def to_tensorly(fit: Fit, name: str) -> Any:
    """Return the model of a tensor as a tensorly ``CPTensor``, or ``TuckerTensor`` where it has a core.

    Parameters
    ----------
    fit : Fit
        The fit.
    name : str
        The tensor.

    Returns
    -------
    CPTensor or TuckerTensor
        Weights ``(rank,)``, and for each mode of the tensor a factor of shape ``(size, rank)``; with a core the core,
        and an identity for a mode that is left whole.
    """
    from tensorly.cp_tensor import CPTensor

    if name in fit.cores:
        from tensorly.tucker_tensor import TuckerTensor

        factors = [
            fit.seen(name, mode).values.reshape(fit.ranks[mode], -1).T
            if mode in fit.factors
            else np.eye(fit.modes[mode].size)
            for mode in fit.tensors[name].modes
        ]
        return TuckerTensor((axes_of(fit, name), factors))
    refuse_evolving(fit, "to_tensorly", "a CPTensor cannot hold it; take fit.factors and fit.weights")

    columns = [fit.seen(name, mode).values.reshape(fit.rank, -1).T for mode in fit.tensors[name].modes]
    return CPTensor((fit.strengths(name).values, columns))
