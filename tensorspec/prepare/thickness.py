"""Thickness over the inelastic mean free path, from low-loss spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.noise import NoiseModel
from tensorspec.prepare.gaps import ROWS, bridge, ends, seen
from tensorspec.prepare.power_tail import RATIO, upper_tail
from tensorspec.prepare.series import inverse, logarithm, product
from tensorspec.prepare.steps import along_signal, as_spectra, evenly_spaced, recorded, signal_dimension, usable
from tensorspec.prepare.zero_loss import check_separation, near_zero, separate

__all__ = ["thickness"]


def thickness(
    low: xr.DataArray,
    zero_loss: str | tuple[float, float] = "tail",
    *,
    dim: str | None = None,
    mask: xr.DataArray | None = None,
    extrapolate: bool = True,
    noise: NoiseModel | None = None,
    standard_error: bool = False,
) -> Any:
    """Thickness over the inelastic mean free path: ``ln(I_total / I_zero_loss)``, the log-ratio method.

    Parameters
    ----------
    low : DataArray
        Low-loss spectra with their zero-loss peak, the highest point within 10 eV of zero; numpy- or dask-backed.
    zero_loss : {"tail", "minimum"} or (float, float)
        What counts as unscattered. ``"tail"``: the data up to one width (half maximum) above the peak, beyond that its
        mirrored lower tail. ``"minimum"``: the data up to the minimum behind the peak. A window, in the units of the
        axis: the data in it.
    dim : str, optional
        Along which the spectra run; by default ``energy_loss``, or the only dimension that counts no samples.
    mask : DataArray of bool, optional
        True = use. Masked channels, as missing ones (NaN), are bridged by a straight line; of a spectrum that is
        known to less than one half the thickness is NaN.
    extrapolate : bool
        Whether to correct for what lies beyond the recorded range.
    noise : NoiseModel, optional
        For the standard error; by default that of ``attrs["noise"]``, or counts where the data are integers.
    standard_error : bool
        Whether to return it too.

    Returns
    -------
    DataArray or Dataset
        The thickness in mean free paths (units "1"), with the dimensions of the samples; lazy where the data are.
        With ``standard_error`` a Dataset of ``thickness`` and ``standard_error``.

    Raises
    ------
    InvalidData
        If the data are no numbers, their axis has no zero or is uneven, or the mask does not fit.
    InvalidArgument
        If `zero_loss` cannot be meant, or a standard error is asked for data whose noise is not known.
    UnknownMode
        If there is no such dimension.

    Notes
    -----
    R. F. Egerton, EELS in the Electron Microscope, 2011, chapter 5.1, doi:10.1007/978-1-4419-9583-4. The
    mean free path is that for the collection angle of the spectrometer: what is scattered out of it is not counted.

    ``extrapolate=True`` takes the logarithm of the whole spectrum, as a power series whose first term is the zero
    loss: the sum of its terms is ``ln(I_total / I_zero_loss)``, and each depends on the data up to its own energy
    alone, so that plural scattering beyond the record needs no extrapolation. The little single scattering that lies
    there is continued by a power law (exponent 2 to 5) through its upper half. On simulated spectra of one wide
    plasmon at 26 eV, a million counts, of 0.1 to 2 mean free paths, the mean is right within 1 % where the record
    ends at 100 eV or above, within 2 % where it ends at 60 eV.

    A constant offset of the detector counts as inelastic scattering: subtract it first.

    The standard error is of counting and read-out; without extrapolation its square is, for counts,
    ``1 / I_zero_loss - 1 / I_total``. Of a thick specimen in a short record (2 mean free paths, 100 eV) it is an upper
    bound: the power law is left out where noise makes it flatter than exponent 2.

    Examples
    --------
    >>> energy = np.arange(-20.0, 200)
    >>> peak = 1e5 * np.exp(-0.5 * energy**2)
    >>> loss = np.where(energy > 0, 2e6 * energy / ((energy**2 - 400) ** 2 + 100 * energy**2 + 1), 0)
    >>> low = xr.DataArray(peak + loss, coords={"energy_loss": energy}, dims="energy_loss")
    >>> t = thickness(low)
    >>> bool(abs(t - np.log1p(loss.sum() / peak.sum())) < 0.002), t.attrs["units"]
    (True, '1')
    """
    low = as_spectra("thickness", low, "low")
    dim = signal_dimension("thickness", low, dim)
    evenly_spaced("thickness", low, dim)
    how = check_separation("thickness", zero_loss, low.coords[dim])
    near = near_zero("thickness", low.coords[dim])
    mask = usable("thickness", low, mask)
    model = _noise(low, noise) if standard_error else NoiseModel()
    correlation = max(1 + 2 * (model.channel_correlation or 0.0), 0.0)
    value, error = along_signal(
        _log_ratio,
        low,
        xr.DataArray(True) if mask is None else mask,
        signals=[[dim], [dim] if mask is not None and dim in mask.dims else []],
        results=[[], []],
        how=how,
        near=near,
        extrapolate=bool(extrapolate),
        gain=model.gain * correlation,
        read=model.read_variance * correlation,
        along=mask is not None and dim in mask.dims,
    )
    step = f"thickness: log-ratio, zero loss by {zero_loss!r}" + (", extrapolated" if extrapolate else "")
    attrs = {"long_name": "thickness over inelastic mean free path", "units": "1"}
    source = low.copy(deep=False)
    source.attrs = {key: held for key, held in low.attrs.items() if key in ("history", "title", "beam_energy_keV")}
    value = recorded(value, source, step, **attrs)
    value.name = "thickness"
    if not standard_error:
        return value
    error.attrs = {"long_name": "standard error of the thickness", "units": "1"}
    return xr.Dataset({"thickness": value, "standard_error": error}, attrs={"history": value.attrs["history"]})


def _noise(low: xr.DataArray, noise: NoiseModel | None) -> NoiseModel:
    """Noise that is given, kept with the data, or that of counts."""
    if noise is not None and not isinstance(noise, NoiseModel):
        raise InvalidArgument(f"thickness: noise is a {type(noise).__name__}; expected a NoiseModel.")
    known = noise or NoiseModel.from_attrs(low.attrs)
    if known is None and low.dtype.kind not in "bui":
        raise InvalidArgument(
            "thickness: the noise of these data is not known, so neither is the standard error; give it: "
            "noise=ts.estimate_noise(low)."
        )
    return known or NoiseModel(1.0, 0.0, 0.0)


def _log_ratio(
    spectra: np.ndarray,
    mask: np.ndarray,
    *,
    how: str | tuple[int, int],
    near: tuple[int, int],
    extrapolate: bool,
    gain: float,
    read: float,
    along: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness and its standard error for each spectrum, the last axis being the channels."""
    shape = spectra.shape
    spectra = np.asarray(spectra).reshape(-1, shape[-1])
    use = np.broadcast_to(mask if along else mask[..., None], shape).reshape(spectra.shape)
    value, variance = np.empty(len(spectra)), np.empty(len(spectra))
    for first in range(0, len(spectra), ROWS):
        part = slice(first, first + ROWS)
        rows = spectra[part].astype(np.float64)
        known = seen(rows, use[part])
        rows = bridge(rows, known)
        zero = separate(rows, how, near)
        elastic, total = zero.intensity.sum(axis=1), rows.sum(axis=1)
        good = (elastic > 0) & (total > 0)
        inelastic_channels = (zero.intensity != rows).sum(axis=1)
        read_elastic = read * (rows.shape[1] - inelastic_channels)
        elastic, total = np.where(good, elastic, 1.0), np.where(good, total, 1.0)
        if extrapolate:
            inelastic = np.where(good[:, None], rows - zero.intensity, 0.0)
            start = np.where(good, np.rint(np.where(good, zero.centre, 0.0)), 0).astype(int)
            found, error = _from_single(inelastic, elastic, start, ends(known), gain, read, read_elastic)
        else:
            found, share = np.log(total / elastic), 1 - elastic / total
            error = gain * np.maximum(share, 0) / elastic
            error += read * inelastic_channels / total**2 + read_elastic * (share / elastic) ** 2
        value[part], variance[part] = np.where(good, found, np.nan), np.where(good, error, np.nan)
    return value.reshape(shape[:-1]), np.sqrt(variance).reshape(shape[:-1])


def _from_single(
    inelastic: np.ndarray,
    elastic: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    gain: float,
    read: float,
    read_elastic: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the single scattering, to the end of the record from the data and beyond by a power law; its variance."""
    size = inelastic.shape[1]
    channel = start[:, None] + np.arange(1, size)
    series = np.take_along_axis(inelastic, np.minimum(channel, size - 1), axis=1)
    series = np.concatenate([elastic[:, None], np.where(channel < end[:, None], series, 0.0)], axis=1)
    inverted = inverse(series)
    length, loss = np.maximum(end - start, 0), np.arange(size)
    within = loss < length[:, None]
    single = np.where(within, logarithm(series, inverted), 0.0)
    tail = upper_tail(single, np.zeros(len(single)), length)

    # What one more electron in a channel does to the sum: it adds the inverse series, begun there.
    below, between = (tail.last[:, None] / RATIO**power for power in (2, 1))
    weight = (
        1 + tail.slopes[0][:, None] * ((loss >= below) & (loss < between)) + tail.slopes[1][:, None] * (loss >= between)
    )
    weight = np.where(within & (loss > 0), weight, 0.0)
    change = product(weight[:, ::-1], inverted, size)[:, ::-1] / elastic[:, None]
    variance = np.where(within, gain * np.maximum(series, 0) + read, 0.0)
    variance[:, 0] = gain * elastic + read_elastic
    return single.sum(axis=1) + tail.integral, (variance * change**2).sum(axis=1)
