"""How much each tensor counts: weights from the noise, and the level of the noise over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.errors import InvalidArgument
from tensorspec.fit.sparsity import sample_rows
from tensorspec.fit.validate import CleanTensor, by_tensor
from tensorspec.losses.base import AbstractDivergence, AbstractLoss, EntryWeights
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.noise import NoiseModel, mean_noise_variance

__all__ = ["noise_level", "noise_of", "tensor_weights"]

# Noise variances below this share of the largest do not weigh tensors any further apart: data without noise would
# otherwise be weighed by rounding errors.
_VARIANCE_SHARE = 1e-6
_VARIANCE_FLOOR = 1e-10


def noise_of(tensor: xr.DataArray, values: CleanTensor, entry: EntryWeights, rank: int) -> tuple[float, str]:
    """Return the mean variance of the noise of one entry in data units squared, and how it is known."""
    if entry.noise_variance is not None:
        return float(entry.noise_variance), "known from the loss"
    model = NoiseModel.from_attrs(tensor.attrs)
    if not isinstance(values.values, Entries):
        return mean_noise_variance(values.values, values.valid, rank, model)
    mean = float(values.values.sum()) / values.count
    if model is not None:
        return float(model.variance(max(mean, 0.0))), "from the given noise model"
    sample, share = sample_rows(values)
    variance, how = mean_noise_variance(sample, None, rank, None)
    return (mean if how.startswith("Poisson") else variance * share), how


def tensor_weights(
    given: Any,
    keys: list[str],
    cleaned: Mapping[str, CleanTensor],
    scales: Mapping[str, float],
    noise: Mapping[str, tuple[float, str] | None],
    likelihood: Mapping[str, AbstractLoss] | None,
) -> dict[str, float]:
    """Return the weight of each tensor in the objective; `likelihood` holds the losses where one is a likelihood."""
    units = None if likelihood is None else _likelihood_units(likelihood, noise, cleaned)
    if given is not None:
        found = by_tensor(given, keys, "weights", 1.0)
        for key, value in found.items():
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
                raise InvalidArgument(f"weights: tensor {key!r} is given {value!r}; expected a number above zero")
        return {key: float(value) * (1.0 if units is None else units[key]) for key, value in found.items()}
    if units is not None:
        return units
    if len(keys) == 1:
        return {keys[0]: 1.0}
    variance = {key: (noise[key] or (0.0, ""))[0] * scales[key] ** 2 for key in keys}
    unit = {key: variance[key] / (cleaned[key].rms * scales[key]) ** 2 for key in keys}
    floor = max(_VARIANCE_SHARE * max(unit.values()), _VARIANCE_FLOOR)
    inverse = {key: 1 / (max(unit[key], floor) * (cleaned[key].rms * scales[key]) ** 2) for key in keys}
    total = sum(c.count for c in cleaned.values())
    mean = sum(inverse[key] * cleaned[key].count for key in keys)
    return {key: inverse[key] * total / mean for key in keys}


def noise_level(
    keys: list[str],
    cleaned: Mapping[str, CleanTensor],
    weights: Mapping[str, float],
    noise: Mapping[str, tuple[float, str] | None],
) -> float:
    """Return the standard deviation of the noise over the root mean square of the data, over all tensors."""
    total = sum(c.count for c in cleaned.values())
    weighted = sum(
        (weights[key] if len(keys) > 1 else 1.0)
        * (noise[key] or (0.0, ""))[0]
        / cleaned[key].rms ** 2
        * cleaned[key].count
        for key in keys
    )
    return float(np.sqrt(weighted / total))


def _likelihood_units(
    losses: Mapping[str, AbstractLoss],
    noise: Mapping[str, tuple[float, str] | None],
    cleaned: Mapping[str, CleanTensor],
) -> dict[str, float]:
    """Return what takes every loss to units of a log-likelihood: one over the variance of the noise for squares."""
    found = {}
    for key, loss in losses.items():
        weighted = isinstance(loss, LeastSquares) and (loss.sigma is not None or loss.scaling is not None)
        if isinstance(loss, AbstractDivergence) or weighted:
            found[key] = 1.0
        else:
            variance = (noise[key] or (0.0, ""))[0]
            found[key] = 1 / max(variance, _VARIANCE_FLOOR * cleaned[key].rms ** 2)
    return found
