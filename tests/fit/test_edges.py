"""Data at the edges of what can be fitted: the right answer, or one clear line."""

import importlib
import pickle
import threading
import warnings

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

RNG = np.random.default_rng(0)
MAPS, SPECTRA = RNG.random((5, 4, 2)), RNG.random((2, 9))
TRUTH = MAPS @ SPECTRA
OTHER = MAPS @ RNG.random((2, 7)) * 3


def cube(values, *dims):
    return xr.DataArray(values, dims=dims or ("y", "x", "energy"))


def run(data, model=None, **options):
    return ts.fit(data, model or ts.NMF(2), progress=False, **options)


def test_zero_rows_and_channels_come_back_as_zeros():
    values = TRUTH.copy()
    values[1, 2] = 0
    values[:, :, 4] = 0
    for loss in (ts.LeastSquares(), ts.LeastSquares(scaling="poisson")):
        fit = run(cube(values), loss=loss)
        assert (fit.factors["pixel"].values[:, 1, 2] == 0).all()
        assert (fit.factors["energy"].values[:, 4] == 0).all()
        assert float(abs(fit.residual()).max()) < 1e-5
        assert np.isfinite(fit.factors["pixel"]).all()


def test_data_may_change_as_soon_as_the_fit_is_there(monkeypatch):
    """The hash may still be at work then: it is of the data as they were fitted, and the record waits for it."""
    call, changed = importlib.import_module("tensorspec.fit.call"), threading.Event()
    hashed = call.digest_of

    def late(clean):
        assert changed.wait(60)
        return hashed(clean)

    monkeypatch.setattr(call, "digest_of", late)
    values = np.random.default_rng(1).random((300, 90)).astype(np.float32)
    before = values.copy()
    options = {"model": ts.NMF(2), "max_sweeps": 1, "start": ts.Random()}
    fit = run(cube(values, "x", "energy"), **options)
    values[:] = 0
    changed.set()
    assert fit.provenance["input_sha256"] == run(cube(before, "x", "energy"), **options).provenance["input_sha256"]
    other = run(cube(before[:, ::-1], "x", "energy"), **options).provenance["input_sha256"]
    assert fit.provenance["input_sha256"] != other
    again = pickle.loads(pickle.dumps(fit.provenance))
    assert dict(again) == dict(fit.provenance) and len(again) == len(list(again))


def test_one_pixel_and_one_channel():
    one_pixel = run(cube(TRUTH[:1, :1]), ts.NMF(1))
    np.testing.assert_allclose(one_pixel.spectra().values[0], TRUTH[0, 0], rtol=1e-6)
    one_channel = run(cube(TRUTH[:, :, :1]), ts.NMF(1))
    np.testing.assert_allclose(one_channel.maps().values[0], TRUTH[:, :, 0], rtol=1e-6)


def test_rank_one_and_a_constant_image():
    fit = run(cube(np.full((5, 4, 9), 3.0)), ts.NMF(1))
    np.testing.assert_allclose(fit.reconstruct().values, 3.0, rtol=1e-9)
    np.testing.assert_allclose(fit.maps().values, 27.0, rtol=1e-9)
    # More components than there are: the answer stays right and finite.
    more = run(cube(np.full((5, 4, 9), 3.0)), ts.NMF(3))
    np.testing.assert_allclose(more.reconstruct().values, 3.0, rtol=1e-5)


@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "i8", ">u2", ">f4", "f2", "?"])
def test_every_kind_of_number(kind):
    counts = RNG.poisson(4.0, TRUTH.shape)
    values = (counts > 3 if kind == "?" else counts).astype(kind)
    plain = run(cube(values.astype(np.float32)), max_sweeps=30, tol=0)
    fit = run(cube(values), max_sweeps=30, tol=0)
    assert fit.provenance["dtype"] == "float32"
    np.testing.assert_allclose(fit.objective, plain.objective, rtol=1e-6)
    assert fit.data["data"].dtype == np.dtype(kind)  # what was given is not touched


def test_large_integers_are_not_rounded_to_float32():
    values = (TRUTH * 1e9).astype(np.int64)
    fit = run(cube(values))
    assert fit.provenance["dtype"] == "float64"
    assert float(abs(fit.residual()).max()) < 1e4


def test_arrays_that_are_not_contiguous():
    padded = np.zeros((5, 8, 18))
    padded[:, ::2, ::2] = TRUTH
    strided = run(cube(padded[:, ::2, ::2]), max_sweeps=20, tol=0)
    plain = run(cube(TRUTH), max_sweeps=20, tol=0)
    np.testing.assert_array_equal(strided.factors["pixel"], plain.factors["pixel"])


def test_order_of_dimensions_does_not_matter():
    plain = run(cube(TRUTH), max_sweeps=20, tol=0)
    turned = run(cube(TRUTH).transpose("energy", "x", "y"), max_sweeps=20, tol=0)
    xr.testing.assert_allclose(plain.factors["pixel"], turned.factors["pixel"], rtol=1e-12)
    assert turned.reconstruct().dims == ("energy", "x", "y")


def test_a_pixel_missing_in_all_tensors_comes_back_nan_with_its_name():
    first, second = cube(TRUTH.copy()), cube(OTHER.copy(), "y", "x", "xray")
    first[1, 3] = np.nan
    second[1, 3] = np.nan
    with pytest.warns(UserWarning, match=r"1 of 20 points of mode 'pixel'.*\(y 1, x 3\)"):
        fit = run({"a": first, "b": second})
    assert fit.factors["pixel"].isnull().sum() == 2
    assert fit.factors["pixel"][:, 1, 3].isnull().all()
    assert fit.provenance["warnings"]
    assert float(abs(fit.residual("a")).max()) < 1e-5


def test_a_pixel_missing_in_one_tensor_is_fitted_from_the_other():
    first, second = cube(TRUTH.copy()), cube(OTHER.copy(), "y", "x", "xray")
    first[1, 3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = run({"a": first, "b": second}, tol=1e-12, max_sweeps=5000)
    np.testing.assert_allclose(fit.reconstruct("a").values[1, 3], TRUTH[1, 3], rtol=1e-3)


def test_scattered_missing_entries_are_found_again():
    lost = cube(TRUTH).where(xr.DataArray(RNG.random(TRUTH.shape) > 0.3, dims=("y", "x", "energy")))
    fit = run(lost, tol=1e-12, max_sweeps=5000)
    assert float(abs(fit.reconstruct() - TRUTH).max()) < 1e-4
    by_mask = run(lost.fillna(1e6), mask=lost.notnull(), tol=1e-12, max_sweeps=5000)
    np.testing.assert_allclose(by_mask.objective, fit.objective, atol=1e-10)


def test_masks_broadcast():
    mask = xr.DataArray(np.arange(9) != 4, dims="energy")
    spoiled = cube(TRUTH.copy())
    spoiled[:, :, 4] = 1e6
    with pytest.warns(UserWarning, match="1 of 9 points of mode 'energy'"):
        fit = run(spoiled, mask=mask)
    assert fit.factors["energy"][:, 4].isnull().all()
    assert float(fit.residual().isel(energy=mask.values).max()) < 1e-5


def test_infinities_behind_the_mask_are_no_error():
    spoiled = cube(TRUTH.copy())
    spoiled[0, 0, 0] = np.inf
    fit = run(spoiled, mask=np.isfinite(spoiled))
    assert fit.converged


def test_sigma_weights_entries_and_broadcasts():
    sigma = xr.DataArray(np.where(np.arange(9) == 4, 1e3, 1.0), dims="energy")
    spoiled = cube(TRUTH.copy())
    spoiled[:, :, 4] += 5
    fit = run(spoiled, loss=ts.LeastSquares(sigma=sigma), tol=1e-12, max_sweeps=3000)
    assert float(abs(fit.residual().drop_isel(energy=4)).max()) < 1e-2
    number = run(cube(TRUTH), loss=ts.LeastSquares(sigma=3.0), max_sweeps=20, tol=0)
    plain = run(cube(TRUTH), max_sweeps=20, tol=0)
    xr.testing.assert_allclose(number.factors["energy"], plain.factors["energy"], rtol=1e-9)


def test_lazy_and_sparse_arrays():
    sparse = pytest.importorskip("sparse")
    pytest.importorskip("dask")
    counts = RNG.poisson(0.5, TRUTH.shape).astype(np.uint8)
    plain = run(cube(counts), max_sweeps=20, tol=0)
    lazy = run(cube(counts).chunk({"y": 2}), max_sweeps=20, tol=0)
    events = run(cube(sparse.COO.from_numpy(counts)), max_sweeps=20, tol=0)
    np.testing.assert_array_equal(lazy.factors["pixel"], plain.factors["pixel"])
    np.testing.assert_array_equal(events.factors["pixel"], plain.factors["pixel"])


def test_known_spectra_are_aligned_by_their_coordinates():
    energy = np.linspace(400, 408, 9)
    data = cube(TRUTH).assign_coords(energy=energy)
    known = xr.DataArray(
        SPECTRA[1:, ::-1],
        dims=("component", "energy"),
        coords={"component": [2], "energy": energy[::-1]},
    )
    fit = run(data, ts.NMF(2, {"energy": ts.Fixed(known)}), tol=1e-12, max_sweeps=5000)
    np.testing.assert_allclose(fit.factors["energy"].sel(component=2).values, SPECTRA[1], rtol=1e-6)
    # Its scale is known, so the map comes out in absolute units whatever the unit of the data.
    scaled = run(data * 1e4, ts.NMF(2, {"energy": ts.Fixed(known)}), tol=1e-12, max_sweeps=5000)
    ratio = scaled.maps().sel(component=2) / fit.maps().sel(component=2)
    np.testing.assert_allclose(ratio, 1e4, rtol=1e-6)


def test_abundances_sum_to_one():
    shares = MAPS / MAPS.sum(axis=-1, keepdims=True)
    fit = run(cube(shares @ SPECTRA), ts.NMF(2, {"pixel": ts.SumToOne("component")}), tol=1e-12, max_sweeps=3000)
    np.testing.assert_allclose(fit.factors["pixel"].sum("component"), 1, atol=1e-6)
    assert fit.explained > 1 - 1e-7
    assert "AOADMM" in fit.solver


def test_three_starts_and_their_spread():
    fit = run(cube(RNG.poisson(20 * TRUTH)), restarts=3, start=ts.Random())
    assert fit.spread.sizes == {"restart": 3}
    assert fit.spread.min() == pytest.approx(float(fit.history[-1]))
    assert fit.history.values[0] > fit.history.values[-1]


def test_what_a_prior_changed_is_told():
    counts = cube(RNG.poisson(30 * TRUTH).astype(float))
    fit = run(counts, ts.NMF(2, {"pixel": ts.SoftOrthogonal()}))
    without = fit.provenance["without_assumptions"]
    assert max(without["modes"]["pixel"]["overlap"]) < max(without["modes"]["pixel"]["overlap_without"])
    assert len(without["moved_degrees"]["energy"]) == 2
    assert without["misfit_change"] >= 0
    assert "SoftOrthogonal(strength=0." in fit.provenance["constraints_as_solved"]["pixel"][1]
    assert run(counts).provenance["without_assumptions"] is None
