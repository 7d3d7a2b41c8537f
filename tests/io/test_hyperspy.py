"""HyperSpy signals in and out, as far as Cliff-Lorimer at% in eXSpy."""

from __future__ import annotations

import builtins
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, MissingDependency, UnknownName
from tensorspec.io.hyperspy import from_hyperspy, to_hyperspy
from tensorspec.io.instrument import load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one version of eXSpy warns of the insides of another of HyperSpy
    pytest.importorskip("exspy")
    hs = pytest.importorskip("hyperspy.api")
    import hyperspy.signals  # noqa: F401 - loads the classes while warnings are off


@dataclass
class Record:
    """What a fit keeps of a tensor."""

    attrs: dict[str, Any]


@dataclass
class StandIn:
    """As much of a fit as the way to HyperSpy uses."""

    spectrum: dict[str, xr.DataArray]
    map: dict[str, xr.DataArray]
    tensors: dict[str, Record] = field(default_factory=dict)
    model: Any = None

    def spectra(self, name: str) -> xr.DataArray:
        return self.spectrum[name]

    def maps(self, name: str) -> xr.DataArray:
        return self.map[name]


def fitted(tensor: xr.DataArray, spectra: np.ndarray, maps: np.ndarray) -> StandIn:
    """Return components on the axes of a tensor."""
    numbers = np.arange(1, len(spectra) + 1)
    *scan, signal = [str(dim) for dim in tensor.dims]
    spectrum = xr.DataArray(spectra, dims=("component", signal), coords={"component": numbers, signal: tensor[signal]})
    coords = {"component": numbers} | {dim: tensor[dim] for dim in scan}
    return StandIn(
        {"edx": spectrum},
        {"edx": xr.DataArray(maps, dims=("component", *scan), coords=coords)},
        {"edx": Record(dict(tensor.attrs))},
    )


def described(name: str, size: int, scale: float, offset: float, units: str) -> dict[str, Any]:
    return {"name": name, "size": size, "scale": scale, "offset": offset, "units": units}


ENERGY = described("Energy", 1200, 0.01, 0.0, "keV")
LINES = {"Fe_Ka": 6.4039, "Pt_La": 9.4421}
METADATA = {
    "General": {"title": "particles"},
    "Signal": {"signal_type": "EDS_TEM", "quantity": "X-rays (Counts)"},
    "Acquisition_instrument": {
        "TEM": {
            "beam_energy": 200.0,
            "Stage": {"tilt_alpha": 5.0},
            "Detector": {
                "EDS": {
                    "energy_resolution_MnKa": 130.0,
                    "live_time": 20.0,
                    "azimuth_angle": 0.0,
                    "elevation_angle": 18.0,
                }
            },
        }
    },
    "Sample": {"elements": ["Fe", "Pt"], "xray_lines": ["Fe_Ka", "Pt_La"]},
}


def edx_spectrum(iron: float, platinum: float) -> np.ndarray:
    """Counts of two lines as Gaussians, narrow beside the windows that eXSpy sums over, on the axis above."""
    energy = ENERGY["offset"] + ENERGY["scale"] * np.arange(ENERGY["size"])
    width = 0.03
    shapes = [np.exp(-0.5 * ((energy - centre) / width) ** 2) for centre in LINES.values()]
    return iron * shapes[0] / shapes[0].sum() + platinum * shapes[1] / shapes[1].sum()


def signal_from(data: np.ndarray, *axes: dict[str, Any], metadata: dict[str, Any] | None = None) -> Any:
    kind = {1: hs.signals.Signal1D, 2: hs.signals.Signal2D}[1 if axes[-1]["name"].startswith("Energy") else 2]
    signal = kind(data, axes=list(axes), metadata=metadata or METADATA)
    signal.set_signal_type((metadata or METADATA)["Signal"]["signal_type"])
    return signal


SCAN = (described("y", 4, 2.0, 0.0, "nm"), described("x", 3, 2.0, 10.0, "nm"))


@pytest.fixture
def components() -> np.ndarray:
    """Two components: mostly iron, mostly platinum."""
    return np.stack([edx_spectrum(9e5, 2e5), edx_spectrum(1e5, 6e5)])


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).random((2, 4, 3))


@pytest.fixture
def spectrum_image(components: np.ndarray, maps: np.ndarray) -> Any:
    return signal_from(np.einsum("ryx,re->yxe", maps, components), *SCAN, ENERGY)


def test_data_are_y_x_energy_whatever_hyperspy_prints(spectrum_image: Any):
    assert "(3, 4|1200)" in repr(spectrum_image)
    edx = from_hyperspy(spectrum_image)
    assert edx.sizes == {"y": 4, "x": 3, "xray_energy": 1200}
    assert np.shares_memory(edx.values, spectrum_image.data)
    np.testing.assert_array_equal(edx.sel(x=12.0, y=4.0), spectrum_image.inav[1, 2].data)
    assert [edx[dim].attrs["units"] for dim in edx.dims] == ["nm", "nm", "keV"]
    assert {key: entry for key, entry in edx.attrs.items() if key != "metadata"} == {
        "title": "particles",
        "units": "counts",
        "signal_type": "EDS_TEM",
        "beam_energy_keV": 200.0,
        "elements": ["Fe", "Pt"],
    }
    assert edx.attrs["metadata"] == METADATA


def test_other_signals():
    eels = hs.signals.Signal1D(np.arange(8.0).reshape(2, 4), axes=[
        described("y", 2, 1.0, 5.0, "nm"), described("Energy loss", 4, 0.5, 400.0, "eV")])  # fmt: skip
    eels.set_signal_type("EELS")
    array = from_hyperspy(eels)
    assert array.sizes == {"x": 2, "energy_loss": 4}
    np.testing.assert_array_equal(array.energy_loss, [400, 400.5, 401, 401.5])
    single = from_hyperspy(eels.inav[1])
    assert single.sizes == {"energy_loss": 4}
    np.testing.assert_array_equal(single, [4, 5, 6, 7])
    image = from_hyperspy(hs.signals.Signal2D(np.arange(6).reshape(2, 3)))
    assert image.sizes == {"y": 2, "x": 3} and not image.coords
    bent = hs.signals.Signal1D(
        np.ones(3), axes=[{"name": "Wavelength", "units": "nm", "axis": np.array([1.0, 2.0, 4.0])}]
    )
    np.testing.assert_array_equal(from_hyperspy(bent).wavelength, [1, 2, 4])


def test_lazy_signals_stay_lazy(spectrum_image: Any):
    edx = from_hyperspy(spectrum_image.as_lazy())
    assert edx.chunks is not None
    assert edx.compute().identical(from_hyperspy(spectrum_image))


def test_what_is_no_signal():
    with pytest.raises(InvalidArgument, match="HyperSpy signal is needed, not ndarray.*tensorspec.load"):
        from_hyperspy(np.ones(3))
    with pytest.raises(InvalidData, match="ragged"):
        from_hyperspy(hs.signals.BaseSignal(np.array([np.ones(2), np.ones(3)], dtype=object), ragged=True))


def cliff_lorimer(signal: Any) -> np.ndarray:
    """Return at% of iron and platinum, (element, component), by way of eXSpy."""
    intensities = signal.get_lines_intensity(["Fe_Ka", "Pt_La"], integration_windows=5)
    atoms = signal.quantification(intensities, method="CL", factors=[1.45, 5.075], plot_result=False)
    return np.stack([element.data for element in atoms])


def test_round_trip_to_cliff_lorimer(spectrum_image: Any, components: np.ndarray, maps: np.ndarray):
    edx = from_hyperspy(spectrum_image)
    spectra = to_hyperspy(fitted(edx, components, maps), "edx")["spectra"]
    assert type(spectra).__name__ == "EDSTEMSpectrum"
    assert spectra.metadata.Sample.as_dictionary() == METADATA["Sample"]
    assert spectra.metadata.Acquisition_instrument.as_dictionary() == METADATA["Acquisition_instrument"]
    by_hand = signal_from(components, described("component", 2, 1, 1, ""), ENERGY)
    np.testing.assert_array_equal(spectra.data, components)
    found = cliff_lorimer(spectra)
    np.testing.assert_allclose(found, cliff_lorimer(by_hand), rtol=1e-12)
    # And by the formula: weights are in the ratio of k times counts, atoms in that divided by their masses.
    amounts = np.array([[9e5, 1e5], [2e5, 6e5]]) * np.array([[1.45], [5.075]]) / np.array([[55.845], [195.084]])
    np.testing.assert_allclose(found, 100 * amounts / amounts.sum(axis=0), rtol=1e-4)


def test_signals_of_components(spectrum_image: Any, components: np.ndarray, maps: np.ndarray):
    edx = from_hyperspy(spectrum_image)
    signals = to_hyperspy(fitted(edx, components, maps))
    assert set(signals) == {"spectra", "maps"}
    spectra, images = signals["spectra"], signals["maps"]
    component, energy = spectra.axes_manager[0], spectra.axes_manager[1]
    assert (component.name, component.offset, component.scale, component.navigate) == ("component", 1, 1, True)
    assert (energy.name, energy.units, energy.is_binned) == ("Energy", "keV", True)
    np.testing.assert_allclose((energy.offset, energy.scale), (0, 0.01), atol=1e-12)
    assert spectra.metadata.General.title == "particles: component spectra"
    assert spectra.metadata.Signal.quantity == "X-rays (Counts)"
    assert type(images) is hs.signals.Signal2D
    np.testing.assert_array_equal(images.data, maps)
    assert [(axis.name, axis.units) for axis in images.axes_manager.signal_axes] == [("x", "nm"), ("y", "nm")]
    assert images.axes_manager["x"].offset == 10
    assert images.metadata.Sample.elements == ["Fe", "Pt"]
    images.metadata.Sample.elements.append("C")
    spectra.metadata.Signal.quantity = "something else"
    assert edx.attrs["metadata"] == METADATA


def test_line_scans_give_profiles(components: np.ndarray):
    line = from_hyperspy(signal_from(np.ones((5, 1200)), described("x", 5, 2.0, 0.0, "nm"), ENERGY))
    profiles = to_hyperspy(fitted(line, components, np.ones((2, 5))), "edx")["maps"]
    assert type(profiles) is hs.signals.Signal1D
    assert profiles.axes_manager.signal_axes[0].name == "x"


def test_arrays_that_never_were_in_a_file():
    """What the attributes of a DataArray say is enough, and stands above the metadata of the file."""
    energy = xr.DataArray(np.linspace(0.1, 12, 100), dims="xray_energy", attrs={"units": "keV"})
    edx = xr.DataArray(np.ones((2, 3, 100)), dims=("y", "x", "xray_energy"), coords={"xray_energy": energy})
    bare = to_hyperspy(fitted(edx, np.ones((2, 100)), np.ones((2, 2, 3))))["spectra"]
    assert type(bare).__name__ == "EDSTEMSpectrum"
    edx.attrs = {"beam_energy_keV": 15.0, "elements": ["Si", "O"], "units": "counts"}
    scanning = to_hyperspy(fitted(edx, np.ones((2, 100)), np.ones((2, 2, 3))))["spectra"]
    assert type(scanning).__name__ == "EDSSEMSpectrum"
    assert scanning.metadata.Acquisition_instrument.SEM.beam_energy == 15.0
    assert sorted(scanning.metadata.Sample.elements) == ["O", "Si"]
    assert scanning.metadata.Signal.quantity == "Intensity (counts)"
    eels = edx.rename(xray_energy="energy_loss").drop_attrs()
    assert type(to_hyperspy(fitted(eels, np.ones((2, 100)), np.ones((2, 2, 3))))["spectra"]).__name__ == "EELSSpectrum"
    edx.attrs = {"elements": ["Si"], "metadata": METADATA}
    changed = to_hyperspy(fitted(edx, np.ones((2, 100)), np.ones((2, 2, 3))))["spectra"]
    assert changed.metadata.Sample.elements == ["Si"]
    assert METADATA["Sample"] == {"elements": ["Fe", "Pt"], "xray_lines": ["Fe_Ka", "Pt_La"]}


def test_axes_of_points_stay_so():
    wavelength = xr.DataArray([1.0, 2.0, 4.0], dims="wavelength", attrs={"units": "nm"})
    light = xr.DataArray(np.ones((2, 3)), dims=("x", "wavelength"), coords={"wavelength": wavelength, "x": [0.0, 1.0]})
    axis = to_hyperspy(fitted(light, np.ones((2, 3)), np.ones((2, 2))))["spectra"].axes_manager.signal_axes[0]
    np.testing.assert_array_equal(axis.axis, [1, 2, 4])
    assert axis.units == "nm"


def test_several_tensors_and_unknown_ones(spectrum_image: Any, components: np.ndarray, maps: np.ndarray):
    fit = fitted(from_hyperspy(spectrum_image), components, maps)
    fit.spectrum["second"], fit.map["second"], fit.tensors["second"] = (
        fit.spectrum["edx"],
        fit.map["edx"],
        fit.tensors["edx"],
    )
    both = to_hyperspy(fit)
    assert set(both) == {"edx", "second"}
    np.testing.assert_array_equal(both["second"]["maps"].data, maps)
    with pytest.raises(UnknownName, match="'edxx'.*Did you mean 'edx'"):
        to_hyperspy(fit, "edxx")


@pytest.mark.parametrize("package", ["hyperspy", "exspy"])
def test_missing_packages(package: str, spectrum_image: Any, components, maps, monkeypatch: pytest.MonkeyPatch):
    fit = fitted(from_hyperspy(spectrum_image), components, maps)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=rf'{package}.*pip install "tensorspec\[hyperspy\]"'):
        to_hyperspy(fit)


@pytest.mark.parametrize(
    "file",
    [
        "scifi_eels/DMReader_SpectrumImage_SI-EELS.dm3",
        "formats/EELS_SI.dm4",
        "formats/EELS_STO.dm3",
        "lsmo_eels/LSMO_STO_linescan.hdf5",
        "cl_maps/quantum-emitters_map.dm4",
        "cl_maps/InGaN_transient_map.hspy",
        "espm_eds/88_ES-LP_G8_selection2_cropped2.hspy",
    ],
)
def test_files_loaded_by_hyperspy_are_the_same(shared_data: Path, file: str):
    reader: dict[str, Any] = {"reader": "HSPY"} if file.endswith("hdf5") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = from_hyperspy(hs.load(str(shared_data / file), **reader))
    ours = load(shared_data / file, **reader)
    xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())
    for dim in ours.coords:
        assert ours[dim].attrs == theirs[dim].attrs
    for key in ("signal_type", "units", "beam_energy_keV", "elements"):
        assert ours.attrs.get(key) == theirs.attrs.get(key), key
