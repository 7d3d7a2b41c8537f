"""Every model keeps the contract."""

import jax.numpy as jnp
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.testing import ModelContract


class TestCP(ModelContract):
    def make(self):
        return ts.CP(2, {"a": [ts.NonNegative(), ts.Sparse(0.1)]})


class TestNMF(ModelContract):
    shapes = ((6, 5),)

    def make(self):
        return ts.NMF(2)


class TestTucker(ModelContract):
    shapes = ((4, 5, 3),)

    def make(self):
        return ts.Tucker({"a": 2, "b": 3}, {"a": ts.NonNegative(), "core": ts.Sparse(0.1)})


@pytest.mark.slow
class TestWholeTucker(ModelContract):
    shapes = ((3, 4, 2, 5),)

    def make(self):
        return ts.Tucker({"b": 3, "c": 2, "d": 2})


@pytest.mark.slow
class TestDiagonalTucker(ModelContract):
    shapes = ((4, 5, 3),)

    def make(self):
        return ts.Tucker({"a": 2, "b": 2, "c": 2}, diagonal="data")


@pytest.mark.slow
class TestPARAFAC2(ModelContract):
    """Samples along b, profiles on c; the factor of c has the points of all samples."""

    shapes = ((4, 5, 3),)
    along, evolving = "b", "c"

    def make(self):
        return ts.PARAFAC2(2, {"a": ts.NonNegative()}, evolving=self.evolving, along=self.along)

    def factors(self, shape):
        rng = np.random.default_rng(6)
        sizes = dict(zip("abcd", shape, strict=False))
        sizes[self.evolving] *= sizes[self.along]
        return {mode: jnp.asarray(rng.standard_normal((size, 2))) for mode, size in sizes.items()}


@pytest.mark.slow
class TestPARAFAC2WithSamplesFirst(TestPARAFAC2):
    shapes = ((3, 4, 2, 5),)
    along, evolving = "c", "a"


@pytest.mark.slow
class TestPARAFAC2OfATensorWithoutTheEvolvingMode(ModelContract):
    shapes = ((6, 5),)

    def make(self):
        return ts.PARAFAC2(2, evolving="z", along="b", strength=3.0)


def test_parafac2_with_equal_profiles_is_cp():
    """Where every sample has the same profiles, the tensor is that of CP."""
    contract = TestPARAFAC2()
    (tensor, _, _), factors = contract.tensor((4, 5, 3)), contract.factors((4, 5, 3))
    plain = {**factors, "c": factors["c"][:3]}
    same = {**factors, "c": jnp.tile(plain["c"], (5, 1))}
    np.testing.assert_allclose(
        contract.make().reconstruct(tensor, same), ts.CP(2).reconstruct(tensor, plain), rtol=1e-5, atol=1e-6
    )
