"""Make the figures of the page "Restore weak images and spectra", and print the numbers in it.

The first is simulated.  The second needs measurements that are public but not part of this repository: maps of EELS
(Co3O4-Mn3O4) and EDX (DyScO3), from the examples of fused multi-modal electron microscopy, and a TOF-SIMS image of
poplar wood (tofsimsData).  Run it from the checkout, with the folder that holds them for the second:
``python docs/make_restoration_figure.py [DATA]``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import tensorspec as ts
from benchmarks.restoration import FULL_WIDTH, PSF, best, error, scene, sharpened
from tensorspec.restore.richardson_lucy import richardson_lucy

OUT = Path(__file__).parent / "_static"


def panels(pictures, path, columns):
    """Draw pictures: title, values, largest value, and whether they are radii."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.6 * rows), layout="constrained", squeeze=False)
    for axis, (title, values, top, colours) in zip(axes.flat, pictures, strict=True):
        low = 0 if colours == "viridis" else None
        image = axis.imshow(values, vmin=low, vmax=top, cmap=colours, interpolation="nearest")
        axis.set_title(title, fontsize="small")
        axis.set_axis_off()
        figure.colorbar(image, ax=axis, shrink=0.7)
    figure.savefig(path, dpi=110)
    print(path)


def simulated():
    """Noisy, Richardson-Lucy, pixon, truth, and the map of scales."""
    truth, counts = scene(2)
    result = ts.pixon(xr.DataArray(counts, dims=("y", "x")), psf=FULL_WIDTH)
    oracle, long = best(sharpened(counts), truth), richardson_lucy(counts, PSF, 300)
    found = {
        "recorded": counts,
        "Richardson-Lucy, best": oracle,
        "Richardson-Lucy, 300": long,
        "pixon": result.restored,
    }
    pictures = [
        (f"{name}\nerror {error(np.asarray(each), truth):.2f}", each, 150, "viridis") for name, each in found.items()
    ]
    pictures += [("truth", truth, 150, "viridis"), ("radius of the kernel (points)", result.scale, None, "magma")]
    panels(pictures, OUT / "restoration.png", 3)
    print(result.attrs["history"][-1])


def held_out(counts, seed=0):
    """Print how well one half of the counts of a real image, restored, predicts the other half."""
    rng = np.random.default_rng(seed)
    first = rng.binomial(counts, 0.5)
    second = counts - first

    def surprise(model):
        model = np.maximum(model, 1e-6)
        terms = np.where(second > 0, second * np.log(np.maximum(second, 1) / model), 0.0) - second + model
        return 2 * terms.mean()

    image = xr.DataArray(first, dims=("y", "x"))
    widths = np.arange(0.5, 8, 0.5)
    smooth = [surprise(gaussian_filter(first * 1.0, width)) for width in widths]
    print(
        f"  deviance per point of the other half: Gaussian at its best ({widths[np.argmin(smooth)]}) {min(smooth):.4f},"
    )
    for method in ("quick", "full"):
        print(f"  pixon {method} {surprise(ts.pixon(image, method=method).restored.values):.4f}")


def measured(folder):
    """Draw real maps before and after, and print what was found."""
    import h5py

    pictures = []
    wood = np.load(folder / "tofsims" / "poplar_wood_trift.npz", allow_pickle=False)
    cube = next(wood[name] for name in wood.files if wood[name].ndim == 3)
    totals = cube.sum(axis=(0, 1), dtype=np.int64)
    channel = int(np.argsort(totals)[-8])
    counts = cube[..., channel].astype(int)
    print(f"TOF-SIMS, channel {channel}: {counts.sum()} counts, {counts.mean():.3f} per point, at most {counts.max()}")
    held_out(counts)
    with h5py.File(folder / "fused_em" / "Co3O4_Mn3O4.h5") as file:
        manganese = np.asarray(file["Mn"])[100:300, 100:300]
    trilayer = np.load(folder / "fused_em" / "PTO_Trilayer_dataset.npz", allow_pickle=False)
    scandium = np.asarray(trilayer["Sc"])
    for name, values, noise in (
        ("TOF-SIMS", counts, "poisson"),
        ("EELS, Mn", manganese, ts.NoiseModel(0.0085)),
        ("EDX, Sc", scandium, "gaussian"),
    ):
        image = xr.DataArray(values, dims=("y", "x"))
        result = ts.pixon(image, noise=noise, nonnegative=noise != "gaussian")
        chi, _, largest, _ = result.history.values[-1]
        share = float(result.degrees_of_freedom) / image.size
        score = np.asarray(result.residual) / np.sqrt(np.mean(np.asarray(result.residual) ** 2))
        along = (score[:, 1:] * score[:, :-1]).mean(), (score[1:] * score[:-1]).mean()
        print(
            f"{name}: {result.attrs['noise']}, chi-square {chi:.3f}, largest significance {largest:.1f} "
            f"(limit {result.attrs['limit']:.1f}), settled {result.attrs['settled']}, degrees of freedom {share:.3f} "
            f"of the points, radii {float(result.scale.min())}-{float(result.scale.max())}, residual neighbours "
            f"{along[0]:.3f} {along[1]:.3f}, total {float(result.restored.sum() / image.sum()):.4f}"
        )
        top = float(np.quantile(values, 0.995))
        pictures += [(f"{name}, recorded", values, top, "viridis"), ("pixon", result.restored, top, "viridis")]
        pictures += [("radius (points)", result.scale, None, "magma")]
    panels(pictures, OUT / "real_data" / "restoration.png", 3)


if __name__ == "__main__":
    simulated()
    if len(sys.argv) > 1:
        measured(Path(sys.argv[1]))
