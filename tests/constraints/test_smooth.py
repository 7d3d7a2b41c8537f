"""Smooth: the bending energy of a grid, in its units, and the smooth non-negative factor."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorspec as ts
from tensorspec.algebra.pentadiagonal import solve_pentadiagonal
from tensorspec.constraints import bending
from tensorspec.constraints.grid import plain_grid
from tensorspec.errors import InvalidData

from .problems import SIZE, context, fit, optimum, question, solved

pytestmark = pytest.mark.slow

UNEVEN = np.cumsum(np.random.default_rng(0).uniform(0.3, 2.0, SIZE))


def on(coordinates, strength=1.0):
    return ts.Smooth(strength).resolve(context(tuple(len(c) for c in coordinates), tuple(coordinates)))


def operator(x):
    """Second divided differences times the root of their weight, written out point by point."""
    rows = []
    for k in range(1, len(x) - 1):
        left, right = x[k] - x[k - 1], x[k + 1] - x[k]
        row = np.zeros(len(x))
        row[k - 1 : k + 2] = np.array([1 / left, -1 / left - 1 / right, 1 / right]) / ((left + right) / 2)
        rows.append(np.sqrt((left + right) / 2) * row)
    return np.array(rows)


@pytest.mark.parametrize(
    "x", [np.arange(12.0), UNEVEN, UNEVEN[::-1], 1e-9 * UNEVEN], ids=["even", "uneven", "falling", "m"]
)
def test_the_proximal_map_solves_the_normal_equations(x):
    values = np.random.default_rng(1).standard_normal((SIZE, 3))
    unit = np.mean(np.abs(np.diff(x))) ** 3
    for strength in (0.3 * unit, 1e6 * unit):
        item = on([x], strength)
        found = np.asarray(item.prox(values, 0.7))
        # As a least-squares problem, whose condition is the root of that of the normal equations.
        stacked = np.concatenate([np.eye(SIZE), np.sqrt(0.7 * strength) * operator(np.abs(x - x[0]))])
        exact = np.linalg.lstsq(stacked, np.concatenate([values, np.zeros((SIZE - 2, 3))]), rcond=None)[0]
        np.testing.assert_allclose(found, exact, atol=1e-9)
        energy = np.sum((operator(np.abs(x - x[0])) @ values) ** 2)
        assert float(item.value(values)) == pytest.approx(0.5 * strength * energy, rel=1e-10)


def test_a_strong_penalty_is_the_regression_line_however_many_points():
    rng = np.random.default_rng(2)
    for count in (60, 400):
        x = np.cumsum(rng.uniform(0.5, 2, count))
        values = rng.standard_normal((count, 2))
        found = np.asarray(on([x], 1e18).prox(values, 1.0))
        exact = np.stack([np.polyval(np.polyfit(x, column, 1), x) for column in values.T], axis=1)
        np.testing.assert_allclose(found, exact, atol=1e-9)
        # Between: the smallest eigenvalues keep their digits, so a gentle bow costs what it should.
        bow = ((x - x.mean()) / x.std()) ** 2
        stacked = np.concatenate([np.eye(count), np.sqrt(1e9) * operator(x)])
        exact = np.linalg.lstsq(stacked, np.concatenate([bow, np.zeros(count - 2)]), rcond=None)[0]
        np.testing.assert_allclose(on([x], 1e9).prox(bow, 1.0), exact, atol=1e-9)


smoothed = jax.jit(lambda item, values, step: item.prox(values, step))


@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
def test_a_long_axis_has_the_same_smooth_columns(even, monkeypatch):
    rng = np.random.default_rng(6)
    count = 201
    x = 0.1 * np.arange(count) if even else np.cumsum(rng.uniform(0.05, 0.2, count))
    values = np.stack([rng.standard_normal(count), ((x - x.mean()) / x.std()) ** 2, 3 * x - 1], axis=1)
    full = on([x])
    monkeypatch.setattr(bending, "_LONG", 100)
    long = on([x])
    assert type(full.bending).__name__ == "_Modes" and type(long.bending).__name__ == "_LongAxis"
    assert long.bending.smoothest.shape[1] < 40
    assert float(long.value(values)) == pytest.approx(float(full.value(values)), rel=1e-12)
    before = smoothed._cache_size()
    for strength in 10.0 ** np.arange(-6, 19, 3):
        found = np.asarray(smoothed(long, values, strength))
        np.testing.assert_allclose(found, full.prox(values, strength), atol=1e-9)
        if strength < 1e8:
            stacked = np.concatenate([np.eye(count), np.sqrt(strength) * operator(x)])
            exact = np.linalg.lstsq(stacked, np.concatenate([values, np.zeros((count - 2, 3))]), rcond=None)[0]
            np.testing.assert_allclose(found, exact, atol=1e-10)
    assert smoothed._cache_size() == before + 1  # a new strength never compiles again
    steps = np.array([[0.0, 1e-2, 1e5]])
    each = [full.prox(values[:, k], steps[0, k]) for k in range(3)]
    np.testing.assert_allclose(smoothed(long, values, steps), np.stack(each, axis=1), atol=1e-9)
    single = smoothed(long, values.astype(np.float32), 1e-2)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, full.prox(values, 1e-2), atol=1e-5)
    # What a banded system cannot do goes the other way.
    rough = np.cumsum(np.exp(2 * rng.standard_normal(count)))
    assert type(on([rough]).bending).__name__ == "_Modes"
    with jax.enable_x64(False):
        assert type(on([x]).bending).__name__ == "_Modes"


@pytest.mark.parametrize("size", [3, 4, 33])
def test_systems_of_five_diagonals_are_solved(size):
    rng = np.random.default_rng(size)
    root = np.tril(np.triu(rng.standard_normal((size, size)), -2)) + 3 * np.eye(size)
    matrix, right = root @ root.T, rng.standard_normal((size, 2))
    diagonals = [np.diag(matrix, k)[:, None] for k in range(3)]
    solve = jax.jit(solve_pentadiagonal)
    np.testing.assert_allclose(solve(*diagonals, right), np.linalg.solve(matrix, right), rtol=1e-9)
    several = [np.concatenate([item, 2 * item], axis=1) for item in diagonals]
    np.testing.assert_allclose(solve(*several, right), np.linalg.solve(matrix, right) / [1, 2], rtol=1e-9)


def test_free_ends():
    x = np.linspace(0, 5, 40)
    for line in (np.full(40, 3.0), 2 * x - 7):
        assert float(on([x], 1e3).value(line[:, None])) < 1e-15
        np.testing.assert_allclose(on([x], 1e3).prox(line, 1.0), line, atol=1e-12)
    # Nothing pulls the ends to zero, nor flattens the slope there: a parabola keeps both, up to what bending costs.
    y, z = np.meshgrid(np.linspace(0, 2, 6), UNEVEN[:7], indexing="ij")
    plane = (1 + 2 * y - 3 * z).ravel()
    item = on([np.linspace(0, 2, 6), UNEVEN[:7]], 1e3)
    assert float(item.value(plane[:, None])) < 1e-12
    np.testing.assert_allclose(item.prox(plane, 1.0), plane, atol=1e-11)


def test_the_value_does_not_depend_on_the_step():
    def function(x):
        return np.sin(3 * x) + x**3

    exact = 0.5 * np.trapezoid((-9 * np.sin(3 * (t := np.linspace(0, 2, 200001))) + 6 * t) ** 2, t)
    errors = [
        float(on([x := np.linspace(0, 2, n)]).value(function(x)[:, None])) / exact - 1 for n in (101, 201, 401, 801)
    ]
    assert abs(errors[-1]) < 0.01
    # The ends have no second derivative, so the error falls with the step.
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.1)

    def values(n):
        y, x = np.linspace(0, 2, n), np.linspace(0, 3, 2 * n)
        return float(on([y, x]).value((function(y)[:, None] * np.cos(x)).reshape(-1, 1)))

    assert values(160) == pytest.approx(values(80), rel=0.03)
    assert values(160) == pytest.approx(values(320), rel=0.015)


def test_a_map_is_smoothed_along_both_axes():
    y, x = np.array([0.0, 0.5, 2.0]), np.array([0.0, 1.0, 3.0, 4.0])
    rng = np.random.default_rng(3)
    values = rng.standard_normal((12, 1))
    dy, dx = operator(y), operator(x)
    energy = np.kron(dy.T @ dy, np.eye(4)) * np.mean(np.diff(x)) + np.kron(np.eye(3), dx.T @ dx) * np.mean(np.diff(y))
    item = on([y, x], 0.8)
    exact = np.linalg.solve(np.eye(12) + 0.8 * 0.6 * energy, values)
    np.testing.assert_allclose(item.prox(values, 0.6), exact, atol=1e-12)
    assert float(item.value(values)) == pytest.approx(0.4 * float((values.T @ energy @ values)[0, 0]), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-2, 4))
def test_the_proximal_map_is_firmly_non_expansive(seed, exponent):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, SIZE, 2))
    item = on([UNEVEN], 10**exponent)
    gap = np.asarray(item.prox(a, 1.0)) - np.asarray(item.prox(b, 1.0))
    assert np.sum(gap**2) <= np.sum(gap * (a - b)) + 1e-12


@pytest.mark.parametrize("weighted", [False, True], ids=["complete", "weighted"])
@pytest.mark.parametrize("nonnegative", [False, True], ids=["signed", "non-negative"])
def test_the_minimum_by_an_independent_program(nonnegative, weighted):
    items = [ts.Smooth(2.0)] + ([ts.NonNegative()] if nonnegative else [])
    block = question(items, weighted, context(coordinates=(UNEVEN,)))
    exact, value = optimum(
        lambda a: cp.sum_squares(operator(UNEVEN) @ a), (lambda a: [a >= 0]) if nonnegative else lambda a: [], weighted
    )
    found, reached = solved(block, ts.AOADMM(inner=2000))
    assert reached == pytest.approx(value, rel=1e-8)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    by_column = ts.HALS(inner=500)
    if nonnegative:
        assert block.constraints[0].splits == 2
        # Clipping the smooth solution is another answer, and a worse one.
        smooth, _ = solved(question([ts.Smooth(2.0)], weighted, context(coordinates=(UNEVEN,))), ts.AOADMM(inner=2000))
        clipped = np.maximum(smooth, 0)
        assert smooth.min() < -0.01
        loss = float(block.equations[0].value(jnp.asarray(clipped)) + block.constraints[0].value(jnp.asarray(clipped)))
        assert loss > value + 1e-3 * abs(value)
    elif not weighted:
        assert solved(block, by_column)[1] == pytest.approx(value, rel=1e-8)
    else:
        assert "differ in weight" in by_column.refusal(block.constraints[0], True, (False, False))


def spectra_of(energy):
    return np.stack([np.exp(-(((energy - c) / 60) ** 2)) for c in (480.0, 600.0, 760.0)]) + 0.05


def noisy_image(scale=1.0, level=0.35):
    rng = np.random.default_rng(4)
    energy = np.linspace(400, 900, 80)
    maps = rng.random((5, 6, 3)) ** 2
    clean = maps @ spectra_of(energy)
    data = clean + level * clean.std() * rng.standard_normal(clean.shape)
    return xr.DataArray(scale * data, dims=("y", "x", "energy"), coords={"energy": energy}), scale * clean


def miss(result, clean):
    return np.linalg.norm(result.reconstruct().transpose("y", "x", "energy").values - clean) / np.linalg.norm(clean)


def test_smooth_spectra_are_found_in_noise_at_any_unit_of_the_data():
    data, clean = noisy_image()
    plain = fit(data, ts.NMF(3))
    model = ts.NMF(3, {"energy": ts.Smooth(3e5)})
    smooth = fit(data, model)
    assert miss(smooth, clean) < 0.8 * miss(plain, clean)
    for scale in (1e-6, 1e6):
        other = fit(noisy_image(scale)[0], model)
        np.testing.assert_allclose(
            other.reconstruct().values, scale * smooth.reconstruct().values, rtol=0, atol=1e-6 * scale
        )
        assert other.objective == pytest.approx(smooth.objective, rel=1e-8)
    with_units = data.assign_coords(energy=data.energy / 1000)
    other = fit(with_units, ts.NMF(3, {"energy": ts.Smooth(3e5 / 1000**3)}))
    assert other.objective == pytest.approx(smooth.objective, rel=1e-8)


def test_pixels_that_were_never_measured_are_bridged_and_come_back_nan():
    rng = np.random.default_rng(5)
    y, x = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 8), indexing="ij")
    maps = np.stack([1 + np.sin(2 * y), 1.5 + np.cos(2 * x + y)], axis=-1)
    energy = np.linspace(400, 900, 30)
    clean = maps @ spectra_of(energy)[:2]
    data = xr.DataArray(
        clean + 0.3 * rng.standard_normal(clean.shape), dims=("y", "x", "energy"), coords={"energy": energy}
    )
    data[3:5, 2:4] = np.nan
    model = ts.NMF(2, {"pixel": ts.Smooth(3.0)})
    with pytest.warns(UserWarning, match="4 of 72 points of mode 'pixel' were measured in no tensor"):
        result = fit(data, model)
    with pytest.warns(UserWarning):
        plain = fit(data, ts.NMF(2))
    assert int(result.factors["pixel"].isnull().sum()) == 8
    assert np.isfinite(result.factors["energy"]).all()

    def distance(found):
        difference = found.reconstruct().transpose("y", "x", "energy").values - clean
        return np.sqrt(np.nanmean(difference**2))

    assert distance(result) < 0.7 * distance(plain)


def test_grids_that_are_no_grids_are_refused_by_name():
    data, _ = noisy_image()
    twice = data.assign_coords(energy=np.r_[400.0, 400.0, data.energy.values[2:]])
    with pytest.raises(InvalidData, match="Smooth on mode 'energy'.*sort the data"):
        fit(twice, ts.NMF(3, {"energy": ts.Smooth(1.0)}))
    with pytest.raises(ts.InvalidArgument, match="no automatic strength"):
        ts.Smooth("auto")


def test_short_axes_have_nothing_to_bend():
    values = np.random.default_rng(0).standard_normal((2, 2))
    assert float(ts.Smooth(5.0).value(values)) == 0
    np.testing.assert_allclose(ts.Smooth(5.0).prox(values, 1.0), values, atol=1e-15)
    single = ts.Smooth(5.0).resolve(plain_grid(5)._replace(shape=(1, 5), coordinates=(None, None)))
    column = np.random.default_rng(1).standard_normal(5)
    np.testing.assert_allclose(single.prox(column, 1.0), ts.Smooth(5.0).prox(column, 1.0), atol=1e-14)
