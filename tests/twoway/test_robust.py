"""Robust principal components: planted outliers, false alarms, rank by prediction, invariances, and plain input."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

import tensorspec as ts
from tensorspec.twoway.outlyingness import cutoff, half_size, outlyingness, robust_spread
from tensorspec.twoway.robust import robust_components, robust_prediction


def planted(seed, share, points=500, dimensions=100, rank=4):
    """Points about a subspace, some of which lie off it and far out: bad leverage."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dimensions, rank + 1)))[0]
    spread = 3 * np.sqrt(np.array([17.0, 13.5, 8.0, 3.0]))[:rank]
    matrix = (rng.normal(size=(points, rank)) * spread) @ axes[:, :rank].T + 5
    matrix += 0.25 * rng.normal(size=matrix.shape)
    bad = np.arange(points) < round(share * points)
    matrix[bad] += 30 * axes[:, rank] + 12 * axes[:, 0]
    return matrix, axes[:, :rank], bad


def angle(first, second):
    return float(np.degrees(np.arccos(min(np.linalg.svd(first.T @ second)[1].min(), 1.0))))


def classical(matrix, rank=4):
    return np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)[2][:rank].T


def summary(share, seeds):
    angles, plain, found_bad, alarms, ranks = [], [], [], [], []
    for seed in seeds:
        matrix, axes, bad = planted(seed, share)
        found = robust_components(matrix, 4, 0.75, seed)
        off = found.orthogonal_distance > found.orthogonal_cutoff
        far = found.score_distance > found.score_cutoff
        angles.append(angle(found.components, axes))
        plain.append(angle(classical(matrix), axes))
        found_bad.append(off[bad].mean() if bad.any() else 1.0)
        alarms.append((off | far)[~bad].mean())
        ranks.append(robust_prediction(matrix, 0.75, seed)[1])
    return np.array(angles), np.array(plain), np.array(found_bad), np.array(alarms), ranks


@pytest.mark.parametrize("seeds", [6, pytest.param(20, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_outliers_neither_turn_the_components_nor_hide(share, seeds):
    angles, plain, found_bad, alarms, ranks = summary(share, range(seeds))
    assert angles.max() <= 2
    assert found_bad.min() >= 0.99
    assert alarms.mean() <= 0.06 and alarms.mean() >= 0.02
    assert ranks == [4] * seeds
    if share:
        assert plain.min() > 45
    else:
        assert np.median(angles) <= 1.2 * np.median(plain)


def test_the_variances_are_those_of_the_regular_points():
    values = [robust_components(planted(seed, 0.15)[0], 4, 0.75, seed).values for seed in range(10)]
    np.testing.assert_allclose(np.mean(values, axis=0), 9 * np.array([17, 13.5, 8, 3]) + 0.0625, rtol=0.1)


def test_centre_and_spread_of_normal_values_are_unbiased_and_outliers_do_not_count():
    rng = np.random.default_rng(0)
    values = 3 + 2 * rng.normal(size=(300, 400))
    centre, deviation = robust_spread(values, half_size(400, 1, 0.75))
    assert centre.mean() == pytest.approx(3, abs=0.02) and deviation.mean() == pytest.approx(2, rel=0.02)
    values[:, :80] = 60
    centre, deviation = robust_spread(values, half_size(400, 1, 0.75))
    assert centre.mean() == pytest.approx(3, abs=0.05) and deviation.mean() == pytest.approx(2, rel=0.05)


def test_the_cut_off_is_exceeded_by_one_regular_point_in_forty():
    rng = np.random.default_rng(1)
    share = np.mean(
        [np.mean((d := np.linalg.norm(rng.normal(size=(1000, 30)), axis=1)) > cutoff(d, 751)) for _ in range(20)]
    )
    assert share == pytest.approx(1 - norm.cdf(norm.ppf(0.975)), abs=0.006)


def test_more_than_half_in_one_place_or_on_one_plane_is_an_exact_fit():
    rng = np.random.default_rng(2)
    line = np.append(np.zeros(50), rng.uniform(1, 2, 10))[:, np.newaxis]
    far = outlyingness(line, 45, 0)
    assert np.isinf(far[50:]).all() and (far[:50] == 0).all()
    points = rng.normal(size=(60, 3))
    points[:, 2] = 0
    points[:4, 2] = 1
    found = robust_components(points, 2, 0.75, 0)
    assert angle(found.components, np.eye(3)[:, :2]) < 1e-4
    assert (found.orthogonal_distance[:4] > 0.9).all() and (found.orthogonal_distance[4:] < 1e-9).all()
    assert (found.orthogonal_distance[:4] > found.orthogonal_cutoff).all()


def test_rows_in_another_order_and_turned_channels_give_the_same():
    matrix, _, _ = planted(3, 0.1, points=120, dimensions=30)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    found = robust_components(matrix, 4, 0.75, 0)
    turned = robust_components(3 * matrix @ turn, 4, 0.75, 0)
    np.testing.assert_allclose(turned.orthogonal_distance, 3 * found.orthogonal_distance, rtol=1e-6)
    np.testing.assert_allclose(turned.score_distance, found.score_distance, rtol=1e-6)
    # All pairs of a few points: no draw depends on their order.
    few = matrix[:20]
    order = rng.permutation(20)
    np.testing.assert_allclose(outlyingness(few[order], 15, 0), outlyingness(few, 15, 0)[order], rtol=1e-9)


def test_more_dimensions_than_points_and_few_dimensions():
    for points, dimensions in ((60, 200), (400, 6)):
        matrix, axes, bad = planted(4, 0.1, points, dimensions)
        found = robust_components(matrix, 4, 0.75, 0)
        assert angle(found.components, axes) < 1.3 * angle(classical(matrix[~bad]), axes)
        assert (found.orthogonal_distance > found.orthogonal_cutoff)[bad].all()


def image(counts=300.0, seed=0, shape=(14, 17), channels=60):
    """Counts of two phases, and in one corner a third thing."""
    rng = np.random.default_rng(seed)
    share = np.clip(np.linspace(-0.3, 1.3, shape[1]) + 0.1 * rng.normal(size=shape), 0, 1)
    energy = np.arange(channels)
    spectra = 0.02 + np.exp(-(((energy - np.array([[15], [40]])) / 5.0) ** 2)) / 9
    thickness = rng.uniform(0.6, 1.4, shape)
    mean = counts * thickness[..., None] * (share[..., None] * spectra[0] + (1 - share[..., None]) * spectra[1])
    mean[:3, :4, 26:30] += 0.15 * counts
    values = rng.poisson(mean)
    coords = {
        "y": ("y", 2.0 * np.arange(shape[0]), {"units": "nm"}),
        "energy_loss": ("energy_loss", 0.5 * energy, {"units": "eV"}),
    }
    return xr.DataArray(values, dims=("y", "x", "energy_loss"), coords=coords, attrs={"units": "counts"})


def test_the_corner_of_another_kind_is_named_in_counts():
    data = image()
    fit = ts.robpca(data, scaling="poisson")
    kind = fit.provenance["kind"]
    assert kind.dims == ("y", "x") and kind.y.attrs["units"] == "nm"
    corner = np.zeros((14, 17), bool)
    corner[:3, :4] = True
    assert (kind.values[corner] >= 2).all() and (kind.values[~corner] >= 2).mean() < 0.1
    assert fit.provenance["press"].sizes["rank"] > fit.rank
    # What is left of described pixels is noise, of variance one in each of the other dimensions.
    regular = fit.provenance["orthogonal_distance"].values[kind.values == 0]
    assert np.mean(regular**2) == pytest.approx(60 - fit.rank, rel=0.1)
    whole = fit.reconstruct() + data - fit.data["data"]
    assert float(np.abs(whole - data)[5:].mean()) < 1.2 * np.sqrt(float(data.mean()))
    assert len(ts.plot_outliers(fit).axes) == 3 and fit.plot()


def test_without_counts_scaling_bright_pixels_of_counts_look_like_outliers():
    data = image()
    plain, scaled = ts.robpca(data, 2), ts.robpca(data, 2, scaling="poisson")
    bright = data.sum("energy_loss").values > np.quantile(data.sum("energy_loss"), 0.8)
    bright[:3, :4] = False
    assert (plain.provenance["kind"].values[bright] >= 2).mean() > (
        scaled.provenance["kind"].values[bright] >= 2
    ).mean()


def test_masked_equals_cropped_lazy_float32_integers_and_empty_ones(tmp_path):
    data = image(seed=1)
    data[7, 5] = 0
    data[..., 59] = 0
    mask = xr.DataArray(np.ones((14, 17), bool), dims=("y", "x"))
    mask[4, 2:9] = False
    fit = ts.robpca(data, 2, scaling="poisson", mask=mask)
    kind = fit.provenance["kind"].values
    assert np.isnan(kind[4, 2:9]).all() and np.isnan(kind[7, 5]) and np.isfinite(kind).sum() == 14 * 17 - 8
    kept = data.values.reshape(-1, 60)[mask.values.ravel()]
    cropped = ts.robpca(xr.DataArray(kept, dims=("x", "energy_loss")), 2, scaling="poisson")
    np.testing.assert_allclose(kind.ravel()[mask.values.ravel()], cropped.provenance["kind"].values)
    lazy = ts.robpca(data.chunk({"y": 3}), 2, scaling="poisson", mask=mask)
    np.testing.assert_allclose(lazy.factors["energy_loss"], fit.factors["energy_loss"], rtol=1e-9, atol=1e-12)
    single = ts.robpca(data.astype(np.float32), 2, scaling="poisson", mask=mask)
    np.testing.assert_allclose(single.provenance["score_distance"], fit.provenance["score_distance"], rtol=1e-6)
    again = ts.open(fit.save(tmp_path / "robust.h5"))
    np.testing.assert_allclose(again.provenance["kind"], fit.provenance["kind"])


def test_all_points_is_classical_analysis():
    matrix, _, _ = planted(5, 0.0, points=200, dimensions=40)
    found = robust_components(matrix, 4, 1.0, 0)
    assert angle(found.components, classical(matrix)) < 1e-4
    np.testing.assert_allclose(found.values, np.linalg.svd(matrix - matrix.mean(axis=0))[1][:4] ** 2 / 199)


DATA = image()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.robpca(DATA, 0), ts.RankOutOfRange, "1 or more"),
        (lambda: ts.robpca(DATA, 99), ts.RankOutOfRange, "dimensions"),
        (lambda: ts.robpca(DATA, 2, alpha=0.3), ts.InvalidArgument, "alpha"),
        (lambda: ts.robpca(DATA, 2, scaling="log"), ts.InvalidArgument, "expected None or 'poisson'"),
        (lambda: ts.robpca(xr.ones_like(DATA), 2), ts.RankOutOfRange, "all rows are equal"),
        (lambda: ts.robpca(DATA[:1, :2], 1), ts.InvalidData, "4 and 2 at least"),
        (lambda: ts.plot_outliers(ts.pca(DATA, 2)), ts.InvalidArgument, "no outlier map"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
