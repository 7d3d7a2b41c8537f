"""Which orientations are scanned, and which diffracted beams take part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorspec.arguments import number, whole
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import bragg_angle, wavelength
from tensorspec.errors import InvalidArgument, InvalidData

__all__ = ["Scan", "over_directions", "systematic_row", "zone_axis"]

# Directions of a convergent beam: at least so many, to so many standard deviations.
FEWEST_DIRECTIONS, FARTHEST = 41, 5.0


@dataclass(frozen=True, eq=False)
class Scan:
    """Orientations of the beam, and the beams that are computed for all of them.

    Attributes
    ----------
    beam_energy : float
        keV.
    tilts : mapping of str to array
        Coordinates of the orientations along ``tilt_x``, and ``tilt_y`` where there are two, mrad.
    beams : (beams, 3) array of int
        Indices of the reflections; the first is the direct beam.
    plane : (beams, 2) array
        The same in the plane of the tilts, one over angstrom.
    name : str
        Row or zone axis.
    frame : (2, 3) array
        Cartesian directions of ``tilt_x`` and ``tilt_y`` in the frame of `Crystal.metric`.
    larger : callable
        Gives the scan with a quarter more beams in each direction, at tilts of one's own: whether it changes anything
        says whether there are enough.
    """

    beam_energy: float
    tilts: dict[str, np.ndarray]
    beams: np.ndarray
    plane: np.ndarray
    name: str
    frame: np.ndarray = field(repr=False)
    larger: Callable[[dict[str, np.ndarray]], Scan] = field(repr=False)

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the orientations."""
        return tuple(self.tilts)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many orientations there are along each."""
        return tuple(len(values) for values in self.tilts.values())

    @property
    def transverse(self) -> np.ndarray:
        """Transverse part of the incident wave vector of every orientation, (orientations, 2), one over angstrom."""
        wave_number = 1 / wavelength(self.beam_energy)
        grids = np.meshgrid(*(1e-3 * values * wave_number for values in self.tilts.values()), indexing="ij")
        along = dict(zip(self.dims, (grid.ravel() for grid in grids), strict=True))
        size = len(grids[0].ravel())
        return np.stack([along.get("tilt_x", np.zeros(size)), along.get("tilt_y", np.zeros(size))], axis=1)

    def with_tilts(self, **tilts: np.ndarray) -> Scan:
        """Return the scan with other orientations, mrad, the beams kept."""
        new = {name: np.asarray(tilts.get(name, values), dtype=float) for name, values in self.tilts.items()}
        return dataclasses.replace(self, tilts=new)


def over_directions(values: np.ndarray, scan: Scan, convergence: float, first: int = 0) -> np.ndarray:
    """Return values averaged over the directions of a convergent beam; the ends of the scan go on as they are.

    Parameters
    ----------
    values : array
        The orientations of the scan in consecutive axes.
    scan : Scan
        Its tilts; between them values go on as a cubic spline.
    convergence : float
        Standard deviation of the beam's directions, mrad; 0 leaves the values as they are.
    first : int
        The first of these axes.

    Examples
    --------
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = systematic_row(silicon, (2, 2, 0), np.linspace(-8, 8, 33), 200)
    >>> over_directions(scan.tilts["tilt_x"] ** 2, scan, 0.5)[16].round(4)  # the mean square of the directions
    np.float64(0.25)
    """
    from scipy.interpolate import CubicSpline

    if number("convergence (mrad)", convergence, 0, 20) == 0:
        return values
    for axis, tilts in enumerate(scan.tilts.values(), start=first):
        if len(tilts) < 3:
            continue
        nodes = max(FEWEST_DIRECTIONS, int(np.ceil(8 * FARTHEST * convergence / np.diff(tilts).min())))
        away = np.linspace(-FARTHEST, FARTHEST, nodes)
        weights = np.exp(-0.5 * away**2)
        spline = CubicSpline(tilts, np.eye(len(tilts)))
        there = np.clip(tilts[:, np.newaxis] + convergence * away, tilts[0], tilts[-1])
        matrix = np.einsum("k,tkn->tn", weights / weights.sum(), spline(there))
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def systematic_row(
    crystal: Crystal,
    reflection: Sequence[int] | np.ndarray,
    tilts: Sequence[float] | np.ndarray,
    beam_energy: float,
    *,
    orders: int = 8,
    in_bragg_angles: bool = False,
) -> Scan:
    """Return a scan across a systematic row: tilts along one reflection, far from all others.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    reflection : sequence of int
        Indices of the lowest reflection of the row; its multiples are the beams.
    tilts : sequence of float
        Angles along it, mrad, rising; zero is the symmetric orientation. At a tilt of minus the Bragg angle the
        reflection itself is excited.
    beam_energy : float
        keV.
    orders : int
        The beams are the multiples from minus to plus this.
    in_bragg_angles : bool
        Whether `tilts` are in units of the Bragg angle of the reflection.

    Returns
    -------
    Scan
        With the dimension ``tilt_x``.

    Raises
    ------
    InvalidArgument
        If the reflection has no length, tilts do not rise, or lie farther out than the beams reach.

    Examples
    --------
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = systematic_row(silicon, (2, 2, 0), np.linspace(-2, 2, 5), 200, orders=3, in_bragg_angles=True)
    >>> scan.tilts["tilt_x"].round(2), len(scan.beams)
    (array([-13.06,  -6.53,   0.  ,   6.53,  13.06]), 7)
    """
    row = _indices("reflection", reflection)
    orders = whole("orders", orders, 1)
    length = crystal.length(row)
    angle = bragg_angle(beam_energy, length)
    values = _rising("tilts", tilts) * (angle if in_bragg_angles else 1.0)
    multiples = np.array(sorted(range(-orders, orders + 1), key=lambda n: (abs(n), -n)))
    if np.abs(values).max() > 0.75 * orders * angle:
        far = np.abs(values).max()
        raise InvalidArgument(
            f"tilts reach {far:.3g} mrad, {far / angle:.3g} Bragg angles of {tuple(row.tolist())}; "
            f"with orders={orders} the beams hold to {0.75 * orders:.3g}: give more orders, or fewer tilts"
        )
    plane = np.stack([multiples * length, np.zeros(len(multiples))], axis=1)
    direction = row @ crystal.metric / length
    frame = np.stack([direction, np.zeros(3)])
    name = f"row ({' '.join(map(str, row.tolist()))})"

    def larger(tilts: dict[str, np.ndarray]) -> Scan:
        return systematic_row(crystal, row, tilts["tilt_x"], beam_energy, orders=int(np.ceil(1.25 * orders)))

    beams = multiples[:, np.newaxis] * row
    return Scan(float(beam_energy), {"tilt_x": values}, beams, plane, name, frame, larger)


def zone_axis(
    crystal: Crystal,
    axis: Sequence[int] | np.ndarray,
    tilts: Sequence[float] | np.ndarray | tuple[np.ndarray, np.ndarray],
    beam_energy: float,
    *,
    x: Sequence[int] | np.ndarray | None = None,
    largest: float = 2.0,
    excitation: float = 0.1,
) -> Scan:
    """Return a scan of two tilts about a zone axis.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    axis : sequence of int
        ``[u v w]`` of the zone axis.
    tilts : array or pair of arrays
        Angles, mrad, rising, for both directions; or those along y and those along x.
    beam_energy : float
        keV.
    x : sequence of int, optional
        Reflection of the zone along which ``tilt_x`` runs; by default the shortest.
    largest : float
        Longest reciprocal vector, one over angstrom.
    excitation : float
        Largest excitation error, one over angstrom, of a beam in the orientation in which it is smallest.

    Returns
    -------
    Scan
        With the dimensions ``tilt_y`` and ``tilt_x``. Only reflections of the zone take part (no higher-order Laue
        zone), and those that no orientation excites are left out.

    Raises
    ------
    InvalidArgument
        If the axis is zero, or `x` is not a reflection of the zone.

    Examples
    --------
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = zone_axis(silicon, (0, 0, 1), np.linspace(-8, 8, 3), 200, largest=1.2)
    >>> scan.shape, len(scan.beams)
    ((3, 3), 37)
    """
    direction = _indices("axis", axis)
    number("largest", largest, 0.1, 6)
    number("excitation", excitation, 0, above=True)
    both: Any = tilts if isinstance(tilts, tuple) else (tilts, tilts)
    if len(both) != 2:
        raise InvalidArgument(f"tilts: {len(both)} arrays; expected one, or those along y and those along x")
    values = {"tilt_y": _rising("tilts", both[0]), "tilt_x": _rising("tilts", both[1])}
    reach = [int(np.ceil(largest * edge)) for edge in np.linalg.norm(crystal.axes, axis=1)]
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[grid @ direction == 0]
    vectors = grid @ crystal.metric
    lengths = np.linalg.norm(vectors, axis=1)
    near = lengths <= largest
    grid, vectors, lengths = grid[near], vectors[near], lengths[near]
    there = _not_extinct(crystal, grid)
    grid, vectors, lengths = grid[there], vectors[there], lengths[there]
    if len(grid) < 3:
        raise InvalidArgument(f"axis {tuple(direction)}: fewer than three reflections up to {largest:g} per angstrom")
    if x is None:
        others = np.flatnonzero(lengths > 0)
        across = grid[others[np.lexsort((-grid[others] @ [10000, 100, 1], lengths[others].round(9)))[0]]]
    else:
        across = _indices("x", x)
        if across @ direction:
            raise InvalidArgument(f"x={tuple(across)} is no reflection of the zone [{' '.join(map(str, direction))}]")
    first = across @ crystal.metric
    first = first / np.linalg.norm(first)
    beam = direction @ crystal.axes
    second = np.cross(beam / np.linalg.norm(beam), first)
    frame = np.stack([first, second])
    plane = vectors @ frame.T
    wave_number = 1 / wavelength(beam_energy)
    corners = (
        1e-3 * wave_number * np.array([[a, b] for a in _thinned(values["tilt_x"]) for b in _thinned(values["tilt_y"])])
    )
    error = np.abs(2 * corners @ plane.T + lengths**2) / (2 * wave_number)
    taken = error.min(axis=0) <= excitation
    order = np.lexsort((grid[taken][:, 0], lengths[taken].round(9)))

    def larger(tilts: dict[str, np.ndarray]) -> Scan:
        own = (tilts["tilt_y"], tilts["tilt_x"])
        return zone_axis(
            crystal, direction, own, beam_energy, x=across, largest=1.25 * largest, excitation=1.25 * excitation
        )

    return Scan(
        float(beam_energy),
        values,
        grid[taken][order],
        plane[taken][order],
        f"zone [{' '.join(map(str, direction))}]",
        frame,
        larger,
    )


def _thinned(values: np.ndarray) -> np.ndarray:
    return values[np.unique(np.linspace(0, len(values) - 1, min(len(values), 15)).round().astype(int))]


def _not_extinct(crystal: Crystal, grid: np.ndarray) -> np.ndarray:
    """Return which reflections the lattice has: not those that centring forbids, whatever the atoms are.

    Reflections that a glide or screw forbids take part: they are excited from others.
    """
    phases = grid @ _centring(crystal).T
    return np.all(np.abs(phases - np.rint(phases)) < 1e-6, axis=1)


def _centring(crystal: Crystal) -> np.ndarray:
    """Return the translations that leave all sites as they are, in parts of the cell."""
    first = min((site for site in crystal.sites), key=lambda site: len(site.positions))
    found = []
    for candidate in first.positions - first.positions[0]:
        if all(_maps_onto(site.positions, candidate) for site in crystal.sites):
            found.append(candidate)
    return np.array(found)


def _maps_onto(positions: np.ndarray, shift: np.ndarray) -> bool:
    moved = positions + shift
    difference = moved[:, np.newaxis] - positions[np.newaxis]
    return bool((np.abs(difference - np.rint(difference)).max(axis=2).min(axis=1) < 1e-3).all())


def _indices(name: str, value: Sequence[int] | np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != (3,) or array.dtype.kind not in "iu" or not array.any():
        raise InvalidArgument(f"{name}={value!r}; expected three whole numbers, not all zero, such as (4, 0, 0)")
    return array.astype(int)


def _rising(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise InvalidArgument(f"{name}: expected rising angles in mrad, one dimension")
    if np.abs(array).max() > 200:
        raise InvalidData(f"{name} reach {np.abs(array).max():.3g} mrad; expected at most 200: are they in mrad?")
    return array
