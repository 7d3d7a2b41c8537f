"""A set of order three: maps, spectra and a course with temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.arguments import number, sizes, whole
from tensorspec.noise import NoiseModel
from tensorspec.phantoms.counting import record
from tensorspec.phantoms.maps import blur_maps
from tensorspec.phantoms.phantom import Phantom

__all__ = ["order3"]


def order3(
    shape: Sequence[int] = (8, 10),
    channels: int = 60,
    steps: int = 15,
    rank: int = 3,
    counts: float | None = None,
    seed: int = 0,
) -> Phantom:
    """Draw an in-situ series: pixels x energy x temperature, the sum of ``rank`` products of one factor each.

    Parameters
    ----------
    shape : (int, int)
        Pixels along y and x.
    channels : int
        Channels of the energy axis.
    steps : int
        Steps of temperature.
    rank : int
        Number of components: each a patchy map, a spectrum of two lines on a background, and a phase that comes and
        goes with temperature.
    counts : float, optional
        Expected counts in a pixel at one temperature, on average; Poisson noise. ``None``: no noise, about one count.
    seed : int
        Of the factors and of the noise.

    Returns
    -------
    Phantom
        ``"data"``: dimensions (y, x, energy_loss, temperature); ``"truth"``: ``maps`` (component, y, x), ``spectra``
        (component, energy_loss) of unit sum, ``courses`` (component, temperature) of mean one. Components are sorted
        by explained energy.

    Raises
    ------
    InvalidArgument
        If an argument cannot be meant.

    Examples
    --------
    >>> phantom = order3(rank=4)
    >>> phantom["data"].sizes
    Frozen({'y': 8, 'x': 10, 'energy_loss': 60, 'temperature': 15})
    >>> bool(np.allclose(phantom["data"], phantom.expected()))
    True
    """
    rows, columns = sizes("shape", shape, 2, 1)
    channels, steps, rank = whole("channels", channels, 8), whole("steps", steps, 2), whole("rank", rank, 1)
    dose = 1.0 if counts is None else number("counts", counts, 0, above=True)
    rng = np.random.default_rng([whole("seed", seed, 0), 3])

    maps = blur_maps(rng.gamma(0.4, 1.0, (rank, rows, columns)), 0.6)
    e = np.linspace(0, 1, channels)
    spectra = np.full((rank, channels), 0.03)
    for spectrum in spectra:
        for centre, height in zip(rng.uniform(0.05, 0.95, 2), rng.uniform(0.4, 1, 2), strict=True):
            spectrum += height * np.exp(-0.5 * ((e - centre) / 0.03) ** 2)
    spectra /= spectra.sum(axis=1, keepdims=True)
    t = np.linspace(0, 1, steps)
    centres = (np.arange(rank) + rng.uniform(0.2, 0.8, rank)) / rank
    courses = 0.1 + np.exp(-0.5 * ((t - rng.permutation(centres)[:, None]) / rng.uniform(0.15, 0.3, (rank, 1))) ** 2)
    courses /= courses.mean(axis=1, keepdims=True)
    maps *= dose / (rank * maps.mean(axis=(1, 2), keepdims=True))
    energy = (maps**2).sum(axis=(1, 2)) * (spectra**2).sum(axis=1) * (courses**2).sum(axis=1)
    order = np.argsort(-energy)

    coords = {
        "component": np.arange(1, rank + 1),
        "y": ("y", np.arange(rows, dtype=float), {"units": "nm"}),
        "x": ("x", np.arange(columns, dtype=float), {"units": "nm"}),
        "energy_loss": ("energy_loss", 400 + 200 * e, {"units": "eV"}),
        "temperature": ("temperature", 300 + 600 * t, {"units": "K"}),
    }

    def labelled(values: np.ndarray, dims: tuple[str, ...], **attrs: object) -> xr.DataArray:
        return xr.DataArray(values, dims=dims, coords={key: coords[key] for key in dims}, attrs=attrs)

    truth = xr.Dataset(
        {
            "maps": labelled(maps[order], ("component", "y", "x"), units="counts"),
            "spectra": labelled(spectra[order], ("component", "energy_loss"), units="1"),
            "courses": labelled(courses[order], ("component", "temperature"), units="1"),
        }
    )
    expected = np.einsum("ryx,re,rt->yxet", maps, spectra, courses)
    noise = NoiseModel(1.0, 0.0, 0.0)
    values = expected if counts is None else record(expected, noise, np.random.default_rng([seed, 4]))
    data = labelled(
        values,
        ("y", "x", "energy_loss", "temperature"),
        units="counts",
        title="In-situ series",
        signal_type="EELS",
        noise=(NoiseModel(0.0, 0.0, 0.0) if counts is None else noise).to_attrs(),
    )
    data.name = "data"
    return Phantom({"data": data}, truth, {"data": ("maps", "spectra", "courses")})
