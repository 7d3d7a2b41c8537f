"""Soft orthogonality by penalty and as published: what each reports, refuses and reaches."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
COUNTS = xr.DataArray(RNG.poisson(200 * RNG.dirichlet([0.3] * 3, 60) @ RNG.dirichlet([0.3] * 20, 3)), dims=("x", "e"))


def rule(weight="auto"):
    return ts.SoftOrthogonal(weight, method="shiga2016")


def run(data=COUNTS, prior=None, rank=3, **options):
    return ts.fit(data, ts.NMF(rank, {} if prior is None else {"pixel": prior}), progress=False, **options)


def degrees(phantom, prior=None, restarts=3, **options):
    fit = ts.fit(
        phantom["data"],
        ts.NMF(3, {} if prior is None else {"pixel": prior}),
        restarts=restarts,
        progress=False,
        **options,
    )
    found, true = fit.spectra().values, phantom.truth["spectra"].values
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    return np.degrees(np.arccos(np.clip((true @ found.T).max(axis=1), -1, 1))).mean()


def published(phantom, **options):
    return min(degrees(phantom, rule(w), tol=1e-9, max_sweeps=3000, **options) for w in (0.05, 0.1, 0.3))


def test_the_automatic_penalty_is_better_than_the_published_rule_at_its_best():
    phantom = ts.phantoms.discs("eels", counts=500, seed=0)
    automatic = degrees(phantom, ts.SoftOrthogonal(), restarts=1)
    assert automatic < 2.6
    assert automatic <= published(phantom, restarts=1)
    assert degrees(phantom, restarts=1) > 12


@pytest.mark.parametrize(
    ("kind", "counts", "most", "plain"),
    [pytest.param("eels", 100, 6.0, 12, marks=pytest.mark.exhaustive), ("eels", 500, 2.6, 12), ("eels", 5000, 1.0, 12)],
)
def test_the_automatic_penalty_over_three_seeds(kind, counts, most, plain):
    phantoms = [ts.phantoms.discs(kind, counts=counts, seed=seed) for seed in range(3)]
    automatic = [degrees(phantom, ts.SoftOrthogonal()) for phantom in phantoms]
    assert np.mean(automatic) <= most
    assert np.mean(automatic) <= np.mean([published(phantom) for phantom in phantoms])
    assert np.mean([degrees(phantom) for phantom in phantoms]) > plain


OVERLAPS = {0.07: {}, 0.16: {"matrix_floor": 0.3}, 0.23: {"blur": 4.0}, 0.30: {"blur": 4.0, "matrix_floor": 0.3}}


@pytest.mark.parametrize("true", OVERLAPS)
def test_maps_that_overlap_are_pulled_apart_and_the_fit_says_so(true):
    """On spectra that are well separated the prior costs angle as soon as the maps overlap."""
    phantom = ts.phantoms.discs("edx", counts=500, seed=0, **OVERLAPS[true])
    assert ts.phantoms.mean_overlap(phantom.truth["maps"].values) == pytest.approx(true, abs=0.006)
    fit = run(phantom["data"], ts.SoftOrthogonal(), restarts=3)
    told = fit.provenance["without_assumptions"]["modes"]["pixel"]
    assert np.mean(told["overlap"]) < np.mean(told["overlap_without"])
    returned = ts.phantoms.mean_overlap(fit.maps().values)
    if true == 0.07:
        assert degrees(phantom, ts.SoftOrthogonal()) < degrees(phantom)
        assert returned == pytest.approx(true, abs=0.02)
    else:
        assert degrees(phantom, ts.SoftOrthogonal()) > degrees(phantom)
        assert returned < true - 0.02


@pytest.mark.parametrize("kind", ["eels", "edx"])
def test_the_automatic_penalty_beside_a_likelihood(kind):
    """At least as good as with least squares: the same rule in other units."""
    phantoms = [ts.phantoms.discs(kind, counts=500, seed=seed) for seed in range(2)]
    squares, counted = (
        np.mean([degrees(phantom, ts.SoftOrthogonal(), restarts=1, loss=loss) for phantom in phantoms])
        for loss in (ts.LeastSquares(), ts.Poisson())
    )
    assert counted < 1.02 * squares


def test_the_published_rule_reports_the_misfit_and_returns_the_last_sweep():
    fit = run(prior=rule(0.3))
    assert fit.converged
    assert fit.solver == "AdaptiveColumns + HALS"
    assert (np.diff(fit.history) > 0).any()
    scale = next(iter(fit.provenance["scales"].values()))
    assert 0.5 * float((fit.residual() ** 2).sum()) * scale**2 == pytest.approx(fit.objective, rel=1e-5)
    assert fit.history.values[-1] == pytest.approx(fit.objective, rel=1e-5)
    assert fit.history.values[-1] > fit.history.values.min()
    changes = np.abs(np.diff(fit.history.values))[-3:] / fit.history.values[-1]
    assert (changes < 1e-6).all()
    assert fit.provenance["carriers"] == {"data": "e"}
    assert fit.provenance["constraints_as_solved"]["pixel"][1] == "AdaptiveSoftOrthogonal(weight=0.3)"
    assert fit.provenance["without_assumptions"]["misfit_change"] > 0


def test_the_default_weight_is_a_tenth():
    xr.testing.assert_identical(run(prior=rule()).factors["pixel"], run(prior=rule(0.1)).factors["pixel"])


def test_no_weight_is_plain_factorization():
    data = COUNTS.astype(float)
    plain, none = (run(data, prior, tol=1e-12, max_sweeps=5000) for prior in (None, rule(0.0)))
    assert none.objective == pytest.approx(plain.objective, rel=1e-6)


def test_one_component():
    alone = run(COUNTS.astype(float), rule(0.5), rank=1, tol=1e-12)
    assert np.isfinite(alone.objective)
    plain = run(COUNTS.astype(float), rank=1, tol=1e-12)
    np.testing.assert_allclose(alone.spectra(), plain.spectra(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_data_does_not_matter(factor):
    one, other = run(COUNTS * 1.0, rule(0.1)), run(COUNTS * factor, rule(0.1))
    assert other.sweeps == one.sweeps
    np.testing.assert_allclose(other.spectra(), one.spectra() * factor, rtol=1e-6, atol=1e-9 * factor)


def test_integer_counts_are_counts():
    whole, real = run(COUNTS.astype(np.uint16), rule(0.1)), run(COUNTS.astype(float), rule(0.1))
    np.testing.assert_allclose(whole.spectra(), real.spectra(), rtol=1e-2, atol=1)
    assert (whole.weights > 0).all()


def refused(*words, model=None, error=ts.ConstraintConflict, data=COUNTS, **options):
    with pytest.raises(error) as caught:
        ts.fit(data, model or ts.NMF(2, {"pixel": rule()}), progress=False, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_the_published_rule_refuses():
    refused("mode 'pixel'", "leave out solver=HALS(", solver=ts.HALS())
    refused("no missing entries", mask=COUNTS != int(COUNTS[0, 0]))
    refused("no missing entries and no weights", loss=ts.LeastSquares(scaling="poisson"))
    refused("drop Sparse(", model=ts.NMF(2, {"pixel": [rule(), ts.Sparse(0.1)]}))
    refused("drop Sparse(", model=ts.NMF(2, {"pixel": rule(), "e": ts.Sparse(0.1)}))
    refused("one mode only", model=ts.NMF(2, {"pixel": rule(), "e": rule()}))
    refused("NonNegative() on both modes", model=ts.CP(2, {"pixel": [ts.NonNegative(), rule()]}))
    refused("give no scale", model=ts.NMF(2, {"pixel": rule()}, scale="pixel"))
    refused("two modes", "'b'", data={"a": COUNTS, "b": COUNTS.rename(e="b")})
    refused("leave out components", model=ts.NMF(3, {"pixel": ts.SoftOrthogonal(method="shiga2016", components=[1])}))
    with pytest.raises(ts.InvalidArgument, match="expected 'penalty' or 'shiga2016'"):
        ts.SoftOrthogonal(method="published")
    with pytest.raises(ts.InvalidArgument, match="expected a weight of 0 to 1"):
        ts.SoftOrthogonal(2.0, method="shiga2016")


def test_a_fit_file_and_a_checkpoint_keep_it(tmp_path):
    fit = run(prior=rule(0.2))
    again = ts.open(fit.save(tmp_path / "fit.h5"))
    assert again.model.constraints["pixel"][0].method == "shiga2016"
    assert again.rank == 3
