"""What commands print, and where they write."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tensorspec.errors import InvalidArgument, MissingFile

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["say", "writable_folder", "write_results"]


def say(text: str) -> None:
    """Print a line, or several, at once.

    Parameters
    ----------
    text : str
        Without the last line break.
    """
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def writable_folder(folder: Path) -> Path:
    """Return a folder in which files can be written, and make it where only it is missing.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    folder : Path

    Raises
    ------
    MissingFile
        If the folder that it should stand in does not exist.
    InvalidArgument
        If it is a file, or nothing can be written in it.
    """
    folder = folder.expanduser()
    if not folder.parent.is_dir():
        raise MissingFile(f"there is no folder {str(folder.parent)!r}; make it, or give another --output DIR")
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise InvalidArgument(f"{str(folder)!r} is a file; --output takes a folder") from None
    except OSError as error:
        raise InvalidArgument(
            f"cannot write in {str(folder)!r} ({error.strerror}); give another folder: --output DIR"
        ) from error
    return folder


def write_results(fit: Fit, file: Path, report: Path) -> None:
    """Print the table of a fit, write it as HDF5 and as a report, and say where.

    Parameters
    ----------
    fit : Fit
        The fit.
    file, report : Path
        Where to.
    """
    say(repr(fit))
    say(f"wrote {fit.save(file)}")
    say(f"wrote {fit.report(report)}")
