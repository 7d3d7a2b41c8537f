"""Every solver keeps the contract."""

import pytest

import tensorspec as ts
from tensorspec.testing import SolverContract


class TestHALS(SolverContract):
    def make(self):
        return ts.HALS()


class TestAOADMM(SolverContract):
    def make(self):
        return ts.AOADMM()


class TestMultiplicative(SolverContract):
    steps = 4000

    def make(self):
        return ts.Multiplicative()

    @pytest.mark.slow
    def test_reaches_the_minimum(self):
        super().test_reaches_the_minimum()
