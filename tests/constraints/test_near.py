"""Near: a quadratic pull to given values, exact beside other entry-wise constraints."""

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.errors import ConstraintConflict

from .problems import RANK, SIZE, angles, context, fit, optimum, question, rules, solved

GIVEN = np.random.default_rng(0).standard_normal((SIZE, RANK))
GIVEN[3:6, 0] = np.nan
SETS = {
    "alone": [],
    "sparse": [ts.Sparse(0.6)],
    "sparse, non-negative": [ts.NonNegative(), ts.Sparse(0.6)],
    "sparse, box": [ts.Sparse(0.6), ts.Box(-0.3, 0.4)],
    "another one": [ts.Near(0 * GIVEN + 1, 0.5), ts.Sparse(0.6), ts.NonNegative(components=[2])],
}


def cost(items, grid, column, row):
    """What the constraints add for the values of one entry."""
    total = np.zeros_like(grid)
    for item in items:
        if item.components is not None and column + 1 not in item.components:
            continue
        match item:
            case ts.Near():
                given = item.values[row, column]
                total += 0 if np.isnan(given) else 0.5 * item.strength * (grid - given) ** 2
            case ts.Sparse():
                total += item.strength * np.abs(grid)
            case ts.NonNegative():
                total += np.where(grid < 0, np.inf, 0)
            case ts.Box():
                total += np.where((grid < item.lower) | (grid > item.upper), np.inf, 0)
    return total


@pytest.mark.parametrize("name", SETS)
def test_the_joint_proximal_map_by_brute_force(name):
    # The order in the list does not matter.
    items = [*SETS[name], ts.Near(GIVEN, 1.7)]
    both = rules(items)
    assert both.splits == 1
    values = 2 * np.random.default_rng(1).standard_normal((SIZE, RANK))
    grid = np.linspace(-4, 4, 80001)
    for step in (0.4, np.array([[0.4, 2.0]]), np.linspace(0.1, 2, SIZE)[:, None]):
        found = np.asarray(both.prox(jnp.asarray(values), step))
        steps = np.broadcast_to(step, values.shape)
        for row in range(SIZE):
            for column in range(RANK):
                total = cost(items, grid, column, row) + (grid - values[row, column]) ** 2 / (2 * steps[row, column])
                assert found[row, column] == pytest.approx(grid[np.argmin(total)], abs=1.1e-4)
    whole = both.prox(jnp.asarray(values), 0.4)
    for column in range(RANK):
        np.testing.assert_allclose(both.prox(jnp.asarray(values[:, column]), 0.4, column=column), whole[:, column])


def test_known_entries_win():
    known = np.full((SIZE, 1), np.nan)
    known[2] = 0.25
    both = rules([ts.Near(GIVEN, 3.0), ts.Fixed(known, components=[2])])
    found = both.prox(jnp.zeros((SIZE, RANK)), 1.0)
    assert both.splits == 1 and float(found[2, 1]) == 0.25


@pytest.mark.parametrize("weighted", [False, True], ids=["complete", "weighted"])
def test_the_minimum_by_an_independent_program(weighted):
    block = question([ts.NonNegative(), ts.Sparse(0.5), ts.Near(GIVEN, 4.0)], weighted)
    filled, free = np.nan_to_num(GIVEN), np.isnan(GIVEN)
    exact, value = optimum(
        lambda a: 2.0 * cp.sum_squares(cp.multiply(~free, a - filled)) + 0.5 * cp.sum(a), lambda a: [a >= 0], weighted
    )
    for solver in (ts.HALS(inner=500), ts.AOADMM(inner=1000)):
        found, reached = solved(block, solver)
        assert reached == pytest.approx(value, rel=1e-8)
        np.testing.assert_allclose(found[~free], exact[~free], atol=1e-4)


ENERGY = np.linspace(0, 10, 40)
SPECTRA = np.stack([np.exp(-((ENERGY - c) ** 2) / 6) + 0.2 for c in (3.0, 5.0)])


def overlapping(scale=1.0):
    rng = np.random.default_rng(2)
    maps = rng.random((6, 6, 2)) + 0.5  # no pure pixel: without help the spectra are not determined
    data = maps @ SPECTRA
    data = data + 0.02 * data.std() * rng.standard_normal(data.shape)
    return xr.DataArray(scale * data, dims=("y", "x", "energy"), coords={"energy": ENERGY}), maps


def reference(noise=0.05):
    values = SPECTRA + noise * np.random.default_rng(3).standard_normal(SPECTRA.shape)
    coords = {"component": [1, 2], "energy": ENERGY}
    # In another order, and with a gap: aligned by coordinates.
    return (
        xr.DataArray(values, dims=("component", "energy"), coords=coords)
        .isel(energy=slice(None, None, -1))
        .where(lambda x: x.energy != x.energy[7])
    )


def test_a_rough_reference_decides_between_mixtures():
    data, _ = overlapping()
    model = ts.NMF(2, {"energy": ts.Near(reference(), 1.0)})
    near, plain = fit(data, model), fit(data, ts.NMF(2))

    def miss(result):
        found = result.factors["energy"].values
        return min(max(np.radians(angles(found[list(order)], SPECTRA))) for order in ((0, 1), (1, 0)))

    assert miss(plain) > 0.15
    assert miss(near) < 0.05
    # The reference is rough, and the fit cleans it.
    rough = reference().sortby("energy").fillna(0).values
    assert miss(near) < np.linalg.norm(rough[0] - SPECTRA[0]) / np.linalg.norm(SPECTRA[0])
    for scale in (1e-6, 1e6):
        other = fit(overlapping(scale)[0], model)
        np.testing.assert_allclose(other.reconstruct(), scale * near.reconstruct(), rtol=1e-4)
        np.testing.assert_allclose(other.factors["energy"], near.factors["energy"], rtol=1e-4)


def test_values_on_the_amplitudes_are_in_data_units():
    data, maps = overlapping()
    known = xr.DataArray(maps, dims=("y", "x", "component"), coords={"component": [1, 2]})
    strong = fit(data, ts.NMF(2, {"pixel": ts.Near(known, 1e6)}), rescale=False)
    np.testing.assert_allclose(strong.factors["pixel"].transpose("y", "x", "component"), maps, atol=1e-3)
    one = fit(data, ts.NMF(2, {"pixel": ts.Near(known, 3.0)}, scale="pixel"))
    for scale in (1e-6, 1e6):
        other = fit(overlapping(scale)[0], ts.NMF(2, {"pixel": ts.Near(scale * known, 3.0)}, scale="pixel"))
        assert other.objective == pytest.approx(one.objective, rel=1e-6)
        np.testing.assert_allclose(other.reconstruct(), scale * one.reconstruct(), rtol=1e-4)


def test_it_is_saved_and_repeated(tmp_path):
    data, _ = overlapping()
    result = fit(data, ts.NMF(2, {"energy": ts.Near(reference(), 1.0)}))
    result.save(tmp_path / "fit.h5")
    xr.testing.assert_identical(ts.open(tmp_path / "fit.h5").model.constraints["energy"][0].values, reference())
    again = ts.refit(tmp_path / "fit.h5", data)
    assert again.objective == result.objective


def test_what_it_cannot_hold_is_refused():
    with pytest.raises(ConstraintConflict, match=r"Near on mode 'mode': expected values of shape \(size 12, comp"):
        rules([ts.Near(np.ones((3, 2)), 1.0)])
    with pytest.raises(ConstraintConflict, match="Near on mode 'mode' holds no known value"):
        ts.Near(np.full((SIZE, RANK), np.nan), 1.0).resolve(context())
    with pytest.raises(ConstraintConflict, match="infinite values"):
        ts.Near(np.full((SIZE, RANK), np.inf), 1.0).resolve(context())
    data, maps = overlapping()
    known = xr.DataArray(maps, dims=("y", "x", "component"))
    result = fit(data, ts.NMF(2, {"pixel": ts.Near(known, 3.0)}))
    with pytest.raises(ConstraintConflict, match="mode 'pixel' has Near values, which belong to the samples"):
        result.transform(data)
