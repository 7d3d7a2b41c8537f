"""A scan with X-rays and energy losses at once, from end to end: shares, thickness, offset and spectra come back."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec import channelling as ch

MIXED = {
    "8a": {"Li": 0.80, "Mn": 0.14, "Ni": 0.06},
    "16d": {"Mn": 0.70, "Ni": 0.22, "Li": 0.08},
    "16c": {"Ni": 0.03},
}


@pytest.mark.slow
def test_two_rows_and_two_signals_from_end_to_end():
    crystal = ch.phantoms.spinel(MIXED)
    scans = {
        row: ch.phantoms.spinel_scan(reflection, crystal=crystal, losses=1e6, seed=seed)
        for seed, (row, reflection) in enumerate({"(400)": (4, 0, 0), "(111)": (1, 1, 1)}.items())
    }
    candidates = {"Mn": ["8a", "16d"], "Ni": ["8a", "16d", "16c"], "O": ["32e"]}
    found = ch.fit_occupancy(
        {name: scan["edx"] for name, scan in scans.items()},
        {name: scan["response"] for name, scan in scans.items()},
        candidates,
    )
    truth = scans["(400)"].truth
    for element in ("Mn", "Ni"):
        for site in candidates[element]:
            error = float(found.standard_error.sel(element=element, site=site))
            difference = float(
                found.share.sel(element=element, site=site) - truth["share"].sel(element=element, site=site)
            )
            assert abs(difference) < 4 * error and error < 0.02
    for name in scans:
        assert found.thickness[name] == pytest.approx(80, abs=4 * found.thickness_error[name])
        assert found.offset[name]["tilt_x"] == pytest.approx(0.3, abs=0.05)
    shares = ch.share_of(found, "Mn")
    assert list(shares) == candidates["Mn"] and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(ts.UnknownName, match="fitted were"):
        ch.share_of(found, "Li")
    scan = scans["(400)"]
    curves = ch.site_curves(
        scan["response"],
        "Mn L23",
        shares,
        {"tilt_x": scan["eels"].tilt_x},
        found.thickness["(400)"],
        offset=found.offset["(400)"],
    )
    spectra = ch.site_spectra(scan["eels"], curves).spectrum.values
    planted = truth["spectrum"].values
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (spectra, planted)]
    angles = np.degrees(2 * np.arcsin(np.linalg.norm(unit[0] - unit[1], axis=1) / 2))
    assert angles[0] < 6 and angles[1] < 1.2


def test_the_phantom_holds_what_it_was_made_of():
    phantom = ch.phantoms.spinel_scan(tilts=15, seed=3)
    mean, counts = phantom.expected("edx"), phantom["edx"]
    assert float(((counts - mean) ** 2 / mean).mean()) == pytest.approx(1, abs=0.45)
    assert counts.tilt_x.attrs["units"] == "mrad" and counts.dtype.kind == "i"
    assert float(phantom["eels"].sum("energy_loss").mean()) == pytest.approx(3e5, rel=0.01)
    np.testing.assert_allclose(phantom.truth["share"].sel(element="Mn").sum("site"), 1)
    with pytest.raises(ts.InvalidArgument, match="at most 2 mrad"):
        ch.phantoms.spinel_scan(offset=9.0)
    with pytest.raises(ts.UnknownName, match="no edge 'Fe L23'"):
        ch.phantoms.spinel_scan(edges={"Fe L23": 1e5})


def test_three_edges_at_once_give_the_valence_of_nickel_behind_manganese():
    crystal = ch.phantoms.spinel({"8a": {"Li": 0.7, "Ni": 0.3}, "16d": {"Mn": 0.75, "Ni": 0.1, "Li": 0.15}})
    phantom = ch.phantoms.spinel_scan(
        crystal=crystal,
        losses=3e6,
        edges={"O K": 4e6, "Ni L23": 3e6},
        nickel_valences={"8a": 2.0, "16d": 3.0, "16c": 2.0},
        seed=1,
    )
    assert phantom.truth.edge.values.tolist() == ["Mn L23", "O K", "Ni L23", "Ni L23"]
    scores = (phantom["eels"] - phantom.expected("eels")) / np.sqrt(phantom.expected("eels"))
    assert float((scores**2).mean()) == pytest.approx(1, abs=0.02)
    place = {"tilt_x": phantom["eels"].tilt_x}
    options = {"thickness": 80.0, "offset": {"tilt_x": 0.3}}
    share = {site: float(phantom.truth["share"].sel(element="Ni", site=site)) for site in ("8a", "16d")}
    window = phantom["eels"].sel(energy_loss=slice(845, 885))
    curves = ch.site_curves(phantom["response"], "Ni L23", share, place, **options)
    # What lies below, the tails of oxygen and manganese, follows its own sites.
    tails = [
        ch.site_curves(phantom["response"], line, {site: 1.0}, place, **options).drop_vars("site")
        for line, site in (("O K", "32e"), ("Mn L23", "16d"))
    ]
    tails = xr.concat(tails, "component").assign_coords(component=[1, 2])
    energy = window.energy_loss
    references = {
        value: energy.copy(data=ch.phantoms.nickel_white_lines(value, energy.values)) for value in (2.0, 3.0, 4.0)
    }
    found = ch.site_valence(window, curves, references, background=tails, draws=40)
    assert (abs(found.valence.values - [2.0, 3.0]) < 4 * found.standard_error.values).all()
    assert float(found.standard_error.max()) < 0.2 and found.attrs["chi_squared"] == pytest.approx(1, abs=0.05)


def test_a_dopant_on_three_sites_of_garnet_needs_two_rows():
    planted = {"24c": {"Y": 0.96, "Fe": 0.04}, "16a": {"Al": 0.85, "Fe": 0.15}}
    crystal, counts = ch.phantoms.garnet(planted), {"Fe K": 6000.0, "Al K": 12_000.0, "Y K": 9000.0}
    rows = {
        name: ch.phantoms.row_scan(crystal, reflection, counts, seed=seed, tilts=41, thickness=60)
        for seed, (name, reflection) in enumerate({"(400)": (4, 0, 0), "(211)": (2, 1, 1)}.items())
    }
    candidates = {"Fe": ["24c", "16a", "24d"], "Al": ["16a", "24d"], "Y": ["24c"]}
    found = ch.fit_occupancy(
        {name: row["edx"] for name, row in rows.items()},
        {name: row["response"] for name, row in rows.items()},
        candidates,
    )
    for element in ("Fe", "Al"):
        for site in candidates[element]:
            own = {"element": element, "site": site}
            difference = float(found.share.sel(own) - rows["(400)"].truth["share"].sel(own))
            assert abs(difference) < 4 * float(found.standard_error.sel(own)) < 0.2
    assert not found.doubts
    # On (400) the dodecahedra and the tetrahedra see the same beams.
    with pytest.warns(UserWarning, match="Fe on '24c' and on '24d' cannot be told apart"):
        one = ch.fit_occupancy(rows["(400)"]["edx"], rows["(400)"]["response"], candidates)
    error = one.standard_error.sel(element="Fe")
    assert np.isinf(error.sel(site=["24c", "24d"])).all() and float(error.sel(site="16a")) < 0.02
    assert "24c" in repr(one) and "+- inf" in repr(one)
    low, high = one.interval("Fe", "24c")
    assert high - low > 0.3


def test_inversion_of_magnesium_spinel_from_light_lines():
    crystal = ch.phantoms.magnesium_spinel(0.70, 0.15)
    scan = ch.systematic_row(crystal, (4, 0, 0), np.linspace(-3.2, 3.2, 41), 200, in_bragg_angles=True)
    theory = ch.response(crystal, scan, ["Mg K", "Al K", "O K"], np.arange(5.0, 101, 5), check=False)
    shares = {"Mg K": {"8a": 0.70, "16d": 0.30}, "Al K": {"8a": 0.15, "16d": 0.85}, "O K": {"32e": 1.0}}
    means = [
        20_000 * sum(part * theory.sel(line=line, site=site, thickness=70, drop=True) for site, part in own.items())
        for line, own in shares.items()
    ]
    mean = xr.concat(means, xr.DataArray(list(shares), dims="line", name="line")).transpose("line", "tilt_x")
    counts = mean.copy(data=np.random.default_rng(0).poisson(mean.values))
    found = ch.fit_occupancy(counts, theory, {"Mg": ["8a", "16d"], "Al": ["8a", "16d"], "O": ["32e"]})
    for element, share in (("Mg", 0.70), ("Al", 0.15)):
        own = {"element": element, "site": "8a"}
        assert abs(float(found.share.sel(own)) - share) < 4 * float(found.standard_error.sel(own)) < 0.1
    with pytest.raises(ts.InvalidArgument, match="above one"):
        ch.phantoms.magnesium_spinel(0.7, 0.2)
