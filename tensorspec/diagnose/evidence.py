"""What several criteria say of the number of components, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

import numpy as np
import xarray as xr

__all__ = ["Criterion", "RankEvidence"]


@dataclass(frozen=True, eq=False)
class Criterion:
    """One criterion's answer.

    Attributes
    ----------
    name : str
        What it is called.
    answer : int or None
        The number of components that it says; None where it says none.
    evidence : str
        What the answer rests on, or why there is none.
    counts : bool
        Whether the answer counts for the recommendation: whether components come back the same says nothing of how
        many there are, only how far they can be trusted.
    curves : mapping of str to DataArray
        What was measured, by rank or by component.
    """

    name: str
    answer: int | None
    evidence: str
    counts: bool = True
    curves: dict[str, xr.DataArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class RankEvidence:
    """A table of criteria, and what follows from them.

    Attributes
    ----------
    criteria : tuple of Criterion
        All that were looked at, those without an answer too.
    hardly : tuple of int
        Numbers, from 1 in the order of their strength, of components that stand hardly above noise.
    """

    criteria: tuple[Criterion, ...]
    hardly: tuple[int, ...] = ()

    @property
    def answers(self) -> dict[str, int]:
        """The answers that count, by criterion."""
        return {item.name: item.answer for item in self.criteria if item.counts and item.answer is not None}

    @property
    def recommended(self) -> int | None:
        """The median of the answers, the smaller of two; None where fewer than two criteria answer."""
        answers = sorted(self.answers.values())
        return answers[(len(answers) - 1) // 2] if len(answers) > 1 else None

    @property
    def agree(self) -> bool:
        """Whether all criteria that answer give the same number."""
        return len(set(self.answers.values())) == 1 and len(self.answers) > 1

    @property
    def weak(self) -> tuple[int, ...]:
        """Numbers, from 1, of components that are weakly resolved: hardly above noise, or not seen by all criteria."""
        if not self.answers:
            return self.hardly
        least, most = min(self.answers.values()), max(self.answers.values())
        return tuple(sorted({*range(least + 1, most + 1), *(number for number in self.hardly if number <= most)}))

    @property
    def advice(self) -> str:
        """The recommendation in words: whether the criteria agree, and which components are weakly resolved."""
        rank = self.recommended
        if rank is None:
            return "No recommendation: fewer than two criteria have an answer for these data."
        named = f"{rank} component{'s' if rank > 1 else ''}"
        if self.agree:
            text = f"{named}: all {len(self.answers)} criteria that answer say so."
        else:
            others = ", ".join(f"{name} {answer}" for name, answer in self.answers.items() if answer != rank)
            text = f"{named}, but the criteria disagree: {others}."
        if self.weak:
            named = ", ".join(map(str, self.weak))
            text += f" Weakly resolved: component{'s' if len(self.weak) > 1 else ''} {named}."
        unstable = [
            item for item in self.criteria if not item.counts and item.answer is not None and item.answer < rank
        ]
        if unstable:
            text += " Not found again beyond " + ", ".join(f"{item.answer} ({item.name})" for item in unstable) + "."
        return text

    def dataset(self) -> xr.Dataset:
        """Return the answers, the evidence and everything that was measured as one Dataset."""
        names = [item.name for item in self.criteria]
        answers = [np.nan if item.answer is None else float(item.answer) for item in self.criteria]
        variables: dict[str, xr.DataArray] = {
            "answer": xr.DataArray(answers, dims="criterion", coords={"criterion": names}),
            "evidence": xr.DataArray([item.evidence for item in self.criteria], dims="criterion"),
        }
        for item in self.criteria:
            for key, curve in item.curves.items():
                variables[f"{item.name}: {key}"] = curve
        return xr.Dataset(variables, attrs={"advice": self.advice})

    def __repr__(self) -> str:
        rows = [("criterion", "says", "evidence")]
        rows += [(item.name, "-" if item.answer is None else str(item.answer), item.evidence) for item in self.criteria]
        widths = [max(len(row[k]) for row in rows) for k in range(2)]
        lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}" for row in rows]
        return "\n".join([*lines, self.advice])

    def _repr_html_(self) -> str:
        rows = [(item.name, "-" if item.answer is None else str(item.answer), item.evidence) for item in self.criteria]
        place = "style='text-align:left;padding:0.1em 0.8em'"
        body = "".join("<tr>" + "".join(f"<td {place}>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        head = "".join(f"<th {place}>{title}</th>" for title in ("criterion", "says", "evidence"))
        return f"<div><table><tr>{head}</tr>{body}</table><p><i>{escape(self.advice)}</i></p></div>"
