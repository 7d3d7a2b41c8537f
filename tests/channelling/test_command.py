"""The command line from a CIF file and a table of counts to occupancies, a figure, and one line for every mistake."""

import csv
import json

import numpy as np
import pytest

import tensorspec as ts
from tensorspec import channelling as ch
from tensorspec.cli import main

from .test_diffraction import CIF

RECIPE = """
[crystal]
cif = "spinel.cif"
labels = { "Li1/Mn1" = "8a", Mn2 = "16d", O1 = "32e" }

[beam]
energy = 200

[[row]]
name = "(400)"
reflection = [4, 0, 0]
counts = "counts.csv"

[candidates]
Mn = ["8a", "16d"]
O = ["32e"]

[fit]
largest_thickness = 100
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a structure, a recipe and the counts of a scan."""
    place = tmp_path_factory.mktemp("channelling")
    (place / "spinel.cif").write_text(CIF)
    (place / "recipe.toml").write_text(RECIPE)
    crystal = ch.Crystal.from_cif(place / "spinel.cif").relabel({"Li1/Mn1": "8a", "Mn2": "16d", "O1": "32e"})
    tilts = np.linspace(-16, 16, 33)
    scan = ch.systematic_row(crystal, (4, 0, 0), tilts, 200)
    theory = ch.response(crystal, scan, ["Mn K", "O K"], np.arange(5.0, 101, 5), check=False).sel(thickness=60)
    current = np.linspace(0.8, 1.2, 33)
    mean = {
        "Mn K": 20_000
        * (0.05 * theory.sel(site="8a", line="Mn K") + 0.95 * theory.sel(site="16d", line="Mn K")).values,
        "O K": 10_000 * theory.sel(site="32e", line="O K").values,
    }
    rng = np.random.default_rng(0)
    with (place / "counts.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tilt_x", "Mn K", "O K", "Mn K background", "exposure"])
        for k in rng.permutation(33):
            counts = [rng.poisson(current[k] * mean["Mn K"][k] + 500), rng.poisson(current[k] * mean["O K"][k])]
            writer.writerow([tilts[k], *counts, 500, current[k]])
    return place


def test_from_files_to_occupancies(folder, tmp_path, capsys):
    assert main(["channelling", str(folder / "recipe.toml"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Mn: 8a 0.0" in printed and "wrote" in printed
    stored = json.loads((tmp_path / "out" / "recipe.occupancy.json").read_text())
    assert abs(stored["share"]["Mn"]["8a"] - 0.05) < 4 * stored["standard_error"]["Mn"]["8a"] < 0.04
    assert stored["thickness_nm"]["(400)"] == pytest.approx(60, abs=5)
    assert stored["chi_squared"] < 1.5 and stored["share"]["O"]["8a"] is None
    assert (tmp_path / "out" / "recipe.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "out" / "recipe.report.html").read_text(encoding="utf-8")
    assert "<td>16d</td>" in page and "95 % interval" in page and "data:image/svg+xml" in page
    assert f"{stored['share']['Mn']['8a']:.4f}" in page and "largest_thickness" in page and 'class="note"' not in page


def test_a_pattern_about_a_zone_axis(folder, tmp_path, capsys):
    crystal = ch.Crystal.from_cif(folder / "spinel.cif").relabel({"Li1/Mn1": "8a", "Mn2": "16d", "O1": "32e"})
    tilts = np.linspace(-8, 8, 9)
    scan = ch.zone_axis(crystal, (0, 0, 1), tilts, 200, x=(4, 0, 0), largest=0.8)
    theory = ch.response(crystal, scan, ["Mn K", "O K"], np.arange(5.0, 61, 5), check=False).sel(thickness=40)
    mean = 20_000 * (0.1 * theory.sel(site="8a", line="Mn K") + 0.9 * theory.sel(site="16d", line="Mn K"))
    oxygen, rng = 10_000 * theory.sel(site="32e", line="O K"), np.random.default_rng(0)
    with (tmp_path / "zone.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tilt_x", "tilt_y", "Mn K", "O K"])
        for k in rng.permutation(81):
            place = {"tilt_y": k // 9, "tilt_x": k % 9}
            counts = [rng.poisson(float(each.isel(place))) for each in (mean, oxygen)]
            writer.writerow([tilts[place["tilt_x"]], tilts[place["tilt_y"]], *counts])
    (tmp_path / "spinel.cif").write_text(CIF)
    row = RECIPE[RECIPE.index("[[row]]") : RECIPE.index("[candidates]")]
    zone = '[[zone]]\naxis = [0, 0, 1]\nx = [4, 0, 0]\nlargest = 0.8\ncounts = "zone.csv"\n\n'
    recipe = RECIPE.replace(row, zone).replace("largest_thickness = 100", "largest_thickness = 60")
    (tmp_path / "recipe.toml").write_text(recipe)
    assert main(["channelling", str(tmp_path / "recipe.toml")]) == 0
    stored = json.loads((tmp_path / "recipe.occupancy.json").read_text())
    assert abs(stored["share"]["Mn"]["8a"] - 0.1) < 4 * stored["standard_error"]["Mn"]["8a"] < 0.08
    assert stored["thickness_nm"]["zone 1"] == pytest.approx(40, abs=3) and "81 orientations" in capsys.readouterr().out
    text = (tmp_path / "zone.csv").read_text().splitlines()
    (tmp_path / "zone.csv").write_text("\n".join(text[:-1]))
    assert main(["channelling", str(tmp_path / "recipe.toml")]) == 2
    assert "each pair of them once" in capsys.readouterr().err
    (tmp_path / "zone.csv").write_text((folder / "counts.csv").read_text())
    assert main(["channelling", str(tmp_path / "recipe.toml")]) == 2
    assert "a [[zone]] has the columns tilt_y and tilt_x" in capsys.readouterr().err


def test_what_is_doubtful_stands_in_the_report(tmp_path):
    crystal = ch.phantoms.spinel().with_debye_waller({"16c": 0.4, "16d": 0.4})
    scan = ch.systematic_row(crystal, (4, 0, 0), np.linspace(-16, 16, 21), 200)
    theory = ch.response(crystal, scan, ["Mn K"], np.arange(5.0, 101, 5), check=False)
    mean = 1e5 * theory.sel(site="16d", thickness=60, drop=True)
    with pytest.warns(UserWarning, match="cannot be told apart"):
        found = ch.fit_occupancy(mean.round(), theory, {"Mn": ["16c", "16d"]}, orientation="fixed")
    page = ts.report_occupancy(found, tmp_path / "doubt.html", title="<Spinel>").read_text(encoding="utf-8")
    assert "cannot be told apart" in page and "&lt;Spinel&gt;" in page and "Doubt: Mn" in repr(found)
    with pytest.raises(ts.InvalidArgument, match="report_occupancy shows"):
        ts.report_occupancy(theory, tmp_path / "none.html")
    with pytest.raises(ts.MissingFile, match="no folder"):
        ts.report_occupancy(found, tmp_path / "absent" / "none.html")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[beam]", "[bean]", "Did you mean 'beam'"),
        ("energy = 200", "", "needs 'energy'"),
        ("[[row]]", "[row]", "two brackets"),
        ('counts = "counts.csv"', 'counts = "absent.csv"', "no file"),
        ("largest_thickness", "largest_thicknes", "Did you mean 'largest_thickness'"),
        ('O = ["32e"]', "", "O has a line"),
        ("[4, 0, 0]", "[0, 0, 0]", "not all zero"),
        ('"spinel.cif"', '"other.cif"', "no file"),
    ],
)
def test_a_mistake_gets_one_line(folder, tmp_path, capsys, old, new, said):
    recipe = folder / "mistake.toml"
    recipe.write_text(RECIPE.replace(old, new))
    assert main(["channelling", str(recipe), "--output", str(tmp_path)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert len(lines) == 1 and said in lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tilt_x,Mn K\n", "lines; expected a header"),
        ("angle,Mn K\n1,2\n2,3\n3,4\n", "'tilt_x', in mrad"),
        ("tilt_x,Mn K\n1,2\n2\n3,4\n", "line 3: 1 cells"),
        ("tilt_x,Mn K\n1,2\n2,many\n3,4\n", "many"),
        ("tilt_x\n1\n2\n3\n", "expected lines such as"),
        ("tilt_x,Mn K,Ni K background\n1,2,3\n2,3,4\n3,4,5\n", "without its line"),
    ],
)
def test_tables_that_are_none(folder, tmp_path, capsys, text, said):
    (folder / "bad.csv").write_text(text)
    recipe = folder / "bad.toml"
    recipe.write_text(RECIPE.replace("counts.csv", "bad.csv"))
    assert main(["channelling", str(recipe), "--output", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
