"""Two discs in a matrix, with EDX-like or EELS-like spectra: the set on which methods are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.arguments import number, sizes, whole
from tensorspec.errors import InvalidArgument, suggest
from tensorspec.noise import NoiseModel
from tensorspec.phantoms.counting import record
from tensorspec.phantoms.maps import blur_maps
from tensorspec.phantoms.phantom import Phantom

__all__ = ["disc_pair", "discs"]

KINDS = ("edx", "eels")


def discs(
    kind: str = "edx",
    counts: float = 500,
    shape: Sequence[int] = (40, 40),
    channels: int = 200,
    blur: float = 1.5,
    matrix_floor: float = 0.0,
    seed: int = 0,
) -> Phantom:
    """Two discs in a matrix: three components, Poisson counts.

    Parameters
    ----------
    kind : {"edx", "eels"}
        Sparse spectra (three lines each, at random positions, on a low background) or dense ones (two edges of
        different onset and shape and one background, over a common power law).
    counts : float
        Expected counts in each pixel.
    shape : (int, int)
        Pixels along y and x. The discs have radii of 9 and 10 pixels at 40 x 40, and scale with the shorter side.
    channels : int
        Number of channels, on an energy from 0 to 1.
    blur : float
        Blur of the maps, pixels (standard deviation). At 40 x 40, 1.5 gives a mean overlap of 0.07 and 4 of 0.23.
    matrix_floor : float
        Share of the matrix that is present everywhere; 0.3 gives a mean overlap of 0.16.
    seed : int
        Of the line positions and of the noise.

    Returns
    -------
    Phantom
        ``"data"``: counts, dimensions (y, x, energy); ``"truth"``: ``maps`` (component, y, x), shares that sum to one
        in every pixel, and ``spectra`` (component, energy) in counts.

    Raises
    ------
    InvalidArgument
        If an argument cannot be meant.

    Examples
    --------
    >>> phantom = discs("eels", counts=5000)
    >>> phantom["data"].shape, phantom.truth["spectra"].shape
    ((40, 40, 200), (3, 200))
    """
    maps = _maps(shape, blur, matrix_floor)
    spectra = _spectra(kind, channels, _generator(seed, 1, 0))
    tensor, variables = _tensor("data", "energy", maps, spectra, counts, kind, _generator(seed, 2, 0))
    truth = xr.Dataset({"maps": variables["maps"], "spectra": variables["spectra"]})
    return Phantom({"data": tensor}, truth, {"data": ("maps", "spectra")})


def disc_pair(
    kinds: Sequence[str] = ("edx", "edx"),
    counts: Sequence[float] = (5000, 50),
    names: Sequence[str] = ("strong", "weak"),
    shape: Sequence[int] = (40, 40),
    channels: int = 200,
    blur: float = 1.5,
    matrix_floor: float = 0.0,
    seed: int = 0,
) -> Phantom:
    """Two tensors on the same maps, with different spectra and doses: a test of fusion.

    Parameters
    ----------
    kinds : (str, str)
        Kind of each tensor, as in `discs`. Two of kind ``"edx"`` have lines at different positions, two
        of kind ``"eels"`` the same spectra.
    counts : (float, float)
        Expected counts in each pixel, for each tensor.
    names : (str, str)
        Of the tensors; their energies are the dimensions ``<name>_energy``.
    shape, channels, blur, matrix_floor
        As in `discs`.
    seed : int
        Of the line positions and of the noise.

    Returns
    -------
    Phantom
        The two tensors by name; ``"truth"``: ``maps`` and, for each, ``<name>_spectra``.

    Raises
    ------
    InvalidArgument
        If an argument cannot be meant.

    Examples
    --------
    >>> phantom = disc_pair(counts=(5000, 20))
    >>> {name: tensor.dims for name, tensor in phantom.data.items()}
    {'strong': ('y', 'x', 'strong_energy'), 'weak': ('y', 'x', 'weak_energy')}
    """
    for argument, value in (("kinds", kinds), ("counts", counts), ("names", names)):
        if isinstance(value, str) or len(value) != 2:
            raise InvalidArgument(f"{argument} is {value!r}; expected one entry for each of the two tensors.")
    if names[0] == names[1] or not all(isinstance(name, str) and name and name != "truth" for name in names):
        raise InvalidArgument(f"names is {tuple(names)!r}; expected two different names, neither of them 'truth'.")
    maps = _maps(shape, blur, matrix_floor)
    tensors, variables = {}, {}
    for number_of, (name, kind, dose) in enumerate(zip(names, kinds, counts, strict=True)):
        spectra = _spectra(kind, channels, _generator(seed, 1, number_of))
        tensors[name], made = _tensor(name, f"{name}_energy", maps, spectra, dose, kind, _generator(seed, 2, number_of))
        variables |= {"maps": made["maps"], f"{name}_spectra": made["spectra"]}
    return Phantom(tensors, xr.Dataset(variables), {name: ("maps", f"{name}_spectra") for name in names})


def _generator(seed: int, use: int, tensor: int) -> np.random.Generator:
    """Independent streams for spectra and noise of each tensor."""
    return np.random.default_rng([whole("seed", seed, 0), use, tensor])


def _maps(shape: Sequence[int], sigma: float, floor: float) -> np.ndarray:
    """Shares of the two discs and the matrix, (3, y, x); they sum to one."""
    rows, columns = sizes("shape", shape, 2, 4)
    sigma = number("blur", sigma, 0)
    floor = number("matrix_floor", floor, 0, 0.99)
    y, x = np.mgrid[:rows, :columns]
    scale = min(rows, columns) / 40
    first = (y - 0.3 * rows) ** 2 + (x - 0.3 * columns) ** 2 <= (9 * scale) ** 2
    second = (y - 0.675 * rows) ** 2 + (x - 0.675 * columns) ** 2 <= (10 * scale) ** 2
    maps = blur_maps(np.array([first, second, ~(first | second)], dtype=float), sigma) * (1 - floor)
    maps[2] += floor
    return maps


def _spectra(kind: str, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Three spectra of unit sum, (3, channels)."""
    if kind not in KINDS:
        raise InvalidArgument(f"kind is {kind!r}; expected 'edx' or 'eels'.{suggest(kind, KINDS)}")
    e = np.linspace(0, 1, whole("channels", channels, 8))

    def line(centre: float, width: float) -> np.ndarray:
        return np.exp(-0.5 * ((e - centre) / width) ** 2)

    def edge(onset: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(e - onset) / 0.01))

    if kind == "edx":
        spectra = np.full((3, len(e)), 0.02)
        for spectrum in spectra:
            for centre, height in zip(rng.uniform(0.05, 0.95, 3), rng.uniform(0.3, 1, 3), strict=True):
                spectrum += height * line(centre, 0.012)
    else:
        background = np.exp(-2 * e)
        spectra = np.array(
            [
                0.6 * background + edge(0.3) * np.exp(-2 * np.maximum(e - 0.3, 0)) + 0.8 * line(0.33, 0.015),
                0.6 * background + edge(0.33) * np.exp(-2 * np.maximum(e - 0.33, 0)) + 0.8 * line(0.37, 0.02),
                1.2 * background + 0.3 * edge(0.6),
            ]
        )
    return spectra / spectra.sum(axis=1, keepdims=True)


def _tensor(
    name: str, dim: str, maps: np.ndarray, spectra: np.ndarray, counts: float, kind: str, rng: np.random.Generator
) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """Label the factors of one tensor, and draw its counts."""
    spectra = spectra * number("counts", counts, 0, above=True)
    coords = {
        "component": np.arange(1, len(maps) + 1),
        "y": ("y", np.arange(maps.shape[1], dtype=float), {"units": "px"}),
        "x": ("x", np.arange(maps.shape[2], dtype=float), {"units": "px"}),
        dim: (dim, np.linspace(0, 1, spectra.shape[1]), {"units": "1"}),
    }

    def labelled(values: np.ndarray, dims: tuple[str, ...], **attrs: object) -> xr.DataArray:
        return xr.DataArray(values, dims=dims, coords={key: coords[key] for key in dims}, attrs=attrs)

    data = labelled(
        record(np.einsum("ryx,re->yxe", maps, spectra), NoiseModel(), rng),
        ("y", "x", dim),
        units="counts",
        title=f"Discs in a matrix, {kind.upper()}-like",
        signal_type="EELS" if kind == "eels" else "EDS_TEM",
        noise=NoiseModel(1.0, 0.0, 0.0).to_attrs(),
    )
    data.name = name
    return data, {
        "maps": labelled(maps, ("component", "y", "x"), long_name="share", units="1"),
        "spectra": labelled(spectra, ("component", dim), units="counts"),
    }
