"""Crystal structures: a cell, and sites with what sits on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np

from tensorspec.arguments import number
from tensorspec.errors import (
    InvalidArgument,
    InvalidData,
    MissingDependency,
    UnknownName,
    suggest,
)

__all__ = ["Crystal", "Site"]

# Two positions nearer than this, in parts of the cell, are one.
SAME = 1e-3
# B = 8 pi^2 <u^2>, angstrom squared, where a file says nothing: usual for oxides at room temperature.
USUAL_DEBYE_WALLER = 0.5


@dataclass(frozen=True, eq=False)
class Site:
    """Positions of a crystal that are occupied alike.

    Attributes
    ----------
    label : str
        What it is called.
    positions : (atoms, 3) array
        In parts of the cell edges, 0 to 1.
    occupants : mapping of str to float
        Elements and their occupancies; what is missing from one is vacant.
    debye_waller : float
        ``B = 8 pi^2 <u^2>``, angstrom squared.
    """

    label: str
    positions: np.ndarray
    occupants: Mapping[str, float]
    debye_waller: float

    def __post_init__(self) -> None:
        """Refuse what no site can be."""
        positions = np.asarray(self.positions, dtype=float)
        if positions.ndim != 2 or positions.shape[1:] != (3,) or not len(positions) or not np.isfinite(positions).all():
            raise InvalidArgument(
                f"site {self.label!r}: positions of shape {positions.shape}; expected (atoms, 3), parts of the cell"
            )
        own = {}
        for element, occupancy in self.occupants.items():
            named = f"site {self.label!r}: occupancy of {element}"
            own[str(element_of(str(element), f"site {self.label!r}: ").name)] = number(named, occupancy, 0, 1)
        if sum(own.values()) > 1 + 1e-6:
            raise InvalidArgument(
                f"site {self.label!r}: occupancies {own} add up to {sum(own.values()):.4g}, above one"
            )
        object.__setattr__(self, "positions", _inside(positions))
        object.__setattr__(self, "occupants", MappingProxyType(own))
        number(f"site {self.label!r}: debye_waller", self.debye_waller, 0, 20)

    def __repr__(self) -> str:
        held = ", ".join(f"{element} {occupancy:g}" for element, occupancy in self.occupants.items()) or "vacant"
        return f"Site({self.label!r}: {len(self.positions)} x ({held}), B={self.debye_waller:g})"


@dataclass(frozen=True, eq=False)
class Crystal:
    """A crystal structure: cell edges and angles, and sites.

    Attributes
    ----------
    cell : tuple of float
        ``a, b, c`` in angstrom, ``alpha, beta, gamma`` in degrees.
    sites : tuple of Site
        With different labels.
    name : str
        For titles.

    Examples
    --------
    >>> silicon = Crystal.from_space_group(
    ...     "F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8, 1/8, 1/8), {"Si": 1.0}, 0.463)}
    ... )
    >>> silicon.sites
    (Site('Si': 8 x (Si 1), B=0.463),)
    >>> round(silicon.volume, 2), round(silicon.length((2, 2, 0)), 4)
    (160.1, 0.5209)
    """

    cell: tuple[float, float, float, float, float, float]
    sites: tuple[Site, ...]
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse cells and sites that cannot be."""
        cell = tuple(float(value) for value in self.cell)
        lengths_right = len(cell) == 6 and all(np.isfinite(cell)) and min(cell[:3]) > 0.5
        if not lengths_right or not all(10 < angle < 170 for angle in cell[3:]) or not self._square(cell) > 0:
            raise InvalidData(
                f"crystal {self.name!r}: cell {cell}; expected a, b, c in angstrom and alpha, beta, gamma in degrees"
            )
        if not self.sites:
            raise InvalidData(f"crystal {self.name!r} has no sites")
        labels = [site.label for site in self.sites]
        if len(set(labels)) != len(labels):
            raise InvalidArgument(f"crystal {self.name!r}: sites {labels}; expected different labels")
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "sites", tuple(self.sites))

    @staticmethod
    def _square(cell: Sequence[float]) -> float:
        ca, cb, cg = np.cos(np.deg2rad(cell[3:]))
        return float(1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg)

    @classmethod
    def from_cif(cls, path: str | PathLike[str], *, debye_waller: float | None = None) -> Crystal:
        """Read a CIF file.

        Parameters
        ----------
        path : path
            The file.
        debye_waller : float, optional
            ``B`` of the sites for which the file has none, angstrom squared; by default 0.5, with a warning.

        Returns
        -------
        Crystal
            A site for every orbit of the file, called by its label; labels in one place are one site with mixed
            occupation, called by all of them.

        Raises
        ------
        MissingFile, UnreadableFile
            If there is no such file, or it is no CIF.
        InvalidData
            If it has no cell or no atoms.
        MissingDependency
            If gemmi is not installed.
        """
        from tensorspec.channelling.structure_file import read_structure

        cell, sites, name = read_structure(path, debye_waller)
        return cls(cell, sites, name)

    @classmethod
    def from_space_group(
        cls, space_group: str, cell: Sequence[float], sites: Mapping[str, tuple[Any, ...]], name: str = ""
    ) -> Crystal:
        """Build a structure from one position of every site.

        Parameters
        ----------
        space_group : str
            Hermann-Mauguin symbol, with the origin choice where there are two: ``"F d -3 m:2"``.
        cell : sequence of float
            ``a, b, c`` in angstrom, ``alpha, beta, gamma`` in degrees.
        sites : mapping of str to tuple
            For each label the position, the occupants, and ``B`` in angstrom squared (0.5 where it is left out).
        name : str
            For titles.

        Raises
        ------
        UnknownName
            If there is no such space group.

        Examples
        --------
        >>> cell = (8.17,) * 3 + (90,) * 3
        >>> sites = {"8a": ((1/8,) * 3, {"Li": 1}), "16d": ((1/2,) * 3, {"Mn": 1}), "32e": ((0.263,) * 3, {"O": 1})}
        >>> spinel = Crystal.from_space_group("F d -3 m:2", cell, sites)
        >>> [len(site.positions) for site in spinel.sites]
        [8, 16, 32]
        """
        gemmi = gemmi_module()
        group = gemmi.find_spacegroup_by_name(space_group)
        if group is None:
            raise UnknownName(f"no space group {space_group!r}; expected a Hermann-Mauguin symbol such as 'F d -3 m:2'")
        operations = list(group.operations())
        built = []
        for label, (position, occupants, *thermal) in sites.items():
            positions = orbit(operations, list(map(float, position)))
            built.append(Site(label, positions, occupants, float(thermal[0]) if thermal else USUAL_DEBYE_WALLER))
        a, b, c, alpha, beta, gamma = map(float, cell)
        return cls((a, b, c, alpha, beta, gamma), tuple(built), name)

    @property
    def metric(self) -> np.ndarray:
        """Rows are the reciprocal axes in a Cartesian frame, one over angstrom, without two pi: ``hkl @ metric``."""
        return np.linalg.inv(self.axes).T

    @property
    def axes(self) -> np.ndarray:
        """Rows are the cell edges in a Cartesian frame, angstrom."""
        a, b, c = self.cell[:3]
        alpha, beta, gamma = np.deg2rad(self.cell[3:])
        along = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
        up = np.sqrt(max(1 - np.cos(beta) ** 2 - along**2, 0.0))
        return np.array(
            [
                [a, 0, 0],
                [b * np.cos(gamma), b * np.sin(gamma), 0],
                [c * np.cos(beta), c * along, c * up],
            ]
        )

    @property
    def volume(self) -> float:
        """Volume of the cell, cubic angstrom."""
        return float(abs(np.linalg.det(self.axes)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the sites."""
        return tuple(site.label for site in self.sites)

    @property
    def elements(self) -> tuple[str, ...]:
        """All elements, in the order of the sites."""
        return tuple(dict.fromkeys(element for site in self.sites for element in site.occupants))

    def length(self, indices: Sequence[float] | np.ndarray) -> float:
        """Return the length of a reciprocal vector, one over angstrom, without two pi."""
        return float(np.linalg.norm(np.asarray(indices, dtype=float) @ self.metric))

    def site(self, label: str) -> Site:
        """Return a site by its label.

        Raises
        ------
        UnknownName
            If there is none.
        """
        for each in self.sites:
            if each.label == label:
                return each
        raise UnknownName(f"no site {label!r}; this crystal has {list(self.labels)}.{suggest(label, self.labels)}")

    def amount(self, element: str) -> float:
        """Return how many atoms of an element the cell has."""
        return sum(len(site.positions) * site.occupants.get(element, 0.0) for site in self.sites)

    def occupy(self, occupants: Mapping[str, Mapping[str, float]]) -> Crystal:
        """Return the crystal with other occupants of some sites, by label.

        Examples
        --------
        >>> silicon = Crystal((5.43,) * 3 + (90,) * 3, (Site("Si", np.zeros((1, 3)), {"Si": 1}, 0.5),))
        >>> silicon.occupy({"Si": {"Si": 0.7, "Ge": 0.3}}).elements
        ('Si', 'Ge')
        """
        for label in occupants:
            self.site(label)
        sites = tuple(
            dataclasses.replace(site, occupants=dict(occupants[site.label])) if site.label in occupants else site
            for site in self.sites
        )
        return dataclasses.replace(self, sites=sites)

    def relabel(self, labels: Mapping[str, str]) -> Crystal:
        """Return the crystal with other labels of some sites."""
        for label in labels:
            self.site(label)
        sites = tuple(dataclasses.replace(site, label=labels.get(site.label, site.label)) for site in self.sites)
        return dataclasses.replace(self, sites=sites)

    def with_debye_waller(self, values: Mapping[str, float]) -> Crystal:
        """Return the crystal with other ``B`` of some sites, angstrom squared."""
        for label in values:
            self.site(label)
        sites = tuple(
            dataclasses.replace(site, debye_waller=float(values.get(site.label, site.debye_waller)))
            for site in self.sites
        )
        return dataclasses.replace(self, sites=sites)

    def split(self, label: str, parts: Mapping[str, Sequence[int]]) -> Crystal:
        """Return the crystal with the positions of a site in several, by their numbers, counted from 0.

        Raises
        ------
        InvalidArgument
            If a position is in no part or in two.
        """
        site = self.site(label)
        numbers = sorted(number for own in parts.values() for number in own)
        if numbers != list(range(len(site.positions))):
            raise InvalidArgument(
                f"split of {label!r}: parts {dict(parts)}; expected each of 0 to {len(site.positions) - 1} once"
            )
        new = [
            dataclasses.replace(site, label=name, positions=site.positions[list(own)]) for name, own in parts.items()
        ]
        place = self.labels.index(label)
        return dataclasses.replace(self, sites=(*self.sites[:place], *new, *self.sites[place + 1 :]))


def gemmi_module() -> Any:
    """Return gemmi, or say how to install it."""
    try:
        import gemmi
    except ImportError:
        raise MissingDependency(
            'crystal structures need gemmi, which is not installed; type: pip install "tensorspec[channelling]"'
        ) from None
    return gemmi


def element_of(name: str | int, where: str = "") -> Any:
    """Return what gemmi knows of an element, by its symbol or atomic number, or refuse it."""
    known = gemmi_module().Element(name)
    if known.atomic_number < 1:
        raise UnknownName(f"{where}no element {name!r}; expected a symbol such as 'Mn'")
    return known


def _inside(positions: np.ndarray) -> np.ndarray:
    wrapped = positions - np.floor(positions + SAME / 10)
    return np.where(np.abs(wrapped) < SAME / 10, 0.0, wrapped)


def orbit(operations: Sequence[Any], position: Sequence[float]) -> np.ndarray:
    """Return all positions that symmetry makes of one."""
    moved = _inside(np.array([operation.apply_to_xyz(list(position)) for operation in operations]))
    kept: list[np.ndarray] = []
    for each in moved:
        if not any(apart(each, other) < SAME for other in kept):
            kept.append(each)
    return np.array(kept)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Return how far two positions are from each other, in parts of the cell, whole cells not counted."""
    difference = first - second
    return float(np.abs(difference - np.rint(difference)).max())
