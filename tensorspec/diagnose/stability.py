"""Whether fits from other starts, and of other pixels, find the same components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.diagnose.match import compare, match_factors
from tensorspec.fit import fit
from tensorspec.noise.unfold import row_dims

__all__ = ["split_half", "stability"]


def stability(data: Any, model: Any, n: int = 20, *, seed: int = 0, **options: Any) -> xr.Dataset:
    """Repeat a fit from random starts, and tell how alike its components are.

    Parameters
    ----------
    data : DataArray or mapping of str to DataArray
        As `fit` takes it.
    model : model
        As `fit` takes it.
    n : int
        Number of starts, at least two.
    seed : int
        Of the first; the others follow.
    **options
        Further arguments of `fit`, but for ``restarts``.

    Returns
    -------
    Dataset
        ``objective`` by ``run``; ``congruence`` by ``run`` and ``component``: how alike each component of the run with
        the lowest objective is to its partner in that run, the product of cosines over the modes, 1 where they are the
        same; ``stability`` by ``component``: the median over the other runs.

    Raises
    ------
    InvalidArgument
        If `n` is no whole number of at least two.

    Examples
    --------
    >>> from tensorspec.models.cp import NMF
    >>> maps, spectra = np.eye(2)[[0, 1, 1, 0]], np.array([[1.0, 2, 0], [0, 1, 3]])
    >>> data = xr.DataArray(maps @ spectra, dims=("x", "energy"))
    >>> stability(data, NMF(2), n=3).stability.values.round(3)
    array([1., 1.])
    """
    from tensorspec.starts.random import Random

    whole("n", n, 2)
    options = {"start": Random(), "progress": False, **options}
    runs = [fit(data, model, seed=seed + index, **options) for index in range(n)]
    objective = np.array([float(run.objective) for run in runs])
    best = int(np.argmin(objective))
    congruence = np.array([compare(runs[best], run).congruences for run in runs])
    others = np.delete(congruence, best, axis=0)
    return xr.Dataset(
        {
            "objective": ("run", objective),
            "congruence": (("run", "component"), congruence),
            "stability": ("component", np.median(np.nan_to_num(others), axis=0)),
        },
        coords={"run": np.arange(1, n + 1), "component": np.arange(1, congruence.shape[1] + 1)},
        attrs={"best": best + 1},
    )


def split_half(
    data: xr.DataArray, model: Callable[[int], Any], ranks: Sequence[int], *, seed: int = 0, **options: Any
) -> list[np.ndarray]:
    """Fit two random halves of the pixels, and compare what they say of all other modes.

    Parameters
    ----------
    data : DataArray
        With pixels, or else the first dimension, to be halved.
    model : callable
        Gives the model of a rank.
    ranks : sequence of int
        Ranks to try.
    seed : int
        Of the halves and of the fits.
    **options
        Further arguments of `fit`.

    Returns
    -------
    list of (rank,) ndarray
        For each rank the congruence of the pairs of components, falling.

    References
    ----------
    Harshman and DeSarbo, in Research Methods for Multimode Data Analysis (Praeger, 1984) 602.
    """
    rows = row_dims(data)
    rng = np.random.default_rng(seed)
    flat = data.as_numpy().stack(__pixel__=rows, create_index=False).transpose("__pixel__", ...)
    flat = flat.drop_vars([name for name, coord in flat.coords.items() if "__pixel__" in coord.dims])
    order = rng.permutation(flat.sizes["__pixel__"])
    half = len(order) // 2
    # The name of one dimension of pixels, so that constraints on that mode find it.
    halves = [
        flat.isel(__pixel__=np.sort(part)).rename(__pixel__=rows[-1]) for part in (order[:half], order[half : 2 * half])
    ]
    found = []
    for rank in ranks:
        one, other = (fit(part, model(rank), seed=seed, progress=False, **options) for part in halves)
        modes = [mode for mode in one.factors if rows[-1] not in one.factors[mode].dims]
        first, second = (
            [item.factors[mode].values.reshape(item.rank, -1).T for mode in modes] for item in (one, other)
        )
        found.append(np.sort(np.nan_to_num(match_factors(first, second).congruences))[::-1])
    return found
