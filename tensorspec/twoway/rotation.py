"""Rotate the components of a fit: by a matrix of your own, or to the simplest maps or spectra (varimax)."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from tensorspec.arguments import number, whole
from tensorspec.errors import InvalidArgument, UnknownMode, suggest
from tensorspec.modes import split
from tensorspec.pieces import refuse_evolving
from tensorspec.solution import Fit
from tensorspec.solvers.status import Status
from tensorspec.twoway.pca import SCALE
from tensorspec.twoway.signs import signs_of

__all__ = ["Rotation", "orthomax", "rotate", "turned", "two_columns", "varimax"]

STARTS = 6
LARGEST_CONDITION = 1e12


def rotate(fit: Fit, T: Any, mode: str | None = None) -> Fit:
    """Rotate the components of a fit by any invertible matrix; the model of the data stays what it is.

    Parameters
    ----------
    fit : Fit
        Of one tensor with two modes; with ``C`` its maps, strengths included, and ``S`` its spectra.
    T : (rank, rank) array
        The new spectra are ``S @ T``; the new maps are ``C @ inv(T).T``, so that ``C S^T`` does not change.
    mode : str, optional
        The mode whose columns are multiplied by `T`, by default that of the spectra.

    Returns
    -------
    Fit
        Components in the order of the columns of `T`, columns at unit norm.  What a constraint of the fit demanded
        need not hold any more.

    Raises
    ------
    InvalidArgument
        If `T` is not a square matrix of that size, not finite or not invertible, or the fit has not two modes.
    UnknownMode
        If there is no such mode.

    Examples
    --------
    >>> from tensorspec.assemble import assemble
    >>> data = xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("x", "energy_loss"))
    >>> fit = assemble({"data": data}, {"pixel": np.eye(3)[:, :2], "energy_loss": np.eye(4)[:, :2]})
    >>> turned = rotate(fit, [[1.0, 2.0], [0.0, 1.0]])
    >>> bool(np.allclose(turned.reconstruct(), fit.reconstruct()))
    True
    """
    _two_modes("rotate", fit)
    mode = _mode_of("rotate", fit, mode)
    matrix = np.asarray(T)
    if matrix.shape != (fit.rank, fit.rank) or matrix.dtype.kind not in "biuf":
        raise InvalidArgument(
            f"rotate: T has shape {matrix.shape}; this fit has {fit.rank} components: give real numbers of shape "
            f"({fit.rank}, {fit.rank})"
        )
    matrix = matrix.astype(float)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > LARGEST_CONDITION:
        raise InvalidArgument("rotate: T is not invertible, or not finite: the maps are those of its inverse")
    return turned(fit, mode, matrix, "rotation by a given matrix", sort=False)


def varimax(
    fit: Fit,
    mode: str | None = None,
    *,
    gamma: float = 1.0,
    normalise: bool = False,
    max_iterations: int = 500,
    tol: float = 1e-13,
    seed: int = 0,
) -> Fit:
    """Rotate components orthogonally until their maps, or their spectra, are as simple as they can be.

    Parameters
    ----------
    fit : Fit
        Of one tensor with two modes, usually from `pca`.
    mode : str, optional
        The mode that becomes simple: by default that of the maps (spatial simplicity, for samples of separate phases);
        name that of the spectra for spectral simplicity.
    gamma : float
        0 to 1: 1 is varimax, 0 quartimax, between them orthomax.
    normalise : bool
        Kaiser's normalisation: every pixel (or channel) counts the same.
    max_iterations : int
        Never exceeded.
    tol : float
        Relative change of the sum of singular values at which the iteration ends.
    seed : int
        Of the random starts: the first start is the fit itself, five more are random rotations, and the best of all is
        kept, as the criterion has stationary points that are no maximum (two components of equal strength).

    Returns
    -------
    Fit
        The same model of the data; components sorted by energy; the factor of `mode` is made of orthogonal
        combinations. `status` is `MAX_SWEEPS` where the iteration did not end.  Negative values stay: it is a start
        for ``ts.fit`` (``start=ts.From(...)``) rather than an end.

    Raises
    ------
    InvalidArgument
        If the fit has not two modes, or a setting is out of its range.
    UnknownMode
        If there is no such mode.

    Warns
    -----
    UserWarning
        If `max_iterations` was reached.

    Notes
    -----
    Maximises ``sum_j [mean_i b_ij^4 - gamma (mean_i b_ij^2)^2]`` over ``B = A W``, W orthogonal (Kaiser 1958,
    doi:10.1007/BF02289233).  After Poisson scaling the scaled factor is rotated, where noise is even.  Rotating maps:
    Keenan, Surface and Interface Analysis 41 (2009) 79, doi:10.1002/sia.2949.

    Examples
    --------
    >>> from tensorspec.twoway.pca import pca
    >>> maps = np.array([[3.0, 3, 0, 0, 0], [0, 0, 2, 2, 2]])
    >>> data = xr.DataArray(maps.T @ np.array([[4.0, 1, 1], [1, 1, 4]]), dims=("x", "energy_loss"))
    >>> simple = varimax(pca(data, 2), "pixel")
    >>> (simple.maps() / simple.maps().max("x")).values.round(4) + 0.0
    array([[1., 1., 0., 0., 0.],
           [0., 0., 1., 1., 1.]])
    """
    _two_modes("varimax", fit)
    mode = fit.map_mode() if mode is None else _mode_of("varimax", fit, mode)
    gamma, tol = number("varimax: gamma", gamma, 0, 1), number("varimax: tol", tol, 0)
    columns, _ = two_columns(fit, mode)
    found = orthomax(
        np.nan_to_num(columns),
        gamma,
        normalise,
        whole("varimax: max_iterations", max_iterations, 1),
        tol,
        whole("varimax: seed", seed, 0),
    )
    if not found.settled:
        warnings.warn(
            f"varimax: not settled after {max_iterations} iterations; raise max_iterations", UserWarning, stacklevel=2
        )
    result = turned(fit, mode, found.matrix, f"varimax of {mode!r} (gamma {gamma:g})", sort=True)
    return result if found.settled else dataclasses.replace(result, status=Status.MAX_SWEEPS)


class Rotation(NamedTuple):
    """An orthogonal matrix, its criterion, iterations, and whether they ended by themselves."""

    matrix: np.ndarray
    value: float
    iterations: int
    settled: bool


def orthomax(
    columns: np.ndarray, gamma: float, normalise: bool, max_iterations: int, tol: float, seed: int
) -> Rotation:
    """Return the orthogonal matrix that makes columns simplest, the best of several starts.

    Parameters
    ----------
    columns : (size, rank) array
        Finite.
    gamma, normalise, max_iterations, tol, seed
        As `varimax` takes them.
    """
    size, rank = columns.shape
    if normalise:
        length = np.linalg.norm(columns, axis=1, keepdims=True)
        columns = columns / np.where(length > 0, length, 1)
    # A sum over columns instead of a mean, and a root mean square of one, keep all figures near one.
    scale = np.sqrt((columns**2).mean())
    columns = columns / scale if scale > 0 else columns
    rng, best = np.random.default_rng(seed), None
    for start in range(STARTS if rank > 1 else 1):
        turn = np.eye(rank) if start == 0 else np.linalg.qr(rng.standard_normal((rank, rank)))[0]
        found = _ascend(columns, turn, gamma, max_iterations, tol)
        if best is None or found.value > best.value * (1 + 1e-9):
            best = found
    assert best is not None
    return best


def turned(fit: Fit, mode: str, matrix: np.ndarray, step: str, sort: bool) -> Fit:
    """Return the fit with the columns of one mode times a matrix, those of the other times its inverse, transposed.

    Parameters
    ----------
    fit : Fit
        Of one tensor with two modes.
    mode : str
        The mode that is multiplied.
    matrix : (rank, rank) array
        Invertible.
    step : str
        For the record.
    sort : bool
        Whether components are sorted by energy and given signs by the house's rule.
    """
    own, other = two_columns(fit, mode)
    partner = next(each for each in fit.modes if each != mode)
    new = {mode: own @ matrix, partner: other @ np.linalg.inv(matrix).T}
    for each in new:
        scale = _scale_of(fit, each)
        new[each] = new[each] if scale is None else new[each] * scale[:, np.newaxis]
    norms = {each: np.sqrt(np.nansum(columns**2, axis=0)) for each, columns in new.items()}
    weights = norms[mode] * norms[partner]
    unit = {each: columns / np.where(norms[each] > 0, norms[each], 1) for each, columns in new.items()}
    order, signs = np.arange(fit.rank), np.ones(fit.rank)
    if sort:
        order = np.argsort(-weights, kind="stable")
        signs = signs_of(unit[fit.signal_mode()])
    weights = weights[order]
    unit = {each: (columns * signs)[:, order] for each, columns in unit.items()}
    factors = {}
    for each in fit.factors:
        factor = split(unit[each].T, fit.modes[each])
        old = fit.factors[each]
        factors[each] = factor.assign_coords({SCALE: old[SCALE]}) if SCALE in old.coords else factor
    strengths = xr.DataArray(
        weights, dims="component", coords={"component": np.arange(1, fit.rank + 1)}, name="weights"
    )
    note = {"step": step, "components": list(range(1, fit.rank + 1))}
    known = {"rotation": (matrix * signs)[:, order], "component_order": [int(each) + 1 for each in order]}
    return dataclasses.replace(
        fit,
        factors=factors,
        weights=strengths,
        recipe={},
        provenance={**fit.provenance, **known, "derived": [*fit.provenance.get("derived", []), note]},
    )


def two_columns(fit: Fit, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of a mode, and those of the other with the strengths: (size, rank) each, scaled if the fit is.

    The columns of a mode of Poisson-scaled components are those before the scale was undone; both have the product
    that the scaled data have.
    """
    found = []
    for each in (mode, next(other for other in fit.modes if other != mode)):
        columns = fit.factors[each].values.reshape(fit.rank, -1).T.astype(float)
        scale = _scale_of(fit, each)
        found.append(columns if scale is None else columns / np.where(scale > 0, scale, 1)[:, np.newaxis])
    norm = np.sqrt(np.nansum(found[0] ** 2, axis=0))
    norm = np.where(norm > 0, norm, 1)
    return found[0] / norm, found[1] * (norm * fit.strengths().values)


def _scale_of(fit: Fit, mode: str) -> np.ndarray | None:
    """Return the Poisson scale of a mode, if its factor has one, with ones where there is no signal."""
    factor = fit.factors[mode]
    if SCALE not in factor.coords:
        return None
    scale = factor[SCALE].values.ravel().astype(float)
    return np.where(scale > 0, scale, 1.0)


def _ascend(columns: np.ndarray, turn: np.ndarray, gamma: float, max_iterations: int, tol: float) -> Rotation:
    """Iterate from one start: the singular vectors of the gradient are the next rotation."""
    total, settled, iteration = 0.0, False, 0
    rotated = columns @ turn
    for iteration in range(1, max_iterations + 1):  # noqa: B007 (told in the result)
        gradient = columns.T @ (rotated**3 - gamma * rotated * (rotated**2).mean(axis=0))
        left, values, right = np.linalg.svd(gradient)
        turn = left @ right
        rotated = columns @ turn
        new = float(values.sum())
        settled = abs(new - total) <= tol * new
        if settled:
            break
        total = new
    squares = rotated**2
    value = float(((squares**2).mean(axis=0) - gamma * squares.mean(axis=0) ** 2).sum())
    return Rotation(turn, value, iteration, settled)


def _two_modes(function: str, fit: Fit) -> None:
    """Refuse fits whose components are not the columns of two matrices."""
    if not isinstance(fit, Fit):
        raise InvalidArgument(f"{function}: expected a Fit, as ts.pca and ts.fit give; got a {type(fit).__name__}")
    refuse_evolving(fit, function, "there are no two matrices to rotate")
    if len(fit.tensors) != 1 or len(fit.modes) != 2 or fit.cores or fit.views:
        raise InvalidArgument(
            f"{function} takes a fit of one tensor with two modes; this one has tensors {list(fit.tensors)} and modes "
            f"{list(fit.modes)}{' and a core' if fit.cores else ''}"
        )


def _mode_of(function: str, fit: Fit, mode: str | None) -> str:
    """Return a mode that exists; None means that of the spectra."""
    if mode is None:
        return fit.signal_mode()
    if mode not in fit.modes:
        raise UnknownMode(f"{function}: no mode {mode!r}; this fit has {list(fit.modes)}.{suggest(mode, fit.modes)}")
    return mode
