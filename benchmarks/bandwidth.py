"""How fast the data can be read: the floor under a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["read_bandwidth", "seconds_of"]


def read_bandwidth(arrays: list[np.ndarray], repeats: int = 7) -> float:
    """Return the bytes per second at which two threads read the data, the best of several ways.

    A way is a BLAS dot product or a maximum in two threads, each over half the data, and the compiled sum and
    matrix-vector product of XLA.  The arrays are those of the workload, so that a cache that holds them counts.
    """
    import jax

    flats = [array.reshape(-1) for array in arrays]
    halves = [[flat[: flat.size // 2] for flat in flats], [flat[flat.size // 2 :] for flat in flats]]
    on_device = [jax.device_put(array.reshape(array.shape[0], -1)) for array in arrays]
    ones = [jax.device_put(np.ones(array.shape[1], array.dtype)) for array in on_device]
    summed = jax.jit(lambda parts: [part.sum() for part in parts])
    product = jax.jit(lambda parts, vectors: [part @ vector for part, vector in zip(parts, vectors, strict=True)])
    with ThreadPoolExecutor(2) as pool:
        ways: list[Callable[[], Any]] = [
            lambda: list(pool.map(lambda half: [float(np.dot(part, part)) for part in half], halves)),
            lambda: list(pool.map(lambda half: [float(part.max()) for part in half], halves)),
            lambda: jax.block_until_ready(summed(on_device)),
            lambda: jax.block_until_ready(product(on_device, ones)),
        ]
        for way in ways:
            way()
        best = min(seconds_of(way) for _ in range(repeats) for way in ways)
    return sum(flat.nbytes for flat in flats) / best


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the wall time of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
