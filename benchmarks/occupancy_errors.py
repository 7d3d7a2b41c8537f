"""How far errors of the channelling model move occupancies that are fitted to counts without noise.

Run it from the root of the repository: ``python -m benchmarks.occupancy_errors``; a minute.  A spinel with 2 % of the
manganese and 10 % of the nickel on 8a, row (400) to three Bragg angles, 200 kV, 100 nm; thickness and offset are free.
"""

import warnings
from unittest import mock

import numpy as np
import xarray as xr

from tensorspec import channelling as ch
from tensorspec.channelling import scattering

SHARES = {"Mn K": {"8a": 0.02, "16d": 0.98}, "Ni K": {"8a": 0.10, "16d": 0.90}, "O K": {"32e": 1.0}}
COUNTS = {"Mn K": 8000, "Ni K": 2500, "O K": 3000}
CANDIDATES = {"Mn": ["8a", "16d"], "Ni": ["8a", "16d"], "O": ["32e"]}
DEBYE_WALLER = 0.5


def crystal(**other: float) -> ch.Crystal:
    """Return a spinel with the same displacements on all sites but those that are named."""
    own = ch.phantoms.spinel()
    return own.with_debye_waller({**dict.fromkeys(own.labels, DEBYE_WALLER), **{k[1:]: v for k, v in other.items()}})


def response(own: ch.Crystal, **options: bool) -> xr.DataArray:
    """Return what the sites answer."""
    scan = ch.systematic_row(own, (4, 0, 0), np.linspace(-3.4, 3.4, 69), 200, in_bragg_angles=True)
    return ch.response(own, scan, list(SHARES), np.arange(5.0, 131, 5), check=False, **options)


def planted(model: xr.DataArray, thickness: float = 100.0) -> xr.DataArray:
    """Return expected counts."""
    there = model.interp(thickness=thickness, method="cubic").isel(tilt_x=slice(4, -4))
    lines = []
    for line, own in SHARES.items():
        mean = sum(share * there.sel(line=line, site=site, drop=True) for site, share in own.items())
        lines.append((COUNTS[line] * mean / mean.mean()).drop_vars("thickness"))
    return xr.concat(lines, xr.DataArray(list(SHARES), dims="line", name="line")).transpose("line", "tilt_x")


def main() -> None:
    """Print a table in Markdown."""
    true = response(crystal())
    counts = planted(true)
    print("| model that is fitted | Mn on 8a | Ni on 8a | chi-squared |\n|---|---|---|---|")

    def show(name: str, model: xr.DataArray, mean: xr.DataArray = counts) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ch.fit_occupancy(mean, model, CANDIDATES)
        shares = [float(found.share.sel(element=element, site="8a")) for element in ("Mn", "Ni")]
        # Without noise chi-squared is what the model adds to one.
        print(f"| {name} | {shares[0]:.4f} | {shares[1]:.4f} | {1 + found.chi_squared:.2f} |", flush=True)

    show("the true one", true)
    show("no absorption", response(crystal(), absorption=False))
    for thickness in (80.0, 90.0, 100.0, 105.0):
        for first in range(3):
            coarse = true.isel(thickness=slice(first, None, 3))
            show(f"steps of 15 nm from {5 * first + 5}, at {thickness:g} nm", coarse, planted(true, thickness))
    for site in ("8a", "16d", "32e"):
        show(f"B of {site} 20 % larger", response(crystal(**{f"_{site}": 1.2 * DEBYE_WALLER})))
    integral, table = scattering._absorptive_integral, scattering._electron_table
    for factor in (0.8, 1.2):
        with mock.patch.object(scattering, "_absorptive_integral", lambda *own, q=factor: q * integral(*own)):
            show(f"absorption {factor:g} times as strong", response(crystal()))
    for factor in (0.98, 1.02):

        def bonded(element: str, s: np.ndarray, q: float = factor) -> np.ndarray:
            return table(element, s) * (1 + (q - 1) * np.exp(-((s / 0.2) ** 2)))

        with mock.patch.object(scattering, "_electron_table", bonded):
            show(f"scattering below 0.2 per angstrom {factor:g} times as strong", response(crystal()))


if __name__ == "__main__":
    main()
