"""What every constraint has to keep."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    AbstractMajorisedPenalty,
    AbstractPenalty,
    AbstractQuadraticPenalty,
    Bijective,
    Context,
    Iterated,
    Majorised,
    Resolvable,
    Separability,
    Stateful,
)
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.recipe import from_recipe, to_recipe
from tensorspec.solvers.admm import AOADMM
from tensorspec.solvers.base import Block, block_value
from tensorspec.solvers.hals import HALS

__all__ = ["ConstraintContract"]


class ConstraintContract:
    """Tests of one constraint; a subclass says how it is made.

    Attributes
    ----------
    size, columns : int
        Shape of the factors that are tried.
    tolerance : float
        Absolute tolerance for float64, where the constraint's own arithmetic cannot do better.
    """

    size: int = 12
    columns: int = 3
    tolerance: float = 1e-9

    def make(self) -> AbstractConstraint:
        """Return the constraint to test."""
        raise NotImplementedError("say how the constraint is made: def make(self): return Mine(...)")

    # -- helpers ---------------------------------------------------------------------------------------------------

    def ready(self) -> AbstractConstraint:
        """Return the constraint resolved, with its first state, its numbers traced data."""
        item: Any = self.make()
        if isinstance(item, Resolvable):
            item = item.resolve(self.context())
        if isinstance(item, Stateful):
            item = item.init_state(self.size, self.columns)
        if isinstance(item, Majorised):
            item = item.update_state(jnp.asarray(self.points()[1]))
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if isinstance(x, (float, np.ndarray)) else x, item)

    def context(self) -> Context:
        """Return what `fit` would tell the constraint before the first sweep."""
        grid = np.linspace(0.0, 1.0, self.size)
        return Context("mode", (self.size,), (grid,), ("eV",), self.columns, 0.1, 1.0)

    def points(self, count: int = 4, seed: int = 0) -> list[np.ndarray]:
        """Return some factors with entries of both signs."""
        rng = np.random.default_rng(seed)
        return [scale * rng.standard_normal((self.size, self.columns)) for scale in np.geomspace(0.3, 3.0, count)]

    # -- every constraint ------------------------------------------------------------------------------------------

    def test_comes_back_from_json(self) -> None:
        """The settings survive JSON, and print as the call that makes them."""
        made = self.make()
        again = from_recipe(json.loads(json.dumps(to_recipe(made))))
        assert type(again) is type(made)
        assert to_recipe(again) == to_recipe(made)
        assert repr(made).startswith(type(made).__name__ + "(")

    def test_value_and_violation_are_numbers(self) -> None:
        """Value and violation are finite numbers, and the violation is not negative."""
        with jax.enable_x64(True):
            item = self.ready()
            for point in self.points():
                assert np.isfinite(float(item.value(jnp.asarray(point))))
                assert float(item.violation(jnp.asarray(point))) >= 0

    def test_value_is_homogeneous(self) -> None:
        """A penalty of degree p, or the bound that it minimises, grows with the p-th power of the factor."""
        with jax.enable_x64(True):
            item = self.ready()
            if item.degree is None or isinstance(item, (AbstractHardConstraint, AbstractMajorisedPenalty)):
                return
            for point in self.points():
                one, three = self._cost(item, jnp.asarray(point)), self._cost(item, jnp.asarray(3.0 * point))
                if isinstance(item, Majorised):  # a bound may have a constant
                    one, three = (cost - self._cost(item, jnp.zeros_like(point)) for cost in (one, three))
                np.testing.assert_allclose(three, 3.0**item.degree * one, rtol=1e-10, atol=self.tolerance)

    def _cost(self, item: Any, point: Any) -> Any:
        """Return what the proximal map minimises beside the distance."""
        return item.bound(point) if isinstance(item, Majorised) else item.value(point)

    def test_convexity_is_true(self) -> None:
        """Of two points, the middle costs no more than the mean; of two allowed points, it is allowed."""
        with jax.enable_x64(True):
            item = self.ready()
            if not item.convex:
                return
            points = [self._allowed(item, jnp.asarray(p)) for p in self.points(6)]
            for a, b in zip(points[:-1], points[1:], strict=True):
                middle = 0.5 * (a + b)
                assert float(item.violation(middle)) <= 10 * self.tolerance
                mean = 0.5 * (float(item.value(a)) + float(item.value(b)))
                assert float(item.value(middle)) <= mean + self.tolerance * (1 + abs(mean))

    def _allowed(self, item: Any, point: Any) -> Any:
        return item.prox(point, 0.0) if isinstance(item, AbstractHardConstraint) else point

    # -- proximal maps ---------------------------------------------------------------------------------------------

    def test_prox_is_the_minimiser(self) -> None:
        """No other point tried has a lower value plus squared distance over twice the step."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, (AbstractHardConstraint, AbstractPenalty)):
                return
            rng = np.random.default_rng(1)
            shape = (self.size, self.columns)
            nudges = 1e-3 * np.eye(self.size * self.columns).reshape(-1, *shape)
            strays = [scale * rng.standard_normal(shape) for scale in (1e-4, 1e-2, 1.0)]
            moves = jnp.asarray(np.concatenate([nudges, -nudges, strays]))

            @jax.jit
            def costs(point: Any, step: Any) -> Any:
                best = item.prox(point, step)

                def cost(z: Any) -> Any:
                    allowed = item.prox(z, step) if isinstance(item, AbstractHardConstraint) else z
                    return self._cost(item, allowed) + jnp.sum(jnp.square(allowed - point)) / (2 * step)

                return best, cost(best), jax.vmap(cost)(best + moves)

            for point in self.points():
                for step in (0.1, 1.0):
                    best, lowest, others = costs(jnp.asarray(point), step)
                    assert float(item.violation(best)) <= self.tolerance
                    assert float(jnp.min(others)) >= float(lowest) - self.tolerance * (1 + abs(float(lowest)))

    def test_prox_leaves_an_allowed_point_alone(self) -> None:
        """A projection done twice is done once; a penalty with no step changes nothing."""
        with jax.enable_x64(True):
            item = self.ready()
            for point in self.points():
                if isinstance(item, AbstractHardConstraint):
                    once = item.prox(jnp.asarray(point), 1.0)
                    np.testing.assert_allclose(item.prox(once, 1.0), once, atol=self.tolerance)
                elif isinstance(item, AbstractPenalty):
                    np.testing.assert_allclose(item.prox(jnp.asarray(point), 0.0), point, atol=self.tolerance)

    def test_prox_of_a_column_is_that_of_the_factor(self) -> None:
        """Solvers that work by column get what those that work by factor get."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, (AbstractHardConstraint, AbstractPenalty)):
                return
            if item.separability > Separability.COLUMN:
                return
            point = jnp.asarray(self.points()[1])
            whole = item.prox(point, 0.7)
            for column in range(self.columns):
                alone = item.prox(point[:, column], 0.7, column)
                np.testing.assert_allclose(alone, whole[:, column], atol=self.tolerance)

    def test_separability_is_true(self) -> None:
        """Changing one piece of the factor changes nothing in the other pieces of the proximal map."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, (AbstractHardConstraint, AbstractPenalty)):
                return
            point = self.points()[1]
            changed = point.copy()
            changed[2, 1] += 0.5
            touched = np.ones(point.shape, bool)
            if item.separability == Separability.ENTRY:
                touched[:] = False
                touched[2, 1] = True
            elif item.separability == Separability.COLUMN:
                touched[:, [c for c in range(self.columns) if c != 1]] = False
            elif item.separability == Separability.ROW:
                touched[[r for r in range(self.size) if r != 2]] = False
            before, after = item.prox(jnp.asarray(point), 0.7), item.prox(jnp.asarray(changed), 0.7)
            np.testing.assert_allclose(
                np.asarray(after)[~touched], np.asarray(before)[~touched], rtol=0, atol=self.tolerance
            )

    def test_a_cone_scales(self) -> None:
        """Where the degree is zero, projecting twice a point gives twice its projection."""
        with jax.enable_x64(True):
            item = self.ready()
            if not (isinstance(item, AbstractHardConstraint) and item.degree == 0):
                return
            for point in self.points():
                double = item.prox(jnp.asarray(2 * point), 1.0)
                np.testing.assert_allclose(double, 2 * item.prox(jnp.asarray(point), 1.0), atol=self.tolerance)

    def test_float32_stays_float32(self) -> None:
        """A proximal map returns the type that it was given, and close to the value in float64."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, (AbstractHardConstraint, AbstractPenalty)):
                return
            point = self.points()[1]
            single = item.prox(jnp.asarray(point, jnp.float32), 0.5)
            assert single.dtype == jnp.float32
            np.testing.assert_allclose(single, item.prox(jnp.asarray(point), 0.5), atol=1e-5)

    # -- other channels --------------------------------------------------------------------------------------------

    def test_quadratic_is_the_value(self) -> None:
        """The value is 1/2 tr(A Q A^T) - <L, A> + c, and Q is symmetric."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, AbstractQuadraticPenalty):
                return
            terms = item.quadratic(self.size, self.columns)
            gram = np.asarray(terms.gram)
            np.testing.assert_allclose(gram, gram.T, atol=1e-14)
            for point in self.points():
                value = 0.5 * np.trace(point @ gram @ point.T) + float(terms.constant)
                if terms.linear is not None:
                    value -= float(np.sum(np.asarray(terms.linear) * point))
                np.testing.assert_allclose(float(item.value(jnp.asarray(point))), value, rtol=1e-10, atol=1e-12)

    def test_bound_touches_and_lies_above(self) -> None:
        """The quadratic through a factor has the value there, and is nowhere below it."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, AbstractMajorisedPenalty):
                return

            @jax.jit
            def gap(point: Any, at: Any) -> Any:
                terms = item.bound(at)
                above = 0.5 * jnp.sum((point.T @ point) * terms.gram) + terms.constant
                above = above if terms.linear is None else above - jnp.sum(terms.linear * point)
                return above - item.value(point)

            for at in self.points():
                assert abs(float(gap(at, at))) <= self.tolerance
                for point in self.points(6, seed=1) + [at + 0.01 * self.points()[0]]:
                    assert float(gap(point, at)) >= -self.tolerance

    def test_bijection_goes_there_and_back(self) -> None:
        """Any free variable gives an allowed point, and an allowed point comes back from its free variable."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, Bijective):
                return
            for point in self.points():
                made = item.forward(jnp.asarray(point))
                assert float(item.violation(made)) <= self.tolerance
                np.testing.assert_allclose(item.forward(item.inverse(made)), made, atol=1e-5)

    def test_state_keeps_its_shape(self) -> None:
        """A state is replaced by one of the same structure, so that a compiled loop can carry it."""
        with jax.enable_x64(True):
            item = self.ready()
            if not isinstance(item, Stateful):
                return
            after = item.update_state(jnp.asarray(self.points()[0]))
            assert type(after) is type(item)
            assert jax.tree.structure(after) == jax.tree.structure(item)
            for old, new in zip(jax.tree.leaves(item), jax.tree.leaves(after), strict=True):
                assert jnp.shape(old) == jnp.shape(new)
                assert jnp.result_type(old) == jnp.result_type(new)

    def test_iterations_that_go_on_reach_the_map(self) -> None:
        """From what it remembers, the proximal map comes to that found at once; columns remember apart."""
        with jax.enable_x64(True):
            item: Any = self.ready()
            if not isinstance(item, Iterated) or item.memory(self.size) is None:
                return
            assert isinstance(item, AbstractPenalty)
            first, second = (jnp.asarray(point) for point in self.points(2))
            begun = jax.tree.map(lambda own: jnp.stack([own] * self.columns), item.memory(self.size))
            going = jax.jit(lambda values, memory: item.prox_from(values, 0.7, memory))
            memory = going(first, begun)[1]
            assert jax.tree.structure(memory) == jax.tree.structure(begun)
            assert [leaf.shape for leaf in jax.tree.leaves(memory)] == [leaf.shape for leaf in jax.tree.leaves(begun)]
            whole, after = going(second, memory)
            for column in range(self.columns):
                own = jax.tree.map(lambda rows, column=column: rows[column], memory)
                alone, kept = item.prox_from(second[:, column], 0.7, own, column)
                np.testing.assert_allclose(alone, whole[:, column], atol=1e-12)
                for one, rows in zip(jax.tree.leaves(kept), jax.tree.leaves(after), strict=True):
                    np.testing.assert_allclose(one, rows[column], atol=1e-12)
            for _ in range(30):
                whole, after = going(second, after)
            np.testing.assert_allclose(whole, item.prox(second, 0.7), atol=10 * self.tolerance)

    def test_bound_lies_above_the_value_and_touches_it(self) -> None:
        """The bound is nowhere below the value, and equal to it where the state was learnt."""
        with jax.enable_x64(True):
            item: Any = self.ready()
            if not isinstance(item, Majorised):
                return
            for learnt in self.points():
                item = item.update_state(jnp.asarray(learnt))
                value = float(item.value(jnp.asarray(learnt)))
                np.testing.assert_allclose(float(item.bound(jnp.asarray(learnt))), value, rtol=1e-10, atol=1e-12)
                for point in (*self.points(), *self.points(seed=5)):
                    value = float(item.value(jnp.asarray(point)))
                    assert float(item.bound(jnp.asarray(point))) >= value - self.tolerance * (1 + abs(value))

    def test_a_solver_takes_it(self) -> None:
        """The solver that dispatch would choose returns an allowed factor that costs no more than an allowed start."""
        with jax.enable_x64(True):
            item = self.ready()
            rules = ModeConstraints((item,), self.columns)
            rng = np.random.default_rng(3)
            design, target = rng.random((30, self.columns)), rng.random((self.size, 30))
            equations = NormalEquations(jnp.asarray(design.T @ design), jnp.asarray(target @ design))
            held = (False,) * self.columns
            taken = [solver for solver in (HALS(inner=20), AOADMM(inner=50)) if not solver.refusal(rules, False, held)]
            assert taken, "no solver takes this constraint"
            for solver in taken:
                start = jnp.asarray(np.abs(self.points()[2]))
                start = rules.prox(start, 0.0) if rules.splits else start
                block = Block([equations], [start], [rules], None)
                result, _ = solver.step(block, solver.init(block.factors, block.constraints))
                assert float(rules.violation(result[0])) <= self.tolerance
                assert float(block_value(block, result)) <= float(block_value(block, block.factors)) + 1e-12
