"""Axes of files: units decide, then names, then what the file says about navigation."""

from __future__ import annotations

import numpy as np
import pytest

from tensorspec.errors import UnreadableFile
from tensorspec.io.axes import Axis, arrange, as_data_array, read_axes


def axis(name: str = "", size: int = 4, units: str = "", navigate: bool | None = None, **more) -> dict:
    described = {"name": name, "size": size, "units": units, "scale": 0.5, "offset": 1.0, **more}
    return described if navigate is None else described | {"navigate": navigate}


def named(signal_type: str, *axes: dict) -> dict[str, int]:
    """Return which array axis every dimension is."""
    read = read_axes(axes, [entry["size"] for entry in axes])
    return {name: index for name, (index, _) in arrange(read, signal_type).items()}


@pytest.mark.parametrize(
    ("signal_type", "axes", "expected"),
    [
        pytest.param(
            "EELS",
            [axis("Energy loss", 9, "eV", True), axis("y", 3, "nm", False), axis("x", 2, "nm", False)],
            {"y": 1, "x": 2, "energy_loss": 0},
            id="energy first, and everything marked the wrong way",
        ),
        pytest.param(
            "EDS_SEM",
            [axis("height", 3, "µm", True), axis("width", 2, "µm", True), axis("Energy", 9, "keV", False)],
            {"y": 0, "x": 1, "xray_energy": 2},
            id="heights and widths",
        ),
        pytest.param(
            "EDS_TEM",
            [axis("y", 3, "µm", True), axis("x", 2, "µm", True), axis("z", 9, "keV", False)],
            {"y": 0, "x": 1, "xray_energy": 2},
            id="an energy named z",
        ),
        pytest.param(
            "EELS",
            [axis("x", 2, "nm", True), axis("Energy", 9, "eV", False), axis("y", 3, "nm", True)],
            {"y": 2, "x": 0, "energy_loss": 1},
            id="energy in the middle, columns before rows",
        ),
        pytest.param(
            "EELS",
            [axis("scan y", 3, "nm", True), axis("Scan_X", 2, "nm", True), axis("", 9, "eV", False)],
            {"y": 0, "x": 1, "energy_loss": 2},
            id="scan y",
        ),
        pytest.param(
            "EELS", [axis("y", 3, "nm", True), axis("E", 9, "eV")], {"x": 0, "energy_loss": 1}, id="line along y"
        ),
        pytest.param(
            "",
            [axis("Abs. Distance", 3, "µm", True), axis("Wavelength", 9, "nm")],
            {"x": 0, "wavelength": 1},
            id="line",
        ),
        pytest.param("EDS_TEM", [axis("", 9, "keV", False)], {"xray_energy": 0}, id="single spectrum"),
        pytest.param(
            "EELS",
            [axis("y", 1, "nm", True), axis("x", 1, "nm", True), axis("Energy loss", 9, "eV")],
            {"energy_loss": 2},
            id="single spectrum with scan axes",
        ),
        pytest.param(
            "EELS",
            [axis("y", 1, "nm", True), axis("x", 5, "nm", True), axis("Energy loss", 9, "eV")],
            {"y": 0, "x": 1, "energy_loss": 2},
            id="one row stays a map",
        ),
        pytest.param(
            "",
            [axis("Y", 3, "µm", True), axis("X", 2, "µm", True), axis("Raman Shift", 9, "1/cm", False)],
            {"y": 0, "x": 1, "raman_shift": 2},
            id="Raman",
        ),
        pytest.param(
            "CL",
            [axis("Wavelength", 9, "nm", True), axis("y", 3, "µm", False), axis("x", 2, "µm", False)],
            {"y": 1, "x": 2, "wavelength": 0},
            id="wavelength in nm is no place",
        ),
        pytest.param(
            "Transient",
            [axis("Y", 3, "nm", True), axis("X", 2, "nm", True), axis("Time", 9, "ns", False)],
            {"y": 0, "x": 1, "time": 2},
            id="time is the signal where the file says so",
        ),
        pytest.param(
            "EELS",
            [axis("Frame", 5, "s", True), axis("y", 3, "nm", True), axis("x", 2, "nm", True), axis("E", 9, "eV")],
            {"frame": 0, "y": 1, "x": 2, "energy_loss": 3},
            id="frames",
        ),
        pytest.param("", [axis("height", 3, "µm"), axis("width", 2, "µm")], {"y": 0, "x": 1}, id="image"),
        pytest.param("", [axis("", 3), axis("", 2)], {"y": 0, "x": 1}, id="nameless image"),
        pytest.param(
            "",
            [axis("Energy", 9, "eV", True), axis("y", 3, "µm", False), axis("x", 2, "µm", False)],
            {"y": 1, "x": 2, "energy": 0},
            id="stack of images over energy",
        ),
        pytest.param(
            "",
            [
                axis("scan_y", 3, "nm", True),
                axis("scan_x", 2, "nm", True),
                axis("y", 5, "", False),
                axis("x", 6, "", False),
            ],
            {"y": 0, "x": 1, "detector_y": 2, "detector_x": 3},
            id="diffraction patterns in pixels",
        ),
        pytest.param(
            "",
            [
                axis("y", 3, "nm", True),
                axis("x", 2, "nm", True),
                axis("y", 5, "1/nm", False),
                axis("x", 6, "1/nm", False),
            ],
            {"y": 0, "x": 1, "ky": 2, "kx": 3},
            id="diffraction patterns",
        ),
        pytest.param(
            "",
            [axis("y", 3, "", True), axis("x", 2, "", True), axis("", 9, "", False)],
            {"y": 0, "x": 1, "channel": 2},
            id="nameless channels",
        ),
        pytest.param("", [axis("a", 3, "s", True), axis("a", 2, "s", True)], {"a_0": 0, "a_1": 1}, id="one name twice"),
        pytest.param(
            "EELS", [axis("x", 3, "nm", True), axis("Energy", 9, "")], {"x": 0, "energy_loss": 1}, id="no units"
        ),
        pytest.param(
            "EDS_TEM",
            [axis("", 3, "", True), axis("", 2, "", True), axis("", 9, "", False)],
            {"y": 0, "x": 1, "xray_energy": 2},
            id="nothing but the signal type",
        ),
        pytest.param(
            "",
            [axis("beam energy", 3, "keV", True), axis("Energy loss", 9, "eV", False)],
            {"beam_energy": 0, "energy_loss": 1},
            id="two energies",
        ),
        pytest.param(
            "",
            [axis("Energy", 3, "keV", True), axis("Energy loss", 9, "eV", True)],
            {"energy": 0, "energy_loss": 1},
            id="the energy loss of two energies",
        ),
        pytest.param(
            "",
            [axis("Energy a", 3, "eV", True), axis("Energy b", 9, "eV", False)],
            {"energy_a": 0, "energy_b": 1},
            id="the energy that is marked as signal",
        ),
        pytest.param(
            "EELS",
            [axis("x", 3, "mrad", True), axis("Energy loss", 9, "eV", False)],
            {"kx": 0, "energy_loss": 1},
            id="angles are no places",
        ),
        pytest.param(
            "", [axis("y", 3, "nm", True), axis("x", 2, "nm", False)], {"y": 0, "x": 1}, id="half-marked image"
        ),
    ],
)
def test_names_and_order(signal_type: str, axes: list[dict], expected: dict[str, int]):
    assert named(signal_type, *axes) == expected
    assert list(named(signal_type, *axes)) == list(expected)


@pytest.mark.parametrize(
    ("kind", "units", "expected", "first"),
    [
        ("EELS", "keV", "eV", 1000.0),
        ("EELS", "eV", "eV", 1.0),
        ("EELS", "meV", "eV", 0.001),
        ("EDS_TEM", "eV", "keV", 0.001),
        ("EDS_TEM", "kev", "keV", 1.0),
        ("", "keV", "keV", 1.0),
        ("Energy loss", "keV", "eV", 1000.0),
        ("X-ray energy", "eV", "keV", 0.001),
    ],
)
def test_energies_are_converted(kind: str, units: str, expected: str, first: float):
    name, signal_type = (kind, "") if "nergy" in kind else ("Energy", kind)
    dims = arrange(read_axes([axis(name, 3, units)], (3,)), signal_type)
    ((_, found),) = dims.values()
    assert found.units == expected
    assert found.values is not None
    np.testing.assert_allclose(found.values, first * np.array([1.0, 1.5, 2.0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("um", "µm"), ("\u03bcm", "µm"), ("µm", "µm"), ("<undefined>", None), ("", None), (None, None), ("pix", "px")],
)
def test_one_spelling_of_units(given: str | None, expected: str | None):
    assert read_axes([{"name": "x", "size": 2, "units": given, "scale": 2.0}], (2,))[0].units == expected


def test_stated_indices_are_used_unless_they_contradict_the_array():
    forward = [axis("x", 2, index_in_array=1), axis("y", 3, index_in_array=0)]
    assert [each.name for each in read_axes(forward, (3, 2))] == ["y", "x"]
    wrong = [axis("y", 3, index_in_array=1), axis("x", 2, index_in_array=0), axis("E", 9, index_in_array=2)]
    assert [each.name for each in read_axes(wrong, (3, 2, 9))] == ["y", "x", "E"]
    square = [axis("y", 3, "nm", index_in_array=1), axis("x", 3, "nm", index_in_array=0)]
    assert [each.name for each in read_axes(square, (3, 3))] == ["y", "x"]
    nameless_order = [axis("a", 3, index_in_array=1), axis("b", 3, index_in_array=0)]
    assert [each.name for each in read_axes(nameless_order, (3, 3))] == ["b", "a"]
    from_the_end = [axis("E", 9, index_in_array=-1), axis("y", 3, index_in_array=0)]
    assert [each.name for each in read_axes(from_the_end, (3, 9))] == ["y", "E"]


def test_descriptions_that_do_not_fit_give_plain_axes():
    axes = read_axes([axis("y", 3), axis("x", 2)], (5, 7))
    assert list(arrange(axes)) == ["dim_0", "dim_1"]
    assert list(arrange(read_axes([], (5, 7)))) == ["dim_0", "dim_1"]


def test_coordinates():
    described = [
        {"name": "y", "size": 3, "units": "", "scale": 1, "offset": 0, "navigate": True},
        {"name": "x", "size": 2, "units": "nm", "scale": -0.5, "offset": np.int16(10), "navigate": True},
        {"name": "Wavelength", "units": "nm", "axis": np.array([1.0, 2.0, 4.0]), "navigate": False},
    ]
    array = as_data_array(np.zeros((3, 2, 3)), arrange(read_axes(described, (3, 2, 3))), {})
    assert array.dims == ("y", "x", "wavelength")
    assert "y" not in array.coords  # not calibrated
    np.testing.assert_array_equal(array.x, [10.0, 9.5])
    np.testing.assert_array_equal(array.wavelength, [1.0, 2.0, 4.0])
    assert array.x.attrs == {"units": "nm"}


def test_array_is_transposed_as_named():
    data = np.arange(2 * 3 * 1 * 4).reshape(2, 3, 1, 4)
    axes = [Axis("E", 2, "eV"), Axis("x", 3, "nm"), Axis("y", 1, "nm"), Axis("frame", 4, "s")]
    array = as_data_array(data, arrange(axes, "EELS"), {"title": "t"})
    assert array.sizes == {"frame": 4, "y": 1, "x": 3, "energy_loss": 2}
    assert array.attrs == {"title": "t"}
    assert array[3, 0, 2, 1] == data[1, 2, 0, 3]
    spectrum = as_data_array(data[:, :1, :, 0], arrange([Axis("E", 2, "eV"), Axis("x", 1), Axis("y", 1)], "EELS"), {})
    assert spectrum.sizes == {"energy_loss": 2}
    np.testing.assert_array_equal(spectrum, data[:, 0, 0, 0])


def test_formulas_are_refused_with_the_way_out():
    with pytest.raises(UnreadableFile, match="'Wavelength'.*1240.*convert_to_non_uniform_axis"):
        read_axes([{"name": "Wavelength", "expression": "1240/x", "units": "nm"}], (3,))
