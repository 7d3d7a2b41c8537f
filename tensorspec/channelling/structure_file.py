"""Crystal structures from CIF files, by gemmi."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tensorspec.channelling.crystal import SAME, USUAL_DEBYE_WALLER, Site, apart, gemmi_module, orbit
from tensorspec.errors import InvalidData, MissingFile, UnreadableFile

__all__ = ["read_structure"]


def read_structure(
    path: str | PathLike[str], debye_waller: float | None
) -> tuple[tuple[float, float, float, float, float, float], tuple[Site, ...], str]:
    """Return cell, sites and name of a CIF file; see `Crystal.from_cif`."""
    gemmi = gemmi_module()
    source = Path(path)
    if not source.is_file():
        raise MissingFile(f"no file {str(path)!r}")
    try:
        structure = gemmi.read_small_structure(str(source))
    except (RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{source.name} cannot be read as a CIF: {error}") from None
    cell = structure.cell
    if not cell.is_crystal() or cell.volume < 1:
        raise InvalidData(f"{source.name} has no cell (_cell_length_a, ...): is it a crystal structure?")
    if not len(structure.sites):
        raise InvalidData(f"{source.name} has a cell, but no atoms (_atom_site_fract_x, ...)")
    operations = _operations(structure)
    orbits = []
    unknown = []
    for site in structure.sites:
        thermal = 8 * np.pi**2 * float(site.u_iso)
        if thermal <= 0 and site.aniso.nonzero():
            aniso = site.aniso
            thermal = 8 * np.pi**2 * (aniso.u11 + aniso.u22 + aniso.u33) / 3
        if thermal <= 0:
            unknown.append(site.label)
            thermal = USUAL_DEBYE_WALLER if debye_waller is None else float(debye_waller)
        positions = orbit(operations, [site.fract.x, site.fract.y, site.fract.z])
        orbits.append((site.label, site.element.name, float(site.occ), thermal, positions))
    if unknown and debye_waller is None:
        warnings.warn(
            f"{source.name} has no displacement of {unknown}: B = {USUAL_DEBYE_WALLER} angstrom squared is taken; "
            "give debye_waller=, or crystal.with_debye_waller({label: B})",
            UserWarning,
            stacklevel=4,
        )
    edges = (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    return edges, _merged(orbits), str(structure.name or source.stem)


def _operations(structure: Any) -> list[Any]:
    gemmi = gemmi_module()
    if structure.spacegroup is not None:
        return list(structure.spacegroup.operations())
    if structure.symops:
        return [gemmi.Op(text) for text in structure.symops]
    return [gemmi.Op("x,y,z")]


def _merged(orbits: Sequence[tuple[str, str, float, float, np.ndarray]]) -> tuple[Site, ...]:
    """Return a site for each place, with all that sits there."""
    places: list[tuple[list[str], dict[str, float], list[float], np.ndarray]] = []
    for label, element, occupancy, thermal, positions in orbits:
        for labels, held, thermals, own in places:
            if len(own) == len(positions) and any(apart(positions[0], other) < SAME for other in own):
                labels.append(label)
                held[element] = held.get(element, 0.0) + occupancy
                thermals.append(thermal)
                break
        else:
            places.append(([label], {element: occupancy}, [thermal], positions))
    return tuple(
        Site("/".join(labels), own, {key: min(value, 1.0) for key, value in held.items()}, float(np.mean(thermals)))
        for labels, held, thermals, own in places
    )
