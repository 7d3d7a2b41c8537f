"""Fits of data in blocks: they are those of data in memory, whatever the chunks."""

import importlib
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorspec as ts
from tensorspec.fit.block_findings import chosen_rows
from tensorspec.solvers import loop
from tensorspec.solvers.tensor_blocks import TensorBlocks

pytest.importorskip("dask")
block_start = importlib.import_module("tensorspec.fit.block_start")
in_blocks = importlib.import_module("tensorspec.fit.in_blocks")
streamed = importlib.import_module("tensorspec.solvers.streamed")

# One set of sizes and two heights of blocks, so that programs are compiled once.
Y, X, E, T, R = 6, 5, 14, 3, 2
RNG = np.random.default_rng(3)
MAPS, SPECTRA, OTHER, PROFILES = RNG.random((Y, X, R)), RNG.random((R, E)), RNG.random((R, 8)), RNG.random((R, T))


def planted(values, dims):
    coords = {dim: np.arange(size, dtype=float) for dim, size in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values + 0.05 * values.std() * RNG.standard_normal(values.shape), dims=dims, coords=coords)


EELS = planted(MAPS @ SPECTRA, ("y", "x", "energy_loss"))
EDX = planted(MAPS @ OTHER, ("y", "x", "xray_energy"))
TILTS = planted(np.einsum("yxr,re,rt->yxet", MAPS, SPECTRA, PROFILES), ("y", "x", "energy_loss", "tilt"))
COUNTS = (20 * EELS).round().clip(0)
MASK = xr.DataArray(RNG.random(EELS.shape) > 0.2, dims=EELS.dims)
CHANNELS = xr.DataArray(RNG.random(E) > 0.3, dims="energy_loss")
PIXELS = xr.DataArray(RNG.random((Y, X)) > 0.2, dims=("y", "x"))
SIGMA = xr.DataArray(RNG.uniform(0.5, 2, EELS.shape), dims=EELS.dims)
POSITIVE = ts.NonNegative()
KNOWN = EELS.isel(energy_loss=0, drop=True).expand_dims(component=[1])

# Chunks of 2 x 5 and of 2 x 3 and 2 x 2 pixels: ragged along x.
CASES = {
    "plain": (EELS, ts.NMF(R), {}),
    "free": (EELS, ts.CP(R), {}),
    "counts as integers": (COUNTS.astype(np.uint16), ts.NMF(R), {}),
    "mask": (EELS, ts.NMF(R), {"mask": MASK}),
    "gaps": (EELS.where(MASK), ts.NMF(R), {}),
    "channels": (EELS, ts.NMF(R), {"mask": CHANNELS}),
    "pixels": (EELS, ts.NMF(R), {"mask": PIXELS}),
    "sigma": (EELS, ts.NMF(R), {"loss": ts.LeastSquares(sigma=SIGMA), "mask": MASK}),
    "one sigma": (EELS, ts.NMF(R), {"loss": ts.LeastSquares(sigma=2.0), "rescale": False}),
    "scaled": (COUNTS, ts.NMF(R), {"loss": ts.LeastSquares(scaling="poisson"), "mask": CHANNELS}),
    "poisson": (COUNTS, ts.NMF(R), {"loss": ts.Poisson(), "mask": MASK}),
    "beta": (COUNTS + 1, ts.NMF(R), {"loss": ts.Beta(0.5)}),
    "huber": (EELS.where(MASK), ts.NMF(R), {"loss": ts.Huber(0.05)}),
    "order 3": (TILTS, ts.NMF(R), {}),
    "tucker": (TILTS, ts.Tucker({"pixel": 2, "energy_loss": 2, "tilt": 2}), {}),
    "coupled": ({"eels": EELS, "edx": EDX}, ts.NMF(R), {}),
    "sparse": (EELS, ts.NMF(R, {"pixel": ts.Sparse(0.01)}), {}),
    "shares": (EELS, ts.NMF(R, {"pixel": ts.SumToOne("component")}), {}),
    "soft orthogonal": (EELS, ts.NMF(R, {"pixel": ts.SoftOrthogonal(0.1)}), {}),
    "orthogonal": (EELS, ts.CP(R, {"pixel": ts.Orthogonal()}), {}),
    "smooth maps": (EELS, ts.NMF(R, {"pixel": ts.Smooth(0.1)}), {}),
    "smooth spectra": (EELS, ts.NMF(R, {"energy_loss": [ts.Smooth(0.1), ts.Sparse(0.001)]}), {}),
    "relevance": (EELS, ts.NMF(R, {"pixel": ts.ARD("auto")}), {}),
    "near": (EELS, ts.NMF(R, {"pixel": ts.Near(KNOWN, 0.1)}), {}),
    "admm": (EELS, ts.NMF(R), {"solver": ts.AOADMM()}),
    "ratios": (EELS, ts.NMF(R), {"solver": ts.Multiplicative()}),
}
# What the everyday test has; the others, most of which compile programs of their own, are slow together, and some say
# little that others do not.
QUICK = ("plain", "mask", "channels", "poisson", "coupled", "soft orthogonal")
MORE = ("free", "pixels", "one sigma", "orthogonal", "smooth spectra", "near", "admm", "ratios")


def lazy(data, y=2, x=3):
    if isinstance(data, dict):
        return {key: lazy(value, y, x) for key, value in data.items()}
    return data.chunk({"y": y, "x": x})


def fit(data, model, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "tensor .* is fitted as counts")
        warnings.filterwarnings("ignore", ".* were measured in no tensor")
        return ts.fit(data, model, progress=False, **options)


def same(first, second, tol=1e-10):
    assert first.objective == pytest.approx(second.objective, rel=tol, abs=1e-14)
    np.testing.assert_allclose(first.explained, second.explained, atol=tol)
    models = (first.reconstruct(), second.reconstruct())
    if not isinstance(models[0], dict):
        models = tuple({"data": model} for model in models)
    for key in models[0]:
        np.testing.assert_allclose(models[0][key], models[1][key], atol=tol * float(abs(models[0][key]).max()))


def check(name, monkeypatch):
    data, model, options = CASES[name]
    # Blocks of one chunk: without a limit such small data are a single one.
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    first = fit(data, model, max_sweeps=2, tol=0, blocks=False, **options)
    options = {"start": ts.From(first), "max_sweeps": 6, "tol": 0} | options
    eager, blocks = fit(data, model, blocks=False, **options), fit(lazy(data), model, blocks=True, **options)
    assert blocks.provenance["blocks"] >= 3 and "in blocks" not in eager.why
    assert blocks.sweeps == eager.sweeps
    # Small integers are computed with in single precision, where a sweep may be accepted or not by rounding.
    tol = 1e-10 if eager.provenance["dtype"] == "float64" else 1e-3
    np.testing.assert_allclose(blocks.history, eager.history, rtol=tol, atol=1e-14)
    same(blocks, eager, tol)


@pytest.mark.parametrize("name", QUICK)
def test_blocks_give_what_memory_gives(monkeypatch, name):
    check(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in MORE else ()) for name in CASES if name not in QUICK],
)
def test_every_model_loss_and_constraint_in_blocks(monkeypatch, name):
    check(name, monkeypatch)


def test_zeros_and_sweeps_that_are_taken_back(monkeypatch):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    apart = np.where(MAPS > 0.5, MAPS, 0)
    for loss, data in ((None, planted(apart @ SPECTRA, EELS.dims)), (ts.Poisson(), COUNTS)):
        # From one that has not converged, so that there is a way to go too far.
        first = fit(data, ts.NMF(R), loss=loss, start=ts.Random(), max_sweeps=1, tol=0, blocks=False)
        # Maps that are nowhere zero fall below it when they are extrapolated.
        start = first if loss else {"pixel": MAPS.reshape(-1, R) + 0.5, "energy_loss": SPECTRA.T}
        options = {"loss": loss, "start": ts.From(start), "max_sweeps": 40, "tol": 0}
        eager, blocks = fit(data, ts.NMF(R), **options), fit(lazy(data), ts.NMF(R), blocks=True, **options)
        assert (np.diff(eager.history) == 0).any()
        np.testing.assert_allclose(blocks.history, eager.history, rtol=1e-10, atol=1e-14)
        same(blocks, eager)


EDGES = st.lists(st.sampled_from([1, 2, 3]), min_size=6, max_size=6)


def ragged(steps, size):
    """Chunk sizes that add up."""
    found = []
    for step in steps:
        found.append(min(step, size - sum(found)))
        if sum(found) == size:
            return tuple(found)
    return (*found, size - sum(found))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(y=EDGES, x=EDGES, masked=st.booleans())
def test_any_chunks_will_do(y, x, masked):
    given_mask = {"mask": MASK} if masked else {}
    start = ts.From({"pixel": MAPS.reshape(-1, R) + 0.3, "energy_loss": SPECTRA.T + 0.2})
    options = {"start": start, "max_sweeps": 3, "tol": 0} | given_mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_blocks, "ENTRIES", 6 * E)
        blocks = fit(lazy(EELS, ragged(y, Y), ragged(x, X)), ts.NMF(R), blocks=True, **options)
    same(blocks, fit(EELS, ts.NMF(R), blocks=False, **options))


@pytest.fixture
def few_rows(monkeypatch):
    """Blocks of four pixels, bins of 2 x 2, and about half of the pixels to begin with."""
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    for name, value in {"BINNED": 3 * 3 * E, "ROWS": 16 * E, "_FEWEST": 10}.items():
        monkeypatch.setattr(block_start, name, value)


def test_a_start_of_its_own_ends_where_memory_ends(few_rows):
    blocks = fit(lazy(EELS), ts.NMF(R), blocks=True, tol=1e-9)
    assert blocks.provenance["bins"] is None and "14 points of mode 'pixel' drawn at random" in blocks.why
    assert blocks.objective == pytest.approx(fit(EELS, ts.NMF(R), blocks=False, tol=1e-9).objective, rel=1e-6)
    assert blocks.maps().dims == ("component", "y", "x")


OWN = ("poisson", "gaps", "pixels", "channels", "sigma", "order 3", "tucker", "coupled", "shares", "smooth maps")


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN)
def test_the_start_of_its_own_is_near(few_rows, case):
    data, model, options = CASES[case]
    blocks = fit(lazy(data), model, blocks=True, max_sweeps=6, **options)
    # Pixels that are solved by themselves need no bins to begin with.
    assert (blocks.provenance["bins"] is None) == (
        case in ("gaps", "pixels", "channels", "sigma", "order 3", "coupled")
    )
    memory = fit(data, model, blocks=False, **options)
    # Six sweeps, of which multiplicative updates need most.
    assert blocks.objective < memory.objective * (1.25 if case == "poisson" else 1.03)


def test_pixels_need_not_resemble_their_neighbours(monkeypatch):
    side, channels, rank = 48, 40, 3
    rng = np.random.default_rng(4)
    maps = rng.dirichlet(np.full(rank, 0.3), side**2)
    energy = np.linspace(0, 1, channels)
    spectra = np.array([1 + 5 * np.exp(-(((energy - centre) / 0.15) ** 2)) for centre in (0.2, 0.5, 0.8)])
    counts = rng.poisson(20 * maps @ spectra).astype(np.float32).reshape(side, side, channels)
    data = xr.DataArray(counts, dims=("y", "x", "energy_loss"))
    monkeypatch.setattr(in_blocks, "ENTRIES", 6 * side * channels)
    for name in ("ROWS", "BINNED"):
        monkeypatch.setattr(block_start, name, side**2 // 8 * channels)
    blocks = fit(data.chunk({"y": 6}), ts.NMF(rank), blocks=True, max_sweeps=1, tol=0.0)
    best = fit(data, ts.NMF(rank), blocks=False, tol=1e-9).objective
    assert blocks.provenance["passes"] == 4
    # One sweep from a fit of bins of these pixels ends half as high again.
    assert blocks.objective < best * (1 + 5e-4)


def test_rows_to_begin_with_are_those_of_the_data(monkeypatch):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    monkeypatch.setattr(block_start, "ROWS", 10 * E)
    monkeypatch.setattr(block_start, "_FEWEST", 10)
    seen = {}
    original = block_start.fit_rows

    def watched(tensors, gathered, model, call, mode, found, in_memory):
        seen["rows"] = found["data"].rows_kept()
        return original(tensors, gathered, model, call, mode, found, in_memory)

    monkeypatch.setattr(in_blocks, "fit_rows", watched)
    masked = EELS.where(MASK)
    for data, mask in ((masked, None), (EELS, CHANNELS), (EELS, PIXELS)):
        fit(lazy(data), ts.NMF(R), blocks=True, mask=mask, max_sweeps=1)
        whole = data if mask is None else data.where(mask)
        flat = whole.transpose(*EELS.dims).values.reshape(Y * X, E)
        chosen = chosen_rows(np.arange(Y * X), 10 / (Y * X))
        assert 0 < chosen.sum() < Y * X
        # Blocks are two pixels high and three wide: rows come in their order.
        np.testing.assert_array_equal(np.sort(seen["rows"], axis=0), np.sort(flat[chosen], axis=0))


@pytest.mark.parametrize(("reads", "said"), [(4, "first pass over the data, after 4 of 9"), (11, "second pass")])
def test_ctrl_c_before_there_are_maps_says_how_far_it_came(monkeypatch, tmp_path, reads, said):
    monkeypatch.setattr(in_blocks, "ENTRIES", 4 * E)
    original, done = TensorBlocks.values, []

    def stopping(self, place):
        if len(done) == reads:
            raise KeyboardInterrupt
        done.append(place)
        return original(self, place)

    monkeypatch.setattr(TensorBlocks, "values", stopping)
    checkpoint = tmp_path / "fit.npz"
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(lazy(EELS, 2, 2), ts.NMF(R), blocks=True, checkpoint=checkpoint)
    assert said in " ".join(stop.value.__notes__) and "nothing was written" in stop.value.__notes__[0]
    assert not list(tmp_path.iterdir())


def test_ctrl_c_in_the_fit_of_some_pixels_returns_maps(monkeypatch):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    original, calls = loop.run_chunk, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(loop, "run_chunk", stopping)
    stopped = fit(lazy(EELS), ts.NMF(R), blocks=True, tol=1e-12)
    assert stopped.status is ts.Status.INTERRUPTED and stopped.sweeps <= 1
    # The pixels were solved for the spectra that were there, and the objective is that of all data.
    assert stopped.maps().shape == (R, Y, X) and float(stopped.maps().std()) > 0
    assert stopped.objective == pytest.approx(0.5 * float((stopped.residual() ** 2).sum()) / rms2(EELS), rel=1e-6)


@pytest.mark.parametrize(
    ("stage", "said"), [("references", "constant model"), ("pixels", "before its first"), ("start", "the start")]
)
def test_ctrl_c_elsewhere_before_there_are_maps_says_where(monkeypatch, stage, said):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    start = ts.From({"pixel": MAPS.reshape(-1, R), "energy_loss": SPECTRA.T}) if stage == "start" else "auto"
    loss = ts.LeastSquares(scaling="poisson") if stage == "references" else ts.LeastSquares()
    owner, name = {
        "references": (streamed.Streamed, "refer"),
        "pixels": (in_blocks, "fit_rows"),
        "start": (streamed.Streamed, "first_state"),
    }[stage]
    monkeypatch.setattr(owner, name, _interrupt)
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(lazy(EELS.clip(0.01)), ts.NMF(R), blocks=True, start=start, loss=loss)
    assert said in " ".join(stop.value.__notes__)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("loss", [ts.LeastSquares(), ts.Huber(0.1)])
def test_ctrl_c_in_the_last_pass_returns_the_fit(monkeypatch, tmp_path, fused, loss):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    data = {"eels": lazy(EELS), "edx": lazy(EDX)} if fused else lazy(EELS)
    start = {"pixel": MAPS.reshape(-1, R) + 0.3, "energy_loss": SPECTRA.T + 0.2}
    options = {"start": ts.From(start | ({"xray_energy": OTHER.T + 0.2} if fused else {})), "max_sweeps": 4, "tol": 0}
    options |= {"blocks": True, "loss": loss, "checkpoint": tmp_path / "fit.npz"}
    whole = fit(data, ts.NMF(R), **options)
    with monkeypatch.context() as patch:
        patch.setattr(streamed.Streamed, "squares", _interrupt)
        stopped = fit(data, ts.NMF(R), **options)
    assert stopped.status is ts.Status.INTERRUPTED and stopped.sweeps == 4
    assert stopped.provenance["passes"] == whole.provenance["passes"] - 1
    assert "none at the end" in stopped.why and "none at the end" not in whole.why
    # Of the last sweep and not of the one before, from which they differ by more than a thousandth.
    assert abs(float(whole.history[-2] / whole.history[-1]) - 1) > 1e-3
    assert stopped.objective == pytest.approx(whole.objective, rel=1e-9)
    np.testing.assert_allclose(stopped.explained, whole.explained, rtol=1e-9)
    for mode, factor in whole.factors.items():
        np.testing.assert_array_equal(stopped.factors[mode], factor)
    assert options["checkpoint"].exists()
    again = fit(data, ts.NMF(R), **options)
    assert again.objective == pytest.approx(whole.objective, rel=1e-12) and not options["checkpoint"].exists()


def test_a_fit_that_is_stopped_makes_no_further_pass(monkeypatch):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    options = {"blocks": True, "max_sweeps": 6, "tol": 0}
    original, states = streamed.Streamed.advance, []

    def stopping(self, *arguments):
        if len(states) == 3:
            raise KeyboardInterrupt
        states.append(self.passes)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(streamed.Streamed, "advance", stopping)
        stopped = fit(lazy(EELS), ts.NMF(R), **options)
    assert stopped.provenance["passes"] - states[-1] <= 2  # the third sweep, and perhaps an extrapolation taken back
    assert stopped.objective == pytest.approx(float(stopped.history[-1]), rel=1e-12)
    limited = fit(lazy(EELS), ts.NMF(R), time_limit=1e-9, **options)
    assert limited.status is ts.Status.TIME_LIMIT and limited.provenance["passes"] == 2
    assert limited.maps().shape == (R, Y, X) and np.isfinite(limited.objective)


def rms2(data):
    return float((data**2).mean())


def test_a_matrix_takes_one_pass_a_sweep(monkeypatch):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    start = ts.From({"pixel": MAPS.reshape(-1, R) + 0.3, "energy_loss": SPECTRA.T + 0.2})
    plain = ts.HALS(extrapolate=False)  # nothing is ever taken back
    blocks = fit(lazy(EELS), ts.NMF(R), blocks=True, start=start, max_sweeps=5, tol=0, solver=plain)
    # One that looks, one for the objective of the start, and one at the end that sums the residual.
    assert blocks.provenance["passes"] == 5 + 3


def test_a_residual_is_summarised_and_a_fit_saved_without_all_data(monkeypatch, tmp_path):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    options = {
        "mask": MASK,
        "start": ts.From({"pixel": MAPS.reshape(-1, R), "energy_loss": SPECTRA.T}),
        "max_sweeps": 3,
    }
    eager, blocks = fit(EELS, ts.NMF(R), **options), fit(lazy(EELS), ts.NMF(R), blocks=True, **options)
    xr.testing.assert_allclose(blocks.residual_summary(), eager.residual_summary())
    blocks.save(tmp_path / "fit.h5")
    xr.testing.assert_allclose(ts.open(tmp_path / "fit.h5").maps(), eager.maps())


def test_lazy_data_that_fit_are_loaded(monkeypatch):
    assert not in_blocks.wanted({"data": lazy(EELS)}, "auto")
    monkeypatch.setattr(in_blocks, "available_memory", lambda: 2 * EELS.nbytes - 1)
    assert in_blocks.wanted({"data": lazy(EELS)}, "auto") and not in_blocks.wanted({"data": EELS}, "auto")


def test_a_killed_run_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    options = {"blocks": True, "max_sweeps": 6, "tol": 0}
    whole = fit(lazy(EELS), ts.NMF(R), **options)
    original, done = streamed.Streamed.advance, []

    def stopping(self, *arguments):
        if len(done) >= 3:
            raise KeyboardInterrupt
        done.append(1)
        return original(self, *arguments)

    path = tmp_path / "blocks.npz"
    with monkeypatch.context() as patch:
        patch.setattr(streamed.Streamed, "advance", stopping)
        stopped = fit(lazy(EELS), ts.NMF(R), checkpoint=path, **options)
    assert stopped.sweeps == 3 and "interrupted" in str(stopped.status) and path.exists()
    resumed = fit(lazy(EELS), ts.NMF(R), checkpoint=path, **options)
    assert "gone on with" in resumed.why and not path.exists()
    same(resumed, whole)
    with pytest.raises(ts.InvalidArgument, match="belongs to a fit of other data"):
        fit(lazy(EELS), ts.NMF(R), checkpoint=_of_another(path, monkeypatch), **options)


def _of_another(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(streamed.Streamed, "advance", _interrupt)
        fit(lazy(2 * EELS), ts.NMF(R), checkpoint=path, blocks=True, max_sweeps=6, tol=0)
    return path


def _interrupt(self, *arguments):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_from_an_instrument_file_to_maps(monkeypatch, tmp_path):
    signals = pytest.importorskip("hyperspy.api").signals
    signals.Signal1D(COUNTS.values.astype(np.uint16)).save(tmp_path / "a.hspy", chunks=(2, 3, E))
    monkeypatch.setattr(in_blocks, "ENTRIES", 12 * E)
    data = ts.load(tmp_path / "a.hspy", lazy=True)
    found = fit(data, ts.NMF(R), blocks=True, max_sweeps=5)
    assert found.provenance["blocks"] >= 3 and found.maps().sizes == {"component": R, "y": Y, "x": X}


@pytest.mark.parametrize(
    ("data", "model", "options", "message"),
    [
        (EELS, ts.PARAFAC2(R, along="y", evolving="x"), {}, "PARAFAC2 cannot go through data in blocks"),
        (EELS, ts.NMF(R), {"solver": ts.GaussNewton()}, "reads the data many times a sweep"),
        (COUNTS, ts.NMF(R, {"energy_loss": ts.Unimodal()}), {"loss": ts.Poisson()}, "reads? all data at every trial"),
        (EELS.where(EELS.y > 0, np.inf), ts.NMF(R), {}, r"infinite values in the pixels \["),
        (EELS.where(EELS.y > 0), ts.NMF(R), {"mask": xr.ones_like(MASK)}, "where the mask says True"),
        (EELS - 10, ts.NMF(R), {"loss": ts.Poisson()}, "which Poisson cannot take"),
        (0 * EELS, ts.NMF(R), {}, "zero everywhere"),
    ],
)
def test_what_cannot_be_fitted_says_so(data, model, options, message):
    with pytest.raises(ts.TensorspecError, match=message):
        fit(lazy(data), model, blocks=True, **options)


def test_chunks_that_cut_spectra_are_warned_of():
    with pytest.warns(UserWarning, match=r"cut its spectra into 2 pieces.*data.chunk\(energy_loss=-1\)"):
        ts.fit(EELS.chunk({"energy_loss": 7}), ts.NMF(R), blocks=True, max_sweeps=1, progress=False)


def test_chunks_that_cut_spectra_are_decoded_once_a_pass(monkeypatch):
    import dask.array

    times = {}

    class Store:
        """Counts how often each of its chunks is read."""

        shape, dtype, ndim = EELS.shape, EELS.dtype, 3

        def __getitem__(self, place):
            where = tuple(own.start for own in place)
            times[where] = times.get(where, 0) + 1
            return EELS.values[place]

    # Blocks of at most three pixels in chunks of six of them.
    monkeypatch.setattr(in_blocks, "ENTRIES", 3 * E)
    store = dask.array.from_array(Store(), chunks=(2, 3, 7), asarray=False, name=False, meta=EELS.values[:0, :0, :0])
    data = xr.DataArray(store, dims=EELS.dims, coords=EELS.coords)
    start = ts.From({"pixel": MAPS.reshape(-1, R) + 0.3, "energy_loss": SPECTRA.T + 0.2})
    options = {"start": start, "max_sweeps": 3, "tol": 0}
    with pytest.warns(UserWarning, match="spectra into 2 pieces, so the whole spectra of a chunk are put together and"):
        found = fit(data, ts.NMF(R), blocks=True, **options)
    assert found.provenance["blocks"] > 6
    assert "whole spectra of a chunk, and what they are put together from" in found.provenance["memory_plan_bytes"]
    assert len(times) == 12 and set(times.values()) == {found.provenance["passes"]}
    same(found, fit(EELS, ts.NMF(R), blocks=False, **options))


def test_a_store_that_ends_early_is_one_clear_line(tmp_path):
    import dask.array

    class Short:
        """A store without its last rows."""

        shape, dtype, ndim, chunks = EELS.shape, EELS.dtype, 3, (2, X, E)

        def __getitem__(self, place):
            if place[0].stop > 4:
                raise OSError("unable to read: file truncated")
            return EELS.values[place]

    data = xr.DataArray(
        dask.array.from_array(Short(), chunks=(2, X, E), asarray=False, meta=EELS.values), dims=EELS.dims
    )
    path = tmp_path / "never.npz"
    with pytest.raises(ts.InvalidData, match="its store cannot be read at .*file truncated"):
        ts.fit(data, ts.NMF(R), blocks=True, checkpoint=path, progress=False)
    assert not path.exists()
