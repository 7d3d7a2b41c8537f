"""``tensorspec channelling recipe.toml``: from a crystal structure and counts over orientation to occupancies."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.cli.output import say, writable_folder
from tensorspec.errors import InvalidArgument, MissingFile, UnreadableFile, suggest
from tensorspec.io.line_counts import read_line_counts

__all__ = ["run_channelling"]

# What is scanned, and what has to be said of it.
PATTERNS = {"row": "reflection", "zone": "axis"}
# Orientations that are computed beyond each end.
MARGIN = 4
SECTIONS = ("crystal", "beam", "row", "zone", "candidates", "fit", "output")
KEYS = {
    "crystal": ("cif", "labels", "debye_waller"),
    "beam": ("energy", "convergence"),
    "row": ("name", "reflection", "counts", "orders"),
    "zone": ("name", "axis", "x", "counts", "largest"),
    "fit": ("thickness", "largest_thickness", "step", "orientation", "background", "composition", "places"),
    "output": ("folder", "name"),
}


def run_channelling(file: str, output: str | None) -> None:
    """Fit occupancies as a recipe says; print them, and write a figure, a report and a JSON file.

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
    scanned = [(section, part) for section in PATTERNS for part in recipe.get(section, [])]
    named = {str(part.get("name", f"{section} {k + 1}")): (section, part) for k, (section, part) in enumerate(scanned)}
    tables = {name: read_line_counts(path.parent / part["counts"]) for name, (_, part) in named.items()}

    from tensorspec import channelling
    from tensorspec.plot.occupancy import plot_occupancy
    from tensorspec.report import report_occupancy

    thermal = crystal_part.get("debye_waller", {})
    crystal = channelling.Crystal.from_cif(path.parent / crystal_part["cif"])
    crystal = crystal.relabel(crystal_part.get("labels", {})).with_debye_waller(thermal)
    depths = np.arange(
        float(settings.get("step", 5.0)),
        float(settings.get("largest_thickness", 150.0)) + 1e-9,
        float(settings.get("step", 5.0)),
    )
    responses = {}
    for name, (section, part) in named.items():
        table = tables[name]
        if ("tilt_y" in table.dims) != (section == "zone"):
            raise InvalidArgument(
                f"{part['counts']}: a [[zone]] has the columns tilt_y and tilt_x, a [[row]] tilt_x alone"
            )
        # Wider than what was recorded, so that an offset stays inside.
        wide = {dim: _wider(table[dim].values) for dim in table["exposure"].dims}
        energy = float(beam["energy"])
        if section == "row":
            scan = channelling.systematic_row(
                crystal, tuple(part["reflection"]), wide["tilt_x"], energy, orders=int(part.get("orders", 8))
            )
        else:
            scan = channelling.zone_axis(
                crystal,
                tuple(part["axis"]),
                (wide["tilt_y"], wide["tilt_x"]),
                energy,
                x=tuple(part["x"]) if "x" in part else None,
                largest=float(part.get("largest", 2.0)),
            )
        say(f"{name}: {table['exposure'].size} orientations, {len(scan.beams)} beams")
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
    page = report_occupancy(found, folder / f"{stem}.report.html", title=crystal.name, settings=recipe)
    say(f"wrote {figure}")
    say(f"wrote {page}")
    say(f"wrote {record}")


def _wider(tilts: np.ndarray) -> np.ndarray:
    step = float(np.diff(tilts).mean())
    return np.concatenate(
        [tilts[0] - step * np.arange(MARGIN, 0, -1), tilts, tilts[-1] + step * np.arange(1, MARGIN + 1)]
    )


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
    missing = [f"[{section}]" for section in ("crystal", "beam", "candidates") if section not in recipe]
    missing += [] if any(section in recipe for section in PATTERNS) else ["[[row]] or [[zone]]"]
    if missing:
        raise InvalidArgument(f"{path.name}: {missing[0]} is missing; see the page on channelling for a recipe")
    for section in PATTERNS:
        if not isinstance(recipe.get(section, []), list):
            raise InvalidArgument(f"{path.name}: {section}s are written with two brackets, [[{section}]]")
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
    for section, needed in PATTERNS.items():
        for part in recipe.get(section, []):
            for key in (needed, "counts"):
                if key not in part:
                    raise InvalidArgument(f"{path.name}: each [[{section}]] needs {key!r}")
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
