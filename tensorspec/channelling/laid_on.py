"""Where what a detector recorded lies on what it should have recorded: scale, origin and sense of tilts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidData

__all__ = ["pattern_laid_on", "row_laid_on"]

# Scales and origins of a row that are tried before the best is refined; and scales of a pattern.
SCALES, ORIGINS, PATTERN_SCALES = 61, 121, 25
# Share of the variation of the reference that has to be explained.
LEAST_EXPLAINED = 0.5
# Another sense is ruled out where it leaves so many times more than the best.
TOLD = 1.5
# Degrees by which a pattern may be turned: its tilts are coordinates of their own only if it is not.
LARGEST_TURN = 1.5


def row_laid_on(own: np.ndarray, expected: xr.DataArray, step: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the tilts of a row at which a reference looks most like what is expected.

    Parameters
    ----------
    own : (points,) array
        As recorded.
    expected : DataArray
        Over ``tilt_x``, mrad.
    step : float
        First guess, mrad.

    Returns
    -------
    tilts : (points,) array
        mrad.
    record : dict
        ``step``, ``origin``, ``explained``, ``sense_told``.

    Raises
    ------
    InvalidData
        If less than half of the variation is explained.
    """
    from scipy.interpolate import CubicSpline
    from scipy.optimize import least_squares

    grid = expected["tilt_x"].values.astype(float)
    curve = CubicSpline(grid, expected.values.astype(float))
    index = np.arange(len(own)) - (len(own) - 1) / 2
    slow = np.stack([np.ones(len(own)), index / len(own), (index / len(own)) ** 2], axis=1)
    projector = np.eye(len(own)) - slow @ np.linalg.pinv(slow)
    seen = projector @ own

    def left(parameters: np.ndarray) -> np.ndarray:
        shape = projector @ curve(np.clip(parameters[0] * index + parameters[1], grid[0], grid[-1]))
        size = float(shape @ shape)
        # What a detector sees more of is not less: no negative factor.
        return seen - max(float(shape @ seen) / size, 0.0) * shape if size > 0 else seen

    ends = []
    reach = abs(step) * len(own) / 4
    for sign in (1.0, -1.0):
        tried = [
            (float(np.sum(left(np.array([sign * scale * abs(step), origin])) ** 2)), sign * scale * abs(step), origin)
            for scale in np.linspace(0.7, 1.3, SCALES)
            for origin in np.linspace(-reach, reach, ORIGINS)
        ]
        _, scale, origin = min(tried)
        found = least_squares(left, [scale, origin], x_scale=[abs(step), abs(step)])
        ends.append((2 * float(found.cost), *found.x))
    ends.sort()
    whole = float(seen @ seen)
    explained = 1 - ends[0][0] / whole if whole > 0 else 0.0
    _refuse_unlike(explained)
    told = ends[1][0] > TOLD * ends[0][0]
    if not told:
        ends.sort(key=lambda end: -end[1] * np.sign(step))
    scale, origin = ends[0][1], ends[0][2]
    return scale * index + origin, {
        "step": {"row": float(scale)},
        "origin": float(origin),
        "explained": float(explained),
        "sense_told": bool(told),
    }


def pattern_laid_on(
    own: np.ndarray, expected: xr.DataArray, steps: tuple[float, float]
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, Any]]:
    """Return the tilts of a pattern at which a reference looks most like what is expected.

    Parameters
    ----------
    own : (points, points) array
        As recorded, along y and x.
    expected : DataArray
        Over ``tilt_y`` and ``tilt_x``, mrad, in equal steps.
    steps : (float, float)
        First guesses along y and x, mrad.

    Returns
    -------
    tilts : ((points,) array, (points,) array)
        Along y and x, mrad.
    record : dict
        ``step``, ``origin`` and ``sense_told`` by dimension, ``explained``, and ``turn`` in degrees.

    Raises
    ------
    InvalidData
        If less than half of the variation is explained, nothing expected is as large as the scan, or it is turned.
    """
    from scipy.interpolate import RectBivariateSpline
    from scipy.optimize import least_squares

    if set(expected.dims) != {"tilt_y", "tilt_x"}:
        raise InvalidData(
            f"as_orientation: expected has the dimensions {list(expected.dims)}; needed tilt_y and tilt_x"
        )
    table = expected.transpose("tilt_y", "tilt_x")
    grid = [table[dim].values.astype(float) for dim in table.dims]
    surface = RectBivariateSpline(grid[0], grid[1], table.values.astype(float))
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in own.shape)
    along = np.stack(np.broadcast_arrays(rows[:, np.newaxis] / own.shape[0], columns / own.shape[1])).reshape(2, -1)
    slow = np.stack([np.ones(own.size), *along, along[0] ** 2, along[0] * along[1], along[1] ** 2], axis=1)
    basis = np.linalg.qr(slow)[0]

    def without_slow(values: np.ndarray) -> np.ndarray:
        return values - basis @ (basis.T @ values)

    seen = without_slow(own.ravel())

    def left(parameters: np.ndarray) -> np.ndarray:
        scale_y, scale_x, origin_y, origin_x, turn = parameters
        v, u = np.broadcast_arrays(scale_y * rows[:, np.newaxis], scale_x * columns)
        y = np.clip(np.cos(turn) * v + np.sin(turn) * u + origin_y, grid[0][0], grid[0][-1])
        x = np.clip(np.cos(turn) * u - np.sin(turn) * v + origin_x, grid[1][0], grid[1][-1])
        shape = without_slow(surface.ev(y.ravel(), x.ravel()))
        size = float(shape @ shape)
        return seen - max(float(shape @ seen) / size, 0.0) * shape if size > 0 else seen

    ends = []
    size_of = np.array([*map(abs, steps)])
    for signs in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)):
        tried = []
        for scale in np.linspace(0.7, 1.3, PATTERN_SCALES):
            place = _best_place(seen.reshape(own.shape), surface, grid, scale * size_of, signs)
            if place is not None:
                tried.append((*place, scale))
        if not tried:
            raise InvalidData(
                "as_orientation: the scan is larger than what is expected; compute beam_intensity on a wider zone_axis"
            )
        _, origin_y, origin_x, scale = max(tried)
        start = [signs[0] * scale * size_of[0], signs[1] * scale * size_of[1], origin_y, origin_x, 0.0]
        found = least_squares(left, start, x_scale=[*size_of, *size_of, 0.02])
        ends.append((2 * float(found.cost), *found.x))
    ends.sort()
    whole = float(seen @ seen)
    explained = 1 - ends[0][0] / whole if whole > 0 else 0.0
    _refuse_unlike(explained)
    # Of what the data cannot tell apart, that which runs as the steps say.
    alike = [end for end in ends if end[0] <= TOLD * ends[0][0]]
    ends = sorted(alike, key=lambda end: -sum(float(end[1 + k] * steps[k] > 0) for k in range(2)))
    told = {dim: len({bool(end[1 + k] > 0) for end in alike}) == 1 for k, dim in enumerate("yx")}
    _, scale_y, scale_x, origin_y, origin_x, turn = ends[0]
    if abs(np.degrees(turn)) > LARGEST_TURN:
        raise InvalidData(
            f"as_orientation: the scan is turned by {np.degrees(turn):.1f} degrees against what is expected; turn the "
            "data, or choose x= of zone_axis along the scan"
        )
    return (scale_y * rows + origin_y, scale_x * columns + origin_x), {
        "step": {"y": float(scale_y), "x": float(scale_x)},
        "origin": {"y": float(origin_y), "x": float(origin_x)},
        "explained": float(explained),
        "sense_told": told,
        "turn": float(np.degrees(turn)),
    }


def _best_place(
    seen: np.ndarray, surface: Any, grid: list[np.ndarray], steps: np.ndarray, signs: tuple[float, float]
) -> tuple[float, float, float] | None:
    """Return the largest correlation of what was seen with what is expected, and the tilts in its middle."""
    from scipy.signal import fftconvolve

    axes = [np.arange(own[0], own[-1] + 1e-9, step) for own, step in zip(grid, steps, strict=True)]
    if any(len(axis) < size for axis, size in zip(axes, seen.shape, strict=True)):
        return None
    theory = surface(*axes)
    theory = theory - theory.mean()
    mask = seen[:: int(signs[0]), :: int(signs[1])]
    ones = np.ones(mask.shape)
    sums = fftconvolve(theory, ones, mode="valid")
    squares = fftconvolve(theory**2, ones, mode="valid") - sums**2 / mask.size
    score = fftconvolve(theory, mask[::-1, ::-1], mode="valid") / np.sqrt(np.maximum(squares, 1e-12 * squares.max()))
    at = np.unravel_index(int(np.argmax(score)), score.shape)
    middle = [
        float(axis[k] + step * (size - 1) / 2) for axis, k, step, size in zip(axes, at, steps, mask.shape, strict=True)
    ]
    return float(score[at]), middle[0], middle[1]


def _refuse_unlike(explained: float) -> None:
    if explained < LEAST_EXPLAINED:
        raise InvalidData(
            f"as_orientation: what is expected explains {100 * explained:.0f} % of the reference; is it the right row "
            "or zone, detector and thickness, and is step within 30 %?"
        )
