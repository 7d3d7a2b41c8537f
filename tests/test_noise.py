"""Noise: the model, its estimate from data with known noise, Poisson scaling, the average for weights."""

import json

import numpy as np
import pytest
import xarray as xr

import tensorspec.noise.average as average
import tensorspec.noise.estimate as estimate
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise import (
    NoiseModel,
    estimate_noise,
    mean_noise_variance,
    noise_at_a_glance,
    poisson_marginals,
    poisson_scale,
    undo_poisson_scale,
)
from tensorspec.noise.lowrank import noise_edge
from tensorspec.noise.unfold import unfold


def spectra(kind: str, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Three spectra of unit sum: dense edges, or sparse lines."""
    e = np.linspace(0, 1, channels)
    if kind == "eels":
        rows = [np.exp(-2 * e) + 0.8 / (1 + np.exp(-(e - onset) / 0.01)) * np.exp(-2 * e) for onset in (0.2, 0.45, 0.7)]
    else:
        rows = [
            0.02
            + sum(
                height * np.exp(-0.5 * ((e - centre) / 0.012) ** 2)
                for height, centre in zip(rng.uniform(0.3, 1, 3), rng.uniform(0.1, 0.9, 3), strict=True)
            )
            for _ in range(3)
        ]
    return np.array([row / row.sum() for row in rows])


def expected_counts(kind: str, rows: int, channels: int, counts: float, seed: int = 0) -> np.ndarray:
    """Three components, `counts` a row on average."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(3, 0.5), rows) @ spectra(kind, channels, rng) * counts


def labelled(matrix: np.ndarray) -> xr.DataArray:
    return xr.DataArray(matrix, dims=("x", "energy_loss"))


def correlate(noise: np.ndarray, side: float) -> np.ndarray:
    """Spread each event over its neighbours, at unchanged variance."""
    kernel = np.array([side, 1.0, side]) / np.sqrt(1 + 2 * side**2)
    return np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), 1, noise)


# ---- the model


def test_variance_is_a_line_and_negative_means_count_as_no_signal():
    noise = NoiseModel(gain=2.0, read_variance=5.0)
    np.testing.assert_array_equal(noise.variance(np.array([-3.0, 0.0, 10.0])), [5.0, 5.0, 25.0])
    means = xr.DataArray([1.0, 2.0], dims="x", coords={"x": [0.5, 1.5]})
    xr.testing.assert_identical(noise.variance(means), 2.0 * means + 5.0)


def test_model_prints_as_the_call_that_makes_it():
    noise = NoiseModel(gain=17, read_variance=2, channel_correlation=0.43)
    assert repr(noise) == "NoiseModel(gain=17.0, read_variance=2.0, channel_correlation=0.43)"
    assert eval(repr(noise)) == noise


def test_model_lives_in_attrs_as_json():
    noise = NoiseModel(np.float32(3), 1, None)
    attrs = {"units": "counts", "noise": json.loads(json.dumps(noise.to_attrs()))}
    assert NoiseModel.from_attrs(attrs) == noise
    assert NoiseModel.from_attrs(noise.to_attrs()) == noise
    assert NoiseModel.from_attrs({"units": "counts"}) is None
    assert NoiseModel.from_attrs({}) is None
    with pytest.raises(InvalidArgument, match=r"attrs\['noise'\] is 'loud'"):
        NoiseModel.from_attrs({"noise": "loud"})


@pytest.mark.parametrize(
    ("noise", "counts"),
    [
        (NoiseModel(), True),
        (NoiseModel(0.81), True),
        (NoiseModel(1.24, 0.1, -0.049), True),
        (NoiseModel(0.79), False),
        (NoiseModel(1.26), False),
        (NoiseModel(1.0, 0.11), False),
        (NoiseModel(1.0, 0.0, 0.05), False),
    ],
)
def test_what_counts_as_counts(noise, counts):
    assert noise.is_counts is counts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gain": -1}, "gain is -1.0; expected a finite number of zero or more"),
        ({"gain": np.nan}, "gain is nan"),
        ({"gain": "high"}, "gain is 'high'; expected a number"),
        ({"gain": True}, "gain is True"),
        ({"read_variance": -0.1}, "read_variance is -0.1"),
        ({"read_variance": np.inf}, "read_variance is inf"),
        ({"channel_correlation": 1.0}, "channel_correlation is 1.0; expected a number between -1 and 1, or None"),
        ({"channel_correlation": np.nan}, "channel_correlation is nan"),
    ],
)
def test_model_refuses_what_no_instrument_has(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        NoiseModel(**arguments)


# ---- the estimate, noise known


@pytest.mark.parametrize("kind", ["edx", "eels"])
@pytest.mark.parametrize(("counts", "tolerance"), [(20, 0.05), (500, 0.02), (50000, 0.02)])
@pytest.mark.parametrize("shape", [(900, 150), (200, 400)])
def test_poisson_counts_have_gain_one(kind, counts, tolerance, shape):
    data = np.random.default_rng(1).poisson(expected_counts(kind, *shape, counts)).astype(np.uint16)
    noise = estimate_noise(labelled(data))
    assert noise.gain == pytest.approx(1.0, rel=tolerance)
    assert noise.read_variance == 0
    assert noise.is_counts


@pytest.mark.parametrize("kind", ["edx", "eels"])
def test_gain(kind):
    mean = expected_counts(kind, 400, 300, 20000)
    noise = estimate_noise(labelled(3.0 * np.random.default_rng(2).poisson(mean / 3)))
    assert noise.gain == pytest.approx(3.0, rel=0.02)
    assert noise.read_variance == 0
    assert abs(noise.channel_correlation) < 0.01
    assert not noise.is_counts


@pytest.mark.parametrize("kind", ["edx", "eels"])
def test_gain_and_read_variance(kind):
    rng = np.random.default_rng(3)
    mean = expected_counts(kind, 600, 300, 30000)
    noise = estimate_noise(labelled(2.0 * rng.poisson(mean / 2) + rng.normal(0, 10, mean.shape)))
    assert noise.gain == pytest.approx(2.0, rel=0.05)
    assert noise.read_variance == pytest.approx(100.0, rel=0.1)


def test_read_noise_alone():
    rng = np.random.default_rng(4)
    mean = expected_counts("eels", 300, 300, 30000)
    noise = estimate_noise(labelled(mean + rng.normal(0, 3, mean.shape)))
    assert noise.gain == 0
    assert noise.read_variance == pytest.approx(9.0, rel=0.02)


@pytest.mark.parametrize(("side", "lag_one"), [(0.1, 0.1961), (0.3, 0.5085)])
def test_channel_correlation(side, lag_one):
    rng = np.random.default_rng(5)
    mean = expected_counts("eels", 200, 400, 50000)
    data = mean + correlate(17.0 * rng.poisson(mean / 17) - mean, side)
    noise = estimate_noise(labelled(data))
    assert noise.channel_correlation == pytest.approx(lag_one, abs=0.01)
    assert noise.gain == pytest.approx(17.0, rel=0.03)


def test_correlation_is_looked_for_along_the_last_dimension_only():
    # Twenty runs of four channels: neighbours share an event, but no event crosses the seam between two runs.
    event = np.random.default_rng(6).normal(0, 1, (500, 20, 5))
    data = xr.DataArray(50 + 5 * (event[..., :-1] + event[..., 1:]), dims=("x", "time", "energy"))
    assert estimate_noise(data, rank=1).channel_correlation == pytest.approx(0.5, abs=0.01)


def test_vacuum_strip_of_two_counts_a_pixel():
    mean = expected_counts("edx", 1200, 200, 5000)
    mean[:400] *= 2 / 5000
    noise = estimate_noise(labelled(np.random.default_rng(7).poisson(mean)))
    assert noise.is_counts
    assert noise.gain == pytest.approx(1.0, rel=0.1)


def test_spikes_do_not_change_the_estimate():
    rng = np.random.default_rng(8)
    data = rng.poisson(expected_counts("eels", 800, 200, 5000)).astype(float)
    data[rng.integers(0, 800, 40), rng.integers(0, 200, 40)] += 5000
    noise = estimate_noise(labelled(data))
    assert noise.gain == pytest.approx(1.0, rel=0.02)
    assert noise.is_counts


@pytest.mark.parametrize(("share", "tolerance"), [(0.1, 0.02), (0.3, 0.02), (0.6, 0.05)])
def test_missing_values(share, tolerance):
    rng = np.random.default_rng(9)
    mean = expected_counts("eels", 400, 200, 20000)
    data = 3.0 * rng.poisson(mean / 3)
    data[rng.random(data.shape) < share] = np.nan
    data[5] = np.nan
    assert estimate_noise(labelled(data)).gain == pytest.approx(3.0, rel=tolerance)


def test_zero_rows_and_channels_change_nothing():
    rng = np.random.default_rng(10)
    data = rng.poisson(expected_counts("eels", 300, 200, 5000))
    padded = np.zeros((320, 210), dtype=data.dtype)
    padded[20:, :200] = data
    assert estimate_noise(labelled(padded)) == estimate_noise(labelled(data))


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int16", ">u2", ">f4", "float32"])
def test_any_number_type_and_memory_layout(dtype):
    data = np.random.default_rng(11).poisson(expected_counts("edx", 300, 200, 200)).clip(max=255)
    plain = estimate_noise(labelled(data))
    odd = labelled(np.asfortranarray(data.astype(dtype)))
    assert estimate_noise(odd) == plain
    assert estimate_noise(odd.transpose("energy_loss", "x")) == plain


def test_dimension_order_does_not_matter_and_rows_are_merged():
    data = np.random.default_rng(12).poisson(expected_counts("edx", 300, 100, 2000)).reshape(20, 15, 100)
    cube = xr.DataArray(data, dims=("y", "x", "energy"))
    assert estimate_noise(cube) == estimate_noise(cube.transpose("energy", "y", "x"))
    assert estimate_noise(cube) == estimate_noise(labelled(data.reshape(300, 100)))


def test_dask_backed_data_are_not_computed_whole():
    dask = pytest.importorskip("dask.array")
    data = np.random.default_rng(13).poisson(expected_counts("edx", 300, 100, 2000))
    lazy = xr.DataArray(dask.from_array(data, chunks=(100, 100)), dims=("x", "energy_loss"))
    assert estimate_noise(lazy) == estimate_noise(labelled(data))


def test_large_data_are_subsampled_the_same_way_every_time(monkeypatch):
    monkeypatch.setattr(estimate, "MOST_VALUES", 2**16)
    data = np.random.default_rng(14).poisson(expected_counts("edx", 3000, 100, 2000)).astype(np.uint8)
    cube = xr.DataArray(data.reshape(30, 100, 100), dims=("y", "x", "energy"))
    rows, _, _ = unfold(cube.transpose("energy", "x", "y"), 2**16)
    assert rows.shape == (1024, 100)
    # Whole spectra of the data, each at most once.
    held = {tuple(row) for row in rows.astype(int)}
    assert held <= {tuple(row) for row in data.astype(int)}
    assert len(held) == 1024
    noise = estimate_noise(cube)
    assert noise == estimate_noise(cube)
    assert noise.gain == pytest.approx(1.0, rel=0.03)


def test_scaling_the_data_scales_the_gain():
    rng = np.random.default_rng(15)
    mean = expected_counts("eels", 300, 200, 30000)
    data = 2.0 * rng.poisson(mean / 2) + rng.normal(0, 12, mean.shape)
    plain, scaled = estimate_noise(labelled(data)), estimate_noise(labelled(1e-6 * data))
    assert scaled.gain == pytest.approx(1e-6 * plain.gain, rel=1e-3)
    assert scaled.read_variance == pytest.approx(1e-12 * plain.read_variance, rel=1e-2)


def test_given_rank():
    data = np.random.default_rng(16).poisson(expected_counts("eels", 300, 200, 5000))
    assert estimate_noise(labelled(data), rank=3).gain == pytest.approx(1.0, rel=0.02)
    # Structure that the model may not follow is noise to it.
    assert estimate_noise(labelled(data), rank=1).gain > 1.1


def test_noise_free_data_have_none():
    assert estimate_noise(labelled(expected_counts("eels", 50, 40, 100))) == NoiseModel(0.0, 0.0, None)
    assert estimate_noise(labelled(np.full((20, 30), 7.0))).gain == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (2, 50), (3, 3)])
def test_too_small_for_a_decomposition(shape):
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) + 100.0
    assert estimate_noise(labelled(ramp)) == NoiseModel(0.0, 0.0, None)
    counts = np.random.default_rng(17).poisson(np.full(shape, 1e4))
    assert 0 <= estimate_noise(labelled(counts)).gain < 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 4)), "expected an xarray.DataArray, got ndarray"),
        (labelled(np.zeros((4, 4))), "all zero"),
        (labelled(np.full((4, 4), np.nan)), "fewer than three valid values"),
        (labelled(np.ones((1, 1))), "fewer than three valid values"),
        (labelled(np.full((4, 4), np.inf)), "infinities"),
        (labelled(np.array([["a", "b"]])), "expected real numbers"),
        (labelled(np.ones((2, 2), dtype=complex)), "complex128"),
        (labelled(np.ones((0, 4))), "empty"),
    ],
)
def test_estimate_refuses(data, message):
    with pytest.raises(InvalidData, match=message):
        estimate_noise(data)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_estimate_refuses_ranks(rank):
    with pytest.raises(InvalidArgument, match="expected a positive integer"):
        estimate_noise(labelled(np.ones((5, 5))), rank=rank)


def test_edge_of_correlated_noise():
    rng = np.random.default_rng(18)
    side = 0.3
    for shape in ((200, 300), (400, 100)):
        noise = correlate(rng.normal(size=shape), side)
        measured = np.linalg.norm(noise, 2)
        scale = 1 + 2 * side**2
        lags = np.array([2 * side, side**2]) / scale
        assert noise_edge(*shape, lags) == pytest.approx(measured, rel=0.03)
        assert noise_edge(*shape) == pytest.approx(np.linalg.norm(rng.normal(size=shape), 2), rel=0.03)


# ---- the estimate, on measurements


def test_gatan_eels_is_not_counts(shared_data):
    pytest.importorskip("rsciio")
    from tensorspec.io.instrument import load

    data = load(shared_data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    noise = estimate_noise(data)
    assert noise.variance(float(data.mean())) / float(data.mean()) == pytest.approx(17, abs=0.6)
    assert noise.channel_correlation == pytest.approx(0.43, abs=0.02)
    assert not noise.is_counts


@pytest.mark.parametrize(
    "path",
    ["espm_eds/88_ES-LP_G8_selection2_cropped2.hspy", "sio2_eds/SiO2_EDS_SI.hspy", "bcf_p45/P45_job_hyperspy.bcf"],
)
def test_sparse_edx_maps_are_counts(shared_data, path):
    pytest.importorskip("rsciio")
    from tensorspec.io.instrument import load, signals

    file = shared_data / path
    cubes = [info.name for info in signals(file) if len(info.shape) == 3]
    assert estimate_noise(load(file, signal=cubes[0])).is_counts


# ---- Poisson scaling


def counts_matrix(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(expected_counts("edx", 60, 40, 400))


def test_largest_singular_value_is_the_root_of_the_total():
    counts = counts_matrix()
    scaled = poisson_scale(labelled(counts)).values
    left, values, right = np.linalg.svd(scaled)
    total = counts.sum()
    assert values[0] == pytest.approx(np.sqrt(total), rel=1e-13)
    np.testing.assert_allclose(np.abs(left[:, 0]), np.sqrt(counts.sum(axis=1) / total), rtol=1e-10)
    np.testing.assert_allclose(np.abs(right[0]), np.sqrt(counts.sum(axis=0) / total), rtol=1e-10, atol=1e-14)


def test_pure_noise_stays_below_the_edge():
    rng = np.random.default_rng(19)
    mean = np.multiply.outer(rng.uniform(0.5, 2, 400), rng.uniform(0.2, 5, 300))
    values = np.linalg.svd(poisson_scale(labelled(rng.poisson(mean))).values, compute_uv=False)
    assert 0.95 * (np.sqrt(400) + np.sqrt(300)) < values[1] < 1.01 * (np.sqrt(400) + np.sqrt(300))


def test_marginals_multiply_to_the_independent_expectation():
    counts = counts_matrix()
    rows, channels = poisson_marginals(counts)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    np.testing.assert_allclose(np.outer(rows, channels), expected, rtol=1e-12)
    assert rows.sum() == pytest.approx(channels.sum())


def test_marginals_of_higher_orders():
    vectors = [np.array([1.0, 2.0, 0.0]), np.array([3.0, 1.0]), np.array([1.0, 1.0, 2.0, 4.0]), np.array([1.0, 5.0])]
    tensor = np.einsum("i,j,k,l->ijkl", *vectors)
    found = poisson_marginals(tensor)
    np.testing.assert_allclose(np.einsum("i,j,k,l->ijkl", *found), tensor, rtol=1e-12)
    assert found[0][2] == 0


def test_marginals_look_past_missing_entries():
    rng = np.random.default_rng(20)
    truth = np.multiply.outer(rng.uniform(1, 3, 30), rng.uniform(1, 9, 20))
    valid = rng.random(truth.shape) < 0.6
    valid[4] = False
    found = np.outer(*poisson_marginals(np.where(valid, truth, 1e9), valid))
    known = np.arange(30) != 4
    np.testing.assert_allclose(found[known], truth[known], rtol=1e-8)
    assert not found[4].any()
    np.testing.assert_allclose(np.outer(*poisson_marginals(np.where(valid, truth, np.nan))), found, rtol=1e-12)


def test_marginals_of_nothing_are_zero():
    assert [vector.tolist() for vector in poisson_marginals(np.zeros((2, 3)))] == [[0, 0], [0, 0, 0]]


def test_scaling_comes_undone_and_keeps_labels():
    counts = counts_matrix().reshape(6, 10, 40).astype(np.uint16)
    counts[2, 3] = 0
    counts[:, :, 7] = 0
    data = xr.DataArray(
        counts,
        dims=("y", "x", "xray_energy"),
        coords={"x": ("x", np.arange(10.0), {"units": "nm"}), "xray_energy": np.arange(40) * 0.01},
        name="edx",
        attrs={"units": "counts", "title": "a", "noise": NoiseModel().to_attrs()},
    )
    scaled = poisson_scale(data)
    assert scaled.dims == data.dims
    assert scaled.coords["poisson_scale_pixel"].dims == ("y", "x")
    assert "units" not in scaled.attrs
    assert not scaled[2, 3].any()
    assert not scaled[:, :, 7].any()
    assert np.isfinite(scaled).all()
    back = undo_poisson_scale(scaled)
    assert back.attrs == {"units": "counts", "title": "a"}
    xr.testing.assert_allclose(back, data.astype(float), rtol=1e-12)
    flat = poisson_scale(labelled(counts.reshape(60, 40)))
    np.testing.assert_allclose(scaled.values.reshape(60, 40), flat.values, rtol=1e-12)


def test_scaling_of_missing_pixels_equals_leaving_them_out():
    counts = counts_matrix().astype(float)
    holed = counts.copy()
    holed[[3, 17]] = np.nan
    scaled = poisson_scale(labelled(holed))
    assert np.isnan(scaled[[3, 17]]).all()
    kept = np.delete(np.arange(60), [3, 17])
    np.testing.assert_allclose(scaled[kept], poisson_scale(labelled(counts[kept])), rtol=1e-9)


def test_scaling_in_single_precision_and_sparse():
    counts = counts_matrix()
    single = poisson_scale(labelled(counts.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, poisson_scale(labelled(counts)), rtol=1e-5)
    sparse = pytest.importorskip("sparse")
    dense = poisson_scale(labelled(counts))
    np.testing.assert_array_equal(poisson_scale(labelled(sparse.COO.from_numpy(counts))).values, dense.values)
    assert estimate_noise(labelled(sparse.COO.from_numpy(counts))) == estimate_noise(labelled(counts))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((4, 4)), "expected an xarray.DataArray"),
        (labelled(np.zeros((4, 4))), "all zero"),
        (labelled(np.full((4, 4), np.inf)), "infinities"),
        (labelled(np.array([[5.0, 5.0], [-1.0, -2.0]])), "1 of the 2 rows along axis 0 have a negative total"),
    ],
)
def test_scaling_refuses(data, message):
    with pytest.raises(InvalidData, match=message):
        poisson_scale(data)


def test_scaling_twice_and_undoing_nothing_are_refused():
    scaled = poisson_scale(labelled(counts_matrix()))
    with pytest.raises(InvalidArgument, match="scaled already"):
        poisson_scale(scaled)
    with pytest.raises(InvalidArgument, match="carry no Poisson scale"):
        undo_poisson_scale(labelled(counts_matrix()))


# ---- the average variance, for weights


def test_average_from_a_given_model():
    values = np.array([[1.0, 3.0], [-2.0, 100.0]])
    valid = np.array([[True, True], [True, False]])
    variance, how = mean_noise_variance(values, valid, 2, NoiseModel(2.0, 5.0))
    assert variance == pytest.approx((2 * 1 + 2 * 3 + 0) / 3 + 5)
    assert how == "from the given noise model"


@pytest.mark.parametrize("kind", ["edx", "eels"])
@pytest.mark.parametrize("counts", [20, 500, 50000])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_average_of_counts_is_the_mean(kind, counts, dtype):
    data = np.random.default_rng(21).poisson(expected_counts(kind, 500, 200, counts)).astype(dtype)
    variance, how = mean_noise_variance(data, None, 3, None)
    assert variance == pytest.approx(data.mean(dtype=float), rel=1e-12)
    assert how == "Poisson counts: the mean"


@pytest.mark.parametrize("kind", ["edx", "eels"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_average_of_other_data_is_that_of_the_residual(kind, missing):
    rng = np.random.default_rng(22)
    mean = expected_counts(kind, 500, 200, 20000)
    data = 3.0 * rng.poisson(mean / 3)
    valid = rng.random(data.shape) >= missing
    variance, how = mean_noise_variance(np.where(valid, data, 1e9), valid, 3, None)
    assert variance == pytest.approx(3 * mean[valid].mean(), rel=0.03)
    assert how == "residual of the rank-3 singular value decomposition"


def test_average_of_even_noise_with_negative_values():
    rng = np.random.default_rng(23)
    data = rng.normal(0, 1, (200, 4)) @ rng.normal(0, 1, (4, 150)) + rng.normal(0, 0.5, (200, 150))
    assert mean_noise_variance(data, None, 4, None)[0] == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("order", [3, 4, 5])
def test_average_at_higher_orders(order):
    rng = np.random.default_rng(24)
    sizes = (40, 9, 8, 5, 4)[:order]
    letters = "abcde"[:order]
    factors = [rng.uniform(0, 1, (size, 2)) for size in sizes]
    tensor = np.einsum(",".join(f"{letter}r" for letter in letters) + "->" + letters, *factors)
    noisy = tensor + rng.normal(0, 0.1, tensor.shape)
    assert mean_noise_variance(noisy, None, 2, None)[0] == pytest.approx(0.01, rel=0.15 if order == 3 else 0.06)


def test_average_counts_rows_without_signal():
    rng = np.random.default_rng(25)
    data = np.zeros((200, 100))
    data[:50] = 3.0 * rng.poisson(np.full((50, 100), 20.0))
    assert mean_noise_variance(data, None, 1, None)[0] == pytest.approx(3 * data.mean(), rel=0.05)


@pytest.mark.parametrize("gain", [1.0, 2.5, 3.0])
def test_average_where_a_few_channels_hold_nearly_everything(gain):
    # The decomposition swallows the noise of the bright channels; what is left of the others must not stand for it.
    rng = np.random.default_rng(28)
    mean = np.full((300, 100), 0.05)
    mean[:, 40:43] = rng.uniform(20, 60, (300, 3))
    data = gain * rng.poisson(mean / gain)
    assert mean_noise_variance(data, None, 3, None)[0] == pytest.approx(gain * mean.mean(), rel=0.3)


def test_average_is_computed_from_a_subsample(monkeypatch):
    rng = np.random.default_rng(26)
    data = (rng.normal(0, 1, (5000, 64)) + 100).astype(np.float32)
    monkeypatch.setattr(average, "MOST_VALUES", 2**16)
    assert average._rows(data, None)[0].shape == (1024, 64)
    first = mean_noise_variance(data, None, 1, None)
    assert first == mean_noise_variance(data, None, 1, None)
    assert first[0] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 40), (40, 1), (2, 2), (3, 5), (4, 4, 4)])
@pytest.mark.parametrize("rank", [1, 4, 50])
@pytest.mark.parametrize("kind", ["zeros", "constant", "counts", "ramp"])
def test_average_of_tiny_arrays_is_sane(shape, rank, kind):
    size = int(np.prod(shape))
    values = {
        "zeros": np.zeros(size),
        "constant": np.full(size, 2.5),
        "counts": np.random.default_rng(27).poisson(np.full(size, 1e4)),
        "ramp": np.arange(size, dtype=float),
    }[kind].reshape(shape)
    variance, how = mean_noise_variance(values, None, rank, None)
    assert np.isfinite(variance)
    assert 0 <= variance <= 5 * max(values.max(), 1)
    assert how
    if kind in ("zeros", "constant"):
        assert variance == pytest.approx(0, abs=1e-25)


def test_average_of_nothing_and_of_noise_free_data():
    assert mean_noise_variance(np.ones((3, 3)), np.zeros((3, 3), bool), 1, None) == (0.0, "no valid entry")
    clean = expected_counts("eels", 60, 40, 100)
    assert 0 <= mean_noise_variance(clean, None, 3, None)[0] < 1e-20 * (clean**2).mean()
    assert 0 <= mean_noise_variance(clean.astype(np.float32), None, 3, None)[0] < 1e-12 * (clean**2).mean()


KINDS = {
    "counts": lambda expected, rng: rng.poisson(expected),
    "counts of a tenth": lambda expected, rng: rng.poisson(0.1 * expected),
    "gain of two": lambda expected, rng: 2 * rng.poisson(expected / 2),
    "read-out noise": lambda expected, rng: rng.poisson(expected) + rng.normal(0, 1.0, expected.shape),
    "shared by neighbours": lambda expected, rng: (lambda a: (a + np.roll(a, 1, axis=1)) / 2)(rng.poisson(expected)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_glance_recognises_counts_as_a_long_look_does(kind):
    rng = np.random.default_rng(5)
    expected = rng.gamma(2.0, 1.0, (3000, 3)) @ rng.gamma(2.0, 1.0, (3, 500))
    data = xr.DataArray(KINDS[kind](expected, rng).astype(np.float32), dims=("x", "energy_loss"))
    glance, look = noise_at_a_glance(data), estimate_noise(data)
    assert glance.is_counts == look.is_counts == kind.startswith("counts")
    assert glance.gain == pytest.approx(look.gain, abs=0.05 * look.gain + 0.02)
