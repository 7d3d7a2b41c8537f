"""What comes back from a fit: counts add up, components are counted from 1, nothing is changed in place."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorly
import xarray as xr

from tensorspec.assemble import assemble
from tensorspec.errors import InvalidArgument, InvalidData, UnknownMode, UnknownName
from tensorspec.solvers.status import Status

SIZES = {"y": 4, "x": 5, "energy_loss": 12, "xray_energy": 9, "tilt": 3}


def coordinate(dim):
    units = {"energy_loss": "eV", "xray_energy": "keV", "tilt": "deg"}.get(dim, "nm")
    return (dim, 0.5 * np.arange(SIZES[dim]) + 3, {"units": units})


def truth(tensors, rank=3, modes=None, seed=0, **settings):
    """Return a fit of planted factors: `tensors` maps names to dimensions in their order."""
    rng = np.random.default_rng(seed)
    data = {
        name: xr.DataArray(
            np.ones([SIZES[dim] for dim in dims]),
            dims=dims,
            coords={dim: coordinate(dim) for dim in dims},
            attrs={"units": "counts", "title": name},
        )
        for name, dims in tensors.items()
    }
    from tensorspec.modes import find_modes

    labels, _ = find_modes(data, modes)
    factors = {mode: rng.random((label.size, rank)) + 0.01 for mode, label in labels.items()}
    weights = 1000 * (1 + rng.random((len(data), rank)))
    fit = assemble(data, factors, weights, modes=modes, **settings)
    exact = {name: fit.reconstruct(name).assign_attrs(units="counts", title=name) for name in data}
    return assemble(exact, factors, weights, modes=modes, **settings)


@pytest.fixture
def single():
    return truth({"data": ("energy_loss", "y", "x")}, solver="HALS", sweeps=12)


@pytest.fixture
def fused():
    return truth({"eels": ("y", "x", "energy_loss"), "edx": ("xray_energy", "y", "x")})


@pytest.fixture
def order3():
    return truth({"data": ("tilt", "y", "x", "energy_loss")})


def outer_sum(fit, name):
    """Return the sum over components of weights times factors, written out by labels."""
    total = 0
    for component in range(1, fit.rank + 1):
        term = fit.strengths(name).sel(component=component, drop=True)
        for mode in fit.tensors[name].modes:
            term = term * fit.factors[mode].sel(component=component, drop=True)
        total = total + term
    return total


@pytest.mark.parametrize("kind", ["single", "fused", "order3"])
def test_reconstruction_is_the_sum_of_weights_times_factors_in_the_order_of_the_data(kind, request):
    fit = request.getfixturevalue(kind)
    for name, record in fit.tensors.items():
        model = fit.reconstruct(name)
        assert model.dims == record.dims
        xr.testing.assert_allclose(model, outer_sum(fit, name).transpose(*record.dims), rtol=1e-13)
        assert model.attrs["units"] == "counts" and model["x"].attrs["units"] == "nm"
        assert abs(fit.residual(name)).max() < 1e-12 * model.max()


@pytest.mark.parametrize("kind", ["single", "fused", "order3"])
def test_maps_and_spectra_both_add_up_to_the_counts_of_the_component(kind, request):
    fit = request.getfixturevalue(kind)
    for name in fit.tensors:
        maps, spectra, totals = fit.maps(name), fit.spectra(name), fit.totals(name)
        np.testing.assert_allclose(maps.sum(["y", "x"]), totals, rtol=1e-13)
        np.testing.assert_allclose(spectra.sum(spectra.dims[1]), totals, rtol=1e-13)
        np.testing.assert_allclose(totals.sum(), fit.reconstruct(name).sum(), rtol=1e-13)
        np.testing.assert_allclose(fit.shares(name), totals / totals.sum(), rtol=1e-13)
        assert maps.attrs["units"] == spectra.attrs["units"] == "counts"
        assert maps["component"].values.tolist() == [1, 2, 3]


def test_maps_are_counts_at_each_pixel(order3):
    summed = order3.reconstruct().sum(["energy_loss", "tilt"])
    np.testing.assert_allclose(order3.maps().sum("component"), summed, rtol=1e-13)
    assert order3.maps().dims == ("component", "y", "x")
    assert order3.spectra().dims == ("component", "energy_loss")
    tilts = order3.spectra(mode="tilt")
    np.testing.assert_allclose(tilts.sum("component"), order3.reconstruct().sum(["energy_loss", "y", "x"]), rtol=1e-13)


def test_without_a_pixel_the_first_mode_carries_the_maps():
    fit = truth({"data": ("tilt", "energy_loss")})
    assert (fit.map_mode(), fit.signal_mode()) == ("tilt", "energy_loss")


def test_spectra_of_data_with_the_energy_first_are_along_the_energy(single):
    assert single.map_mode() == "pixel" and single.spectra().dims == ("component", "energy_loss")


def test_what_was_never_measured_is_nan_in_its_own_mode_and_absent_from_sums(single):
    factor = single.factors["pixel"].copy()
    factor[:, 1, 2] = np.nan
    fit = dataclasses.replace(single, factors={**single.factors, "pixel": factor})
    assert np.isnan(fit.maps()[:, 1, 2]).all() and int(np.isnan(fit.maps()).sum()) == 3
    assert np.isnan(fit.reconstruct().isel(y=1, x=2)).all()
    np.testing.assert_allclose(fit.spectra().sum("energy_loss"), fit.maps().sum(["y", "x"]), rtol=1e-13)
    np.testing.assert_allclose(fit.spectra().sum("component"), fit.reconstruct().sum(["y", "x"]), rtol=1e-13)


def test_several_tensors_without_a_name_give_a_mapping(fused):
    assert (
        set(fused.maps())
        == set(fused.spectra())
        == set(fused.reconstruct())
        == set(fused.residual())
        == {"eels", "edx"}
    )
    assert fused.explained.sel(tensor="edx") == pytest.approx(1, abs=1e-12)
    assert set(fused.to_tensorly()) == {"eels", "edx"}


def test_a_residual_needs_the_data_after_a_file_was_opened(single, fused):
    opened = dataclasses.replace(single, data=None)
    with pytest.raises(InvalidData, match="data="):
        opened.residual()
    data = single.data["data"]
    np.testing.assert_allclose(opened.residual(data=data.transpose("x", "energy_loss", "y")), 0, atol=1e-9)
    with pytest.raises(InvalidData, match="shape"):
        opened.residual(data=data[:3])
    with pytest.raises(InvalidData, match="energy_loss"):
        opened.residual(data=data.rename(energy_loss="energy"))
    with pytest.raises(InvalidData, match="ndarray"):
        opened.residual(data=data.values)
    with pytest.raises(InvalidArgument, match="mapping"):
        fused.residual("eels", data=fused.data["eels"])
    with pytest.raises(InvalidData, match="'eels'"):
        fused.residual("eels", data={"edx": fused.data["edx"]})


def test_residual_of_unsigned_counts_does_not_wrap_around(single):
    counts = single.data["data"].astype("uint16")
    residual = dataclasses.replace(single, data={"data": counts}).residual()
    np.testing.assert_allclose(residual, counts.astype(float) - single.reconstruct(), rtol=1e-12)
    assert residual.min() < 0


def test_residual_of_sparse_and_dask_data(single):
    sparse = pytest.importorskip("sparse")
    pytest.importorskip("dask")
    data = single.data["data"]
    shifted = data + 1
    backed = data.copy(data=sparse.COO.from_numpy(shifted.values))
    np.testing.assert_allclose(single.residual(data=backed), 1, rtol=1e-9)
    lazy = single.residual(data=shifted.chunk(y=2))
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy, 1, rtol=1e-9)


def test_select_counts_from_one_again_and_keeps_the_order_asked_for(fused):
    chosen = fused.relabel({3: "third"}).select([3, 1])
    assert chosen.rank == 2 and chosen.labels == ["third", ""]
    assert chosen.factors["pixel"]["component"].values.tolist() == [1, 2]
    np.testing.assert_array_equal(chosen.maps("edx"), fused.maps("edx").sel(component=[3, 1]))
    assert np.isnan(chosen.explained).all() and np.isnan(chosen.objective)
    assert chosen.provenance["derived"] == [{"step": "select", "components": [3, 1]}]
    assert "derived" not in fused.provenance


@pytest.mark.parametrize("bad", [[0], [4], [-1], ["core"], [1.5], [True], [None]])
def test_components_that_do_not_exist_are_named(single, bad):
    with pytest.raises(UnknownName, match="1 to 3"):
        single.select(bad)


def test_components_twice_or_none_are_refused(single):
    for bad in ([], [1, 1]):
        with pytest.raises(InvalidArgument, match="each once"):
            single.select(bad)
    with pytest.raises(InvalidArgument, match="two or more"):
        single.merge([2])


@pytest.mark.parametrize("kind", ["single", "order3"])
def test_merged_components_add_their_maps_and_their_spectra(kind, request):
    fit = request.getfixturevalue(kind)
    merged = fit.merge([1, 3])
    assert merged.rank == 2
    for whole, parts in ((merged.maps(), fit.maps()), (merged.spectra(), fit.spectra())):
        np.testing.assert_allclose(whole.sel(component=1), parts.sel(component=[1, 3]).sum("component"), rtol=1e-12)
        np.testing.assert_allclose(whole.sel(component=2), parts.sel(component=2), rtol=1e-14)
    for factor in merged.factors.values():
        np.testing.assert_allclose((factor**2).sum(factor.dims[1:]), 1, rtol=1e-12)


def test_merging_two_halves_of_one_component_is_exact(fused):
    weights = fused.weights.values
    twice = {mode: factor.values.reshape(3, -1)[[0, 1, 2, 0]].T for mode, factor in fused.factors.items()}
    halves = np.concatenate([weights, weights[:, :1]], axis=1)
    halves[:, [0, 3]] *= [[0.3, 0.7], [0.9, 0.1]]
    merged = assemble(fused.data, twice, halves).merge([4, 1])
    for name in fused.tensors:
        xr.testing.assert_allclose(merged.reconstruct(name), fused.reconstruct(name), rtol=1e-12)


def test_merging_keeps_the_counts_of_every_tensor_and_pools_the_shared_map(fused):
    merged = fused.merge([1, 2])
    pooled = sum(fused.maps(name).sel(component=[1, 2]).sum("component") for name in fused.tensors)
    for name in fused.tensors:
        both = fused.spectra(name).sel(component=[1, 2]).sum("component")
        np.testing.assert_allclose(merged.spectra(name).sel(component=1), both, rtol=1e-12)
        share = merged.maps(name).sel(component=1) / merged.totals(name).sel(component=1)
        np.testing.assert_allclose(share, pooled / pooled.sum(), rtol=1e-12)


def test_merging_a_dead_component_changes_nothing_and_cancelling_ones_are_refused(single):
    dead = dataclasses.replace(single, weights=single.weights * [1, 1, 0])
    np.testing.assert_allclose(dead.merge([1, 3]).maps(), dead.maps()[:2], rtol=1e-12)
    empty = dead.merge([3, 1]).merge([1, 2]).totals()
    np.testing.assert_allclose(empty, dead.totals().sum(), rtol=1e-12)
    factor = single.factors["energy_loss"].copy()
    factor[1] -= factor[1].mean()
    signed = dataclasses.replace(single, factors={**single.factors, "energy_loss": factor})
    with pytest.raises(InvalidArgument, match="component 2 in mode 'energy_loss'.*NonNegative"):
        signed.merge([1, 2])


def test_labels_are_a_coordinate_and_name_components(fused):
    fit = fused.relabel({1: "core", 3: "shell"})
    assert fit.labels == ["core", "", "shell"] and fused.labels == ["", "", ""]
    assert fit.maps("eels")["label"].values.tolist() == ["core", "", "shell"]
    assert fit.relabel({"core": "inside the particle"}).labels == ["inside the particle", "", "shell"]
    np.testing.assert_array_equal(fit.select(["shell"]).maps("edx")[0], fused.maps("edx")[2])
    with pytest.raises(UnknownName, match=r"labelled \['core', '', 'shell'\]"):
        fit.select(["bulk"])


def test_names_that_do_not_exist_are_named(single, fused):
    with pytest.raises(UnknownName, match="Did you mean 'eels'"):
        fused.maps("eel")
    with pytest.raises(UnknownName, match=r"no tensor 'eels'; this fit has \['data'\]"):
        single.spectra("eels")
    with pytest.raises(UnknownMode, match="Did you mean 'energy_loss'"):
        single.spectra(mode="energy")
    with pytest.raises(InvalidArgument, match=r"\['eels', 'edx'\]"):
        fused.strengths()


def test_shares_of_signed_components_are_of_energy(single):
    signed = dataclasses.replace(single, weights=single.weights * [1, -1, 1])
    assert signed.shares().attrs["of"] == "energy" and single.shares().attrs["of"] == "counts"
    np.testing.assert_allclose(signed.shares(), single.weights**2 / (single.weights**2).sum(), rtol=1e-12)


def test_tensorly_rebuilds_the_model(order3):
    tensor = order3.to_tensorly().to_tensor()
    expected = order3.reconstruct().transpose("tilt", "y", "x", "energy_loss").values
    np.testing.assert_allclose(tensorly.to_numpy(tensor).reshape(expected.shape), expected, rtol=1e-12)


def test_signs_and_scales_of_the_input_do_not_matter(single):
    factors = {mode: 7 * factor.values.reshape(3, -1).T for mode, factor in single.factors.items()}
    again = assemble(single.data, factors, single.weights.values / 49)
    np.testing.assert_allclose(again.weights, single.weights, rtol=1e-12)
    with pytest.raises(InvalidData, match="energy_loss"):
        assemble(single.data, {"pixel": factors["pixel"]})


def test_text_is_one_short_table(fused):
    fit = dataclasses.replace(fused.relabel({2: "core <A&B>"}), status=Status.MAX_SWEEPS, solver="HALS", sweeps=40)
    text = repr(fit)
    assert text.count("\n") <= 10
    for expected in (
        "3 components, HALS, not converged after 40 sweeps",
        "energy_loss: 12",
        "core <A&B>",
        "Raise max_sweeps",
    ):
        assert expected in text
    share = f"{100 * float(fit.shares('edx')[1]):.1f} %"
    assert share in next(line for line in text.splitlines() if "core" in line)
    html = fit._repr_html_()
    assert "core &lt;A&amp;B&gt;" in html and share in html and "<A&B>" not in html


def test_a_converged_fit_gives_no_advice(single):
    assert "Raise" not in repr(single) and single.converged
    assert [status.converged for status in Status] == [True, True, False, False, False]


def test_nothing_is_changed_in_place(fused):
    before = {mode: factor.copy(deep=True) for mode, factor in fused.factors.items()}
    weights, data = fused.weights.copy(deep=True), fused.data["eels"].copy(deep=True)
    fused.merge([1, 2]), fused.select([2]), fused.relabel({1: "a"}), fused.maps(), fused.residual(), repr(fused)
    for mode, factor in before.items():
        xr.testing.assert_identical(factor, fused.factors[mode])
    xr.testing.assert_identical(weights, fused.weights)
    xr.testing.assert_identical(data, fused.data["eels"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        fused.solver = "another"


def test_single_precision_stays(single):
    factors = {mode: factor.astype("float32") for mode, factor in single.factors.items()}
    assert dataclasses.replace(single, factors=factors).reconstruct().dtype == np.float32


def test_transform_asks_the_engine(single, monkeypatch):
    import sys

    engine = SimpleNamespace(transform=lambda fit, new, mode: (fit, new, mode))
    monkeypatch.setitem(sys.modules, "tensorspec.fit.transform", engine)
    assert single.transform("new", mode="pixel") == (single, "new", "pixel")
