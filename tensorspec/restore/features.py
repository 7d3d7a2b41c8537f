"""Features in a field, one after the other: find the strongest, take it away, look again."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from tensorspec.algebra.map_operator import MapOperator
from tensorspec.restore.field_noise import FieldNoise
from tensorspec.restore.richardson_lucy import smoothed
from tensorspec.restore.significance import WIDTHS, FilterBank, limit_of, matched_filters, strongest

__all__ = ["Found", "find", "smooth_background"]

_ROUNDS = 200
_STEPS = 20
# Half widths of a feature: within so many of both, two features are not taken in one round.
_APART = 3.0
# Around a feature the background is found without what exceeds this score.
_AROUND = 2.5
# In one round go those above this share of the strongest; so much of the field is kept at the least.
_SHARE, _LEAST, _GROWING = 0.25, 0.2, 12


class Found(NamedTuple):
    """Features by falling significance, and the significance of everything, as an excess (+) or deficit (-)."""

    significance: Float[np.ndarray, "..."]
    places: np.ndarray
    scores: np.ndarray
    amplitudes: np.ndarray
    errors: np.ndarray
    widths: np.ndarray
    limit: float


def find(
    data: Float[np.ndarray, "..."],
    valid: Float[np.ndarray, "..."],
    background: Float[np.ndarray, "..."],
    response: Float[np.ndarray, "..."] | None,
    noise: FieldNoise,
    false_alarm: float,
) -> Found:
    """Return what stands out from a background by more than noise would, anywhere in the field.

    Each round takes the places where a filter's score is the largest around and above the limit, and adds the
    filter's shape at its best amplitude to what is expected; so a strong feature is not counted again beside itself.
    What is left over of a shape that no filter has can be found as further, weaker features.

    Parameters
    ----------
    data, valid, background : ndarray
        A field, 1 where it is used, and what is expected there.
    response : ndarray, optional
        Of the instrument, its centre in the middle.
    noise : FieldNoise
        Of the data.
    false_alarm : float
        Chance that pure noise gives any feature.
    """
    shape = data.shape
    filters = matched_filters(response, len(shape), shape)
    limit = limit_of(filters, shape, false_alarm)
    key = None if response is None else (response.shape, response.tobytes())
    centres = [tuple(size // 2 for size in each.shape) for each in filters]
    radii = [_radius(each) for each in filters]
    model = np.array(background)
    listed: list[tuple[tuple[int, ...], float, float, float, float]] = []
    with jax.enable_x64(True):
        run = _scores(shape, key)
        first = None
        for _ in range(_ROUNDS):
            score, amplitude, error = (
                # A feature brings its own noise: what is left over of it is judged by that too.
                np.asarray(each)
                for each in run(data - model, np.maximum(model, background), valid, noise)
            )
            first = strongest(score) if first is None else first
            taken = _separate(np.abs(score), np.abs(amplitude) / np.where(error > 0, error, 1.0), limit, radii)
            if not taken:
                break
            for which, place in taken:
                own = (which, *place)
                listed.append((place, score[own], amplitude[own], error[own], WIDTHS[which]))
                _add(model, amplitude[own] * filters[which], place, centres[which])
    assert first is not None
    listed.sort(key=lambda each: -abs(each[1]))
    columns = list(zip(*listed, strict=True)) if listed else [()] * 5
    places = np.array(columns[0], dtype=int).reshape(-1, len(shape))
    scores, amplitudes, errors, widths = (np.array(each, dtype=float) for each in columns[1:])
    return Found(first, places, scores, amplitudes, errors, widths, limit)


def _separate(
    size: np.ndarray, plain: np.ndarray, limit: float, radii: list[float]
) -> list[tuple[int, tuple[int, ...]]]:
    """Return filters and places above the limit, strongest first, that lie apart from stronger ones.

    Which filter it is, its plain score says: the root of twice the gain in likelihood. That of a normal distribution
    of the same chance grows more slowly for narrow filters, whose sums are skewer.
    """
    best = size.max(axis=0)
    peaks = np.argwhere((best > limit) & (best == ndimage.maximum_filter(best, size=3)))
    taken: list[tuple[int, tuple[int, ...]]] = []
    for place in sorted(map(tuple, peaks), key=lambda each: -best[each]):
        which = int(plain[(slice(None), *place)].argmax())
        apart = all(
            np.hypot.reduce(np.subtract(place, other)) > _APART * (radii[which] + radii[theirs])
            for theirs, other in taken
        )
        if apart:
            taken.append((which, tuple(int(each) for each in place)))
    return taken


def _radius(kernel: np.ndarray) -> float:
    """Return the radius of a disc, or half the length of an interval, as large as the kernel is wide."""
    area = kernel.sum() ** 2 / (kernel**2).sum()
    return float(np.sqrt(area / np.pi)) if kernel.ndim == 2 else float(area / 2)


def _add(field: np.ndarray, kernel: np.ndarray, place: tuple[int, ...], centre: tuple[int, ...]) -> None:
    """Add a kernel at a place, in place; what falls outside is lost, as it was not measured either."""
    inner, outer = [], []
    for at, middle, size, own in zip(place, centre, field.shape, kernel.shape, strict=True):
        start, stop = at - middle, at - middle + own
        outer.append(slice(max(start, 0), min(stop, size)))
        inner.append(slice(max(-start, 0), own - max(stop - size, 0)))
    field[tuple(outer)] += kernel[tuple(inner)]


@functools.lru_cache(maxsize=4)
def _scores(shape: tuple[int, ...], key: tuple[tuple[int, ...], bytes] | None) -> Any:
    """Return the compiled scores, amplitudes and standard errors of all filters."""
    response = None if key is None else np.frombuffer(key[1]).reshape(key[0])
    bank = FilterBank(matched_filters(response, len(shape), shape), shape)

    @jax.jit
    def run(left: Array, background: Array, valid: Array, noise: FieldNoise) -> tuple[Array, Array, Array]:
        variance, third = noise.moments(background)
        score = bank.scores(left, variance * noise.inflation, third * noise.inflation**1.5, valid)
        return score, *bank.amplitudes(left, variance * noise.inflation, valid)

    return run


def smooth_background(
    data: Float[np.ndarray, "..."],
    valid: Float[np.ndarray, "..."],
    response: Float[np.ndarray, "..."] | None,
    noise: FieldNoise,
    scale: float,
    false_alarm: float,
) -> Float[np.ndarray, "..."]:
    """Return a background that is smooth everywhere, found without the points where features stand out from it."""
    shape = data.shape
    filters = matched_filters(response, len(shape), shape)
    limit = limit_of(filters, shape, false_alarm)
    key = None if response is None else (response.shape, response.tobytes())
    used = valid.copy()
    with jax.enable_x64(True):
        fit = _smooth_fit(shape, scale)
        measured = jnp.asarray(data)
        run = _scores(shape, key)

        def scored(weights: np.ndarray) -> tuple[Array, np.ndarray]:
            mean = max(float((weights * data).sum() / weights.sum()), 1e-12)
            found = fit(measured, jnp.asarray(weights), jnp.full(shape, mean), noise)
            score = run(jnp.asarray(valid * data) - valid * found, found, jnp.asarray(valid), noise)[0]
            return found, np.abs(np.asarray(score)).max(axis=0)

        def without(size: np.ndarray, level: float) -> np.ndarray:
            around = size > max(_AROUND, _SHARE * level)
            region = ndimage.binary_propagation(size > level, mask=around)
            return np.where(ndimage.binary_dilation(region), 0.0, valid)

        # The strongest first: what they do to the background would make features of all that is around them.
        background, size = scored(used)
        for _ in range(_GROWING):
            largest = float(size[used > 0].max(initial=0.0))
            now = used * without(size, max(limit, _SHARE * largest))
            if largest <= limit or now.sum() < _LEAST * valid.sum():
                break
            used = now
            background, size = scored(used)
        for _ in range(2):
            now = without(size, limit)
            if (now == used).all() or now.sum() < _LEAST * valid.sum():
                break
            used = now
            background, size = scored(used)
        return np.asarray(background)


@functools.lru_cache(maxsize=4)
def _smooth_fit(shape: tuple[int, ...], scale: float) -> Any:
    """Return the compiled fit of a field that is smooth over one scale everywhere."""
    operator = MapOperator((scale,), None, shape)

    @jax.jit
    def fit(measured: Array, weights: Array, field: Array, noise: FieldNoise) -> Array:
        return smoothed(operator, jnp.zeros(shape, int), field, measured, weights, noise.variance, _STEPS)

    return fit
