"""Which reader opens a file, and what it finds: the only place that knows RosettaSciIO.

RosettaSciIO is an optional GPL package; it is imported in the functions that need it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorspec.errors import (
    InvalidArgument,
    MissingDependency,
    MissingFile,
    NotEnoughMemory,
    UnknownName,
    UnreadableFile,
    suggest,
)

__all__ = ["read"]

# Several readers share .h5 and .hdf5: those that know their own files first, the generic ones last.
PREFERENCE = ("HSPY", "Delmic", "Tofwerk", "Arina", "USID", "EMD", "NeXus")
ALSO_HDF5 = {"h5", "hdf5", "hdf", "nxs", "emd"}
INSTALL = 'pip install "tensorspec[io]"'


def read(path: Path, *, lazy: bool, options: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read all signals of a file.

    Parameters
    ----------
    path : Path
        The file.
    lazy : bool
        Leave the data on disk where the reader can; other data come back as numpy arrays.
    options : mapping
        ``reader`` chooses the reader by name; the others go to it.

    Returns
    -------
    entries : list of dict
        RosettaSciIO's dictionaries: ``data, axes, metadata, original_metadata, mapping``.
    notes : list of str
        What the reader warned of.

    Raises
    ------
    MissingFile, UnreadableFile
        If there is no such file; if no reader opens it.
    MissingDependency
        If RosettaSciIO, or what it needs for this format, is not installed.
    UnknownName, InvalidArgument
        If there is no such reader; if it does not know an option.
    NotEnoughMemory
        If the data do not fit into memory.
    """
    plugins = _plugins()
    options = dict(options)
    candidates = _candidates(path, plugins, options.pop("reader", None))
    known = {plugin["name"]: _options(plugin) for plugin in candidates}
    for option in options:
        if not any(_accepts(names, [option]) for names in known.values()):
            listed = sorted({name for names in known.values() for name in names or ()})
            raise InvalidArgument(
                f"the reader of {path.name!r} ({', '.join(known)}) has no option {option!r}; it has {listed}."
                f"{suggest(option, listed)}"
            )
    _refuse_cut_bcf(path)
    reasons: dict[str, list[str]] = {}
    missing: ImportError | None = None
    for plugin in candidates:
        if not _accepts(known[plugin["name"]], options):
            continue
        try:
            with _quiet() as notes:
                entries = [entry for entry in _call(plugin, path, lazy, options) if entry["data"].size]
            reason = "no signal found"
        except ImportError as error:
            # Of the likeliest reader this is the cause; that another, generic one cannot run says little.
            missing = error if plugin is candidates[0] else missing
            entries, reason = [], str(error)
        except Exception as error:  # a reader of a damaged file may fail in any way
            if isinstance(error, MemoryError) and not lazy:
                raise NotEnoughMemory(
                    f"{path.name!r} does not fit into memory ({_first_line(error)}); lazy=True leaves the data on disk"
                ) from error
            entries, reason = [], _first_line(error)
        if entries:
            return entries, notes
        reasons.setdefault(reason, []).append(plugin["name"])
    if missing is not None:
        raise MissingDependency(f"reading {path.name!r} needs a package that is missing ({missing}): {INSTALL}")
    text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    raise UnreadableFile(f"cannot read {str(path)!r}: the file is damaged or of another kind ({text})")


def _plugins() -> Sequence[Mapping[str, Any]]:
    try:
        from rsciio import IO_PLUGINS
    except ImportError as error:
        raise MissingDependency(f"reading instruments' files needs RosettaSciIO: {INSTALL}") from error
    return IO_PLUGINS


def _candidates(path: Path, plugins: Sequence[Mapping[str, Any]], reader: object) -> list[Mapping[str, Any]]:
    """Return the readers to try, the likeliest first."""
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise MissingFile(f"there is no file {str(path)!r}.{suggest(path.name, beside)}")
    if reader is not None:
        chosen = [
            plugin
            for plugin in plugins
            if str(reader).lower() in (name.lower() for name in (plugin["name"], *plugin["name_aliases"]))
        ]
        if not chosen:
            names = [plugin["name"] for plugin in plugins]
            raise UnknownName(f"there is no reader {reader!r}; there are {names}.{suggest(reader, names)}")
        return chosen
    extension = path.suffix[1:].lower()
    found = [plugin for plugin in plugins if extension in (each.lower() for each in plugin["file_extensions"])]
    if extension in ALSO_HDF5:
        found += [plugin for plugin in plugins if plugin["name"] in PREFERENCE and plugin not in found]
    if not found or (path.is_dir() and extension != "zspy"):
        what = "a folder" if path.is_dir() else f"of no known kind ({path.suffix or 'no extension'})"
        extensions = sorted({each.lower() for plugin in plugins for each in plugin["file_extensions"]})
        raise UnreadableFile(
            f"{str(path)!r} is {what}; files that can be read: {', '.join(extensions)}. "
            "For arrays of your own, make an xarray.DataArray"
        )
    place = {name: number for number, name in enumerate(PREFERENCE)}
    return sorted(found, key=lambda plugin: (extension not in plugin["file_extensions"], place.get(plugin["name"], -1)))


def _call(plugin: Mapping[str, Any], path: Path, lazy: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    function = importlib.import_module(plugin["api"]).file_reader
    if plugin["name"] == "Delmic" and "signal" not in options:
        options = {**options, "signal": "all"}  # its default leaves out the images
    try:
        return list(function(str(path), lazy=lazy, **options))
    except NotImplementedError:
        if not lazy:
            raise
        return list(function(str(path), lazy=False, **options))


def _options(plugin: Mapping[str, Any]) -> list[str] | None:
    """Return the options of a reader, or None if it takes any; none at all if it needs a package that is missing."""
    try:
        parameters = inspect.signature(importlib.import_module(plugin["api"]).file_reader).parameters.values()
    except ImportError:
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.name not in ("filename", "lazy")]


def _accepts(names: list[str] | None, options: Iterable[str]) -> bool:
    return names is None or set(options) <= set(names)


def _refuse_cut_bcf(path: Path) -> None:
    """Refuse a Bruker file that is shorter than it says: reading past its end would end the process, not the call."""
    if path.is_dir():
        return
    with path.open("rb") as file:
        head = file.read(0x14C)
    if len(head) < 0x14C or head[:8] != b"AAMVHFSS":
        return
    (chunk,) = struct.unpack_from("<I", head, 0x128)
    (chunks,) = struct.unpack_from("<I", head, 0x148)
    size, expected = path.stat().st_size, 0x118 + chunks * chunk
    if size < expected:
        raise UnreadableFile(f"cannot read {str(path)!r}: it is cut short, {size} of {expected} bytes")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Collect what a reader warns of, by either of the two ways, instead of printing it."""
    notes: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # That a HyperSpy extension is absent says nothing about the file.
            if record.levelno >= logging.WARNING and "Cannot find package" not in record.getMessage():
                notes.append(record.getMessage().strip())

    logger = logging.getLogger("rsciio")
    handlers: list[logging.Handler] = logger.handlers
    logger.handlers = [Collect()]
    propagate, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield notes
        notes.extend(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
    finally:
        logger.handlers, logger.propagate = handlers, propagate
