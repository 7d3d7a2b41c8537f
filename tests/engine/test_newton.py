"""Gauss-Newton steps of all modes at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.flatten_util import ravel_pytree

import tensorspec as ts
from tensorspec.problem import Problem
from tensorspec.solvers.charts import chart_of
from tensorspec.solvers.covariance import covariance_of
from tensorspec.solvers.local import Point, local_model, point_of, tensor_at
from tensorspec.solvers.quadratic import quadratic_model
from tensorspec.solvers.sweep import init_state, objective, run_chunk

from .runs import RANK, SIZES, arrays, fit, planted, prepared, random_factors

NN, GN = ts.NonNegative, ts.GaussNewton
RNG = np.random.default_rng(5)
TRUTH = {mode: RNG.random((n, RANK)) * (RNG.random((n, RANK)) > 0.3) for mode, n in SIZES.items()}
CUBE = planted("pet", RNG, factors=TRUTH)
CUBE = CUBE + 0.05 * RNG.standard_normal(CUBE.shape)
SHEET = planted("ps", RNG, factors=TRUTH)
SHEET = SHEET + 0.02 * RNG.standard_normal(SHEET.shape)
LINE = xr.DataArray(RNG.random((8, SIZES["e"])), dims=("q", "e"))
KNOWN = np.where(RNG.random((SIZES["e"], 1)) > 0.5, TRUTH["e"][:, :1], np.nan)
COUPLED = {"cube": CUBE, "sheet": SHEET, "line": LINE}


def close(found, expected, rtol=1e-9):
    """Compare trees; relative to the largest entry."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * float(jnp.max(jnp.abs(other))))


def everything(**options):
    """Three tensors: weighted by rows, with entries missing, and behind an operator with a width to be fitted."""
    model = ts.CP(
        RANK,
        {
            "p": [NN(), ts.Sparse(0.3)],
            "e": [NN(), ts.Fixed(KNOWN, components=[2]), ts.Smooth(0.2)],
            "s": ts.Box(0.1, 2),
        },
        operators={("line", "e"): ts.Broaden("fit", start=0.8)},
        share={"sheet": [1, 3]},
        links=ts.Link(("line", "q"), ("sheet", "s"), 0.4),
    )
    mask = {"cube": True, "sheet": xr.DataArray(RNG.random(SHEET.shape) > 0.3, dims=SHEET.dims), "line": True}
    data = COUPLED | {"cube": (CUBE.clip(0) * 50).round()}
    mask = {name: xr.DataArray(item) for name, item in mask.items()}
    return prepared(data, model, mask=mask, loss={"cube": ts.LeastSquares(scaling="poisson")}, **options)


def residuals(problem, point):
    """The residuals of all tensors times the roots of their weights, from the definition."""
    found = []
    for tensor, own in zip(problem.tensors, point.parameters, strict=True):
        factors = tensor_at(tensor, own).own(point.factors)
        letters = "abc"[: len(factors)]
        model = jnp.einsum(",".join(f"{c}r" for c in letters) + f"->{letters}", *factors)
        weight = jnp.ones(model.shape) if tensor.dense is None else tensor.dense[0].astype(float)
        for axis, row in enumerate(tensor.rows):
            if row is not None:
                weight = weight * row.reshape([-1 if k == axis else 1 for k in range(model.ndim)])
        difference = tensor.scale * tensor.blocks[0] - model
        found.append(jnp.ravel(jnp.sqrt(tensor.weight * weight) * difference))
    return jnp.concatenate(found)


def test_slope_and_product_are_those_of_the_dense_jacobian():
    gathered = everything(solver=GN())
    problem = gathered.problem
    rng = np.random.default_rng(1)
    factors = {mode: 0.2 + values for mode, values in random_factors(gathered, 3).items()}
    point = Point(factors, point_of(problem, {}).parameters)
    assert any(leaf.size for leaf in jax.tree.leaves(point.parameters))
    change = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), point)

    @jax.jit
    def both(point, change):
        local = local_model(gathered.model, problem, point, jnp.float64)
        flat, back = ravel_pytree(point)
        rest = residuals(problem, point)
        jacobian = jax.jacfwd(lambda values: residuals(problem, back(values)))(flat)
        direction = ravel_pytree(change)[0]
        dense = back(jacobian.T @ rest), back(jacobian.T @ (jacobian @ direction))
        return (local.slope, local.product(change)), dense, local.blocks

    (slope, product), expected, blocks = both(point, change)
    close(slope, expected[0])
    close(product, expected[1])
    # The block of a row is exact where nothing stands between, and only an estimate for entries with weights.
    alone = Point({m: jnp.zeros_like(v) for m, v in factors.items()}, jax.tree.map(jnp.zeros_like, point.parameters))
    alone.factors["t"] = alone.factors["t"].at[2].set(jnp.asarray([1.0, -2.0, 0.5]))
    image = both(point, alone)[0][1].factors["t"][2]
    block = blocks["t"] if blocks["t"].ndim == 2 else blocks["t"][2]
    np.testing.assert_allclose(image, block @ jnp.asarray([1.0, -2.0, 0.5]), rtol=1e-12)


@pytest.mark.slow
def test_the_slope_by_free_variables_is_that_of_the_objective():
    """Penalties, unit norms and bijections included: a derivative of the objective as it is returned, by difference."""
    gathered = everything(solver=GN())
    plan, problem = gathered.program.plan, gathered.problem
    start = {mode: 0.2 + values for mode, values in random_factors(gathered, 3).items()}
    state = init_state(gathered.model, gathered.program, problem, start)
    names = sorted(state.factors)
    charts = {mode: chart_of(problem.constraints[mode], len(state.factors[mode])) for mode in names}
    free = Point(dict(zip(names, state.solver_states[0].free, strict=True)), point_of(problem, {}).parameters)
    weights = [tensor.weight for tensor in problem.tensors]

    @jax.jit
    def value(free):
        factors = {mode: charts[mode].forward(free.factors[mode]) for mode in names}
        factors = plan.retract(factors, factors, weights)
        tensors = tuple(map(tensor_at, problem.tensors, free.parameters))
        return objective(gathered.model, Problem(tensors, problem.constraints, problem.links), factors)[0]

    local = jax.jit(lambda f: _plain(quadratic_model(gathered.model, plan, problem, charts, f, jnp.float64)))(free)
    # Entries next to a bound move by themselves, so they have no slope; this start has some.
    rng = np.random.default_rng(2)
    for _ in range(3):
        change = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), free)
        for mode in names:
            change.factors[mode] = jnp.where(local["bound"][mode], 0.0, change.factors[mode])
        along = sum(
            jnp.sum(a * b) for a, b in zip(jax.tree.leaves(local["slope"]), jax.tree.leaves(change), strict=True)
        )
        step = 1e-5
        ahead, behind = (jax.tree.map(lambda f, c, s=s: f + s * c, free, change) for s in (step, -step))
        assert float(along) == pytest.approx(float(value(ahead) - value(behind)) / (2 * step), rel=1e-6)


def _plain(local):
    return {"slope": local.slope, "bound": local.bound}


COUNTS = SHEET.copy(data=RNG.poisson(SHEET.clip(0) * 30)).assign_attrs(noise=ts.NoiseModel().to_attrs())
REFERENCE = ts.Near(TRUTH["s"][:, 1:2], 1.0, components=[2])
CASES = {
    "matrix": (SHEET, ts.NMF(RANK), {}),
    "masked, non-negative, sparse": (
        SHEET.where(xr.DataArray(RNG.random(SHEET.shape) > 0.2, dims=SHEET.dims)),
        ts.NMF(RANK, {"p": ts.Sparse(0.05), "s": ts.Sparse(0.05)}),
        {},
    ),
    "coupled, partly shared": (
        {"cube": CUBE, "sheet": SHEET},
        ts.NMF(RANK, {"s": ts.Sparse(0.02)}, share={"sheet": [1, 2]}),
        {"start": ts.Random()},
    ),
    "known and near": (
        SHEET,
        ts.NMF(RANK, {"s": [ts.Fixed(TRUTH["s"][:, :1], components=[1]), REFERENCE]}),
        {"start": ts.Random()},
    ),
    "box": (CUBE, ts.CP(RANK, {"p": ts.Box(0.0, 0.8), "e": NN(), "t": NN()}, scale="e"), {"start": ts.Random()}),
    "smooth": (CUBE, ts.NMF(RANK, {"e": ts.Smooth(0.5)}), {}),
    "not convex": (CUBE, ts.NMF(RANK, {"e": ts.SoftOrthogonal(0.5), "t": ts.MinimumVolume(0.05)}), {}),
    "monotone": (CUBE, ts.NMF(RANK, {"t": ts.Monotone(components=[1])}), {"start": ts.Random()}),
    "counts": (COUNTS, ts.NMF(RANK), {"loss": ts.Poisson()}),
    "huber": (SHEET, ts.NMF(RANK), {"loss": ts.Huber(0.05)}),
}
QUICK = ("matrix", "masked, non-negative, sparse")
SLOW = ("coupled, partly shared", "counts", "smooth")


@pytest.mark.parametrize(
    "name",
    [
        n if n in QUICK else pytest.param(n, marks=pytest.mark.slow if n in SLOW else pytest.mark.exhaustive)
        for n in CASES
    ],
)
def test_it_ends_where_the_other_solvers_end(name):
    data, model, options = CASES[name]
    usual = fit(data, model, tol=1e-13, max_sweeps=5000, **options)
    found = fit(data, model, tol=1e-12, max_sweeps=60, solver=GN(), **options)
    assert found.solver == "GaussNewton" and "all modes at once" in found.why
    assert found.converged
    # Of counts, entries that end at zero come near it step by step, as in multiplicative updates.
    assert found.objective <= (1 + (1e-7 if name == "counts" else 1e-10)) * usual.objective
    # Multiplicative updates have not quite come to an end.
    assert found.objective == pytest.approx(usual.objective, rel=1e-6 if usual.solver == "Multiplicative" else 1e-10)
    assert (np.diff(found.history) <= 0).all()
    assert found.objective == pytest.approx(float(found.history[-1]), rel=1e-12)
    assert max(found.provenance["violations"].values(), default=0) < 1e-12
    # The other solvers, and the steps of a monotone column, go to zero without getting there.
    if usual.solver == "HALS" and name != "monotone":
        for mode, values in arrays(usual).items():
            np.testing.assert_array_equal(arrays(found)[mode] == 0, values == 0)


def swamp(cosine=0.97):
    """Components that are nearly collinear in every mode."""
    rng = np.random.default_rng(3)
    gram = np.full((RANK, RANK), cosine) + (1 - cosine) * np.eye(RANK)
    factors = {
        mode: np.linalg.qr(rng.standard_normal((SIZES[mode], RANK)))[0] @ np.linalg.cholesky(gram).T for mode in "pet"
    }
    data = planted("pet", rng, factors=factors)
    return data + 1e-3 * float(data.std()) * rng.standard_normal(data.shape)


@pytest.mark.slow
def test_collinear_components_take_few_steps_where_alternating_updates_crawl():
    data, model = swamp(), ts.CP(RANK)
    usual = fit(data, model, start=ts.Random(), tol=0, max_sweeps=600)
    found = fit(data, model, start=ts.Random(), solver=GN(), tol=1e-12, max_sweeps=60)
    assert found.converged and found.sweeps < 60
    # Six hundred sweeps of the usual solver are still above it by more than one part in a hundred thousand.
    assert usual.objective > (1 + 1e-5) * found.objective
    polished = fit(data, model, start=ts.From(usual), solver=GN(), tol=1e-12)
    assert polished.objective == pytest.approx(found.objective, rel=1e-9)


def test_a_fit_is_polished_from_where_it_is():
    usual = fit(SHEET, ts.NMF(RANK), max_sweeps=8)
    found = fit(SHEET, ts.NMF(RANK), start=ts.From(usual), solver=GN(), tol=1e-12)
    assert found.converged and found.history[0] == pytest.approx(usual.objective, rel=1e-12)
    assert found.objective < usual.objective and found.sweeps < 15
    # At the end no entry at zero wants to leave it, and all others have no slope.
    factors = {mode: values * (found.weights.values if mode == "p" else 1) for mode, values in arrays(found).items()}
    rest = factors["p"] @ factors["s"].T - SHEET.values
    size = np.linalg.norm(SHEET.values)
    for values, slope in ((factors["p"], rest @ factors["s"]), (factors["s"], rest.T @ factors["p"])):
        scale = 1e-5 * size * np.abs(values).max()
        assert (values == 0).any() and (slope[values == 0] > -scale).all()
        assert np.abs(slope[values > 0]).max() < scale


def test_entries_at_zero_come_back_and_dead_components_too():
    """The square behind non-negativity stands still at zero; a start of zeros must not."""
    gathered = prepared(SHEET, ts.NMF(RANK), solver=GN())
    start = {mode: values.at[:3].set(0.0) for mode, values in random_factors(gathered, 1).items()}
    start["p"] = start["p"].at[:, 1].set(0.0)
    state = init_state(gathered.model, gathered.program, gathered.problem, start)
    state, kept, _ = run_chunk(gathered.model, gathered.program, gathered.problem, state, 1e-12, 64, 64)
    best = fit(SHEET, ts.NMF(RANK), tol=1e-13, restarts=5)
    assert float(state.objective) == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.slow
def test_parameters_of_operators_move_with_the_factors():
    energy, rng = np.arange(24.0), np.random.default_rng(2)
    sizes = {"p": 12, "t": 6, "q": 10, "u": 9}
    truth = {mode: rng.random((n, 3)) for mode, n in sizes.items()}

    def spectra(offset=0.0, width=0.0):
        wide = np.hypot(np.array([1.5, 2.0, 2.5]), width)[:, None]
        return np.exp(-0.5 * ((energy - np.array([[7.0], [12.0], [16.0]]) - offset) / wide) ** 2) / wide

    cube = np.einsum("pr,re,tr->pet", truth["p"], spectra(), truth["t"])
    axis = {"energy": ("energy", energy, {"units": "eV"})}
    data = {
        "first": xr.DataArray(cube + 0.002 * rng.standard_normal(cube.shape), dims=("p", "energy", "t"), coords=axis),
        "moved": xr.DataArray(truth["q"] @ spectra(offset=0.7), dims=("q", "energy"), coords=axis),
        "broad": xr.DataArray(truth["u"] @ spectra(width=1.2), dims=("u", "energy"), coords=axis),
    }
    model = ts.NMF(3, operators={("moved", "energy"): ts.Shift("fit"), ("broad", "energy"): ts.Broaden("fit")})
    start = {mode: values + 0.1 * rng.random(values.shape) for mode, values in truth.items()}
    start["energy"] = spectra().T + 0.02 * rng.random((24, 3))
    # Noise-free data would be weighed so heavily that the others had no say.
    options = {"weights": dict.fromkeys(data, 1.0), "tol": 1e-10, "max_sweeps": 60}
    found = fit(data, model, start=ts.From(start), solver=GN(), **options)
    assert found.converged and (np.diff(found.history) <= 0).all()
    values = found.provenance["operators"]
    # Peaks a few channels wide are read off to a fiftieth of a channel.
    assert values["moved"]["energy"]["offset"] == pytest.approx(0.7, abs=0.02)
    assert values["broad"]["energy"]["sigma"] == pytest.approx(1.2, rel=0.01)


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(monkeypatch, tmp_path, chunks, interrupt_after):
    options = {"solver": GN(), "start": ts.Random(), "tol": 0.0, "max_sweeps": 20}
    whole = fit(SHEET, ts.NMF(RANK), **options)
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        assert fit(SHEET, ts.NMF(RANK), checkpoint=path, **options).status is ts.Status.INTERRUPTED
    again = fit(SHEET, ts.NMF(RANK), checkpoint=path, **options)
    np.testing.assert_array_equal(again.history, whole.history)
    for mode in whole.factors:
        np.testing.assert_array_equal(again.factors[mode], whole.factors[mode])


REFUSED = {
    "Sparse": (ts.CP(RANK, {"p": ts.Sparse(0.1)}), "may change their sign"),
    "TotalVariation": (ts.NMF(RANK, {"e": ts.TotalVariation(0.1)}), "no derivative"),
    "GroupSparse": (ts.NMF(RANK, {"e": ts.GroupSparse(0.1)}), "no derivative"),
    "ARD": (ts.NMF(RANK, {"p": ts.ARD(1.0)}), "changes while the fit runs"),
    "SoftOrthogonal": (ts.NMF(RANK, {"p": ts.SoftOrthogonal(method="shiga2016")}), "belongs to no objective"),
    "Unimodal": (ts.NMF(RANK, {"e": ts.Unimodal(components=[1])}), "free variables"),
    "Simplex": (ts.NMF(RANK, {"p": ts.SumToOne("component")}), "free variables"),
    "Monotone": (ts.CP(RANK, {"e": [ts.Monotone(), ts.Fixed(KNOWN, components=[1])]}), "ties entries together"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_derivative_is_refused_by_name(name):
    model, reason = REFUSED[name]
    with pytest.raises(ts.ConstraintConflict, match=f"GaussNewton.*{name}.*{reason}.*solver='auto'"):
        fit(CUBE, model, solver=GN())


@pytest.mark.parametrize("options", [{"inner": 0}, {"warm": -1}, {"damping": 0.0}, {"warm": 1.5}])
def test_settings_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ts.InvalidArgument, match=f"GaussNewton\\({name}="):
        GN(**options)


@pytest.mark.slow
def test_covariance_is_that_of_many_draws_of_noise():
    model = ts.NMF(2, {"e": ts.Fixed(np.full((5, 1), 0.5), components=[2])})
    rng, draws, noise = np.random.default_rng(8), 500, 0.01
    factors = {mode: 0.3 + rng.random((n, 2)) for mode, n in {"p": 6, "e": 5, "t": 4}.items()}
    factors["e"][:, 1] = 0.5
    clean = planted("pet", rng, factors=factors)
    gathered = prepared(clean, model, solver=GN(), rescale=False)
    program, problem = gathered.program, gathered.problem
    start = {mode: jnp.asarray(values) for mode, values in factors.items()}
    state = init_state(gathered.model, program, problem, start)
    found = covariance_of(gathered.model, program.plan, problem, state.factors, noise**2)
    # Scale can move between three modes, or between two where one of them is known.
    assert found.undetermined == 3
    spread = {mode: [] for mode in factors}
    for _ in range(draws):
        blocks = (jnp.asarray(clean.values + noise * rng.standard_normal(clean.shape)),)
        noisy = Problem((_with_blocks(problem.tensors[0], blocks),), problem.constraints, problem.links)
        last, _, _ = run_chunk(gathered.model, program, noisy, state_of(gathered, noisy, start), 1e-10, 20, 64)
        for mode, values in last.factors.items():
            spread[mode].append(np.asarray(values))
    for mode, values in spread.items():
        errors = found.standard_errors(mode)
        known = found.places[mode] < 0
        assert known.sum() == (5 if mode == "e" else 0)
        assert np.std(values, axis=0)[known].max(initial=0) == 0
        ratio = np.var(values, axis=0, ddof=1)[~known] / np.square(errors[~known])
        # A variance from n draws scatters by sqrt(2 / n) of itself.
        assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / draws)
        assert abs(ratio.mean() - 1) < 2.5 * np.sqrt(2 / draws)


def state_of(gathered, problem, start):
    return init_state(gathered.model, gathered.program, problem, start)


def _with_blocks(tensor, blocks):
    return eqx.tree_at(lambda t: t.blocks, tensor, blocks)
