"""Settings survive the way to JSON and back, and a file can make nothing but settings."""

import dataclasses
import json
import subprocess
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tensorspec.errors import InvalidArgument, UnknownName
from tensorspec.recipe import constructor_repr, from_recipe, to_recipe


@dataclass(frozen=True)
class Sparse:
    strength: float
    components: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Known:
    values: Any
    strength: float = 1.0


@dataclass
class Model:
    rank: int
    constraints: dict[Any, Any] = field(default_factory=dict)
    scale: str | None = None

    @dataclass
    class Inner:
        flag: bool = True


@dataclass
class Counted:
    given: int
    derived: int = field(init=False)

    def __post_init__(self):
        self.derived = 2 * self.given


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """With the import mode of the tests this module is not in `sys.modules` under its own name."""
    monkeypatch.setitem(sys.modules, __name__, types.SimpleNamespace(**globals()))


def round_trip(value):
    return from_recipe(json.loads(json.dumps(to_recipe(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -1.5,
        1e-300,
        "µ, \n",
        (1, (2, "x"), []),
        [1, [2.5, None]],
        {"a": 1, "b": {"c": (1,)}},
        {("eels", "energy_loss"): 2, 3: "three"},
        {"tuple": [1, 2], "class": "os.system"},
        {"array": {"dtype": "O"}},
        Sparse(0.01),
        Sparse(0.01, (1, 3)),
        Model(4, {"pixel": [Sparse(1e-3)], ("eels", "x"): Sparse(0.0)}, scale="pixel"),
        Model.Inner(False),
        Counted(3),
        (float("inf"), -float("inf")),
    ],
    ids=repr,
)
def test_equal_and_of_the_same_type_after_json(value):
    again = round_trip(value)
    assert again == value and type(again) is type(value)


def test_not_a_number():
    assert np.isnan(round_trip(float("nan")))
    assert np.isnan(round_trip({"a": (np.float32("nan"),)})["a"][0])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="int16").reshape(2, 3),
        np.array([0.1, np.nan, np.inf, -np.inf], dtype="float32"),
        np.array([2**63 + 3], dtype="uint64"),
        np.array([1 + 2j, complex(np.nan, 1)]),
        np.array(["O K", "Fe L"]),
        np.array([True, False]),
        np.array("2024-05-06T07:08:09.123456789", dtype="datetime64[ns]"),
        np.array([5, 7], dtype="timedelta64[ms]"),
        np.zeros((0, 3)),
        np.array([1.5, 2.5], dtype=">f8"),
        np.arange(24.0).reshape(4, 6)[::2, ::3],
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_keep_values_type_and_shape(array):
    again = round_trip(array)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype.newbyteorder("=") and again.shape == array.shape


def test_labelled_arrays_keep_everything():
    values = xr.DataArray(
        [[0.1, np.nan, 3.0], [1.0, 2.0, 3.0]],
        dims=("component", "energy_loss"),
        coords={
            "component": [1, 2],
            "label": ("component", np.array(["a", "bc"], dtype=object)),
            "energy_loss": ("energy_loss", [1.0, 2.0, 4.0], {"units": "eV", "window": (1, 2)}),
            "time": np.datetime64("2024-01-01", "ns"),
        },
        attrs={"units": "counts", "note": {"x": [1, 2]}},
        name="reference",
    )
    again = round_trip(Known(values)).values
    xr.testing.assert_identical(again, values)
    assert again["energy_loss"].attrs == values["energy_loss"].attrs


def test_what_cannot_be_written_is_named():
    with pytest.raises(InvalidArgument, match=r"the model\.constraints\['pixel'\]\[0\]\.values is a function"):
        to_recipe(Model(2, {"pixel": [Known(lambda x: x)]}), where="the model")
    with pytest.raises(InvalidArgument, match="ndarray"):
        to_recipe(np.array([object()]))

    @dataclass
    class Local:
        a: int = 1

    with pytest.raises(InvalidArgument, match="Local"):
        to_recipe(Local())
    assert to_recipe({"a": b"x", "b": Sparse}, lenient=True)["a"] == "b'x'"


def test_a_module_that_is_not_imported_is_never_imported():
    code = "from tensorspec.recipe import from_recipe; from_recipe({'class': 'A', 'module': 'antigravity'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "antigravity" in done.stderr and "import it first" in done.stderr and "webbrowser" not in done.stderr


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("Popen", "subprocess"),
        ("system", "os"),
        ("Path", "pathlib"),
        ("run", "subprocess"),
        ("TensorspecError", "tensorspec.errors"),
        ("importlib.import_module", "tensorspec.recipe"),
        ("Nothing", "tensorspec.errors"),
        ("dataclasses", "tensorspec.recipe"),
    ],
)
def test_nothing_but_settings_is_made(name, module):
    __import__(module)
    with pytest.raises(UnknownName, match=name.replace(".", r"\.")):
        from_recipe({"class": name, "module": module})


def test_a_class_of_ours_that_moved_to_another_file_is_found_by_its_public_name():
    from tensorspec import NoiseModel

    assert dataclasses.is_dataclass(NoiseModel)
    made = from_recipe({"class": "NoiseModel", "module": "tensorspec.place_of_long_ago", "gain": 2.0})
    assert made == NoiseModel(gain=2.0)


def test_fields_that_a_class_does_not_have_are_named():
    with pytest.raises(InvalidArgument, match="Sparse.*'strongth'"):
        from_recipe({"class": "Sparse", "module": __name__, "strongth": 1})


def test_a_recipe_cannot_hold_python_objects_in_arrays():
    with pytest.raises(InvalidArgument, match="objects"):
        from_recipe({"array": {"dtype": "|O", "shape": [1], "values": [1]}})


def test_printed_as_the_call_that_makes_it():
    assert constructor_repr(Model(3)) == "Model(rank=3)"
    assert constructor_repr(Model(3, {}, None)) == "Model(rank=3)"
    shown = constructor_repr(Model(3, {"pixel": [Sparse(0.5, (1,))]}, "pixel"))
    assert shown == "Model(rank=3, constraints={'pixel': [Sparse(strength=0.5, components=(1,))]}, scale='pixel')"
    assert eval(shown) == Model(3, {"pixel": [Sparse(0.5, (1,))]}, "pixel")
    labelled = xr.DataArray(np.zeros((2, 300)), dims=("component", "energy_loss"))
    assert constructor_repr(Known(labelled)) == "Known(values=<DataArray (component: 2, energy_loss: 300)>)"
    assert constructor_repr(Known(np.zeros((4, 5)), 2.0)) == "Known(values=<array (4, 5)>, strength=2.0)"
    assert constructor_repr(Known(np.array([1.0, 2.0]))) == "Known(values=[1.0, 2.0])"
    assert constructor_repr(Known(np.float64(3))) == "Known(values=3.0)"
