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


class TestHuber(LossContract):
    def make(self):
        return ts.Huber(1.5)


class TestPoisson(LossContract):
    def make(self):
        return ts.Poisson()


class TestItakuraSaito(LossContract):
    def make(self):
        return ts.Beta(0)


class TestBetaOfOneHalf(LossContract):
    def make(self):
        return ts.Beta(0.5)


class TestBetaOfThree(LossContract):
    def make(self):
        return ts.Beta(3)


class TestBetaBelowZero(LossContract):
    def make(self):
        return ts.Beta(-1)
