"""Occupancies from planted channelling scans: bias, errors, coverage, bounds, what goes wrong and is told."""

import warnings
from functools import lru_cache

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize

import tensorspec as ts
from tensorspec.channelling.beams import systematic_row
from tensorspec.channelling.occupancy import fit_occupancy
from tensorspec.channelling.scoring import Bounds, maximise, quadratic_step
from tensorspec.channelling.shell_ionization import ionization
from tensorspec.channelling.site_response import response

from .structures import spinel


class Tabulated:
    """A form factor through some points, as tables of total ionization at 200 kV have them."""

    def __init__(self, *values):
        self.curve = PchipInterpolator([0, 0.1, 0.2, 0.5, 1, 2, 6], [1, *values, values[-1] / 30])

    def form_factor(self, s):
        return self.curve(np.minimum(s, 6))


LINES = {
    "Mn K": Tabulated(0.995, 0.983, 0.911, 0.747, 0.460),
    "Ni K": Tabulated(0.995, 0.987, 0.936, 0.804, 0.537),
    "O K": Tabulated(0.799, 0.617, 0.339, 0.136, 0.022),
    "Mn L23": Tabulated(0.825, 0.638, 0.335, 0.113, 0.008),
}
SHARES = {"Mn": {"8a": 0.02, "16d": 0.98}, "Ni": {"8a": 0.10, "16d": 0.90}, "O": {"32e": 1.0}}
CANDIDATES = {"Mn": ["8a", "16d"], "Ni": ["8a", "16d"], "O": ["32e"]}
COUNTS = {"Mn K": 8000, "Ni K": 2500, "O K": 3000, "Mn L23": 30_000}


@lru_cache
def known(reflection=(4, 0, 0), absorption=True):
    tilts = np.linspace(-3.4, 3.4, 69)
    crystal = spinel().with_debye_waller(dict.fromkeys(spinel().labels, 0.5))
    scan = systematic_row(crystal, reflection, tilts, 200, in_bragg_angles=True)
    return response(crystal, scan, LINES, np.arange(5.0, 131, 5), check=False, absorption=absorption)


def expected(lines=("Mn K", "Ni K", "O K"), thickness=100.0, shares=None, dose=1.0, offset=0.0, scale=1.0, **options):
    whole = known(**options).interp(thickness=thickness, method="cubic")
    tilt = known(**options).tilt_x.values[4:-4]
    there = whole.interp(tilt_x=scale * tilt + offset, method="cubic").assign_coords(tilt_x=("tilt_x", tilt))
    means = []
    for line in lines:
        own = sum(
            share * there.sel(line=line, site=site, drop=True)
            for site, share in (shares or SHARES)[line.split()[0]].items()
        )
        means.append(dose * COUNTS[line] * own / float(own.mean()))
    return xr.concat(means, xr.DataArray(list(lines), dims="line", name="line")).transpose("line", "tilt_x")


def drawn(mean, seed):
    return mean.copy(data=np.random.default_rng(seed).poisson(mean.values))


def replicates(number, mean, **options):
    rows = []
    for seed in range(number):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = fit_occupancy(drawn(mean, seed), known(), CANDIDATES, orientation="fixed", **options)
        rows.append(
            [
                *(float(found.share.sel(element=element, site="8a")) for element in ("Mn", "Ni")),
                *(float(found.standard_error.sel(element=element, site="8a")) for element in ("Mn", "Ni")),
                found.thickness["data"],
                found.thickness_error["data"],
                found.chi_squared,
            ]
        )
    return np.array(rows)


def check(rows, sds):
    truth, number = np.array([0.02, 0.10]), len(rows)
    found, errors = rows[:, :2], rows[:, 2:4]
    assert (np.abs(found.mean(axis=0) - truth) < 0.5 * sds).all()
    assert (found.std(axis=0) < sds).all()
    np.testing.assert_allclose(np.nanmean(errors, axis=0), found.std(axis=0), rtol=3 / np.sqrt(number))
    assert rows[:, 6].mean() == pytest.approx(1, abs=0.03)


def test_planted_shares_come_back_within_their_errors():
    rows = replicates(40, expected())
    check(rows, np.array([0.0032, 0.0058]))
    assert rows[:, 4].mean() == pytest.approx(100, abs=0.5)


@pytest.mark.slow
def test_coverage_over_three_hundred_replicates():
    rows = replicates(300, expected())
    check(rows, np.array([0.003, 0.005]))
    inside = np.abs(rows[:, :2] - [0.02, 0.10]) < 1.96 * rows[:, 2:4]
    assert ((inside.mean(axis=0) >= 0.92) & (inside.mean(axis=0) <= 0.98)).all()


@pytest.mark.slow
def test_a_background_that_was_measured_costs_less_than_one_that_is_free():
    background = 0.2 * expected().mean("tilt_x")
    rows = replicates(25, expected() + background, background=background)
    free = replicates(25, expected() + background, background="free")
    assert rows[:, 0].std() < 0.0045 and rows[:, 0].mean() == pytest.approx(0.02, abs=0.002)
    assert free[:, 0].std() > 1.3 * rows[:, 0].std()
    assert free[:, 0].mean() == pytest.approx(0.02, abs=0.006)


def test_variance_of_the_background_widens_the_errors():
    background = xr.full_like(expected(), 2000.0)
    counts = drawn(expected() + background, 0)
    sure = fit_occupancy(counts, known(), CANDIDATES, background=background, orientation="fixed")
    unsure = fit_occupancy(
        counts, known(), CANDIDATES, background=background, background_variance=background, orientation="fixed"
    )
    ratio = unsure.standard_error / sure.standard_error
    assert 1.05 < float(ratio.max()) < 1.4


def test_no_absorption_is_detected_and_is_wrong():
    with pytest.warns(UserWarning, match="chi-squared is"):
        found = fit_occupancy(drawn(expected(), 1), known(absorption=False), CANDIDATES)
    assert found.chi_squared > 5
    assert float(found.share.sel(element="Mn", site="8a")) > 0.08


def test_x_rays_and_energy_losses_share_shares_but_not_responses():
    shares = {"Mn": {"8a": 0.10, "16d": 0.90}, "Ni": SHARES["Ni"], "O": SHARES["O"]}
    edx, eels = expected(("Mn K", "Ni K", "O K"), shares=shares), expected(("Mn L23",), thickness=80.0, shares=shares)
    counts = {"edx": drawn(edx, 2), "eels": drawn(eels, 3)}
    both = fit_occupancy(counts, {"edx": known(), "eels": known()}, CANDIDATES)
    alone = fit_occupancy(counts["edx"], known(), CANDIDATES)
    assert float(both.share.sel(element="Mn", site="8a")) == pytest.approx(0.10, abs=0.01)
    assert both.thickness["eels"] == pytest.approx(80, abs=6) and both.thickness["edx"] == pytest.approx(100, abs=3)
    assert float(both.standard_error.sel(element="Mn", site="8a")) < float(
        alone.standard_error.sel(element="Mn", site="8a")
    )
    # The K response laid on L counts: another answer, and told.
    wrong = known().sel(line=["Mn K"]).assign_coords(line=["Mn L23"])
    with pytest.warns(UserWarning, match="chi-squared"):
        taken = fit_occupancy(drawn(10 * eels, 3), wrong, {"Mn": ["8a", "16d"]}, thickness=(80, 1))
    assert abs(float(taken.share.sel(element="Mn", site="8a")) - 0.10) > 0.1


def test_offset_and_scale_of_the_tilts_are_recovered():
    found = fit_occupancy(
        drawn(expected(offset=0.6, scale=0.97), 4), known(), CANDIDATES, orientation="offset and scale"
    )
    assert found.offset["data"]["tilt_x"] == pytest.approx(0.6, abs=0.03)
    assert found.scale["data"] == pytest.approx(0.97, abs=0.005)
    assert float(found.share.sel(element="Ni", site="8a")) == pytest.approx(0.10, abs=0.015)
    with pytest.warns(UserWarning, match="chi-squared"):
        fit_occupancy(drawn(expected(offset=0.6, scale=0.97), 4), known(), CANDIDATES, orientation="fixed")


@lru_cache
def convergent(convergence):
    crystal = spinel().with_debye_waller(dict.fromkeys(spinel().labels, 0.5))
    scan = systematic_row(crystal, (4, 0, 0), np.linspace(-3.4, 3.4, 69), 200, in_bragg_angles=True)
    return response(crystal, scan, LINES, np.arange(5.0, 131, 5), check=False, convergence=convergence)


def test_the_convergence_is_found_and_its_error_is_that_of_the_scatter():
    several = convergent((0.0, 1.0, 2.0, 3.0, 4.0))
    assert several.dims == ("site", "line", "tilt_x", "convergence", "thickness")
    xr.testing.assert_allclose(several.sel(convergence=0.0, drop=True), known(), atol=1e-12)
    there = convergent(1.5).sel(thickness=100.0).isel(tilt_x=slice(4, -4))
    means = []
    for line in ("Mn K", "Ni K", "O K"):
        own = sum(share * there.sel(line=line, site=site, drop=True) for site, share in SHARES[line.split()[0]].items())
        means.append(COUNTS[line] * own / float(own.mean()))
    lines = xr.DataArray(["Mn K", "Ni K", "O K"], dims="line", name="line")
    mean = xr.concat(means, lines).transpose("line", "tilt_x").drop_vars("thickness")
    scores = []
    for seed in range(12):
        found = fit_occupancy(drawn(mean, seed), several, CANDIDATES)
        share = found.share.sel(site="8a") - xr.DataArray(
            [0.02, 0.10], dims="element", coords={"element": ["Mn", "Ni"]}
        )
        scores.append(
            [
                (found.convergence["data"] - 1.5) / found.convergence_error["data"],
                *(share / found.standard_error.sel(site="8a")).sel(element=["Mn", "Ni"]).values,
            ]
        )
        assert found.convergence_error["data"] < 0.1 and "convergence 1." in repr(found)
    scores = np.array(scores)
    assert (np.abs(scores.mean(axis=0)) < 3 / np.sqrt(12)).all() and (np.abs(scores) < 4).all()
    assert ((scores**2).mean(axis=0) > 0.3).all() and ((scores**2).mean(axis=0) < 2.5).all()
    # Taken to be parallel, the beam gives another share, and is told.
    with pytest.warns(UserWarning, match="chi-squared is"):
        fit_occupancy(drawn(10 * mean, 0), known(), CANDIDATES)
    sure = fit_occupancy(drawn(mean, 0), several, CANDIDATES, convergence=(1.5, 0.001))
    assert sure.convergence["data"] == pytest.approx(1.5, abs=0.004)


def test_a_window_of_losses_is_fitted_with_its_own_form_factor():
    """That of all losses is too local: docs/concepts/channelling.md has these figures."""
    crystal = spinel().with_debye_waller(dict.fromkeys(spinel().labels, 0.5))
    scan = systematic_row(crystal, (4, 0, 0), np.linspace(-3, 3, 61), 200, in_bragg_angles=True)
    own, whole = (
        response(
            crystal,
            scan,
            {"Mn L23": ionization("Mn L23", 200, window), "Ni K": LINES["Ni K"], "O K": LINES["O K"]},
            np.arange(5.0, 131, 5),
            check=False,
        )
        for window in (50, None)
    )
    planted = xr.DataArray(
        [[0.02, 0.98, 0], [0.10, 0.90, 0], [0, 0, 1]],
        coords={"line": ["Mn L23", "Ni K", "O K"], "site": ["8a", "16d", "32e"]},
    )
    mean = (planted * own.sel(thickness=100)).sum("site").transpose("line", "tilt_x")
    mean = mean / mean.mean("tilt_x") * xr.DataArray([8000, 2500, 3000], dims="line")

    def shares(model):
        found = fit_occupancy(mean, model, CANDIDATES)
        return [float(found.share.sel(element=element, site="8a")) for element in ("Mn", "Ni")]

    np.testing.assert_allclose(shares(own), [0.02, 0.10], atol=1e-5)
    with pytest.warns(UserWarning, match="chi-squared"):
        np.testing.assert_allclose(shares(whole), [0.229, 0.098], atol=0.002)


def test_a_flipped_axis_is_detected_where_the_row_is_not_symmetric():
    mean = expected(offset=2.0)
    flipped = mean.assign_coords(tilt_x=-mean.tilt_x).isel(tilt_x=slice(None, None, -1))
    straight = fit_occupancy(drawn(mean, 5), known(), CANDIDATES)
    assert straight.offset["data"]["tilt_x"] == pytest.approx(2.0, abs=0.05)
    # Of a symmetric row a flip is an offset of the other sign; of one whose offset is known it is a misfit.
    assert fit_occupancy(drawn(flipped, 5), known(), CANDIDATES).offset["data"]["tilt_x"] == pytest.approx(-2, abs=0.05)
    moved = flipped.assign_coords(tilt_x=flipped.tilt_x + 2.0).isel(tilt_x=slice(8, -8))
    with pytest.warns(UserWarning, match="chi-squared"):
        fit_occupancy(drawn(moved.sel(tilt_x=slice(-20, 20)), 5), known(), CANDIDATES, orientation="fixed")


def test_a_drifting_current_is_detected_and_an_exposure_mends_it():
    current = xr.DataArray(np.linspace(0.7, 1.3, 61), dims="tilt_x")
    counts = drawn(expected() * current, 6)
    with pytest.warns(UserWarning, match="drift of the current"):
        fit_occupancy(counts, known(), CANDIDATES)
    found = fit_occupancy(counts, known(), CANDIDATES, exposure=3.0 * current)
    assert found.chi_squared < 1.2
    assert float(found.share.sel(element="Ni", site="8a")) == pytest.approx(0.10, abs=0.015)


@pytest.mark.parametrize(("reflection", "apart"), [((4, 0, 0), False), ((2, 2, 0), False), ((1, 1, 1), True)])
def test_sites_that_a_row_cannot_tell_apart_are_named(reflection, apart):
    shares = {"Mn": {"8a": 0.05, "16c": 0.05, "16d": 0.90}, "O": {"32e": 1.0}}
    mean = expected(("Mn K", "O K"), shares=shares, reflection=reflection, thickness=60.0)
    candidates = {"Mn": ["8a", "16c", "16d"], "O": ["32e"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fit_occupancy(drawn(mean, 7), known(reflection=reflection), candidates)
    told = [str(each.message) for each in caught if "cannot be told apart" in str(each.message)]
    assert (not told) == apart
    if apart:
        share, error = (float(each.sel(element="Mn", site="16c")) for each in (found.share, found.standard_error))
        assert abs(share - 0.05) < 3 * error and error < 0.02
    else:
        assert all("'16c' and on '16d'" in text for text in told)


def test_near_zero_the_profile_is_one_sided():
    shares = {**SHARES, "Mn": {"8a": 0.0, "16d": 1.0}}
    for seed in range(20):
        found = fit_occupancy(drawn(expected(shares=shares), seed), known(), CANDIDATES, orientation="fixed")
        if bool(found.at_bound.sel(element="Mn", site="8a")):
            break
    assert bool(found.at_bound.sel(element="Mn", site="8a")) and np.isnan(
        float(found.standard_error.sel(element="Mn", site="8a"))
    )
    low, high = found.interval("Mn", "8a")
    assert low == 0 and 0.001 < high < 0.012
    inner = fit_occupancy(drawn(expected(), 0), known(), CANDIDATES, orientation="fixed")
    share, error = (float(each.sel(element="Ni", site="8a")) for each in (inner.share, inner.standard_error))
    np.testing.assert_allclose(inner.interval("Ni", "8a"), (share - 1.96 * error, share + 1.96 * error), atol=0.0007)


def test_no_site_holds_more_than_it_has_places_for():
    counts = drawn(expected(dose=0.05), 8)
    free = fit_occupancy(counts, known(), CANDIDATES)
    limited = fit_occupancy(
        counts, known(), CANDIDATES, composition={"Mn": 12.0, "Ni": 4.0}, places={"8a": 0.2, "16d": 16.0}
    )
    held = 12 * float(limited.share.sel(element="Mn", site="8a")) + 4 * float(
        limited.share.sel(element="Ni", site="8a")
    )
    assert held <= 0.2 + 1e-9
    assert (
        12 * float(free.share.sel(element="Mn", site="8a")) + 4 * float(free.share.sel(element="Ni", site="8a")) > 0.2
    )
    with pytest.raises(ts.InvalidArgument, match="not enough places"):
        fit_occupancy(counts, known(), CANDIDATES, composition={"Mn": 12.0, "Ni": 4.0}, places={"8a": 0.2, "16d": 1.0})


def test_the_quadratic_step_is_that_of_an_independent_solver():
    rng = np.random.default_rng(9)
    for _ in range(30):
        root, gradient = rng.normal(size=(8, 5)), 3 * rng.normal(size=5)
        fisher, x = root.T @ root, rng.dirichlet(np.ones(5))
        bounds = Bounds(np.ones((1, 5)), np.concatenate([np.eye(5), -np.eye(5)[:2]]), np.r_[np.zeros(5), -0.6, -0.6])
        x = np.full(5, 0.2)
        step, _ = quadratic_step(fisher, gradient, x, bounds, np.zeros(7, bool))
        best = minimize(
            lambda d, f=fisher, g=gradient: 0.5 * d @ f @ d - g @ d,
            np.zeros(5),
            jac=lambda d, f=fisher, g=gradient: f @ d - g,
            bounds=[(-0.2, 0.4)] * 2 + [(-0.2, None)] * 3,
            constraints={"type": "eq", "fun": lambda d: d.sum(), "jac": lambda d: np.ones(5)},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 300},
        ).x
        np.testing.assert_allclose(step, best, atol=3e-6)


def test_the_likelihood_is_the_largest_there_is():
    rng = np.random.default_rng(10)
    design = rng.uniform(0, 1, (40, 3))
    counts = rng.poisson(design @ [5.0, 0.0, 30.0]).astype(float)
    bounds = Bounds(np.zeros((0, 3)), np.eye(3), np.zeros(3))
    found = maximise(counts, lambda x: (design @ x, design), np.ones(3), bounds)
    best = minimize(
        lambda x: np.sum(design @ x - counts * np.log(np.maximum(design @ x, 1e-12))),
        np.ones(3),
        bounds=[(1e-9, None)] * 3,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    ).x
    np.testing.assert_allclose(found.x, best, atol=2e-4)
    assert found.settled


COUNTED = drawn(expected(), 0)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: fit_occupancy(COUNTED - 9000, known(), CANDIDATES), ts.InvalidData, "negative"),
        (lambda: fit_occupancy(COUNTED, known(), {"Mn": ["8a"], "Ni": ["8a"]}), ts.UnknownName, "O has a line"),
        (lambda: fit_occupancy(COUNTED, known(), {**CANDIDATES, "O": ["32f"]}), ts.UnknownName, "Did you mean '32e'"),
        (
            lambda: fit_occupancy(COUNTED.assign_coords(tilt_x=2 * COUNTED.tilt_x), known(), CANDIDATES),
            ts.InvalidData,
            "wider scan",
        ),
        (
            lambda: fit_occupancy(COUNTED.assign_coords(line=["Mn Ka", "Ni K", "O K"]), known(), CANDIDATES),
            ts.UnknownName,
            "no response of line 'Mn Ka'",
        ),
        (lambda: fit_occupancy(COUNTED, known(), CANDIDATES, orientation="free"), ts.InvalidArgument, "orientation"),
        (lambda: fit_occupancy(COUNTED, known(), CANDIDATES, background="measured"), ts.InvalidArgument, "background"),
        (lambda: fit_occupancy(COUNTED, known(), CANDIDATES, thickness=100), ts.InvalidArgument, "standard deviation"),
        (lambda: fit_occupancy(COUNTED, known(), CANDIDATES, exposure=0 * COUNTED[0]), ts.InvalidData, "above zero"),
        (
            lambda: fit_occupancy(COUNTED, known(), CANDIDATES, composition={"Mn": 1.0}),
            ts.InvalidArgument,
            "belong together",
        ),
        (
            lambda: fit_occupancy(COUNTED, known(), CANDIDATES, orientation="fixed").interval("O", "32e"),
            ts.UnknownName,
            "no share of 'O'",
        ),
        (
            lambda: fit_occupancy(COUNTED, known(), CANDIDATES, convergence=(1.0, 0.2)),
            ts.InvalidArgument,
            "the response has only one",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_the_derivatives_are_those_of_the_expected_counts():
    several = convergent((0.0, 1.0, 2.0, 3.0, 4.0))
    found = fit_occupancy(COUNTED, several, CANDIDATES, orientation="offset and scale", background="free")
    problem, x = found._problem, found._scored.x.copy()
    x[list(problem.constants.values())] = 50.0
    x[problem.moves["data", "tilt_x"]] = 0.31
    x[problem.widths["data"]] = 1.3
    _, slopes = problem.mean(x)
    for place, name in enumerate(problem.names):
        step = 1e-5 * max(abs(x[place]), 1.0)
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        numeric = (problem.mean(up)[0] - problem.mean(down)[0]) / (2 * step)
        np.testing.assert_allclose(slopes[:, place], numeric, atol=2e-4 * max(np.abs(numeric).max(), 1), err_msg=name)
