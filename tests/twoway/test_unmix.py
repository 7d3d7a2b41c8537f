"""Amounts of known spectra: exact ones, standard errors that cover, what is refused."""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import nnls

import tensorspec as ts

METHODS = ("nonnegative", "ordinary", "weighted", "poisson")


def known(channels=60, rank=3):
    """Broad overlapping peaks on a falling background, 100 to 2000 counts a component."""
    energy = np.arange(channels)
    spectra = 3 * np.exp(-energy / 25) + 6 * np.exp(-(((energy - np.array([[15], [27], [42]][:rank])) / 6.0) ** 2))
    spectra = 5 * spectra * np.array([[1.0], [2.0], [0.5]][:rank])
    coords = {"component": np.arange(1, rank + 1), "energy_loss": energy * 1.0}
    return xr.DataArray(spectra, dims=("component", "energy_loss"), coords=coords, attrs={"units": "counts"})


def image(shape=(5, 7), seed=0, low=0.5):
    maps = np.random.default_rng(seed).uniform(low, 2.0, (3, *shape))
    return xr.DataArray(maps, dims=("component", "y", "x"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exact_data_give_exact_amounts(method, dtype):
    spectra, maps = known(), image()
    data = xr.dot(maps, spectra, dim="component").transpose("y", "x", "energy_loss").astype(dtype)
    found = ts.unmix(data, spectra, method=method, noise=ts.NoiseModel())
    np.testing.assert_allclose(found.maps, maps, rtol=1e-8 if dtype == "float64" else 1e-4)
    assert found.maps.dims == ("component", "y", "x") and not found.at_bound.any()
    assert (found.degrees_of_freedom == 57).all()


def test_a_single_spectrum_without_pixels():
    spectra = xr.DataArray([[4.0, 2, 1, 0], [0, 1, 3, 4]], dims=("component", "energy_loss"))
    found = ts.unmix(xr.DataArray([8.0, 5, 5, 4], dims="energy_loss"), spectra, noise=ts.NoiseModel())
    np.testing.assert_allclose(found.maps, [2, 1])
    assert found.chi_squared.dims == () and float(found.chi_squared) == pytest.approx(0, abs=1e-20)


def test_amounts_of_zero_or_more_are_those_of_lawson_and_hanson():
    spectra = known()
    rng = np.random.default_rng(1)
    data = xr.DataArray(
        rng.normal(0, 30, (40, 60)) + 10, dims=("x", "energy_loss"), coords={"energy_loss": spectra.energy_loss}
    )
    found = ts.unmix(data, spectra, noise=ts.NoiseModel(1.0, 900.0))
    one_by_one = np.array([nnls(spectra.values.T, row)[0] for row in data.values])
    np.testing.assert_allclose(found.maps.values.T, one_by_one, atol=1e-8)
    np.testing.assert_array_equal(found.at_bound.values.T, one_by_one == 0)
    assert found.at_bound.any() and np.isnan(found.standard_error.values[found.at_bound.values]).all()


def test_poisson_amounts_are_the_most_likely_ones():
    spectra = known()
    counts = np.random.default_rng(2).poisson(xr.dot(0.2 * image((6, 6), low=0.0), spectra, dim="component"))
    data = xr.DataArray(counts, dims=("y", "x", "energy_loss"), coords={"energy_loss": spectra.energy_loss})
    found = ts.unmix(data, spectra, method="poisson", noise=ts.NoiseModel())
    amounts = found.maps.transpose("y", "x", "component").values.reshape(-1, 3)
    mean = np.maximum(amounts @ spectra.values, 1e-300)
    slope = (1 - counts.reshape(-1, 60) / mean) @ spectra.values.T
    bound = amounts == 0
    assert np.abs(slope[~bound]).max() < 1e-4 * spectra.values.sum(axis=1).max()
    assert (slope[bound] > -1e-6).all()


@pytest.mark.parametrize(
    ("method", "noise"),
    [(each, ts.NoiseModel()) for each in METHODS] + [(each, ts.NoiseModel(3.0, 20.0)) for each in METHODS[1:3]],
)
def test_intervals_cover_and_chi_squared_is_one(method, noise):
    spectra, maps, draws = known(), image((5, 5)), 200
    mean = xr.dot(maps, spectra, dim="component").transpose("y", "x", "energy_loss").values
    rng = np.random.default_rng(3)
    events = rng.poisson(np.broadcast_to(mean / noise.gain, (draws, *mean.shape))) * noise.gain
    values = events + rng.normal(0, 1, events.shape) * noise.read_variance**0.5
    coords = {"energy_loss": spectra.energy_loss}
    data = xr.DataArray(values, dims=("draw", "y", "x", "energy_loss"), coords=coords)
    found = ts.unmix(data, spectra, method=method, noise=noise)
    inner = ~found.at_bound
    score = ((found.maps - maps) / found.standard_error).where(inner).values
    score = score[np.isfinite(score)]
    assert score.size > 14_000
    assert 0.94 < np.mean(np.abs(score) < 1.959964) < 0.96
    assert abs(score.mean()) < 0.05
    assert 0.98 < float(found.chi_squared.mean()) < 1.02


def test_the_plain_formula_of_ordinary_least_squares_would_not_cover():
    """With noise that grows with the signal, sigma^2 (S^T S)^-1 is another number than what is returned."""
    spectra = known()
    data = xr.dot(image(), spectra, dim="component").transpose("y", "x", "energy_loss")
    found = ts.unmix(data, spectra, method="ordinary", noise=ts.NoiseModel()).standard_error
    inverse = np.linalg.inv(spectra.values @ spectra.values.T)
    plain = np.sqrt(np.diag(inverse)[:, None, None] * data.mean("energy_loss").values)
    ratio = found.values / plain
    assert (np.abs(ratio - 1) > 0.05).mean() > 0.5


def test_correlated_channels_widen_the_errors():
    spectra = known()
    rng = np.random.default_rng(4)
    white = rng.standard_normal((4000, 62))
    angle = 0.5 * np.arcsin(np.sqrt(2) * 0.4)
    noise = np.cos(angle) * white[:, 1:-1] + np.sin(angle) / np.sqrt(2) * (white[:, :-2] + white[:, 2:])
    mean = spectra.values.sum(axis=0)
    data = xr.DataArray(mean + 10 * noise, dims=("x", "energy_loss"), coords={"energy_loss": spectra.energy_loss})
    found = ts.unmix(data, spectra, method="ordinary", noise=ts.NoiseModel(0.0, 100.0, 0.4))
    np.testing.assert_allclose(found.maps.std("x"), found.standard_error.mean("x"), rtol=0.1)
    white_only = ts.unmix(data, spectra, method="ordinary", noise=ts.NoiseModel(0.0, 100.0))
    assert (found.standard_error > 1.15 * white_only.standard_error).all()


@pytest.mark.parametrize("method", METHODS)
def test_masks_missing_values_lazy_and_integers(method):
    spectra = known()
    counts = np.random.default_rng(5).poisson(
        xr.dot(image((4, 7)), spectra, dim="component").transpose("y", "x", "energy_loss")
    )
    coords = {"energy_loss": spectra.energy_loss}
    data = xr.DataArray(counts.astype(np.uint16), dims=("y", "x", "energy_loss"), coords=coords)
    options = {"method": method, "noise": ts.NoiseModel()}
    plain = ts.unmix(data, spectra, **options)
    lazy = ts.unmix(data.chunk({"y": 2, "energy_loss": 20}), spectra, **options)
    assert lazy.maps.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), plain)
    used = xr.DataArray(np.arange(60) >= 20, dims="energy_loss")
    cropped = ts.unmix(data[..., 20:], spectra[:, 20:], **options)
    xr.testing.assert_allclose(ts.unmix(data, spectra, mask=used, **options), cropped)
    missing = ts.unmix(data.astype(float).where(used), spectra, **options)
    np.testing.assert_allclose(missing.maps, cropped.maps, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(missing.standard_error, cropped.standard_error, rtol=1e-5)
    own = used | xr.DataArray(np.arange(7) == 3, dims="x")
    mixed = ts.unmix(data, spectra, mask=own, **options)
    np.testing.assert_allclose(mixed.maps[..., 3], plain.maps[..., 3], rtol=1e-5)
    np.testing.assert_allclose(mixed.maps[..., 4], cropped.maps[..., 4], rtol=1e-5)


@pytest.mark.parametrize("method", ["nonnegative", "ordinary", "weighted", "poisson"])
def test_amounts_that_add_up_to_one(method):
    spectra = known()
    maps = image((4, 4))
    maps = maps / maps.sum("component")
    spectra = 100 * spectra
    counts = np.random.default_rng(6).poisson(xr.dot(maps, spectra, dim="component"))
    data = xr.DataArray(counts, dims=("y", "x", "energy_loss"), coords={"energy_loss": spectra.energy_loss})
    found = ts.unmix(data, spectra, method=method, sum_to_one=True, noise=ts.NoiseModel())
    np.testing.assert_allclose(found.maps.sum("component"), 1, atol=1e-9)
    np.testing.assert_allclose(found.maps, maps, atol=0.05)


def test_near_collinear_spectra_are_named():
    spectra = known()
    spectra[2] = spectra[1] * (1 + 1e-10 * np.arange(60))
    data = xr.dot(image(), spectra, dim="component")
    with pytest.warns(UserWarning, match="'2' and '3'"):
        ts.unmix(data, spectra, noise=ts.NoiseModel())
    spectra[2] = 2 * spectra[1]
    with pytest.raises(ts.InvalidData, match="'2' and '3'"):
        ts.unmix(data, spectra, noise=ts.NoiseModel())


DATA = xr.dot(image(), known(), dim="component")
MOVED = known().assign_coords(energy_loss=known().energy_loss + 3)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.unmix(DATA, known(), method="nnls"), ts.InvalidArgument, "nonnegative"),
        (lambda: ts.unmix(DATA, known().rename(component="phase")), ts.UnknownMode, "component"),
        (lambda: ts.unmix(DATA, known()[:, :50]), ts.ModeMismatch, "50 points"),
        (lambda: ts.unmix(DATA, MOVED), ts.ModeMismatch, "energy_loss"),
        (lambda: ts.unmix(DATA, known() * [[1], [0], [1]]), ts.InvalidData, "'2' is zero"),
        (lambda: ts.unmix(DATA - 1e3, known(), method="poisson", noise=ts.NoiseModel()), ts.InvalidData, "negative"),
        (lambda: ts.unmix(DATA.values, known()), ts.InvalidData, "DataArray"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


@pytest.mark.parametrize(
    ("counts", "amounts"), [([3, 0, 0], [3, 0]), ([0, 2, 1], [0, 1.5]), ([0, 0, 5], [0, 2.5]), ([4, 1, 0], [4, 0.5])]
)
def test_a_channel_of_which_nothing_is_expected_loses_no_counts(counts, amounts):
    spectra = xr.DataArray([[1.0, 0, 0], [0, 1.0, 1.0]], dims=("component", "energy_loss"))
    data = xr.DataArray([counts], dims=("x", "energy_loss"))
    found = ts.unmix(data, spectra, method="poisson", noise=ts.NoiseModel())
    np.testing.assert_allclose(found.maps.values.ravel(), amounts, atol=1e-6)
