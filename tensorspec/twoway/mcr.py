"""Multivariate curve resolution by alternating least squares (MCR-ALS)."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from tensorspec.arguments import number, whole
from tensorspec.assemble import assemble
from tensorspec.constraints.base import AbstractConstraint, AbstractHardConstraint, Context, Resolvable, Separability
from tensorspec.constraints.compose import ModeConstraints, check_partners, combine
from tensorspec.constraints.known import Fixed
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.constraints.simplex import SumToOne
from tensorspec.errors import ConstraintConflict, InvalidArgument, InvalidData, RankOutOfRange, UnknownMode, suggest
from tensorspec.fit.alignment import align_values
from tensorspec.fit.arrays import labelled
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.models.cp import CP
from tensorspec.modes import ModeLabels
from tensorspec.noise import NoiseModel, estimate_noise
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.solvers.status import Status
from tensorspec.twoway.alternating import FactorRules, Iterated, alternate, blocks_of_rows
from tensorspec.twoway.matrix import Matrix, as_matrix
from tensorspec.twoway.pca import scales_of
from tensorspec.twoway.starts import spectra_to_start_from

__all__ = ["mcr_als"]

# Per cent by which the lack of fit may exceed that expected of noise before it is said.
BEYOND_NOISE = 5.0
# Share by which the lack of fit of a start may exceed the lowest and still be as good.
SAME = 1e-3


def mcr_als(
    data: xr.DataArray,
    start: int | xr.DataArray | Fit,
    constraints: Mapping[str, Any] | None = None,
    *,
    scaling: Literal["poisson"] | None = None,
    noise: NoiseModel | None = None,
    mask: xr.DataArray | None = None,
    modes: Mapping[str, Sequence[str]] | None = None,
    max_iterations: int = 500,
    tol: float = 1e-4,
    seed: int = 0,
) -> Fit:
    """Multivariate curve resolution: maps and spectra in turn by least squares, each exact under its constraints.

    Parameters
    ----------
    data : DataArray
        A spectrum image of two modes; integers or floats, lazy or not. It is held in memory as float64.
    start : int, DataArray or Fit
        Spectra ``(component, *signal dimensions)`` or maps ``(component, *pixel dimensions)`` to begin with, or a fit,
        whose spectra are taken: ``ts.varimax(ts.pca(data, 4, scaling="poisson"))``. A number of components starts from
        five sets of spectra (purest pixels twice, simplest principal components, pixels at random twice); of the
        results whose lack of fit is within a thousandth of the lowest the first is kept.
    constraints : mapping of str to constraint or list of constraints, optional
        For a mode `NonNegative`, ``SumToOne("component")`` (closure), `Unimodal`, `Monotone`, `Box`, and `Fixed` for
        known profiles, equality and windows of selectivity: entries that are NaN are free, those that are zero keep a
        component out. They can name ``components=[...]``. A mode that is not named is `NonNegative`; one that is named
        has only what is named.
    scaling : "poisson", optional
        Weigh residuals with the inverse of the rank-one expectation, as noise of counts asks for.
    noise : NoiseModel, optional
        What the lack of fit is compared with; by default that in ``attrs["noise"]``, else estimated.
    mask : DataArray of bool, optional
        True where data are used; whole pixels and whole channels can be left out.
    modes : mapping of str to sequence of str, optional
        Dimensions that make up a mode, by mode name.
    max_iterations : int
        Never exceeded, for each start.
    tol : float
        The iteration ends when both factors change by less than this share, and the lack of fit by less than ten times
        it.
    seed : int
        Of the starts that are drawn.

    Returns
    -------
    Fit
        Components in the order of the start where one is given, else by strength. ``provenance`` has
        ``lack_of_fit`` and ``expected_lack_of_fit`` (of noise alone), per cent of the root of the sum of squares, and
        ``starts``, the lack of fit that each start came to, which shows whether they agree.

    Raises
    ------
    InvalidData, InvalidArgument
        If the data are no spectrum image of two modes, or the start does not fit them.
    UnknownMode
        If a constraint is given for a mode that is not there.
    ConstraintConflict
        If constraints contradict each other, or cannot be met exactly by this method.
    RankOutOfRange
        If there are fewer pixels or channels with signal than components.

    Warns
    -----
    UserWarning
        If `max_iterations` was reached, or the lack of fit exceeds that of noise.

    Notes
    -----
    Minimises ``1/2 sum (X - C S^T)^2``, which falls at every iteration: a factor with constraints on its entries or the
    sums of its rows is solved row by row by block pivoting, one with constraints on its columns (unimodal, monotone)
    column by column until none moves, instead of a solution without constraints that is cut to them afterwards. A
    component that dies starts again from the pixel that is fitted worst. Where a baseline was subtracted, the lack of
    fit of noise is put too low: its noise is still there. Other constraints are taken by `fit`. De Juan and Tauler,
    Analytica Chimica Acta 500 (2003) 195, doi:10.1016/S0003-2670(03)00724-4.

    Examples
    --------
    >>> maps, spectra = np.array([[4.0, 0, 2], [0, 2, 1]]), np.array([[1.0, 1, 0, 2], [0, 1, 3, 0]])
    >>> data = xr.DataArray([maps.T @ spectra], dims=("y", "x", "energy_loss"))
    >>> guess = xr.DataArray(spectra + 0.1, dims=("component", "energy_loss"))
    >>> found = mcr_als(data, guess, noise=NoiseModel(0, 1e-6))
    >>> found.provenance["lack_of_fit"] < 0.01
    True
    """
    began = time.monotonic()
    if scaling not in (None, "poisson"):
        raise InvalidArgument(f"mcr_als: scaling={scaling!r}; expected None or 'poisson'")
    limit, tol = whole("mcr_als: max_iterations", max_iterations, 1), number("mcr_als: tol", tol, 0, above=True)
    seed = whole("mcr_als: seed", seed, 0)
    matrix = as_matrix("mcr_als", data, mask, modes)
    own = [matrix.labels[mode] for mode in (matrix.row_mode, matrix.column_mode)]
    given, rank = _given(matrix, start)
    if rank > min(matrix.shape):
        raise RankOutOfRange(
            f"mcr_als: {rank} components, but there are {matrix.shape[0]} pixels and {matrix.shape[1]} channels with "
            f"signal; give 1 to {min(matrix.shape)}"
        )
    items = _items(matrix, constraints, rank)
    used = (matrix.used_rows, matrix.used_columns)
    rules = [_rules(mode, each, rank, places) for mode, each, places in zip(own, items, used, strict=True)]
    if scaling and any(each.project for each in rules):
        raise ConstraintConflict(
            "mcr_als: scaling='poisson' weighs the entries of a column differently, and the projection onto unimodal, "
            "monotone or bounded columns does not; leave one of them out, or use ts.fit(data, ts.CP(rank, ...))"
        )
    values = np.empty(matrix.shape)
    for place, block in matrix.blocks():
        values[place] = block
    scales = scales_of("mcr_als", matrix, scaling)
    weights = scales[0] ** -2, scales[1] ** -2
    runs: dict[str, Iterated] = {}
    begin = given or {name: (None, spectra) for name, spectra in spectra_to_start_from(values, rank, seed).items()}
    for name, pair in begin.items():
        runs[name] = alternate(values, weights, (rules[0], rules[1]), pair, limit, tol)
    lowest = min(min(run.squares) for run in runs.values())
    # Those that hardly differ in the lack of fit are equally good: what starts at pure pixels comes first.
    best = next(name for name, run in runs.items() if min(run.squares) <= (1 + SAME) ** 2 * lowest)
    result = _assembled(matrix, runs[best], rules, items, rank, scaling, given is None, modes)
    whole_sum = float(weights[0] @ (values**2) @ weights[1])
    lack = {name: 100 * float(np.sqrt(min(run.squares) / whole_sum)) for name, run in runs.items()}
    noise = (
        noise
        or NoiseModel.from_attrs(matrix.data.attrs)
        or estimate_noise(matrix.data.where(mask) if mask is not None else matrix.data)
    )
    expected = _expected(noise, runs[best], weights, whole_sum)
    known = {
        "lack_of_fit": lack[best],
        "expected_lack_of_fit": expected,
        "noise": repr(noise),
        "starts": lack,
        "seed": seed,
        "wall_seconds": round(time.monotonic() - began, 3),
        "input_sha256": {"data": matrix.digest},
    }
    if not runs[best].settled:
        warnings.warn(
            f"mcr_als: not settled after {limit} iterations; raise max_iterations, or tol", UserWarning, stacklevel=2
        )
    if lack[best] > (1 + BEYOND_NOISE / 100) * expected:
        warnings.warn(
            f"mcr_als: a lack of fit of {lack[best]:.3g} %, where noise alone leaves {expected:.3g} %: a component too "
            "few, a constraint that does not hold, or more noise than thought",
            UserWarning,
            stacklevel=2,
        )
    return dataclasses.replace(result, provenance={**result.provenance, **known})


def _given(matrix: Matrix, start: object) -> tuple[dict[str, tuple[np.ndarray | None, np.ndarray | None]] | None, int]:
    """Return maps or spectra to start from, of used points only, and the number of components."""
    if isinstance(start, bool) or not isinstance(start, int | np.integer | xr.DataArray | Fit):
        raise InvalidArgument(
            f"mcr_als: start is a {type(start).__name__}; expected a number of components, spectra or maps as a "
            "DataArray with a dimension 'component', or a Fit"
        )
    if isinstance(start, int | np.integer):
        if start < 1:
            raise RankOutOfRange(f"mcr_als: start={start!r}; expected a number of components of 1 or more")
        return None, int(start)
    if isinstance(start, Fit):
        if matrix.column_mode not in start.factors:
            raise InvalidArgument(
                f"mcr_als: the fit to start from has the modes {list(start.factors)}, the data {list(matrix.labels)}"
            )
        spectra = start.factors[matrix.column_mode]
        spectra = spectra.drop_vars([name for name in spectra.coords if name not in spectra.dims])
        # Signs of principal components are a convention: the side with more in it is up.
        total = spectra.sum([dim for dim in spectra.dims if dim != "component"])
        given: xr.DataArray = spectra.where(total >= 0, -spectra)
    else:
        given = start
    own = set(given.dims) - {"component"}
    for place, (mode, used) in enumerate(
        ((matrix.row_mode, matrix.used_rows), (matrix.column_mode, matrix.used_columns))
    ):
        labels = matrix.labels[mode]
        if own == set(labels.dims) and "component" in given.dims:
            rank = given.sizes["component"]
            array, _ = align_values(given, labels, rank, tuple(range(1, rank + 1)), "start")
            picked = array[used]
            if not np.isfinite(picked).all():
                raise InvalidData(
                    f"mcr_als: start is not finite at {int((~np.isfinite(picked)).any(axis=1).sum())} points of mode "
                    f"{mode!r} that the data have"
                )
            return {"given": (picked, None) if place == 0 else (None, picked)}, rank
    raise InvalidArgument(
        f"mcr_als: start has the dimensions {tuple(given.dims)}; expected 'component' and those of the spectra, "
        f"{matrix.labels[matrix.column_mode].dims}, or of the maps, {matrix.labels[matrix.row_mode].dims}"
    )


def _items(matrix: Matrix, constraints: Mapping[str, Any] | None, rank: int) -> list[tuple[AbstractConstraint, ...]]:
    """Return the constraints of maps and spectra, with plain arrays on the points of the modes."""
    asked = dict(constraints or {})
    found = []
    for name in asked:
        if name not in matrix.labels:
            raise UnknownMode(
                f"mcr_als: constraint given for mode {name!r}; these data have {list(matrix.labels)}."
                f"{suggest(name, matrix.labels)}"
            )
    for mode in (matrix.row_mode, matrix.column_mode):
        own = asked.get(mode, NonNegative())
        own = tuple(own) if isinstance(own, Sequence) else (own,)
        for item in own:
            if not isinstance(item, AbstractConstraint):
                raise InvalidArgument(f"mcr_als: {item!r} on mode {mode!r} is no constraint such as ts.NonNegative()")
            if not isinstance(item, AbstractHardConstraint) or (
                item.separability not in (Separability.ENTRY, Separability.COLUMN) and not isinstance(item, SumToOne)
            ):
                raise ConstraintConflict(
                    f"mcr_als: {constructor_repr(item)} on mode {mode!r} has no exact least-squares step here; use "
                    f"ts.fit(data, ts.CP({rank}, constraints=...)), which takes it"
                )
            if item.components is not None and max(item.components) > rank:
                raise InvalidArgument(
                    f"mcr_als: {constructor_repr(item)} on mode {mode!r}: there are components 1 to {rank}"
                )
        check_partners(mode, own)
        found.append(labelled(own, matrix.labels[mode], rank))
    return found


def _rules(mode: ModeLabels, items: Sequence[AbstractConstraint], rank: int, used: np.ndarray) -> FactorRules:
    """Return what a factor has to satisfy on the points used."""
    context = Context(mode.name, mode.shape, mode.coordinates, mode.units, rank, float("nan"), 1.0)
    items = [item.resolve(context) if isinstance(item, Resolvable) else item for item in items]
    signs = np.zeros(rank, dtype=bool)
    known = np.full((mode.size, rank), np.nan)
    closed, tied = False, False
    for item in items:
        columns = np.arange(rank) if item.components is None else np.array(item.components) - 1
        if isinstance(item, NonNegative):
            signs[columns] = True
        elif isinstance(item, Fixed):
            known[:, columns] = np.asarray(item.values, dtype=float)
        elif isinstance(item, SumToOne) and item.axis == "component":
            if item.components is not None:
                raise ConstraintConflict("mcr_als: closure takes all components; leave components= out")
            closed = True
        else:
            tied = True
    rules = FactorRules(signs, known[used], closed)
    if closed and not (signs.all() or not signs.any()):
        raise ConstraintConflict(
            f"mcr_als: closure on mode {mode.name!r} takes components that are all NonNegative(), or none of them"
        )
    if closed and signs.all() and (np.nansum(rules.known, axis=1) > 1 + 1e-9).any():
        raise ConstraintConflict(f"mcr_als: known values on mode {mode.name!r} add up to more than one")
    if not tied:
        return rules
    together = ModeConstraints(combine(items), rank)
    if closed or together.splits > 1:
        raise ConstraintConflict(
            f"mcr_als: {', '.join(constructor_repr(item) for item in items)} on mode {mode.name!r} have no exact step "
            "together; put them on different components, or use ts.fit with ts.CP"
        )
    if len(used) < mode.size:
        raise ConstraintConflict(
            f"mcr_als: {mode.size - len(used)} points of mode {mode.name!r} are empty or left out, and "
            f"{', '.join(constructor_repr(item) for item in items)} tie its points together; crop the data, or use "
            "ts.fit with ts.CP"
        )

    def project(values: np.ndarray, column: int) -> np.ndarray:
        import jax
        import jax.numpy as jnp

        with jax.enable_x64(True):
            return np.asarray(together.prox(jnp.asarray(values), 1.0, column))

    return dataclasses.replace(rules, project=project)


def _expected(noise: NoiseModel, run: Iterated, weights: tuple[np.ndarray, np.ndarray], whole_sum: float) -> float:
    """Return the lack of fit that noise alone leaves, per cent."""
    rows, rank = run.maps.shape
    columns = len(run.spectra)
    variance = sum(
        float(weights[0][part] @ noise.variance(np.maximum(run.maps[part] @ run.spectra.T, 0)) @ weights[1])
        for part in blocks_of_rows(rows)
    )
    free = max(1 - rank * (rows + columns - rank) / (rows * columns), 0.0)
    return 100 * float(np.sqrt(variance * free / whole_sum))


def _assembled(
    matrix: Matrix,
    run: Iterated,
    rules: Sequence[FactorRules],
    items: Sequence[Sequence[AbstractConstraint]],
    rank: int,
    scaling: Literal["poisson"] | None,
    sort: bool,
    modes: Mapping[str, Sequence[str]] | None,
) -> Fit:
    """Return maps and spectra with labels; columns whose scale a constraint fixes keep it."""
    order = np.arange(rank)
    if sort and all(item.components is None for own in items for item in own):
        order = np.argsort(-np.linalg.norm(run.maps, axis=0) * np.linalg.norm(run.spectra, axis=0), kind="stable")
    columns = {
        matrix.row_mode: matrix.spread(run.maps[:, order], rows=True),
        matrix.column_mode: matrix.spread(run.spectra[:, order], rows=False),
    }
    loss = LeastSquares(scaling=scaling)
    mask = matrix.mask()
    named = zip((matrix.row_mode, matrix.column_mode), items, strict=True)
    fit = assemble(
        {"data": matrix.data},
        {mode: columns[mode] for mode in matrix.labels},
        modes=modes,
        records={"data": {"loss": constructor_repr(loss)}},
        model=CP(rank, {mode: list(own) for mode, own in named}),
        losses={"data": loss},
        solver="MCR-ALS",
        why="asked for",
        status=Status.CONVERGED if run.settled else Status.MAX_SWEEPS,
        objective=min(run.squares) / 2,
        history=xr.DataArray(
            np.array(run.squares) / 2,
            dims="sweep",
            coords={"sweep": np.arange(1, len(run.squares) + 1)},
            name="objective",
        ),
        sweeps=len(run.squares),
        masks={} if mask is None else {"data": mask},
    )
    factors, weights = dict(fit.factors), fit.weights
    assert weights is not None
    for mode, own in zip((matrix.row_mode, matrix.column_mode), rules, strict=True):
        norm = np.sqrt(np.nansum(columns[mode] ** 2, axis=0))
        kept = xr.DataArray(np.where(own.scaled[order] & (norm > 0), norm, 1.0), dims="component")
        factors[mode] = (factors[mode] * kept).transpose(*fit.factors[mode].dims).assign_attrs(fit.factors[mode].attrs)
        weights = weights / kept
    return dataclasses.replace(fit, factors=factors, weights=weights)
