"""Spectra that drift from sample to sample are found again by PARAFAC2, and nothing that a fit offers is lost."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.constraints.cross_product import NearSameCrossProduct
from tensorspec.diagnose.match import match_factors
from tensorspec.fit.evolving import easier
from tensorspec.fit.gather import gather

mpl.use("Agg")

PIXELS, SAMPLES, CHANNELS, RANK = 12, 8, 40, 3
NN = ts.NonNegative()
EVERYWHERE = {"pixel": NN, "time": NN, "energy_loss": NN}
SIGNED = {"pixel": NN, "time": NN}


def truth(pixels=PIXELS):
    """Maps, strengths and peaks whose positions drift together by nine channels, unevenly."""
    rng = np.random.default_rng(1)
    maps = rng.random((pixels, RANK)) * (rng.random((pixels, RANK)) > 0.3)
    strengths = rng.uniform(0.5, 1.5, (SAMPLES, RANK))
    offset = 9 * np.linspace(0, 1, SAMPLES) ** 2 + rng.normal(0, 0.4, SAMPLES)
    channel = np.arange(CHANNELS)[:, None]
    centre, width = np.array([9.0, 15.0, 22.0]), np.array([1.8, 2.2, 2.6])
    peaks = np.exp(-0.5 * ((channel - centre - offset[:, None, None]) / width) ** 2)
    return maps, strengths, peaks


def planted(noise=0.05, pixels=PIXELS, spread=1.0):
    """Counts in columns of four pixels; the noise is a share of the signal, `spread` its relative size by channel."""
    maps, strengths, peaks = truth(pixels)
    clean = np.einsum("ir,kr,kjr->ikj", maps, strengths, peaks)
    error = np.random.default_rng(101).standard_normal(clean.shape) * spread
    values = clean + noise * np.linalg.norm(clean) / np.linalg.norm(error) * error
    coords = {"time": 60.0 * np.arange(SAMPLES), "energy_loss": 500 + 0.5 * np.arange(CHANNELS)}
    data = xr.DataArray(values.reshape(-1, 4, SAMPLES, CHANNELS), dims=("y", "x", "time", "energy_loss"), coords=coords)
    data.energy_loss.attrs["units"], data.attrs["units"] = "eV", "counts"
    return data


DATA = planted()


def fit(data, constraints=None, **options):
    model = {name: options.pop(name) for name in ("strength", "along", "evolving") if name in options}
    return ts.fit(data, ts.PARAFAC2(RANK, constraints or EVERYWHERE, **model), progress=False, **options)


def congruence(profiles, planted_ones):
    """The smallest congruence of a component's spectrum in any sample, the components matched over all samples."""
    found = np.moveaxis(np.asarray(profiles), 0, -1)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (planted_ones, found)]
    cosines = np.abs(np.einsum("kjr,kjs->krs", *unit))
    orders = itertools.permutations(range(RANK))
    best = max(orders, key=lambda order: cosines[:, np.arange(RANK), order].sum())
    return float(cosines[:, np.arange(RANK), best].min())


@pytest.fixture(scope="module")
def nonnegative():
    return fit(DATA, start=ts.Random(), tol=1e-8)


@pytest.fixture(scope="module")
def exact():
    return fit(DATA, SIGNED, tol=1e-8, max_sweeps=5000)


@pytest.fixture(params=["nonnegative", "exact"])
def result(request):
    return request.getfixturevalue(request.param)


def test_drifting_peaks_are_found(result):
    """With 5 % noise, every component has its spectrum in every sample, its map and its strengths."""
    maps, strengths, peaks = truth()
    assert congruence(result.factors["energy_loss"], peaks) > 0.99
    found = [result.factors[mode].values.reshape(RANK, -1).T for mode in ("pixel", "time")]
    match = match_factors(found, [maps, strengths])
    assert match.score > 0.99
    assert min(match.by_mode["0"]) > 0.99


def test_cross_products_are_the_same(nonnegative, exact):
    """Exactly without constraints on the profiles; with them nearly, and these hold exactly."""
    for found, spread in ((exact, 1e-12), (nonnegative, 2e-2)):
        profiles = np.moveaxis(found.factors["energy_loss"].values, 0, -1)
        products = np.einsum("kjr,kjs->krs", profiles, profiles)
        size = np.sqrt(np.diagonal(products.mean(axis=0)))
        worst = np.max(np.abs(products - products.mean(axis=0)) / (size[:, None] * size))
        assert worst < spread
        np.testing.assert_allclose(found.provenance["violations"]["energy_loss"], worst, rtol=1e-6, atol=1e-12)
    assert (nonnegative.factors["energy_loss"] >= 0).all()
    assert (exact.factors["energy_loss"] < 0).any()
    assert exact.solver == "DirectFitting + HALS"


def test_the_objective_is_the_one_stated(nonnegative, exact):
    """Half the squares of data of unit mean square, and the distance of profiles that carry the amplitudes."""
    for found in (nonnegative, exact):
        assert found.converged
        scale = 1 / float(np.sqrt((DATA**2).mean()))
        misfit = 0.5 * float((found.residual() ** 2).sum()) * scale**2
        profiles = np.moveaxis((found.factors["energy_loss"] * found.weights * scale).values, 0, -1)
        root = np.linalg.cholesky(np.einsum("kjr,kjs->rs", profiles, profiles) / SAMPLES).T
        for _ in range(500):
            left, _, right = np.linalg.svd(profiles @ root.T, full_matrices=False)
            root = np.einsum("kjt,kjr->tr", left @ right, profiles) / SAMPLES
        penalty = 1 / (2 * SAMPLES) * float(np.sum((profiles - left @ right @ root) ** 2))
        assert found.objective == pytest.approx(misfit + (penalty if found is nonnegative else 0), rel=1e-9)
    assert penalty == pytest.approx(0, abs=1e-9)


def test_what_is_read_adds_up(result):
    """Dimensions and coordinates, maps and spectra in counts, model and residual."""
    assert result.factors["energy_loss"].dims == ("component", "time", "energy_loss")
    xr.testing.assert_equal(result.factors["energy_loss"].time, DATA.time)
    np.testing.assert_allclose((result.factors["energy_loss"] ** 2).sum(["time", "energy_loss"]), 1)
    product = xr.dot(
        result.weights, *(result.factors[mode] for mode in ("pixel", "time", "energy_loss")), dim="component"
    )
    xr.testing.assert_allclose(result.reconstruct(), product.transpose(*DATA.dims).assign_coords(DATA.coords))
    lost = float((result.residual() ** 2).sum() / (DATA**2).sum())
    assert result.explained == pytest.approx(1 - lost, rel=1e-12)
    assert 0.6 * 0.05**2 < 1 - result.explained < 0.05**2
    total = float(result.reconstruct().sum())
    spectra = result.spectra()
    assert spectra.dims == ("component", "time", "energy_loss")
    for parts in (result.maps(), spectra, result.spectra(mode="time"), result.totals()):
        assert float(parts.sum()) == pytest.approx(total, rel=1e-10)
    xr.testing.assert_allclose(spectra.sum("energy_loss"), result.spectra(mode="time"))
    assert float(result.shares().sum()) == pytest.approx(1)
    assert "explained" in repr(result)


def test_saved_opened_repeated_and_continued(result, tmp_path):
    path = result.save(tmp_path / "fit.h5")
    opened = ts.open(path)
    assert repr(opened) == repr(result)
    xr.testing.assert_identical(opened.factors["energy_loss"], result.factors["energy_loss"])
    xr.testing.assert_allclose(opened.reconstruct(), result.reconstruct(), rtol=1e-12)
    again = ts.refit(path, DATA)
    np.testing.assert_array_equal(again.history, result.history)
    options = {"constraints": result.model.constraints, "max_sweeps": 5, "tol": 1e-8}
    further = fit(DATA, start=ts.From(result), **options)
    assert float(further.history[0]) == pytest.approx(result.objective, rel=1e-9)
    assert further.objective <= result.objective * (1 + 1e-12)


def test_figures(result):
    figure = result.plot()
    curves = [len(ax.lines) for ax in figure.axes if "pale" in ax.get_xlabel()]
    assert curves[0] >= SAMPLES
    result.plot_residual()


def test_new_pixels(exact):
    """Pixels of the fit, taken as new ones, get the maps that they have."""
    found = exact.transform(DATA.isel(y=[0, 2]))
    np.testing.assert_allclose(found, exact.factors["pixel"].isel(y=[0, 2]), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["nonnegative", "exact"])
def test_the_unit_does_not_matter(name, request):
    """A power of two rounds nothing, so that every sweep is the same and nothing hangs on an absolute size."""
    first = request.getfixturevalue(name)
    start = {"start": ts.Random()} if name == "nonnegative" else {}
    second = fit(2**10 * DATA, dict(first.model.constraints), tol=1e-8, max_sweeps=5000, **start)
    np.testing.assert_array_equal(second.history, first.history)
    np.testing.assert_allclose(second.weights, 2**10 * first.weights, rtol=1e-12)
    for mode, factor in first.factors.items():
        np.testing.assert_allclose(second.factors[mode], factor, rtol=1e-12)


def test_a_strong_penalty_is_led_up_to():
    """A fit passes through weaker penalties in powers of ten, so that a start is not held where it is."""
    model = ts.PARAFAC2(RANK, EVERYWHERE, strength=30)
    with jax.enable_x64(True):
        ready = gather({"data": DATA}, model, {"data": ts.LeastSquares()}, None, None, None, "auto", True)
        found = [
            float(item.strength)
            for problem in easier(ready.problem, ready.model)
            for item in problem.constraints["energy_loss"].members
            if hasattr(item, "strength")
        ]
    assert found == [1, 10]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ts.PARAFAC2(2, along="energy_loss"), "the same mode"),
        (lambda: ts.PARAFAC2(2, strength=0), "above zero"),
        (lambda: ts.PARAFAC2(2, evolving=None), "name of a mode"),
        (lambda: ts.fit(DATA, ts.PARAFAC2(2, along="tme")), "Did you mean 'time'"),
        (lambda: ts.fit(DATA, ts.PARAFAC2(CHANNELS + 1)), f"1 to {CHANNELS}"),
        (lambda: ts.fit(DATA.isel(y=0, x=0), ts.PARAFAC2(2)), "another mode"),
        (lambda: ts.fit(DATA.isel(time=[0]), ts.PARAFAC2(2)), "two samples or more"),
        (lambda: ts.fit(DATA, ts.PARAFAC2(2, {"energy_loss": ts.Unimodal()})), "entry by itself"),
        (lambda: ts.fit(DATA, ts.PARAFAC2(2, EVERYWHERE, scale="pixel")), "leave scale out"),
        (lambda: ts.fit(abs(DATA), ts.PARAFAC2(2), loss=ts.Poisson()), "least squares"),
        (
            lambda: ts.fit({"a": DATA, "b": DATA.sum("time")}, ts.PARAFAC2(2, EVERYWHERE)),
            "but not 'time', along which it evolves",
        ),
        (
            lambda: ts.fit({"a": DATA}, ts.PARAFAC2(2, EVERYWHERE, operators={("a", "energy_loss"): ts.Shift(1.0)})),
            "no operators",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ts.TensorspecError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda found: found.transform(DATA, mode="energy_loss"), "fit anew"),
        (lambda found: found.transform(DATA, mode="time"), "fit anew"),
        (lambda found: found.to_tensorly(), "CPTensor cannot hold it"),
        (lambda found: found.merge([1, 2]), "lower rank"),
    ],
)
def test_what_a_fit_cannot_do_is_refused(call, words, exact):
    with pytest.raises(ts.TensorspecError, match=words):
        call(exact)


@pytest.mark.slow
def test_cp_fails_on_the_same_data():
    """CP has one spectrum for all samples: it explains 84 % instead of 99.7, and its spectra are wrong."""
    peaks = truth()[2]
    plain = ts.fit(DATA, ts.NMF(RANK), restarts=5, progress=False)
    spectra = plain.factors["energy_loss"].values[:, None].repeat(SAMPLES, axis=1)
    assert plain.explained < 0.9
    assert congruence(spectra, peaks) < 0.7


@pytest.mark.slow
def test_from_random_starts():
    """Every one of ten random starts finds the planted spectra."""
    peaks = truth()[2]
    worst = [congruence(fit(DATA, start=ts.Random(), seed=seed).factors["energy_loss"], peaks) for seed in range(10)]
    assert min(worst) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [EVERYWHERE, SIGNED], ids=["nonnegative", "exact"])
def test_thirty_per_cent_missing(constraints):
    data = planted(pixels=36)
    kept = np.random.default_rng(3).random(data.shape) > 0.3
    found = fit(data.where(kept), constraints, tol=1e-7, max_sweeps=3000)
    assert congruence(found.factors["energy_loss"], truth(36)[2]) > 0.99
    assert np.all(np.diff(found.history.values) <= 1e-12 * found.history.values[0])
    assert found.provenance["violations"]["energy_loss"] < (2e-2 if constraints is EVERYWHERE else 1e-12)
    clean = planted(noise=0.0, pixels=36).where(~kept)
    assert float(((found.reconstruct() - clean) ** 2).sum() / (clean**2).sum()) < 0.05**2


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [EVERYWHERE, SIGNED], ids=["nonnegative", "exact"])
def test_weights_by_noise_and_single_precision(constraints):
    """Channels of known, unequal noise count accordingly; float32 stays float32."""
    sigma = np.geomspace(0.2, 5, CHANNELS)
    uneven, options = planted(spread=sigma, noise=0.15), {"max_sweeps": 1000}
    peaks = truth()[2]
    loss = ts.LeastSquares(sigma=xr.DataArray(sigma, dims="energy_loss"))
    weighted = fit(uneven, constraints, loss=loss, **options).factors["energy_loss"]
    alike = fit(uneven, constraints, **options).factors["energy_loss"]
    assert congruence(weighted, peaks) > congruence(alike, peaks)
    assert congruence(weighted, peaks) > 0.9
    single = fit(DATA.astype(np.float32), constraints, tol=1e-7, **options)
    assert single.factors["energy_loss"].dtype == np.float32
    assert congruence(single.factors["energy_loss"], peaks) > 0.97


@pytest.mark.slow
def test_a_sample_and_channels_never_measured():
    """They come back NaN, are named, and leave the others as they are."""
    holes = DATA.copy()
    holes[:, :, 3] = np.nan
    holes[:, :, 5, 7:9] = np.nan
    with pytest.warns(UserWarning, match="come back NaN"):
        found = fit(holes)
    profiles = found.factors["energy_loss"]
    assert int(profiles.isnull().sum()) == RANK * (CHANNELS + 2)
    assert found.factors["time"].isel(time=3).isnull().all()
    others = [0, 1, 2, 4, 6, 7]
    assert congruence(profiles.isel(time=others), truth()[2][others]) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("constraints", [EVERYWHERE, SIGNED], ids=["nonnegative", "exact"])
def test_coupled_with_a_tensor_that_does_not_drift(constraints):
    """X-ray spectra of the same pixels share the maps, and are fitted by CP."""
    rng = np.random.default_rng(4)
    spectra = rng.random((RANK, 9))
    values = truth()[0] @ spectra
    edx = xr.DataArray(
        (values + 0.02 * rng.standard_normal(values.shape)).reshape(-1, 4, 9), dims=("y", "x", "xray_energy")
    )
    found = fit({"eels": DATA, "edx": edx}, constraints | {"xray_energy": NN}, max_sweeps=3000)
    assert congruence(found.factors["energy_loss"], truth()[2]) > 0.99
    assert float(found.explained.sel(tensor="edx")) > 0.99
    assert found.spectra("edx").dims == ("component", "xray_energy")
    assert np.all(np.diff(found.history.values) <= 1e-12 * found.history.values[0])
    assert found.provenance["violations"]["energy_loss"] < 2e-2


@pytest.mark.slow
def test_other_modes_and_orders():
    """Four modes, and samples that lie on two dimensions."""
    doubled = xr.concat([DATA, 2 * DATA], "dose")
    found = ts.fit(doubled, ts.PARAFAC2(RANK, EVERYWHERE | {"dose": NN}), progress=False)
    assert congruence(found.factors["energy_loss"], truth()[2]) > 0.99
    np.testing.assert_allclose(found.factors["dose"].sel(dose=1) / found.factors["dose"].sel(dose=0), 2, rtol=1e-3)
    values = DATA.values.reshape(PIXELS, 2, 4, CHANNELS)
    tilted = xr.DataArray(values, dims=("pixel", "tilt_y", "tilt_x", "energy_loss"))
    found = fit(tilted, {"pixel": NN, "orientation": NN, "energy_loss": NN}, along="orientation")
    profiles = found.factors["energy_loss"]
    assert profiles.dims == ("component", "tilt_y", "tilt_x", "energy_loss")
    assert congruence(profiles.values.reshape(RANK, SAMPLES, CHANNELS), truth()[2]) > 0.99
    assert found.spectra(mode="orientation").dims == ("component", "tilt_y", "tilt_x")
    assert float(np.abs(found.reconstruct() - tilted).max()) < 0.5


def slices(data):
    """The samples as (channels, pixels) matrices in the units of the problem as solved."""
    values = data.values.reshape(PIXELS, SAMPLES, CHANNELS)
    return [values[:, k].T / np.sqrt(np.mean(values**2)) for k in range(SAMPLES)]


def half_square(residuals):
    return 0.5 * sum(float(np.sum(np.square(item))) for item in residuals)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_no_higher_than_tensorly(noise):
    """Without constraints: the objective of tensorly's direct fitting from as many starts, on the same data."""
    from tensorly.decomposition import parafac2
    from tensorly.parafac2_tensor import parafac2_to_slices

    data = planted(noise)
    theirs = []
    for seed in range(3):
        found = parafac2(slices(data), RANK, n_iter_max=3000, tol=1e-10, init="random", random_state=seed)
        theirs.append(half_square(a - b for a, b in zip(parafac2_to_slices(found), slices(data), strict=True)))
    model = ts.PARAFAC2(RANK)
    ours = ts.fit(data, model, restarts=3, tol=1e-9, max_sweeps=5000, progress=False)
    assert ours.objective <= min(theirs) * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_no_higher_than_matcouply(noise):
    """Non-negative: our objective, penalty included, at our answer is no higher than at that of AO-ADMM."""
    from matcouply.decomposition import parafac2_aoadmm

    data = planted(noise)
    ours = fit(data, strength=10, start=ts.Random(), restarts=3, tol=1e-9, max_sweeps=5000)
    options = {"n_iter_max": 5000, "tol": 1e-10, "absolute_tol": 1e-12, "non_negative": [True] * 3}
    theirs = []
    for seed in range(3):
        _, (strengths, profiles, maps) = parafac2_aoadmm(slices(data), RANK, random_state=seed, **options)
        found = [b * a @ maps.T for a, b in zip(strengths, profiles, strict=True)]
        misfit = half_square(a - b for a, b in zip(found, slices(data), strict=True))
        # Strengths and maps have unit norm and the profiles carry the amplitudes, as in the objective that is stated.
        amplitude = np.linalg.norm(strengths, axis=0) * np.linalg.norm(maps, axis=0)
        stacked = np.concatenate(profiles) * amplitude
        with jax.enable_x64(True):
            theirs.append(misfit + float(NearSameCrossProduct(10.0, SAMPLES).value(jnp.asarray(stacked))))
        assert congruence(np.moveaxis(np.array(profiles), 2, 0), truth()[2]) > 0.9
    assert ours.objective <= min(theirs) * (1 + 1e-6)
    assert ours.objective > 0.999 * min(theirs)


@pytest.mark.slow
def test_all_modes_at_once_reach_the_same_objective(nonnegative):
    """Gauss-Newton steps along the derivatives of the stated objective end where the blocks do."""
    found = fit(DATA, solver=ts.GaussNewton(), tol=1e-8)
    assert found.solver == "GaussNewton"
    assert found.objective == pytest.approx(nonnegative.objective, rel=1e-4)
