"""TotalVariation: exact along lines, to a stated tolerance on maps, together with entry-wise constraints."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorspec as ts
from tensorspec.constraints import total_variation
from tensorspec.solvers.base import block_value

from .problems import RANK, SIZE, context, fit, optimum, question, rules, solved

pytestmark = pytest.mark.slow


def taut_string(values, size):
    """The direct algorithm of Condat (doi:10.1109/LSP.2013.2278339), point by point."""
    count, found = len(values), np.zeros(len(values))
    k = first = lower_end = upper_end = 0
    low, high, up, down = values[0] - size, values[0] + size, size, -size
    while True:
        if k == count - 1:
            if up < 0:
                found[first : lower_end + 1] = low
                k = first = lower_end = lower_end + 1
                low, up, down = values[k], size, values[k] + size - high
            elif down > 0:
                found[first : upper_end + 1] = high
                k = first = upper_end = upper_end + 1
                high, down, up = values[k], -size, values[k] - size - low
            else:
                found[first:] = low + up / (k - first + 1)
                return found
        elif up + values[k + 1] - low < -size:
            found[first : lower_end + 1] = low
            k = first = lower_end = upper_end = lower_end + 1
            low, high, up, down = values[k], values[k] + 2 * size, size, -size
        elif down + values[k + 1] - high > size:
            found[first : upper_end + 1] = high
            k = first = lower_end = upper_end = upper_end + 1
            low, high, up, down = values[k] - 2 * size, values[k], size, -size
        else:
            k += 1
            up, down = up + values[k] - low, down + values[k] - high
            if up >= size:
                lower_end, low, up = k, low + (up - size) / (k - first + 1), size
            if down <= -size:
                upper_end, high, down = k, high + (down + size) / (k - first + 1), -size


@pytest.mark.parametrize("count", [1, 2, 3, 50, 300])
def test_lines_are_exact(count):
    rng = np.random.default_rng(count)
    prox = jax.jit(lambda values, size: ts.TotalVariation(size).prox(values, 1.0))
    for size in (1e-4, 0.1, 1.0, 30.0):
        for values in (
            rng.standard_normal((count, 3)),
            np.cumsum(rng.standard_normal((count, 3)), axis=0),
            np.round(rng.standard_normal((count, 3))),  # many ties
            np.arange(count * 3.0).reshape(count, 3),
        ):
            exact = np.stack([taut_string(column, size) for column in values.T], axis=1)
            np.testing.assert_allclose(prox(values, size), exact, atol=1e-12 * max(1, np.abs(values).max()))


def test_levels_are_level_and_columns_may_differ_in_step():
    rng = np.random.default_rng(0)
    values = np.repeat([0.0, 2.0, 1.0], 20)[:, None] + 0.2 * rng.standard_normal((60, 3))
    found = np.asarray(ts.TotalVariation(1.0).prox(values, np.array([[0.0, 4.0, 500.0]])))
    np.testing.assert_array_equal(found[:, 0], values[:, 0])
    assert len(np.unique(found[:, 1])) == 3
    np.testing.assert_allclose(found[:, 2], values[:, 2].mean(), rtol=1e-14)
    batched = jax.vmap(lambda column: ts.TotalVariation(1.0).prox(column, 4.0), in_axes=1, out_axes=1)(values)
    np.testing.assert_allclose(batched[:, 1], found[:, 1], atol=1e-14)


Y, X = np.array([0.0, 0.5, 2.0, 2.5]), np.array([0.0, 2.0, 3.0])


def on_map(a):
    """The total variation of a (12, columns) expression on the map: the mean steps are 5/6 and 3/2."""
    total = 0
    for k in range(4):
        for m in range(3):
            if k < 3:
                total = total + 1.5 * cp.norm1(a[3 * k + 3 + m] - a[3 * k + m])
            if m < 2:
                total = total + (2.5 / 3) * cp.norm1(a[3 * k + m + 1] - a[3 * k + m])
    return total


def on_map_of(a):
    return sum(on_map(a[:, column]) for column in range(RANK))


def test_maps_by_an_independent_program():
    item = ts.TotalVariation(0.35).resolve(context((4, 3), (Y, X)))
    for seed in range(3):
        values = 2 * np.random.default_rng(seed).standard_normal((12, 2))
        a = cp.Variable((12, 2))
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a - values) + 0.35 * 0.8 * on_map(a)))
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        found = np.asarray(item.prox(values, 0.8))
        np.testing.assert_allclose(found, a.value, atol=1e-6)
        reached = 0.5 * np.sum((found - values) ** 2) + 0.8 * float(item.value(found))
        assert reached == pytest.approx(problem.value, rel=1e-9)
        assert float(item.value(values)) == pytest.approx(0.35 * on_map(values).value, rel=1e-12)


def test_a_map_converges_to_the_stated_tolerance():
    rng = np.random.default_rng(1)
    image = np.kron(rng.random((4, 4)), np.ones((6, 6)))
    values = (image + 0.2 * rng.standard_normal(image.shape)).reshape(-1, 1)
    found = np.asarray(ts.TotalVariation(0.2).resolve(context((24, 24))).prox(values, 1.0)).reshape(24, 24)
    # Optimal exactly where x - v is a sum of pulls, one along each axis, of at most the size and full at an edge.
    edges = [cp.Variable((23, 24)), cp.Variable((24, 23))]
    pull = cp.vstack([edges[0], np.zeros((1, 24))]) - cp.vstack([np.zeros((1, 24)), edges[0]])
    pull = pull + cp.hstack([edges[1], np.zeros((24, 1))]) - cp.hstack([np.zeros((24, 1)), edges[1]])
    held = [edge <= 0.2 for edge in edges] + [edge >= -0.2 for edge in edges]
    for axis, edge in enumerate(edges):
        jump = np.diff(found, axis=axis)
        held += [edge[np.abs(jump) > 1e-7] == 0.2 * np.sign(jump[np.abs(jump) > 1e-7])]
    problem = cp.Problem(cp.Minimize(cp.norm_inf(cp.vec(values.reshape(24, 24) - found + pull, order="C"))), held)
    problem.solve(solver=cp.CLARABEL)
    assert problem.value < 1e-7


def noisy(side=24, seed=1):
    rng = np.random.default_rng(seed)
    image = np.kron(rng.random((4, 4)), np.ones((side // 4, side // 4)))
    return (image + 0.2 * rng.standard_normal(image.shape)).reshape(-1, 1)


def test_a_fit_goes_on_with_the_pulls_it_ended_with():
    """Steps that stopped early, of values that moved, end where a map found at once does."""
    both = rules([ts.TotalVariation(0.5), ts.NonNegative()], context((24, 24), rank=1), rank=1)
    going = jax.jit(lambda values, memory: both.prox_from(values, 1.0, memory))
    first, values = noisy(seed=2), noisy(seed=1)
    exact = np.asarray(both.prox(values, 1.0))
    ((memory,),) = (split[:1] for split in both.memory(len(values)))
    fresh, _ = going(values, (memory, None))
    assert np.abs(fresh - exact).max() > 1e-4
    _, memory = going(first, (memory, None))
    for _ in range(15):
        found, memory = going(values, memory)
    np.testing.assert_allclose(found, exact, atol=1e-7)


def test_components_of_a_map_remember_their_own():
    items = [ts.TotalVariation(0.5, components=[3, 1]), ts.NonNegative()]
    some = rules(items, context((24, 24), rank=3), rank=3)
    values = jnp.concatenate([noisy(seed=k) for k in range(3)], axis=1)
    (memory,) = some.memory(len(values))
    found, kept = some.prox_from(values, 1.0, memory)
    np.testing.assert_array_equal(found[:, 1], np.maximum(values[:, 1], 0))
    for column in range(3):
        own = jax.tree.map(lambda rows, column=column: rows[column], memory)
        alone, after = some.prox_from(values[:, column], 1.0, own, column)
        np.testing.assert_allclose(alone, found[:, column], atol=1e-12)
        if column != 1:
            for one, rows in zip(jax.tree.leaves(after), jax.tree.leaves(kept), strict=True):
                np.testing.assert_allclose(one, rows[column], atol=1e-12)
                assert np.any(np.asarray(one))


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_a_map_in_some_steps_at_a_time_ends_at_the_minimum(solver, monkeypatch):
    """A block of a map that is solved in many short steps, beside an independent program."""
    monkeypatch.setattr(total_variation, "_ROUGH_STEPS", 1)
    block = question([ts.TotalVariation(2.0), ts.NonNegative()], own=context((4, 3), (Y, X)))
    total = lambda a: 2.0 * on_map_of(a)  # noqa: E731
    _, value = optimum(total, lambda a: [a >= 0])
    state, factors = solver.init(block.factors, block.constraints), block.factors
    step = jax.jit(lambda factors, state: solver.step(block._replace(factors=factors), state))
    cost = jax.jit(lambda factors: block_value(block, factors))
    values = [float(cost(factors))]
    for _ in range(200):
        factors, state = step(factors, state)
        values.append(float(cost(factors)))
    assert np.all(np.diff(values) <= 1e-12 * abs(values[0]))
    assert values[-1] == pytest.approx(value, rel=1e-7)
    # Some steps from the beginning lead to less than what is there: that stays.
    hurried = ts.HALS(inner=1) if isinstance(solver, ts.HALS) else ts.AOADMM(inner=1)
    kept, _ = hurried.step(block._replace(factors=factors), hurried.init(factors, block.constraints))
    assert float(cost(kept)) <= values[-1] + 1e-12 * abs(values[-1])


def test_three_axes():
    values = np.random.default_rng(2).standard_normal((2 * 3 * 4, 1))
    item = ts.TotalVariation(0.3).resolve(context((2, 3, 4)))
    a = cp.Variable(24)
    place = np.arange(24).reshape(2, 3, 4)
    pairs = [(np.delete(place, -1, axis).ravel(), np.delete(place, 0, axis).ravel()) for axis in range(3)]
    total = sum(cp.norm1(a[second] - a[first]) for first, second in pairs)
    cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a - values[:, 0]) + 0.3 * total)).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12
    )
    np.testing.assert_allclose(np.asarray(item.prox(values, 1.0))[:, 0], a.value, atol=1e-6)


def test_the_units_of_the_coordinates():
    def line(n):
        x = np.linspace(0, 3, n)
        return float(ts.TotalVariation(2.0).resolve(context((n,), (x,))).value(np.sin(2 * x)[:, None]))

    # Up to one and down to sin 6.
    assert line(4001) == pytest.approx(2 * (1 + 2 + np.sin(6) + 1), rel=1e-5)
    assert line(4001) == pytest.approx(line(2001), rel=1e-5)

    def disc(n):
        axis = np.linspace(-1, 1, n)
        inside = (axis[:, None] ** 2 + axis**2 < 0.25).astype(float)
        return float(ts.TotalVariation(1.0).resolve(context((n, n), (axis, axis))).value(inside.reshape(-1, 1)))

    # Along the axes a circle of radius 1/2 is as long as the square around it.
    assert disc(401) == pytest.approx(4.0, rel=0.02)
    assert disc(201) == pytest.approx(4.0, rel=0.03)


@jax.jit
def proximal(values, strength):
    return ts.TotalVariation(strength).prox(values, 1.0)


@jax.jit
def proximal_of_map(values, strength):
    return ts.TotalVariation(strength).resolve(context((4, 3), (Y, X))).prox(values, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-2, 1.5), st.booleans())
def test_the_proximal_map_is_firmly_non_expansive(seed, exponent, flat):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 12, 2))
    prox = proximal if flat else proximal_of_map
    gap = np.asarray(prox(a, 10.0**exponent)) - np.asarray(prox(b, 10.0**exponent))
    assert np.sum(gap**2) <= np.sum(gap * (a - b)) + (1e-12 if flat else 1e-7)


JOINT = {
    "non-negative": [ts.NonNegative()],
    "box": [ts.Box(-0.1, 0.5)],
    "sparse": [ts.Sparse(0.4)],
    "sparse, non-negative, by column": [ts.Sparse(0.4), ts.NonNegative(), ts.GroupSparse(0.6)],
}


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize("shape", [(12,), (4, 3)], ids=["line", "map"])
def test_entry_wise_constraints_follow_exactly(name, shape):
    both = rules([*JOINT[name], ts.TotalVariation(0.4)], context(shape))
    assert both.splits == 1
    values = np.random.default_rng(3).standard_normal((SIZE, RANK)) + 0.3
    a = cp.Variable((SIZE, RANK))
    place = np.arange(SIZE).reshape(shape)
    cost = 0.5 * cp.sum_squares(a - values)
    for axis in range(len(shape)):
        first, second = np.delete(place, -1, axis).ravel(), np.delete(place, 0, axis).ravel()
        cost += 0.7 * 0.4 * cp.norm1(cp.vec(a[second] - a[first], order="C"))
    bounds = []
    for item in JOINT[name]:
        match item:
            case ts.Sparse():
                cost += 0.7 * item.strength * cp.norm1(cp.vec(a, order="C"))
            case ts.GroupSparse():
                cost += 0.7 * item.strength * sum(cp.norm2(a[:, r]) for r in range(RANK))
            case ts.NonNegative():
                bounds.append(a >= 0)
            case ts.Box():
                bounds += [a >= item.lower, a <= item.upper]
    cp.Problem(cp.Minimize(cost), bounds).solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10)
    np.testing.assert_allclose(both.prox(jnp.asarray(values), 0.7), a.value, atol=2e-5)
    reached = float(both.value(both.prox(jnp.asarray(values), 0.7)))
    assert reached == pytest.approx(float(both.value(jnp.asarray(a.value))), rel=1e-5)


def test_known_entries_do_not_follow():
    known = np.full((SIZE, RANK), np.nan)
    known[3] = 0.5
    assert rules([ts.Fixed(known), ts.TotalVariation(1.0)]).splits == 2
    assert rules([ts.Near(known, 1.0), ts.TotalVariation(1.0)]).splits == 2


@pytest.mark.parametrize(
    "weighted", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["complete", "weighted"]
)
def test_the_minimum_by_an_independent_program(weighted):
    block = question([ts.NonNegative(), ts.TotalVariation(3.0)], weighted)
    total = lambda a: 3.0 * cp.norm1(cp.vec(a[1:] - a[:-1], order="C"))  # noqa: E731
    _, value = optimum(total, lambda a: [a >= 0], weighted)
    assert solved(block, ts.AOADMM(inner=500))[1] == pytest.approx(value, rel=1e-8)
    if not weighted:
        assert solved(block, ts.HALS(inner=200))[1] == pytest.approx(value, rel=1e-8)


def phases(scale=1.0):
    rng = np.random.default_rng(6)
    maps = np.kron(rng.random((3, 3, 3)) ** 2, np.ones((4, 5, 1)))
    spectra = np.stack([np.exp(-(((np.arange(20) - c) / 5) ** 2)) for c in (3, 9, 15)]) + 0.1
    clean = maps @ spectra
    data = clean + 0.5 * clean.std() * rng.standard_normal(clean.shape)
    return xr.DataArray(scale * data, dims=("y", "x", "energy")), scale * clean


def test_phases_are_found_in_noise_at_any_unit_of_the_data():
    data, clean = phases()

    def miss(result):
        found = result.reconstruct().transpose("y", "x", "energy").values
        return np.linalg.norm(found - clean) / np.linalg.norm(clean)

    plain, model = fit(data, ts.NMF(3)), ts.NMF(3, {"pixel": ts.TotalVariation(0.3)})
    flat = fit(data, model)
    assert miss(flat) < 0.65 * miss(plain)
    assert flat.solver == "HALS"
    for factor in (1e-6, 1e6):
        other = fit(phases(factor)[0], model)
        assert other.objective == pytest.approx(flat.objective, rel=1e-6)
        np.testing.assert_allclose(
            other.reconstruct().values, factor * flat.reconstruct().values, atol=1e-3 * factor * clean.max()
        )
    halved = data.assign_coords(y=0.5 * np.arange(12), x=0.5 * np.arange(15))
    other = fit(halved, ts.NMF(3, {"pixel": ts.TotalVariation(0.6)}))
    assert other.objective == pytest.approx(flat.objective, rel=1e-6)


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_what_a_map_remembers_is_in_the_checkpoint(solver, tmp_path):
    data, _ = phases()
    model = ts.NMF(3, {"pixel": ts.TotalVariation(0.3)})
    settings = {"solver": solver, "tol": 0}
    whole = fit(data, model, max_sweeps=9, **settings)
    fit(data, model, max_sweeps=4, checkpoint=tmp_path / "fit.npz", **settings)
    resumed = fit(data, model, max_sweeps=9, checkpoint=tmp_path / "fit.npz", **settings)
    np.testing.assert_array_equal(resumed.history, whole.history)
