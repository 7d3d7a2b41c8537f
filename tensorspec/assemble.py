"""Put labels on arrays: the last step of every method that gives a fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.contributions import measured
from tensorspec.errors import InvalidData
from tensorspec.modes import find_modes, split
from tensorspec.solution import Fit, TensorRecord
from tensorspec.solvers.status import Status

__all__ = ["assemble"]


def assemble(
    data: Mapping[str, xr.DataArray],
    factors: Mapping[str, np.ndarray],
    weights: np.ndarray | None = None,
    *,
    modes: Mapping[str, Sequence[str]] | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Fit:
    """Return the fit that these arrays are, with the labels of the data and columns of unit norm.

    Parameters
    ----------
    data : mapping of str to DataArray
        The tensors; their values are used for the explained share.
    factors : mapping of str to (size, rank) array
        One array a mode, in units of your choice; NaN where never measured.
    weights : (rank,) or (tensors, rank) array, optional
        Strengths of the columns as given; by default one.
    modes : mapping of str to sequence of str, optional
        Dimensions that make up a mode, by mode name.
    records : mapping of str to mapping, optional
        Fields of `TensorRecord` that are known, by tensor; an ``explained`` share that is given is not computed.
    **settings
        Fields of `Fit` that are known: ``model``, ``solver``, ``history``, ...

    Returns
    -------
    Fit

    Raises
    ------
    InvalidData
        If the factors are not those of the modes of the data.

    Examples
    --------
    >>> data = xr.DataArray(np.outer([1.0, 3.0], [4.0, 2.0]), dims=("x", "energy_loss"))
    >>> fit = assemble({"data": data}, {"pixel": np.array([[1.0], [3.0]]), "energy_loss": np.array([[4.0], [2.0]])})
    >>> fit.explained
    1.0
    >>> float((fit.factors["pixel"] ** 2).sum().round(12))
    1.0
    """
    labels, names = find_modes(data, modes)
    if set(factors) != set(labels):
        raise InvalidData(f"factors of the modes {list(factors)} are given; the data have {list(labels)}")
    norms = {mode: np.sqrt(np.nansum(np.square(np.asarray(values, float)), axis=0)) for mode, values in factors.items()}
    rank = len(next(iter(norms.values())))
    strengths = np.ones((len(data), rank)) if weights is None else np.atleast_2d(weights).astype(float)
    strengths = np.stack(
        [
            np.prod([row, *(norms[mode] for mode in names[key])], axis=0)
            for row, key in zip(strengths, data, strict=True)
        ]
    )
    unit = {
        mode: split((np.asarray(values) / np.where(norms[mode] > 0, norms[mode], 1)).T, labels[mode])
        for mode, values in factors.items()
    }
    component = {"component": np.arange(1, rank + 1)}
    known: dict[str, Any] = {
        "model": None,
        "losses": {},
        "solver": "",
        "why": "",
        "status": Status.CONVERGED,
        "objective": float("nan"),
        "history": xr.DataArray(np.zeros(0), dims="sweep", coords={"sweep": np.zeros(0, int)}),
        "sweeps": 0,
        "data": dict(data),
    }
    fit = Fit(
        factors=unit,
        weights=xr.DataArray(strengths[0], dims="component", coords=component, name="weights")
        if len(data) == 1
        else xr.DataArray(
            strengths, dims=("tensor", "component"), coords={"tensor": list(data), **component}, name="weights"
        ),
        tensors={key: _record(tensor, names[key]) for key, tensor in data.items()},
        modes=labels,
        **(known | settings),
    )
    given = {key: dict((records or {}).get(key, {})) for key in data}
    tensors = {
        key: dataclasses.replace(record, **({} if "explained" in own else {"explained": _explained(fit, key)}), **own)
        for (key, record), own in zip(fit.tensors.items(), given.values(), strict=True)
    }
    return dataclasses.replace(fit, tensors=tensors)


def _record(tensor: xr.DataArray, modes: tuple[str, ...]) -> TensorRecord:
    """Return what is known of a tensor before its explained share."""
    dims = tuple(str(dim) for dim in tensor.dims)
    rms = float(np.sqrt((tensor.astype(float) ** 2).mean()))
    attrs = {str(key): value for key, value in tensor.attrs.items()}
    return TensorRecord(dims, modes, tensor.shape, attrs=attrs, unit=str(attrs.get("units", "")), rms=rms)


def _explained(fit: Fit, name: str) -> float:
    """Return one minus the share of the data's energy that is left in the residual."""
    left, whole = fit.residual(name), measured(fit, name)
    energy = float((whole.astype(float).where(left.notnull()) ** 2).sum())
    return 1 - float((left**2).sum()) / energy if energy > 0 else float("nan")
