"""What the axes of a file mean: which are the scan, which is the spectrum, in which units.

Files disagree: some put the energy first, some mark it as navigation, some call it ``z``.  Units decide, then names,
and only then what the file says about navigation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.errors import UnreadableFile

__all__ = ["Axis", "arrange", "as_data_array", "read_axes"]

# Spellings of one unit.  Micro: the sign, the Greek letter, the letter u.
UNITS = {"um": "µm", "\u03bcm": "µm", "micron": "µm", "microns": "µm", "angstrom": "Å", "\u212b": "Å", "pix": "px"}
UNITS |= {"pixel": "px", "pixels": "px", "ev": "eV", "kev": "keV", "<undefined>": "", "none": "", "undefined": ""}
ELECTRON_VOLTS = {"meV": 1e-3, "eV": 1.0, "keV": 1e3}
LENGTHS = {"pm", "Å", "nm", "µm", "mm", "cm", "m", "px"}
SPACE = {
    "x": ("x", "width", "column", "columns", "horizontal", "distance", "abs distance", "line"),
    "y": ("y", "height", "row", "rows", "vertical"),
    "z": ("z", "depth", "slice"),
}
SPECTRA = ("wavelength", "raman shift", "wavenumber", "wave number", "frequency", "m/z", "mass to charge", "mass")


@dataclass(frozen=True)
class Axis:
    """One axis of an array as a file describes it.

    Attributes
    ----------
    name : str
        The file's name of it, or "".
    size : int
        Number of points.
    units : str or None
        In one spelling.
    values : (size,) ndarray or None
        Calibrated positions; None where the file has none.
    navigate : bool or None
        What the file says: is it a scan axis?  None where it does not say.
    """

    name: str
    size: int
    units: str | None = None
    values: np.ndarray | None = None
    navigate: bool | None = None

    @property
    def plain(self) -> str:
        """Its name in lower case words without "scan", "axis" and the like."""
        words = re.sub(r"[\s_\-.]+", " ", self.name.lower()).split()
        return " ".join(word for word in words if word not in ("scan", "axis", "pos", "position", "stage"))

    @property
    def is_energy(self) -> bool:
        """Whether it is an energy, by its units or else by its name."""
        return self.units in ELECTRON_VOLTS or (self.units is None and "energy" in self.plain)

    @property
    def place(self) -> str | None:
        """``x``, ``y`` or ``z`` for an axis in space, else None."""
        if self.units is not None and self.units not in LENGTHS:
            return None
        return next((dim for dim, names in SPACE.items() if self.plain in names), None)


def read_axes(described: Sequence[Mapping[str, Any]], shape: Sequence[int]) -> list[Axis]:
    """Bring a reader's descriptions into the order of the array.

    Parameters
    ----------
    described : sequence of mappings
        One an axis, with some of ``name, units, size, offset, scale, axis, navigate, index_in_array``.
    shape : sequence of int
        Shape of the array.

    Returns
    -------
    axes : list of Axis
        One an axis of the array; bare ones where the descriptions do not fit the array.

    Examples
    --------
    >>> axes = read_axes([{"name": "Energy", "units": "ev", "scale": 0.5, "offset": 100.0, "size": 3}], (3,))
    >>> axes[0].units, axes[0].values
    ('eV', array([100. , 100.5, 101. ]))
    """
    orders = [list(described)]
    indices = [axis.get("index_in_array") for axis in described]
    if None not in indices:
        where = np.argsort([int(index) % max(len(shape), 1) for index in indices if index is not None], kind="stable")
        orders.insert(0, [described[index] for index in where])
    axes = [[_axis(entry) for entry in order] for order in orders]
    fitting = [order for order in axes if [axis.size for axis in order] == list(shape)]
    if not fitting:
        return [Axis(f"dim_{index}", size) for index, size in enumerate(shape)]
    # Where both the order of the list and the stated indices fit, the one that has rows before columns is right.
    return next((order for order in fitting if _rows_first(order)), fitting[0])


def arrange(axes: Sequence[Axis], signal_type: str = "") -> dict[str, tuple[int, Axis]]:
    """Name the axes and put them in order: other scan axes, ``z, y, x``, then the signal's.

    Parameters
    ----------
    axes : sequence of Axis
        One an axis of the array, in its order.
    signal_type : str
        As in HyperSpy: ``EELS``, ``EDS_TEM``, ``EDS_SEM``, ...

    Returns
    -------
    dims : dict of str to (int, Axis)
        For each dimension the number of its array axis, and the axis with its final units.  Scan axes of length one are
        left out where the file is a single spectrum.

    Examples
    --------
    >>> wrong = [Axis("Energy loss", 1024, "eV", None, True), Axis("height", 49, "nm"), Axis("width", 6, "nm")]
    >>> list(arrange(wrong, "EELS"))
    ['y', 'x', 'energy_loss']
    """
    spectral = _spectral(axes, signal_type)
    scan = [index for index, axis in enumerate(axes) if index != spectral and (spectral is not None or axis.navigate)]
    detector = [index for index in range(len(axes)) if index != spectral and index not in scan]
    if spectral is not None and all(axes[index].size == 1 for index in scan):
        scan = []
    names = _in_space(axes, scan)
    if spectral is not None and list(names.values()) == ["y"]:
        names = dict.fromkeys(names, "x")  # a line scan runs along x, whatever the file calls it
    image = _in_space(axes, detector)
    if not set(image.values()) & set(names.values()):
        names |= image
    for index in scan + detector:
        if index not in names:
            names[index] = _own_name(axes[index], f"dim_{index}")
    placed = sorted((index for index in scan + detector if names[index] in SPACE), key=lambda index: names[index])[::-1]
    order = [index for index in scan if index not in placed] + placed
    order += [index for index in detector if index not in placed]
    dims = {names[index]: (index, axes[index]) for index in order}
    if len(dims) < len(order):
        dims = {f"{names[index]}_{index}": (index, axes[index]) for index in order}
    if spectral is not None:
        name, axis = _name_spectrum(axes[spectral], signal_type)
        dims[f"{name}_signal" if name in dims else name] = (spectral, axis)
    return dims


def as_data_array(data: Any, dims: Mapping[str, tuple[int, Axis]], attrs: Mapping[str, Any]) -> xr.DataArray:
    """Put an array and its arranged axes together.

    Parameters
    ----------
    data : array
        numpy- or dask-backed; an axis that `dims` leaves out has one point.
    dims : mapping
        From `arrange`.
    attrs : mapping
        Attributes of the result.

    Returns
    -------
    DataArray
        With calibrated coordinates, their units in ``coord.attrs["units"]``.
    """
    kept = [index for index, _ in dims.values()]
    data = data[tuple(slice(None) if index in kept else 0 for index in range(data.ndim))]
    numbers = sorted(kept)
    data = data.transpose([numbers.index(index) for index in kept])
    coords = {
        name: xr.Variable(name, axis.values, {"units": axis.units} if axis.units else {})
        for name, (_, axis) in dims.items()
        if axis.values is not None
    }
    tensor = xr.DataArray(data, dims=tuple(dims), coords=coords, attrs=dict(attrs))
    return tensor.rename(None)  # dask's name for its graph is none for the data


def _axis(described: Mapping[str, Any]) -> Axis:
    raw = str(described.get("units") or "").strip()
    units = UNITS.get(raw.lower(), UNITS.get(raw, raw)) or None
    name = described.get("name")
    name = "" if name is None or str(name).strip().lower() in ("<undefined>", "none") else str(name).strip()
    navigate = described.get("navigate")
    navigate = None if navigate is None else bool(navigate)
    if described.get("axis") is not None:
        values = np.asarray(described["axis"], dtype=float)
        return Axis(name, values.size, units, values, navigate)
    if "expression" in described:
        raise UnreadableFile(
            f"axis {name!r} is a formula, {described['expression']!r}; only points can be read: in HyperSpy, "
            f"signal.axes_manager[{name!r}].convert_to_non_uniform_axis(), and save it again"
        )
    size = int(described.get("size", -1))
    scale, offset = float(described.get("scale") or 0), float(described.get("offset") or 0)
    # Step one from zero without units is what readers fill in where a file has no calibration.
    bare = scale == 0 or (units is None and (scale, offset) == (1, 0))
    return Axis(name, size, units, None if bare else offset + scale * np.arange(max(size, 0)), navigate)


def _rows_first(axes: Sequence[Axis]) -> bool:
    places = [axis.place for axis in axes if axis.place in ("y", "x")]
    return places == sorted(places, reverse=True)


def _spectral(axes: Sequence[Axis], signal_type: str) -> int | None:
    """Return which axis is the spectrum; None for images and for what the file does not tell."""
    energies = [index for index, axis in enumerate(axes) if axis.is_energy]
    exact = [index for index in energies if re.search(r"loss|x ray", axes[index].plain)]
    others = [index for index, axis in enumerate(axes) if any(name in axis.plain for name in SPECTRA)]
    for found in (exact, energies, others):
        if found:
            return next((index for index in found if axes[index].navigate is False), found[0])
    signal = [index for index, axis in enumerate(axes) if axis.navigate is False]
    return signal[0] if len(signal) == 1 and (axes[signal[0]].place is None or signal_type) else None


def _name_spectrum(axis: Axis, signal_type: str) -> tuple[str, Axis]:
    kind = signal_type.upper()
    if kind.startswith("EELS") or "loss" in axis.plain:
        return "energy_loss", _in_units(axis, "eV")
    if kind.startswith(("EDS", "EDX")) or ("x ray" in axis.plain and axis.is_energy):
        return "xray_energy", _in_units(axis, "keV")
    return "channel" if axis.plain in SPACE else _own_name(axis, "channel"), axis


def _in_units(axis: Axis, units: str) -> Axis:
    if axis.units not in ELECTRON_VOLTS or axis.units == units:
        return axis
    values = axis.values
    if values is not None:
        values = values * (ELECTRON_VOLTS[axis.units] / ELECTRON_VOLTS[units])
    return replace(axis, units=units, values=values)


def _own_name(axis: Axis, otherwise: str) -> str:
    name = re.sub(r"[\s\-]+", "_", axis.name.lower())
    if name in SPACE:  # not in the space of the scan: positions on a detector, or angles
        return f"detector_{name}" if axis.units is None or axis.units in LENGTHS else f"k{name}"
    return name or otherwise


def _in_space(axes: Sequence[Axis], indices: Sequence[int]) -> dict[int, str]:
    """Name the axes in space by their own names, then nameless ones as the last that are free of ``z, y, x``."""
    names: dict[int, str] = {}
    for index in indices:
        place = axes[index].place
        if place and place not in names.values():
            names[index] = place
    nameless = [
        index
        for index in indices
        if not axes[index].name and (axes[index].units is None or axes[index].units in LENGTHS)
    ]
    free = [place for place in ("z", "y", "x") if place not in names.values()]
    if len(nameless) <= len(free):
        names.update(zip(nameless, free[len(free) - len(nameless) :], strict=True))
    return names
