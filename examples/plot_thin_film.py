"""
A film without pure pixels
==========================

A multilayer of aluminium, iron and silicon nitride, so fine that the beam never sees one of them alone. The purest
pixels are mixtures; the corners of the signal subspace need none, but they need channels that only one layer has.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

import tensorspec as ts
from tensorspec.phantoms.edx import resolution

# %%
# A phantom: layers of 3 nm, three periods, and interfaces that probe and roughness make 3 nm wide (10 to 90 %). X-rays
# with a little bremsstrahlung, 3000 in a pixel; and energy losses from 40 eV, where Fe M starts at 53 eV, Al L at 73 eV
# and Si L at 104 eV, each on the tail of those before.

names = ("Al", "Fe", "Si3N4")
layer = (0.5 * np.arange(54) // 3).astype(int) % 3
shares = np.array([gaussian_filter1d((layer == k).astype(float), 2.4, mode="wrap") for k in range(3)])
maps = np.repeat(shares[:, :, None], 24, axis=2)

xray = np.arange(0.2, 8, 0.02)
lines = (
    {1.4867: 1.0, 1.5574: 0.02},
    {0.6152: 0.04, 0.7050: 0.35, 6.4038: 1.0, 7.0580: 0.13},
    {0.3924: 0.12, 1.7398: 0.41, 1.8359: 0.02},
)
edx = np.repeat(0.03 * (2 / xray * np.exp(-((0.35 / xray) ** 2.5)))[None], 3, axis=0)
for spectrum, own in zip(edx, lines, strict=True):
    for centre, height in own.items():
        width = resolution(centre) / 2355
        spectrum += height * np.exp(-0.5 * ((xray - centre) / width) ** 2) / (width * np.sqrt(2 * np.pi))

loss = np.arange(40, 200, 0.5)


def edge(onset, delay):
    """Return an edge that rises behind its onset over `delay` eV, and then falls."""
    return (1 - np.exp(-np.maximum(loss - onset, 0) / delay)) * (np.maximum(loss, onset) / onset) ** -2.2


peaks = np.exp(-0.5 * ((loss - np.array([[57], [108]])) / np.array([[2.5], [2]])) ** 2)
edges = (edge(72.7, 6), 0.35 * edge(53, 3) + 0.5 * peaks[0], 0.5 * edge(104, 3) + 0.35 * peaks[1])
eels = np.array([0.2 * (loss / 50) ** -r + own for r, own in zip((3.0, 3.2, 2.8), edges, strict=True)])
data, truth = {}, {"xray_energy": edx, "energy_loss": eels}
for dim, axis, counts, unit in (("xray_energy", xray, 3e3, "keV"), ("energy_loss", loss, 5e4, "eV")):
    truth[dim] *= counts / truth[dim].sum(axis=1, keepdims=True)
    drawn = np.random.default_rng(0).poisson(np.einsum("ryx,re->yxe", maps, truth[dim]))
    coords = {dim: (dim, axis, {"units": unit})}
    data[dim] = xr.DataArray(drawn, dims=("y", "x", dim), coords=coords, attrs={"units": "counts"})
print(f"largest true share of a layer in a pixel: {maps.max():.2f}")

# %%
# Endmembers both ways: the purest pixels, and the corners of what the signal subspace holds without being negative.


def cosines(found, true):
    """Return the cosine of the angle between each true spectrum and each that was found."""
    found, true = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, true))
    return (true @ found.T).clip(max=1)


found = {}
for dim, tensor in data.items():
    for name, way in (("VCA", ts.vca), ("SSS", ts.sss)):
        spectra = way(tensor, 3)
        table = cosines(spectra.values, truth[dim])
        order = linear_sum_assignment(-table)[1]
        found[dim, name] = spectra.isel(component=order)
        print(f"{dim:11} {name}: {np.degrees(np.arccos(table[range(3), order])).round(1)} degrees")
    bound, beyond = spectra.attrs["outer_bound"], np.round(spectra.attrs["beyond"], 2)
    print(f"{dim:11} SSS says: no pure pixel {bound}, spectra reach beyond the corners by {max(beyond):.2f}")

# %%
# Profiles from the X-ray spectra of either; spectra over their sums.

figure, axes = plt.subplots(3, 3, figsize=(10, 7), layout="constrained", width_ratios=(1, 2.6, 2.6))
amounts = {name: ts.unmix(data["xray_energy"], found["xray_energy", name]).maps for name in ("VCA", "SSS")}
for name, part in amounts.items():
    part = part * found["xray_energy", name].sum("xray_energy")
    amounts[name] = (part / part.sum("component")).mean("x")
    print(f"{name}: shares wrong by {float(abs(amounts[name] - maps.mean(axis=2)).mean()):.3f} on average")
for row, name in enumerate(names):
    axes[row, 0].plot(maps[row].mean(axis=1), 0.5 * np.arange(54), color="0.75", linewidth=4, label="truth")
    for way, colour in (("VCA", "#D55E00"), ("SSS", "#0072B2")):
        axes[row, 0].plot(amounts[way][row], 0.5 * np.arange(54), color=colour, label=way)
        for column, dim in enumerate(data, 1):
            spectrum = found[dim, way][row]
            axes[row, column].plot(spectrum[dim], spectrum / spectrum.sum(), color=colour, linewidth=1, zorder=3)
    for column, dim in enumerate(data, 1):
        axes[row, column].plot(data[dim][dim], truth[dim][row] / truth[dim][row].sum(), color="0.75", linewidth=4)
        axes[row, column].set(yticks=[])
        axes[row, column].tick_params(labelbottom=row == 2)
    axes[row, 0].set(xlim=(-0.05, 1.05), ylim=(26.5, 0), ylabel="y (nm)")
    axes[row, 0].tick_params(labelbottom=row == 2)
    axes[row, 0].set_title(name, loc="left", fontsize="medium")
    axes[row, 1].set(xlim=(0.2, 2.1), ylabel="over sum")
    axes[row, 2].set(xlim=(40, 199.5))
axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="upper left")
for axis, label in zip(axes[2], ("share", "X-ray energy (keV)", "energy loss (eV)"), strict=True):
    axis.set_xlabel(label)

# %%
# X-rays: each layer has channels in which it is alone, although the lines of Al and Si overlap at their feet. The
# corners are the layers, and the purest pixels are mixtures, with which the layers look purer than they are.
#
# Energy losses: a background lies below every layer, the tail of Fe below Al, and those of both below Si. No layer has
# a channel of its own, so the corners are an outer bound: the layers are mixtures of them, and which is not known. They
# show it by notches where another layer has its edge, and by how far the allowed spectra reach beyond them.
# ``outer_bound`` is True in both cases, as it tells of pixels and not of channels: whether it is the answer or a bound
# has to be known from the edges and lines.
