"""Counts with a known answer: planted non-negative low rank plus Poisson noise.

The planted factors overlap as those of a spectrum image do, which is what makes a factorization slow: every spectrum
stands on the same falling background and has broad peaks that its neighbours share, every map has soft borders, and
every profile along a third mode is a broad hump.  The strengths of the components fall by a factor of five.  Random
factors without overlap would be found within the first sweeps by any method and would compare nothing.  With the
default seed plain HALS takes some 50 sweeps to an excess of 1e-3 and 80 to 1e-4 on W1 (other seeds: 35 to 96 to 1e-3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt, prod
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["WORKLOADS", "Workload", "two_way"]


@dataclass(frozen=True)
class Workload:
    """What every method is given.

    Attributes
    ----------
    name
        Short name.
    title
        What it is, with sizes.
    tensors
        The data, counts as float32; the modes of each are its dimensions with ``y, x`` merged.  Dense, or
        `sparse.COO`.
    start
        A factor ``(size, rank)`` for every mode, float32, drawn uniformly and brought to the level of the data; under
        ``"core"`` the core of a Tucker model.
    rank
        Number of components of every mode, planted and asked for.
    targets
        Excesses whose times are measured, the last one compared with gates and aims.
    poisson
        Whether the objective is the Kullback-Leibler divergence and not half the squared residual.
    """

    name: str
    title: str
    tensors: dict[str, xr.DataArray]
    start: dict[str, np.ndarray]
    rank: int
    targets: tuple[float, ...]
    poisson: bool = False

    @cached_property
    def modes(self) -> dict[str, tuple[str, ...]]:
        """Modes of each tensor."""
        return {
            key: ("pixel", *map(str, tensor.dims[2:])) if tensor.dims[0] == "y" else tuple(map(str, tensor.dims))
            for key, tensor in self.tensors.items()
        }

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """Each tensor with one axis per mode, as an array or as a SciPy matrix in compressed rows."""
        return {key: _one_axis_a_mode(tensor, len(self.modes[key])) for key, tensor in self.tensors.items()}

    @property
    def stored(self) -> int:
        """Bytes of the data as they are given."""
        return sum(tensor.data.nbytes for tensor in self.tensors.values())

    @property
    def dense(self) -> int:
        """Bytes of the data with all their zeros, as float32."""
        return sum(4 * tensor.size for tensor in self.tensors.values())


def _one_axis_a_mode(tensor: xr.DataArray, modes: int) -> Any:
    merged = tensor.ndim - modes + 1
    shape = (prod(tensor.shape[:merged]), *tensor.shape[merged:])
    array = tensor.data.reshape(shape)
    return array if isinstance(array, np.ndarray) else array.tocsr()


def two_way(size: str, seed: int = 1) -> Workload:
    """W1: 16384 pixels x 1024 channels, 50 counts an entry on average."""
    side, channels = {"full": (128, 1024), "tiny": (12, 48)}[size]
    return matrix(side * side, channels, 6, seed)


def matrix(pixels: int, channels: int, rank: int, seed: int = 1) -> Workload:
    """Return a two-way workload of this size; the pixels are a square number."""
    rng = np.random.default_rng(seed)
    planted = {"pixel": maps(isqrt(pixels), rank, rng), "energy": spectra(channels, rank, rng)}
    tensors = {"data": _counts(planted, ("energy",), 50.0, rng)}
    return _workload("W1", "NMF", tensors, rank, (1e-2, 1e-3, 1e-4), rng)


def sparse_counts(size: str, seed: int = 1) -> Workload:
    """W2: 65536 pixels x 2048 channels, some 1 % of the entries not zero."""
    side, channels, mean = {"full": (256, 2048, 0.0106), "tiny": (16, 64, 0.03)}[size]
    rng = np.random.default_rng(seed)
    tensors = {"data": _events(maps(side, 8, rng), spectra(channels, 8, rng), mean, rng)}
    return _workload("W2", "NMF of sparse counts", tensors, 8, (1e-2, 1e-3, 5e-4), rng)


def order_three(size: str, seed: int = 1) -> Workload:
    """W3: 4096 pixels x 512 channels x 40 steps, 5 counts an entry on average."""
    side, channels, steps = {"full": (64, 512, 40), "tiny": (8, 24, 6)}[size]
    rng = np.random.default_rng(seed)
    planted = {"pixel": maps(side, 6, rng), "energy": spectra(channels, 6, rng), "time": profiles(steps, 6, rng)}
    tensors = {"data": _counts(planted, ("energy", "time"), 5.0, rng)}
    return _workload("W3", "non-negative CP", tensors, 6, (1e-2, 1e-3, 1e-4), rng)


def coupled(size: str, seed: int = 1) -> Workload:
    """W4: 16384 pixels x 1024 and x 2048 channels on the same pixels, 50 counts an entry on average."""
    side, first, second = {"full": (128, 1024, 2048), "tiny": (12, 48, 64)}[size]
    rng = np.random.default_rng(seed)
    pixels = maps(side, 6, rng)
    tensors = {
        "eels": _counts({"pixel": pixels, "energy_loss": spectra(first, 6, rng)}, ("energy_loss",), 50.0, rng),
        "edx": _counts({"pixel": pixels, "xray_energy": spectra(second, 6, rng)}, ("xray_energy",), 50.0, rng),
    }
    return _workload("W4", "coupled NMF, pixels shared", tensors, 6, (1e-2, 1e-3, 1e-4), rng)


def tucker(size: str, seed: int = 1) -> Workload:
    """W5: 64 x 64 x 1024 with a core of 6 x 6 x 6, of whose entries three in ten are not zero; 20 counts an entry."""
    side, channels, rank = {"full": (64, 1024, 6), "tiny": (12, 24, 2)}[size]
    rng = np.random.default_rng(seed)
    planted = {name: profiles(side, rank, rng) for name in ("row", "column")} | {"energy": spectra(channels, rank, rng)}
    core = rng.random((rank, rank, rank)) * (rng.random((rank, rank, rank)) < 0.3) + np.eye(rank)[:, :, None] * 0.2
    expected = np.einsum("ap,bq,cs,pqs->abc", *planted.values(), core, optimize=True)
    values = rng.poisson(expected * (20 / expected.mean())).astype(np.float32)
    workload = _workload(
        "W5", "non-negative Tucker", {"data": xr.DataArray(values, dims=tuple(planted))}, rank, (1e-1, 1e-2), rng
    )
    # The factors alone are at the level of the data for a diagonal core of ones; this core has rank**2 times as many.
    core = rng.random((rank, rank, rank)) * (2 / rank**2)
    return replace(workload, start={**workload.start, "core": core.astype(np.float32)})


def poisson(size: str, seed: int = 1) -> Workload:
    """W6: the data of W2, for the Poisson likelihood."""
    workload = sparse_counts(size, seed)
    title = workload.title.replace("NMF", "Poisson NMF")
    return replace(workload, name="W6", title=title, targets=(5e-2, 2e-2), poisson=True)


WORKLOADS: Mapping[str, Callable[[str, int], Workload]] = {
    "W1": two_way,
    "W2": sparse_counts,
    "W3": order_three,
    "W4": coupled,
    "W5": tucker,
    "W6": poisson,
}


def maps(side: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(side * side, rank)`` abundances: soft shares of blobs that add up to one in every pixel."""
    y, x = np.mgrid[:side, :side] / side
    level = np.zeros((rank, side, side))
    for component in level:
        for cy, cx, width in zip(*rng.random((2, 4)), rng.uniform(0.08, 0.2, 4), strict=True):
            component += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    share = np.exp(5 * level)
    return (share / share.sum(axis=0)).reshape(rank, -1).T * np.geomspace(1, 0.2, rank)


def spectra(channels: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(channels, rank)`` spectra: a common falling background and broad peaks, each at unit mean."""
    energy = np.linspace(0, 1, channels)[:, None]
    found = (1 + 4 * energy) ** -rng.uniform(1.8, 2.2, rank)
    for _ in range(3):
        centre, width = rng.random(rank), rng.uniform(0.02, 0.05, rank)
        found = found + rng.uniform(0.5, 2, rank) * np.exp(-((energy - centre) ** 2) / (2 * width**2))
    return found / found.mean(axis=0)


def profiles(steps: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(steps, rank)`` broad humps in turn, each at unit mean."""
    time = np.linspace(0, 1, steps)[:, None]
    centre = (np.arange(rank) + rng.random(rank)) / rank
    found = 0.1 + np.exp(-((time - centre) ** 2) / (2 * 0.2**2))
    return found / found.mean(axis=0)


def with_order(shape: tuple[int, ...], rank: int, seed: int = 1) -> Workload:
    """Return a workload of any order: the first mode is a square number of pixels, the others are humps."""
    rng = np.random.default_rng(seed)
    others = [f"mode_{k}" for k in range(2, len(shape) + 1)]
    planted = {"pixel": maps(isqrt(shape[0]), rank, rng)}
    planted |= {name: profiles(size, rank, rng) for name, size in zip(others, shape[1:], strict=True)}
    tensors = {"data": _counts(planted, tuple(others), 50.0, rng)}
    return _workload("order", "non-negative CP", tensors, rank, (1e-4,), rng)


def _counts(
    planted: Mapping[str, np.ndarray], others: tuple[str, ...], mean: float, rng: np.random.Generator
) -> xr.DataArray:
    """Return Poisson counts of the planted model at the given mean, as float32."""
    sizes = [len(planted[mode]) for mode in others]
    flat = planted[others[0]]
    for mode in others[1:]:
        flat = (flat[:, None, :] * planted[mode][None, :, :]).reshape(-1, flat.shape[1])
    pixels = planted["pixel"] * (mean / float((planted["pixel"].mean(axis=0) * flat.mean(axis=0)).sum()))
    values = np.empty((len(pixels), len(flat)), np.float32)
    for row in range(0, len(pixels), 512):
        expected = pixels[row : row + 512] @ flat.T
        values[row : row + 512] = rng.poisson(expected)
    side = isqrt(len(pixels))
    return xr.DataArray(values.reshape(side, side, *sizes), dims=("y", "x", *others))


def _events(pixels: np.ndarray, profile: np.ndarray, mean: float, rng: np.random.Generator) -> xr.DataArray:
    """Return sparse Poisson counts, drawn event by event: a component, then its pixel, then its channel."""
    import sparse  # it takes a second, and only these data need it

    side, channels = isqrt(len(pixels)), len(profile)
    share = pixels.sum(axis=0) * profile.sum(axis=0)
    events = rng.poisson(mean * len(pixels) * channels * share / share.sum())
    where = []
    for component, number in enumerate(events):
        pixel, channel = (
            rng.choice(len(column), number, p=column / column.sum())
            for column in (pixels[:, component], profile[:, component])
        )
        where.append(pixel * channels + channel)
    places, counts = np.unique(np.concatenate(where), return_counts=True)
    coords = np.unravel_index(places, (side, side, channels))
    data = sparse.COO(np.stack(coords), counts.astype(np.float32), shape=(side, side, channels))
    return xr.DataArray(data, dims=("y", "x", "energy"))


def _workload(
    name: str,
    title: str,
    tensors: dict[str, xr.DataArray],
    rank: int,
    targets: tuple[float, ...],
    rng: np.random.Generator,
) -> Workload:
    first = next(iter(tensors.values()))
    image = first.dims[0] == "y"
    sizes = {"pixel": first.shape[0] * first.shape[1]} if image else {}
    sizes |= {str(dim): tensor.sizes[dim] for tensor in tensors.values() for dim in tensor.dims[2 * image :]}
    start = {mode: rng.random((size, rank)) for mode, size in sizes.items()}
    level = float(first.data.sum(dtype=np.float64)) / first.size / (rank * 0.5 ** (first.ndim - image))
    start[next(iter(sizes))] *= level
    shapes = " and ".join(
        " x ".join(map(str, (sizes["pixel"], *t.shape[2:]) if image else t.shape)) for t in tensors.values()
    )
    if not isinstance(first.data, np.ndarray):
        shapes += f" with {first.data.nnz} entries that are not zero"
    single = {mode: factor.astype(np.float32) for mode, factor in start.items()}
    return Workload(name, f"{title}, {shapes}, rank {rank}", tensors, single, rank, targets)
