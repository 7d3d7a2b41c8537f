"""Monotone and single-peaked columns: against scikit-learn and brute force, as projections, and in a fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.isotonic import IsotonicRegression

import tensorspec as ts
from tensorspec.algebra.isotonic import nearest_unimodal, prefix_fits
from tensorspec.constraints.base import Context
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.constraints.shape import NonNegativeMonotone, NonNegativeUnimodal

pytestmark = pytest.mark.slow

SIZE = 9
COLUMNS = hnp.arrays(float, (SIZE, 2), elements=st.floats(-100, 100, width=32))
SHAPES = {
    "rising": ts.Monotone(),
    "falling": ts.Monotone(increasing=False),
    "rising, non-negative": NonNegativeMonotone(),
    "falling, non-negative": NonNegativeMonotone(increasing=False),
    "unimodal": ts.Unimodal(),
    "unimodal, non-negative": NonNegativeUnimodal(),
}
PROJECT = {name: jax.jit(item.project) for name, item in SHAPES.items()}


def isotonic(values, increasing=True, floor=None):
    if not len(values):
        return values
    return IsotonicRegression(increasing=increasing, y_min=floor).fit_transform(np.arange(len(values)), values)


def best_peak(values, floor=None):
    """The nearest unimodal sequence by trying every peak, each half by scikit-learn."""
    tried = [
        np.concatenate([isotonic(values[:cut], True, floor), isotonic(values[cut:], False, floor)])
        for cut in range(len(values) + 1)
    ]
    return min(tried, key=lambda fit: np.sum((fit - values) ** 2))


def walks(seed, count, size):
    """Sequences with long pools and short ones, level, rising and falling."""
    rng = np.random.default_rng(seed)
    trend = np.linspace(0, 1, size) * rng.choice([-30, -3, 0, 3, 30], (count, 1))
    return trend + rng.standard_normal((count, size)) + np.cumsum(rng.standard_normal((count, size)), axis=1)


@pytest.mark.parametrize("size", [1, 2, 40, 400])
@pytest.mark.parametrize("name", ["rising", "falling", "rising, non-negative", "falling, non-negative"])
def test_monotone_is_isotonic_regression(name, size):
    item = SHAPES[name]
    floor = 0 if isinstance(item, NonNegativeMonotone) else None
    with jax.enable_x64(True):
        for values in walks(size, 12, size):
            found = PROJECT[name](jnp.asarray(values[:, None]))[:, 0]
            np.testing.assert_allclose(found, isotonic(values, item.increasing, floor), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("name", ["unimodal", "unimodal, non-negative"])
def test_unimodal_is_the_best_of_all_peaks(name, size):
    floor = None if name == "unimodal" else 0
    with jax.enable_x64(True):
        for values in walks(size, 40, size):
            found, expected = np.asarray(PROJECT[name](jnp.asarray(values[:, None]))[:, 0]), best_peak(values, floor)
            nearest, known = np.sum((found - values) ** 2), np.sum((expected - values) ** 2)
            np.testing.assert_allclose(nearest, known, rtol=1e-12, atol=1e-12)
            peak = np.argmax(found)
            assert (np.diff(found[: peak + 1]) >= 0).all() and (np.diff(found[peak:]) <= 0).all()
            assert floor is None or found.min() >= 0


def test_the_errors_of_all_beginnings_are_those_of_their_fits():
    with jax.enable_x64(True):
        values = walks(3, 6, 30)
        for floor in (-np.inf, 0.0):
            fits = prefix_fits(jnp.asarray(values), floor)
            for row, errors in zip(values, np.asarray(fits.error), strict=True):
                own = [np.sum((np.maximum(isotonic(row[: k + 1]), floor) - row[: k + 1]) ** 2) for k in range(len(row))]
                np.testing.assert_allclose(errors, own, rtol=1e-12, atol=1e-12)


def test_float32_keeps_its_digits_on_a_large_level():
    # Differences of running sums are off by a thousandth of the level.
    values = (1e4 + walks(5, 4, 2000)).astype(np.float32)
    found = np.asarray(PROJECT["rising"](jnp.asarray(values.T)).T)
    exact = np.stack([isotonic(row.astype(np.float64)) for row in values])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=3e-6)


def test_many_at_once_are_each_alone():
    values = walks(6, 5, 30).astype(np.float32)
    alone = np.stack([np.asarray(nearest_unimodal(jnp.asarray(row[None]))[0]) for row in values])
    together = nearest_unimodal(jnp.asarray(values))
    mapped = jax.jit(jax.vmap(lambda row: nearest_unimodal(row[None])[0]))(jnp.asarray(values))
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(mapped, alone, rtol=1e-5)


def test_clipping_a_unimodal_projection_leaves_the_wrong_peak():
    values = np.array([2.9, -1.0, -10.0, 3.0])
    with jax.enable_x64(True):
        clipped = np.maximum(ts.Unimodal().project(values), 0)
        joint = np.asarray(NonNegativeUnimodal().project(values))
    assert np.sum((joint - values) ** 2) < np.sum((clipped - values) ** 2) - 0.5


@pytest.mark.parametrize("name", SHAPES)
@settings(deadline=None, max_examples=60)
@given(first=COLUMNS, second=COLUMNS, scale=st.floats(1e-3, 1e3))
def test_projections_are_idempotent_homogeneous_and_firmly_non_expansive(name, first, second, scale):
    with jax.enable_x64(True):
        project = PROJECT[name]
        one, two = np.asarray(project(first)), np.asarray(project(second))
        np.testing.assert_array_equal(project(one), one)
        assert float(SHAPES[name].violation(jnp.asarray(one))) == 0
        size = 1 + np.abs(first).max() ** 2 + np.abs(second).max() ** 2
        # The nearest point may not be unique, its distance is.
        np.testing.assert_allclose(
            np.sum((np.asarray(project(scale * first)) - scale * first) ** 2) / scale**2,
            np.sum((one - first) ** 2),
            atol=1e-10 * size,
        )
        if SHAPES[name].convex:
            inner = np.sum((one - two) * (first - second))
            assert np.sum((one - two) ** 2) <= inner + 1e-10 * size


def test_violation_is_the_largest_wrong_step():
    factor = jnp.array([[0.0, 1.0], [2.0, 3.0], [1.5, 1.0], [1.75, 2.5]])
    assert float(ts.Monotone().violation(factor)) == 2.0
    assert float(ts.Monotone(increasing=False).violation(factor)) == 2.0
    assert float(ts.Unimodal().violation(factor)) == 1.5
    assert float(ts.Unimodal().violation(factor[:, :1])) == 0.25


def test_only_named_components_are_shaped():
    rule = ModeConstraints(combine([ts.NonNegative(), ts.Unimodal(components=[2])]), 3)
    values = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)))
    found = rule.prox(values, 1.0)
    assert rule.splits == 1 and rule.nonnegative
    np.testing.assert_array_equal(found[:, [0, 2]], jnp.maximum(values[:, jnp.array([0, 2])], 0))
    np.testing.assert_array_equal(found[:, 1], NonNegativeUnimodal().project(values[:, 1]))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([ts.Monotone(), ts.Monotone(increasing=False)], "leave only flat columns"),
        ([ts.Monotone(), ts.Monotone()], "stands twice"),
        ([ts.Unimodal(), ts.Monotone(components=[1])], "says nothing beside Monotone"),
        ([ts.Unimodal(), ts.Unimodal(components=[1])], "stands twice"),
    ],
)
def test_contradictions_are_refused(items, words):
    data = xr.DataArray(np.random.default_rng(0).random((6, 5)), dims=("x", "energy"))
    with pytest.raises(ts.ConstraintConflict, match=f"'energy'.*{words}"):
        ts.fit(data, ts.CP(2, {"energy": items}), progress=False)


@pytest.mark.parametrize("item", SHAPES.values(), ids=SHAPES)
def test_a_grid_has_no_order(item):
    context = Context("pixel", (3, 4), (None, None), (None, None), 2, 0.1, 1.0)
    with pytest.raises(ts.ConstraintConflict, match=r"'pixel'.*grid of shape \(3, 4\).*one dimension"):
        item.resolve(context)
    assert item.resolve(context._replace(shape=(1, 4))) is item


# -- in a fit ----------------------------------------------------------------------------------------------------------

ENERGY = np.linspace(0, 1, 60)


def planted(seed):
    """A line scan of a decaying background, which is everywhere, and an edge on it."""
    rng = np.random.default_rng(seed)
    spectra = np.stack([(1 + 3 * ENERGY) ** -3.0, np.exp(-0.5 * ((ENERGY - 0.4) / 0.12) ** 2)])
    clean = (rng.random((40, 2)) + 1) @ spectra
    return xr.DataArray(clean + 0.02 * rng.standard_normal(clean.shape), dims=("x", "energy")), spectra


KNOWN = [ts.Monotone(increasing=False, components=[1]), ts.Unimodal(components=[2])]


def angles(fit, truth):
    """The angle of each planted spectrum from the component that is nearest, degrees."""
    found = fit.factors["energy"].values
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    known = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    return np.rad2deg(np.arccos(np.clip((known @ found.T).max(axis=1), -1, 1)))


@pytest.mark.parametrize("seed", [0, 1])
def test_known_shapes_find_the_spectra_that_non_negativity_does_not(seed):
    data, spectra = planted(seed)
    begin = np.stack([1 - ENERGY, np.exp(-(((ENERGY - 0.5) / 0.2) ** 2))], axis=1) + 0.01
    options = {"start": ts.From({"pixel": np.ones((40, 2)), "energy": begin}), "progress": False}
    shaped = ts.fit(data, ts.NMF(2, {"energy": KNOWN}), **options)
    plain = ts.fit(data, ts.NMF(2), **options)
    assert shaped.solver == "HALS" and shaped.converged
    assert max(shaped.provenance["violations"].values()) == 0
    # Measured: 10.4 and 9.4 degrees, against 16 and 25.
    assert angles(shaped, spectra).max() < 12 and angles(plain, spectra).max() > 15


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_data_changes_nothing(scale):
    data, _ = planted(1)
    model = ts.NMF(2, {"energy": KNOWN})
    one = ts.fit(data, model, progress=False, max_sweeps=50)
    other = ts.fit(scale * data, model, progress=False, max_sweeps=50)
    for mode in one.factors:
        np.testing.assert_allclose(other.factors[mode], one.factors[mode], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.weights, scale * one.weights, rtol=1e-6)


@pytest.mark.parametrize("solver", [ts.HALS(extrapolate=False), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_every_solver_that_can_take_it_goes_down_beside_a_penalty_on_the_carrier(solver):
    # The penalty holds the spectra at unit norm, so their cones meet the sphere.
    data, _ = planted(2)
    model = ts.NMF(2, {"pixel": ts.Sparse(0.5), "energy": KNOWN})
    fit = ts.fit(data, model, solver=solver, progress=False, max_sweeps=200, start=ts.Random())
    history = fit.history.values
    assert fit.solver == type(solver).__name__
    assert (np.diff(history) <= 1e-12 * history[0]).all() and history[-1] < 0.5 * history[0]
    np.testing.assert_allclose(np.linalg.norm(fit.factors["energy"], axis=1), 1, rtol=1e-12)
    assert max(fit.provenance["violations"].values()) < 1e-15


def test_a_column_without_a_favourable_shape_stays():
    # All pulls point down, so the nearest rising non-negative column is zero, and a single entry would not rise.
    from tensorspec.algebra.normal_equations import NormalEquations
    from tensorspec.solvers.base import Block

    with jax.enable_x64(True):
        old = jnp.full((4, 1), 0.5)
        rules, solver = ModeConstraints((NonNegativeMonotone(),), 1), ts.HALS()
        equations = NormalEquations(jnp.ones((1, 1)), jnp.asarray([[-1.0], [-4.0], [-2.0], [-3.0]]))
        (found,), _ = solver.step(Block([equations], [old], [rules], [jnp.ones(1)]), solver.init([old], [rules]))
        np.testing.assert_array_equal(found, old)
