"""
One spectrum image
==================

Two particles in a matrix, seen by X-rays: 500 counts in a pixel. From the counts to maps and spectra in five lines,
and then the question that matters, what is left over.
"""

import numpy as np

import tensorspec as ts

# %%
# Data are `xarray.DataArray`: names, coordinates and units. A file gives one with ``ts.load("map.bcf")``; here a
# phantom does, whose truth is known.

phantom = ts.phantoms.discs("edx", counts=500, seed=1)
data = phantom["data"]
data.isel(y=0, x=0, drop=True)

# %%
# Before the fit it is worth knowing what the noise is. Counts of single photons have a variance that equals their mean:
# a gain of 1 and nothing else.

ts.estimate_noise(data)

# %%
# The fit. ``NMF`` is the model in which nothing is negative. The pixels ``y, x`` are one mode called ``pixel``, the
# energies another. Of four starts the one with the lowest objective is kept.

fit = ts.fit(data, ts.NMF(3), restarts=4, seed=0)
print(fit)

# %%
# One row for each component, counted from 1: how many counts it gives in each pixel, and its spectrum in counts. The
# components are sorted by what they explain.

fit.plot()

# %%
# What is left over, in units of the noise: 1 everywhere means noise and nothing else. Structure in the map, or lines in
# the spectrum, would mean a component too few. That nothing is left does not say that the components are the phases:
# other combinations of them may leave just as little (see :doc:`/concepts/soft-orthogonality`).

fit.plot_residual()

# %%
# How far is it from the truth? The angle between two spectra is zero where they differ in scale only.


def angles(found, true):
    """Return the angle of each true component with the one found that is nearest, in degrees."""
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    return np.degrees(np.arccos(np.clip(true @ found.T, -1, 1))).min(axis=1).round(1)


truth = phantom.truth
print("spectra:", angles(fit.spectra().values, truth["spectra"].values))
print("maps:   ", angles(fit.maps().values.reshape(3, -1), truth["maps"].values.reshape(3, -1)))

# %%
# Results are DataArrays too, so that everything that xarray does goes on from here.

fit.maps().sel(component=2).mean("x").plot()

# %%
# ``fit.save("particles.h5")`` writes an HDF5 file, ``fit.report("particles.html")`` one page for a colleague, and
# ``fit.to_hyperspy()`` hands the spectra to HyperSpy and eXSpy for quantification.
