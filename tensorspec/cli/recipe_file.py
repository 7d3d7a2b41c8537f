"""A fit written down as a TOML file: ``tensorspec fit recipe.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tensorspec.errors import InvalidArgument, MissingFile, UnreadableFile, suggest

__all__ = ["Job", "Source", "read_recipe"]

SECTIONS = ("data", "model", "fit", "loss", "weights", "modes", "output")
MODEL_KEYS = ("type", "rank", "scale", "constraints")
FIT_KEYS = ("restarts", "seed", "tol", "max_sweeps", "time_limit", "rescale", "solver", "start", "checkpoint")


@dataclass(frozen=True)
class Source:
    """Where one tensor comes from, and what is taken of it.

    Attributes
    ----------
    file : Path
        The instrument's file.
    signal : str or int, optional
        Which of its signals.
    reader : str, optional
        RosettaSciIO's reader.
    lazy : bool
        Whether the data stay on disk and are fitted in blocks where they would fill the memory.
    rename : dict
        New names of dimensions, applied first.
    crop : dict
        For each dimension ``(low, high)`` in units of its coordinates, both ends included.
    bin : dict
        For each dimension how many neighbours are summed, after cropping.
    exclude : dict
        For each dimension a list of ``(low, high)`` that the fit leaves out.
    """

    file: Path
    signal: str | int | None = None
    reader: str | None = None
    lazy: bool = False
    rename: dict[str, str] = field(default_factory=dict)
    crop: dict[str, tuple[float, float]] = field(default_factory=dict)
    bin: dict[str, int] = field(default_factory=dict)
    exclude: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """Everything that a fit from the command line is made of; names of objects are still text.

    Attributes
    ----------
    sources : dict of str to Source
        By tensor; a single one may be called ``data``.
    rank : int
        Number of components.
    folder : Path
        Where to write.
    stem : str
        What the files written begin with.
    model : str
        ``nmf`` or ``cp``.
    scale : str, optional
        The mode that carries the amplitudes.
    constraints : dict of str to list of str
        For each mode.
    loss : str or dict of str to str, optional
        For all tensors, or by tensor.
    weights, modes : dict, optional
        As for `tensorspec.fit`.
    options : dict
        The further options of `tensorspec.fit`.
    """

    sources: dict[str, Source]
    rank: int
    folder: Path
    stem: str
    model: str = "nmf"
    scale: str | None = None
    constraints: dict[str, list[str]] = field(default_factory=dict)
    loss: str | dict[str, str] | None = None
    weights: dict[str, float] | None = None
    modes: dict[str, tuple[str, ...]] | None = None
    options: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: Path) -> Job:
    """Read a recipe.

    Parameters
    ----------
    path : Path
        The TOML file; files named in it are found from its own folder.

    Returns
    -------
    job : Job

    Raises
    ------
    MissingFile, UnreadableFile
        If there is no such file; if it is not TOML.
    InvalidArgument
        If something in it is unknown, missing or of the wrong kind.
    """
    try:
        with open(path, "rb") as stream:
            content = tomllib.load(stream)
    except FileNotFoundError:
        raise MissingFile(f"there is no file {str(path)!r}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path.name!r} is not TOML: {error}") from error
    where = f"recipe {path.name!r}"
    _known(content, SECTIONS, where)
    model, options = _table(content, "model", where), dict(_table(content, "fit", where))
    _known(model, MODEL_KEYS, f"{where}, [model]")
    _known(options, FIT_KEYS, f"{where}, [fit]")
    if "checkpoint" in options:
        options["checkpoint"] = path.parent / _kind(options["checkpoint"], str, "checkpoint", where)
    output = _kind(content.get("output", "."), str, "output", where)
    constraints = _table(model, "constraints", f"{where}, [model]")
    loss = content.get("loss")
    return Job(
        sources=_sources(_table(content, "data", where), path.parent, where),
        rank=_kind(_needed(model, "rank", f"{where}, [model]"), int, "rank", where),
        folder=path.parent / output,
        stem=path.stem,
        model=_kind(model.get("type", "nmf"), str, "type", where).lower(),
        scale=model.get("scale"),
        constraints={mode: _texts(given, f"{where}, constraint of {mode!r}") for mode, given in constraints.items()},
        loss=loss if loss is None or isinstance(loss, str) else dict(_table(content, "loss", where)),
        weights=dict(_table(content, "weights", where)) or None,
        modes={name: tuple(_texts(dims, where)) for name, dims in _table(content, "modes", where).items()} or None,
        options=options,
    )


def _sources(table: Mapping[str, Any], folder: Path, where: str) -> dict[str, Source]:
    if "file" in table and not isinstance(table["file"], Mapping):
        return {"data": _source(table, folder, f"{where}, [data]")}
    if not table:
        raise InvalidArgument(f"{where} names no data; expected [data] with file = ..., or [data.NAME] for several")
    for name, item in table.items():
        if not isinstance(item, Mapping):
            raise InvalidArgument(f"{where}, [data]: {name} = {item!r} without a file; expected file = ...")
    return {name: _source(item, folder, f"{where}, [data.{name}]") for name, item in table.items()}


def _source(table: Mapping[str, Any], folder: Path, where: str) -> Source:
    _known(table, tuple(Source.__dataclass_fields__), where)
    source = Source(folder / Path(_kind(_needed(table, "file", where), str, "file", where)).expanduser())
    return replace(
        source,
        signal=table.get("signal"),
        reader=table.get("reader"),
        lazy=_truth(table.get("lazy", False), "lazy", where),
        rename=dict(_table(table, "rename", where)),
        crop={dim: _range(given, dim, where) for dim, given in _table(table, "crop", where).items()},
        bin={dim: _kind(count, int, f"bin of {dim}", where) for dim, count in _table(table, "bin", where).items()},
        exclude={dim: _ranges(given, dim, where) for dim, given in _table(table, "exclude", where).items()},
    )


def _ranges(given: Any, dim: str, where: str) -> list[tuple[float, float]]:
    several = isinstance(given, list) and given and all(isinstance(item, list) for item in given)
    return [_range(item, dim, where) for item in (given if several else [given])]


def _range(given: Any, dim: str, where: str) -> tuple[float, float]:
    numbers = isinstance(given, list) and all(isinstance(item, int | float) for item in given)
    if not numbers or len(given) != 2 or not given[0] < given[1]:
        raise InvalidArgument(f"{where}: the range of {dim!r} is {given!r}; expected [low, high] in its own units")
    return float(given[0]), float(given[1])


def _texts(given: Any, where: str) -> list[str]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InvalidArgument(f"{where} is {given!r}; expected text, or a list of texts")
    return listed


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, Mapping):
        raise InvalidArgument(f"{where}: {key} is {found!r}; expected a table")
    return found


def _needed(table: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in table:
        raise InvalidArgument(f"{where} has no {key!r}; add {key} = ...")
    return table[key]


def _kind(value: Any, kind: type, key: str, where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        words = {str: "text", int: "a whole number"}
        raise InvalidArgument(f"{where}: {key} is {value!r}; expected {words.get(kind, kind.__name__)}")
    return value


def _truth(value: Any, key: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}: {key} is {value!r}; expected true or false")
    return value


def _known(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in names:
            raise InvalidArgument(f"{where} has an unknown {key!r}; known are {', '.join(names)}.{suggest(key, names)}")
