"""What a constraint offers to a solver.

A constraint is a frozen bag of settings.  It offers channels, and a solver uses those it understands:

- `AbstractHardConstraint`: a set; its proximal map is the projection and its value is zero.
- `AbstractPenalty`: a penalty with a proximal map and a value, of exactly the documented strength.
- `AbstractQuadraticPenalty`: a quadratic, added to the normal equations, so that every solver has it for nothing.
- `AbstractMajorisedPenalty`: a penalty below a quadratic that touches it at the present factor; solvers take that one.

Where it can, it is also `Bijective`, `Resolvable`, `Stateful`, `Majorised`, `Iterated`, an `Assumption`, `Combinable`
or `ChecksPartners`; and it may say how its proximal map goes together with others: `Composable`, `Uniform`,
`CompletesSquare`, `Positive`.  None of these methods is ever overridden twice: a class is either abstract or final.

Arrays are ``(size, columns)``, the columns being those components that the constraint acts on; a solver that works by
column passes ``(size,)`` and the index of the column.
"""

# No postponed annotations in this file: equinox has to see its abstract variables as they are.
import abc
import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.errors import InvalidArgument

__all__ = [
    "AbstractConstraint",
    "AbstractHardConstraint",
    "AbstractMajorisedPenalty",
    "AbstractPenalty",
    "AbstractQuadraticPenalty",
    "Assumption",
    "Bijective",
    "ChecksPartners",
    "Combinable",
    "CompletesSquare",
    "Composable",
    "Context",
    "Iterated",
    "Majorised",
    "OfSamples",
    "Positive",
    "Quadratic",
    "Resolvable",
    "Separability",
    "Stateful",
    "Uniform",
    "atoms_field",
    "component_field",
    "overlap",
    "strength_field",
]


class Separability(enum.IntEnum):
    """How far a constraint falls apart into independent pieces; it decides which solvers and which blocks can work."""

    ENTRY = 0
    COLUMN = 1
    ROW = 2
    MATRIX = 3


class Quadratic(NamedTuple):
    """The penalty ``1/2 tr(A Q A^T) - <L, A> + c``."""

    gram: Float[Array, "columns columns"]
    linear: Float[Array, "size columns"] | None = None
    constant: Float[Array, ""] | float = 0.0


class Context(NamedTuple):
    """What is known of a mode before the first sweep, for constraints that resolve themselves.

    Attributes
    ----------
    mode
        Name of the mode.
    shape
        Its own grid; the size is the product.
    coordinates
        One array per grid axis, or None where there is none.
    units
        One text per grid axis, or None.
    rank
        Number of components of the model.
    noise_level
        Standard deviation of the noise over the root mean square of the data.
    data_scale
        What a value in data units is multiplied by to become a value of the problem as solved.
    noise_deviation
        Standard deviation of the noise along the mean spectrum, in the units of the problem as solved and with the
        weights of the tensors; NaN where no constraint asks for it.
    carries
        Whether the mode carries the amplitudes of a tensor; on other modes columns have unit norm.
    curvature
        What takes an automatic strength from the units of least squares to those of a likelihood: the curvature of the
        misfit over that of squares.  NaN where no rule says it.
    """

    mode: str
    shape: tuple[int, ...]
    coordinates: tuple[np.ndarray | None, ...]
    units: tuple[str | None, ...]
    rank: int
    noise_level: float
    data_scale: float
    noise_deviation: float = float("nan")
    carries: bool = True
    curvature: float = 1.0

    @property
    def size(self) -> int:
        """Number of rows of the factor."""
        return int(np.prod(self.shape))


def _as_components(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, (int, np.integer)):
        value = (value,)
    found = tuple(int(item) for item in value)
    if not found or min(found) < 1 or len(set(found)) != len(found):
        raise InvalidArgument(
            f"components={value!r}: expected distinct component numbers, counted from 1, for example components=[1, 3]"
        )
    return found


def component_field() -> Any:
    """Return the dataclass field of the components that a constraint acts on (None: all), counted from 1."""
    return eqx.field(default=None, converter=_as_components, static=True, kw_only=True)


def atoms_field() -> Any:
    """Return the dataclass field of labelled values that have columns of their own (atoms), not one a component."""
    return eqx.field(metadata={"atoms": True})


def _as_strength(value: Any) -> Any:
    if isinstance(value, str):
        if value != "auto":
            raise InvalidArgument(f"strength={value!r}: expected a number of zero or more, or 'auto'")
        return value
    return _as_given_strength(value)


def _as_given_strength(value: Any) -> Any:
    if isinstance(value, str):
        raise InvalidArgument(f"strength={value!r}: expected a number of zero or more; there is no automatic strength")
    if isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool):
        if not (np.isfinite(value) and value >= 0):
            raise InvalidArgument(f"strength={value!r}: expected a finite number of zero or more")
        return float(value)
    return value  # an array that is being traced


def strength_field(automatic: bool = True, **options: Any) -> Any:
    """Return the dataclass field of a strength: traced data, so that a new value never compiles again.

    Parameters
    ----------
    automatic
        Whether ``"auto"`` is a strength.
    options
        Of `equinox.field`.
    """
    return eqx.field(converter=_as_strength if automatic else _as_given_strength, **options)


class AbstractConstraint(eqx.Module):
    """Base of every constraint; see the module's text for the channels."""

    convex: eqx.AbstractClassVar[bool]
    # Homogeneity: 0 for a cone, 1 for a norm, 2 for a quadratic, None where the constraint fixes the scale of its mode.
    degree: eqx.AbstractClassVar[int | None]

    @property
    @abc.abstractmethod
    def components(self) -> tuple[int, ...] | None:
        """The components it acts on, counted from 1, or None for all; always a field (see `component_field`)."""

    @property
    @abc.abstractmethod
    def separability(self) -> Separability:
        """How far the constraint falls apart into independent pieces; usually a class variable."""

    @abc.abstractmethod
    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return what the constraint adds to the objective."""

    @abc.abstractmethod
    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest distance of an entry (or sum) from what is allowed; zero when satisfied."""


class AbstractHardConstraint(AbstractConstraint):
    """A set that the factor must lie in."""

    @abc.abstractmethod
    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest point of the set."""

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the projection: for a set the step does not matter."""
        del step
        return self.project(values, column)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: a set costs nothing."""
        return jnp.zeros((), jnp.result_type(factor))


class AbstractPenalty(AbstractConstraint):
    """A penalty with a proximal map."""

    @abc.abstractmethod
    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return ``argmin_A value(A) + |A - values|^2 / (2 step)``."""

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: a penalty forbids nothing."""
        return jnp.zeros((), jnp.result_type(factor))


class AbstractQuadraticPenalty(AbstractConstraint):
    """A quadratic penalty, absorbed into the normal equations."""

    @abc.abstractmethod
    def quadratic(self, size: int, columns: int) -> Quadratic:
        """Return the terms that are added to the normal equations."""

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return ``1/2 tr(A Q A^T) - <L, A> + c``."""
        terms = self.quadratic(*factor.shape)
        total = 0.5 * jnp.sum((factor.T @ factor) * terms.gram) + terms.constant
        return total if terms.linear is None else total - jnp.sum(terms.linear * factor)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: a penalty forbids nothing."""
        return jnp.zeros((), jnp.result_type(factor))


class AbstractMajorisedPenalty(AbstractConstraint):
    """A penalty that lies below a quadratic through any given point.

    A solver takes the quadratic through the factor that a block begins with.  What lowers that lowers the penalty at
    least as much, so the objective with the penalty itself falls at every sweep, and nothing has to be remembered.
    """

    @abc.abstractmethod
    def bound(self, factor: Float[Array, "size columns"]) -> Quadratic:
        """Return the quadratic that is nowhere below the value and equal to it at `factor`."""

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return zero: a penalty forbids nothing."""
        return jnp.zeros((), jnp.result_type(factor))


class Bijective(abc.ABC):
    """A constraint that an unconstrained variable can express, for solvers that need derivatives."""

    @abc.abstractmethod
    def forward(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the point of the set that a free variable stands for."""

    @abc.abstractmethod
    def inverse(self, factor: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return a free variable that stands for a point of the set."""


class Resolvable(abc.ABC):
    """A constraint with something to settle before the first sweep: an automatic strength, values in data units."""

    @abc.abstractmethod
    def resolve(self, context: Context) -> AbstractConstraint:
        """Return the constraint with everything settled as plain arrays."""


class Stateful(abc.ABC):
    """A constraint that learns while the fit runs; it is replaced, never changed, and keeps its array shapes."""

    @abc.abstractmethod
    def init_state(self, size: int, columns: int) -> AbstractConstraint:
        """Return the constraint with the state that the first sweep starts from."""

    @abc.abstractmethod
    def update_state(self, factor: Float[Array, "size columns"]) -> AbstractConstraint:
        """Return the constraint with its state after a sweep that ended at `factor`."""


class Majorised(Stateful):
    """A penalty whose proximal map is that of an upper bound, which touches the value where its state was learnt.

    Whatever lowers the bound lowers the value at least as much, so that the value itself falls at every sweep.
    """

    @abc.abstractmethod
    def bound(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the bound; its part that depends on the factor has the degree of the constraint."""


class Iterated(abc.ABC):
    """A penalty whose proximal map takes many iterations, which may go on where those for similar values ended."""

    @abc.abstractmethod
    def memory(self, size: int) -> Any:
        """Return the arrays with which the first map of a column begins, or None where it takes no iterations."""

    @abc.abstractmethod
    def prox_from(
        self, values: Float[Array, "..."], step: Any, memory: Any, column: Any = None
    ) -> tuple[Float[Array, "..."], Any]:
        """Return the proximal map after some iterations, and the arrays they ended with; one row of them a column."""


class Assumption(abc.ABC):  # noqa: B024 - it is a mark, and asks for nothing
    """The mark of a constraint that is a belief about the sample rather than a fact.

    `fit` first runs without it, starts from what it found, and reports how far the answer moves without the belief.
    """


class Combinable(abc.ABC):
    """A constraint whose proximal map together with another is a known one."""

    @abc.abstractmethod
    def combine(self, other: AbstractConstraint) -> AbstractConstraint | None:
        """Return the constraint that stands for both exactly, or None when there is none."""


class Composable(abc.ABC):
    """A constraint that ties entries together, and whose proximal map after or before some others is the joint one."""

    @abc.abstractmethod
    def precedes(self, other: AbstractConstraint) -> bool:
        """Return whether the other's proximal map, applied to the result of this one's, is that of both."""

    @abc.abstractmethod
    def follows(self, other: AbstractConstraint) -> bool:
        """Return whether this one's proximal map, applied to the result of the other's, is that of both."""


class Uniform(abc.ABC):  # noqa: B024 - it is a mark, and asks for nothing
    """The mark of an entry-wise, convex constraint that treats every entry of a column alike."""


class CompletesSquare(abc.ABC):
    """A quadratic penalty of single entries, which another proximal map takes up by moving its point and its step."""

    @abc.abstractmethod
    def complete_square(
        self, values: Float[Array, "..."], step: Any, column: Any = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the point and the step for which any further penalty has the joint proximal map."""


class Positive(abc.ABC):
    """A constraint that may imply non-negative entries."""

    @property
    @abc.abstractmethod
    def positive(self) -> bool:
        """Whether no entry that it allows is below zero; known before anything is compiled."""


class OfSamples(abc.ABC):  # noqa: B024 - it is a mark, and asks for nothing
    """The mark of a constraint that holds values of the very samples that are fitted, and says nothing of others."""


class ChecksPartners(abc.ABC):
    """A constraint that needs, or cannot bear, others on the same mode."""

    @abc.abstractmethod
    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Return why the constraint cannot stand beside `others`, and what to do; None when it can."""


def overlap(first: AbstractConstraint, second: AbstractConstraint) -> bool:
    """Return whether two constraints of one mode act on a component that both name."""
    if first.components is None or second.components is None:
        return True
    return bool(set(first.components) & set(second.components))
