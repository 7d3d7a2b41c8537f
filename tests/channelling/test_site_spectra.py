"""Spectra of sites: planted valences on two sites, with curves from theory held, pulled, and without theory."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.channelling.spectra_of_sites import site_curves, site_spectra

from .test_occupancy import known

ENERGY = np.arange(635.0, 665.0, 0.25)


def white_lines(shift, ratio):
    """L3 and L2 of manganese: the valence moves them and changes their ratio."""

    def line(place, width, height):
        return height / (1 + ((ENERGY - place - shift) / width) ** 2)

    step = 0.15 / (1 + np.exp(-(ENERGY - 642 - shift) / 0.6)) + 0.08 / (1 + np.exp(-(ENERGY - 653 - shift) / 0.6))
    spectrum = line(641.5, 1.3, ratio) + line(652.8, 1.5, 1.0) + 0.5 * line(644, 1.5, 1.0) + step
    return spectrum / spectrum.sum()


TRUE = np.stack([white_lines(0.0, 2.6), white_lines(1.6, 1.9)])  # like Mn3+ and Mn4+


def curves(share=0.15, thickness=60.0):
    response = known()
    tilts = {"tilt_x": response.tilt_x.values[4:-4]}
    return site_curves(response, "Mn L23", {"8a": share, "16d": 1 - share}, tilts, thickness)


def recorded(counts, seed, share=0.15):
    own = curves(share)
    mean = counts * own.values.T @ TRUE / own.values.sum(axis=0).mean()
    values = np.random.default_rng(seed).poisson(mean)
    coords = {"tilt_x": own.tilt_x, "energy_loss": ("energy_loss", ENERGY, {"units": "eV"})}
    return xr.DataArray(values, dims=("tilt_x", "energy_loss"), coords=coords, attrs={"units": "counts"})


def angles(spectra):
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (np.asarray(spectra), TRUE)]
    return np.degrees(2 * np.arcsin(np.linalg.norm(unit[0] - unit[1], axis=1) / 2))


@pytest.mark.parametrize(("counts", "minority", "majority"), [(1e5, 6.0, 1.2), (1e6, 2.0, 0.4)])
def test_a_minority_of_fifteen_per_cent_shows_its_valence(counts, minority, majority):
    found = [angles(site_spectra(recorded(counts, seed), curves()).spectrum) for seed in range(3)]
    assert np.max(found, axis=0)[0] < minority and np.max(found, axis=0)[1] < majority


@pytest.mark.slow
def test_errors_are_those_of_the_scatter():
    rows = [site_spectra(recorded(1e6, seed), curves()) for seed in range(12)]
    spectra = np.array([row.spectrum.values for row in rows])
    errors = np.array([row.standard_error.values for row in rows])
    inside = errors.mean(axis=0) > 0
    ratio = spectra.std(axis=0, ddof=1)[inside] / np.nanmean(errors, axis=0)[inside]
    assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=0.12)
    assert rows[0].attrs["condition"] > 3
    assert rows[0].site.values.tolist() == ["8a", "16d"]
    assert float(rows[0].chi_squared.mean()) == pytest.approx(1, abs=0.1)


def test_without_theory_more_counts_do_not_help():
    blind = ts.fit(recorded(1e6, 0).astype(float), ts.NMF(2), loss=ts.Poisson(), progress=False)
    found = blind.factors["energy_loss"].values
    off = min(angles(found)[0], angles(found[::-1])[0])
    assert off > 3 * angles(site_spectra(recorded(1e6, 0), curves()).spectrum)[0]


def test_a_wrong_share_does_not_matter_and_a_wrong_curve_is_told_by_chi_squared():
    right = site_spectra(recorded(1e6, 1), curves()).spectrum
    scaled = site_spectra(recorded(1e6, 1), curves(0.3)).spectrum
    np.testing.assert_allclose(angles(scaled), angles(right), atol=1e-3)
    moved = curves().copy(data=np.roll(curves().values, 4, axis=1))
    assert float(site_spectra(recorded(1e6, 1), moved).chi_squared.mean()) > 1.3


@pytest.mark.slow
def test_a_pull_towards_theory_lies_between_theory_and_none():
    data = recorded(1e5, 2)
    held = site_spectra(data, curves())
    strong = site_spectra(data, curves(), strength=1e9, tol=1e-9, max_sweeps=300)
    np.testing.assert_allclose(strong.curves, held.curves, rtol=2e-3)
    weak = site_spectra(data, curves(), strength=1e3, tol=1e-9, max_sweeps=300)
    moved = float(abs(weak.curves - held.curves).max())
    assert moved > float(abs(strong.curves - held.curves).max())


@pytest.mark.slow
def test_a_background_with_a_curve_of_its_own():
    own = curves()
    data = recorded(1e6, 3)
    slope = xr.DataArray(np.linspace(0.5, 1.5, own.sizes["tilt_x"])[None], dims=("component", "tilt_x"))
    extra = np.random.default_rng(4).poisson(2000 * slope.values[0][:, None] * np.exp(-(ENERGY - 635) / 60))
    found = site_spectra(data + extra, own, background=slope)
    assert found.site.values.tolist() == ["8a", "16d", "background 1"]
    assert angles(found.spectrum[:2])[0] < 3
    ignored = site_spectra(data + extra, own)
    assert angles(ignored.spectrum)[1] > 3 * angles(found.spectrum[:2])[1]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: site_curves(known(), "Mn L3", {"8a": 1.0}, {"tilt_x": [0.0]}, 60.0), ts.UnknownName, "Mn L23"),
        (
            lambda: site_curves(known(), "Mn K", {"8b": 1.0}, {"tilt_x": [0.0]}, 60.0),
            ts.UnknownName,
            "no response of site",
        ),
        (lambda: site_curves(known(), "Mn K", {"8a": 1.0}, {"tilt_x": [0.0]}, 900.0), ts.InvalidArgument, "runs from"),
        (lambda: site_spectra(recorded(1e3, 0).sum("tilt_x"), curves()), ts.InvalidData, "tilt_x"),
        (lambda: site_spectra(recorded(1e3, 0), curves(), strength=-1), ts.InvalidArgument, "strength"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
