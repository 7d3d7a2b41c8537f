"""Which components a tensor has: given, or left to the data to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorspec.errors import InvalidArgument, UnknownName, suggest

__all__ = ["FIND", "as_share", "components_seen"]

FIND = "find"
_EXAMPLE = 'share={"eels": [1, 2, 3], "edx": [1, 2, 3, 4]} or share="find"'


def as_share(given: Any) -> dict[str, tuple[int, ...]] | str | None:
    """Return what a user gave as ``share=``: None, ``"find"``, or a tuple of component numbers for each tensor.

    Raises
    ------
    InvalidArgument
        When it is neither, or when the numbers are not distinct whole numbers counted from 1.

    Examples
    --------
    >>> as_share({"eels": [1, 3]})
    {'eels': (1, 3)}
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    if isinstance(given, str):
        if given != FIND:
            raise InvalidArgument(f"share={given!r}: expected {_EXAMPLE}")
        return FIND
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"share={given!r}: expected {_EXAMPLE}")
    found = {}
    for name, numbers in given.items():
        numbers = (numbers,) if isinstance(numbers, (int, np.integer)) else numbers
        whole = isinstance(numbers, Sequence | np.ndarray) and all(
            isinstance(k, (int, np.integer)) and not isinstance(k, bool) and k >= 1 for k in numbers
        )
        if not whole or len(numbers) == 0 or len(set(numbers)) < len(numbers):
            raise InvalidArgument(
                f"share: tensor {name!r} is given {numbers!r}; expected distinct component numbers, counted from 1, "
                "such as [1, 2, 3]"
            )
        found[str(name)] = tuple(int(k) for k in numbers)
    return found


def components_seen(
    share: Mapping[str, tuple[int, ...]] | str | None, names: Sequence[str], rank: int
) -> list[tuple[bool, ...] | None]:
    """Return for each tensor which components it has, None for all.

    Parameters
    ----------
    share
        As `as_share` returned it.
    names
        The tensors.
    rank
        Number of components.

    Raises
    ------
    UnknownName
        When a tensor is named that does not exist.
    InvalidArgument
        When a component does not exist, or no tensor has it.

    Examples
    --------
    >>> components_seen({"b": (2,)}, ["a", "b"], 2)
    [None, (False, True)]
    """
    if share is None or isinstance(share, str):
        return [None] * len(names)
    for name, numbers in share.items():
        if name not in names:
            raise UnknownName(f"share names the tensor {name!r}; there are {list(names)}.{suggest(name, names)}")
        if max(numbers) > rank:
            raise InvalidArgument(f"share: tensor {name!r} is given {list(numbers)}; there are components 1 to {rank}")
    found = [tuple(k + 1 in share[name] for k in range(rank)) if name in share else None for name in names]
    lost = [k + 1 for k in range(rank) if not any(seen is None or seen[k] for seen in found)]
    if lost:
        raise InvalidArgument(f"share: no tensor has component {', '.join(map(str, lost))} of {rank}")
    return [None if seen is None or all(seen) else seen for seen in found]
