"""Valences of sites: planted, with bands that hold, by three methods that agree, and doubts that are told."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.channelling.mixture_likelihood import most_likely_mixtures
from tensorspec.channelling.phantoms import manganese_white_lines
from tensorspec.channelling.valence import site_valence

from .test_site_spectra import ENERGY, curves

REFERENCES = {
    valence: xr.DataArray(manganese_white_lines(valence, ENERGY), dims="energy_loss", coords={"energy_loss": ENERGY})
    for valence in (2.0, 3.0, 4.0)
}
WINDOWS = {"references": None, "ratio": [(637.0, 648.0), (650.0, 658.0)], "position": [(637.0, 648.0)]}


def recorded(counts, seed, minority=3.0, share_of_three=0.4, share=0.15, background=0.0):
    """Counts with one valence on 8a, and a mixture of three and four on 16d."""
    own = curves(share)
    mixed = share_of_three * REFERENCES[3.0].values + (1 - share_of_three) * REFERENCES[4.0].values
    spectra = np.stack([manganese_white_lines(minority, ENERGY), mixed])
    mean = counts * own.values.T @ spectra / own.values.sum(axis=0).mean()
    mean = mean + background * counts / mean.size * len(mean) * np.exp(-(ENERGY - 635) / 40)
    coords = {"tilt_x": own.tilt_x, "energy_loss": ("energy_loss", ENERGY, {"units": "eV"})}
    return xr.DataArray(
        np.random.default_rng(seed).poisson(mean),
        dims=("tilt_x", "energy_loss"),
        coords=coords,
        attrs={"units": "counts"},
    )


@pytest.mark.parametrize(
    ("method", "mixed", "most"), [("references", 0.4, 0.03), ("ratio", 0.0, 0.05), ("position", 0.0, 0.03)]
)
def test_planted_valences_come_back_within_their_bands(method, mixed, most):
    truth = np.array([3.0, 4.0 - mixed])
    inside, scores = [], []
    for seed in range(10):
        data = recorded(1e6, seed, share_of_three=mixed)
        found = site_valence(data, curves(), REFERENCES, method=method, windows=WINDOWS[method], draws=60, seed=seed)
        assert found.site.values.tolist() == ["8a", "16d"] and float(found.standard_error.max()) < most
        assert found.attrs["chi_squared"] == pytest.approx(1, abs=0.06)
        inside.append(((found.low <= truth) & (found.high >= truth)).values)
        scores.append(((found.valence - truth) / found.standard_error).values)
    assert np.mean(inside) >= 0.8
    assert np.abs(scores).max() < 4 and 0.4 < np.mean(np.square(scores)) < 2


def test_the_amounts_are_those_of_an_independent_solver():
    own, data = curves(), recorded(2e4, 6)
    patterns = [own.isel(component=k, drop=True) * reference for k in range(2) for reference in REFERENCES.values()]
    patterns = xr.concat(patterns, xr.DataArray(np.arange(6), dims="component", name="component"))
    expected = ts.unmix(data, patterns, method="poisson", noise=ts.NoiseModel()).maps.values.reshape(2, 3)
    values = np.array([reference.values for reference in REFERENCES.values()])
    amounts, mean = most_likely_mixtures(data.values[np.newaxis], own.values, values, np.empty((0, len(own.tilt_x))))
    np.testing.assert_allclose(amounts[0], expected, atol=1e-5 * expected.max())
    # At the maximum the likelihood does not rise, whichever amount is moved.
    best = float((mean[0] - data.values * np.log(mean[0])).sum())
    for place in np.ndindex(2, 3):
        moved = amounts[0].copy()
        moved[place] += 1e-3 * amounts.max()
        other = own.values.T @ moved @ values
        assert float((other - data.values * np.log(other)).sum()) > best


def test_amounts_add_up_and_the_same_seed_gives_the_same_bands():
    data = recorded(1e5, 0)
    found, again, other = (site_valence(data, curves(), REFERENCES, draws=20, seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(found, again)
    assert not np.array_equal(found.low, other.low) and np.array_equal(found.valence, other.valence)
    weighted = (found.amount * found.reference).sum("reference") / found.amount.sum("reference")
    np.testing.assert_allclose(found.valence, weighted)
    # Whatever the size of the references.
    scaled = site_valence(data, curves(), {key: 7 * own for key, own in REFERENCES.items()}, draws=20, seed=1)
    np.testing.assert_allclose(scaled.valence, found.valence, rtol=1e-9)


def test_curves_that_are_not_certain_widen_the_bands():
    data = recorded(1e6, 3)
    sure = site_valence(data, curves(), REFERENCES, draws=60)
    unsure = site_valence(data, [curves(), curves(thickness=40.0), curves(thickness=80.0)], REFERENCES, draws=60)
    np.testing.assert_array_equal(sure.valence, unsure.valence)
    assert (unsure.standard_error > 1.5 * sure.standard_error).all()
    assert (unsure.high - unsure.low > 1.5 * (sure.high - sure.low)).all()


def test_a_background_and_a_valence_that_no_reference_has():
    data = recorded(1e6, 4, background=0.5)
    flat = xr.ones_like(curves().isel(component=[0])).drop_vars("site")
    with pytest.warns(UserWarning, match="do not explain the counts"):
        without = site_valence(data, curves(), REFERENCES, draws=20)
    found = site_valence(data, curves(), REFERENCES, background=flat, draws=20)
    assert abs(found.valence.values - [3.0, 3.6]).max() < 0.1
    assert found.attrs["chi_squared"] == pytest.approx(1, abs=0.06)
    assert abs(without.valence.values - [3.0, 3.6]).max() > abs(found.valence.values - [3.0, 3.6]).max()
    few = {key: REFERENCES[key] for key in (2.0, 3.0)}
    with pytest.warns(UserWarning, match="do not explain the counts"):
        site_valence(recorded(1e6, 5), curves(), few, draws=20)


FLAT = xr.ones_like(REFERENCES[3.0])


@pytest.mark.parametrize(
    ("references", "options", "error", "said"),
    [
        ({3.0: FLAT}, {}, ts.InvalidArgument, "two valences at least"),
        ({3.0: FLAT, 4.0: FLAT[:-1]}, {}, ts.InvalidData, "energies are not those of the data"),
        ({3.0: FLAT, 4.0: -FLAT}, {}, ts.InvalidData, "zero or more"),
        (REFERENCES, {"method": "guess"}, ts.InvalidArgument, "expected one of"),
        (REFERENCES, {"method": "ratio"}, ts.InvalidArgument, "needs 2"),
        (REFERENCES, {"method": "position", "windows": [(700, 800)]}, ts.InvalidArgument, "the data run from 635"),
        (REFERENCES, {"draws": 3}, ts.InvalidArgument, "draws"),
        (
            {2.0: REFERENCES[2.0], 3.0: FLAT, 4.0: REFERENCES[2.0]},
            {"method": "position", "windows": [(637, 648)]},
            ts.InvalidArgument,
            "neither rises nor falls",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(references, options, error, said):
    with pytest.raises(error, match=said):
        site_valence(recorded(1e4, 0), curves(), references, **options)
