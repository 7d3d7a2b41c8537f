"""Sweeps to within a millionth of the minimum where components are nearly collinear, for two ways of solving.

Run it from the root of the repository: ``python -m benchmarks.collinear``.  A noisy tensor of three modes without
constraints; the components have the same cosine in every mode.
"""

import numpy as np
import xarray as xr

import tensorspec as ts

SHAPE, RANK, WARM, MOST = (20, 18, 16), 3, 30, 20_000


def planted(cosine, seed=0):
    """Return a tensor whose components have this cosine in every mode, with 1 % of noise."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.cholesky(np.full((RANK, RANK), cosine) + (1 - cosine) * np.eye(RANK)).T
    factors = [np.linalg.qr(rng.standard_normal((size, RANK)))[0] @ mix for size in SHAPE]
    clean = np.einsum("ar,br,cr->abc", *factors)
    noise = rng.standard_normal(SHAPE) * clean.std() * 0.01
    return xr.DataArray(clean + noise, dims=("a", "b", "c"))


def main() -> None:
    """Print a table in Markdown."""
    print("| cosine in every mode | alternating least squares, sweeps | `GaussNewton`, steps after 30 sweeps |")
    print("|---|---|---|")
    for cosine in (0.9, 0.97, 0.99):
        data = planted(cosine)
        options = {"seed": 1, "start": ts.Random(), "progress": False}
        newton = ts.fit(data, ts.CP(RANK), solver=ts.GaussNewton(warm=WARM), tol=1e-12, max_sweeps=1000, **options)
        plain = ts.fit(data, ts.CP(RANK), tol=0.0, max_sweeps=MOST, **options)
        least = min(newton.objective, plain.objective)
        cells = []
        for fit in (plain, newton):
            near = np.flatnonzero(fit.history.values <= least * (1 + 1e-6))
            cells.append(str(int(near[0])) if near.size else f"more than {fit.sweeps}")
        print(f"| {cosine} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
