"""The question of a mode where least squares has none: a separable bound that touches the objective."""

# No postponed annotations in this file: equinox has to see its fields as they are.
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations

__all__ = ["Majoriser", "from_normal_equations", "from_slopes"]

# The step of a root that has no closed form stays within these factors, in logarithms; bisections that find it.
_REACH, _BISECTIONS = 30.0, 50


class Majoriser(eqx.Module):
    """A bound ``sum over entries of sum over j of coefficient_j x integral of a^power_j`` of the objective of a mode.

    Coefficients of negative powers are zero or less, those of positive powers zero or more, so that the slope grows
    with every entry and the minimum over entries of zero or more is one root for each.

    Attributes
    ----------
    powers
        Powers of the slope, all different.
    coefficients
        One ``(size, rank)`` array for each.
    """

    powers: tuple[float, ...] = eqx.field(static=True)
    coefficients: tuple[Float[Array, "size rank"], ...]

    def plus(self, other: "Majoriser") -> "Majoriser":
        """Return the sum: this is what coupling two tensors means."""
        found = dict(zip(self.powers, self.coefficients, strict=True))
        for power, coefficient in zip(other.powers, other.coefficients, strict=True):
            found[power] = found[power] + coefficient if power in found else coefficient
        return Majoriser(tuple(found), tuple(found.values()))

    def value(self, factor: Float[Array, "size rank"]) -> Float[Array, ""]:
        """Return the bound, up to a constant, summed in float64."""
        factor = factor.astype(jnp.float64)
        total = jnp.zeros((), jnp.float64)
        for power, coefficient in zip(self.powers, self.coefficients, strict=True):
            coefficient = coefficient.astype(jnp.float64)
            if power == -1:
                primitive = jnp.log(jnp.where(coefficient != 0, factor, 1))
            else:
                base = jnp.where(coefficient != 0, factor, 1) if power < -1 else factor
                primitive = base ** (power + 1) / (power + 1)
            total = total + jnp.sum(jnp.where(coefficient != 0, coefficient * primitive, 0))
        return total

    def minimiser(
        self,
        old: Float[Array, "size rank"],
        linear: Float[Array, "..."] | float,
        curvature: Float[Array, "..."] | float,
    ) -> Float[Array, "size rank"]:
        """Return the entries of zero or more at which bound plus ``linear a + curvature a^2 / 2`` is least.

        Parameters
        ----------
        old
            What stays where nothing is known of an entry.
        linear, curvature
            Numbers or arrays that are added to the powers 0 and 1; the curvature is zero or more.
        """
        own = dict(zip(self.powers, self.coefficients, strict=True))
        zero = jnp.zeros_like(old)
        flat = own.pop(0.0, zero) + linear
        steep = own.pop(1.0, zero) + curvature
        if set(own) <= {-1.0}:
            return _root_of_square(-own.get(-1.0, zero), flat, steep, old)
        terms = {power: item for power, item in {**own, 0.0: flat, 1.0: steep}.items()}
        return _root(terms, old)


def _root_of_square(above: Array, flat: Array, steep: Array, old: Array) -> Array:
    """Return the root of ``steep a + flat - above / a``, without cancellation."""
    above = jnp.maximum(above, 0)
    spread = jnp.sqrt(jnp.square(flat) + 4 * steep * above)
    rising = flat > 0
    low = 2 * above / jnp.where(rising, flat + spread, 1)
    high = (spread - flat) / jnp.where(steep > 0, 2 * steep, 1)
    unbounded = jnp.where((flat < 0) | (above > 0), jnp.inf, old)
    return jnp.where(rising, low, jnp.where(steep > 0, high, unbounded))


def _root(terms: dict[float, Array], old: Array) -> Array:
    """Return the root of a slope that grows with the entry, by bisection of its logarithm."""
    small = jnp.finfo(old.dtype).tiny
    middle = jnp.log(jnp.maximum(old, small))

    def slope(logarithm: Array) -> Array:
        return sum(
            (jnp.where(item != 0, item * jnp.exp(power * logarithm), 0) for power, item in terms.items()),
            jnp.zeros_like(old),
        )

    def body(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        at = 0.5 * (low + high)
        above = slope(at) > 0
        return jnp.where(above, low, at), jnp.where(above, at, high)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, body, (middle - _REACH, middle + _REACH))
    known = jnp.stack([item != 0 for item in terms.values()]).any(axis=0)
    pulled = jnp.stack([item < 0 for item in terms.values()]).any(axis=0)
    return jnp.where(known, jnp.where(pulled, jnp.exp(0.5 * (low + high)), 0), old)


def from_slopes(
    pull: Float[Array, "size rank"],
    push: Float[Array, "size rank"],
    powers: tuple[float, float],
    factor: Float[Array, "size rank"],
) -> Majoriser:
    """Return the bound of a divergence from the two parts of its slope at a factor of zero or more."""
    down, up = powers
    # An entry of zero stays: it has no pull.
    safe = jnp.where(factor > 0, factor, 1)
    left = -jnp.where(factor > 0, pull * safe ** (-down), 0) if down else -pull
    right = push * jnp.where(factor > 0, safe ** (-up), 1) if up else push
    if down == up:
        return Majoriser((down,), (left + right,))
    return Majoriser((down, up), (left, right))


def from_normal_equations(equations: NormalEquations, factor: Float[Array, "size rank"]) -> Majoriser:
    """Return a bound of a quadratic at a factor of zero or more.

    For any ``v`` above zero the diagonal ``(|G| v)_r / v_r`` lies above ``G`` (Lee and Seung take the factor itself for
    ``v``); here entries far below the largest of their row count as a hundredth of it, so that zeros can come back.
    """
    gram = jnp.abs(equations.gram).astype(factor.dtype)
    largest = jnp.max(factor, axis=1, keepdims=True)
    weight = jnp.maximum(factor, 0.01 * jnp.where(largest > 0, largest, 1))
    if equations.per_row:
        above = jnp.einsum("nr,nrs->ns", weight, gram)
        slope = jnp.einsum("nr,nrs->ns", factor, equations.gram.astype(factor.dtype)) - equations.right
    else:
        above = weight @ gram
        slope = factor @ equations.gram.astype(factor.dtype) - equations.right
    steep = above / weight
    return Majoriser((0.0, 1.0), (slope - steep * factor, steep))
