"""Endmembers: exact corners, what fails without pure pixels, and the figures with counts."""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

CHANNELS, PIXELS = 400, 1500


def planted(rank, counts, seed, largest=0.8, background=0.0):
    """Three lines a component, no pixel with more than the largest share; without counts the expected values."""
    rng = np.random.default_rng(seed)
    energy = np.arange(CHANNELS)
    spectra = np.zeros((rank, CHANNELS))
    for spectrum in spectra:
        for centre, height in zip(rng.uniform(0.08, 0.92, 3), rng.uniform(0.3, 1, 3), strict=True):
            spectrum += height * np.exp(-(((energy / CHANNELS - centre) / 0.012) ** 2) / 2)
    spectra[spectra < 1e-4] = 0
    spectra /= spectra.sum(axis=1, keepdims=True)
    common = np.exp(-energy / 150)
    spectra = (1 - background) * spectra + background * common / common.sum()
    shares = rng.dirichlet(np.ones(rank), size=20 * PIXELS)
    shares = shares[shares.max(axis=1) <= largest][:PIXELS]
    mean = (counts or 1e6) * shares @ spectra
    values = rng.poisson(mean) if counts else mean
    coords = {"energy_loss": ("energy_loss", energy * 1.0, {"units": "eV"})}
    return xr.DataArray(values, dims=("x", "energy_loss"), coords=coords, attrs={"units": "counts"}), spectra


def angles(found, spectra):
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (np.nan_to_num(found), spectra)]
    distance = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2)
    rows, columns = linear_sum_assignment(distance)
    return np.degrees(2 * np.arcsin(np.clip(distance[rows, columns] / 2, 0, 1)))


@pytest.mark.parametrize("way", [ts.vca, ts.spa])
@pytest.mark.parametrize("rank", [2, 3, 5])
def test_pure_pixels_are_found_exactly(way, rank):
    data, spectra = planted(rank, 0, 1)
    data = data.copy()
    places = np.arange(rank) * 200 + 17
    data[places] = 1e6 * spectra
    found = way(data, rank)
    assert angles(found.values, spectra).max() < 1e-6
    assert {each["x"] for each in found.attrs["pixels"]} == set(places.tolist())
    assert found.attrs["units"] == "counts" and found.energy_loss.attrs["units"] == "eV"


@pytest.mark.parametrize("way", [ts.vca, ts.spa])
def test_pure_pixels_at_thirty_decibels(way):
    for seed in range(3):
        data, spectra = planted(3, 0, seed, largest=1.0)
        data = data.copy()
        data[[3, 500, 900]] = 1e6 * spectra
        power = float((data**2).mean())
        noise = np.random.default_rng(seed).standard_normal(data.shape) * np.sqrt(power / 1e3)
        assert angles(way(data + noise, 3).values, spectra).mean() < 2


@pytest.mark.parametrize("rank", [3, 4])
def test_without_pure_pixels_vca_fails_and_the_corners_hold(rank):
    for seed in range(2):
        data, spectra = planted(rank, 0, seed)
        assert angles(ts.vca(data, rank).values, spectra).mean() > 8
        exact = ts.sss(data, rank)
        assert angles(exact.values, spectra).mean() < 0.015
        assert exact.attrs["stable"] and exact.attrs["outer_bound"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [3, 4])
def test_twenty_thousand_counts(rank):
    for seed in range(3):
        data, spectra = planted(rank, 20_000, seed)
        found = angles(ts.sss(data, rank).values, spectra)
        assert found.mean() < 1 and found.max() < 2
        assert found.mean() < angles(ts.vca(data, rank).values, spectra).mean() / 3


@pytest.mark.slow
def test_a_thousand_counts():
    for seed in range(3):
        data, spectra = planted(3, 1000, seed)
        found = ts.sss(data, 3)
        assert angles(found.values, spectra).mean() < 3
        assert found.attrs["relative_error"] in (0.05, 0.02, 0.01)
    # One per cent shuts out a component's only channels in one of these, which shows in how far the polytope reaches.
    assert not all(ts.sss(planted(3, 1000, seed)[0], 3).attrs["stable"] for seed in range(3))


def test_a_common_background_is_taken_out_and_the_answer_called_an_outer_bound():
    data, spectra = planted(3, 0, 0, background=0.2)
    found = ts.sss(data, 3)
    assert 0.5 < angles(found.values, spectra).mean() < 3
    assert found.attrs["outer_bound"]
    pure = planted(3, 0, 0, largest=1.0)[0].copy()
    pure[:60] = np.repeat(1e6 * planted(3, 0, 0)[1], 20, axis=0)
    assert not ts.sss(pure, 3).attrs["outer_bound"]


def test_channels_of_ones_own_choice():
    data, spectra = planted(3, 20_000, 1)
    lines = [(float(k) - 5, float(k) + 5) for k in spectra.argmax(axis=1)]
    found = ts.sss(data, 3, channels=[(0.0, 398.5)])
    assert found.attrs["admitted"] == int((data[:, :399].sum("x") > 0).sum())
    chosen = ts.sss(data, 3, channels=lines)
    assert chosen.attrs["admitted"] < 40
    with pytest.raises(ts.InvalidArgument, match="'auto'"):
        ts.sss(data, 3, channels="all")


@pytest.mark.parametrize("way", [ts.vca, ts.spa, ts.sss])
def test_masks_lazy_integers_empty_channels_and_seeds(way):
    data, _ = planted(3, 5000, 2)
    cube = xr.DataArray(
        data.values.reshape(30, 50, CHANNELS), dims=("y", "x", "energy_loss"), coords={"energy_loss": data.energy_loss}
    )
    plain = way(cube, 3)
    assert plain.dims == ("component", "energy_loss")
    np.testing.assert_array_equal(plain, way(cube, 3))
    lazy = way(cube.chunk({"y": 7}), 3)
    np.testing.assert_allclose(lazy, plain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(way(cube.astype(float), 3), plain, rtol=1e-9, atol=1e-12)
    mask = xr.DataArray(np.arange(30) >= 10, dims="y") & xr.DataArray(np.arange(CHANNELS) != 7, dims="energy_loss")
    masked, cropped = way(cube, 3, mask=mask), way(cube[10:].isel(energy_loss=np.arange(CHANNELS) != 7), 3)
    np.testing.assert_allclose(masked.isel(energy_loss=np.arange(CHANNELS) != 7), cropped, rtol=1e-9, atol=1e-12)
    assert np.isnan(masked[:, 7]).all()
    empty = cube.copy()
    empty[..., 100:120] = 0
    assert (way(empty, 3)[:, 100:120] == 0).all()
    amounts = ts.unmix(cube, plain, noise=ts.NoiseModel())
    assert float(amounts.chi_squared.median()) < (1.2 if way is ts.sss else 40)


DATA = planted(3, 1000, 0)[0]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.vca(DATA, 0), ts.RankOutOfRange, "rank=0"),
        (lambda: ts.spa(DATA[:2], 3), ts.RankOutOfRange, "2 pixels"),
        (lambda: ts.sss(DATA - 1, 3), ts.InvalidData, "negative"),
        (lambda: ts.sss(DATA, 3, channels=[(900, 950)]), ts.InvalidArgument, "900"),
        (lambda: ts.sss(DATA, 3, channels=[(0, 1)]), ts.InvalidData, "do not bound"),
        (lambda: ts.vca(DATA.values, 3), ts.InvalidData, "DataArray"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_the_cloud_among_the_corners():
    data, spectra = planted(3, 20_000, 0)
    corners = ts.sss(data, 3)
    from tensorspec.twoway.endmembers import shares_among

    shares = shares_among(data, corners)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.min() > -0.1 and shares.max() < 0.9
    figure = ts.plot_simplex(data, corners)
    assert len(figure.axes[0].texts) == 3
    assert ts.plot_simplex(data, corners[:2]).axes[0].patches
    with pytest.raises(ts.InvalidArgument, match="two or three endmembers"):
        ts.plot_simplex(data, ts.vca(data, 4))
