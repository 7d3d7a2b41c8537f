"""Whole fits of tensors that see a factor through an operator."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.diagnose.match import match_factors

RNG = np.random.default_rng(0)
ENERGY = np.arange(60) * 0.5 + 400
HEIGHT, WIDTH = 12, 16
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
MAPS = np.stack(
    [np.exp(-((Y - 3) ** 2 + (X - 4) ** 2) / 8), np.exp(-((Y - 8) ** 2 + (X - 10) ** 2) / 12), 0.3 + 0 * X], axis=-1
)
XRAY, LOW_MAPS = RNG.random((3, 20)), RNG.random((40, 3))
AXIS = {"energy_loss": ("energy_loss", ENERGY, {"units": "eV"})}
OPTIONS = {"tol": 1e-8, "max_sweeps": 2000, "progress": False}


def spectra(offset=0.0, sigma=0.0):
    """Peaks whose Gaussian broadening and shift are known without any operator."""

    def peak(centre, width):
        wide = np.hypot(width, sigma)
        return np.exp(-0.5 * ((ENERGY - centre - offset) / wide) ** 2) * width / wide

    return np.stack(
        [peak(408, 1) + 0.3 * peak(420, 3), peak(412, 1.5) + 0.2, peak(418, 0.8) + 0.5 * peak(410, 4)], axis=0
    )


EELS = xr.DataArray(
    MAPS @ spectra(), dims=("y", "x", "energy_loss"), coords=AXIS | {"y": np.arange(12.0), "x": np.arange(16.0)}
)
DOSES = RNG.random((4, 3))
SERIES = xr.DataArray(
    np.einsum("yxr,re,tr->yxet", MAPS, spectra(), DOSES), dims=(*EELS.dims, "dose"), coords=EELS.coords
)
EDX = xr.DataArray(
    (MAPS @ XRAY).reshape(6, 2, 8, 2, 20).mean(axis=(1, 3)),
    dims=("y", "x", "xray_energy"),
    coords={"y": np.arange(6) * 2 + 0.5, "x": np.arange(8) * 2 + 0.5},
)


def second(noise=0.0, **changed):
    clean = LOW_MAPS @ spectra(**changed)
    return xr.DataArray(clean + noise * RNG.standard_normal(clean.shape), dims=("position", "energy_loss"), coords=AXIS)


@pytest.fixture(scope="module")
def binned():
    model = ts.NMF(3, operators={("edx", "pixel"): ts.Bin(2)})
    return ts.fit({"eels": SERIES, "edx": EDX}, model, **(OPTIONS | {"tol": 1e-10}))


@pytest.mark.slow
def test_maps_of_the_finer_scan_are_recovered_from_both(binned):
    assert (np.diff(binned.history.values) <= 1e-13).all()
    found = [binned.factors[mode].values.reshape(3, -1).T for mode in ("pixel", "energy_loss", "xray_energy")]
    assert match_factors(found, [MAPS.reshape(-1, 3), spectra().T, XRAY.T]).score > 1 - 1e-8
    for name, tensor in (("eels", SERIES), ("edx", EDX)):
        assert float((binned.residual(name) ** 2).sum() / (tensor**2).sum()) < 1e-12
    assert binned.maps("eels").shape == (3, 12, 16) and binned.maps("edx").shape == (3, 6, 8)
    np.testing.assert_allclose(binned.maps("edx")["y"], EDX["y"])
    assert binned.factors["pixel"].shape == (3, 12, 16)


def test_what_comes_after_a_fit_knows_the_operator(binned, tmp_path):
    again = ts.open(binned.save(tmp_path / "fit.h5"))
    xr.testing.assert_allclose(again.maps("edx"), binned.maps("edx"))
    xr.testing.assert_allclose(again.reconstruct("edx"), binned.reconstruct("edx"))
    repeated = ts.refit(tmp_path / "fit.h5", {"eels": SERIES, "edx": EDX})
    assert repeated.objective == binned.objective
    chosen = binned.select([3, 1])
    np.testing.assert_array_equal(chosen.maps("edx").values, binned.maps("edx").values[[2, 0]])
    merged = binned.merge([1, 2])
    np.testing.assert_allclose(merged.totals("edx").sum(), binned.totals("edx").sum(), rtol=1e-6)
    np.testing.assert_allclose(merged.seen("edx", "pixel").values[0], _bin(merged.factors["pixel"].values[0]))
    weights, factors = binned.to_tensorly("edx")
    np.testing.assert_allclose((factors[0] * weights) @ factors[1].T, EDX.values.reshape(-1, 20), atol=1e-5)
    assert len(binned.plot().axes) == 12 and binned.report(tmp_path / "report.html").exists()
    new = binned.transform({"eels": SERIES.isel(y=slice(2, 5))})
    np.testing.assert_allclose(new, binned.factors["pixel"].isel(y=slice(2, 5)), atol=1e-5)
    with pytest.raises(ts.InvalidData, match="'edx' sees mode 'pixel' through an operator"):
        binned.transform({"edx": EDX})


def _bin(values):
    return values.reshape(6, 2, 8, 2).mean(axis=(1, 3))


@pytest.mark.slow
def test_both_solvers_end_at_the_same_place_with_entries_missing():
    mask = xr.DataArray(RNG.random(EDX.shape) > 0.3, dims=EDX.dims)
    data = {"eels": EELS + 0.02 * RNG.random(EELS.shape), "edx": EDX + 0.02 * RNG.random(EDX.shape)}
    model = ts.NMF(3, {"pixel": ts.Sparse(0.01)}, operators={("edx", "pixel"): ts.Bin(2)})
    fits = [ts.fit(data, model, mask={"edx": mask}, solver=s, **OPTIONS) for s in (ts.HALS(), ts.AOADMM())]
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-5)
    for fit in fits:
        assert (np.diff(fit.history.values) <= 1e-12).all()
        scales, weights = fit.provenance["scales"], fit.provenance["tensor_weights"]
        misfit = sum(
            0.5 * weights[key] * scales[key] ** 2 * float((fit.residual(key) ** 2).sum()) for key in ("eels", "edx")
        )
        amplitude = np.sqrt(sum(weights[k] * (fit.strengths(k).values * scales[k]) ** 2 for k in data))
        penalty = 0.01 * float(np.abs(fit.factors["pixel"].values.reshape(3, -1)).sum(axis=1) @ amplitude)
        assert fit.objective == pytest.approx(misfit + penalty, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_width_and_an_offset_are_found_with_the_factors(noise):
    for operator, changed in ((ts.Broaden("fit"), {"sigma": 1.2}), (ts.Shift("fit"), {"offset": 0.87})):
        data = {"eels": EELS + noise * RNG.standard_normal(EELS.shape), "second": second(noise, **changed)}
        fit = ts.fit(data, ts.NMF(3, operators={("second", "energy_loss"): operator}), **OPTIONS)
        assert (np.diff(fit.history.values) <= 1e-12).all()
        found = fit.provenance["operators"]["second"]["energy_loss"]
        # Within 2 % of the width; within a tenth of a channel of 0.5 eV.
        if "sigma" in changed:
            assert found["sigma"] == pytest.approx(1.2, rel=0.02)
        else:
            assert found["offset"] == pytest.approx(0.87, abs=0.05)
        assert (fit.explained > 0.99).all()
        # Without the operator the same components explain the second tensor worse.
        plain = ts.fit(data, ts.NMF(3), **OPTIONS)
        assert plain.objective > 1.2 * fit.objective


@pytest.mark.slow
def test_an_offset_and_a_width_of_one_tensor_are_found_together(tmp_path):
    data = {"eels": EELS + 0.01 * RNG.standard_normal(EELS.shape), "second": second(0.01, offset=0.87, sigma=1.0)}
    model = ts.NMF(3, operators={("second", "energy_loss"): [ts.Shift("fit"), ts.Broaden("fit")]})
    fit = ts.fit(data, model, **(OPTIONS | {"tol": 1e-6}))
    assert (np.diff(fit.history.values) <= 1e-12).all()
    found = fit.provenance["operators"]["second"]["energy_loss"]
    # Within a tenth of a channel, and 2 % of the width.
    assert found["offset"] == pytest.approx(0.87, abs=0.05) and found["sigma"] == pytest.approx(1.0, rel=0.02)
    truth = np.linalg.norm(LOW_MAPS @ spectra(offset=0.87, sigma=1.0) - fit.reconstruct("second").values)
    assert truth < 0.02 * float(np.sqrt((data["second"] ** 2).sum()))
    again = ts.open(fit.save(tmp_path / "fit.h5"))
    assert again.model.operators == fit.model.operators and len(again.model.operators) == 1
    xr.testing.assert_allclose(again.reconstruct("second"), fit.reconstruct("second"))


def test_a_single_tensor_may_be_sharpened():
    broad = second(sigma=1.0)
    fit = ts.fit({"second": broad}, ts.NMF(3, operators={("second", "energy_loss"): ts.Broaden(1.0)}), **OPTIONS)
    assert fit.factors["energy_loss"].shape == (3, 60)
    assert float((fit.residual("second") ** 2).sum() / (broad**2).sum()) < 1e-4
    assert ts.fit(broad, ts.NMF(3), **OPTIONS).factors["energy_loss"].std() < fit.factors["energy_loss"].std()


def test_wrong_operators_are_refused():
    data = {"eels": EELS, "edx": EDX}
    for operators, words in (
        ({("edq", "pixel"): ts.Bin(2)}, "operators name the tensor 'edq'.*Did you mean 'edx'"),
        ({("edx", "pixle"): ts.Bin(2)}, "mode 'pixle' of tensor 'edx'.*Did you mean 'pixel'"),
        ({("edx", "pixel"): ts.Bin(3)}, r"shape \(12, 16\)"),
        ({("eels", "pixel"): ts.Bin(1), ("edx", "pixel"): ts.Bin(2)}, "nothing says where"),
    ):
        with pytest.raises(ts.TensorspecError, match=words):
            ts.fit(data, ts.NMF(3, operators=operators))
