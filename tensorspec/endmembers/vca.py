"""Vertex component analysis: the purest pixels, by projections onto random directions."""

from __future__ import annotations

import numpy as np

__all__ = ["leading_vectors", "purest_pixels", "simplex_volume", "vertex_components"]

RUNS = 20
# Pixels whose projection is below this share of the median are dark: dividing by it would throw them far out.
DARK = 0.01


def vertex_components(matrix: np.ndarray, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectra of the purest pixels, freed from what lies outside of the signal subspace.

    Parameters
    ----------
    matrix : (pixels, channels) float64 array
        Data; no row is all zero.
    rank : int
        Number of endmembers.
    seed : int
        Of the directions; the best of twenty runs is kept, by the volume of the simplex.

    Returns
    -------
    spectra : (rank, channels) array
        Data units.
    pixels : (rank,) array of int
        Their rows.

    Notes
    -----
    J. M. P. Nascimento and J. M. Bioucas-Dias, IEEE Transactions on Geoscience and Remote Sensing 43 (2005) 898,
    doi:10.1109/TGRS.2005.844293: projective projection where the signal stands above the noise by more than
    ``15 + 10 log10(rank)`` dB, else an orthogonal one, to one dimension less.

    Examples
    --------
    >>> pure = np.array([[4.0, 1, 0], [0, 1, 3]])
    >>> shares = np.array([[0.5, 0.5], [1, 0], [0.2, 0.8], [0, 1]])
    >>> spectra, pixels = vertex_components(shares @ pure, 2, 0)
    >>> sorted(pixels.tolist())
    [1, 3]
    """
    if rank == 1:
        mean = matrix.mean(axis=0)
        nearest = int(np.argmax(matrix @ mean / np.maximum(np.linalg.norm(matrix, axis=1), 1e-300)))
        return mean[None], np.array([nearest])
    denoised, coordinates, usable = _projected(matrix, rank)
    rng = np.random.default_rng(seed)
    best, largest = None, -1.0
    for _ in range(RUNS):
        chosen = purest_pixels(coordinates, usable, rng)
        volume = simplex_volume(coordinates[chosen])
        if volume > largest:
            best, largest = chosen, volume
    assert best is not None
    return denoised(best), best


def purest_pixels(coordinates: np.ndarray, usable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows that lie farthest out, one after the other, in directions orthogonal to those before.

    Parameters
    ----------
    coordinates : (pixels, rank) array
        Points of an affine subspace that does not hold the origin.
    usable : (pixels,) array of bool
        Which of them may be chosen.
    rng : Generator
        Source of the directions.
    """
    rank = coordinates.shape[1]
    found = np.zeros((rank, rank))
    found[-1, 0] = 1
    chosen: list[int] = []
    for place in range(rank):
        for _ in range(10):
            direction = rng.standard_normal(rank)
            direction -= found @ (np.linalg.pinv(found) @ direction)
            length = np.linalg.norm(direction)
            if length < 1e-12:
                continue
            far = np.where(usable, np.abs(coordinates @ (direction / length)), -1.0)
            far[chosen] = -1.0
            pixel = int(np.argmax(far))
            break
        else:
            pixel = int(np.flatnonzero(usable)[0])
        chosen.append(pixel)
        found[:, place] = coordinates[pixel]
    return np.array(chosen)


def simplex_volume(vertices: np.ndarray) -> float:
    """Return the volume of the simplex of some points with the origin, up to a factor."""
    return float(abs(np.linalg.det(vertices)))


def _projected(matrix: np.ndarray, rank: int):
    """Return what gives the denoised spectra of rows, their coordinates, and which rows may be chosen."""
    pixels, channels = matrix.shape
    mean = matrix.mean(axis=0)
    centred = matrix - mean
    within = leading_vectors(centred, rank)
    total = float((matrix**2).sum()) / pixels
    signal = float(((centred @ within) ** 2).sum()) / pixels + float(mean @ mean)
    noise = total - signal
    above = signal - rank / channels * total
    ratio = np.inf if noise <= 0 else -np.inf if above <= 0 else 10 * np.log10(above / noise)
    everywhere = np.ones(pixels, dtype=bool)
    if ratio < 15 + 10 * np.log10(rank):
        basis = within[:, : rank - 1]
        x = centred @ basis
        height = np.linalg.norm(x, axis=1).max(initial=1e-300)
        return lambda rows: x[rows] @ basis.T + mean, np.column_stack([x, np.full(pixels, height)]), everywhere
    basis = leading_vectors(matrix, rank)
    x = matrix @ basis
    scale = x @ x.mean(axis=0)
    usable = scale > DARK * np.median(scale)
    projected = x / np.where(usable, scale, 1)[:, None]
    return lambda rows: x[rows] @ basis.T, projected, usable


def leading_vectors(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return the leading right singular vectors, (channels, rank)."""
    rows, channels = matrix.shape
    if channels <= rows:
        return np.linalg.eigh(matrix.T @ matrix)[1][:, ::-1][:, :rank]
    vectors = np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]
    return np.linalg.qr(matrix.T @ vectors)[0]
