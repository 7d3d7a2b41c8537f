"""
Missing values
==============

A detector that was blocked for some pixels, channels that are dead, a region that only one detector saw. What was not
measured is left out of the objective; it is never filled with zeros.
"""

import matplotlib.pyplot as plt
import numpy as np

import tensorspec as ts

phantom = ts.phantoms.cross_section(shape=(24, 32), eels_channels=256, edx_channels=256, seed=3)
eels, edx = phantom["eels"], phantom["edx"]

# %%
# NaN means missing. Here the right third of the scan has no EDX, and 20 of the EELS channels are dead.

edx = edx.astype(float).where(edx.x < edx.x[-10])
dead = np.zeros(eels.sizes["energy_loss"], bool)
dead[60:80] = True
eels = eels.astype(float).where(~eels.energy_loss.copy(data=dead))

# %%
# A mask says the same without touching the data: True where an entry is used. It broadcasts, so that a mask along one
# axis is enough. Both at once are fine, as long as the mask does not ask for what is NaN.

mask = {"edx": edx.xray_energy > 0.1}
mask["edx"] = mask["edx"] & edx.notnull()
fit = ts.fit({"eels": eels, "edx": edx}, ts.NMF(4), mask=mask)
print(fit)

# %%
# Every pixel has its components, since at least EELS saw it. The channels that nobody measured come back as NaN.

fit.plot()

# %%
# The part without EDX beside the part with both: the same maps, and the true ones below.

names = phantom.truth["phase"].values
spectra, true = fit.spectra("edx").fillna(0).values, phantom.truth["edx_spectra"].values
cosines = (true / np.linalg.norm(true, axis=1)[:, None]) @ (spectra / np.linalg.norm(spectra, axis=1)[:, None]).T
partner = cosines.argmax(axis=1)
figure, axes = plt.subplots(2, 4, figsize=(9, 3.4), layout="constrained", sharex=True, sharey=True)
for column, name in enumerate(names):
    found = fit.maps("eels").isel(component=partner[column])
    axes[0, column].imshow(found)
    axes[0, column].axvline(edx.sizes["x"] - 10.5, color="white", linewidth=0.8)
    axes[0, column].set_title(name)
    axes[1, column].imshow(phantom.truth["maps"].isel(component=column))
axes[0, 0].set_ylabel("found")
axes[1, 0].set_ylabel("true")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])

# %%
# How much was lost? The same fit of the complete data.

complete = ts.fit(phantom.data, ts.NMF(4))


def angle(found, true):
    """Return the mean angle between maps, in degrees, components in the best order."""
    found, true = (np.asarray(array).reshape(len(array), -1) for array in (found, true))
    cosines = (true / np.linalg.norm(true, axis=1)[:, None]) @ (found / np.linalg.norm(found, axis=1)[:, None]).T
    return np.degrees(np.arccos(np.clip(cosines.max(axis=1), -1, 1))).mean()


print(f"complete: {angle(complete.maps('eels'), phantom.truth['maps']):.1f} degrees")
print(f"with what is missing: {angle(fit.maps('eels'), phantom.truth['maps']):.1f} degrees")

# %%
# A prediction of what was not measured comes from the model: ``fit.reconstruct("edx")`` has EDX in every pixel.

predicted = fit.reconstruct("edx").sum("xray_energy")
predicted.plot(yincrease=False, aspect=1.5, size=4)
