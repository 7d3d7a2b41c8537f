"""How much of each known spectrum is in every pixel, with standard errors."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.prepare.steps import along_signal, as_spectra, usable
from tensorspec.shared_modes import check_coordinates, units_of
from tensorspec.twoway.pixelwise import METHODS, solve

__all__ = ["assumed_noise", "unmix"]

COLLINEAR, SINGULAR = 1e8, 1e13
FEWEST = 16  # samples, and channels, from which the noise of data is estimated


def unmix(
    data: xr.DataArray,
    spectra: xr.DataArray,
    *,
    method: Literal["nonnegative", "ordinary", "weighted", "poisson"] = "nonnegative",
    sum_to_one: bool = False,
    mask: xr.DataArray | None = None,
    noise: NoiseModel | None = None,
) -> xr.Dataset:
    """Find how much of each known spectrum is in every pixel.

    Parameters
    ----------
    data : DataArray
        A spectrum image, integers or floats, any sample dimensions; NaN are missing.  Dask-backed data stay lazy.
    spectra : DataArray
        Dimension ``component`` and the signal dimensions of the data, at the same coordinates; NaN in a channel leaves
        it out.  For instance ``fit.spectra()``.
    method : {"nonnegative", "ordinary", "weighted", "poisson"}
        Least squares with amounts of zero or more; ordinary least squares; least squares weighted with the inverse
        noise variance *of the model*, solved until model and weights agree; amounts of zero or more with the largest
        Poisson likelihood.
    sum_to_one : bool
        Whether the amounts of every pixel add up to one.
    mask : DataArray of bool, optional
        True where data are used; single entries can be left out.
    noise : NoiseModel, optional
        By default the one in ``data.attrs["noise"]``; else it is estimated from the data (`estimate_noise`).  Weights,
        standard errors and chi-squared follow from it.

    Returns
    -------
    Dataset
        ``maps`` ``(component, ...)``: the amounts, multiples of the spectra.  ``standard_error``, of the same shape:
        one standard deviation.  ``at_bound``: True where an amount is held at zero; there is no standard error then,
        and those of the others are for this set of spectra.  ``chi_squared``: per degree of freedom, one where the
        spectra and the noise explain a pixel; ``degrees_of_freedom``.  Pixels without enough valid channels are NaN.

    Raises
    ------
    InvalidData
        If data or spectra are no real numbers, a spectrum is zero, two are the same to rounding, or, with ``poisson``,
        there are negative values.
    InvalidArgument
        If the method does not exist.
    UnknownMode
        If the spectra have a dimension that the data lack, or no ``component``.
    ModeMismatch
        If their coordinates differ from those of the data.

    Warns
    -----
    UserWarning
        If the spectra are near collinear (condition above 1e8), with the pair at fault; amounts that only rounding
        decides are NaN.  If ``poisson`` is asked for data that are not counts.

    Notes
    -----
    With ``S`` the spectra, ``W`` the weights, ``V`` the noise covariance at the model's mean and ``H`` the inverse of
    ``S^T W S`` on the spectra that are not at a bound, the covariance of the amounts is ``H S^T W V W S H``.  For
    ``weighted`` and ``poisson`` that is ``H``, the inverse Fisher information; for ordinary least squares the plain
    ``sigma^2 (S^T S)^-1`` would be wrong wherever noise differs from channel to channel.  A correlation of
    neighbouring channels in the noise model is part of ``V``.

    Examples
    --------
    >>> spectra = xr.DataArray([[4.0, 2, 1, 0], [0, 1, 3, 4]], dims=("component", "energy_loss"))
    >>> maps = xr.DataArray([[1.0, 5], [2, 0]], dims=("component", "x"))
    >>> found = unmix(xr.dot(maps, spectra, dim="component"), spectra, noise=NoiseModel())
    >>> found.maps.values.round(9) + 0.0
    array([[1., 5.],
           [2., 0.]])
    """
    tensor = as_spectra("unmix", data)
    if method not in METHODS:
        raise InvalidArgument(f"unmix: method={method!r}; expected one of {list(METHODS)}.{suggest(method, METHODS)}")
    dims, labelled = _known_spectra(tensor, spectra)
    mask = usable("unmix", tensor, mask)
    if mask is not None:
        check_coordinates(mask, {str(dim): tensor[dim] for dim in mask.dims if dim in tensor.coords}, "mask")
    columns = labelled.values.reshape(labelled.sizes["component"], -1).T.astype(float)
    channels = np.isfinite(columns).all(axis=1)
    if mask is not None and set(mask.dims) <= set(dims):
        channels &= _flat(mask, tensor, dims)
        mask = None
    _check_columns(columns[channels], labelled, method)
    noise, source = assumed_noise("unmix", tensor, noise)
    if method == "poisson" and not noise.is_counts:
        warnings.warn(
            f"unmix: the noise of these data is {noise!r}, not that of counts; with a read-out noise or neighbouring "
            "channels that are correlated the Poisson likelihood does not hold: use method='weighted'",
            UserWarning,
            stacklevel=2,
        )
    arrays, signals = [tensor], [dims]
    if mask is not None:
        arrays.append(mask)
        signals.append([dim for dim in dims if dim in mask.dims])
    rank = columns.shape[1]
    maps, errors, bound, chi2, free = along_signal(
        _solve,
        *arrays,
        signals=signals,
        results=[["component"], ["component"], ["component"], [], []],
        sizes={"component": rank},
        spectra=columns,
        channels=channels,
        shape=[tensor.sizes[dim] for dim in dims],
        within=[dim in (mask.dims if mask is not None else ()) for dim in dims],
        method=method,
        sum_to_one=bool(sum_to_one),
        noise=noise,
    )
    found = {
        "maps": (maps, "amount of each spectrum"),
        "standard_error": (errors, "standard error of the amount"),
        "at_bound": (bound.astype(bool), "held at zero"),
        "chi_squared": (chi2, "chi-squared per degree of freedom"),
        "degrees_of_freedom": (free, "degrees of freedom"),
    }
    known = {str(key): coord for key, coord in labelled.coords.items() if coord.dims == ("component",)}
    result = xr.Dataset()
    unit = None if units_of(labelled) else units_of(tensor)
    for name, (array, title) in found.items():
        if "component" in array.dims:
            array = array.transpose("component", ...).assign_coords(known)
        array.attrs = {"long_name": title}
        if unit and name in ("maps", "standard_error"):
            array.attrs["units"] = unit
        result[name] = array
    result.attrs = {
        "method": method,
        "sum_to_one": int(bool(sum_to_one)),
        "noise": repr(noise),
        "noise_from": source,
        "condition": float(np.linalg.cond(columns[channels] / np.linalg.norm(columns[channels], axis=0))),
    }
    return result


def assumed_noise(function: str, data: xr.DataArray, noise: NoiseModel | None) -> tuple[NoiseModel, str]:
    """Return the noise model given, that of the data, or an estimate, and in words which of them it is.

    Parameters
    ----------
    function : str
        Who asks, for the message.
    data : DataArray
        The data.
    noise : NoiseModel, optional
        As given.

    Raises
    ------
    InvalidArgument
        If something else than a noise model is given, or the data are too few to estimate it.
    """
    if noise is not None:
        if not isinstance(noise, NoiseModel):
            raise InvalidArgument(f"{function}: noise is a {type(noise).__name__}; expected ts.NoiseModel(gain=...)")
        return noise, "as given"
    known = NoiseModel.from_attrs(data.attrs)
    if known is not None:
        return known, "from the data's attributes"
    if data.size >= FEWEST**2 and min(data.sizes[data.dims[-1]], data.size // data.sizes[data.dims[-1]]) >= FEWEST:
        found = estimate_noise(data)
        return (NoiseModel(), "estimated: counts") if found.is_counts else (found, "estimated from the data")
    if data.dtype.kind in "biu":
        return NoiseModel(), "whole numbers, taken as counts"
    raise InvalidArgument(
        f"{function}: these are too few data to estimate their noise from; say what it is: noise=ts.NoiseModel() for "
        "counts, or ts.NoiseModel(gain=..., read_variance=...)"
    )


def _known_spectra(data: xr.DataArray, spectra: object) -> tuple[list[str], xr.DataArray]:
    """Return the signal dimensions, in the order of the data, and the spectra with ``component`` first."""
    given = as_spectra("unmix", spectra, "spectra")
    if "component" not in given.dims:
        raise UnknownMode(
            f"unmix: the spectra have the dimensions {list(given.dims)}; expected 'component' among them: one spectrum "
            "alone is spectra.expand_dims('component')"
        )
    dims = [str(dim) for dim in data.dims if dim in given.dims]
    for dim in given.dims:
        if dim != "component" and dim not in data.dims:
            raise UnknownMode(
                f"unmix: the spectra have a dimension {dim!r}; the data have {list(data.dims)}."
                f"{suggest(str(dim), data.dims)}"
            )
    if "component" in data.dims or not dims:
        raise UnknownMode(
            f"unmix: the spectra {list(given.dims)} share no signal dimension with the data {list(data.dims)}"
        )
    for dim in dims:
        if given.sizes[dim] != data.sizes[dim]:
            raise ModeMismatch(
                f"unmix: the spectra have {given.sizes[dim]} points along {dim!r}, the data {data.sizes[dim]}; bring "
                f"them onto the channels of the data: spectra.interp({dim}=data.{dim})"
            )
    check_coordinates(given, {dim: data[dim] for dim in dims if dim in data.coords}, "spectra")
    return dims, given.transpose("component", *dims).compute()


def _check_columns(columns: np.ndarray, spectra: xr.DataArray, method: str) -> None:
    """Refuse spectra that are nothing, or the same; warn of those that are nearly so."""
    names = [str(name) for name in spectra["component"].values]
    if len(columns) < len(names):
        raise InvalidData(f"unmix: {len(columns)} valid channels cannot tell {len(names)} spectra apart")
    norms = np.linalg.norm(columns, axis=0)
    if (norms == 0).any():
        raise InvalidData(f"unmix: the spectrum of component {names[int(np.argmin(norms))]!r} is zero in all channels")
    if np.isinf(columns).any():
        raise InvalidData("unmix: the spectra hold infinities")
    if method == "poisson" and (columns < 0).any():
        worst = names[int(np.argmin(columns.min(axis=0)))]
        raise InvalidData(
            f"unmix: method='poisson' needs spectra of zero or more; that of component {worst!r} has negative values"
        )
    _, values, right = np.linalg.svd(columns / norms, full_matrices=False)
    condition = values[0] / values[-1] if values[-1] > 0 else np.inf
    if condition <= COLLINEAR:
        return
    first, second = (names[each] for each in sorted(np.argsort(-np.abs(right[-1]), kind="stable")[:2]))
    what = (
        f"unmix: the spectra are near collinear (condition {condition:.1e}): those of components {first!r} and "
        f"{second!r} cannot be told apart"
    )
    if condition > SINGULAR:
        raise InvalidData(f"{what} at all; leave one of them out, or merge them")
    warnings.warn(
        f"{what}, and amounts that rounding would decide are NaN; leave one of them out, or merge them",
        UserWarning,
        stacklevel=3,
    )


def _flat(mask: xr.DataArray, data: xr.DataArray, dims: list[str]) -> np.ndarray:
    """Return a mask of channels over all signal dimensions, flat."""
    shape = [data.sizes[dim] for dim in dims]
    values = mask.transpose(*[dim for dim in dims if dim in mask.dims]).values
    return np.broadcast_to(
        values.reshape([size if dim in mask.dims else 1 for dim, size in zip(dims, shape, strict=True)]), shape
    ).ravel()


def _solve(values: Any, valid: np.ndarray | None = None, **settings: Any) -> tuple[np.ndarray, ...]:
    """Bring arrays with leading sample axes to pixels x channels and back."""
    shape, within, channels = settings["shape"], settings["within"], settings["channels"]
    values = values.todense() if hasattr(values, "todense") else values
    leading = values.shape[: values.ndim - len(shape)]
    if valid is not None:
        own = valid.shape[: valid.ndim - sum(within)]
        valid = valid.reshape(*own, *[size if here else 1 for size, here in zip(shape, within, strict=True)])
        valid = np.broadcast_to(valid, (*leading, *shape)).reshape(-1, len(channels))[:, channels]
    flat = values.reshape(-1, len(channels))[:, channels]
    found = solve(
        flat,
        valid,
        settings["spectra"][channels],
        np.diff(np.flatnonzero(channels)) == 1,
        settings["method"],
        settings["sum_to_one"],
        settings["noise"],
    )
    return tuple(np.reshape(array, (*leading, *array.shape[1:])) for array in found)
