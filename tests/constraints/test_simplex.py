"""The unit simplex: its projection, for rows put in order by exchanges and for those that are sorted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorspec.constraints.simplex import _FEW, Simplex


@pytest.mark.parametrize("entries", [1, 3, _FEW, _FEW + 1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_projection_obeys_its_conditions(entries, dtype):
    """Entries above zero are shifted by one number, and those at zero by no more."""
    rng = np.random.default_rng(entries)
    rows = [rng.standard_normal((50, entries)) * scale for scale in (1e-3, 0.1, 1.0, 30.0)]
    rows += [np.round(rng.standard_normal((50, entries))), np.zeros((1, entries)), np.ones((1, entries))]
    values = jnp.asarray(np.concatenate(rows), dtype)
    found = np.asarray(jax.jit(Simplex("component").project)(values))
    assert found.dtype == dtype
    shift, digits = np.asarray(values) - found, 200 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=digits)
    assert found.min() >= 0
    for own, shifted in zip(found, shift, strict=True):
        size = digits * (1 + np.abs(shifted).max())
        assert np.ptp(shifted[own > 0]) <= size
        assert np.all(shifted[own == 0] <= shifted[own > 0].max() + size)
    np.testing.assert_array_equal(np.asarray(Simplex("mode").project(values.T)), found.T)
