"""Checks of arguments: one clear line each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from tensorspec.errors import InvalidArgument

__all__ = ["number", "sizes", "whole"]


def number(name: str, value: object, least: float, most: float = math.inf, *, above: bool = False) -> float:
    """Return a finite number between these bounds, or refuse it by name.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        As given.
    least, most : float
        Bounds; ``most`` itself is allowed.
    above : bool
        Whether ``least`` itself is refused.

    Returns
    -------
    float
        The value.

    Raises
    ------
    InvalidArgument
        With the range.

    Examples
    --------
    >>> number("counts", 500, 0, above=True)
    500.0
    """
    bounds = f"{'above' if above else 'of at least'} {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InvalidArgument(f"{name} is {value!r}; expected a finite number {bounds}.")
    result = float(value)
    if result < least or result > most or (above and result == least):
        raise InvalidArgument(f"{name} is {value!r}; expected a number {bounds}.")
    return result


def whole(name: str, value: object, least: int) -> int:
    """Return a whole number of at least ``least``, or refuse it by name.

    Examples
    --------
    >>> whole("channels", 200, 8)
    200
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InvalidArgument(f"{name} is {value!r}; expected a whole number of at least {least}.")
    return int(value)


def sizes(name: str, value: object, count: int, least: int) -> tuple[int, ...]:
    """Return ``count`` whole numbers of at least ``least``, or refuse them by name.

    Examples
    --------
    >>> sizes("shape", (40, 40), 2, 4)
    (40, 40)
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise InvalidArgument(f"{name} is {value!r}; expected {count} whole numbers of at least {least}.")
    return tuple(whole(f"{name}[{position}]", size, least) for position, size in enumerate(value))
