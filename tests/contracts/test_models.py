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
