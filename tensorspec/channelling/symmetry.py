"""Orientations that symmetry makes equal: each is computed once."""

from __future__ import annotations

from itertools import product

import numpy as np

from tensorspec.channelling.beams import Scan
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.scattering import structure_factors

__all__ = ["distinct_orientations", "plane_symmetries"]

SAME = 1e-6


def plane_symmetries(crystal: Crystal, scan: Scan) -> list[np.ndarray]:
    """Return the turns and mirrors of the plane of the tilts that leave the projected crystal, and each site, as it is.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    scan : Scan
        Orientations and beams; of a row only its mirror is asked about.

    Returns
    -------
    list of (2, 2) arrays
        The identity first; along the axes of the tilts and their diagonals, as far as beams are mapped onto beams.

    Examples
    --------
    >>> from tensorspec.channelling.beams import zone_axis
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> len(plane_symmetries(silicon, zone_axis(silicon, (0, 0, 1), [-1.0, 0, 1], 200, largest=1.0)))
    8
    """
    difference = (scan.beams[np.newaxis] - scan.beams[:, np.newaxis]).reshape(-1, 3)
    distinct = np.unique(difference, axis=0)
    plane = distinct @ crystal.metric @ scan.frame.T
    potential, _ = structure_factors(crystal, distinct, scan.beam_energy, absorption=False)
    waves = [np.exp(-2j * np.pi * distinct @ site.positions.T).mean(axis=1) for site in crystal.sites]
    strength = np.abs(potential) / np.abs(potential).max()
    found = [np.eye(2)]
    swaps = [np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]])] if len(scan.dims) == 2 else [np.eye(2)]
    for swap, first, second in product(swaps, (1.0, -1.0), (1.0, -1.0)):
        turn = np.diag([first, second]) @ swap
        if (turn == np.eye(2)).all() or (len(scan.dims) == 1 and second < 0):
            continue
        beams, moved = _places(scan.plane, scan.plane @ turn.T), _places(plane, plane @ turn.T)
        if beams is None or moved is None or not _same(potential, waves, distinct, strength, moved):
            continue
        found.append(turn)
    return found


def distinct_orientations(scan: Scan, turns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return which orientations have to be computed, and for each orientation which of them it equals.

    Parameters
    ----------
    scan : Scan
        Orientations.
    turns : list of (2, 2) arrays
        From `plane_symmetries`.

    Examples
    --------
    >>> from tensorspec.channelling.beams import systematic_row
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = systematic_row(silicon, (2, 2, 0), [-2.0, 0.0, 2.0], 200)
    >>> chosen, equal = distinct_orientations(scan, [np.eye(2), np.diag([-1.0, 1.0])])
    >>> len(chosen), bool(equal[0] == equal[2])
    (2, True)
    """
    points = scan.transverse
    scale = max(float(np.abs(points).max()), 1e-12)
    # Of all orientations that are alike the same one stands for each.
    images = np.stack([np.rint(points @ turn.T / scale / SAME).astype(np.int64) for turn in turns], axis=1)
    order = images[..., 0] * (4 * int(1 / SAME)) + images[..., 1]
    chosen = images[np.arange(len(points)), order.argmin(axis=1)]
    _, first, back = np.unique(chosen, axis=0, return_index=True, return_inverse=True)
    return first, back.ravel()


def _places(points: np.ndarray, moved: np.ndarray) -> np.ndarray | None:
    """Return where each moved point is among the points, or None where one is not there."""
    scale = max(float(np.abs(points).max()), 1e-12)
    keys = {tuple(row): k for k, row in enumerate(np.rint(points / scale / SAME).astype(np.int64).tolist())}
    found = np.empty(len(moved), int)
    for k, row in enumerate(np.rint(moved / scale / SAME).astype(np.int64).tolist()):
        # Rounding may fall to either side.
        near = (keys.get((row[0] + a, row[1] + b)) for a, b in product((0, 1, -1), repeat=2))
        place = next((each for each in near if each is not None), None)
        if place is None:
            return None
        found[k] = place
    return found


def _same(
    potential: np.ndarray, waves: list[np.ndarray], distinct: np.ndarray, strength: np.ndarray, moved: np.ndarray
) -> bool:
    """Return whether potential and sites are mapped onto themselves, moved as a whole if need be."""
    if np.abs(np.abs(potential[moved]) - np.abs(potential)).max() > SAME * np.abs(potential).max():
        return False
    strong = np.flatnonzero((strength > 1e-3) & np.any(distinct != 0, axis=1))
    turned = np.zeros(len(distinct))
    turned[strong] = np.angle(potential[moved[strong]] / potential[strong]) / (2 * np.pi)
    # A move of the whole crystal turns each wave in proportion to its vector: whole multiples of an eighth are tried.
    for eighths in product(range(8), repeat=3):
        phase = distinct @ (np.array(eighths) / 8)
        if np.abs(np.exp(2j * np.pi * (turned[strong] - phase[strong])) - 1).max(initial=0) > 1e-3:
            continue
        factor = np.exp(2j * np.pi * phase)
        if all(np.abs(wave[moved] - factor * wave).max() < 1e-3 for wave in waves):
            return True
    return False
