"""Does automatic relevance determination find the number of components?

Run it from the root of the repository: ``python -m benchmarks.relevance [SEEDS [RESTARTS]]``.  It fits the discs of
`tensorspec.phantoms.discs`, three components, with 6 and with 10 components under `ARD`, and prints for each kind of
data in how many fits 3 stayed alive, how many were alive where it was another number, the mean angle between true and
found spectra in degrees, and the angle of `NMF(3)`, which was told the number.
"""

import sys

import numpy as np

import tensorspec as ts
from benchmarks.soft_orthogonality import angle

DATA = [("edx", 500), ("edx", 5000), ("eels", 500), ("eels", 5000)]
RANKS = (6, 10)
TRUE = 3


def main() -> None:
    """Print the table."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
    restarts = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    print(f"{len(seeds)} seeds, from {' and '.join(map(str, RANKS))} components, {restarts} restarts each\n")
    print(f"| | {TRUE} alive | others | degrees | degrees, NMF({TRUE}) |\n|---|---|---|---|---|")
    for kind, counts in DATA:
        alive, found, told = [], [], []
        for seed in seeds:
            phantom = ts.phantoms.discs(kind, counts=counts, seed=seed)
            true = phantom.truth["spectra"].values
            fit = ts.fit(phantom["data"], ts.NMF(TRUE), restarts=restarts, seed=seed, progress=False)
            told.append(angle(fit.spectra().values, true))
            for rank in RANKS:
                model = ts.NMF(rank, {"pixel": ts.ARD()})
                fit = ts.fit(phantom["data"], model, restarts=restarts, seed=seed, progress=False)
                alive.append(len(fit.alive))
                if alive[-1] == TRUE:
                    found.append(angle(fit.select(fit.alive).spectra().values, true))
        others = sorted(number for number in alive if number != TRUE)
        right = f"{len(alive) - len(others)} of {len(alive)}"
        angles = f"{np.mean(found):.2g}" if found else "-"
        row = [f"{kind.upper()}, {counts} counts", right, ", ".join(map(str, others)), angles, f"{np.mean(told):.2g}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
