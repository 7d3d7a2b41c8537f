"""Our constraints keep the published contract of matcouply's penalties (Roald and others, MIT licence).

An adapter makes a constraint a penalty of theirs; the tests that follow are inherited from `matcouply.testing`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matcouply import penalties
from matcouply.testing import fixtures
from matcouply.testing.admm_penalty import (
    BaseTestFactorMatrixPenalty,
    BaseTestRowVectorPenalty,
    MixinTestHardConstraint,
)

import tensorspec as ts
from tensorspec.constraints.shape import NonNegativeUnimodal
from tensorspec.constraints.simplex import Simplex

seed, rng = fixtures.seed, fixtures.rng
random_ragged_shapes, random_ragged_cmf = fixtures.random_ragged_shapes, fixtures.random_ragged_cmf

pytestmark = pytest.mark.slow


class Adapted(penalties.RowVectorPenalty):
    """One of our constraints as a penalty of matcouply; its feasibility penalty is one over our step."""

    def __init__(self, constraint, aux_init="random_uniform", dual_init="random_uniform"):
        super().__init__(aux_init, dual_init)
        self.constraint = constraint

    def factor_matrix_update(self, factor_matrix, feasibility_penalty, aux):
        with jax.enable_x64(True):
            return np.asarray(self.constraint.prox(jnp.asarray(factor_matrix), 1 / feasibility_penalty))

    def factor_matrix_row_update(self, factor_matrix_row, feasibility_penalty, aux_row):
        return self.factor_matrix_update(factor_matrix_row[None, :], feasibility_penalty, None)[0]

    def penalty(self, x):
        with jax.enable_x64(True):
            matrices = x if isinstance(x, list) else [np.atleast_2d(x)]
            return sum(float(self.constraint.value(jnp.asarray(matrix))) for matrix in matrices)


class Ours:
    """What every class below says of itself."""

    PenaltyType = Adapted
    constraint: object

    # These ask how matcouply begins its iterations, nothing of ours; of one, pytest cannot read the parameters.
    test_uniform_init_aux = test_standard_normal_init_aux = test_zeros_init_aux = test_given_init_aux = None
    test_uniform_init_dual = test_standard_normal_init_dual = test_zeros_init_dual = test_given_init_dual = None
    test_rank_and_mode_validation_for_init_aux = test_rank_and_mode_validation_for_init_dual = None
    test_validating_given_init_aux = test_validating_given_init_dual = None
    test_input_validation_for_init_aux = test_input_validation_init_dual = None

    @property
    def penalty_default_kwargs(self):
        return {"constraint": self.constraint}


class TestNonNegative(Ours, MixinTestHardConstraint, BaseTestRowVectorPenalty):
    constraint = ts.NonNegative()

    def get_invariant_row(self, rng, n_columns):
        return rng.random_sample(n_columns)

    def get_non_invariant_row(self, rng, n_columns):
        return -0.1 - rng.random_sample(n_columns)


class TestBox(Ours, MixinTestHardConstraint, BaseTestRowVectorPenalty):
    constraint = ts.Box(-0.5, 0.25)

    def get_invariant_row(self, rng, n_columns):
        return rng.uniform(-0.5, 0.25, n_columns)

    def get_non_invariant_row(self, rng, n_columns):
        return rng.uniform(0.5, 2, n_columns)


class TestSparse(Ours, BaseTestRowVectorPenalty):
    constraint = ts.Sparse(0.3)

    def get_invariant_row(self, rng, n_columns):
        return np.zeros(n_columns)

    def get_non_invariant_row(self, rng, n_columns):
        return rng.uniform(0.1, 1, n_columns)

    def test_penalty(self, rng):
        values = rng.standard_normal((4, 3))
        assert Adapted(self.constraint).penalty(values) == np.float64(0.3) * np.abs(values).sum()
        theirs = penalties.L1Penalty(0.3)
        np.testing.assert_allclose(
            Adapted(self.constraint).factor_matrix_update(values, 2.0, None),
            theirs.factor_matrix_update(values, 2.0, np.zeros_like(values)),
            atol=1e-15,
        )


class TestSimplexOverTheMode(Ours, MixinTestHardConstraint, BaseTestFactorMatrixPenalty):
    constraint = Simplex("mode")

    def get_invariant_matrix(self, rng, shape):
        values = rng.random_sample(shape)
        return values / values.sum(axis=0)

    def get_non_invariant_matrix(self, rng, shape):
        return 2 + rng.random_sample(shape)


class TestUnimodal(Ours, MixinTestHardConstraint, BaseTestFactorMatrixPenalty):
    constraint = ts.Unimodal()
    min_rows = 3

    def get_invariant_matrix(self, rng, shape):
        values = np.sort(rng.standard_normal(shape), axis=0)
        cut = rng.randint(0, shape[0] + 1)
        return np.concatenate([values[:cut], values[cut:][::-1]])

    def get_non_invariant_matrix(self, rng, shape):
        values = rng.standard_normal(shape)
        values[shape[0] // 2] = -10
        values[[0, -1]] = 10 + rng.random_sample((2, shape[1]))
        return values


class TestNonNegativeUnimodal(TestUnimodal):
    constraint = NonNegativeUnimodal()

    def get_invariant_matrix(self, rng, shape):
        return np.maximum(super().get_invariant_matrix(rng, shape), 0)


class TestMonotoneRising(Ours, MixinTestHardConstraint, BaseTestFactorMatrixPenalty):
    constraint = ts.Monotone()
    min_rows = 2

    def get_invariant_matrix(self, rng, shape):
        return np.sort(rng.standard_normal(shape), axis=0)

    def get_non_invariant_matrix(self, rng, shape):
        return np.sort(rng.standard_normal(shape), axis=0)[::-1]


class TestMonotoneFalling(Ours, MixinTestHardConstraint, BaseTestFactorMatrixPenalty):
    constraint = ts.Monotone(increasing=False)
    min_rows = 2

    def get_invariant_matrix(self, rng, shape):
        return np.sort(rng.standard_normal(shape), axis=0)[::-1]

    def get_non_invariant_matrix(self, rng, shape):
        return np.sort(rng.standard_normal(shape), axis=0)


class TestOrthogonal(Ours, MixinTestHardConstraint, BaseTestFactorMatrixPenalty):
    constraint = ts.Orthogonal()
    min_rows = 10  # never fewer points than components

    def get_invariant_matrix(self, rng, shape):
        return np.linalg.qr(rng.standard_normal(shape))[0]

    def get_non_invariant_matrix(self, rng, shape):
        return rng.standard_normal(shape)


def test_unimodal_is_theirs():
    # Their algorithm is another one: the best peak by the errors of all beginnings, from scikit-learn.
    from matcouply._unimodal_regression import unimodal_regression

    generator = np.random.default_rng(0)
    with jax.enable_x64(True):
        for nonnegative, ours in ((False, ts.Unimodal()), (True, NonNegativeUnimodal())):
            values = generator.standard_normal((25, 6)) + np.cumsum(generator.standard_normal((25, 6)), axis=0)
            theirs = unimodal_regression(values, non_negativity=nonnegative)
            np.testing.assert_allclose(ours.project(values), theirs, atol=1e-12)
