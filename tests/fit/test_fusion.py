"""What fusion buys: a weak tensor beside a strong one on the same pixels.

The share of the gap that fusion closes: from the weak tensor fitted alone to the weak tensor with the true maps given.
"""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

SEEDS = range(5)
OPTIONS = {"restarts": 3, "progress": False}


def spectral_angle(fit, truth):
    """Return the mean angle between the weak tensor's true spectra and their partners, in degrees."""
    found, true = fit.factors["weak_energy"].values, truth["weak_spectra"].values
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    chord = np.linalg.norm(found[:, None] - true[None], axis=2)
    angles = np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
    return angles[linear_sum_assignment(angles)].mean()


@pytest.mark.slow
@pytest.mark.parametrize("weak_counts", [50, 20])
def test_share_of_the_gap_that_fusion_closes(weak_counts):
    shares, with_prior = [], []
    for seed in SEEDS:
        phantom = ts.phantoms.disc_pair(counts=(5000, weak_counts), seed=seed)
        truth = phantom["truth"]
        known = ts.NMF(3, {"pixel": ts.Fixed(truth["maps"])})
        alone = spectral_angle(ts.fit(phantom["weak"], ts.NMF(3), **OPTIONS), truth)
        given = spectral_angle(ts.fit(phantom["weak"], known, progress=False), truth)
        fused = spectral_angle(ts.fit(phantom.data, ts.NMF(3), **OPTIONS), truth)
        model = ts.NMF(3, {"pixel": ts.SoftOrthogonal()})
        prior = spectral_angle(ts.fit(phantom.data, model, **OPTIONS), truth)
        shares.append((alone - fused) / (alone - given))
        with_prior.append((alone - prior) / (alone - given))
    # Measured: 0.81 and 0.91 on average; with the prior at least 0.95 and 0.99.
    assert np.mean(shares) >= 0.6, shares
    assert min(with_prior) >= 0.85, with_prior


@pytest.mark.parametrize("ratio", [1 / 30, 30])
def test_unequal_strengths_in_the_two_tensors_are_reproduced(ratio):
    """Each tensor has its own strength of every component, whatever the other needs."""
    rng = np.random.default_rng(0)
    maps, first, second = rng.random((40, 3)), rng.random((3, 20)), rng.random((3, 15))
    strengths = np.array([ratio, 1.0, 1 / ratio])
    data = {
        "a": xr.DataArray(maps @ first, dims=("x", "energy")),
        "b": xr.DataArray((maps * strengths) @ second, dims=("x", "xray")),
    }
    fit = ts.fit(data, ts.NMF(3), tol=0, max_sweeps=3000, progress=False)
    for name, tensor in data.items():
        assert float(np.sqrt((fit.residual(name) ** 2).mean() / (tensor**2).mean())) < 1e-5
