"""
Counts that are mostly zero
===========================

An EDX map with few X-rays in a pixel is nearly empty. As a ``sparse`` array it takes the memory of its counts, and a
fit goes through them alone.
"""

import numpy as np
import sparse
import xarray as xr

import tensorspec as ts

# %%
# A map of 128 by 128 pixels and 1024 channels with forty X-rays in a pixel, drawn one X-ray at a time: three phases,
# lines on a continuum.

rng = np.random.default_rng(0)
side, channels = 128, 1024
y, x = np.mgrid[:side, :side] / side
shares = np.stack([(np.hypot(x - a, y - b) < r).astype(float) for a, b, r in ((0.3, 0.3, 0.25), (0.7, 0.6, 0.2))])
shares = np.concatenate([shares, [1 - shares.max(axis=0)]])
energy = np.linspace(0.1, 10, channels)
lines = ((1.74, 4.5), (0.52, 6.4), (2.3, 8.0))
spectra = np.stack(
    [np.exp(-energy / 3) / 20 + sum(np.exp(-(((energy - e) / 0.06) ** 2)) for e in own) for own in lines]
)
spectra /= spectra.sum(axis=1, keepdims=True)

phase = shares.argmax(axis=0).reshape(-1)
pixel = np.repeat(np.arange(side * side), rng.poisson(40, side * side))
channel = np.empty(pixel.size, int)
for k, spectrum in enumerate(spectra):
    own = phase[pixel] == k
    channel[own] = rng.choice(channels, own.sum(), p=spectrum)
events = sparse.COO(np.stack([pixel // side, pixel % side, channel]), np.ones(pixel.size), (side, side, channels))
data = xr.DataArray(
    events.astype(np.uint16),
    dims=("y", "x", "xray_energy"),
    coords={"xray_energy": ("xray_energy", energy, {"units": "keV"})},
    attrs={"units": "counts"},
)
print(f"{events.nnz / events.size:.1%} of the entries are not zero;", f"dense: {events.size * 2 / 1e6:.0f} MB")

# %%
# The call is the usual one. ``fit.why`` says that the counts alone were gone through.

fit = ts.fit(data, ts.NMF(3), loss=ts.Poisson(), tol=1e-5)
print(fit.why)

# %%
# The spectra, against those that the X-rays were drawn from.

found = fit.spectra().values
found = found / np.linalg.norm(found, axis=1, keepdims=True)
true = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
print("angles to the truth:", np.degrees(np.arccos(np.clip(true @ found.T, -1, 1))).min(axis=1).round(2), "degrees")

fit.plot()
