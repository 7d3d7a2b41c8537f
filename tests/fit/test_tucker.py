"""Tucker fits: against the usual programs, with constraints, whole modes, patterns, and beside a CP tensor."""

import numpy as np
import pytest
import tensorly
import xarray as xr
from scipy.linalg import lstsq
from scipy.optimize import nnls
from tensorly.decomposition import non_negative_tucker_hals, partial_tucker, tucker

import tensorspec as ts

SHAPE, DIMS = (9, 8, 6), ("x", "energy_loss", "tilt")
RANKS = {"pixel": 3, "energy_loss": 3, "tilt": 2}
EVERYWHERE = {mode: ts.NonNegative() for mode in (*RANKS, "core")}


def planted(seed=0, signed=False, level=0.05, core=None):
    """Data of known factors and core, with noise; the noise-free ones beside them."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal if signed else rng.random
    factors = [draw((size, rank)) for size, rank in zip(SHAPE, RANKS.values(), strict=True)]
    core = draw(tuple(RANKS.values())) if core is None else core
    clean = np.einsum("pqr,ip,jq,kr->ijk", core, *factors)
    noise = level * clean.std() * rng.standard_normal(SHAPE)
    return xr.DataArray(clean + noise, dims=DIMS), factors, core, clean


def fit(data, model=None, **options):
    return ts.fit(data, model or ts.Tucker(RANKS), progress=False, **{"tol": 1e-10, **options})


def misfit(result, data):
    return float(((data - result.reconstruct()) ** 2).sum())


def columns(result, mode):
    return result.factors[mode].values.reshape(result.ranks[mode], -1).T


SIGNED, POSITIVE = planted(1, signed=True)[0], planted(2)[0]


@pytest.fixture(scope="module")
def signed():
    return fit(SIGNED)


@pytest.fixture(scope="module")
def positive():
    return fit(POSITIVE, ts.Tucker(RANKS, EVERYWHERE), tol=1e-8, max_sweeps=4000)


def test_is_not_above_higher_order_orthogonal_iteration(signed):
    core, factors = tucker(tensorly.tensor(SIGNED.values), list(RANKS.values()), tol=1e-14, n_iter_max=2000)
    theirs = float(((SIGNED.values - tensorly.tucker_to_tensor((core, factors))) ** 2).sum())
    assert misfit(signed, SIGNED) <= theirs * (1 + 1e-7)
    assert signed.converged
    assert 2 * signed.objective == pytest.approx(misfit(signed, SIGNED) / float((SIGNED**2).mean()), rel=1e-9)


def test_comes_back_in_the_form_of_the_higher_order_svd(signed):
    core = signed.core.values
    for axis, mode in enumerate(RANKS):
        own = columns(signed, mode)
        np.testing.assert_allclose(own.T @ own, np.eye(own.shape[1]), atol=1e-12)
        unfolded = np.moveaxis(core, axis, 0).reshape(own.shape[1], -1)
        slices = unfolded @ unfolded.T
        np.testing.assert_allclose(slices, np.diag(np.diag(slices)), atol=1e-9 * slices.max())
        assert (np.diff(np.diag(slices)) <= 0).all()
        assert (own[np.abs(own).argmax(axis=0), np.arange(own.shape[1])] > 0).all()
    assert signed.core.dims == ("pixel_component", "energy_loss_component", "tilt_component")


def test_every_sweep_goes_down(signed, positive):
    for result in (signed, positive):
        assert np.diff(result.history.values).max() <= 1e-12 * float(result.history[0])


def test_non_negative_is_not_above_tensorly(positive):
    theirs = non_negative_tucker_hals(
        tensorly.tensor(POSITIVE.values), list(RANKS.values()), init="svd", tol=1e-10, n_iter_max=100
    )
    best = float(((POSITIVE.values - tensorly.tucker_to_tensor(theirs)) ** 2).sum())
    assert misfit(positive, POSITIVE) <= best * (1 + 1e-6)
    for mode in RANKS:
        assert float(positive.factors[mode].min()) >= 0
    assert float(positive.core.min()) >= 0


def test_maps_and_spectra_add_up_to_the_model(positive):
    whole = positive.reconstruct()
    assert whole.dims == DIMS
    np.testing.assert_allclose(positive.maps().sum("component"), whole.sum(["energy_loss", "tilt"]), rtol=1e-10)
    np.testing.assert_allclose(positive.spectra().sum("component"), whole.sum(["x", "energy_loss"]), rtol=1e-10)
    np.testing.assert_allclose(
        positive.spectra(mode="energy_loss").sum("component"), whole.sum(["x", "tilt"]), rtol=1e-10
    )
    table = positive.interactions(most=100)
    assert float(table["share"].sum()) == pytest.approx(1)
    assert table.sizes["entry"] == np.count_nonzero(positive.core)
    strongest = table.isel(entry=0)
    entry = {f"{mode}_component": int(strongest[f"{mode}_component"]) for mode in RANKS}
    assert float(positive.core.sel(entry)) == float(strongest["value"])
    assert positive.compression == pytest.approx(np.prod(SHAPE) / (9 * 3 + 8 * 3 + 6 * 2 + 18))


def test_unit_of_the_data_changes_nothing(positive):
    model = ts.Tucker(RANKS, EVERYWHERE)
    other = fit(1e-4 * POSITIVE, model, tol=1e-8, max_sweeps=4000)
    np.testing.assert_allclose(other.core, 1e-4 * positive.core, rtol=1e-5, atol=1e-8 * float(positive.core.max()))
    np.testing.assert_allclose(other.history[:50], positive.history[:50], rtol=1e-8)


def test_goes_on_from_itself(signed, positive):
    for result, data, model in ((signed, SIGNED, ts.Tucker(RANKS)), (positive, POSITIVE, ts.Tucker(RANKS, EVERYWHERE))):
        again = fit(data, model, start=ts.From(result), max_sweeps=5)
        assert float(again.history[0]) == pytest.approx(result.objective, rel=1e-9)


def test_new_samples_with_all_else_held(signed, positive):
    """Row by row the least-squares solution, and the non-negative one, of scipy."""
    for result, data, solver in ((signed, SIGNED, lstsq), (positive, POSITIVE, nnls)):
        turned = data.isel(x=slice(None, None, -1))
        found = result.transform(turned)
        assert found.dims == ("component", "x")
        others = [columns(result, mode) for mode in ("energy_loss", "tilt")]
        design = np.einsum("pqr,jq,kr->jkp", result.core, *others).reshape(-1, 3)
        expected = [solver(design, row.reshape(-1))[0] for row in turned.values]
        np.testing.assert_allclose(found.values.T, expected, atol=1e-6)


def test_is_saved_and_repeated(positive, tmp_path):
    path = positive.save(tmp_path / "tucker.fit.h5")
    opened = ts.open(path)
    assert repr(opened) == repr(positive)
    xr.testing.assert_identical(opened.core, positive.core)
    xr.testing.assert_allclose(opened.reconstruct(), positive.reconstruct())
    assert opened.interactions().identical(positive.interactions())
    again = ts.refit(path, POSITIVE)
    assert again.objective == positive.objective


def test_is_shown(positive, tmp_path):
    assert "3 pixel x 3 energy_loss x 2 tilt components" in repr(positive)
    assert positive.plot().axes
    text = positive.report(tmp_path / "report.html").read_text()
    assert "3 pixel x 3 energy_loss x 2 tilt" in text
    theirs = positive.to_tensorly()
    np.testing.assert_allclose(tensorly.tucker_to_tensor(theirs), positive.reconstruct(), rtol=1e-10)


def test_missing_entries_and_weights_are_honoured():
    """Entries that are missing have no say, and the objective is the weighted one; written out here in numpy."""
    rng = np.random.default_rng(5)
    sigma = xr.DataArray(rng.uniform(0.5, 2.0, SHAPE), dims=DIMS)
    spoiled = POSITIVE.where(rng.random(SHAPE) > 0.3)
    loss = ts.LeastSquares(sigma=sigma)
    result = fit(spoiled, ts.Tucker(RANKS, EVERYWHERE), loss=loss, tol=1e-7, rescale=False)
    assert np.diff(result.history.values).max() <= 1e-12 * float(result.history[0])
    left = (spoiled - result.reconstruct()) / sigma
    assert result.objective == pytest.approx(0.5 * float((left**2).sum()), rel=1e-9)
    clean = planted(2)[3]
    held = ~np.isfinite(spoiled.values)
    wrong = np.sqrt(np.mean((result.reconstruct().values - clean)[held] ** 2))
    assert wrong < 0.1 * clean.std()


def test_pattern_and_sparse_core():
    """A map that meets two spectra and no other; what is outside the pattern is zero, and the truth is found."""
    core = np.zeros((3, 3, 2))
    core[0, 0, :], core[0, 1, 0], core[1, 1, 1], core[2, 2, 0] = (2.0, 1.0), 1.5, 2.5, 1.0
    data, factors, _, clean = planted(3, core=core, level=0.01)
    model = ts.Tucker(RANKS, EVERYWHERE, pattern={("pixel", "energy_loss"): [(1, 1), (1, 2), (2, 2), (3, 3)]})
    result = fit(data, model, restarts=4, tol=1e-8)
    allowed = {(1, 1), (1, 2), (2, 2), (3, 3)}
    met = {
        (int(a), int(b))
        for a, b in zip(*(result.interactions()[f"{m}_component"] for m in ("pixel", "energy_loss")), strict=True)
    }
    assert met <= allowed
    assert np.sqrt(np.mean((result.reconstruct().values - clean) ** 2)) < 0.01 * clean.std()
    sparse = fit(data, ts.Tucker(RANKS, {**EVERYWHERE, "core": [ts.NonNegative(), ts.Sparse(0.3)]}), tol=1e-8)
    scale = float(np.sqrt((data**2).mean()))
    stated = 0.5 * misfit(sparse, data) / scale**2 + 0.3 * float(sparse.core.sum()) / scale
    assert sparse.objective == pytest.approx(stated, rel=1e-8)
    for mode in RANKS:
        np.testing.assert_allclose(np.linalg.norm(columns(sparse, mode), axis=0), 1, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [("tilt",), ("pixel",), ("pixel", "tilt")])
def test_whole_modes(whole):
    """A mode without a rank is not compressed: the same as tensorly's partial Tucker."""
    ranks = {mode: rank for mode, rank in RANKS.items() if mode not in whole}
    result = fit(SIGNED, ts.Tucker(ranks))
    axes = [axis for axis, mode in enumerate(RANKS) if mode in ranks]
    (core, factors), _ = partial_tucker(SIGNED.values, list(ranks.values()), axes, tol=1e-14, n_iter_max=2000)
    theirs = float(((SIGNED.values - tensorly.tenalg.multi_mode_dot(core, factors, modes=axes)) ** 2).sum())
    assert misfit(result, SIGNED) == pytest.approx(theirs, rel=1e-7)
    assert set(result.factors) == set(ranks)
    assert result.interactions().sizes["entry"] > 0
    with pytest.raises(ts.UnknownMode, match="left whole"):
        result.spectra(mode=whole[-1])


@pytest.mark.slow
def test_diagonal_core_is_cp():
    ranks = dict.fromkeys(RANKS, 2)
    constraints = {mode: ts.NonNegative() for mode in (*RANKS, "core")}
    start = ts.Random()
    result = fit(POSITIVE, ts.Tucker(ranks, constraints, diagonal="data"), start=start, max_sweeps=3000)
    usual = ts.fit(POSITIVE, ts.NMF(2), start=start, tol=1e-10, max_sweeps=3000, progress=False)
    assert result.objective == pytest.approx(usual.objective, rel=1e-6)
    assert result.core.dims == ("component",)


@pytest.mark.slow
def test_a_tensor_with_its_core_beside_one_of_cp():
    """Tensors share their maps; one is a Tucker model, the other CP: planted maps, spectra and core are found."""
    rng = np.random.default_rng(8)
    maps = np.eye(3)[rng.integers(0, 3, 40)] * rng.uniform(0.5, 1.5, (40, 1)) + 0.3 * rng.random((40, 3))
    spectra, tilts, lines = rng.random((8, 2)), rng.random((6, 2)), rng.random((12, 3)) ** 3
    core = rng.random((3, 2, 2))
    eels = xr.DataArray(np.einsum("pqr,ip,jq,kr->ijk", core, maps, spectra, tilts), dims=("x", "energy_loss", "tilt"))
    edx = xr.DataArray(maps @ lines.T, dims=("x", "xray_energy"))
    ranks = {"pixel": 3, "energy_loss": 2, "tilt": 2, "xray_energy": 3}
    everywhere = {mode: ts.NonNegative() for mode in (*ranks, "core")}
    result = ts.fit(
        {"eels": eels, "edx": edx},
        ts.Tucker(ranks, everywhere, diagonal=["edx"]),
        weights=1.0,
        tol=1e-12,
        max_sweeps=20000,
        restarts=3,
        progress=False,
    )
    for name, data in (("eels", eels), ("edx", edx)):
        assert float(np.sqrt(((data - result.reconstruct(name)) ** 2).mean() / (data**2).mean())) < 1e-3
    assert set(result.core) == {"eels", "edx"}
    assert result.core["edx"].dims == ("component",)
    # A map belongs to the same component in both: what one tensor calls component k is k in the other.
    unit = columns(result, "pixel")
    cosines = (maps / np.linalg.norm(maps, axis=0)).T @ unit
    best = cosines.argmax(axis=1)
    spectrum = columns(result, "xray_energy")[:, best]
    assert sorted(best) == [0, 1, 2]
    truth = lines / np.linalg.norm(lines, axis=0)
    assert (np.sum(truth * spectrum, axis=0) > 0.95).all()


@pytest.mark.slow
def test_counts_by_likelihood():
    rng = np.random.default_rng(9)
    counts = xr.DataArray(rng.poisson(20 * planted(2)[3] / planted(2)[3].mean()), dims=DIMS)
    model = ts.Tucker(RANKS, EVERYWHERE)
    squares = fit(counts, model, tol=1e-8)
    result = fit(counts, model, loss=ts.Poisson(), tol=1e-8)
    assert np.diff(result.history.values).max() <= 1e-12 * float(result.history[0])

    def divergence(found):
        model = np.maximum(found.reconstruct().values, 1e-12)
        ratio = np.where(counts > 0, counts / model, 1)
        return float(np.sum(counts * np.log(ratio) - counts + model))

    assert divergence(result) < divergence(squares)
    assert result.objective == pytest.approx(divergence(result), rel=1e-6)
    assert float(result.reconstruct().sum()) == pytest.approx(float(counts.sum()), rel=1e-3)


@pytest.mark.slow
def test_single_precision():
    single = fit(SIGNED.astype(np.float32), tol=1e-7)
    assert single.factors["pixel"].dtype == np.float32
    assert misfit(single, SIGNED) <= misfit(fit(SIGNED), SIGNED) * (1 + 1e-5)


def test_pixels_never_measured_come_back_missing():
    data = POSITIVE.copy()
    data[2] = np.nan
    with pytest.warns(UserWarning, match="measured in no tensor"):
        result = fit(data, ts.Tucker(RANKS, EVERYWHERE), tol=1e-5)
    assert result.maps()[:, 2].isnull().all()
    assert np.isfinite(result.core).all()


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (lambda: ts.Tucker(3), ts.RankOutOfRange, "number of components of each mode"),
        (lambda: ts.Tucker({"pixel": 0}), ts.RankOutOfRange, "1 or more"),
        (lambda: ts.Tucker({"pixle": 2}), ts.UnknownMode, "Did you mean 'pixel'"),
        (lambda: ts.Tucker({**RANKS, "pixel": 7}), ts.RankOutOfRange, "at most 6 can be told apart"),
        (lambda: ts.Tucker(RANKS, {"core": ts.SumToOne("component")}), ts.ConstraintConflict, "cannot act on a core"),
        (lambda: ts.Tucker(RANKS, {"core": ts.Box(0, 1)}), ts.ConstraintConflict, "carries the amplitudes"),
        (lambda: ts.Tucker({"pixel": 2}, {"tilt": ts.NonNegative()}), ts.ConstraintConflict, "left whole"),
        (lambda: ts.Tucker(RANKS, pattern={("pixel", "tilt"): [(1, 3)]}), ts.InvalidArgument, "component 3 of mode"),
        (lambda: ts.Tucker(RANKS, pattern={("pixel", "tilt"): [(1, 1)]}), ts.InvalidArgument, "may meet no other"),
        (lambda: ts.Tucker(RANKS, diagonal="eds"), ts.UnknownName, "diagonal names the tensor"),
        (lambda: ts.Tucker(RANKS, diagonal="data"), ts.RankOutOfRange, "have one rank"),
    ],
)
def test_what_cannot_be_is_refused(model, error, words):
    with pytest.raises(error, match=words):
        ts.fit(POSITIVE, model(), progress=False)


def test_what_belongs_to_components_of_all_modes_is_refused(signed):
    for ask in (lambda: signed.rank, lambda: signed.select([1]), lambda: signed.merge([1, 2]), signed.shares):
        with pytest.raises(ts.InvalidArgument, match="its components belong to a mode"):
            ask()
    with pytest.raises(ts.InvalidArgument, match="start='auto'"):
        fit(SIGNED, start=ts.NNDSVD())
    usual = ts.fit(POSITIVE, ts.NMF(2), max_sweeps=3, progress=False)
    with pytest.raises(ts.InvalidArgument, match="has no core"):
        usual.interactions()


@pytest.mark.slow
def test_gauss_newton_agrees(positive):
    """All modes and the core at once: from a rough fit to an objective that is not above that of many sweeps."""
    model = ts.Tucker(RANKS, EVERYWHERE)
    rough = fit(POSITIVE, model, tol=1e-4)
    polished = fit(POSITIVE, model, start=ts.From(rough), solver=ts.GaussNewton(), tol=1e-9)
    assert polished.solver == "GaussNewton"
    assert np.diff(polished.history.values).max() <= 0
    assert polished.objective <= positive.objective * (1 + 1e-6)
    assert polished.sweeps < positive.sweeps / 5
