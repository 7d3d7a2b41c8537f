"""What a fit of data in blocks begins with: a fit of bins of pixels, in memory."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.constraints.simplex import SumToOne
from tensorspec.fit.core import cores_given
from tensorspec.fit.gather import Gathered
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import by_tensor
from tensorspec.losses import AbstractDivergence, AbstractLoss, LeastSquares
from tensorspec.models.base import AbstractModel
from tensorspec.solution import Fit
from tensorspec.solvers.loop import Limits

__all__ = ["Call", "bins_for", "fit_binned", "spread_out"]

# Entries of the binned copy, over all tensors, at most.
BINNED = 2**25
# The binned data merely resemble all data: when their fit ends.
_SWEEPS, _TOL = 500, 1e-6


@dataclass(frozen=True, kw_only=True)
class Call:
    """What `fit` was called with, checked.

    Attributes
    ----------
    losses
        Of each tensor.
    mask, modes, weights, solver, start, progress, checkpoint, rescale
        As the user gave them.
    restarts
        Number of starts.
    limits
        When a fit ends.
    seed
        What random starts are drawn from.
    recipe
        The settings of the call as JSON.
    began
        When it was called, on the monotonic clock.
    """

    losses: dict[str, AbstractLoss]
    mask: Any
    modes: Any
    weights: Any
    solver: Any
    start: Any
    restarts: int
    limits: Limits
    seed: int
    progress: bool | str
    checkpoint: Any
    rescale: bool
    recipe: dict[str, Any]
    began: float


def bins_for(tensors: Mapping[str, xr.DataArray], shape: tuple[int, ...]) -> int:
    """Return how many pixels along every dimension become one, so that the binned copies are small."""
    width = sum(tensor.size for tensor in tensors.values()) // prod(shape)
    bins = 1
    while prod(-(-size // bins) for size in shape) * width > BINNED and bins < max(shape):
        bins += 1
    return bins


def _binned(tensor: xr.DataArray, found: Surveyed, gathered: Gathered, mode: str, bins: int) -> xr.DataArray:
    """Return the binned copy of a tensor with its labels."""
    own = gathered.behind.own[found.name]
    assert found.binned is not None
    first = own[mode]
    dims = [dim for name in found.names for dim in own[name].dims]
    shape = [size for name in found.names[1:] for size in own[name].shape]
    values = found.binned.reshape(*found.binned.shape[: len(first.dims)], *shape)
    coords: dict[str, Any] = {}
    for dim in dims:
        coord = tensor.coords.get(dim)
        if coord is None or coord.dtype.kind not in "iuf":
            continue
        given = np.asarray(coord.values, float)
        if dim in first.dims:
            given = np.array([given[k : k + bins].mean() for k in range(0, len(given), bins)])
        coords[dim] = (dim, given, dict(coord.attrs))
    attrs = {key: value for key, value in tensor.attrs.items() if key != "noise" or bins == 1}
    return xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)


def fit_binned(
    tensors: Mapping[str, xr.DataArray],
    gathered: Gathered,
    model: AbstractModel,
    call: Call,
    mode: str,
    bins: int,
    found: Mapping[str, Surveyed],
    in_memory: Callable[..., Fit],
) -> Fit:
    """Fit the binned data: without what constrains pixels as neighbours or by their place, which binning changes."""
    binned = {key: _binned(tensors[key], found[key], gathered, mode, bins) for key in found}
    data = {key: binned.get(key, tensor) for key, tensor in tensors.items()}
    simple = (NonNegative, SumToOne)
    kept = tuple(item for item in model.constraints.get(mode, ()) if isinstance(item, simple))
    small: Any = dataclasses.replace(
        model,  # type: ignore[type-var]
        constraints={**model.constraints, mode: kept},
        links=tuple(link for link in model.links if mode not in link.modes),
    )
    losses = dict(call.losses)
    for key in found:
        loss = losses[key]
        if isinstance(loss, LeastSquares) and isinstance(loss.sigma, xr.DataArray):
            losses[key] = LeastSquares()
    left = None if call.limits.deadline is None else max(call.limits.deadline - time.monotonic(), 0.01)
    masks = by_tensor(call.mask, list(data), "mask", None)
    masks = {key: item for key, item in masks.items() if item is not None and key not in found}
    with warnings.catch_warnings():
        # What is to be said of the data is said of all of them.
        warnings.simplefilter("ignore")
        return in_memory(
            data,
            small,
            loss=losses,
            mask=masks or None,
            modes=call.modes,
            weights=call.weights,
            solver=call.solver,
            start=call.start,
            restarts=call.restarts,
            max_sweeps=_SWEEPS,
            tol=max(call.limits.tol, _TOL),
            seed=call.seed,
            progress=False,
            time_limit=left,
            rescale=call.rescale,
            blocks=False,
        )


def spread_out(
    small: Fit, gathered: Gathered, mode: str, bins: int, found: Mapping[str, Surveyed]
) -> dict[str, np.ndarray]:
    """Return the factors of a fit of binned data for all pixels, in the units of the problem."""
    factors: dict[str, np.ndarray] = {}
    for name, factor in small.factors.items():
        values = np.nan_to_num(np.asarray(factor.values, float))
        if name == mode:
            shape = gathered.labels[mode].shape
            for axis, size in enumerate(shape, start=1):
                values = np.repeat(values, bins, axis=axis).take(np.arange(size), axis=axis)
        factors[name] = values.reshape(len(values), -1).T
    keys = list(gathered.names)
    counted = any(isinstance(tensor.loss, AbstractDivergence) for tensor in gathered.problem.tensors)
    share = float(bins) ** len(gathered.labels[mode].dims) if counted else 1.0
    if gathered.cores:
        factors[mode] = factors[mode] / share
        return factors | cores_given(small, gathered)
    if len(keys) == 1:
        factors[mode] = factors[mode] * small.strengths().values * gathered.scales[0] / share
        return factors
    # Strengths differ from tensor to tensor: on a mode that each has by itself.
    spent: set[str] = set()
    for key, scale in zip(keys, gathered.scales, strict=True):
        last = gathered.names[key][-1]
        if last not in spent and last != mode:
            divisor = share if key in found else 1.0
            factors[last] = factors[last] * small.strengths(key).values * scale / divisor
            spent.add(last)
    return factors
