"""Factors that are softly equal."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
SPECTRA = RNG.random((3, 25))
FIRST = xr.DataArray(RNG.random((30, 3)) @ SPECTRA, dims=("x", "energy"))
SECOND = xr.DataArray(
    RNG.random((40, 3)) @ (SPECTRA * (1 + 0.02 * RNG.standard_normal(SPECTRA.shape)))
    + 0.05 * RNG.standard_normal((40, 25)),
    dims=("position", "xray"),
)
DATA = {"first": FIRST, "second": SECOND}
OPTIONS = {"weights": 1, "start": ts.Random(), "tol": 1e-9, "max_sweeps": 2000, "progress": False}


def link(strength):
    return ts.NMF(3, links=ts.Link(("first", "energy"), ("second", "xray"), strength))


def distance(fit):
    return float(np.sum(np.square(fit.factors["energy"].values - fit.factors["xray"].values)))


@pytest.mark.parametrize("solver", [ts.HALS(), ts.AOADMM()], ids=["HALS", "AOADMM"])
def test_the_objective_is_the_misfit_and_the_distance(solver):
    fit = ts.fit(DATA, link(3.0), solver=solver, **OPTIONS)
    assert (np.diff(fit.history.values) <= 1e-12).all()
    misfit = sum(
        0.5 * float(np.sum(np.square(fit.residual(name)))) * fit.provenance["scales"][name] ** 2 for name in DATA
    )
    # Modes that are linked are at unit norm, so that the factors returned are those that were compared.
    assert set(fit.provenance["carriers"].values()) == {"pixel", "position"}
    assert fit.objective == pytest.approx(misfit + 0.5 * 3.0 * distance(fit), rel=1e-9)


def test_both_solvers_end_at_the_same_place():
    one, other = (ts.fit(DATA, link(1.0), solver=solver, **OPTIONS) for solver in (ts.HALS(), ts.AOADMM()))
    assert one.objective == pytest.approx(other.objective, rel=1e-6)


def test_strength_goes_from_nothing_to_one_factor():
    apart, near, close = (ts.fit(DATA, link(strength), **OPTIONS) for strength in (0.0, 1.0, 100.0))
    assert distance(apart) > 2 * distance(near) > 100 * distance(close)
    # The limit: spectra of one shared mode.
    shared = ts.fit(DATA | {"second": SECOND.rename(xray="energy")}, ts.NMF(3), **OPTIONS)
    strong = ts.fit(DATA, link(1e4), **OPTIONS)
    assert strong.objective == pytest.approx(shared.objective, rel=1e-2)
    assert distance(strong) < 1e-6


def test_linked_modes_of_one_coupled_fit_go_down_together():
    data = {"first": FIRST, "second": (FIRST * (1 + 0.02 * RNG.standard_normal(25))).rename(energy="xray")}
    fit = ts.fit(data, link(1.0), **(OPTIONS | {"max_sweeps": 300}))
    assert (np.diff(fit.history.values) <= 1e-12).all()
    assert fit.objective < 1e-2


def test_wrong_links_are_refused():
    for ends, words in (
        ((("frist", "energy"), ("second", "xray")), "Link names the tensor 'frist'.*Did you mean 'first'"),
        ((("first", "enrgy"), ("second", "xray")), "the mode 'enrgy' of tensor 'first'.*Did you mean 'energy'"),
        ((("first", "pixel"), ("second", "xray")), "'pixel' has 30 points and mode 'xray' has 25"),
    ):
        with pytest.raises(ts.TensorspecError, match=words):
            ts.fit(DATA, ts.NMF(3, links=[ts.Link(*ends, 1.0)]))
    with pytest.raises(ts.InvalidArgument, match=r"both ends are the mode 'x'.*rename"):
        ts.Link(("a", "x"), ("b", "x"), 1.0)
    with pytest.raises(ts.InvalidArgument, match="no pair of tensor and mode"):
        ts.Link("energy", ("b", "x"), 1.0)
    with pytest.raises(ts.InvalidArgument, match="is no link"):
        ts.NMF(3, links=[3])
    with pytest.raises(ts.InvalidArgument, match="zero or more"):
        ts.Link(("a", "x"), ("b", "y"), -1.0)
