"""Discs in a matrix, alone and as a pair; the set of order three."""

import numpy as np
import pytest
import xarray as xr

from tensorspec.errors import InvalidArgument, UnknownName
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.phantoms import disc_pair, discs, mean_overlap, order3
from tensorspec.phantoms.counting import record


@pytest.mark.parametrize(("arguments", "overlap"), [({}, 0.07), ({"blur": 4}, 0.23), ({"matrix_floor": 0.3}, 0.16)])
def test_overlap_of_the_maps(arguments, overlap):
    maps = discs(**arguments).truth.maps
    assert mean_overlap(maps.values) == pytest.approx(overlap, abs=0.005)
    np.testing.assert_allclose(maps.sum("component"), 1, rtol=1e-12)


def test_area_of_the_discs():
    areas = discs(blur=0).truth.maps.sum(("y", "x")).values
    assert areas[0] == pytest.approx(np.pi * 81, rel=0.02)
    assert areas[1] == pytest.approx(np.pi * 100, rel=0.02)
    half = discs(blur=0, shape=(80, 80)).truth.maps.sum(("y", "x")).values
    np.testing.assert_allclose(half, 4 * areas, rtol=0.03)


def test_matrix_floor_is_everywhere():
    assert float(discs(matrix_floor=0.3).truth.maps[2].min()) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("kind", ["edx", "eels"])
@pytest.mark.parametrize("counts", [50, 5000])
def test_counts_are_poisson_of_the_dose(kind, counts):
    phantom = discs(kind, counts=counts, seed=2)
    data, expected = phantom["data"], phantom.expected()
    assert data.dims == ("y", "x", "energy")
    assert data.dtype == np.uint16
    np.testing.assert_allclose(expected.sum("energy"), counts, rtol=1e-10)
    np.testing.assert_allclose(phantom.truth.spectra.sum("energy"), counts, rtol=1e-12)
    assert float(((data - expected) ** 2 / expected).mean()) == pytest.approx(1, abs=0.015)
    assert float(data.sum()) == pytest.approx(1600 * counts, abs=4 * np.sqrt(1600 * counts))
    assert estimate_noise(data).gain == pytest.approx(1, rel=0.05)


def test_eels_spectra_are_those_of_the_comparison():
    e = np.linspace(0, 1, 200)
    step = lambda onset: 1 / (1 + np.exp(-(e - onset) / 0.01))  # noqa: E731
    second = 0.6 * np.exp(-2 * e) + step(0.33) * np.exp(-2 * np.clip(e - 0.33, 0, None))
    second = second + 0.8 * np.exp(-((e - 0.37) ** 2) / (2 * 0.02**2))
    found = discs("eels", counts=1).truth.spectra
    np.testing.assert_allclose(found[1], second / second.sum(), rtol=1e-10)
    third = 1.2 * np.exp(-2 * e) + 0.3 * step(0.6)
    np.testing.assert_allclose(found[2], third / third.sum(), rtol=1e-10)


def test_edx_spectra_are_lines_on_a_low_floor():
    spectra = discs("edx", counts=1, seed=5).truth.spectra.values
    assert spectra.shape == (3, 200)
    floor = np.median(spectra, axis=1, keepdims=True)
    np.testing.assert_allclose(spectra.min(axis=1, keepdims=True), floor, rtol=0.05)
    assert ((spectra.max(axis=1, keepdims=True) / floor) > 15).all()
    assert ((spectra.max(axis=1, keepdims=True) / floor) < 110).all()


def test_pair_shares_its_maps_and_nothing_else():
    pair = disc_pair(counts=(5000, 50), seed=1)
    assert list(pair) == ["strong", "weak", "truth"]
    assert pair["strong"].dims == ("y", "x", "strong_energy")
    xr.testing.assert_identical(pair.truth.maps, discs().truth.maps)
    strong, weak = (pair.truth[f"{name}_spectra"].values for name in ("strong", "weak"))
    cosine = np.diag(strong @ weak.T) / np.linalg.norm(strong, axis=1) / np.linalg.norm(weak, axis=1)
    assert (cosine < 0.9).all()
    np.testing.assert_allclose(pair.expected("weak").sum("weak_energy"), 50, rtol=1e-10)
    np.testing.assert_allclose(pair.expected("strong").sum("strong_energy"), 5000, rtol=1e-10)
    # The first tensor is the one that `discs` draws alone.
    np.testing.assert_array_equal(pair["strong"], discs(counts=5000, seed=1)["data"])
    # Equal spectra and doses are still two measurements.
    even = disc_pair(kinds=("eels", "eels"), counts=(100, 100))
    np.testing.assert_array_equal(even.truth.strong_spectra, even.truth.weak_spectra)
    assert (even["strong"].values != even["weak"].values).mean() > 0.3


def test_pair_of_different_kinds():
    pair = disc_pair(kinds=("eels", "edx"), names=("core", "xray"))
    assert pair["core"].attrs["signal_type"] == "EELS"
    assert pair["xray"].attrs["signal_type"] == "EDS_TEM"


@pytest.mark.parametrize("make", [discs, disc_pair, lambda seed: order3(counts=100, seed=seed)])
def test_the_seed_decides_everything(make):
    first, again, other = make(seed=7), make(seed=7), make(seed=8)
    for name in first:
        xr.testing.assert_identical(first[name], again[name])
    tensor = next(iter(first.data))
    assert not first[tensor].identical(other[tensor])


def test_units_are_everywhere():
    for phantom in (discs(), disc_pair(), order3(), order3(counts=10)):
        for tensor in phantom.data.values():
            assert tensor.attrs["units"] == "counts"
            assert all(tensor[dim].attrs["units"] for dim in tensor.dims)
            assert NoiseModel.from_attrs(tensor.attrs) is not None
        assert all(variable.attrs["units"] for variable in phantom.truth.data_vars.values())
        assert phantom.truth.component.values.tolist() == list(range(1, phantom.truth.sizes["component"] + 1))


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_order3_is_a_sum_of_products(rank):
    phantom = order3(rank=rank)
    truth = phantom.truth
    by_hand = np.einsum("ryx,re,rt->yxet", truth.maps, truth.spectra, truth.courses)
    np.testing.assert_allclose(phantom["data"], by_hand, rtol=1e-12)
    np.testing.assert_allclose(truth.spectra.sum("energy_loss"), 1)
    np.testing.assert_allclose(truth.courses.mean("temperature"), 1)
    energy = (truth.maps**2).sum(("y", "x")) * (truth.spectra**2).sum("energy_loss")
    energy = (energy * (truth.courses**2).sum("temperature")).values
    assert (np.diff(energy) <= 0).all()
    for unfolded in (by_hand.reshape(80, -1), np.moveaxis(by_hand, 2, 0).reshape(60, -1), by_hand.reshape(-1, 15).T):
        values = np.linalg.svd(unfolded, compute_uv=False)
        assert (values > 1e-6 * values[0]).sum() == rank


def test_order3_noise():
    phantom = order3(shape=(10, 12), counts=500, seed=1)
    assert phantom["data"].dtype == np.uint16
    expected = phantom.expected()
    assert float(expected.sum("energy_loss").mean()) == pytest.approx(500)
    assert float(((phantom["data"] - expected) ** 2).sum() / expected.sum()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("correlation", [-0.4, 0.0, 0.43, 0.7])
def test_recorded_noise_has_the_moments_asked_for(correlation):
    expected = np.full((40000, 12), 300.0)
    noise = NoiseModel(gain=3, read_variance=100, channel_correlation=correlation)
    data = record(expected, noise, np.random.default_rng(0)).astype(float)
    assert data.mean() == pytest.approx(300, abs=0.3)
    # The first and last channel as well as the others.
    np.testing.assert_allclose(data.var(axis=0), 1000, rtol=0.04)
    found = np.corrcoef(data.T)
    np.testing.assert_allclose(np.diag(found, 1), correlation, atol=0.025)


def test_large_counts_do_not_overflow():
    data = record(np.full((2, 2), 1e6), NoiseModel(), np.random.default_rng(0))
    assert data.dtype == np.uint32
    assert (np.abs(data.astype(float) - 1e6) < 1e4).all()


def test_phantom_is_a_mapping_that_prints_what_it_holds():
    phantom = disc_pair()
    assert len(phantom) == 3
    assert dict(phantom).keys() == {"strong", "weak", "truth"}
    assert "strong: y 40, x 40, strong_energy 200  uint16" in repr(phantom)
    with pytest.raises(KeyError, match="eels"):
        phantom["eels"]
    with pytest.raises(UnknownName, match=r"no tensor 'stong'.*Did you mean 'strong'\?"):
        phantom.expected("stong")
    with pytest.raises(UnknownName, match="this phantom has"):
        phantom.expected()
    with pytest.raises(AttributeError):
        phantom.truth = None
    assert "noise" not in phantom.expected("weak").attrs


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (discs, {"kind": "edxs"}, r"kind is 'edxs'; expected 'edx' or 'eels'. Did you mean 'edx'\?"),
        (discs, {"counts": -5}, "counts is -5; expected a number above 0"),
        (discs, {"shape": (40,)}, "shape is .* expected 2 whole numbers"),
        (discs, {"channels": 2}, "channels is 2; expected a whole number of at least 8"),
        (discs, {"blur": -1}, "blur is -1"),
        (discs, {"matrix_floor": 1}, "matrix_floor is 1; expected a number of at least 0 and at most 0.99"),
        (discs, {"seed": 0.5}, "seed is 0.5"),
        (disc_pair, {"counts": (1, 2, 3)}, "counts is .* one entry for each of the two tensors"),
        (disc_pair, {"kinds": "edx"}, "kinds is 'edx'"),
        (disc_pair, {"names": ("a", "a")}, "two different names"),
        (disc_pair, {"names": ("a", "truth")}, "neither of them 'truth'"),
        (order3, {"rank": 0}, "rank is 0"),
        (order3, {"counts": 0}, "counts is 0"),
        (order3, {"steps": 1}, "steps is 1"),
    ],
)
def test_refusals(make, arguments, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)
