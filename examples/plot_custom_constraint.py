"""
Write your own constraint
=========================

A crystal is tilted through a zone axis while X-rays are counted. Its rocking curves are the same on both sides of
zero, and no constraint that comes with the package says so. It takes ten lines to write one, one class to test it, and
nothing else: the solvers take it as it is.
"""

from typing import ClassVar

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import tensorspec as ts
from tensorspec.constraints.base import AbstractHardConstraint, Separability, component_field
from tensorspec.testing import ConstraintContract

# %%
# A hard constraint is a set, and all that a solver needs is the nearest point of that set. The nearest symmetric curve
# is the mean of a curve and its mirror image. The four lines before the method say which components it acts on, that
# every column is treated by itself, that the set is convex, and that it is a cone: scaling a curve does not matter.


class Symmetric(AbstractHardConstraint):
    """Columns that are the same forwards and backwards."""

    components: tuple[int, ...] | None = component_field()
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    def project(self, values, column=None):
        """Return the mean of every column and its mirror image."""
        return 0.5 * (values + values[::-1])

    def violation(self, factor):
        """Return how far the worst entry is from its mirror image."""
        return jnp.max(jnp.abs(factor - factor[::-1]))


# %%
# Is it right? The contract knows what every constraint has to keep: that the projection is the nearest point, that
# doing it twice changes nothing, that it is as separable and as convex as it says, that it does not change the type of
# numbers, and that a solver ends at an allowed point. In a test file this class is all, and pytest finds the tests in
# it; here they are called by hand.


class TestSymmetric(ConstraintContract):
    """Every test of the contract, for this constraint."""

    __test__ = False  # this page is not a test file

    def make(self):
        """Return the constraint to test."""
        return Symmetric()


tests = [name for name in dir(TestSymmetric) if name.startswith("test_")]
for name in tests:
    getattr(TestSymmetric(), name)()
print(len(tests), "tests passed")

# %%
# Data: two kinds of atom with their own X-ray lines, rocking curves and concentrations along eight points of a line; 30
# counts at each of 61 tilts and each point.

rng = np.random.default_rng(0)
tilt = xr.DataArray(np.linspace(-30, 30, 61), dims="tilt_x", attrs={"units": "mrad"})
energy = xr.DataArray(np.linspace(0, 10, 100), dims="xray_energy", attrs={"units": "keV"})
x = xr.DataArray(np.arange(8.0), dims="x", attrs={"units": "nm"})
curves = xr.concat([1 + 0.8 * np.exp(-((tilt / 8) ** 2)), 1 - 0.5 * np.exp(-((tilt / 12) ** 2))], "component")
lines = xr.concat([np.exp(-(((energy - at) / 0.1) ** 2)) for at in (1.8, 4.5)], "component") + 0.002
amounts = xr.concat([8 - x, x], "component")
expected = xr.dot(curves, lines, amounts, dim="component")
expected = 30 * expected / expected.sum("xray_energy").mean()
data = expected.copy(data=rng.poisson(expected)).assign_coords(tilt_x=tilt, xray_energy=energy, x=x)

# %%
# The constraint goes beside the others. The solver could not take two sets at once by columns, so another was chosen,
# and the fit says why.

plain = ts.fit(data, ts.NMF(2))
symmetric = ts.fit(data, ts.NMF(2, {"orientation": Symmetric()}))
print(symmetric.why)
print("asymmetry left:", symmetric.provenance["violations"]["orientation"])

# %%
# Each curve now has the counts of both sides, so its error falls by about the square root of two.

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharex=True)
for axis, line, true in zip(axes, (1.8, 4.5), curves / curves.mean("tilt_x"), strict=True):
    for name, fit in {"free": plain, "symmetric": symmetric}.items():
        at_line = fit.factors["xray_energy"].sel(xray_energy=line, method="nearest")
        curve = fit.factors["orientation"].isel(component=int(at_line.argmax("component")))
        curve = curve / curve.mean()
        error = float(np.sqrt(((curve - true) ** 2).mean()))
        axis.plot(curve.tilt_x, curve, label=f"{name}, error {error:.3f}")
    axis.plot(tilt, true, "k--", linewidth=1, label="truth")
    axis.set(xlabel="tilt (mrad)", ylabel="relative intensity", title=f"atoms with the line at {line} keV")
    axis.legend(frameon=False, fontsize="small")
