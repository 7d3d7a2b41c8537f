"""A cross-section of four oxides, recorded at once as EELS and as EDX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from tensorspec.arguments import number, sizes, whole
from tensorspec.noise import MOST_CORRELATION, NoiseModel
from tensorspec.phantoms.counting import record
from tensorspec.phantoms.edx import xray_spectrum
from tensorspec.phantoms.eels import Peak, core_loss, oxide_edges
from tensorspec.phantoms.maps import blur_maps, blur_to_overlap
from tensorspec.phantoms.phantom import Phantom

__all__ = ["BEAM_ENERGY", "PHASES", "cross_section", "lay_out"]

EELS_RANGE = (430.0, 942.0)
EDX_RANGE = (0.0, 10.24)
BEAM_ENERGY = 200.0
# Centre along y and x, radius along y and x, as shares of the image.
PARTICLES = ((0.28, 0.26, 0.15, 0.13), (0.20, 0.66, 0.11, 0.09), (0.40, 0.86, 0.09, 0.07))


@dataclass(frozen=True)
class _Phase:
    """One phase: formula, density of scatterers beside the substrate's, and what its EELS edges look like."""

    name: str
    atoms: Mapping[str, float]
    density: float
    exponent: float
    plasmon: tuple[float, float]
    oxygen: Sequence[Peak]
    shift: Mapping[str, float] = field(default_factory=dict)
    ratio: Mapping[str, float] = field(default_factory=dict)


PHASES = (
    _Phase(
        "SrTiO3",
        {"Sr": 1, "Ti": 1, "O": 3},
        1.0,
        3.0,
        (30.0, 12.0),
        (Peak(531.2, 1.3, 1.8), Peak(536.4, 1.0, 4.0), Peak(544.0, 0.8, 5.0)),
    ),
    _Phase(
        "SrMnO3",
        {"Sr": 1, "Mn": 1, "O": 3},
        0.97,
        3.05,
        (28.0, 12.0),
        (Peak(530.0, 1.5, 2.2), Peak(536.8, 0.9, 4.0), Peak(543.0, 0.7, 6.0)),
        # Mn4+ beside the Mn3+ of LaMnO3: edge 1.6 eV higher, first white line less dominant.
        {"Mn": 1.6},
        {"Mn": 1.9},
    ),
    _Phase(
        "LaMnO3",
        {"La": 1, "Mn": 1, "O": 3},
        1.12,
        3.15,
        (26.0, 14.0),
        (Peak(530.3, 0.6, 2.4), Peak(535.6, 1.3, 3.6), Peak(543.2, 0.9, 6.0)),
        {},
        {"Mn": 2.6},
    ),
    _Phase(
        "Fe3O4",
        {"Fe": 3, "O": 4},
        0.95,
        2.9,
        (24.0, 10.0),
        (Peak(531.0, 0.9, 2.2), Peak(540.6, 1.2, 5.0), Peak(556.0, 0.3, 10.0)),
        {"Fe": 0.4},
        {"Fe": 2.8},
    ),
)


def cross_section(
    shape: Sequence[int] = (48, 64),
    *,
    eels_counts: float = 3e5,
    edx_counts: float = 200.0,
    eels_channels: int = 1024,
    edx_channels: int = 1024,
    pixel_size: float = 0.5,
    probe: float = 0.8,
    overlap: float | None = None,
    thickness_change: float = 0.2,
    plural_scattering: float | None = None,
    gain: float = 1.0,
    read_variance: float = 0.0,
    channel_correlation: float = 0.0,
    seed: int = 0,
) -> Phantom:
    """Record a film of LaMnO3 with particles of Fe3O4, on a layer of SrMnO3 on SrTiO3, by EELS and EDX at once.

    Parameters
    ----------
    shape : (int, int)
        Pixels along y (into the substrate) and x.
    eels_counts, edx_counts : float
        Expected counts in a pixel, summed over channels, mean over pixels.
    eels_channels, edx_channels : int
        Channels of the fixed ranges 430 to 942 eV and 0 to 10.24 keV: 0.5 eV and 10 eV each by default.
    pixel_size : float
        Distance of pixels, nm.
    probe : float
        Broadening by the probe, pixels (standard deviation).
    overlap : float, optional
        Mean overlap of the maps (`mean_overlap`), reached by interdiffusion: a further blur of all interfaces.
        ``None``: sharp interfaces, the probe alone.
    thickness_change : float
        Change of the specimen's thickness from left to right, over its mean.
    plural_scattering : float, optional
        Thickness over inelastic mean free path; ``None``: single scattering.
    gain, read_variance, channel_correlation : float
        Noise of the EELS camera, as in `NoiseModel`. EDX counts single photons.
    seed : int
        Of the interfaces and of the noise.

    Returns
    -------
    Phantom
        ``"eels"`` (y, x, energy_loss) and ``"edx"`` (y, x, xray_energy), in counts; ``"truth"`` with ``maps``
        (component, y, x), which sum to the thickness over its mean, ``eels_spectra`` and ``edx_spectra`` (component,
        channels), the counts of a pixel of mean thickness of that phase alone. The coordinate ``phase`` names the
        components.

    Raises
    ------
    InvalidArgument
        If an argument cannot be meant, or the overlap cannot be reached.

    Notes
    -----
    Edges: Ti L 456 eV, O K 532 eV, Mn L 640 eV (641.6 eV in SrMnO3: a chemical shift), Fe L 708 eV, La M 832 eV. In
    EDX, La L lies on Ti K and Mn K beta on Fe K alpha, as in nature; copper and carbon stand for the support. Plural
    scattering is that of one thickness everywhere, so that the data stay a sum of products.

    Examples
    --------
    >>> phantom = cross_section(shape=(12, 16), eels_channels=256, edx_channels=256)
    >>> phantom["eels"].sizes
    Frozen({'y': 12, 'x': 16, 'energy_loss': 256})
    >>> phantom.truth.phase.values.tolist()
    ['SrTiO3', 'SrMnO3', 'LaMnO3', 'Fe3O4']
    """
    rows, columns = sizes("shape", shape, 2, 8)
    pixel_size = number("pixel_size", pixel_size, 0, above=True)
    seed = whole("seed", seed, 0)
    number("gain", gain, 0, above=True)
    number("read_variance", read_variance, 0)
    number("channel_correlation", channel_correlation, -MOST_CORRELATION, MOST_CORRELATION)
    if plural_scattering is not None:
        number("plural_scattering", plural_scattering, 0, 5)

    maps = lay_out(rows, columns, np.random.default_rng([seed, 5]))
    probe = number("probe", probe, 0)
    maps = blur_maps(maps, probe) if overlap is None else blur_to_overlap(maps, probe, overlap)[0]
    maps *= 1 + number("thickness_change", thickness_change, -1, 1) * np.linspace(-0.5, 0.5, columns)

    energy_loss = _axis(EELS_RANGE, whole("eels_channels", eels_channels, 32))
    xray_energy = _axis(EDX_RANGE, whole("edx_channels", edx_channels, 32))
    eels = np.array(
        [
            phase.density
            * core_loss(
                energy_loss,
                oxide_edges(phase.atoms, phase.oxygen, phase.shift, phase.ratio),
                phase.exponent,
                plural_scattering,
                phase.plasmon,
            )
            for phase in PHASES
        ]
    )
    edx = np.array([phase.density * xray_spectrum(xray_energy, phase.atoms) for phase in PHASES])

    coords = {
        "component": np.arange(1, len(PHASES) + 1),
        "y": ("y", pixel_size * np.arange(rows), {"units": "nm"}),
        "x": ("x", pixel_size * np.arange(columns), {"units": "nm"}),
        "energy_loss": ("energy_loss", energy_loss, {"units": "eV"}),
        "xray_energy": ("xray_energy", xray_energy, {"units": "keV"}),
    }

    def labelled(values: np.ndarray, dims: tuple[str, ...], **attrs: object) -> xr.DataArray:
        return xr.DataArray(values, dims=dims, coords={key: coords[key] for key in dims}, attrs=attrs)

    variables = {"maps": labelled(maps, ("component", "y", "x"), long_name="thickness", units="1")}
    tensors = {}
    for stream, (name, dim, spectra, counts, noise) in enumerate(
        (
            ("eels", "energy_loss", eels, eels_counts, NoiseModel(gain, read_variance, channel_correlation)),
            ("edx", "xray_energy", edx, edx_counts, NoiseModel(1.0, 0.0, 0.0)),
        )
    ):
        dose = number(f"{name}_counts", counts, 0, above=True)
        spectra = spectra * dose / (maps.mean(axis=(1, 2)) @ spectra.sum(axis=1))
        variables[f"{name}_spectra"] = labelled(spectra, ("component", dim), units="counts")
        expected = np.einsum("ryx,re->yxe", maps, spectra)
        tensors[name] = labelled(
            record(expected, noise, np.random.default_rng([seed, 6, stream])),
            ("y", "x", dim),
            units="counts",
            title=f"Cross-section, {name.upper()}",
            signal_type="EELS" if name == "eels" else "EDS_TEM",
            beam_energy_keV=BEAM_ENERGY,
            elements=sorted({element for phase in PHASES for element in phase.atoms}),
            noise=noise.to_attrs(),
        )
        tensors[name].name = name
    truth = xr.Dataset(variables).assign_coords(phase=("component", [phase.name for phase in PHASES]))
    return Phantom(tensors, truth, {name: ("maps", f"{name}_spectra") for name in tensors})


def _axis(limits: tuple[float, float], channels: int) -> np.ndarray:
    """Lower ends of evenly spaced channels."""
    return np.linspace(*limits, channels, endpoint=False)


def lay_out(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Share of each phase in each pixel, (4, y, x): rough interfaces, three particles in the film."""
    fine = 4
    y = (np.arange(fine * rows)[:, None] + 0.5) / (fine * rows)
    x = (np.arange(fine * columns) + 0.5) / (fine * columns)
    rough = gaussian_filter1d(rng.standard_normal((2, fine * columns)), fine * columns / 20, axis=1, mode="reflect")
    rough *= 0.02 / np.maximum(rough.std(axis=1, keepdims=True), 1e-12)
    layer, substrate = 0.56 + rough[0], 0.72 + rough[1]
    particles = np.zeros((fine * rows, fine * columns), dtype=bool)
    for centre_y, centre_x, radius_y, radius_x in PARTICLES:
        particles |= ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
    film = y < layer
    phases = np.array([y >= substrate, ~film & (y < substrate), film & ~particles, film & particles], dtype=float)
    return phases.reshape(4, rows, fine, columns, fine).mean(axis=(2, 4))
