"""Make the figures of the page on real data, and print the numbers in it.

The measurements are public but not part of this repository; the page says where they come from.  Run it from the
checkout with the folder that holds them: ``python docs/make_real_data_figures.py DATA``.
"""

import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks

import tensorspec as ts

OUT = Path(__file__).parent / "_static" / "real_data"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]
POISSON = ts.LeastSquares(scaling="poisson")


def degrees(cosines):
    """Return angles in degrees, rounded."""
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))).round(1)


def save(figure, name):
    """Write a figure, in 256 colours: maps of noise are large files otherwise."""
    figure.savefig(OUT / f"{name}.png", dpi=90)
    with Image.open(OUT / f"{name}.png") as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(OUT / f"{name}.png", optimize=True)
    plt.close(figure)


def noise(data):
    """Print the noise of every set that the pages name."""
    sets = {
        "EELS spectrum image, Gatan dm3": ts.load(data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3"),
        "EELS line scan, core loss": ts.load(data / "lsmo_eels" / "LSMO_linescan.hdf5", reader="HSPY"),
        "EELS line scan, low loss": ts.load(data / "lsmo_eels" / "LSMO_linescan_low_loss.hdf5", reader="HSPY"),
        "EDX map, Bruker bcf": ts.load(data / "bcf_p45" / "P45_12bit_packed_8bit.bcf", signal="EDX"),
        "EDX map, STEM, sparse": ts.load(data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy"),
    }
    for name, tensor in sets.items():
        found = ts.estimate_noise(tensor)
        ratio = found.variance(float(tensor.mean())) / float(tensor.mean())
        print(f"{name}: {found}, variance over mean {ratio:.1f}")


def oxide_line_scan(data):
    """Fit low loss and core loss of one line scan together."""
    folder = data / "lsmo_eels"
    core = ts.load(folder / "LSMO_linescan.hdf5", reader="HSPY")
    low = ts.load(folder / "LSMO_linescan_low_loss.hdf5", reader="HSPY").rename(energy_loss="low_energy_loss")
    unscattered = low.sel(low_energy_loss=slice(-2, 8)).sum("low_energy_loss")
    thickness = np.log(low.sum("low_energy_loss") / unscattered)
    fit = ts.fit({"core": core, "low": low}, ts.NMF(2), restarts=5)
    print(fit)
    maps = fit.maps("core")
    thin = int(maps.isel(x=0).argmax("component"))
    share = maps.isel(component=1 - thin) / maps.sum("component")
    print(f"t/lambda {float(thickness.min()):.2f} to {float(thickness.max()):.2f}")
    print(f"correlation of the share of the thick component with t/lambda {np.corrcoef(share, thickness)[0, 1]:.3f}")

    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    axes[0].plot(thickness, share, "o", color=COLOURS[0], markersize=4)
    axes[0].set(xlabel="thickness over mean free path", ylabel="share of component B", title="a")
    for colour, number, name in ((COLOURS[1], thin, "A"), (COLOURS[0], 1 - thin, "B")):
        spectrum = fit.spectra("core").isel(component=number)
        axes[1].plot(spectrum.energy_loss, spectrum / spectrum.sel(energy_loss=slice(500, 520)).mean(), color=colour)
        spectrum = fit.spectra("low").isel(component=number)
        axes[2].plot(spectrum.low_energy_loss, spectrum / spectrum.max(), color=colour, label=name)
    axes[1].set(xlabel="energy loss (eV)", ylabel="over 500 to 520 eV", title="b: core loss")
    axes[2].set(xlabel="energy loss (eV)", xlim=(-5, 80), ylim=(0, 0.06), title="c: low loss over its maximum")
    axes[2].legend(frameon=False)
    save(figure, "line_scan_thickness")

    inelastic = low.sel(low_energy_loss=slice(9, 120))
    fit = ts.fit({"core": core, "low": inelastic}, ts.NMF(3), restarts=5)
    print(fit)
    middle = int(fit.maps("core").isel(x=slice(16, 22)).mean("x").argmax("component"))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    order = [middle, *[k for k in range(3) if k != middle]]
    for colour, name, number in zip((COLOURS[2], COLOURS[1], COLOURS[0]), "CDE", order, strict=True):
        curve, spectrum = (values.isel(component=number) for values in (fit.maps("core"), fit.spectra("core")))
        axes[0].plot(1e3 * curve.x, curve / 1e6, color=colour, label=name)
        for axis, (low_end, high) in zip(axes[1:], ((520, 560), (625, 655)), strict=True):
            part = spectrum.sel(energy_loss=slice(low_end, high))
            axis.plot(part.energy_loss, part / spectrum.sel(energy_loss=slice(500, 520)).mean(), color=colour)
            axis.set(xlabel="energy loss (eV)", ylabel="over 500 to 520 eV")
    axes[0].set(xlabel="position (nm)", ylabel="million, core loss", title="a")
    axes[0].legend(frameon=False)
    axes[1].set_title("b: oxygen K")
    axes[2].set_title("c: manganese L")
    save(figure, "line_scan_middle")
    mn = core.sel(energy_loss=slice(625, 640))
    weight = (mn - mn.min("energy_loss")) ** 2
    centre = (weight * mn.energy_loss).sum("energy_loss") / weight.sum("energy_loss")
    for part in (slice(0, 14), slice(17, 22), slice(26, 40)):
        print(f"Mn L3 at points {part.start} to {part.stop - 1}: {float(centre.isel(x=part).mean()):.2f} eV")
    peak = low.sel(low_energy_loss=slice(0, 6))
    zero = (peak * peak.low_energy_loss).sum("low_energy_loss") / peak.sum("low_energy_loss")
    print("zero loss:", *(f"{float(zero.isel(x=k)):.2f}" for k in (0, 13, 17, 21, 26, 39)), "eV")


def gatan_cube(data):
    """Fit the Gatan cube, with and without soft orthogonality."""
    eels = ts.load(data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    model = ts.estimate_noise(eels)
    eels = eels.assign_attrs(noise=model.to_attrs())
    pixels = np.asarray(eels, float).reshape(-1, eels.sizes["energy_loss"])
    left, values, right = np.linalg.svd(pixels, full_matrices=False)
    rest = pixels - (left[:, :5] * values[:5]) @ right[:5]
    mean, variance = pixels.mean(axis=0), rest.var(axis=0) * pixels.shape[0] / (pixels.shape[0] - 5)

    plain = ts.fit(eels, ts.NMF(3), restarts=5)
    print("plain", plain, plain.spread.values, plain.residual_summary().attrs["chi2"])
    prior = ts.fit(eels, ts.NMF(3, {"pixel": ts.SoftOrthogonal()}), restarts=5)
    without = prior.provenance["without_assumptions"]
    print("prior", prior, prior.residual_summary().attrs["chi2"], without["moved_degrees"], without["misfit_change"])

    for name, rows in (("top", slice(0, 14)), ("layer", slice(22, 26)), ("bottom", slice(34, 49))):
        spectrum = eels.isel(y=rows).mean(("y", "x"))
        before = spectrum.sel(energy_loss=slice(400, 450))
        exponent, level = np.polyfit(np.log(before.energy_loss), np.log(before), 1)
        background = spectrum.copy(data=np.exp(level + exponent * np.log(spectrum.energy_loss.values)))
        titanium = slice(454, 468)
        jump = float(spectrum.sel(energy_loss=titanium).sum() / background.sel(energy_loss=titanium).sum()) - 1
        line = spectrum.sel(energy_loss=slice(453, 460))
        weight = (line - line.quantile(0.2)).clip(0) ** 2
        centre = float((weight * line.energy_loss).sum() / weight.sum())
        print(f"{name}: exponent {exponent:.2f}, Ti over background {jump:.2f}, Ti L3 at {centre:.2f} eV")

    figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
    axes.plot(mean, variance, ".", color="0.6", markersize=3, label="each channel")
    line = np.linspace(0, mean.max(), 2)
    axes.plot(line, model.variance(line), color=COLOURS[0], label="noise model")
    axes.plot(line, line, color=COLOURS[1], label="if it were counts")
    axes.set(xlabel="mean", ylabel="variance left by five components", ylim=(0, np.quantile(variance, 0.999)))
    axes.legend(frameon=False)
    save(figure, "gatan_noise")

    figure, axes = plt.subplots(3, 4, figsize=(11, 5.4), layout="constrained", width_ratios=(1, 2.2, 1, 2.2))
    for column, (title, fit) in enumerate((("NMF", plain), ("with SoftOrthogonal", prior))):
        for row, (curve, spectrum) in enumerate(zip(fit.maps().mean("x"), fit.spectra(), strict=True)):
            axes[row, 2 * column].plot(curve, np.arange(curve.size), color=COLOURS[row])
            axes[row, 2 * column].set(ylim=(curve.size, 0), xlim=(0, None), xticks=[], ylabel="row of the scan")
            axes[row, 2 * column + 1].plot(spectrum.energy_loss, spectrum / 1e3, color=COLOURS[row], linewidth=0.8)
            axes[row, 2 * column + 1].set(ylim=(0, None), ylabel="thousand")
            for name, onset in (("Ti", 456), ("O", 532), ("Mn", 640), ("La", 832)):
                axes[row, 2 * column + 1].axvline(onset, color="0.8", linewidth=0.8, zorder=0)
                if row == 0:
                    axes[row, 2 * column + 1].text(onset, 1.0, name, transform=_top(axes[row, 2 * column + 1]))
        axes[0, 2 * column].set_title(title, loc="left")
        axes[2, 2 * column].set_xlabel("amount")
        axes[2, 2 * column + 1].set_xlabel("energy loss (eV)")
    save(figure, "gatan_components")


def _top(axes):
    return axes.get_xaxis_transform()


def dacite(data):
    """Fit the Bruker map at its highest dose, then ask what lower doses say."""

    def load(name):
        edx = ts.load(data / "bcf_p45" / f"{name}.bcf", signal="EDX").sel(xray_energy=slice(0.3, 12))
        binned = edx.coarsen(xray_energy=4, boundary="trim").sum()
        for dim in binned.coords:
            binned[dim].attrs.update(edx[dim].attrs)
        return binned.assign_attrs(edx.attrs, noise=ts.NoiseModel().to_attrs())

    rich = load("P45_12bit_packed_8bit")
    fit = ts.fit(rich, ts.NMF(5), loss=POISSON, restarts=4)
    print(fit)
    save(fit.plot(), "dacite")
    even = ts.fit(rich, ts.NMF(5), restarts=4)
    save(even.plot([1, 2, 3]), "dacite_unweighted")
    for name in ("P45_12bit_packed_8bit", "P45_the_default_job", "P45_job_hyperspy"):
        poor = load(name)
        other = ts.fit(poor, ts.NMF(5), loss=POISSON, restarts=4)
        match = ts.compare(fit, other)
        print(f"{name}: {int(poor.sum())} counts, {float(poor.sum() / (75 * 100)):.0f} in a pixel:", end=" ")
        print("spectra turned by", degrees(match.by_mode["xray_energy"]), "degrees")


def minerals(data):
    """Fit a sparse STEM-EDX map with and without a dictionary of lines, and say which phase each pixel is."""
    edx = ts.load(data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy").sel(xray_energy=slice(0.9, 10.2))
    binned = edx.coarsen(xray_energy=2, boundary="trim").sum().assign_attrs(edx.attrs, noise=ts.NoiseModel().to_attrs())
    binned.xray_energy.attrs.update(edx.xray_energy.attrs)
    elements = ["Mg", "Al", "Si", "Ca", "Fe", "Cu", "Ga", "Nd", "Sm", "Hf", "Lu", "U"]
    lines = ts.xray_lines(binned, elements, bremsstrahlung=2)
    span = ts.Span(lines)
    scaled = ts.pca(binned, 4, scaling="poisson").provenance
    print(f"{float(binned.sum()) / 6400:.0f} counts in a pixel, {float((binned == 0).mean()):.0%} of the entries zero")
    print("singular values", end=" ")
    print(scaled["singular_values"].values[:6].round(1), f"noise up to {scaled['noise_edge']:.1f}")

    fits = {}
    for name, constraints in {"free": None, "lines": {"xray_energy": span}}.items():
        fits[name] = fit = ts.fit(binned, ts.NMF(4, constraints), loss=ts.Poisson(), restarts=3)
        print(name, fit)
        print(span.coefficients(fit.spectra()).to_pandas().T.round(0).astype(int).to_string())
    fit = fits["lines"]
    spectra = fit.spectra()
    for width in (1, 2):
        summed = binned.coarsen(y=width, x=width).sum().assign_attrs(binned.attrs)
        found = ts.unmix(summed, spectra, method="poisson")
        counts = found.maps * spectra.sum("xray_energy")
        best = counts.argmax("component")
        errors = found.standard_error * spectra.sum("xray_energy")
        top, error = (values.isel(component=best) / counts.sum("component") for values in (counts, errors))
        known = top - 1.64 * error > 0.5
        print(f"{width} x {width}: left open {float(1 - known.mean()):.0%};", end=" ")
        print("pixels of each:", np.bincount(best.values[known.values], minlength=4))

    by_pixel = ts.unmix(summed, lines.rename(line="component")).maps.rename(component="line")
    side = 1e3 * float(edx.y[1]) * 80
    figure, axes = plt.subplots(2, 5, figsize=(11, 4.6), layout="constrained", width_ratios=(1, 1, 1, 1, 1.6))
    for axis, line in zip(axes[0], ("Si K", "Fe K", "Ca K", "Ga K"), strict=False):
        axis.imshow(by_pixel.sel(line=line), vmin=0, extent=(0, side, side, 0))
        axis.set_title(line, loc="left")
    for k in range(4):
        axes[1, k].imshow(counts[k], vmin=0, extent=(0, side, side, 0))
        axes[1, k].set_title(f"component {k + 1}", loc="left", color=COLOURS[k])
        axes[0, 4].plot(spectra.xray_energy, spectra[k] / spectra[k].max() - k, color=COLOURS[k], linewidth=0.9)
    axes[0, 4].set(xlabel="X-ray energy (keV)", ylabel="over maximum", yticks=[], xlim=(0.9, 10.2))
    colours = ListedColormap(COLOURS[:4])
    axes[1, 4].imshow(best.where(known), cmap=colours, vmin=0, vmax=3, extent=(0, side, side, 0))
    axes[1, 4].set_title("most of the counts", loc="left")
    for axis in (*axes[0, :4], *axes[1]):
        axis.set(xticks=(0, 400, 800), yticks=(0, 400, 800), facecolor="0.8")
        axis.tick_params(labelbottom=axis in axes[1], labelleft=axis in axes[:, 0])
    for axis in axes[1]:
        axis.set_xlabel("x (nm)")
    for axis in axes[:, 0]:
        axis.set_ylabel("y (nm)")
    save(figure, "minerals")


def wood_ions(data):
    """Ask how many components an ion image has, draw the pixels that lie off, and fit."""
    with np.load(data / "tofsims" / "poplar_wood_trift.npz") as file:
        ions = xr.DataArray(file["counts"], dims=("y", "x", "mass"), coords={"mass": file["mz"].round(1)})
    ions = ions.assign_attrs(units="counts")
    print(ts.estimate_noise(ions))
    print(
        f"{float(ions.sum()) / 65536:.1f} ions in a pixel, {float((ions == 0).mean()):.1%} of the entries zero",
        end="; ",
    )
    print(f"{int((ions == 32).sum())} entries are 32, {int((ions > 32).sum())} above")
    summed = ions.coarsen(y=4, x=4).sum().assign_attrs(units="counts", noise=ts.NoiseModel().to_attrs())
    strong = summed.isel(mass=(summed.sum(("y", "x")) >= 1000).values)
    scree = {}
    for name, part in {"single pixels": ions, "4 x 4": summed, "4 x 4, strong": strong}.items():
        known = ts.pca(part, 4, scaling="poisson").provenance
        scree[name] = known["singular_values"].values[:16] / known["noise_edge"]
        print(f"{name}, {part.sizes['mass']} masses: over the edge of noise", scree[name][:15].round(2))
    criteria = ["noise edge", "parallel analysis", "R-PRESS", "count splitting"]
    print(ts.estimate_rank(strong, criteria=criteria))
    robust = ts.robpca(strong, scaling="poisson")
    kind = robust.provenance["kind"]
    print(robust.rank, "robust;", {n: int((kind == k).sum()) for k, n in enumerate(robust.provenance["kinds"])})
    fit = ts.fit(strong, ts.NMF(4), loss=POISSON, restarts=4, progress=False)
    print(fit, fit.spread.values.round(3))
    for number, spectrum in enumerate(fit.spectra(), start=1):
        share = (spectrum / spectrum.sum()).sortby(-spectrum)[:9]
        print(number, ", ".join(f"{m:.0f}: {v:.2f}" for m, v in zip(share.mass.values, share.values, strict=True)))
        top = fit.maps()[number - 1].values.ravel()
        print(f"   half of it in {int((np.sort(top)[::-1].cumsum() < top.sum() / 2).sum()) + 1} of {top.size} pixels")
    white = ts.whiteness(fit)
    print(white.advice, f"leading {white.leading:.2f}", white.correlation.values.round(3))
    weak = ts.fit(summed, ts.NMF(4), loss=POISSON, restarts=4, progress=False)
    order = np.sort(weak.maps()[3].values.ravel())[::-1].cumsum()
    print(f"all masses: half of the last component in {int((order < order[-1] / 2).sum()) + 1} pixels", end=", ")
    print(f"{float(weak.shares()[3]):.2%} of the ions")
    second = abs(ts.scaled_factors(ts.pca(ions, 2, scaling="poisson"))["mass"][1])
    mass = second.mass[int(second.values.argmax())]
    print(f"single pixels: second component by {float(second.max() ** 2):.2f} mass {float(mass):.0f}", end=", ")
    print(f"{int(ions.sel(mass=mass).sum())} ions in all, {int(ions.sel(mass=mass).max())} in one pixel")
    turned = ts.varimax(ts.pca(strong, 4, scaling="poisson"))
    print("varimax against the fit: maps", degrees(ts.compare(fit, turned).by_mode["pixel"]), "degrees")

    figure, axes = plt.subplots(2, 5, figsize=(11, 4.4), layout="constrained", width_ratios=(1.4, 1, 1, 1, 1))
    for colour, marker, (name, ratio) in zip(COLOURS, "os^", scree.items(), strict=False):
        axes[0, 0].semilogy(np.arange(1, 17), ratio, marker, color=colour, markersize=3.5, label=name)
    axes[0, 0].axhline(1, color="0.5", linestyle="--", linewidth=0.8)
    axes[0, 0].set(xlabel="component", xticks=(1, 5, 10), ylabel="over the edge of noise")
    axes[0, 0].legend(frameon=False, fontsize="small")
    shades = ListedColormap(["0.75", COLOURS[2], COLOURS[4], COLOURS[1]])
    axes[1, 0].imshow(kind, cmap=shades, vmin=-0.5, vmax=3.5, interpolation="nearest")
    axes[1, 0].set(xticks=[], yticks=[], xlabel="kinds of pixels")
    for k in range(4):
        image = fit.maps()[k]
        axes[0, k + 1].imshow(image, vmin=0, vmax=np.quantile(image, 0.9995), interpolation="nearest")
        axes[0, k + 1].set(xticks=[], yticks=[])
        axes[0, k + 1].set_title(f"component {k + 1}", loc="left", color=COLOURS[k])
        spectrum = fit.spectra()[k]
        axes[1, k + 1].vlines(spectrum.mass, 0, 100 * spectrum / spectrum.sum(), color=COLOURS[k], linewidth=1)
        axes[1, k + 1].set(xlabel="mass over charge", ylim=(0, None), xlim=(0, 150))
    axes[1, 1].set_ylabel("per cent of its ions")
    save(figure, "wood_ions")


def _below(spectra, degree):
    """Return polynomials of Raman spectra from below: fitted again and again to the lesser of spectrum and fit."""
    curves = np.polynomial.legendre.legvander(np.linspace(-1, 1, spectra.sizes["raman_shift"]), degree)
    low = np.asarray(spectra, float)
    for _ in range(200):
        under = low @ np.linalg.pinv(curves).T @ curves.T
        low = np.minimum(spectra.values, under)
    return spectra.copy(data=under)


def raman(data):
    """Resolve a Raman map by MCR-ALS and ICA, and mixtures with known spectra."""
    with np.load(data / "chondro_raman" / "chondro.npz") as file:
        axes = {"y": file["y_um"][::35], "x": file["x_um"][:35], "raman_shift": file["shift_cm1"]}
        map_ = xr.DataArray(file["spc"].reshape(25, 35, 300).astype(float), coords=axes)
    for dim, units in {"y": "um", "x": "um", "raman_shift": "1/cm"}.items():
        map_[dim].attrs["units"] = units
    model = ts.estimate_noise(map_)
    print(model)
    map_ = map_.assign_attrs(noise=model.to_attrs())
    flat = {degree: (map_ - _below(map_, degree)).clip(0).assign_attrs(map_.attrs) for degree in (0, 1, 2)}
    print(f"line below: {float(_below(map_, 1).mean() / map_.mean()):.0%} of the signal", end=", ")
    print(f"{float((map_ < _below(map_, 1)).mean()):.1%} of the entries below it")
    bright = flat[1]
    print(ts.estimate_rank(bright, range(1, 11), criteria=["noise edge", "held-out entries", "R-PRESS"]))
    expected = model.variance(map_).sum() / (bright**2).sum()
    print(f"noise of the map before the line was taken away: {100 * float(expected) ** 0.5:.2f} % of the lines")
    robust = ts.robpca(bright, 4).provenance
    print({name: int((robust["kind"] == k).sum()) for k, name in enumerate(robust["kinds"])})
    off = robust["kind"].values == 3
    print(f"both: {int(off[16:21, 24:29].sum())} in the bright cell, {int(off[2:4, 34].sum())} at the bad pixel")
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a lack of fit above that of noise, which is printed
        for rank in (2, 3, 4, 5):
            fit = found[rank] = ts.mcr_als(bright, rank, max_iterations=2000)
            known = fit.provenance
            print(f"MCR-ALS {rank}: lack of fit {known['lack_of_fit']:.3f} %", end=", ")
            print(f"noise {known['expected_lack_of_fit']:.2f} %", end=" ")
            print("starts", {name: round(value, 4) for name, value in known["starts"].items()}, fit.status)
        for degree in (0, 2):
            match = ts.compare(found[4], ts.mcr_als(flat[degree], 4, max_iterations=2000))
            print(
                f"baseline of degree {degree}: maps",
                degrees(match.by_mode["pixel"]),
                "spectra",
                degrees(match.by_mode["raman_shift"]),
            )
        other = ts.fit(bright, ts.NMF(4), restarts=5, progress=False)
        match = ts.compare(found[4], other)
        print("NMF: maps", degrees(match.by_mode["pixel"]), "spectra", degrees(match.by_mode["raman_shift"]), end=" ")
        squares = [float(((bright - fit.reconstruct()) ** 2).sum()) for fit in (other, found[4])]
        print(f"sum of squares {squares[0] / squares[1]:.4f} of that of MCR-ALS")
        independent = ts.ica(bright, 4)
    print("ICA stability", independent.provenance["stability"].values.round(2))
    for name, spectra in (("MCR-ALS", found[4].spectra()), ("ICA", independent.spectra())):
        for number, spectrum in enumerate(spectra.values, start=1):
            peaks = find_peaks(spectrum, prominence=0.12 * spectrum.max())[0]
            print(name, number, "peaks at", bright.raman_shift.values[peaks].astype(int))
            cosine = spectra.values @ spectrum / np.linalg.norm(spectrum) / np.linalg.norm(spectra.values, axis=1)
            print("   angle to the others", degrees(cosine))

    figure, axes = plt.subplots(4, 4, figsize=(11, 6.6), layout="constrained", width_ratios=(1, 1.9, 1, 1.9))
    order = [1, 0, 3, 2]  # of the independent ones, beside those they resemble
    for column, (fit, rows) in enumerate(((found[4], range(4)), (independent, order))):
        for row, k in enumerate(rows):
            image, spectrum = fit.maps()[k], fit.spectra()[k]
            low, high = image.quantile([0.005, 0.995])
            left, right = axes[row, 2 * column : 2 * column + 2]
            left.imshow(image, vmin=low if column else 0, vmax=high, extent=(0, 35, 25, 0), interpolation="nearest")
            left.set(xticks=(0, 10, 20, 30), yticks=(0, 10, 20), ylabel="y (um)")
            left.tick_params(labelbottom=row == 3)
            right.plot(spectrum.raman_shift, spectrum / abs(spectrum).max(), color=COLOURS[row], linewidth=0.9)
            right.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            right.tick_params(labelbottom=row == 3)
        axes[0, 2 * column].set_title(("MCR-ALS", "ICA")[column], loc="left")
        axes[0, 2 * column + 1].set_title("over their maximum", loc="left", fontsize="medium")
        axes[3, 2 * column].set_xlabel("x (um)")
        axes[3, 2 * column + 1].set_xlabel("Raman shift (1/cm)")
    save(figure, "raman")

    with np.load(data / "carbs_raman" / "carbs.npz") as file:
        shares, pure, mixed = file["C"], file["S"], file["D"]
    rest = mixed - shares @ pure.T
    alike = np.corrcoef(rest[:, 1:].ravel(), rest[:, :-1].ravel())[0, 1]
    print(f"mixtures: noise {rest.std():.3f}, neighbours correlated by {alike:.2f}")
    for most in (1.0, 0.8, 0.6):
        values = mixed[shares.max(axis=1) < most + 0.01]
        part = xr.DataArray(values, dims=("sample", "raman_shift"), coords={"raman_shift": np.arange(1401.0)})
        part.attrs["noise"] = ts.NoiseModel(1e-9, rest.var()).to_attrs()
        positive = ts.NonNegative()
        answers = {
            "MCR-ALS": ts.mcr_als(part, 3).spectra(),
            "and closure": ts.mcr_als(part, 3, {"sample": [positive, ts.SumToOne("component")]}).spectra(),
            "ICA": ts.ica(part, 3).spectra(),
            "PCA": ts.pca(part, 3).spectra(),
            "VCA": ts.vca(part, 3),
        }
        for name, spectra in answers.items():
            cosine = abs(spectra.values @ pure) / np.linalg.norm(pure, axis=0)
            cosine /= np.linalg.norm(spectra.values, axis=1)[:, np.newaxis]
            rows, columns = linear_sum_assignment(-cosine)
            print(
                f"{len(values)} mixtures, largest share {most}: {name}",
                degrees(cosine[rows, columns][columns.argsort()]),
            )


def iron_stack(data):
    """Unmix an X-ray stack at the iron L edge by the spectra of its purest pixels, with errors."""
    with np.load(data / "xanes_stxm" / "71214098.npz") as file:
        coords = {"energy": file["energy_eV"], "y": 0.08 * np.arange(150), "x": 0.08 * np.arange(150)}
        stack = xr.DataArray(file["counts"], coords=coords, dims=("energy", "y", "x")).transpose("y", "x", "energy")
        monitor = file["i0"][:, 1]
    stack.energy.attrs["units"] = "eV"
    model = ts.estimate_noise(stack)
    mean = stack.mean("energy")
    incident = stack.where(mean >= mean.quantile(0.95)).mean(("y", "x"))
    print(model, f"; incident {float(incident.min()):.0f} to {float(incident.max()):.0f}", end=", ")
    ratio = incident / monitor
    print(f"over the monitor constant to {100 * float(ratio.std() / ratio.mean()):.2f} %")
    density = np.log(incident / stack)
    density = density.transpose("y", "x", "energy").where((mean >= 100) & (density.mean("energy") > 0.15))
    kept = density.notnull().all("energy")
    noise = ts.NoiseModel(0.0, float((model.gain / stack).where(kept).mean()))
    density.attrs["noise"] = noise.to_attrs()
    print(f"{int(kept.sum())} of 22500 pixels kept; noise of the optical density {noise.read_variance**0.5:.4f}")
    matrix = density.values[kept.values]
    edge = noise.read_variance**0.5 * (len(matrix) ** 0.5 + matrix.shape[1] ** 0.5)
    print("singular values over that of noise", (np.linalg.svd(matrix, compute_uv=False)[:8] / edge).round(2))
    print(ts.estimate_rank(density, criteria=["noise edge", "held-out entries", "R-PRESS"]))
    found, spectra = {}, {}
    for rank in (2, 3, 4):
        for search in (ts.spa, ts.vca):
            pure = search(density, rank, mask=kept)
            result = found[rank, search.__name__] = ts.unmix(density, pure)
            spectra[rank, search.__name__] = pure
            chi = result.chi_squared
            print(f"{search.__name__} {rank}: chi-squared median {float(chi.median()):.2f}", end=", ")
            print(f"above 2 in {float((chi > 2).sum() / kept.sum()):.1%} of the pixels; L3 at", end=" ")
            print(pure.energy.values[pure.argmax("energy")], "eV; at", [(p["y"], p["x"]) for p in pure.attrs["pixels"]])
    pure, result = spectra[3, "vca"], found[3, "vca"]
    jump = pure.sel(energy=slice(726, 730)).mean("energy") - pure.sel(energy=slice(700, 705)).mean("energy")
    order = np.argsort(pure.energy.values[pure.argmax("energy")] * (jump.values > 0.02))
    none, two, three = (int(k) for k in order)
    print("step of the edge", jump.values[order].round(3))
    other = spectra[3, "spa"].values
    cosine = pure.values @ other.T / np.linalg.norm(pure, axis=1)[:, np.newaxis] / np.linalg.norm(other, axis=1)
    print("vca to the nearest of spa:", degrees(cosine.max(axis=1))[order], "degrees")
    atoms, error = result.maps * jump, result.standard_error * jump
    iron = atoms[two] + atoms[three]
    share = (atoms[three] / iron).where(iron > 0.03)
    spread = np.hypot(atoms[two] * error[three], atoms[three] * error[two]) / iron**2
    for name, place in {"left": (slice(4.8, 7.6), slice(0.6, 3.2)), "above": (slice(0, 4), slice(2.4, 5.6))}.items():
        part = share.sel(y=place[0], x=place[1])
        print(f"{name}: share of Fe(III) median {float(part.median()):.2f}, quartiles", end=" ")
        print(part.quantile([0.25, 0.75]).values.round(2), end=", standard error of a pixel, median ")
        print(f"{float(spread.where(share.notnull()).sel(y=place[0], x=place[1]).median()):.3f}", end=", ")
        print(f"chi-squared {float(result.chi_squared.sel(y=place[0], x=place[1]).median()):.2f}")
    valley = pure[none].sel(energy=708, method="nearest") / pure[none].sel(energy=slice(700, 705)).mean()
    print(f"no iron: at 708 eV {float(valley):.2f} of what is before the edge")
    maps = result.maps.isel(component=[none, two, three])
    for name, k in (("no iron", 0), ("Fe(II)", 1)):
        both = ts.correlate(maps.where(kept), maps[2].drop_vars("component").where(kept))
        print(f"amounts of Fe(III) and {name}: correlation {float(both.correlation[k]):.2f}", end="; ")
    fit = ts.fit(density.clip(0).where(kept), ts.NMF(3), restarts=4, progress=False)
    dip = fit.spectra() / fit.spectra().max("energy")
    near = dip.sel(energy=708, method="nearest") / dip.sel(energy=slice(700, 705)).mean("energy")
    for name, model_ in (("vca", xr.dot(result.maps, pure, dim="component")), ("NMF", fit.reconstruct())):
        print(
            f"{name}: squares over noise {float(((density - model_) ** 2).mean() / noise.read_variance):.2f}", end="; "
        )
    print("NMF: at 708 eV over before the edge", near.values.round(2))
    white = ts.whiteness(fit, noise=noise)
    print(white.advice, f"leading {white.leading:.2f}")

    figure, axes = plt.subplots(2, 4, figsize=(11, 5.2), layout="constrained")
    names = {none: "no iron", two: "Fe(II)", three: "Fe(III)"}
    images = [result.maps[none], atoms[two], atoms[three], share]
    titles = ("no iron", "Fe(II), step of the edge", "Fe(III), step of the edge", "Fe(III) of all iron")
    for axis, image, title in zip(axes.ravel(), (*images, result.chi_squared), (*titles, "chi-squared"), strict=False):
        top = {"chi-squared": 4, "Fe(III) of all iron": 1}.get(title, float(image.quantile(0.995)))
        shown = axis.imshow(image, vmin=0, vmax=top, extent=(0, 12, 12, 0), interpolation="nearest")
        axis.set(xlabel="x (um)", ylabel="y (um)", facecolor="0.8")
        axis.set_title(title, loc="left", fontsize="medium")
        figure.colorbar(shown, ax=axis, shrink=0.75)
    for axis, curves, title in ((axes[1, 1], pure, "vca"), (axes[1, 2], fit.spectra(), "NMF")):
        curves = curves / curves.max("energy")
        ranked = order if title == "vca" else np.argsort(curves.energy.values[curves.argmax("energy")])
        for colour, k in zip(COLOURS, ranked, strict=False):
            axis.plot(curves.energy, curves[k], color=colour, linewidth=1, label=names[k] if title == "vca" else None)
        axis.set(xlabel="energy (eV)", ylabel="over maximum", ylim=(0, 1.5), yticks=(0, 0.5, 1))
        axis.set_title(title, loc="left", fontsize="medium")
    axes[1, 1].legend(frameon=False, fontsize="small", loc="upper right")
    axes[1, 3].hist(share.values[np.isfinite(share.values)], np.linspace(0, 1, 41), color=COLOURS[0])
    axes[1, 3].set(xlabel="Fe(III) of all iron", ylabel="pixels")
    save(figure, "iron")


def sparse_edx(data):
    """Ask four EDX maps of few counts for their components, and fit spheres of silica."""
    sets = {
        "silica": ts.load(data / "sio2_eds" / "SiO2_EDS_SI.hspy"),
        "minerals": ts.load(data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy"),
        "silicon": ts.load(data / "scifi_eels" / "EMDReader_SpectrumImage_Si.emd", signal="EDS"),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(data / "velox_eels_eds" / "velox_EELS_EDS.zip") as file,
    ):
        file.extractall(folder)
        path = next(Path(folder).rglob("*.emd"))
        number = [info.shape for info in ts.signals(path)].index((128, 128, 4096)) + 1
        sets["cobalt ferrite"] = ts.load(path, signal=number)
    for name, edx in sets.items():
        counts = float(edx.sum())
        known = ts.pca(edx, 1, scaling="poisson").provenance
        ratio = known["singular_values"].values[:5] / known["noise_edge"]
        inside = float(edx.sel(xray_energy=slice(0.2, None)).sum()) / counts
        print(f"{name}: {counts:.0f} counts, {counts / edx[..., 0].size:.2f} in a pixel", end=", ")
        print(f"{float((edx == 0).mean()):.2%} of the entries zero, {inside:.1%} of the counts above 0.2 keV", end=", ")
        print(f"gain {ts.estimate_noise(edx).gain:.2f}, over the edge of noise {ratio.round(2)}")
    silica = sets["silica"].sel(xray_energy=slice(0.2, 12)).coarsen(xray_energy=4, boundary="trim").sum()
    silica = silica.assign_attrs(units="counts", noise=ts.NoiseModel().to_attrs())
    summed = silica.coarsen(y=2, x=2).sum().assign_attrs(silica.attrs)
    strong = summed.isel(xray_energy=(summed.sum(("y", "x")) >= 1000).values)
    scree = {}
    for name, part in {"as recorded": sets["silica"], "2 x 2, 40 eV": summed, "and strong": strong}.items():
        known = ts.pca(part, 1, scaling="poisson").provenance
        scree[name] = known["singular_values"].values[:12] / known["noise_edge"]
        print(f"silica, {name}: {part.shape}, {scree[name].round(2)}")
    criteria = ["noise edge", "parallel analysis", "R-PRESS", "count splitting"]
    print(ts.estimate_rank(summed, range(1, 6), criteria=criteria))
    fits = {rank: ts.fit(summed, ts.NMF(rank), loss=ts.Poisson(), restarts=3, progress=False) for rank in (2, 3)}
    for rank, fit in fits.items():
        white = ts.whiteness(fit)
        print(rank, "shares", fit.shares().values.round(3), fit.spread.values.round(0), fit.status.name, end="; ")
        print(f"{white.advice} leading {white.leading:.2f}, {white.correlation.values.round(3)}")
    fit = fits[3]
    kinds = ts.leverage(fit)
    print({name: int((kinds.kind == k).sum()) for k, name in enumerate(kinds.attrs["kinds"])}, end="; ")
    oxygen, silicon = (silica.sel(xray_energy=e).sum("xray_energy") for e in (slice(0.45, 0.65), slice(1.65, 1.9)))
    alone = float(oxygen.where(silicon == 0).mean())
    both = oxygen + silicon - alone
    levels = np.array([10, 20, 30, 40, 60, 80, 120, 200, 400])
    places = [(both >= low) & (both < high) for low, high in zip(levels, levels[1:], strict=False)]
    shares = [float((oxygen - alone).where(place).sum() / both.where(place).sum()) for place in places]
    errors = [
        (share * (1 - share) / float(both.where(place).sum())) ** 0.5
        for share, place in zip(shares, places, strict=True)
    ]
    print(f"oxygen window without silicon {alone:.2f}; O of O and Si", np.round(shares, 3), "+-", np.round(errors, 3))
    line = sets["silica"].sel(xray_energy=slice(1.65, 1.9))
    even, total = line[..., ::2].sum("xray_energy"), line.sum("xray_energy")
    part = float(even.sum() / total.sum())
    chi = ((even - part * total) ** 2 / (part * (1 - part) * total)).where(total > 20)
    print(f"even against odd channels of the silicon line: chi-squared {float(chi.mean()):.3f}", end=" ")
    print(f"+- {(2 / int(chi.count())) ** 0.5:.3f}")
    peaks = find_peaks(sets["silica"].sum(("y", "x")), prominence=300, distance=5)[0]
    print("lines at", sets["silica"].xray_energy.values[peaks].round(2), "keV")
    carbon = silica.sel(xray_energy=slice(0.2, 0.4)).sum("xray_energy")
    for name, other in {"carbon": carbon, "oxygen": oxygen}.items():
        found = ts.correlate(
            xr.concat([silicon], "line"),
            other,
            correct_noise=True,
            noise=ts.NoiseModel(),
            reference_noise=ts.NoiseModel(),
        )
        print(f"silicon and {name}: {float(found.correlation[0]):.3f}, without noise {float(found.corrected[0]):.3f}")

    figure, axes = plt.subplots(2, 4, figsize=(11, 4.8), layout="constrained", width_ratios=(1.3, 1, 1, 1))
    for colour, marker, (name, ratio) in zip(COLOURS, "os^", scree.items(), strict=False):
        axes[0, 0].semilogy(np.arange(1, 13), ratio, marker, color=colour, markersize=3.5, label=name)
    axes[0, 0].axhline(1, color="0.5", linestyle="--", linewidth=0.8)
    axes[0, 0].set(xlabel="component", xticks=(1, 5, 10), ylabel="over the edge of noise")
    axes[0, 0].legend(frameon=False, fontsize="small")
    axes[1, 0].errorbar((levels[1:] * levels[:-1]) ** 0.5, shares, errors, fmt="o", color=COLOURS[0], markersize=3.5)
    axes[1, 0].set(xlabel="counts of O and Si in a pixel", ylabel="share of O", xscale="log")
    axes[1, 0].set_xticks((10, 20, 50, 100, 200), ("10", "20", "50", "100", "200"))
    axes[1, 0].minorticks_off()
    for k in range(3):
        image, spectrum = fit.maps()[k], fit.spectra()[k]
        axes[0, k + 1].imshow(
            image, vmin=0, vmax=image.quantile(0.998), extent=(0, 1.09, 1.09, 0), interpolation="nearest"
        )
        axes[0, k + 1].set_title(f"component {k + 1}", loc="left", color=COLOURS[k])
        axes[0, k + 1].set(xlabel="x (um)")
        axes[1, k + 1].semilogy(spectrum.xray_energy, spectrum.clip(1), color=COLOURS[k], linewidth=0.8)
        axes[1, k + 1].set(xlabel="X-ray energy (keV)", ylim=(1, 2e5))
    axes[1, 1].set_ylabel("counts")
    axes[0, 1].set_ylabel("y (um)")
    save(figure, "silica")


def _dose_maps(data):
    """Return one area at the four doses that were recorded, and halves and thinned versions of the richest."""
    names = ("P45_job_hyperspy", "P45_the_default_job", "P45_12bit_packed_8bit", "P45_8bit_compressed_80keV_range")
    maps = {}
    for name in names:
        edx = ts.load(data / "bcf_p45" / f"{name}.bcf", signal="EDX").sel(xray_energy=slice(0.3, 12))
        width = round(0.04 / float(edx.xray_energy[1] - edx.xray_energy[0]))
        binned = edx.coarsen(xray_energy=width, boundary="trim").sum()
        binned = binned.assign_attrs(units="counts", noise=ts.NoiseModel().to_attrs())
        maps[f"recorded {float(binned.sum()) / 7500:.0f}"] = binned
    # Binomial thinning of counts gives counts of a lower dose, and two parts that are independent of each other.
    rng, richest = np.random.default_rng(0), maps["recorded 500"]
    half = richest.copy(data=rng.binomial(richest.values.astype(int), 0.5))
    maps["half"], maps["other half"] = half, richest.copy(data=richest.values - half.values)
    for dose in (99, 18, 7):
        part = rng.binomial(maps["other half"].values.astype(int), dose * 7500 / float(maps["other half"].sum()))
        maps[f"thinned {dose}"] = richest.copy(data=part)
    return maps


def doses_rank(data):
    """Ask how many components one area has at four recorded doses, and at lower ones made by thinning."""
    criteria = ["noise edge", "parallel analysis", "R-PRESS", "count splitting"]
    for name, edx in _dose_maps(data).items():
        if "half" not in name:
            evidence = ts.estimate_rank(edx, range(1, 6), criteria=criteria)
            answers = {item.name: item.answer for item in evidence.criteria}
            print(f"{name}: {int(edx.sum())} counts; {answers}, recommended {evidence.recommended}", flush=True)


def doses(data):
    """Compare the spectra of one area at three recorded doses, and at lower ones made by thinning."""

    def fitted(edx, rank):
        return ts.fit(edx, ts.NMF(rank), loss=POISSON, restarts=4, progress=False)

    maps = _dose_maps(data)
    half = maps.pop("half")
    del maps["recorded 500"]
    reference = {
        "recorded": {rank: fitted(maps["recorded 99"], rank) for rank in (3, 5)},
        "half": {rank: fitted(half, rank) for rank in (3, 5)},
    }
    fits = {}
    for name, edx in maps.items():
        print(f"{name}: {int(edx.sum())} counts")
        if name == "recorded 18":
            rows = edx.sum("xray_energy").mean("x").values
            print(
                "   counts in a pixel, rows 0 to 15 and 25 to 74:", rows[:16].mean().round(1), rows[25:].mean().round(1)
            )
        for side in (1, 2):
            summed = edx.coarsen(y=side, x=side, boundary="trim").sum().assign_attrs(edx.attrs)
            for rank in (3, 5):
                fit = fits[name, side, rank] = fitted(summed, rank)
                true = reference["recorded" if name in ("recorded 7", "recorded 18") else "half"][rank].spectra()
                if true.sizes != fit.spectra().sizes:
                    true = true.interp(xray_energy=edx.xray_energy).fillna(0)
                true, mine = true.values, fit.spectra().values
                cosine = true @ mine.T / np.linalg.norm(true, axis=1)[:, None] / np.linalg.norm(mine, axis=1)
                angles = degrees(cosine[linear_sum_assignment(-cosine)])
                print(f"   {side} x {side}, NMF({rank}): {angles}")

    figure, axes = plt.subplots(3, 5, figsize=(11, 4.6), layout="constrained", width_ratios=(1, 1, 1, 1, 1.7))
    first = fits["recorded 99", 1, 3].spectra()
    for column, (name, side) in enumerate((("99", 1), ("18", 1), ("7", 1), ("7", 2))):
        fit = fits[f"recorded {name}", side, 3]
        cosine = first.values @ fit.spectra().values.T
        cosine /= np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(fit.spectra(), axis=1)
        for row, k in zip(*linear_sum_assignment(-cosine), strict=True):
            image, spectrum = fit.maps()[k], fit.spectra()[k]
            axes[row, column].imshow(image, vmin=0, vmax=image.quantile(0.998), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
            if side == 1:
                shade = (1.0, 0.65, 0.35)[column]
                axes[row, 4].plot(
                    spectrum.xray_energy,
                    spectrum / spectrum.max() - 0.5 * column,
                    color=COLOURS[row],
                    alpha=shade,
                    linewidth=0.9,
                )
        axes[0, column].set_title(f"{name} counts" + (", 2 x 2" if side > 1 else ""), loc="left", fontsize="medium")
    for row in range(3):
        axes[row, 0].set_ylabel(f"component {row + 1}", color=COLOURS[row])
        axes[row, 4].set(xlim=(0.3, 8), yticks=[])
    axes[0, 4].set_title("spectra: 99, 18 and 7 counts downwards", loc="left", fontsize="medium")
    axes[2, 4].set_xlabel("X-ray energy (keV)")
    save(figure, "doses")


if __name__ == "__main__":
    parts = (
        noise,
        oxide_line_scan,
        gatan_cube,
        dacite,
        minerals,
        wood_ions,
        raman,
        iron_stack,
        sparse_edx,
        doses_rank,
        doses,
    )
    chosen = [part for part in parts if len(sys.argv) == 2 or part.__name__ in sys.argv[2:]]
    if len(sys.argv) < 2 or not chosen:
        sys.exit(f"usage: {sys.argv[0]} FOLDER_WITH_THE_DATA [PART ...]; parts: {[part.__name__ for part in parts]}")
    OUT.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        print(f"\n== {part.__doc__}")
        part(Path(sys.argv[1]))
