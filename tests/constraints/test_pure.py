"""Pure pixels: the nearest factor by trying every assignment, whom it goes with, and spectra that it finds."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import tensorspec as ts
from tensorspec.constraints.compose import ModeConstraints, combine
from tensorspec.constraints.pure import PureSimplex, assign
from tensorspec.constraints.simplex import Simplex

from .problems import angles, context, fit

project = jax.jit(lambda item, values: item.project(values))


def by_trying_all(values, pure):
    """The nearest factor among those of every assignment of pixels to components."""
    size, columns = values.shape
    nearest = np.asarray(Simplex("component").project(values))
    best, found = np.inf, None
    for pixels in permutations(range(size), len(pure)):
        factor = nearest.copy()
        factor[list(pixels)] = np.eye(columns)[list(pure)]
        distance = np.sum((factor - values) ** 2)
        if distance < best:
            best, found = distance, factor
    return found, best


@pytest.mark.parametrize("pure", [pytest.param((0, 1, 2), marks=pytest.mark.slow), (2, 0)], ids=["all", "two of three"])
def test_the_projection_is_the_nearest_of_all_assignments(pure):
    rng = np.random.default_rng(0)
    for trial in range(40):
        values = rng.standard_normal((7, 3)) * rng.choice([0.2, 1.0, 5.0]) + rng.choice([-1.0, 0.0, 1.0])
        if trial % 4 == 0:
            values[1:] = values[0] + 1e-3 * values[1:]  # all components like the same pixel
        found = np.asarray(project(PureSimplex(pure), jnp.asarray(values)))
        exact, distance = by_trying_all(values, pure)
        assert np.sum((found - values) ** 2) == pytest.approx(distance, rel=1e-12)
        np.testing.assert_allclose(found, exact, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 9), (6, 500)])
def test_the_assignment_is_that_of_scipy(shape):
    rng = np.random.default_rng(1)
    for kind in (rng.standard_normal(shape), rng.integers(0, 3, shape).astype(float)):
        found = np.asarray(jax.jit(assign)(jnp.asarray(kind)))
        rows, exact = linear_sum_assignment(kind)
        assert len(set(found.tolist())) == shape[0]
        assert kind[rows, found].sum() == pytest.approx(kind[rows, exact].sum(), abs=1e-12)


def test_it_joins_its_partners_in_any_order():
    partners = [ts.NonNegative(), ts.SumToOne("component"), ts.PurePixel()]
    for items in permutations(partners):
        rules = ModeConstraints(combine(items), 3)
        assert rules.splits == 1 and rules.nonnegative
        assert [item for item in rules.members if isinstance(item, PureSimplex)] == [PureSimplex()]
    some = [ts.SumToOne("component", components=[1, 3, 4]), ts.NonNegative(), ts.PurePixel(components=[4, 1])]
    assert PureSimplex((2, 0), components=[1, 3, 4]) in combine(some)


def mixed(noise=0.0, size=80, rank=3, seed=0):
    """Mixtures of spectra with one pure pixel for each, no other above 80 %."""
    rng = np.random.default_rng(seed)
    energy = np.linspace(0, 1, 60)
    spectra = 0.3 + np.stack([np.exp(-0.5 * ((energy - c) / 0.08) ** 2) for c in (0.3, 0.45, 0.65)][:rank])
    maps = rng.dirichlet(np.full(rank, 0.8), 4 * size)
    maps = maps[maps.max(axis=1) < 0.8][:size]
    maps[:rank] = np.eye(rank)
    clean = maps @ spectra
    data = clean + noise * rng.standard_normal(clean.shape)
    return xr.DataArray(data, dims=("x", "energy"), coords={"energy": energy}), spectra, maps


def matched(result, spectra):
    found = result.spectra().values
    apart = np.stack([angles(np.repeat(row[None], len(spectra), axis=0), spectra) for row in found])
    return apart[linear_sum_assignment(apart)].max()


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "degrees"), [(0.0, 1e-3), (0.01, 0.8), (0.03, 2.0)])
def test_spectra_that_were_measured_somewhere_are_found(noise, degrees):
    data, spectra, _ = mixed(noise)
    # Abundances alone fit as well, and leave the spectra open: up to 15 degrees off, as the restarts happen to fall.
    plain = fit(data, ts.NMF(3, {"pixel": ts.SumToOne("component")}), restarts=3)
    found = fit(data, ts.NMF(3, {"pixel": [ts.SumToOne("component"), ts.PurePixel()]}), restarts=3)
    assert matched(found, spectra) < degrees
    assert found.converged and (np.diff(found.history) <= 0).all()
    assert {int(np.argmax(row)) for row in found.factors["pixel"].values} == {0, 1, 2}
    if noise:
        assert float((found.residual() ** 2).sum()) < 1.002 * float((plain.residual() ** 2).sum())
        # Every start comes to the same pixels.
        assert found.spread.max() < 1.001 * found.spread.min()


def test_it_is_refused_without_its_partners():
    data = mixed()[0]
    for items in ([], [ts.SumToOne("mode")], [ts.SumToOne("component", components=[1, 2])]):
        with pytest.raises(ts.ConstraintConflict, match="PurePixel.*needs NonNegative.*SumToOne.'component'"):
            fit(data, ts.NMF(3, {"pixel": [*items, ts.PurePixel()]}))
    with pytest.raises(ts.ConstraintConflict, match="PurePixel.*needs NonNegative"):
        fit(data, ts.CP(3, {"pixel": [ts.SumToOne("component"), ts.PurePixel()]}))
    with pytest.raises(ts.ConstraintConflict, match="3 components need as many pixels, and there are 2"):
        PureSimplex().resolve(context((2,), rank=3))
