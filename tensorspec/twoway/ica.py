"""Independent component analysis: many runs of FastICA, their components clustered, and how stable each one is."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import xarray as xr

from tensorspec.arguments import whole
from tensorspec.errors import InvalidArgument, InvalidData, UnknownMode, suggest
from tensorspec.solution import Fit
from tensorspec.solvers.status import Status
from tensorspec.twoway.pca import pca
from tensorspec.twoway.rotation import turned, two_columns

__all__ = ["ICA", "Sources", "ica", "stable_sources"]

LEAST_STABLE = 0.5  # stability index below which a component is not one that the data have
MAX_ITERATIONS, TOLERANCE = 500, 1e-8


@dataclass(frozen=True)
class ICA:
    """Settings of an independent component analysis, as `ica` takes them."""

    rank: int
    independent: str
    derivative: bool = False
    scaling: Literal["poisson"] | None = None
    restarts: int = 20


def ica(
    data: xr.DataArray,
    rank: int,
    *,
    mode: str | None = None,
    derivative: bool = False,
    scaling: Literal["poisson"] | None = None,
    restarts: int = 20,
    mask: xr.DataArray | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Fit:
    """Independent component analysis: rotate principal components until their spectra, or maps, are independent.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes.
    rank : int
        Number of components, 2 or more.
    mode : str, optional
        The mode on which components are taken to be independent: by default that of the spectra; ``"pixel"`` for maps.
    derivative : bool
        Make the first differences along the mode independent instead of the values (of a mode of one dimension): a
        common background is then hardly seen.
    scaling : "poisson", optional
        Of the principal component analysis before it, see `pca`.
    restarts : int
        Runs of FastICA from random starts, 2 or more.
    mask, modes
        As `pca` takes them.
    seed : int
        Of the starts.

    Returns
    -------
    Fit
        The model of the data that the principal components are, rotated; components sorted by energy.
        ``provenance["stability"]`` has the stability index of each: 1 where all runs give the same component.

    Raises
    ------
    InvalidArgument
        For fewer than two components or runs, or a derivative of a map.
    UnknownMode
        If there is no such mode.
    InvalidData
        If FastICA finds no independent components, and whatever `pca` refuses.

    Warns
    -----
    UserWarning
        If a component has a stability index below 0.5: the data do not determine it.

    Notes
    -----
    FastICA (scikit-learn, logcosh, symmetric) from every start; the ``restarts * rank`` components are clustered by
    the magnitude of their correlation, average linkage, into `rank` clusters.  The stability index is the mean
    similarity within a cluster minus that to all others; the component kept of a cluster is the one most similar to
    its others (ICASSO; Himberg, Hyvärinen and Esposito, NeuroImage 22 (2004) 1214,
    doi:10.1016/j.neuroimage.2004.03.027).  Real spectra overlap and are not independent: take the result as a
    rotation to look at.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> spectra, maps = rng.laplace(size=(2, 400)), rng.random((2, 30))
    >>> fit = ica(xr.DataArray(maps.T @ spectra, dims=("x", "energy_loss")), 2, restarts=4)
    >>> similar = np.abs(np.corrcoef(fit.factors["energy_loss"], spectra)[:2, 2:])
    >>> bool((similar.max(axis=0) > 0.99).all())
    True
    """
    began = time.monotonic()
    restarts, seed = whole("ica: restarts", restarts, 2), whole("ica: seed", seed, 0)
    whole("ica: rank", rank, 2)
    start = pca(data, rank, scaling, mask=mask, modes=modes, seed=seed)
    if mode is None:
        mode = start.signal_mode()
    elif mode not in start.modes:
        raise UnknownMode(f"ica: no mode {mode!r}; the data have {list(start.modes)}.{suggest(mode, start.modes)}")
    if derivative and len(start.modes[mode].dims) > 1:
        dims = list(start.modes[mode].dims)
        raise InvalidArgument(f"ica: derivative=True needs a mode of one dimension; {mode!r} has {dims}")
    columns, _ = two_columns(start, mode)
    samples = np.diff(columns, axis=0) if derivative else columns
    samples = samples[np.isfinite(samples).all(axis=1)]
    if len(samples) <= rank:
        raise InvalidData(f"ica: {len(samples)} points of {mode!r} are too few for {rank} components")
    found = stable_sources(samples, restarts, seed)
    fit = turned(start, mode, found.unmixing, f"rotation to independent components on {mode!r}", sort=True)
    order = np.array(fit.provenance["component_order"]) - 1
    stability = xr.DataArray(
        found.stability[order], dims="component", coords={"component": fit.strengths()["component"]}, name="stability"
    )
    low = [
        f"{int(number)} ({float(value):.2f})"
        for number, value in zip(stability["component"], stability, strict=True)
        if value < LEAST_STABLE
    ]
    if low:
        warnings.warn(
            f"ica: the stability index of components {', '.join(low)} is below {LEAST_STABLE:g}: the data do not "
            "determine them; lower the rank, or use constraints (ts.fit)",
            UserWarning,
            stacklevel=2,
        )
    provenance = {
        **fit.provenance,
        "stability": stability,
        "runs_that_settled": found.settled,
        "seed": seed,
        "wall_seconds": round(time.monotonic() - began, 3),
    }
    return dataclasses.replace(
        fit,
        model=ICA(int(rank), mode, bool(derivative), scaling, restarts),
        solver="FastICA",
        why=f"{restarts} runs clustered by correlation, after: {start.why}",
        status=Status.CONVERGED if found.settled else Status.MAX_SWEEPS,
        provenance=provenance,
    )


class Sources(NamedTuple):
    """Unmixing matrix (rank, rank), sources = samples @ unmixing; stability of each; how many runs settled."""

    unmixing: np.ndarray
    stability: np.ndarray
    settled: int


def stable_sources(samples: np.ndarray, restarts: int, seed: int) -> Sources:
    """Run FastICA many times, cluster the components, and return the centre of each cluster.

    Parameters
    ----------
    samples : (samples, rank) array
        Mixtures in columns.
    restarts, seed : int
        Runs, and what their starts are drawn from.

    Raises
    ------
    InvalidData
        If the mixtures are linearly dependent, or clusters coincide.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    rank = samples.shape[1]
    centred = samples - samples.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    if values[-1] <= 1e-10 * values[0]:
        raise InvalidData("ica: the principal components are linearly dependent without their means; lower the rank")
    white = left * np.sqrt(len(samples))
    rng, rows, settled = np.random.default_rng(seed), [], 0
    for _ in range(restarts):
        first = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
        run: Any = FastICA(whiten=cast(Any, False), w_init=first, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted, and told in the record
            run.fit(white)
        settled += run.n_iter_ < MAX_ITERATIONS
        rows.append(np.asarray(run.components_))
    directions = np.concatenate(rows)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # Of white samples the correlation of two components is the product of their directions.
    similarity = np.minimum(np.abs(directions @ directions.T), 1.0)
    distance = squareform(1 - similarity, checks=False)
    cluster = fcluster(linkage(np.maximum(distance, 0), "average"), rank, "maxclust")
    centres, stability = [], []
    for label in range(1, rank + 1):
        inside = cluster == label
        if not inside.any():
            raise InvalidData("ica: FastICA finds fewer independent components than asked; lower the rank")
        centres.append(directions[inside][np.argmax(similarity[np.ix_(inside, inside)].sum(axis=1))])
        outside = similarity[np.ix_(inside, ~inside)]
        stability.append(similarity[np.ix_(inside, inside)].mean() - outside.mean())
    turn = np.stack(centres, axis=1)
    if np.linalg.cond(turn) > 1e6:
        raise InvalidData("ica: two independent components are the same; lower the rank")
    return Sources(right.T @ (turn / values[:, np.newaxis]), np.array(stability), int(settled))
