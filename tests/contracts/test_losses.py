"""Every loss keeps the contract."""

import tensorspec as ts
from tensorspec.testing import LossContract


class TestLeastSquares(LossContract):
    def make(self):
        return ts.LeastSquares()


class TestLeastSquaresWithSigma(LossContract):
    def make(self):
        return ts.LeastSquares(sigma=2.0)


class TestLeastSquaresWithPoissonScaling(LossContract):
    def make(self):
        return ts.LeastSquares(scaling="poisson")
