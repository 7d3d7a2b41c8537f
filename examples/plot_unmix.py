"""
Known spectra, with error bars
==============================

Three phases whose spectra are known: how much of each is in every pixel, how well that is known, and where the three
do not explain the data.
"""

import numpy as np

import tensorspec as ts

# %%
# A phantom of two discs in a matrix, 5000 counts in a pixel. In one corner is something else: a line that none of the
# three spectra has.

phantom = ts.phantoms.discs(shape=(40, 40), counts=5000, seed=3)
data, truth = phantom["data"].copy(), phantom["truth"]
rng = np.random.default_rng(0)
data[:6, :6, 90:94] += rng.poisson(40, (6, 6, 4)).astype(data.dtype)

found = ts.unmix(data, truth.spectra, method="weighted", noise=ts.NoiseModel())
print(found)

# %%
# The standard error is what the amounts scatter by: of the differences from the truth, 95 in 100 are below 1.96 of it.

elsewhere = {"y": slice(6, None)}
scores = ((found.maps - truth.maps) / found.standard_error).isel(elsewhere)
print(f"{100 * float((abs(scores) < 1.96).mean()):.1f} %")

# %%
# Chi-squared per degree of freedom is one where the three spectra are all that there is.

inside = found.chi_squared[:6, :6].mean()
print(f"in the corner {float(inside):.2f}, elsewhere {float(found.chi_squared.isel(elsewhere).mean()):.2f}")

# %%
# Without knowing the spectra: principal components with Poisson scaling, where four singular values stand above noise.

components = ts.pca(data, 4, scaling="poisson")
ts.plot_scree(components)
