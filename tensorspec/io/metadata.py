"""What a file says about a measurement, as plain values: numbers, text, lists and mappings that fit into JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["apply_mapping", "attributes", "plain"]

Convert = Callable[[Any], Any] | None


def plain(value: Any) -> Any:
    """Return a value as JSON knows it.

    Examples
    --------
    >>> plain({"TEM": {"beam_energy": np.float64(200)}, "lines": np.array([1, 2])})
    {'TEM': {'beam_energy': 200.0}, 'lines': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, Fraction):
        return float(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def apply_mapping(
    metadata: Mapping[str, Any], original: Mapping[str, Any], mapping: Mapping[str, tuple[str, Convert]]
) -> dict[str, Any]:
    """Return a file's metadata with those that its reader knows how to find among the original tags.

    Parameters
    ----------
    metadata : mapping
        What the reader gives at once.
    original : mapping
        All tags of the file, nested.
    mapping : mapping of str to (str, function or None)
        For a dotted path of tags, the dotted path in the metadata, and how to convert the value.

    Returns
    -------
    dict
        Nested, plain values.

    Examples
    --------
    >>> voltage = {"Microscope Info.Voltage": ("TEM.beam_energy", lambda volts: volts / 1e3)}
    >>> apply_mapping({}, {"Microscope Info": {"Voltage": 200e3}}, voltage)
    {'TEM': {'beam_energy': 200.0}}
    """
    result = plain(metadata)
    tags = _Tags(original)
    for path, (target, convert) in mapping.items():
        value = tags.get_item(path)
        if value is None:
            continue
        try:
            value = value if convert is None else convert(value)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue  # a tag of unforeseen form is no reason to refuse the data
        if value is None:
            continue
        node = result
        *parents, last = target.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = plain(value.as_dict() if isinstance(value, _Tags) else value)
    return result


def attributes(metadata: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the attributes of a DataArray: those that matter by name, and all metadata.

    Parameters
    ----------
    metadata : mapping
        As HyperSpy arranges them, in plain values.
    dtype : dtype
        Of the data: whole X-rays are counts.

    Returns
    -------
    dict
        Those that are known of ``title, units, signal_type, beam_energy_keV, elements, original_filename``, and
        ``metadata``.

    Examples
    --------
    >>> signal = {"signal_type": "EDS_TEM", "quantity": "X-rays (Counts)"}
    >>> attrs = attributes({"Signal": signal, "Sample": {"elements": ["O"]}}, np.dtype("u1"))
    >>> attrs["units"], attrs["elements"]
    ('counts', ['O'])
    """
    general, signal, sample = (_mapping(metadata.get(key)) for key in ("General", "Signal", "Sample"))
    signal_type = str(signal.get("signal_type") or "")
    quantity = str(signal.get("quantity") or "")
    in_brackets = re.search(r"\(([^()]+)\)\s*$", quantity)
    units = in_brackets.group(1).strip() if in_brackets else quantity if quantity.lower() == "counts" else ""
    units = "counts" if units.lower() == "counts" else units
    if not units and signal_type.startswith("EDS") and np.issubdtype(dtype, np.integer):
        units = "counts"
    found = {
        "title": str(general.get("title") or ""),
        "units": units,
        "signal_type": signal_type,
        "beam_energy_keV": _beam_energy(metadata),
        "elements": [str(element) for element in sample.get("elements") or []],
        "original_filename": str(general.get("original_filename") or ""),
    }
    return {key: value for key, value in found.items() if value} | {"metadata": dict(metadata)}


def _beam_energy(metadata: Mapping[str, Any]) -> float | None:
    instrument = _mapping(metadata.get("Acquisition_instrument"))
    for microscope in ("TEM", "SEM"):
        energy = _mapping(instrument.get(microscope)).get("beam_energy")
        if isinstance(energy, int | float):
            return float(energy)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Tags:
    """Nested tags as the readers' functions expect them: names without brackets, blanks as underscores."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = {_slug(key): value for key, value in tree.items()}

    def keys(self) -> list[str]:
        return list(self._tree)

    def __contains__(self, name: str) -> bool:
        return _slug(name) in self._tree

    def __getitem__(self, name: str) -> Any:
        value = self._tree[_slug(name)]
        return _Tags(value) if isinstance(value, Mapping) else value

    def get_item(self, path: str) -> Any:
        """Return what is at a dotted path, or None."""
        node: Any = self
        for name in path.split("."):
            if not isinstance(node, _Tags) or name not in node:
                return None
            node = node[name]
        return node

    def as_dict(self) -> dict[str, Any]:
        return self._tree


def _slug(name: object) -> str:
    return re.sub(r"[^\w\-]", "", str(name).strip().replace(" ", "_"))
