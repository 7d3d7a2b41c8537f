"""Endmember spectra from the geometry of the data: purest pixels, or the corners of what can be a spectrum at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.endmembers.spa import successive_projections
from tensorspec.endmembers.sss import SubspaceSpectra, cloud, subspace_spectra
from tensorspec.endmembers.vca import vertex_components
from tensorspec.errors import InvalidArgument, InvalidData, RankOutOfRange
from tensorspec.prepare.channels import mask_channels
from tensorspec.twoway.matrix import Matrix, as_matrix

__all__ = ["shares_among", "spa", "sss", "vca"]

# Relative errors of the sum over all pixels up to which a channel may constrain: all three are tried.
RELATIVE = (0.05, 0.02, 0.01)
# Degrees by which endmembers may differ between them, and the share that the purest pixel has of a pure one.
STABLE, PURE = 2.0, 0.95
ROUNDING = 1e-3


def vca(data: xr.DataArray, rank: int, *, mask: xr.DataArray | None = None, seed: int = 0) -> xr.DataArray:
    """Vertex component analysis: the spectra of the purest pixels.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes; integers or floats, lazy or not. It is held in memory as float64.
    rank : int
        Number of endmembers.
    mask : DataArray of bool, optional
        True where data are used; whole pixels and whole channels can be left out.
    seed : int
        Of the directions.

    Returns
    -------
    spectra : DataArray, (component, signal dimensions)
        In the units of the data, freed from what lies outside of the signal subspace; `tensorspec.unmix` makes maps of
        them. ``attrs["pixels"]`` holds where each was found.

    Raises
    ------
    RankOutOfRange
        If there are fewer pixels or channels with signal than endmembers.
    InvalidData, InvalidArgument
        If the data are no spectrum image of two modes.

    Notes
    -----
    Leave pixels that are nearly empty out with `mask`: they may lie far out by noise alone.
    Every component needs a pixel in which it is alone. Without one the result is a mixture, and nothing says so: on
    simulated images whose largest share is 0.8 it is 9 to 13 degrees off (`sss` is right there if each component has
    a channel of its own). Nascimento and Bioucas-Dias 2005, doi:10.1109/TGRS.2005.844293; the best of twenty runs.

    Examples
    --------
    >>> pure = np.array([[4.0, 1, 0], [0, 1, 3]])
    >>> shares = np.array([[0.5, 0.5], [1, 0], [0.2, 0.8], [0, 1]])
    >>> found = vca(xr.DataArray(shares @ pure, dims=("x", "energy_loss")), 2)
    >>> sorted((found.values.round(6) + 0.0).tolist(), reverse=True)
    [[4.0, 1.0, 0.0], [0.0, 1.0, 3.0]]
    """
    matrix, values = _read("vca", data, rank, mask)
    spectra, pixels = vertex_components(values, rank, whole("vca: seed", seed, 0))
    return _labelled(matrix, spectra, f"vca: {rank} purest pixels", pixels=_places(matrix, pixels))


def spa(data: xr.DataArray, rank: int, *, mask: xr.DataArray | None = None) -> xr.DataArray:
    """Successive projection algorithm: the spectra of pixels that are farthest from all before. No random numbers.

    Parameters
    ----------
    data, rank, mask
        As `vca` takes them.

    Returns
    -------
    spectra : DataArray, (component, signal dimensions)
        As `vca`.

    Raises
    ------
    RankOutOfRange, InvalidData, InvalidArgument
        As `vca`.

    Notes
    -----
    It needs pure pixels too. Araújo et al. 2001, doi:10.1016/S0169-7439(01)00119-8; Gillis and Vavasis 2014,
    doi:10.1109/TPAMI.2013.226.

    Examples
    --------
    >>> pure = np.array([[4.0, 1, 0], [0, 1, 3]])
    >>> shares = np.array([[0.5, 0.5], [1, 0], [0.2, 0.8], [0, 1]])
    >>> spa(xr.DataArray(shares @ pure, dims=("x", "energy_loss")), 2).attrs["pixels"]
    [{'x': 1}, {'x': 3}]
    """
    matrix, values = _read("spa", data, rank, mask)
    spectra, pixels = successive_projections(values, rank)
    return _labelled(matrix, spectra, f"spa: {rank} pixels farthest out", pixels=_places(matrix, pixels))


def sss(
    data: xr.DataArray,
    rank: int,
    *,
    channels: str | Sequence[tuple[float, float]] = "auto",
    mask: xr.DataArray | None = None,
    seed: int = 0,
) -> xr.DataArray:
    """Signal subspace sampling: the corners of all spectra of zero or more that the signal subspace holds.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes, counts of zero or more; lazy or not. It is held in memory as float64.
    rank : int
        Number of endmembers. One too few spoils most of them; one too many adds spurious ones, which `unmix` shows to
        be of no use.
    channels : "auto" or sequence of (float, float)
        Ranges of the energy in which spectra have to be zero or more. By default the channels whose sum over all pixels
        is known to 5, 2 or 1 %; all three are tried, and that is kept whose polytope is most nearly a simplex.
    mask : DataArray of bool, optional
        True where data are used; whole pixels and whole channels can be left out.
    seed : int
        Of the directions.

    Returns
    -------
    spectra : DataArray, (component, signal dimensions)
        Of unit sum. ``attrs``: ``relative_error`` of the channels that were admitted and their number, ``admitted``;
        ``disagreement``, the largest angle in degrees to the endmembers of the other two choices, and ``stable``,
        whether it is at most 2; ``beyond``, how far the allowed spectra reach beyond the endmembers; ``purest``, the
        largest share that a pixel has of each; ``outer_bound``, whether for some component no pixel is pure: then the
        answer is an outer bound of what the spectra can be, and is them only if each has a channel of its own.

    Raises
    ------
    RankOutOfRange, InvalidArgument
        As `vca`.
    InvalidData
        If there are negative values, or the channels admitted do not bound the spectra.

    Notes
    -----
    Dual to `vca`: no pure pixel is needed, but a channel for each component in which it is alone, as lines of elements
    are. Over a common background there is none, and what is common is taken out of all but one; ``outer_bound`` does
    not tell the two apart, ``beyond`` above 0.01 is a sign of it. Simulated images
    without pure pixels, 20 000 counts a pixel, three and four components: mean angle 0.4 to 0.8 degrees, where `vca`
    is 10 to 13 degrees off. Spiegelberg et al. 2017, doi:10.1016/j.ultramic.2017.07.009; by linear programmes instead
    of samples.

    Examples
    --------
    >>> pure = np.array([[40.0, 10, 10, 0], [0, 10, 10, 30]])
    >>> shares = np.array([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])
    >>> counts = xr.DataArray(1000 * shares @ pure, dims=("x", "energy_loss"))
    >>> found = sss(counts, 2)
    >>> np.sort((60 * found.values[np.argmax(found.values[:, 0])]).round(0)).tolist(), found.attrs["outer_bound"]
    ([0.0, 10.0, 10.0, 40.0], True)
    """
    matrix, values = _read("sss", data, rank, mask)
    if (values < 0).any():
        raise InvalidData(
            f"sss needs counts: {int((values < 0).sum())} values are negative; the first step is Poisson scaling."
        )
    seed = whole("sss: seed", seed, 0)
    totals = values.sum(axis=0)
    if isinstance(channels, str):
        if channels != "auto":
            raise InvalidArgument(f"sss: channels is {channels!r}; expected 'auto' or ranges [(lo, hi), ...].")
        choices = {relative: totals >= relative**-2 for relative in RELATIVE}
    else:
        inside = ~mask_channels(data, channels).values[matrix.used_columns]
        choices = {float("nan"): inside}
    found: dict[float, SubspaceSpectra] = {}
    for relative, admitted in choices.items():
        if admitted.sum() < rank:
            continue
        try:
            found[relative] = subspace_spectra(values, rank, admitted, seed)
        except ArithmeticError:
            continue
    if not found:
        raise InvalidData(
            f"sss: the channels admitted do not bound {rank} spectra; give ranges of energy in which lines stand, "
            "channels=[(lo, hi), ...], or a lower rank."
        )
    # The strictest of those that are as good as the best: its channels are known best.
    best = min(each.beyond.max() for each in found.values())
    chosen = [relative for relative, each in found.items() if each.beyond.max() <= best + ROUNDING][-1]
    answer = found[chosen]
    disagreement = max((_angle(answer.spectra, each.spectra) for each in found.values()), default=0.0)
    purest = np.quantile(cloud(answer, values), 0.995, axis=0)
    return _labelled(
        matrix,
        answer.spectra,
        f"sss: corners of the {rank}-dimensional signal subspace",
        relative_error=chosen,
        admitted=int(choices[chosen].sum()),
        disagreement=disagreement,
        stable=bool(disagreement <= STABLE and len(found) == len(choices)),
        beyond=answer.beyond.round(4).tolist(),
        purest=purest.round(3).tolist(),
        outer_bound=bool((purest < PURE).any()),
    )


def shares_among(data: xr.DataArray, spectra: xr.DataArray, *, mask: xr.DataArray | None = None) -> np.ndarray:
    """Return the shares of endmembers in each pixel, by least squares, in no way bounded: they add up to one.

    Parameters
    ----------
    data, mask
        As `vca` takes them.
    spectra : DataArray, (component, signal dimensions)
        Endmembers.

    Returns
    -------
    (pixels, rank) array
        Of pixels with signal. A share counts signal: spectra are brought to unit sum first.

    Raises
    ------
    InvalidArgument
        If the spectra do not fit the data.

    Examples
    --------
    >>> pure = xr.DataArray([[4.0, 1, 0], [0, 1, 3]], dims=("component", "energy_loss"))
    >>> mixed = xr.DataArray([[4.0, 1, 0], [2, 1.125, 1.875]], dims=("x", "energy_loss"))
    >>> shares_among(mixed, pure).round(3)
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    rank = spectra.sizes["component"]
    matrix, values = _read("shares_among", data, rank, mask)
    labels = matrix.labels[matrix.column_mode]
    if set(spectra.dims) != {"component", *labels.dims}:
        raise InvalidArgument(
            f"spectra have the dimensions {list(spectra.dims)}; expected 'component' and {list(labels.dims)}"
        )
    known = spectra.transpose("component", *labels.dims).values.reshape(rank, -1)
    if known.shape[1] != labels.size:
        raise InvalidArgument(f"spectra have {known.shape[1]} channels, the data {labels.size}")
    known = np.nan_to_num(known[:, matrix.used_columns])
    known = known / known.sum(axis=1, keepdims=True)
    shares = values @ np.linalg.pinv(known)
    return shares / shares.sum(axis=1, keepdims=True)


def _read(function: str, data: Any, rank: object, mask: xr.DataArray | None) -> tuple[Matrix, np.ndarray]:
    """Return the data as a matrix, and its values without empty rows and columns."""
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or rank < 1:
        raise RankOutOfRange(f"{function}: rank={rank!r}; expected a whole number of endmembers, 1 or more")
    matrix = as_matrix(function, data, mask)
    if rank > min(matrix.shape):
        rows, columns = matrix.shape
        raise RankOutOfRange(
            f"{function}: rank={rank}, but there are {rows} pixels and {columns} channels with signal; "
            f"give a rank of 1 to {min(matrix.shape)}"
        )
    values = np.empty(matrix.shape)
    for place, block in matrix.blocks():
        values[place] = block
    return matrix, values


def _places(matrix: Matrix, pixels: np.ndarray) -> list[dict[str, int]]:
    labels = matrix.labels[matrix.row_mode]
    indices = np.unravel_index(matrix.used_rows[pixels], labels.shape)
    return [dict(zip(labels.dims, map(int, each), strict=True)) for each in zip(*indices, strict=True)]


def _labelled(matrix: Matrix, spectra: np.ndarray, step: str, **attrs: Any) -> xr.DataArray:
    labels = matrix.labels[matrix.column_mode]
    values = matrix.spread(spectra.T, rows=False).T.reshape(len(spectra), *labels.shape)
    coords = {"component": np.arange(1, len(spectra) + 1), **labels.coords}
    attrs["history"] = [*matrix.data.attrs.get("history", []), step]
    if "units" in matrix.data.attrs and not step.startswith("sss"):
        attrs["units"] = matrix.data.attrs["units"]
    return xr.DataArray(values, dims=("component", *labels.dims), coords=coords, attrs=attrs)


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest angle between matched spectra, degrees."""
    from scipy.optimize import linear_sum_assignment

    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    distance = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2)
    rows, columns = linear_sum_assignment(distance)
    return float(np.degrees(2 * np.arcsin(np.clip(distance[rows, columns] / 2, 0, 1))).max())
