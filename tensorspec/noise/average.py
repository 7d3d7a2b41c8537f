"""The average noise variance of an array: one number, which weighs tensors against each other."""

from __future__ import annotations

import numpy as np

from tensorspec.noise.estimate import difference_noise
from tensorspec.noise.lowrank import low_rank
from tensorspec.noise.model import NoiseModel
from tensorspec.noise.residual import sample_noise
from tensorspec.noise.unfold import pick_rows

__all__ = ["mean_noise_variance", "noise_along_signal"]

# One number comes out: a quarter of a million values give it to 4 %, in a quarter of the memory of a million.
MOST_VALUES, FEWEST_ROWS = 2**18, 128
COUNTS_RATIO = (0.7, 1.4)


def mean_noise_variance(
    values: np.ndarray, valid: np.ndarray | None, rank: int, model: NoiseModel | None
) -> tuple[float, str]:
    """Average noise variance over the valid entries of an array, and how it was found.

    Parameters
    ----------
    values : array, one axis a mode
        Finite where valid; integers or floats.
    valid : array of bool, same shape, optional
        True where an entry counts; ``None`` for all.
    rank : int
        Number of components that the data are taken to have.
    model : NoiseModel, optional
        Known noise: then nothing is estimated.

    Returns
    -------
    variance : float
        Data units squared; zero or more, never NaN.
    how : str
        A few words for the record.

    Notes
    -----
    Without a model: the residual variance of the rank-R singular value decomposition of the first axis against all
    others (at most about 128 of its rows where they are long), divided entry by entry by the share of the noise that
    the decomposition leaves over; for noise that is even this is the factor ``N M / ((N - R)(M - R))``. Non-negative
    whole numbers whose residual variance is 0.7 to 1.4 times their mean are counts: their variance is their mean.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(np.multiply.outer(np.linspace(1, 2, 60), np.linspace(5, 9, 40)))
    >>> variance, how = mean_noise_variance(counts, None, 1, None)
    >>> bool(variance == counts.mean()), how
    (True, 'Poisson counts: the mean')
    """
    values = np.asarray(values)
    if valid is not None and valid.all():
        valid = None
    entries = values.size if valid is None else int(valid.sum())
    if entries == 0:
        return 0.0, "no valid entry"
    if model is not None:
        positive = values if values.dtype.kind in "bu" else np.maximum(values, 0)
        return float(model.variance(_mean(positive, valid, entries))), "from the given noise model"

    matrix, known = _rows(values, valid)
    rows, channels = matrix.any(axis=1), matrix.any(axis=0)
    share = float(known[rows][:, channels].sum() / known.sum())
    matrix, known = matrix[rows][:, channels], known[rows][:, channels]
    if matrix.size == 0:
        return 0.0, "all zero"
    whole = bool((matrix >= 0).all() and (matrix == np.rint(matrix)).all())
    if (matrix.shape[0] - rank) * (matrix.shape[1] - rank) >= 8 and min(matrix.shape) > rank:
        variance = _residual_variance(matrix, known, rank, whole)
        how = f"residual of the rank-{rank} singular value decomposition"
    else:
        variance, mean = difference_noise(matrix, known)
        how = "second differences: too few rows or channels for a decomposition"
        if max(matrix.shape) < 3:
            return (mean, "whole numbers, too few to check: the mean") if whole else (0.0, "too few values to tell")
    low, high = COUNTS_RATIO
    if whole and low <= variance / float(matrix[known].mean()) <= high:
        return _mean(values, valid, entries), "Poisson counts: the mean"
    return variance * share, how


def noise_along_signal(values: np.ndarray, valid: np.ndarray | None, model: NoiseModel) -> float:
    """Noise variance along the mean over the first axis (the mean spectrum), over the average noise variance.

    One where the noise is even; more where it grows with the signal, as that of counts does.

    Parameters
    ----------
    values : array, one axis a mode
        Finite where valid.
    valid : array of bool, same shape, optional
        True where an entry counts; ``None`` for all.
    model : NoiseModel
        Variance for a given mean.

    Returns
    -------
    ratio : float

    Examples
    --------
    >>> noise_along_signal(np.array([[1.0, 0.0, 2.0]]), None, NoiseModel())
    1.8
    """
    counted = None if valid is None else valid.sum(axis=0)
    total = values.sum(axis=0, dtype=np.float64, where=True if valid is None else valid)
    mean = np.maximum(total / (len(values) if counted is None else np.maximum(counted, 1)), 0)
    variance = model.variance(mean)
    energy, average = float(np.sum(mean**2)), float(np.mean(variance))
    return float(np.sum(mean**2 * variance)) / energy / average if energy > 0 and average > 0 else 1.0


def _mean(values: np.ndarray, valid: np.ndarray | None, entries: int) -> float:
    """Mean over valid entries, accumulated in float64."""
    if valid is None:
        return float(values.mean(dtype=np.float64))
    return float(values.sum(dtype=np.float64, where=valid)) / entries


def _rows(values: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Unfold the first axis against all others, in float64, at most about a quarter of a million values of it."""
    channels = max(values.size // len(values), 1)
    known = None if valid is None else valid.reshape(len(values), channels)
    rows = np.arange(len(values)) if known is None else np.flatnonzero(known.any(axis=1))
    rows = rows[pick_rows(len(rows), min(max(FEWEST_ROWS, MOST_VALUES // channels), 2**14))]
    matrix = values.reshape(len(values), channels)[rows].astype(np.float64)
    if known is None:
        return matrix, np.ones(matrix.shape, dtype=bool)
    return np.where(known[rows], matrix, 0.0), known[rows]


def _residual_variance(matrix: np.ndarray, known: np.ndarray, rank: int, counts: bool) -> float:
    """Mean of the squared residuals, each divided by the share of the noise that the model left over."""
    if counts:
        sample = sample_noise(matrix, known, rank, 1.0, 0.0, np.zeros(0))
        usable, variance = sample.usable, sample.variance
    else:
        fit = low_rank(matrix, rank, rank, valid=known)
        usable = known & (fit.kept > 0.25)
        variance = np.divide((matrix - fit.model) ** 2, fit.kept, out=np.zeros_like(matrix), where=usable)
        if usable.sum() < 0.25 * known.sum():
            rows, channels = matrix.shape
            squares = float(((matrix - fit.model)[known] ** 2).mean())
            return squares * rows * channels / ((rows - rank) * (channels - rank))
    average = float(variance[usable].mean())
    mean, seen = float(matrix[known].mean()), float(matrix[usable].mean())
    # Entries that the model has swallowed are the bright ones: their variance is larger, as their mean is.
    return average * mean / seen if (matrix >= 0).all() and seen > 0 else average
