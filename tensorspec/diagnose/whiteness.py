"""Whether what a model leaves over is noise: structure in the residual, beside what noise would show."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.contributions import reconstruct, residual
from tensorspec.diagnose.residuals import noise_of
from tensorspec.errors import InvalidData
from tensorspec.noise import NoiseModel, spread_events
from tensorspec.pieces import own_dims, pieces
from tensorspec.solution import Fit

__all__ = ["whiteness"]

# Structure is what noise shows less often than this, over all that is looked at.
LEVEL = 0.01
DRAWS = 19
# A component is left over where the residual's largest singular value exceeds that of all draws by this factor: fits
# that weigh counts only roughly leave a few per cent.
LEFT_OVER = 1.1


def whiteness(
    fit: Fit, name: str | None = None, data: Any = None, *, noise: NoiseModel | None = None, seed: int = 0
) -> xr.Dataset:
    """Look for structure in the residual of a fit: neighbours that are alike, misfit that gathers, a component left.

    Parameters
    ----------
    fit : Fit
        Any fit.
    name : str, optional
        The tensor; needed where there are several.
    data : DataArray or mapping of str to DataArray, optional
        The data, if the fit does not hold them.
    noise : NoiseModel, optional
        By default that in ``attrs["noise"]`` of the data, else as estimated during the fit, else from the residual
        itself, which is then white in size by construction and only tested for structure.
    seed : int
        Of the noise that is drawn for comparison.

    Returns
    -------
    Dataset
        By dimension ``dim``: ``correlation`` of neighbouring residuals, that ``expected`` of noise from which the model
        has been fitted, and the ``score`` of the difference, in standard errors; ``map_score``, the same for the map
        of the misfit, for dimensions of the pixels (NaN for others). ``residual_map``: chi-squared per entry of every
        pixel.
        ``attrs``: ``leading``, the largest singular value of the residual over the largest that drawn noise has;
        ``white``, whether no correlation stands out at a chance of 0.01, nor ``leading`` is above 1.1; and ``advice``
        in words.

    Raises
    ------
    UnknownName, InvalidArgument, InvalidData
        If there is no such tensor, several and none named, or its data are missing.

    Notes
    -----
    A model that follows the noise takes a share of it away, smoothly along the spectra: the expected correlation is
    that of the tangent space of the factors, which is exact for least squares without active bounds. It is the
    channel correlation of the noise model where that has one. Counts that are fitted by least squares without weights
    leave structure in dim channels, as the noise of the bright ones decides: simulated EDX maps were white after
    `Poisson`, not after ``LeastSquares()``. The whole residual is held in memory.

    Examples
    --------
    >>> from tensorspec.assemble import assemble
    >>> rng = np.random.default_rng(0)
    >>> factors = {"pixel": np.ones((200, 1)), "energy_loss": np.full((50, 1), 9.0)}
    >>> counts = xr.DataArray(rng.poisson(9.0, (200, 50)), dims=("x", "energy_loss"))
    >>> whiteness(assemble({"data": counts}, factors), noise=NoiseModel()).white
    True
    >>> counts[:30, 20:24] += 6
    >>> print(whiteness(assemble({"data": counts}, factors), noise=NoiseModel()).advice[:75])
    The residual has structure: neighbours along energy_loss and x are alike, m
    """
    name = fit._tensor(name)
    seed = whole("whiteness: seed", seed, 0)
    record = fit.tensors[name]
    difference = residual(fit, name, data).as_numpy().astype(float)
    model = reconstruct(fit, name).values.astype(float)
    valid = np.isfinite(difference.values)
    if not valid.any():
        raise InvalidData(f"whiteness: tensor {name!r} has no valid entry")
    noise = noise or noise_of(fit, name)
    left = np.where(valid, difference.values, 0.0)
    if noise is None:
        noise = NoiseModel(0.0, float((left**2).sum() / valid.sum()) or 1.0)
    variance = noise.variance(model)
    # Where a model says zero, one event is no surprise.
    least = 0.05 * float(noise.variance(float(np.mean(np.abs(model[valid])))))
    deviation = np.sqrt(np.maximum(np.where(valid, variance, 1.0), max(least, 1e-300)))
    score = np.where(valid, left / deviation, 0.0)
    dims = [str(dim) for dim in record.dims]
    shares = _tangent(fit, name, deviation, dims)
    found = {key: np.full(len(dims), np.nan) for key in ("correlation", "expected", "score", "map_score")}
    last = own_dims(fit, name, fit.signal_mode(name))[-1]
    for axis, dim in enumerate(dims):
        if record.shape[axis] < 3:
            continue
        found["correlation"][axis], number = _neighbours(score, valid, axis)
        own = (noise.channel_correlation or 0.0) if dim == last else 0.0
        found["expected"][axis] = own - shares[dim]
        found["score"][axis] = (found["correlation"][axis] - found["expected"][axis]) * np.sqrt(max(number, 1.0))
    map_dims = [str(dim) for dim in own_dims(fit, name, fit.map_mode(name))]
    off = tuple(axis for axis, dim in enumerate(dims) if dim not in map_dims)
    counted = valid.sum(axis=off)
    squares = np.where(counted > 0, (score**2).sum(axis=off) / np.maximum(counted, 1), np.nan)
    centred = np.where(counted > 0, squares - np.nanmedian(squares), 0.0)
    # A few pixels of large misfit are for `leverage`; what gathers is looked for among all.
    spread = 1.4826 * float(np.median(np.abs(centred[counted > 0])))
    centred = np.clip(centred, -4 * spread, 4 * spread) if spread > 0 else centred
    centred = np.where(counted > 0, centred - centred[counted > 0].mean(), 0.0)
    own_map = [dim for dim in dims if dim in map_dims]
    for axis, dim in enumerate(own_map):
        if centred.shape[axis] >= 3 and spread > 0:
            value, number = _neighbours(centred, counted > 0, axis)
            found["map_score"][dims.index(dim)] = value * np.sqrt(number)
    leading = _leading(score, valid, model, noise, deviation, off, dims.index(last), seed)
    result = xr.Dataset(
        {key: ("dim", value) for key, value in found.items()},
        coords={"dim": dims},
    )
    coords = {key: coord for key, coord in difference.coords.items() if set(coord.dims) <= set(own_map)}
    result["residual_map"] = xr.DataArray(
        squares, dims=own_map, coords=coords, attrs={"long_name": "chi-squared per entry"}
    )
    tests = int(np.isfinite(found["score"]).sum() + np.isfinite(found["map_score"]).sum() + 1)
    advice, white = _verdict(dims, found, leading, tests)
    result.attrs = {"leading": leading, "white": white, "advice": advice, "noise": repr(noise)}
    return result


def _neighbours(score: np.ndarray, valid: np.ndarray, axis: int) -> tuple[float, float]:
    """Return the correlation of neighbours along an axis, and how many pairs there are."""
    size = score.shape[axis]
    first, second = np.take(score, range(size - 1), axis), np.take(score, range(1, size), axis)
    both = np.take(valid, range(size - 1), axis) & np.take(valid, range(1, size), axis)
    whole_sum = float((score[valid] ** 2).mean())
    if not both.any() or whole_sum <= 0:
        return 0.0, 0.0
    return float((first * second)[both].mean() / whole_sum), float(both.sum())


def _tangent(fit: Fit, name: str, deviation: np.ndarray, dims: list[str]) -> dict[str, float]:
    """Return by how much fitting lowers the correlation of neighbours along each dimension.

    The residual is what is left after projection from the tangent space of the factors. The part of it that moves one
    factor holds, for each of its rows, the same space: the products of all other columns, in units of the noise.
    """
    shares = dict.fromkeys(dims, 0.0)
    if name in fit.cores or fit.weights is None:
        return shares
    alive = np.flatnonzero(fit.strengths(name).values != 0)
    own = pieces(fit, name)
    arrays, gaps = [], {}
    for piece in own:
        array = np.nan_to_num(np.asarray(piece.array.values, dtype=float))[alive]
        inner = [str(dim) for dim in piece.array.dims[1:]]
        # The noise of the mean over all else evens the columns out.
        across = tuple(axis for axis, dim in enumerate(dims) if dim not in inner)
        even = deviation.mean(axis=across)
        order = [dim for dim in dims if dim in inner]
        array = array / np.transpose(even, [order.index(dim) for dim in inner])
        arrays.append(array.reshape(len(alive), -1))
        for axis, dim in enumerate(inner):
            if array.shape[axis + 1] > 2:
                first = np.take(array, range(array.shape[axis + 1] - 1), axis + 1)
                second = np.take(array, range(1, array.shape[axis + 1]), axis + 1)
                flat = first.reshape(len(alive), -1), second.reshape(len(alive), -1)
                gaps[dim] = (len(arrays) - 1, flat[0] @ flat[1].T, array.shape[axis + 1])
    grams = [array @ array.T for array in arrays]
    entries = float(np.prod([array.shape[1] for array in arrays]))
    for dim, (place, gap, size) in gaps.items():
        total = 0.0
        for moved, array in enumerate(arrays):
            if moved == place:
                continue  # that factor's own tangent space holds no two neighbours along its own mode
            others = [grams[k] for k in range(len(arrays)) if k not in (moved, place)]
            rest = np.prod(others, axis=0) if others else np.ones_like(gap)
            inverse = np.linalg.pinv(rest * grams[place], rcond=1e-12, hermitian=True)
            total += array.shape[1] * float((inverse * (rest * gap)).sum())
        shares[dim] = total / (entries * (size - 1) / size)
    return shares


def _leading(
    score: np.ndarray,
    valid: np.ndarray,
    model: np.ndarray,
    noise: NoiseModel,
    deviation: np.ndarray,
    off: tuple[int, ...],
    channels: int,
    seed: int,
) -> float:
    """Return the largest singular value of the residual of pixels x all else over the largest of drawn noise.

    `channels` is the axis along which neighbours of drawn noise are correlated.
    """
    rng = np.random.default_rng(seed)
    order = [*(axis for axis in range(score.ndim) if axis not in off), *off]
    shape = (int(np.prod([score.shape[axis] for axis in order[: score.ndim - len(off)]])), -1)

    def largest(values: np.ndarray) -> float:
        matrix = np.transpose(values, order).reshape(shape)
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))

    mean = np.maximum(np.nan_to_num(model), 0.0)
    edge = 0.0
    for _ in range(DRAWS):
        drawn = np.zeros(score.shape)
        if noise.gain > 0:
            drawn += noise.gain * rng.poisson(mean / noise.gain) - mean
        if noise.read_variance > 0:
            drawn += rng.normal(0, np.sqrt(noise.read_variance), score.shape)
        if noise.channel_correlation:
            edges = [(int(axis == channels),) * 2 for axis in range(drawn.ndim)]
            drawn = spread_events(np.pad(drawn, edges, mode="reflect"), noise.channel_correlation, channels)
        edge = max(edge, largest(np.where(valid, drawn / deviation, 0.0)))
    # A residual that is larger or smaller than thought everywhere is for chi-squared to tell.
    size = float((score[valid] ** 2).mean())
    return largest(score) / max(edge * np.sqrt(max(size, 1.0)), 1e-300)


def _verdict(dims: list[str], found: dict[str, np.ndarray], leading: float, tests: int) -> tuple[str, bool]:
    from scipy.stats import norm

    bound = float(norm.isf(LEVEL / 2 / tests))
    alike = [dim for dim, value in zip(dims, found["score"], strict=True) if value > bound]
    unlike = [dim for dim, value in zip(dims, found["score"], strict=True) if value < -bound]
    gathers = [dim for dim, value in zip(dims, found["map_score"], strict=True) if value > bound]
    said = []
    if alike:
        said.append(f"neighbours along {' and '.join(sorted(alike))} are alike")
    if unlike:
        said.append(f"neighbours along {' and '.join(sorted(unlike))} differ more than noise does")
    if gathers:
        said.append(f"misfit gathers along {' and '.join(sorted(gathers))}")
    if leading > LEFT_OVER:
        said.append("a component is left over")
    if not said:
        return "The residual is white: no structure beyond noise was found.", True
    return f"The residual has structure: {', '.join(said)}.", False
