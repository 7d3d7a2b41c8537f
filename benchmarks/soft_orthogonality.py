"""What SoftOrthogonal does to the angle between true and found spectra: where it helps, and where it hurts.

Run it from the checkout: ``python benchmarks/soft_orthogonality.py [SEEDS]``.  It prints a table in Markdown, degrees,
mean over seeds and components: plain NMF of four starts -> SoftOrthogonal() of three.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment

import tensorspec as ts

MAPS = {
    "overlap {}": {},
    "blurred by 4 pixels, {}": {"blur": 4.0},
    "matrix everywhere, {}": {"matrix_floor": 0.3},
}
DATA = [("eels", 500), ("eels", 5000), ("edx", 500), ("edx", 5000)]


def angle(found, true):
    """Return the mean angle between matched spectra, degrees."""
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    cosines = true @ found.T
    return np.degrees(np.arccos(np.clip(cosines[linear_sum_assignment(-cosines)], -1, 1))).mean()


def main() -> None:
    """Print the table."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    rows, overlaps, returned = [], {}, {}
    for kind, counts in DATA:
        cells = []
        for name, options in MAPS.items():
            plain, soft = [], []
            for seed in seeds:
                phantom = ts.phantoms.discs(kind, counts=counts, seed=seed, **options)
                true = phantom.truth["spectra"].values
                fit = ts.fit(phantom["data"], ts.NMF(3), restarts=4, seed=seed)
                plain.append(angle(fit.spectra().values, true))
                model = ts.NMF(3, {"pixel": ts.SoftOrthogonal()})
                fit = ts.fit(phantom["data"], model, restarts=3, seed=seed)
                soft.append(angle(fit.spectra().values, true))
                overlaps[name] = ts.phantoms.mean_overlap(phantom.truth["maps"].values)
                returned.setdefault((name, kind), []).append(ts.phantoms.mean_overlap(fit.maps().values))
            cells.append(f"{np.mean(plain):.2g} -> {np.mean(soft):.2g}")
        rows.append(f"| {kind.upper()}, {counts} counts | " + " | ".join(cells) + " |")
    titles = [name.format(f"{overlaps[name]:.2f}") for name in MAPS]
    print(f"| | {' | '.join(titles)} |\n|{'---|' * (len(MAPS) + 1)}")
    print("\n".join(rows))
    for (name, kind), values in returned.items():
        print(f"{name.format(f'{overlaps[name]:.2f}')}, {kind}: overlap returned with SoftOrthogonal", end=" ")
        print(f"{np.mean(values):.2f}")


if __name__ == "__main__":
    main()
