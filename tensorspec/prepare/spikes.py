"""Cosmic rays, dead and hot entries, pixels and channels: left out by a mask, not edited."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.noise.spikes import find_spikes
from tensorspec.noise.unfold import row_dims
from tensorspec.prepare.steps import as_spectra, in_units_of, usable
from tensorspec.prepare.zero_loss import NEAR
from tensorspec.shared_modes import is_numeric

__all__ = ["mask_spikes"]

# What no peak of two channels at half its height does: a channel this many times above, or below, both neighbours.
HOT, DEAD = 2.5, 0.4
SIGMAS = 6.0
FEW = 3
# Rows that are compared at once; all of one block see the same components.
BLOCK = 4_000_000


def mask_spikes(
    data: xr.DataArray,
    false_alarms: float = 0.05,
    *,
    noise: NoiseModel | None = None,
    mask: xr.DataArray | None = None,
) -> xr.DataArray:
    """Return a mask that leaves out entries which the noise does not explain; the data stay as they are.

    Give it to a fit, ``ts.fit(data, model, mask=mask)``, or combine masks: ``spikes & channels``.

    Parameters
    ----------
    data : DataArray
        Pixels, or else the first dimension, against all others; counts or other numbers.
    false_alarms : float
        Expected number of good entries that are left out, in all data together.
    noise : NoiseModel, optional
        By default that in ``attrs["noise"]``, else estimated.
    mask : DataArray of bool, optional
        True where an entry is used; what it leaves out stays left out.

    Returns
    -------
    mask : DataArray of bool
        With the dimensions of the data, True where an entry is used. ``attrs`` hold the numbers of ``spikes``,
        ``channels`` and ``pixels`` left out, and ``history``.

    Raises
    ------
    InvalidData
        If the data hold infinities, or fewer than four pixels or channels: then nothing predicts an entry.
    InvalidArgument
        If `false_alarms` is not above zero, or neither is there a pixel left.

    Notes
    -----
    An entry is compared with what the others predict of it, by a low-rank model of all components above the noise, and
    by the tails of the Poisson distribution of its events, so that the stated rate holds at low counts too. The rate
    counts what chance does to noise of the given model: where the noise is estimated too low, more is left out.

    A channel that is more than 2.5 times as bright as both its neighbours in the sum of all spectra, or less than 0.4
    times, is hot or dead: no peak that is two channels wide does that, and the top of
    a zero-loss peak that is narrower is spared. A pixel that is empty is dead.

    Lazy data are read, about four million values at a time.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(np.multiply.outer(np.linspace(1, 2, 60), np.linspace(5, 9, 40)))
    >>> counts[10, 20] = 60
    >>> mask = mask_spikes(xr.DataArray(counts, dims=("x", "energy_loss")))
    >>> bool(mask[10, 20]), mask.attrs["spikes"], mask.attrs["history"]
    (False, 1, ['spikes left out: 1 entry, 0 channels, 0 pixels; 0.05 false alarms expected'])
    """
    data = as_spectra("mask_spikes", data)
    rate = number("false_alarms", false_alarms, 0, above=True)
    mask = usable("mask_spikes", data, mask)
    noise = noise or NoiseModel.from_attrs(data.attrs) or estimate_noise(data if mask is None else data.where(mask))
    rows = row_dims(data)
    others = [str(dim) for dim in data.dims if dim not in rows]
    ordered = data.transpose(*rows, *others)
    pixels = int(np.prod([ordered.sizes[dim] for dim in rows]))
    channels = ordered.size // pixels
    if min(pixels, channels) < 4:
        raise InvalidData(
            f"mask_spikes: {pixels} pixels and {channels} channels; at least four of each are needed to predict an "
            "entry."
        )
    given = None if mask is None else (xr.ones_like(ordered, dtype=bool) & mask).transpose(*ordered.dims)
    used = np.empty((pixels, channels), dtype=bool)
    found = np.zeros((pixels, channels), dtype=bool)
    total, seen, bright = np.zeros(channels), np.zeros(channels), np.zeros(pixels)
    largest = np.zeros((0, channels))
    for part, values in _blocks(ordered, pixels, channels):
        known = ~np.isnan(values)
        if not np.isfinite(values[known]).all():
            raise InvalidData("mask_spikes: the data hold infinities; replace them by NaN (missing).")
        used[part] = known if given is None else known & given.as_numpy().values.reshape(pixels, channels)[part]
        held = np.where(used[part], values, 0.0)
        total += held.sum(axis=0)
        seen += used[part].sum(axis=0)
        bright[part] = np.abs(held).sum(axis=1)
        largest = np.sort(np.concatenate([largest, held]), axis=0)[-FEW:]
    length = ordered.sizes[others[-1]] if others else 1
    odd = _odd_channels(total, total - largest.sum(axis=0), seen, noise, length, rate)
    odd &= ~_zero_loss(ordered, others, total)
    dark = bright == 0
    for part, values in _blocks(ordered, pixels, channels):
        valid = used[part] & ~odd
        held = np.where(valid, values, 0.0)
        live_rows, live = held.any(axis=1), held.any(axis=0)
        if min(live_rows.sum(), live.sum()) < 4:
            continue
        share = rate * valid.sum() / max(int(used.sum()), 1)
        block = find_spikes(held[live_rows][:, live], valid[live_rows][:, live], noise, share)
        inside = np.zeros_like(valid)
        inside[np.ix_(live_rows, live)] = block
        found[part] = inside
    left = used & ~found & ~odd & ~dark[:, None]
    if not left.any():
        raise InvalidArgument("mask_spikes: nothing would be left; check the noise model.")
    counts = {"spikes": int(found.sum()), "channels": int(odd.sum()), "pixels": int((dark & used.any(axis=1)).sum())}
    entries = f"{counts['spikes']} {'entry' if counts['spikes'] == 1 else 'entries'}"
    said = f"spikes left out: {entries}, {counts['channels']} channels, {counts['pixels']} pixels; "
    history = [*data.attrs.get("history", []), said + f"{rate:g} false alarms expected"]
    result = xr.DataArray(left.reshape(ordered.shape), dims=ordered.dims, coords=ordered.coords).transpose(*data.dims)
    result.attrs = {**counts, "history": history}
    return result


def _blocks(ordered: xr.DataArray, pixels: int, channels: int):
    """Yield slices of the merged pixels and their values as float64."""
    lazy = ordered.chunks is not None
    flat = None if lazy else ordered.as_numpy().values.reshape(pixels, channels)
    first = ordered.dims[0]
    per = pixels // ordered.sizes[first]
    step = max(1, BLOCK // max(per * channels, 1))
    # A last block of a few pixels would see no components.
    count = max(1, ordered.sizes[first] // step)
    edges = np.linspace(0, ordered.sizes[first], count + 1).astype(int)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = slice(int(start) * per, int(stop) * per)
        if flat is None:
            values = ordered.isel({first: slice(int(start), int(stop))}).compute().as_numpy().values
            yield part, values.reshape(-1, channels).astype(np.float64)
        else:
            yield part, flat[part].astype(np.float64)


def _zero_loss(ordered: xr.DataArray, others: list[str], total: np.ndarray) -> np.ndarray:
    """Return the highest channel near zero loss: a zero-loss peak may be a single channel wide."""
    spared = np.zeros(len(total), dtype=bool)
    if others != ["energy_loss"] or not is_numeric(ordered.coords.get("energy_loss")):
        return spared
    coord = ordered.coords["energy_loss"]
    near = np.flatnonzero(np.abs(coord.values) <= float(in_units_of(coord, NEAR, "eV")))
    if len(near):
        spared[near[np.argmax(total[near])]] = True
    return spared


def _odd_channels(
    total: np.ndarray, trimmed: np.ndarray, seen: np.ndarray, noise: NoiseModel, length: int, rate: float
) -> np.ndarray:
    """Return channels that are narrower than any peak: hot ones and dead ones.

    A few giant spikes make no hot channel, and no dead neighbours: what is to be bright is taken without its largest
    entries (`trimmed`), what is to be dark with them.
    """
    odd = np.zeros(len(total), dtype=bool)
    if length < 5:
        return odd
    whole, less, counted = (each.reshape(-1, length) for each in (total, trimmed, np.maximum(seen, 1)))
    middle, count = whole[:, 1:-1], counted[:, 1:-1]
    high = np.maximum(whole[:, :-2] / counted[:, :-2], whole[:, 2:] / counted[:, 2:]) * count
    low = np.minimum(less[:, :-2] / counted[:, :-2], less[:, 2:] / counted[:, 2:]) * count
    hot = (high >= 0) & _exceeds(less[:, 1:-1], HOT * high, HOT, count, noise, rate / len(total))
    dead = (low > 0) & _exceeds(DEAD * low, middle, DEAD, count, noise, rate / len(total))
    odd.reshape(-1, length)[:, 1:-1] = hot | dead
    return odd & (seen > 0)


def _exceeds(
    more: np.ndarray, less: np.ndarray, ratio: float, count: np.ndarray, noise: NoiseModel, limit: float
) -> np.ndarray:
    """Return where one sum exceeds the other beyond chance, one of them having been multiplied by `ratio`."""
    from scipy.special import betainc

    clear = more - less > SIGMAS * np.sqrt(count * noise.variance(np.maximum(less, 0) / count))
    if noise.gain == 0:
        return clear
    # Of the events of both, the share that one has is binomial, whatever their number.
    events, fewer = (more, less / ratio) if ratio > 1 else (more / ratio, less)
    events, fewer = (np.maximum(each, 0) / noise.gain for each in (events, fewer))
    share = ratio / (1 + ratio) if ratio > 1 else 1 / (1 + ratio)
    return clear & (betainc(np.maximum(events, 1e-9), fewer + 1, share) < limit)
