"""Real measurements: each loads with the right units and fits; skipped where they are not at hand."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

pytestmark = pytest.mark.slow

pytest.importorskip("rsciio")


def fitted(data, rank, **options):
    fit = ts.fit(data, ts.NMF(rank), max_sweeps=40, progress=False, **options)
    for factor in fit.factors.values():
        assert float(factor.min()) >= 0
        assert np.isfinite(factor).all()
    history = fit.history.values
    assert (np.diff(history) <= 0).all()
    assert history[-1] < history[0]
    return fit


def test_gatan_eels_cube_whose_noise_is_not_poisson(shared_data):
    data = ts.load(shared_data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    assert data.sizes == {"y": 49, "x": 6, "energy_loss": 1024}
    assert data.energy_loss.attrs["units"] == "eV"
    assert float(data.energy_loss[0]) == 350.0
    noise = ts.estimate_noise(data)
    assert not noise.is_counts
    assert 10 < noise.gain < 25
    assert noise.channel_correlation == pytest.approx(0.43, abs=0.03)
    fit = fitted(data, 3)
    assert fit.explained > 0.98
    # Spectra are in the units of the data: the components together hold the counts of the cube.
    assert float(fit.spectra().sum()) == pytest.approx(float(data.sum()), rel=0.01)


def test_bruker_maps_at_three_doses(shared_data):
    explained = []
    for name in ("P45_8bit_compressed_80keV_range.bcf", "P45_the_default_job.bcf"):
        data = ts.load(shared_data / "bcf_p45" / name, signal="EDX")
        assert data.dims == ("y", "x", "xray_energy")
        assert data.dtype == np.uint8
        assert data.xray_energy.attrs["units"] == "keV"
        assert data.y.attrs["units"] in ("µm", "um")
        binned = data.sel(xray_energy=slice(0.2, 10)).coarsen(y=3, x=4, xray_energy=2, boundary="trim").sum()
        fit = fitted(binned, 4, loss=ts.LeastSquares(scaling="poisson"))
        assert fit.maps().attrs["units"] == "counts"
        explained.append(fit.explained)
    # The one with more counts holds more signal, and so more can be explained of it.
    assert explained[0] > explained[1] > 0.3


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("espm_eds/88_ES-LP_G8_selection2_cropped2.hspy", (80, 80, 1917)),
        ("sio2_eds/SiO2_EDS_SI.hspy", (128, 128, 2048)),
    ],
)
def test_sparse_stem_edx(shared_data, file, shape):
    data = ts.load(shared_data / file)
    assert data.shape == shape
    assert data.dims == ("y", "x", "xray_energy")
    assert data.xray_energy.attrs["units"] == "keV"
    assert ts.estimate_noise(data).gain == pytest.approx(1.0, abs=0.2)
    fit = fitted(data.coarsen(y=4, x=4, xray_energy=4, boundary="trim").sum(), 3)
    assert fit.explained > 0.5
    assert fit.tensors["data"].attrs["signal_type"].startswith("EDS")


def test_dual_eels_line_scans_share_their_positions(shared_data):
    folder = shared_data / "lsmo_eels"
    core = ts.load(folder / "LSMO_linescan.hdf5", reader="HSPY")
    low = ts.load(folder / "LSMO_linescan_low_loss.hdf5", reader="HSPY")
    assert core.dims == low.dims == ("x", "energy_loss")
    assert float(core.energy_loss[0]) == pytest.approx(428.5)
    assert float(low.energy_loss[0]) == pytest.approx(-50.0)
    # Two ranges of energy loss are two modes; the message says so.
    with pytest.raises(ts.ModeMismatch, match=r"rename\(energy_loss="):
        ts.fit({"core": core, "low": low}, ts.NMF(3))
    pair = {"core": core, "low": low.rename(energy_loss="low_energy_loss").clip(0)}
    fit = fitted(pair, 3)
    assert set(fit.modes) == {"pixel", "energy_loss", "low_energy_loss"}
    assert fit.maps("low").dims == ("component", "x")
    assert float(fit.explained.min()) > 0.97


@pytest.mark.slow
def test_two_line_scans_differ_in_dispersion_more_than_in_offset(shared_data):
    folder = shared_data / "lsmo_eels"
    first = ts.load(folder / "LSMO_linescan.hdf5", reader="HSPY").sel(energy_loss=slice(515, 659))
    second = ts.load(folder / "LSMO_STO_linescan.hdf5", reader="HSPY").sel(energy_loss=slice(505, 680))
    second = second.isel(x=slice(4, 10)).rename(x="place")
    axis = [ts.Shift("fit", start=-0.7), ts.Stretch("fit", about=535.0, start=0.95)]
    model = ts.NMF(1, operators={("first", "energy_loss"): axis})
    fit = ts.fit({"second": second, "first": first}, model, tol=1e-8, progress=False)
    assert (np.diff(fit.history.values) <= 0).all()
    found = fit.provenance["operators"]["first"]["energy_loss"]
    assert found["offset"] == pytest.approx(-0.80, abs=0.1)
    assert found["factor"] == pytest.approx(0.948, abs=0.003)
    assert fit.explained.min() > 0.995


def test_kinetic_fluorescence_with_four_modes_and_missing_values(shared_data):
    with np.load(shared_data / "kinetic" / "kinetic.npz") as stored:
        data = xr.DataArray(
            stored["X"],
            dims=("sample", "emission", "excitation", "time"),
            coords={
                "emission": ("emission", stored["emission_nm"], {"units": "nm"}),
                "excitation": ("excitation", stored["excitation_nm"], {"units": "nm"}),
                "time": ("time", stored["time_min"], {"units": "min"}),
            },
        ).where(xr.DataArray(~stored["missing"], dims=("sample", "emission", "excitation", "time")))
        typical = ~np.isin(np.arange(64), stored["outlier_idx"])
    assert data.shape == (64, 12, 10, 60)
    assert 0.003 < float(data.isnull().mean()) < 0.005
    kept = data.isel(sample=typical, time=slice(None, None, 3))
    assert bool(kept.isnull().any())
    fit = ts.fit(kept, ts.NMF(3), max_sweeps=60, progress=False)
    assert fit.factors["sample"].dims == ("component", "sample")
    assert fit.factors["emission"].emission.attrs["units"] == "nm"
    assert fit.explained > 0.95
