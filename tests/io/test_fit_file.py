"""A saved fit comes back the same, other programs open it, and nothing is lost when writing fails."""

import dataclasses
import json
import os
import sys
import types
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from tensorspec.assemble import assemble
from tensorspec.errors import InvalidArgument, InvalidData, MissingFile, UnknownName, UnreadableFile
from tensorspec.io.fit_file import open_fit, refit, save_fit
from tensorspec.io.nxdata import read_array, write_array
from tensorspec.recipe import from_recipe, to_recipe
from tensorspec.solvers.status import Status


@dataclass(frozen=True)
class Model:
    rank: int
    constraints: Any = None


@dataclass(frozen=True)
class Loss:
    sigma: float = 1.0


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """With the import mode of the tests this module is not in `sys.modules` under its own name."""
    monkeypatch.setitem(sys.modules, __name__, types.SimpleNamespace(Model=Model, Loss=Loss))


def axis(dim, size, units, start=0.0, step=0.5):
    return {dim: (dim, start + step * np.arange(size), {"units": units, "long_name": f"the {dim}"})}


def planted(data, rank=3, seed=0, **settings):
    """Return a fit of planted factors to Poisson counts of them."""
    from tensorspec.modes import find_modes

    rng = np.random.default_rng(seed)
    labels, _ = find_modes(data)
    factors = {mode: rng.random((label.size, rank)) ** 3 for mode, label in labels.items()}
    model = assemble(data, factors, 30 * (1 + rng.random((len(data), rank))))
    for name, tensor in data.items():
        counts = rng.poisson(np.asarray(model.reconstruct(name)))
        data[name] = tensor.copy(data=counts.astype("float32"))
    columns = {mode: factor.values.reshape(rank, -1).T for mode, factor in model.factors.items()}
    return assemble(data, columns, np.atleast_2d(model.weights.values), **settings)


@pytest.fixture
def fused():
    pixels = axis("y", 5, "nm") | axis("x", 6, "nm", step=0.25)
    eels = xr.DataArray(
        np.ones((5, 6, 20)),
        dims=("y", "x", "energy_loss"),
        coords=pixels | axis("energy_loss", 20, "eV", 450.0),
        attrs={
            "units": "counts",
            "title": "EELS µ",
            "noise": {"gain": 1.0},
            "metadata": {"Acquisition": {"ms": (1, 2)}},
        },
    )
    edx = xr.DataArray(
        np.ones((14, 5, 6)),
        dims=("xray_energy", "y", "x"),
        coords=pixels | axis("xray_energy", 14, "keV", step=0.01),
        attrs={"units": "counts"},
    )
    model = Model(3, {"pixel": [Loss(0.5)], "energy_loss": (1, np.array([1.0, np.nan]))})
    fit = planted(
        {"eels": eels, "edx": edx},
        model=model,
        losses={"eels": Loss(), "edx": Loss(2.0)},
        recipe={"model": to_recipe(model), "loss": to_recipe({"eels": Loss(), "edx": Loss(2.0)}), "seed": 3},
        solver="HALS",
        why="every constraint acts on single entries",
        status=Status.MAX_SWEEPS,
        objective=12.5,
        history=xr.DataArray([3.0, 2.0, 1.0], dims="sweep", coords={"sweep": [0, 1, 2]}, name="objective"),
        sweeps=2,
        spread=xr.DataArray([1.0, np.nan], dims="restart", coords={"restart": [1, 2]}),
        provenance={"seed": 3, "versions": {"jax": "0.10"}, "warnings": ["one", "two"], "scales": {"eels": 2.5}},
    ).relabel({1: "core", 3: "shell β"})
    factor = fit.factors["pixel"].copy()
    factor[:, 2, 3] = np.nan
    return dataclasses.replace(fit, factors={**fit.factors, "pixel": factor})


@pytest.fixture
def single():
    data = xr.DataArray(
        np.ones((4, 3, 6)),
        dims=("sample", "tilt", "energy_loss"),
        coords={
            "sample": ["a", "bb", "ccc", "Zn/O"],
            "temperature": ("sample", [300.0, 310.0, 320.0, 330.0], {"units": "K"}),
        }
        | axis("energy_loss", 6, "eV"),
    )
    return planted({"data": data}, rank=2)


def assert_same(fit, other):
    """Everything but the data is the same, types and attributes included."""
    for field in dataclasses.fields(fit):
        one, two = getattr(fit, field.name), getattr(other, field.name)
        if field.name in ("data", "summaries"):
            continue
        if field.name == "factors":
            assert list(one) == list(two)
            for mode in one:
                assert_identical(one[mode], two[mode])
        elif field.name == "tensors":
            assert list(one) == list(two)
            for name in one:
                np.testing.assert_equal(dataclasses.asdict(two[name]), dataclasses.asdict(one[name]))
        elif field.name == "modes":
            assert list(one) == list(two)
            for name in one:
                assert (one[name].dims, one[name].shape) == (two[name].dims, two[name].shape)
                assert set(one[name].coords) == set(two[name].coords)
                for key, coord in one[name].coords.items():
                    assert_identical(coord, two[name].coords[key])
        elif isinstance(one, xr.DataArray):
            assert_identical(one, two)
        elif field.name == "model":
            np.testing.assert_equal(dataclasses.asdict(two), dataclasses.asdict(one)) if one else None
        else:
            np.testing.assert_equal(two, one)


def assert_identical(one, two):
    xr.testing.assert_identical(one, two)
    assert one.dtype == two.dtype and one.dims == two.dims
    kinds = [{key: coord.dtype.kind.replace("O", "U") for key, coord in x.coords.items()} for x in (one, two)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("kind", ["fused", "single"])
def test_a_saved_fit_comes_back_the_same(kind, request, tmp_path):
    fit = request.getfixturevalue(kind)
    assert fit.save(tmp_path / "fit.h5") == tmp_path / "fit.h5"
    again = open_fit(tmp_path / "fit.h5")
    assert_same(fit, again)
    assert again.data is None and repr(again) == repr(fit)
    for name in fit.tensors:
        xr.testing.assert_identical(again.residual_summary(name), fit.residual_summary(name))
        xr.testing.assert_identical(again.reconstruct(name), fit.reconstruct(name))
        xr.testing.assert_identical(again.residual(name, fit.data), fit.residual(name))
    save_fit(again, tmp_path / "again.h5")
    assert_same(again, open_fit(tmp_path / "again.h5"))
    assert os.listdir(tmp_path) in (["fit.h5", "again.h5"], ["again.h5", "fit.h5"])


@pytest.mark.parametrize(
    "array",
    [
        xr.DataArray(np.zeros((2, 3), "float32"), dims=("component", "p q/r"), coords={"component": [1, 2]}),
        xr.DataArray(np.arange(4), dims="t", coords={"t": np.datetime64("2024-01-01", "ns") + np.arange(4)}),
        xr.DataArray(np.arange(2), dims="t", coords={"dt": ("t", np.array([1, 2], "timedelta64[s]"))}),
        xr.DataArray([1.0, np.inf], dims="t", coords={"used": ("t", [True, False]), "at": 3.5, "who": "me"}),
        xr.DataArray(np.arange(6.0), dims="x", coords={"x": list("abcabc")}, name="named").assign_coords(
            xr.Coordinates.from_pandas_multiindex(
                __import__("pandas").MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=("s", "n")), "x"
            )
        ),
        xr.DataArray(np.arange(6).reshape(2, 3), dims=("y", "x"), coords={"height": (("y", "x"), np.ones((2, 3)))}),
        xr.DataArray(np.arange(20_000.0), dims="x"),
    ],
    ids=["no coordinate", "dates", "spans", "booleans and scalars", "multi-index", "2-D coordinate", "compressed"],
)
def test_labelled_arrays_of_every_kind_come_back(array):
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        attributes = json.loads(json.dumps(write_array(file, array)))
        again = read_array(file, attributes)
    assert_identical(array, again)


def test_objects_that_no_file_can_hold_are_named(tmp_path):
    array = xr.DataArray([1.0, 2.0], dims="x", coords={"what": ("x", np.array(["a", {}], dtype=object))})
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        with pytest.raises(InvalidArgument, match="'what'"):
            write_array(file, array)


def test_xarray_opens_every_group_with_dimensions_coordinates_and_units(fused, tmp_path):
    path = fused.save(tmp_path / "fit.h5")
    places = {
        "factors/pixel": fused.factors["pixel"],
        "factors/xray_energy": fused.factors["xray_energy"],
        "weights": fused.weights,
        "history": fused.history,
        "tensors/eels_maps": fused.maps("eels"),
        "tensors/edx_spectra": fused.spectra("edx"),
        "tensors/eels_residual_map": fused.residual_summary("eels")["residual_map"],
    }
    for place, array in places.items():
        with xr.open_dataset(path, group=f"tensorspec/{place}", engine="h5netcdf") as opened:
            assert opened["data"].dims == array.dims
            np.testing.assert_array_equal(opened["data"], array)
            assert set(opened["data"].coords) == set(array.coords)
            for key in array.coords:
                assert opened[key].values.tolist() == array[key].values.tolist()
                assert opened[key].attrs.get("units") == array[key].attrs.get("units")
            assert opened["data"].attrs.get("units") == array.attrs.get("units")
    tree = xr.open_datatree(path, engine="h5netcdf")
    assert "/tensorspec/tensors/edx_maps" in tree.groups
    tree.close()


def test_hyperspy_reads_maps_and_spectra_in_counts(fused, tmp_path):
    reader = pytest.importorskip("rsciio.nexus").file_reader
    path = fused.save(tmp_path / "fit.h5")
    read = {signal["metadata"]["General"]["title"]: signal for signal in reader(str(path), nxdata_only=True)}
    spectra, maps = read["eels_spectra"], read["edx_maps"]
    np.testing.assert_array_equal(spectra["data"], fused.spectra("eels"))
    energy = next(axis for axis in spectra["axes"] if axis["size"] == 20)
    assert (energy["name"], energy["units"], energy["scale"], energy["offset"]) == ("energy_loss", "eV", 0.5, 450.0)
    np.testing.assert_array_equal(maps["data"], fused.maps("edx"))
    pixels = [(axis["name"], axis["units"], axis["scale"]) for axis in maps["axes"][1:]]
    assert pixels == [("y", "nm", 0.5), ("x", "nm", 0.25)]
    assert [signal["metadata"]["General"]["title"] for signal in reader(str(path), use_default=True, nxdata_only=True)]


def test_files_follow_nexus(fused, tmp_path):
    with h5py.File(fused.save(tmp_path / "fit.h5"), "r") as file:
        assert file.attrs["NX_class"] == "NXroot" and file.attrs["default"] == "tensorspec"
        entry = file["tensorspec"]
        assert entry.attrs["NX_class"] == "NXentry"
        assert entry["definition"].asstr()[()] == "tensorspec_model" and entry["definition"].attrs["version"] == "1"
        shown = entry
        while "default" in shown.attrs:
            shown = shown[shown.attrs["default"]]
        assert shown.name == "/tensorspec/tensors/eels_maps"
        assert list(shown.attrs["axes"]) == ["component", "y", "x"] and shown.attrs["x_indices"] == 2
        assert shown[shown.attrs["signal"]].attrs["units"] == "counts"
        assert entry["process"].attrs["NX_class"] == "NXprocess"
        note = json.loads(entry["process/note/data"].asstr()[()])
        assert note["provenance"]["versions"] == {"jax": "0.10"} and note["recipe"]["seed"] == 3
        assert not [
            key for key in entry["factors/pixel"] if entry[f"factors/pixel/{key}"].dtype == object and key != "label"
        ]


def test_a_write_that_fails_leaves_the_older_file_and_no_other(fused, single, tmp_path):
    path = single.save(tmp_path / "fit.h5")
    before = path.read_bytes()
    bad = dataclasses.replace(fused, spread=xr.DataArray([1.0], dims="r", coords={"o": ("r", np.array([{}], object))}))
    with pytest.raises(InvalidArgument):
        bad.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["fit.h5"]
    fused.save(path)
    assert open_fit(path).rank == 3


def test_files_that_are_no_fit_are_refused(single, tmp_path):
    with pytest.raises(MissingFile, match="nothing.h5"):
        open_fit(tmp_path / "nothing.h5")
    with pytest.raises(MissingFile, match="folder"):
        single.save(tmp_path / "nowhere" / "fit.h5")
    text = tmp_path / "text.h5"
    text.write_text("no")
    with pytest.raises(UnreadableFile, match="no HDF5 file"):
        open_fit(text)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UnreadableFile, match="not a saved fit.*ts.load"):
        open_fit(tmp_path / "other.h5")


def test_newer_and_damaged_files_are_refused(single, tmp_path):
    path = single.save(tmp_path / "fit.h5")
    with h5py.File(path, "r+") as file:
        del file["tensorspec/factors/tilt"]
    with pytest.raises(UnreadableFile, match="damaged.*tilt"):
        open_fit(path)
    with h5py.File(path, "r+") as file:
        file["tensorspec/definition"].attrs["version"] = "2"
    with pytest.raises(UnreadableFile, match="version 2.*up to 1.*upgrade"):
        open_fit(path)


def test_a_model_whose_class_is_not_there_is_kept_as_a_description(fused, tmp_path, monkeypatch):
    path = fused.save(tmp_path / "fit.h5")
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.warns(UserWarning, match="import it first"):
        fit = open_fit(path)
    assert fit.model["class"] == "Model" and fit.rank == 3
    with pytest.raises(UnknownName, match="import it first"):
        refit(path, fused.data)


def test_a_model_that_cannot_be_described_is_saved_with_a_warning(single, tmp_path):
    odd = dataclasses.replace(single, model=Model(2, {"pixel": len}))
    with pytest.warns(UserWarning, match=r"the model\.constraints\['pixel'\] is a builtin"):
        path = odd.save(tmp_path / "fit.h5")
    assert open_fit(path).model == Model(2, {"pixel": str(len)})


def test_refit_passes_the_settings_on(fused, single, tmp_path, monkeypatch):
    calls = []
    engine = types.SimpleNamespace(fit=lambda data, model, **settings: calls.append((data, model, settings)))
    monkeypatch.setitem(sys.modules, "tensorspec.fit", engine)
    refit(fused.save(tmp_path / "fit.h5"), fused.data)
    data, model, settings = calls[0]
    assert data is fused.data and model.rank == 3 and model.constraints["pixel"] == [Loss(0.5)]
    assert settings == {"loss": {"eels": Loss(), "edx": Loss(2.0)}, "seed": 3}
    with pytest.raises(InvalidData, match="'edx'"):
        refit(tmp_path / "fit.h5", {"eels": fused.data["eels"]})
    with pytest.raises(InvalidArgument, match="no settings"):
        refit(single.save(tmp_path / "other.h5"), single.data)
    assert from_recipe(fused.recipe["model"]).rank == 3
