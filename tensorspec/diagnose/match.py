"""Which components of two fits are the same, and how alike they are: the factor match score."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from tensorspec.components import take
from tensorspec.errors import ModeMismatch, UnknownMode

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["Match", "compare", "match_factors", "reorder"]


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """How the components of two fits belong together.

    Attributes
    ----------
    score : float
        Factor match score: the mean congruence of the matched components, 1 where they are the same.
    permutation : tuple of int or None
        For each component of the first fit the number, from 1, of its partner in the second; None where the second has
        fewer components.
    congruences : (rank of the first,) ndarray
        Congruence of each pair, the magnitude of the product over the modes; NaN where there is no partner.
    by_mode : mapping of str to (rank of the first,) ndarray
        Signed cosine of each pair in each mode.
    """

    score: float
    permutation: tuple[int | None, ...]
    congruences: np.ndarray
    by_mode: Mapping[str, np.ndarray]


def match_factors(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], strengths: np.ndarray | None = None
) -> Match:
    """Match the columns of factors that are given as arrays, one a mode.

    Parameters
    ----------
    first, second : sequences of (size, rank) arrays
        The factors of the same modes in the same order; scales do not matter.  The ranks may differ.  Rows that are not
        finite in either are left out.
    strengths : (rank of the first, rank of the second) array, optional
        Further factors on the congruences, from 0 to 1.

    Returns
    -------
    match : Match
        Modes are named ``"0"``, ``"1"``, ...

    Raises
    ------
    ModeMismatch
        If the numbers of modes or their sizes differ.

    Notes
    -----
    The congruence of two components is the product over modes of the cosines between their columns, in magnitude; the
    assignment with the largest sum is found exactly [1]_.  A column of zeros is congruent to nothing.

    .. [1] Tomasi & Bro, "A comparison of algorithms for fitting the PARAFAC model", Comput. Stat. Data Anal. 50, 1700
       (2006), doi:10.1016/j.csda.2004.11.013.

    Examples
    --------
    >>> factor = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    >>> match = match_factors([factor], [factor[:, [2, 0, 1]]])
    >>> round(match.score, 12), match.permutation
    (1.0, (2, 3, 1))
    """
    if len(first) != len(second):
        raise ModeMismatch(f"the first has {len(first)} modes, the second {len(second)}")
    return _match({str(k): pair for k, pair in enumerate(zip(first, second, strict=True))}, strengths)


def compare(fit_a: Fit, fit_b: Fit, weights: bool = False) -> Match:
    """Match the components of two fits over all modes that both have.

    Parameters
    ----------
    fit_a, fit_b : Fit
        Fits of the same data, or of data that share modes; their ranks may differ.
    weights : bool
        Whether components of unequal strength count as less alike: each congruence is multiplied by
        ``1 - |a - b| / max(a, b)`` of the strengths of the pair, for every tensor that both fits have.

    Returns
    -------
    match : Match
        Of a fit with fewer components, the score is the mean over those that have a partner.

    Raises
    ------
    UnknownMode
        If the fits have no mode in common.
    ModeMismatch
        If a mode that both have differs in size.

    Examples
    --------
    >>> import xarray as xr
    >>> from tensorspec.assemble import assemble
    >>> data = {"data": xr.DataArray(np.eye(3), dims=("x", "energy_loss"))}
    >>> fit = assemble(data, {"pixel": np.eye(3), "energy_loss": np.eye(3)})
    >>> compare(fit, fit.select([3, 1])).permutation
    (2, None, 1)
    """
    shared = [mode for mode in fit_a.factors if mode in fit_b.factors]
    if not shared:
        raise UnknownMode(f"no mode in common: the fits have {list(fit_a.factors)} and {list(fit_b.factors)}")
    pairs = {mode: (_columns(fit_a, mode), _columns(fit_b, mode)) for mode in shared}
    strengths = np.ones((fit_a.rank, fit_b.rank))
    for name in fit_a.tensors if weights else ():
        if name in fit_b.tensors:
            a, b = np.abs(fit_a.strengths(name).values)[:, None], np.abs(fit_b.strengths(name).values)[None]
            largest = np.maximum(a, b)
            strengths = strengths * (1 - np.abs(a - b) / np.where(largest > 0, largest, 1))
    return _match(pairs, strengths)


def reorder(fit: Fit, other: Fit) -> Fit:
    """Return the other fit with its components in the order of those of `fit` that they resemble most.

    Components of `other` without a partner come last.  Columns whose sign is opposite are turned where the model stays
    the same by it, that is, in an even number of modes of each tensor.

    Parameters
    ----------
    fit, other : Fit
        The one whose order counts, and the one to change.

    Returns
    -------
    Fit

    Raises
    ------
    UnknownMode, ModeMismatch
        As `compare`.
    """
    match = compare(fit, other)
    partners = [number - 1 for number in match.permutation if number is not None]
    rest = [index for index in range(other.rank) if index not in partners]
    result = take(other, partners + rest)
    negative = {mode: np.zeros(other.rank, bool) for mode in other.factors}
    for mode, cosines in match.by_mode.items():
        negative[mode][: len(partners)] = cosines[[number is not None for number in match.permutation]] < 0
    even = np.all(
        [sum(negative[mode].astype(int) for mode in record.modes) % 2 == 0 for record in other.tensors.values()], axis=0
    )

    def turned(mode: str, factor: Any) -> Any:
        signs = np.where(even & negative[mode], -1, 1).astype(factor.dtype)
        return factor.copy(data=factor.values * signs.reshape(-1, *[1] * (factor.ndim - 1)))

    factors = {mode: turned(mode, factor) for mode, factor in result.factors.items()}
    views = {name: {mode: turned(mode, view) for mode, view in own.items()} for name, own in result.views.items()}
    return dataclasses.replace(result, factors=factors, views=views)


def _match(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], strengths: np.ndarray | None) -> Match:
    cosines = {mode: _cosines(first, second, mode) for mode, (first, second) in pairs.items()}
    product = np.prod(list(cosines.values()), axis=0)
    product = np.abs(product if strengths is None else product * strengths)
    rows, columns = linear_sum_assignment(product, maximize=True)
    partner = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    rank = len(product)

    def chosen(values: np.ndarray) -> np.ndarray:
        return np.array([values[row, partner[row]] if row in partner else np.nan for row in range(rank)])

    congruences = chosen(product)
    return Match(
        score=float(np.nanmean(congruences)),
        permutation=tuple(partner[row] + 1 if row in partner else None for row in range(rank)),
        congruences=congruences,
        by_mode={mode: chosen(values) for mode, values in cosines.items()},
    )


def _cosines(first: np.ndarray, second: np.ndarray, mode: str) -> np.ndarray:
    """Return the cosines between columns over the rows that are finite in both, shape (rank, rank)."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(first) != len(second):
        raise ModeMismatch(f"mode {mode!r} has {len(first)} points in the first, {len(second)} in the second")
    valid = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    return _unit(first[valid]).T @ _unit(second[valid])


def _unit(columns: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(columns, axis=0)
    return columns / np.where(norms > 0, norms, 1)


def _columns(fit: Fit, mode: str) -> np.ndarray:
    return fit.factors[mode].values.reshape(fit.rank, -1).T
