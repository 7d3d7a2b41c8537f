"""Eight starts against one: whole calls on W1; and sweeps of eight starts stacked in one program against one by one.

Run with ``python -m benchmarks.restarts``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

import tensorspec as ts
from benchmarks.planted import sparse_counts, two_way

__all__ = ["main"]

REPEATS, STARTS, SWEEPS = 5, 8, 5


def main() -> None:
    """Print how many times as long eight starts take as one, and what stacking them would gain."""
    data = next(iter(two_way("full").tensors.values()))

    def seconds(count: int) -> float:
        began = time.perf_counter()
        ts.fit(data, ts.NMF(6), start=ts.Random(), restarts=count, tol=1e-5, progress=False)
        return time.perf_counter() - began

    seconds(2)
    # Interleaved, so that a busy moment of the machine meets both.
    pairs = [(seconds(1), seconds(STARTS)) for _ in range(REPEATS)]
    ratios = sorted(eight / one for one, eight in pairs)
    one, eight = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"one start {one:.3f} s, eight {eight:.3f} s: {eight / one:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})")

    sparse = next(iter(sparse_counts("full").tensors.values()))
    mask = xr.DataArray(np.random.default_rng(0).random(data.shape) > 0.1, dims=data.dims)
    print(
        "\n| sweeps on all data | one start | eight, one after the other | eight, stacked |\n| --- | --- | --- | --- |"
    )
    for title, values, rank, options in (
        ("dense", data, 6, {"solver": ts.HALS(compress=False)}),
        ("dense, one entry in ten missing", data, 6, {"mask": mask}),
        ("sparse", sparse, 8, {}),
        ("sparse, Poisson", sparse, 8, {"loss": ts.Poisson()}),
    ):
        times = stacked(values, rank, options)
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
