"""
TOF-SIMS of a grid
==================

A grid of one metal on another, seen by its secondary ions: a dozen ions in a pixel, most channels empty. Principal
components with Poisson scaling, their rotation to simple maps, and a fit without negative values, against the truth.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

# %%
# This is a phantom, not a measurement: copper bars on aluminium. Copper has isotopes at 63 and 65, aluminium is at 27;
# both give fragments of what covers every surface, and in every channel lies a thousandth of the largest line.

rng = np.random.default_rng(0)
y, x = np.mgrid[:64, :64]
bars = (y % 16 < 5) | (x % 16 < 5)
masses = np.arange(1, 121)
lines = {
    "Cu": {63: 1.0, 65: 0.45, 1: 0.3, 12: 0.05, 23: 0.15, 39: 0.1, 79: 0.1, 81: 0.05},
    "Al": {27: 1.0, 1: 0.4, 12: 0.08, 23: 0.25, 39: 0.1, 43: 0.2, 44: 0.05, 54: 0.05},
}
spectra = np.full((2, masses.size), 1e-3)
for row, peaks in zip(spectra, lines.values(), strict=True):
    row[np.array(list(peaks)) - 1] += list(peaks.values())
spectra *= 12 / spectra.sum(axis=1, keepdims=True)
maps = np.array([bars, ~bars], float)
coords = {"y": ("y", 2.0 * y[:, 0], {"units": "um"}), "x": ("x", 2.0 * x[0], {"units": "um"}), "mass": masses}
counts = rng.poisson(np.einsum("ryx,rm->yxm", maps, spectra))
data = xr.DataArray(counts, dims=("y", "x", "mass"), coords=coords, attrs={"units": "counts"})
print(f"{int(data.sum())} ions; {float((data == 0).mean()):.1%} of the entries are zero")

# %%
# How many components? Poisson scaling makes the noise even, and then the largest singular value of noise alone is
# known. That holds for large counts: where a channel has two dozen ions in all, one pixel with two of them is enough to
# look like a component. So channels of fewer than 100 ions are left out before singular values are counted.

strong = data.isel(mass=(data.sum(("y", "x")) >= 100).values)
for part in (data, strong):
    known = ts.pca(part, 2, scaling="poisson").provenance
    values = " ".join(f"{value:.1f}" for value in known["singular_values"].values[:4])
    print(f"{part.sizes['mass']:3d} channels: {values}; noise up to {known['noise_edge']:.1f}")

# %%
# Three answers with two components. They all describe nearly the same plane of spectra, and differ in the axes within
# it: PCA takes the mean and the difference, varimax turns them until the maps are simple, and NMF wants no negative
# values in maps and spectra. What the noise alone does to the maps is seen where the spectra are known.

components = ts.pca(strong, 2, scaling="poisson")
answers = {
    "PCA": components,
    "varimax": ts.varimax(components),
    "NMF": ts.fit(strong, ts.NMF(2), loss=ts.LeastSquares(scaling="poisson"), restarts=3, progress=False),
}
true = maps, spectra[:, strong.mass.values - 1]


def cosines(found, wanted):
    """Return the cosine of the angle between each array that is wanted and each that was found, without its sign."""
    found, wanted = (np.reshape(rows, (len(rows), -1)) for rows in (found, wanted))
    found, wanted = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, wanted))
    return abs(wanted @ found.T).clip(max=1)


shown = {"truth": true}
for name, fit in answers.items():
    factors = fit.factors["pixel"].values, fit.factors["mass"].values
    order = linear_sum_assignment(-cosines(factors[1], true[1]))[1]
    shown[name] = tuple(factor[order] for factor in factors)
reference = strong.isel(y=0, x=0).expand_dims(component=2).copy(data=true[1])
shown["known spectra"] = ts.unmix(strong, reference, method="poisson", noise=ts.NoiseModel()).maps.values, true[1]
for name in list(shown)[1:]:
    wrong = [np.degrees(np.arccos(np.diag(cosines(a, b)))).round(1) for a, b in zip(shown[name], true, strict=True)]
    print(f"{name:14} maps {wrong[0]}, spectra {wrong[1]} degrees from the truth, Cu and Al")

# %%
# Each map and spectrum over its own maximum; blue is negative. Varimax may be judged by how little blue is left.

figure, axes = plt.subplots(4, 4, figsize=(10, 7.6), layout="constrained", width_ratios=(1, 1.9, 1, 1.9))
for row, name in zip(axes, list(shown)[:4], strict=True):
    for column, (metal, picture, spectrum) in enumerate(zip(lines, *shown[name], strict=True)):
        left, right = row[2 * column : 2 * column + 2]
        sign, limit = np.sign((spectrum**3).sum()), abs(picture).max()
        colours = {"cmap": "viridis", "vmin": 0} if name in ("truth", "NMF") else {"cmap": "RdBu_r", "vmin": -limit}
        left.imshow(sign * picture, **colours, vmax=limit, extent=(0, 128, 128, 0))
        left.set(xticks=(0, 64, 128), yticks=(0, 64, 128), ylabel="" if column else "y (\N{MICRO SIGN}m)")
        left.set_title(
            f"{name}, {f'component {column + 1}' if name == 'PCA' else metal}", loc="left", fontsize="medium"
        )
        right.vlines(strong.mass, 0, sign * spectrum / abs(spectrum).max(), color=("#D55E00", "#0072B2")[column])
        right.axhline(0, color="0.5", linewidth=0.6)
        right.set(xlim=(0, 90), ylim=(-1.1 if name == "PCA" and column else -0.1, 1.1), yticks=(0, 1))
        right.spines[["top", "right"]].set_visible(False)
        if name != "NMF":
            left.tick_params(labelbottom=False)
            right.tick_params(labelbottom=False)
for axis, label in zip(axes[-1], 2 * ("x (\N{MICRO SIGN}m)", "mass over charge"), strict=True):
    axis.set_xlabel(label)

# %%
# PCA says how many components there are, and nothing of what they are: none of its spectra is that of a metal. Both
# others find the metals, and their maps are hardly worse than with known spectra: what is left is the noise of the
# counts. Both were helped: here every pixel holds one metal alone, which is what varimax assumes, and each metal has
# lines of its own besides, which makes the answer of NMF unique. Real grids have rims where both are seen, yields that
# depend on what surrounds an atom, and detectors with dead time: amounts of metal do not follow from counts here.
