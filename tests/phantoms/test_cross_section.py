"""The cross-section: what was asked for is what is there."""

import numpy as np
import pytest
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.phantoms import cross_section, mean_overlap
from tensorspec.phantoms.edx import LINES, resolution, xray_spectrum
from tensorspec.phantoms.eels import ONSETS, Peak, core_loss, oxide_edges

SMALL = {"shape": (24, 32), "eels_channels": 512, "edx_channels": 512}


@pytest.fixture(scope="module")
def phantom():
    return cross_section(**SMALL)


def phase(phantom, name: str, tensor: str) -> xr.DataArray:
    truth = phantom.truth
    return truth[f"{tensor}_spectra"].isel(component=truth.phase.values.tolist().index(name))


def excess(spectrum: xr.DataArray, onset: float, width: float = 40.0) -> float:
    """Rise over the power law of the 30 eV before an onset, summed over a window behind it."""
    before = spectrum.sel(energy_loss=slice(onset - 34, onset - 6))
    slope, level = np.polyfit(np.log(before.energy_loss), np.log(before), 1)
    behind = spectrum.sel(energy_loss=slice(onset, onset + width))
    return float((behind - np.exp(level) * behind.energy_loss**slope).sum() / before.sum())


def test_it_looks_like_two_files_of_one_instrument(phantom):
    assert list(phantom) == ["eels", "edx", "truth"]
    eels, edx = phantom["eels"], phantom["edx"]
    assert eels.dims == ("y", "x", "energy_loss")
    assert edx.dims == ("y", "x", "xray_energy")
    for tensor, signal_type in ((eels, "EELS"), (edx, "EDS_TEM")):
        assert tensor.dtype == np.uint16
        assert tensor.attrs["units"] == "counts"
        assert tensor.attrs["signal_type"] == signal_type
        assert tensor.attrs["title"]
        assert tensor.attrs["elements"] == ["Fe", "La", "Mn", "O", "Sr", "Ti"]
        assert NoiseModel.from_attrs(tensor.attrs).is_counts
        assert tensor.y.attrs["units"] == tensor.x.attrs["units"] == "nm"
    assert eels.energy_loss.attrs["units"] == "eV"
    assert edx.xray_energy.attrs["units"] == "keV"
    assert (float(eels.energy_loss[0]), float(eels.energy_loss[1])) == (430.0, 431.0)
    xr.testing.assert_identical(eels.coords["x"], edx.coords["x"])
    assert phantom.data.keys() == {"eels", "edx"}


def test_default_calibration():
    phantom = cross_section(shape=(8, 8))
    assert float(phantom["eels"].energy_loss.diff("energy_loss")[0]) == 0.5
    assert float(phantom["edx"].xray_energy.diff("xray_energy")[0]) == pytest.approx(0.01)
    assert float(phantom["eels"].x.diff("x")[0]) == 0.5


def test_data_are_the_truth_and_poisson_noise(phantom):
    for name in ("eels", "edx"):
        expected = phantom.expected(name)
        assert expected.dims == phantom[name].dims
        by_hand = np.einsum("ryx,re->yxe", phantom.truth.maps, phantom.truth[f"{name}_spectra"])
        np.testing.assert_allclose(expected, by_hand, rtol=1e-12)
        deviation = phantom[name].astype(float) - expected
        # Pearson's chi squared per entry, of half a million entries: 1 within four standard errors.
        chi = float((deviation**2 / expected).where(expected > 0.05).mean())
        assert chi == pytest.approx(1.0, abs=0.01)
        assert float(deviation.sum()) == pytest.approx(0, abs=4 * np.sqrt(float(expected.sum())))


def test_dose_is_the_one_asked_for():
    phantom = cross_section(**SMALL, eels_counts=5e4, edx_counts=37, plural_scattering=0.5, overlap=0.2)
    assert float(phantom.expected("eels").sum("energy_loss").mean()) == pytest.approx(5e4, rel=1e-9)
    assert float(phantom.expected("edx").sum("xray_energy").mean()) == pytest.approx(37, rel=1e-9)


def test_maps_sum_to_the_thickness(phantom):
    total = phantom.truth.maps.sum("component")
    np.testing.assert_allclose(total, np.broadcast_to(np.linspace(0.9, 1.1, 32), (24, 32)), rtol=1e-12)
    even = cross_section(**SMALL, thickness_change=0).truth.maps.sum("component")
    np.testing.assert_allclose(even, 1, rtol=1e-12)


def test_every_phase_is_somewhere_alone(phantom):
    shares = phantom.truth.maps / phantom.truth.maps.sum("component")
    assert (shares.max(("y", "x")) > 0.95).all()
    assert (shares.mean(("y", "x")) > 0.05).all()
    # The substrate lies below, the film above.
    assert float(shares.sel(component=1)[-1].min()) > 0.99
    assert float(shares.sel(component=[3, 4])[:, 0].sum("component").min()) > 0.99


@pytest.mark.parametrize("overlap", [0.1, 0.23, 0.5])
def test_overlap_is_the_one_asked_for(overlap):
    maps = cross_section(**SMALL, overlap=overlap, thickness_change=0).truth.maps.values
    assert mean_overlap(maps) == pytest.approx(overlap, abs=1e-6)
    np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-12)


def test_probe_broadens():
    sharp, broad = (cross_section(**SMALL, probe=probe).truth.maps.values for probe in (0, 2))
    assert mean_overlap(sharp) < 0.03 < mean_overlap(broad)
    # A step blurred by a Gaussian of two pixels has a slope of 1 / (2 sqrt(2 pi)); roughness makes the mean flatter.
    slope = 1 / (2 * np.sqrt(2 * np.pi))
    assert 0.8 * slope < np.abs(np.diff(broad[0].mean(axis=1))).max() < 1.01 * slope


def test_edges_stand_at_their_energies(phantom):
    found = {
        "Ti": ("SrTiO3", 450, 458),
        "Mn": ("LaMnO3", 630, 650),
        "Fe": ("Fe3O4", 700, 716),
        "La": ("LaMnO3", 824, 842),
    }
    for element, (name, low, high) in found.items():
        spectrum = phase(phantom, name, "eels").sel(energy_loss=slice(low, high))
        rise = spectrum.diff("energy_loss")
        steepest = float(rise.energy_loss[rise.values.argmax()])
        assert 0 <= steepest - ONSETS[element] <= 3
    oxygen = phase(phantom, "SrTiO3", "eels").sel(energy_loss=slice(520, 540))
    assert float(oxygen.energy_loss[1 + np.diff(oxygen.values).argmax()]) == pytest.approx(530, abs=1.5)


def test_edges_are_in_the_phases_that_have_the_element(phantom):
    present = {"SrTiO3": "O", "SrMnO3": "OMn", "LaMnO3": "OMnLa", "Fe3O4": "OFe"}
    for name, elements in present.items():
        for element, onset in (("O", 528), ("Mn", 640), ("Fe", 708), ("La", 832)):
            rise = excess(phase(phantom, name, "eels"), onset)
            assert (rise > 0.1) if element in elements else (rise < 0.05), (name, element, rise)


def test_manganese_is_shifted_between_the_two_manganates():
    fine = cross_section(shape=(8, 8))
    white = [phase(fine, name, "eels").sel(energy_loss=slice(636, 649)) for name in ("LaMnO3", "SrMnO3")]
    positions = [float(one.energy_loss[one.values.argmax()]) for one in white]
    assert positions[1] - positions[0] == pytest.approx(1.6, abs=0.5)


def test_background_is_a_power_law():
    energy = 430 + np.arange(512.0)
    spectrum = core_loss(energy, [], exponent=3.1)
    assert np.polyfit(np.log(energy), np.log(spectrum), 1)[0] == pytest.approx(-3.1)


def test_plural_scattering_moves_intensity_behind_the_edge_and_keeps_it():
    energy = np.arange(200.0, 3200.0)
    edges = oxide_edges({"O": 1}, [Peak(536, 1, 4)])
    edge = core_loss(energy, edges, 3.0) - core_loss(energy, [], 3.0)
    for thickness in (0.3, 1.0):
        plural = core_loss(energy, edges, 3.0, thickness) - core_loss(energy, [], 3.0, thickness)
        # Unscattered share at the edge, the rest one plasmon and more above it.
        near = slice(325, 340)
        assert plural[near].sum() / edge[near].sum() == pytest.approx(np.exp(-thickness), rel=0.05)
        assert plural.sum() == pytest.approx(edge.sum(), rel=0.01)
        assert plural.min() > -1e-9
    np.testing.assert_allclose(core_loss(energy, edges, 3.0, 0.0), core_loss(energy, edges, 3.0), rtol=1e-8)


def test_plural_scattering_stays_a_sum_of_products():
    phantom = cross_section(**SMALL, plural_scattering=0.7)
    plain = cross_section(**SMALL)
    expected = phantom.expected("eels").values.reshape(-1, 512)
    assert np.linalg.matrix_rank(expected, tol=1e-8 * np.linalg.norm(expected)) == 4
    xr.testing.assert_identical(phantom.truth.maps, plain.truth.maps)
    xr.testing.assert_identical(phantom["edx"], plain["edx"])
    # Jump at the oxygen edge: lower than without.
    jump = [excess(phase(one, "SrTiO3", "eels"), 528, 15) for one in (phantom, plain)]
    assert jump[0] < 0.75 * jump[1]


def test_lines_stand_at_their_energies_and_are_as_wide_as_the_detector_makes_them():
    energy = 0.001 * np.arange(10240)
    spectrum = xray_spectrum(energy, {"Mn": 1, "O": 1})
    for centre, others in ((5.8988, 0.2), (8.0478, 0.2)):
        window = np.abs(energy - centre) < others
        line = spectrum[window] - spectrum[np.abs(energy - centre - 0.3) < 0.002].mean()
        assert energy[window][line.argmax()] == pytest.approx(centre, abs=0.002)
        above = energy[window][line > 0.5 * line.max()]
        assert 1000 * (above[-1] - above[0]) == pytest.approx(float(resolution(centre)), abs=4)
    assert float(resolution(5.8988)) == pytest.approx(130.0)
    assert resolution(np.array([0.5249, 5.8988, 8.0478])).tolist() == sorted(resolution([0.5249, 5.8988, 8.0478]))


def test_lines_of_an_element_are_in_its_phases(phantom):
    lines = {"Sr": ("La", ["SrTiO3", "SrMnO3"]), "Fe": ("Kb", ["Fe3O4"]), "Cu": ("Ka", None), "O": ("Ka", None)}
    for element, (line, phases) in lines.items():
        centre = LINES[element][line][0]
        for name in phantom.truth.phase.values:
            spectrum = phase(phantom, name, "edx")
            peak = float(spectrum.sel(xray_energy=slice(centre - 0.05, centre + 0.05)).mean())
            side = float(spectrum.sel(xray_energy=slice(centre + 0.42, centre + 0.46)).mean())
            assert (peak > 2 * side) is (phases is None or name in phases), (element, name)


def test_bremsstrahlung_falls_with_energy_and_is_absorbed_where_it_is_soft(phantom):
    spectrum = phase(phantom, "SrTiO3", "edx")
    levels = [float(spectrum.sel(xray_energy=slice(low, low + 0.2)).mean()) for low in (1.1, 3.2, 6.2, 9.5)]
    assert levels == sorted(levels, reverse=True)
    assert float(spectrum.sel(xray_energy=slice(0, 0.08)).mean()) < 0.05 * levels[0]
    assert float(spectrum.min()) >= 0


@pytest.mark.parametrize(
    ("gain", "read", "correlation"), [(1.0, 0.0, 0.0), (3.0, 0.0, 0.0), (2.0, 400.0, 0.0), (17.0, 0.0, 0.43)]
)
def test_planted_noise_is_the_noise_that_is_found(gain, read, correlation):
    phantom = cross_section(**SMALL, gain=gain, read_variance=read, channel_correlation=correlation)
    eels = phantom["eels"]
    assert NoiseModel.from_attrs(eels.attrs) == NoiseModel(gain, read, correlation)
    found = estimate_noise(eels)
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert found.read_variance == pytest.approx(read, rel=0.1)
    assert found.channel_correlation == pytest.approx(correlation, abs=0.01)
    assert eels.dtype == (np.uint16 if gain == 1 else np.float32)
    assert phantom["edx"].dtype == np.uint16
    assert estimate_noise(phantom["edx"]).is_counts


def test_the_seed_decides_everything():
    first, again, other = (cross_section(shape=(12, 12), eels_channels=64, edx_channels=64, seed=s) for s in (3, 3, 4))
    for name in ("eels", "edx", "truth"):
        xr.testing.assert_identical(first[name], again[name])
        assert not first[name].identical(other[name])
    # Another dose draws on the same specimen.
    brighter = cross_section(shape=(12, 12), eels_channels=64, edx_channels=64, seed=3, edx_counts=1000)
    xr.testing.assert_identical(brighter.truth.maps, first.truth.maps)
    xr.testing.assert_identical(brighter["eels"], first["eels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4, 30)}, r"shape\[0\] is 4; expected a whole number of at least 8"),
        ({"shape": 30}, "shape is 30; expected 2 whole numbers"),
        ({"eels_counts": 0}, "eels_counts is 0; expected a number above 0"),
        ({"edx_counts": np.nan}, "edx_counts is nan; expected a finite number above 0"),
        ({"eels_channels": 10}, "eels_channels is 10; expected a whole number of at least 32"),
        ({"edx_channels": 99.5}, "edx_channels is 99.5"),
        ({"pixel_size": -1}, "pixel_size is -1; expected a number above 0"),
        ({"probe": -1}, "probe is -1; expected a number of at least 0"),
        ({"overlap": 0.001}, "overlap is 0.001; with a probe of 0.8 pixels these maps can overlap by 0.0"),
        ({"overlap": 1.5}, "overlap is 1.5"),
        ({"thickness_change": 2}, "thickness_change is 2"),
        ({"plural_scattering": -0.1}, "plural_scattering is -0.1"),
        ({"gain": 0}, "gain is 0; expected a number above 0"),
        ({"read_variance": -1}, "read_variance is -1"),
        (
            {"channel_correlation": 0.8},
            "channel_correlation is 0.8; expected a number of at least -0.7 and at most 0.7",
        ),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": "a"}, "seed is 'a'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        cross_section(**arguments)
    assert "\n" not in str(caught.value)
