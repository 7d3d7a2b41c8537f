"""Every constraint and every solver: they agree, or the solver says why it does not take it.

A constraint that is added has to be entered here.  Convex questions are also put to cvxpy, which knows none of the
solvers.  Where a question is not convex, two solvers may end at different points: each has to go down, and to one from
which no way leads further down.
"""

import importlib.util
import warnings
from pathlib import Path
from typing import NamedTuple

import cvxpy as cp
import numpy as np
import pytest

import tensorspec as ts

from .blocks import EQUATIONS, RANK, SIZE, outcome, rules

NN, Sparse, Soft, Sum = ts.NonNegative, ts.Sparse, ts.SoftOrthogonal, ts.SumToOne
SOLVERS = {"HALS": ts.HALS(inner=50), "AOADMM": ts.AOADMM(inner=50), "Multiplicative": ts.Multiplicative(inner=100)}
RNG = np.random.default_rng(3)
KNOWN = np.full((SIZE, 2), np.nan)
KNOWN[:4, 0], KNOWN[:, 1] = 0.3, RNG.random(SIZE)
ATOMS, BOTH_SIGNS = RNG.random((SIZE, 3)), RNG.standard_normal((SIZE, 3))
BEND, STEP = np.diff(np.eye(SIZE), 2, axis=0), np.diff(np.eye(SIZE), axis=0)

LENGTHS = np.where(np.arange(SIZE) < SIZE // 2, 1.0, 3.0)

# Who refuses what, by the words of the refusal.
ROW, SPLIT = {"HALS": "components of a row"}, {"HALS": "no joint proximal map"}
UNEVEN, FIXES = {"HALS": "differ in weight"}, {"HALS": "fixes entries"}
SIGNED, TIED = {"Multiplicative": "keeps its sign"}, {"Multiplicative": "fall apart into entries"}
LEAVES = {"AOADMM": "leave the unit norm"}
UNHEARD = {"HALS": "neither a proximal map", "AOADMM": "neither a proximal map"}


class Case(NamedTuple):
    """Constraints of one mode and who refuses them; what weights of entries and a held norm add to that."""

    items: list
    refused: dict
    weighted: dict = {}
    held: dict | None = {}  # None: a constraint fixes the scale or asks for amplitudes, and columns are never held
    settles: bool = True  # False: the objective falls, and more is not known


CASES = {
    "nothing": Case([], SIGNED, held=LEAVES),
    "non-negative": Case([NN()], {}),
    "by component": Case([NN(components=[1]), Sparse(3.0, components=[2])], SIGNED),
    "box": Case([ts.Box(-0.2, 0.4)], SIGNED, held=None),
    "box above zero": Case([NN(), ts.Box(-0.2, 0.4)], {}, held=None),
    "sparse": Case([Sparse(2.0)], SIGNED),
    "non-negative, sparse": Case([NN(), Sparse(2.0)], {}),
    "groups": Case([ts.GroupSparse(3.0)], SIGNED, UNEVEN),
    "non-negative groups, sparse": Case([NN(), ts.GroupSparse(2.0), Sparse(1.0)], TIED, UNEVEN),
    "relevance": Case([NN(), ts.ARD(0.2)], TIED, held=None),
    "soft orthogonal": Case([NN(), Soft(1.0)], {}),
    "soft orthogonal, two of three": Case([NN(), Soft(1.0, components=[1, 3])], {}),
    "soft orthogonal as published": Case([NN(), Soft(0.1, method="shiga2016")], UNHEARD | TIED),
    "orthogonal": Case([ts.Orthogonal()], ROW | SIGNED, held=None),
    "orthogonal, sparse": Case([ts.Orthogonal(), Sparse(0.5)], SPLIT | SIGNED, held=None, settles=False),
    "orthogonal pair": Case([ts.Orthogonal(components=[1, 2]), NN(components=[3])], ROW | SIGNED, held=None),
    "sum of rows": Case([Sum("component")], ROW | SIGNED, held=None),
    "simplex of rows": Case([NN(), Sum("component")], ROW | TIED, held=None),
    "simplex of rows, two components": Case([NN(), Sum("component", components=[1, 2])], ROW | TIED, held=None),
    "simplex of rows, sparse": Case([NN(), Sum("component"), Sparse(1.0, components=[2])], SPLIT | TIED, held=None),
    "simplex of rows in a box": Case([NN(), Sum("component"), ts.Box(0.0, 0.6)], SPLIT | TIED, held=None),
    "pure pixels": Case([NN(), Sum("component"), ts.PurePixel()], ROW | TIED, held=None),
    "pure pixels, two components": Case(
        [NN(), Sum("component"), ts.PurePixel(components=[1, 3])], ROW | TIED, held=None
    ),
    "sum of columns": Case([Sum("mode")], SIGNED, UNEVEN, None),
    "simplex of columns": Case([NN(), Sum("mode")], TIED, UNEVEN, None),
    "simplex of columns, two of three": Case([NN(), Sum("mode", components=[1, 3])], TIED, UNEVEN, None),
    "smooth": Case([ts.Smooth(2.0)], SIGNED, UNEVEN, FIXES),
    "non-negative, smooth": Case([NN(), ts.Smooth(2.0)], SPLIT | TIED),
    "smooth, simplex of rows": Case([NN(), ts.Smooth(2.0), Sum("component")], SPLIT | TIED, held=None),
    "locally smooth": Case([ts.LocallySmooth(LENGTHS, 2.0)], SIGNED, UNEVEN, FIXES),
    "non-negative, locally smooth": Case([NN(), ts.LocallySmooth(LENGTHS, 2.0)], SPLIT | TIED),
    "levels": Case([ts.TotalVariation(1.0)], SIGNED, UNEVEN),
    "non-negative levels": Case([NN(), ts.TotalVariation(1.0)], TIED, UNEVEN),
    "one peak": Case([ts.Unimodal()], SIGNED, UNEVEN),
    "non-negative, one peak": Case([NN(), ts.Unimodal()], TIED, UNEVEN),
    "rising": Case([ts.Monotone()], SIGNED, UNEVEN),
    "non-negative, falling": Case([NN(), ts.Monotone(increasing=False)], TIED, UNEVEN),
    "known": Case([ts.Fixed(KNOWN, components=[1, 3])], SIGNED, held=None),
    "known, sparse": Case([NN(), Sparse(1.0), ts.Fixed(KNOWN, components=[1, 3])], {}, held=None),
    "near": Case([ts.Near(KNOWN, 5.0, components=[1, 3])], SIGNED, held=None),
    "non-negative, near": Case([NN(), ts.Near(KNOWN, 5.0, components=[1, 3])], TIED, held=None),
    "made of shapes": Case([ts.Span(ATOMS)], TIED, UNEVEN),
    "made of shapes of both signs": Case([ts.Span(BOTH_SIGNS, nonnegative=False)], SIGNED, UNEVEN),
    "non-negative, made of shapes": Case([NN(), ts.Span(BOTH_SIGNS, nonnegative=False)], SPLIT | TIED),
    "small volume": Case([ts.MinimumVolume(3.0)], SIGNED, held=LEAVES),
    "non-negative, small volume": Case([NN(), ts.MinimumVolume(3.0)], TIED),
}
KINDS = ("complete", "weighted", "held")
# Every case is asked once as it is; what else is asked of a solver hardly depends on the constraint.
WEIGHTED = {"non-negative, sparse", "known, sparse", "simplex of rows in a box", "non-negative, made of shapes"}
HELD = {
    "nothing",
    "non-negative",
    "non-negative, sparse",
    "groups",
    "soft orthogonal",
    "non-negative, smooth",
    "one peak",
    "made of shapes of both signs",
    "non-negative, small volume",
}
QUICK = {
    "non-negative, sparse",
    "soft orthogonal",
    "simplex of rows in a box",
    "non-negative, smooth",
    "orthogonal pair",
}


def refusals(case, kind):
    return case.refused | (getattr(case, kind) if kind != "complete" else {})


def questions(wanted):
    """Names of cases and kinds, most of them in the slow run alone or before a release."""
    marks = {"complete": pytest.mark.slow, "weighted": pytest.mark.exhaustive, "held": pytest.mark.exhaustive}
    return [
        pytest.param(name, kind, marks=() if name in QUICK and kind == "complete" else marks[kind])
        for kind, names in (("complete", CASES), ("weighted", WEIGHTED), ("held", HELD))
        for name in CASES
        if name in names and wanted(CASES[name], kind)
    ]


def answers(name, kind, **options):
    """What each solver that takes a case makes of it; all go down, step by step, and to what is allowed."""
    case, found = CASES[name], {}
    for label, solver in SOLVERS.items():
        if label not in refusals(case, kind):
            equations = "weighted" if kind == "weighted" else "complete"
            found[label] = outcome(case.items, solver, equations, held=kind == "held", **options)
            rises = np.diff(found[label].values)
            assert rises.max() <= 1e-12 * abs(found[label].values[0]), f"{label} rises"
            assert found[label].violation < 1e-9, f"{label} leaves what is allowed"
            if kind == "held":
                np.testing.assert_allclose(np.linalg.norm(found[label].factor, axis=0), 1, rtol=1e-12)
    return found


def convex(case, kind):
    """Whether the block has one minimum; soft orthogonality leaves it one while the Gram matrix outweighs it."""
    return kind != "held" and all(
        item.convex or (isinstance(item, Soft) and item.method == "penalty") for item in case.items
    )


def local_means(lengths):
    """Means over parabolas of these lengths, point by point, beyond the ends as in a mirror."""
    matrix = np.zeros((SIZE, SIZE))
    for point, length in enumerate(lengths):
        for away in range(-int(length), int(length) + 1):
            place = point + away
            place = -place - 1 if place < 0 else 2 * SIZE - 1 - place if place >= SIZE else place
            matrix[point, place] += max(1 - (away / length) ** 2, 0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def by_cvxpy(case, kind):
    """The minimum of a convex case, from the documentation of its constraints alone."""
    a, penalty, allowed = cp.Variable((SIZE, RANK)), 0, []
    gram, right = EQUATIONS[kind]
    gram = np.broadcast_to(gram, (SIZE, RANK, RANK)).copy()
    for item in case.items:
        columns = [k - 1 for k in item.components] if item.components else list(range(RANK))
        own = a[:, columns]
        match item:
            case ts.NonNegative():
                allowed += [own >= 0]
            case ts.Box():
                allowed += [own >= item.lower, own <= item.upper]
            case ts.Sparse():
                penalty += item.strength * cp.sum(cp.abs(own))
            case ts.GroupSparse():
                penalty += item.strength * cp.sum(cp.norm(own, 2, axis=0))
            case ts.SoftOrthogonal():
                gram[:, np.array(columns)[:, None], columns] += item.strength * (1 - np.eye(len(columns)))
            case ts.SumToOne():
                allowed += [cp.sum(own, axis=1 if item.axis == "component" else 0) == 1]
            case ts.Smooth():
                penalty += item.strength / 2 * cp.sum_squares(BEND @ own)
            case ts.LocallySmooth():
                penalty += item.strength / 2 * cp.sum_squares(own - local_means(item.scale) @ own)
            case ts.TotalVariation():
                penalty += item.strength * cp.sum(cp.abs(STEP @ own))
            case ts.Monotone():
                allowed += [STEP @ own >= 0] if item.increasing else [STEP @ own <= 0]
            case ts.Fixed():
                known = ~np.isnan(item.values)
                allowed += [own[known] == item.values[known]]
            case ts.Near():
                known = ~np.isnan(item.values)
                penalty += item.strength / 2 * cp.sum_squares(own[known] - item.values[known])
            case ts.Span():
                share = cp.Variable((item.dictionary.shape[1], len(columns)), nonneg=item.nonnegative)
                allowed += [own == item.dictionary @ share]
            case _:
                raise AssertionError(f"{item} is convex: say what it means to cvxpy")
    if kind == "complete":
        misfit = cp.sum_squares(a @ np.linalg.cholesky(gram[0])) / 2
    else:
        misfit = sum(cp.sum_squares(a[n] @ np.linalg.cholesky(gram[n])) / 2 for n in range(SIZE))
    problem = cp.Problem(cp.Minimize(misfit - cp.sum(cp.multiply(right, a)) + penalty), allowed)
    with warnings.catch_warnings():
        # It may say that it fell short of the digits that are asked for; the comparison asks for fewer.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        return problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-10)


@pytest.fixture(scope="module")
def page():
    """The script that makes the table of the documentation."""
    path = Path(__file__).parents[2] / "docs" / "make_solver_table.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_constraint_is_entered(page):
    public = {getattr(ts, name) for name in dir(ts)}
    known = {item for item in public if isinstance(item, type) and item.__module__.startswith("tensorspec.constraints")}
    assert len(known) > 15
    assert known <= {type(item) for case in CASES.values() for item in case.items}
    assert known == {type(items[0]) for items in page.EXAMPLES.values()}


def test_the_table_of_the_documentation_is_true(page):
    assert page.table() in page.PAGE.read_text(), "run python docs/make_solver_table.py"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_who_refuses_says_why(name, kind):
    case = CASES[name]
    own = rules(case.items)
    if kind == "held" and case.held is None:
        assert any(own.fixed_columns) or name == "relevance"
        return
    expected = refusals(case, kind)
    for label, solver in SOLVERS.items():
        said = solver.refusal(own, kind == "weighted", (kind == "held",) * RANK)
        assert (said is None) == (label not in expected), f"{label}: {said}"
        assert said is None or expected[label] in said


@pytest.mark.parametrize(("name", "kind"), questions(convex))
def test_solvers_agree_where_the_question_is_convex(name, kind):
    exact = by_cvxpy(CASES[name], kind)
    for label, found in answers(name, kind).items():
        assert found.values[-1] == pytest.approx(exact, rel=1e-7), label


@pytest.mark.parametrize(("name", "kind"), questions(lambda case, kind: not convex(case, kind)))
def test_solvers_go_down_to_a_point_from_which_no_way_leads_down(name, kind):
    for label, found in answers(name, kind, stationary=True).items():
        assert found.values[-1] < found.values[0]
        assert found.fall < 1e-4 or not CASES[name].settles, label


def test_admm_goes_on_where_the_first_iterations_do_not_help():
    name = "simplex of rows in a box"
    found = outcome(CASES[name].items, ts.AOADMM(inner=2), steps=800)
    assert np.diff(found.values).max() <= 1e-13 * abs(found.values[0])
    assert found.values[-1] == pytest.approx(by_cvxpy(CASES[name], "complete"), rel=1e-7)
