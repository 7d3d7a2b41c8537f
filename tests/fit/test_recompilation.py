"""A new strength, seed, tolerance, weight or data of the same shape never compiles again."""

import jax
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

RNG = np.random.default_rng(0)
DATA = xr.DataArray(RNG.poisson(RNG.random((13, 3)) @ RNG.random((3, 11)) * 20).astype(float), dims=("x", "energy"))
PAIR = {"a": DATA, "b": DATA.rename(energy="xray") * 2}


@pytest.fixture(scope="module")
def compilations():
    """Count what JAX hands to its compiler."""
    events = []

    def listen(name, seconds, **details):
        if name == "/jax/core/compile/backend_compile_duration":
            events.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


def model(strength):
    return ts.NMF(3, {"pixel": ts.SoftOrthogonal(strength), "energy": ts.Sparse(strength)})


def run(data, strength=0.01, **options):
    options = {"start": ts.Random(), "max_sweeps": 7, "progress": False, **options}
    return ts.fit(data, model(strength), **options)


def test_the_listener_hears(compilations):
    before = len(compilations)
    run(DATA.isel(x=slice(0, 7)))
    assert len(compilations) > before


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.5},
        {"seed": 5},
        {"tol": 1e-3},
        {"max_sweeps": 12},
        {"data": DATA * 3},
        {"loss": ts.LeastSquares(sigma=2.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_tensor(compilations, change):
    run(DATA)
    before = len(compilations)
    run(**{"data": DATA, **change})
    assert len(compilations) == before


@pytest.mark.parametrize("change", [{"weights": {"a": 2.0, "b": 0.1}}, {"strength": 0.2}], ids=["weights", "strength"])
def test_two_tensors(compilations, change):
    run(PAIR)
    before = len(compilations)
    run(PAIR, **change)
    assert len(compilations) == before
