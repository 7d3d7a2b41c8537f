"""Matching finds planted permutations and agrees with tlviz."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from tensorspec.assemble import assemble
from tensorspec.diagnose.match import compare, match_factors
from tensorspec.errors import ModeMismatch, UnknownMode

tlviz = pytest.importorskip("tlviz.factor_tools")


def factors(seed, sizes=(7, 8, 9), rank=4, signed=False):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, rank)) if signed else rng.random((size, rank)) for size in sizes]


def fit_of(columns, weights=None):
    sizes = [len(column) for column in columns]
    data = {"data": xr.DataArray(np.ones(sizes), dims=("x", "energy_loss", "tilt"))}
    return assemble(data, dict(zip(("pixel", "energy_loss", "tilt"), columns, strict=True)), weights)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("ranks", [(4, 4), (3, 4), (1, 2)])
def test_score_and_permutation_are_those_of_tlviz(ranks, signed):
    for seed in range(5):
        first = factors(seed, rank=ranks[0], signed=signed)
        noise = factors(100 + seed, rank=ranks[1], signed=signed)
        second = [np.hstack([a, n])[:, -ranks[1] :] + 0.3 * n for a, n in zip(first, noise, strict=True)]
        match = match_factors(first, second)
        score, permutation = tlviz.factor_match_score(
            (np.ones(ranks[0]), first), (np.ones(ranks[1]), second), consider_weights=False, return_permutation=True,
            allow_smaller_rank=True,
        )  # fmt: skip
        assert match.score == pytest.approx(score, rel=1e-12)
        if ranks[0] == ranks[1]:
            assert [number - 1 for number in match.permutation] == list(permutation)


def test_with_weights_as_tlviz_considers_them():
    for seed in range(5):
        first, second = factors(seed), factors(seed + 50)
        second = [a[:, [2, 0, 3, 1]] + 0.1 * b for a, b in zip(first, second, strict=True)]
        one, two = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.3, 1.0, 2.0, 2.0])
        expected = tlviz.factor_match_score((one, first), (two, second), consider_weights=True)
        assert compare(fit_of(first, one), fit_of(second, two), weights=True).score == pytest.approx(
            expected, rel=1e-12
        )
        plain = tlviz.factor_match_score((one, first), (two, second), consider_weights=False)
        assert compare(fit_of(first, one), fit_of(second, two)).score == pytest.approx(plain, rel=1e-12)


def test_planted_permutation_scale_and_sign():
    columns = factors(0, signed=True)
    order, scale = [3, 1, 0, 2], np.array([0.1, -5.0, 2.0, -1.0])
    match = match_factors(columns, [column[:, order] * scale for column in columns])
    assert match.score == pytest.approx(1, abs=1e-14)
    assert match.permutation == (3, 2, 4, 1)
    np.testing.assert_allclose(match.congruences, 1, rtol=1e-14)
    np.testing.assert_allclose(match.by_mode["0"], np.sign(scale)[[2, 1, 3, 0]], rtol=1e-14)


def test_rows_never_measured_are_left_out():
    columns = factors(1)
    other = [column.copy() for column in columns]
    columns[0][2], other[0][5] = np.nan, np.nan
    other[0][2] = 1e9
    assert match_factors(columns, other).score == pytest.approx(1, abs=1e-14)


def test_a_dead_column_is_congruent_to_nothing():
    columns = factors(2)
    dead = [column * [1, 0, 1, 1] for column in columns]
    match = match_factors(columns, dead)
    np.testing.assert_allclose(match.congruences, [1, 0, 1, 1], atol=1e-14)


def test_fits_of_unequal_rank_match_the_smaller():
    big, small = fit_of(factors(3)), fit_of(factors(3)).select([4, 2])
    match = compare(big, small)
    assert match.permutation == (None, 2, None, 1) and match.score == pytest.approx(1, abs=1e-14)
    assert np.isnan(match.congruences[[0, 2]]).all()
    assert compare(small, big).permutation == (4, 2)


def test_other_data_are_refused():
    fit = fit_of(factors(4))
    other = fit_of(factors(4, sizes=(7, 9, 9)))
    with pytest.raises(ModeMismatch, match="'energy_loss' has 8 points.*9"):
        compare(fit, other)
    stranger = assemble({"data": xr.DataArray(np.eye(3), dims=("a", "b"))}, {"a": np.eye(3), "b": np.eye(3)})
    with pytest.raises(UnknownMode, match="no mode in common"):
        compare(fit, stranger)
    with pytest.raises(ModeMismatch, match="3 modes"):
        match_factors(factors(4), factors(4)[:2])


def test_fit_match_reorders_the_other_and_keeps_its_model():
    columns = factors(5, signed=True)
    fit = fit_of(columns, np.arange(1.0, 5))
    order, signs = [2, 3, 1, 0], np.array([1, -1, 1, -1])
    turned = [columns[0][:, order] * signs, columns[1][:, order] * signs, columns[2][:, order]]
    other = fit_of(turned, np.arange(1.0, 5)[order])
    matched = fit.match(other)
    for mode, factor in matched.factors.items():
        xr.testing.assert_allclose(factor, fit.factors[mode], rtol=1e-12)
    np.testing.assert_allclose(matched.weights, fit.weights, rtol=1e-12)
    xr.testing.assert_allclose(matched.reconstruct(), other.reconstruct(), rtol=1e-12)


def test_signs_that_cannot_be_turned_in_pairs_stay():
    columns = factors(6)
    fit = fit_of(columns)
    other = fit_of([-columns[0], columns[1], columns[2]])
    matched = fit.match(other)
    xr.testing.assert_allclose(matched.reconstruct(), other.reconstruct(), rtol=1e-12)
    assert (matched.factors["pixel"] < 0).all()


def test_components_beyond_come_last():
    fit = fit_of(factors(7))
    matched = fit.select([3, 1]).match(fit)
    np.testing.assert_allclose(matched.weights, fit.weights.values[[2, 0, 1, 3]], rtol=1e-14)
    assert matched.weights["component"].values.tolist() == [1, 2, 3, 4]
    fewer = fit.match(dataclasses.replace(fit.select([4, 2])))
    np.testing.assert_allclose(fewer.weights, fit.weights.values[[1, 3]], rtol=1e-14)
