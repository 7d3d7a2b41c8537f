"""The report of a fit: figures, what was decided and why, what is left over, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorspec.diagnose.residuals import describe
from tensorspec.overview import component_table, count_components, percent
from tensorspec.plot import COLOURS, plot_components, plot_history, plot_residual
from tensorspec.recipe import constructor_repr, to_recipe
from tensorspec.report.page import embedded, write_page

if TYPE_CHECKING:
    from tensorspec.modes import ModeLabels
    from tensorspec.solution import Fit

__all__ = ["write_report"]

# Said in sections of their own, so not again under provenance.
TOLD = frozenset({"warnings", "tensor_weights", "noise", "constraints_as_solved", "carriers", "derived"})


def write_report(fit: Fit, path: str | PathLike[str]) -> Path:
    """Write one HTML file that opens offline and holds everything that is known of a fit.

    Parameters
    ----------
    fit : Fit
        What to show.  The residual is shown where the fit holds its data, or was opened from a file that has it.
    path : path-like
        Where to; an older file is replaced when the new one is complete.

    Returns
    -------
    path : Path

    Raises
    ------
    MissingDependency
        If Jinja2 is not installed.
    MissingFile
        If the folder does not exist.
    """
    return write_page(path, "of_fit.html", lambda: _contents(fit))


def _contents(fit: Fit) -> dict[str, Any]:
    """Return everything that the page shows."""
    held = [name for name in fit.tensors if fit.data is not None or name in fit.summaries]
    summaries = {name: fit.residual_summary(name) for name in held}
    table = component_table(fit)
    count = count_components(fit)
    titles = {name: str(record.attrs.get("title") or "") for name, record in fit.tensors.items()}
    return {
        "title": next(filter(None, titles.values()), None) or "Fit of " + ", ".join(fit.tensors),
        "lead": f"{count} of {', '.join(fit.tensors)}" if any(titles.values()) else "",
        "facts": list(_facts(fit)),
        "notes": list(_notes(fit)),
        "figures": {
            "components": embedded(plot_components(fit)),
            "residual": embedded(plot_residual(fit)) if len(held) == len(fit.tensors) else "",
            "history": embedded(plot_history(fit)) if fit.history.size > 1 else "",
        },
        "components": table,
        "right": [column for column, title in enumerate(table[0]) if title.startswith("share")],
        "colours": [COLOURS[index % len(COLOURS)] for rank in _groups(fit) for index in range(rank)],
        "missing": any(bool(factor.isnull().any()) for factor in fit.factors.values()),
        "residuals": {name: describe(summary) for name, summary in summaries.items()},
        "tensors": [
            {
                "name": name,
                "title": titles[name],
                "size": " × ".join(f"{size} {dim}" for dim, size in zip(record.dims, record.shape, strict=True)),
                "loss": record.loss,
                "explained": percent(record.explained, digits=2),
            }
            for name, record in fit.tensors.items()
        ],
        "modes": [
            {
                "name": name,
                "range": _range(mode),
                "constraints": _constraints(fit, name),
                "tensors": ", ".join(key for key, record in fit.tensors.items() if name in record.modes),
            }
            for name, mode in fit.modes.items()
        ],
        "model": "" if fit.model is None else _as_call(fit.model),
        "decisions": list(_decisions(fit)),
        "restarts": 1 if fit.spread is None else fit.spread.size,
        "provenance": list(_flat({key: value for key, value in fit.provenance.items() if key not in TOLD})),
        "recipe": json.dumps(fit.recipe, indent=2, ensure_ascii=False) if fit.recipe else "",
        "attributes": {name: _json(record.attrs) for name, record in fit.tensors.items() if record.attrs},
    }


def _facts(fit: Fit) -> Iterator[tuple[str, str]]:
    """Yield the few figures that stand at the top."""
    number, _, what = count_components(fit).rpartition(" ")
    yield number, what
    yield fit.status.short, f"after {fit.sweeps} sweeps"
    for name, record in fit.tensors.items():
        if np.isfinite(record.explained):
            yield percent(record.explained, digits=2), f"of {name} explained" if len(fit.tensors) > 1 else "explained"
    if fit.solver:
        yield fit.solver, "solver"
    if "wall_seconds" in fit.provenance:
        yield f"{fit.provenance['wall_seconds']:.3g} s", "wall time"


def _groups(fit: Fit) -> list[int]:
    """Return how many components are counted together: those of all modes, or of each where the model has a core."""
    return list(fit.ranks.values()) if fit.cores else [fit.rank]


def _notes(fit: Fit) -> Iterator[str]:
    """Yield what a reader must not miss."""
    if not fit.converged or fit.status.short != "converged":
        text = fit.status.value
        yield text[:1].upper() + text[1:]
    for warning in fit.provenance.get("warnings", []):
        yield str(warning)
    for note in fit.provenance.get("derived", []):
        numbers = ", ".join(map(str, note["components"]))
        yield f"After the fit: {note['step']}, components {numbers}. Figures of the fit as a whole no longer hold."


def _decisions(fit: Fit) -> Iterator[tuple[str, str]]:
    """Yield what was chosen for the user or by the user, with the reason where there is one."""
    if fit.solver:
        yield "solver", fit.solver
    if fit.why:
        yield "because", fit.why
    yield "stop", fit.status.value
    known, several = fit.provenance, len(fit.tensors) > 1
    for name, record in fit.tensors.items():
        of = f" of {name}" if several else ""
        if several:
            yield f"weight{of}", f"{record.data_weight:.4g}"
        noise = (known.get("noise") or {}).get(name)
        if noise:
            unit = f" {record.unit}²" if record.unit else ""
            yield f"noise{of}", f"variance of one entry {noise['variance']:.4g}{unit}, {noise['how']}"
        if name in known.get("carriers", {}):
            yield f"scale{of}", f"carried by the mode {known['carriers'][name]}"
    if fit.spread is not None:
        final = np.asarray(fit.spread, dtype=float)
        best = np.nanmin(final)
        near = int(np.sum(final <= best + 1e-3 * abs(best)))
        yield "restarts", f"{near} of {final.size} came within 0.1 % of the best objective, which is kept"


def _constraints(fit: Fit, mode: str) -> list[str]:
    """Return the constraints of a mode as calls: as they were solved where that is known, else as they were given."""
    solved = fit.provenance.get("constraints_as_solved")
    if solved is not None:
        return [str(item) for item in solved.get(mode, [])]
    given = fit.model.get("constraints") if isinstance(fit.model, dict) else getattr(fit.model, "constraints", None)
    listed = (given or {}).get(mode, []) if isinstance(given, Mapping) else []
    return [constructor_repr(item) for item in (listed if isinstance(listed, list | tuple) else [listed])]


def _range(mode: ModeLabels) -> str:
    """Return the extent of each dimension of a mode, or its number of points."""
    parts = []
    for dim, size, values, unit in zip(mode.dims, mode.shape, mode.coordinates, mode.units, strict=True):
        extent = f"{values[0]:.6g} to {values[-1]:.6g} {unit or ''}".strip() if values is not None else ""
        parts.append(f"{dim}: {size} points" + (f", {extent}" if extent else ""))
    return "; ".join(parts)


def _as_call(model: Any) -> str:
    """Return a model as the call that makes it; where its class is not there, as the description read from a file."""
    return _json(model) if isinstance(model, dict) else repr(model)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as rows, keys joined."""
    for key, value in values.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}, ")
        elif value is not None:
            yield name, value if isinstance(value, str) else json.dumps(to_recipe(value, lenient=True), default=str)


def _json(value: Any) -> str:
    return json.dumps(to_recipe(value, lenient=True), indent=2, ensure_ascii=False)
