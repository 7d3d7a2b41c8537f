"""Low loss, core loss and EDX of one specimen of varying thickness: plural scattering in every pixel its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.arguments import number, sizes, whole
from tensorspec.errors import InvalidArgument
from tensorspec.noise import NoiseModel
from tensorspec.phantoms.counting import record
from tensorspec.phantoms.cross_section import BEAM_ENERGY, PHASES, lay_out
from tensorspec.phantoms.edx import xray_spectrum
from tensorspec.phantoms.eels import core_loss, oxide_edges
from tensorspec.phantoms.maps import blur_maps
from tensorspec.phantoms.phantom import Phantom

__all__ = ["dual_eels"]

CORE_FROM, LOW_FROM, STEP = 430.0, -20.0, 0.5
# Single core losses are needed from so far below the core loss (eV); plasmons are drawn up to this loss (eV).
MARGIN, LONGEST = 300.0, 2000.0
EDX_RANGE = (0.0, 10.24)
# Share of the zero-loss peak in its Lorentzian tails.
TAILS = 0.03


def dual_eels(
    shape: Sequence[int] = (24, 32),
    *,
    thickness: Sequence[float] = (0.3, 1.5),
    low_counts: float = 1e6,
    core_counts: float = 3e5,
    edx_counts: float = 200.0,
    low_channels: int = 512,
    core_channels: int = 1024,
    edx_channels: int = 512,
    zero_loss_width: float = 1.2,
    drift: float = 0.3,
    probe: float = 0.8,
    seed: int = 0,
) -> Phantom:
    """Record the film of `cross_section` by dual EELS and EDX, wedge-shaped and scattering plurally.

    Parameters
    ----------
    shape : (int, int)
        Pixels along y (into the substrate) and x.
    thickness : (float, float)
        Thickness over inelastic mean free path at the left and at the right end, for a density of one.
    low_counts, core_counts, edx_counts : float
        Expected counts in a pixel, summed over channels, mean over pixels.
    low_channels, core_channels : int
        Channels of 0.5 eV, from -20 eV and from 430 eV.
    edx_channels : int
        Channels of the range 0 to 10.24 keV.
    zero_loss_width : float
        Full width at half maximum of the zero-loss peak, eV.
    drift : float
        How far the zero-loss peak lies from zero, eV (standard deviation over pixels); the core loss does not move.
    probe : float
        Broadening by the probe, pixels (standard deviation).
    seed : int
        Of the interfaces, the drift and the noise.

    Returns
    -------
    Phantom
        ``"low"`` (y, x, low_energy_loss), ``"core"`` (y, x, energy_loss) and ``"edx"`` (y, x, xray_energy), in counts;
        ``"truth"`` with ``maps`` (component, y, x), which count atoms and sum to the thickness over its mean;
        ``core_spectra``, single scattering, and ``edx_spectra`` (component, channels), counts of a pixel of mean
        thickness of that phase alone; ``thickness`` (y, x), in mean free paths; ``single_low`` (y, x,
        low_energy_loss), the single scattering of the low loss; ``low_expected`` and ``core_expected``.

    Raises
    ------
    InvalidArgument
        If an argument cannot be meant.

    Notes
    -----
    With the transforms Z of the zero-loss peak and S of the loss function of a pixel (Drude, each phase with its own
    plasmon, in proportion to its share), of unit area, the low loss is ``Z exp(t (S - 1))`` and the core loss
    ``exp(t (S - 1))`` times the single core losses of the pixel's phases, broadened already: so measured core losses
    are no sum of products of maps and spectra (R. F. Egerton, EELS in the Electron Microscope, 2011,
    doi:10.1007/978-1-4419-9583-4). Fourier-ratio deconvolution with ``intensity="total"`` gives ``maps`` times
    ``core_spectra``.

    Examples
    --------
    >>> phantom = dual_eels(shape=(8, 10), core_channels=256)
    >>> phantom["low"].sizes
    Frozen({'y': 8, 'x': 10, 'low_energy_loss': 512})
    >>> phantom.truth.thickness.dims
    ('y', 'x')
    """
    rows, columns = sizes("shape", shape, 2, 8)
    seed = whole("seed", seed, 0)
    if isinstance(thickness, str) or not isinstance(thickness, Sequence) or len(thickness) != 2:
        raise InvalidArgument(f"thickness is {thickness!r}; expected two numbers, at the left and at the right end.")
    left, right = (number("thickness", end, 0, 5, above=True) for end in thickness)
    wedge = np.linspace(left, right, columns)
    width = number("zero_loss_width", zero_loss_width, STEP)
    low_energy = LOW_FROM + STEP * np.arange(whole("low_channels", low_channels, 128))
    energy = CORE_FROM + STEP * np.arange(whole("core_channels", core_channels, 64))
    xray_energy = np.linspace(*EDX_RANGE, whole("edx_channels", edx_channels, 32), endpoint=False)

    shares = blur_maps(lay_out(rows, columns, np.random.default_rng([seed, 5])), number("probe", probe, 0))
    density = np.array([phase.density for phase in PHASES])
    mean_free_paths = shares * density[:, None, None] * wedge
    t = mean_free_paths.sum(axis=0)
    maps = shares * wedge / wedge.mean()

    margin = int(MARGIN / STEP)
    wide = CORE_FROM + STEP * np.arange(-margin, len(energy))
    single = np.array(
        [
            phase.density
            * core_loss(wide, oxide_edges(phase.atoms, phase.oxygen, phase.shift, phase.ratio), phase.exponent)
            for phase in PHASES
        ]
    )
    pixels = mean_free_paths.reshape(len(PHASES), -1).T
    places = number("drift", drift, 0) * np.random.default_rng([seed, 7]).standard_normal(len(pixels))
    peaks = _zero_loss(low_energy, places[:, None], width)
    low, single_low, core = _scatter(pixels, peaks, (pixels / density) @ single, margin)

    dose = {
        name: number(f"{name}_counts", counts, 0, above=True)
        for name, counts in (("low", low_counts), ("core", core_counts), ("edx", edx_counts))
    }
    scale = {name: dose[name] / np.sum(values) * len(pixels) for name, values in (("low", low), ("core", core))}
    edx_spectra = np.array([phase.density * xray_spectrum(xray_energy, phase.atoms) for phase in PHASES])
    edx_spectra *= dose["edx"] / (maps.mean(axis=(1, 2)) @ edx_spectra.sum(axis=1))

    coords = {
        "component": np.arange(1, len(PHASES) + 1),
        "y": ("y", 0.5 * np.arange(rows), {"units": "nm"}),
        "x": ("x", 0.5 * np.arange(columns), {"units": "nm"}),
        "low_energy_loss": ("low_energy_loss", low_energy, {"units": "eV"}),
        "energy_loss": ("energy_loss", energy, {"units": "eV"}),
        "xray_energy": ("xray_energy", xray_energy, {"units": "keV"}),
    }

    def labelled(values: np.ndarray, dims: tuple[str, ...], **attrs: object) -> xr.DataArray:
        shaped = values.reshape([len(coords[dim]) if dim == "component" else len(coords[dim][1]) for dim in dims])
        return xr.DataArray(shaped, dims=dims, coords={key: coords[key] for key in dims}, attrs=attrs)

    variables = {
        "maps": labelled(maps, ("component", "y", "x"), long_name="atoms", units="1"),
        "thickness": labelled(t, ("y", "x"), long_name="thickness over inelastic mean free path", units="1"),
        "core_spectra": labelled(
            single[:, margin:] * wedge.mean() * scale["core"], ("component", "energy_loss"), units="counts"
        ),
        "edx_spectra": labelled(edx_spectra, ("component", "xray_energy"), units="counts"),
        "single_low": labelled(single_low * scale["low"], ("y", "x", "low_energy_loss"), units="counts"),
        "low_expected": labelled(low * scale["low"], ("y", "x", "low_energy_loss"), units="counts"),
        "core_expected": labelled(core * scale["core"], ("y", "x", "energy_loss"), units="counts"),
    }
    edx_expected = np.einsum("ryx,re->yxe", maps, edx_spectra)
    noise, tensors = NoiseModel(1.0, 0.0, 0.0), {}
    for stream, (name, dim, expected) in enumerate(
        (
            ("low", "low_energy_loss", variables["low_expected"].values),
            ("core", "energy_loss", variables["core_expected"].values),
            ("edx", "xray_energy", edx_expected),
        )
    ):
        tensors[name] = labelled(
            record(np.maximum(expected, 0), noise, np.random.default_rng([seed, 8, stream])),
            ("y", "x", dim),
            units="counts",
            title={"low": "Low loss", "core": "Core loss", "edx": "EDX"}[name],
            signal_type="EDS_TEM" if name == "edx" else "EELS",
            beam_energy_keV=BEAM_ENERGY,
            noise=noise.to_attrs(),
        )
        tensors[name].name = name
    truth = xr.Dataset(variables).assign_coords(phase=("component", [phase.name for phase in PHASES]))
    return Phantom(tensors, truth, {"edx": ("maps", "edx_spectra")})


def _scatter(
    pixels: np.ndarray, peaks: np.ndarray, single: np.ndarray, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low losses, their single scattering, and core losses from `margin` on, of pixels with these mean free paths."""
    channels = int(LONGEST / STEP)
    length = 2 ** (channels + max(single.shape[1], peaks.shape[1]) - 1).bit_length()
    losses = np.fft.rfft([_plasmon(channels, *phase.plasmon) for phase in PHASES], length, axis=1)
    low, single_low = np.empty_like(peaks), np.empty_like(peaks)
    core = np.empty((len(single), single.shape[1] - margin))
    for first in range(0, len(pixels), 64):
        part = slice(first, first + 64)
        once = pixels[part] @ losses
        unscattered = np.exp(-pixels[part].sum(axis=1, keepdims=True))
        scattered = unscattered * np.exp(once)
        peak = np.fft.rfft(peaks[part], length, axis=1)
        low[part] = np.fft.irfft(peak * scattered, length, axis=1)[:, : peaks.shape[1]]
        single_low[part] = np.fft.irfft(peak * unscattered * once, length, axis=1)[:, : peaks.shape[1]]
        many = np.fft.irfft(np.fft.rfft(single[part], length, axis=1) * scattered, length, axis=1)
        core[part] = many[:, margin : single.shape[1]]
    return low, single_low, core


def _plasmon(channels: int, energy: float, width: float) -> np.ndarray:
    """Loss function of free electrons (Drude), of unit area, from zero loss on."""
    loss = STEP * np.arange(channels)
    function = loss * width * energy**2 / ((loss**2 - energy**2) ** 2 + (loss * width) ** 2)
    return function / function.sum()


def _zero_loss(energy: np.ndarray, place: np.ndarray, width: float) -> np.ndarray:
    """Zero-loss peaks of unit area, (pixels, channels): a Gaussian with weak Lorentzian tails."""
    offset = energy - place
    gaussian = np.exp(-4 * np.log(2) * (offset / width) ** 2)
    lorentzian = 1 / (1 + (2 * offset / width) ** 2)
    peak = (1 - TAILS) * gaussian / gaussian.sum(axis=-1, keepdims=True)
    peak += TAILS * lorentzian / lorentzian.sum(axis=-1, keepdims=True)
    return peak
