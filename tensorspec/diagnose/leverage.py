"""Samples that decide a fit by themselves, and samples that it does not describe."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tensorspec.contributions import reconstruct, residual
from tensorspec.diagnose.residuals import noise_of
from tensorspec.errors import InvalidArgument, UnknownMode, suggest
from tensorspec.pieces import refuse_evolving
from tensorspec.solution import Fit

__all__ = ["leverage"]

# A leverage of three times the mean is large; a misfit that one sample in a thousand of the regular ones has, is too.
TIMES_MEAN, SCORE = 3.0, 3.09
KINDS = ("regular", "influential", "outlying", "influential and outlying")


def leverage(fit: Fit, mode: str | None = None, name: str | None = None, data: Any = None) -> xr.Dataset:
    """Return how much every sample of a mode decides the fit, and how badly it is described.

    Parameters
    ----------
    fit : Fit
        Of a model without a core.
    mode : str, optional
        Whose points are the samples; by default the pixels. Channels can be asked for too.
    name : str, optional
        The tensor whose residual is looked at; needed where there are several.
    data : DataArray or mapping of str to DataArray, optional
        The data, if the fit does not hold them.

    Returns
    -------
    Dataset
        On the points of the mode: ``leverage``, 0 to 1 (1: a component is there for this sample alone), its mean being
        rank over number of samples; ``residual``, the mean squared residual in units of the noise variance, or in
        units of the data squared where no noise is known; ``kind``, an index into ``attrs["kinds"]``: regular,
        influential (leverage above ``attrs["leverage_limit"]``), outlying (residual above ``attrs["residual_limit"]``),
        or both.

    Raises
    ------
    UnknownMode
        If the fit has no such mode.
    InvalidArgument
        If the fit has a core, or several tensors and none is named.
    InvalidData
        If the data are missing.

    Notes
    -----
    The leverage of a sample is its element of the diagonal of ``A (A^T A)^-1 A^T``, with limit three times the mean.
    Residuals are sums of squares, near chi-squared, whose cube root is near normal (Wilson and Hilferty 1931): the
    limit is its median plus 3.09 robust standard deviations, which one regular sample in a thousand exceeds. A large
    leverage is no fault: a phase of few pixels has it.

    Examples
    --------
    >>> from tensorspec.assemble import assemble
    >>> rng = np.random.default_rng(0)
    >>> maps, spectra = rng.uniform(1, 2, (300, 1)), rng.uniform(1, 2, (40, 1))
    >>> data = xr.DataArray(maps @ spectra.T + 0.1 * rng.normal(size=(300, 40)), dims=("x", "energy_loss"))
    >>> data[7, 10:14] += 3
    >>> found = leverage(assemble({"data": data}, {"pixel": maps, "energy_loss": spectra}))
    >>> np.flatnonzero(found.residual > 2 * found.attrs["residual_limit"]).tolist()
    [7]
    """
    if fit.cores:
        raise InvalidArgument("leverage: this fit has a core, and no mode whose rows are samples of components")
    refuse_evolving(fit, "leverage", "look at fit.residual_summary()")
    name = fit._tensor(name)
    record = fit.tensors[name]
    mode = fit.map_mode(name) if mode is None else mode
    if mode not in record.modes:
        raise UnknownMode(
            f"leverage: tensor {name!r} has no mode {mode!r}, but {list(record.modes)}.{suggest(mode, record.modes)}"
        )
    factor = fit.seen(name, mode)
    columns = factor.values.reshape(fit.rank, -1).T.astype(float)
    known = np.asarray(np.isfinite(columns).all(axis=1))
    held = np.where(known[:, np.newaxis], columns, 0.0)
    held = held[:, np.linalg.norm(held, axis=0) > 0]
    norm = np.linalg.norm(held, axis=0)
    basis, values, _ = np.linalg.svd(held / norm, full_matrices=False)
    basis = basis[:, : int(np.count_nonzero(values > 1e-10 * values.max(initial=0)))]
    hat = np.where(known, (basis**2).sum(axis=1), np.nan)
    difference = residual(fit, name, data).as_numpy().astype(float)
    noise = noise_of(fit, name)
    off = [dim for dim in record.dims if dim not in factor.dims]
    if noise is None:
        misfit = (difference**2).mean(off)
    else:
        model = difference.copy(data=reconstruct(fit, name).values.astype(float))
        variance = noise.variance(model).where(difference.notnull()).sum(off)
        misfit = (difference**2).sum(off) / variance.where(variance > 0)
    own = [str(dim) for dim in factor.dims[1:]]
    misfit = misfit.transpose(*own)
    limit = _limit(misfit.values)
    most = TIMES_MEAN * basis.shape[1] / max(int(known.sum()), 1)
    influence = factor.isel(component=0, drop=True).copy(data=hat.reshape(factor.shape[1:]))
    kind = (influence > most).astype(int) + 2 * (misfit > limit).astype(int)
    result = xr.Dataset({"leverage": influence, "residual": misfit, "kind": kind})
    result["leverage"].attrs = {"long_name": "leverage"}
    result["residual"].attrs = {
        "long_name": "mean squared residual" + ("" if noise is None else " over noise variance")
    }
    result["kind"].attrs = {"long_name": "kind of sample"}
    result.attrs = {"leverage_limit": float(most), "residual_limit": limit, "kinds": list(KINDS)}
    return result


def _limit(misfit: np.ndarray) -> float:
    root = np.cbrt(misfit[np.isfinite(misfit)])
    if not root.size:
        return float("nan")
    middle = float(np.median(root))
    return float((middle + SCORE * 1.4826 * np.median(np.abs(root - middle))) ** 3)
