"""Successive projections: the pixels that lie farthest from the span of those before."""

from __future__ import annotations

import numpy as np

from tensorspec.endmembers.vca import leading_vectors

__all__ = ["successive_projections"]

# Rows whose sum is below this share of the median are dark, and mostly noise.
DARK = 0.01


def successive_projections(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectra of pixels found one after the other, and which pixels they are; no random numbers.

    Parameters
    ----------
    matrix : (pixels, channels) float64 array
        Data; no row is all zero.
    rank : int
        Number of endmembers.

    Returns
    -------
    spectra : (rank, channels) array
        Data units, freed from what lies outside of the signal subspace.
    pixels : (rank,) array of int
        Their rows.

    Notes
    -----
    M. C. U. Araújo et al., Chemometrics and Intelligent Laboratory Systems 57 (2001) 65,
    doi:10.1016/S0169-7439(01)00119-8; robust to noise: N. Gillis and S. A. Vavasis, IEEE Transactions on Pattern
    Analysis and Machine Intelligence 36 (2014) 698, doi:10.1109/TPAMI.2013.226.  Spectra are brought to unit sum first,
    so that thickness does not count as purity.

    Examples
    --------
    >>> pure = np.array([[4.0, 1, 0], [0, 1, 3]])
    >>> shares = np.array([[0.5, 0.5], [1, 0], [0.2, 0.8], [0, 1]])
    >>> sorted(successive_projections(shares @ pure, 2)[1].tolist())
    [1, 3]
    """
    basis = leading_vectors(matrix, rank)
    scores = matrix @ basis
    sums = matrix.sum(axis=1)
    usable = sums > DARK * np.median(sums)
    residual = np.where(usable[:, None], scores / np.where(usable, sums, 1)[:, None], 0.0)
    chosen: list[int] = []
    for _ in range(rank):
        lengths = (residual**2).sum(axis=1)
        lengths[chosen] = -1.0
        pixel = int(np.argmax(lengths))
        direction = residual[pixel] / max(np.linalg.norm(residual[pixel]), 1e-300)
        residual = residual - np.outer(residual @ direction, direction)
        chosen.append(pixel)
    return scores[chosen] @ basis.T, np.array(chosen)
