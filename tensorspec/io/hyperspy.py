"""HyperSpy signals in and out: the only place that knows HyperSpy and eXSpy.

Both are optional GPL packages; they are imported in the function that needs them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import InvalidArgument, InvalidData, MissingDependency, UnknownName, suggest
from tensorspec.io.axes import arrange, as_data_array, read_axes
from tensorspec.io.metadata import attributes, plain
from tensorspec.pieces import evolving_mode, own_dims

__all__ = ["from_hyperspy", "to_hyperspy"]

INSTALL = 'pip install "tensorspec[hyperspy]"'
AXIS_NAMES = {"energy_loss": "Energy loss", "xray_energy": "Energy"}
SCANNING_LIMIT_KEV = 31.0  # beams of scanning electron microscopes stay below, of transmission microscopes above


def from_hyperspy(signal: Any) -> xr.DataArray:
    """Return a HyperSpy signal as a DataArray.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        Of any kind, lazy too.  HyperSpy prints the axes as ``(x, y | energy)``; the data are in the order ``y, x,
        energy``, and so is the result.

    Returns
    -------
    DataArray
        Named, with units and attributes, as `tensorspec.load` gives it; the data are not copied, and lazy ones stay so.

    Raises
    ------
    InvalidArgument
        If it is not a HyperSpy signal.
    InvalidData
        If it is ragged: arrays of different sizes in one.

    Examples
    --------
    >>> import hyperspy.api as hs  # doctest: +SKIP
    >>> edx = ts.from_hyperspy(hs.load("map.bcf")[-1])  # doctest: +SKIP
    """
    if not (hasattr(signal, "axes_manager") and hasattr(signal, "metadata") and hasattr(signal, "data")):
        raise InvalidArgument(
            f"a HyperSpy signal is needed, not {type(signal).__name__}; files open with tensorspec.load"
        )
    if getattr(signal, "ragged", False):
        raise InvalidData("this HyperSpy signal is ragged (arrays of different sizes); it has no axes to name")
    manager = signal.axes_manager
    axes = sorted((*manager.navigation_axes, *manager.signal_axes), key=lambda axis: axis.index_in_array)
    metadata = _without_private(plain(signal.metadata.as_dictionary()))
    attrs = attributes(metadata, signal.data.dtype)
    data = signal.data.reshape(tuple(axis.size for axis in axes))  # a signal without navigation may have an extra axis
    dims = arrange(read_axes([_described(axis) for axis in axes], data.shape), attrs.get("signal_type", ""))
    return as_data_array(data, dims, attrs)


def to_hyperspy(fit: Any, name: str | None = None) -> dict[str, Any]:
    """Return the components of a fit as HyperSpy signals that eXSpy quantifies.

    Parameters
    ----------
    fit : Fit
        Has ``spectra(name)``, ``maps(name)`` and ``tensors[name].attrs``.
    name : str, optional
        The tensor.  Without it: the only tensor, or a mapping by name of all.

    Returns
    -------
    signals : dict
        ``"spectra"``, of the class that the signal type asks for (``EDSTEMSpectrum``, ``EELSSpectrum``, ...), and
        ``"maps"``, a ``Signal2D`` (of line scans a ``Signal1D``).  Each has the components as its navigation axis, is
        in the units of the data (counts), and carries the metadata of the data, elements included.

    Raises
    ------
    UnknownName
        If the fit has no such tensor.
    MissingDependency
        If HyperSpy or eXSpy is not installed.

    Examples
    --------
    >>> spectra = fit.to_hyperspy()["spectra"]  # doctest: +SKIP
    >>> lines = spectra.get_lines_intensity()  # doctest: +SKIP
    >>> spectra.quantification(lines, method="CL", factors=[1.5, 5.1])  # doctest: +SKIP
    """
    if name is None:
        names = list(fit.tensors)
        return to_hyperspy(fit, names[0]) if len(names) == 1 else {each: to_hyperspy(fit, each) for each in names}
    if name not in fit.tensors:
        known = list(fit.tensors)
        raise UnknownName(f"no tensor {name!r} was fitted; there are {known}.{suggest(name, known)}")
    attrs = fit.tensors[name].attrs
    spectra, maps = fit.spectra(name), fit.maps(name)
    signal_type = str(attrs.get("signal_type") or _signal_type(spectra, attrs))
    # Where every sample has spectra of its own, the samples are a navigation axis beside the components.
    apart = evolving_mode(fit, name) is not None
    dimensions = len(own_dims(fit, name, fit.signal_mode(name))) if apart else spectra.ndim - 1
    return {
        "spectra": _signal(spectra, attrs, "component spectra", signal_type, dimensions),
        "maps": _signal(maps, attrs, "component maps", ""),
    }


def _hyperspy() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing one version beside another warns of the other's insides
            import exspy  # noqa: F401 - registers the signal classes of EDX and EELS
            import hyperspy.api as api
            import hyperspy.signals  # noqa: F401 - loaded lazily otherwise, and then it would warn later
    except ImportError as error:
        raise MissingDependency(f"HyperSpy signals need HyperSpy and eXSpy ({error}): {INSTALL}") from error
    return api


def _signal(values: xr.DataArray, attrs: Mapping[str, Any], what: str, signal_type: str, own: int = 2) -> Any:
    """Return one array with a component dimension first as a signal, the components as navigation.

    Of the other dimensions the last are those of the signal, as many as are its own, two at most.
    """
    signals = _hyperspy().signals
    last = min(values.ndim - 1, own, 2)
    axes = [_axis(values, str(dim), number < values.ndim - last) for number, dim in enumerate(values.dims)]
    metadata = _metadata(attrs, signal_type)
    title = str(attrs.get("title") or "")
    metadata["General"]["title"] = f"{title}: {what}" if title else what
    kind = signals.Signal2D if last == 2 else signals.Signal1D
    signal = kind(np.array(values.values), axes=axes, metadata=metadata)
    if signal_type:
        signal.set_signal_type(signal_type)
    if hasattr(signal, "set_elements") and attrs.get("elements"):
        given = [str(element) for element in attrs["elements"]]
        if sorted(given) != sorted(_node(attrs.get("metadata"), "Sample").get("elements") or []):
            signal.set_elements(given)
    return signal


def _metadata(attrs: Mapping[str, Any], signal_type: str) -> dict[str, Any]:
    """Return the metadata of the data, and what their attributes add."""
    metadata = copy.deepcopy(dict(attrs.get("metadata") or {}))
    general = metadata["General"] = dict(_node(metadata, "General"))
    if attrs.get("original_filename"):
        general["original_filename"] = attrs["original_filename"]
    signal = {key: entry for key, entry in _node(metadata, "Signal").items() if key not in ("record_by", "binned")}
    metadata["Signal"] = signal | {"signal_type": signal_type}
    if attrs.get("units") and "quantity" not in signal:
        metadata["Signal"]["quantity"] = f"Intensity ({attrs['units']})"
    energy = attrs.get("beam_energy_keV")
    instrument = metadata["Acquisition_instrument"] = dict(_node(metadata, "Acquisition_instrument"))
    if energy and not ({"TEM", "SEM"} & set(instrument)):
        instrument["SEM" if signal_type == "EDS_SEM" else "TEM"] = {"beam_energy": float(energy)}
    return metadata


def _signal_type(spectra: xr.DataArray, attrs: Mapping[str, Any]) -> str:
    """Return the signal type of data that carry none, from the name of their axis."""
    if "xray_energy" in spectra.dims:
        return "EDS_SEM" if 0 < attrs.get("beam_energy_keV", 0) < SCANNING_LIMIT_KEV else "EDS_TEM"
    return "EELS" if "energy_loss" in spectra.dims else ""


def _axis(values: xr.DataArray, dim: str, navigate: bool) -> dict[str, Any]:
    described = {"name": AXIS_NAMES.get(dim, dim), "navigate": navigate, "size": values.sizes[dim]}
    coord = values.coords.get(dim)
    if coord is None or coord.dtype.kind not in "uif":
        return described | ({"offset": 1.0, "scale": 1.0} if dim == "component" else {})
    points = np.asarray(coord.values, dtype=float)
    if coord.attrs.get("units"):
        described["units"] = str(coord.attrs["units"])
    step = (points[-1] - points[0]) / (points.size - 1) if points.size > 1 else 1.0
    if np.allclose(points, points[0] + step * np.arange(points.size), rtol=0, atol=1e-6 * abs(step)):
        return described | {"offset": float(points[0]), "scale": float(step)}
    return described | {"axis": points}


def _described(axis: Any) -> dict[str, Any]:
    """Describe a HyperSpy axis as a file's reader would."""
    described = {"name": str(axis.name), "units": str(axis.units), "navigate": axis.navigate, "size": axis.size}
    if axis.is_uniform:
        return described | {"offset": axis.offset, "scale": axis.scale}
    return described | {"axis": axis.axis}


def _node(tree: Any, key: str) -> Mapping[str, Any]:
    node = tree.get(key) if isinstance(tree, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _without_private(tree: Any) -> Any:
    """Leave out HyperSpy's own bookkeeping and signals inside of metadata: their names begin with an underscore."""
    if not isinstance(tree, dict):
        return tree
    return {key: _without_private(entry) for key, entry in tree.items() if not key.startswith("_") and key != "Markers"}
