"""Is this data that can be fitted?  One clear line before any work starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.errors import InvalidArgument, InvalidData, NotEnoughMemory, UnknownName, suggest
from tensorspec.fit.own import own_copy, sum_of_squares
from tensorspec.fit.sparsity import better_dense, entries_of, mostly_zero, plain_type, stored_bytes
from tensorspec.losses.base import AbstractLoss
from tensorspec.modes import ModeLabels, broadcast_to_array, to_array

__all__ = [
    "CleanTensor",
    "as_mapping",
    "available_memory",
    "by_tensor",
    "check_memory",
    "clean",
    "place",
]

SINGLE = "data"


class CleanTensor(NamedTuple):
    """A tensor as plain arrays, one axis per mode.

    Attributes
    ----------
    values
        In the type of the data (native byte order), zero where missing; data that are mostly zero as their entries.
    valid
        True where an entry counts; None when all do.
    rms
        Root mean square of the valid entries.
    count
        Number of valid entries.
    """

    values: np.ndarray | Entries
    valid: np.ndarray | None
    rms: float
    count: int


def as_mapping(data: Any) -> dict[str, xr.DataArray]:
    """Return the data as a mapping of tensor names to DataArrays.

    Raises
    ------
    InvalidData
        When it is neither a DataArray nor a mapping of them, or is empty.
    """
    if isinstance(data, xr.DataArray):
        return {SINGLE: data}
    if isinstance(data, np.ndarray):
        names = (
            ("y", "x", "energy")[-data.ndim :] if 1 < data.ndim < 4 else tuple(f"mode_{k}" for k in range(data.ndim))
        )
        raise InvalidData(
            f"data is a plain numpy array of shape {data.shape}; name its dimensions: "
            f"xr.DataArray(data, dims={names!r})"
        )
    if not isinstance(data, Mapping):
        raise InvalidData(
            f"data is a {type(data).__name__}; expected an xarray.DataArray, or a mapping of names to DataArrays"
        )
    if not data:
        raise InvalidData("data is an empty mapping; expected at least one DataArray by name")
    found = {}
    for name, tensor in data.items():
        if not isinstance(tensor, xr.DataArray):
            raise InvalidData(
                f"tensor {name!r} is a {type(tensor).__name__}; expected an xarray.DataArray: "
                f"xr.DataArray({name}, dims=(...))"
            )
        found[str(name)] = tensor
    return found


def by_tensor(given: Any, names: list[str], what: str, default: Any) -> dict[str, Any]:
    """Return an option that may be given once for all tensors, or as a mapping by tensor.

    Raises
    ------
    UnknownName
        When the mapping names a tensor that does not exist.
    """
    if given is None:
        return dict.fromkeys(names, default)
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    for name in given:
        if name not in names:
            listed = "there is one tensor; give the option itself, not a mapping" if names == [SINGLE] else names
            raise UnknownName(f"{what} given for tensor {name!r}; there are {listed}.{suggest(name, names)}")
    return {name: given.get(name, default) for name in names}


def check_kind(name: str, tensor: xr.DataArray) -> None:
    """Refuse text, complex numbers, dates and empty arrays."""
    if tensor.dtype.kind not in "buif":
        raise InvalidData(
            f"tensor {name!r} has dtype {tensor.dtype}; expected real numbers. "
            + ("Take its absolute value or its real part first" if tensor.dtype.kind == "c" else "Convert it first")
        )
    if tensor.size == 0:
        raise InvalidData(f"tensor {name!r} is empty: its sizes are {dict(tensor.sizes)}")


def clean(
    name: str,
    tensor: xr.DataArray,
    mask: Any,
    names: tuple[str, ...],
    labels: Mapping[str, ModeLabels],
    loss: AbstractLoss | None = None,
) -> CleanTensor:
    """Return the values and which of them count.

    Data that are mostly zero, sparse arrays before all, come back as their entries where a loss is given that can take
    them so.

    Raises
    ------
    InvalidData
        For infinities, NaN where the mask says True, no valid entry, or nothing but zeros.
    """
    if loss is not None and (entries := entries_of(tensor, names, labels)) is not None:
        if not better_dense(entries):
            return _clean_entries(name, entries, mask, names, labels)
    values = to_array(tensor, names, labels)
    values = np.asarray(values if isinstance(values, np.ndarray) else values.todense())
    if loss is not None and mostly_zero(values, loss):
        return _clean_entries(name, Entries.from_dense(values), mask, names, labels)
    values = np.ascontiguousarray(plain_type(values))
    use = None if mask is None else _as_boolean(name, broadcast_to_array(mask, names, labels))
    # Sums of squares are finite unless an entry is not, so that good data are read once.
    shared = isinstance(tensor.data, np.ndarray) and np.may_share_memory(values, tensor.data)
    values, square = own_copy(values) if shared and use is None else (values, sum_of_squares(values))
    valid = use
    if not np.isfinite(square):
        infinite = np.isinf(values) if use is None else np.isinf(values) & use
        if infinite.any():
            raise InvalidData(
                f"tensor {name!r} holds {int(infinite.sum())} infinite values, the first at "
                f"{place(infinite, names, labels)}; mask them (mask=np.isfinite(data)) or set them to NaN, which "
                "means missing"
            )
        missing = np.isnan(values)
        if use is not None and (missing & use).any():
            raise InvalidData(
                f"tensor {name!r} is NaN in {int((missing & use).sum())} entries where the mask says True (use); "
                "set the mask to False there, or give no mask: NaN means missing"
            )
        if use is None and missing.any():
            valid = ~missing
    if valid is not None:
        if not valid.any():
            raise InvalidData(f"tensor {name!r} has no valid entry: every one is NaN or masked")
        values = np.where(valid, values, np.zeros((), values.dtype))
        square = sum_of_squares(values)
        if valid.all():
            valid = None
    count = values.size if valid is None else int(valid.sum())
    if square == 0:
        raise InvalidData(f"tensor {name!r} is zero everywhere; there is nothing to fit")
    return CleanTensor(values, valid, float(np.sqrt(square / count)), count)


def _clean_entries(
    name: str, entries: Entries, mask: Any, names: tuple[str, ...], labels: Mapping[str, ModeLabels]
) -> CleanTensor:
    """Return entries and which of all of them count; a mask takes no memory along modes that it does not have."""
    if entries.dtype.kind == "f" and not np.isfinite(entries.stored).all():
        wrong = ~np.isfinite(entries.stored)
        raise InvalidData(
            f"tensor {name!r} is sparse and holds {int(wrong.sum())} values that are infinite or NaN; leave them out, "
            "and say by a mask what was not measured"
        )
    valid, count = None, entries.size
    if mask is not None:
        valid = _as_boolean(name, broadcast_to_array(mask, names, labels))
        # What a mask repeats is counted once.
        own = valid[tuple(slice(None) if step else slice(1) for step in valid.strides)]
        used = int(own.sum())
        if used == 0:
            raise InvalidData(f"tensor {name!r} has no valid entry: every one is masked")
        if used == own.size:
            valid = None
        else:
            count = used * (entries.size // own.size)
            there = valid[entries.indices]
            entries = Entries(entries.shape, tuple(k[there] for k in entries.indices), entries.stored[there])
    if not len(entries.stored):
        raise InvalidData(f"tensor {name!r} is zero everywhere; there is nothing to fit")
    square = float(np.sum(np.square(entries.stored, dtype=np.float64)))
    return CleanTensor(entries, valid, float(np.sqrt(square / count)), count)


def _as_boolean(name: str, mask: np.ndarray) -> np.ndarray:
    if mask.dtype.kind == "b":
        return mask
    if not np.isin(mask, (0, 1)).all():
        raise InvalidData(f"the mask of tensor {name!r} has dtype {mask.dtype}; expected True (use) or False")
    return mask.astype(bool)


def place(found: np.ndarray | int, names: tuple[str, ...], labels: Mapping[str, ModeLabels]) -> str:
    """Return the first place that was found, or the place of a number in the order of memory, by dimension."""
    dims = [dim for name in names for dim in labels[name].dims]
    sizes = [size for name in names for size in labels[name].shape]
    first = np.unravel_index(found if isinstance(found, int) else int(np.argmax(found)), sizes)
    return ", ".join(f"{dim}={int(index)}" for dim, index in zip(dims, first, strict=True)) + " (counted from 0)"


def available_memory() -> int | None:
    """Return the memory in bytes that a fit may count on, or None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def check_memory(data: Mapping[str, xr.DataArray], masked: bool) -> dict[str, int]:
    """Return the memory plan in bytes, and refuse what will not fit.

    Raises
    ------
    NotEnoughMemory
        With the plan: what each tensor takes as stored and as computed with.
    """
    plan = {}
    for name, tensor in data.items():
        if (stored := stored_bytes(tensor)) is not None:
            # Along each mode the entries lie once more, and are read in the type of the factors.
            plan[f"{name}, its entries"] = stored
            plan[f"{name}, its entries in the order of every mode"] = stored * tensor.ndim
            continue
        stored = tensor.size * tensor.dtype.itemsize
        working = tensor.size * (8 if tensor.dtype == np.float64 else 4)
        converted = 0 if tensor.dtype.kind == "f" else working
        plan[f"{name}, as stored ({tensor.dtype})"] = stored
        if converted:
            plan[f"{name}, converted while in use"] = converted
        if masked:
            plan[f"{name}, mask"] = tensor.size
    have = available_memory()
    need = sum(plan.values())
    if have is not None and need > have:
        lines = "; ".join(f"{what} {size / 2**30:.2f} GiB" for what, size in plan.items())
        raise NotEnoughMemory(
            f"the fit needs {need / 2**30:.2f} GiB, and {have / 2**30:.2f} GiB are free: {lines}. Bin or crop the data "
            "(data.coarsen(...).sum(), data.isel(...)), or keep counts as small integers"
        )
    return plan


def check_count(what: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`, or refuse it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidArgument(f"{what}={value!r}: expected a whole number of {least} or more")
    return int(value)
