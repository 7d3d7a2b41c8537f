"""The result of a fit: factors with labels, what was decided and why, and what a microscopist reads from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import xarray as xr

from tensorspec import components as components_of
from tensorspec import contributions
from tensorspec import cores as core_of
from tensorspec.errors import InvalidArgument, UnknownName, suggest
from tensorspec.modes import ModeLabels
from tensorspec.solvers.status import Status
from tensorspec.tensor_record import TensorRecord

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["Fit", "TensorRecord"]

_Result = TypeVar("_Result")

MAP_MODE = "pixel"


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """Factors, strengths and history of a fitted model; nothing in it is ever changed in place.

    The model of tensor ``k`` is ``sum over r of weights[k, r] * product over its modes m of factors[m][r]``, in the
    units of the data.  Components are counted from 1.  Where the model has cores (`Tucker`) there are no `weights`:
    components belong to a mode, and the core of a tensor says how strongly those of its modes meet.

    Attributes
    ----------
    factors : mapping of str to DataArray
        For each mode a DataArray with dimensions ``(component, *the mode's own)``.  Columns have unit norm, except
        where a constraint fixes their scale.  Entries that were never measured are NaN.
    weights : DataArray or None
        Strengths in the units of the data, dimensions ``(component,)`` for one tensor, else ``(tensor, component)``.
        None where there are cores.
    tensors : mapping of str to TensorRecord
        What is known of each tensor fitted.
    modes : mapping of str to ModeLabels
        Names, dimensions and coordinates of the modes.
    model, losses : object, mapping of str to object
        The model and the loss of each tensor; they print as the calls that make them.
    solver, why : str
        The solver used, and why it was chosen.
    status : Status
        How the fit ended; its text is advice.
    objective : float
        Final objective of the problem as solved (see ``provenance`` for the factor to the units of the data).
    history, sweeps : DataArray, int
        Objective, dimension ``sweep`` (0: the start, or the end on compressed data), and the sweeps done on all data.
    spread : DataArray or None
        Objective of each restart, dimension ``restart``: at its end, or where a race (`why` says so) left it, above it.
    recipe : mapping
        The settings given to ``ts.fit``, as JSON (see `tensorspec.recipe`).
    provenance : mapping
        Seed, versions, device, dtype, platform, hash of the input, time, scales and strengths used, warnings.
    data : mapping of str to DataArray, or None
        The data fitted, not copied; None after a file was opened.
    masks : mapping of str to DataArray
        True where an entry of a tensor was used, for the tensors that were fitted with a mask.
    views : mapping of str to mapping of str to DataArray
        For each tensor the factors that it sees through an operator, by mode, on its own points.
    summaries : mapping of str to Dataset
        Residual summaries read from a file (see `residual_summary`).
    cores : mapping of str to DataArray
        For each tensor of a model with cores, its core in the units of the data: a dimension ``<mode>_component`` for
        every mode that has components, the own dimensions of the others; ``component`` alone where it is diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from tensorspec.assemble import assemble
    >>> maps, spectra = np.array([[4.0, 0.0, 2.0], [0.0, 2.0, 1.0]]), np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    >>> data = xr.DataArray([maps.T @ spectra], dims=("y", "x", "energy_loss"), attrs={"units": "counts"})
    >>> fit = assemble({"data": data}, {"pixel": maps.T, "energy_loss": spectra.T})
    >>> fit.maps().sel(component=1).values
    array([[8., 0., 4.]])
    >>> fit.spectra().sel(component=1).values
    array([6., 6., 0.])
    >>> fit.select([2]).relabel({1: "oxide"}).labels
    ['oxide']
    """

    factors: Mapping[str, xr.DataArray]
    weights: xr.DataArray | None
    tensors: Mapping[str, TensorRecord]
    modes: Mapping[str, ModeLabels]
    model: Any
    losses: Mapping[str, Any]
    solver: str
    why: str
    status: Status
    objective: float
    history: xr.DataArray
    sweeps: int
    spread: xr.DataArray | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, xr.DataArray] | None = None
    masks: Mapping[str, xr.DataArray] = field(default_factory=dict)
    views: Mapping[str, Mapping[str, xr.DataArray]] = field(default_factory=dict)
    summaries: Mapping[str, xr.Dataset] = field(default_factory=dict)
    cores: Mapping[str, xr.DataArray] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Number of components, the same in every mode; `InvalidArgument` where the model has a core (see `ranks`)."""
        return int(self.all_strengths().sizes["component"])

    @property
    def ranks(self) -> dict[str, int]:
        """Number of components of each mode that has any."""
        return {mode: int(factor.sizes["component"]) for mode, factor in self.factors.items()}

    @property
    def core(self) -> xr.DataArray | Mapping[str, xr.DataArray]:
        """The core of a model that has one: a DataArray, or a mapping by tensor."""
        if self.cores:
            return next(iter(self.cores.values())) if len(self.tensors) == 1 else self.cores
        raise InvalidArgument("this fit has no core: component k of one mode meets component k of the others")

    @property
    def compression(self) -> float:
        """How many numbers of the data stand behind each number of the model."""
        return contributions.compression(self)

    def interactions(self, name: str | None = None, most: int = 20) -> Any:
        """Return the strongest entries of the core, a Dataset: which components meet, how strongly, and their share.

        ``table.to_dataframe()`` shows it as a table; see `tensorspec.cores.interactions`.
        """
        return self._each(name, lambda key: core_of.interactions(self, key, most))

    @property
    def converged(self) -> bool:
        """Whether the fit ended because there was nothing left to gain."""
        return self.status.converged

    @property
    def alive(self) -> list[int]:
        """Numbers of the components that have not died; `ARD` sets those that the data do not need to zero."""
        return contributions.alive(self)

    @property
    def explained(self) -> float | xr.DataArray:
        """Share of the data explained, in the metric of the loss: a number, or dimension ``tensor`` for several."""
        values = [record.explained for record in self.tensors.values()]
        several = xr.DataArray(values, dims="tensor", coords={"tensor": list(self.tensors)}, name="explained")
        return values[0] if len(values) == 1 else several

    @property
    def labels(self) -> list[str]:
        """Labels of the components, empty where none was given."""
        coord = self.all_strengths().coords.get("label")
        return [""] * self.rank if coord is None else [str(label) for label in coord.values]

    def map_mode(self, name: str | None = None) -> str:
        """Return the mode that maps live on: ``pixel`` if the tensor has it, else its first."""
        modes = self.tensors[self._tensor(name)].modes
        return MAP_MODE if MAP_MODE in modes else modes[0]

    def signal_mode(self, name: str | None = None) -> str:
        """Return the mode that spectra live on: the last of the tensor that is not the map mode."""
        name = self._tensor(name)
        others = [mode for mode in self.tensors[name].modes if mode != self.map_mode(name)]
        return next((mode for mode in reversed(others) if mode in self.factors), others[-1])

    def maps(self, name: str | None = None) -> Any:
        """Return the signal of every component at every pixel, summed over all other modes.

        Parameters
        ----------
        name : str, optional
            The tensor.  Without it: the only tensor, or a mapping by name of all.

        Returns
        -------
        maps : DataArray, dimensions (component, then those of the pixels), in units of the data
            Of counts, the sum over pixels is the counts of the component.  Pixels never measured are NaN; channels
            never measured are absent from the sums.
        """
        return self._each(name, lambda key: contributions.marginal(self, key, self.map_mode(key), "maps"))

    def spectra(self, name: str | None = None, mode: str | None = None) -> Any:
        """Return the spectrum of every component, summed over all other modes.

        Parameters
        ----------
        name : str, optional
            The tensor.  Without it: the only tensor, or a mapping by name of all.
        mode : str, optional
            Another mode than the signal mode, for tensors of three modes and more.

        Returns
        -------
        spectra : DataArray, dimensions (component, then those of the mode), in units of the data
        """
        return self._each(name, lambda key: contributions.marginal(self, key, mode or self.signal_mode(key), "spectra"))

    def totals(self, name: str | None = None) -> Any:
        """Return the sum of every component over the whole tensor, dimension ``component``, in units of the data."""
        return self._each(name, lambda key: contributions.totals(self, key))

    def shares(self, name: str | None = None) -> Any:
        """Return the share of every component in the whole model, dimension ``component``.

        Shares are of the summed signal where all components add up; where some are negative (as in principal
        components), of the energy: ``attrs["of"]`` says which.
        """
        return self._each(name, lambda key: contributions.shares(self, key))

    def reconstruct(self, name: str | None = None) -> Any:
        """Return the model of the data (of one tensor, the only one, or a mapping of all), in their units and order.

        It is NaN where a factor was never measured.
        """
        return self._each(name, lambda key: contributions.reconstruct(self, key))

    def residual(self, name: str | None = None, data: Any = None) -> Any:
        """Return data minus model (of one tensor, the only one, or a mapping of all), NaN where a mask left data out.

        Parameters
        ----------
        name : str, optional
            The tensor.
        data : DataArray or mapping of str to DataArray, optional
            The data, needed after a file was opened; by default those that were fitted.

        Raises
        ------
        UnknownName
            If there is no tensor of that name.
        InvalidData
            If the data are not given and not held, or have other dimensions or sizes than those fitted.
        """
        return self._each(name, lambda key: contributions.residual(self, key, data))

    def residual_summary(self, name: str | None = None, data: Any = None) -> Any:
        """Return where and at which channels the model differs from the data, as a small Dataset.

        It is saved with the fit, for when the data are not there; see `tensorspec.diagnose.residuals.summarise`.
        """
        from tensorspec.diagnose.residuals import summarise

        def one(key: str) -> xr.Dataset:
            if data is None and self.data is None and key in self.summaries:
                return self.summaries[key]
            return summarise(self, key, data)

        return self._each(name, one)

    def select(self, components: Sequence[int | str]) -> Fit:
        """Return a fit with these components only (numbers from 1, or labels), in this order, counted from 1 again.

        It has no objective and no explained share: those belonged to all components together.

        Raises
        ------
        UnknownName
            If a component does not exist.
        InvalidArgument
            If none is named, or one twice.
        """
        return components_of.select(self, components)

    def merge(self, components: Sequence[int | str]) -> Fit:
        """Return a fit in which these components (numbers from 1, or labels) are one, at the place of the first.

        Maps add up, and so do spectra: the merged component is the product of the summed marginals, the best single
        component in the Kullback-Leibler sense.  In a mode that tensors share, the marginals of their counts together
        are summed.  Columns have unit norm, also where a constraint fixed their scale.
        The fit has no objective and no explained share: those belonged to the components apart.

        Raises
        ------
        UnknownName
            If a component does not exist.
        InvalidArgument
            If fewer than two are named, or their entries have both signs, so that sums cancel.
        """
        return components_of.merge(self, components)

    def relabel(self, labels: Mapping[int | str, str]) -> Fit:
        """Return a fit whose components carry these labels (by number from 1, or by label so far), as ``label``.

        Raises
        ------
        UnknownName
            If a component does not exist.
        """
        return components_of.relabel(self, labels)

    def match(self, other: Fit) -> Fit:
        """Return the other fit with its components in the order of those of this one that they resemble most.

        Components beyond the number of this fit come last.  See `tensorspec.diagnose.match.compare` for the score.
        """
        from tensorspec.diagnose.match import reorder

        return reorder(self, other)

    def transform(self, new_data: Any, mode: str | None = None) -> xr.DataArray:
        """Fit new samples of one mode, by default the pixels, with all other factors held."""
        from tensorspec.fit.transform import transform

        return transform(self, new_data, mode)

    def plot(self, components: Sequence[int | str] | None = None) -> Figure:
        """Draw every component: its map beside its spectra, one row each.  The figure is returned, not shown."""
        from tensorspec.plot import plot_components

        return plot_components(self, components)

    def plot_residual(self, name: str | None = None, data: Any = None) -> Figure:
        """Draw where the model differs from the data: a map, and the mean spectrum.  The figure is not shown."""
        from tensorspec.plot import plot_residual

        return plot_residual(self, name, data)

    def plot_history(self) -> Figure:
        """Draw the objective against the sweep, and the spread over restarts.  The figure is returned, not shown."""
        from tensorspec.plot import plot_history

        return plot_history(self)

    def report(self, path: str | PathLike[str]) -> Path:
        """Write one self-contained HTML file that shows everything that is known of this fit; return its path."""
        from tensorspec.report import write_report

        return write_report(self, path)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write an HDF5 file that ``ts.open`` reads, and that xarray and HyperSpy open too; return its path."""
        from tensorspec.io.fit_file import save_fit

        return save_fit(self, path)

    def to_hyperspy(self, name: str | None = None) -> Any:
        """Return ``{"spectra": ..., "maps": ...}`` as HyperSpy signals in counts, metadata and elements intact."""
        from tensorspec.io.hyperspy import to_hyperspy

        return self._each(name, lambda key: to_hyperspy(self, key))

    def to_tensorly(self, name: str | None = None) -> Any:
        """Return a tensorly ``CPTensor``, weights and a factor (size, rank) a mode; with a core a ``TuckerTensor``."""
        from tensorspec.io.tensorly import to_tensorly

        return self._each(name, lambda key: to_tensorly(self, key))

    def seen(self, name: str, mode: str) -> xr.DataArray:
        """Return the factor of a mode as a tensor sees it: ``factors[mode]``, unless there is an operator between."""
        return self.views[name][mode] if mode in self.views.get(name, {}) else self.factors[mode]

    def strengths(self, name: str | None = None) -> xr.DataArray:
        """Return the row of `weights` that belongs to one tensor, dimension ``component``."""
        name = self._tensor(name)
        weights = self.all_strengths()
        return weights.sel(tensor=name, drop=True) if "tensor" in weights.dims else weights

    def all_strengths(self) -> xr.DataArray:
        """Return `weights`, or refuse where there are cores in their place."""
        if self.weights is None:
            use = "use fit.core, fit.ranks, fit.maps(), fit.spectra() or fit.interactions()"
            raise InvalidArgument(f"this fit has a core, and its components belong to a mode, {self.ranks}; {use}")
        return self.weights

    def __repr__(self) -> str:
        from tensorspec.overview import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from tensorspec.overview import as_html

        return as_html(self)

    def _tensor(self, name: str | None) -> str:
        """Return the name of a tensor that exists; None means the only one."""
        if name is None and len(self.tensors) > 1:
            raise InvalidArgument(f"this fit has the tensors {list(self.tensors)}: say which is meant")
        if name is not None and name not in self.tensors:
            raise UnknownName(f"no tensor {name!r}; this fit has {list(self.tensors)}.{suggest(name, self.tensors)}")
        return next(iter(self.tensors)) if name is None else name

    def _each(self, name: str | None, function: Callable[[str], _Result]) -> _Result | dict[str, _Result]:
        """Apply to the tensor named, to the only one, or to all."""
        if name is not None or len(self.tensors) == 1:
            return function(self._tensor(name))
        return {key: function(key) for key in self.tensors}
