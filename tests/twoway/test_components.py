"""Principal components, rotations, independent components, correlation: identities and planted truth."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts


def counts(seed=0, shape=(9, 14), channels=40, level=30.0, dtype=np.uint16):
    """Three phases in a non-square, non-symmetric image."""
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.full(3, 0.6), size=shape)
    energy = np.arange(channels)
    spectra = 0.2 + np.exp(-(((energy - np.array([[8], [19], [31]])) / 4.0) ** 2))
    values = rng.poisson(level * maps @ spectra).astype(dtype)
    coords = {
        "y": ("y", np.arange(shape[0]) * 2.0, {"units": "nm"}),
        "energy_loss": ("energy_loss", energy * 0.5, {"units": "eV"}),
    }
    return xr.DataArray(values, dims=("y", "x", "energy_loss"), coords=coords, attrs={"units": "counts"})


def test_poisson_scaling_has_the_root_of_all_counts():
    data = counts()
    fit = ts.pca(data, 3, scaling="poisson")
    values = fit.provenance["singular_values"].values
    assert values[0] == pytest.approx(np.sqrt(float(data.sum())), rel=1e-12)
    flat = data.values.reshape(-1, 40).astype(float)
    a, b, s = flat.sum(axis=1), flat.sum(axis=0), flat.sum()
    np.testing.assert_allclose(values, np.linalg.svd(flat / np.sqrt(np.outer(a, b) / s), compute_uv=False), rtol=1e-9)
    assert (values[3:] < fit.provenance["noise_edge"] * 1.02).all() and values[2] > fit.provenance["noise_edge"]
    left = flat / np.sqrt(np.outer(a, b) / s)
    best = np.linalg.svd(left, full_matrices=False)
    model = (best[0][:, :3] * best[1][:3]) @ best[2][:3] * np.sqrt(np.outer(a, b) / s)
    np.testing.assert_allclose(fit.reconstruct().values.reshape(-1, 40), model, atol=1e-8)


@pytest.mark.parametrize("method", ["exact", "randomised"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_components_are_those_of_the_singular_value_decomposition(method, dtype):
    data = counts(dtype=dtype)
    fit = ts.pca(data, 3, method=method)
    left, values, right = np.linalg.svd(data.values.reshape(-1, 40).astype(float), full_matrices=False)
    np.testing.assert_allclose(fit.weights, values[:3], rtol=1e-6)
    for found, true in (
        (fit.factors["energy_loss"].values, right[:3]),
        (fit.factors["pixel"].values.reshape(3, -1), left.T[:3]),
    ):
        np.testing.assert_allclose(np.abs((found * true).sum(axis=1)), 1, atol=1e-6)
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-6)
    assert (np.sum(fit.factors["energy_loss"].values ** 3, axis=1) > 0).all()
    assert float(fit.explained) == pytest.approx((values[:3] ** 2).sum() / (values**2).sum(), rel=1e-6)


def test_centred_components_and_their_labels():
    data = counts()
    fit = ts.pca(data, 2, center=True)
    flat = data.values.reshape(-1, 40).astype(float)
    values = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(fit.weights, values[:2], rtol=1e-9)
    np.testing.assert_allclose(fit.provenance["mean"], flat.mean(axis=0))
    assert "explained variance" in repr(fit)
    assert "proportion of total variation" in repr(ts.pca(data, 2))
    with pytest.raises(ts.InvalidArgument, match="exclude each other"):
        ts.pca(data, 2, scaling="poisson", center=True)


@pytest.mark.parametrize("scaling", [None, "poisson"])
def test_masked_equals_cropped_and_lazy_equals_eager(scaling):
    data = counts()
    mask = xr.DataArray(np.arange(9) >= 3, dims="y") & xr.DataArray(np.arange(14) != 5, dims="x")
    masked = ts.pca(data, 3, scaling, mask=mask)
    cropped = ts.pca(data.isel(y=slice(3, None), x=[k for k in range(14) if k != 5]), 3, scaling)
    np.testing.assert_allclose(masked.weights, cropped.weights, rtol=1e-9)
    np.testing.assert_allclose(masked.factors["energy_loss"], cropped.factors["energy_loss"], atol=1e-9)
    kept = masked.factors["pixel"].isel(y=slice(3, None), x=[k for k in range(14) if k != 5])
    np.testing.assert_allclose(kept, cropped.factors["pixel"], atol=1e-9)
    assert np.isnan(masked.factors["pixel"].isel(y=0)).all()
    lazy = ts.pca(data.chunk({"y": 4, "energy_loss": 15}), 3, scaling)
    np.testing.assert_allclose(lazy.factors["pixel"], ts.pca(data, 3, scaling).factors["pixel"], atol=1e-8)


def test_empty_pixels_and_channels_come_back_as_zeros():
    data = counts()
    data[2, 3], data[..., 17] = 0, 0
    fit = ts.pca(data, 3, scaling="poisson")
    assert (fit.factors["pixel"][:, 2, 3] == 0).all() and (fit.factors["energy_loss"][:, 17] == 0).all()


def test_a_rotation_that_is_not_symmetric_keeps_the_model():
    fit = ts.pca(counts(), 3)
    turn = np.array([[1.0, 2, 0], [0, 1, -1], [0.5, 0, 3]])
    turned = ts.rotate(fit, turn)
    np.testing.assert_allclose(turned.reconstruct(), fit.reconstruct(), atol=1e-9 * float(fit.reconstruct().max()))
    columns = fit.factors["energy_loss"].values.T @ turn
    np.testing.assert_allclose(
        turned.factors["energy_loss"].values.T, columns / np.linalg.norm(columns, axis=0), atol=1e-12
    )
    with pytest.raises(ts.InvalidArgument, match="not invertible"):
        ts.rotate(fit, np.ones((3, 3)))
    with pytest.raises(ts.InvalidArgument, match=r"\(3, 3\)"):
        ts.rotate(fit, np.eye(2))


def test_varimax_finds_maps_that_do_not_overlap():
    rng = np.random.default_rng(0)
    maps = np.zeros((3, 60))
    for k in range(3):
        maps[k, 20 * k : 20 * k + 20] = rng.uniform(0.5, 1.5, 20)
    data = xr.DataArray(maps.T @ rng.random((3, 30)), dims=("x", "energy_loss"))
    simple = ts.varimax(ts.pca(data, 3), "pixel")
    found = simple.factors["pixel"].values
    cosines = np.abs(found @ (maps / np.linalg.norm(maps, axis=1, keepdims=True)).T).max(axis=1)
    assert np.degrees(2 * np.arcsin(np.sqrt((1 - np.minimum(cosines, 1)) / 2))).max() < 1
    turn = simple.provenance["rotation"]
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(simple.reconstruct(), data, atol=1e-9)
    with pytest.warns(UserWarning, match="not settled after 1 iterations"):
        ts.varimax(ts.pca(counts(), 3), max_iterations=1)


@pytest.mark.slow
def test_independent_sources_and_their_stability():
    rng = np.random.default_rng(1)
    sources = rng.laplace(size=(3, 4000))
    mixing = rng.normal(size=(3, 12))
    data = xr.DataArray(sources.T @ mixing + 0.01 * rng.standard_normal((4000, 12)), dims=("x", "energy_loss"))
    fit = ts.ica(data, 3, mode="pixel", seed=0)
    found = fit.factors["pixel"].values
    product = np.abs(np.corrcoef(found, sources)[:3, 3:])
    assert product.max(axis=1).min() > 0.99
    amari = sum((row.sum() / row.max() - 1) for row in [*product, *product.T]) / (2 * 3 * 2)
    assert amari < 0.05
    again = ts.ica(data, 3, mode="pixel", seed=0)
    np.testing.assert_array_equal(again.factors["pixel"], fit.factors["pixel"])


def test_false_discoveries_are_held_at_their_level():
    rng = np.random.default_rng(2)
    reference = xr.DataArray(rng.standard_normal(30), dims="energy_loss")
    any_rejected = sum(
        bool(
            ts.correlate(
                xr.DataArray(rng.standard_normal((40, 30)), dims=("x", "energy_loss")), reference
            ).significant.any()
        )
        for _ in range(300)
    )
    assert any_rejected <= 0.085 * 300
    shares = []
    for _ in range(100):
        values = rng.standard_normal((60, 30))
        values[:20] += 1.5 * reference.values
        found = ts.correlate(xr.DataArray(values, dims=("x", "energy_loss")), reference).significant.values
        shares.append(found[20:].sum() / max(found.sum(), 1))
        assert found[:20].sum() >= 10
    assert np.mean(shares) < 0.06


def test_correlation_without_the_noise():
    rng = np.random.default_rng(3)
    reference = xr.DataArray(50 + 20 * np.sin(np.arange(400) / 9), dims="energy_loss")
    data = xr.DataArray(rng.poisson(np.tile(reference.values / 10, (50, 1))), dims=("x", "energy_loss"))
    found = ts.correlate(data, reference, correct_noise=True, noise=ts.NoiseModel())
    assert float(found.correlation.mean()) < 0.7
    assert float(found.corrected.mean()) == pytest.approx(1.0, abs=0.05)


def test_what_they_return_is_a_fit_like_any_other(tmp_path):
    fit = ts.pca(counts(), 3, scaling="poisson")
    path = fit.save(tmp_path / "components.h5")
    opened = ts.open(path)
    np.testing.assert_allclose(opened.factors["pixel"], fit.factors["pixel"])
    assert fit.plot().axes and ts.plot_scree(fit).axes
    with pytest.raises(ts.RankOutOfRange):
        ts.pca(counts(), 41)
    with pytest.raises(ts.UnknownMode, match="Did you mean"):
        ts.varimax(fit, "pixels")
