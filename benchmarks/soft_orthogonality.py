"""What SoftOrthogonal does to the angle between true and found spectra: where it helps, and where it hurts.

Run it from the root of the repository: ``python -m benchmarks.soft_orthogonality [SEEDS]``.  It prints two
tables in Markdown, mean over seeds:

1. the automatic strength beside the published rule at three weights and beside plain NMF, for maps that hardly
   overlap, over the counts in a pixel; degrees;
2. plain NMF of four starts -> SoftOrthogonal() of three, for maps of growing overlap: degrees, and the overlap of the
   maps that come back, the true one in the head of the column.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

MAPS = {
    "overlap {}": {},
    "matrix everywhere, {}": {"matrix_floor": 0.3},
    "blurred by 4 pixels, {}": {"blur": 4.0},
    "both, {}": {"blur": 4.0, "matrix_floor": 0.3},
}
DATA = [("eels", 500), ("eels", 5000), ("edx", 500), ("edx", 5000)]
COUNTS = {"eels": (100, 500, 1000, 5000, 10_000, 100_000), "edx": (500, 1000, 10_000, 100_000)}
WEIGHTS = (0.05, 0.1, 0.3)


def angle(found, true):
    """Return the mean angle between matched spectra, degrees."""
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    cosines = true @ found.T
    return np.degrees(np.arccos(np.clip(cosines[linear_sum_assignment(-cosines)], -1, 1))).mean()


def fitted(phantom, seed, restarts, prior=None, **options):
    """Return the angle of the spectra and the overlap of the maps of an NMF with a prior on the maps, or none."""
    model = ts.NMF(3, {} if prior is None else {"pixel": prior})
    fit = ts.fit(phantom["data"], model, restarts=restarts, seed=seed, progress=False, **options)
    overlap = ts.phantoms.mean_overlap(fit.maps().values)
    return angle(fit.spectra().values, phantom.truth["spectra"].values), overlap


def compare_with_the_published_rule(seeds) -> None:
    """Print the first table.  The rule creeps: it gets a tolerance a thousand times finer."""
    heads = ["plain NMF", *(f"shiga2016, w = {weight:g}" for weight in WEIGHTS), "SoftOrthogonal()"]
    print(f"| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for kind, doses in COUNTS.items():
        for counts in doses:
            cells = np.zeros((len(seeds), len(heads)))
            for row, seed in zip(cells, seeds, strict=True):
                phantom = ts.phantoms.discs(kind, counts=counts, seed=seed)
                row[0], _ = fitted(phantom, seed, 3)
                for k, weight in enumerate(WEIGHTS):
                    rule = ts.SoftOrthogonal(weight, method="shiga2016")
                    row[k + 1], _ = fitted(phantom, seed, 3, rule, tol=1e-9, max_sweeps=3000)
                row[-1], _ = fitted(phantom, seed, 3, ts.SoftOrthogonal())
            figures = " | ".join(f"{value:.2g}" for value in cells.mean(axis=0))
            print(f"| {kind.upper()}, {counts} counts | {figures} |", flush=True)


def follow_the_overlap(seeds) -> None:
    """Print the second table."""
    rows, overlaps = [], {}
    for kind, counts in DATA:
        cells = []
        for name, options in MAPS.items():
            plain, soft = [], []
            for seed in seeds:
                phantom = ts.phantoms.discs(kind, counts=counts, seed=seed, **options)
                overlaps[name] = ts.phantoms.mean_overlap(phantom.truth["maps"].values)
                plain.append(fitted(phantom, seed, 4))
                soft.append(fitted(phantom, seed, 3, ts.SoftOrthogonal()))
            (before, mixed), (after, left) = np.mean(plain, axis=0), np.mean(soft, axis=0)
            cells.append(f"{before:.2g} -> {after:.2g} ({mixed:.2f} -> {left:.2f})")
        rows.append(f"| {kind.upper()}, {counts} counts | " + " | ".join(cells) + " |")
    titles = [name.format(f"{overlaps[name]:.2f}") for name in MAPS]
    print(f"| | {' | '.join(titles)} |\n|{'---|' * (len(MAPS) + 1)}")
    print("\n".join(rows))


def main() -> None:
    """Print both."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    compare_with_the_published_rule(seeds)
    print()
    follow_the_overlap(seeds)


if __name__ == "__main__":
    main()
