"""Penalties have the documented strength, and no scale that is moved, given or hidden gets round them."""

import jax.numpy as jnp
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.solvers.sweep import init_state, run_chunk

from . import reference
from .runs import RANK, SIZES, fit, noisy, planted, prepared, random_factors

NN, Sparse = ts.NonNegative, ts.Sparse
RNG = np.random.default_rng(21)


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
@pytest.mark.parametrize("orthonormal", [True, False], ids=["orthonormal", "general"])
def test_lasso_has_its_own_strength_at_every_data_scale(solver, orthonormal):
    """One mode known: what is left is the textbook lasso, whose solution is known."""
    strength, rng = 0.5, np.random.default_rng(4)
    known = rng.standard_normal((SIZES["e"], RANK))
    if orthonormal:
        known = np.linalg.qr(known)[0]
    maps = rng.standard_normal((SIZES["p"], RANK)) * (rng.random((SIZES["p"], RANK)) > 0.5)
    data = planted("pe", rng, factors={"p": maps, "e": known})
    data = data + 0.01 * rng.standard_normal(data.shape)
    model = ts.CP(RANK, {"e": ts.Fixed(known), "p": Sparse(strength)})
    for scale in (1.0, 3.0, 10.0):
        found = fit(scale * data, model, solver=solver, rescale=False, start=ts.Random(), tol=0.0, max_sweeps=200)
        right = scale * data.values @ known
        if orthonormal:
            exact = np.sign(right) * np.maximum(np.abs(right) - strength, 0)
        else:
            exact = reference.lasso(known.T @ known, right, strength)
        assert 0 < np.sum(exact == 0) < exact.size
        amplitudes = found.factors["p"].values.T * found.weights.values
        # A fit ends where its objective does not change; nearer, rounding hides what a change of this size does to it.
        assert np.linalg.norm(amplitudes - exact) < 1e-8 * np.linalg.norm(exact)
        np.testing.assert_array_equal(found.factors["e"].values.T, known)
        value = 0.5 * np.sum((scale * data.values - exact @ known.T) ** 2) + strength * np.abs(exact).sum()
        assert found.objective == pytest.approx(value, rel=1e-12)


def test_moving_scale_between_modes_changes_nothing():
    constraints = {"p": [NN(), Sparse(0.3)], "e": [NN(), Sparse(0.2)], "t": NN(), "s": [NN(), Sparse(0.1)]}
    data = {"cube": noisy("pet", RNG).clip(0), "sheet": noisy("ps", RNG).clip(0)}
    problem = prepared(data, ts.CP(RANK, constraints), weights={"cube": 1.2, "sheet": 0.4})
    start = random_factors(problem, 0)
    expected = init_state(problem.model, problem.program, problem.problem, start)
    # In every tensor the powers sum to zero: the model is the same.
    for power_t, power_e in ((6, 0), (-9, 4), (3, -12), (0, 8)):
        for column in ([1.0, 1.0, 1.0], [1.0, -0.5, 0.0]):
            factor = {mode: 10.0 ** (power * np.array(column)) for mode, power in (("t", power_t), ("e", power_e))}
            carried = factor["t"] * factor["e"]
            moved = {
                "p": start["p"] / carried,
                "e": start["e"] * factor["e"],
                "t": start["t"] * factor["t"],
                "s": start["s"] * carried,
            }
            found = init_state(problem.model, problem.program, problem.problem, moved)
            assert float(found.objective) == pytest.approx(float(expected.objective), rel=1e-12)
            for mode in start:
                np.testing.assert_allclose(found.factors[mode], expected.factors[mode], rtol=1e-10)


def test_a_penalty_on_shape_cannot_be_made_small():
    """On a mode of unit norm the sum of absolute entries lies between one and the root of the size."""
    strength = 0.7
    constraints = {"p": NN(), "e": [NN(), Sparse(strength)]}
    data = noisy("pe", RNG).clip(0)
    found = fit(data, ts.CP(RANK, constraints), start=ts.Random(), tol=1e-9)
    spectra = found.factors["e"].values
    np.testing.assert_allclose(np.linalg.norm(spectra, axis=1), 1, rtol=1e-12)
    scaled = data.values / np.sqrt(np.mean(data.values**2))
    model = found.reconstruct().transpose("p", "e").values / np.sqrt(np.mean(data.values**2))
    cost = found.objective - 0.5 * np.sum((scaled - model) ** 2)
    assert cost == pytest.approx(strength * np.abs(spectra).sum(), rel=1e-9)
    assert RANK * strength <= cost <= RANK * strength * np.sqrt(SIZES["e"])


@pytest.mark.parametrize("strength", [None, 1e-7], ids=["non-negative", "and barely sparse"])
def test_components_of_unequal_strength_in_two_tensors_are_reproduced(strength):
    """Norms are joint: a component may be 30 times as strong in one tensor as in the other, either way."""
    rng = np.random.default_rng(1)
    factors = {mode: rng.random((size, RANK)) ** 2 for mode, size in SIZES.items()}
    data = {
        "cube": planted("pet", rng, factors={**factors, "e": factors["e"] * [30.0, 1.0, 5.0]}),
        "sheet": planted("ps", rng, factors={**factors, "s": factors["s"] * [1.0, 30.0, 5.0]}),
    }
    items = [NN()] if strength is None else [NN(), Sparse(strength)]
    model = ts.CP(RANK, dict.fromkeys(SIZES, items))
    found = fit(data, model, start=ts.Random(), restarts=3, max_sweeps=4000, tol=1e-9)
    for name, values in data.items():
        assert np.linalg.norm(found.residual(name)) < 1e-5 * np.linalg.norm(values)
    ratio = found.weights.sel(tensor="cube").values / found.weights.sel(tensor="sheet").values
    assert ratio.max() / ratio.min() > 300


def test_the_gram_matrix_of_a_shared_carrier_has_ones_on_its_diagonal():
    rng = np.random.default_rng(2)
    data = {"cube": noisy("pet", rng).clip(0), "sheet": 30 * noisy("ps", rng).clip(0)}
    model = ts.CP(RANK, {mode: [NN(), Sparse(0.05)] for mode in SIZES})
    problem = prepared(data, model, weights={"cube": 0.2, "sheet": 1.7})
    state = init_state(problem.model, problem.program, problem.problem, random_factors(problem, 0))
    state, _, _ = run_chunk(problem.model, problem.program, problem.problem, state, 0.0, 40, 64)
    parts = [problem.model.normal_equations(tensor, state.factors, "p") for tensor in problem.problem.tensors]
    total = parts[0].plus(parts[1]).gram
    np.testing.assert_allclose(jnp.diag(total), 1, rtol=1e-12)
    assert all(0.001 < float(jnp.min(jnp.diag(part.gram))) for part in parts)
