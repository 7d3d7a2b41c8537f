"""The stated objective falls: in every sweep of HALS without extrapolation, and never rises with it."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

from . import reference
from .runs import RANK, SIZES, noisy, prepared, random_factors, sweeps

RNG = np.random.default_rng(7)
CUBE, SHEET = noisy(("p", "e", "t"), RNG), noisy(("p", "s"), RNG)
MASK = xr.DataArray(RNG.random(CUBE.shape) > 0.3, dims=CUBE.dims)
SIGMA = xr.DataArray(RNG.uniform(0.5, 2, SHEET.shape), dims=SHEET.dims)
WEIGHTS = {"cube": 1.3, "sheet": 0.6}
KNOWN = np.full((SIZES["e"], RANK), np.nan)
KNOWN[:, 0], KNOWN[3, 1] = RNG.random(SIZES["e"]), 0.5

NN, Sparse, Soft = ts.NonNegative, ts.Sparse, ts.SoftOrthogonal
EVERYWHERE = {mode: NN() for mode in SIZES}
# Constraints, and the modes of the cube whose columns have unit norm, each by itself.
CASES = {
    "none": ({}, "et"),
    "non-negative": (EVERYWHERE, "et"),
    "non-negative, two components": ({"p": NN(components=[1, 3]), "e": NN()}, "et"),
    "box": ({**EVERYWHERE, "e": ts.Box(0, 0.5)}, "t"),
    "box, signed": ({"e": ts.Box(-0.4, 0.5)}, "t"),
    "sparse carrier": ({"p": Sparse(0.5)}, "et"),
    "sparse": ({mode: [NN(), Sparse(0.3)] for mode in SIZES}, "et"),
    "sparse, far too strong": ({mode: [NN(), Sparse(5.0)] for mode in SIZES}, "et"),
    "soft orthogonal carrier": ({**EVERYWHERE, "p": [NN(), Soft(0.05)]}, "et"),
    "soft orthogonal spectra": ({**EVERYWHERE, "e": [NN(), Soft(0.05)]}, "et"),
    "soft orthogonal, signed rest": ({"p": [NN(), Soft(0.05)]}, "et"),
    "known": ({"p": [NN(), Sparse(0.3)], "e": [ts.Fixed(KNOWN), Sparse(0.2)]}, "t"),
    "sum to one": ({"p": NN(), "e": ts.SumToOne("mode"), "t": [NN(), Sparse(0.1)]}, "t"),
    "simplex": ({**EVERYWHERE, "e": [NN(), ts.SumToOne("mode")]}, "t"),
}


# Every pair compiles a program of its own; those that say least beside the others run before a release.
SURPLUS_ALONE = {"box", "non-negative, two components", "sparse", "sparse, far too strong", "soft orthogonal spectra"}
SURPLUS_COUPLED = {"none", "box, signed", "soft orthogonal spectra", "sum to one", "non-negative, two components"}


def cases(surplus):
    return [pytest.param(name, marks=pytest.mark.exhaustive if name in surplus else ()) for name in CASES]


def given(constraints, modes):
    return {mode: items for mode, items in constraints.items() if mode in modes}


def penalties(constraints, factors):
    lists = {mode: items if isinstance(items, list) else [items] for mode, items in constraints.items()}
    return sum(reference.penalty(item, factors[mode]) for mode, items in lists.items() for item in items)


def check(problem, constraints, unit, expected, signed=False, starts=3):
    """No sweep tries a higher objective, the norms are those documented, the objective is the one documented."""
    for seed in range(starts):
        _, last, _, tried = sweeps(problem, random_factors(problem, seed, signed))
        assert len(tried) > 10
        assert np.max(np.diff(tried) / np.abs(tried[:-1])) < 1e-12
        factors = {mode: np.asarray(values) for mode, values in last.factors.items()}
        for mode in unit:
            columns = [
                r for r in range(RANK) if not (mode == "e" and problem.problem.constraints["e"].fixed_columns[r])
            ]
            np.testing.assert_allclose(np.linalg.norm(factors[mode][:, columns], axis=0), 1, rtol=1e-12)
        own = expected(factors) + penalties(constraints, factors)
        np.testing.assert_allclose(float(last.objective), own, rtol=1e-10)
    return factors


@pytest.mark.parametrize("name", cases(SURPLUS_ALONE))
def test_hals_falls_on_one_tensor(name):
    constraints, unit = CASES[name]
    constraints = given(constraints, CUBE.dims)
    signed = "signed" in name or name in ("none", "sparse carrier", "sum to one")
    data = CUBE - CUBE.mean() if signed else CUBE
    problem = prepared(data, ts.CP(RANK, constraints), solver=ts.HALS(extrapolate=False))
    assert problem.solver == "HALS"
    scaled = data.values / np.sqrt(np.mean(data.values**2))
    check(problem, constraints, unit, lambda factors: reference.misfit(scaled, factors, CUBE.dims), signed)


@pytest.mark.parametrize("name", cases(SURPLUS_COUPLED))
def test_hals_falls_coupled_with_missing_entries_and_unequal_noise(name):
    constraints, unit = CASES[name]
    problem = prepared(
        {"cube": CUBE, "sheet": SHEET},
        ts.CP(RANK, constraints),
        solver=ts.HALS(extrapolate=False),
        mask={"cube": MASK},
        weights=WEIGHTS,
        loss={"sheet": ts.LeastSquares(sigma=SIGMA)},
    )
    cube = CUBE.values / np.sqrt(np.mean(CUBE.values[MASK.values] ** 2))
    sheet = SHEET.values / np.sqrt(np.mean(SHEET.values**2))
    entries = SIGMA.values**-2.0 / np.mean(SIGMA.values**-2.0)

    def expected(factors):
        return reference.misfit(cube, factors, CUBE.dims, WEIGHTS["cube"], MASK.values) + reference.misfit(
            sheet, factors, SHEET.dims, WEIGHTS["sheet"], entries
        )

    factors = check(problem, constraints, unit.replace("t", ""), expected)
    # The partners of the shared carrier have unit norm together: the diagonal of its Gram matrix is one without gaps.
    norms = {mode: np.sum(factors[mode] ** 2, axis=0) for mode in "et s".replace(" ", "")}
    np.testing.assert_allclose(WEIGHTS["cube"] * norms["t"] + WEIGHTS["sheet"] * norms["s"], 1, rtol=1e-12)


@pytest.mark.parametrize(
    "solver", [ts.HALS(), pytest.param(ts.AOADMM(), marks=pytest.mark.slow)], ids=["HALS", "AOADMM"]
)
def test_extrapolation_never_returns_a_higher_objective(solver):
    constraints = {**EVERYWHERE, "p": [NN(), Soft(0.02)], "e": [NN(), Sparse(0.1)]}
    problem = prepared(
        {"cube": CUBE, "sheet": SHEET}, ts.CP(RANK, constraints), solver=solver, mask={"cube": MASK}, weights=WEIGHTS
    )
    rejected = 0
    for seed in range(5):
        first, last, kept, tried = sweeps(problem, random_factors(problem, seed))
        assert (np.diff(kept) <= 0).all()
        rejected += int(np.sum(tried > kept))
        cube = CUBE.values / np.sqrt(np.mean(CUBE.values[MASK.values] ** 2))
        sheet = SHEET.values / np.sqrt(np.mean(SHEET.values**2))
        for state in (first, last):
            own = (
                reference.misfit(cube, state.factors, CUBE.dims, WEIGHTS["cube"], MASK.values)
                + reference.misfit(sheet, state.factors, SHEET.dims, WEIGHTS["sheet"])
                + penalties(constraints, state.factors)
            )
            np.testing.assert_allclose(float(state.objective), own, rtol=1e-10)
    assert rejected > 0  # else nothing was tested
