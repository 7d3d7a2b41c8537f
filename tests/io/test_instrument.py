"""Instruments' files: written here in HyperSpy's format, and real ones of every make."""

# ruff: noqa: E501 - the table of real files has one line a signal

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorspec.errors import (
    AmbiguousFile,
    InvalidArgument,
    MissingDependency,
    MissingFile,
    NotEnoughMemory,
    UnknownName,
    UnreadableFile,
)
from tensorspec.io import readers
from tensorspec.io.instrument import load, signals

pytest.importorskip("rsciio")
h5py = pytest.importorskip("h5py")


def uniform(name: str, size: int, scale: float, offset: float, units: str, navigate: bool) -> dict[str, Any]:
    return {
        "_type": "UniformDataAxis",
        "name": name,
        "size": size,
        "scale": scale,
        "offset": offset,
        "units": units,
        "navigate": navigate,
        "is_binned": False,
    }


def write(path: Path, data: np.ndarray, axes: list[dict[str, Any]], **metadata: Any) -> Path:
    """Write a file as HyperSpy does; a second signal goes beside the first."""
    from rsciio.hspy import file_writer

    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": metadata.pop("title", "map")}, "Signal": {"signal_type": "EELS"}, **metadata},
        "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False},
        "learning_results": {},
        "tmp_parameters": {},
        "models": None,
        "package_info": {"package": "hyperspy", "package_version": "2.0"},
    }
    file_writer(str(path), signal)
    return path


@pytest.fixture
def eels_file(tmp_path: Path) -> Path:
    """An EELS map whose file puts the energy first and marks the axes the wrong way."""
    axes = [
        uniform("Energy loss", 5, 0.5, 400.0, "eV", True),
        uniform("height", 3, 2.0, 0.0, "um", False),
        uniform("width", 2, 2.0, 10.0, "um", False),
    ]
    return write(tmp_path / "map.hspy", np.arange(30, dtype="f4").reshape(5, 3, 2), axes)


def test_axes_units_and_values(eels_file: Path):
    eels = load(eels_file)
    assert eels.sizes == {"y": 3, "x": 2, "energy_loss": 5}
    assert {dim: eels[dim].attrs["units"] for dim in eels.dims} == {"y": "µm", "x": "µm", "energy_loss": "eV"}
    np.testing.assert_array_equal(eels.energy_loss, [400, 400.5, 401, 401.5, 402])
    np.testing.assert_array_equal(eels.x, [10, 12])
    np.testing.assert_array_equal(eels, np.arange(30).reshape(5, 3, 2).transpose(1, 2, 0))
    assert eels.dtype == np.float32
    assert {key: eels.attrs[key] for key in ("title", "signal_type", "original_filename")} == {
        "title": "map",
        "signal_type": "EELS",
        "original_filename": "map.hspy",
    }


def test_lazy_is_dask_and_the_same(eels_file: Path):
    lazy = load(eels_file, lazy=True)
    assert lazy.chunks is not None
    assert load(eels_file).chunks is None
    assert lazy.compute().identical(load(eels_file))


def test_table_of_signals(eels_file: Path):
    table = signals(eels_file)
    (info,) = table
    assert (info.name, info.shape, info.dims, info.dtype, info.signal_type) == (
        "map",
        (3, 2, 5),
        ("y", "x", "energy_loss"),
        "float32",
        "EELS",
    )
    assert info.axes == "y 0 to 4 µm, x 10 to 12 µm, energy_loss 400 to 402 eV"
    assert str(table) == repr(table)
    header, row = str(table).splitlines()
    assert header.split() == ["name", "shape", "axes", "dtype", "type"]
    assert row.split()[:5] == ["1", "map", "3", "x", "2"]


@pytest.fixture
def two_signals(tmp_path: Path) -> Path:
    """Two signals in one file, and a third with the name of the second."""
    path = write(tmp_path / "two.hspy", np.ones((2, 3)), [
        uniform("x", 2, 1, 0, "nm", True), uniform("Energy loss", 3, 1, 0, "eV", False)], title="low loss",
    )  # fmt: skip
    for name in ("other", "another"):
        other = write(tmp_path / f"{name}.hspy", np.full(4, 2.0), [uniform("Energy loss", 4, 1, 0, "eV", False)],
                      title="Core Loss")  # fmt: skip
        with h5py.File(path, "a") as target, h5py.File(other) as source:
            source.copy(source["Experiments/Core Loss"], target["Experiments"], name)
    return path


def test_ambiguous_files_list_their_signals(two_signals: Path):
    for lazy in (False, True):
        with pytest.raises(AmbiguousFile) as caught:
            load(two_signals, lazy=lazy)
        for words in (
            "'two.hspy' holds 3 signals",
            "low loss",
            "2 x 3",
            "x 0 to 1 nm",
            "energy_loss 0 to 3 eV",
            "signal=",
        ):
            assert words in str(caught.value)


def test_choice_of_a_signal(two_signals: Path):
    names = [info.name for info in signals(two_signals)]
    assert sorted(names) == ["Core Loss", "Core Loss", "low loss"]
    number = names.index("low loss") + 1
    low = load(two_signals, "low loss")
    assert low.sizes == {"x": 2, "energy_loss": 3}
    assert low.identical(load(two_signals, number))
    assert low.identical(load(two_signals, int(np.int64(number))))
    assert low.identical(load(two_signals, "LOW LOSS"))
    numbers = [str(place) for place, name in enumerate(names, start=1) if name == "Core Loss"]
    with pytest.raises(AmbiguousFile, match=f"2 signals named 'Core Loss'.*signal={' or '.join(numbers)}"):
        load(two_signals, "Core Loss")
    with pytest.raises(UnknownName, match="no signal 'low los'.*Did you mean 'low loss'"):
        load(two_signals, "low los")
    for number in (0, 4, -1):
        with pytest.raises(UnknownName, match=f"no signal number {number}; it has 1 to 3"):
            load(two_signals, number)


def test_missing_files(eels_file: Path):
    with pytest.raises(MissingFile, match="Did you mean 'map.hspy'"):
        load(eels_file.with_name("mapp.hspy"))
    with pytest.raises(MissingFile, match="no file"):
        load(eels_file.parent / "nowhere" / "map.hspy")


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_unknown_kinds_and_damaged_files_are_refused_in_one_line(eels_file: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UnreadableFile) as caught:
        load(tmp_path / "notes.txt")
    for words in ("notes.txt", "(.txt)", "dm3", "bcf", "hspy"):
        assert words in one_line(caught.value)
    with pytest.raises(UnreadableFile, match="is a folder"):
        load(tmp_path)
    for extension in ("dm3", "dm4", "bcf", "emd", "hspy", "h5", "ser", "pts", "wdf", "msa", "nxs", "tif"):
        damaged = tmp_path / f"damaged.{extension}"
        damaged.write_bytes(b"\x00\x01 not what the extension says" * 20)
        with pytest.raises(UnreadableFile, match="damaged") as caught:
            load(damaged)
        one_line(caught.value)
    cut = tmp_path / "cut.hspy"
    cut.write_bytes(eels_file.read_bytes()[:3000])
    with pytest.raises(UnreadableFile, match="damaged") as caught:
        signals(cut)
    one_line(caught.value)


def test_reader_and_its_options(eels_file: Path):
    misnamed = eels_file.rename(eels_file.with_suffix(".dat"))
    assert load(misnamed, reader="HSPY").identical(load(misnamed, reader="hyperspy"))
    with pytest.raises(UnknownName, match="no reader 'HSPYY'.*Did you mean 'HSPY'"):
        load(misnamed, reader="HSPYY")


def test_options_go_to_the_reader(shared_data: Path):
    path = shared_data / "bcf_p45" / "P45_the_default_job.bcf"
    half = load(path, select_type="spectrum_image", downsample=5, cutoff_at_kV=10)
    assert half.sizes["y"] == 15 and half.sizes["x"] == 20 and half.sizes["xray_energy"] < 1100
    np.testing.assert_allclose(half.y[1], 5 * 8.73678506197786, rtol=1e-12)
    with pytest.raises(InvalidArgument, match="Bruker.*no option 'downsampel'.*Did you mean 'downsample'"):
        load(path, downsampel=5)


@pytest.mark.parametrize(
    "file",
    [
        "scifi_eels/DMReader_SpectrumImage_SI-EELS.dm3",
        "cl_maps/asymmetric-peak_map.dm4",
        "bcf_p45/P45_the_default_job.bcf",
        "scifi_eels/EMDReader_SpectrumImage_Si.emd",
        "sio2_eds/SiO2_EDS_SI.hspy",
        "formats/16x16-spectrum_image_5x5x4000-not_square_1.ser",
        "formats/renishaw_test_map.wdf",
    ],
)
def test_real_files_cut_short(shared_data: Path, tmp_path: Path, file: str):
    whole = (shared_data / file).read_bytes()
    for part in (0.1, 0.6, 0.95):
        cut = tmp_path / Path(file).name
        cut.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(UnreadableFile) as caught:
            load(cut, 1)
        one_line(caught.value)


def test_missing_rosettasciio(eels_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rsciio", None)
    with pytest.raises(MissingDependency, match=r'pip install "tensorspec\[io\]"'):
        load(eels_file)


def test_a_package_that_a_format_needs_is_named(eels_file: Path, monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'sparse'")

    monkeypatch.setattr(readers, "_call", call)
    with pytest.raises(MissingDependency, match=r"'map.hspy'.*'sparse'.*tensorspec\[io\]"):
        load(eels_file)


def test_what_a_generic_reader_lacks_is_not_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    call = readers._call

    def without_nexus(plugin: Any, *arguments: Any) -> Any:
        if plugin["name"] == "NeXus":
            raise ModuleNotFoundError("No module named 'xyz'")
        return call(plugin, *arguments)

    monkeypatch.setattr(readers, "_call", without_nexus)
    for extension in ("h5", "nxs"):
        (tmp_path / f"damaged.{extension}").write_bytes(b"0" * 1000)
    with pytest.raises(UnreadableFile, match="damaged.*NeXus: No module named 'xyz'"):
        load(tmp_path / "damaged.h5")
    with pytest.raises(MissingDependency, match="'xyz'"):
        load(tmp_path / "damaged.nxs")


# One line a signal: file, signal, sizes, units by dimension, type, beam energy, sum of all values.
NM, MICRO = ("nm", "nm"), ("µm", "µm")
EDX, EELS, CL = ("y", "x", "xray_energy"), ("y", "x", "energy_loss"), ("y", "x", "wavelength")
FILES: list[tuple[str, Any, dict[str, int], tuple[str | None, ...], str, float | None, float]] = [
    (file, signal, dict(zip(dims, shape, strict=True)), units, signal_type, beam_energy, total)
    for file, signal, dims, shape, units, signal_type, beam_energy, total in [
        ("scifi_eels/DMReader_SpectrumImage_SI-EELS.dm3", None, EELS, (49, 6, 1024), (None, None, "eV"), "EELS", 200, 449065142.0),
        ("scifi_eels/DMReader_SI-HAADF.dm3", None, ("y", "x"), (1568, 192), (None, None), "", 200, 531684089.9691162),
        ("scifi_eels/EMDReader_SpectrumImage_Si.emd", "EDS", EDX, (16, 16, 4096), (*NM, "keV"), "EDS_TEM", 200, 6564),
        ("scifi_eels/EMDReader_SpectrumImage_Si.emd", "HAADF", ("y", "x"), (16, 16), NM, "", 200, 3389230),
        ("lsmo_eels/LSMO_linescan.hdf5", None, ("x", "energy_loss"), (40, 586), ("µm", "eV"), "EELS", 80, 4261721807.234375),
        ("lsmo_eels/LSMO_linescan_low_loss.hdf5", None, ("x", "energy_loss"), (40, 1024), ("µm", "eV"), "EELS", 80, 43413101.17456055),
        ("lsmo_eels/LSMO_STO_linescan.hdf5", None, ("x", "energy_loss"), (10, 512), ("nm", "eV"), "EELS", 200, 709988268.1875),
        ("lsmo_eels/LSMO_STO_linescan_low_loss.hdf5", None, ("x", "energy_loss"), (10, 512), ("nm", "eV"), "EELS", 200, 16757860.875976562),
        ("espm_eds/88_ES-LP_G8_selection2_cropped2.hspy", None, EDX, (80, 80, 1917), (*MICRO, "keV"), "EDS_TEM", 200, 716887),
        ("sio2_eds/SiO2_EDS_SI.hspy", None, EDX, (128, 128, 2048), (*MICRO, "keV"), "EDS_TEM", 200, 823049),
        ("bcf_p45/P45_12bit_packed_8bit.bcf", "EDX", EDX, (75, 100, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 915942),
        ("bcf_p45/P45_12bit_packed_8bit.bcf", "BSE", ("y", "x"), (75, 100), MICRO, "", 20, 305655478),
        ("bcf_p45/P45_12bit_packed_8bit_compressed.bcf", "EDX", EDX, (75, 100, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 915942),
        ("bcf_p45/P45_8bit_compressed_80keV_range.bcf", "EDX", EDX, (75, 100, 4096), (*MICRO, "keV"), "EDS_SEM", 20, 4627814),
        ("bcf_p45/P45_job_hyperspy.bcf", "EDX", EDX, (75, 100, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 64614),
        ("bcf_p45/P45_the_default_job.bcf", "EDX", EDX, (75, 100, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 165941),
        ("cl_maps/InGaN_transient_map.hspy", None, ("y", "x", "time"), (30, 30, 525), (*NM, "ns"), "Transient", None, 10452156),
        ("cl_maps/Test-linescan_InGaAs-NWs.dm4", None, ("x", "wavelength"), (98, 1336), ("µm", "nm"), "CL", 5, 71620537.0),
        ("cl_maps/asymmetric-peak_map.dm4", None, CL, (16, 30, 334), (*MICRO, "nm"), "CL", 5, 3186306.3125),
        ("cl_maps/quantum-emitters_map.dm4", None, CL, (16, 16, 1336), (*MICRO, "nm"), "CL", 5, 23514158.0),
        ("formats/16x16-diffraction_imagel_5x5x256x256_EDS_1.ser", None, ("y", "x", "energy"), (5, 5, 4000), (*NM, "eV"), "", None, 23),
        ("formats/16x16-spectrum_image_5x5x4000-not_square_1.ser", None, ("y", "x", "energy"), (5, 5, 4000), (*NM, "eV"), "", None, 0),
        ("formats/16x16_12bit_packed_8bit.bcf", "EDX", EDX, (16, 16, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 20194),
        ("formats/30x30_instructively_packed_16bit_compressed.bcf", "EDX", EDX, (30, 30, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 18621362),
        ("formats/EDS-STO.emd", 1, ("xray_energy",), (4096,), ("keV",), "EDS_TEM", 200, 190830),
        ("formats/EDS_SEM_TM002.hspy", None, ("xray_energy",), (1024,), ("keV",), "EDS_SEM", 10, 1000279),
        ("formats/EELS_SI.dm4", None, EELS, (2, 2, 2048), (*MICRO, "eV"), "EELS", 200, 7169069.071044922),
        ("formats/EELS_STO.dm3", None, ("energy_loss",), (2048,), ("eV",), "EELS", 200, 162759720.0),
        ("formats/Hitachi_TM3030Plus.bcf", "EDX", EDX, (240, 320, 2048), ("px", "px", "keV"), "EDS_SEM", 15, 171804),
        ("formats/bcf-edx-ebsd.bcf", "EDX", EDX, (87, 100, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 36864),
        ("formats/bcf_v2_50x50px.bcf", "EDX", EDX, (50, 50, 2048), (*MICRO, "keV"), "EDS_SEM", 20, 949769),
        ("formats/map.tvf", None, CL, (9, 9, 1024), (*MICRO, "nm"), "", None, 41996224.0),
        ("formats/nexus_dls_example.nxs", 1, ("y", "x", "channel"), (10, 10, 15), (None, None, None), "", None, 0),
        ("formats/renishaw_test_linescan.wdf", 1, ("x", "wavelength"), (5, 40), ("µm", "nm"), "", None, 118.87609300017357),
        ("formats/renishaw_test_linescan.wdf", 2, ("y", "x", "rgb"), (480, 752, 3), (*MICRO, None), "", None, 237796),
        ("formats/renishaw_test_map.wdf", 1, CL, (3, 3, 47), (*MICRO, "nm"), "", None, 665.0569956898689),
        ("formats/renishaw_test_map2.wdf", 1, CL, (20, 20, 1015), (*MICRO, "nm"), "", None, 6403790.946940005),
        ("formats/renishaw_test_streamline.wdf", 1, ("y", "x", "raman_shift"), (49, 45, 394), (*MICRO, "1/cm"), "", None, 727746334.2879333),
        ("formats/sparc-hyperspectral.h5", 1, CL, (3, 2, 128), (*NM, "nm"), "CL_SEM", None, 582366),
        ("formats/test_hyperspectral.h5", 1, CL, (4, 4, 512), (*MICRO, "nm"), "CL_SEM", None, 2481887),
        ("formats/test-MonarcCL_spectrum-SI.dm4", None, CL, (3, 3, 670), (*MICRO, "nm"), "CL", 5, 175027.72631263733),
        ("formats/test_TEM.bcf", "EDX", EDX, (64, 64, 2048), (*MICRO, "keV"), "EDS_TEM", 200, 26005),
        ("fused_em/Co3O4_Mn3O4.h5", "O", ("dim_0", "dim_1"), (400, 400), (None, None), "", None, 228.5697975608016),
    ]
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "signal", "sizes", "units", "signal_type", "beam_energy", "total"),
    FILES,
    ids=[f"{Path(line[0]).name}-{line[1] or 1}" for line in FILES],
)
def test_real_files(shared_data: Path, file, signal, sizes, units, signal_type, beam_energy, total):
    array = load(shared_data / file, signal)
    assert array.sizes == sizes and list(array.dims) == list(sizes)
    assert isinstance(array.data, np.ndarray)
    assert tuple(array[dim].attrs.get("units") for dim in array.dims) == units
    assert array.attrs.get("signal_type", "") == signal_type
    assert array.attrs.get("beam_energy_keV") == beam_energy
    assert array.attrs["original_filename"] == Path(file).name
    assert json.loads(json.dumps(array.attrs)) == array.attrs
    np.testing.assert_allclose(array.values.sum(dtype=float), total, rtol=1e-12)
    lazy = load(shared_data / file, signal, lazy=True)
    assert lazy.chunks is not None
    assert lazy.compute().identical(array)


def test_real_ranges_elements_and_units_of_the_values(shared_data: Path):
    eels = load(shared_data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    np.testing.assert_allclose(eels.energy_loss[[0, 1, -1]], [350, 350.5, 861.5], rtol=1e-12)
    assert "x" not in eels.coords  # this file has no calibration of the scan
    assert eels.attrs["units"] == "counts"
    assert eels.attrs["metadata"]["Acquisition_instrument"]["TEM"]["beam_energy"] == 200.0
    core = load(shared_data / "lsmo_eels" / "LSMO_linescan.hdf5", reader="HSPY")
    low = load(shared_data / "lsmo_eels" / "LSMO_linescan_low_loss.hdf5", reader="HSPY")
    np.testing.assert_allclose(core.energy_loss[[0, -1]], [428.5, 721.0], rtol=1e-12)
    np.testing.assert_allclose(low.energy_loss[[0, -1]], [-50.0, 461.5], rtol=1e-12)
    np.testing.assert_array_equal(core.x, low.x)
    np.testing.assert_allclose(core.x[-1], 39 * 0.0032190168276429176, rtol=1e-12)
    edx = load(shared_data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy")
    assert edx.attrs["elements"] == ["Al", "Ca", "Fe", "Hf", "Lu", "Mg", "Nd", "O", "Si", "Sm", "U"]
    assert edx.attrs["units"] == "counts"
    np.testing.assert_allclose(edx.xray_energy[[0, -1]], [0.83151949728, 20.00048308176], rtol=1e-12)
    transient = load(shared_data / "cl_maps" / "InGaN_transient_map.hspy")  # an axis of points
    assert np.ptp(np.diff(transient.time)) > 0


def test_a_map_file_with_images_is_ambiguous(shared_data: Path):
    path = shared_data / "bcf_p45" / "P45_the_default_job.bcf"
    assert [info.name for info in signals(path)] == ["BSE", "SE", "EDX"]
    with pytest.raises(AmbiguousFile, match="75 x 100 x 2048") as caught:
        load(path)
    assert "signal='EDX' or signal=3" in str(caught.value)
    with pytest.raises(UnknownName, match="'EDS'.*Did you mean 'EDX'"):
        load(path, "EDS")


def test_readers_tell_all_signals_and_nothing_beside_the_file(shared_data: Path):
    names = [info.name for info in signals(shared_data / "formats" / "sparc-hyperspectral.h5")]
    assert names[1:] == ["Secondary electrons concurrent", "Secondary electrons survey"]
    assert signals(shared_data / "formats" / "renishaw_test_map.wdf").notes == ()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_an_event_stream_stays_sparse_until_it_is_computed(shared_data: Path):
    pytest.importorskip("sparse")
    resource = pytest.importorskip("resource")
    path = shared_data / "formats" / "View000_0000006.pts"
    signals(path)  # what is compiled and imported on the way is not part of the measurement
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(held.split()[1]) * 1024 + 2**29, limits[1]))
    try:
        stream = load(path, lazy=True)
        part = int(stream.isel(y=slice(100, 164), x=slice(300, 364)).sum().compute())
        with pytest.raises(NotEnoughMemory, match="lazy=True"):
            load(path)  # 1 GiB
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert stream.sizes == {"y": 512, "x": 512, "xray_energy": 4096}
    assert stream.attrs["beam_energy_keV"] == 200.0
    assert part == 13342


ZIPPED = [
    ("velox_eels_eds/velox_EELS_EDS.zip", "example_velox_EELS_EDS.emd", 17, (16, 20, 2048), (*NM, "eV"), 65540456),
    ("velox_eels_eds/velox_EELS_EDS.zip", "example_velox_EELS_EDS.emd", 18, (128, 128, 4096), (*MICRO, "keV"), 11093),
    ("formats/velox_emd_version11.zip", "Test SI 16x16 215 kx.emd", 10, (16, 16, 4096), (*NM, "keV"), 42097),
    ("formats/velox_emd_v11_elementSelection.zip", "SI_empty selection.emd", 6, (16, 20, 4096), (*NM, "keV"), 72),
]


@pytest.mark.parametrize(("archive", "member", "number", "shape", "units", "total"), ZIPPED)
def test_velox_files(shared_data: Path, tmp_path: Path, archive, member, number, shape, units, total):
    with zipfile.ZipFile(shared_data / archive) as opened:
        path = Path(opened.extract(member, tmp_path))
    array = load(path, number, lazy=True)
    assert array.dims == ("y", "x", "energy_loss" if "eV" in units else "xray_energy")
    assert array.shape == shape
    assert tuple(array[dim].attrs["units"] for dim in array.dims) == units
    assert array.chunks is not None
    assert int(array.sum()) == total
    with pytest.raises(AmbiguousFile):
        load(path)


def test_what_a_reader_warns_of_is_told_with_the_table(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    with zipfile.ZipFile(shared_data / "formats" / "velox_emd_version11.zip") as opened:
        path = opened.extract("Test SI 16x16 ReducedData 215 kx.emd", tmp_path)
    assert "The reader says: No spectrum stream is present" in str(signals(path))
    with pytest.raises(AmbiguousFile, match="No spectrum stream is present"):
        load(path)
    assert capsys.readouterr() == ("", "")
