"""Several sets of spectra to start an alternating method from."""

from __future__ import annotations

import numpy as np

from tensorspec.endmembers.spa import successive_projections
from tensorspec.endmembers.vca import leading_vectors, vertex_components
from tensorspec.twoway.rotation import orthomax

__all__ = ["spectra_to_start_from"]


def spectra_to_start_from(values: np.ndarray, rank: int, seed: int) -> dict[str, np.ndarray]:
    """Return spectra by the name of the method that found them.

    Parameters
    ----------
    values : (pixels, channels) float64 array
        Data without empty rows.
    rank : int
        Number of components.
    seed : int
        Of the methods that draw.

    Returns
    -------
    spectra : dict of str to (channels, rank) array
        Of zero or more where the data are.

    Examples
    --------
    >>> maps, spectra = np.eye(2)[np.arange(8) % 2], np.array([[1.0, 2, 0], [0, 1, 3]])
    >>> list(spectra_to_start_from(maps @ spectra, 2, 0))[:3]
    ['vertex components', 'successive projections', 'varimax']
    """
    found = {
        "vertex components": vertex_components(values, rank, seed)[0].T,
        "successive projections": successive_projections(values, rank)[0].T,
    }
    basis = leading_vectors(values, rank)
    turned = basis @ orthomax(basis, 1.0, False, 500, 1e-10, seed).matrix
    found["varimax"] = turned * np.where(turned.sum(axis=0) < 0, -1.0, 1.0)
    rng = np.random.default_rng(seed)
    for number in (1, 2):
        found[f"random pixels {number}"] = values[rng.choice(len(values), rank, replace=False)].T
    if (values < 0).any():
        return found
    floor = 1e-6 * values.mean()
    return {name: np.maximum(spectra, floor) for name, spectra in found.items()}
