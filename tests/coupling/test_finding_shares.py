"""``share="find"``: which tensor has which component, found from the data."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts

pytestmark = pytest.mark.slow


def unit(rng, size):
    values = rng.standard_normal((size, 3))
    return values / np.linalg.norm(values, axis=0)


def noisy(rng, clean, level):
    noise = rng.standard_normal(clean.shape)
    return clean + level * noise * np.linalg.norm(clean) / np.linalg.norm(noise)


@pytest.mark.parametrize("level", [0.0, 0.1])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_component_that_one_tensor_has_not(seed, level):
    """The set-up of Acar et al. (2014): a tensor and a matrix, strengths of one, the third absent in the matrix."""
    rng = np.random.default_rng(seed)
    shared, *others, last = (unit(rng, size) for size in (50, 30, 40, 20))
    cube = noisy(rng, np.einsum("ar,br,cr->abc", shared, *others), level)
    sheet = noisy(rng, (shared * [1, 1, 0]) @ last.T, level)
    data = {"cube": xr.DataArray(cube, dims=("a", "b", "c")), "sheet": xr.DataArray(sheet, dims=("a", "d"))}
    fit = ts.fit(data, ts.CP(3, share="find"), restarts=3, tol=1e-8, max_sweeps=2000, progress=False)
    assert (np.diff(fit.history.values) <= 1e-12).all()
    strengths = fit.weights.values
    absent = int(np.argmin(strengths[1]))
    np.testing.assert_allclose(strengths[0], 1, atol=0.02)
    np.testing.assert_allclose(np.delete(strengths[1], absent), 1, atol=0.02)
    assert strengths[1, absent] < (0.05 if level else 1e-3)
    congruence = np.abs(fit.factors["a"].values @ shared)
    assert (congruence.max(axis=1) > 0.999).all()


def test_the_objective_is_the_misfit_and_the_strengths():
    rng = np.random.default_rng(0)
    maps = rng.random((30, 2))
    data = {
        "one": xr.DataArray(maps @ rng.random((2, 20)), dims=("x", "energy")) * 7,
        "two": xr.DataArray(maps[:, :1] @ rng.random((1, 15)), dims=("x", "xray")) + 0.01 * rng.random((30, 15)),
    }
    fit = ts.fit(data, ts.NMF(2, share="find"), progress=False)
    scales, weights = fit.provenance["scales"], fit.provenance["tensor_weights"]
    expected = 0.0
    for key, tensor in data.items():
        norm = np.linalg.norm(tensor)
        relative = 0.5 * float((fit.residual(key) ** 2).sum()) / norm**2 + 1e-3 * float(fit.strengths(key).sum()) / norm
        expected += weights[key] * tensor.size * relative
        assert scales[key] == pytest.approx(np.sqrt(tensor.size) / norm)
    assert fit.objective == pytest.approx(expected, rel=1e-9)
    # In other units it is the same answer.
    other = ts.fit({key: tensor * 1e6 for key, tensor in data.items()}, ts.NMF(2, share="find"), progress=False)
    np.testing.assert_allclose(other.weights, fit.weights * 1e6, rtol=1e-6)


def test_there_must_be_something_to_find():
    one = xr.DataArray(np.random.default_rng(0).random((6, 5)), dims=("x", "energy"))
    with pytest.raises(ts.InvalidArgument, match="two tensors or more"):
        ts.fit(one, ts.NMF(2, share="find"))
    with pytest.raises(ts.ConstraintConflict, match="tensor 'a' needs a mode that no other tensor has"):
        ts.fit({"a": one, "b": one}, ts.NMF(2, share="find"))
