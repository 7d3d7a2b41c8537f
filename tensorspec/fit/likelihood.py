"""What a likelihood asks of data, model and units, before the first sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from tensorspec.algebra.entries import Entries
from tensorspec.constraints.base import AbstractConstraint
from tensorspec.constraints.compose import ModeConstraints
from tensorspec.coupling.operators import Parametric
from tensorspec.errors import ConstraintConflict, InvalidData, TensorspecError
from tensorspec.fit.behind import Behind
from tensorspec.fit.validate import CleanTensor, place
from tensorspec.losses.base import AbstractDivergence, AbstractLoss, AbstractRobustLoss, EntryWeights
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.losses.likelihood import Poisson
from tensorspec.modes import ModeLabels
from tensorspec.noise import NoiseModel, estimate_noise, noise_at_a_glance
from tensorspec.recipe import constructor_repr
from tensorspec.solution import Fit
from tensorspec.solvers.dispatch import BlockPlan, joint_solver
from tensorspec.solvers.scoring import expected_curvature
from tensorspec.starts.given import From

__all__ = [
    "WARM_START",
    "check_counts",
    "check_model",
    "check_operators",
    "first_sweeps",
    "reference_loss",
    "strength_units",
    "warm_start",
]

# The short fit that a Poisson fit begins from: loss, largest number of sweeps, and when it has come close enough.
WARM_START = {"loss": "LeastSquares(scaling='poisson')", "max_sweeps": 30, "tol": 1e-3}
_ROWS = 2**20
# Variance of the noise over the mean square of the data below which data count as free of noise.
_LEAST_NOISE = 1e-10


def check_counts(
    losses: Mapping[str, AbstractLoss],
    tensors: Mapping[str, xr.DataArray],
    cleaned: Mapping[str, CleanTensor],
    names: Mapping[str, tuple[str, ...]],
    labels: Mapping[str, Mapping[str, ModeLabels]],
) -> list[str]:
    """Refuse values that a divergence cannot take, and return warnings about data that are not counts.

    Raises
    ------
    InvalidData
        For negative values, and for zeros where the divergence does not allow them: how many, and where the first is.
    """
    notes: list[str] = []
    for key, loss in losses.items():
        if not isinstance(loss, AbstractDivergence):
            continue
        values, valid = cleaned[key].values, cleaned[key].valid
        if not isinstance(values, (np.ndarray, Entries)):  # in blocks: the first pass has refused what it had to
            notes += _are_counts(key, tensors[key], values.fractional) if isinstance(loss, Poisson) else []
            continue
        if isinstance(values, Entries):
            notes += _check_entries(key, loss, values, tensors[key], names[key], labels[key])
            continue
        wrong = values < 0 if loss.zeros_allowed else values <= 0
        if valid is not None:
            wrong = wrong & valid
        if wrong.any():
            allowed = "zero or more" if loss.zeros_allowed else "above zero"
            raise InvalidData(
                f"tensor {key!r} has {int(wrong.sum())} values that {constructor_repr(loss)} cannot take (lowest "
                f"{np.min(values, where=True if valid is None else valid, initial=np.inf):.6g}), the first at "
                f"{place(wrong, names[key], labels[key])}: expected values {allowed}. Mask them, or use a loss that "
                "takes them, such as ts.LeastSquares(). Data from which a background was subtracted are no counts any "
                "more: fit them before the subtraction"
            )
        if isinstance(loss, Poisson):
            broken = float(np.mean(values != np.rint(values))) if values.dtype.kind == "f" else 0.0
            notes += _are_counts(key, tensors[key], broken)
    return notes


def _check_entries(
    key: str,
    loss: AbstractDivergence,
    values: Entries,
    tensor: xr.DataArray,
    names: tuple[str, ...],
    labels: Mapping[str, ModeLabels],
) -> list[str]:
    """Refuse negative values of data that are mostly zero, and return warnings where they are no counts."""
    different, often = (found[1:] for found in values.histogram)
    if (different < 0).any():
        wrong = np.flatnonzero(values.stored < 0)
        first = int(np.ravel_multi_index([index[wrong[0]] for index in values.indices], values.shape))
        raise InvalidData(
            f"tensor {key!r} has {len(wrong)} values that {constructor_repr(loss)} cannot take (lowest "
            f"{values.stored.min():.6g}), the first at {place(first, names, labels)}: expected values zero or more"
        )
    if not isinstance(loss, Poisson) or NoiseModel.from_attrs(tensor.attrs) is not None:
        return []
    broken = int(often[different != np.rint(different)].sum())
    if broken:
        share = broken / len(values.stored)
        return [
            f"tensor {key!r} is fitted as counts, but {share:.0%} of its values above zero are not whole numbers; a "
            "Poisson loss means the number of events in each entry, before any scaling, averaging or calibration"
        ]
    # Where most entries are empty, most others hold the least that one event can leave: the gain.
    gain = float(different[np.searchsorted(np.cumsum(often), len(values.stored) / 2)])
    if gain > 1 and float(different.min()) > 1:
        return [
            f"tensor {key!r} is fitted as counts, but no value is 1 and half of those above zero are {gain:.3g} or "
            "less, where single events leave 1. Divide by the gain; if you know that these are counts, say so: "
            "data.attrs['noise'] = ts.NoiseModel().to_attrs()"
        ]
    return []


def _are_counts(key: str, tensor: xr.DataArray, share: float) -> list[str]:
    notes = []
    if share > 0:
        notes.append(
            f"tensor {key!r} is fitted as counts, but {share:.0%} of its values are not whole numbers; a Poisson loss "
            "means the number of events in each entry, before any scaling, averaging or calibration"
        )
    try:
        noise = NoiseModel.from_attrs(tensor.attrs)
        if noise is None:
            # Most data are counts, and a glance is enough; what a warning says is looked at closely.
            noise = noise_at_a_glance(tensor)
            noise = noise if noise.is_counts else estimate_noise(tensor)
    except TensorspecError:  # too few values to tell
        return notes
    if not noise.is_counts:
        correlation = noise.channel_correlation or 0.0
        notes.append(
            f"tensor {key!r} is fitted as counts, but its noise has a variance of {noise.gain:.3g} times the mean plus "
            f"{noise.read_variance:.3g}, and neighbouring channels correlated by {correlation:.2f}, where counts have "
            "1, 0 and 0 (ts.estimate_noise). Divide by the gain, or use ts.LeastSquares(sigma=...); if you know that "
            "these are counts, say so: data.attrs['noise'] = ts.NoiseModel().to_attrs()"
        )
    return notes


def check_model(
    losses: Mapping[str, AbstractLoss],
    constraints: Mapping[str, Sequence[AbstractConstraint]],
    ranks: Mapping[str, int],
) -> None:
    """Refuse a model that may be negative.

    Raises
    ------
    ConstraintConflict
        Naming the modes that are not non-negative.
    """
    loss = next(constructor_repr(item) for item in losses.values() if isinstance(item, AbstractDivergence))
    signed = [mode for mode, items in constraints.items() if not ModeConstraints(tuple(items), ranks[mode]).nonnegative]
    if signed:
        raise ConstraintConflict(
            f"loss={loss} needs a model that is never negative, and mode {', '.join(map(repr, signed))} may be; use "
            "ts.NMF(rank, constraints), which is ts.CP with ts.NonNegative() on every mode, or add ts.NonNegative() "
            "there"
        )


def check_operators(losses: Mapping[str, AbstractLoss], behind: Behind, operators: Mapping[str, Any]) -> None:
    """Refuse operators that a loss cannot stand behind.

    Raises
    ------
    ConstraintConflict
        For coefficients below zero in front of a divergence, and for parameters to fit beside any loss but squares.
    """
    for key, own in operators.items():
        for mode, operator in zip(behind.names[key], own or (), strict=False):
            if operator is None or losses[key].quadratic:
                continue
            what = f"tensor {key!r} sees mode {mode!r} through {type(operator).__name__}"
            if isinstance(operator, Parametric) and operator.parameters().size:
                raise ConstraintConflict(
                    f"{what}, whose parameter is to be fitted; that needs least squares, and its loss is "
                    f"{constructor_repr(losses[key])}. Fit it with ts.LeastSquares() first, then give the number"
                )
            ones = jnp.ones((behind.labels[mode].size, 1))
            plain, absolute = operator.apply(ones), operator.apply(ones, absolute=True)
            if isinstance(losses[key], AbstractDivergence) and bool(jnp.any(absolute > plain + 1e-9)):
                raise ConstraintConflict(
                    f"{what}, which has coefficients below zero, so that its model may be negative; "
                    f"{constructor_repr(losses[key])} needs a map such as ts.Bin or ts.Broaden"
                )


def strength_units(
    losses: Mapping[str, AbstractLoss],
    cleaned: Mapping[str, CleanTensor],
    weights: Mapping[str, float],
    noise: Mapping[str, tuple[float, str] | None],
) -> tuple[float, float, float, float]:
    """Return what automatic strengths are made of beside a likelihood.

    Near its minimum a likelihood is half a curvature times the squared residual: one over the variance, or what a
    divergence has at the mean of the data.  A strength for least squares of data divided by their root mean square,
    times this, does the same to amplitudes in units of the data.

    Returns
    -------
    level
        Standard deviation of the noise over the root mean square of the data, as least squares has it.
    deviation
        Standard deviation of the noise of an amplitude.
    amplitudes
        Curvature of the misfit along an amplitude, for columns whose weighted squared norms over the tensors sum to
        one.
    shapes
        The same for entries of a column of unit norm, in a fit of one tensor; NaN with several.
    """
    count, evidence, energy, curved, spread = 0, 0.0, 0.0, 0.0, 0.0
    for key, values in cleaned.items():
        square, loss = values.rms**2, losses[key]
        share = max((noise[key] or (0.0, ""))[0] / square, _LEAST_NOISE)
        own, curvature = weights[key] * square * values.count, 1.0
        if isinstance(loss, AbstractDivergence):
            mean = float(values.values.sum(dtype=float)) / values.count
            curvature = float(expected_curvature(loss, jnp.asarray(mean, float)))
        count, evidence, energy = count + values.count, evidence + values.count / share, energy + own
        curved, spread = curved + curvature * own, spread + curvature * own * share
    alone = next(iter(cleaned))
    # The column of a single tensor has unit norm whatever its weight.
    amplitudes = curved / energy * (weights[alone] if len(cleaned) == 1 else 1.0)
    shapes = amplitudes * cleaned[alone].rms ** 2 if len(cleaned) == 1 else float("nan")
    return float(np.sqrt(count / evidence)), float(np.sqrt(spread / count / amplitudes)), amplitudes, shapes


def reference_loss(loss: AbstractLoss, values: CleanTensor) -> float:
    """Return the loss of the best constant model (a divergence) or of no model: what `explained` compares with."""
    assert isinstance(loss, (AbstractDivergence, AbstractRobustLoss))
    total = float(values.values.sum(dtype=float))
    level = total / values.count if isinstance(loss, AbstractDivergence) else 0.0
    if isinstance(values.values, Entries):
        # Counts have few different values.
        different, often = values.values.histogram
        cost = np.asarray(loss.entries(jnp.asarray(different, float), jnp.full(len(different), level)))
        found = float(cost @ often) + float(cost[0]) * (values.count - len(values.values.stored))
        return found if found > 0 else abs(total)
    found, step = 0.0, max(1, _ROWS // max(values.values[0].size, 1))
    for k in range(0, values.values.shape[0], step):
        part = np.asarray(values.values[k : k + step], dtype=float)
        cost = np.asarray(loss.entries(jnp.asarray(part), jnp.full(part.shape, level)))
        if values.valid is not None:
            cost = np.where(np.broadcast_to(values.valid, values.values.shape)[k : k + step], cost, 0.0)
        found += float(cost.sum())
    # Data that are the same everywhere leave nothing to explain.
    return found if found > 0 else abs(total)


def first_sweeps(blocks: Sequence[BlockPlan], start: Any) -> dict[str, Any] | None:
    """Return what a fit begins with before its own sweeps, where it has such a stage; None where it never has.

    Parameters
    ----------
    blocks
        The solvers.
    start
        As given to `fit`.
    """
    joint = joint_solver(blocks)
    if joint is None:
        return None if is_fit(start) else dict(WARM_START)
    usual = {"solver": "auto", "max_sweeps": joint.warm, "tol": WARM_START["tol"]}
    return None if isinstance(start, From) else usual


def is_fit(start: Any) -> bool:
    """Return whether a start is an earlier fit, which is gone on with and not improved upon first."""
    return isinstance(start, From) and isinstance(start.source, Fit)


def warm_start(losses: Mapping[str, AbstractLoss], cleaned: Mapping[str, CleanTensor]) -> dict[str, EntryWeights]:
    """Return, for every tensor of counts, the entry weights of least squares that come close to its likelihood."""
    scaled = LeastSquares(scaling="poisson")
    return {
        key: scaled.entry_weights(cleaned[key].values, cleaned[key].valid, False)
        for key, loss in losses.items()
        if isinstance(loss, Poisson)
    }
