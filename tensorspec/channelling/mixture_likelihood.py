"""The most likely amounts of known spectra on sites with known curves, beside backgrounds whose spectra are free."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tensorspec.algebra.block_pivoting import nonnegative

__all__ = ["most_likely_mixtures"]

STEPS, SETTLED = 60, 1e-9
# Of the mean of the counts: what an expected count is at least, so that no weight is infinite.
LEAST = 1e-4
RIDGE = 1e-12


def most_likely_mixtures(
    counts: Float[np.ndarray, "draws orientations channels"],
    curves: Float[np.ndarray, "sites orientations"],
    references: Float[np.ndarray, "references channels"],
    backgrounds: Float[np.ndarray, "backgrounds orientations"],
) -> tuple[Float[np.ndarray, "draws sites references"], Float[np.ndarray, "draws orientations channels"]]:
    """Maximise the likelihood of counts over the amount of each reference on each site, zero or more.

    Parameters
    ----------
    counts : (draws, orientations, channels) array
        One or more sets of counts; each is solved by itself.
    curves : (sites, orientations) array
        How strongly each site answers.
    references : (references, channels) array
        Known spectra.
    backgrounds : (backgrounds, orientations) array
        Curves whose spectra are free, of any sign; there may be none.

    Returns
    -------
    amounts : (draws, sites, references) array
        ``a`` of ``counts ~ Poisson(sum a[s, k] curve[s] reference[k] + sum background[b] spectrum[b])``.
    expected : (draws, orientations, channels) array
        The mean that belongs to them.

    Notes
    -----
    Fisher scoring: least squares weighted with the inverse expected counts, until amounts and weights agree. The
    spectra of the backgrounds are eliminated channel by channel.

    Examples
    --------
    >>> curves, references = np.array([[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]]), np.array([[4.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
    >>> mean = curves.T @ np.array([[1.0, 0.0], [0.5, 2.0]]) @ references
    >>> most_likely_mixtures(mean[np.newaxis], curves, references, np.empty((0, 3)))[0].round(6)
    array([[[1. , 0. ],
            [0.5, 2. ]]])
    """
    counts = np.asarray(counts, dtype=float)
    sites, kinds, behind = len(curves), len(references), len(backgrounds)
    every = np.concatenate([curves, backgrounds])
    pairs = np.einsum("so,to->sto", every, every).reshape(-1, every.shape[1])
    level = counts.mean(axis=(1, 2), keepdims=True)
    mean = counts.mean(axis=1, keepdims=True) * counts.mean(axis=2, keepdims=True) / np.maximum(level, 1e-300)
    amounts = np.zeros((len(counts), sites * kinds))
    for _ in range(STEPS):
        weights = 1 / np.maximum(mean, LEAST * np.maximum(level, 1e-300))
        moments = np.einsum("po,noc->npc", pairs, weights, optimize=True)
        moments = moments.reshape(len(counts), len(every), len(every), -1).transpose(0, 3, 1, 2)
        right = np.einsum("so,noc->ncs", every, weights * counts, optimize=True)
        inner, held = moments[..., :sites, :sites], right[..., :sites]
        across = np.zeros((*moments.shape[:2], behind, sites))
        if behind:
            across = np.linalg.solve(moments[..., sites:, sites:], moments[..., sites:, :sites])
            inner = inner - moments[..., :sites, sites:] @ across
            held = held - np.einsum("ncbs,ncb->ncs", across, right[..., sites:])
        gram = np.einsum("kc,lc,ncst->nsktl", references, references, inner, optimize=True)
        gram = gram.reshape(len(counts), sites * kinds, sites * kinds)
        gram = gram + RIDGE * np.trace(gram, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] * np.eye(sites * kinds)
        seen = np.einsum("kc,ncs->nsk", references, held, optimize=True).reshape(len(counts), -1)
        before, amounts = amounts, nonnegative(gram, seen)[0]
        spectra = np.einsum("nsk,kc->ncs", amounts.reshape(-1, sites, kinds), references)
        mean = np.einsum("so,ncs->noc", curves, spectra)
        if behind:
            free = np.linalg.solve(moments[..., sites:, sites:], right[..., sites:, np.newaxis])[..., 0]
            mean = mean + np.einsum("bo,ncb->noc", backgrounds, free - np.einsum("ncbs,ncs->ncb", across, spectra))
        if np.abs(amounts - before).max() <= SETTLED * np.abs(amounts).max(initial=1e-300):
            break
    return amounts.reshape(-1, sites, kinds), mean
