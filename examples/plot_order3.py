"""
Three modes
===========

The same pixels and energies at fifteen temperatures: a tensor with three modes. The model is the same product, with one
factor more, and something changes: the answer becomes unique.
"""

import matplotlib.pyplot as plt
import numpy as np

import tensorspec as ts

phantom = ts.phantoms.order3(counts=2000, seed=2)
data = phantom["data"]
print(dict(data.sizes))

# %%
# ``NMF`` of a tensor with three modes is CP (PARAFAC) without negative values. Each component has a map, a spectrum and
# a course over temperature.

fit = ts.fit(data, ts.NMF(3), restarts=5, seed=0)
print(fit)
fit.plot()

# %%
# Every mode has its coordinates and units.

fit.factors["temperature"].plot.line(x="temperature")

# %%
# Is it unique? Take away every constraint: ``CP`` without any, from five random starts, compared pair by pair by their
# factor match score, 1 where all factors are the same. Beside it the same numbers as a matrix: every temperature of
# every pixel is a sample of its own. Only the grouping of the dimensions differs.

flat = {"pixel": ("y", "x", "temperature")}


def starts(modes=None):
    """Return fits from five random starts."""
    return [ts.fit(data, ts.CP(3), modes=modes, start=ts.Random(), seed=seed) for seed in range(5)]


scores = {}
for name, fits in {"three modes": starts(), "as a matrix": starts(flat)}.items():
    pairs = [(a, b) for k, a in enumerate(fits) for b in fits[k + 1 :]]
    scores[name] = np.array([ts.compare(a, b).score for a, b in pairs])
    explained = [fit.explained for fit in fits]
    print(f"{name}: explained {min(explained):.4f} to {max(explained):.4f}, lowest score {scores[name].min():.4f}")

# %%
# The matrix has as many answers as there are starts, and all fit equally well; the tensor has one. Of a matrix only
# constraints, such as non-negativity, narrow the choice, and how far depends on the data. That is why it pays to keep a
# third axis, such as temperature, tilt or time, as a mode of its own, as long as the factors of a component really are
# the same in all of it: a peak that moves with temperature is not a product.

figure, axes = plt.subplots(figsize=(5, 2.5), layout="constrained")
for row, (name, values) in enumerate(scores.items()):
    axes.plot(values, np.full(values.size, row), "o", label=name)
axes.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel="factor match score", ylim=(-0.5, 1.5))
