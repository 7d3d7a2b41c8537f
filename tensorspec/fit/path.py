"""Fits over a range of strengths, each started from the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from tensorspec.constraints.base import AbstractConstraint
from tensorspec.errors import InvalidArgument
from tensorspec.fit.call import fit
from tensorspec.models.base import AbstractModel
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.starts.given import From

__all__ = ["path"]


def path(
    data: Any, model: AbstractModel, constraint: AbstractConstraint, strengths: Iterable[float], **options: Any
) -> dict[float, Fit]:
    """Fit a model at several strengths of one of its constraints, each fit started from the one before.

    A new strength does not compile again, so this costs little more than the sweeps.

    Parameters
    ----------
    data, model
        As for `fit`.
    constraint
        The constraint of the model whose strength is varied, as it was given to the model.
    strengths
        Its values, in the order in which they are fitted.
    **options
        Further arguments of `fit`; `start` is that of the first strength.

    Returns
    -------
    dict
        One `Fit` for each strength.

    Raises
    ------
    InvalidArgument
        When the model does not hold the constraint, it has no strength, or none is given.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from tensorspec.constraints.sparse import Sparse
    >>> from tensorspec.models.cp import NMF
    >>> data = xr.DataArray(np.outer([1.0, 2, 3], [1.0, 0.1, 4]), dims=("x", "energy"))
    >>> sparse = Sparse(0.1)
    >>> fits = path(data, NMF(1, {"energy": sparse}), sparse, [0.01, 1.0], progress=False)
    >>> [int((fits[s].spectra() > 0).sum()) for s in fits]
    [3, 2]
    """
    if not any(field.name == "strength" for field in dataclasses.fields(constraint)):
        raise InvalidArgument(f"{constructor_repr(constraint)} has no strength to vary")
    found = [(mode, items) for mode, items in model.constraints.items() if any(i is constraint for i in items)]
    if not found:
        raise InvalidArgument(
            f"the model does not hold {constructor_repr(constraint)} itself; give the object that the model was given"
        )
    result: dict[float, Fit] = {}
    for strength in strengths:
        changed = {
            mode: tuple(dataclasses.replace(i, strength=strength) if i is constraint else i for i in items)
            for mode, items in found
        }
        current = dataclasses.replace(model, constraints={**model.constraints, **changed})
        if result:
            options = {**options, "start": From(next(reversed(result.values()))), "restarts": 1}
        result[float(strength)] = fit(data, current, **options)
    if not result:
        raise InvalidArgument("strengths is empty; expected at least one number")
    return result
