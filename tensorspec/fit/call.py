"""The call that a user types."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument
from tensorspec.fit.checked_call import Call
from tensorspec.fit.compressed import AUTO
from tensorspec.fit.gather import gather
from tensorspec.fit.in_blocks import fit_in_blocks, wanted
from tensorspec.fit.likelihood import first_sweeps
from tensorspec.fit.progress import Progress
from tensorspec.fit.record import digest_of, finish
from tensorspec.fit.runs import make_starts, open_checkpoint, run_all
from tensorspec.fit.validate import as_mapping, by_tensor, check_count, check_kind, check_memory
from tensorspec.losses import AbstractLoss, LeastSquares
from tensorspec.models.base import AbstractModel
from tensorspec.recipe import to_recipe
from tensorspec.solution import Fit
from tensorspec.solvers.base import AbstractAnySolver
from tensorspec.solvers.loop import Limits
from tensorspec.solvers.status import Status
from tensorspec.starts.base import AbstractStart
from tensorspec.starts.given import From

__all__ = ["fit"]


def fit(
    data: xr.DataArray | Mapping[str, xr.DataArray],
    model: AbstractModel,
    *,
    loss: AbstractLoss | Mapping[str, AbstractLoss] | None = None,
    mask: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    weights: Mapping[str, float] | float | None = None,
    solver: AbstractAnySolver | str = "auto",
    start: AbstractStart | str = "auto",
    restarts: int = 1,
    max_sweeps: int = 1000,
    tol: float = 1e-6,
    seed: int = 0,
    progress: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    rescale: bool = True,
    blocks: bool | str = "auto",
) -> Fit:
    """Fit a model to one or several tensors.

    Minimises the sum over tensors of weight times loss (half the squared residual), plus the penalties.  Tensors that
    share a mode (the same dimension names) share its factor.

    Parameters
    ----------
    data
        A DataArray, or a mapping of names to DataArrays; numpy-, dask- or sparse-backed, counts or floats.  NaN means
        missing.  Sparse arrays, and counts of which few are not zero, are fitted by these alone where model, loss and
        mask allow it (`Fit.why` says so): `CP` and `NMF`, `LeastSquares` and `Poisson`, masks that are a product of one
        per mode.
    model
        For instance ``CP(rank=4, constraints={...})`` or ``NMF(4)``.
    loss
        One loss for all tensors, or a mapping by tensor; by default `LeastSquares`.  With `Poisson` or `Beta` in a fit
        nothing is rescaled, and every term is in units of a log-likelihood.
    mask
        True where an entry is used; broadcasts; a mapping for several tensors.
    modes
        Which dimensions make one mode, for instance ``{"pixel": ("y", "x")}``; by default ``z, y, x`` are ``pixel`` and
        ``tilt_y, tilt_x`` are ``orientation``.
    weights
        Weights of the tensors; by default one over the estimated variance of their noise.  Beside `Poisson` or `Beta`
        they multiply the log-likelihoods.
    solver
        ``"auto"``, or a solver such as `HALS`, `AOADMM` or `Multiplicative`; `GaussNewton` moves all modes at once, to
        polish a fit.
    start
        ``"auto"``, or a start such as `NNDSVD`, `VCA`, `SSS`, `Random` or ``From(fit)``.  With `Poisson`, every start
        but an earlier fit begins with at most 30 sweeps of ``LeastSquares(scaling="poisson")``; of factors that are
        given and what these sweeps make of them those with the higher likelihood are gone on with.
    restarts
        Number of starts; the lowest objective is kept.  On compressed data all go to their ends.  On other large data
        four starts or more race: the half with the higher objective is left after a few sweeps, and so on.
    max_sweeps
        Largest number of sweeps of each start; those on compressed data, which large data begin with, do not count.
    tol
        A start has converged when the objective decreases by less than this share in three consecutive sweeps.
    seed
        What random starts are drawn from.
    progress
        ``"auto"`` shows a bar on a terminal and in a notebook; True or False.
    checkpoint
        A file from which the same call goes on after it was killed; removed when the fit ends.
    time_limit
        Seconds after which the best so far is returned.
    rescale
        Divide each tensor by its root mean square (never beside `Poisson` or `Beta`), so that strengths and tolerances
        do not depend on its unit; ``False`` works in the data's own units.
    blocks
        Whether the data are read again and again in blocks of pixels, and never held as a whole.  ``"auto"``: where
        they are lazy (dask-backed) and would take more than half of the free memory; True or False.  `Fit.why` says how
        many passes were made.

    Returns
    -------
    Fit
        Factors with labels, strengths, history and provenance.

    Raises
    ------
    TensorspecError
        Before any work, when data, model and options do not fit together; the message says what to do.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from tensorspec.models.cp import NMF
    >>> maps, spectra = np.eye(2)[[0, 1, 1, 0]], np.array([[1.0, 2, 0], [0, 1, 3]])
    >>> data = xr.DataArray(maps @ spectra, dims=("x", "energy"))
    >>> result = fit(data, NMF(2), progress=False)
    >>> round(float(result.explained), 6)
    1.0
    """
    began = time.monotonic()
    tensors = as_mapping(data)
    _check_options(model, solver, start, tol, progress, time_limit)
    if blocks not in (True, False, "auto"):
        raise InvalidArgument(f"blocks={blocks!r}: expected True, False or 'auto'")
    count = check_count("restarts", restarts)
    limit = check_count("max_sweeps", max_sweeps)
    seed = check_count("seed", seed, least=0)
    for name, tensor in tensors.items():
        check_kind(name, tensor)
    losses = by_tensor(loss, list(tensors), "loss", LeastSquares())
    limits = Limits(limit, float(tol), None if time_limit is None else began + float(time_limit))
    recipe = _recipe(model, losses, solver, start, modes, weights, restarts, max_sweeps, tol, seed, rescale)
    if wanted(tensors, blocks):
        call = Call(
            losses=losses,
            mask=mask,
            modes=modes,
            weights=weights,
            solver=solver,
            start=start,
            restarts=count,
            limits=limits,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
            rescale=rescale,
            recipe=recipe,
            began=began,
        )
        return fit_in_blocks(tensors, model, call, fit)
    plan = check_memory(tensors, masked=mask is not None)
    background = ThreadPoolExecutor(1)
    with jax.enable_x64(True):
        gathered = gather(tensors, model, losses, mask, modes, weights, solver, rescale)
        # A hash of large data takes a core for longer than a fit may take: only a checkpoint needs it before.
        digest = None if checkpoint is None else background.submit(digest_of, gathered.clean)
        starts = make_starts(start, gathered, count, seed)
        stored = open_checkpoint(checkpoint, digest, recipe, starts)
        with Progress(progress, len(starts), limits) as bar:
            first = first_sweeps(gathered.program.blocks, start)
            compress = getattr(solver, "compress", AUTO)
            best, finals, route = run_all(gathered, starts, limits, stored, bar, first, compress)
        if route is not None:
            gathered = gathered._replace(why=f"{gathered.why}; {route}")

        def hashed() -> Future[dict[str, str]]:
            return background.submit(digest_of, gathered.clean) if digest is None else digest

        result = finish(
            tensors,
            gathered,
            model,
            losses,
            best,
            finals,
            recipe,
            hashed,
            seed,
            began,
            plan,
            rescale,
            start,
            limits,
        )
    background.shutdown(wait=False)
    if stored is not None and best.status not in (Status.INTERRUPTED, Status.TIME_LIMIT):
        stored.path.unlink(missing_ok=True)
    return result


def _check_options(model: Any, solver: Any, start: Any, tol: Any, progress: Any, time_limit: Any) -> None:
    if not isinstance(model, AbstractModel):
        hint = f"; write it with brackets, ts.{model.__name__}(rank=3)" if isinstance(model, type) else ""
        raise InvalidArgument(f"model={model!r}: expected a model such as ts.NMF(3) or ts.CP(3, constraints){hint}")
    if not (solver == "auto" or isinstance(solver, AbstractAnySolver)):
        raise InvalidArgument(f"solver={solver!r}: expected 'auto' or a solver such as ts.HALS() or ts.AOADMM()")
    if not (start == "auto" or isinstance(start, AbstractStart)):
        raise InvalidArgument(f"start={start!r}: expected 'auto' or a start such as ts.Random() or ts.From(fit)")
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not (np.isfinite(tol) and tol >= 0):
        raise InvalidArgument(f"tol={tol!r}: expected a number of zero or more, such as 1e-6")
    if progress not in (True, False, "auto"):
        raise InvalidArgument(f"progress={progress!r}: expected True, False or 'auto'")
    if time_limit is not None and not (isinstance(time_limit, (int, float)) and time_limit > 0):
        raise InvalidArgument(f"time_limit={time_limit!r}: expected seconds above zero, or None")


def _recipe(
    model: AbstractModel,
    losses: Mapping[str, AbstractLoss],
    solver: Any,
    start: Any,
    modes: Any,
    weights: Any,
    restarts: int,
    max_sweeps: int,
    tol: float,
    seed: int,
    rescale: bool,
) -> dict[str, Any]:
    """Return the settings of the call as JSON."""
    return {
        "model": to_recipe(model),
        "loss": {key: to_recipe(item) for key, item in losses.items()},
        "solver": solver if isinstance(solver, str) else to_recipe(solver),
        "start": start if isinstance(start, str) else ("given" if isinstance(start, From) else to_recipe(start)),
        "modes": None if modes is None else {str(k): list(v) for k, v in modes.items()},
        "weights": weights
        if weights is None or isinstance(weights, (int, float))
        else {k: float(v) for k, v in weights.items()},
        "restarts": int(restarts),
        "max_sweeps": int(max_sweeps),
        "tol": float(tol),
        "seed": int(seed),
        "rescale": bool(rescale),
    }
