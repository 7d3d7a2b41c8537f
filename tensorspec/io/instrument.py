"""Instruments' files: any that RosettaSciIO reads, as labelled arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import AmbiguousFile, UnknownName, suggest
from tensorspec.io.axes import Axis, arrange, as_data_array, read_axes
from tensorspec.io.metadata import apply_mapping, attributes
from tensorspec.io.readers import read

__all__ = ["SignalInfo", "SignalTable", "load", "signals"]


@dataclass(frozen=True)
class SignalInfo:
    """What one signal of a file is.

    Attributes
    ----------
    name : str
        Its title, or the file's name where it has none.
    shape : tuple of int
        As `load` gives it.
    dims : tuple of str
        As `load` gives them.
    axes : str
        Ranges with units.
    dtype : str
        Of the data.
    signal_type : str
        As in HyperSpy: ``EELS``, ``EDS_TEM``, ...; may be empty.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    axes: str
    dtype: str
    signal_type: str


class SignalTable(list[SignalInfo]):
    """The signals of a file, numbered from 1 when printed.

    Parameters
    ----------
    infos : sequence of SignalInfo
        The signals.
    notes : sequence of str
        What the reader warned of.
    """

    def __init__(self, infos: Sequence[SignalInfo] = (), notes: Sequence[str] = ()) -> None:
        super().__init__(infos)
        self.notes = tuple(notes)

    def __str__(self) -> str:
        rows = [("", "name", "shape", "axes", "dtype", "type")]
        for number, info in enumerate(self, start=1):
            shape = " x ".join(map(str, info.shape))
            rows.append((str(number), info.name, shape, info.axes, info.dtype, info.signal_type))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"The reader says: {note}" for note in self.notes)])

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class _Signal:
    """One signal of a file: the array as read, and what its axes mean."""

    info: SignalInfo
    data: Any
    dims: dict[str, tuple[int, Axis]]
    attrs: dict[str, Any]


def load(
    path: str | os.PathLike[str], signal: str | int | None = None, lazy: bool = False, **reader_options: Any
) -> xr.DataArray:
    """Load one signal of an instrument's file.

    Parameters
    ----------
    path : path
        Any file that RosettaSciIO reads: dm3, dm4, bcf, emd, hspy, ser, pts, ...
    signal : str or int, optional
        Which one, by name or by number from 1, where the file holds several.
    lazy : bool
        Leave the data on disk: the result is backed by dask.
    **reader_options
        Go to the reader; ``reader`` chooses one by name, where the extension is misleading.

    Returns
    -------
    DataArray
        Dimensions ``y, x`` (a line scan: ``x``; a single spectrum: neither), then the signal's: ``energy_loss`` (eV)
        for EELS, ``xray_energy`` (keV) for EDX, else the file's own name in lower case.  Units are in ``attrs`` of the
        coordinates; an axis without calibration has none.  ``attrs`` has those that are known of ``title, units,
        signal_type, beam_energy_keV, elements, original_filename``, and ``metadata``, all that the file says, nested.

    Raises
    ------
    AmbiguousFile
        If the file holds several signals and `signal` does not choose one.
    UnknownName
        If it holds no such signal.
    MissingFile, UnreadableFile
        If there is no such file, or it cannot be read.
    MissingDependency
        If RosettaSciIO is not installed.

    Examples
    --------
    >>> import tensorspec as ts
    >>> eels = ts.load("spectrum_image.dm3")  # doctest: +SKIP
    >>> edx = ts.load("map.bcf", signal="EDX", lazy=True)  # doctest: +SKIP
    """
    path = Path(path).expanduser()
    chosen = None
    if not lazy and signal is None:
        # Listing is cheap where reading everything is not, and most files with a map hold images beside it.
        found, notes = _signals(path, True, reader_options)
        chosen = _choose(found, notes, None, path)
    if chosen is None or hasattr(chosen.data, "compute"):
        found, notes = _signals(path, lazy, reader_options)
        chosen = _choose(found, notes, signal, path)
    tensor = as_data_array(chosen.data, chosen.dims, chosen.attrs)
    if not lazy and tensor.chunks is not None:
        tensor = tensor.compute()
    return tensor.chunk() if lazy and tensor.chunks is None else tensor


def signals(path: str | os.PathLike[str], **reader_options: Any) -> SignalTable:
    """List the signals of an instrument's file, without reading the data where the reader can.

    Parameters
    ----------
    path : path
        Any file that RosettaSciIO reads.
    **reader_options
        As for `load`.

    Returns
    -------
    SignalTable
        A list of `SignalInfo` that prints as a table.

    Raises
    ------
    MissingFile, UnreadableFile
        If there is no such file, or it cannot be read.
    MissingDependency
        If RosettaSciIO is not installed.

    Examples
    --------
    >>> import tensorspec as ts
    >>> ts.signals("map.bcf")  # doctest: +SKIP
       name  shape            axes                                             dtype   type
    1  BSE   75 x 100         y 0 to 646.5 µm, x 0 to 864.9 µm                 uint16
    2  EDX   75 x 100 x 2048  y 0 to 646.5 µm, x 0 to 864.9 µm, xray_energy …  uint8   EDS_SEM
    """
    found, notes = _signals(Path(path).expanduser(), True, reader_options)
    return SignalTable([entry.info for entry in found], notes)


def _signals(path: Path, lazy: bool, options: dict[str, Any]) -> tuple[list[_Signal], list[str]]:
    entries, notes = read(path, lazy=lazy, options=options)
    return [_describe(entry, path) for entry in entries], notes


def _describe(entry: dict[str, Any], path: Path) -> _Signal:
    metadata = apply_mapping(
        entry.get("metadata") or {}, entry.get("original_metadata") or {}, entry.get("mapping") or {}
    )
    data = entry["data"]
    described = list(entry.get("axes") or [])
    if data.dtype.names == ("R", "G", "B"):
        data = np.stack([data[colour] for colour in data.dtype.names], axis=-1)
        described.append({"name": "rgb", "size": 3, "navigate": False})
    attrs = {**attributes(metadata, data.dtype), "original_filename": path.name}
    signal_type = attrs.get("signal_type", "")
    dims = arrange(read_axes(described, data.shape), signal_type)
    info = SignalInfo(
        name=attrs.get("title") or path.stem,
        shape=tuple(axis.size for _, axis in dims.values()),
        dims=tuple(dims),
        axes=", ".join(_range(name, axis) for name, (_, axis) in dims.items()),
        dtype=str(data.dtype),
        signal_type=signal_type,
    )
    return _Signal(info, data, dims, attrs)


def _range(name: str, axis: Axis) -> str:
    if axis.values is None or axis.size == 0:
        return name
    return f"{name} {axis.values[0]:.4g} to {axis.values[-1]:.4g} {axis.units or ''}".rstrip()


def _choose(found: Sequence[_Signal], notes: Sequence[str], signal: str | int | None, path: Path) -> _Signal:
    table = SignalTable([entry.info for entry in found], notes)
    if signal is None and len(found) == 1:
        return found[0]
    if signal is None:
        raise AmbiguousFile(
            f"{path.name!r} holds {len(found)} signals; choose one by name or number, as in "
            f"signal={table[-1].name!r} or signal={len(found)}:\n{table}"
        )
    if isinstance(signal, int | np.integer) and not isinstance(signal, bool):
        if 1 <= signal <= len(found):
            return found[int(signal) - 1]
        raise UnknownName(f"{path.name!r} has no signal number {signal}; it has 1 to {len(found)}:\n{table}")
    names = [entry.info.name for entry in found]
    fitting = [entry for entry, name in zip(found, names, strict=True) if name == signal]
    fitting = fitting or [e for e, name in zip(found, names, strict=True) if name.lower() == str(signal).lower()]
    if not fitting:
        raise UnknownName(f"{path.name!r} has no signal {signal!r}.{suggest(signal, names)} It has:\n{table}")
    if len(fitting) > 1:
        numbers = [str(number) for number, entry in enumerate(found, start=1) if entry in fitting]
        raise AmbiguousFile(
            f"{path.name!r} holds {len(fitting)} signals named {signal!r}; choose one by number, "
            f"signal={' or '.join(numbers)}:\n{table}"
        )
    return fitting[0]
