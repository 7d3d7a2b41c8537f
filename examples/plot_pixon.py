"""
Weak and blurred: the pixon method
==================================

Two particles nearer to each other than the probe is wide, a faint larger one, and noise. What is there?
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from scipy.ndimage import gaussian_filter

import tensorspec as ts

# %%
# A phantom, so that the truth is known: a background of 20 counts, two points of 20 000 counts three pixels apart under
# a probe of 3.75 pixels (1.5 nm), and a disc of 12 counts, 3 nm wide, 540 counts in all.

size, probe = 80, 3.75
y, x = np.mgrid[:size, :size]
truth = np.full((size, size), 20.0)
truth[28, [20, 23]] += 20000
truth[(y - 55) ** 2 + (x - 52) ** 2 < 16] += 12
nm = 0.4 * np.arange(size)
counts = xr.DataArray(
    np.random.default_rng(1).poisson(gaussian_filter(truth, probe / 2.3548)),
    coords={"y": ("y", nm, {"units": "nm"}), "x": ("x", nm, {"units": "nm"})},
    dims=("y", "x"),
    attrs={"units": "counts"},
)

# %%
# The width of the probe is given in the units of the coordinates. Nothing else has to be chosen.

result = ts.pixon(counts, psf=probe * 0.4)
print(result.attrs["history"][-1])
line = result.restored[28, 16:28].values
print("through the two points:", *line.round().astype(int))

# %%
# Colours are logarithmic, as the points are a thousand times as bright as the rest. They are parted; close around them
# the background comes out too dark, as with every method that keeps intensities above zero: what is bright there has
# taken its counts. What is left over looks like noise, and its matched filters say the same.

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
pictures = {"recorded": counts, "restored": result.restored, "significance of the rest": result.significance}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    limits = {"vmin": -5, "vmax": 5, "cmap": "RdBu_r"} if "rest" in title.split()[-1:] else {"norm": LogNorm(5, 5000)}
    shown = picture if "rest" in title.split()[-1:] else picture.clip(5)
    figure.colorbar(axis.imshow(shown, extent=(0, 32, 32, 0), **limits), ax=axis)
    axis.set(title=title, xlabel="x (nm)")
axes[0].set_ylabel("y (nm)")

# %%
# Is the disc real? Features against the smooth background, with a chance of one in twenty that noise gives any. What is
# known already, the two points, is masked. It is there. Its counts come out too high, as the filter that fits best is a
# wider, rounder thing than a disc.

elsewhere = np.hypot(counts.y - 11.2, counts.x - 8.6) > 4
found = ts.detect(counts, psf=probe * 0.4, mask=elsewhere)
for each in range(found.sizes["feature"]):
    own = found.isel(feature=each)
    place = f"({float(own.feature_y):.1f}, {float(own.feature_x):.1f}) nm"
    print(
        f"{place}: {float(own.amplitude):.0f} +- {float(own.standard_error):.0f} counts, {float(own.score):.1f} sigma"
    )
