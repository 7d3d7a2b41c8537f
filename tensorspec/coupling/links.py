"""Soft equality of the factors of two modes."""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import strength_field
from tensorspec.errors import InvalidArgument, ModeMismatch, UnknownMode, UnknownName, suggest

__all__ = ["Link", "as_links", "check_links", "link_equations", "link_value"]

_EXAMPLE = 'ts.Link(("first", "energy_loss"), ("second", "energy"), strength=1.0)'


def _as_end(value: Any) -> tuple[str, str]:
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"Link: {value!r} is no pair of tensor and mode; expected for example {_EXAMPLE}")
    return (value[0], value[1])


class Link(eqx.Module):
    """Half a strength times the squared distance between the factors of two modes.

    For factors that should be nearly, not exactly, equal: spectra of two sessions, maps of two scans.  The factors are
    compared as they are in the problem as solved: columns at unit norm, those of one coupled fit at their joint norm.
    Modes that are linked do not carry the amplitudes of a tensor that has another mode to carry them.

    Parameters
    ----------
    first, second
        Each a tensor and one of its modes; the modes have equally many points.
    strength
        Weight in the objective of the problem as solved: the inverse variance of the difference, in units of the noise.

    Raises
    ------
    InvalidArgument
        When an end is no pair of names, or both are one mode, which would be equal anyway.

    References
    ----------
    Cabral Farias, Cohen and Comon, IEEE Trans. Signal Process. 64 (2016) 5530, doi:10.1109/TSP.2016.2576425.

    Examples
    --------
    >>> Link(("first", "energy"), ("second", "xray"), 2.0)
    Link(first=('first', 'energy'), second=('second', 'xray'), strength=2.0)
    """

    first: tuple[str, str] = eqx.field(converter=_as_end, static=True)
    second: tuple[str, str] = eqx.field(converter=_as_end, static=True)
    strength: Any = strength_field()

    def __check_init__(self) -> None:
        """Refuse a link of a mode to itself, and a strength that is no number."""
        if self.first[1] == self.second[1]:
            raise InvalidArgument(
                f"Link: both ends are the mode {self.first[1]!r}; tensors that have a mode in common share its factor "
                "exactly. For two factors, rename the dimension in one of them"
            )
        if isinstance(self.strength, str):
            raise InvalidArgument(f"Link(strength={self.strength!r}): expected a number of zero or more")

    @property
    def modes(self) -> tuple[str, str]:
        """The two modes."""
        return (self.first[1], self.second[1])


def as_links(given: Any) -> tuple[Link, ...]:
    """Return links, one or several, as a tuple.

    Raises
    ------
    InvalidArgument
        When something is no link.
    """
    items = () if given is None else given if isinstance(given, (tuple, list)) else (given,)
    for item in items:
        if not isinstance(item, Link):
            raise InvalidArgument(f"links: {item!r} is no link; expected for example {_EXAMPLE}")
    return tuple(items)


def check_links(links: Sequence[Link], names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> None:
    """Refuse links to tensors or modes that do not exist, or of modes of different sizes.

    Parameters
    ----------
    links
        The links.
    names
        The modes of each tensor.
    sizes
        The points of each mode.

    Raises
    ------
    UnknownName, UnknownMode
        When an end does not exist.
    ModeMismatch
        When the ends have different sizes.
    """
    for link in links:
        for tensor, mode in (link.first, link.second):
            if tensor not in names:
                raise UnknownName(f"Link names the tensor {tensor!r}; there are {list(names)}.{suggest(tensor, names)}")
            if mode not in names[tensor]:
                raise UnknownMode(
                    f"Link names the mode {mode!r} of tensor {tensor!r}, which has the modes {list(names[tensor])}."
                    f"{suggest(mode, names[tensor])}"
                )
        one, other = link.modes
        if sizes[one] != sizes[other]:
            raise ModeMismatch(
                f"Link: mode {one!r} has {sizes[one]} points and mode {other!r} has {sizes[other]}; a link compares "
                "point by point and needs equally many"
            )


def link_equations(
    links: Sequence[Link], mode: str, factors: Mapping[str, Float[Array, "size rank"]], together: Sequence[str]
) -> list[NormalEquations]:
    """Return what the links add to the equations of a mode.

    Where both ends are updated together, each is pulled twice as strongly to the middle of the two: a bound from above
    that touches at the present factors, so that the update of both leads down.
    """
    found = []
    for link in links:
        if mode not in link.modes:
            continue
        other = link.modes[1] if mode == link.modes[0] else link.modes[0]
        rank = factors[mode].shape[1]
        dtype = factors[mode].dtype
        strength = jnp.asarray(link.strength, jnp.float64)
        target = factors[other]
        if other in together:
            strength, target = 2 * strength, 0.5 * (factors[mode] + factors[other])
        found.append(NormalEquations(strength * jnp.eye(rank), (strength * target).astype(dtype)))
    return found


def link_value(links: Sequence[Link], factors: Mapping[str, Float[Array, "size rank"]]) -> Float[Array, ""]:
    """Return what the links add to the objective, summed in float64."""
    total = jnp.zeros((), jnp.float64)
    for link in links:
        one, other = (factors[mode].astype(jnp.float64) for mode in link.modes)
        total = total + 0.5 * link.strength * jnp.sum(jnp.square(one - other))
    return total
