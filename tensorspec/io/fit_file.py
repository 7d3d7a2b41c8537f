"""Save a fit as one HDF5 file that tensorspec, xarray and HyperSpy open, and open it again."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, MissingFile, UnknownName, UnreadableFile
from tensorspec.io.nxdata import Attributes, key_of, name_of, read_array, write_array
from tensorspec.modes import ModeLabels
from tensorspec.overview import count_components
from tensorspec.recipe import from_recipe, to_recipe
from tensorspec.solution import Fit, TensorRecord
from tensorspec.solvers.status import Status

__all__ = ["open", "open_fit", "refit", "save_fit"]

DEFINITION = "tensorspec_model"
VERSION = 1
ENTRY = "tensorspec"
# What `read` takes from the file; maps and spectra are there for other programs, and follow from the factors.
PLAIN_FIELDS = ("solver", "why", "objective", "sweeps", "provenance")


def save_fit(fit: Fit, path: str | PathLike[str]) -> Path:
    """Write a fit as an HDF5 file, which replaces an older one only when it is complete.

    Parameters
    ----------
    fit : Fit
        What to save.  The data are not saved, but a summary of the residual is.
    path : path-like
        Where to.

    Returns
    -------
    path : Path

    Raises
    ------
    MissingFile
        If the folder does not exist.
    InvalidArgument
        If a coordinate is of a type that no file can hold.

    Warns
    -----
    UserWarning
        If the model holds something that JSON cannot describe, such as a function: the file opens, but cannot be
        fitted again from itself.

    Notes
    -----
    Layout: ``/tensorspec/factors/<mode>``, ``/weights`` or ``/cores/<tensor>``, ``/tensors/<tensor>_maps``,
    ``_spectra``, ``_residual_map``, ..., ``/history``, ``/spread`` are NXdata groups with NeXus attributes and
    dimension scales, in units of the data;
    ``/tensorspec/process/note/data`` holds settings, provenance and attributes as JSON.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFile(f"there is no folder {str(path.parent)!r} to save the fit in")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with h5py.File(part, "w") as file:
            _write(fit, file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def open_fit(path: str | PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Fit
        As it was, without the data.

    Raises
    ------
    MissingFile
        If there is no such file.
    UnreadableFile
        If it is not a saved fit, or one of a newer version.

    Warns
    -----
    UserWarning
        If the model uses a class of yours whose module is not imported: ``fit.model`` is then its description.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {str(path)!r}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UnreadableFile(f"{str(path)!r} is not a saved fit: it is no HDF5 file ({error})") from error
    with file:
        _check_version(file, path)
        try:
            return _read(file)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnreadableFile(f"{str(path)!r} is a damaged fit: {type(error).__name__}: {error}") from error


def refit(path: str | PathLike[str], data: xr.DataArray | Mapping[str, xr.DataArray]) -> Fit:
    """Fit again with the settings that a saved fit was made with.

    Parameters
    ----------
    path : path-like
        The saved fit.
    data : DataArray or mapping of str to DataArray
        The data; the same ones repeat the fit.

    Returns
    -------
    Fit

    Raises
    ------
    InvalidData
        If the tensors are not named as those that were fitted.
    InvalidArgument
        If the file holds no settings.
    UnknownName
        If the settings use a class of yours whose module is not imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said by from_recipe below, as an error
        saved = open_fit(path)
    if "model" not in saved.recipe:
        raise InvalidArgument(f"{os.fspath(path)!r} holds no settings to fit with: its model was not made by ts.fit")
    if isinstance(data, Mapping) and set(data) != set(saved.tensors):
        raise InvalidData(f"tensors {list(saved.tensors)} were fitted; given are {list(data)}")
    settings = {name: from_recipe(value) for name, value in saved.recipe.items()}
    from tensorspec.fit import fit  # loads JAX

    return fit(data, settings.pop("model"), **settings)


open = open_fit  # the public name, ts.open


def _write(fit: Fit, file: h5py.File) -> None:
    """Write the whole file."""
    from tensorspec import __version__

    file.attrs.update({"NX_class": "NXroot", "default": ENTRY, "creator": "tensorspec"})
    entry = file.create_group(ENTRY)
    entry.attrs["NX_class"] = "NXentry"
    entry["definition"] = DEFINITION
    entry["definition"].attrs["version"] = str(VERSION)
    entry["title"] = f"{count_components(fit)} of {', '.join(fit.tensors)}"
    summaries, attributes = _summaries(fit), dict[str, Attributes]()
    for key, array in _arrays(fit, summaries).items():
        group = entry
        for part in key.split("/")[:-1]:
            group = group.require_group(part)
            group.attrs.setdefault("NX_class", "NXcollection")
        attributes[key] = write_array(group.create_group(key.rpartition("/")[2]), array)
    # What a viewer shows first: the maps of the first tensor.
    entry.attrs["default"] = "tensors"
    entry["tensors"].attrs["default"] = _place(next(iter(fit.tensors)), "maps").partition("/")[2]
    note = {
        "tensors": {name: _fields(record) for name, record in fit.tensors.items()},
        "modes": {name: {"dims": list(mode.dims), "shape": list(mode.shape)} for name, mode in fit.modes.items()},
        "mode_coords": {name: [str(key) for key in mode.coords] for name, mode in fit.modes.items()},
        "model": _describe(fit.model, "the model"),
        "losses": {name: _describe(loss, f"the loss of {name!r}") for name, loss in fit.losses.items()},
        "status": fit.status.name,
        "recipe": fit.recipe,
        "attributes": attributes,
        "summaries": {
            name: {"variables": list(summary.data_vars), "attrs": to_recipe(summary.attrs, lenient=True)}
            for name, summary in summaries.items()
        },
    }
    note |= {name: to_recipe(getattr(fit, name), lenient=True) for name in PLAIN_FIELDS}
    process = entry.create_group("process")
    process.attrs["NX_class"] = "NXprocess"
    process["program"], process["version"] = "tensorspec", __version__
    process["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    described = process.create_group("note")
    described.attrs["NX_class"] = "NXnote"
    described["type"], described["data"] = "application/json", json.dumps(note, allow_nan=False)


def _arrays(fit: Fit, summaries: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    """Return everything labelled, by its place in the file."""
    arrays = {f"factors/{key_of(mode)}": factor for mode, factor in fit.factors.items()}
    for name, views in fit.views.items():
        arrays |= {f"views/{key_of(name)}/{key_of(mode)}": view for mode, view in views.items()}
    arrays |= {f"cores/{key_of(name)}": core for name, core in fit.cores.items()}
    arrays |= {"history": fit.history} | ({} if fit.weights is None else {"weights": fit.weights})
    if fit.spread is not None:
        arrays["spread"] = fit.spread
    for name in fit.tensors:
        arrays |= {_place(name, "maps"): fit.maps(name), _place(name, "spectra"): fit.spectra(name)}
        if name in summaries:
            arrays |= {_place(name, str(key)): array for key, array in summaries[name].data_vars.items()}
    return arrays


def _place(name: str, what: str) -> str:
    """Return the group of an array of a tensor; its last part is the title that HyperSpy shows, so it names both."""
    return f"tensors/{key_of(name)}_{what}"


def _summaries(fit: Fit) -> dict[str, xr.Dataset]:
    """Return the residual summaries: of the data where they are held, else those of the file it came from."""
    if fit.data is None:
        return dict(fit.summaries)
    return {name: fit.residual_summary(name) for name in fit.tensors}


def _read(file: h5py.File) -> Fit:
    """Return the fit in a file of a known version."""
    entry: Any = file[ENTRY]
    note = json.loads(entry["process/note/data"].asstr()[()])
    known = note["attributes"]

    def array(key: str) -> xr.DataArray:
        return read_array(entry[key], known.get(key))

    factors = {name_of(key): array(f"factors/{key}") for key in entry["factors"]}
    cores = {name_of(key): array(f"cores/{key}") for key in entry["cores"]} if "cores" in entry else {}
    # Beside a core a mode may have no factor.
    factors = {name: factors[name] for name in note["modes"] if name in factors or not cores}

    def holder(mode: str) -> xr.DataArray:
        """Return an array that has the coordinates of a mode: its factor, or a core where it is left whole."""
        dims = set(note["modes"][mode]["dims"])
        for own in (*([factors[mode]] if mode in factors else []), *cores.values()):
            if dims <= set(own.dims):
                return own
        raise KeyError(f"nothing has the points of mode {mode!r}")

    summaries = {
        name: xr.Dataset(
            {key: array(_place(name, key)) for key in summary["variables"]}, attrs=from_recipe(summary["attrs"])
        )
        for name, summary in note["summaries"].items()
    }
    modes = {
        name: ModeLabels(
            name,
            tuple(mode["dims"]),
            tuple(mode["shape"]),
            {key: holder(name).coords[key].reset_coords(drop=True) for key in note["mode_coords"][name]},
        )
        for name, mode in note["modes"].items()
    }
    views = {
        name_of(tensor): {name_of(mode): array(f"views/{tensor}/{mode}") for mode in own}
        for tensor, own in (entry["views"].items() if "views" in entry else ())
    }
    return Fit(
        factors=factors,
        views=views,
        weights=array("weights") if "weights" in entry else None,
        cores=cores,
        tensors={name: TensorRecord(**from_recipe(record)) for name, record in note["tensors"].items()},
        modes=modes,
        model=_rebuild(note["model"]),
        losses={name: _rebuild(loss) for name, loss in note["losses"].items()},
        status=Status[note["status"]],
        recipe=note["recipe"],
        history=array("history"),
        spread=array("spread") if "spread" in entry else None,
        summaries=summaries,
        **{name: from_recipe(note[name]) for name in PLAIN_FIELDS},
    )


def _check_version(file: h5py.File, path: Path) -> None:
    """Refuse what is not a saved fit, and versions that this one cannot know."""
    definition = file.get(f"{ENTRY}/definition")
    if not isinstance(definition, h5py.Dataset) or definition.asstr()[()] != DEFINITION:
        raise UnreadableFile(
            f"{str(path)!r} is an HDF5 file, but not a saved fit (/{ENTRY}/definition is not {DEFINITION!r}); "
            "read data with ts.load"
        )
    version = int(str(definition.attrs["version"]))
    if version > VERSION:
        raise UnreadableFile(
            f"{str(path)!r} was saved by a newer tensorspec (file version {version}; this one reads up to {VERSION}): "
            "pip install --upgrade tensorspec"
        )


def _fields(record: TensorRecord) -> dict[str, Any]:
    return {field.name: to_recipe(getattr(record, field.name), lenient=True) for field in dataclasses.fields(record)}


def _describe(value: Any, what: str) -> Any:
    """Return the recipe of a model or loss; where there is none, as much of it as can be written."""
    try:
        return to_recipe(value, what)
    except InvalidArgument as error:
        warnings.warn(f"the saved fit cannot be repeated from its file: {error}", UserWarning, stacklevel=4)
        return to_recipe(value, what, lenient=True)


def _rebuild(recipe: Any) -> Any:
    """Return the model or loss of a recipe, or the recipe itself where its class is not there."""
    try:
        return from_recipe(recipe)
    except (InvalidArgument, UnknownName) as error:
        warnings.warn(f"kept as a description only: {error}", UserWarning, stacklevel=4)
        return recipe
