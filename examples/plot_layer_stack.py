"""
A stack of layers
=================

Four oxides in cross-section by EELS. Their spectra stand on one falling background, so that data alone do not say where
one layer ends and the next begins. A prior does: what it gives where interfaces are sharp, and costs elsewhere.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

import tensorspec as ts
from tensorspec.phantoms.cross_section import PHASES
from tensorspec.phantoms.eels import core_loss, oxide_edges

# %%
# A phantom, 40 by 24 pixels of 0.5 nm. Its width is that of probe and interdiffusion together (standard deviation).

layers = [PHASES[k] for k in (2, 3, 1, 0)]
energy = 430 + 2.0 * np.arange(256)
edges = [oxide_edges(layer.atoms, layer.oxygen, layer.shift, layer.ratio) for layer in layers]
spectra = np.array([core_loss(energy, own, layer.exponent) for layer, own in zip(layers, edges, strict=True)])
spectra *= 2e5 / spectra.sum(axis=1).mean()


def stack(width):
    """Return a spectrum image of the stack, and its true maps as shares of the counts."""
    rng = np.random.default_rng(0)
    rough = gaussian_filter(rng.standard_normal((3, 24)), (0, 4))
    upper = np.array([[14], [20], [27]]) + 0.7 * rough / rough.std(axis=1, keepdims=True)
    number = (np.arange(40)[:, None] > upper[:, None]).sum(axis=0)  # of the layer in each pixel, from the surface
    maps = np.array([gaussian_filter((number == k).astype(float), width / 0.5, mode="nearest") for k in range(4)])
    grid = {dim: (dim, 0.5 * np.arange(size), {"units": "nm"}) for dim, size in (("y", 40), ("x", 24))}
    coords = grid | {"energy_loss": ("energy_loss", energy, {"units": "eV"})}
    counts = rng.poisson(np.einsum("ryx,re->yxe", maps, spectra)).astype(float)
    data = xr.DataArray(counts, dims=("y", "x", "energy_loss"), coords=coords, attrs={"units": "counts"})
    return data.assign_attrs(noise=ts.NoiseModel().to_attrs()), maps * spectra.sum(axis=1)[:, None, None]


def cosines(found, true):
    """Return the cosine of the angle between each true array and each that was found."""
    found, true = (np.asarray(rows).reshape(len(rows), -1) for rows in (found, true))
    found, true = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, true))
    return (true @ found.T).clip(max=1)


# %%
# Sharp interfaces, and diffuse ones; each with non-negativity alone, and with the prior that maps hardly
# overlap. Chi-squared is one where the model leaves noise and nothing else, give or take 0.003 here.

models = {"NMF": ts.NMF(4), "with prior": ts.NMF(4, {"pixel": ts.SoftOrthogonal()})}
shown = {}
for sample, width in {"sharp": 0.4, "diffuse": 1.3}.items():
    data, true = stack(width)
    shown[sample, "truth"] = true, spectra
    for name, model in models.items():
        fit = ts.fit(data, model, restarts=4, progress=False)
        order = linear_sum_assignment(-cosines(fit.spectra(), spectra))[1]
        found = fit.maps().values[order], fit.spectra().values[order]
        shown[sample, name] = found
        off = [np.degrees(np.arccos(np.diag(cosines(a, b)))) for a, b in ((found[0], true), (found[1], spectra))]
        print(f"{sample:7} {name:10}: chi-squared {fit.residual_summary().attrs['chi2']:.3f};", end=" ")
        print(f"degrees off: maps {off[0].round(1)}, spectra {off[1].round(1)}")

# %%
# Sharp interfaces. Without the prior every component is a mixture of layers, and no residual tells, as the fit is as
# good as it can be. With it, they are the layers.

figure, axes = plt.subplots(4, 4, figsize=(10, 8), layout="constrained", width_ratios=(1, 1, 1, 3.6))
looks = {"truth": ("black", 3.0), "NMF": ("#D55E00", 1.2), "with prior": ("#56B4E9", 1.2)}
for column, (name, (colour, thick)) in enumerate(looks.items()):
    for row, (picture, spectrum) in enumerate(zip(*shown["sharp", name], strict=True)):
        axes[row, column].imshow(picture, vmin=0, extent=(0, 12, 20, 0))
        axes[row, column].set(xticks=(0, 10), yticks=(0, 10, 20))
        axes[row, column].tick_params(labelbottom=row == 3, labelleft=column == 0)
        axes[row, 3].plot(energy, spectrum / spectrum[0], color=colour, linewidth=thick, label=name)
        axes[row, 3].set(xlim=(430, 942), ylabel="over first channel")
        axes[row, 3].set_title(layers[row].name, loc="left", fontsize="medium")
        axes[row, 3].tick_params(labelbottom=row == 3)
        axes[row, 0].set_ylabel("y (nm)")
    axes[0, column].set_title(name, loc="left", fontsize="medium")
    axes[3, column].set_xlabel("x (nm)")
axes[0, 3].legend(frameon=False)
axes[3, 3].set_xlabel("energy loss (eV)")

# %%
# Diffuse interfaces. How wide is the first, from 90 to 10 % of LaMnO3, and how pure are the thin layers?

figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
for axis, name in zip(axes, looks, strict=True):
    profiles = shown["diffuse", name][0].mean(axis=2)
    profiles = profiles / profiles.sum(axis=0)
    for layer, profile, colour in zip(layers, profiles, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True):
        axis.plot(0.5 * np.arange(40), profile, color=colour, label=layer.name)
    axis.set(xlabel="y (nm)", xlim=(0, 19.5), ylim=(0, 1.05))
    axis.set_title(name, loc="left", fontsize="medium")
    ends = np.interp((-0.9, -0.1), -profiles[0] / profiles[0].max(), 0.5 * np.arange(40))
    print(
        f"{name:10}: {ends[1] - ends[0]:.1f} nm, at most",
        *(f"{profiles[k].max():.2f} {layers[k].name}" for k in (1, 2)),
    )
axes[0].set_ylabel("share of the counts")
axes[1].legend(frameon=False, fontsize="small", loc="upper left")

# %%
# With the prior the spectra are those of the layers here too, but interfaces are narrower and thin layers purer than in
# truth: it punishes maps that overlap, and these do. At a width of 1.6 nm it goes wrong for good and takes SrMnO3 for a
# mixture of its neighbours. Chi-squared is a warning, but one that a wrong noise model drowns. So no width of an
# interface may be taken from such a fit, and nothing about interdiffusion. Where X-rays were recorded too, fit both
# together (:doc:`plot_fusion`); where the spectra are known, use them (:doc:`plot_unmix`). A real stack scatters
# plurally besides (:doc:`plot_prepare`).
