"""Thickness, Fourier-log and Fourier-ratio beside eXSpy's, where it is installed."""

import warnings

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

pytestmark = pytest.mark.slow

PHANTOM = ts.phantoms.dual_eels(shape=(8, 8), seed=1)
LOW = PHANTOM["low"].astype(float)
# eXSpy integrates up to the channel before its threshold.
THRESHOLD, LAST = 5.0, 4.5


@pytest.fixture(scope="module")
def eels():
    """Turn an array into a signal of eXSpy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exspy = pytest.importorskip("exspy")

    def signal(data, energy):
        made = exspy.signals.EELSSpectrum(np.array(data, dtype=float))
        axis = made.axes_manager[-1]
        axis.offset, axis.scale, axis.units = float(energy[0]), float(energy[1] - energy[0]), "eV"
        return made

    return signal


@pytest.fixture(autouse=True)
def quiet():
    """Their warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_thickness(eels):
    theirs = eels(LOW, LOW.low_energy_loss.values).estimate_thickness(threshold=THRESHOLD).data
    ours = ts.thickness(LOW, (-20, LAST), extrapolate=False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    # Both are near the truth, ours nearer.
    truth = PHANTOM.truth.thickness
    own, other = (float(abs(found / truth - 1).mean()) for found in (ts.thickness(LOW), theirs))
    assert own < other < 0.02


def test_fourier_log(eels):
    energy = LOW.low_energy_loss
    peak = eels(LOW.where(energy <= LAST, 0.0), energy.values)
    theirs = eels(LOW, energy.values).fourier_log_deconvolution(peak).data
    ours = ts.deconvolve(LOW, method="log", zero_loss=(-20, LAST)).values
    # Away from the ends, which they taper.
    window = (..., slice(60, 400))
    assert np.linalg.norm((ours - theirs)[window]) < 5e-3 * np.linalg.norm(theirs[window])
    assert np.linalg.norm((LOW.values - theirs)[window]) > 0.3 * np.linalg.norm(theirs[window])


def test_fourier_ratio(eels):
    still = ts.phantoms.dual_eels(shape=(8, 8), seed=1, drift=0.0)
    low = still.expected("low")
    spectra = PHANTOM.truth.core_spectra
    edge = np.maximum(spectra.sel(component=4) - 0.9 * spectra.sel(component=1), 0)
    edge = edge.where(edge.energy_loss > 500, 0.0).values
    kernel = (low / low.sum("low_energy_loss")).values.reshape(64, -1)
    plural = np.array([np.convolve(edge, one)[40 : 40 + edge.size] for one in kernel]).reshape(8, 8, -1)
    core = xr.DataArray(plural, dims=("y", "x", "energy_loss"), coords={"energy_loss": spectra.energy_loss})
    width = 1.5
    signals = eels(core, core.energy_loss.values), eels(low, low.low_energy_loss.values)
    theirs = signals[0].fourier_ratio_deconvolution(signals[1], fwhm=width, threshold=THRESHOLD).data
    # Their Gaussian has unit area in eV, ours unit sum over channels.
    theirs = theirs * 0.5
    ours = ts.deconvolve(core, low, modifier=width, zero_loss=(-20, LAST)).values
    window = (..., slice(60, 960))
    area = [item[window].sum(axis=-1) for item in (ours, theirs)]
    np.testing.assert_allclose(*area, rtol=5e-3)
    assert np.linalg.norm((ours - theirs)[window]) < 0.01 * np.linalg.norm(theirs[window])
