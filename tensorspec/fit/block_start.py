"""What a fit of data in blocks begins with: a fit of some pixels in memory, and bins of pixels for all others.

Pixels drawn at random show spectra as they were measured, while a bin shows mixtures.  Measured on planted counts (20
an entry, 65536 x 256, rank 6, one pixel in sixteen or bins of 4 x 4; ``python -m benchmarks.pixels_or_bins``): after
the first full sweep the objective of all data is 2e-6 above its minimum, and 6e-4 from bins; with pixels in random
order 1e-5 and 0.2.  At lower doses pixels are ahead too.  A phase so rare that no pixel of it is drawn is found by the
sweeps over all data alone.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.constraints.nonnegative import Box, NonNegative
from tensorspec.constraints.simplex import SumToOne
from tensorspec.constraints.sparse import Sparse
from tensorspec.fit.checked_call import Call
from tensorspec.fit.core import cores_given
from tensorspec.fit.gather import Gathered
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import by_tensor
from tensorspec.losses import LeastSquares
from tensorspec.models.base import AbstractModel
from tensorspec.models.cp import CP
from tensorspec.solution import Fit
from tensorspec.solvers.hals import HALS

__all__ = ["bins_for", "fit_rows", "pixels_need_bins", "share_of_rows", "spread_out"]

# Entries of the rows and of the binned copy, over all tensors, at most; but no fewer rows than that.
ROWS, BINNED, _FEWEST = 2**24, 2**24, 256
# These data merely resemble all data: when their fit ends.
_SWEEPS, _TOL = 500, 1e-6


def bins_for(tensors: Mapping[str, xr.DataArray], shape: tuple[int, ...]) -> int:
    """Return how many pixels along every dimension become one, so that the binned copies are small."""
    width = sum(tensor.size for tensor in tensors.values()) // prod(shape)
    bins = 1
    while prod(-(-size // bins) for size in shape) * width > BINNED and bins < max(shape):
        bins += 1
    return bins


def pixels_need_bins(model: AbstractModel, call: Call, mode: str) -> bool:
    """Return whether pixels have to begin near their answer.

    Where each is solved by itself and nearly exactly as soon as it is read (HALS, every entry on its own) they have
    not: forty repeats from the mean of all pixels came within 5e-8 of the objective, and the first pass sums no bins.
    """
    by_itself = (NonNegative, Sparse, Box)
    alone = all(isinstance(item, by_itself) for item in model.constraints_for(mode))
    linked = any(mode in link.modes for link in model.links)
    squares = all(isinstance(loss, LeastSquares) for loss in call.losses.values())
    swept = call.solver == "auto" or isinstance(call.solver, HALS)
    some = bool(model.constraints_for(mode))  # else exact least squares, which takes a look at all rows
    return not (isinstance(model, CP) and alone and some and squares and swept and not linked)


def share_of_rows(tensors: Mapping[str, xr.DataArray], shape: tuple[int, ...]) -> float:
    """Return the share of the pixels that a fit begins with."""
    width = sum(tensor.size for tensor in tensors.values()) // prod(shape)
    return min(1.0, max(ROWS // width, _FEWEST) / prod(shape))


def _as_samples(tensor: xr.DataArray, found: Surveyed, gathered: Gathered, mode: str, values: np.ndarray) -> Any:
    """Return values of some pixels with the labels of their tensor, the pixels one dimension without coordinates."""
    own = gathered.behind.own[found.name]
    rest = [dim for name in found.names[1:] for dim in own[name].dims]
    shape = [size for name in found.names[1:] for size in own[name].shape]
    coords = {
        dim: (dim, np.asarray(coord.values, float), dict(coord.attrs))
        for dim in rest
        if (coord := tensor.coords.get(dim)) is not None and coord.dtype.kind in "iuf"
    }
    return xr.DataArray(values.reshape(len(values), *shape), dims=(mode, *rest), coords=coords, attrs=tensor.attrs)


def fit_rows(
    tensors: Mapping[str, xr.DataArray],
    gathered: Gathered,
    model: AbstractModel,
    call: Call,
    mode: str,
    found: Mapping[str, Surveyed],
    in_memory: Callable[..., Fit],
) -> Fit:
    """Fit pixels drawn at random: without what constrains pixels as neighbours or by their place, which they lack."""
    rows = {key: _as_samples(tensors[key], item, gathered, mode, item.rows_kept()) for key, item in found.items()}
    data = {key: rows.get(key, tensor) for key, tensor in tensors.items()}
    simple = (NonNegative, SumToOne)
    kept = tuple(item for item in model.constraints.get(mode, ()) if isinstance(item, simple))
    changed: dict[str, Any] = {"constraints": {**model.constraints, mode: kept}}
    if model.links:
        changed["links"] = tuple(link for link in model.links if mode not in link.modes)
    small: Any = dataclasses.replace(model, **changed)  # type: ignore[type-var]
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
            modes={name: dims for name, dims in (call.modes or {}).items() if name != mode} or None,
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


def _of_bins(
    small: Fit, tensors: Mapping[str, xr.DataArray], gathered: Gathered, mode: str, found: Mapping[str, Surveyed]
) -> np.ndarray:
    """Return what the spectra of a fit make of the mean of every bin, shape (rank, bins along each dimension)."""
    means, first = {}, (0,)
    for key, item in found.items():
        assert item.binned is not None
        first = item.binned.shape[: item.binned.ndim - item.ndim + 1]
        means[key] = _as_samples(tensors[key], item, gathered, mode, item.binned.reshape(-1, *item.shape[1:]))
    solved = small.transform(means if len(small.tensors) > 1 else next(iter(means.values())), mode=mode)
    values = np.nan_to_num(np.asarray(solved.values, float))
    return values.reshape(len(values), *first)


def spread_out(
    small: Fit,
    tensors: Mapping[str, xr.DataArray],
    gathered: Gathered,
    mode: str,
    bins: int | None,
    found: Mapping[str, Surveyed],
) -> dict[str, np.ndarray]:
    """Return the factors of a fit of some pixels for all of them, in the units of the problem.

    Spectra are those of the fit, and pixels what these make of the mean of their bin, or without bins all the same.
    """
    factors: dict[str, np.ndarray] = {}
    shape = gathered.labels[mode].shape
    for name, factor in small.factors.items():
        values = np.nan_to_num(np.asarray(factor.values, float))
        if name != mode:
            factors[name] = values.reshape(len(values), -1).T
        elif bins is None:
            factors[mode] = np.broadcast_to(values.mean(axis=1), (prod(shape), len(values)))
        else:
            values = _of_bins(small, tensors, gathered, mode, found)
            for axis, size in enumerate(shape, start=1):
                values = np.repeat(values, bins, axis=axis).take(np.arange(size), axis=axis)
            factors[mode] = values.reshape(len(values), -1).T
    keys = list(gathered.names)
    if gathered.cores:
        return factors | cores_given(small, gathered)
    if len(keys) == 1:
        factors[mode] = factors[mode] * small.strengths().values * gathered.scales[0]
        return factors
    # Strengths differ from tensor to tensor: on a mode that each has by itself.
    spent: set[str] = set()
    for key, scale in zip(keys, gathered.scales, strict=True):
        last = gathered.names[key][-1]
        if last not in spent and last != mode:
            factors[last] = factors[last] * small.strengths(key).values * scale
            spent.add(last)
    return factors
