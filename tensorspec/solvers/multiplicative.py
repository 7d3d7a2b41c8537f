"""Multiplicative updates: every entry goes to the minimum of a bound that touches the objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.majoriser import Majoriser, from_normal_equations
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractHardConstraint, AbstractQuadraticPenalty, Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.sparse import Sparse
from tensorspec.errors import InvalidArgument
from tensorspec.solvers.base import AbstractSolver, Block

__all__ = ["Multiplicative", "kept_alive", "penalised"]

# Doublings that look for the multiplier of a unit norm, and bisections that find it.
_DOUBLINGS, _BISECTIONS = 60, 60
# An extrapolation takes an entry to no less than this share of it; one that grows by more than this share is lifted to
# this share of its column's mean; none falls below that one, where single precision would lose it.
_LEAST, _GROWING, _LIFT, _ALIVE = 0.1, 1e-3, 1e-3, 1e-30


class Multiplicative(AbstractSolver):
    """Multiplicative (majorise-minimise) updates with extrapolation between sweeps: the solver of Poisson fits.

    Every mode has to be non-negative.  `Sparse` and quadratic penalties such as `SoftOrthogonal` are part of the bound;
    `Box` and `Fixed` are exact, as the bound falls apart into entries.

    Parameters
    ----------
    inner
        How often the bound is renewed where that needs no product with the data (least squares alone).
    extrapolate
        Whether sweeps are extrapolated, with a restart where the objective would rise.

    Raises
    ------
    InvalidArgument
        When `inner` is not one or more.

    Notes
    -----
    An entry of exactly zero stays zero under a multiplicative update, so starts have none (they get a floor of 1e-12 of
    the column's mean), and extrapolation shrinks an entry to no less than a tenth.  An entry that has nearly vanished
    and grows again is lifted at once; as with every extrapolation, only if the objective does not rise.

    References
    ----------
    Lee and Seung, Advances in Neural Information Processing Systems 13 (2001) 556; Fevotte and Idier, Neural
    Computation 23 (2011) 2421, doi:10.1162/NECO_a_00168; Ang and Gillis, Neural Computation 31 (2019) 417,
    doi:10.1162/neco_a_01157.

    Examples
    --------
    >>> Multiplicative(extrapolate=False)
    Multiplicative(extrapolate=False)
    """

    inner: int = eqx.field(default=5, static=True)
    extrapolate: bool = eqx.field(default=True, static=True)
    least_squares: ClassVar[bool] = True
    divergences: ClassVar[bool] = True

    def __check_init__(self) -> None:
        """Refuse a number of repeats below one."""
        if self.inner < 1:
            raise InvalidArgument(f"Multiplicative(inner={self.inner}): expected 1 or more repeats")

    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why a mode cannot be updated by ratios; see the base class."""
        del per_row
        if not constraints.nonnegative:
            return "a ratio keeps its sign, and the mode is not non-negative"
        for member in constraints.members:
            simple = isinstance(member, (Sparse, AbstractQuadraticPenalty, AbstractHardConstraint))
            if not simple or (isinstance(member, AbstractHardConstraint) and member.separability > Separability.ENTRY):
                return f"{type(member).__name__} does not fall apart into entries"
        if any(held) and not constraints.exact_on_sphere(held):
            return "a constraint fixes entries while the column is held at unit norm"
        return None

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return nothing: no state is kept."""
        del factors, constraints
        return ()

    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Minimise the bound of every mode; least-squares bounds are renewed `inner` times."""
        renewable = all(isinstance(item, NormalEquations) for item in block.equations)

        def once(_: Array, factors: list[Array]) -> list[Array]:
            return _minimise(block._replace(factors=factors))

        return jax.lax.fori_loop(0, self.inner if renewable else 1, once, list(block.factors)), state


def kept_alive(
    extrapolated: Float[Array, "size rank"],
    fresh: Float[Array, "size rank"],
    before: Float[Array, "size rank"],
    momentum: Float[Array, ""],
) -> Float[Array, "size rank"]:
    """Return an extrapolated factor in which nothing is lost that a ratio could not bring back.

    Entries that nearly vanished and ought to grow take hundreds of ratios to come back (the inadmissible zeros of Chi
    and Kolda, doi:10.1137/110859063).
    """
    mean = jnp.mean(fresh, axis=0)
    floor = jnp.maximum(_LEAST * fresh, jnp.where(fresh > 0, _ALIVE * mean, 0))
    growing = (fresh > (1 + _GROWING) * before) & (fresh < _LIFT * mean) & (momentum > 0)
    return jnp.maximum(extrapolated, jnp.where(growing, _LIFT * mean, floor)).astype(fresh.dtype)


class _Member(NamedTuple):
    """One mode of a block, ready for its root."""

    bound: Majoriser
    factor: Array
    strength: Array  # what penalties add to the slope, (rank,)
    rules: ModeConstraints
    weight: Array  # of the squared norm, (rank,); zero where a column is free in norm


def penalised(
    equations: NormalEquations | Majoriser, factor: Float[Array, "size rank"], rules: ModeConstraints
) -> Majoriser:
    """Return the bound of a mode, its quadratic penalties included."""
    bound = from_normal_equations(equations, factor) if isinstance(equations, NormalEquations) else equations
    if any(isinstance(member, AbstractQuadraticPenalty) for member in rules.members):
        terms = rules.quadratic(factor.shape[0], factor.dtype)
        linear = jnp.zeros_like(factor) if terms.linear is None else terms.linear.astype(factor.dtype)
        bound = bound.plus(from_normal_equations(NormalEquations(terms.gram, linear), factor))
    return bound


def _strengths(rules: ModeConstraints, dtype: Any) -> Array:
    total = jnp.zeros(rules.rank, dtype)
    for member in rules.members:
        if isinstance(member, Sparse):
            chosen = jnp.arange(rules.rank) if member.components is None else jnp.asarray(member.components) - 1
            total = total.at[chosen].add(jnp.asarray(member.strength, dtype))
    return total


def _minimise(block: Block) -> list[Array]:
    norms = block.norms or [jnp.zeros(factor.shape[1]) for factor in block.factors]
    members = [
        _Member(penalised(equations, factor, rules), factor, _strengths(rules, factor.dtype), rules, norm)
        for equations, factor, rules, norm in zip(block.equations, block.factors, block.constraints, norms, strict=True)
    ]
    free = [m.rules.prox(m.bound.minimiser(m.factor, m.strength, 0.0), 0.0) for m in members]
    free = [
        jnp.where(jnp.isfinite(new), new, m.factor).astype(m.factor.dtype) for new, m in zip(free, members, strict=True)
    ]
    if block.norms is None:
        return free
    held = _held(members)
    return [
        jnp.where(m.weight > 0, sphere, loose).astype(m.factor.dtype)
        for m, sphere, loose in zip(members, held, free, strict=True)
    ]


def _held(members: Sequence[_Member]) -> list[Array]:
    """Return the minimisers of the bounds under the joint unit norm, column by column.

    A multiplier above zero shortens the column.  Where the free minimum is too short, ``multiplier x |a - a0|^2 / 2``
    is added to the bound, which on the sphere is linear; both make the norm one continuous function that falls with
    the multiplier.
    """
    wide = [
        m._replace(
            bound=Majoriser(m.bound.powers, tuple(c.astype(jnp.float64) for c in m.bound.coefficients)),
            factor=m.factor.astype(jnp.float64),
        )
        for m in members
    ]

    def columns(multiplier: Array) -> list[Array]:
        shorter, longer = jnp.maximum(multiplier, 0), jnp.maximum(-multiplier, 0)
        return [
            m.bound.minimiser(m.factor, m.strength - longer * m.weight * m.factor, shorter * m.weight) for m in wide
        ]

    def square(multiplier: Array) -> Array:
        found = columns(multiplier)
        return sum(
            (m.weight * jnp.sum(jnp.square(a), axis=0) for m, a in zip(wide, found, strict=True)),
            jnp.zeros_like(multiplier),
        )

    slopes = sum((jnp.abs(c).sum(axis=0) for m in wide for c in m.bound.coefficients), jnp.zeros(()))
    unit = jnp.where(slopes > 0, slopes, 1.0) * 1e-3

    def widened(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        return jnp.where(square(low) < 1, 2 * low, low), jnp.where(square(high) > 1, 2 * high, high)

    def halved(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        at = 0.5 * (low + high)
        long = square(at) > 1
        return jnp.where(long, at, low), jnp.where(long, high, at)

    bracket = jax.lax.fori_loop(0, _DOUBLINGS, widened, (-unit, unit))
    _, high = jax.lax.fori_loop(0, _BISECTIONS, halved, bracket)
    found, norm = columns(high), jnp.sqrt(square(high))
    # A column of which the data know nothing keeps its shape.
    usable = jnp.isfinite(norm) & (norm > 0)
    return [jnp.where(usable, a / jnp.where(usable, norm, 1), m.factor) for a, m in zip(found, wide, strict=True)]
