"""Losses against closed forms, numerical derivatives and pyttb; their bounds lie above them and touch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyttb.gcp import handles
from scipy.special import rel_entr

import tensorspec as ts
from tensorspec.algebra.majoriser import Majoriser, from_normal_equations, from_slopes
from tensorspec.algebra.normal_equations import NormalEquations

RNG = np.random.default_rng(3)
DATA = RNG.gamma(2, 2, (7, 5))
MODEL = RNG.gamma(2, 2, (7, 5))
MODEL = np.where(np.abs(MODEL - DATA) < 0.05 * DATA, 1.5 * DATA, MODEL)  # losses of zero have no relative error
BETAS = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
DIVERGENCES = [ts.Poisson(), *map(ts.Beta, BETAS)]


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield


def entries(loss, data, model):
    return np.asarray(loss.entries(jnp.asarray(data, float), jnp.asarray(model, float)))


def slope(loss, data, model):
    """The slope as the solver has it."""
    push = loss.push(jnp.asarray(model))
    return (1.0 if push is None else np.asarray(push)) - np.asarray(loss.pull(jnp.asarray(data), jnp.asarray(model)))


def test_poisson_is_the_generalised_kullback_leibler_divergence():
    counts = RNG.poisson(DATA)
    np.testing.assert_allclose(
        entries(ts.Poisson(), counts, MODEL), rel_entr(counts, MODEL) - counts + MODEL, rtol=1e-10, atol=1e-12
    )
    whole = handles.poisson(counts, MODEL) - handles.poisson(counts, np.maximum(counts, 1e-300))
    np.testing.assert_allclose(entries(ts.Poisson(), counts, MODEL), whole, atol=1e-7)
    np.testing.assert_allclose(slope(ts.Poisson(), counts, MODEL), handles.poisson_grad(counts, MODEL), atol=1e-7)


def test_poisson_keeps_its_digits_close_to_the_data():
    counts = np.array([10.0, 1e4])
    for dtype, tolerance in ((jnp.float32, 1e-3), (jnp.float64, 1e-10)):
        model = jnp.asarray(counts * (1 + 1e-3), dtype)
        found = np.asarray(ts.Poisson().entries(jnp.asarray(counts, dtype), model))
        step = (np.asarray(model, float) - counts) / counts
        series = step**2 / 2 - step**3 / 3 + step**4 / 4 - step**5 / 5
        np.testing.assert_allclose(found, counts * series, rtol=tolerance)


def test_poisson_at_the_edge():
    assert entries(ts.Poisson(), [0.0, 0.0, 2.0, 1.0], [0.0, 3.0, 0.0, -1.0]).tolist() == [0.0, 3.0, np.inf, np.inf]
    gradient = jax.grad(lambda m: ts.Poisson().value(jnp.array([0.0, 2.0]), m))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(gradient, [1.0, -1.0])


@pytest.mark.parametrize("beta", BETAS)
def test_beta_is_the_divergence_of_fevotte_and_idier(beta):
    x, m = DATA, MODEL
    if beta == 0:
        expected = x / m - np.log(x / m) - 1
    elif beta == 1:
        expected = x * np.log(x / m) - x + m
    else:
        expected = (x**beta + (beta - 1) * m**beta - beta * x * m ** (beta - 1)) / (beta * (beta - 1))
        difference = handles.beta(x, m, beta) - handles.beta(x, x, beta)
        np.testing.assert_allclose(entries(ts.Beta(beta), x, m), difference, rtol=1e-6)
        np.testing.assert_allclose(slope(ts.Beta(beta), x, m), handles.beta_grad(x, m, beta), rtol=1e-7)
    np.testing.assert_allclose(entries(ts.Beta(beta), x, m), expected, rtol=1e-10)


def test_beta_with_zero_data():
    np.testing.assert_allclose(entries(ts.Beta(0.5), [0.0, 0.0], [4.0, 0.0]), [4.0, 0.0])
    np.testing.assert_allclose(entries(ts.Beta(1.5), [0.0, 1.0], [4.0, 0.0]), [8 / 1.5, 1 / 0.75])
    assert not ts.Beta(0).zeros_allowed and ts.Beta(0.5).zeros_allowed


def test_huber_is_half_that_of_pyttb():
    data, model = 3 * RNG.standard_normal((2, 50))
    np.testing.assert_allclose(entries(ts.Huber(1.3), data, model), handles.huber(data, model, 1.3) / 2, rtol=1e-12)
    gradient = jax.grad(lambda m: ts.Huber(1.3).value(jnp.asarray(data), m))(jnp.asarray(model))
    np.testing.assert_allclose(gradient, handles.huber_grad(data, model, 1.3) / 2, atol=1e-12)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_the_slope_is_the_derivative(loss):
    step = 1e-5 * MODEL
    numerical = (entries(loss, DATA, MODEL + step) - entries(loss, DATA, MODEL - step)) / (2 * step)
    np.testing.assert_allclose(slope(loss, DATA, MODEL), numerical, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_the_bound_touches_and_lies_above(loss):
    """Of a whole mode, rank 3, at factors that are far from each other."""
    other = jnp.asarray(RNG.random((5, 3)))
    old = jnp.asarray(RNG.random((7, 3)))
    fitted = old @ other.T
    push = loss.push(fitted)
    push = jnp.ones_like(fitted) if push is None else push
    bound = from_slopes(loss.pull(jnp.asarray(DATA), fitted) @ other, push @ other, loss.powers, old)
    own = jax.grad(lambda a: loss.value(jnp.asarray(DATA), a @ other.T))(old)
    np.testing.assert_allclose(jax.grad(bound.value)(old), own, rtol=1e-9)
    for spread in (0.01, 0.3, 2.0):
        new = old * jnp.exp(spread * RNG.standard_normal(old.shape))
        rise = loss.value(jnp.asarray(DATA), new @ other.T) - loss.value(jnp.asarray(DATA), fitted)
        assert float(rise) <= float(bound.value(new) - bound.value(old)) + 1e-12


def test_the_bound_of_a_quadratic_touches_and_lies_above():
    design = RNG.standard_normal((20, 3))
    equations = NormalEquations(jnp.asarray(design.T @ design), jnp.asarray(RNG.standard_normal((7, 3))))
    old = jnp.asarray(RNG.random((7, 3))).at[2, 1].set(0.0)
    bound = from_normal_equations(equations, old)
    np.testing.assert_allclose(jax.grad(bound.value)(old), jax.grad(equations.value)(old), rtol=1e-9, atol=1e-12)
    for spread in (0.01, 1.0, 10.0):
        new = jnp.asarray(old + spread * RNG.standard_normal(old.shape))
        rise = equations.value(new) - equations.value(old)
        assert float(rise) <= float(bound.value(new) - bound.value(old)) + 1e-10


@pytest.mark.parametrize("powers", [(-1.0, 0.0), (-1.0, 0.0, 1.0), (-0.5, 0.5), (-2.0, 0.0), (-1.5, -1.0, 0.0, 1.0)])
def test_the_root_is_where_the_slope_vanishes(powers):
    signs = [-1 if power < 0 else 1 for power in powers]
    bound = Majoriser(powers, tuple(jnp.asarray(sign * RNG.gamma(1, 1, (6, 2)) + 0.1 * sign) for sign in signs))
    old = jnp.asarray(RNG.random((6, 2)))
    found = bound.minimiser(old, jnp.asarray([0.0, 0.7]), 0.3)
    left = sum(c * found**p for p, c in zip(bound.powers, bound.coefficients, strict=True))
    np.testing.assert_allclose(left + jnp.asarray([0.0, 0.7]) + 0.3 * found, 0, atol=1e-9)


def test_what_has_no_pull_is_zero_and_what_is_unknown_stays():
    bound = Majoriser((-1.0, 0.0), (jnp.asarray([[0.0, 0.0]]), jnp.asarray([[2.0, 0.0]])))
    assert np.asarray(bound.minimiser(jnp.asarray([[5.0, 5.0]]), 0.0, 0.0)).tolist() == [[0.0, 5.0]]


def test_options_that_cannot_be_meant():
    for wrong in (lambda: ts.Huber(0), lambda: ts.Huber("auto"), lambda: ts.Beta(np.nan), lambda: ts.Beta("is")):
        with pytest.raises(ts.InvalidArgument, match="expected a number"):
            wrong()
