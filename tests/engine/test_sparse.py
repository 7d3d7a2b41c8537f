"""Data that are mostly zero, taken by their counts: the answers of dense arrays, and no array of that size."""

import jax.numpy as jnp
import numpy as np
import pytest
import sparse
import xarray as xr

import tensorspec as ts
from tensorspec.algebra import contract
from tensorspec.algebra.entries import Entries, order_by
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.algebra.sparse import SparseTensor, sum_at, weighted_pull
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.solvers.base import Block

RNG = np.random.default_rng(5)
SHAPES = {"two": ((60, 40), ("pixel", "energy")), "three": ((25, 18, 12), ("pixel", "energy", "time"))}
QUIET = {"progress": False, "tol": 0, "max_sweeps": 20, "start": ts.Random()}


def counts(kind, dtype=np.int64, mean=0.15):
    """Counts of two components; a row and a column are empty, and one row has more of them than a piece holds."""
    shape, dims = SHAPES[kind]
    factors = [RNG.gamma(0.6, 1.0, (size, 2)) for size in shape]
    expected = np.einsum(
        ",".join(f"{letter}r" for letter in "abc"[: len(shape)]) + "->" + "abc"[: len(shape)], *factors
    )
    values = RNG.poisson(expected * (mean / expected.mean()))
    values[4], values[:, 7] = 0, 0
    values[9, 8:] += 1
    return xr.DataArray(values.astype(dtype), dims=dims)


def by_counts(data):
    return data.copy(data=sparse.COO.from_numpy(data.values))


DATA = {kind: counts(kind) for kind in SHAPES}


@pytest.mark.parametrize("kind", SHAPES)
def test_products_and_sums_are_those_of_the_dense_array(kind):
    values = DATA[kind].values
    factors = [jnp.asarray(RNG.random((size, 3)) + 0.1) for size in values.shape]
    rows = [None if axis else RNG.random(size) + 0.5 for axis, size in enumerate(values.shape)]
    rows[0][3] = 0
    rows = [None if row is None else jnp.asarray(row) for row in rows]
    tensor = SparseTensor.build(Entries.from_dense(values))
    model = np.asarray(contract.reconstruct(factors))
    weight = np.asarray(rows[0]).reshape(-1, *[1] * (values.ndim - 1))
    for axis in range(values.ndim):
        expected = contract.mttkrp((values.astype(float),), factors, axis)
        np.testing.assert_allclose(contract.mttkrp((tensor,), factors, axis), expected, rtol=1e-12)
        pull = contract.mttkrp((weight * values / model,), factors, axis)
        found = weighted_pull(tensor, factors, axis, rows, lambda data, fitted: data / fitted)
        np.testing.assert_allclose(found, pull, rtol=1e-12)
    none = [None] * values.ndim
    for own, entries in ((none, 1.0), (rows, weight)):
        expected = np.sum(entries * (0.5 * values - model) ** 2)
        found = contract.squared_residual((tensor,), factors, np.float64(0.5), own, None)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        expected = np.sum(entries * np.where(values > 0, values * model, 0))
        np.testing.assert_allclose(
            sum_at(tensor, factors, own, lambda data, fitted: data * fitted), expected, rtol=1e-12
        )


def test_coordinates_in_any_order_make_the_same_entries():
    values = DATA["three"].values
    dense = Entries.from_dense(values)
    order = RNG.permutation(len(dense.stored) + 3)
    places = [np.concatenate([index, [0, 1, 2]]) for index in dense.indices]
    # Three zeros that are stored all the same, at places without counts.
    empty = np.argwhere(values == 0)[:3]
    for axis, index in enumerate(places):
        index[-3:] = empty[:, axis]
    stored = np.concatenate([dense.stored, [0, 0, 0]])
    found = Entries.from_coordinates(values.shape, tuple(index[order] for index in places), stored[order])
    for left, right in zip((*found.indices, found.stored), (*dense.indices, dense.stored), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(found.todense(), values)
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        np.testing.assert_array_equal(found.sum(axis=others), values.sum(axis=others))
        np.testing.assert_array_equal(order_by(found.indices[axis], 30), np.argsort(found.indices[axis], kind="stable"))
    assert found.filled == np.mean(values > 0)


CASES = {
    "least squares": {"solver": ts.HALS()},
    "rows masked": {"solver": ts.HALS(), "mask": True},
    "weighted rows": {"solver": ts.HALS(), "loss": ts.LeastSquares(scaling="poisson")},
    "simplex": {"model": {"pixel": ts.SumToOne("component")}, "solver": ts.AOADMM()},
    "Poisson": {"loss": ts.Poisson()},
    "Poisson, rows masked": {"loss": ts.Poisson(), "mask": True},
}
SLOW = {("two", "rows masked"), ("two", "weighted rows"), *(("three", name) for name in CASES if name != "Poisson")}


@pytest.mark.filterwarnings("ignore:.*were measured in no tensor")
@pytest.mark.parametrize(
    ("kind", "name", "dtype"),
    [
        ("two", "least squares", np.float32),
        ("two", "Poisson", np.float32),
        *(
            pytest.param(kind, name, np.float64, marks=[pytest.mark.slow] * ((kind, name) in SLOW))
            for kind in SHAPES
            for name in CASES
        ),
    ],
)
def test_the_answer_is_that_of_the_dense_array(kind, name, dtype):
    data = DATA[kind].astype(dtype)
    options = {**QUIET, **CASES[name]}
    constraints = options.pop("model", {})
    if options.pop("mask", False):
        seen = np.ones(data.sizes["pixel"], bool)
        seen[[0, 5, 6]] = False
        options["mask"] = xr.DataArray(seen, dims="pixel")
    model = ts.NMF(2, constraints)
    dense, found = (ts.fit(item, model, **options) for item in (data, by_counts(data)))
    assert "by its counts alone" in found.why and "by its counts" not in dense.why
    exact = dtype == np.float64
    np.testing.assert_allclose(found.objective, dense.objective, rtol=1e-9 if exact else 1e-6)
    np.testing.assert_allclose(found.explained, dense.explained, rtol=1e-9 if exact else 1e-5)
    for mode, factor in dense.factors.items():
        np.testing.assert_allclose(found.factors[mode], factor, atol=1e-6 if exact else 2e-3)
    assert found.provenance["dtype"] == np.dtype(dtype).name


@pytest.mark.parametrize(
    "loss",
    [None, pytest.param({"counted": ts.Poisson(), "map": ts.LeastSquares(sigma=0.5)}, marks=pytest.mark.slow)],
    ids=["least squares", "Poisson beside least squares"],
)
def test_sparse_and_dense_tensors_share_a_mode(loss):
    counted = DATA["two"].astype(float)
    other = xr.DataArray(RNG.random((60, 2)) @ RNG.random((2, 15)), dims=("pixel", "loss"))
    other = other + 0.05 * RNG.standard_normal(other.shape)
    dense, found = (
        ts.fit({"counted": item, "map": other}, ts.NMF(2), loss=loss, weights={"counted": 1.0, "map": 2.0}, **QUIET)
        for item in (counted, by_counts(counted))
    )
    np.testing.assert_allclose(found.objective, dense.objective, rtol=1e-9)
    for mode, factor in dense.factors.items():
        np.testing.assert_allclose(found.factors[mode], factor, atol=1e-6)


def test_what_cannot_go_by_counts_is_made_dense_while_that_is_small():
    data = DATA["two"].astype(float)
    mask = xr.DataArray(RNG.random(data.shape) > 0.1, dims=data.dims)
    for options in ({"mask": mask}, {"loss": ts.Huber(1.0)}):
        dense, found = (ts.fit(item, ts.NMF(2), **QUIET, **options) for item in (data, by_counts(data)))
        assert found.objective == dense.objective and "by its counts" not in found.why


LARGE = (200_000, 50_000)


def large(number=30_000):
    """Counts in a shape of which no dense array could be made: 80 GB in double precision."""
    pixels, kinds = RNG.integers(0, LARGE[0], number), RNG.integers(0, 2, number)
    channels = RNG.integers(0, LARGE[1] // 2, number) + kinds * (LARGE[1] // 2)
    values = sparse.COO(np.stack([pixels // 400, pixels % 400, channels]), np.ones(number), shape=(500, 400, LARGE[1]))
    return xr.DataArray(values, dims=("y", "x", "energy"))


@pytest.mark.filterwarnings("ignore:.*were measured in no tensor")
@pytest.mark.parametrize("loss", [ts.LeastSquares(), pytest.param(ts.Poisson(), marks=pytest.mark.slow)], ids=repr)
def test_no_array_of_the_dense_size_is_made(loss):
    data = large()
    mask = xr.DataArray(np.arange(400) > 3, dims="x")
    options = {**QUIET, "max_sweeps": 3, "start": "auto"}
    fit = ts.fit(data.astype(np.float32), ts.NMF(2), loss=loss, mask=mask, **options)
    assert 0 < fit.explained < 1 and np.isfinite(fit.objective)
    assert fit.history.values[-1] < fit.history.values[0]
    assert fit.factors["energy"].shape == (2, LARGE[1])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"loss": ts.Huber(1.0)}, "Huber"),
        ({"loss": ts.Beta(0.5)}, "Beta"),
        ({"mask": True}, "mask"),
        ({"model": ts.Tucker({"pixel": 2, "energy": 2})}, "Tucker"),
    ],
)
def test_what_would_need_a_large_dense_array_is_refused(options, what):
    values = sparse.COO(np.arange(100) * np.array([[80], [40]]), np.ones(100), shape=(20_000, 8_000))
    data = xr.DataArray(values, dims=("pixel", "energy"))
    options = {**QUIET, **options}
    if options.get("mask"):
        seen = np.ones(data.shape, bool)
        seen[0, 0] = False
        options["mask"] = xr.DataArray(seen, dims=data.dims)
    with pytest.raises(InvalidArgument, match=rf"{what}.*1\.19 GiB.*todense\(\)"):
        ts.fit(data, options.pop("model", ts.NMF(2)), **options)


def test_negative_and_broken_values_are_named():
    values = DATA["two"].astype(float).values
    values[3, 11] = -2
    with pytest.raises(InvalidData, match=r"1 values.*lowest -2.*pixel=3, energy=11"):
        ts.fit(by_counts(DATA["two"].copy(data=values)), ts.NMF(2), loss=ts.Poisson(), **QUIET)
    values[3, 11] = np.nan
    with pytest.raises(InvalidData, match="sparse and holds 1 values that are infinite or NaN"):
        ts.fit(by_counts(DATA["two"].copy(data=values)), ts.NMF(2), **QUIET)


def test_dense_counts_that_are_mostly_zero_go_by_their_counts():
    values = np.zeros((4096, 1024), np.uint8)
    values[RNG.integers(0, 4096, 20_000), RNG.integers(0, 1024, 20_000)] = 1
    data = xr.DataArray(values, dims=("pixel", "energy"))
    options = {**QUIET, "max_sweeps": 2}
    found, same = (ts.fit(item, ts.NMF(2), **options) for item in (data, by_counts(data)))
    assert "by its counts alone: 'data' (0.48% of its entries are not zero)" in found.why
    assert found.objective == same.objective
    data[:] = 1
    assert "by its counts" not in ts.fit(data, ts.NMF(2), **options).why


def test_lazy_counts_are_read_chunk_by_chunk():
    pytest.importorskip("dask")
    data = xr.DataArray(sparse.random((64, 64, 1200), nnz=20_000, random_state=1), dims=("y", "x", "energy"))
    data = data.copy(data=sparse.COO(data.data.coords, np.ones(20_000, np.uint8), shape=data.shape))
    options = {**QUIET, "max_sweeps": 2}
    lazy = data.copy(data=data.data.todense()).chunk({"y": 30, "energy": 500})
    merged = xr.DataArray(sparse.COO.from_numpy(lazy.values.reshape(4096, 1200)), dims=("pixel", "energy"))
    found, same, other = (ts.fit(item, ts.NMF(2), **options) for item in (lazy, data, merged))
    assert "by its counts alone" in found.why
    assert found.objective == same.objective == other.objective
    np.testing.assert_array_equal(found.factors["pixel"].values.reshape(2, -1), other.factors["pixel"])


def test_starts_from_singular_vectors_are_those_of_the_dense_array():
    data = DATA["three"].astype(float)
    for start in (ts.NNDSVD(), ts.HOSVD()):
        options = {**QUIET, "max_sweeps": 1, "start": start, "solver": ts.HALS()}
        dense, found = (ts.fit(item, ts.NMF(2), **options) for item in (data, by_counts(data)))
        np.testing.assert_allclose(found.objective, dense.objective, rtol=1e-9)


def test_rows_that_share_a_gram_matrix_are_solved_as_rows_with_their_own():
    design, weights = RNG.random((30, 3)), RNG.random(50) + 0.1
    weights[4] = 0
    gram, right = design.T @ design, (RNG.random((50, 30)) @ design) * weights[:, None]
    factor = jnp.asarray(RNG.random((50, 3)))
    own = NormalEquations(jnp.asarray(weights[:, None, None] * gram), jnp.asarray(right))
    shared = own._replace(shared=(jnp.asarray(gram), jnp.asarray(weights)))
    np.testing.assert_allclose(shared.value(factor), own.value(factor), rtol=1e-12)
    for members, norms in (
        ((ts.NonNegative(),), None),
        ((ts.NonNegative(),), [jnp.ones(3)]),
        ((ts.Sparse(0.5),), None),
    ):
        rules, solver = ModeConstraints(members, 3), ts.HALS(inner=2)
        plain, found = (
            solver.step(Block([item], [factor], [rules], norms), solver.init([factor], [rules]))[0][0]
            for item in (own, shared)
        )
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)
        assert np.count_nonzero(np.asarray(found)[4]) == 0
    # Sparse leaves some entries out, by how much depends on the weight of a row.
    assert 0 < np.mean(np.asarray(found) == 0) < 0.9
