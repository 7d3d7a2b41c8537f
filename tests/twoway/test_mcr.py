"""MCR-ALS: exact steps, known profiles, closure, unimodality, descent, and what it costs to leave one of them out."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import lsq_linear, minimize, nnls

import tensorspec as ts
from tensorspec.twoway.alternating import FactorRules, minimise

QUIET = ts.NoiseModel(0, 1.0)


def image(values, units=None, dims=("y", "x", "energy_loss")):
    coords = {"energy_loss": ("energy_loss", 100 + 0.5 * np.arange(values.shape[-1]), {"units": "eV"})}
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": units or "counts"})


def peaks(places, channels=60, width=4.0):
    return np.exp(-0.5 * ((np.arange(channels) - np.array(places)[:, None]) / width) ** 2)


def selective(seed=0, shape=(6, 7), rank=3):
    """Maps in which each component is alone, and absent, somewhere; overlapping spectra with channels of their own."""
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.ones(rank), shape[0] * shape[1]) * rng.uniform(1, 3, (shape[0] * shape[1], 1))
    for component in range(rank):
        maps[component] = 3 * np.eye(rank)[component]
        maps[rank + component : rank + 4 * rank : rank, component] = 0
    spectra = peaks(np.linspace(14, 44, rank), width=6.0)
    spectra[spectra < 1e-3] = 0
    return maps, spectra, image(100 * (maps @ spectra).reshape(*shape, -1))


def angles(found, spectra):
    from scipy.optimize import linear_sum_assignment

    unit = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (found, spectra)]
    chord = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2)
    return np.degrees(2 * np.arcsin(chord[linear_sum_assignment(chord)] / 2))


def problem(seed, size=25, rank=4):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(30, rank))
    observed = rng.normal(size=(size, 30))
    return design, observed, design.T @ design, observed @ design


def free(size, rank):
    return np.full((size, rank), np.nan)


def test_rows_of_zero_or_more_are_those_of_lawson_and_hanson():
    design, observed, gram, right = problem(0)
    found = minimise(gram, right, FactorRules(np.ones(4, bool), free(25, 4)), np.zeros((25, 4)))
    np.testing.assert_allclose(found, [nnls(design, row)[0] for row in observed], atol=1e-9)


def test_rows_with_some_entries_known_and_some_columns_of_both_signs():
    design, observed, gram, right = problem(1)
    signs = np.array([True, False, True, False])
    known = free(25, 4)
    known[::3, 0], known[1::3, 1], known[2::5] = 0.0, -0.4, 0.3
    found = minimise(gram, right, FactorRules(signs, known), np.zeros((25, 4)))
    for row, own, got in zip(observed, known, found, strict=True):
        left = np.isnan(own)
        np.testing.assert_array_equal(got[~left], own[~left])
        if left.any():
            target = row - design[:, ~left] @ own[~left]
            low = np.where(signs[left], 0, -np.inf)
            best = lsq_linear(design[:, left], target, (low, np.full(left.sum(), np.inf)), tol=1e-14).x
            np.testing.assert_allclose(got[left], best, atol=1e-7)


@pytest.mark.parametrize("positive", [True, False])
def test_closed_rows_are_the_optimum_among_those_that_sum_to_one(positive):
    design, observed, gram, right = problem(2, size=6)
    known = free(6, 4)
    known[:3, 2] = 0.25
    found = minimise(gram, right, FactorRules(np.full(4, positive), known, closed=True), np.zeros((6, 4)))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-10)
    np.testing.assert_array_equal(found[:3, 2], 0.25)
    for row, own, got in zip(observed, known, found, strict=True):
        bounds = [(value, value) if np.isfinite(value) else (0 if positive else None, None) for value in own]
        best = minimize(
            lambda c, row=row: 0.5 * np.sum((design @ c - row) ** 2),
            np.full(4, 0.25),
            jac=lambda c, row=row: design.T @ (design @ c - row),
            bounds=bounds,
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1, "jac": lambda c: np.ones(4)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        ).x
        np.testing.assert_allclose(got, best, atol=2e-6)


@pytest.mark.parametrize("scaling", [None, "poisson"])
@pytest.mark.parametrize("start", ["number", "spectra", "maps", "fit"])
def test_a_model_that_the_data_determine_is_found(scaling, start):
    maps, spectra, data = selective()
    begin = {
        "number": lambda: 3,
        "spectra": lambda: image(spectra + 0.05, dims=("component", "energy_loss")),
        "maps": lambda: xr.DataArray(maps.T.reshape(3, 6, 7) + 0.1, dims=("component", "y", "x")),
        "fit": lambda: ts.varimax(ts.pca(data, 3, scaling="poisson"), "energy_loss"),
    }[start]()
    fit = ts.mcr_als(data, begin, scaling=scaling, noise=ts.NoiseModel(0, 1e-4), tol=1e-9, max_iterations=5000)
    assert angles(fit.factors["energy_loss"].values, spectra).max() < 0.02
    assert fit.provenance["lack_of_fit"] < 1e-3 and fit.converged
    assert len(fit.provenance["starts"]) == (5 if start == "number" else 1)
    assert fit.factors["energy_loss"].energy_loss.attrs["units"] == "eV"
    np.testing.assert_allclose(fit.reconstruct(), data, atol=1e-3 * float(data.max()))


@pytest.mark.parametrize("scaling", [None, "poisson"])
def test_the_sum_of_squares_falls_at_every_iteration(scaling):
    phantom = ts.phantoms.discs("eels", counts=500, shape=(14, 12), channels=50)
    fit = ts.mcr_als(phantom["data"], 3, scaling=scaling, tol=1e-5, max_iterations=2000)
    change = np.diff(fit.history.values)
    assert fit.sweeps > 10 and (change <= 1e-12 * fit.history.values[0]).all()


def test_known_spectra_stay_and_a_window_keeps_a_component_out():
    maps, spectra, data = selective(1)
    known = np.full((3, 60), np.nan)
    known[0] = 100 * spectra[0]
    known[2, :20] = 0
    fixed = ts.Fixed(image(known, dims=("component", "energy_loss")))
    start = image(np.maximum(spectra, 0.02), dims=("component", "energy_loss"))
    fit = ts.mcr_als(
        data,
        start,
        {"energy_loss": [ts.NonNegative(), fixed]},
        noise=ts.NoiseModel(0, 1e-4),
        tol=1e-8,
        max_iterations=5000,
    )
    factor = fit.factors["energy_loss"].values
    np.testing.assert_allclose(factor[0], known[0], rtol=1e-12)
    assert (factor[2, :20] == 0).all()
    np.testing.assert_allclose(float(fit.weights[0]) * fit.factors["pixel"].values[0].ravel(), maps[:, 0], atol=2e-3)
    np.testing.assert_allclose(fit.reconstruct(), data, atol=0.05)


@pytest.mark.slow
def test_closure_gives_shares_that_add_up_to_one():
    rng = np.random.default_rng(3)
    shares = np.concatenate([np.eye(3), rng.dirichlet(np.ones(3), 39)])
    spectra = 100 * peaks([15, 30, 45])
    data = image((shares @ spectra).reshape(6, 7, -1))
    rules = {"pixel": [ts.NonNegative(), ts.SumToOne("component")]}
    fit = ts.mcr_als(data, 3, rules, noise=ts.NoiseModel(0, 1e-4), tol=1e-8, max_iterations=3000)
    np.testing.assert_allclose(fit.factors["pixel"].sum("component"), 1, atol=1e-9)
    seen = fit.weights.values[:, None] * fit.factors["energy_loss"].values
    order = np.argsort(seen.argmax(axis=1))
    np.testing.assert_allclose(seen[order], spectra, atol=0.1)


def test_unimodal_spectra_have_one_peak_each_and_the_misfit_still_falls():
    rng = np.random.default_rng(4)
    maps, spectra, _ = selective(2)
    data = image(rng.poisson(20 * maps @ spectra).reshape(6, 7, -1))
    rules = {"energy_loss": [ts.NonNegative(), ts.Unimodal()]}
    start = image(spectra + 0.05, dims=("component", "energy_loss"))
    fit = ts.mcr_als(data, start, rules, noise=ts.NoiseModel())
    free_fit = ts.mcr_als(data, start, noise=ts.NoiseModel())
    for one, plain in zip(fit.factors["energy_loss"].values, free_fit.factors["energy_loss"].values, strict=True):
        top = one.argmax()
        assert (np.diff(one[: top + 1]) >= -1e-12).all() and (np.diff(one[top:]) <= 1e-12).all() and one.min() >= 0
        assert (np.diff(plain[: plain.argmax() + 1]) < -1e-9).any()
    assert (np.diff(fit.history.values) <= 1e-9 * fit.history.values[0]).all()
    assert fit.objective > free_fit.objective


def test_the_lack_of_fit_is_that_of_noise_only_with_enough_components():
    phantom = ts.phantoms.discs("edx", counts=2000, shape=(20, 18), channels=80)
    counts = ts.NoiseModel()
    fit = ts.mcr_als(phantom["data"], 3, scaling="poisson", noise=counts)
    assert fit.provenance["lack_of_fit"] == pytest.approx(fit.provenance["expected_lack_of_fit"], rel=0.02)
    with pytest.warns(UserWarning, match="component too few"):
        ts.mcr_als(phantom["data"], 2, scaling="poisson", noise=counts)


def test_it_comes_to_the_objective_of_a_fit_from_the_same_start():
    phantom = ts.phantoms.discs("edx", counts=2000, shape=(14, 12), channels=50)
    data = phantom["data"].astype(np.float64)
    start = phantom["truth"].spectra
    alternating = ts.mcr_als(data, start, noise=ts.NoiseModel(), tol=1e-9, max_iterations=5000)
    other = ts.fit(data, ts.NMF(3), start=ts.From(alternating), tol=1e-12, max_sweeps=3000, progress=False)
    own = float((alternating.residual() ** 2).sum())
    assert float((other.residual() ** 2).sum()) == pytest.approx(own, rel=1e-6)


def test_a_component_that_dies_is_started_again():
    maps, spectra, data = selective(5)
    start = image(np.array([spectra[0], spectra[1], -spectra[2]]), dims=("component", "energy_loss"))
    fit = ts.mcr_als(data, start, noise=ts.NoiseModel(0, 1e-4), tol=1e-8, max_iterations=5000)
    assert angles(fit.factors["energy_loss"].values, spectra).max() < 0.1


def test_masked_equals_cropped_lazy_equals_eager_and_empty_ones_are_zeros():
    rng = np.random.default_rng(6)
    maps, spectra, data = selective(3)
    counts = data.copy(data=rng.poisson(data.values))
    counts[0, 0] = 0
    counts[..., 59] = 0
    pixels = xr.ones_like(counts.isel(energy_loss=0, drop=True), dtype=bool)
    pixels[1, 2:4] = False
    start = image(spectra + 0.05, dims=("component", "energy_loss"))
    whole = ts.mcr_als(counts, start, mask=pixels, noise=ts.NoiseModel())
    assert np.isnan(whole.factors["pixel"].values[:, 1, 2:4]).all()
    assert (whole.factors["pixel"].values[:, 0, 0] == 0).all()
    assert (whole.factors["energy_loss"].values[:, 59] == 0).all()
    kept = counts.stack(sample=("y", "x")).transpose("sample", "energy_loss").values[pixels.values.ravel()]
    cropped = ts.mcr_als(image(kept, dims=("x", "energy_loss")), start, noise=ts.NoiseModel())
    np.testing.assert_allclose(whole.factors["energy_loss"], cropped.factors["energy_loss"], rtol=1e-9, atol=1e-12)
    lazy = ts.mcr_als(counts.chunk({"y": 2}), start, mask=pixels, noise=ts.NoiseModel())
    np.testing.assert_array_equal(lazy.factors["energy_loss"], whole.factors["energy_loss"])


def test_the_same_seed_gives_the_same_answer_and_the_order_of_components_does_not_matter():
    _, spectra, data = selective(4)
    first, second = (ts.mcr_als(data, 3, noise=QUIET, seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.factors["pixel"], second.factors["pixel"])
    start = image(spectra + 0.05, dims=("component", "energy_loss"))
    straight = ts.mcr_als(data, start, noise=QUIET)
    for order in itertools.islice(itertools.permutations(range(3)), 1, 3):
        turned = ts.mcr_als(data, start[list(order)], noise=QUIET)
        np.testing.assert_allclose(
            turned.factors["energy_loss"], straight.factors["energy_loss"][list(order)], atol=1e-8
        )


DATA = selective()[2]
START = image(peaks([15, 30, 45]), dims=("component", "energy_loss"))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.mcr_als(DATA, "vca"), ts.InvalidArgument, "start is a str"),
        (lambda: ts.mcr_als(DATA, 0), ts.RankOutOfRange, "1 or more"),
        (lambda: ts.mcr_als(DATA, 99), ts.RankOutOfRange, "give 1 to"),
        (lambda: ts.mcr_als(DATA, START.rename(energy_loss="e")), ts.InvalidArgument, "dimensions"),
        (lambda: ts.mcr_als(DATA, START, {"energy": ts.NonNegative()}), ts.UnknownMode, "Did you mean 'energy_loss'"),
        (lambda: ts.mcr_als(DATA, START, {"pixel": ts.Sparse(0.1)}), ts.ConstraintConflict, "ts.fit"),
        (
            lambda: ts.mcr_als(DATA, START, {"pixel": ts.SumToOne("component", components=[1])}),
            ts.ConstraintConflict,
            "all components",
        ),
        (
            lambda: ts.mcr_als(DATA, START, {"energy_loss": ts.Unimodal()}, scaling="poisson"),
            ts.ConstraintConflict,
            "scaling",
        ),
        (lambda: ts.mcr_als(DATA, START, {"energy_loss": "positive"}), ts.InvalidArgument, "no constraint"),
        (lambda: ts.mcr_als(DATA, START, scaling="log"), ts.InvalidArgument, "expected None or 'poisson'"),
        (
            lambda: ts.mcr_als(DATA, START, {"energy_loss": ts.NonNegative(components=[4])}),
            ts.InvalidArgument,
            "components 1 to 3",
        ),
        (lambda: ts.mcr_als(DATA, START * np.nan), ts.InvalidData, "not finite"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_it_is_saved_and_read_like_any_fit(tmp_path):
    fit = ts.mcr_als(DATA, 3, noise=QUIET)
    again = ts.open(fit.save(tmp_path / "mcr.h5"))
    np.testing.assert_allclose(again.factors["pixel"], fit.factors["pixel"])
    assert "MCR-ALS" in repr(again)
