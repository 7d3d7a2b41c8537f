"""What every solver of a block has to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.constraints.nonnegative import Box, NonNegative
from tensorspec.constraints.orthogonal import SoftOrthogonal
from tensorspec.constraints.simplex import SumToOne
from tensorspec.constraints.sparse import Sparse
from tensorspec.recipe import from_recipe, to_recipe
from tensorspec.solvers.base import AbstractSolver, Block, block_value

__all__ = ["SolverContract"]

_CASES: Mapping[str, Sequence[AbstractConstraint]] = {
    "nothing": [],
    "non-negative": [NonNegative()],
    "sparse and non-negative": [NonNegative(), Sparse(0.5)],
    "soft orthogonal": [NonNegative(), SoftOrthogonal(0.2)],
    "box": [Box(0.1, 0.6)],
    "simplex": [NonNegative(), SumToOne("component")],
    "columns sum to one": [NonNegative(), SumToOne("mode")],
}


class SolverContract:
    """Tests of one solver; a subclass says how it is made.

    Attributes
    ----------
    size, rank : int
        Shape of the factor.
    steps : int
        Steps after which the convex problem is solved to `tolerance`.
    tolerance : float
        Relative to the objective.
    """

    size: int = 15
    rank: int = 3
    steps: int = 200
    tolerance: float = 1e-8

    def make(self) -> AbstractSolver:
        """Return the solver to test."""
        raise NotImplementedError("say how the solver is made: def make(self): return Mine(...)")

    def block(self, items: Sequence[AbstractConstraint], per_row: bool = False, held: bool = False) -> Block:
        """Return a random least-squares problem with these constraints, from an allowed start."""
        rng = np.random.default_rng(4)
        design, target = rng.standard_normal((40, self.rank)) + 0.5, rng.standard_normal((self.size, 40)) + 0.5
        weights = (rng.random((self.size, 40)) > 0.3) if per_row else np.ones((self.size, 40))
        gram = np.einsum("ij,jr,js->irs", weights, design, design) if per_row else design.T @ design
        equations = NormalEquations(jnp.asarray(gram), jnp.asarray((weights * target) @ design))
        rules = ModeConstraints(
            tuple(
                jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if isinstance(x, float) else x, item)
                for item in combine(items)
            ),
            self.rank,
        )
        start = jnp.asarray(rng.random((self.size, self.rank)))
        start = rules.prox(start, 0.0) if rules.splits == 1 else start
        norms = None
        if held:
            start = start / jnp.linalg.norm(start, axis=0)
            norms = [jnp.ones(self.rank)]
        return Block([equations], [start], [rules], norms)

    def refused(self, block: Block) -> bool:
        """Return whether the solver says that it cannot take the block."""
        held = (block.norms is not None,) * self.rank
        return self.make().refusal(block.constraints[0], _equations(block).per_row, held) is not None

    def run(self, block: Block, steps: int) -> tuple[Block, list[float]]:
        """Return the block after some steps, and its objective before and after each."""
        solver = self.make()
        state: Any = solver.init(block.factors, block.constraints)
        step = jax.jit(lambda factors, state: solver.step(block._replace(factors=factors), state))
        values = [float(block_value(block, block.factors))]
        for _ in range(steps):
            factors, state = step(block.factors, state)
            block = block._replace(factors=factors)
            values.append(float(block_value(block, factors)))
        return block, values

    def test_comes_back_from_json(self) -> None:
        """The settings survive JSON."""
        made = self.make()
        assert to_recipe(from_recipe(json.loads(json.dumps(to_recipe(made))))) == to_recipe(made)

    def test_never_rises_and_stays_allowed(self) -> None:
        """Every step is feasible and costs no more than the one before, with and without weights, held or not."""
        with jax.enable_x64(True):
            tried = 0
            for items in _CASES.values():
                for per_row, held in ((False, False), (True, False), (False, True)):
                    if held and any(item.degree is None for item in items):
                        continue
                    block = self.block(items, per_row, held)
                    if self.refused(block):
                        continue
                    tried += 1
                    result, values = self.run(block, 10)
                    assert max(np.diff(values)) <= 1e-10 * (1 + abs(values[0])), (items, per_row, held)
                    assert float(result.constraints[0].violation(result.factors[0])) <= 1e-9
                    if held:
                        np.testing.assert_allclose(jnp.linalg.norm(result.factors[0], axis=0), 1, rtol=1e-12)
            assert tried > 0, "the solver refused everything"

    def test_reaches_the_minimum(self) -> None:
        """A convex problem is solved to the tolerance: a long projected-gradient run finds nothing lower."""
        with jax.enable_x64(True):
            for items in _CASES.values():
                if any(not item.convex for item in items):
                    continue
                block = self.block(items)
                if self.refused(block):
                    continue
                _, values = self.run(block, self.steps)
                best = _reference(block)
                assert values[-1] <= best + self.tolerance * (1 + abs(best)), items

    def test_a_dead_partner_does_no_harm(self) -> None:
        """Without curvature in a column nothing becomes infinite or undefined."""
        with jax.enable_x64(True):
            block = self.block([NonNegative()])
            if self.refused(block):
                return
            gram = np.asarray(_equations(block).gram).copy()
            right = np.asarray(_equations(block).right).copy()
            gram[1, :] = gram[:, 1] = right[:, 1] = 0
            dead = block._replace(equations=[NormalEquations(jnp.asarray(gram), jnp.asarray(right))])
            result, _ = self.run(dead, 3)
            assert np.isfinite(np.asarray(result.factors[0])).all()


def _equations(block: Block) -> NormalEquations:
    equations = block.equations[0]
    assert isinstance(equations, NormalEquations)
    return equations


def _reference(block: Block) -> float:
    """Return the objective after a long accelerated proximal-gradient run, an independent way to the minimum."""
    equations, rules = _equations(block), block.constraints[0]
    step = 1 / float(jnp.linalg.eigvalsh(equations.gram)[-1])

    def body(_: Any, carry: Any) -> Any:
        current, probe, speed = carry
        gradient = probe @ equations.gram - equations.right
        new = rules.prox(probe - step * gradient, step)
        next_speed = 0.5 * (1 + jnp.sqrt(1 + 4 * speed**2))
        return new, new + (speed - 1) / next_speed * (new - current), next_speed

    start = block.factors[0]
    final, _, _ = jax.lax.fori_loop(0, 5000, body, (start, start, jnp.asarray(1.0)))
    return float(block_value(block, [final]))
