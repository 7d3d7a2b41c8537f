"""A fit as one short table: as text, and as HTML for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from tensorspec.cores import shares_of_entries
from tensorspec.likeness import likeness_advice

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["as_html", "as_text", "component_table", "count_components", "percent", "tensor_table"]


def as_text(fit: Fit) -> str:
    """Return status, sweeps, explained share of each tensor and the components, a line each.

    Parameters
    ----------
    fit : Fit
        What to show.

    Returns
    -------
    text : str
    """
    head, tensors, components = _headline(fit), tensor_table(fit), component_table(fit)
    return "\n".join([f"<tensorspec.Fit> {head}", *_columns(tensors), *_columns(components), *_advice(fit)])


def as_html(fit: Fit) -> str:
    """Return the same as `as_text`, as an HTML fragment that needs no style sheet.

    Parameters
    ----------
    fit : Fit
        What to show.

    Returns
    -------
    html : str
    """
    parts = [f"<p style='margin:0.3em 0'><b>tensorspec.Fit</b> {escape(_headline(fit))}</p>"]
    parts += [_html_table(tensor_table(fit)), _html_table(component_table(fit))]
    parts += [f"<p style='margin:0.3em 0'><i>{escape(line)}</i></p>" for line in _advice(fit)]
    return "<div>" + "".join(parts) + "</div>"


def tensor_table(fit: Fit) -> list[list[str]]:
    """Return the rows of the table of tensors, titles first: name, size, loss, explained share."""
    called = {record.explained_as for record in fit.tensors.values()}
    rows = [["tensor", "size", "loss", called.pop() if len(called) == 1 else "explained"]]
    for name, record in fit.tensors.items():
        size = ", ".join(f"{dim}: {count}" for dim, count in zip(record.dims, record.shape, strict=True))
        rows.append([name, size, record.loss, percent(record.explained, digits=2)])
    return rows


def component_table(fit: Fit) -> list[list[str]]:
    """Return the rows of the table of components, titles first: number, label, share of each tensor's signal."""
    if fit.cores:
        return _core_table(fit)
    shares = {name: fit.shares(name) for name in fit.tensors}
    single, labelled = len(shares) == 1, any(fit.labels)
    titles = [f"share of {share.attrs['of']}" + ("" if single else f", {name}") for name, share in shares.items()]
    rows = [["component", *(["label"] if labelled else []), *titles]]
    for index, label in enumerate(fit.labels):
        figures = [percent(float(share[index]), digits=1) for share in shares.values()]
        rows.append([str(index + 1), *([label] if labelled else []), *figures])
    return rows


def _core_table(fit: Fit) -> list[list[str]]:
    """Return the rows of the components of every mode: their number, and their share of each tensor that has it."""
    shares = {name: shares_of_entries(fit, name) for name in fit.tensors}
    single = len(shares) == 1
    titles = [f"share of {of}" + ("" if single else f", {name}") for name, (_, of) in shares.items()]
    rows = [["mode", "component", *titles]]
    for mode, rank in fit.ranks.items():
        for index in range(rank):
            figures = []
            for name, (share, _) in shares.items():
                modes = fit.tensors[name].modes
                own = share.take(index, axis=modes.index(mode)).sum() if mode in modes else float("nan")
                figures.append(percent(float(own), digits=1))
            rows.append([mode, str(index + 1), *figures])
    return rows


def count_components(fit: Fit) -> str:
    """Return how many components a fit has, in words; of a model with a core, in every mode."""
    if fit.cores:
        return " x ".join(f"{rank} {mode}" for mode, rank in fit.ranks.items()) + " components"
    return f"{fit.rank} component{'s' * (fit.rank != 1)}"


def percent(share: float, digits: int) -> str:
    """Return a share as text in per cent, with more digits where it is close to all; a dash where it is not known.

    Examples
    --------
    >>> percent(0.5, 1), percent(0.999998, 2), percent(float("nan"), 1)
    ('50.0 %', '99.9998 %', '-')
    """
    if not np.isfinite(share):
        return "-"
    missing = 1 - share
    if 0 < missing < 10.0 ** (-digits - 2):
        digits = min(int(np.ceil(-np.log10(missing))) - 2, 12)
    return f"{100 * share:.{digits}f} %"


def _headline(fit: Fit) -> str:
    solver = f"{fit.solver}, " if fit.solver else ""
    dead = "" if fit.cores or len(fit.alive) == fit.rank else f" ({len(fit.alive)} alive)"
    return f"{count_components(fit)}{dead}, {solver}{fit.status.short} after {fit.sweeps} sweeps"


def _advice(fit: Fit) -> list[str]:
    """Return what to do about a fit that did not converge, or has components alike, and what was done to it since."""
    lines = [] if fit.converged else [fit.status.value]
    return [*lines, *likeness_advice(fit)] + [
        f"after {note['step']} of components {note['components']}" for note in fit.provenance.get("derived", [])
    ]


def _columns(rows: list[list[str]]) -> list[str]:
    """Return rows as text with aligned columns: the last words to the right where they are figures."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(_is_figure(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "   ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _html_table(rows: list[list[str]]) -> str:
    right = [all(_is_figure(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]

    def line(cells: list[str], tag: str) -> str:
        styles = [f"text-align:{'right' if to_right else 'left'};padding:0.15em 0.8em" for to_right in right]
        items = (f"<{tag} style='{style}'>{escape(cell)}</{tag}>" for cell, style in zip(cells, styles, strict=True))
        return f"<tr>{''.join(items)}</tr>"

    body = "".join(line(row, "td") for row in rows[1:])
    return (
        "<table style='border-collapse:collapse;margin:0.3em 0'>"
        f"<thead>{line(rows[0], 'th')}</thead><tbody>{body}</tbody></table>"
    )


def _is_figure(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit() or cell[:1] == "-"
