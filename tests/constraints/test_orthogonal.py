"""Orthonormal columns: the polar factor, what it refuses, and the truncated singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import polar

import tensorspec as ts

pytestmark = pytest.mark.slow

PROJECT = jax.jit(ts.Orthogonal().project)
MATRICES = hnp.arrays(float, (6, 3), elements=st.floats(-50, 50, width=32))


def line(seed=0, size=14, signal=(5.0, 3.0, 2.0, 0.4), noise=0.1):
    """A matrix of known singular values, roughly, with noise."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((size, len(signal))))[0]
    right = np.linalg.qr(rng.standard_normal((11, len(signal))))[0]
    values = left * np.array(signal) @ right.T + noise * rng.standard_normal((size, 11))
    return xr.DataArray(values, dims=("x", "energy"))


@settings(deadline=None, max_examples=60)
@given(values=MATRICES)
def test_the_projection_is_orthonormal_idempotent_and_the_nearest(values):
    with jax.enable_x64(True):
        found = np.asarray(PROJECT(values))
        np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-13)
        np.testing.assert_allclose(PROJECT(found), found, atol=1e-13)
        # The distance of the nearest: |A|^2 + R - 2 x the sum of the singular values.
        singular = np.linalg.svd(values, compute_uv=False)
        nearest = np.sum(values**2) + 3 - 2 * singular.sum()
        np.testing.assert_allclose(np.sum((found - values) ** 2), nearest, rtol=1e-9, atol=1e-9)


def test_the_projection_is_the_polar_factor():
    values = np.random.default_rng(0).standard_normal((6, 3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(PROJECT(values), polar(values)[0], atol=1e-13)


@pytest.mark.parametrize("signal", [(5.0, 3.0, 2.0, 0.4), (100.0, 5.0, 1.0, 0.5)])
@pytest.mark.parametrize("where", ["pixel", "energy"])
def test_a_matrix_is_fitted_as_well_as_by_its_singular_value_decomposition(where, signal):
    data = line(signal=signal, noise=0.02)
    fit = ts.fit(data, ts.CP(3, {where: ts.Orthogonal()}), progress=False, tol=1e-12)
    # Steps along the gradient alone take hundreds of sweeps where the components differ in strength.
    assert fit.sweeps < 60
    singular = np.linalg.svd(data.values, compute_uv=False)
    best = 0.5 * np.sum(singular[3:] ** 2) / np.mean(data.values**2)
    np.testing.assert_allclose(fit.objective, best, rtol=1e-9)
    factor = fit.factors[where].values
    np.testing.assert_allclose(factor @ factor.T, np.eye(3), atol=1e-12)
    other = "energy" if where == "pixel" else "pixel"
    assert set(fit.provenance["carriers"].values()) == {other}
    # And so is the reconstruction the truncated one, in the units of the data.
    left, values, right = np.linalg.svd(data.values)
    np.testing.assert_allclose(fit.reconstruct(), left[:, :3] * values[:3] @ right[:3], atol=1e-4)


def test_orthogonal_maps_of_a_cube_are_found_as_planted():
    rng = np.random.default_rng(1)
    maps = np.linalg.qr(rng.standard_normal((20, 3)))[0] * [9.0, 6.0, 4.0]
    spectra, times = rng.random((15, 3)) + 0.5, rng.random((8, 3)) + 0.5
    clean = np.einsum("pr,er,tr->pet", maps, spectra, times)
    data = xr.DataArray(clean + 0.5 * clean.std() * rng.standard_normal(clean.shape), dims=("x", "energy", "time"))
    constraints = {"energy": ts.NonNegative(), "time": ts.NonNegative()}
    held = ts.fit(data, ts.CP(3, {**constraints, "pixel": ts.Orthogonal()}), restarts=3, progress=False)
    free = ts.fit(data, ts.CP(3, constraints), restarts=3, progress=False)

    def worst(fit):
        found = fit.factors["pixel"].values
        cosine = (maps / np.linalg.norm(maps, axis=0)).T @ (found / np.linalg.norm(found, axis=1, keepdims=True)).T
        return np.rad2deg(np.arccos(np.clip(np.abs(cosine).max(axis=1), 0, 1))).max()

    print(worst(held), worst(free))
    assert (np.diff(held.history.values) <= 1e-12 * held.history.values[0]).all()
    assert worst(held) < 0.7 * worst(free)


def test_only_named_components_are_orthogonal():
    data = line(2)
    fit = ts.fit(data, ts.CP(3, {"energy": ts.Orthogonal(components=[1, 3])}), progress=False, tol=1e-10)
    factor = fit.factors["energy"].sel(component=[1, 3]).values
    np.testing.assert_allclose(factor @ factor.T, np.eye(2), atol=1e-12)
    singular = np.linalg.svd(data.values, compute_uv=False)
    np.testing.assert_allclose(fit.objective, 0.5 * np.sum(singular[3:] ** 2) / np.mean(data.values**2), rtol=1e-6)


def test_missing_entries():
    data = line(3, noise=0.0, signal=(5.0, 3.0, 2.0))
    mask = xr.DataArray(np.random.default_rng(0).random(data.shape) > 0.15, dims=data.dims)
    fit = ts.fit(data, ts.CP(3, {"pixel": ts.Orthogonal()}), mask=mask, progress=False, tol=1e-12, max_sweeps=3000)
    np.testing.assert_allclose(fit.reconstruct(), data, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_data_changes_nothing(scale):
    data, model = line(4), ts.CP(2, {"pixel": ts.Orthogonal()})
    one = ts.fit(data, model, progress=False, max_sweeps=30)
    other = ts.fit(scale * data, model, progress=False, max_sweeps=30)
    for mode in one.factors:
        np.testing.assert_allclose(other.factors[mode], one.factors[mode], atol=1e-8)
    np.testing.assert_allclose(other.weights, scale * one.weights, rtol=1e-7)


@pytest.mark.parametrize(
    ("partner", "words"),
    [
        ([ts.NonNegative()], r"NonNegative\(\).*hard clustering.*SoftOrthogonal"),
        ([ts.SumToOne("mode")], r"SumToOne\(\) fixes sums"),
        ([ts.Orthogonal(components=[1, 2])], "stands twice"),
        ([ts.Box(-1, 1)], "Orthogonal.*Box.*different components"),
        ([ts.Unimodal()], "Orthogonal.*Unimodal"),
        ([ts.SoftOrthogonal(0.1, components=[1, 2]), ts.NonNegative()], "Orthogonal"),
    ],
)
def test_what_cannot_stand_beside_it_is_refused(partner, words):
    with pytest.raises(ts.ConstraintConflict, match=f"'energy'.*{words}"):
        ts.fit(line(), ts.CP(2, {"energy": [ts.Orthogonal(), *partner]}), progress=False)


def test_a_partner_on_other_components_may_stay():
    model = ts.CP(3, {"energy": [ts.Orthogonal(components=[1, 2]), ts.NonNegative(components=[3])]})
    fit = ts.fit(line(), model, progress=False, max_sweeps=20)
    factor = fit.factors["energy"].values
    np.testing.assert_allclose(factor[:2] @ factor[:2].T, np.eye(2), atol=1e-12)
    assert factor[2].min() >= 0


def test_more_components_than_points_are_refused():
    data = xr.DataArray(np.random.default_rng(0).random((2, 5, 6)), dims=("time", "x", "energy"))
    with pytest.raises(ts.ConstraintConflict, match="'time': 3 components cannot be orthogonal on 2 points"):
        ts.fit(data, ts.CP(3, {"time": ts.Orthogonal()}), progress=False)


@pytest.mark.parametrize(
    "model",
    [
        ts.CP(2, {"pixel": ts.Orthogonal(), "energy": ts.Orthogonal()}),
        ts.CP(2, {"pixel": ts.SumToOne("mode"), "energy": ts.Orthogonal()}),
        ts.CP(2, {"energy": ts.Orthogonal()}, scale="energy"),
    ],
)
def test_somebody_has_to_carry_the_amplitudes(model):
    with pytest.raises(ts.ConstraintConflict, match="'energy', which would have to carry the amplitudes"):
        ts.fit(line(), model, progress=False)


def test_violation_is_the_worst_inner_product():
    factor = jnp.array([[1.0, 0.5], [0.0, 1.0]])
    assert float(ts.Orthogonal().violation(factor)) == 0.5
