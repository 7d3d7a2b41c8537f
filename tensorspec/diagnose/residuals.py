"""Where, and at which channels, a model differs from the data, in units of the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorspec.contributions import measured, model_block
from tensorspec.noise import NoiseModel

if TYPE_CHECKING:
    from tensorspec.solution import Fit, TensorRecord

__all__ = ["summarise"]

BLOCK = 8_000_000  # entries of data held as float64 at once


def summarise(fit: Fit, name: str, data: Any = None) -> xr.Dataset:
    """Return a small Dataset that shows where the model of a tensor differs from its data.

    Parameters
    ----------
    fit : Fit
        Factors and weights.
    name : str
        The tensor.
    data : DataArray or mapping of str to DataArray, optional
        The data, if the fit does not hold them.

    Returns
    -------
    summary : Dataset
        ``data_spectrum`` and ``model_spectrum``, on the signal mode: sums over all other modes, over the entries that
        are valid, in units of the data.  ``spectrum_noise``: standard deviation of ``data_spectrum``.
        ``residual_map``, on the map mode: root mean square of the residual in units of the noise, 1 where the model
        leaves nothing but noise.  ``attrs["noise"]`` says which noise; where none is known ``residual_map`` is in units
        of the data, and ``spectrum_noise`` is absent.

    Raises
    ------
    InvalidData
        If the data are neither given nor held, or have another shape than those fitted.
    """
    record = fit.tensors[name]
    tensor = measured(fit, name, data)
    noise, described = _noise(fit, name, record)
    map_dims, signal_dims = fit.modes[fit.map_mode(name)].dims, fit.modes[fit.signal_mode(name)].dims
    along = max(record.dims, key=lambda dim: tensor.sizes[dim])
    step = max(1, BLOCK * tensor.sizes[along] // max(tensor.size, 1))
    sums: dict[str, list[xr.DataArray]] = {}
    for start in range(0, tensor.sizes[along], step):
        region = {along: slice(start, start + step)}
        for key, part in _sums(fit, name, tensor.isel(region), region, noise, map_dims, signal_dims).items():
            sums.setdefault(key, []).append(part)
    whole = {
        key: xr.concat(parts, along) if along in parts[0].dims else sum(parts[1:], start=parts[0])
        for key, parts in sums.items()
    }
    whole = {key: part.transpose(*[dim for dim in record.dims if dim in part.dims]) for key, part in whole.items()}
    count, squares = whole.pop("map_count"), whole.pop("map_squares")
    scale = whole.pop("map_variance") if noise else count
    misfit = (squares / scale.where(scale > 0)).where(count > 0) ** 0.5
    title = "root mean square residual" + (" over noise" if noise else "")
    summary = {"residual_map": _described(misfit, title, "" if noise else record.unit)}
    for key, title in (("data_spectrum", "data"), ("model_spectrum", "model")):
        summary[key] = _described(whole[key], title, record.unit)
    if noise:
        deviation = whole["spectrum_variance"] ** 0.5
        summary["spectrum_noise"] = _described(deviation, "noise, standard deviation", record.unit)
    return xr.Dataset(summary, attrs={"noise": described, "chi2": float(squares.sum() / scale.sum())} if noise else {})


def _sums(
    fit: Fit,
    name: str,
    block: xr.DataArray,
    region: dict[str, slice],
    noise: NoiseModel | None,
    map_dims: tuple[str, ...],
    signal_dims: tuple[str, ...],
) -> dict[str, xr.DataArray]:
    """Return the sums that one block of the data adds."""
    block = block.compute().reset_coords(drop=True)
    values = block.data.todense() if hasattr(block.data, "todense") else block.data
    values = np.asarray(values, dtype=float)
    model = block.copy(data=np.asarray(model_block(fit, name, region), dtype=float))
    block = block.copy(data=values)
    valid = block.notnull() & model.notnull()
    block, model = block.where(valid, 0), model.where(valid, 0)
    off_map = [dim for dim in block.dims if dim not in map_dims]
    off_signal = [dim for dim in block.dims if dim not in signal_dims]
    squares = (block - model) ** 2
    result = {
        "map_count": valid.sum(off_map),
        "map_squares": squares.sum(off_map),
        "data_spectrum": block.sum(off_signal),
        "model_spectrum": model.sum(off_signal),
    }
    if noise:
        variance = xr.where(valid, noise.variance(model), 0.0)
        result |= {"map_variance": variance.sum(off_map), "spectrum_variance": variance.sum(off_signal)}
    return result


def _noise(fit: Fit, name: str, record: TensorRecord) -> tuple[NoiseModel | None, str]:
    """Return the noise model of a tensor, and where it comes from."""
    known = NoiseModel.from_attrs(record.attrs)
    if known is not None:
        return known, f"{known!r}, from the data"
    if record.noise_variance is None or not record.noise_variance > 0:
        return None, ""
    mean = float(fit.totals(name).sum()) / int(np.prod(record.shape))
    if mean > 0 and all((fit.factors[mode].fillna(0) >= 0).all() for mode in record.modes):
        return NoiseModel(
            gain=record.noise_variance / mean
        ), "variance in proportion to the signal, its mean as estimated"
    return NoiseModel(gain=0.0, read_variance=record.noise_variance), "equal variance everywhere, as estimated"


def _described(array: xr.DataArray, long_name: str, unit: str) -> xr.DataArray:
    array.attrs = {"long_name": long_name} | ({"units": unit} if unit else {})
    return array
