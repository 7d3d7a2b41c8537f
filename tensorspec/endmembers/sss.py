"""Signal subspace sampling: the spectra of zero or more that the signal subspace holds, without sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorspec.endmembers.vca import leading_vectors

__all__ = ["SubspaceSpectra", "cloud", "subspace_spectra"]

# Standard deviations of a channel by which a spectrum may be below zero there.
BELOW = 3.0
RUNS, SWEEPS = 2, 6
# Change of the volume of the simplex below which moving its vertices has settled.
SETTLED = 1e-6


@dataclass(frozen=True, eq=False)
class SubspaceSpectra:
    """Endmembers of a signal subspace.

    Attributes
    ----------
    spectra : (rank, channels) array
        Unit sum, zero or more.
    vertices : (rank, rank) array
        Their coordinates in the basis.
    basis : (channels, rank) array
        Of the signal subspace, in data units.
    beyond : (rank,) array
        How far the spectra allowed reach beyond the simplex of the endmembers opposite to each, as a share of one: zero
        where the endmembers are the only corners.
    """

    spectra: np.ndarray
    vertices: np.ndarray
    basis: np.ndarray
    beyond: np.ndarray


def subspace_spectra(matrix: np.ndarray, rank: int, admitted: np.ndarray, seed: int) -> SubspaceSpectra:
    """Return the corners of all non-negative spectra of unit sum that the signal subspace of counts holds.

    Parameters
    ----------
    matrix : (pixels, channels) float64 array
        Counts; no row and no column is all zero.
    rank : int
        Number of endmembers.
    admitted : (channels,) array of bool
        Channels in which a spectrum has to be zero or more.
    seed : int
        Of the first directions.

    Returns
    -------
    SubspaceSpectra

    Notes
    -----
    The basis V is that of Poisson-scaled data, brought back to counts. Spectra ``V a`` with ``V a >= -tau`` in the
    admitted channels and unit sum are a polytope, tau being three standard deviations of a channel. Its corner in a
    given direction is the answer of a linear programme: the limit of infinitely many samples. Corners are taken as in
    vertex component analysis, by directions orthogonal to those found, and then moved one at a time to where the volume
    of their simplex is largest.

    Where every component is alone in some admitted channel the polytope is the simplex of the true spectra, whether or
    not there is a pure pixel; else it is larger, and the answer an outer bound.

    References
    ----------
    J. Spiegelberg et al., Ultramicroscopy 182 (2017) 205, doi:10.1016/j.ultramic.2017.07.009.
    """
    basis = _subspace(matrix, rank)
    rows, total = matrix.sum(axis=0), float(matrix.sum())
    tolerance = BELOW * np.sqrt(np.maximum(rows, 1)) / total
    sums = basis.sum(axis=0)
    bounds = (basis[admitted], tolerance[admitted], sums)
    rng = np.random.default_rng(seed)
    best, largest = None, -1.0
    for _ in range(RUNS if rank > 1 else 1):
        vertices = _corners(bounds, rank, rng)
        volume = abs(np.linalg.det(vertices))
        if volume > largest:
            best, largest = vertices, volume
    assert best is not None
    vertices = _spread_out(best, bounds)
    inverse = np.linalg.pinv(vertices.T)
    beyond = np.array([max(0.0, -float(inverse[k] @ _lowest(inverse[k], bounds))) for k in range(rank)])
    spectra = np.maximum(vertices @ basis.T, 0)
    return SubspaceSpectra(spectra / spectra.sum(axis=1, keepdims=True), vertices, basis, beyond)


def cloud(found: SubspaceSpectra, matrix: np.ndarray) -> np.ndarray:
    """Return where the pixels lie among the endmembers: shares that add up to one, (pixels, rank).

    Parameters
    ----------
    found : SubspaceSpectra
        Endmembers.
    matrix : (pixels, channels) array
        Counts.
    """
    own = matrix @ np.linalg.pinv(found.basis).T
    shares = own @ np.linalg.pinv(found.vertices)
    total = shares.sum(axis=1, keepdims=True)
    return shares / np.where(np.abs(total) > 0, total, 1)


def _subspace(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return a basis of the signal subspace, from data whose noise is even, in data units."""
    a, b = matrix.sum(axis=1), matrix.sum(axis=0)
    scaled = matrix / np.sqrt(np.outer(a, b) / matrix.sum())
    basis = leading_vectors(scaled, rank) * np.sqrt(b)[:, None]
    # Positive sums, and one direction that is not orthogonal to a sum of one.
    return basis / np.linalg.norm(basis, axis=0)


def _lowest(direction: np.ndarray, bounds: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the allowed coordinates with the smallest product with a direction."""
    from scipy.optimize import linprog

    rows, tolerance, sums = bounds
    found = linprog(
        direction, A_ub=-rows, b_ub=tolerance, A_eq=sums[None], b_eq=[1.0], bounds=(None, None), method="highs"
    )
    if found.status == 0:
        return found.x
    raise ArithmeticError("unbounded" if found.status == 3 else "infeasible")


def _corners(bounds: tuple[np.ndarray, np.ndarray, np.ndarray], rank: int, rng: np.random.Generator) -> np.ndarray:
    found = np.zeros((0, rank))
    for _ in range(rank):
        direction = rng.standard_normal(rank)
        if len(found):
            direction = direction - np.linalg.pinv(found) @ (found @ direction)
        candidates = [_lowest(direction, bounds), _lowest(-direction, bounds)]
        found = np.vstack([found, max(candidates, key=lambda point: abs(float(direction @ point)))])
    return found


def _spread_out(vertices: np.ndarray, bounds: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Move one vertex after the other to where the volume is largest: it is linear in each."""
    vertices, volume = vertices.copy(), abs(np.linalg.det(vertices))
    for _ in range(SWEEPS):
        before = volume
        for k in range(len(vertices)):
            cofactors = np.array(
                [np.linalg.det(np.vstack([vertices[:k], row, vertices[k + 1 :]])) for row in np.eye(len(vertices))]
            )
            for sign in (1, -1):
                moved, size = _with(vertices, k, _lowest(sign * cofactors, bounds))
                if abs(size) > volume:
                    vertices, volume = moved, abs(size)
        if volume <= (1 + SETTLED) * before:
            break
    return vertices


def _with(vertices: np.ndarray, k: int, row: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the vertices with another in place of one, and their determinant."""
    moved = np.vstack([vertices[:k], row, vertices[k + 1 :]])
    return moved, float(np.linalg.det(moved))
