"""One code path: every order and every graph, and answers that do not depend on names, order, numbering or units."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import NMF as SklearnNMF
from sklearn.exceptions import ConvergenceWarning

import tensorspec as ts

from .runs import RANK, SIZES, arrays, fit, noisy, planted, prepared

NN, Sparse, Soft = ts.NonNegative, ts.Sparse, ts.SoftOrthogonal
# A few examples of fixed shapes: a new value never compiles again.
few = settings(max_examples=4, deadline=None, derandomize=True, database=None)

GRAPHS = ["pe", "pet", "pets", "pe ps", "pet ps", "pe ps et", "pet pes", "pet pe", "pe ps pt"]


def start_factors(seed, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return {mode: rng.random((size, RANK)) + 0.1 for mode, size in sizes.items()}


def close(first, second, rtol):
    """The same factors, component by component; scales do not matter where they are not fixed."""
    for mode, factor in arrays(first).items():
        other = arrays(second)[mode]
        np.testing.assert_allclose(factor, other, atol=rtol * np.abs(other).max())


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_order_and_every_graph_reproduces_noise_free_data(graph):
    rng = np.random.default_rng(0)
    factors = {mode: rng.random((size, RANK)) ** 2 for mode, size in SIZES.items()}
    data = {f"t{k}": planted(modes, rng, factors=factors) for k, modes in enumerate(graph.split())}
    found = fit(data, ts.NMF(RANK), start=ts.Random(), restarts=2, max_sweeps=3000, tol=1e-9)
    for name, values in data.items():
        assert np.linalg.norm(found.residual(name)) < 1e-5 * np.linalg.norm(values)
        assert found.reconstruct(name).dims == values.dims


# ---- numbering, units, order ---------------------------------------------------------------------------------------

TRUTH = {mode: factor**3 for mode, factor in start_factors(5).items()}
CUBE, SHEET = (
    planted(modes, None, factors=TRUTH) + 0.05 * np.random.default_rng(6).random([SIZES[mode] for mode in modes])
    for modes in ("pet", "ps")
)
PAIR = {"cube": CUBE, "sheet": SHEET}
WEIGHTS = {"cube": 1.2, "sheet": 0.7}
MODEL = ts.CP(RANK, {"p": NN(), "e": [NN(), Sparse(0.05)], "t": NN(), "s": [NN(), Sparse(0.02)]}, scale="p")


def near_the_truth():
    """A start from which every way leads to the same minimum, its components numbered as in the truth."""
    return {mode: TRUTH[mode] + 0.1 * factor for mode, factor in start_factors(9).items()}


def pair_fit(data=PAIR, factors=None, **options):
    start = ts.From(factors or near_the_truth())
    return fit(data, MODEL, weights=WEIGHTS, start=start, **{"tol": 1e-13, "max_sweeps": 3000} | options)


@pytest.fixture(scope="module")
def usual():
    return pair_fit()


@few
@given(permutation=st.permutations(range(RANK)))
def test_components_may_be_numbered_otherwise(usual, permutation):
    start = {mode: factor[:, permutation] for mode, factor in near_the_truth().items()}
    found = pair_fit(factors=start)
    assert found.objective == pytest.approx(usual.objective, rel=1e-9)
    for mode, factor in arrays(found).items():
        np.testing.assert_allclose(factor, arrays(usual)[mode][:, permutation], atol=1e-4)
    np.testing.assert_allclose(found.weights, usual.weights.values[:, permutation], rtol=1e-4)


@few
@given(powers=st.tuples(st.sampled_from([-6, -3, 4, 6]), st.sampled_from([-6, 0, 6])))
def test_units_of_the_data_do_not_matter(usual, powers):
    factors = dict(zip(PAIR, (10.0**power for power in powers), strict=True))
    found = pair_fit({name: values * factors[name] for name, values in PAIR.items()})
    assert found.objective == pytest.approx(usual.objective, rel=1e-10)
    close(found, usual, 1e-5)
    for name, factor in factors.items():
        np.testing.assert_allclose(found.weights.sel(tensor=name), factor * usual.weights.sel(tensor=name), rtol=1e-5)


def test_units_that_are_powers_of_two_change_no_bit():
    data = {"cube": CUBE * 2.0**-20, "sheet": SHEET * 2.0**20}
    usual, found = (fit(own, MODEL, weights=WEIGHTS, start=ts.NNDSVD()) for own in (PAIR, data))
    np.testing.assert_array_equal(found.history, usual.history)
    for mode in SIZES:
        np.testing.assert_array_equal(found.factors[mode], usual.factors[mode])


def test_an_automatic_strength_does_not_depend_on_units():
    model = ts.CP(RANK, {"p": [NN(), Soft()], "e": NN(), "t": NN()})
    strengths = [
        float(prepared(CUBE * factor, model).problem.constraints["p"].members[1].strength) for factor in (1, 1e-6, 1e6)
    ]
    assert strengths[0] > 0
    np.testing.assert_allclose(strengths, strengths[0], rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_do_not_matter_in_float32(factor):
    data = {name: values.astype(np.float32) for name, values in PAIR.items()}
    usual = pair_fit(data, tol=1e-7)
    found = pair_fit({name: (values * np.float32(factor)) for name, values in data.items()}, tol=1e-7)
    assert usual.factors["p"].dtype == found.factors["p"].dtype == np.float32
    # The scaled data are themselves rounded.
    assert found.objective == pytest.approx(usual.objective, rel=1e-5)
    close(found, usual, 5e-3)
    np.testing.assert_allclose(found.weights, factor * usual.weights, rtol=5e-3)


def test_the_order_of_dimensions_does_not_matter(usual):
    found = pair_fit({"cube": CUBE.transpose("t", "p", "e"), "sheet": SHEET.transpose("s", "p")})
    assert found.objective == pytest.approx(usual.objective, rel=1e-9)
    close(found, usual, 1e-4)
    assert found.reconstruct("cube").dims == ("t", "p", "e")
    np.testing.assert_allclose(
        found.reconstruct("cube").transpose(*CUBE.dims), usual.reconstruct("cube"), atol=1e-4 * float(CUBE.max())
    )


def test_the_order_of_tensors_does_not_matter(usual):
    found = pair_fit({"sheet": SHEET, "cube": CUBE})
    assert found.objective == pytest.approx(usual.objective, rel=1e-9)
    close(found, usual, 1e-4)
    np.testing.assert_allclose(found.weights.sel(tensor=list(PAIR)), usual.weights, rtol=1e-4)


def test_the_name_of_a_mode_does_not_matter(usual):
    names = {"p": "place", "e": "energy", "t": "tilt", "s": "signal"}
    model = ts.CP(RANK, {names[mode]: items for mode, items in MODEL.constraints.items()}, scale="place")
    data = {
        name: values.rename({mode: new for mode, new in names.items() if mode in values.dims})
        for name, values in PAIR.items()
    }
    start = ts.From({names[mode]: factor for mode, factor in near_the_truth().items()})
    found = fit(data, model, weights=WEIGHTS, start=start, tol=1e-13, max_sweeps=3000)
    assert found.objective == usual.objective
    np.testing.assert_array_equal(found.factors["energy"], usual.factors["e"])


# ---- the same problem, written otherwise ---------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 100))
def test_order_two_is_the_factorization_of_scikit_learn(seed):
    data = noisy("pe", np.random.default_rng(8)).clip(0)
    start = start_factors(seed)
    theirs = SklearnNMF(RANK, init="custom", tol=1e-12, max_iter=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        left = theirs.fit_transform(data.values, W=start["p"].copy(), H=start["e"].T.copy())
    objective = 0.5 * np.sum((data.values - left @ theirs.components_) ** 2)
    own = {mode: start[mode] for mode in "pe"}
    found = fit(data, ts.NMF(RANK), rescale=False, start=ts.From(own), tol=1e-12, max_sweeps=5000)
    assert found.converged
    assert found.objective <= objective * (1 + 1e-6)


def test_coupling_is_factorizing_the_concatenation():
    first, second = noisy("pe", np.random.default_rng(1)).clip(0), noisy("ps", np.random.default_rng(2)).clip(0)
    whole = xr.DataArray(np.concatenate([first.values, second.values], axis=1), dims=("p", "both"))
    factors, size = start_factors(3), SIZES["e"]
    options = {"rescale": False, "tol": 1e-13, "max_sweeps": 5000}
    start = {"p": factors["p"], "both": np.concatenate([factors["e"], factors["s"]])}
    together = fit(whole, ts.NMF(RANK), start=ts.From(start), **options)
    model, pair = ts.NMF(RANK), {"first": first, "second": second}
    coupled = fit(
        pair, model, weights={"first": 1, "second": 1}, start=ts.From({m: factors[m] for m in "pes"}), **options
    )
    assert coupled.objective == pytest.approx(together.objective, rel=1e-8)
    # The same factors have the same objective, whichever way the problem is written.
    parts = arrays(coupled)
    strengths = coupled.weights
    joined = {"p": parts["p"], "both": np.concatenate([parts[m] * strengths.values[k] for k, m in enumerate("es")])}
    again = fit(whole, ts.NMF(RANK), start=ts.From(joined), **options)
    assert float(again.history[0]) == pytest.approx(coupled.objective, rel=1e-10)
    assert again.objective == pytest.approx(coupled.objective, rel=1e-8)
    spectra = arrays(together)["both"]
    np.testing.assert_allclose(
        arrays(together)["p"] * together.weights.values @ spectra[:size].T,
        coupled.reconstruct("first"),
        atol=1e-4 * float(first.max()),
    )


def test_the_same_call_gives_the_same_bits():
    first, second = (fit(PAIR, MODEL, start=ts.Random(), restarts=2, seed=4, max_sweeps=40) for _ in range(2))
    assert first.objective == second.objective
    np.testing.assert_array_equal(first.history, second.history)
    for mode in SIZES:
        np.testing.assert_array_equal(first.factors[mode], second.factors[mode])
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.spread, second.spread)
