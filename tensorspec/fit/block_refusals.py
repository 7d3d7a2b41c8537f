"""What cannot be fitted in blocks, and what would cost too much: why, and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import prod

import xarray as xr

from tensorspec.algebra.blocks import BlockSource
from tensorspec.errors import ConstraintConflict, InvalidArgument
from tensorspec.fit.behind import Behind
from tensorspec.fit.gather import Gathered
from tensorspec.models.base import AbstractModel
from tensorspec.models.parafac2 import PARAFAC2
from tensorspec.solvers.dispatch import joint_solver

__all__ = ["mode_in_blocks", "refuse", "refuse_solvers", "warn_of_chunks"]

_HINT = "load the data (data.load()) if they fit in memory, or bin them: data.coarsen(...).sum()"


def mode_in_blocks(tensors: Mapping[str, xr.DataArray], behind: Behind) -> str:
    """Return the mode that comes in blocks: the first of the largest tensor, pixels before others."""
    key = max(tensors, key=lambda name: (tensors[name].chunks is not None, tensors[name].size))
    return behind.names[key][0]


def refuse(model: AbstractModel, behind: Behind, mode: str) -> None:
    """Refuse models and operators that need all pixels at once.

    Raises
    ------
    InvalidArgument, ConstraintConflict
        Saying why, and what to do.
    """
    if isinstance(model, PARAFAC2):
        raise InvalidArgument(f"PARAFAC2 cannot go through data in blocks: its profiles follow the samples; {_HINT}")
    for key, names in behind.names.items():
        if mode in names[1:]:
            raise InvalidArgument(
                f"mode {mode!r} comes in blocks and is not the first of tensor {key!r}, which has the modes "
                f"{list(names)}; transpose it, or {_HINT}"
            )
        operators = behind.operators[key]
        if mode in names and operators is not None and operators[0] is not None:
            raise ConstraintConflict(
                f"tensor {key!r} sees mode {mode!r} through {type(operators[0]).__name__}, and this mode comes in "
                f"blocks: what one pixel sees lies in several; {_HINT}"
            )
    sizes = {name: labels.size for name, labels in behind.labels.items()}
    if mode not in model.shapes(behind.names, sizes):
        raise InvalidArgument(f"mode {mode!r} is left whole, and comes in blocks: give it a rank, or {_HINT}")


def refuse_solvers(gathered: Gathered, mode: str) -> None:
    """Refuse solvers that read the data again and again within a sweep.

    Raises
    ------
    InvalidArgument, ConstraintConflict
        Saying why, and what to do.
    """
    joint = joint_solver(gathered.program.blocks)
    if joint is not None:
        raise InvalidArgument(
            f"solver={type(joint).__name__}() reads the data many times a sweep, which data in blocks (of mode "
            f"{mode!r}) do not allow; use solver='auto', or {_HINT}"
        )
    for block in gathered.program.blocks:
        if block.scored:
            raise ConstraintConflict(
                f"a likelihood with constraints on mode {', '.join(map(repr, block.modes))} that do not fall apart "
                "into entries is solved in steps that read all data at every trial, which data in blocks do not "
                f"allow; use ts.LeastSquares(scaling='poisson'), or {_HINT}"
            )


def warn_of_chunks(tensors: Mapping[str, xr.DataArray], behind: Behind, sources: Mapping[str, BlockSource]) -> None:
    """Warn where chunks cut spectra, and say what it costs; `sources` are the blocks as they will be read."""
    for key, tensor in tensors.items():
        if tensor.chunks is None:
            continue
        first = behind.own[key][behind.names[key][0]].dims
        cut = {dim: len(own) for dim, own in zip(tensor.dims, tensor.chunks, strict=True) if dim not in first}
        pieces = prod(cut.values())
        if pieces == 1:
            continue
        pixels = prod(max(own) for dim, own in zip(tensor.dims, tensor.chunks, strict=True) if dim in first)
        whole = pixels * prod(tensor.sizes[dim] for dim in cut)
        source = sources[key]
        listed = ", ".join(f"{dim}=-1" for dim, count in cut.items() if count > 1)
        cost = "a block is put together from many chunks"
        if source.held:
            cost = "the whole spectra of a chunk are put together and held while their blocks are worked on"
        elif source.repeats > 1:
            cost = f"every chunk is read {source.repeats} times a pass"
        warnings.warn(
            f"the chunks of tensor {key!r} cut its spectra into {pieces} pieces, so {cost} "
            f"({whole * tensor.dtype.itemsize / 2**20:.0f} MiB for the whole spectra of one chunk); store it in chunks "
            f"of whole spectra once: data.chunk({listed}).to_zarr(...)",
            stacklevel=4,
        )
