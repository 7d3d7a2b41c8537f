"""Alternating-optimisation ADMM: any constraint that has a proximal map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.algebra import small
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import Separability
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.errors import InvalidArgument
from tensorspec.solvers.base import AbstractSolver, Block, block_value, check_compress, with_quadratic

__all__ = ["AOADMM"]

# How often constraints that have no joint projection are gone through, at most, to make the result feasible, and the
# change of an entry, in roundings of the largest, below which it is.
_FEASIBILITY_ROUNDS, _FEASIBLE = 1000, 8
# Shares of the longest safe step that are tried where several constraints make even that one too long.
_SHORTER = (1.0, 0.1, 0.01)
# Share of the block's objective below which a rise is rounding; refusing it would stop the last digits.
_ROUNDING = 1e-15
# The root of the norm's multiplier: accuracy of the norm, most rounds, and the least slope that the secant believes.
_UNIT, _ROOT_ROUNDS, _FLATTEST = 1e-7, 30, 0.02


class AOADMM(AbstractSolver):
    """Alternating-optimisation ADMM: a few ADMM iterations per block, the duals kept between sweeps.

    Takes any constraint that has a proximal map, several of them, and columns at unit norm; without any it is the exact
    least-squares solution.

    Parameters
    ----------
    inner
        ADMM iterations per block and sweep.
    extrapolate
        Whether sweeps are extrapolated, with a restart where the objective would rise.
    compress
        Whether a fit begins on compressed data: ``"auto"`` where that pays, True wherever it is possible, or False.

    Raises
    ------
    InvalidArgument
        When `inner` is not one or more, or `compress` is something else.

    References
    ----------
    Huang, Sidiropoulos and Liavas, IEEE Transactions on Signal Processing 64 (2016) 5052,
    doi:10.1109/TSP.2016.2576427.

    Examples
    --------
    >>> AOADMM(inner=20)
    AOADMM(inner=20)
    """

    inner: int = eqx.field(default=10, static=True)
    extrapolate: bool = eqx.field(default=True, static=True)
    compress: bool | str = eqx.field(default="auto", static=True)
    least_squares: ClassVar[bool] = True
    divergences: ClassVar[bool] = False

    def __check_init__(self) -> None:
        """Refuse a number of iterations below one, and words that say nothing."""
        if self.inner < 1:
            raise InvalidArgument(f"AOADMM(inner={self.inner}): expected 1 or more iterations")
        check_compress(self)

    def refusal(self, constraints: ModeConstraints, per_row: bool, held: tuple[bool, ...]) -> str | None:
        """Return why a mode cannot be split; see the base class."""
        del per_row
        if constraints.unheard:
            return f"{', '.join(constraints.unheard)} has neither a proximal map nor a quadratic"
        if any(held) and constraints.splits == 0:
            return "without a proximal map the exact solution would leave the unit norm"
        return None

    def init(self, factors: Sequence[Float[Array, "size rank"]], constraints: Sequence[ModeConstraints]) -> Any:
        """Return for each mode zero duals, one a split, in units of the normal equations, and what maps remember."""
        return [
            ([jnp.zeros_like(factor) for _ in range(rules.splits)], rules.memory(factor.shape[0]))
            for factor, rules in zip(factors, constraints, strict=True)
        ]

    def step(self, block: Block, state: Any) -> tuple[list[Float[Array, "size rank"]], Any]:
        """Run the iterations; the result is kept only where the block's objective does not rise."""
        asked = [item for item in block.equations if isinstance(item, NormalEquations)]
        members = [
            _prepare(equations, factor, rules, block.norms[k] if block.norms is not None else None)
            for k, (equations, factor, rules) in enumerate(zip(asked, block.factors, block.constraints, strict=True))
        ]
        if block.norms is not None:
            members = _tie_penalties(members, block.norms)
        primal = [[factor] * rules.splits for factor, rules in zip(block.factors, block.constraints, strict=True)]
        dual = [[y / m.penalty for y in own] for (own, _), m in zip(state, members, strict=True)]
        memory = [known for _, known in state]

        def iterate(_: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            primal, dual, memory, _ = carry
            solved = [m.solve(z, u) for m, z, u in zip(members, primal, dual, strict=True)]
            points = [[a + u for u in own] for a, own in zip(solved, dual, strict=True)]
            if block.norms is None:
                found = [
                    [
                        m.rules.prox_from(point, 1 / m.penalty, known, split=k)
                        for k, (point, known) in enumerate(zip(own, knowns, strict=True))
                    ]
                    for m, own, knowns in zip(members, points, memory, strict=True)
                ]
                pulled = [[value for value, _ in own] for own in found]
                memory = [tuple(known for _, known in own) for own in found]
            else:
                pulled = _pull_on_sphere(members, points, block.factors, block.norms)
            dual = [
                [u + a - z for u, z in zip(us, zs, strict=True)] for us, a, zs in zip(dual, solved, pulled, strict=True)
            ]
            return pulled, dual, memory, solved

        count = self.inner if any(rules.splits for rules in block.constraints) else 1
        primal, dual, memory, solved = jax.lax.fori_loop(0, count, iterate, (primal, dual, memory, list(block.factors)))
        result = [z[0] if z else a for z, a in zip(primal, solved, strict=True)]
        result = [_make_feasible(value, rules) for value, rules in zip(result, block.constraints, strict=True)]
        for step in _other_steps(block, members):
            lower = block_value(block, step) < block_value(block, result)
            result = [jnp.where(lower, a, b) for a, b in zip(step, result, strict=True)]
        before = block_value(block, block.factors)
        better = block_value(block, result) <= before + _ROUNDING * jnp.abs(before)
        result = [jnp.where(better, new, old) for new, old in zip(result, block.factors, strict=True)]
        dual = [[u * m.penalty for u in own] for own, m in zip(dual, members, strict=True)]
        return result, list(zip(dual, memory, strict=True))


class _Member(NamedTuple):
    """One mode of a block, ready for the iterations."""

    equations: NormalEquations
    rules: ModeConstraints
    penalty: Array  # a number, or (size, 1) where rows differ
    inverse: Array  # (rank, rank), or (size, rank, rank)

    @property
    def gram(self) -> Array:
        """Return the Gram matrices in float64."""
        return self.equations.gram.astype(jnp.float64)

    def slope(self, factor: Array) -> Array:
        """Return the gradient of the quadratic part."""
        gram = self.equations.gram.astype(factor.dtype)
        product = jnp.einsum("nr,nrs->ns", factor, gram) if self.equations.per_row else factor @ gram
        return product - self.equations.right

    def solve(self, primal: Sequence[Array], dual: Sequence[Array]) -> Array:
        """Return the least-squares solution that is pulled towards the splits."""
        right = self.equations.right
        for z, u in zip(primal, dual, strict=True):
            right = right + self.penalty * (z - u)
        if self.inverse.ndim == 2:
            return right @ self.inverse
        return jnp.einsum("nr,nrs->ns", right, self.inverse)


def _prepare(equations: NormalEquations, factor: Array, rules: ModeConstraints, norm: Array | None) -> _Member:
    rules = rules.touching(factor)
    full = with_quadratic(equations, rules, factor.shape[0])
    rank, dtype = factor.shape[1], factor.dtype
    gram = full.gram.astype(jnp.float64)
    trace = jnp.trace(gram, axis1=-2, axis2=-1) / rank
    # Rows may have penalties of their own only where no proximal map looks across them.
    if full.per_row and (rules.ties_rows or norm is not None):
        penalty = jnp.mean(trace)
    else:
        penalty = trace
    # An indefinite quadratic penalty is allowed as long as the splitting outweighs its lowest eigenvalue.
    lowest = jnp.linalg.eigvalsh(rules.quadratic(factor.shape[0], jnp.float64).gram)[0]
    penalty = jnp.maximum(penalty, jnp.maximum(-2 * lowest, 0))
    penalty = jnp.where(penalty > 0, penalty, 1.0)
    if full.per_row and penalty.ndim == 1:
        shift = penalty[:, None, None]
        out = penalty[:, None]
    else:
        shift, out = penalty, penalty
    return _with_inverse(_Member(full, rules, out.astype(dtype), gram), shift)


def _with_inverse(member: _Member, shift: Array) -> _Member:
    gram = member.gram
    dtype = member.equations.right.dtype
    rank = gram.shape[-1]
    if member.rules.splits:
        inverse = small.inverse(gram + member.rules.splits * shift * jnp.eye(rank))
    else:
        inverse = jnp.linalg.pinv(gram, rtol=1e-12, hermitian=True)
    return member._replace(inverse=inverse.astype(dtype))


def _tie_penalties(members: Sequence[_Member], norms: Sequence[Array]) -> list[_Member]:
    """Return the members with penalties in proportion to the weights of the joint norm.

    Only in that metric is bringing the norm to one, after the proximal maps of cones and norms, the exact projection.
    """
    weights = [jnp.max(norm) for norm in norms]
    ratio = jnp.max(jnp.stack([jnp.max(m.penalty) / w for m, w in zip(members, weights, strict=True)]))
    return [
        _with_inverse(m._replace(penalty=(ratio * w).astype(m.equations.right.dtype)), ratio * w)
        for m, w in zip(members, weights, strict=True)
    ]


def _pull_on_sphere(
    members: Sequence[_Member], points: list[list[Array]], factors: Sequence[Array], norms: Sequence[Array]
) -> list[list[Array]]:
    """Return the proximal maps of the splits under the joint unit norm of every held column."""
    pulled = [list(own) for own in points]
    for k in range(max(len(own) for own in points)):

        def layer(multiple: Array, k: int = k) -> list[Array]:
            return [
                _stretched(m, own[split], multiple, split) if (split := min(k, len(own) - 1)) >= 0 else factor
                for m, own, factor in zip(members, points, factors, strict=True)
            ]

        reached = _to_unit_norm(layer(_multiple(layer, members, norms)), factors, norms)
        for own, value in zip(pulled, reached, strict=True):
            if k < len(own):
                own[k] = value
    return pulled


def _stretched(member: _Member, point: Array, multiple: Array, split: int) -> Array:
    """Return a proximal map with point and step times a multiple: the minimiser at the norm that it happens to have."""
    factor = multiple.astype(point.dtype)[None, :]
    return member.rules.prox(factor * point, factor / member.penalty, split=split)


def _multiple(layer: Any, members: Sequence[_Member], norms: Sequence[Array]) -> Array:
    """Return for every column the multiple at which its proximal maps have unit norm.

    Minimising ``g(z) + |z - v|^2 / (2 s)`` at unit norm, the multiplier of the norm turns the proximal map of (v, s)
    into that of (t v, t s).  For cones and norms t only scales the result, and any t will do; for a quadratic penalty
    it decides how strongly the penalty acts.
    """
    rank = norms[0].shape[0]
    ones = jnp.ones(rank, jnp.float64)
    if all(m.rules.exact_on_sphere((True,) * rank) for m in members):
        return ones
    held = jnp.any(jnp.stack([norm > 0 for norm in norms]), axis=0)

    def excess(logarithm: Array) -> Array:
        size = jnp.log(_joint_norm(layer(jnp.exp(logarithm)), norms))
        return jnp.where(held & jnp.isfinite(size), size, 0)

    def going(state: tuple[Array, ...]) -> Array:
        return (jnp.max(jnp.abs(state[1])) > _UNIT) & (state[3] < _ROOT_ROUNDS)

    def secant(state: tuple[Array, ...]) -> tuple[Array, ...]:
        at, value, slope, count = state
        move = -value / slope
        new = excess(at + move)
        found = (new - value) / jnp.where(move == 0, 1, move)
        # In logarithms the norm grows with a slope of at most one, with one for cones and norms.
        slope = jnp.where(move == 0, slope, jnp.clip(found, _FLATTEST, 1))
        return at + move, new, slope, count + 1

    start = jnp.zeros(rank, jnp.float64)
    return jnp.exp(jax.lax.while_loop(going, secant, (start, excess(start), ones, jnp.asarray(0)))[0])


def _joint_norm(values: Sequence[Array], norms: Sequence[Array]) -> Array:
    squares = [
        weight * jnp.sum(jnp.square(value.astype(jnp.float64)), axis=0)
        for value, weight in zip(values, norms, strict=True)
    ]
    return jnp.sqrt(sum(squares, start=jnp.zeros_like(squares[0])))


def _to_unit_norm(values: Sequence[Array], factors: Sequence[Array], norms: Sequence[Array]) -> list[Array]:
    """Return values with the joint norm of every held column brought to one; the old ones where nothing is left."""
    norm = _joint_norm(values, norms)
    result = []
    for value, old, weight in zip(values, factors, norms, strict=True):
        scaled = jnp.where(norm > 0, value / jnp.where(norm > 0, norm, 1), old)
        result.append(jnp.where(weight > 0, scaled, value).astype(value.dtype))
    return result


def _other_steps(block: Block, members: Sequence[_Member]) -> list[list[Array]]:
    """Return what else to try where the question is not convex."""
    if block.norms is not None:
        # On the sphere ADMM may circle; a proximal gradient step always leads down.
        return [_gradient_step(members, block.factors, block.norms)]
    found: list[list[Array]] = []
    only = members[0]
    if len(members) == 1 and only.rules.splits == 1 and only.rules.separability == Separability.MATRIX:
        # Where all allowed factors have the same Gram matrix, the linear term decides, and this is the minimiser.
        found.append([only.rules.prox(only.equations.right, 0.0)])
    if not all(m.rules.convex_maps for m in members):
        # ADMM may circle here as well.
        shares = _SHORTER if any(m.rules.splits > 1 for m in members) else _SHORTER[:1]
        found += [_free_gradient_step(members, block.factors, share) for share in shares]
    return found


def _free_gradient_step(
    members: Sequence[_Member], factors: Sequence[Array], share: float
) -> list[Float[Array, "size rank"]]:
    """Return the factors after a share of a proximal gradient step, which leads down with a single proximal map."""
    result = []
    for m, factor in zip(members, factors, strict=True):
        steepest = jnp.max(small.eigenvalue_bound(m.gram))
        step = (share / jnp.where(steepest > 0, steepest, 1.0)).astype(factor.dtype)
        value = factor - step * m.slope(factor)
        for split in range(m.rules.splits):
            value = m.rules.prox(value, step, split=split)
        result.append(_make_feasible(value, m.rules))
    return result


def _gradient_step(
    members: Sequence[_Member], factors: Sequence[Array], norms: Sequence[Array]
) -> list[Float[Array, "size rank"]]:
    """Return the factors after a proximal gradient step and brought back to the joint norm.

    The step is short enough for descent, and shorter still where the proximal map would leave nothing of a column.
    """
    weights = [jnp.where(jnp.max(norm) > 0, jnp.max(norm), 1.0) for norm in norms]
    steepest = jnp.max(
        jnp.stack([jnp.max(small.eigenvalue_bound(m.gram)) / w for m, w in zip(members, weights, strict=True)])
    )
    slopes = [m.slope(factor) for m, factor in zip(members, factors, strict=True)]
    size = jnp.sqrt(jnp.max(jnp.stack([jnp.sum(jnp.square(s)) / w for s, w in zip(slopes, weights, strict=True)])))

    def moved(curvature: Array, multiple: Array) -> list[Array]:
        result = []
        for m, factor, slope, weight in zip(members, factors, slopes, weights, strict=True):
            step = (1 / (curvature * weight)).astype(factor.dtype)
            value = factor - step * slope
            if m.rules.splits:
                stretch = multiple.astype(factor.dtype)[None, :]
                value, step = stretch * value, stretch * step
            for split in reversed(range(m.rules.splits)):
                value = m.rules.prox(value, step, split=split)
            result.append(value)
        return result

    ones = jnp.ones(norms[0].shape[0], jnp.float64)

    def vanished(state: tuple[Array, Array]) -> Array:
        curvature, count = state
        norm = _joint_norm(moved(curvature, ones), norms)
        held = jnp.any(jnp.stack([norm > 0 for norm in norms]), axis=0)
        return (count < 40) & jnp.any(held & (norm == 0))

    start = jnp.where(steepest > 0, steepest, 1.0)
    curvature, _ = jax.lax.while_loop(
        vanished, lambda state: (2 * state[0] + size, state[1] + 1), (start, jnp.asarray(0))
    )
    multiple = _multiple(lambda stretch: moved(curvature, stretch), members, norms)
    return _to_unit_norm(moved(curvature, multiple), factors, norms)


def _make_feasible(values: Array, rules: ModeConstraints) -> Array:
    if rules.splits < 2:
        return values

    enough = _FEASIBLE * jnp.finfo(values.dtype).eps

    def going(state: tuple[Array, Array, Array]) -> Array:
        current, change, count = state
        return (change > enough * jnp.max(jnp.abs(current))) & (count < _FEASIBILITY_ROUNDS)

    def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        current, _, count = state
        new = current
        for split in reversed(range(rules.splits)):
            new = rules.prox(new, 0.0, split=split)
        return new, jnp.max(jnp.abs(new - current)), count + 1

    first = jnp.asarray(jnp.inf, values.dtype)
    return jax.lax.while_loop(going, body, (values, first, jnp.asarray(0)))[0]
