"""Every constraint keeps the contract."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.constraints.base import AbstractPenalty, Separability, Stateful, component_field, strength_field
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.constraints.cross_product import NearSameCrossProduct, SameCrossProduct
from tensorspec.constraints.shape import NonNegativeMonotone, NonNegativeUnimodal
from tensorspec.constraints.simplex import Simplex
from tensorspec.solvers.adaptive import AdaptiveColumns
from tensorspec.testing import ConstraintContract


class TestNonNegative(ConstraintContract):
    def make(self):
        return ts.NonNegative()


class TestBox(ConstraintContract):
    def make(self):
        return ts.Box(-0.5, 1.5)


class TestSparse(ConstraintContract):
    def make(self):
        return ts.Sparse(0.3)


class TestGroupSparse(ConstraintContract):
    def make(self):
        return ts.GroupSparse(0.9)


class TestSmooth(ConstraintContract):
    def make(self):
        return ts.Smooth(0.001)


@pytest.mark.slow
class TestTotalVariation(ConstraintContract):
    def make(self):
        return ts.TotalVariation(0.4)


class OnAMap(ConstraintContract):
    """The mode is a map of 3 by 4 pixels, uneven along y."""

    def context(self):
        return (
            super().context()._replace(shape=(3, 4), coordinates=(np.array([0.0, 0.5, 2.0]), None), units=("nm", None))
        )


@pytest.mark.slow
class TestSmoothMap(OnAMap):
    def make(self):
        return ts.Smooth(0.2)


@pytest.mark.slow
class TestTotalVariationMap(OnAMap):
    # Its iterations end when a step changes no difference by more than 1e-10 of the largest entry.
    tolerance = 1e-7

    def make(self):
        return ts.TotalVariation(0.3)


class TestLocallySmooth(ConstraintContract):
    def make(self):
        return ts.LocallySmooth(np.repeat([1.0, 2.0, 4.0], 4), 0.8)


class TestLocallySmoothMap(OnAMap):
    def make(self):
        return ts.LocallySmooth(np.tile([1.0, 1.0, 1.5, 1.5], 3), 0.8)


class TestNear(ConstraintContract):
    def make(self):
        values = np.full((self.size, self.columns), np.nan)
        values[:, 0] = np.linspace(0, 1, self.size)
        values[2, 1] = 0.5
        values[:3, 2] = 0.25
        return ts.Near(values, 0.7)


@pytest.mark.slow
class TestSpan(ConstraintContract):
    def make(self):
        return ts.Span(np.random.default_rng(2).random((self.size, 4)))


@pytest.mark.slow
class TestSpanOfBothSigns(ConstraintContract):
    def make(self):
        return ts.Span(np.random.default_rng(2).standard_normal((self.size, 4)), nonnegative=False)


@pytest.mark.slow
class TestSpanOfPowers(ConstraintContract):
    def make(self):
        return ts.Span(np.linspace(400.0, 900.0, self.size)[:, None] ** -np.arange(2.0, 6.0))


class TestARD(ConstraintContract):
    def make(self):
        return ts.ARD(0.3, merge=0.99)

    def context(self):
        return super().context()._replace(noise_deviation=0.2)


class TestARDAutomatic(TestARD):
    def make(self):
        return ts.ARD()


class TestSoftOrthogonal(ConstraintContract):
    def make(self):
        return ts.SoftOrthogonal(0.2)


class TestSoftOrthogonalAutomatic(ConstraintContract):
    def make(self):
        return ts.SoftOrthogonal()


class TestOrthogonal(ConstraintContract):
    def make(self):
        return ts.Orthogonal()

    def context(self):
        return super().context()._replace(carries=False)


class TestSoftOrthogonalAsPublished(ConstraintContract):
    def make(self):
        return ts.SoftOrthogonal(0.1, method="shiga2016")

    def test_a_solver_takes_it(self):
        """A solver of its own takes it; the others refuse it by name."""
        with jax.enable_x64(True):
            rules = ModeConstraints((self.ready(),), self.columns)
        for solver in (ts.HALS(), ts.AOADMM()):
            assert "AdaptiveSoftOrthogonal" in solver.refusal(rules, False, (False,) * self.columns)
        assert AdaptiveColumns().refusal(rules, False, (True,) * self.columns) is None


class TestSumToOneOverComponents(ConstraintContract):
    def make(self):
        return ts.SumToOne("component")


class TestSumToOneOverTheMode(ConstraintContract):
    def make(self):
        return ts.SumToOne("mode")


class TestSimplexOverComponents(ConstraintContract):
    def make(self):
        return Simplex("component")


class TestSimplexOverTheMode(ConstraintContract):
    def make(self):
        return Simplex("mode")


class TestMonotoneRising(ConstraintContract):
    def make(self):
        return ts.Monotone()


@pytest.mark.slow
class TestMonotoneFalling(ConstraintContract):
    def make(self):
        return ts.Monotone(increasing=False)


class TestNonNegativeMonotone(ConstraintContract):
    def make(self):
        return NonNegativeMonotone(increasing=False)


@pytest.mark.slow
class TestUnimodal(ConstraintContract):
    def make(self):
        return ts.Unimodal()


class TestNonNegativeUnimodal(ConstraintContract):
    def make(self):
        return NonNegativeUnimodal()


class TestMinimumVolume(ConstraintContract):
    def make(self):
        return ts.MinimumVolume(0.3)


@pytest.mark.slow
class TestPurePixel(ConstraintContract):
    def make(self):
        return ts.PurePixel()


@pytest.mark.slow
class TestSameCrossProduct(ConstraintContract):
    def make(self):
        return SameCrossProduct(3)


@pytest.mark.slow
class TestNearSameCrossProduct(ConstraintContract):
    def make(self):
        return NearSameCrossProduct(0.3, 3)

    def test_a_solver_takes_it(self):
        """Unequal cross-products are reported as a violation, but not forbidden; descent is tried in the fits."""


class TestFixed(ConstraintContract):
    def make(self):
        values = np.full((self.size, self.columns), np.nan)
        values[:, 0] = np.linspace(0, 1, self.size)
        values[:3, 2] = 0.25
        return ts.Fixed(values)

    def ready(self):
        # Resolved, the constraint names the components that it acts on; here it is tried on those alone.
        item = super().ready()
        self.columns = len(item.components)
        return item

    columns: int = 3

    def test_a_solver_takes_it(self):
        """Tried through `fit` in the tests of labelled values: here its columns are not all of the factor's."""


class Weighted(AbstractPenalty, Stateful):
    """A stateful constraint: an L1 norm whose weights learn from the factor (reweighted, as relevance is)."""

    strength: Any = strength_field()
    weights: Any = None
    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 1

    def prox(self, values, step, column=None):
        weight = self.weights if column is None else self.weights[column]
        threshold = (self.strength * weight * step).astype(values.dtype)
        return jnp.sign(values) * jnp.maximum(jnp.abs(values) - threshold, 0)

    def value(self, factor):
        return self.strength * jnp.sum(self.weights * jnp.sum(jnp.abs(factor), axis=0))

    def init_state(self, size, columns):
        return eqx.tree_at(lambda c: c.weights, self, jnp.ones(columns), is_leaf=lambda x: x is None)

    def update_state(self, factor):
        learnt = factor.shape[0] / (jnp.sum(jnp.abs(factor), axis=0) + factor.shape[0])
        return eqx.tree_at(lambda c: c.weights, self, learnt.astype(self.weights.dtype))


class TestStateful(ConstraintContract):
    def make(self):
        return Weighted(0.3)


def test_a_stateful_constraint_learns_in_a_fit():
    rng = np.random.default_rng(0)
    data = xr.DataArray(rng.random((9, 2)) @ rng.random((2, 8)), dims=("x", "energy"))
    model = ts.CP(2, {"pixel": [ts.NonNegative(), Weighted(0.2)], "energy": ts.NonNegative()})
    learnt = ts.fit(data, model, progress=False)
    plain = ts.fit(
        data, ts.CP(2, {"pixel": [ts.NonNegative(), ts.Sparse(0.2)], "energy": ts.NonNegative()}), progress=False
    )
    assert learnt.converged
    # The weights fall below one where the signal is, so the misfit ends below that of the constant strength.
    assert learnt.explained > plain.explained
