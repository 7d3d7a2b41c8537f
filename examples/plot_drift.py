"""
Spectra that drift
==================

Twelve frames of the same region, while the energy axis drifts and one edge shifts by itself. One spectrum for all
frames cannot describe that; ``PARAFAC2`` has the spectra of every frame.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import tensorspec as ts

# %%
# Three phases, each with its edge. The axis drifts by up to 9 eV; the third edge moves by another 3 eV.

rng = np.random.default_rng(0)
y, x = np.mgrid[0:1:12j, 0:1:12j]
maps = np.stack([np.exp(-8 * ((x - a) ** 2 + (y - b) ** 2)) for a, b in [(0.2, 0.3), (0.8, 0.4), (0.4, 0.9)]])
dose = rng.uniform(0.7, 1.3, (12, 3))
energy = 500 + 1.5 * np.arange(70)
drift = 9 * np.linspace(0, 1, 12) ** 0.5
onset = np.array([530.0, 548.0, 570.0]) + drift[:, None] + np.linspace(0, 3, 12)[:, None] * [0, 0, 1]
rise = energy - onset[:, :, None]
spectra = np.where(rise > -20, np.exp(-0.5 * (rise / 6) ** 2) + 0.4 / (1 + np.exp(-rise / 3)) * np.exp(-rise / 60), 0)

clean = 40 * np.einsum("ryx,tr,tre->tyxe", maps, dose, spectra)
data = xr.DataArray(
    rng.poisson(clean).astype(float),
    dims=("time", "y", "x", "energy_loss"),
    coords={"time": 30.0 * np.arange(12), "y": 2.0 * np.arange(12), "x": 2.0 * np.arange(12), "energy_loss": energy},
    attrs={"units": "counts", "noise": ts.NoiseModel().to_attrs()},
)
for name, unit in {"time": "s", "y": "nm", "x": "nm", "energy_loss": "eV"}.items():
    data[name].attrs["units"] = unit

# %%
# ``NMF`` first: one spectrum for all frames. What it leaves is far above the noise of the counts, most of all at edges.

still = ts.fit(data, ts.NMF(3))
print(still)
still.plot_residual()

# %%
# ``PARAFAC2``: the mode ``energy_loss`` has a profile for every point of ``time``.

nn = ts.NonNegative()
model = ts.PARAFAC2(3, {"pixel": nn, "time": nn, "energy_loss": nn}, evolving="energy_loss", along="time")
fit = ts.fit(data, model)
print(fit)
fit.plot()

# %%
# The spectra are those of each frame, so their edges can be followed. Here the mean energy of the upper half of each
# maximum, beside the true one.


def position(spectra):
    """Return the mean energy of the part of each spectrum that is above half of its maximum."""
    upper = spectra.where(spectra > 0.5 * spectra.max("energy_loss"), 0)
    return (upper * upper.energy_loss).sum("energy_loss") / upper.sum("energy_loss")


found = position(fit.spectra())
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for component in found.component.values:
    axes.plot(data.time, found.sel(component=component), "o", label=f"component {component}")
true = xr.DataArray(spectra, dims=("time", "component", "energy_loss"), coords={"energy_loss": energy})
axes.plot(data.time, position(true), color="0.6", zorder=0)
axes.set(xlabel="time (s)", ylabel="edge (eV)", ylim=(525, 610))
axes.legend(frameon=False, ncols=3, loc="upper center")

# %%
# How far the condition of PARAFAC2 is from being met: the cross-products of the spectra should be the same in all
# frames, and the third edge moves against the others.

print(fit.provenance["violations"])
