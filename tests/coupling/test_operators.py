"""Operators by themselves: exact adjoints, known answers, and the bound that solvers are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tensorspec as ts
from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.coupling.chain import Chain, as_operators
from tensorspec.coupling.operators import Grid, pull_back, refine

RNG = np.random.default_rng(3)


def line(coordinate, unit="eV"):
    return Grid("energy", (len(coordinate),), (np.asarray(coordinate, float),), (unit,))


EVEN, COARSE = line(np.linspace(0, 20, 41)), line(np.linspace(1, 19, 13))
MAP = Grid("pixel", (6, 8), (np.arange(6.0), np.arange(8.0)), ("nm", "nm"))
HALF = Grid("pixel", (3, 4), (np.arange(3) * 2 + 0.5, np.arange(4) * 2 + 0.5), ("nm", "nm"))
CASES = {
    "Bin": (ts.Bin(2), MAP, HALF),
    "Bin uneven": (ts.Bin((3, 1)), Grid("pixel", (6, 4), (None, None), (None, None)), HALF._replace(shape=(2, 4))),
    "Broaden": (ts.Broaden(1.3), EVEN, EVEN),
    "Broaden, read off elsewhere": (ts.Broaden(0.7), EVEN, COARSE),
    "Broaden a map": (ts.Broaden(0.9), MAP, MAP),
    "Shift": (ts.Shift(-0.37), EVEN, EVEN),
    "Shift, falling": (ts.Shift(0.8), line(np.linspace(20, 0, 41)), line(np.linspace(20, 0, 41))),
    "Stretch": (ts.Stretch(0.95, about=4.0), EVEN, COARSE),
    "Resample": (ts.Resample(), EVEN, COARSE),
    "Matrix": (ts.Matrix(RNG.standard_normal((7, 41))), EVEN, line(np.arange(7))),
    "Shift and Broaden": (Chain((ts.Shift(0.3), ts.Broaden(0.8))), EVEN, COARSE),
    "Broaden and Bin": (Chain((ts.Broaden(0.9), ts.Bin(2))), MAP, HALF),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def settled(name):
    operator, inside, outside = CASES[name]
    outside = outside._replace(coordinates=(None,) * len(outside.shape)) if name == "Bin uneven" else outside
    return operator.settle(inside, outside), inside.size, outside.size


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_is_exact(name, absolute):
    operator, inside, outside = settled(name)
    left, right = RNG.standard_normal((outside, 3)), RNG.standard_normal((inside, 3))
    there = float(jnp.sum(left * operator.apply(right, absolute)))
    back = float(jnp.sum(operator.adjoint(jnp.asarray(left), inside, absolute) * right))
    assert there == pytest.approx(back, rel=1e-10)
    eye = np.asarray(operator.apply(np.eye(inside)))
    above = np.asarray(operator.apply(np.eye(inside), absolute=True)) - np.abs(eye)
    assert above.min() >= -1e-15
    # Of several maps in a row the absolute ones lie above; of one they are the absolute one.
    assert above.max() <= 1e-15 or isinstance(operator, Chain)


@pytest.mark.parametrize("name", [name for name in CASES if name != "Matrix"])
def test_a_constant_stays_a_constant(name):
    operator, inside, outside = settled(name)
    np.testing.assert_allclose(operator.apply(np.ones((inside, 1))), np.ones((outside, 1)), atol=1e-12)


def test_widths_add_in_squares():
    energy = np.linspace(0, 40, 401)

    def peak(sigma):
        return (np.exp(-0.5 * ((energy - 20) / sigma) ** 2) / sigma)[:, None]

    seen = ts.Broaden(1.5).settle(line(energy), line(energy)).apply(peak(2.0))
    np.testing.assert_allclose(seen, peak(2.5), atol=1e-6 * float(peak(2.5).max()))
    almost = ts.Broaden(1e-3).settle(line(energy), line(energy)).apply(peak(2.0))
    np.testing.assert_allclose(almost, peak(2.0), atol=1e-12)


@pytest.mark.parametrize("order", [1, -1])
def test_a_shift_is_upwards_in_the_units_of_the_coordinate(order):
    energy = np.linspace(100, 140, 161)[::order]

    def peak(centre):
        return np.exp(-0.5 * ((energy - centre) / 1.5) ** 2)[:, None]

    for offset in (0.1, 0.25, -1.13):
        seen = ts.Shift(offset).settle(line(energy), line(energy)).apply(peak(120))
        np.testing.assert_allclose(seen, peak(120 + offset), atol=1e-3)


@pytest.mark.parametrize("order", [1, -1])
def test_a_stretch_moves_peaks_away_from_its_fixed_point(order):
    energy = np.linspace(100, 140, 161)[::order]

    def peak(centre, width):
        return np.exp(-0.5 * ((energy - centre) / width) ** 2)[:, None]

    seen = ts.Stretch(1.1, about=110).settle(line(energy), line(energy)).apply(peak(120, 1.5))
    np.testing.assert_allclose(seen, peak(121, 1.65), atol=1e-3)


def test_resampling_is_exact_for_parabolas():
    fine, coarse = np.linspace(0, 10, 21), np.linspace(0, 10, 34)
    values = np.stack([fine, fine**2], axis=1)
    seen = ts.Resample().settle(line(fine), line(coarse)).apply(values)
    np.testing.assert_allclose(seen, np.stack([coarse, coarse**2], axis=1), atol=1e-10)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_bound_touches_and_lies_above(name, per_row):
    operator, inside, outside = settled(name)
    roots = RNG.standard_normal((outside, 5, 3) if per_row else (5, 3))
    gram = jnp.asarray(np.swapaxes(roots, -1, -2) @ roots)
    equations = NormalEquations(gram, jnp.asarray(RNG.standard_normal((outside, 3))))
    present = jnp.asarray(RNG.standard_normal((inside, 3)))

    def exact(factor):
        return equations.value(operator.apply(factor))

    bound = pull_back(operator, equations, present)
    apart = float(exact(present) - bound.value(present))
    np.testing.assert_allclose(jax.grad(exact)(present), jax.grad(bound.value)(present), atol=1e-9)
    for scale in (1e-2, 1.0, 10.0):
        other = present + scale * RNG.standard_normal((inside, 3))
        above = float(bound.value(other)) + apart
        assert float(exact(other)) <= above + 1e-10 * (1 + abs(above))


@pytest.mark.parametrize(
    ("operator", "truth", "begin"),
    [
        (ts.Broaden("fit"), {"sigma": 1.7}, ts.Broaden(1.7)),
        (ts.Shift("fit"), {"offset": -0.83}, ts.Shift(-0.83)),
        pytest.param(ts.Stretch("fit"), {"factor": 0.94}, ts.Stretch(0.94), marks=pytest.mark.slow),
    ],
)
def test_a_parameter_is_found_when_the_factor_is_known(operator, truth, begin):
    factor = jnp.asarray(np.exp(-0.5 * ((np.linspace(0, 20, 41)[:, None] - [[5, 10, 12]]) / [[1.0, 2.0, 0.8]]) ** 2))
    seen = begin.settle(EVEN, EVEN).apply(factor)
    gram = jnp.asarray(np.diag([1.0, 2.0, 0.5]) + 0.1)
    equations = NormalEquations(gram, seen @ gram)
    current = operator.settle(EVEN, EVEN)
    values = []
    for _ in range(15):
        values.append(float(equations.value(current.apply(factor))))
        current = refine(current, equations, factor)
    assert (np.diff(values) <= 1e-12).all()
    for name, value in truth.items():
        assert current.found()[name] == pytest.approx(value, rel=1e-6)


def test_several_operators_act_in_their_order():
    given = [ts.Bin(2), ts.Matrix(RNG.standard_normal((3, 20)))]
    inside, outside = line(np.arange(40.0)), line(np.arange(3.0))
    chain = as_operators({("eels", "energy"): given})["eels", "energy"].settle(inside, outside)
    values = RNG.standard_normal((40, 2))
    np.testing.assert_allclose(chain.apply(values), given[1].values @ values.reshape(20, 2, 2).mean(axis=1), rtol=1e-12)
    # A single one in a list is that one.
    assert as_operators({("eels", "energy"): [ts.Bin(2)]}) == {("eels", "energy"): ts.Bin(2)}
    assert chain.inside_of(outside) is None and Chain((ts.Shift(1.0), ts.Broaden(1.0))).inside_of(EVEN) is EVEN
    ends = Chain((ts.Bin((2, 2)), ts.Broaden(1.0))).outside_of(MAP)
    assert ends.shape == (3, 4) and [list(c) for c in ends.coordinates] == [[0.5, 2.5, 4.5], [0.5, 2.5, 4.5, 6.5]]


@pytest.mark.slow
def test_the_parameters_of_a_chain_are_found_together():
    factor = jnp.asarray(np.exp(-0.5 * ((np.linspace(0, 20, 41)[:, None] - [[5, 10, 12]]) / [[1.0, 2.0, 0.8]]) ** 2))
    seen = Chain((ts.Shift(-0.83), ts.Stretch(0.94, about=5.0), ts.Broaden(1.7))).settle(EVEN, COARSE).apply(factor)
    gram = jnp.asarray(np.diag([1.0, 2.0, 0.5]) + 0.1)
    equations = NormalEquations(gram, seen @ gram)
    current = Chain((ts.Shift("fit"), ts.Stretch("fit", about=5.0), ts.Broaden("fit"))).settle(EVEN, COARSE)
    values, step = [], jax.jit(refine)
    for _ in range(15):
        values.append(float(equations.value(current.apply(factor))))
        current = step(current, equations, factor)
    assert (np.diff(values) <= 1e-12).all()
    assert current.found() == pytest.approx({"offset": -0.83, "factor": 0.94, "sigma": 1.7}, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ts.Bin(0), "whole number"),
        (lambda: ts.Bin(2).settle(line(range(5)), line(range(2))), r"shape \(5,\).*needs \(2,\)"),
        (lambda: ts.Bin((2, 2)).settle(EVEN, EVEN), "1 dimensions"),
        (lambda: ts.Bin(2).settle(line(range(4)), line([0, 2])), "binned coordinates.*0.5 to 2.5.*0 to 2"),
        (lambda: ts.Broaden(-1), "above zero"),
        (lambda: ts.Broaden("auto"), "or 'fit'"),
        (lambda: ts.Shift(float("nan")), "finite"),
        (lambda: ts.Shift(1.0).settle(MAP, MAP), "2 dimensions"),
        (lambda: ts.Stretch(1.1).settle(MAP, MAP), "2 dimensions"),
        (lambda: ts.Stretch(0.0), "above zero"),
        (lambda: ts.Resample().settle(EVEN, line(np.arange(50, 60))), "do not meet"),
        (lambda: ts.Resample().settle(EVEN, line(np.arange(5), "keV")), "'eV'.*'keV'"),
        (lambda: ts.Resample().settle(EVEN, Grid("energy", (5,), (None,), (None,))), "41 points.*5.*coordinates"),
        (lambda: ts.Shift(1.0).settle(line([0, 2, 1]), line([0, 2, 1])), "rise or fall"),
        (lambda: ts.Matrix([[np.nan]]), "finite matrix"),
        (lambda: ts.Matrix(np.eye(3)).settle(EVEN, EVEN), r"expected the shape \(41, 41\)"),
        (lambda: as_operators({"edx": ts.Bin(2)}), "no pair of tensor and mode"),
        (lambda: as_operators({("edx", "pixel"): 2}), "no operator"),
        (lambda: as_operators({("edx", "pixel"): [ts.Bin(2), 2]}), "nor a list of them"),
        (lambda: as_operators({("edx", "pixel"): []}), "nor a list of them"),
        (lambda: Chain((ts.Shift("fit"), ts.Shift("fit"))).settle(EVEN, EVEN), "offset is to be fitted twice"),
        (lambda: Chain((ts.Bin(2), ts.Shift(1.0))).settle(line(range(5)), line(range(2))), "no multiple"),
        (lambda: as_operators(ts.Bin(2)), "expected a mapping"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ts.TensorspecError, match=words):
        make()
