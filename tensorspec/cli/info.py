"""What a file holds, and the report of a saved fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorspec.cli.output import say, writable_folder
from tensorspec.errors import MissingFile, UnreadableFile

__all__ = ["run_info", "run_report"]

FIT_SUFFIXES = (".h5", ".hdf5")


def run_info(file: str, reader: str | None, as_json: bool) -> None:
    """Print the signals of an instrument's file, or the table of a saved fit.

    Parameters
    ----------
    file : str
        The file.
    reader : str, optional
        RosettaSciIO's reader.
    as_json : bool
        Print JSON instead of a table.

    Raises
    ------
    TensorspecError
        If it cannot be read.
    """
    path = Path(file).expanduser()
    fit = _saved_fit(path) if reader is None else None
    if fit is not None:
        say(json.dumps(_describe(path, fit), indent=1) if as_json else repr(fit))
        return
    from tensorspec.io.instrument import signals

    table = signals(path, **({} if reader is None else {"reader": reader}))
    if as_json:
        found = {"file": str(path), "signals": [asdict(info) for info in table], "notes": list(table.notes)}
        say(json.dumps(found, indent=1))
    else:
        say(str(table))


def run_report(file: str, output: str | None) -> None:
    """Write the report of a saved fit.

    Parameters
    ----------
    file : str
        The saved fit.
    output : str, optional
        Folder to write into; by default that of the file.

    Raises
    ------
    TensorspecError
        If it is no saved fit, or nothing can be written there.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingFile(f"there is no file {str(path)!r}")
    folder = writable_folder(path.parent if output is None else Path(output))
    from tensorspec.io.fit_file import open as open_fit

    stem = path.name.removesuffix(path.suffix).removesuffix(".fit")
    target = open_fit(path).report(folder / f"{stem}.report.html")
    say(f"wrote {target}")


def _saved_fit(path: Path) -> Any:
    """Return the fit that a file holds, or None where it is another kind of file."""
    if path.suffix.lower() not in FIT_SUFFIXES or not path.is_file():
        return None
    from tensorspec.io.fit_file import open as open_fit

    try:
        return open_fit(path)
    except UnreadableFile as error:
        if "not a saved fit" in str(error):
            return None
        raise


def _describe(path: Path, fit: Any) -> dict[str, Any]:
    """Return the main figures of a fit, for programs."""
    return {
        "file": str(path),
        "fit": {
            "model": repr(fit.model),
            "rank": dict(fit.ranks) if fit.cores else fit.rank,
            "status": fit.status.name,
            "sweeps": fit.sweeps,
            "objective": fit.objective,
            "tensors": {
                name: {"dims": list(record.dims), "shape": list(record.shape), "explained": record.explained}
                for name, record in fit.tensors.items()
            },
            "shares": {} if fit.cores else {name: [float(v) for v in fit.shares(name)] for name in fit.tensors},
            "files": {name: record.attrs.get("original_filename") for name, record in fit.tensors.items()},
        },
    }
