"""The rules of the house that import-linter cannot see: that its contracts name every room, and a few more."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tensorspec"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir() if path.name[0].isalpha()}
ROOMS &= {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def rooms_of_layer(layer: str) -> set[str]:
    return set(layer.replace("(", "").replace(")", "").replace("|", " ").replace(":", " ").split())


def rooms_below(contract: str, room: str) -> set[str]:
    """Return the rooms that exist, in the layers from that of `room` downwards."""
    layers = [rooms_of_layer(layer) for layer in CONTRACTS[contract]["layers"]]
    start = next(index for index, names in enumerate(layers) if room in names)
    return set().union(*layers[start:]) & ROOMS


def sources(contract: str) -> set[str]:
    return {name.removeprefix("tensorspec.") for name in CONTRACTS[contract]["source_modules"]}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_room_has_its_place_in_the_layers():
    layers = CONTRACTS["layers"]["layers"] + CONTRACTS["label-layers"]["layers"]
    assert ROOMS <= set().union(*map(rooms_of_layer, layers))


def test_the_contract_of_the_array_side_names_all_of_it():
    assert sources("array-side") >= rooms_below("layers", "solvers") - {"errors"}


def test_the_contract_of_the_label_side_names_all_of_it():
    assert sources("label-side") >= rooms_below("label-layers", "prepare")


def test_each_side_is_forbidden_the_other():
    array, label = rooms_below("layers", "solvers"), rooms_below("label-layers", "prepare")
    shared = {"arguments", "errors", "recipe"}
    assert {f"tensorspec.{room}" for room in label - shared} <= set(CONTRACTS["array-side"]["forbidden_modules"])
    assert {f"tensorspec.{room}" for room in array - shared} <= set(CONTRACTS["label-side"]["forbidden_modules"])


def test_the_conveniences_of_fit_import_their_room_only_when_called():
    allowed = {line.split(" -> ")[1].removesuffix(".*") for line in CONTRACTS["layers"]["ignore_imports"]}
    at_import = set()
    for node in ast.parse((PACKAGE / "solution.py").read_text()).body:
        if isinstance(node, ast.Import):
            at_import |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            at_import |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert not [name for name in at_import for room in allowed if name == room or name.startswith(f"{room}.")]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_one_idea_a_file(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_pickle_and_no_global_switch_of_jax(path):
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported.isdisjoint({"pickle", "cloudpickle", "dill", "joblib"})
    called = {ast.unparse(node.func) for node in tree.body for node in ast.walk(node) if isinstance(node, ast.Call)}
    if relative(path) != "tensorspec/cli.py":  # the command line owns its process and may configure JAX
        assert not {name for name in called if name.endswith("config.update")}
