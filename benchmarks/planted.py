"""Counts with a known answer: planted non-negative low rank plus Poisson noise.

The planted factors overlap as those of a spectrum image do, which is what makes a factorization slow: every spectrum
stands on the same falling background and has broad peaks that its neighbours share, every map has soft borders, and
every profile along a third mode is a broad hump.  The strengths of the components fall by a factor of five.  Random
factors without overlap would be found within the first sweeps by any method and would compare nothing.  With the
default seed plain HALS takes some 50 sweeps to an excess of 1e-3 and 80 to 1e-4 on W1 (other seeds: 35 to 96 to 1e-3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

__all__ = ["Workload", "coupled", "order_three", "two_way"]


class Workload(NamedTuple):
    """What every method is given.

    Attributes
    ----------
    name
        Short name.
    title
        What it is, with sizes.
    tensors
        The data, float32 counts, pixels first; the modes of each are its dimensions with ``y, x`` merged.
    start
        A factor ``(size, rank)`` for every mode, float32, drawn uniformly and brought to the level of the data.
    rank
        Number of components, planted and asked for.
    """

    name: str
    title: str
    tensors: dict[str, xr.DataArray]
    start: dict[str, np.ndarray]
    rank: int

    @property
    def modes(self) -> dict[str, tuple[str, ...]]:
        """Modes of each tensor."""
        return {key: ("pixel", *map(str, tensor.dims[2:])) for key, tensor in self.tensors.items()}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Each tensor with one axis per mode."""
        return {key: tensor.values.reshape(-1, *tensor.shape[2:]) for key, tensor in self.tensors.items()}


def two_way(quick: bool, seed: int = 1) -> Workload:
    """W1: 16384 pixels x 1024 channels, 50 counts an entry on average."""
    side, channels = (32, 256) if quick else (128, 1024)
    rng = np.random.default_rng(seed)
    planted = {"pixel": maps(side, 6, rng), "energy": spectra(channels, 6, rng)}
    tensors = {"data": _counts(planted, ("energy",), 50.0, rng)}
    return _workload("W1", "NMF", tensors, 6, rng)


def order_three(quick: bool, seed: int = 1) -> Workload:
    """W3: 4096 pixels x 512 channels x 40 steps, 5 counts an entry on average."""
    side, channels, steps = (16, 128, 12) if quick else (64, 512, 40)
    rng = np.random.default_rng(seed)
    planted = {"pixel": maps(side, 6, rng), "energy": spectra(channels, 6, rng), "time": profiles(steps, 6, rng)}
    tensors = {"data": _counts(planted, ("energy", "time"), 5.0, rng)}
    return _workload("W3", "non-negative CP", tensors, 6, rng)


def coupled(quick: bool, seed: int = 1) -> Workload:
    """W4: 16384 pixels x 1024 and x 2048 channels on the same pixels, 50 counts an entry on average."""
    side, first, second = (32, 256, 512) if quick else (128, 1024, 2048)
    rng = np.random.default_rng(seed)
    pixels = maps(side, 6, rng)
    tensors = {
        "eels": _counts({"pixel": pixels, "energy_loss": spectra(first, 6, rng)}, ("energy_loss",), 50.0, rng),
        "edx": _counts({"pixel": pixels, "xray_energy": spectra(second, 6, rng)}, ("xray_energy",), 50.0, rng),
    }
    return _workload("W4", "coupled NMF, pixels shared", tensors, 6, rng)


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
    side = int(np.sqrt(len(pixels)))
    return xr.DataArray(values.reshape(side, side, *sizes), dims=("y", "x", *others))


def _workload(name: str, title: str, tensors: dict[str, xr.DataArray], rank: int, rng: np.random.Generator) -> Workload:
    first = next(iter(tensors.values()))
    sizes = {"pixel": first.shape[0] * first.shape[1]}
    sizes |= {str(dim): tensor.sizes[dim] for tensor in tensors.values() for dim in tensor.dims[2:]}
    start = {mode: rng.random((size, rank)) for mode, size in sizes.items()}
    level = float(first.mean()) / (rank * 0.5 ** (first.ndim - 1))
    start["pixel"] *= level
    shapes = " and ".join(" x ".join(map(str, (sizes["pixel"], *t.shape[2:]))) for t in tensors.values())
    return Workload(
        name, f"{title}, {shapes}, rank {rank}", tensors, {m: f.astype(np.float32) for m, f in start.items()}, rank
    )
