"""Components of one fit that are nearly the same, or that cancel each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["Pair", "alike", "likeness_advice"]

ALIKE, OPPOSED = 0.95, -0.85


class Pair(NamedTuple):
    """Two components, numbers from 1, and the product of the cosines between them over the modes of a tensor."""

    first: int
    second: int
    congruence: float


def alike(fit: Fit) -> list[Pair]:
    """Return the pairs of components that a tensor can hardly tell apart, the worst first.

    Parameters
    ----------
    fit : Fit
        Of a model without a core.

    Returns
    -------
    list of Pair
        Those with a congruence above 0.95: one component twice; and those below -0.85: two that cancel, which grow
        without bound where a model is degenerate. Of several tensors the one that tells them best apart counts.

    Notes
    -----
    The congruence is the product over the modes of the cosines between two columns, Tucker's coefficient; two-factor
    degeneracies: Kruskal, Harshman and Lundy 1989; Lorenzo-Seva and ten Berge, Methodology 2 (2006) 57,
    doi:10.1027/1614-2241.2.2.57, for 0.95.

    Examples
    --------
    >>> import xarray as xr
    >>> from tensorspec.assemble import assemble
    >>> data = {"data": xr.DataArray(np.ones((3, 4)), dims=("x", "energy_loss"))}
    >>> maps, spectra = np.array([[1.0, 1, 0], [0, 0, 1], [1, 1.1, 0]]), np.eye(4)[:, [0, 0, 1]]
    >>> [(pair.first, pair.second) for pair in alike(assemble(data, {"pixel": maps, "energy_loss": spectra}))]
    [(1, 2)]
    """
    if fit.cores or fit.weights is None or fit.rank < 2:
        return []
    found = []
    for name, record in fit.tensors.items():
        product = np.ones((fit.rank, fit.rank))
        for mode in record.modes:
            columns = np.nan_to_num(fit.seen(name, mode).values.reshape(fit.rank, -1).astype(float))
            norm = np.linalg.norm(columns, axis=1, keepdims=True)
            unit = columns / np.where(norm > 0, norm, 1)
            product *= unit @ unit.T
        signs = np.sign(fit.strengths(name).values)
        found.append(product * np.outer(signs, signs))
    least = np.take_along_axis(np.array(found), np.abs(found).argmin(axis=0)[np.newaxis], axis=0)[0]
    pairs = [
        Pair(int(i) + 1, int(j) + 1, float(least[i, j]))
        for i, j in zip(*np.triu_indices(fit.rank, 1), strict=True)
        if least[i, j] > ALIKE or least[i, j] < OPPOSED
    ]
    return sorted(pairs, key=lambda pair: -abs(pair.congruence))


def likeness_advice(fit: Fit) -> list[str]:
    """Return what to do about such pairs, a sentence each.

    Examples
    --------
    >>> import xarray as xr
    >>> from tensorspec.assemble import assemble
    >>> data = {"data": xr.DataArray(np.ones((2, 2)), dims=("x", "energy_loss"))}
    >>> likeness_advice(assemble(data, {"pixel": np.ones((2, 2)), "energy_loss": np.ones((2, 2))}))
    ['components 1 and 2 are the same to 1.00 (congruence): try one component fewer, or merge them']
    """
    sentences = []
    for first, second, congruence in alike(fit):
        if congruence > 0:
            text = "are the same to {:.2f} (congruence): try one component fewer, or merge them"
        else:
            text = (
                "cancel each other (congruence {:.2f}): the model is degenerate; try a lower rank, or constraints such "
                "as ts.NonNegative()"
            )
        sentences.append(f"components {first} and {second} " + text.format(congruence))
    return sentences
