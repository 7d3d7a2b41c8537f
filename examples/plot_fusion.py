"""
EELS and EDX together
=====================

A cross-section of four oxides, recorded as EELS and as EDX at the same time. EELS has many electrons but broad,
overlapping spectra; EDX has sharp lines and only 200 photons in a pixel. They share their maps, and that is all that a
common fit needs to know.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

phantom = ts.phantoms.cross_section(seed=0)
print(phantom)

# %%
# Both tensors have the dimensions ``y, x``, so they have the mode ``pixel`` in common and share its factor. Each has
# its own weight in the fit: one over the variance of its noise, which phantoms know and a fit else estimates.

fused = ts.fit(phantom.data, ts.NMF(4))
print(fused)
print({name: round(weight, 3) for name, weight in fused.provenance["tensor_weights"].items()})

# %%
# In a row: the map, the EELS spectrum and the EDX spectrum of one component.

fused.plot()

# %%
# The same two data sets, each by itself.

alone = {name: ts.fit({name: tensor}, ts.NMF(4)) for name, tensor in phantom.data.items()}

# %%
# How far are they from the truth? For each component the angle between what was found and what is true, in degrees.

SPECTRA = {"eels": "eels_spectra", "edx": "edx_spectra"}


def unit(array):
    """Return components as rows of unit norm."""
    rows = np.asarray(array).reshape(len(array), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def angles(fit, name):
    """Return the mean angle of maps and of spectra with the truth, components matched by both."""
    maps = unit(phantom.truth["maps"]) @ unit(fit.maps(name)).T
    spectra = unit(phantom.truth[SPECTRA[name]]) @ unit(fit.spectra(name)).T
    pairs = linear_sum_assignment(-maps * spectra)
    return "   ".join(f"{np.degrees(np.arccos(np.clip(item[pairs], -1, 1))).mean():4.1f}" for item in (maps, spectra))


print("degrees        maps   spectra")
for name in phantom.data:
    print(f"{name:4s} alone      {angles(alone[name], name)}")
    print(f"{name:4s} together   {angles(fused, name)}")

# %%
# EELS alone explains its data just as well, and is wrong: its spectra all lie on one falling background, and many
# combinations of the four spectra stay free of negative values. Restarts do not help, since these combinations are all
# equally good. The lines of EDX tell them apart. In return EDX, which is noisy, gets the maps of EELS.
#
# Fusion cannot do more than the better tensor allows: where neither determines the maps, nor do both.

print({name: fit.explained for name, fit in alone.items()})
print({name: float(fused.explained.sel(tensor=name)) for name in alone})
