"""The published soft orthogonality does what was published, written here a second time in plain numpy."""

import numpy as np
import pytest

import tensorspec as ts

from .runs import RANK, noisy, prepared, random_factors, sweeps

SHEET = noisy(("p", "s"), np.random.default_rng(3), level=0.2)
VALUES = SHEET.values / np.sqrt(np.mean(SHEET.values**2))


def published(data, maps, spectra, weight, count):
    """Sweeps of the rule from maps of unit norm: maps by column, then spectra."""
    maps, spectra = maps.copy(), spectra.copy()
    misfits = [0.5 * np.square(data - maps @ spectra.T).sum()]
    for _ in range(count):
        target, gram = data @ spectra, spectra.T @ spectra
        for j in range(maps.shape[1]):
            others = maps.sum(axis=1) - maps[:, j]
            best = target[:, j] - maps @ gram[:, j] + gram[j, j] * maps[:, j]
            best = best - weight * (others @ best) / (others @ others) * others
            maps[:, j] = np.maximum(best, 0) / np.linalg.norm(np.maximum(best, 0))
        target, gram = data.T @ maps, maps.T @ maps
        for j in range(maps.shape[1]):
            spectra[:, j] = np.maximum(0, target[:, j] - spectra @ gram[:, j] + gram[j, j] * spectra[:, j])
        misfits.append(0.5 * np.square(data - maps @ spectra.T).sum())
    return maps, spectra, np.array(misfits)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.6])
def test_sweeps_are_those_published(weight):
    problem = prepared(SHEET, ts.NMF(RANK, {"p": ts.SoftOrthogonal(weight, method="shiga2016")}))
    assert problem.solver == "AdaptiveColumns + HALS"
    first, last, kept, tried = sweeps(problem, random_factors(problem, 1), count=25)
    start = {mode: np.asarray(values) for mode, values in first.factors.items()}
    np.testing.assert_allclose(np.linalg.norm(start["p"], axis=0), 1, rtol=1e-12)
    maps, spectra, misfits = published(VALUES, start["p"], start["s"], weight, 25)
    np.testing.assert_allclose(last.factors["p"], maps, atol=1e-10)
    np.testing.assert_allclose(last.factors["s"], spectra, atol=1e-10)
    np.testing.assert_allclose(kept, misfits, rtol=1e-9)
    np.testing.assert_array_equal(tried, kept)
    rises = np.diff(misfits) > 0
    assert rises.any() == (weight > 0)


def test_a_map_of_which_nothing_is_left_stays_as_it_was():
    problem = prepared(SHEET, ts.NMF(RANK, {"p": ts.SoftOrthogonal(1.0, method="shiga2016")}))
    factors = random_factors(problem, 2)
    factors["s"] = factors["s"].at[:, 0].set(0.0)
    _, last, kept, _ = sweeps(problem, factors)
    assert np.isfinite(kept).all()
    np.testing.assert_allclose(np.linalg.norm(last.factors["p"], axis=0), 1, rtol=1e-12)
