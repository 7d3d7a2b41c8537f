"""How many components there are: several criteria on the same data, and what to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.constraints.relevance import ARD
from tensorspec.diagnose.core_consistency import core_consistency
from tensorspec.diagnose.evidence import Criterion, RankEvidence
from tensorspec.diagnose.noise_edge import (
    SingularValues,
    singular_values_above_noise,
    sum_neighbours,
    summed_pixels,
)
from tensorspec.diagnose.prediction import Prediction, count_splitting, held_out
from tensorspec.diagnose.stability import split_half, stability
from tensorspec.errors import InvalidArgument, InvalidData, UnknownName, suggest
from tensorspec.fit import fit
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.models.cp import CP, NMF
from tensorspec.modes import find_modes
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.noise.unfold import as_numbers, row_dims
from tensorspec.twoway.matrix import as_matrix
from tensorspec.twoway.pca import scales_of
from tensorspec.twoway.robust import robust_prediction

__all__ = ["CRITERIA", "estimate_rank"]

CRITERIA = (
    "noise edge",
    "parallel analysis",
    "count splitting",
    "held-out entries",
    "R-PRESS",
    "relevance",
    "core consistency",
    "stability",
    "split halves",
)
# Fits of more values than these, or of pixels and channels with fewer counts on average, are made of sums over
# neighbours: with a handful of counts in a pixel its share of a component costs more than it tells.
_MOST_VALUES, _COUNTS, _MOST_CHANNELS = 4_000_000, 100, 4
_RUNS, _ALIKE, _RESTARTS = 5, 0.9, 5
# Share of the pixels that the robust components rest on.
_ALPHA = 0.75
# Per cent from which on a core counts as diagonal.
_DIAGONAL = 80.0


@dataclass(frozen=True, eq=False)
class _Question:
    """What every criterion is given."""

    data: xr.DataArray
    noise: NoiseModel
    ranks: tuple[int, ...]
    model: Callable[[int], Any]
    plain: bool
    seed: int
    options: dict[str, Any]
    condensed: str
    singular: SingularValues


def estimate_rank(
    data: xr.DataArray,
    ranks: Iterable[int] = range(1, 9),
    *,
    model: Callable[[int], Any] | None = None,
    noise: NoiseModel | None = None,
    mask: xr.DataArray | None = None,
    criteria: Sequence[str] = CRITERIA,
    seed: int = 0,
    **options: Any,
) -> RankEvidence:
    """Ask several criteria how many components the data hold.

    Parameters
    ----------
    data : DataArray
        One tensor of any order; counts or other numbers, NaN where missing.  Lazy data that are large are read a few
        times, chunk by chunk: what is asked is asked of sums over neighbouring pixels.
    ranks : iterable of int
        Numbers of components to try, where a criterion has to fit.
    model : callable, optional
        Gives the model of a rank, for instance ``lambda rank: ts.CP(rank, {...})``; by default `NMF`, or `CP` without
        constraints where the data have negative values.
    noise : NoiseModel, optional
        By default that in ``attrs["noise"]``, else estimated.
    mask : DataArray of bool, optional
        True where an entry is used.
    criteria : sequence of str
        Which to ask.  ``"noise edge"``: singular values above those of noise; ``"parallel analysis"``: above those of
        drawn counts with one component; ``"count splitting"``: the rank that predicts one half of the counts from the
        other; ``"held-out entries"``: that predicts entries left out; ``"R-PRESS"``: robust components
        that predict pixels left out, for two modes; ``"relevance"``: components that survive under
        `ARD`; ``"core consistency"``: the largest rank whose core is diagonal, with and without constraints, for three
        modes and more; ``"stability"`` and ``"split halves"``: the largest rank whose components come back from other
        starts, and from other pixels.
    seed : int
        Of all draws and starts.
    **options
        Further arguments of `fit` for all fits; by default counts are fitted by ``LeastSquares(scaling="poisson")``.

    Returns
    -------
    RankEvidence
        Prints as a table; ``recommended`` and ``advice`` say what follows, ``plot()`` draws it.

    Raises
    ------
    InvalidData
        If the data are not one DataArray of numbers.
    InvalidArgument
        If a rank is no whole number of at least one.
    UnknownName
        If there is no such criterion.

    Notes
    -----
    The first two count components of a plain factorization of pixels against all else; a non-negative model may need
    more.  Criteria that rest on the statistics of counts do not answer for data that are not counts: there the noise is
    estimated from the data, and the number moves with that estimate.  Components that come back the same are no
    evidence for their number: one component always does; nor is a diagonal core, which too few components have too.
    The last three only say how far the components can be trusted, and do not count for the recommendation.

    Examples
    --------
    >>> maps, spectra = np.eye(3)[np.arange(600) % 3], np.eye(3)[:, np.arange(60) % 3] + 0.1
    >>> counts = xr.DataArray(np.random.default_rng(0).poisson(4 * maps @ spectra), dims=("x", "energy_loss"))
    >>> found = estimate_rank(counts, criteria=["noise edge", "parallel analysis"])
    >>> found.recommended
    3
    >>> print(found.advice)
    3 components: all 2 criteria that answer say so.
    """
    if isinstance(data, dict):
        raise InvalidData(f"estimate_rank takes one tensor at a time; choose one of {list(data)}: data[name].")
    data = as_numbers(data)
    tried = tuple(sorted({whole("ranks", rank, 1) for rank in ranks}))
    if not tried:
        raise InvalidArgument("ranks is empty; expected numbers of components such as range(1, 9).")
    for name in criteria:
        if name not in CRITERIA:
            raise UnknownName(f"no criterion {name!r}; there are {list(CRITERIA)}.{suggest(name, CRITERIA)}")
    if mask is not None:
        data = data.where(mask)
    if data.chunks is not None and data.size <= _MOST_VALUES:
        data = data.compute()  # else every criterion would read them anew
    negative = bool((data < 0).any())
    noise = noise or NoiseModel.from_attrs(data.attrs) or estimate_noise(data)
    few, summed, condensed = _condensed(data, noise)
    most = min(few.size // max(few.shape), *few.shape) if few.ndim == 2 else few.size // max(few.shape)
    question = _Question(
        data=few,
        noise=NoiseModel(noise.gain, summed * noise.read_variance, noise.channel_correlation),
        ranks=tuple(rank for rank in tried if rank <= most) or (1,),
        model=model or (CP if negative else NMF),
        plain=model is None and not negative,
        seed=seed,
        options={"loss": LeastSquares(scaling="poisson"), **options} if noise.is_counts else options,
        condensed=condensed,
        singular=singular_values_above_noise(data, noise, looked=max(24, max(tried) + 4), seed=seed),
    )
    answers = tuple(_ASK[name](question) for name in criteria)
    return RankEvidence(answers, question.singular.weak if noise.is_counts else ())


def _condensed(data: xr.DataArray, noise: NoiseModel) -> tuple[xr.DataArray, int, str]:
    """Return what is fitted, how many pixels make one, and what was done in words."""
    few, summed = summed_pixels(data, _MOST_VALUES, _COUNTS if noise.is_counts else 0)
    said = f"sums over {summed} pixels" if summed > 1 else ""
    channels = str(data.dims[-1])
    if noise.is_counts and channels not in row_dims(data):
        mean = float(few.sum()) / few.sizes[channels]
        number = int(np.clip(np.ceil(_COUNTS / max(mean, 1e-9)), 1, _MOST_CHANNELS))
        if number > 1 and few.sizes[channels] >= 16 * number:
            few = sum_neighbours(few, channels, number)
            said += f"{' and ' if said else 'sums over '}{number} channels"
    return few, summed, f" (fits of {said})" if said else ""


def _not_counts(noise: NoiseModel) -> str:
    return (
        f"not counts: gain {noise.gain:.3g}, read variance {noise.read_variance:.3g}, neighbouring channels correlated "
        f"by {noise.channel_correlation or 0:.2f}"
    )


def _edge(question: _Question) -> Criterion:
    found = question.singular
    curve = xr.DataArray(found.ratio, dims="component", coords={"component": np.arange(1, len(found.ratio) + 1)})
    curves = {"over the edge of noise": curve}
    where = f"{found.above} singular values above that of noise in {found.shape[0]} x {found.shape[1]}"
    if found.spikes:
        where += f", {found.spikes} spikes replaced"
    if not question.noise.is_counts:
        text = f"{_not_counts(question.noise)}; with this noise {where}"
        return Criterion("noise edge", None, text, curves=curves)
    last = found.ratio[found.above - 1] if found.above else np.nan
    following = found.ratio[found.above] if found.above < len(found.ratio) else np.nan
    text = f"{where}: the last {last:.2f} times, the next {following:.2f}"
    return Criterion("noise edge", max(found.above, 1), text, curves=curves)


def _parallel(question: _Question) -> Criterion:
    found = question.singular
    if found.parallel is None or found.above_parallel is None:
        return Criterion("parallel analysis", None, _not_counts(question.noise))
    text = f"{found.above_parallel} singular values above {found.parallel:.3f}, the largest in draws of one component"
    return Criterion("parallel analysis", max(found.above_parallel, 1), text)


def _splitting(question: _Question) -> Criterion:
    if not question.noise.is_counts:
        return Criterion("count splitting", None, _not_counts(question.noise))
    values = question.data.as_numpy().values
    values = values[np.isfinite(values)]
    if (values < 0).any() or (values != np.rint(values)).any():
        return Criterion("count splitting", None, "values that are not whole numbers cannot be split")
    found = count_splitting(question.data, question.model, question.ranks, seed=question.seed, **question.options)
    return _predicted("count splitting", "half deviance, unseen counts", found, question)


def _held_out(question: _Question) -> Criterion:
    found = held_out(
        question.data, question.noise, question.model, question.ranks, seed=question.seed, **question.options
    )
    return _predicted("held-out entries", "half squared residual, unseen entries", found, question)


def _predicted(name: str, what: str, found: Prediction, question: _Question) -> Criterion:
    along = {"dims": "rank", "coords": {"rank": list(question.ranks)}}
    curves = {what: xr.DataArray(found.score, **along), "standard error": xr.DataArray(found.error, **along)}
    index = question.ranks.index(found.chosen)
    text = f"{what} {found.score[index]:.4f}"
    if index:
        fall = found.score[index - 1] - found.score[index]
        text += f", {question.ranks[index - 1]} component{'s' if question.ranks[index - 1] > 1 else ''} {fall:.2g} more"
    if found.edge:
        text += "; it is the largest that was tried: try more"
    text += question.condensed
    return Criterion(name, found.chosen, text, curves=curves)


def _robust(question: _Question) -> Criterion:
    """Return how many robust components, the mean among them, predict pixels left out."""
    name = "R-PRESS"
    if len(find_modes({"data": question.data})[0]) != 2:
        return Criterion(name, None, "asked of data of two modes")
    scaling = "poisson" if question.noise.is_counts else None
    try:
        matrix = as_matrix(name, question.data, keep_empty=scaling is None)
        scales = scales_of(name, matrix, scaling)
    except InvalidData:
        return Criterion(name, None, "single entries are missing, or totals are below zero")
    values = np.empty(matrix.shape)
    for place, block in matrix.blocks():
        values[place] = block / (scales[0][place, np.newaxis] * scales[1])
    try:
        press, rank, apart = robust_prediction(values, _ALPHA, question.seed)
    except ArithmeticError as error:
        return Criterion(name, None, str(error) + question.condensed)
    curve = xr.DataArray(press, dims="number", coords={"number": np.arange(len(press)) + apart})
    text = (
        f"{rank} components about the mean predict pixels left out, and the mean is {'one more' if apart else 'none'}"
    )
    if rank == len(press) - 1:
        text += "; it is the largest that is tried"
    return Criterion(name, rank + apart, text + question.condensed, curves={"mean squared distance": curve})


def _relevance(question: _Question) -> Criterion:
    if not question.plain:
        return Criterion("relevance", None, "asked of the default model on non-negative data only")
    most = question.ranks[-1]
    labels, _ = find_modes({"data": question.data})
    mode = next(iter(labels))
    found = fit(
        question.data,
        NMF(most, {mode: ARD()}),
        restarts=_RESTARTS,
        seed=question.seed,
        progress=False,
        **question.options,
    )
    alive = len(found.alive)
    text = f"of {most} components {alive} survive under ARD(), the best of {_RESTARTS} starts"
    if alive == most:
        text += "; none died: try more"
    return Criterion("relevance", alive, text + question.condensed)


def _core(question: _Question) -> Criterion:
    """Return the largest rank whose core is diagonal, if one that is larger has none."""
    labels, _ = find_modes({"data": question.data})
    if len(labels) < 3:
        return Criterion("core consistency", None, "two modes: any turn fits equally well", counts=False)
    found = []
    for rank in question.ranks:
        fitted = fit(
            question.data,
            question.model(rank),
            restarts=3,
            seed=question.seed,
            progress=False,
            **question.options,
        )
        if fitted.cores:
            return Criterion("core consistency", None, "asked of models without a core only", counts=False)
        found.append([core_consistency(fitted), core_consistency(fitted, unconstrained=True)])
    along = {"dims": "rank", "coords": {"rank": list(question.ranks)}}
    curves = {
        "as fitted": xr.DataArray([own for own, _ in found], **along),
        "without constraints": xr.DataArray([free for _, free in found], **along),
    }
    diagonal = [min(own, free) >= _DIAGONAL for own, free in found]
    last = diagonal.index(False) if False in diagonal else len(diagonal)
    if last == len(diagonal):
        text = f"the core is diagonal at every rank up to {question.ranks[-1]}, which says nothing: try more"
        return Criterion("core consistency", None, text + question.condensed, counts=False, curves=curves)
    if last == 0:
        text = f"the core is not diagonal at {question.ranks[0]} ({min(found[0]):.0f} %)"
        return Criterion("core consistency", None, text + question.condensed, counts=False, curves=curves)
    text = (
        f"{min(found[last - 1]):.0f} % at this rank, {min(found[last]):.0f} % at {question.ranks[last]}; the lower of "
        "the fit and the same gone on with without constraints"
    )
    return Criterion(
        "core consistency", question.ranks[last - 1], text + question.condensed, counts=False, curves=curves
    )


def _stability(question: _Question) -> Criterion:
    lowest = []
    for rank in question.ranks:
        runs = stability(question.data, question.model(rank), _RUNS, seed=question.seed, **question.options)
        lowest.append(float(runs.stability.min()))
    return _same("stability", f"from {_RUNS} random starts", lowest, question)


def _halves(question: _Question) -> Criterion:
    found = split_half(question.data, question.model, question.ranks, seed=question.seed, **question.options)
    return _same("split halves", "from two halves of the pixels", [float(item[-1]) for item in found], question)


def _same(name: str, how: str, lowest: list[float], question: _Question) -> Criterion:
    """Return the largest rank all of whose components come back."""
    curve = xr.DataArray(lowest, dims="rank", coords={"rank": list(question.ranks)})
    good = [rank for rank, value in zip(question.ranks, lowest, strict=True) if value >= _ALIKE]
    answer = max(good) if good else None
    text = f"all components come back {how} up to this rank" if good else f"at no rank all components come back {how}"
    if answer is not None and answer < question.ranks[-1]:
        following = question.ranks.index(answer) + 1
        text += f"; with {question.ranks[following]} the least alike has a congruence of {lowest[following]:.2f}"
    return Criterion(name, answer, text + question.condensed, counts=False, curves={"least congruence": curve})


_ASK: dict[str, Callable[[_Question], Criterion]] = {
    "noise edge": _edge,
    "parallel analysis": _parallel,
    "count splitting": _splitting,
    "held-out entries": _held_out,
    "R-PRESS": _robust,
    "relevance": _relevance,
    "core consistency": _core,
    "stability": _stability,
    "split halves": _halves,
}
