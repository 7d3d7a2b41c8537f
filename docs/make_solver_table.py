"""Make the table of the page "Which constraint?" that says which solver takes which constraint.

Run it from the checkout: ``python docs/make_solver_table.py`` puts the table into the page.  A test compares the two.
"""

from pathlib import Path

import numpy as np

import tensorspec as ts
from tensorspec.constraints.base import Context, Resolvable
from tensorspec.constraints.compose import ModeConstraints, check_partners, combine
from tensorspec.errors import ConstraintConflict

PAGE = Path(__file__).parent / "concepts" / "which-constraint.md"
BEGIN, END = "<!-- solvers: docs/make_solver_table.py -->\n", "<!-- end of solvers -->\n"
SIZE, RANK = 4, 2
SOLVERS = (ts.HALS(), ts.AOADMM(), ts.Multiplicative())
SHAPES = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
EXAMPLES = {
    "NonNegative()": [ts.NonNegative()],
    "Box(lower, upper)": [ts.Box(0.0, 1.0)],
    "Sparse(strength)": [ts.Sparse(1.0)],
    "GroupSparse(strength)": [ts.GroupSparse(1.0)],
    "ARD()": [ts.ARD(1.0)],
    "SoftOrthogonal()": [ts.SoftOrthogonal(1.0)],
    'SoftOrthogonal(method="shiga2016")': [ts.SoftOrthogonal(0.1, method="shiga2016")],
    "Orthogonal()": [ts.Orthogonal()],
    'SumToOne("component")': [ts.SumToOne("component")],
    'SumToOne("mode")': [ts.SumToOne("mode")],
    "Smooth(strength)": [ts.Smooth(1.0)],
    "LocallySmooth(scale, strength)": [ts.LocallySmooth(np.full(SIZE, 2.0), 1.0)],
    "TotalVariation(strength)": [ts.TotalVariation(1.0)],
    "Monotone()": [ts.Monotone()],
    "Unimodal()": [ts.Unimodal()],
    "Fixed(values)": [ts.Fixed(SHAPES)],
    "Near(values, strength)": [ts.Near(SHAPES, 1.0)],
    "Span(dictionary)": [ts.Span(SHAPES)],
    "MinimumVolume(strength)": [ts.MinimumVolume(1.0)],
    "PurePixel()": [ts.PurePixel(), ts.SumToOne("component")],
}


def ready(items):
    """Return constraints as a fit makes them; None where they may not stand together."""
    try:
        check_partners("mode", items)
    except ConstraintConflict:
        return None
    context = Context("mode", (SIZE,), (None,), (None,), RANK, 0.1, 1.0, 0.1)
    context = context._replace(carries=not any(isinstance(item, ts.Orthogonal) for item in items))
    joined = combine(items)
    return ModeConstraints(
        tuple(item.resolve(context) if isinstance(item, Resolvable) else item for item in joined), RANK
    )


def verdict(solver, rules):
    """Return what a solver makes of constraints: yes, no, or which columns or entries it needs."""
    if rules is None:
        return ""
    free, held = (False,) * RANK, (True,) * RANK
    if solver.refusal(rules, False, free):
        return "no"
    limits = []
    carrier = any(rules.fixed_columns) or any(isinstance(item, ts.ARD) for item in rules.members)
    if not carrier and solver.refusal(rules, False, held):
        limits.append("free norms")
    if solver.refusal(rules, True, free):
        limits.append("equal weights")
    return ", ".join(limits) or "yes"


def table():
    """Return the lines of the table."""
    heads = [f"`{type(solver).__name__}`" for solver in SOLVERS]
    lines = [
        f"| constraint | {' | '.join(heads)} | {' | '.join(f'{head} beside `NonNegative()`' for head in heads)} |",
        "|---" * (1 + 2 * len(SOLVERS)) + "|",
    ]
    for label, items in EXAMPLES.items():
        alone = ready(items)
        beside = None if isinstance(items[0], ts.NonNegative) else ready([*items, ts.NonNegative()])
        cells = [verdict(solver, rules) for rules in (alone, beside) for solver in SOLVERS]
        lines.append(f"| `{label}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
