"""
Dual EELS, prepared
===================

Low loss, core loss and X-rays of a wedge of four oxides: align, find the thickness, take plural scattering out, and fit
all together. A phantom, so that the truth is known.
"""

from itertools import permutations

import numpy as np

import tensorspec as ts

# %%
# The thickness grows from 0.3 to 0.8 mean free paths, and the zero-loss peak wanders by a quarter of an electron volt.

phantom = ts.phantoms.dual_eels(shape=(16, 24), thickness=(0.3, 0.8), drift=0.25, core_channels=400, seed=0)
low, core = phantom["low"], phantom["core"]
shifts = ts.estimate_shifts(low)
print(f"drifts: {shifts.attrs['drifts']}, {float(shifts.offset.std()):.2f} eV,", end=" ")
print(f"each known to {float(shifts.standard_error.median()):.3f} eV")

# %%
# Here the core loss was recorded with the drift corrected, so only the low loss is moved.

low = ts.align(low)
thickness = ts.thickness(low)
wrong = float(abs(thickness - phantom["truth"].thickness).max())
print(low.attrs["history"][-1])
print(f"thickness wrong by at most {wrong:.3f} mean free paths")

# %%
# A core loss is the single scattering folded with the pixel's own low loss: as recorded, one phase has another spectrum
# at every thickness. After deconvolution it has one. Fitted together with the X-rays, the maps show the difference:
# the mean distance between the shares of the phases that were found and the true ones.

single = ts.deconvolve(core, low, intensity="total")
true = phantom["truth"].maps.values.reshape(4, -1)
true = true / true.sum(axis=0)
fits = {}
for name, data in (("as recorded", core), ("single scattering", single)):
    fits[name] = ts.fit({"core": data, "edx": phantom["edx"]}, ts.NMF(4), restarts=3, progress=False)
    maps = fits[name].maps("edx").transpose("component", "y", "x").values.reshape(4, -1)
    shares = maps / np.maximum(maps.sum(axis=0), 1e-9)
    distance = min(np.abs(shares[list(order)] - true).mean() for order in permutations(range(4)))
    print(f"{name}: {100 * distance:.1f} %")

# %%
# The components of the second.

fits["single scattering"].plot()
