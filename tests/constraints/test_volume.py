"""Minimum volume: the stated objective falls, its optimum is one, and spectra without a pure pixel are found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.fit.gather import gather
from tensorspec.solvers.base import Block
from tensorspec.solvers.sweep import init_state, run_chunk

pytestmark = pytest.mark.slow

ENERGY = np.linspace(0, 1, 40)
SPECTRA = np.stack([np.exp(-0.5 * ((ENERGY - centre) / 0.15) ** 2) + 0.3 for centre in (0.2, 0.5, 0.8)])
ABUNDANCES = [ts.NonNegative(), ts.SumToOne("component")]
# Each keeps the scale of the spectra in its own way.
MODELS = {
    "amplitudes": lambda volume: ts.NMF(3, {"pixel": ABUNDANCES, "energy": volume}),
    "unit norm": lambda volume: ts.NMF(3, {"energy": volume}),
    "unit norm, sparse maps": lambda volume: ts.NMF(3, {"pixel": ts.Sparse(0.01), "energy": volume}),
    "unit norm, AO-ADMM": lambda volume: ts.NMF(3, {"energy": volume}),
}
SOLVERS = {"unit norm, AO-ADMM": ts.AOADMM(extrapolate=False)}


def simplex(seed=0, noise=0.01, pixels=300, purest=0.75):
    """Pixels in a simplex whose corners are empty: no pixel holds more than three quarters of one component."""
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.ones(3), 6 * pixels)
    maps = maps[maps.max(axis=1) < purest][:pixels]
    values = maps @ SPECTRA + noise * rng.standard_normal((pixels, len(ENERGY)))
    return xr.DataArray(values, dims=("x", "energy"))


def worst_angle(fit):
    found = fit.factors["energy"].values
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    known = SPECTRA / np.linalg.norm(SPECTRA, axis=1, keepdims=True)
    return np.rad2deg(np.arccos(np.clip((known @ found.T).max(axis=1), -1, 1))).max()


def log_det(factor, strength, delta):
    rank = factor.shape[1]
    return strength * (np.linalg.slogdet(factor.T @ factor + delta * np.eye(rank))[1] - rank * np.log(delta))


@pytest.mark.parametrize("name", MODELS)
def test_the_stated_objective_falls_at_every_sweep(name):
    strength, delta = 2.0, 0.05
    data = simplex(pixels=30, noise=0.05)
    model = MODELS[name](ts.MinimumVolume(strength, delta=delta))
    solver = SOLVERS.get(name, ts.HALS(extrapolate=False))
    with jax.enable_x64(True):
        ready = gather({"data": data}, model, {"data": ts.LeastSquares()}, None, None, None, solver, True)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            factors = {"pixel": jnp.asarray(rng.random((30, 3))), "energy": jnp.asarray(rng.random((40, 3)))}
            first = init_state(ready.model, ready.program, ready.problem, factors)
            last, _, tried = run_chunk(ready.model, ready.program, ready.problem, first, 0.0, 64, 64)
            history = np.concatenate([[float(first.objective)], tried[: int(last.sweeps)]])
            assert len(history) == 65 and history[-1] < 0.9 * history[0]
            assert np.max(np.diff(history) / np.abs(history[:-1])) < 1e-12
            # The objective is the documented one, by numpy: misfit, log determinant, and what else there is.
            maps, spectra = (np.asarray(last.factors[mode]) for mode in ("pixel", "energy"))
            scaled = data.values / np.sqrt(np.mean(data.values**2))
            own = 0.5 * np.sum((scaled - maps @ spectra.T) ** 2) + log_det(spectra, strength, delta)
            own += 0.01 * np.abs(maps).sum() if "sparse" in name else 0
            np.testing.assert_allclose(float(last.objective), own, rtol=1e-10)
            if name != "amplitudes":
                np.testing.assert_allclose(np.linalg.norm(spectra, axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_a_block_ends_where_a_general_optimiser_does(solver):
    rng = np.random.default_rng(4)
    design, target, strength, delta = rng.random((30, 3)), rng.random((8, 30)), 0.7, 0.1
    gram, right = design.T @ design, target @ design

    def cost(flat):
        factor = flat.reshape(8, 3)
        inverse = np.linalg.inv(factor.T @ factor + delta * np.eye(3))
        value = 0.5 * np.trace(factor @ gram @ factor.T) - np.sum(right * factor) + log_det(factor, strength, delta)
        return value, (factor @ gram - right + 2 * strength * factor @ inverse).ravel()

    start = rng.random((8, 3))
    best = minimize(cost, start.ravel(), jac=True, bounds=[(0, None)] * 24, method="L-BFGS-B", tol=1e-14)
    with jax.enable_x64(True):
        members = jax.tree.map(jnp.asarray, (ts.NonNegative(), ts.MinimumVolume(strength, delta=delta)))
        block = Block(
            [NormalEquations(jnp.asarray(gram), jnp.asarray(right))],
            [jnp.asarray(start)],
            [ModeConstraints(members, 3)],
            None,
        )

        @eqx.filter_jit
        def repeat(block):
            def one(_, carry):
                return solver.step(block._replace(factors=carry[0]), carry[1])

            state = solver.init(block.factors, block.constraints)
            return jax.lax.fori_loop(0, 400, one, (list(block.factors), state))[0][0]

        found = np.asarray(repeat(block))
    value, slope = cost(found.ravel())
    np.testing.assert_allclose(value, best.fun, rtol=1e-7)
    assert np.abs(slope[found.ravel() > 1e-9]).max() < 1e-4
    assert slope[found.ravel() <= 1e-9].min(initial=0) > -1e-4


@pytest.mark.parametrize("name", ["amplitudes", "unit norm"])
def test_spectra_without_a_pure_pixel_are_found(name):
    data = simplex()
    tight = ts.fit(data, MODELS[name](ts.MinimumVolume(0.1)), progress=False, max_sweeps=2000)
    plain = ts.fit(data, MODELS[name]([]), progress=False, max_sweeps=2000)
    assert tight.converged and plain.converged
    assert worst_angle(plain) > 10
    assert worst_angle(tight) < 2
    assert (np.diff(tight.history) <= 0).all()
    # The data cannot tell: the misfit is the same within the noise.
    assert plain.explained - tight.explained < 1e-5
    # It is a belief, so the fit says how far it moved the answer.
    assert max(tight.provenance["without_assumptions"]["moved_degrees"]["energy"]) > 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_data_changes_nothing(scale):
    data, model = simplex(pixels=30), MODELS["amplitudes"](ts.MinimumVolume(0.1))
    one = ts.fit(data, model, progress=False, max_sweeps=60)
    other = ts.fit(scale * data, model, progress=False, max_sweeps=60)
    for mode in one.factors:
        np.testing.assert_allclose(other.factors[mode], one.factors[mode], atol=1e-6)
    np.testing.assert_allclose(other.reconstruct(), scale * one.reconstruct(), rtol=1e-6)
    np.testing.assert_allclose(other.objective, one.objective, rtol=1e-9)


def test_only_named_components_span_the_volume():
    factor = jnp.asarray(np.random.default_rng(0).random((6, 3)))
    with jax.enable_x64(True):
        rule = ModeConstraints((ts.MinimumVolume(0.5, components=[1, 3]),), 3)
        expected = log_det(np.asarray(factor)[:, [0, 2]], 0.5, 0.1)
        np.testing.assert_allclose(float(rule.value(factor)), expected, rtol=1e-6)
        gram = np.asarray(rule.touching(factor).quadratic(6, jnp.float64).gram)
    assert (gram[1] == 0).all() and (gram[:, 1] == 0).all() and gram[0, 2] != 0


def test_the_volume_shrinks_along_a_path_of_strengths():
    volume = ts.MinimumVolume(1.0)
    fits = ts.path(simplex(pixels=30), ts.NMF(3, {"energy": volume}), volume, [0.1, 1.0, 10.0], progress=False)
    volumes = [log_det(fit.factors["energy"].values.T, 1.0, 0.1) for fit in fits.values()]
    assert volumes == sorted(volumes, reverse=True)


@pytest.mark.parametrize(
    ("partner", "words"),
    [(ts.Orthogonal(), "MinimumVolume.*Orthogonal"), (ts.MinimumVolume(2.0), "add up the strengths")],
)
def test_what_leaves_it_without_a_meaning_is_refused(partner, words):
    model = ts.CP(2, {"energy": [ts.MinimumVolume(1.0), partner]})
    with pytest.raises(ts.ConstraintConflict, match=f"'energy'.*{words}"):
        ts.fit(simplex(pixels=30), model, progress=False)


@pytest.mark.parametrize("settings", [{"strength": "auto"}, {"strength": -1.0}, {"strength": 1.0, "delta": 0.0}])
def test_settings_that_are_no_numbers_are_refused(settings):
    with pytest.raises(ts.InvalidArgument, match="expected"):
        ts.MinimumVolume(**settings)
