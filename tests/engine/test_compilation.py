"""What is a number is data: a new strength, tolerance, seed or weight compiles nothing."""

import jax.monitoring
import numpy as np
import pytest

import tensorspec as ts

from .runs import RANK, SIZES, fit, noisy

COMPILED = []
NN = ts.NonNegative


@pytest.fixture(scope="module", autouse=True)
def listen():
    def heard(event, duration, **details):
        del duration
        if event == "/jax/core/compile/backend_compile_duration":
            COMPILED.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield
    jax.monitoring.unregister_event_duration_listener(heard)


def fresh(*args, **options):
    """How many programs a fit compiles."""
    COMPILED.clear()
    fit(*args, **options)
    return len(COMPILED)


def test_numbers_are_data():
    rng = np.random.default_rng(0)
    data = {"cube": noisy("pet", rng).clip(0), "sheet": noisy("ps", rng).clip(0)}
    known = rng.random((SIZES["t"], 1))

    def model(sparse, factor):
        fixed = ts.Fixed(factor * known, components=[2])
        return ts.CP(RANK, {"p": NN(), "e": [NN(), ts.Sparse(sparse)], "t": [NN(), fixed], "s": ts.Box(0, 3 * factor)})

    def call(sparse=0.01, factor=1.0, seed=0, tol=1e-4, weight=1.0, units=1.0, **options):
        own = {name: units * values for name, values in data.items()}
        weights = {"cube": weight, "sheet": 1.0}
        start = ts.Random()
        return fresh(own, model(sparse, factor), weights=weights, start=start, seed=seed, tol=tol, **options)

    assert call() > 0  # the listener hears
    for change in (
        {"sparse": 0.5},
        {"factor": 0.7},
        {"seed": 3},
        {"tol": 1e-7},
        {"weight": 0.2},
        {"units": 1e3},
        {"max_sweeps": 7},
        {"restarts": 2, "seed": 5},
        {"rescale": False},
        {"loss": ts.LeastSquares(sigma=2.0)},
    ):
        assert call(**change) == 0, change


def test_a_soft_orthogonal_strength_is_data():
    data = noisy("pe", np.random.default_rng(1)).clip(0)

    def call(strength):
        return fresh(data, ts.NMF(RANK, {"p": ts.SoftOrthogonal(strength)}), start=ts.Random())

    assert call(0.01) > 0
    assert call(0.02) == 0
    assert call(0.0) == 0


def test_a_relevance_strength_is_data():
    data = noisy("pe", np.random.default_rng(1)).clip(0)

    def call(strength):
        return fresh(data, ts.NMF(RANK, {"p": ts.ARD(strength)}), start=ts.Random())

    assert call(0.01) > 0
    assert call(0.02) == 0
    assert call(0.0) == 0
