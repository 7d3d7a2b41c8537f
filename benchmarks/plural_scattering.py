"""What plural scattering does to a factorization, and to a fusion with EDX, and what deconvolution mends.

Four phases in a wedge, by dual EELS and EDX (`tensorspec.phantoms.dual_eels`, simulated): the core loss of each pixel
is the product of its single scattering with its own low loss.  Three core losses go into the same fits: single
scattering alone (what nobody can record), the record as it is, and the record after Fourier-ratio deconvolution with
each pixel's own low loss.  Prints, for each range of thickness: the number of components above the noise of the core
loss; the chi-square of a fit with the four that there are, over that of the truth; the mean and the largest angle
between true and found core-loss spectra, in degrees; the error of the maps.  All that for the core loss alone, whose
spectra and maps noise-free data would not determine either (backgrounds are alike), and for its fusion with EDX.

Run it from the root of the repository: ``python -m benchmarks.plural_scattering``.
"""

import itertools

import numpy as np

import tensorspec as ts

WEDGES = [(0.3, 0.3), (0.3, 0.8), (0.3, 1.5)]
SHAPE = (20, 28)
RANK = 4


def core_losses(phantom):
    """Core losses by name, each with its expected value and the same noise, treated as it is."""
    single = (phantom.truth.maps * phantom.truth.core_spectra).sum("component").transpose("y", "x", "energy_loss")
    expected, low = phantom.expected("core"), phantom["low"]
    rng = np.random.default_rng(0)
    mended = {
        name: ts.deconvolve(data, low, intensity="total")
        for name, data in (("data", phantom["core"].astype(float)), ("expected", expected))
    }
    return {
        "single scattering": (single.copy(data=rng.poisson(single).astype(float)), single),
        "as recorded": (phantom["core"].astype(float), expected),
        "deconvolved": (mended["data"], mended["expected"]),
    }


def above_noise(data, expected):
    """Number of singular values above the largest one of the noise, both scaled to even noise."""
    error = data - expected
    scale = np.sqrt(np.outer((error**2).mean("energy_loss"), (error**2).mean(["y", "x"])))
    rows = data.values.reshape(scale.shape), error.values.reshape(scale.shape)
    values, noise = (np.linalg.svd(item / scale, compute_uv=False) for item in rows)
    return int((values > noise[0]).sum())


def judge(fit, phantom, name, data, expected):
    """Chi-square beyond the noise, angles of the spectra, error of the maps; components matched by their spectra."""
    truth = phantom.truth
    found, true = fit.spectra(name).values, truth.core_spectra.values
    unit = [np.nan_to_num(item) / np.linalg.norm(item, axis=1, keepdims=True).clip(1e-300) for item in (true, found)]
    cosines = unit[0] @ unit[1].T
    best = list(max(itertools.permutations(range(RANK)), key=lambda p: cosines[np.arange(RANK), p].sum()))
    angles = np.degrees(np.arccos(np.clip(cosines[np.arange(RANK), best], -1, 1)))
    maps, true_maps = fit.maps(name).values[best].reshape(RANK, -1), truth.maps.values.reshape(RANK, -1)
    maps = maps * ((maps * true_maps).sum(axis=1) / (maps**2).sum(axis=1).clip(1e-300))[:, None]
    wrong = np.linalg.norm(maps - true_maps) / np.linalg.norm(true_maps)
    residual = ((data - fit.reconstruct(name)) ** 2).sum() / ((data - expected) ** 2).sum()
    return float(residual), float(angles.mean()), float(angles.max()), float(wrong)


def fits(phantom, core, restarts):
    """The factorization of the core loss alone, and its fusion with EDX."""
    options = {"restarts": restarts, "seed": 0, "progress": False}
    alone = ts.fit({"core": core}, ts.NMF(RANK), **options)
    together = ts.fit(
        {"core": core, "edx": phantom["edx"].astype(float)},
        ts.NMF(RANK),
        loss=ts.LeastSquares(scaling="poisson"),
        **options,
    )
    return {"core loss alone": alone, "core loss and EDX": together}


def rows(wedge, shape=SHAPE, restarts=3):
    """One row for each core loss: kind, components, and for each fit what `judge` says."""
    phantom = ts.phantoms.dual_eels(shape, thickness=wedge, edx_counts=2000.0, seed=1)
    for kind, (data, expected) in core_losses(phantom).items():
        data = data.clip(0)
        results = {
            name: judge(fit, phantom, "core", data, expected) for name, fit in fits(phantom, data, restarts).items()
        }
        yield kind, above_noise(data, expected), results


def main():
    """Print the table."""
    print("| thickness | core loss | components | fit of | chi-square | angle (largest) | maps |")
    print(7 * "|---" + "|")
    for wedge in WEDGES:
        for kind, count, results in rows(wedge):
            for name, (square, mean, largest, wrong) in results.items():
                cells = [f"{wedge[0]} to {wedge[1]}", kind, f"{count}", name, f"{square:.3f}"]
                cells += [f"{mean:.1f} ({largest:.1f})", f"{100 * wrong:.1f} %"]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
