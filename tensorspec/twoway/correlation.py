"""Correlation with a reference, position by position: significance, false discoveries, and what noise takes away."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.noise import NoiseModel
from tensorspec.prepare.steps import along_signal, as_spectra, usable
from tensorspec.shared_modes import check_coordinates
from tensorspec.twoway.matrix import as_matrix
from tensorspec.twoway.regression import assumed_noise

__all__ = ["adjusted", "correlate"]

FEWEST = 4
CLEAR = 2.0  # standard deviations by which a variance stands above that of the noise before the noise is taken out


def correlate(
    data: xr.DataArray,
    reference: xr.DataArray | None = None,
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    level: float = 0.05,
    correct_noise: bool = False,
    noise: NoiseModel | None = None,
    reference_noise: NoiseModel | None = None,
    mask: xr.DataArray | None = None,
) -> xr.Dataset:
    """Correlate every pixel with a reference spectrum, every channel with a reference map, or all channels in pairs.

    Parameters
    ----------
    data : DataArray
        A spectrum image, integers or floats; NaN are missing.  Dask-backed data stay lazy where a reference is given.
    reference : DataArray, optional
        Has some of the dimensions of the data, at the same coordinates: the correlation is taken along these, and the
        others stay.  Without it: every channel with every other, over the pixels.
    method : {"pearson", "spearman"}
        Of the values, or of their ranks.
    level : float
        Share of false discoveries, among those called significant, that is allowed on average.
    correct_noise : bool
        Add ``corrected``: what the correlation would be without noise, ``r sqrt(v_x v_y / ((v_x - n_x)(v_y - n_y)))``
        with ``v`` the variances and ``n`` those of the noise (Spearman 1904, doi:10.2307/1412159).
    noise : NoiseModel, optional
        Of the data, for the correction; by default that of its attributes, else estimated.
    reference_noise : NoiseModel, optional
        Of the reference; by default it has none.  Not used where channels are correlated in pairs.
    mask : DataArray of bool, optional
        True where data are used.

    Returns
    -------
    Dataset
        ``correlation``; ``p_value``, of no correlation, two-sided; ``q_value``, adjusted for the number of positions
        (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x); ``significant``: ``q_value <= level``;
        ``samples``, how many values each rests on.  NaN where the values do not vary or fewer than four are valid.
        ``corrected`` is NaN where the variance does not stand two standard deviations above that of the noise; it can
        exceed one, by chance.  In pairs the second dimension is called ``<dimension>_2``.

    Raises
    ------
    InvalidData
        If data or reference are no real numbers, the reference does not vary, or fewer than four samples are left.
    InvalidArgument
        If the method does not exist, the level is not between 0 and 1, or ranks should be corrected for noise.
    UnknownMode
        If the reference has a dimension that the data do not have.
    ModeMismatch
        If its coordinates or sizes are not those of the data.

    Notes
    -----
    p-values are exact for independent samples with normal noise, and close for counts and for ranks.  Neighbouring
    channels that are correlated, or pixels of one smooth map, are fewer samples than they seem.

    Examples
    --------
    >>> reference = xr.DataArray([0.0, 1, 2, 3, 4], dims="energy_loss")
    >>> data = xr.DataArray([[0, 2, 4, 6, 8.0], [1, 0, 1, 0, 1]], dims=("x", "energy_loss"))
    >>> found = correlate(data, reference)
    >>> found.correlation.values.round(6) + 0.0, found.significant.values
    (array([1., 0.]), array([ True, False]))
    """
    tensor = as_spectra("correlate", data)
    if method not in ("pearson", "spearman"):
        raise InvalidArgument(
            f"correlate: method={method!r}; expected 'pearson' or 'spearman'.{suggest(method, ['pearson', 'spearman'])}"
        )
    level = number("correlate: level", level, 0, 1, above=True)
    if correct_noise and method == "spearman":
        raise InvalidArgument("correlate: ranks cannot be corrected for noise; use method='pearson'")
    known = assumed_noise("correlate", tensor, noise)[0] if correct_noise else None
    if reference is None:
        found = _in_pairs(tensor, method, known, mask)
    else:
        found = _with_reference(tensor, reference, method, known, reference_noise, mask)
    found["q_value"] = _over_all(found["p_value"], pairs=reference is None)
    found["significant"] = found["q_value"] <= level
    titles = {
        "correlation": f"{method} correlation",
        "corrected": "correlation without noise",
        "p_value": "p-value",
        "q_value": "p-value, adjusted for false discoveries",
        "significant": f"significant at {level:g}",
        "samples": "number of samples",
    }
    found = {name: found[name] for name in titles if name in found}
    for name, array in found.items():
        array.attrs = {"long_name": titles[name]}
    attrs = {"method": method, "level": level} | ({"noise": repr(known)} if known is not None else {})
    return xr.Dataset(found, attrs=attrs)


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted so that those at most q hold a share q of false ones on average; NaN stay NaN.

    Parameters
    ----------
    p_values : array
        Of any shape.

    Examples
    --------
    >>> adjusted(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.04, 0.04,  nan])
    """
    flat = np.asarray(p_values, dtype=float).ravel()
    result = np.full(flat.shape, np.nan)
    places = np.flatnonzero(np.isfinite(flat))
    if places.size:
        order = places[np.argsort(flat[places], kind="stable")]
        scaled = flat[order] * len(order) / np.arange(1, len(order) + 1)
        result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result.reshape(np.shape(p_values))


def _with_reference(
    data: xr.DataArray,
    reference: object,
    method: str,
    noise: NoiseModel | None,
    reference_noise: NoiseModel | None,
    mask: xr.DataArray | None,
) -> dict[str, xr.DataArray]:
    """Correlate along the dimensions of the reference."""
    given = as_spectra("correlate", reference, "reference")
    for dim, size in given.sizes.items():
        if dim not in data.dims:
            raise UnknownMode(
                f"correlate: the reference has a dimension {dim!r}; the data have {list(data.dims)}."
                f"{suggest(str(dim), data.dims)}"
            )
        if size != data.sizes[dim]:
            raise ModeMismatch(
                f"correlate: the reference has {size} points along {dim!r}, the data {data.sizes[dim]}; bring it onto "
                f"those of the data: reference.interp({dim}=data.{dim})"
            )
    if not given.dims:
        raise InvalidData("correlate: the reference is a single number; it must have a dimension of the data")
    check_coordinates(given, {str(dim): data[dim] for dim in given.dims if dim in data.coords}, "reference")
    dims = [str(dim) for dim in given.dims]
    given = given.compute()
    values = given.values[np.isfinite(given.values)]
    if values.size < FEWEST or np.ptp(values) == 0:
        raise InvalidData(
            f"correlate: the reference has {values.size} valid values"
            + (", all equal" if values.size else "")
            + f"; it must vary, and have at least {FEWEST}"
        )
    mask = usable("correlate", data, mask)
    if mask is not None:
        check_coordinates(mask, {str(dim): data[dim] for dim in mask.dims if dim in data.coords}, "mask")
        data = data.where(mask.drop_vars(list(mask.coords)))
    correlation, samples, corrected = along_signal(
        _correlation,
        data,
        given.drop_vars(list(given.coords)),
        signals=[dims, dims],
        results=[[], [], []],
        axes=len(dims),
        method=method,
        noise=noise,
        reference_noise=reference_noise,
    )
    found = {
        "correlation": correlation,
        "p_value": xr.apply_ufunc(_p_value, correlation, samples, dask="parallelized", output_dtypes=[float]),
        "samples": samples,
    }
    return found | ({"corrected": corrected} if noise is not None else {})


def _correlation(
    values: Any,
    reference: np.ndarray,
    axes: int,
    method: str,
    noise: NoiseModel | None,
    reference_noise: NoiseModel | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correlation, number of samples and corrected correlation of every series with the reference."""
    values = values.todense() if hasattr(values, "todense") else values
    leading = values.shape[: values.ndim - axes]
    series = values.reshape(*leading, -1).astype(np.float64)
    target = np.broadcast_to(reference.reshape(-1).astype(np.float64), series.shape)
    valid = np.isfinite(series) & np.isfinite(target)
    count = valid.sum(axis=-1).astype(float)
    if method == "spearman":
        from scipy.stats import rankdata

        # What is missing comes last, so that the ranks of the others are not changed by it.
        series = rankdata(np.where(valid, series, np.inf), axis=-1)
        one = valid.all()
        target = (
            np.broadcast_to(rankdata(reference.reshape(-1)), series.shape)
            if one
            else rankdata(np.where(valid, target, np.inf), axis=-1)
        )
    means, centred = [], []
    for each in (series, target):
        mean = np.where(valid, each, 0.0).sum(axis=-1) / np.maximum(count, 1)
        means.append(mean)
        centred.append(np.where(valid, each - mean[..., np.newaxis], 0.0))
    covariance = (centred[0] * centred[1]).sum(axis=-1)
    squares = [(each**2).sum(axis=-1) for each in centred]
    # A sum of squares that is rounding of the mean is none.
    usable_ = count >= FEWEST
    for each, mean in zip(squares, means, strict=True):
        usable_ &= each > 1e-24 * np.maximum(count, 1) * mean**2
    product = np.sqrt(np.where(usable_, squares[0] * squares[1], 1.0))
    result = np.where(usable_, np.clip(covariance / product, -1.0, 1.0), np.nan)
    if noise is None:
        return result, count, np.full(result.shape, np.nan)
    factor = np.ones(result.shape)
    levels = zip((noise, reference_noise), means, squares, strict=True)
    for own, mean, square in levels:
        if own is not None:
            factor = factor * _attenuation(own.variance(mean), square / np.maximum(count - 1, 1), count)
    return result, count, result * factor


def _attenuation(noise: np.ndarray, variance: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the factor by which noise of one partner has lowered a correlation; NaN where there is only noise."""
    left = variance - noise
    clear = left > CLEAR * noise * np.sqrt(2 / np.maximum(count - 1, 1))
    return np.where(clear, np.sqrt(variance / np.where(clear, left, 1.0)), np.nan)


def _in_pairs(
    data: xr.DataArray, method: str, noise: NoiseModel | None, mask: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """Correlate all channels with each other, over the pixels."""
    matrix = as_matrix("correlate", data, mask, keep_empty=True)
    labels = matrix.labels[matrix.column_mode]
    if labels.dims != (matrix.column_mode,):
        raise InvalidArgument(f"correlate: channels of {list(labels.dims)} cannot be paired; stack them into one first")
    rows, columns = matrix.shape
    if rows < FEWEST:
        raise InvalidData(f"correlate: {rows} pixels are too few; at least {FEWEST} are needed")
    mean = matrix.column_totals[matrix.used_columns] / rows
    gram = np.zeros((columns, columns))
    if method == "spearman":
        from scipy.stats import rankdata

        whole = np.empty(matrix.shape)
        for place, values in matrix.blocks():
            whole[place] = values
        ranks = rankdata(whole, axis=0) - (rows + 1) / 2
        gram = ranks.T @ ranks
        mean = np.zeros(columns)
    else:
        for _, values in matrix.blocks():
            gram += (values - mean).T @ (values - mean)
    squares = np.diag(gram).copy()
    varies = squares > 1e-24 * rows * mean**2
    both = np.outer(varies, varies)
    safe = np.sqrt(np.where(varies, squares, 1.0))
    correlation = np.where(both, np.clip(gram / np.outer(safe, safe), -1, 1), np.nan)
    np.fill_diagonal(correlation, np.where(varies, 1.0, np.nan))
    found = {"correlation": correlation, "p_value": _p_value(correlation, np.full(correlation.shape, float(rows)))}
    np.fill_diagonal(found["p_value"], np.nan)  # a channel with itself is no test
    if noise is not None:
        factor = _attenuation(noise.variance(mean), squares / (rows - 1), np.full(columns, float(rows)))
        found["corrected"] = correlation * np.outer(factor, factor)
        np.fill_diagonal(found["corrected"], np.where(np.isfinite(factor), 1.0, np.nan))
    found["samples"] = np.where(both, float(rows), np.nan)
    return {name: _paired(values, matrix.used_columns, matrix.column_mode, data) for name, values in found.items()}


def _paired(values: np.ndarray, used: np.ndarray, dim: str, data: xr.DataArray) -> xr.DataArray:
    """Return a matrix over pairs of channels with its labels; channels that were left out are NaN."""
    size, second = data.sizes[dim], f"{dim}_2"
    whole = np.full((size, size), np.nan)
    whole[np.ix_(used, used)] = values
    coords = {}
    if dim in data.coords:
        coord = data[dim]
        coords = {dim: (dim, coord.values, coord.attrs), second: (second, coord.values, coord.attrs)}
    return xr.DataArray(whole, dims=(dim, second), coords=coords)


def _p_value(correlation: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return the chance of a correlation that large, either way, where there is none."""
    from scipy.special import betainc

    return betainc(np.maximum(samples - 2, 1) / 2, 0.5, 1 - correlation**2)


def _over_all(p_values: xr.DataArray, pairs: bool) -> xr.DataArray:
    """Adjust p-values over all positions; of pairs, each once."""
    if pairs:
        upper = np.triu(np.ones(p_values.shape, bool), 1)
        once = adjusted(np.where(upper, p_values.values, np.nan))
        return p_values.copy(data=np.where(upper, once, once.T))
    if p_values.chunks is None:
        return p_values.copy(data=adjusted(p_values.values))
    return xr.apply_ufunc(
        adjusted,
        p_values.chunk(dict.fromkeys(p_values.dims, -1)),
        input_core_dims=[p_values.dims],
        output_core_dims=[p_values.dims],
        dask="parallelized",
        output_dtypes=[float],
    )
