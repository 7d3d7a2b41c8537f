"""How much noise a component picks up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.fit.sparsity import sample_rows
from tensorspec.fit.validate import CleanTensor
from tensorspec.losses.base import EntryWeights
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.noise.average import noise_along_signal

__all__ = ["noise_deviation"]


def noise_deviation(
    tensors: Mapping[str, xr.DataArray],
    cleaned: Mapping[str, CleanTensor],
    entry: Mapping[str, EntryWeights],
    noise: Mapping[str, tuple[float, str] | None],
    scales: Mapping[str, float],
    weights: Mapping[str, float],
) -> float:
    """Return the standard deviation of the noise along the mean spectrum, in the units of the problem as solved.

    The amplitudes of a component whose spectrum has unit norm have about this error.  Of counts it is larger than the
    average over all channels (twice, on X-ray spectra of a few lines), since the spectrum is where the counts are.

    Parameters
    ----------
    tensors, cleaned
        The data, with their attributes and as arrays.
    entry
        Entry weights of each tensor; a known noise variance means that the weights make it even.
    noise
        Average variance of the noise of each tensor, in data units squared, and how it was found.
    scales, weights
        What each tensor is multiplied by, and its weight in the objective.
    """
    total, count = 0.0, 0
    for key, values in cleaned.items():
        variance = (noise[key] or (0.0, ""))[0]
        if entry[key].noise_variance is None and variance > 0:
            model = NoiseModel.from_attrs(tensors[key].attrs) or _estimated(values)
            variance *= noise_along_signal(*_signal(values), model)
        total += weights[key] * scales[key] ** 2 * variance * values.count
        count += values.count
    return float(np.sqrt(total / count))


def _signal(values: CleanTensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an array with the mean over the first axis that the data have, and which of its entries count."""
    if not isinstance(values.values, Entries):
        return values.values, values.valid
    matrix = values.values.unfolded(0)
    return np.asarray(matrix.sum(axis=0, dtype=float)).reshape(1, -1) / len(values.values), None


def _estimated(values: CleanTensor) -> NoiseModel:
    if isinstance(values.values, Entries):
        return estimate_noise(xr.DataArray(sample_rows(values)[0], dims=("mode_0", "mode_1")))
    known = values.values if values.valid is None else np.where(values.valid, values.values, np.nan)
    return estimate_noise(xr.DataArray(known, dims=[f"mode_{axis}" for axis in range(known.ndim)]))
