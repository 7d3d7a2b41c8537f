"""Labels off and on: which dimensions make a field, its response on the same grid, its mask and its noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.noise import NoiseModel
from tensorspec.prepare.steps import as_spectra, evenly_spaced, usable
from tensorspec.restore.field_noise import FieldNoise, even_noise
from tensorspec.algebra.kernels import gaussian
from tensorspec.shared_modes import is_numeric

__all__ = ["Fields", "as_fields", "field_dimensions", "noise_of_fields", "response_of", "with_labels"]

_WIDTH = 2.3548200450309493
_SAME_STEP = 1e-3
# Beyond the data an unconstrained signal may go by so many standard deviations of their noise.
_ROOM = 10.0
SIGNALS = ("energy_loss", "xray_energy")


class Fields(NamedTuple):
    """Data as arrays, with all that is not of the field in one leading axis."""

    values: Float[np.ndarray, "fields ..."]
    valid: Float[np.ndarray, "fields ..."]
    dims: tuple[str, ...]
    order: tuple[str, ...]
    dtype: np.dtype


def field_dimensions(function: str, data: xr.DataArray, dims: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the one or two dimensions along which a field is smooth.

    By default ``y`` and ``x`` of a map or a stack of maps; of spectra their energy; else the only one or two that
    there are.
    """
    known = [str(each) for each in data.dims]
    if dims is not None:
        given = (dims,) if isinstance(dims, str) else tuple(dims)
        for dim in given:
            if dim not in known:
                raise UnknownMode(f"{function}: no dimension {dim!r}; the data have {known}.{suggest(dim, known)}")
        if len(set(given)) != len(given) or not 1 <= len(given) <= 2:
            raise InvalidArgument(f"{function}: dims is {dims!r}; expected one or two different dimensions of {known}.")
        return tuple(dim for dim in known if dim in given)
    if {"y", "x"} <= set(known):
        return tuple(dim for dim in known if dim in ("y", "x"))
    spectral = [dim for dim in known if dim in SIGNALS]
    if len(spectral) == 1:
        return (spectral[0],)
    if len(known) <= 2:
        return tuple(known)
    raise InvalidArgument(
        f"{function}: it cannot be told which of the dimensions {known} make the image or the spectrum; say it: "
        f"dims=({known[-2]!r}, {known[-1]!r}), or one of them."
    )


def as_fields(function: str, data: xr.DataArray, mask: xr.DataArray | None, dims: tuple[str, ...]) -> Fields:
    """Return values and weights, missing ones at zero, with the dimensions of the field last."""
    as_spectra(function, data)
    mask = usable(function, data, mask)
    order = (*(str(dim) for dim in data.dims if dim not in dims), *dims)
    shape = (-1, *(data.sizes[dim] for dim in dims))
    if min(shape[1:]) < 4:
        raise InvalidData(f"{function}: the field is {dict(zip(dims, shape[1:], strict=True))}; it needs 4 points.")
    values = data.transpose(*order).as_numpy().values.astype(float).reshape(shape)
    given = np.ones(values.shape, bool)
    if mask is not None:
        given = mask.broadcast_like(data).transpose(*order).as_numpy().values.reshape(shape)
        if mask.sizes == data.sizes and np.isnan(values[given]).any():
            raise InvalidData(
                f"{function}: {int(np.isnan(values[given]).sum())} values are NaN where the mask is True."
            )
    if np.isinf(values[given]).any():
        raise InvalidData(f"{function}: {int(np.isinf(values[given]).sum())} values are infinite; mask them.")
    valid = given & ~np.isnan(values)
    if not valid.reshape(len(valid), -1).any(axis=1).all():
        raise InvalidData(f"{function}: a field has no valid entry; leave it out, or check the mask (True = use).")
    dtype = np.dtype(data.dtype if data.dtype.kind == "f" and data.dtype.itemsize >= 4 else float)
    return Fields(np.where(valid, values, 0.0), valid.astype(float), dims, order, dtype)


def response_of(
    function: str, data: xr.DataArray, dims: tuple[str, ...], psf: xr.DataArray | float | Mapping[str, float] | None
) -> Float[np.ndarray, "..."] | None:
    """Return the response on the grid of the field: non-negative, of sum one, with its centre in the middle.

    A number, or one a dimension, is the full width at half maximum of a Gaussian in the units of the coordinates. The
    centre of an array is where its coordinates are zero; without coordinates, or where zero lies outside, its middle.
    """
    if psf is None:
        return None
    if not isinstance(psf, xr.DataArray):
        widths = psf if isinstance(psf, Mapping) else dict.fromkeys(dims, psf)
        if set(widths) != set(dims):
            raise InvalidArgument(f"{function}: psf gives widths for {sorted(widths)}; the field has {list(dims)}.")
        steps = [_step(function, data, dim) for dim in dims]
        own = [number(f"{function}: psf of {dim!r}", widths[dim], 0, above=True) for dim in dims]
        return gaussian([width / _WIDTH / step for width, step in zip(own, steps, strict=True)], len(dims))
    if set(map(str, psf.dims)) != set(dims):
        raise UnknownMode(f"{function}: the psf has dimensions {list(psf.dims)}; the field has {list(dims)}.")
    values = np.asarray(psf.transpose(*dims).as_numpy().values, dtype=float)
    if not np.isfinite(values).all() or not np.maximum(values, 0).sum() > 0:
        raise InvalidData(f"{function}: the psf has entries that are no numbers, or no positive sum.")
    centre = []
    for dim, size in zip(dims, values.shape, strict=True):
        middle = size // 2
        if dim in psf.coords and size > 1:
            own, step = evenly_spaced(f"{function}: psf", psf, dim), _step(function, data, dim)
            if abs(own - step) > _SAME_STEP * step:
                raise ModeMismatch(
                    f"{function}: the psf has steps of {own:g} along {dim!r}, the data of {step:g}; "
                    f"put it on their grid: psf.interp({dim}=...)."
                )
            coord = np.asarray(psf.coords[dim].values, dtype=float)
            if coord[0] <= 0 <= coord[-1]:
                middle = int(np.abs(coord).argmin())
        centre.append(middle)
    return _centred(np.maximum(values, 0.0), centre, [data.sizes[dim] for dim in dims])


def _centred(values: np.ndarray, centre: Sequence[int], most: Sequence[int]) -> np.ndarray:
    """Return the array with its centre in the middle, no wider than needed nor than the mirrored field is known."""
    for axis, (middle, size) in enumerate(zip(centre, most, strict=True)):
        others = tuple(other for other in range(values.ndim) if other != axis)
        used = np.flatnonzero(values.sum(axis=others) > 0)
        reach = min(max(middle - used[0], used[-1] - middle, 0), size - 1)
        wide = np.pad(values, [(reach, reach) if each == axis else (0, 0) for each in range(values.ndim)])
        values = wide.take(range(middle, middle + 2 * reach + 1), axis)
    if not values.sum() > 0:
        raise InvalidData("the psf is zero within the field; is its coordinate zero at its centre?")
    return values / values.sum()


def _step(function: str, data: xr.DataArray, dim: str) -> float:
    """Return the step of a coordinate of the field, 1 where there is none."""
    if dim not in data.coords or not is_numeric(data.coords[dim]):
        return 1.0
    return abs(evenly_spaced(function, data, dim))


def noise_of_fields(
    function: str, fields: Fields, noise: str | NoiseModel, last: str, nonnegative: bool
) -> tuple[Fields, FieldNoise]:
    """Return the noise, and the data with what must be subtracted so that nothing restored is below zero."""
    if isinstance(noise, NoiseModel):
        correlation = noise.channel_correlation or 0.0
        inflation = 1 + 2 * max(correlation, 0.0) if last == fields.dims[-1] else 1.0
        found = FieldNoise(noise.gain, noise.read_variance, 0.0, inflation)
    elif noise == "poisson":
        found = FieldNoise()
    elif noise == "gaussian":
        sizes = [even_noise(*each) for each in zip(fields.values[:, None], fields.valid[:, None], strict=True)]
        if not min(sizes) > 0:
            raise InvalidData(
                f"{function}: no noise is left in neighbouring points of a field (most of them are equal); give it: "
                "noise=ts.NoiseModel(gain, read_variance)."
            )
        # Scores and maps of different sources have noise of different sizes.
        found = FieldNoise(0.0, sizes[0] if len(sizes) == 1 else _each(sizes, fields.values.ndim))
    else:
        raise InvalidArgument(f"{function}: noise is {noise!r}; expected 'poisson', 'gaussian' or a ts.NoiseModel.")
    read = float(np.mean(found.read_variance))
    if found.gain == 0 and read <= 0:
        raise InvalidArgument(
            f"{function}: the noise is zero everywhere; give one, ts.NoiseModel(gain, read_variance)."
        )
    if read == 0:
        below = int((fields.values < 0).sum())
        if below:
            raise InvalidData(
                f"{function}: {below} values are below zero, which counts cannot be; give the noise as "
                "ts.NoiseModel(gain, read_variance), or noise='gaussian'."
            )
    if read == 0 or nonnegative:
        return fields, found
    axes = tuple(range(1, fields.values.ndim))
    highest = np.maximum(fields.values.max(axis=axes, keepdims=True), 0.0)
    floor = fields.values.min(axis=axes, keepdims=True) - _ROOM * (found.gain * highest + found.read_variance) ** 0.5
    shifted = np.where(fields.valid > 0, fields.values - floor, 0.0)
    return fields._replace(values=shifted), found._replace(floor=floor)


def _each(sizes: Sequence[float], axes: int) -> Float[np.ndarray, "fields ..."]:
    """Return one number a field, broadcasting over its points."""
    return np.asarray(sizes).reshape(-1, *[1] * (axes - 1))


def with_labels(array: np.ndarray, data: xr.DataArray, fields: Fields, long_name: str) -> xr.DataArray:
    """Return an array of fields with the dimensions, coordinates and order of the data, in their dtype."""
    shape = [data.sizes[dim] for dim in fields.order]
    result = xr.DataArray(array.reshape(shape).astype(fields.dtype), dims=fields.order).transpose(*data.dims)
    result = result.assign_coords({key: coord.variable for key, coord in data.coords.items()})
    return result.assign_attrs(long_name=long_name)
