"""Constraints are tested in float64, as `fit` runs them."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield
