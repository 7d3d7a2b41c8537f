"""
Which map meets which spectrum, and when: Tucker
================================================

Two grains oxidise while the sample is heated, one earlier than the other. There are two maps (the grains), two spectra
(metal and oxide), and three parts of the course: before, between and after. No map belongs to one spectrum, so the
components are not triples of a map, a spectrum and a course. :class:`tensorspec.Tucker` gives every mode components of
its own, and a core that says which of them meet.
"""

# %%
# The data: counts of a simulated in-situ series, pixels x energy x temperature.

import numpy as np
import xarray as xr

import tensorspec as ts

rng = np.random.default_rng(0)
y, x = np.mgrid[0:12, 0:16]
left = 1 / (1 + np.exp((x - 8 + 2 * np.sin(y / 3)) / 0.8))
grains = np.stack([left, 1 - left])
energy = np.linspace(700, 760, 80)


def line(centre, width):
    return np.exp(-(((energy - centre) / width) ** 2))


spectra = np.stack([0.2 + line(708, 2) + 0.4 * line(721, 2), 0.2 + line(711, 2) + 0.5 * line(724.5, 2.5)])
temperature = np.linspace(300, 900, 13)
oxidised = 1 / (1 + np.exp(-(temperature - np.array([[500.0], [700.0]])) / 8))
share = np.stack([1 - oxidised, oxidised], axis=1)  # grain, state, temperature
model = np.einsum("gyx,se,gst->yxet", grains, spectra, share)
data = xr.DataArray(
    rng.poisson(model * 20.0),
    dims=("y", "x", "energy_loss", "temperature"),
    coords={
        "y": ("y", np.arange(12.0), {"units": "nm"}),
        "x": ("x", np.arange(16.0), {"units": "nm"}),
        "energy_loss": ("energy_loss", energy, {"units": "eV"}),
        "temperature": ("temperature", temperature, {"units": "K"}),
    },
    attrs={"units": "counts"},
)

# %%
# The fit: everything is non-negative, and a small penalty keeps entries of the core at zero that the data do not need.

everywhere = {mode: ts.NonNegative() for mode in ("pixel", "energy_loss", "temperature")}
ranks = {"pixel": 2, "energy_loss": 2, "temperature": 3}
fit = ts.fit(
    data, ts.Tucker(ranks, {**everywhere, "core": [ts.NonNegative(), ts.Sparse(2.0)]}), restarts=6, progress=False
)
print(fit)

# %%
# The table of interactions: the relations among the modes. Six entries hold nearly all of the signal: the grain that
# oxidises first is metal in the first part of the course only, the other one in the first two; oxide is what remains.

table = fit.interactions()
for row in range(table.sizes["entry"]):
    entry = table.isel(entry=row)
    meets = ", ".join(f"{mode} {int(entry[f'{mode}_component'])}" for mode in ranks)
    print(f"{float(entry['share']):6.1%}   {meets}")

# %%
# Every mode has its own components; bars say which of them meet.

fit.plot()

# %%
# What was measured, :math:`12 \times 16 \times 80 \times 13` counts, is described by so many times fewer numbers:

print(f"{fit.compression:.0f} numbers of the data for each of the model")
