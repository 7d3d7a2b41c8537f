"""Dense least squares are compiled with options that make them ready sooner, everything else as usual."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.algebra.entries import Entries
from tensorspec.algebra.sparse import SparseTensor
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.problem import Problem, Tensor
from tensorspec.solvers import compiling

ONE = jnp.ones(())


def problem(blocks, loss=None, rule=None):
    rules = {"a": ModeConstraints((rule or ts.NonNegative(),), 1), "b": ModeConstraints((ts.NonNegative(),), 1)}
    return Problem((Tensor(("a", "b"), blocks, ONE, ONE, (None, None), None, ONE, loss),), rules, ())


DENSE = problem((jnp.ones((2, 3)),))
SPARSE = problem((SparseTensor.build(Entries.from_dense(np.eye(3))),))
LIKELIHOOD = problem((jnp.ones((2, 3)),), ts.Poisson())


def used(item, options):
    """Return with which options a function of a problem is compiled."""
    found = []

    def jit(function, compiler_options=None):
        def compiled(*arguments):
            found.append(compiler_options)
            return function(*arguments)

        return compiled

    compiling.sooner.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "_SOONER", options)
        assert compiling.by_problem(jit)(lambda own, more: more)(item, 3) == 3
    compiling.sooner.cache_clear()
    return found[0]


def test_dense_squares_alone_are_compiled_sooner():
    assert used(DENSE, compiling._SOONER) == {"xla_cpu_use_fusion_emitters": False}
    assert used(SPARSE, compiling._SOONER) is None
    assert used(LIKELIHOOD, compiling._SOONER) is None
    assert used(problem((jnp.ones((2, 3)),), rule=ts.Unimodal()), compiling._SOONER) is None


def test_a_compiler_that_does_not_know_the_option_is_used_as_it_is():
    assert used(DENSE, {"xla_cpu_of_another_century": False}) is None


def test_part_of_a_larger_program_is_compiled_as_that_is():
    total = compiling.by_problem(jax.jit)(lambda own: own.tensors[0].blocks[0].sum())
    assert float(total(DENSE)) == 6.0

    def larger(values):
        return total(problem((values,))) + 1

    assert float(jax.jit(larger)(jnp.ones((2, 3)))) == 7.0
