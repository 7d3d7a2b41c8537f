"""
Data that stay on disk
======================

A spectrum image in a file, read block by block: the fit never holds it as a whole, and finds what a fit in memory
finds.
"""

import tempfile
from pathlib import Path

import dask.array
import h5py
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import tensorspec as ts

# %%
# A file of counts, written strip by strip; chunks hold whole spectra. A real one would be some hundred times larger.

shape, rank = (64, 64, 256), 3
y, x = (axis / shape[0] for axis in np.mgrid[: shape[0], : shape[1]])
maps = np.stack([np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.05) for a, b in ((0.3, 0.3), (0.7, 0.4), (0.5, 0.75))], -1)
energy = np.linspace(400, 900, shape[2])
spectra = np.stack([(400 / energy) ** 3 + np.exp(-(((energy - e) / 25) ** 2)) for e in (530, 640, 780)])
folder = tempfile.TemporaryDirectory()
file = h5py.File(Path(folder.name) / "counts.h5", "w")
store = file.create_dataset("counts", shape, "u2", chunks=(16, 16, shape[2]))
rng = np.random.default_rng(0)
for begin in range(0, shape[0], 16):
    store[begin : begin + 16] = rng.poisson(20 * maps[begin : begin + 16] @ spectra)

# %%
# Lazy data that would fill the memory are gone through in blocks by themselves; ``blocks=True`` asks for it.

data = xr.DataArray(
    dask.array.from_array(store, chunks=store.chunks), dims=("y", "x", "energy_loss"), coords={"energy_loss": energy}
)
fit = ts.fit(data, ts.NMF(rank), blocks=True, progress=False)
print(fit.why)
print(f"{fit.provenance['passes']} passes over the data")

# %%
# The same fit of the same data in memory, and what is left over, summed block by block.

whole = ts.fit(data.load(), ts.NMF(rank), progress=False)
print(f"objectives {fit.objective:.6g} and {whole.objective:.6g}")
print(fit.residual_summary())
figure = fit.plot()
plt.show()
file.close()
folder.cleanup()
