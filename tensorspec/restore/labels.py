"""Labels off and on: which dimensions make a field, its response on the same grid, its mask and its noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from tensorspec.algebra.kernels import gaussian
from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData, ModeMismatch, UnknownMode, suggest
from tensorspec.noise import NoiseModel
from tensorspec.prepare.steps import as_spectra, evenly_spaced, usable
from tensorspec.restore.field_noise import FieldNoise, even_noise, uneven_noise
from tensorspec.shared_modes import is_numeric

__all__ = [
    "Fields",
    "as_fields",
    "field_dimensions",
    "lifted",
    "noise_of_fields",
    "response_of",
    "with_labels",
]

_WIDTH = 2.3548200450309493
_SAME_STEP = 1e-3
# Beyond the data an unconstrained signal may go by so many standard deviations of their noise.
_ROOM = 10.0
# A measured response may have so much of its sum below zero, which is cut off.
_NEGATIVE = 0.1
# More values than this share that are equal to the lowest were cut off there.
_CUT = 0.1
# Ratio of the deviations of bright and dark differences above which noise is not even. That of a map of single columns
# taken for even noise was 1.9, that of smooth features of three hundred times the noise 2.6.
_UNEVEN = 3.2
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
    share = -np.minimum(values, 0).sum() / np.maximum(values, 0).sum()
    if share > _NEGATIVE:
        raise InvalidData(
            f"{function}: {share:.0%} of the psf is below zero; a response is not negative, up to noise, which is cut "
            "off: subtract no more than its background."
        )
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


def noise_of_fields(function: str, fields: Fields, noise: str | NoiseModel, last: str) -> FieldNoise:
    """Return the noise of the fields; `last` is the dimension along which a model says that neighbours correlate."""
    if isinstance(noise, NoiseModel):
        factor = 1 + 2 * max(noise.channel_correlation or 0.0, 0.0)
        within = last in fields.dims
        found = FieldNoise(noise.gain, noise.read_variance, 0.0, factor if within else 1.0, 1.0 if within else factor)
        if noise.gain == 0 and noise.read_variance <= 0:
            raise InvalidArgument(
                f"{function}: the noise is zero everywhere; give one, ts.NoiseModel(gain, read_variance)."
            )
    elif noise == "poisson":
        found = FieldNoise()
    elif noise == "gaussian":
        found = _even_noise_of(function, fields)
    else:
        raise InvalidArgument(f"{function}: noise is {noise!r}; expected 'poisson', 'gaussian' or a ts.NoiseModel.")
    below = int((fields.values < 0).sum())
    if below and float(np.mean(found.read_variance)) == 0:
        raise InvalidData(
            f"{function}: {below} values are below zero, which counts cannot be; give the noise as "
            "ts.NoiseModel(gain, read_variance), or noise='gaussian'."
        )
    return found


def _even_noise_of(function: str, fields: Fields) -> FieldNoise:
    """Return noise that is even over each field, by itself and in the sum of them, or say why it cannot be."""
    pairs = list(zip(fields.values, fields.valid, strict=True))
    for values, valid in pairs:
        own = values[valid > 0]
        share = float((own == own.min()).mean())
        if _CUT < share < 1:
            raise InvalidData(
                f"{function}: {share:.0%} of the values are equal to the lowest, {own.min():g}: they were cut off "
                "there, or are few counts, and their noise is not even; give it as ts.NoiseModel(gain, read_variance), "
                f"about ts.NoiseModel({_gain(values, valid):.3g}) if it comes of counts."
            )
        dark, bright = uneven_noise(values, valid)
        if bright > _UNEVEN * dark > 0:
            raise InvalidData(
                f"{function}: noise='gaussian' is even noise, but neighbouring points differ {bright / dark:.2g} times "
                "as much in the brightest quarter as in the darkest; give it as ts.NoiseModel(gain, read_variance), "
                f"about ts.NoiseModel({_gain(values, valid):.3g}) if it comes of counts."
            )
    found = [even_noise(values, valid) for values, valid in pairs]
    sizes = [each.variance for each in found]
    if not min(sizes) > 0:
        raise InvalidData(
            f"{function}: no noise is left in neighbouring points of a field (most of them are equal); give it: "
            "noise=ts.NoiseModel(gain, read_variance)."
        )
    inflation = max(each.inflation for each in found)
    if len(sizes) == 1:
        return FieldNoise(0.0, sizes[0], 0.0, inflation)
    # Scores and maps of different sources have noise of different sizes; that of neighbouring channels adds up.
    total = even_noise(fields.values.sum(axis=0), fields.valid.min(axis=0))
    shared = max(total.variance / sum(sizes), 1.0)
    return FieldNoise(0.0, _each(sizes, fields.values.ndim), 0.0, inflation, shared)


def _gain(values: Float[np.ndarray, "..."], valid: Float[np.ndarray, "..."]) -> float:
    """Return the variance of differences over the mean: what one count adds to values that are counts in other units.

    Structure adds to it: it is for a hint.
    """
    squares = [np.diff(values, axis=axis) ** 2 / 2 for axis in range(values.ndim)]
    known = [np.diff(valid, axis=axis) == 0 for axis in range(values.ndim)]
    variance = np.mean([square[use].mean() for square, use in zip(squares, known, strict=True)])
    return float(variance / max(abs(values[valid > 0].mean()), np.finfo(float).tiny))


def lifted(fields: Fields, noise: FieldNoise) -> tuple[Fields, FieldNoise]:
    """Return the data less what is so low that nothing restored lies below it, and their noise."""
    axes = tuple(range(1, fields.values.ndim))
    highest = np.maximum(fields.values.max(axis=axes, keepdims=True), 0.0)
    floor = fields.values.min(axis=axes, keepdims=True) - _ROOM * (noise.gain * highest + noise.read_variance) ** 0.5
    shifted = np.where(fields.valid > 0, fields.values - floor, 0.0)
    return fields._replace(values=shifted), noise._replace(floor=floor)


def _each(sizes: Sequence[float], axes: int) -> Float[np.ndarray, "fields ..."]:
    """Return one number a field, broadcasting over its points."""
    return np.asarray(sizes).reshape(-1, *[1] * (axes - 1))


def with_labels(array: np.ndarray, data: xr.DataArray, fields: Fields, long_name: str) -> xr.DataArray:
    """Return an array of fields with the dimensions, coordinates and order of the data, in their dtype."""
    shape = [data.sizes[dim] for dim in fields.order]
    result = xr.DataArray(array.reshape(shape).astype(fields.dtype), dims=fields.order).transpose(*data.dims)
    result = result.assign_coords({key: coord.variable for key, coord in data.coords.items()})
    return result.assign_attrs(long_name=long_name)
