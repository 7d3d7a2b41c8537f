"""Eight starts against one: whole calls on compressed data and on all; what a race misses; sweeps of stacked starts.

Run with ``python -m benchmarks.restarts`` (all), or with the names of parts behind it: ``calls``, ``missed``,
``stacked``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

import tensorspec as ts
from benchmarks.planted import sparse_counts, two_way

__all__ = ["main"]

REPEATS, STARTS, SWEEPS = 5, 8, 5
# Data of the second part, starts of each, and fits of eight of these.
DRAWS, OF_EACH, SETS = 4, 24, 30


def main() -> None:
    """Print how many times as long eight starts take as one, what a race misses, and what stacking would gain."""
    parts = {"calls": calls, "missed": missed, "stacked": sweeps}
    for name in sys.argv[1:] or parts:
        parts[name]()


def _cases() -> list[tuple[str, xr.DataArray, int, dict[str, Any]]]:
    data = next(iter(two_way("full").tensors.values()))
    sparse = next(iter(sparse_counts("full").tensors.values()))
    mask = xr.DataArray(np.random.default_rng(0).random(data.shape) > 0.1, dims=data.dims)
    return [
        ("dense", data, 6, {}),
        ("dense, one entry in ten missing", data, 6, {"mask": mask}),
        ("sparse", sparse, 8, {}),
        ("sparse, Poisson", sparse, 8, {"loss": ts.Poisson()}),
    ]


def calls() -> None:
    """Print the seconds of whole calls."""
    print("\n| whole calls | tol | one start | eight | times as long | range |\n| --- | --- | --- | --- | --- | --- |")
    for title, data, rank, options in _cases():
        for tol in (1e-6, 1e-5):

            def seconds(count: int, data=data, rank=rank, options=options, tol=tol) -> float:
                began = time.perf_counter()
                ts.fit(data, ts.NMF(rank), start=ts.Random(), restarts=count, tol=tol, progress=False, **options)
                return time.perf_counter() - began

            seconds(4)
            # Interleaved, so that a busy moment of the machine meets both.
            pairs = [(seconds(1), seconds(STARTS)) for _ in range(REPEATS)]
            ratios = sorted(eight / one for one, eight in pairs)
            one, eight = (statistics.median(times) for times in zip(*pairs, strict=True))
            figures = f"{one:.2f} s | {eight:.2f} s | {statistics.median(ratios):.2f}"
            print(f"| {title} | {tol:g} | {figures} | {ratios[0]:.2f} to {ratios[-1]:.2f} |", flush=True)


def missed() -> None:
    """Print by how much the best of a race lies above the best of eight starts that all go to their ends.

    What goes on in a race does so to the same bits, so that the histories of starts by themselves say how it ends.  The
    sweeps of least squares that a Poisson fit begins with are not among those counted.
    """
    print(
        "\n| excess over the best of eight | sweeps of one | one start | three | other eight | race | its sweeps |"
        "\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for title, options, counts in (
        ("one entry in ten missing", {}, 3.0),
        ("Huber", {"loss": ts.Huber(3.0)}, 3.0),
        ("Poisson", {"loss": ts.Poisson()}, 1.0),
        ("sparse", {}, 0.075),
        ("sparse, Poisson", {"loss": ts.Poisson()}, 0.075),
    ):
        found, long = [], []
        for draw in range(DRAWS):
            data, mask = phases(draw, counts)
            given = {**options, **({"mask": mask} if "missing" in title else {})}
            values = [
                ts.fit(data, ts.NMF(6), start=ts.Random(), seed=seed, max_sweeps=3000, progress=False, **given).history
                for seed in range(OF_EACH)
            ]
            histories = [own.values for own in values]
            long += [len(own) - 1 for own in histories]
            likelihood = isinstance(options.get("loss"), ts.Poisson)
            found += [_compared(histories, likelihood, np.random.default_rng(number)) for number in range(SETS)]
        table = np.array(found)
        figures = [f"{np.mean(own):.1e} (9 in 10 below {np.quantile(own, 0.9):.0e})" for own in table.T[:4]]
        print(
            f"| {title} | {np.mean(long):.0f} | {' | '.join(figures)} | {np.mean(table[:, 4]):.1f} times |", flush=True
        )


def phases(draw: int, counts: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Return counts of nine phases (dense) or six, some of them rare, in blocks of pixels, and a mask with gaps."""
    rng = np.random.default_rng(draw)
    dense = counts > 0.5
    number, side, blocks, channels = (9, 48, 12, 256) if dense else (6, 96, 12, 256)
    share = np.geomspace(1, 0.5 if dense else 0.05, number)
    which = rng.choice(number, (blocks, blocks), p=share / share.sum())
    maps = np.eye(number)[np.kron(which, np.ones((side // blocks,) * 2, int)).ravel()]
    maps = 0.85 * maps + 0.15 * rng.dirichlet(np.ones(number), len(maps))
    energy, spectra = np.arange(channels), np.full((number, channels), 0.05)
    for _ in range(3):
        centre, height = rng.uniform(0, channels, (number, 1)), rng.uniform(0.3, 1, (number, 1))
        spectra = spectra + height * np.exp(-0.5 * ((energy - centre) / 6.4) ** 2)
    expected = maps @ spectra
    values = rng.poisson(expected * (counts / expected.mean())).astype(np.float32).reshape(side, side, channels)
    dims = ("y", "x", "energy")
    mask = xr.DataArray(rng.random(values.shape) > 0.1, dims=dims)
    if dense:
        return xr.DataArray(values, dims=dims), mask
    import sparse

    return xr.DataArray(sparse.COO.from_numpy(values), dims=dims), mask


def _compared(histories: list[np.ndarray], likelihood: bool, rng: np.random.Generator) -> list[float]:
    """Return what one start, three, other eight and a race end above the best of eight, and the sweeps of the race."""
    from tensorspec.fit.race import first_round

    ends = np.array([own[-1] for own in histories])
    drawn = rng.choice(len(histories), STARTS, replace=False)
    others = rng.choice(len(histories), STARTS, replace=False)
    left, until, made = list(drawn), first_round(1e-6, likelihood), dict.fromkeys(drawn, 0)
    while len(left) > 1:
        made.update({k: min(until, len(histories[k]) - 1) for k in left})
        left = sorted(left, key=lambda k: histories[k][made[k]])[: (len(left) + 1) // 2]
        until *= 2
    made[left[0]] = len(histories[left[0]]) - 1
    alone = np.mean([len(own) - 1 for own in histories])
    best = ends[drawn].min()
    reached = [ends[drawn[0]], ends[drawn[:3]].min(), ends[others].min(), ends[left[0]]]
    return [*(value / best - 1 for value in reached), sum(made.values()) / alone]


def sweeps() -> None:
    """Print the seconds of some sweeps on all data, one start after the other and stacked."""
    print(
        "\n| sweeps on all data | one start | eight, one after the other | eight, stacked |\n| --- | --- | --- | --- |"
    )
    for title, values, rank, options in _cases():
        times = stacked(values, rank, {"solver": ts.HALS(compress=False)} if title == "dense" else options)
        print(f"| {title} | {' | '.join(f'{1e3 * value:.0f} ms' for value in times)} |", flush=True)


def stacked(data: xr.DataArray, rank: int, options: dict[str, Any]) -> list[float]:
    """Return seconds of some sweeps of one start, of eight in a row, and of eight in one program."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from tensorspec.solvers import loop
    from tensorspec.solvers.sweep import init_state, run_chunk

    calls = []

    def noting(*arguments: Any) -> Any:
        calls.append(arguments)
        return run_chunk(*arguments)

    loop.run_chunk = noting
    try:
        ts.fit(data, ts.NMF(rank), start=ts.Random(), max_sweeps=2, progress=False, **options)
    finally:
        loop.run_chunk = run_chunk
    model, program, problem, state = calls[-1][:4]
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        starts = [
            {mode: jnp.asarray(rng.random(own.shape), own.dtype) * own.mean() for mode, own in state.factors.items()}
            for _ in range(STARTS)
        ]
        states = [init_state(model, program, problem, start) for start in starts]
        arrays = [eqx.partition(item, eqx.is_array)[0] for item in states]
        whole = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        static = eqx.partition(state, eqx.is_array)[1]
        numbers, rest = eqx.partition(problem, eqx.is_array)

        @jax.jit
        def together(numbers: Any, whole: Any) -> Any:
            def alone(own: Any) -> Any:
                args = (eqx.combine(numbers, rest), eqx.combine(own, static), 0.0, SWEEPS, SWEEPS)
                return eqx.filter(run_chunk(model, program, *args)[0], eqx.is_array)

            return jax.vmap(alone)(whole)

        def in_a_row(count: int) -> Any:
            return [
                run_chunk(model, program, problem, item, 0.0, SWEEPS, SWEEPS)[0].objective for item in states[:count]
            ]

        return [
            _seconds(lambda: in_a_row(1)),
            _seconds(lambda: in_a_row(STARTS)),
            _seconds(lambda: together(numbers, whole)),
        ]


def _seconds(call: Callable[[], Any]) -> float:
    import jax

    jax.block_until_ready(call())
    found = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return statistics.median(found)


if __name__ == "__main__":
    main()
