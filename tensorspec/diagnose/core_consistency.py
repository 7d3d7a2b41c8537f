"""Core consistency: whether component k of one mode really meets only component k of the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorspec.contributions import measured, reconstruct, used_entries
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.fit import fit as fit_model
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.losses.likelihood import Poisson
from tensorspec.models.cp import CP
from tensorspec.modes import to_array
from tensorspec.noise import poisson_marginals
from tensorspec.pieces import refuse_evolving
from tensorspec.solution import Fit
from tensorspec.starts.given import From

__all__ = ["core_consistency"]


def core_consistency(fit: Fit, data: Any = None, *, unconstrained: bool = False) -> float | dict[str, float]:
    """Compare the best core for the factors of a fit with the diagonal one that its model has.

    Parameters
    ----------
    fit : Fit
        Of a `CP` model (or `NMF`) on tensors of three modes or more.
    data : DataArray or mapping of str to DataArray, optional
        The data, if the fit does not hold them.
    unconstrained : bool
        Whether the fit is gone on with, by least squares without any constraint, before it is judged: constraints can
        keep a component too many from showing itself, and can lower the figure of a model that is right.

    Returns
    -------
    float or dict of str to float
        Per cent, by tensor if there are several: 100 where the core is diagonal. Near 90 and more the components meet
        one to one; around 50 it is doubtful; near zero or below, components describe the same thing twice. At a rank
        that is too low it is high all the same: only its fall from one rank to the next says anything.

    Raises
    ------
    InvalidArgument
        If the fit has a core of its own, or a tensor has only two modes, for which every core fits the data equally
        well.
    InvalidData
        If the data are not given and not held.

    Notes
    -----
    ``100 (1 - sum (g - t)^2 / rank)``, with ``g`` the least-squares core for factors that carry the strengths in equal
    parts and ``t`` one on the diagonal: Bro and Kiers, Journal of Chemometrics 17 (2003) 274, doi:10.1002/cem.801.
    After ``LeastSquares(scaling="poisson")`` and `Poisson` the core is weighed in the same way. Missing entries are
    those of the model.

    Examples
    --------
    >>> import xarray as xr
    >>> from tensorspec.assemble import assemble
    >>> rng = np.random.default_rng(0)
    >>> factors = {mode: rng.normal(size=(size, 2)) for mode, size in (("x", 6), ("tilt", 5), ("energy_loss", 7))}
    >>> tensor = xr.DataArray(np.einsum("ir,jr,kr->ijk", *factors.values()), dims=list(factors))
    >>> found = assemble({"data": tensor}, {"pixel": factors["x"], **{k: factors[k] for k in ("tilt", "energy_loss")}})
    >>> round(core_consistency(found), 6)
    100.0
    """
    if fit.cores:
        raise InvalidArgument("core_consistency: this fit has a core of its own; it judges fits of ts.CP and ts.NMF")
    refuse_evolving(fit, "core_consistency", "it judges fits of ts.CP and ts.NMF")
    for name, record in fit.tensors.items():
        if len(record.modes) < 3:
            raise InvalidArgument(
                f"core_consistency: tensor {name!r} has the modes {list(record.modes)}; with two, any turn of the "
                "components fits equally well, and there is no core to judge"
            )
    if fit.views:
        raise InvalidArgument("core_consistency: this fit sees a mode through an operator, which a core does not know")
    if unconstrained:
        fit = _without_constraints(fit, data)
        data = None
    found = {name: _consistency(fit, name, data) for name in fit.tensors}
    return next(iter(found.values())) if len(found) == 1 else found


def _without_constraints(fit: Fit, data: Any) -> Fit:
    tensors = {name: measured(fit, name, data) for name in fit.tensors}
    losses = {name: LeastSquares(scaling="poisson" if _by_counts(fit, name) else None) for name in tensors}
    return fit_model(
        tensors,
        CP(fit.rank, scale=getattr(fit.model, "scale", None)),
        loss=losses,
        mask=dict(fit.masks) or None,
        start=From(fit),
        progress=False,
    )


def _by_counts(fit: Fit, name: str) -> bool:
    loss = fit.losses.get(name)
    return getattr(loss, "scaling", None) == "poisson" or isinstance(loss, Poisson)


def _consistency(fit: Fit, name: str, data: Any) -> float:
    record = fit.tensors[name]
    tensor = measured(fit, name, data)
    model = reconstruct(fit, name)
    values = tensor.copy(data=tensor.data.todense()) if hasattr(tensor.data, "todense") else tensor
    values = values.as_numpy().astype(float).drop_vars(list(tensor.coords))
    used = used_entries(fit, name)
    values = values if used is None else values.where(used)
    filled = values.fillna(model.drop_vars(list(model.coords)))
    array = np.nan_to_num(np.asarray(to_array(filled.transpose(*record.dims), record.modes, fit.modes), dtype=float))
    weights = fit.strengths(name).values.astype(float)
    alive = np.flatnonzero(weights != 0)
    if not alive.size:
        raise InvalidData(f"core_consistency: all components of tensor {name!r} are zero")
    share = np.abs(weights[alive]) ** (1 / len(record.modes))
    totals = poisson_marginals(array) if _by_counts(fit, name) else None
    factors = []
    for axis, mode in enumerate(record.modes):
        columns = np.nan_to_num(fit.factors[mode].values.reshape(fit.rank, -1).T.astype(float))[:, alive] * share
        if axis == 0:
            columns = columns * np.sign(weights[alive])
        if totals is not None:
            own = totals[axis]
            scale = np.sqrt(np.maximum(own, 1e-12 * max(float(own.max()), 1e-300)))
            columns = columns / scale[:, np.newaxis]
            array = array / scale.reshape([-1 if k == axis else 1 for k in range(array.ndim)])
        factors.append(columns)
    core = array
    for axis, columns in enumerate(factors):
        core = np.moveaxis(np.tensordot(np.linalg.pinv(columns), core, axes=(1, axis)), 0, axis)
    rank = len(alive)
    diagonal = np.zeros_like(core)
    diagonal[(np.arange(rank),) * core.ndim] = 1
    return float(100 * (1 - ((core - diagonal) ** 2).sum() / rank))
