"""``tensorspec channelling recipe.toml``: from a crystal structure and counts over orientation to occupancies."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.cli.output import say, writable_folder
from tensorspec.errors import InvalidArgument, MissingFile, UnreadableFile, suggest

__all__ = ["read_counts", "run_channelling"]

SECTIONS = ("crystal", "beam", "row", "candidates", "fit", "output")
KEYS = {
    "crystal": ("cif", "labels", "debye_waller"),
    "beam": ("energy", "convergence"),
    "row": ("name", "reflection", "counts", "orders"),
    "fit": ("thickness", "largest_thickness", "step", "orientation", "background", "composition", "places"),
    "output": ("folder", "name"),
}
TILT, EXPOSURE, BACKGROUND = "tilt_x", "exposure", " background"


def run_channelling(file: str, output: str | None) -> None:
    """Fit occupancies as a recipe says; print them, and write a figure and a JSON file.

    Parameters
    ----------
    file : str
        The recipe; files named in it are found from its own folder.
    output : str, optional
        Folder to write into.

    Raises
    ------
    MissingFile, UnreadableFile
        If a file is not there or cannot be read.
    InvalidArgument
        If the recipe misses something, or has what is not known.
    """
    path = Path(file).expanduser()
    recipe = _recipe(path)
    crystal_part, beam = recipe["crystal"], recipe["beam"]
    settings, written = recipe.get("fit", {}), recipe.get("output", {})
    folder = writable_folder(Path(output or path.parent / written.get("folder", ".")))
    stem = str(written.get("name", path.stem))
    tables = {
        str(row.get("name", f"row {k + 1}")): read_counts(path.parent / row["counts"])
        for k, row in enumerate(recipe["row"])
    }

    from tensorspec import channelling
    from tensorspec.plot.occupancy import plot_occupancy

    thermal = crystal_part.get("debye_waller", {})
    crystal = channelling.Crystal.from_cif(path.parent / crystal_part["cif"])
    crystal = crystal.relabel(crystal_part.get("labels", {})).with_debye_waller(thermal)
    depths = np.arange(
        float(settings.get("step", 5.0)),
        float(settings.get("largest_thickness", 150.0)) + 1e-9,
        float(settings.get("step", 5.0)),
    )
    responses = {}
    for row, (name, table) in zip(recipe["row"], tables.items(), strict=True):
        tilts = table["counts"][TILT].values
        step = float(np.diff(tilts).mean())
        # Wider than what was recorded, so that an offset stays inside.
        wide = np.concatenate([tilts[0] - step * np.arange(4, 0, -1), tilts, tilts[-1] + step * np.arange(1, 5)])
        scan = channelling.systematic_row(
            crystal, tuple(row["reflection"]), wide, float(beam["energy"]), orders=int(row.get("orders", 8))
        )
        say(f"{name}: {len(tilts)} orientations, {len(scan.beams)} beams")
        responses[name] = channelling.response(
            crystal,
            scan,
            [str(line) for line in table["counts"]["line"].values],
            depths,
            convergence=float(beam.get("convergence", 0.0)),
        )
    given = {key: value for key, value in settings.items() if key in ("orientation", "composition", "places")}
    if "thickness" in settings:
        given["thickness"] = tuple(settings["thickness"])
    found = channelling.fit_occupancy(
        {name: table["counts"] for name, table in tables.items()},
        responses,
        recipe["candidates"],
        background=settings.get("background", {name: table["background"] for name, table in tables.items()}),
        exposure={name: table["exposure"] for name, table in tables.items()},
        **given,
    )
    say(repr(found))
    figure = folder / f"{stem}.png"
    plot_occupancy(found).savefig(figure, dpi=150)
    record = folder / f"{stem}.occupancy.json"
    record.write_text(json.dumps(_as_json(found, recipe), indent=2) + "\n", encoding="utf-8")
    say(f"wrote {figure}")
    say(f"wrote {record}")


def read_counts(path: Path) -> xr.Dataset:
    """Read a table of line counts: a column ``tilt_x`` in mrad, and one for every line.

    Parameters
    ----------
    path : Path
        A CSV file with a header: ``tilt_x, Mn K, Ni K, ...``; further ``exposure``, and ``Mn K background``.

    Returns
    -------
    Dataset
        ``counts`` and ``background``, dimensions (line, tilt_x), and ``exposure``.

    Raises
    ------
    MissingFile
        If there is no such file.
    UnreadableFile
        If it has no column of tilts, no lines, or something that is no number.
    """
    if not path.is_file():
        raise MissingFile(f"no file {str(path)!r}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    if len(rows) < 4:
        raise UnreadableFile(f"{path.name} has {len(rows)} lines; expected a header, and one for every orientation")
    head, body = rows[0], rows[1:]
    if TILT not in head:
        raise UnreadableFile(f"{path.name} has the columns {head}; one has to be {TILT!r}, in mrad")
    for number, row in enumerate(body, start=2):
        if len(row) != len(head):
            raise UnreadableFile(f"{path.name}, line {number}: {len(row)} cells, and {len(head)} columns")
    try:
        values = np.array(body, dtype=float).T
    except ValueError as error:
        raise UnreadableFile(f"{path.name}: {error}") from None
    columns = dict(zip(head, values, strict=True))
    order = np.argsort(columns[TILT])
    lines = [name for name in head if name not in (TILT, EXPOSURE) and not name.endswith(BACKGROUND)]
    if not lines:
        raise UnreadableFile(f"{path.name} has the columns {head}; expected lines such as 'Mn K' beside {TILT!r}")
    for name in head:
        if name.endswith(BACKGROUND) and name.removesuffix(BACKGROUND) not in lines:
            raise UnreadableFile(f"{path.name}: {name!r} is a background without its line; there are {lines}")
    coords: dict[str, Any] = {"line": lines, TILT: (TILT, columns[TILT][order], {"units": "mrad"})}
    zeros = np.zeros(len(order))
    stacked = {
        "counts": [columns[line][order] for line in lines],
        "background": [columns.get(line + BACKGROUND, zeros)[order] for line in lines],
    }
    table = {key: (("line", TILT), np.array(value)) for key, value in stacked.items()}
    exposure = columns.get(EXPOSURE, np.ones(len(order)))[order]
    return xr.Dataset({**table, "exposure": (TILT, exposure)}, coords=coords)


def _recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFile(f"no file {str(path)!r}")
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path.name} is no TOML: {error}") from None
    for section in recipe:
        if section not in SECTIONS:
            raise InvalidArgument(
                f"{path.name}: no section [{section}]; there are {list(SECTIONS)}.{suggest(section, SECTIONS)}"
            )
    for section in ("crystal", "beam", "row", "candidates"):
        if section not in recipe:
            name = "[[row]]" if section == "row" else f"[{section}]"
            raise InvalidArgument(f"{path.name}: {name} is missing; see the page on channelling for a recipe")
    if not isinstance(recipe["row"], list):
        raise InvalidArgument(f"{path.name}: rows are written with two brackets, [[row]]")
    for section, known in KEYS.items():
        parts = recipe.get(section, {})
        for part in parts if isinstance(parts, list) else [parts]:
            for key in part:
                if key not in known:
                    raise InvalidArgument(
                        f"{path.name}: [{section}] has no key {key!r}; there are {list(known)}.{suggest(key, known)}"
                    )
    for section, key in (("crystal", "cif"), ("beam", "energy")):
        if key not in recipe[section]:
            raise InvalidArgument(f"{path.name}: [{section}] needs {key!r}")
    for row in recipe["row"]:
        for key in ("reflection", "counts"):
            if key not in row:
                raise InvalidArgument(f"{path.name}: each [[row]] needs {key!r}")
    return recipe


def _as_json(found: Any, recipe: dict[str, Any]) -> dict[str, Any]:
    def table(array: xr.DataArray) -> dict[str, dict[str, float | None]]:
        return {
            str(element): {
                str(site): (float(value) if np.isfinite(value) else None)
                for site, value in zip(array["site"].values, array.sel(element=element).values, strict=True)
            }
            for element in array["element"].values
        }

    return {
        "share": table(found.share),
        "standard_error": table(found.standard_error),
        "chi_squared": found.chi_squared,
        "thickness_nm": dict(found.thickness),
        "thickness_error_nm": dict(found.thickness_error),
        "offset_mrad": {name: dict(own) for name, own in found.offset.items()},
        "recipe": recipe,
    }
