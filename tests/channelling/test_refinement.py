"""A potential that follows the occupancies, errors of the model, and one set of curves for signals that differ."""

import warnings

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.channelling.beams import systematic_row
from tensorspec.channelling.joint_spectra import curves_differ, joint_spectra
from tensorspec.channelling.phantoms import spinel
from tensorspec.channelling.refinement import occupied, refine_occupancy, systematic_errors
from tensorspec.channelling.site_response import response
from tensorspec.channelling.spectra_of_sites import site_curves

from .test_occupancy import CANDIDATES, LINES, drawn, expected, known
from .test_site_spectra import TRUE, recorded

ALL = {"8a": {"Li": 0.5, "Mn": 0.5}, "16d": {"Mn": 0.5, "Ni": 0.5}, "16c": {}}
DEPTHS = np.arange(5.0, 101, 5)


def respond(crystal):
    scan = systematic_row(crystal, (4, 0, 0), np.linspace(-3.2, 3.2, 33), 200, in_bragg_angles=True)
    return response(crystal, scan, {line: LINES[line] for line in ("Mn K", "Ni K", "O K")}, DEPTHS, check=False)


@pytest.mark.slow
def test_the_potential_follows_the_occupancies():
    true = spinel(ALL)
    theory = respond(true).sel(thickness=80)
    shares = {
        element: {
            site.label: len(site.positions) * site.occupants.get(element, 0) / true.amount(element)
            for site in true.sites
        }
        for element in ("Mn", "Ni", "O")
    }
    means = []
    for line, level in (("Mn K", 80_000), ("Ni K", 40_000), ("O K", 30_000)):
        own = sum(
            share * theory.sel(line=line, site=site, drop=True)
            for site, share in shares[line.split()[0]].items()
            if share
        )
        means.append(level * own / float(own.mean()))
    counts = drawn(
        xr.concat(means, xr.DataArray(["Mn K", "Ni K", "O K"], dims="line", name="line")).transpose("line", "tilt_x"), 0
    )
    wrong = spinel({"8a": {"Li": 1.0}, "16d": {"Mn": 0.75, "Ni": 0.25}})
    # The amounts are known, where they sit is not.
    wrong = wrong.occupy({"8a": {"Li": 0.5}, "16d": {"Mn": 0.75, "Ni": 0.25}, "16c": {"Ni": 0.25}})
    assert wrong.amount("Mn") == pytest.approx(true.amount("Mn")) and wrong.amount("Ni") == pytest.approx(
        true.amount("Ni")
    )
    limits = {"composition": {"Mn": 12.0, "Ni": 8.0}, "places": {"8a": 4.0, "16d": 16.0}, "orientation": "fixed"}
    refined = refine_occupancy(counts, wrong, respond, CANDIDATES, rounds=4, **limits)
    with pytest.warns(UserWarning, match="chi-squared"):
        single = refine_occupancy(counts, wrong, respond, CANDIDATES, rounds=1, **limits)
    share = float(refined.occupancy.share.sel(element="Mn", site="8a"))
    error = float(refined.occupancy.standard_error.sel(element="Mn", site="8a"))
    assert abs(share - 1 / 3) < 4 * error
    # With the potential of the wrong crystal the counts are not described.
    assert refined.occupancy.chi_squared < 1.3 and single.occupancy.chi_squared > 10
    assert refined.occupancy.thickness["data"] == pytest.approx(80, abs=1)
    assert refined.change[-1] < 0.2 * refined.change[0]
    assert refined.crystal.site("8a").occupants["Mn"] == pytest.approx(
        share * 12 / 8 * true.amount("Mn") / 12, rel=1e-6
    )


def test_a_site_cannot_hold_more_than_it_has():
    from tensorspec.channelling.occupancy import fit_occupancy

    found = fit_occupancy(drawn(expected(), 0), known(), CANDIDATES, orientation="fixed")
    full = spinel({"8a": {"Li": 1.0}, "16d": {"Mn": 0.6, "Ni": 0.4}})
    with pytest.raises(ts.InvalidArgument, match="composition= and places="):
        occupied(full, found)


def test_errors_of_the_model_are_told_apart_from_those_of_the_counts():
    counts = drawn(expected(), 0)
    believed, other = known(), known(absorption=False)
    mixed = 0.9 * believed + 0.1 * other
    found = systematic_errors(counts, {"believed": believed, "less absorption": mixed}, CANDIDATES, orientation="fixed")
    own = found.sel(element="Mn", site="8a")
    difference = float(own.share[1] - own.share[0])
    assert float(own.systematic) == pytest.approx(abs(difference)) and abs(difference) > 0.003
    assert float(own.total) == pytest.approx(np.hypot(float(own.standard_error), difference))
    assert float(found.chi_squared[1]) > float(found.chi_squared[0])
    with pytest.raises(ts.InvalidArgument, match="one other at least"):
        systematic_errors(counts, {"believed": believed}, CANDIDATES)


def test_one_set_of_curves_for_a_k_line_and_an_l_edge_is_warned_of():
    tilts = {"tilt_x": known().tilt_x.values[4:-4]}
    share = {"8a": 0.15, "16d": 0.85}
    curves = {
        "edx": site_curves(known(), "Mn K", share, tilts, 60.0),
        "eels": site_curves(known(), "Mn L23", share, tilts, 60.0),
    }
    assert curves_differ(curves, {"edx": 1e4, "eels": 1e5}) > 2
    assert curves_differ({"edx": curves["edx"], "eels": curves["edx"]}, {"edx": 1e4, "eels": 1e5}) == 0
    eels = recorded(1e5, 0).astype(float)
    lines = drawn(1e4 * curves["edx"].sum("component"), 1).expand_dims(line=["Mn K"]).transpose("tilt_x", "line")
    counted = ts.NoiseModel().to_attrs()
    lines.attrs["noise"], eels.attrs["noise"] = counted, counted
    with pytest.warns(UserWarning, match="standard errors"):
        found = joint_spectra({"edx": lines.astype(float), "eels": eels}, curves, max_sweeps=50)
    assert found.rank == len(TRUE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joint_spectra({"eels": eels}, {"eels": curves["eels"]}, max_sweeps=5)
    with pytest.raises(ts.InvalidArgument, match="or a rank"):
        joint_spectra({"eels": eels})
