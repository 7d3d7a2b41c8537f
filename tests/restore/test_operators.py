"""The linear algebra of restoration: exact transposes, conserved sums, kernels, scores and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import convolve, convolve1d

from tensorspec.algebra.kernels import DEFAULT_SCALES, gaussian, paraboloid, pixons_per_point, scales_that_fit
from tensorspec.algebra.map_operator import MapOperator
from tensorspec.algebra.reflection import Convolution
from tensorspec.restore.field_noise import FieldNoise, even_noise
from tensorspec.restore.full import _opening
from tensorspec.restore.richardson_lucy import richardson_lucy
from tensorspec.restore.significance import FilterBank, limit_of, matched_filters, normal_score

TILTED = np.array([[0, 0.1, 0.3], [0.1, 0.6, 0.1], [0.3, 0.1, 0]]) / 1.6
LOPSIDED = np.array([0.0, 0.1, 0.5, 0.3, 0.1])
LONG = np.exp(-np.arange(-9, 10.0).clip(-1) / 3)


@pytest.mark.parametrize(
    ("shape", "response"),
    [
        ((37, 54), None),
        ((37, 54), gaussian(1.5, 2)),
        ((37, 54), TILTED),
        pytest.param((12, 20), np.random.default_rng(1).random((21, 5)), marks=pytest.mark.slow),
        pytest.param((300,), LOPSIDED, marks=pytest.mark.slow),
        ((12,), LONG),
    ],
)
def test_the_adjoint_is_exact(shape, response):
    rng, leading = np.random.default_rng(0), (2,)
    scales = scales_that_fit(DEFAULT_SCALES, shape)
    with jax.enable_x64(True):
        operator = MapOperator(scales, response, shape)
        scale = jnp.asarray(rng.integers(0, len(scales), shape))
        field, other = jnp.asarray(rng.random(leading + shape)), jnp.asarray(rng.random(leading + shape))
        forward = float((operator.apply(field, scale) * other).sum())
        backward = float((field * operator.adjoint(other, scale)).sum())
    assert abs(forward - backward) < 1e-12 * abs(forward)


@pytest.mark.parametrize("kernel", [gaussian(1.2, 2), TILTED, paraboloid(4.0, 2)])
def test_a_mirrored_convolution_is_that_of_scipy(kernel):
    field = np.random.default_rng(0).random((18, 25))
    with jax.enable_x64(True):
        found = np.asarray(Convolution([kernel], field.shape).apply(jnp.asarray(field)))
        bare = np.asarray(Convolution([kernel], field.shape, mirrored=False).apply(jnp.asarray(field)))
    np.testing.assert_allclose(found, convolve(field, kernel, mode="reflect"), atol=1e-13)
    np.testing.assert_allclose(bare, convolve(field, kernel, mode="constant"), atol=1e-13)


def test_the_map_chooses_the_kernel_of_every_point():
    rng = np.random.default_rng(0)
    field, scales = rng.random(60), (1.0, 2.8, 5.6)
    scale = rng.integers(0, 3, 60)
    each = [convolve1d(field, paraboloid(radius, 1), mode="reflect") for radius in scales]
    with jax.enable_x64(True):
        found = np.asarray(MapOperator(scales, None, (60,)).smooth(jnp.asarray(field), jnp.asarray(scale)))
    np.testing.assert_allclose(found, np.choose(scale, each), atol=1e-13)


def test_kernels_are_paraboloids_that_hold_one():
    for scale in DEFAULT_SCALES:
        for axes in (1, 2):
            kernel = paraboloid(scale, axes)
            assert abs(kernel.sum() - 1) < 1e-12
            centre = tuple(size // 2 for size in kernel.shape)
            assert kernel.argmax() == np.ravel_multi_index(centre, kernel.shape)
            for distance in range(1, kernel.shape[0] // 2 + 1):
                place = (centre[0] + distance, *centre[1:])
                assert abs(kernel[place] / kernel[centre] - (1 - distance**2 / scale**2)) < 1e-12
    costs = pixons_per_point(DEFAULT_SCALES, 2)
    assert costs[0] == 1
    assert (np.diff(costs) < 0).all()
    # Of a wide paraboloid in the plane: 4 / (3 pi s^2).
    assert abs(costs[-1] * 3 * np.pi * 16**2 / 4 - 1) < 0.01


# ---- Richardson-Lucy


def test_richardson_lucy_climbs_and_keeps_the_counts():
    rng = np.random.default_rng(0)
    data = rng.poisson(convolve(50.0 * (rng.random((30, 40)) > 0.95) + 2, TILTED, mode="reflect"))
    likelihoods, field = [], None
    for _ in range(6):
        field = richardson_lucy(data, TILTED, 5, start=field)
        model = convolve(field, TILTED, mode="reflect")
        likelihoods.append((data * np.log(model) - model).sum())
        assert abs(model.sum() / data.sum() - 1) < 1e-9
    assert (np.diff(likelihoods) > 0).all()
    assert field.min() >= 0
    # One step by hand, with the transposed kernel and the mirror written out as a matrix.
    eye = np.eye(12).reshape(12, 12)
    matrix = np.stack([convolve1d(row, LOPSIDED, mode="reflect") for row in eye], axis=1)
    counts = rng.poisson(30.0, 12)
    start = rng.random(12) + 1
    by_hand = start * (matrix.T @ (counts / (matrix @ start))) / matrix.T.sum(axis=1)
    np.testing.assert_allclose(richardson_lucy(counts, LOPSIDED, 1, start=start), by_hand, rtol=1e-10)


# ---- scores and limits


@pytest.mark.parametrize("response", [None, gaussian(1.5, 2)])
@pytest.mark.parametrize("mean", [1e6, 0.3])
def test_scores_of_noise_are_normal_and_seldom_above_the_limit(mean, response):
    shape = (64, 64)
    rng = np.random.default_rng(0)
    filters = matched_filters(response, 2, shape)
    with jax.enable_x64(True):
        bank = FilterBank(filters, shape)
        even = jnp.full(shape, mean)
        run = jax.jit(lambda left: bank.scores(left, even, even, jnp.ones(shape)))
        scores = np.stack([np.asarray(run(jnp.asarray(rng.poisson(mean, shape) - mean))) for _ in range(120)])
    if mean > 1:
        assert abs(scores.std(axis=(0, 2, 3)) - 1).max() < 0.05
        # At the ends and corners too, where filters are cut off.
        assert abs(scores[..., 0, 0].std(axis=0) - 1).max() < 0.2
    highest = np.abs(scores).max(axis=(1, 2, 3))
    assert (highest > limit_of(filters, shape, 0.05)).mean() <= 0.10
    # Nor is it so high that nothing ever would exceed it.
    if mean > 1:
        assert (highest > limit_of(filters, shape, 0.5)).mean() > 0.1


def test_the_limit_rises_with_the_field_and_with_rarer_alarms():
    filters = matched_filters(gaussian(1.5, 2), 2, (96, 96))
    small, large = limit_of(filters, (96, 96), 0.05), limit_of(filters, (512, 512), 0.05)
    assert 4.4 < small < 4.8 < large < 5.5
    assert limit_of(filters, (96, 96), 0.01) > small
    assert limit_of(filters, (96, 96), 0.05, fields=10) > small


def test_a_region_opens_at_a_lower_score_only_where_many_stand_out():
    filters = matched_filters(None, 2, (64, 64))
    limit = limit_of(filters, (64, 64), 0.01)
    size = np.random.default_rng(0).random((64, 64))
    assert _opening(size, limit, filters, (64, 64), 0.01, 1) == limit
    size[10, 10] = limit + 1
    assert abs(_opening(size, limit, filters, (64, 64), 0.01, 1) - limit) < 1e-6
    size[::8, ::8] = limit + 1
    # 64 peaks, of which one in a hundred may be false.
    found = _opening(size, limit, filters, (64, 64), 0.01, 1)
    assert abs(found - limit_of(filters, (64, 64), 0.65)) < 1e-3
    assert 3 < found < limit - 0.5


@pytest.mark.slow
def test_skew_sums_are_judged_by_their_chance():
    from scipy.stats import norm, poisson

    for mean in (0.5, 3.0, 20.0):
        counts = np.arange(int(mean) + 1, int(mean + 6 * mean**0.5) + 4)
        chance = poisson.sf(counts - 1, mean)
        scores = np.asarray(normal_score(jnp.asarray((counts - mean) / mean**0.5), jnp.asarray(mean**-0.5)))
        plain = (counts - mean) / mean**0.5
        true = norm.isf(chance)
        # Half a count of discreteness apart, and never as far out as the plain score says.
        far = true > 3
        assert (np.abs(scores - true)[far] < 0.7).all()
        assert (np.abs(scores - true)[far] < np.abs(plain - true)[far]).all()


def test_even_noise_is_found_beside_a_signal_and_a_mask():
    rng = np.random.default_rng(0)
    signal = np.zeros((1, 80, 80))
    signal[:, 20:60, 30:] = 100
    signal += np.linspace(0, 50, 80)
    data = signal + rng.normal(0, 2, signal.shape)
    valid = np.ones_like(data)
    valid[:, 3] = 0
    data[:, 3] = 1e5
    assert abs(even_noise((data * valid)[0], valid[0]).variance / 4 - 1) < 0.15


@pytest.mark.parametrize(("size", "share"), [(400, 0.25), (4000, 0.27)])
def test_even_noise_of_correlated_neighbours_is_found(size, share):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 3, (20, size + 2))
    events = noise[:, 1:-1] + share * (noise[:, :-2] + noise[:, 2:])
    found = [even_noise(row + 40 * np.exp(-(((np.arange(size) - 200) / 5) ** 2)), np.ones(size)) for row in events]
    # Each sum of many points has the variance of as many events of weight 1 + 2 a.
    true = 9 * (1 + 2 * share**2), (1 + 2 * share) ** 2 / (1 + 2 * share**2)
    assert abs(np.median([each.variance for each in found]) / true[0] - 1) < 0.15
    assert abs(np.median([each.inflation for each in found]) / true[1] - 1) < 0.15
    white = [even_noise(row, np.ones(size + 2)).inflation for row in noise]
    assert np.mean(np.array(white) == 1) >= 0.9


def test_the_noise_knows_its_moments():
    noise = FieldNoise(gain=3.0, read_variance=2.0, floor=-4.0)
    variance, third = noise.moments(jnp.asarray([10.0, 2.0]))
    np.testing.assert_allclose(variance, [20.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(third, [54.0, 0.0], atol=1e-6)
