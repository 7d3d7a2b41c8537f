"""Every model keeps the contract."""

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
    shapes = ((4, 5, 3), (3, 4, 2, 5))

    def make(self):
        return ts.Tucker({"a": 2, "b": 3}, {"a": ts.NonNegative(), "core": ts.Sparse(0.1)})


class TestWholeTucker(ModelContract):
    shapes = ((3, 4, 2, 5),)

    def make(self):
        return ts.Tucker({"b": 3, "c": 2, "d": 2})


class TestDiagonalTucker(ModelContract):
    shapes = ((4, 5, 3),)

    def make(self):
        return ts.Tucker({"a": 2, "b": 2, "c": 2}, diagonal="data")
