"""What the channelling model leaves out of thermal scattering, beside a frozen-phonon multislice calculation.

Run it from the root of the repository: ``python -m benchmarks.frozen_phonons [configurations]``; ten minutes for 8.

Atoms of a 2 x 2 x n supercell of a spinel are displaced at random, each by itself (Einstein), and so is their
ionization; the wave goes through all of them, at several tilts about [001].  The mean over configurations has in it
what the model describes by an absorptive potential, and by thermally scattered electrons that ionize like a plane wave.
Occupancies are then fitted to it with the model.
"""

import sys
import warnings

import numpy as np
import xarray as xr
from scipy.fft import fft2, ifft2

from tensorspec import channelling as ch
from tensorspec.channelling.electron import lorentz_factor, wavelength
from tensorspec.channelling.scattering import scattering_factor

ENERGY, SIZE, REPEAT, FURTHEST = 200.0, 256, 2, 3.9
LINES = {"Mn K": ("8a", "16d"), "Ni K": ("8a", "16d"), "O K": ("32e",)}
SHARES = {"Mn K": {"8a": 0.02, "16d": 0.98}, "Ni K": {"8a": 0.10, "16d": 0.90}, "O K": {"32e": 1.0}}
CANDIDATES = {"Mn": ["8a", "16d"], "Ni": ["8a", "16d"], "O": ["32e"]}
DEPTHS = np.arange(5.0, 41, 5)


def frozen(
    crystal: ch.Crystal, tilts: np.ndarray, configurations: int, seed: int = 0
) -> dict[tuple[str, str], np.ndarray]:
    """Return the ionization over that in a plane wave, (tilts, depths), by line and site."""
    edge = crystal.cell[0]
    order = np.rint(np.fft.fftfreq(SIZE, 1 / SIZE)).astype(int)
    gx = order / (REPEAT * edge)
    length = np.hypot(gx[:, np.newaxis], gx)
    inside = length <= FURTHEST
    volume_of_slice = (REPEAT * edge) ** 2 * edge / 8
    factor = lorentz_factor(ENERGY) / (np.pi * volume_of_slice)
    elastic, displacement, chance = {}, {}, {}
    for site in crystal.sites:
        held = sum(share * scattering_factor(element, length / 2) for element, share in site.occupants.items())
        elastic[site.label] = np.where(inside, factor * held, 0.0).astype(np.float32)
        displacement[site.label] = np.sqrt(site.debye_waller / (8 * np.pi**2))
    for line in LINES:
        # The intensity has twice the reach of the wave, and all of it ionizes.
        chance[line] = ch.ionization(line, ENERGY).form_factor(length / 2).astype(np.float32)
    wave_number = 1 / wavelength(ENERGY)
    transverse = 1e-3 * tilts * wave_number
    normal = np.sqrt(wave_number**2 - transverse**2)[:, np.newaxis, np.newaxis]
    thick = edge / 8
    along = 2 * gx[:, np.newaxis] * transverse[:, np.newaxis, np.newaxis] + length**2
    moved = (np.exp(-1j * np.pi * thick * along / normal) * inside).astype(np.complex64)
    normal = normal.astype(np.float32)
    layers = []
    for layer in range(8):
        own = {}
        for site in crystal.sites:
            here = site.positions[np.rint(site.positions[:, 2] * 8).astype(int) % 8 == layer][:, :2] * edge
            shifts = edge * np.stack(np.meshgrid(*(np.arange(REPEAT),) * 2, indexing="ij"), axis=-1).reshape(-1, 2)
            if len(here):
                own[site.label] = (here[:, np.newaxis] + shifts).reshape(-1, 2)
        layers.append(own)
    rng = np.random.default_rng(seed)
    total = {(line, site): np.zeros((len(tilts), len(DEPTHS))) for line, sites in LINES.items() for site in sites}
    for _ in range(configurations):
        wave = np.ones((len(tilts), SIZE, SIZE), np.complex64)
        made = {key: np.zeros(len(tilts)) for key in total}
        atoms = dict.fromkeys(total, 0.0)
        depth, at = 0.0, 0
        while at < len(DEPTHS):
            for own in layers:
                potential = np.zeros((SIZE, SIZE), np.complex64)
                density = np.abs(wave) ** 2
                for site, places in own.items():
                    shifted = places + rng.normal(0, displacement[site], places.shape)
                    phases = [
                        np.exp(-2j * np.pi * np.outer(shifted[:, axis], gx)).astype(np.complex64) for axis in (0, 1)
                    ]
                    where = phases[0].T @ phases[1]
                    potential += elastic.get(site, 0) * where
                    for line, sites in LINES.items():
                        if site in sites:
                            around = ifft2(chance[line] * where).real * SIZE**2
                            made[line, site] += (density * around).mean(axis=(1, 2))
                            atoms[line, site] += len(places)
                through = ifft2(potential).real * SIZE**2
                wave = ifft2(fft2(wave * np.exp(np.complex64(1j * np.pi * thick) * through / normal)) * moved)
                depth += thick
                if at < len(DEPTHS) and depth >= 10 * DEPTHS[at]:
                    for key, values in total.items():
                        values[:, at] += made[key] / atoms[key] / configurations
                    at += 1
    return total


def main() -> None:
    """Print a table in Markdown."""
    configurations = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    crystal = ch.phantoms.spinel().with_debye_waller(dict.fromkeys(("8a", "16d", "16c", "32e"), 0.5))
    angle = ch.bragg_angle(ENERGY, crystal.length((4, 0, 0)))
    tilts = np.linspace(0, 3, 10) * angle
    theirs = frozen(crystal, tilts, configurations)
    # The cell is a mirror image of itself: what holds at a tilt holds at minus the tilt.
    both = np.concatenate([-tilts[:0:-1], tilts])
    scan = ch.zone_axis(crystal, (0, 0, 1), (np.zeros(1), both), ENERGY, x=(4, 0, 0), largest=2.0)
    ours = ch.response(crystal, scan, list(LINES), DEPTHS, check=False, engine="eigenvectors").isel(tilt_y=0, drop=True)
    plain = ch.response(crystal, scan, list(LINES), DEPTHS, check=False, engine="eigenvectors", absorption=False).isel(
        tilt_y=0, drop=True
    )
    print(f"{configurations} configurations, spinel near [001], 200 kV, tilts along (400) to three Bragg angles;")
    print("planted shares of 8a: 0.02 of Mn, 0.10 of Ni\n")
    print("| thickness (nm) | largest difference of a response | without absorption | Mn on 8a | Ni on 8a |")
    print("|---|---|---|---|---|")
    for thickness in (10.0, 20.0, 30.0, 40.0):
        place = list(DEPTHS).index(thickness)
        worst = {}
        for name, model in (("with", ours), ("without", plain)):
            worst[name] = max(
                float(np.abs(model.sel(line=line, site=site, thickness=thickness).values[9:] - values[:, place]).max())
                for (line, site), values in theirs.items()
            )
        rows = []
        for line, own in SHARES.items():
            half = sum(share * theirs[line, site][:, place] for site, share in own.items())
            rows.append(1e6 * np.concatenate([half[:0:-1], half]))
        counts = xr.DataArray(np.array(rows), dims=("line", "tilt_x"), coords={"line": list(SHARES), "tilt_x": both})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ch.fit_occupancy(counts, ours, CANDIDATES, orientation="fixed")
        shares = [float(found.share.sel(element=element, site="8a")) for element in ("Mn", "Ni")]
        print(
            f"| {thickness:g} | {worst['with']:.3f} | {worst['without']:.3f} | {shares[0]:.4f} | {shares[1]:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
