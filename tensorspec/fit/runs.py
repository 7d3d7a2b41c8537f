"""Restarts: what each begins from, and the stages that it goes through."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.fit.alignment import align_values
from tensorspec.fit.compressed import AUTO, compressible
from tensorspec.fit.core import cores_given
from tensorspec.fit.evolving import easier, even_samples, unfolded
from tensorspec.fit.gather import Gathered
from tensorspec.fit.progress import Progress
from tensorspec.fit.race import Race, first_round, worth_racing
from tensorspec.fit.record import versions
from tensorspec.fit.stages import CutOff, Outcome, Runner, Stage
from tensorspec.losses.base import AbstractDivergence
from tensorspec.problem import Factors
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.solvers.loop import Checkpoint, Limits
from tensorspec.starts.base import AbstractStart, Reduced, StartContext
from tensorspec.starts.core import core_for
from tensorspec.starts.given import From
from tensorspec.starts.hosvd import HOSVD
from tensorspec.starts.nndsvd import NNDSVD
from tensorspec.starts.random import Random

__all__ = ["make_starts", "open_checkpoint", "run_all"]


def make_starts(start: Any, gathered: Gathered, count: int, seed: int) -> list[tuple[AbstractStart, int]]:
    """Return what each restart begins from, and its seed."""
    nonnegative = all(rule.nonnegative for rule in gathered.problem.constraints.values())
    apart = any(tensor.seen is not None or tensor.operators is not None for tensor in gathered.problem.tensors)
    # The singular vectors of all tensors together know neither which component is whose nor what an operator hides.
    usual = Random() if apart or not (nonnegative or gathered.cores) else HOSVD() if gathered.cores else NNDSVD()
    first = usual if isinstance(start, str) else start
    if isinstance(first, From):
        first = From(_given_factors(first.source, gathered))
    chosen = [first] + [first if first.random or not isinstance(start, str) else Random()] * (count - 1)
    if count > 1 and not first.random and not isinstance(start, str):
        raise InvalidArgument(
            f"restarts={count} with start={constructor_repr(start)}: this start is the same every time; "
            "use restarts=1, or start=ts.Random()"
        )
    return [(item, seed if k == 0 else _seed_of(seed, k)) for k, item in enumerate(chosen)]


def _seed_of(seed: int, restart: int) -> int:
    """Return the seed of a restart, such that fits with neighbouring seeds share no start."""
    return int(np.random.SeedSequence([seed, restart]).generate_state(1)[0])


def _given_factors(source: Any, gathered: Gathered) -> dict[str, np.ndarray]:
    """Return given factors as arrays in the units of the problem."""
    labels, columns_of = gathered.labels, {mode: columns for mode, (_, columns) in gathered.shapes.items()}
    factors = source.factors if isinstance(source, Fit) else source
    if not isinstance(factors, Mapping):
        raise InvalidArgument(f"From({source!r}): expected a Fit or a mapping of mode names to factors")
    arrays = {}
    for mode, values in factors.items():
        if mode in labels and isinstance(values, xr.DataArray):
            columns, numbers = align_values(values, labels[mode], columns_of.get(mode, 1), None, "From(...)")
            arrays[mode] = columns[:, np.argsort(numbers)]
        else:
            arrays[mode] = np.asarray(values, dtype=float)
    if gathered.cores:
        return arrays | (cores_given(source, gathered) if isinstance(source, Fit) else {})
    rank = next(iter(columns_of.values()))
    if any(mode not in arrays or arrays[mode].shape[-1:] != (rank,) for mode in labels):
        return arrays  # the start itself says what is missing
    strengths = {key: np.ones(rank) for key in gathered.names}
    if isinstance(source, Fit):
        strengths |= {key: source.strengths(key).values for key in gathered.names if key in source.tensors}
    return _spread_strengths(arrays, strengths, gathered)


def _spread_strengths(
    arrays: dict[str, np.ndarray], strengths: Mapping[str, np.ndarray], gathered: Gathered
) -> dict[str, np.ndarray]:
    """Put strengths in data units onto those factors whose scale no constraint fixes, the carriers before others."""
    names, carriers = list(gathered.names.values()), gathered.program.plan.carriers
    modes = list(arrays)
    incidence = np.array([[float(mode in own) for mode in modes] for own in names])
    cheap = np.where([mode in carriers or incidence[:, k].sum() == 1 for k, mode in enumerate(modes)], 1.0, 1e-3)
    seen = np.array([t.seen or (True,) * len(next(iter(strengths.values()))) for t in gathered.problem.tensors])
    free = ~np.array([np.asarray(gathered.problem.constraints[mode].fixed_columns) for mode in modes])
    scaled = np.array([strengths[key] * s for key, s in zip(gathered.names, gathered.scales, strict=True)])
    # A component that one tensor does not show has no logarithm there; next to nothing will do.
    shown = np.maximum(scaled, 1e-12 * scaled.max(axis=0, initial=0.0))
    result = dict(arrays)
    for column in np.flatnonzero(scaled.max(axis=0, initial=0.0) > 0):
        ease = cheap * free[:, column]
        own = seen[:, column]
        powers = ease * np.linalg.lstsq(incidence[own] * ease, np.log(shown[own, column]), rcond=None)[0]
        for mode, power in zip(modes, powers, strict=True):
            result[mode] = result[mode].copy()
            result[mode][:, column] *= np.exp(power)
    for column in np.flatnonzero(scaled.max(axis=0, initial=0.0) == 0):
        for mode in carriers:
            result[mode] = np.where(np.arange(len(free[0])) == column, 0.0, result[mode])
    return result


def start_factors(
    gathered: Gathered, start: AbstractStart, seed: int, reduced: Sequence[Reduced | None] | None = None
) -> Factors:
    """Return the factors that a start gives, with nothing where nothing was measured.

    `reduced` is what stands for the tensors where they are compressed.
    """
    keys = list(gathered.names)
    context = StartContext(
        tensors=[unfolded(gathered.names[key], gathered.clean[key].values, gathered.model) for key in keys],
        weights=[s * float(np.sqrt(w)) for s, w in zip(gathered.scales, gathered.weights, strict=True)],
        sizes={mode: labels.size for mode, labels in gathered.labels.items() if mode in gathered.shapes},
        columns={mode: gathered.shapes[mode][1] for mode in gathered.labels if mode in gathered.shapes},
        carrier=gathered.program.plan.blocks[-1][-1],
        nonnegative={mode: rule.nonnegative for mode, rule in gathered.problem.constraints.items()},
        dtype=gathered.dtype,
        norms=[gathered.clean[key].rms * float(np.sqrt(gathered.clean[key].count)) for key in keys],
        reduced=reduced,
    )
    found = even_samples(start.factors(context, seed), start, context, gathered.model)
    for mode in found if not gathered.cores else ():
        having = [t.seen for t in gathered.problem.tensors if mode in t.modes]
        owned = [seen for seen in having if seen is not None]
        if len(owned) == len(having):
            found[mode] = np.where(np.any(owned, axis=0), found[mode], 0)
    for mode, seen in gathered.measured.items():
        if seen is not None and mode in found:
            found[mode] = np.where(seen[:, None], found[mode], 0)
    ready = {mode: jnp.asarray(found[mode], gathered.dtype) for mode in gathered.shapes if mode in found}
    for core, tensor in zip(gathered.cores.values(), gathered.problem.tensors, strict=False):
        if core not in ready:
            rules = gathered.problem.constraints[core]
            ready[core] = core_for(gathered.model, tensor, ready, gathered.shapes[core], rules)
    return {name: ready[name] for name in gathered.shapes}


def run_all(
    gathered: Gathered,
    starts: list[tuple[AbstractStart, int]],
    limits: Limits,
    stored: Checkpoint | None,
    bar: Progress,
    warm: Mapping[str, Any] | None = None,
    compress: bool | str = AUTO,
) -> Outcome:
    """Run every start, keep the best, and write checkpoints on the way.

    A prior such as soft orthogonality is turned on after a fit without it: turned on at once it holds a poor start in
    place (measured on a cross-section by EELS and EDX: 20 to 54 degrees from the true spectra instead of 0.1 to 2.4).
    With `warm` (see `first_sweeps`), a Poisson fit begins with a few sweeps of weighted least squares, and a solver of
    all modes at once with some of the usual one.

    Where it pays (see compressed.py), every start goes through all stages on compressed data, and the best of them goes
    on with the data themselves.  Where that shows that the compression has lost something, all starts run once more
    without it, and the lowest objective counts.

    Several starts on large data that are not compressed race (see race.py): the worse half is left after some sweeps,
    and so on.
    """
    stages = [Stage(gathered.problem, gathered.program, limits)]
    if not isinstance(starts[0][0], From):
        weaker = easier(gathered.problem, gathered.model)
        stages = [*(Stage(problem, gathered.program, limits) for problem in weaker), *stages]
    if gathered.without is not None and not isinstance(starts[0][0], From):
        stages.insert(0, Stage(*gathered.without, limits))
    if warm is not None and gathered.warm is not None:
        short = replace(limits, max_sweeps=min(warm["max_sweeps"], limits.max_sweeps), tol=warm["tol"])
        stages.insert(0, Stage(*gathered.warm, short, warm=True, compare=isinstance(starts[0][0], From)))
    race = None
    # Fits without an assumption, or of an easier problem, go to their ends before the problem itself is begun.
    if all(item.warm for item in stages[:-1]) and worth_racing(gathered.problem, gathered.program, len(starts)):
        likelihood = any(isinstance(tensor.loss, AbstractDivergence) for tensor in gathered.problem.tensors)
        race = Race(len(starts), first_round(limits.tol, likelihood), limits.max_sweeps)
    runner = Runner(gathered, starts, partial(start_factors, gathered), stored, bar, race)
    try:
        if compressible(gathered.problem, gathered.program, gathered.model, compress):
            runner.on_compressed_data(stages)
        else:
            runner.on_all_data(stages)
    except CutOff as stop:
        runner.cut_off(stop.run, stop.judged)
    return runner.outcome()


def open_checkpoint(
    path: Any, digest: Future[dict[str, str]] | None, recipe: Any, starts: list[tuple[AbstractStart, int]]
) -> Checkpoint | None:
    """Return the checkpoint at a path, tied to everything that the result depends on; None without a path."""
    if path is None or digest is None:
        return None
    settings = {key: value for key, value in recipe.items() if key != "max_sweeps"}
    given = [
        hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for start, _ in starts
        if isinstance(start, From)
        for value in start.source.values()
    ]
    text = json.dumps([digest.result(), settings, given, versions(), platform.machine()], sort_keys=True, default=str)
    return Checkpoint(path, hashlib.sha256(text.encode()).hexdigest())
