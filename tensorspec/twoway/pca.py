"""Principal component analysis of spectrum images, with the scaling that evens Poisson noise out."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.assemble import assemble
from tensorspec.errors import InvalidArgument, InvalidData, RankOutOfRange
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.solvers.status import Status
from tensorspec.twoway.matrix import Matrix, as_matrix
from tensorspec.twoway.signs import SIGN_RULE, signs_of
from tensorspec.twoway.singular import Decomposition, decompose

__all__ = ["PCA", "SCALE", "pca", "scaled_factors", "scales_of"]

SCALE = "poisson_scale"  # coordinate of a factor: what its scaled entries were multiplied by
EQUAL = 1e-6  # relative gap of singular values below which their components are one subspace
ROUNDING = 1e-13  # share of the largest singular value, for each row or column


@dataclass(frozen=True)
class PCA:
    """Settings of a principal component analysis, as `pca` takes them."""

    rank: int
    scaling: Literal["poisson"] | None = None
    center: bool = False
    method: str = "auto"


def pca(
    data: xr.DataArray,
    rank: int,
    scaling: Literal["poisson"] | None = None,
    center: bool = False,
    *,
    method: Literal["auto", "exact", "randomised"] = "auto",
    mask: xr.DataArray | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Fit:
    """Principal component analysis: the singular value decomposition of pixels x channels.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes, for instance ``(y, x, energy_loss)``; integers or floats.  Dask-backed data are
        read block by block, four times at most unless the method is randomised.
    rank : int
        Number of components.
    scaling : "poisson", optional
        Divide by the square root of the rank-one expectation first, so that the noise of counts has variance one
        everywhere (Keenan and Kotula).  Factors come back in the units of the data; they are no longer orthogonal,
        `scaled_factors` gives those that are.
    center : bool
        Subtract the mean spectrum first.  The fit is then one to the centred data, which it holds; the mean is in
        ``provenance["mean"]``.
    method : {"auto", "exact", "randomised"}
        ``auto`` is exact unless both modes have more than 8192 points.
    mask : DataArray of bool, optional
        True where data are used.  Whole pixels and whole channels can be left out; they come back NaN.
    modes : mapping of str to sequence of str, optional
        Dimensions that make up a mode, by mode name.
    seed : int
        Of the randomised method.

    Returns
    -------
    Fit
        Orthonormal factors, singular values as weights (without scaling).  ``explained`` is the *proportion of total
        variation*, the sum of squares about zero (after scaling, if any), or the *explained variance* where `center`;
        ``tensors["data"].explained_as`` says which.  ``provenance["singular_values"]`` has all singular values that
        are known, and with Poisson scaling ``provenance["noise_edge"]`` is the largest that noise of counts alone
        has, ``sqrt(rows) + sqrt(columns)``; `plot_scree` draws both.

    Raises
    ------
    InvalidData
        If the data are no real numbers, hold infinities, are all zero, miss single entries, or, with scaling, a pixel
        or channel has a negative total.
    InvalidArgument
        If `center` and `scaling` are given together: the scale is that of counts about zero.
    RankOutOfRange
        If there are fewer pixels or channels with signal than components.

    Warns
    -----
    UserWarning
        If the data have fewer components than asked, to rounding, or two of the singular values (or that of the last
        component and the first left out) agree to 1e-6: of such components only the space that they span is known.

    Notes
    -----
    With ``a`` the totals of the pixels, ``b`` those of the channels and ``s`` the grand total, ``X / sqrt(a b / s)``
    is decomposed; its largest singular value is ``sqrt(s)`` exactly, with vectors ``sqrt(a / s)`` and ``sqrt(b / s)``.
    Empty pixels and channels are left out and come back as zero.  The edge of the noise holds for counts; of data
    that are not (see `estimate_noise`) it says nothing, and two counts of a pixel in a channel that holds twenty
    lie above it too (`estimate_rank` sums such channels first).  Read ``fit.factors``: maps and spectra of the fit are
    sums, in which entries of both signs cancel (after scaling those of every component but the first are zero).
    Signs: the sum of the cubes of a spectrum is positive.

    References
    ----------
    Keenan and Kotula, Surface and Interface Analysis 36 (2004) 203, doi:10.1002/sia.1657.

    Examples
    --------
    >>> maps, spectra = np.array([[4.0, 0, 2], [0, 2, 1]]), np.array([[1.0, 1, 0, 2], [0, 1, 3, 0]])
    >>> data = xr.DataArray([maps.T @ spectra], dims=("y", "x", "energy_loss"), attrs={"units": "counts"})
    >>> fit = pca(data, 2, scaling="poisson")
    >>> bool(np.isclose(fit.provenance["singular_values"][0], np.sqrt(data.sum())))
    True
    >>> bool(np.allclose(fit.reconstruct(), data))
    True
    """
    began = time.monotonic()
    rank, seed = _checked(rank, scaling, center, method, seed)
    matrix = as_matrix("pca", data, mask, modes, keep_empty=center)
    if rank > min(matrix.shape):
        rows, columns = matrix.shape
        raise RankOutOfRange(
            f"pca: rank={rank}, but there are {rows} points of {matrix.row_mode!r} and {columns} of "
            f"{matrix.column_mode!r} with signal; give a rank of 1 to {min(matrix.shape)}"
        )
    row_scale, column_scale = scales_of("pca", matrix, scaling)
    mean = matrix.column_totals[matrix.used_columns] / matrix.shape[0] if center else 0.0

    def blocks() -> Any:
        for place, values in matrix.blocks():
            yield place, (values - mean) / (row_scale[place, np.newaxis] * column_scale)

    found = decompose(blocks, matrix.shape, rank, method, seed)
    if len(found.values) == min(matrix.shape):
        squares = float((found.values**2).sum())
    else:
        squares = sum(float((values**2).sum()) for _, values in blocks())
    if squares <= (1e-26 * matrix.squares if center else 0.0):
        raise InvalidData("pca: all spectra are equal: there is no variance about their mean")
    _warn(found.values, rank, matrix.shape)
    labels = matrix.labels[matrix.column_mode]
    known: dict[str, Any] = {"seed": seed, "method": found.method}
    tensor = matrix.data
    if center:
        spectrum = matrix.spread(np.reshape(mean, (-1, 1)), rows=False).reshape(labels.shape)
        known["mean"] = xr.DataArray(spectrum, dims=labels.dims, coords=dict(labels.coords), name="mean")
        centred = tensor - known["mean"].drop_vars(list(known["mean"].coords))
        tensor = centred.transpose(*tensor.dims).assign_attrs(
            {**tensor.attrs, "history": [*tensor.attrs.get("history", []), "pca: mean spectrum subtracted"]}
        )
    fit = _assembled(
        matrix, tensor, found, squares, (row_scale, column_scale), PCA(rank, scaling, center, method), modes
    )
    known["wall_seconds"] = round(time.monotonic() - began, 3)
    return dataclasses.replace(fit, provenance={**fit.provenance, **known})


def scaled_factors(fit: Fit) -> dict[str, xr.DataArray]:
    """Return the orthonormal factors of a principal component analysis, as they were before the scale was undone.

    Parameters
    ----------
    fit : Fit
        From `pca`.  Without scaling its factors are orthonormal themselves.

    Returns
    -------
    factors : dict of str to DataArray
        For each mode, dimensions ``(component, *the mode's own)``; the singular values belong between them.

    Examples
    --------
    >>> counts = xr.DataArray([[9, 1, 3], [2, 8, 0], [1, 4, 6]], dims=("x", "energy_loss"))
    >>> columns = scaled_factors(pca(counts, 3, scaling="poisson"))["energy_loss"]
    >>> (columns.values @ columns.values.T).round(12) + 0.0
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    found = {}
    for mode, factor in fit.factors.items():
        if SCALE in factor.coords:
            scale = factor[SCALE]
            scaled = xr.where(scale > 0, factor / scale.where(scale > 0, 1), factor).transpose(*factor.dims)
            norm = np.sqrt((scaled**2).sum(list(scaled.dims[1:])))
            factor = (scaled / norm.where(norm > 0, 1)).drop_vars(SCALE)
        found[mode] = factor
    return found


def _checked(rank: object, scaling: object, center: object, method: object, seed: object) -> tuple[int, int]:
    """Return rank and seed, or refuse what cannot be meant, before the data are read."""
    if scaling not in (None, "poisson"):
        raise InvalidArgument(f"pca: scaling={scaling!r}; expected None or 'poisson'")
    if scaling is not None and center:
        raise InvalidArgument(
            "pca: center=True and scaling='poisson' exclude each other: the scale is that of counts about zero; "
            "give one of them"
        )
    if method not in ("auto", "exact", "randomised"):
        raise InvalidArgument(f"pca: method={method!r}; expected 'auto', 'exact' or 'randomised'")
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or rank < 1:
        raise RankOutOfRange(f"pca: rank={rank!r}; expected a whole number of components, 1 or more")
    return int(rank), whole("seed", seed, 0)


def scales_of(function: str, matrix: Matrix, scaling: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what the entries are divided by, as one vector for the used rows and one for the used columns.

    Parameters
    ----------
    function : str
        Who asks, for messages.
    matrix : Matrix
        The data.
    scaling : str or None
        ``"poisson"``, or nothing, which gives ones.

    Raises
    ------
    InvalidData
        If a row or column with signal has a total of zero or less, and is to be scaled.
    """
    if scaling is None:
        return np.ones(matrix.shape[0]), np.ones(matrix.shape[1])
    totals = matrix.row_totals[matrix.used_rows], matrix.column_totals[matrix.used_columns]
    for mode, own in zip((matrix.row_mode, matrix.column_mode), totals, strict=True):
        if (own <= 0).any():
            raise InvalidData(
                f"{function}: Poisson scaling needs counts, but {int((own <= 0).sum())} of the {len(own)} points of "
                f"{mode!r} with signal have a total of zero or less; leave them out with mask=, or leave scaling out"
            )
    # The grand total is split evenly over the two.
    root = np.sqrt(totals[0].sum())
    return np.sqrt(totals[0] / root), np.sqrt(totals[1] / root)


def _warn(values: np.ndarray, rank: int, shape: tuple[int, int]) -> None:
    """Warn of components that the data do not determine."""
    real = int((values > ROUNDING * max(shape) * values[0]).sum())
    if real < rank:
        warnings.warn(
            f"pca: the data have {real} components to rounding: those after {real} are arbitrary; give rank={real}",
            UserWarning,
            stacklevel=3,
        )
    leading = values[: min(rank + 1, real)]
    close = np.flatnonzero(np.diff(leading) > -EQUAL * leading[:-1])
    if close.size:
        pairs = ", ".join(f"{at + 1} and {at + 2}" for at in close)
        warnings.warn(
            f"pca: the singular values of components {pairs} are equal: only the space that they span is known, "
            "not the components themselves",
            UserWarning,
            stacklevel=3,
        )


def _assembled(
    matrix: Matrix,
    tensor: xr.DataArray,
    found: Decomposition,
    squares: float,
    scales: tuple[np.ndarray, np.ndarray],
    model: PCA,
    modes: Mapping[str, Sequence[str]] | None,
) -> Fit:
    """Return the decomposition with labels, in the units of the data."""
    rank, (row_scale, column_scale) = model.rank, scales
    signs = signs_of(found.right)
    left, right = found.left * signs, found.right * signs
    factors = {
        matrix.row_mode: matrix.spread(left * row_scale[:, np.newaxis], rows=True),
        matrix.column_mode: matrix.spread(right * column_scale[:, np.newaxis], rows=False),
    }
    explained = float((found.values[:rank] ** 2).sum()) / squares
    loss = LeastSquares(scaling=model.scaling)
    mask = matrix.mask()
    order = {"order": np.arange(1, len(found.values) + 1)}
    values = xr.DataArray(found.values, dims="order", coords=order, name="singular_values")
    provenance: dict[str, Any] = {
        "singular_values": values,
        "sum_of_squares": squares,
        "signs": SIGN_RULE,
        "input_sha256": {"data": matrix.digest},
    }
    if model.scaling == "poisson":
        provenance["noise_edge"] = float(np.sqrt(matrix.shape[0]) + np.sqrt(matrix.shape[1]))
    fit = assemble(
        {"data": tensor},
        {mode: factors[mode] for mode in matrix.labels},
        found.values[:rank],
        modes=modes,
        records={
            "data": {
                "explained": explained,
                "explained_as": "explained variance" if model.center else "proportion of total variation",
                "loss": constructor_repr(loss),
            }
        },
        model=model,
        losses={"data": loss},
        solver="SVD",
        why=found.method,
        status=Status.CONVERGED,
        objective=max(squares - float((found.values[:rank] ** 2).sum()), 0.0) / 2,
        provenance=provenance,
        masks={} if mask is None else {"data": mask},
    )
    if model.scaling is None:
        return fit
    marked = {}
    for mode, scale, rows in ((matrix.row_mode, row_scale, True), (matrix.column_mode, column_scale, False)):
        labels = matrix.labels[mode]
        whole_scale = matrix.spread(scale[:, np.newaxis], rows).reshape(labels.shape)
        marked[mode] = fit.factors[mode].assign_coords({SCALE: (labels.dims, whole_scale)})
    return dataclasses.replace(fit, factors={mode: marked[mode] for mode in fit.factors})
