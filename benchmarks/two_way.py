"""Angles between true and found spectra, beside scikit-learn, HyperSpy and pyMCR on the same counts.

Run it from the root of the repository: ``python -m benchmarks.two_way [SEEDS]``.  Peers that are not installed are left
out (``pip install hyperspy pyMCR``; both are licensed apart from this project and used nowhere else).  It prints two
tables in Markdown; each figure is the mean over components and, behind the stroke, the worst component, both averaged
over the seeds, in degrees:

1. factorizations of two discs in a matrix, by kind of spectra and counts in a pixel;
2. endmembers of images in which no pixel is pure (largest share 0.8), by number of components and counts.

Every method gets the true number of components, and else its own defaults and start, except that iterations are not cut
short (1000; HyperSpy hands them to scikit-learn) and that pyMCR, which has no start of its own, gets the spectra that
`tensorspec.vca` finds and non-negative least squares.
"""

import sys
import warnings

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

DATA = [("edx", 500), ("edx", 5000), ("eels", 500), ("eels", 5000)]
MIXED = [(3, 20_000), (3, 1000), (4, 20_000), (4, 1000)]
CHANNELS, PIXELS = 400, 1500


def angles(found, true):
    """Return mean and largest angle between matched spectra, degrees."""
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    chord = np.linalg.norm(found[:, None] - true[None], axis=2)
    each = np.degrees(2 * np.arcsin(np.clip(chord[linear_sum_assignment(chord)] / 2, 0, 1)))
    return each.mean(), each.max()


def spectra_of(fit):
    """Return the spectra of a fit, (component, channels)."""
    return fit.factors[fit.signal_mode()].values.reshape(fit.rank, -1)


def matrix_of(data):
    """Return counts as pixels x channels."""
    return data.values.reshape(-1, data.shape[-1]).astype(float)


def scikit_learn(data, rank, seed, loss="frobenius"):
    """Non-negative factorization of scikit-learn."""
    from sklearn.decomposition import NMF

    solver = "cd" if loss == "frobenius" else "mu"
    init = "nndsvd" if loss == "frobenius" else "nndsvda"
    model = NMF(rank, init=init, beta_loss=loss, solver=solver, max_iter=1000, random_state=seed)
    return model.fit(matrix_of(data)).components_


def hyperspy(data, rank, seed, **options):
    """Non-negative factorization of HyperSpy."""
    import hyperspy.api as hs

    signal = hs.signals.Signal1D(data.values.astype(float))
    kwargs = {"algorithm": "NMF", "output_dimension": rank, "print_info": False, "random_state": seed, **options}
    signal.decomposition(**kwargs, max_iter=1000)
    return signal.learning_results.factors.T


def pymcr(data, rank, seed):
    """Alternating least squares of pyMCR, non-negative, from the purest pixels."""
    from pymcr.mcr import McrAR

    start = np.maximum(np.nan_to_num(ts.vca(data, rank, seed=seed).values), 0)
    model = McrAR(max_iter=200, c_regr="NNLS", st_regr="NNLS", tol_increase=1.0)
    model.fit(matrix_of(data), ST=start + 1e-9)
    return model.ST_opt_


def nmf(data, rank, seed, model=None, **options):
    """Non-negative factorization of this project."""
    return spectra_of(ts.fit(data, model or ts.NMF(rank), restarts=3, seed=seed, progress=False, **options))


FACTORIZATIONS = {
    "scikit-learn NMF": scikit_learn,
    "scikit-learn NMF, Kullback-Leibler": lambda *own: scikit_learn(*own, loss="kullback-leibler"),
    "HyperSpy NMF": hyperspy,
    "HyperSpy NMF, Poisson scaling": lambda *own: hyperspy(*own, normalize_poissonian_noise=True),
    "pyMCR, NNLS": pymcr,
    "`ts.mcr_als`": lambda data, rank, seed: spectra_of(ts.mcr_als(data, rank, seed=seed, max_iterations=1000)),
    "`ts.NMF`": nmf,
    "`ts.NMF`, `ts.Poisson()`": lambda *own: nmf(*own, loss=ts.Poisson()),
    "`ts.NMF` with `ts.SoftOrthogonal()`": lambda data, rank, seed: nmf(
        data, rank, seed, ts.NMF(rank, {"pixel": ts.SoftOrthogonal()})
    ),
}
ENDMEMBERS = {
    "`ts.vca`": lambda data, rank, seed: ts.vca(data, rank, seed=seed).values,
    "`ts.spa`": lambda data, rank, seed: ts.spa(data, rank).values,
    "scikit-learn NMF, Kullback-Leibler": FACTORIZATIONS["scikit-learn NMF, Kullback-Leibler"],
    "pyMCR, NNLS": pymcr,
    "`ts.sss`": lambda data, rank, seed: ts.sss(data, rank, seed=seed).values,
    "`ts.NMF`, `ts.Poisson()`, from `ts.SSS()`": lambda data, rank, seed: spectra_of(
        ts.fit(data, ts.NMF(rank), loss=ts.Poisson(), start=ts.SSS(), seed=seed, progress=False)
    ),
}


def discs(kind, counts, seed):
    """Return counts and true spectra of two discs in a matrix."""
    phantom = ts.phantoms.discs(kind, counts=counts, seed=seed)
    return phantom["data"], phantom.truth["spectra"].values


def mixed(rank, counts, seed):
    """Return counts and true spectra of an image without pure pixels: three lines a component, at random."""
    rng = np.random.default_rng([seed, rank])
    places = CHANNELS * rng.uniform(0.08, 0.92, (rank, 3))
    lines = rng.uniform(0.3, 1, (rank, 3, 1)) * np.exp(
        -0.5 * ((np.arange(CHANNELS) - places[..., None]) / (0.012 * CHANNELS)) ** 2
    )
    spectra = lines.sum(axis=1)
    spectra[spectra < 1e-4] = 0
    spectra /= spectra.sum(axis=1, keepdims=True)
    shares = rng.dirichlet(np.ones(rank), 20 * PIXELS)
    shares = shares[shares.max(axis=1) < 0.8][:PIXELS]
    return xr.DataArray(rng.poisson(counts * shares @ spectra), dims=("x", "energy_loss")), spectra


def table(methods, columns, make, seeds) -> None:
    """Print a table: a row a method, a column a kind of data."""
    heads = [" ".join(map(str, column)) for column in columns]
    print(f"| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    sets = {column: [make(*column, seed) for seed in seeds] for column in columns}
    for name, method in methods.items():
        cells = []
        for column in columns:
            rank = len(sets[column][0][1])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = [
                        angles(np.asarray(method(data, rank, seed)), true)
                        for seed, (data, true) in zip(seeds, sets[column], strict=True)
                    ]
            except ImportError:
                cells.append("not installed")
                continue
            mean, worst = np.mean(found, axis=0)
            cells.append(f"{mean:.2g} / {worst:.2g}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(count: int = 5) -> None:
    """Print both tables."""
    import logging

    logging.disable(logging.WARNING)
    seeds = range(count)
    table(FACTORIZATIONS, DATA, discs, seeds)
    print()
    table(ENDMEMBERS, MIXED, mixed, seeds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
