"""Profiles with the same cross-product in every sample: the nearest ones, and how far others are from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tensorspec.algebra.cross_product import nearest_same_cross_product, polar, relative_spread
from tensorspec.constraints.cross_product import NearSameCrossProduct, SameCrossProduct

SAMPLES, POINTS, RANK = 4, 6, 2


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield


def profiles(seed, scales=(1.0, 5.0)):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((SAMPLES, POINTS, RANK)) * scales * rng.uniform(0.5, 2, (SAMPLES, 1, 1))


def distance(given):
    return float(np.sum(np.square(given - np.asarray(nearest_same_cross_product(jnp.asarray(given))))))


def distance_by_gradients(given, seed):
    """The least squared distance over all roots D of the common cross-product, the polar factors written out."""

    def cost(root):
        found = 0.0
        for sample in given:
            # min over P of |B - P D|^2 = |B|^2 + |D|^2 - 2 sum of the singular values of B D^T.
            inner = np.linalg.svd(sample @ root.reshape(RANK, RANK).T, compute_uv=False).sum()
            found += np.sum(sample**2) + np.sum(root**2) - 2 * inner
        return found

    start = np.random.default_rng(seed).standard_normal(RANK * RANK) * 3
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 8000, "maxfev": 8000}
    return minimize(cost, start, method="Nelder-Mead", options=options).fun


def crossed():
    """Samples whose profiles are nearly collinear, each in another way, so that no cross-product is near all."""
    rng = np.random.default_rng(4)
    bases, turns = (np.linalg.qr(rng.standard_normal((SAMPLES, n, RANK)))[0] for n in (POINTS, RANK))
    return bases @ np.diag([10.0, 0.1]) @ turns


@pytest.mark.parametrize("given", [profiles(0), profiles(1), crossed()], ids=["one", "another", "crossed"])
def test_the_distance_is_the_least(given):
    """No search from other starts finds a common cross-product that is nearer."""
    best = min(distance_by_gradients(given, start) for start in range(4))
    np.testing.assert_allclose(distance(given), best, rtol=1e-7)


def test_the_result_has_one_cross_product_and_is_left_alone():
    found = nearest_same_cross_product(jnp.asarray(profiles(5)))
    assert float(relative_spread(found)) < 1e-13
    np.testing.assert_allclose(nearest_same_cross_product(found), found, atol=1e-13)


def test_planted_profiles_come_back():
    """Rotated copies of one matrix have the same cross-product; a little noise moves them by no more than its size."""
    rng = np.random.default_rng(6)
    root = rng.standard_normal((RANK, RANK))
    planted = np.asarray(polar(jnp.asarray(profiles(7)))) @ root
    np.testing.assert_allclose(nearest_same_cross_product(jnp.asarray(planted)), planted, atol=1e-13)
    noise = 1e-3 * rng.standard_normal(planted.shape)
    assert distance(planted + noise) < np.sum(noise**2)


@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_dead_components_do_no_harm(columns):
    given = profiles(8)
    given[:, :, columns] = 0
    found = np.asarray(nearest_same_cross_product(jnp.asarray(given)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, :, columns], 0, atol=1e-12)
    assert float(relative_spread(jnp.asarray(found))) < 1e-10


def test_scaling_a_component_moves_its_profiles_only():
    """The constraint is a statement about shapes, so that amplitudes may be moved to another mode."""
    rule = SameCrossProduct(SAMPLES)
    allowed = rule.project(jnp.asarray(profiles(9)).reshape(-1, RANK))
    assert float(rule.violation(allowed * jnp.asarray([3.0, 1e-3]))) < 1e-12


def test_the_penalty_is_half_the_mean_squared_distance_times_the_strength():
    given = profiles(10)
    rule = NearSameCrossProduct(3.0, SAMPLES)
    expected = 3.0 / (2 * SAMPLES) * distance_by_gradients(given, 1)
    np.testing.assert_allclose(rule.value(jnp.asarray(given).reshape(-1, RANK)), expected, rtol=1e-6)


def test_the_derivative_of_the_penalty_is_that_of_finite_differences():
    point = jnp.asarray(profiles(11)).reshape(-1, RANK)
    rule = NearSameCrossProduct(3.0, SAMPLES)
    move = jnp.asarray(np.random.default_rng(12).standard_normal(point.shape))
    ahead, behind = (float(rule.value(point + step * move)) for step in (1e-5, -1e-5))
    slope = float(jnp.sum(jax.grad(rule.value)(point) * move))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-7)
