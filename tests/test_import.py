"""`import tensorspec` is light, and every public name is there."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorspec as ts

HEAVY = ("dask", "equinox", "exspy", "h5py", "hyperspy", "jax", "matplotlib", "rsciio", "sklearn", "tensorly", "xarray")
STUB = Path(ts.__file__).with_suffix(".pyi")


def run_python(code: str) -> str:
    """Return what a fresh interpreter prints, without the import hooks of the test run."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy():
    loaded = run_python("import sys, json, tensorspec; print(json.dumps(sorted(sys.modules)))")
    top_level = {name.partition(".")[0] for name in json.loads(loaded)}
    assert top_level.isdisjoint(HEAVY), sorted(top_level.intersection(HEAVY))


@pytest.mark.parametrize("name", ["load", "signals", "from_hyperspy", "NoiseModel", "estimate_noise", "open"])
def test_label_side_does_not_load_jax(name):
    loaded = json.loads(
        run_python(f"import sys, json, tensorspec; tensorspec.{name}; print(json.dumps([*sys.modules]))")
    )
    assert {"jax", "sklearn", "matplotlib", "hyperspy"}.isdisjoint(loaded)


def test_import_takes_less_than_50_ms_beyond_numpy():
    code = "import numpy, time; t = time.perf_counter(); import tensorspec; print(1e3 * (time.perf_counter() - t))"
    assert min(float(run_python(code)) for _ in range(3)) < 50


def test_every_public_name_resolves():
    for name in ts.__all__:
        assert getattr(ts, name) is not None, name


def test_dir_lists_every_public_name_and_nothing_private():
    assert set(ts.__all__) <= set(dir(ts))
    assert [name for name in dir(ts) if name.startswith("_")] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        ts.no_such_thing  # noqa: B018


def test_the_table_has_one_name_a_line_exported_as_itself():
    """A type checker takes `X as X` for a public name, and a second `X` would hide the first."""
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    names = [(alias.name, alias.asname) for node in imports for alias in node.names]
    assert all(len(node.names) == 1 for node in imports)
    assert all(name == asname for name, asname in names)
    assert sorted(name for name, _ in names) == sorted(set(ts.__all__))


@pytest.mark.parametrize(
    "first",
    ["from tensorspec.fit import fit", "import tensorspec.fit", "import tensorspec.cli", "from tensorspec import fit"],
)
def test_fit_is_the_function_whatever_was_imported_first(first):
    """The function shares its name with its file, and importing a file sets that name to the module."""
    code = f"{first}\nimport tensorspec as ts\nprint(type(ts.fit).__name__, ts.fit.__name__)"
    assert run_python(code).split() == ["function", "fit"]


def test_every_name_resolves_at_once_when_asked():
    environment = {**os.environ, "EAGER_IMPORT": "1"}
    code = "import tensorspec as ts; assert callable(ts.fit)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment, timeout=120)


def test_the_reference_lists_every_public_name():
    page = Path(__file__).resolve().parents[1] / "docs" / "reference" / "index.md"
    listed = [line.strip() for line in page.read_text().splitlines() if line.startswith("   ") and ":" not in line]
    assert sorted(filter(None, listed)) == sorted(ts.__all__)
