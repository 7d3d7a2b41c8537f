"""Where, and at which channels, a model differs from the data, in units of the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorspec.contributions import measured, model_block, used_entries
from tensorspec.noise import NoiseModel
from tensorspec.pieces import evolving_mode, own_dims

if TYPE_CHECKING:
    from tensorspec.solution import Fit, TensorRecord

__all__ = ["describe", "noise_of", "summarise"]

BLOCK = 8_000_000  # entries of data held as float64 at once
CHI2_NOISE = (0.95, 1.05)  # per entry: what noise alone leaves, as far as a noise level is ever known


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
        are valid, in units of the data.  ``residual_map``, on the map mode, and ``residual_spectrum``, on the signal
        mode: root mean square of the residual in units of the noise, 1 where the model leaves nothing but noise.
        ``attrs["noise"]`` says which noise, ``attrs["chi2"]`` is chi-squared per degree of freedom; where no noise is
        known, both are absent and residuals are in units of the data.

    Raises
    ------
    InvalidData
        If the data are neither given nor held, or have another shape than those fitted.
    """
    record = fit.tensors[name]
    tensor = measured(fit, name, data)
    noise, described = _noise(fit, name, record)
    map_dims, signal_dims = (own_dims(fit, name, mode) for mode in (fit.map_mode(name), fit.signal_mode(name)))
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
    title = "root mean square residual" + (" over noise" if noise else "")
    summary = {}
    for where in ("map", "spectrum"):
        expected = whole[f"{where}_variance" if noise else f"{where}_count"]
        ratio = (whole[f"{where}_squares"] / expected.where(expected > 0)).where(whole[f"{where}_count"] > 0)
        summary[f"residual_{where}"] = _described(ratio**0.5, title, "" if noise else record.unit)
    for key, title in (("data_spectrum", "data"), ("model_spectrum", "model")):
        summary[key] = _described(whole[key], title, record.unit)
    attrs: dict[str, Any] = {}
    if noise:
        entries = float(whole["map_count"].sum())
        free = max(entries - _parameters(fit, name), 1.0)
        chi2 = float(whole["map_squares"].sum() / whole["map_variance"].sum()) * entries / free
        attrs = {"noise": described, "chi2": chi2}
    return xr.Dataset(summary, attrs=attrs)


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
    used = used_entries(fit, name)
    if used is not None:
        valid = (valid & used.isel(region, missing_dims="ignore")).transpose(*block.dims)
    block, model = block.where(valid, 0), model.where(valid, 0)
    off_map = [dim for dim in block.dims if dim not in map_dims]
    off_signal = [dim for dim in block.dims if dim not in signal_dims]
    squares = (block - model) ** 2
    result = {
        "map_count": valid.sum(off_map),
        "map_squares": squares.sum(off_map),
        "spectrum_count": valid.sum(off_signal),
        "spectrum_squares": squares.sum(off_signal),
        "data_spectrum": block.sum(off_signal),
        "model_spectrum": model.sum(off_signal),
    }
    if noise:
        variance = xr.where(valid, noise.variance(model), 0.0)
        result |= {"map_variance": variance.sum(off_map), "spectrum_variance": variance.sum(off_signal)}
    return result


def _parameters(fit: Fit, name: str) -> float:
    """Return how many numbers were fitted to a tensor; those that tensors share count in equal parts."""
    modes = fit.tensors[name].modes
    sharing = {mode: sum(mode in record.modes for record in fit.tensors.values()) for mode in modes}
    if name in fit.cores:
        # A core can take up any change of basis of a mode, so that many numbers of its factor say nothing of the data.
        own = {mode: rank for mode, rank in fit.ranks.items() if mode in modes}
        factors = sum(rank * (fit.modes[mode].size - rank) / sharing[mode] for mode, rank in own.items())
        return factors + fit.cores[name].size
    count = fit.rank * (sum(fit.modes[mode].size / sharing[mode] for mode in modes) - (len(modes) - 1))
    if (pair := evolving_mode(fit, name)) is not None:
        # The cross-products of all samples but one are given.
        count -= (fit.modes[pair[1]].size - 1) * fit.rank * (fit.rank + 1) / 2 / sharing[pair[0]]
    return count


def noise_of(fit: Fit, name: str) -> NoiseModel | None:
    """Return the noise model of a tensor of a fit: that of the data, else as estimated during the fit, else None."""
    return _noise(fit, name, fit.tensors[name])[0]


def _noise(fit: Fit, name: str, record: TensorRecord) -> tuple[NoiseModel | None, str]:
    """Return the noise model of a tensor, and where it comes from."""
    known = NoiseModel.from_attrs(record.attrs)
    if known is not None:
        return known, f"{known!r}, from the data"
    if record.noise_variance is None or not record.noise_variance > 0:
        return None, ""
    held = [mode for mode in record.modes if mode in fit.factors]
    mean = float(fit.maps(name).sum()) / int(np.prod(record.shape))
    if mean > 0 and all((fit.seen(name, mode).fillna(0) >= 0).all() for mode in held):
        return NoiseModel(
            gain=record.noise_variance / mean
        ), "variance in proportion to the signal, its mean as estimated"
    return NoiseModel(gain=0.0, read_variance=record.noise_variance), "equal variance everywhere, as estimated"


def _described(array: xr.DataArray, long_name: str, unit: str) -> xr.DataArray:
    array.attrs = {"long_name": long_name} | ({"units": unit} if unit else {})
    return array


def describe(summary: xr.Dataset) -> list[str]:
    """Return what a residual summary says, in sentences.

    Parameters
    ----------
    summary : Dataset
        As `summarise` returns it.

    Returns
    -------
    sentences : list of str

    Examples
    --------
    >>> at = {"energy_loss": ("energy_loss", [10.0, 20.0], {"units": "eV"})}
    >>> spectrum = xr.DataArray([1.0, 1.4], dims="energy_loss", coords=at)
    >>> parts = {"residual_spectrum": spectrum, "residual_map": xr.DataArray([1.0, 1.0, 1.3], dims="x")}
    >>> for sentence in describe(xr.Dataset(parts, attrs={"chi2": 1.5, "noise": "as given"})):
    ...     print(sentence)
    Chi-squared per degree of freedom is 1.500: more is left than noise (a component too few, or noise under-estimated).
    The residual is largest at energy_loss 20 eV (1.40 times the noise) and at x 3 (1.30 times).
    Noise: as given.
    """
    if "chi2" not in summary.attrs:
        return ["The noise of these data is not known, so nobody can say how much of the residual is signal."]
    chi2 = float(summary.attrs["chi2"])
    low, high = CHI2_NOISE
    verdict = "what is left is noise"
    if chi2 > high:
        verdict = "more is left than noise (a component too few, or noise under-estimated)"
    elif chi2 < low:
        verdict = "less is left than noise (components that fit noise, or noise over-estimated)"
    (channel, most), (pixel, largest) = _largest(summary["residual_spectrum"]), _largest(summary["residual_map"])
    return [
        f"Chi-squared per degree of freedom is {chi2:.3f}: {verdict}.",
        f"The residual is largest at {channel} ({most:.2f} times the noise) and at {pixel} ({largest:.2f} times).",
        f"Noise: {summary.attrs['noise']}.",
    ]


def _largest(residual: xr.DataArray) -> tuple[str, float]:
    """Return where an array is largest, in words, and its value there."""
    places = {dim: int(at) for dim, at in residual.fillna(0).argmax(...).items()}
    words = []
    for dim, at in places.items():
        if dim in residual.coords:
            coord = residual.coords[dim]
            number = f"{coord.values[at]:g}" if coord.dtype.kind in "iuf" else str(coord.values[at])
            words.append(f"{dim} {number} {coord.attrs.get('units', '')}".rstrip())
        else:
            words.append(f"{dim} {at + 1}")
    return ", ".join(words), float(residual[places])
