"""Bags of settings as JSON and back: models, constraints, losses, solvers; no code is ever run from a file.

JSON has no classes, tuples or arrays, so each is an object with one telling key: ``{"class": ..., "module": ...}``,
``{"tuple": [...]}``, ``{"array": ...}``, ``{"labelled": ...}``, ``{"float": "nan"}``, ``{"dict": [[key, value]]}``.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorspec.errors import InvalidArgument, UnknownName

__all__ = ["constructor_repr", "from_recipe", "to_recipe"]

TELLING_KEYS = frozenset({"array", "class", "dict", "float", "labelled", "tuple"})
PACKAGE = "tensorspec"


def to_recipe(value: Any, where: str = "the value", lenient: bool = False) -> Any:
    """Return a JSON-able description of a value, from which `from_recipe` makes an equal one.

    Parameters
    ----------
    value : object
        A dataclass instance (an `equinox.Module` is one), number, string, None, tuple, list, dict, array or DataArray,
        to any depth.
    where : str
        What the value is, for the message.
    lenient : bool
        Write what cannot be described as the text that it prints as, instead of refusing it: for metadata of files.

    Returns
    -------
    recipe : dict, list, str, int, float, bool or None
        ``json.dumps(recipe, allow_nan=False)`` succeeds.

    Raises
    ------
    InvalidArgument
        If something cannot be described, such as a function; the message says where.

    Examples
    --------
    >>> to_recipe({"rank": 3, "bounds": (0, float("inf"))})
    {'rank': 3, 'bounds': {'tuple': [0, {'float': 'inf'}]}}
    """
    if value is None or type(value) in (bool, str, int):
        return value
    if isinstance(value, np.bool_ | np.integer | np.str_):
        return value.item()
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else {"float": str(number)}
    if isinstance(value, list | tuple):
        items = [to_recipe(item, f"{where}[{index}]", lenient) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return _mapping_to_recipe(value, where, lenient)
    if hasattr(value, "to_dict") and hasattr(value, "dims"):
        return {"labelled": to_recipe(_plain(value.to_dict(data="array")), where, lenient)}
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind in "biufcUmM":
            return {"array": _array_to_recipe(array)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and "<locals>" not in type(value).__qualname__:
        described = {"class": type(value).__qualname__, "module": type(value).__module__}
        for field in dataclasses.fields(value):
            if field.init:
                described[field.name] = to_recipe(getattr(value, field.name), f"{where}.{field.name}", lenient)
        return described
    if lenient:
        return str(value)
    raise InvalidArgument(
        f"{where} is a {type(value).__qualname__}, which cannot be written down as JSON; use dataclasses defined in a "
        "module, numbers, strings, tuples, lists, dicts, arrays and DataArrays"
    )


def from_recipe(recipe: Any) -> Any:
    """Return what `to_recipe` described.

    Classes are looked up, never run as code: those of tensorspec, and of the user's modules that are imported already.
    Only dataclasses are made.

    Parameters
    ----------
    recipe : object
        As made by `to_recipe`, or read back from JSON.

    Returns
    -------
    value : object

    Raises
    ------
    UnknownName
        If a class does not exist, or its module is not imported.
    InvalidArgument
        If a class does not take the fields described.

    Examples
    --------
    >>> from_recipe({"rank": 3, "bounds": {"tuple": [0, {"float": "inf"}]}})
    {'rank': 3, 'bounds': (0, inf)}
    """
    if isinstance(recipe, list):
        return [from_recipe(item) for item in recipe]
    if not isinstance(recipe, dict):
        return recipe
    key = next((key for key in recipe if key in TELLING_KEYS), None)
    if key is None:
        return {name: from_recipe(item) for name, item in recipe.items()}
    inside = recipe[key]
    if key == "tuple":
        return tuple(from_recipe(item) for item in inside)
    if key == "float":
        return float(inside)
    if key == "dict":
        return {from_recipe(name): from_recipe(item) for name, item in inside}
    if key == "array":
        return _array_from_recipe(inside)
    if key == "labelled":
        return importlib.import_module("xarray").DataArray.from_dict(from_recipe(inside))
    return _instance_from_recipe(recipe)


def constructor_repr(value: Any) -> str:
    """Return a dataclass instance as the constructor call that makes it: its class, and the fields that differ.

    Parameters
    ----------
    value : object
        A dataclass instance, or anything that such fields hold.

    Returns
    -------
    text : str
        Arrays are abbreviated.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Sparse:
    ...     strength: float
    ...     components: tuple[int, ...] | None = None
    >>> constructor_repr(Sparse(0.01))
    'Sparse(strength=0.01)'
    >>> constructor_repr({"pixel": [Sparse(0.01, components=(1, 2))]})
    "{'pixel': [Sparse(strength=0.01, components=(1, 2))]}"
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {constructor_repr(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(constructor_repr, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(constructor_repr, value)) + ("," if len(value) == 1 else "") + ")"
    if hasattr(value, "dims") and hasattr(value, "sizes"):
        sizes = ", ".join(f"{dim}: {size}" for dim, size in value.sizes.items())
        return f"<{type(value).__name__} ({sizes})>"
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return (
            repr(array.item())
            if array.ndim == 0
            else f"<array {array.shape}>"
            if array.size > 6
            else repr(array.tolist())
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = [
            f"{field.name}={constructor_repr(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if field.init and field.repr and not _is_default(field, getattr(value, field.name))
        ]
        return f"{type(value).__name__}({', '.join(given)})"
    return repr(value)


def _mapping_to_recipe(value: Mapping[Any, Any], where: str, lenient: bool) -> Any:
    """Return a mapping as a JSON object, or as pairs where its keys are no plain words."""
    plain = all(type(key) is str for key in value) and TELLING_KEYS.isdisjoint(value)
    if plain:
        return {key: to_recipe(item, f"{where}[{key!r}]", lenient) for key, item in value.items()}
    pairs = [
        [to_recipe(key, f"a key of {where}", lenient), to_recipe(item, f"{where}[{key!r}]", lenient)]
        for key, item in value.items()
    ]
    return {"dict": pairs}


def _plain(described: Any) -> Any:
    """Return the dict of a DataArray with object arrays of text as text arrays, so that they can be written."""
    if isinstance(described, dict):
        return {key: _plain(item) for key, item in described.items()}
    if (
        isinstance(described, np.ndarray)
        and described.dtype == object
        and all(isinstance(x, str) for x in described.flat)
    ):
        return described.astype(str)
    return described


def _array_to_recipe(array: np.ndarray) -> dict[str, Any]:
    """Return data type, shape and flat values of an array; complex numbers and dates through numbers."""
    kind, flat = array.dtype.kind, array.ravel()
    if kind in "mM":
        flat = flat.astype("int64")
    elif kind == "c":
        flat = flat.view(f"f{array.dtype.itemsize // 2}")
    values = flat.tolist()
    if kind in "fc":
        values = [item if math.isfinite(item) else str(item) for item in values]
    return {"dtype": array.dtype.newbyteorder("=").str, "shape": list(array.shape), "values": values}


def _array_from_recipe(described: dict[str, Any]) -> np.ndarray:
    dtype, values = np.dtype(described["dtype"]), described["values"]
    if dtype.hasobject:
        raise InvalidArgument("an array of Python objects cannot be read from a recipe")
    if dtype.kind in "fc":
        real = dtype if dtype.kind == "f" else np.dtype(f"f{dtype.itemsize // 2}")
        flat = np.array([float(item) for item in values], dtype=real).view(dtype)
    elif dtype.kind in "mM":
        flat = np.array(values, dtype="int64").astype(dtype)
    else:
        flat = np.array(values, dtype=dtype)
    return flat.reshape(described["shape"])


def _instance_from_recipe(recipe: dict[str, Any]) -> Any:
    """Return the dataclass instance that a recipe describes."""
    settings = {key: from_recipe(item) for key, item in recipe.items() if key not in ("class", "module")}
    cls = _find_class(recipe["class"], recipe.get("module", ""))
    try:
        return cls(**settings)
    except TypeError as error:
        raise InvalidArgument(
            f"{recipe['class']} cannot be made from the settings {sorted(settings)}: {error}"
        ) from error


def _find_class(name: str, module: str) -> type:
    """Return a dataclass by name, from tensorspec or from a module that is imported already."""
    ours = module == PACKAGE or module.startswith(f"{PACKAGE}.")
    if ours:
        try:
            found = _attribute(importlib.import_module(module), name)
        except ImportError:
            found = None
        # Files move when the package grows; public names do not.
        found = found or _attribute(importlib.import_module(PACKAGE), name)
    elif module in sys.modules:
        found = _attribute(sys.modules[module], name)
    else:
        raise UnknownName(
            f"the recipe uses {name} of your module {module!r}: import it first, then open the file again"
        )
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        what = "is not a class of settings" if found else "does not exist"
        raise UnknownName(f"{name} {what} in {module!r}; was the recipe written by another version?")
    return found


def _attribute(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field has the value that it has when it is not given."""
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return False
    if value is default:
        return True
    if hasattr(value, "__array__") or type(value) is not type(default):
        return False
    return bool(value == default)
