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
streamed = importlib.import_module("tensorspec.solvers.streamed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

Y, X, E, R = 12, 6, 20, 3
RNG = np.random.default_rng(5)
CLEAN = RNG.random((Y, X, R)) @ RNG.random((R, E))
DATA = xr.DataArray(CLEAN + 0.02 * RNG.standard_normal(CLEAN.shape), dims=("y", "x", "energy_loss")).chunk(y=2)
OPTIONS = {"blocks": True, "max_sweeps": 12, "tol": 0, "progress": False}


@pytest.fixture
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=True) as client,
    ):
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


def test_two_workers_and_one_that_is_lost(monkeypatch, client):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    expected = alone(monkeypatch)
    found = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    assert "on the workers of the dask client" in found.why and found.provenance["blocks"] == 6
    assert found.objective == pytest.approx(expected.objective, rel=1e-8)
    np.testing.assert_allclose(found.factors["pixel"], expected.factors["pixel"], atol=1e-8)

    def kill():
        pid = next(iter(client.run(os.getpid).values()))
        threading.Thread(target=lambda: (time.sleep(0.02), os.kill(pid, signal.SIGKILL))).start()

    after(monkeypatch, 4, kill)
    again = ts.fit(DATA, ts.NMF(R), **OPTIONS)
    assert again.sweeps == found.sweeps and again.objective == pytest.approx(found.objective, rel=1e-12)


def test_without_its_scheduler_the_best_so_far_comes_back(monkeypatch, client, tmp_path):
    monkeypatch.setattr(in_blocks, "ENTRIES", 2 * X * E)
    after(monkeypatch, 4, client.cluster.close)
    path = tmp_path / "fit.npz"
    with pytest.warns(UserWarning, match="scheduler of the dask client was lost"):
        found = ts.fit(DATA, ts.NMF(R), checkpoint=path, **OPTIONS)
    assert "interrupted" in str(found.status) and found.sweeps == 3 and path.exists()
    resumed = ts.fit(DATA, ts.NMF(R), checkpoint=path, **OPTIONS)
    assert resumed.sweeps == 12 and resumed.objective == pytest.approx(alone(monkeypatch).objective, rel=1e-8)
