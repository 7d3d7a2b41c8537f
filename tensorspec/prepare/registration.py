"""Places of spectra against the shape that they have in common: fitted, with standard errors that chance confirms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorspec.noise import NoiseModel, event_shares, spread_events

__all__ = ["Registration", "register", "whole_channels"]

# Rounds of building the common shape, and steps of moving the spectra to it.
ROUNDS, STEPS = 4, 5
# A shape narrower than this at half its height, in channels, has knots at every half channel, and more rounds.
NARROW, NARROW_ROUNDS = 3.0, 16
# Weight of the curvature of the common shape: it decides where no spectrum says anything.
STIFF = 1e-3
# The peak ends where it is below this share of its height, or rises again by this factor towards another one.
FOOT, RISE = 0.02, 1.3
# Share of the height of the shape by which the variance that channels are weighed with is larger than theirs.
EVEN = 0.04
# Spectra that are simulated without any drift, and sets of them, to learn what chance does.
SIMULATED, SETS = (500, 2000), 25
# A drift is one where chance alone explains the shifts less often than this.
CHANCE = 1e-3
# And one that is smaller than the errors of the shifts would become larger by undoing them: squares, with the errors'.
WORTH = 2.0
# The noise of few spectra is known badly, and the errors with it.
FEW, WORTH_OF_FEW = 5, 12.0
# Spectra are no fainter than this share of the mean brightness: empty ones must not count for much.
FAINT = 1e-3
# So many spectra of which the oddest can be left out.
MANY = 50
# No spectrum has less than this share of the standard error that is usual for its brightness.
LEAST = 0.3
# With fewer events than these, a common shape is made of chance.
FEWEST = 25
ROWS = 4096


@dataclass(frozen=True)
class Registration:
    """Where spectra lie.

    Attributes
    ----------
    shift : (rows,) array
        Place of each spectrum less the median place, channels.
    error : (rows,) array
        Standard error of it, channels; NaN for a single spectrum.
    top : float
        Channel of the highest point of the common shape.
    drifts : bool
        Whether the shifts are more than chance makes of none.
    """

    shift: np.ndarray
    error: np.ndarray
    top: float
    drifts: bool


@dataclass(frozen=True)
class _Placed:
    """One fit of all spectra: shift, standard error, factor, and the common shape."""

    shift: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    reference: Any
    region: tuple[float, float]


def register(values: np.ndarray, known: np.ndarray, noise: NoiseModel, single_peak: bool) -> Registration:
    """Find the place of each spectrum against the shape common to all.

    Parameters
    ----------
    values : (rows, channels) float64 array
        Spectra, zero where unknown; none is empty.
    known : (rows, channels) array of bool
        Which entries are used.
    noise : NoiseModel
        Of the values.
    single_peak : bool
        Whether one peak alone is looked at, the highest: what lies beyond its feet is not.

    Returns
    -------
    Registration
        Shifts, errors, and whether anything moves.

    Notes
    -----
    The common shape is a cubic spline, fitted to all spectra by least squares at the places that they have; a shape of
    less than three channels at half its height gets knots at every half channel, which spectra at different parts of a
    channel determine together. Each spectrum is that shape times a factor, moved, plus a constant: weighted least
    squares with the variance of the noise, which is as good as maximum likelihood. Standard errors take the correlation
    of the noise between channels into account. The same estimate is
    then made of simulated spectra of this shape and noise that do not drift; standard errors are scaled by what those
    scatter by, and a drift is what they do not explain.
    """
    placed = _place(values, known, noise, single_peak)
    grid = np.linspace(0, values.shape[1] - 1, 50 * values.shape[1])
    inside = grid[(grid >= placed.region[0]) & (grid <= placed.region[1])]
    top = float(inside[np.argmax(placed.reference(inside))])
    count = len(values)
    if count == 1:
        return Registration(placed.shift, np.full(1, np.nan), top, False)
    sets = int(np.clip(np.ceil(SIMULATED[0] / count), 1, SETS))
    rows = np.arange(count) if count <= SIMULATED[1] else np.linspace(0, count - 1, SIMULATED[1]).astype(int)
    rng = np.random.default_rng(0)
    squares = np.empty((sets, len(rows)))
    for one in range(sets):
        still = _place(_still(placed, known[rows], rows, noise, rng), known[rows], noise, single_peak)
        squares[one] = (still.shift / still.error) ** 2
    mean = float(squares.mean())
    observed = float(np.mean((placed.shift / placed.error) ** 2))
    # The mean of so many squares is as if it were of chi-squared distribution: the same mean and the same variance.
    between = float(squares.mean(axis=1).var(ddof=1)) if sets > 4 else 0.0
    spread = max(float(squares.var()) * (1 / count), between) + float(squares.var()) / squares.size
    degrees = 2 * mean**2 / max(spread, 1e-300)
    from scipy.stats import chi2

    events = float(np.median(np.where(known, values, 0).sum(axis=1))) / max(noise.gain, 1e-300)
    worth = WORTH if count >= FEW else WORTH_OF_FEW
    threshold = mean * max(float(chi2.isf(CHANCE, degrees)) / degrees, worth)
    drifts = events >= FEWEST and observed > threshold
    return Registration(placed.shift, placed.error * np.sqrt(max(mean, 1e-12)), top, bool(drifts))


def _still(
    placed: _Placed, known: np.ndarray, rows: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> np.ndarray:
    """Draw spectra of the common shape that do not move."""
    channels = known.shape[1]
    mean = placed.scale[rows, None] * np.maximum(placed.reference(np.arange(channels, dtype=float)), 0)
    padded = np.pad(mean, ((0, 0), (1, 1)), mode="edge")
    deviation = rng.normal(0.0, np.sqrt(noise.read_variance), padded.shape)
    if noise.gain > 0:
        deviation += noise.gain * rng.poisson(padded / noise.gain) - padded
    return np.where(known, mean + spread_events(deviation, noise.channel_correlation), 0.0)


def _place(values: np.ndarray, known: np.ndarray, noise: NoiseModel, single_peak: bool) -> _Placed:
    """Build the common shape and move all spectra to it, in turn."""
    count = values.shape[1]
    shift = whole_channels(values)
    shift -= np.median(shift)
    scale = values.sum(axis=1)
    scale = np.where(scale > 0, scale, np.abs(values).sum(axis=1))
    scale = np.maximum(scale / scale.mean(), FAINT)
    pitch, rounds, done = 1, ROUNDS, 0
    region = (0.0, count - 1.0)
    while done < rounds:
        reference = _shape(values, known, shift, scale, pitch)
        if done == 1:
            top, width = _peak(reference, count)
            if single_peak:
                region = _feet(reference, count, top)
            if width < NARROW:
                pitch, rounds = 2, NARROW_ROUNDS
                reference = _shape(values, known, shift, scale, pitch)
        blocks = [slice(start, start + ROWS) for start in range(0, len(values), ROWS)]
        parts = [
            _moved(reference, values[rows], known[rows], shift[rows], scale[rows], region, noise) for rows in blocks
        ]
        shift, error, scale, left = (np.concatenate(each) for each in zip(*parts, strict=True))
        shift = shift - np.median(shift)
        scale = np.maximum(scale / scale.mean(), FAINT)
        done += 1
    # A spectrum that has been moved to where it has nothing is not known the better for it.
    even = error * np.sqrt(scale)
    error = np.maximum(error, LEAST * np.median(even) / np.sqrt(scale)) * np.sqrt(_excess(left))
    return _Placed(shift, error, scale, reference, region)


def _excess(left: np.ndarray) -> float:
    """Return by how much more than the noise is left over, without the oddest spectra; one where it is less."""
    ratio = left[:, 0] / np.maximum(left[:, 1], 1e-12)
    use = left[:, 1] > 0
    if use.sum() >= MANY:
        use &= ratio <= np.quantile(ratio[use], 0.98)
    if not use.any():
        return 1.0
    # The common shape was made of the same spectra.
    return max(1.0, float(left[use, 0].sum() / left[use, 1].sum()) * len(left) / max(len(left) - 1, 1))


def whole_channels(values: np.ndarray) -> np.ndarray:
    """Whole channels, by the largest cross-correlation with the sum; the sum sharpens as they are found."""
    count = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    transform = np.fft.rfft(centred / np.where(norms > 0, norms, 1), 2 * count, axis=1)
    order = np.fft.fftfreq(2 * count, 1 / (2 * count)).astype(int)
    near = np.flatnonzero(np.abs(order) <= count // 2)
    shift = np.zeros(len(values), dtype=int)
    frequency = np.arange(transform.shape[1])
    for _ in range(3):
        back = transform * np.exp(2j * np.pi * frequency * shift[:, None] / (2 * count))
        correlation = np.fft.irfft(transform * np.conj(back.sum(axis=0)), axis=1)
        shift = order[near[np.argmax(correlation[:, near], axis=1)]]
        shift = shift - int(np.median(shift))
    return shift.astype(float)


def _shape(values: np.ndarray, known: np.ndarray, shift: np.ndarray, scale: np.ndarray, pitch: int) -> Any:
    """Fit a cubic spline with `pitch` knots a channel to all spectra, each moved back and divided by its factor."""
    from scipy.interpolate import BSpline
    from scipy.linalg import solveh_banded

    count = values.shape[1]
    number = pitch * (count - 1) + 4
    normal, right = np.zeros((4, number)), np.zeros(number)
    for start in range(0, len(values), ROWS):
        rows = slice(start, start + ROWS)
        place = pitch * (np.arange(count) - shift[rows, None])
        inside = known[rows] & (place >= 0) & (place <= pitch * (count - 1))
        base = np.clip(np.floor(place).astype(int), 0, pitch * (count - 1))
        part = np.clip(place - base, 0, 1)
        weights = ((1 - part) ** 3, 3 * part**3 - 6 * part**2 + 4, -3 * (part**3 - part**2 - part) + 1, part**3)
        base, held, own = base[inside], values[rows][inside], np.broadcast_to(scale[rows, None], place.shape)[inside]
        flat = [weight[inside] / 6 for weight in weights]
        for one in range(4):
            right += np.bincount(base + one, flat[one] * held, number)
            for two in range(one, 4):
                normal[two - one] += np.bincount(base + one, own * flat[one] * flat[two], number)
    stiff = STIFF * normal[0].mean()
    curvature = np.diff(np.eye(3), n=2, axis=0)[0]
    for one in range(3):
        for two in range(one, 3):
            normal[two - one, one : number - 2 + one] += stiff * curvature[one] * curvature[two]
    normal[0] += 1e-9 * normal[0].mean()
    coefficients = solveh_banded(normal, right, lower=True)
    knots = np.arange(-3, number + 1) / pitch
    return BSpline(knots, coefficients, 3)


def _peak(reference: Any, count: int) -> tuple[float, float]:
    """Return place and full width at half height of the highest peak, channels."""
    grid = np.linspace(0, count - 1, 20 * (count - 1) + 1)
    height = reference(grid)
    top = int(np.argmax(height))
    low = height < 0.5 * (height[top] + np.median(height))
    left, right = np.flatnonzero(low[:top]), np.flatnonzero(low[top:])
    if not len(left) or not len(right):
        return float(grid[top]), float(count)
    return float(grid[top]), (top + right[0] - left[-1]) / 20


def _feet(reference: Any, count: int, top: float) -> tuple[float, float]:
    """Return where the peak begins and ends."""
    ends = []
    for sign, limit in ((-1, 0.0), (1, count - 1.0)):
        place = top + sign * np.arange(0, abs(limit - top), 0.25)
        height = reference(place)
        least = np.minimum.accumulate(height)
        over = (height < FOOT * height[0]) | ((height > RISE * least) & (least < 0.5 * height[0]))
        end = place[int(np.argmax(over))] if over.any() else limit
        # Two channels at least on either side: a shift, a factor and a level are asked of them.
        ends.append(float(np.clip(top + sign * max(abs(end - top), 2.5), 0, count - 1)))
    return ends[0], ends[1]


def _moved(
    reference: Any,
    values: np.ndarray,
    known: np.ndarray,
    shift: np.ndarray,
    scale: np.ndarray,
    region: tuple[float, float],
    noise: NoiseModel,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return shift, standard error and factor of each spectrum, and its sum of squares with what noise makes of it."""
    count = values.shape[1]
    channels = np.arange(count, dtype=float)
    slope_of = reference.derivative()
    shift, scale, level = shift.copy(), scale.copy(), np.zeros(len(values))
    least, most = 0.05 * scale, 20 * scale
    for _ in range(STEPS + 1):
        place = channels - shift[:, None]
        used = known & (place >= region[0]) & (place <= region[1])
        place = np.clip(place, 0, count - 1)
        shape, slope = reference(place), slope_of(place)
        mean = scale[:, None] * shape
        # Even weights cost little, and keep what is not yet right about the feet of the shape from moving its top.
        even = noise.variance(np.maximum(mean, 0) + EVEN * mean.max(axis=1, keepdims=True)) + 1e-300
        weight = np.where(used, 1 / even, 0.0)
        columns = np.stack([shape, -scale[:, None] * slope, np.ones_like(shape)])
        normal = np.einsum("aij,bij,ij->iab", columns, columns, weight)
        size = np.sqrt(np.maximum(np.einsum("iaa->ia", normal), 1e-300))
        inverse = np.linalg.inv(normal / size[:, :, None] / size[:, None, :] + 1e-6 * np.eye(3))
        inverse = inverse / size[:, :, None] / size[:, None, :]
        residual = values - mean - level[:, None]
        change = np.einsum("iab,bij,ij->ia", inverse, columns, weight * residual)
        shift = np.clip(shift + np.clip(change[:, 1], -1.0, 1.0), -count / 2, count / 2)
        scale = np.clip(scale + change[:, 0], least, most)
        level += change[:, 2]
    residual = np.where(used, residual - np.einsum("ia,aij->ij", change, columns), 0.0)
    # The noise goes into the fit with its own variance and correlation, whatever the weights are.
    actual = noise.variance(mean)
    carried = columns * (weight * np.sqrt(actual))
    covariance = np.einsum("aij,bij->iab", carried, carried)
    centre, side = event_shares(noise.channel_correlation)
    for lag, correlation in ((1, 2 * centre * side), (2, side**2)):
        both = correlation * np.einsum("aij,bij->iab", carried[:, :, : count - lag], carried[:, :, lag:])
        covariance += both + both.transpose(0, 2, 1)
    square = np.einsum("ia,iab,ib->i", inverse[:, 1], covariance, inverse[:, 1])
    expected = (weight * actual).sum(axis=1) - np.einsum("iab,iba->i", inverse, covariance)
    # A spectrum with nothing where the peak is has no place.
    lost = ~(square > 0) | (normal[:, 1, 1] <= 1e-200)
    error = np.where(lost, float(count), np.sqrt(np.where(lost, 1.0, square)))
    left = np.stack([(weight * residual**2).sum(axis=1), np.where(lost, 0.0, expected)], axis=1)
    return np.where(lost, 0.0, shift), np.minimum(error, float(count)), scale, left
