"""
Very few counts
===============

A twentieth of a count in an entry: nearly all of the data are zeros. What is fitted then depends on what the fit takes
for noise. Least squares, least squares with weights, and the likelihood of counts, on the same data.
"""

import numpy as np

import tensorspec as ts

# %%
# Two particles in a matrix, ten X-rays in a pixel.

phantom = ts.phantoms.discs("edx", counts=10, seed=1)
data = phantom["data"]
print("counts in an entry:", round(float(data.mean()), 3), " zeros:", f"{float((data == 0).mean()):.0%}")

# %%
# Three losses. ``Poisson()`` is the likelihood of counts; ``LeastSquares(scaling="poisson")`` weighs entries by one
# over their expected variance, which is the first order of it.

losses = [ts.LeastSquares(), ts.LeastSquares(scaling="poisson"), ts.Poisson()]
fits = [ts.fit(data, ts.NMF(3), loss=loss, restarts=2, seed=0) for loss in losses]
print(fits[-1])

# %%
# How far from the truth? The angle between two spectra is zero where they differ in scale only.


def angles(found, true):
    """Return the angle of each true component with the one found that is nearest, in degrees."""
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    return np.degrees(np.arccos(np.clip(true @ found.T, -1, 1))).min(axis=1).round(1)


truth = phantom.truth["spectra"].values
for loss, fit in zip(losses, fits, strict=True):
    print(f"{loss!s:32}", angles(fit.spectra().values, truth), "degrees")

# %%
# Least squares spends its components on the brightest line, where the noise is largest. The other two know how
# uncertain a count is.

fits[0].plot()

# %%

fits[-1].plot()

# %%
# The objective is the Kullback-Leibler divergence, the log-likelihood less that of a perfect model. Such a fit begins
# with a short one by weighted least squares, and says so.

print("objective:", round(fits[-1].objective), " began with:", fits[-1].provenance["warm_start"])
