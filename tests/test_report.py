"""The report is one file that needs nothing else, and says what the fit holds."""

import base64
import dataclasses
import os
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from tensorspec.assemble import assemble
from tensorspec.errors import MissingDependency, MissingFile
from tensorspec.recipe import to_recipe
from tensorspec.report import write_report
from tensorspec.solvers.status import Status

pytest.importorskip("jinja2")


@pytest.fixture
def fit():
    rng = np.random.default_rng(0)
    pixel, loss, xray = rng.random((12, 2)), rng.random((20, 2)), rng.random((15, 2))
    coords = {"y": ("y", np.arange(3) * 0.5, {"units": "nm"}), "x": ("x", np.arange(4) * 0.5, {"units": "nm"})}
    energy = {"energy_loss": ("energy_loss", np.arange(400.0, 420), {"units": "eV"})}
    eels = xr.DataArray(
        rng.poisson(100 * pixel @ loss.T).reshape(3, 4, 20),
        dims=("y", "x", "energy_loss"),
        coords=coords | energy,
        attrs={"units": "counts", "title": "SiO₂ <on> Si & Ti", "noise": {"gain": 1.0}, "history": ["aligned"]},
    )
    edx = xr.DataArray(
        rng.poisson(9 * xray @ pixel.T).reshape(15, 3, 4), dims=("xray_energy", "y", "x"), coords=coords,
        attrs={"units": "counts"},
    )  # fmt: skip
    fit = assemble(
        {"eels": eels, "edx": edx},
        {"pixel": pixel, "energy_loss": loss, "xray_energy": xray},
        np.array([[100.0] * 2, [9.0] * 2]),
        model=SimpleNamespace(constraints={"pixel": [SimpleNamespace(strength=1)]}),
        solver="HALS",
        why="all constraints act on single entries",
        sweeps=41,
        recipe={"seed": 7, "loss": to_recipe((1, 2))},
        history=xr.DataArray([9.0, 2.0, 1.0], dims="sweep", coords={"sweep": np.arange(3)}),
        spread=xr.DataArray([1.0, 1.0004, 1.3], dims="restart", coords={"restart": [1, 2, 3]}),
        provenance={
            "seed": 7,
            "versions": {"jax": "0.10.2"},
            "wall_seconds": 12.3456,
            "warnings": ["pixel <3> was never measured"],
            "tensor_weights": {"eels": 2.0, "edx": 0.1},
            "noise": {"eels": {"variance": 25.0, "how": "from the given noise model"}, "edx": None},
            "carriers": {"eels": "pixel", "edx": "pixel"},
            "constraints_as_solved": {"pixel": ["NonNegative()", "SoftOrthogonal(strength=0.034)"]},
            "unused": None,
        },
    )
    return fit.relabel({1: "oxide <b>"})


class Reader(HTMLParser):
    """Collects tags, addresses and text; complains of tags that do not match."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader, " ".join(" ".join(reader.text).split())


def test_it_is_one_file_that_needs_nothing_else(fit, tmp_path):
    path = tmp_path / "report.html"
    assert fit.report(path) == path and os.listdir(tmp_path) == ["report.html"]
    reader, _ = read(path)
    assert reader.addresses and all(address.startswith("data:image/svg+xml;base64,") for address in reader.addresses)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert "http" not in re.sub(r"data:image[^\"]+", "", path.read_text(encoding="utf-8"))
    for address in reader.addresses:
        figure = base64.b64decode(address.partition(",")[2]).decode()
        assert figure.count("<svg") == 1 and not re.search(r'href="(?!#|data:)', figure)


def test_it_says_what_the_fit_holds(fit, tmp_path):
    reader, text = read(fit.report(tmp_path / "report.html"))
    assert len(reader.addresses) == 3
    for expected in (
        "SiO₂ <on> Si & Ti",
        "oxide <b>",
        "pixel <3> was never measured",
        "converged after 41 sweeps",
        "12.3 s wall time",
        f"{100 * float(fit.shares('edx')[0]):.1f} %",
        f"{100 * float(fit.explained.sel(tensor='eels')):.2f} %",
        "NonNegative() SoftOrthogonal(strength=0.034)",
        "x: 4 points, 0 to 1.5 nm",
        "solver HALS because all constraints act on single entries",
        "weight of edx 1",
        "variance of one entry 25 counts², from the given noise model",
        "2 of 3 came within 0.1 % of the best objective",
        f"Chi-squared per degree of freedom is {fit.residual_summary('eels').attrs['chi2']:.3f}",
        "The noise of these data is not known",
        "versions, jax 0.10.2",
        '"seed": 7',
        '"aligned"',
    ):
        assert expected in text, expected
    assert "unused" not in text and "b" not in reader.tags[reader.tags.index("figure") :]


def test_a_fit_that_did_not_converge_says_so_first(fit, tmp_path):
    stopped = dataclasses.replace(fit, status=Status.MAX_SWEEPS).select([2])
    _, text = read(stopped.report(tmp_path / "report.html"))
    assert "Raise max_sweeps" in text and text.index("Raise max_sweeps") < text.index("Components")
    assert "select, components 2" in text and not re.search(r"\bnan\b", text.lower())


def test_a_fit_without_data_or_details_has_a_report_too(fit, tmp_path):
    bare = dataclasses.replace(
        fit, data=None, model=None, recipe={}, provenance={}, solver="", why="", history=fit.history[:0], spread=None
    )
    reader, text = read(write_report(bare, tmp_path / "report.html"))
    assert len(reader.addresses) == 1 and "no residual was saved" in text
    described = dataclasses.replace(bare, model={"class": "CP", "constraints": {"pixel": [{"class": "Mine"}]}})
    _, text = read(write_report(described, tmp_path / "report.html"))
    assert "{'class': 'Mine'}" in text


def test_the_same_fit_gives_the_same_file(fit, tmp_path):
    assert fit.report(tmp_path / "a.html").read_bytes() == fit.report(tmp_path / "b.html").read_bytes()


def test_what_is_missing_is_named(fit, tmp_path, monkeypatch):
    with pytest.raises(MissingFile, match="no folder"):
        fit.report(tmp_path / "nowhere" / "report.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency, match=r'pip install "tensorspec\[report\]"'):
        fit.report(tmp_path / "report.html")
    assert os.listdir(tmp_path) == []
