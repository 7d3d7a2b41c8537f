"""
From element maps to phase maps
===============================

X-rays of a cross-section, a hundred counts in a pixel. Maps of elements, which are noise where an element is rare; maps
of phases, which gather all lines of a phase; and where the counts do not suffice to say which phase a pixel is.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

# %%
# A phantom stands for the measurement here, at the dose of one: :doc:`/real-data` shows the same on minerals, where the
# truth is not known. Four oxides; La L lies on Ti K, and Mn K beta on Fe K alpha.

phantom = ts.phantoms.cross_section(shape=(48, 64), edx_counts=110, edx_channels=512, eels_channels=64, seed=1)
edx, truth = phantom["edx"].sel(xray_energy=slice(0.2, 9.5)), phantom["truth"]
spectra = truth.edx_spectra.sel(xray_energy=edx.xray_energy)
names = truth.phase.values

# %%
# First every pixel for itself: counts in the lines of all elements, and in two shapes of bremsstrahlung.

lines = ts.xray_lines(edx, ["C", "O", "Ti", "Mn", "Fe", "Cu", "Sr", "La"], bremsstrahlung=2)
by_pixel = ts.unmix(edx, lines.rename(line="component")).maps.rename(component="line")

# %%
# Then the phases first: four spectra that repeat, put in the order of the true ones; their lines say what they are. The
# amounts of these spectra are the maps of phases, and phases times lines are maps of elements again. The errors are
# root mean squares over pixels, in shares of the mean.

fit = ts.fit(edx, ts.NMF(4), loss=ts.Poisson(), restarts=3, progress=False)
unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (spectra.values, fit.spectra().values)]
found = fit.spectra().isel(component=linear_sum_assignment(-unit[0] @ unit[1].T)[1])
found = found.assign_coords(component=truth.component)
amounts = ts.unmix(edx, found, method="poisson")
span = ts.Span(lines)
by_phase = xr.dot(span.coefficients(found), amounts.maps, dim="component")
true = xr.dot(span.coefficients(spectra), truth.maps, dim="component")
shown = ("Ti K", "Mn K", "Fe K", "La L")
for name, maps in {"by pixel": by_pixel, "by phase": by_phase}.items():
    errors = [float(np.sqrt(((maps - true).sel(line=line) ** 2).mean()) / true.sel(line=line).mean()) for line in shown]
    print(f"{name}:", ", ".join(f"{line} {error:.2f}" for line, error in zip(shown, errors, strict=True)))

# %%
# Each line with one scale of colour.

figure, axes = plt.subplots(3, 4, figsize=(10, 6), layout="constrained")
for row, (name, maps) in zip(axes, {"true": true, "by pixel": by_pixel, "by phase": by_phase}.items(), strict=True):
    for axis, line in zip(row, shown, strict=True):
        top = 1.5 * float(true.sel(line=line).max())
        image = axis.imshow(maps.sel(line=line), vmin=0, vmax=top, extent=(0, 32, 24, 0))
        axis.set(xticks=(0, 10, 20, 30), yticks=(0, 10, 20))
        axis.tick_params(labelbottom=name == "by phase", labelleft=line == shown[0])
        axis.set_title(f"{line}, {name}", loc="left", fontsize="medium")
    row[0].set_ylabel("y (nm)")
for axis, line in zip(axes[2], shown, strict=True):
    axis.set_xlabel("x (nm)")
    figure.colorbar(axis.images[0], ax=axes[:, shown.index(line)], location="top", label="counts", shrink=0.8)

# %%
# Which phase is a pixel? The one with most of its counts, where that is more than half by 1.64 standard errors; else it
# is left open.

counts = amounts.maps * found.sum("xray_energy")
errors = amounts.standard_error * found.sum("xray_energy")
best, right = counts.argmax("component"), (truth.maps * spectra.sum("xray_energy")).argmax("component")
top, error = (values.isel(component=best) / counts.sum("component") for values in (counts, errors))
known = top - 1.64 * error > 0.5
print(f"without the error: {float((best == right).mean()):.1%} right")
print(f"with it: {float((best == right).where(known).mean()):.1%} right, and {float(1 - known.mean()):.1%} left open")

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", width_ratios=(1, 1, 1.4))
colours = ("#0072B2", "#E69F00", "#009E73", "#D55E00")
for axis, picture, name in zip(axes, (right, best.where(known)), ("true", "found, grey left open"), strict=False):
    axis.imshow(picture, cmap=ListedColormap(colours), vmin=0, vmax=3, extent=(0, 32, 24, 0), interpolation="nearest")
    axis.set_title(name, loc="left", fontsize="medium")
    axis.set(xlabel="x (nm)", ylabel="y (nm)", facecolor="0.8")
for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
    axes[2].plot(edx.xray_energy, spectra[k] / spectra[k].max() - k, color="0.8", linewidth=3)
    axes[2].plot(edx.xray_energy, found[k] / found[k].max() - k, color=colour, linewidth=1)
    axes[2].text(9.4, 0.6 - k, name, color=colour, ha="right")
axes[2].set(xlabel="X-ray energy (keV)", yticks=[], xlim=(0.2, 9.5), ylabel="over maximum; grey: true")

# %%
# Maps by phase have less noise because they believe more: that every pixel is a mixture of four compositions. An
# element that gathers at one boundary, or a grain of a few pixels, is not in them; it would be in the maps by pixel,
# and in the residual (``fit.plot_residual()``). Pixels left open lie at boundaries, and there a mixture through the
# thickness, or of the probe, looks the same as a phase between. That four are enough was known here: see
# :doc:`/real-data` for a sample where it is not. Counts are not concentrations yet; those take cross-sections and
# absorption.
