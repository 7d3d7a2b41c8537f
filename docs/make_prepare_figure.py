"""Make the figures of the page "From the microscope to a fit", and print the numbers in it.

The measurements are public but not part of this repository: dual EELS of a line across La(1-x)Sr(x)MnO3 (HyperSpy
tutorials of the National Institute of Standards and Technology), and an EELS spectrum image of a layer with titanium
(SciFiDatasets of pycroscopy).  Run it from the checkout with the folder that holds them:
``python docs/make_prepare_figure.py DATA``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import tensorspec as ts

OUT = Path(__file__).parent / "_static" / "real_data"
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"


def main(data):
    """Prepare the line scan, print what was found, and draw it."""
    folder = data / "lsmo_eels"
    low = ts.load(folder / "LSMO_linescan_low_loss.hdf5", reader="HSPY").rename(energy_loss="low_energy_loss")
    core = ts.load(folder / "LSMO_linescan.hdf5", reader="HSPY")

    shifts = ts.estimate_shifts(low)
    aligned_low, aligned = ts.align(low, also=[core])
    spikes = ts.mask_spikes(aligned)
    thickness = ts.thickness(aligned_low, standard_error=True, noise=ts.estimate_noise(low))
    single = ts.deconvolve(aligned, aligned_low)
    for step in (*aligned.attrs["history"], *spikes.attrs["history"], *single.attrs["history"]):
        print(step)
    print("noise of the core loss:", ts.estimate_noise(core))
    print("thickness:", thickness.thickness.values[[0, -1]].round(3), "+-", thickness.standard_error.values[0].round(4))

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    x = core.x.values if "x" in core.coords else np.arange(core.sizes["x"])
    unit = core.x.attrs.get("units", "")
    axes[0].errorbar(x, shifts.offset, 2 * shifts.standard_error, color=BLUE, fmt="o", markersize=3, linewidth=0.8)
    axes[0].set(title="place of the zero-loss peak", xlabel=f"x ({unit})", ylabel="from the median (eV)")
    axes[1].errorbar(
        x, thickness.thickness, 2 * thickness.standard_error, color=BLUE, fmt="o", markersize=3, linewidth=0.8
    )
    axes[1].set(title="thickness", xlabel=f"x ({unit})", ylabel="in mean free paths")
    axes[1].set_ylim(bottom=0)
    thick = int(thickness.thickness.argmax("x"))
    near = slice(510, 680)
    before, after = (each.isel(x=slice(max(thick - 4, 0), thick + 5)).mean("x") for each in (aligned, single))
    for spectrum, colour, label in ((before, GREY, "as recorded"), (after, RED, "single scattering")):
        shown = spectrum.sel(energy_loss=near)
        axes[2].plot(shown.energy_loss, shown / float(shown.max()), color=colour, linewidth=1.2, label=label)
    axes[2].set(title="core loss at the thick end", xlabel="energy loss (eV)", ylabel="over its maximum")
    axes[2].legend(frameon=False, fontsize="small")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize("medium")
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / "prepare.png", dpi=90)
    plt.close(figure)


def background(data):
    """Map the Ti L edge of a spectrum image, with the background in the fit and with a window before the edge."""
    cube = ts.load(data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3").sel(energy_loss=slice(370, 515))
    cube = cube.astype(float)
    energy, onset = cube.energy_loss, 450.0
    free = xr.where(energy < onset, 0.0, np.nan).expand_dims(component=[2])
    span = ts.Span(ts.background_powers(cube), nonnegative=False, components=[1])
    fit = ts.fit(cube, ts.NMF(2, {"energy_loss": [span, ts.Fixed(free)]}), max_sweeps=5000, tol=1e-8, progress=False)
    near = (energy >= onset) & (energy < 485)
    spectrum = fit.spectra().sel(component=2)
    fitted = fit.maps().sel(component=2) * float(spectrum.where(near, 0).sum() / spectrum.sum())

    before = (energy < onset).values
    design = np.stack([np.log(energy.values[before]), np.ones(before.sum())], axis=1)
    logs = np.log(np.maximum(cube.values[..., before], 1)).reshape(-1, before.sum())
    slope, level = np.linalg.lstsq(design, logs.T, rcond=None)[0]
    below = np.exp(level[:, None] + slope[:, None] * np.log(energy.values[near.values]))
    window = cube.values[..., near.values] - below.reshape(*cube.shape[:2], -1)
    window = xr.DataArray(window.sum(axis=-1), dims=("y", "x"))
    quiet = slice(22, 28)  # where there is hardly any titanium
    for name, found in (("in the fit", fitted), ("window", window)):
        rest = found.isel(y=quiet)
        dark = f"{float(rest.mean()):.0f} +- {float(rest.std()):.0f}"
        print(f"Ti L, {name}: mean {float(found.mean()):.0f}, in the dark layer {dark}")

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    mean = cube.mean(("y", "x"))
    model = fit.reconstruct().mean(("y", "x"))
    part = fit.maps().sel(component=1).mean() * fit.spectra().sel(component=1) / fit.spectra().sel(component=1).sum()
    axes[0].plot(energy, mean, color=GREY, linewidth=0.8, label="measured")
    axes[0].plot(energy, model, color=RED, linewidth=1.0, label="fit")
    axes[0].plot(energy, part, color=BLUE, linewidth=1.2, label="background in it")
    axes[0].set(title="mean over the image", xlabel="energy loss (eV)", ylabel="counts a pixel and channel")
    axes[0].legend(frameon=False, fontsize="small")
    for found, colour, name in ((window, GREY, "window before"), (fitted, RED, "in the fit")):
        middle, spread = found.mean("x"), found.std("x")
        axes[1].fill_between(np.arange(middle.size), middle - spread, middle + spread, color=colour, alpha=0.25, lw=0)
        axes[1].plot(np.arange(middle.size), middle, color=colour, linewidth=1.2, label=name)
    axes[1].axhline(0, color="0.7", linewidth=0.6)
    axes[1].set(title="Ti L edge, 35 eV", xlabel="row of the image", ylabel="counts a pixel; band: scatter in a row")
    axes[1].legend(frameon=False, fontsize="small")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize("medium")
    figure.savefig(OUT / "background.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    background(Path(sys.argv[1]))
