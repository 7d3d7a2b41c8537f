"""Fits in blocks on a cluster: the same result, also when workers or the scheduler are lost."""

import importlib
import os
import signal
import threading
import time

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

distributed = pytest.importorskip("distributed")
in_blocks = importlib.import_module("tensorspec.fit.in_blocks")
fit_cluster = importlib.import_module("tensorspec.fit.cluster")
streamed = importlib.import_module("tensorspec.solvers.streamed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

Y, X, E, R = 12, 6, 20, 3
RNG = np.random.default_rng(5)
CLEAN = RNG.random((Y, X, R)) @ RNG.random((R, E))
DATA = xr.DataArray(CLEAN + 0.02 * RNG.standard_normal(CLEAN.shape), dims=("y", "x", "energy_loss")).chunk(y=2)
OPTIONS = {"blocks": True, "max_sweeps": 12, "tol": 0, "progress": False}


def two_workers():
    return distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)


@pytest.fixture
def client():
    """A cluster of its own, for tests that close it."""
    with two_workers() as cluster, distributed.Client(cluster, set_as_default=True) as client:
        yield client


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as cluster:
        yield cluster


@pytest.fixture
def shared(cluster):
    """A client of one cluster for all tests, with two workers also where a test before has killed one."""
    with distributed.Client(cluster, set_as_default=True) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def alone(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(in_blocks, "users_client", lambda: None)
        return ts.fit(DATA, ts.NMF(R), **OPTIONS)


def after(monkeypatch, sweeps, action):
    """Do something at the beginning of a sweep."""
    original, done = streamed.Streamed.advance, []

    def acting(self, *arguments):
        done.append(1)
        if len(done) == sweeps:
            action()
        return original(self, *arguments)

    monkeypatch.setattr(streamed.Streamed, "advance", acting)


@pytest.mark.parametrize("tasks", [512, 4])
def test_two_workers_and_one_that_is_lost(monkeypatch, shared, tasks):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    monkeypatch.setattr(fit_cluster, "_TASKS", tasks)  # of six blocks, two at a time
    expected = alone(monkeypatch)
    found = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    assert "on the workers of the dask client" in found.why and found.provenance["blocks"] == 6
    assert found.objective == pytest.approx(expected.objective, rel=1e-8)
    np.testing.assert_allclose(found.factors["pixel"], expected.factors["pixel"], atol=1e-8)

    def kill():
        pid = next(iter(shared.run(os.getpid).values()))
        threading.Thread(target=lambda: (time.sleep(0.02), os.kill(pid, signal.SIGKILL))).start()

    after(monkeypatch, 4, kill)
    again = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    assert again.sweeps == found.sweeps and again.objective == pytest.approx(found.objective, rel=1e-12)


@pytest.mark.parametrize("passes", [1, 5], ids=["the first pass", "a sweep"])
def test_what_was_sent_is_sent_again_after_all_workers_that_had_it_are_lost(monkeypatch, shared, passes):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    expected = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    original, done = fit_cluster.Cluster._sent, []

    def losing(self, work):
        common = original(self, work)
        done.append(1)
        if len(done) == passes:
            for pid in shared.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)
            for _ in range(200):
                if not any(shared.who_has([common]).values()):
                    return common
                time.sleep(0.05)
            raise AssertionError("the scheduler did not notice")
        return common

    monkeypatch.setattr(fit_cluster.Cluster, "_sent", losing)
    found = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    assert len(done) > passes and found.sweeps == 12 and "on the workers of the dask client" in found.why
    assert found.objective == pytest.approx(expected.objective, rel=1e-12)


def test_without_its_scheduler_the_best_so_far_comes_back(monkeypatch, client, tmp_path):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    after(monkeypatch, 4, client.cluster.close)
    path = tmp_path / "fit.npz"
    with pytest.warns(UserWarning, match="scheduler of the dask client was lost"):
        found = ts.fit(DATA, ts.NMF(R), checkpoint=path, **OPTIONS)
    assert "interrupted" in str(found.status) and found.sweeps == 3 and path.exists()
    resumed = ts.fit(DATA, ts.NMF(R), checkpoint=path, **OPTIONS)
    assert resumed.sweeps == 12 and resumed.objective == pytest.approx(alone(monkeypatch).objective, rel=1e-8)


@pytest.mark.parametrize("stage", ["refer", "after_pixels", "first_state", "squares"])
def test_without_its_scheduler_there_is_a_result_at_any_stage(monkeypatch, client, tmp_path, stage):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    options = {**OPTIONS, "loss": ts.LeastSquares(scaling="poisson")} if stage == "refer" else dict(OPTIONS)
    if stage == "first_state":
        options["start"] = ts.From({"pixel": np.ones((Y * X, R)), "energy_loss": RNG.random((E, R))})
    data = DATA.clip(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(in_blocks, "users_client", lambda: None)
        expected = ts.fit(data, ts.NMF(R), **options)
    original = getattr(streamed.Streamed, stage)

    def acting(self, *arguments):
        client.cluster.close()
        return original(self, *arguments)

    monkeypatch.setattr(streamed.Streamed, stage, acting)
    path = tmp_path / "fit.npz"
    last = stage == "squares"
    said = "the best so far is returned" if last else "the data are read in this process"
    with pytest.warns(UserWarning, match=f"was lost .*: {said}"):
        found = ts.fit(data, ts.NMF(R), checkpoint=path, **options)
    assert found.objective == pytest.approx(expected.objective, rel=1e-8) and found.sweeps == 12
    assert (found.status is ts.Status.INTERRUPTED) == last == path.exists()
    np.testing.assert_allclose(found.factors["pixel"], expected.factors["pixel"], atol=1e-8)


def noting(folder, action=lambda block: block):
    """Return data of which every read leaves a line in a file that is named by the process."""

    def read(block):
        with open(folder / str(os.getpid()), "a") as file:
            file.write("read\n")
        return action(block)

    return DATA.copy(data=DATA.data.map_blocks(read, dtype=DATA.dtype, meta=np.empty((0, 0, 0))))


def reads(folder):
    return {int(path.name): len(path.read_text().splitlines()) for path in folder.iterdir() if path.name.isdigit()}


def surveyed(monkeypatch, data, folder=None, here=False, **options):
    """Return what the first pass of a fit finds, and how often each process has read by then."""
    original, found = in_blocks.survey, []

    def keeping(*arguments):
        result = original(*arguments)
        # Of one sweep only: what comes after the first pass is no matter here.
        found.append((result[0]["data"], {} if folder is None else reads(folder)))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(in_blocks, "survey", keeping)
        if here:
            patch.setattr(in_blocks, "users_client", lambda: None)
        ts.fit(data, ts.NMF(R), **{**OPTIONS, "max_sweeps": 1}, **options)
    return found[0]


def assert_same_survey(found, expected):
    for name in ("total", "square", "low", "high", "count", "missing", "whole", "precision", "reference", "digest"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("marginals", "measured"):
        for own, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(found.sample.values, expected.sample.values)
    np.testing.assert_array_equal(found.rows_kept(), expected.rows_kept())
    if expected.binned is None:
        assert found.binned is None
    else:
        np.testing.assert_array_equal(found.binned, expected.binned)
        np.testing.assert_array_equal(found.bin_counts, expected.bin_counts)


@pytest.mark.parametrize("case", ["plain", "gaps", "mask and sigma", "poisson", "huber"])
def test_the_first_pass_runs_on_the_workers_and_finds_the_same(monkeypatch, shared, tmp_path, case):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    # Bins of 3 x 3 pixels in blocks of two rows: bins are put together from blocks.
    monkeypatch.setattr(importlib.import_module("tensorspec.fit.block_start"), "BINNED", 8 * E)
    keep = xr.DataArray(np.random.default_rng(2).random(DATA.shape) > 0.2, dims=DATA.dims)
    sigma = xr.DataArray(np.random.default_rng(3).uniform(0.5, 2, DATA.shape), dims=DATA.dims)
    data, options = noting(tmp_path), {}
    if case == "gaps":
        data = data.where(keep)
    elif case == "mask and sigma":
        options = {"mask": keep, "loss": ts.LeastSquares(sigma=sigma)}
    elif case == "poisson":
        data, options = (20 * data).round().clip(0), {"loss": ts.Poisson()}
    elif case == "huber":
        options = {"loss": ts.Huber(0.05)}
    found, pids = surveyed(monkeypatch, data, tmp_path, **options)
    assert os.getpid() not in pids and len(pids) == 2 and sum(pids.values()) == 6
    assert os.getpid() not in reads(tmp_path)  # nor did anything that came after
    expected, pids = surveyed(monkeypatch, data, tmp_path, here=True, **options)
    assert pids[os.getpid()] == 6
    assert_same_survey(found, expected)


def test_a_worker_lost_in_the_first_pass_changes_nothing(monkeypatch, shared, tmp_path):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)

    def dying_once(block):
        try:
            (tmp_path / "died").touch(exist_ok=False)
        except FileExistsError:
            return block
        return os.kill(os.getpid(), signal.SIGKILL)

    found, _ = surveyed(monkeypatch, noting(tmp_path, dying_once))
    assert (tmp_path / "died").exists() and os.getpid() not in reads(tmp_path)
    assert_same_survey(found, surveyed(monkeypatch, DATA, here=True)[0])


def test_without_its_scheduler_the_first_pass_goes_on_here(monkeypatch, client):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    monkeypatch.setattr(importlib.import_module("tensorspec.fit.cluster"), "_FETCHED", 2)
    original, seen = in_blocks.Progress.passed, []

    def closing(self, share, number):
        seen.append(share)
        if len(seen) == 2:
            client.cluster.close()
        return original(self, share, number)

    monkeypatch.setattr(in_blocks.Progress, "passed", closing)
    with pytest.warns(UserWarning, match="was lost .*: the data are read in this process"):
        found, _ = surveyed(monkeypatch, DATA)
    monkeypatch.setattr(in_blocks.Progress, "passed", original)
    assert_same_survey(found, surveyed(monkeypatch, DATA, here=True)[0])


def with_value(value, *rows):
    bad = DATA.compute()
    for row in rows:
        bad[row, 1, 2] = value
    return bad.chunk(y=2)


def unreadable(block):
    raise OSError("the file is truncated")


@pytest.mark.parametrize(
    "case, message",
    [
        ("masked", r"is NaN in 1 entries of the pixels \[4:6, 0:6\] where the mask says True"),
        ("infinite", r"holds 1 infinite values in the pixels \[4:6, 0:6\]; mask them"),
        ("short", r"its store cannot be read at \[0:2, 0:6\] \(the file is truncated\)"),
    ],
)
def test_a_block_that_cannot_be_fitted_is_named_as_in_one_process(monkeypatch, shared, tmp_path, case, message):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    options = {"mask": xr.ones_like(DATA, bool).compute()} if case == "masked" else {}
    # Two blocks are wrong, and the first is named.
    data = with_value(np.nan if case == "masked" else np.inf, 5, 9)
    if case == "short":
        read = unreadable
        data = noting(tmp_path, lambda block: read(block))
    lines = []
    for here in (False, True):
        with pytest.raises(ts.errors.InvalidData, match=message) as caught:
            surveyed(monkeypatch, data, here=here, **options)
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]


def test_an_open_file_is_refused_before_anything_is_read(monkeypatch, shared, tmp_path):
    h5py, dask_array = pytest.importorskip("h5py"), pytest.importorskip("dask.array")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        store = file.create_dataset("data", data=DATA.values)
        data = DATA.copy(data=dask_array.from_array(store, chunks=(2, X, E)))
        with pytest.raises(ts.errors.InvalidArgument, match="cannot be sent to the workers of the dask client"):
            ts.fit(data, ts.NMF(R), **OPTIONS)
