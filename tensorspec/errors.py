"""What a user can get wrong, by name.

Every error derives from `TensorspecError`.  A message names the thing, says what was expected, lists what exists and
says what to do.  Each class also derives from the built-in exception that a Python user would catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AmbiguousFile",
    "ConstraintConflict",
    "InvalidArgument",
    "InvalidData",
    "MissingDependency",
    "MissingFile",
    "ModeMismatch",
    "NotEnoughMemory",
    "RankOutOfRange",
    "TensorspecError",
    "UnknownMode",
    "UnknownName",
    "UnreadableFile",
    "suggest",
]


class TensorspecError(Exception):
    """Base of every error that tensorspec raises on purpose."""


class InvalidArgument(TensorspecError, ValueError):
    """An argument has a value that cannot be meant."""


class InvalidData(TensorspecError, ValueError):
    """The data cannot be fitted as they are: infinities, text, no valid entry, all zero, ..."""


class UnknownName(TensorspecError, LookupError):
    """A tensor, component or file signal of that name does not exist."""


class UnknownMode(UnknownName):
    """A mode of that name does not exist in these data."""


class ModeMismatch(InvalidData):
    """Two tensors name the same mode, but its coordinates differ."""


class RankOutOfRange(InvalidArgument):
    """The number of components is below one or above what the data can determine."""


class ConstraintConflict(InvalidArgument):
    """Constraints of one mode contradict each other, or one lacks a partner that it needs."""


class NotEnoughMemory(TensorspecError, MemoryError):
    """The fit would not fit into memory; the message holds the plan."""


class AmbiguousFile(UnknownName):
    """A file holds several signals, and none was chosen."""


class MissingFile(TensorspecError, FileNotFoundError):
    """There is no such file."""


class UnreadableFile(TensorspecError, OSError):
    """A file exists, but it cannot be read as what it was taken for."""


class MissingDependency(TensorspecError, ImportError):
    """An optional package is needed; the message holds the command that installs it."""


def suggest(name: object, known: Iterable[object]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or nothing when none is near.

    Examples
    --------
    >>> suggest("enrgy", ["pixel", "energy"])
    " Did you mean 'energy'?"
    >>> suggest("colour", ["pixel", "energy"])
    ''
    """
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
