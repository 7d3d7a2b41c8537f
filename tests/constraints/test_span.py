"""Span: the nearest combination of a dictionary, however nearly dependent its atoms are."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

import tensorspec as ts
from tensorspec.errors import ConstraintConflict, InvalidArgument, ModeMismatch

from .problems import SIZE, angles, context, fit, optimum, question, rules, solved

pytestmark = pytest.mark.slow

ENERGY = np.linspace(400.0, 900.0, 101)
POWERS = ENERGY[:, None] ** -np.arange(2.0, 6.0)
ATOMS = np.random.default_rng(0).random((SIZE, 4))
DICTIONARIES = {
    "powers of the energy": POWERS,
    "many powers": ENERGY[:, None] ** -np.arange(1.0, 9.0),  # a condition number of 2e7
    "both signs": np.random.default_rng(1).standard_normal((30, 12)),
    "twice": np.repeat(np.random.default_rng(2).random((30, 4)), 2, axis=1),
    "more atoms than points": np.random.default_rng(3).random((6, 10)),
    "one": np.random.default_rng(4).random((7, 1)),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_nearest_point_by_scipy(name):
    atoms, rng = DICTIONARIES[name], np.random.default_rng(5)
    item = ts.Span(atoms)
    values = (atoms / np.linalg.norm(atoms, axis=0)) @ rng.standard_normal((atoms.shape[1], 40))
    values = values + 0.3 * rng.random(40) * rng.standard_normal(values.shape)
    found = np.asarray(jax.jit(lambda v: item.project(v))(values))
    unit = atoms / np.linalg.norm(atoms, axis=0)
    exact = np.stack([unit @ nnls(unit, column)[0] for column in values.T], axis=1)
    np.testing.assert_allclose(found, exact, atol=1e-12)
    # Nearest in the cone: the rest is perpendicular to the point, and points away from every atom.
    rest = values - found
    assert np.abs(np.sum(rest * found, axis=0)).max() < 1e-11
    assert (unit.T @ rest).max() < 1e-11
    np.testing.assert_allclose(item.project(jnp.asarray(found)), found, atol=1e-12)


def test_a_subspace_of_both_signs():
    for atoms in (POWERS, DICTIONARIES["twice"]):
        values = np.random.default_rng(6).standard_normal((len(atoms), 5))
        item = ts.Span(atoms, nonnegative=False)
        unit = atoms / np.linalg.norm(atoms, axis=0)
        exact = unit @ np.linalg.lstsq(unit, values, rcond=None)[0]
        np.testing.assert_allclose(item.project(values), exact, atol=1e-11)
        np.testing.assert_allclose(atoms @ item.coefficients(values), exact, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_projection_is_firmly_non_expansive(seed):
    a, b = np.random.default_rng(seed).standard_normal((2, SIZE, 2))
    gap = np.asarray(project(a)) - np.asarray(project(b))
    assert np.sum(gap**2) <= np.sum(gap * (a - b)) + 1e-12


@jax.jit
def project(values):
    return ts.Span(ATOMS).project(values)


@pytest.mark.parametrize(
    "weighted", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["complete", "weighted"]
)
def test_the_minimum_by_an_independent_program(weighted):
    block = question([ts.Span(ATOMS, components=[2])], weighted)
    weight = cp.Variable(4, nonneg=True)
    _, value = optimum(lambda a: 0, lambda a: [a[:, 1] == ATOMS @ weight], weighted)
    assert solved(block, ts.AOADMM(inner=400))[1] == pytest.approx(value, rel=1e-7)
    if not weighted:
        assert solved(block, ts.HALS(inner=60))[1] == pytest.approx(value, rel=1e-8)


def test_non_negativity_is_implied_by_a_positive_dictionary():
    assert rules([ts.NonNegative(), ts.Span(ATOMS)]).splits == 1
    some = rules([ts.NonNegative(), ts.Span(ATOMS, components=[1])])
    assert some.splits == 1 and some.nonnegative
    values = np.random.default_rng(0).standard_normal((SIZE, 2))
    found = np.asarray(some.prox(jnp.asarray(values), 1.0))
    np.testing.assert_allclose(found[:, 0], ts.Span(ATOMS).project(values[:, 0]), atol=1e-14)
    np.testing.assert_array_equal(found[:, 1], np.maximum(values[:, 1], 0))
    for other in (ts.Span(ATOMS - 0.5), ts.Span(ATOMS, nonnegative=False)):
        assert rules([ts.NonNegative(), other]).splits == 2


def edge_image(scale=1.0):
    """Two elements' edges on a background of powers whose mixture changes from pixel to pixel."""
    rng = np.random.default_rng(7)
    background = POWERS @ (np.array([0.2, 1.0, 1.0, 0.1]) / POWERS[0])
    edges = np.stack([np.where(ENERGY > at, np.exp(-(ENERGY - at) / 150), 0) for at in (532.0, 708.0)])
    spectra = np.stack([edges[0], edges[1], background / background.max() * 3])
    maps = rng.random((7, 6, 3))
    clean = maps @ spectra
    data = clean + 0.1 * rng.standard_normal(clean.shape)
    return xr.DataArray(scale * data, dims=("y", "x", "energy_loss"), coords={"energy_loss": ENERGY}), spectra


def powers(energy=ENERGY):
    values = energy[:, None] ** -np.arange(2.0, 6.0)
    return xr.DataArray(
        values, dims=("energy_loss", "power"), coords={"energy_loss": energy, "power": [-2.0, -3.0, -4.0, -5.0]}
    )


def test_a_background_of_powers_is_told_from_edges():
    data, spectra = edge_image()
    wider = powers(np.linspace(300.0, 1000.0, 141))  # the data's points are among these
    model = ts.NMF(3, {"energy_loss": ts.Span(wider, components=[3])})
    spanned, plain = fit(data, model, tol=1e-8), fit(data, ts.NMF(3), tol=1e-8)
    assert spanned.solver == "HALS"

    def background(result):
        return min(angles(result.factors["energy_loss"].values[[k]], spectra[[2]])[0] for k in range(3))

    assert angles(spanned.factors["energy_loss"].values[[2]], spectra[[2]])[0] < 1.0 < 0.2 * background(plain)
    found = spanned.factors["energy_loss"].sel(component=3)
    item = model.constraints["energy_loss"][0]
    weights = item.coefficients(found)
    assert weights.dims == ("power",) and float(weights.min()) >= 0
    mixture = (wider * weights).sum("power").sel(energy_loss=ENERGY)
    np.testing.assert_allclose(mixture, found, atol=1e-8)
    assert item.coefficients(spanned.factors["energy_loss"]).sizes == {"power": 4, "component": 3}
    for scale in (1e-6, 1e6):
        other = fit(edge_image(scale)[0], model, tol=1e-8)
        assert other.objective == pytest.approx(spanned.objective, rel=1e-6)
        np.testing.assert_allclose(other.reconstruct(), scale * spanned.reconstruct(), atol=1e-3 * scale)


def test_it_is_saved_and_repeated(tmp_path):
    data, _ = edge_image()
    result = fit(data, ts.NMF(3, {"energy_loss": ts.Span(powers(), components=[3])}), max_sweeps=20)
    result.save(tmp_path / "fit.h5")
    xr.testing.assert_identical(ts.open(tmp_path / "fit.h5").model.constraints["energy_loss"][0].dictionary, powers())
    assert ts.refit(tmp_path / "fit.h5", data).objective == result.objective


def test_missing_entries_and_transform():
    data, _ = edge_image()
    rng = np.random.default_rng(8)
    holes = data.where(xr.DataArray(rng.random(data.shape) > 0.2, dims=data.dims))
    result = fit(holes, ts.NMF(3, {"energy_loss": ts.Span(powers(), components=[3])}))
    assert result.provenance["violations"]["energy_loss"] < 1e-9
    assert float(abs(result.reconstruct() - data).mean()) < 0.12
    maps = result.transform(data)
    assert maps.sizes == {"component": 3, "y": 7, "x": 6}


def test_contradictions_are_refused_with_the_reason():
    data, _ = edge_image()
    known = xr.DataArray(np.ones(101), dims="energy_loss")

    def complaint(*items, match, error=ConstraintConflict):
        with pytest.raises(error, match=match):
            fit(data, ts.NMF(3, {"energy_loss": list(items)}))

    complaint(
        ts.Span(powers(), components=[3]),
        ts.Fixed(known, components=[3]),
        match="mode 'energy_loss': Fixed gives entries of component 3 that Span can reach by chance only.*use Near",
    )
    complaint(
        ts.Span(powers()), ts.Span(powers(), components=[1]), match="two Span constraints act on the same columns"
    )
    short = powers(ENERGY[3:])
    complaint(
        ts.Span(short),
        match="no value at 3 of 101 points of the data, the first at energy_loss 400",
        error=ModeMismatch,
    )
    complaint(ts.Span(POWERS[:5]), match="has 5 points a column, the mode 101", error=InvalidArgument)
    complaint(ts.Span(np.zeros((101, 2))), match=r"atom \[1, 2\] of the dictionary is zero", error=InvalidArgument)
    complaint(ts.Span(powers() * np.nan), match="holds NaN or infinite values", error=InvalidArgument)
    complaint(ts.Span(powers().expand_dims("other")), match="and one of atoms", error=InvalidArgument)
    fit(
        data,
        ts.NMF(3, {"energy_loss": [ts.Span(powers(), components=[3]), ts.Fixed(known, components=[1])]}),
        max_sweeps=1,
    )


def test_coefficients_of_a_column():
    item = ts.Span(POWERS)
    truth = np.array([2.0, 0.0, 5.0, 1.0]) / POWERS[50]
    np.testing.assert_allclose(item.coefficients(POWERS @ truth), truth, rtol=1e-9, atol=1e-9 * truth.max())
    with pytest.raises(InvalidArgument, match="the dictionary has 101 points"):
        item.coefficients(np.ones(5))
    with pytest.raises(InvalidArgument, match="expected those of the mode and one of atoms"):
        ts.Span(powers()).coefficients(xr.DataArray(np.ones(3), dims="elsewhere"))
    resolved = item.resolve(context((101,)))
    np.testing.assert_allclose(resolved.coefficients(POWERS @ truth), truth, rtol=1e-9, atol=1e-9 * truth.max())
