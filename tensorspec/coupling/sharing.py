"""Which components a tensor has: given, or left to the data to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.sparse import GroupSparse
from tensorspec.errors import ConstraintConflict, InvalidArgument, UnknownName, suggest

__all__ = ["FIND", "as_share", "components_seen", "strength_penalties"]

FIND = "find"
# Weight of the strengths, for tensors divided by their norm: as published, and as good from 0 to 10 % of noise.
_STRENGTH = 1e-3
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


def strength_penalties(
    names: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, tuple[int, float]],
    constraints: Mapping[str, Sequence[AbstractConstraint]],
) -> dict[str, GroupSparse]:
    """Return for ``share="find"`` a penalty on the strength of every component in every tensor.

    Every tensor then carries its own amplitudes, on its last mode that no other has, and shared modes are at unit
    norm: the norm of a column is the strength of the component in that tensor, and the sum of norms makes those zero
    that the data do not ask for.

    Parameters
    ----------
    names
        The modes of each tensor.
    sizes
        The number of entries and the weight of each.
    constraints
        The constraints of each mode, as given.

    Raises
    ------
    InvalidArgument
        When there is nothing to share.
    ConstraintConflict
        When a tensor has no mode of its own whose scale is free.

    References
    ----------
    Acar et al., BMC Bioinformatics 15 (2014) 239, doi:10.1186/1471-2105-15-239.
    """
    if len(names) < 2:
        raise InvalidArgument("share='find' asks which tensor has which component; give two tensors or more")
    found = {}
    for key, own in names.items():
        private = [mode for mode in own if sum(mode in other for other in names.values()) == 1]
        loose = [mode for mode in private if not any(item.degree is None for item in constraints[mode])]
        if not loose:
            raise ConstraintConflict(
                f"share='find': tensor {key!r} needs a mode that no other tensor has and whose scale no constraint "
                f"fixes, to carry the strengths of its components; it has the modes {list(own)}, of its own {private}"
            )
        count, weight = sizes[key]
        found[loose[-1]] = GroupSparse(_STRENGTH * weight * float(np.sqrt(count)))
    return found
