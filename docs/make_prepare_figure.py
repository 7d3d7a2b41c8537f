"""Make the figure of the page "From the microscope to a fit", and print the numbers in it.

The measurement is public but not part of this repository: dual EELS of a line across La(1-x)Sr(x)MnO3, from the EELS
data base of the National Institute of Standards and Technology as files of HyperSpy.  Run it from the checkout with the
folder that holds them: ``python docs/make_prepare_figure.py DATA``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
