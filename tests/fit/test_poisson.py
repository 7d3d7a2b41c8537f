"""Fits of counts, end to end: against other packages, at low counts, with gaps, spikes, and what is refused."""

import warnings

import numpy as np
import pytest
import pyttb as ttb
import xarray as xr
from sklearn.decomposition import NMF

import tensorspec as ts
from tensorspec.solvers import loop

RNG = np.random.default_rng(5)
COUNTS = ts.NoiseModel().to_attrs()
MAPS, SPECTRA, TILTS = RNG.gamma(1, 1, (30, 3)), RNG.gamma(0.5, 1, (24, 3)), RNG.random((6, 3))
SHEET = xr.DataArray(
    RNG.poisson(4 * MAPS @ SPECTRA.T).astype(float),
    dims=("sample", "energy"),
    attrs={"noise": COUNTS, "units": "counts"},
)
CUBE = xr.DataArray(
    RNG.poisson(6 * np.einsum("xr,er,tr->xet", MAPS, SPECTRA, TILTS)).astype(float),
    dims=("sample", "energy", "tilt"),
    attrs={"noise": COUNTS},
)


def fit(data, model=None, **options):
    return ts.fit(data, model or ts.NMF(3), progress=False, **{"loss": ts.Poisson(), **options})


def divergence(values, fitted):
    values, fitted = np.asarray(values, float), np.asarray(fitted, float)
    safe = np.where(values > 0, fitted, 1)
    return float(np.sum(fitted - values + values * np.log(np.where(values > 0, values, 1) / safe)))


def angles(found, true):
    """The angle of each true component to the nearest one found, in degrees; components first."""
    found, true = (np.asarray(a).reshape(len(a), -1) for a in (found, true))
    found, true = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (found, true))
    return np.degrees(np.arccos(np.clip(true @ found.T, -1, 1))).min(axis=1)


def arrays(result):
    return {mode: np.asarray(factor).reshape(3, -1).T for mode, factor in result.factors.items()}


def same(a, b):
    for mode in a.factors:
        np.testing.assert_array_equal(a.factors[mode], b.factors[mode])
    np.testing.assert_array_equal(a.history, b.history)


def test_a_fit_of_counts_says_what_it_did():
    result = fit(SHEET, seed=1)
    assert result.converged and result.solver == "Multiplicative"
    assert "multiplicative updates, the loss is not least squares" in result.why
    assert result.provenance["warm_start"]["loss"] == "LeastSquares(scaling='poisson')"
    assert result.provenance["rescale"] is False
    assert result.tensors["data"].loss == "Poisson()"
    assert np.max(np.diff(result.history)) <= 0
    own = divergence(SHEET, result.reconstruct().transpose(*SHEET.dims))
    assert result.objective == pytest.approx(own, rel=1e-9)
    assert float(result.explained) == pytest.approx(1 - own / divergence(SHEET, np.full(SHEET.shape, SHEET.mean())))
    # At the maximum of the likelihood model and data have the same sum (Poisson with a free scale).
    assert float(result.reconstruct().sum()) == pytest.approx(float(SHEET.sum()), rel=1e-4)
    again = fit(SHEET, start=ts.From(result))
    assert again.provenance["warm_start"] is None
    assert float(again.history[0]) == pytest.approx(result.objective, rel=1e-8)


def test_no_higher_than_scikit_learn():
    for seed in range(2):
        rng = np.random.default_rng(seed)
        maps, spectra = rng.random((30, 3)) + 0.1, rng.random((24, 3)) + 0.1
        theirs = NMF(3, init="custom", solver="mu", beta_loss="kullback-leibler", tol=1e-12, max_iter=20000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            left = theirs.fit_transform(SHEET.values, W=maps.copy(), H=spectra.T.copy())
        start = ts.From({"sample": maps, "energy": spectra})
        ours = fit(SHEET, start=start, tol=1e-11, max_sweeps=20000)
        assert ours.objective <= divergence(SHEET, left @ theirs.components_) * (1 + 1e-6)


@pytest.mark.parametrize("data", [SHEET, pytest.param(CUBE, marks=pytest.mark.slow)], ids=["order 2", "order 3"])
def test_no_higher_than_cp_apr(data):
    rng = np.random.default_rng(7)
    begin = [rng.random((size, 3)) + 0.1 for size in data.shape]
    theirs, _, _ = ttb.cp_apr(
        ttb.tensor(data.values), 3, init=ttb.ktensor([b.copy() for b in begin]), stoptol=1e-7, maxiters=500, printitn=0
    )
    start = ts.From(dict(zip(data.dims, begin, strict=True)))
    ours = fit(data, start=start, tol=1e-11, max_sweeps=20000)
    assert ours.objective <= divergence(data, theirs.full().data) * (1 + 1e-6)


LOSSES = [ts.Poisson(), pytest.param(ts.Beta(1.5), marks=pytest.mark.slow), ts.Huber(20.0)]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_third_of_the_entries_missing(loss):
    """The factor match score (product of cosines over modes, mean over components) hardly falls."""
    truth = {"sample": MAPS, "energy": SPECTRA, "tilt": TILTS}
    data = xr.DataArray(
        RNG.poisson(300 * np.einsum("xr,er,tr->xet", MAPS, SPECTRA, TILTS)).astype(float),
        dims=CUBE.dims,
        attrs=CUBE.attrs,
    )
    gaps = data.where(np.random.default_rng(1).random(data.shape) > 0.3)
    scores = []
    for values in (data, gaps):
        found = arrays(fit(values, loss=loss, restarts=2, tol=1e-7))
        product = 1.0
        for mode, factor in found.items():
            true = truth[mode] / np.linalg.norm(truth[mode], axis=0)
            product = product * (true.T @ (factor / np.linalg.norm(factor, axis=0)))
        scores.append(product.max(axis=1).mean())
    assert scores[0] > 0.98
    assert scores[1] > scores[0] - 0.02


def test_zero_rows_channels_and_counts():
    data = SHEET.copy()
    data[4], data[:, 7] = 0, 0
    for loss in (ts.Poisson(), ts.Beta(1.5), ts.Huber(3.0)):
        result = fit(data, loss=loss)
        for mode in ("sample", "energy"):
            assert np.isfinite(result.factors[mode]).all()
        fitted = result.reconstruct()
        assert float(abs(fitted[4]).max()) < 1e-6 * float(data.max())
        assert float(abs(fitted[:, 7]).max()) < 1e-6 * float(data.max())


def test_a_start_with_zeros_does_not_lock():
    begin = {"sample": MAPS.copy(), "energy": SPECTRA.copy()}
    for values in begin.values():
        values[::3, 1] = 0
    free = fit(SHEET, start=ts.From({"sample": MAPS, "energy": SPECTRA}), tol=1e-10, max_sweeps=5000)
    result = fit(SHEET, start=ts.From(begin), tol=1e-10, max_sweeps=5000)
    assert result.objective == pytest.approx(free.objective, rel=1e-5)


def test_single_precision():
    double, single = (fit(SHEET.astype(kind), tol=1e-7) for kind in (np.float64, np.float32))
    assert single.provenance["dtype"] == "float32"
    assert single.objective == pytest.approx(double.objective, rel=1e-4)
    assert single.objective == pytest.approx(divergence(SHEET, single.reconstruct().transpose(*SHEET.dims)), rel=1e-5)
    assert np.max(np.diff(single.history)) <= 0


@pytest.mark.slow
def test_a_likelihood_is_not_free_of_scale():
    """Ten times the counts are ten times the evidence: the same shapes, but a penalty weighs ten times less."""

    def start(c):
        return ts.From({"sample": c * MAPS, "energy": SPECTRA})

    plain, more = (fit(c * SHEET, start=start(c), max_sweeps=50, tol=0) for c in (1, 10))
    assert more.objective == pytest.approx(10 * plain.objective, rel=1e-9)
    np.testing.assert_allclose(more.factors["energy"], plain.factors["energy"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(more.weights, 10 * plain.weights, rtol=1e-6)
    model = ts.NMF(3, {"energy": ts.Sparse(20.0)})
    plain, more = (fit(c * SHEET, model, start=start(c)) for c in (1, 10))
    assert float(abs(more.factors["energy"]).sum()) > 1.05 * float(abs(plain.factors["energy"]).sum())
    plain, more = (fit(c * SHEET, loss=ts.Beta(0.5), start=start(c), max_sweeps=30, tol=0) for c in (1, 10))
    assert more.objective == pytest.approx(10**0.5 * plain.objective, rel=1e-9)
    # Huber's delta is converted with the data, so there the unit says nothing.
    plain, more = (fit(c * SHEET, loss=ts.Huber(2.0 * c), start=start(c), max_sweeps=30, tol=0) for c in (1, 10))
    assert more.objective == pytest.approx(plain.objective, rel=1e-9)


def test_penalties_are_in_units_of_the_log_likelihood():
    result = fit(SHEET, ts.NMF(3, {"sample": ts.Sparse(1.5)}), tol=1e-10, max_sweeps=3000)
    amplitudes = float((result.weights * abs(result.factors["sample"]).sum("sample")).sum())
    own = divergence(SHEET, result.reconstruct().transpose(*SHEET.dims)) + 1.5 * amplitudes
    assert result.objective == pytest.approx(own, rel=1e-9)


@pytest.mark.slow
def test_low_counts_need_the_likelihood():
    """A twentieth of a count in an entry: plain squares lose a phase, the likelihood finds all three."""
    phantom = ts.phantoms.discs("edx", counts=10, seed=1)
    data, true = phantom["data"], phantom.truth["spectra"].values
    assert float(data.mean()) == pytest.approx(0.05, rel=0.02)
    squares = angles(fit(data, loss=ts.LeastSquares(), restarts=2).spectra().values, true)
    counted = angles(fit(data).spectra().values, true)
    assert squares.max() > 45
    assert counted.max() < 15 and counted.mean() < 0.4 * squares.mean()


@pytest.mark.slow
def test_huber_does_not_follow_spikes():
    rng = np.random.default_rng(0)
    maps, spectra = rng.random((80, 3)) ** 3, rng.random((60, 3)) ** 3
    values = maps @ spectra.T + 0.01 * rng.standard_normal((80, 60))
    values[rng.random(values.shape) < 0.01] += 20
    data = xr.DataArray(values, dims=("sample", "energy"))
    found = {
        name: angles(fit(data, loss=loss, tol=1e-7, max_sweeps=2000, restarts=2).factors["energy"].values, spectra.T)
        for name, loss in (("squares", ts.LeastSquares()), ("huber", ts.Huber(0.03)))
    }
    assert found["huber"].max() < 5
    assert found["squares"].min() > 10


def test_the_same_bits_and_on_from_a_checkpoint(monkeypatch, tmp_path):
    options = {"tol": 1e-9, "max_sweeps": 150, "restarts": 2, "seed": 3}
    whole = fit(SHEET, **options)
    same(whole, fit(SHEET, **options))
    original, done = loop.run_chunk, []
    for chunks in (1, 4):  # in the warm start, and after it

        def stopping(*arguments, chunks=chunks):
            if len(done) >= chunks:
                raise KeyboardInterrupt
            done.append(1)
            return original(*arguments)

        done.clear()
        path = tmp_path / f"{chunks}.npz"
        with monkeypatch.context() as patch:
            patch.setattr(loop, "run_chunk", stopping)
            assert fit(SHEET, checkpoint=path, **options).status is ts.Status.INTERRUPTED
        same(whole, fit(SHEET, checkpoint=path, **options))


def test_new_pixels_with_the_spectra_held():
    result = fit(SHEET, tol=1e-12, max_sweeps=5000)
    np.testing.assert_allclose(result.transform(SHEET), result.factors["sample"], atol=2e-4)
    robust = fit(SHEET, loss=ts.Huber(3.0), tol=1e-12, max_sweeps=5000)
    np.testing.assert_allclose(robust.transform(SHEET), robust.factors["sample"], atol=2e-4)


def test_eels_and_edx_in_units_of_the_log_likelihood():
    values = MAPS @ RNG.random((3, 20)) + 0.05 * RNG.standard_normal((30, 20))
    eels = xr.DataArray(values, dims=("sample", "energy_loss"))
    data = {"eels": eels, "edx": SHEET}
    losses = {"eels": ts.LeastSquares(), "edx": ts.Poisson()}
    result = fit(data, loss=losses, tol=1e-7)
    assert result.solver == "HALS + Multiplicative" or result.solver == "Multiplicative"
    weights = {name: record.data_weight for name, record in result.tensors.items()}
    assert weights["edx"] == 1.0
    assert weights["eels"] == pytest.approx(1 / 0.05**2, rel=0.3)
    residual = eels - result.reconstruct("eels").transpose(*eels.dims)
    own = divergence(SHEET, result.reconstruct("edx").transpose(*SHEET.dims))
    own += 0.5 * weights["eels"] * float((residual**2).sum())
    assert result.objective == pytest.approx(own, rel=1e-8)
    doubled = fit(data, loss=losses, weights={"eels": 2.0}, max_sweeps=2)
    assert doubled.tensors["eels"].data_weight == pytest.approx(2 * weights["eels"])
    assert np.max(np.diff(result.history)) <= 0


def refused(error, *words, data=SHEET, model=None, **options):
    with pytest.raises(error) as caught:
        fit(data, model, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_what_a_likelihood_refuses():
    negative = SHEET.copy()
    negative[2, 5] = -3
    refused(ts.InvalidData, "1 values that Poisson()", "lowest -3", "sample=2, energy=5", "background", data=negative)
    fit(negative, mask=negative >= 0, max_sweeps=2)
    refused(ts.InvalidData, "Beta(beta=0.0) cannot take", "above zero", loss=ts.Beta(0))
    refused(ts.ConstraintConflict, "mode 'sample', 'energy' may be", "ts.NMF", model=ts.CP(3))
    refused(ts.ConstraintConflict, "mode 'sample' may be", model=ts.CP(3, {"energy": ts.NonNegative()}))
    model = ts.NMF(3, {"energy": ts.SoftOrthogonal()})
    refused(ts.InvalidArgument, "mode that carries", data={"a": SHEET, "b": SHEET.rename(energy="b")}, model=model)


def test_what_is_no_count_is_said_once():
    gain = xr.DataArray(7.0 * RNG.poisson(4 * MAPS @ SPECTRA.T), dims=("sample", "energy"))
    with pytest.warns(UserWarning, match=r"variance of [5-9]\.?\d* times the mean") as caught:
        fit(gain, max_sweeps=2)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="are not whole numbers") as caught:
        fit(SHEET / 3, max_sweeps=2)
    assert len(caught) == 1
