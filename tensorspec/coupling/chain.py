"""Several linear maps between a factor and a tensor, one after the other."""

# No postponed annotations in this file: equinox has to see its fields as they are.
from collections import Counter
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.coupling.operators import AbstractOperator, Grid, Parametric
from tensorspec.errors import InvalidArgument

__all__ = ["Chain", "as_operators"]

_EXAMPLE = 'operators={("edx", "pixel"): ts.Bin(2)}'


class Chain(AbstractOperator, Parametric):
    """What a list of operators stands for: the first acts on the factor, the last gives what the tensor has.

    All but the last keep to the points that they make of the factor's; the last reads off at those of the tensor, whose
    coordinates are compared there.  The parameters of all are fitted together.

    Parameters
    ----------
    operators
        Two or more, in the order in which they act.

    Raises
    ------
    InvalidArgument
        When one of them is no operator, or two fit a parameter of the same name, which nothing could tell apart.

    Examples
    --------
    >>> import numpy as np
    >>> from tensorspec.coupling.operators import Bin, Matrix
    >>> grids = [Grid("energy", (n,), (None,), (None,)) for n in (4, 1)]
    >>> both = Chain((Bin(2), Matrix(np.array([[1.0, 10.0]])))).settle(*grids)
    >>> both.apply(np.array([[1.0], [3.0], [5.0], [5.0]])).tolist()
    [[52.0]]
    """

    operators: tuple[AbstractOperator, ...] = eqx.field(converter=tuple)

    def __check_init__(self) -> None:
        """Refuse what is no operator."""
        if len(self.operators) < 2 or not all(isinstance(item, AbstractOperator) for item in self.operators):
            raise InvalidArgument(f"operators={list(self.operators)!r}: expected two or more operators; {_EXAMPLE}")

    def settle(self, inside: Grid, outside: Grid) -> AbstractOperator:
        """Return the chain with all of its operators settled; see the base class."""
        settled, points = [], inside
        for operator in self.operators[:-1]:
            between = operator.outside_of(points)
            settled.append(operator.settle(points, between))
            points = between
        chain = Chain((*settled, self.operators[-1].settle(points, outside)))
        twice = [name for name, count in Counter(chain._names()).items() if count > 1]
        if twice:
            raise InvalidArgument(
                f"operators of mode {inside.mode!r}: {' and '.join(twice)} is to be fitted twice in one chain, and "
                "only both together can be known; fit one of them, and give the other a number"
            )
        return chain

    def inside_of(self, outside: Grid) -> Grid | None:
        """Return the points of the factor, where each operator says them."""
        points: Grid | None = outside
        for operator in reversed(self.operators):
            points = None if points is None else operator.inside_of(points)
        return points

    def outside_of(self, inside: Grid) -> Grid:
        """Return the points that all make of the factor's."""
        for operator in self.operators:
            inside = operator.outside_of(inside)
        return inside

    def apply(self, factor: Float[Array, "size columns"], absolute: bool = False) -> Float[Array, "seen columns"]:
        """Return what the tensor sees; with `absolute`, by the absolute maps one after the other, which lies above."""
        values = jnp.asarray(factor)
        for operator in self.operators:
            values = operator.apply(values, absolute)
        return values

    def parameters(self) -> Float[Array, " parameters"]:
        """Return the parameters that are fitted, of all operators in turn."""
        return jnp.concatenate([jnp.zeros(0), *(item.parameters() for item in self._parametric())])

    def with_parameters(self, values: Float[Array, " parameters"]) -> "Chain":
        """Return the chain with other values of the parameters that are fitted."""
        operators, used = [], 0
        for item in self.operators:
            if isinstance(item, Parametric):
                count = item.parameters().size
                item, used = item.with_parameters(values[used : used + count]) if count else item, used + count
            operators.append(item)
        return Chain(tuple(operators))

    def reach(self) -> Float[Array, " parameters"]:
        """Return how far each parameter may move in one sweep."""
        return jnp.concatenate([jnp.zeros(0), *(item.reach() for item in self._parametric())])

    def found(self) -> dict[str, float]:
        """Return the parameters that were fitted, by name, in the units of the coordinates."""
        return {name: value for item in self._parametric() for name, value in item.found().items()}

    def _parametric(self) -> list[Parametric]:
        return [item for item in self.operators if isinstance(item, Parametric)]

    def _names(self) -> list[str]:
        return [name for item in self._parametric() for name in item.found()]


def as_operators(given: Any) -> dict[tuple[str, str], AbstractOperator]:
    """Return operators by tensor and mode; a list of them as the chain that it stands for.

    Raises
    ------
    InvalidArgument
        When the mapping has other keys, or holds something that is no operator.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"operators={given!r}: expected a mapping, for example {_EXAMPLE}")
    found = {}
    for key, item in given.items():
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)):
            raise InvalidArgument(f"operators: the key {key!r} is no pair of tensor and mode; write {_EXAMPLE}")
        several = list(item) if isinstance(item, (list, tuple)) else [item]
        if not several or not all(isinstance(one, AbstractOperator) for one in several):
            raise InvalidArgument(
                f"operators: {key} is given {item!r}, which is no operator, nor a list of them; write {_EXAMPLE}"
            )
        found[key] = several[0] if len(several) == 1 else Chain(tuple(several))
    return found
