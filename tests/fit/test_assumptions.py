"""A prior is turned on after a fit without it, and what it changed is told."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

PHANTOM = ts.phantoms.discs("eels", counts=5000, shape=(24, 24), channels=80, seed=0)


def spectral_angles(fit, truth):
    """Return the angle of each true spectrum to its partner, in degrees, from the chord."""
    from scipy.optimize import linear_sum_assignment

    found, true = fit.factors["energy"].values, truth["spectra"].values
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    angles = np.degrees(2 * np.arcsin(np.linalg.norm(found[:, None] - true[None], axis=2) / 2))
    return angles[linear_sum_assignment(angles)]


@pytest.fixture(scope="module")
def fits():
    model = ts.NMF(3, {"pixel": ts.SoftOrthogonal()})
    return [ts.fit(PHANTOM.data, model, start=ts.Random(), seed=seed, progress=False) for seed in range(5)]


def test_every_start_ends_at_the_same_place():
    """Turned on from the first sweep, the prior freezes poor starts: the objectives then differ by 16 %."""
    phantom = ts.phantoms.cross_section(shape=(24, 32), eels_channels=256, edx_channels=256)
    model = ts.NMF(4, {"pixel": ts.SoftOrthogonal()})
    objectives = [
        ts.fit(phantom.data, model, start=ts.Random(), seed=seed, progress=False).objective for seed in range(4)
    ]
    assert max(objectives) < min(objectives) * (1 + 1e-3)


def test_the_spectra_are_right(fits):
    assert max(spectral_angles(fit, PHANTOM["truth"]).mean() for fit in fits) < 2.5
    plain = ts.fit(PHANTOM.data, ts.NMF(3), progress=False)
    assert spectral_angles(plain, PHANTOM["truth"]).mean() > 4  # dense spectra: not determined without the prior


def test_what_it_changed_is_told(fits):
    told = fits[0].provenance["without_assumptions"]
    own = fits[0].factors["pixel"].values.reshape(3, -1)
    cosine = (own @ own.T) - np.eye(3)
    np.testing.assert_allclose(told["modes"]["pixel"]["overlap"], cosine.max(axis=1), atol=1e-5)
    assert max(told["modes"]["pixel"]["overlap"]) < max(told["modes"]["pixel"]["overlap_without"])
    assert len(told["moved_degrees"]["energy"]) == 3
    assert max(told["moved_degrees"]["energy"]) > 0.1
    assert told["misfit_change"] > 0


def test_the_automatic_strength_follows_the_noise(fits):
    """0.03 s / (1 - s^2), s the noise over the root mean square of the data; Poisson: mean over mean square."""
    counts = PHANTOM.data["data"] if not isinstance(PHANTOM.data, xr.DataArray) else PHANTOM.data
    square = float(counts.mean()) / float((counts.astype(float) ** 2).mean())
    expected = 0.03 * np.sqrt(square) / (1 - square)
    text = fits[0].provenance["constraints_as_solved"]["pixel"][1]
    assert float(text.removeprefix("SoftOrthogonal(strength=").rstrip(")")) == pytest.approx(expected, rel=1e-4)


def test_a_given_start_is_used_as_it_is(fits):
    again = ts.fit(PHANTOM.data, fits[0].model, start=ts.From(fits[0]), progress=False)
    assert again.history.values[0] == pytest.approx(fits[0].objective, rel=1e-6)
