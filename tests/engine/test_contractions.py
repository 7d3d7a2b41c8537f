"""Gram matrices, MTTKRP, reconstruction and residual against einsum, at orders 2 to 5 and over blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from tensorspec.algebra import contract, converted
from tensorspec.algebra.normal_equations import NormalEquations

from . import reference

SHAPE, RANK = (7, 5, 4, 3, 2), 3
CUTS = {1: [], 2: [3], 3: [1, 5]}
RNG = np.random.default_rng(3)


def case(order, blocks):
    shape = SHAPE[:order]
    factors = [RNG.standard_normal((size, RANK)) for size in shape]
    values = RNG.standard_normal(shape)
    return shape, factors, values, np.split(values, CUTS[blocks])


def named(factors):
    return dict(enumerate(factors)), tuple(range(len(factors)))


def unfolded(values, factors, axis):
    letters = "abcde"[: len(factors)]
    others = ",".join(f"{letters[m]}r" for m in range(len(factors)) if m != axis)
    return np.einsum(f"{letters},{others}->{letters[axis]}r", values, *[f for m, f in enumerate(factors) if m != axis])


@pytest.mark.parametrize(
    ("order", "blocks"),
    [
        (2, 3),
        (3, 1),
        (3, 3),
        pytest.param(3, 2, marks=pytest.mark.slow),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ((4, 3), (5, 1), (5, 3))),
    ],
)
def test_products_are_sums_over_blocks(order, blocks):
    shape, factors, values, parts = case(order, blocks)
    weights = RNG.uniform(0.1, 2, shape)
    rows = [RNG.uniform(0.1, 2, size) for size in shape]
    outer = rows[0]
    for row in rows[1:]:
        outer = np.multiply.outer(outer, row)
    model = reference.model(*named(factors))
    np.testing.assert_allclose(contract.reconstruct([jnp.asarray(f) for f in factors]), model, rtol=1e-12, atol=1e-13)
    for axis in range(order):
        found = contract.mttkrp([jnp.asarray(part) for part in parts], [jnp.asarray(f) for f in factors], axis)
        np.testing.assert_allclose(found, unfolded(values, factors, axis), rtol=1e-12, atol=1e-12)
        others = [np.sqrt(row)[:, None] * f for row, f in zip(rows, factors, strict=True)]
        np.testing.assert_allclose(
            contract.gram([jnp.asarray(f) for f in factors], axis, [jnp.asarray(row) for row in rows]),
            reference.gram(others, axis),
            rtol=1e-12,
            atol=1e-13,
        )
        dense = contract.weighted_gram([jnp.asarray(w) for w in np.split(weights, CUTS[blocks])], factors, axis)
        pairs = np.stack([unfolded(weights, [f * f[:, [r]] for f in factors], axis) for r in range(RANK)], axis=1)
        np.testing.assert_allclose(dense, pairs, rtol=1e-12, atol=1e-12)

    def squared(entries, rows, dense):
        held = parts if dense is None else np.split(values * dense, CUTS[blocks])
        cut = None if dense is None else [jnp.asarray(w) for w in np.split(dense, CUTS[blocks])]
        own = [None] * order if rows is None else [jnp.asarray(row) for row in rows]
        found = contract.squared_residual([jnp.asarray(h) for h in held], factors, jnp.asarray(0.3), own, cut)
        np.testing.assert_allclose(found, np.sum(entries * (0.3 * values - model) ** 2), rtol=1e-12)

    squared(1.0, None, None)
    squared(outer, rows, None)
    squared(weights, None, weights)
    squared(weights * outer, rows, weights)


def test_zero_weights_hide_whatever_is_there():
    shape, factors, values, _ = case(3, 1)
    weights = RNG.random(shape) * (RNG.random(shape) > 0.3)
    found = contract.squared_residual(
        [jnp.asarray(values * weights)], factors, jnp.asarray(1.0), [None] * 3, [jnp.asarray(weights)]
    )
    model = reference.model(*named(factors))
    np.testing.assert_allclose(found, np.sum(weights * (values - model) ** 2), rtol=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint16, np.float32])
def test_data_keep_their_type_until_they_are_used(kind):
    counts = RNG.integers(0, 200, SHAPE[:3]).astype(kind)
    factors = [jnp.asarray(RNG.random((size, RANK)), jnp.float32) for size in counts.shape]
    found = contract.mttkrp([jnp.asarray(counts)], factors, 1)
    assert found.dtype == jnp.float32
    exact = unfolded(counts.astype(float), [np.asarray(f, float) for f in factors], 1)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, bool])
def test_large_arrays_are_converted_in_pieces(kind, monkeypatch):
    """Whose last piece begins within the one before."""
    monkeypatch.setattr(converted, "_PIECE", 3 * 20)
    counts = RNG.integers(0, 2 if kind is bool else 200, SHAPE[:3]).astype(kind)
    factors = [jnp.asarray(RNG.random((size, RANK))) for size in counts.shape]
    exact = [np.asarray(f) for f in factors]
    for axis in range(3):
        found = contract.mttkrp([jnp.asarray(counts)], factors, axis)
        np.testing.assert_allclose(found, unfolded(counts.astype(float), exact, axis), rtol=1e-12)
    rows = [jnp.asarray(RNG.random(size)) for size in counts.shape]
    weight = np.einsum("a,b,c->abc", *rows)
    for own, entries in ((rows, weight), ([None] * 3, 1.0)):
        square = contract.squared_residual([jnp.asarray(counts)], factors, jnp.asarray(0.5), own, None)
        left = 0.5 * counts - reference.model(*named(exact))
        assert float(square) == pytest.approx(float(np.sum(entries * left**2)), rel=1e-12)


def test_gram_matrices_of_float32_are_accumulated_in_float64():
    factor = jnp.asarray(RNG.random((4000, 2)), jnp.float32)
    exact = np.asarray(factor, float).T @ np.asarray(factor, float)
    np.testing.assert_allclose(contract.cross_gram(factor, factor), exact, rtol=1e-13)


def test_coupling_is_addition():
    first, second = RNG.standard_normal((2, 4, RANK))
    one, rows = RNG.standard_normal((RANK, RANK)), RNG.standard_normal((4, RANK, RANK))
    factor = RNG.standard_normal((4, RANK))

    def value(gram, right):
        gram = np.broadcast_to(gram, (4, RANK, RANK))
        return 0.5 * np.einsum("nr,nrs,ns->", factor, gram, factor) - np.sum(right * factor)

    plain, by_row = (
        NormalEquations(jnp.asarray(one), jnp.asarray(first)),
        NormalEquations(jnp.asarray(rows), jnp.asarray(second)),
    )
    np.testing.assert_allclose(plain.value(factor), value(one, first), rtol=1e-12)
    for both in (plain.plus(by_row), by_row.plus(plain)):
        np.testing.assert_allclose(both.value(factor), value(one, first) + value(rows, second), rtol=1e-12)
