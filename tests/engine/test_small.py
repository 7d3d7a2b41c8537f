"""Many small matrices at once: as LAPACK does it one by one, and without LAPACK."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.algebra import small
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.solvers.base import Block


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_inverses_and_eigenvalues_are_those_of_numpy(rank):
    rng = np.random.default_rng(rank)
    roots = rng.standard_normal((20, rank, rank + 2)) * np.geomspace(1e-6, 1e6, 20)[:, None, None]
    positive = roots @ roots.transpose(0, 2, 1)
    symmetric = roots[:, :, :rank] + roots[:, :, :rank].transpose(0, 2, 1)
    with jax.enable_x64(True):
        found = np.asarray(small.inverse(jnp.asarray(positive)))
        np.testing.assert_allclose(found @ positive, np.broadcast_to(np.eye(rank), positive.shape), atol=1e-8)
        for matrices in (positive, symmetric):
            largest = np.abs(np.linalg.eigvalsh(matrices)).max(axis=1)
            ratio = np.asarray(small.eigenvalue_bound(jnp.asarray(matrices))) / largest
            assert (ratio >= 1 - 1e-12).all() and (ratio <= rank ** (1 / 16) + 1e-12).all()
        assert not np.asarray(small.eigenvalue_bound(jnp.zeros((2, 3, 3)))).any()


def test_rows_with_gram_matrices_of_their_own_are_not_given_to_lapack():
    """Two calls for many matrices, side by side, would wait for each other on a machine with two threads."""
    rng = np.random.default_rng(0)
    roots = rng.random((40, 3, 5))
    with jax.enable_x64(True):
        equations = NormalEquations(jnp.asarray(roots @ roots.transpose(0, 2, 1)), jnp.asarray(rng.random((40, 3))))
        rules = ModeConstraints((ts.NonNegative(), ts.MinimumVolume(0.1)), 3)
        block = Block([equations], [jnp.asarray(rng.random((40, 3)))], [rules], None)
        solver = ts.AOADMM()
        step = eqx.filter_jit(solver.step)
        text = step.lower(block, solver.init(block.factors, block.constraints)).as_text()
    calls = [line for line in text.splitlines() if "lapack" in line]
    assert calls  # one matrix at a time is allowed
    assert not [line for line in calls if re.search(r"tensor<40x3x3", line)]
