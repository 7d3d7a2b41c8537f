"""Modes: which dimensions belong together, merge and split back, shared modes that must agree."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import sparse
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorspec.errors import InvalidArgument, InvalidData, ModeMismatch, UnknownMode
from tensorspec.modes import broadcast_to_array, find_modes, from_arrays, split, to_array

DIMS = ("z", "y", "x", "energy_loss", "tilt_y", "tilt_x", "time")


def axis(dim: str, values, units: str | None = "nm") -> xr.DataArray:
    return xr.DataArray(values, dims=dim, attrs={} if units is None else {"units": units})


def numbered(sizes: dict[str, int], coordinates: bool = True) -> xr.DataArray:
    values = np.arange(float(np.prod(list(sizes.values())))).reshape(tuple(sizes.values()))
    coords = {dim: axis(dim, 2.5 + 0.5 * np.arange(size)) for dim, size in sizes.items()} if coordinates else {}
    return xr.DataArray(values, dims=tuple(sizes), coords=coords)


@st.composite
def tensors(draw: st.DrawFn) -> xr.DataArray:
    """Draw tensors of two or more modes with ragged sizes, one included, in any order of dimensions."""
    groups = {"z": 0, "y": 0, "x": 0, "tilt_y": 1, "tilt_x": 1}
    dims = draw(
        st.lists(st.sampled_from(DIMS), min_size=2, max_size=5, unique=True).filter(
            lambda dims: len({groups.get(dim, dim) for dim in dims}) >= 2
        )
    )
    sizes = draw(st.lists(st.integers(1, 4), min_size=len(dims), max_size=len(dims)))
    return numbered(dict(zip(dims, sizes, strict=True)), draw(st.booleans()))


@given(tensors())
@settings(deadline=None, max_examples=60)
def test_merge_then_split_gives_the_tensor_back(tensor: xr.DataArray):
    labels, names = find_modes({"a": tensor})
    array = to_array(tensor, names["a"], labels)
    assert array.shape == tuple(labels[name].size for name in names["a"])
    assert from_arrays(array, names["a"], labels, tensor.dims).identical(tensor)


@given(tensors(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_order_of_dimensions_does_not_matter_for_the_values_of_a_mode(tensor: xr.DataArray, random):
    labels, names = find_modes({"a": tensor})
    dims = list(tensor.dims)
    random.shuffle(dims)
    shuffled = tensor.transpose(*dims)
    np.testing.assert_array_equal(to_array(shuffled, names["a"], labels), to_array(tensor, names["a"], labels))
    # Found anew, only the order of the modes may differ, never how the points of a mode are numbered.
    new_labels, new_names = find_modes({"a": shuffled})
    order = [new_names["a"].index(name) for name in names["a"]]
    array = to_array(shuffled, new_names["a"], new_labels)
    np.testing.assert_array_equal(array.transpose(order), to_array(tensor, names["a"], labels))


@given(tensors(), st.data())
@settings(deadline=None, max_examples=60)
def test_masks_broadcast_like_xarray(tensor: xr.DataArray, data: st.DataObject):
    labels, names = find_modes({"a": tensor})
    dims = data.draw(st.lists(st.sampled_from(tensor.dims), unique=True))
    rng = np.random.default_rng(len(dims))
    mask = xr.DataArray(rng.random([tensor.sizes[dim] for dim in dims]) > 0.5, dims=dims)
    expected = to_array(mask.broadcast_like(tensor), names["a"], labels)
    array = broadcast_to_array(mask, names["a"], labels)
    assert array.dtype == bool
    np.testing.assert_array_equal(array, expected)


@given(tensors(), st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_split_restores_dimensions_coordinates_and_counts_components_from_one(tensor: xr.DataArray, rank: int):
    labels, _ = find_modes({"a": tensor})
    for mode in labels.values():
        values = np.arange(rank * mode.size).reshape(rank, mode.size)
        factor = split(values, mode)
        assert factor.dims == ("component", *mode.dims)
        assert factor.component.values.tolist() == list(range(1, rank + 1))
        np.testing.assert_array_equal(factor.values.reshape(rank, -1), values)
        for dim in mode.dims:
            assert (dim in factor.coords) == (dim in tensor.coords)
            if dim in tensor.coords:
                xr.testing.assert_identical(factor[dim].variable, tensor[dim].variable)


def test_default_groups():
    labels, names = find_modes({"a": numbered({"tilt_x": 2, "energy_loss": 3, "x": 4, "tilt_y": 5, "y": 6})})
    assert names["a"] == ("orientation", "energy_loss", "pixel")
    assert labels["orientation"].dims == ("tilt_y", "tilt_x")
    assert labels["orientation"].shape == (5, 2)
    assert labels["pixel"].dims == ("y", "x")
    assert labels["pixel"].size == 24
    line, names = find_modes({"a": numbered({"x": 4, "energy_loss": 3})})
    assert names["a"] == ("pixel", "energy_loss") and line["pixel"].dims == ("x",)


def test_merged_axis_is_in_c_order_of_the_group():
    tensor = numbered({"x": 3, "energy_loss": 2, "y": 4})
    labels, names = find_modes({"a": tensor})
    array = to_array(tensor, names["a"], labels)
    assert names["a"] == ("pixel", "energy_loss")
    assert array[2 * 3 + 1, 1] == tensor.isel(y=2, x=1, energy_loss=1)


def test_names_of_every_tensor_follow_first_appearance():
    labels, names = find_modes(
        {"a": numbered({"y": 2, "x": 3, "energy_loss": 4}), "b": numbered({"time": 5, "x": 3, "y": 2})}
    )
    assert tuple(labels) == ("pixel", "energy_loss", "time")
    assert names == {"a": ("pixel", "energy_loss"), "b": ("pixel", "time")}


def test_given_modes_take_dimensions_out_of_their_default_group():
    tensor = numbered({"z": 2, "y": 3, "x": 4, "energy_loss": 5})
    labels, names = find_modes({"a": tensor}, {"depth": ("z",)})
    assert names["a"] == ("depth", "pixel", "energy_loss") and labels["pixel"].dims == ("y", "x")
    labels, names = find_modes({"a": tensor}, {"pixel": ("x", "y")})
    assert names["a"] == ("z", "pixel", "energy_loss") and labels["pixel"].dims == ("x", "y")
    labels, names = find_modes({"a": tensor}, {"x": "x", "plane": ["y", "energy_loss"]})
    assert names["a"] == ("pixel", "plane", "x")
    assert labels["pixel"].dims == ("z",) and labels["plane"].dims == ("y", "energy_loss")


@pytest.mark.parametrize(
    ("modes", "error", "words"),
    [
        ({"pixel": ("y", "xx")}, UnknownMode, ["'xx'", "'pixel'", "'energy_loss'", "Did you mean 'x'?"]),
        ({"a": ("y",), "b": ("y",)}, InvalidArgument, ["'y'", "'a' and 'b'", "one mode"]),
        ({"a": ("y", "y")}, InvalidArgument, ["'y'", "twice in mode 'a'"]),
        ({"energy_loss": ("y", "x")}, InvalidArgument, ["'energy_loss'", "'y', 'x'", "another name"]),
        ({"a": ()}, InvalidArgument, ["'a'", "no dimension"]),
    ],
)
def test_given_modes_that_cannot_be_meant(modes, error, words):
    with pytest.raises(error) as caught:
        find_modes({"t": numbered({"y": 2, "x": 3, "energy_loss": 4})}, modes)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("dims", list(itertools.permutations(("pixel", "x", "energy_loss"))))
def test_a_dimension_named_like_the_group_is_refused_beside_it(dims):
    with pytest.raises(InvalidArgument, match="'pixel'.*another name"):
        find_modes({"t": numbered(dict.fromkeys(dims, 2))})


def test_names_that_results_cannot_have():
    with pytest.raises(InvalidArgument, match="'component'.*rename"):
        find_modes({"t": numbered({"component": 2, "x": 3})})
    with pytest.raises(InvalidArgument, match="must be text"):
        find_modes({"t": xr.DataArray(np.ones((2, 3)), dims=(0, "x"))})


@pytest.mark.parametrize("dims", [(), ("energy_loss",), ("y", "x")])
def test_fewer_than_two_modes_are_refused(dims):
    with pytest.raises(InvalidData, match="'t'.*at least two modes"):
        find_modes({"t": numbered(dict.fromkeys(dims, 3))})


def pair(first: xr.DataArray, second: xr.DataArray) -> dict[str, xr.DataArray]:
    """Two tensors on the same x, with those coordinates."""
    low = xr.DataArray(np.ones((first.size, 2)), dims=("x", "low"), coords={"x": first} if first.coords else {})
    core = xr.DataArray(np.ones((3, second.size)), dims=("core", "x"), coords={"x": second} if second.coords else {})
    return {"low": low, "core": core}


def on_x(values, units: str | None = "nm") -> xr.DataArray:
    coord = axis("x", values, units)
    return coord.assign_coords(x=coord)


def test_shared_coordinates_agree_within_a_thousandth_of_a_step():
    steps = np.array([0.0, 0.5, 2.0, 4.0])  # the smallest step, 0.5, decides
    find_modes(pair(on_x(steps), on_x(steps + 0.9 * 0.5e-3)))
    with pytest.raises(ModeMismatch):
        find_modes(pair(on_x(steps), on_x(steps + 1.1 * 0.5e-3)))
    with pytest.raises(ModeMismatch):
        find_modes(pair(on_x(steps), on_x(steps[::-1])))


def test_mismatch_shows_both_ranges_and_the_ways_out():
    tensors = {
        "low": numbered({"x": 4, "energy_loss": 10}).assign_coords(energy_loss=axis("energy_loss", range(-5, 5), "eV")),
        "core": numbered({"x": 4, "energy_loss": 3}).assign_coords(
            energy_loss=axis("energy_loss", [400.5, 401, 402], "eV")
        ),
    }
    with pytest.raises(ModeMismatch) as caught:
        find_modes(tensors)
    for words in (
        "'low' has energy_loss: 10 points from -5 to 4 eV",
        "'core' has energy_loss: 3 points from 400.5 to 402 eV",
        'core.rename(energy_loss="core_energy_loss")',
        "low loss and core loss",
    ):
        assert words in str(caught.value)


def test_equal_sizes_show_how_to_take_the_coordinates_over():
    with pytest.raises(ModeMismatch) as caught:
        find_modes(pair(on_x([0.0, 1.0]), on_x([5.0, 6.0])))
    assert "core.assign_coords(x=low.x)" in str(caught.value)
    assert "from 5 to 6 nm" in str(caught.value)


def test_shared_units():
    with pytest.raises(ModeMismatch, match="units.*nm.*µm"):
        find_modes(pair(on_x([0.0, 1.0], "nm"), on_x([0.0, 1.0], "µm")))
    with pytest.raises(ModeMismatch, match="units.*nm.*mrad"):
        find_modes(pair(on_x([0.0, 1.0], "nm"), on_x([0.0, 1.0], "mrad")))
    same_places = find_modes(pair(on_x([500.0, 1000.0], "nm"), on_x([0.5, 1.0], "µm")))[0]["pixel"]
    np.testing.assert_array_equal(same_places.coordinates[0], [500.0, 1000.0])
    assert same_places.units == ("nm",)
    find_modes(pair(on_x([0.0, 1.0], "\u00b5m"), on_x([0.0, 1.0], "\u03bcm")))
    find_modes(pair(on_x([0.0, 1.0], "um"), on_x([0.0, 1.0], "\u03bcm")))
    for tensors in (pair(on_x([0.0, 1.0], None), on_x([0.0, 1.0])), pair(on_x([0.0, 1.0]), on_x([0.0, 1.0], None))):
        assert find_modes(tensors)[0]["pixel"].units == ("nm",)


def test_coordinates_of_one_tensor_serve_both():
    bare = xr.DataArray([0.0, 1.0], dims="x")
    for tensors in (pair(bare, on_x([3.0, 4.0])), pair(on_x([3.0, 4.0]), bare)):
        mode = find_modes(tensors)[0]["pixel"]
        np.testing.assert_array_equal(mode.coordinates[0], [3.0, 4.0])
        assert mode.units == ("nm",)
    assert find_modes(pair(bare, bare))[0]["pixel"].coordinates == (None,)
    with pytest.raises(ModeMismatch, match="2 points without coordinates.*3 points from"):
        find_modes(pair(bare, on_x([3.0, 4.0, 5.0])))


def test_single_points_and_text_coordinates():
    find_modes(pair(on_x([3.0]), on_x([3.0])))
    with pytest.raises(ModeMismatch):
        find_modes(pair(on_x([3.0]), on_x([3.1])))
    labels, _ = find_modes(pair(on_x(["a", "b"], None), on_x(["a", "b"], None)))
    assert labels["pixel"].coordinates == (None,)
    assert split(np.ones((1, 2)), labels["pixel"]).x.values.tolist() == ["a", "b"]
    with pytest.raises(ModeMismatch, match="from a to b.*from a to c"):
        find_modes(pair(on_x(["a", "b"], None), on_x(["a", "c"], None)))


def test_a_line_and_a_map_are_not_the_same_pixels():
    with pytest.raises(ModeMismatch) as caught:
        find_modes({"map": numbered({"y": 2, "x": 3, "e": 4}), "line": numbered({"x": 3, "f": 4})})
    for words in ("dimensions differ", "y: 2 points", "x: 3 points", 'line.rename(x="line_x")'):
        assert words in str(caught.value)
    with pytest.raises(ModeMismatch, match=r"modes=\{'b_pixel': \('b_y', 'b_x'\)\}"):
        find_modes({"a": numbered({"y": 2, "x": 3, "e": 4}), "b": numbered({"y": 2, "x": 4, "f": 4})})


def test_third_tensor_is_compared_with_the_one_that_first_had_the_mode():
    tensors = {
        "a": numbered({"x": 2, "e": 3}),
        "b": numbered({"time": 4, "e": 3}),
        "c": numbered({"time": 5, "x": 2}),
    }
    with pytest.raises(ModeMismatch, match="'b' and 'c' share the mode 'time'"):
        find_modes(tensors)


def test_other_coordinates_travel_with_their_mode():
    tensor = numbered({"y": 2, "x": 3, "e": 4}).assign_coords(
        grain=(("y", "x"), [[1, 1, 2], [2, 3, 3]]), edge=("e", ["N", "N", "O", "O"]), dose=5.0
    )
    labels, names = find_modes({"a": tensor})
    assert set(labels["pixel"].coords) == {"y", "x", "grain"}
    assert set(labels["e"].coords) == {"e", "edge"}
    factor = split(np.ones((2, 6)), labels["pixel"])
    np.testing.assert_array_equal(factor.grain, tensor.grain)
    back = from_arrays(to_array(tensor, names["a"], labels), names["a"], labels, tensor.dims)
    assert back.identical(tensor.drop_vars("dose"))
    other = tensor.rename(e="f").assign_coords(grain=(("y", "x"), np.zeros((2, 3), int)))
    assert "grain" not in find_modes({"a": tensor, "b": other})[0]["pixel"].coords
    assert "grain" in find_modes({"a": tensor, "b": other.drop_vars("grain")})[0]["pixel"].coords
    assert "grain" in find_modes({"a": tensor.drop_vars("grain"), "b": other})[0]["pixel"].coords


def test_stacked_pixels_keep_their_index():
    stacked = numbered({"y": 2, "x": 3, "e": 4}).stack(pixel=("y", "x"))
    labels, names = find_modes({"a": stacked})
    assert labels["pixel"].coordinates == (None,)
    factor = split(np.arange(6.0)[None], labels["pixel"])
    assert factor.unstack("pixel").sizes == {"component": 1, "y": 2, "x": 3}
    array = to_array(stacked, names["a"], labels)
    assert from_arrays(array, names["a"], labels, stacked.dims).identical(stacked)


def test_no_copy_where_none_is_needed_and_dtype_kept():
    tensor = xr.DataArray(np.arange(24, dtype=np.uint16).reshape(2, 3, 4), dims=("y", "x", "e"))
    labels, names = find_modes({"a": tensor})
    array = to_array(tensor, names["a"], labels)
    assert array.dtype == np.uint16 and np.shares_memory(array, tensor.values)
    big_endian = tensor.astype(">i4")
    assert to_array(big_endian, names["a"], labels).dtype == np.dtype(">i4")


def test_dask_is_computed_and_sparse_stays_sparse():
    values = np.arange(24.0).reshape(2, 3, 4) % 3
    tensor = xr.DataArray(values, dims=("e", "y", "x"))
    labels, names = find_modes({"a": tensor})
    array = to_array(tensor.chunk(), names["a"], labels)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, values.reshape(2, 12))
    array = to_array(tensor.copy(data=sparse.COO(values)).transpose("x", "e", "y"), names["a"], labels)
    assert isinstance(array, sparse.COO)
    np.testing.assert_array_equal(array.todense(), values.reshape(2, 12))
    mask = xr.DataArray(sparse.COO(values[:, 0] > 0), dims=("e", "x"))
    expected = np.broadcast_to((values[:, 0] > 0)[:, None], (2, 3, 4)).reshape(2, 12)
    np.testing.assert_array_equal(broadcast_to_array(mask, names["a"], labels), expected)


def test_arrays_that_do_not_have_these_modes_are_refused():
    tensor = numbered({"y": 2, "x": 3, "e": 4})
    labels, names = find_modes({"a": tensor})
    with pytest.raises(InvalidData, match="'y': 2"):
        to_array(tensor.isel(y=0), names["a"], labels)
    with pytest.raises(InvalidData, match="must have 6 points"):
        split(np.ones((2, 5)), labels["pixel"])
    with pytest.raises(InvalidData, match=r"\(6, 4\)"):
        from_arrays(np.ones((6, 5)), names["a"], labels)


def test_masks_of_pixels_take_no_memory_for_channels():
    labels, names = find_modes({"a": numbered({"y": 2, "x": 3, "e": 4})})
    array = broadcast_to_array(xr.DataArray([True, False], dims="y"), names["a"], labels)
    assert array.shape == (6, 4) and array.strides[1] == 0
    assert broadcast_to_array(xr.DataArray(2), names["a"], labels, "sigma").dtype == float
    assert broadcast_to_array(xr.DataArray(np.float32(2)), names["a"], labels, "sigma").dtype == np.float32


def test_masks_that_do_not_fit():
    tensor = numbered({"y": 2, "x": 3, "e": 4})
    labels, names = find_modes({"a": tensor})
    cases: list[tuple[Any, type[Exception], str]] = [
        (xr.DataArray([True] * 3, dims="y"), InvalidData, "mask has 3 points along 'y', the tensor 2"),
        (xr.DataArray([True] * 3, dims="ee"), UnknownMode, "'ee'.*Did you mean 'e'"),
        (np.ones((2, 3)), InvalidData, "DataArray"),
        (xr.DataArray(["a", "b"], dims="y"), InvalidData, "dtype"),
        (
            xr.DataArray([True] * 4, dims="e", coords={"e": axis("e", [9.0, 10, 11, 12])}),
            ModeMismatch,
            "from 9 to 12 nm",
        ),
    ]
    for mask, error, words in cases:
        with pytest.raises(error, match=words):
            broadcast_to_array(mask, names["a"], labels)
    good = (tensor.isel(x=0, drop=True) > 3).transpose("e", "y")
    np.testing.assert_array_equal(broadcast_to_array(good, names["a"], labels)[:, 1], [0, 0, 0, 1, 1, 1])
