"""A fit of data that are larger than memory: a first pass, a fit of some pixels, then passes over all data.

The sweeps over all data are those of data in memory (`solvers/streamed.py`); what differs is what they begin from.  A
first pass finds out what `clean` finds out of data in memory, and keeps some pixels.  A fit of these, in memory, gives
the factors of all other modes; a second pass solves all pixels for them, and with the third everything has been
updated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.algebra.blocks import ENTRIES, BlockSource
from tensorspec.coupling.links import link_value
from tensorspec.coupling.through import with_operators
from tensorspec.errors import NotEnoughMemory
from tensorspec.fit.behind import Behind, find_modes_behind
from tensorspec.fit.block_refusals import mode_in_blocks, refuse, refuse_solvers, warn_of_chunks
from tensorspec.fit.block_start import bins_for, fit_rows, pixels_need_bins, share_of_rows, spread_out
from tensorspec.fit.checked_call import Call
from tensorspec.fit.cluster import Cluster, users_client
from tensorspec.fit.gather import Gathered, gather
from tensorspec.fit.progress import Progress
from tensorspec.fit.record import finish, versions
from tensorspec.fit.runs import make_starts, start_factors
from tensorspec.fit.sparsity import stored_bytes
from tensorspec.fit.survey import survey
from tensorspec.fit.surveyed import Surveyed
from tensorspec.fit.validate import available_memory, by_tensor
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Problem
from tensorspec.solution import Fit
from tensorspec.solvers.block_work import one_by_one
from tensorspec.solvers.loop import Checkpoint, Run, Stopped, run_from_arrays, solve, state_to_arrays
from tensorspec.solvers.passes import passes_of_a_sweep
from tensorspec.solvers.status import Status
from tensorspec.solvers.streamed import Streamed
from tensorspec.starts.given import From

__all__ = ["fit_in_blocks", "wanted"]


# Share of the free memory up to which lazy data are loaded: passes over a store cost more than anything in memory.
_SHARE = 0.5
# Ends of a run after which the best so far is returned at once.
_STOPPED = (Status.INTERRUPTED, Status.TIME_LIMIT)


def wanted(tensors: Mapping[str, xr.DataArray], asked: bool | str) -> bool:
    """Return whether data are gone through in blocks: as asked, else lazy ones that would fill the memory.

    Lazy data that are mostly zero are held by their counts, which is faster.
    """
    if isinstance(asked, bool):
        return asked
    lazy = [tensor for tensor in tensors.values() if tensor.chunks is not None]
    have = available_memory()
    if not lazy or have is None:
        return False
    need = sum(t.size * (t.dtype.itemsize + (0 if t.dtype.kind == "f" else 4)) for t in tensors.values())
    return need > _SHARE * have and not all(stored_bytes(tensor) is not None for tensor in lazy)


def fit_in_blocks(
    tensors: dict[str, xr.DataArray], model: AbstractModel, call: Call, in_memory: Callable[..., Fit]
) -> Fit:
    """Fit data in blocks.

    Parameters
    ----------
    tensors, model, call
        As `fit` has checked them.
    in_memory
        What fits some of the data: `fit` itself.

    Raises
    ------
    ConstraintConflict, InvalidArgument
        For what cannot be done in blocks: why, and what to do.
    NotEnoughMemory
        When the plan does not fit in memory.
    """
    behind = find_modes_behind(tensors, call.modes, model.operators)
    mode = mode_in_blocks(tensors, behind)
    refuse(model, behind, mode)
    inside = {key: tensor for key, tensor in tensors.items() if mode in behind.names[key]}
    client = users_client()
    entries = max(ENTRIES // len(inside), 1)
    given = isinstance(call.start, From)
    binning = not given and pixels_need_bins(model, call, mode)
    bins = bins_for(inside, behind.labels[mode].shape) if binning else None
    share = 0.0 if given else share_of_rows(inside, behind.labels[mode].shape)
    planned = {key: _blocks_of(key, tensor, behind, mode, entries) for key, tensor in inside.items()}
    warn_of_chunks(inside, behind, planned)
    plan = _memory_plan(inside, model, behind, mode, entries, bins, share, sum(s.held for s in planned.values()))
    masks = by_tensor(call.mask, list(tensors), "mask", None)
    cluster = None if client is None else Cluster(client)
    with jax.enable_x64(True), Progress(call.progress, 1, call.limits) as bar:
        began = time.monotonic()
        found, places, leader = survey(
            inside,
            masks,
            call.losses,
            {key: behind.names[key] for key in inside},
            behind.own,
            bins,
            entries,
            bar.passed,
            map if cluster is None else cluster.in_order,
            share,
        )
        options = (call.losses, {k: m for k, m in masks.items() if m is not None}, call.modes, call.weights)
        gathered = gather(tensors, model, *options, call.solver, call.rescale, found)
        refuse_solvers(gathered, mode)
        sources = [found[key].blocks if key in found else None for key in tensors]
        each = one_by_one if cluster is None else cluster
        streamed = Streamed(gathered.model, gathered.program, mode, places, leader.rows, sources, bar.passed, each)
        streamed.passes, streamed.seconds = 1, [round(time.monotonic() - began, 3)]
        with _told("the pass over the data for the loss of a constant model"):
            gathered = _with_references(gathered, streamed, found)
        stored = _checkpoint(call, gathered)
        begun, notes = _begin(tensors, gathered, model, call, streamed, found, mode, bins, stored, bar, in_memory)
        if cluster is not None:
            cluster.gives_up = True  # from here on there is something to return
        run = _run(gathered, call, streamed, begun, stored, bar)
        problem = Problem(
            with_operators(gathered.problem, run.state.operators).tensors, run.state.constraints, gathered.problem.links
        )
        squares = _last_pass(streamed, problem, run)
        known = streamed.known_squares(problem, run.state) if squares is None else squares
        value = run.state.objective if squares is None else _objective(problem, run.state.factors, squares)
        often = passes_of_a_sweep(gathered.program, gathered.problem, mode)
        where = "" if client is None else " on the workers of the dask client"
        how = f"in {len(places)} blocks of mode {mode!r}{where}, about {often} pass(es) a sweep"
        how = f"{how}; {streamed.passes} passes over the data"
        if squares is None:
            how += ", none at the end: the objective and what is explained are those of the last sweep"
        gathered = gathered._replace(why=f"{gathered.why}; {how}{notes}")
        digest: Future[dict[str, str]] = Future()
        digest.set_result({key: item.digest for key, item in found.items()})
        more = {"passes": streamed.passes, "passes_a_sweep": often, "blocks": len(places), "bins": bins}
        more["pass_seconds"] = streamed.seconds
        result = finish(
            tensors, gathered, model, call.losses, run, [run.history[-1]], call.recipe, lambda: digest, call.seed,
            call.began, plan, call.rescale, call.start, call.limits, lambda *_: (value, known), more,
        )  # fmt: skip
    if stored is not None and run.status not in _STOPPED:
        stored.path.unlink(missing_ok=True)
    used = {key: item for key, item in masks.items() if item is not None}
    return dataclasses.replace(result, masks=used) if used else result


def _blocks_of(key: str, tensor: xr.DataArray, behind: Behind, mode: str, entries: int) -> BlockSource:
    """Return how a tensor will be read."""
    own = behind.own[key]
    dims = [dim for name in behind.names[key] for dim in own[name].dims]
    return BlockSource(tensor.transpose(*dims).data, len(own[mode].dims), entries=entries, name=key)


def _memory_plan(
    tensors: Mapping[str, xr.DataArray],
    model: AbstractModel,
    behind: Behind,
    mode: str,
    entries: int,
    bins: int | None,
    share: float,
    held: int,
) -> dict[str, int]:
    """Return the memory plan in bytes, and refuse what will not fit."""
    sizes = {name: labels.size for name, labels in behind.labels.items()}
    rank = model.shapes(behind.names, sizes)[mode][1]
    wide = max(8 if tensor.dtype == np.float64 else 4 for tensor in tensors.values())
    plan = {
        "one block as stored": sum(entries * tensor.dtype.itemsize for tensor in tensors.values()),
        "the same while in use": 3 * wide * entries * len(tensors),
        f"factor of mode {mode!r}, its equations and those before": 8 * wide * rank * sizes[mode],
    }
    if held:
        plan["whole spectra of a chunk, and what they are put together from"] = 2 * held
    if bins is not None:
        pixels = prod(-(-size // bins) for size in behind.labels[mode].shape)
        width = sum(tensor.size for tensor in tensors.values()) // sizes[mode]
        plan[f"copy binned {bins}-fold"] = 3 * 4 * pixels * width
    if share > 0:
        plan["points drawn at random, and their fit"] = int(4 * 4 * share * sum(t.size for t in tensors.values()))
    have, need = available_memory(), sum(plan.values())
    if have is not None and need > have:
        lines = "; ".join(f"{what} {size / 2**30:.2f} GiB" for what, size in plan.items())
        raise NotEnoughMemory(
            f"the fit in blocks needs {need / 2**30:.2f} GiB, and {have / 2**30:.2f} GiB are free: {lines}. Bin or "
            "crop the data (data.coarsen(...).sum(), data.isel(...)), or lower the rank"
        )
    return plan


def _with_references(gathered: Gathered, streamed: Streamed, found: Mapping[str, Surveyed]) -> Gathered:
    """Return the problem with the loss of no model, or of the best constant one, where the first pass left it open."""
    missing = [k for k, key in enumerate(gathered.names) if key in found and found[key].reference is None]
    if not missing:
        return gathered
    levels = {k: found[list(gathered.names)[k]].total / found[list(gathered.names)[k]].count for k in missing}
    problem = gathered.problem
    sums = streamed.refer(problem, levels)
    tensors = [
        dataclasses.replace(tensor, square_norm=jnp.asarray(sums["", k], jnp.float64)) if k in levels else tensor
        for k, tensor in enumerate(problem.tensors)
    ]
    return gathered._replace(problem=Problem(tuple(tensors), problem.constraints, problem.links))


def _checkpoint(call: Call, gathered: Gathered) -> Checkpoint | None:
    """Return the checkpoint, tied to the totals of the data and to everything else that the result depends on."""
    if call.checkpoint is None:
        return None
    digests = {key: getattr(item.values, "digest", "") for key, item in gathered.clean.items()}
    given = ""
    if isinstance(call.start, From):
        source = call.start.source.factors if isinstance(call.start.source, Fit) else call.start.source
        parts = [np.ascontiguousarray(np.asarray(value)).tobytes() for value in source.values()]
        given = hashlib.sha256(b"".join(parts)).hexdigest()
    settings = {key: value for key, value in call.recipe.items() if key != "max_sweeps"}
    text = json.dumps(["blocks", digests, settings, given, versions(), platform.machine()], sort_keys=True, default=str)
    return Checkpoint(call.checkpoint, hashlib.sha256(text.encode()).hexdigest())


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say of Ctrl-C where it struck, as long as there is nothing to return."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(
            f"stopped in {where}: no maps could be returned yet, and nothing was written; the same call begins anew"
        )
        raise


def _begin(
    tensors: Mapping[str, xr.DataArray],
    gathered: Gathered,
    model: AbstractModel,
    call: Call,
    streamed: Streamed,
    found: Mapping[str, Surveyed],
    mode: str,
    bins: int | None,
    stored: Checkpoint | None,
    bar: Progress,
    in_memory: Callable[..., Fit],
) -> tuple[Run, str]:
    """Return the run before its first sweep over all data, and what it begins from in words.

    Its status says whether the fit of some pixels has been stopped; then it is all there is.
    """
    problem = gathered.problem
    content = None if stored is None else stored.load()
    bar.restart(0, None)
    if content is not None:
        ones = {name: jnp.ones(shape, gathered.dtype) for name, shape in gathered.shapes.items()}
        return run_from_arrays(content, streamed.rough_state(problem, ones)), ", gone on with from a checkpoint"
    if isinstance(call.start, From):
        starts = make_starts(call.start, gathered, 1, call.seed)
        with _told("the pass over the data that reads the objective of the start"):
            state = streamed.first_state(problem, start_factors(gathered, *starts[0]))
        return Run(state, [float(state.objective)]), ""
    with _told("the fit of some pixels, before its first sweep"):
        small = fit_rows(tensors, gathered, model, call, mode, found, in_memory)
    with _told(f"the second pass over the data, which solves mode {mode!r} for the first time"):
        start = From(spread_out(small, tensors, gathered, mode, bins, found))
        state = streamed.after_pixels(problem, start_factors(gathered, start, call.seed))
    begun = Run(state, [float(state.objective)])
    rows = small.modes[mode].size
    notes = f", after {small.sweeps} sweeps on {rows} points of mode {mode!r} drawn at random"
    if small.status in _STOPPED:
        begun.status = small.status
    elif stored is not None:
        stored.save(state_to_arrays(begun))
    return begun, notes


def _run(
    gathered: Gathered, call: Call, streamed: Streamed, begun: Run, stored: Checkpoint | None, bar: Progress
) -> Run:
    """Return the run over all data."""
    if begun.status in _STOPPED:
        return begun

    def store(run: Run) -> None:
        if stored is not None:
            stored.save(state_to_arrays(run))

    run = solve(
        gathered.model,
        gathered.program,
        gathered.problem,
        begun,
        call.limits,
        report=bar.report,
        store=store,
        advance=streamed.advance,
    )
    if run.status in _STOPPED:
        store(run)
    return run


def _last_pass(streamed: Streamed, problem: Problem, run: Run) -> list[float] | None:
    """Return twice the loss of each tensor, summed in a last pass; None for a run that was stopped, in this pass too.

    Who has stopped a run does not wait for another pass.
    """
    if run.status in _STOPPED:
        return None
    try:
        return streamed.squares(problem, run.state.factors)
    except (KeyboardInterrupt, Stopped):
        run.status = Status.INTERRUPTED
        return None


def _objective(problem: Problem, factors: Factors, squares: Sequence[float]) -> float:
    misfit = 0.5 * sum(float(t.weight) * s for t, s in zip(problem.tensors, squares, strict=True))
    rules = sum(float(rule.value(factors[name])) for name, rule in problem.constraints.items())
    return misfit + rules + float(link_value(problem.links, factors))
