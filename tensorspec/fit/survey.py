"""The first pass over data that come in blocks: whether they can be fitted, their totals, and a binned copy.

Everything that `clean` finds out of data in memory is found block by block here, where the blocks are read, and added
up in their order.  Rows drawn at random and a binned copy, which are small, are what a fit begins with; sums of counts
are counts, so that bins are as good a start for a likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.algebra.blocks import BlockSource, Place
from tensorspec.errors import InvalidData, UnknownMode, suggest
from tensorspec.fit.block_findings import BlockFindings, Surveying
from tensorspec.fit.surveyed import Surveyed
from tensorspec.losses.base import AbstractLoss, AbstractRobustLoss
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.losses.likelihood import Poisson
from tensorspec.modes import ModeLabels
from tensorspec.shared_modes import check_coordinates
from tensorspec.solvers.tensor_blocks import TensorBlocks

__all__ = ["survey"]

# Rows that are kept to look at the noise, and their entries at most.
_SAMPLED, _SAMPLE = 1024, 2**22


def survey(
    tensors: Mapping[str, xr.DataArray],
    masks: Mapping[str, Any],
    losses: Mapping[str, AbstractLoss],
    names: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, Mapping[str, ModeLabels]],
    bins: int | None,
    entries: int,
    watch: Callable[[float, int], None] = lambda share, number: None,
    answers: Callable[[Surveying, Sequence[Place]], Iterable[list[BlockFindings]]] = map,
    share: float = 0.0,
) -> tuple[dict[str, Surveyed], list[Place], BlockSource]:
    """Read all tensors once.

    Parameters
    ----------
    tensors, masks, losses
        By name; those tensors that have the mode which comes in blocks, as their first.
    names, labels
        The modes of each.
    bins
        How many pixels, along every dimension, become one of the binned copy; None for no such copy.
    entries
        About how many entries a block may have.
    watch
        Called after every block with the share that is done.
    answers
        What looks at all blocks and returns what it found in each, in their order: one after the other in this process,
        or on the machines of a cluster.
    share
        Share of the rows that are kept for a fit to begin with.

    Returns
    -------
    surveyed
        What was found, by tensor.
    places
        The blocks, the same for all tensors.
    leader
        The tensor by whose chunks they were cut.

    Raises
    ------
    InvalidData
        For whatever `clean` refuses, and for a store that cannot be read.
    """
    found = {}
    for key, tensor in tensors.items():
        own = labels[key]
        dims = [dim for name in names[key] for dim in own[name].dims]
        leading, rest = len(own[names[key][0]].dims), tuple(own[name].size for name in names[key][1:])
        array = tensor.transpose(*dims).data
        source = BlockSource(array, leading, rest, entries, key)
        use, rows = _use(masks[key], tensor, dims, names[key], own, leading, rest, key)
        loss = losses[key]
        given = loss.sigma if isinstance(loss, LeastSquares) else None
        sigma = None
        if isinstance(given, xr.DataArray):
            sigma = _aligned(given, tensor, dims, leading, rest, own, "sigma", key)
        dtype = np.dtype(np.float64 if source.dtype == np.float64 else np.float32)
        gaps = source.dtype.kind == "f" and masks[key] is None
        found[key] = Surveyed(key, TensorBlocks(source, use, sigma, 1.0, tuple(rows), gaps, dtype), names[key])
    leader = max((item.blocks.source for item in found.values()), key=lambda source: source.size)
    sizes = next(labels[key][own[0]].shape for key, own in names.items() if key in found)
    every = max(1, -(-leader.shape[0] // _SAMPLED))
    for item in found.values():
        item.begin(sizes, bins)
    rows = leader.shape[0]
    work = Surveying(
        tuple(found),
        tuple(item.blocks for item in found.values()),
        # Others need no loss there, and may hold as much as the data (sigma).
        tuple(losses[key] if isinstance(losses[key], (Poisson, AbstractRobustLoss)) else None for key in found),
        tuple(max(every, rows * prod(item.shape[1:]) // _SAMPLE) for item in found.values()),
        bins,
        share,
    )
    done, places = 0, leader.places
    try:
        for findings in answers(work, places):
            for item, own in zip(found.values(), findings, strict=True):
                item.add(own)
            done += 1
            watch(done / len(places), 1)
    except KeyboardInterrupt as stop:
        stop.add_note(
            f"stopped in the first pass over the data, after {done} of {len(places)} blocks: nothing has been fitted "
            "yet and nothing was written; the same call begins anew"
        )
        raise
    for key, item in found.items():
        item.close(losses[key])
    return found, list(leader.places), leader


def _aligned(
    values: xr.DataArray,
    tensor: xr.DataArray,
    dims: Sequence[str],
    leading: int,
    rest: tuple[int, ...],
    labels: Mapping[str, ModeLabels],
    what: str,
    name: str,
) -> BlockSource:
    """Return a mask or the like as blocks over the same pixels; what it repeats takes no memory."""
    if not isinstance(values, xr.DataArray):
        raise InvalidData(f"the {what} of tensor {name!r} is a {type(values).__name__}; expected an xarray.DataArray")
    for dim, size in values.sizes.items():
        if dim not in dims:
            raise UnknownMode(f"the {what} has a dimension {dim!r}; the tensor has {dims}.{suggest(str(dim), dims)}")
        if size != tensor.sizes[dim]:
            raise InvalidData(f"the {what} has {size} points along {dim!r}, the tensor {tensor.sizes[dim]}")
    check_coordinates(values, {dim: coord for own in labels.values() for dim, coord in own.coords.items()}, what)
    whole = values.variable.set_dims({dim: tensor.sizes[dim] for dim in dims}).transpose(*dims)
    return BlockSource(whole.data, leading, rest, name=f"{what} of {name}")


def _use(
    mask: Any,
    tensor: xr.DataArray,
    dims: Sequence[str],
    names: tuple[str, ...],
    labels: Mapping[str, ModeLabels],
    leading: int,
    rest: tuple[int, ...],
    name: str,
) -> tuple[BlockSource | None, list[np.ndarray | None]]:
    """Return a mask in blocks, or, where it leaves out whole points of one mode, as a vector of that mode."""
    rows: list[np.ndarray | None] = [None] * len(names)
    if mask is None:
        return None, rows
    source = _aligned(mask, tensor, dims, leading, rest, labels, "mask", name)
    for axis, mode in enumerate(names):
        own = labels[mode]
        if set(mask.dims) <= set(own.dims):
            sizes = dict(zip(own.dims, own.shape, strict=True))
            values = np.asarray(mask.variable.set_dims(sizes).transpose(*own.dims).values).reshape(-1)
            rows[axis] = None if values.all() else values.astype(bool)
            return None, rows
    return source, rows
