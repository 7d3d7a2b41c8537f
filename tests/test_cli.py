"""The command line: what it writes, what it prints, and one line for every mistake."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tensorspec as ts
from tensorspec.cli import main
from tensorspec.cli.cache import FOLDER, LEAST_BYTES, LEAST_SECONDS, cache_folder, keep_compiled_programs

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"y": 6, "x": 7, "energy_loss": 64, "xray_energy": 48}


def write_hspy(path: Path, tensor) -> Path:
    """Write a spectrum image as HyperSpy would."""
    hspy = pytest.importorskip("rsciio.hspy")
    axes = []
    for index, dim in enumerate(tensor.dims):
        coord = tensor[dim]
        axes.append(
            {
                "_type": "UniformDataAxis",
                "name": {"energy_loss": "Energy loss", "xray_energy": "Energy"}.get(dim, dim),
                "units": coord.attrs["units"],
                "scale": float(coord[1] - coord[0]),
                "offset": float(coord[0]),
                "size": coord.size,
                "navigate": dim in ("y", "x"),
                "index_in_array": index,
                "is_binned": dim not in ("y", "x"),
            }
        )
    hspy.file_writer(
        str(path),
        {
            "data": np.asarray(tensor),
            "axes": axes,
            "metadata": {
                "General": {"title": tensor.attrs["title"]},
                "Signal": {"signal_type": tensor.attrs["signal_type"]},
            },
            "original_metadata": {},
            "attributes": {"_lazy": False, "ragged": False},
            "learning_results": {},
            "tmp_parameters": {},
            "package": "",
            "package_version": "",
            "package_info": "",
            "models": {},
        },
        compression=None,
    )
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a small cross-section as two files."""
    folder = tmp_path_factory.mktemp("data")
    phantom = ts.phantoms.cross_section(
        shape=(12, 14), eels_channels=SIZES["energy_loss"], edx_channels=SIZES["xray_energy"]
    )
    write_hspy(folder / "eels.hspy", phantom["eels"])
    write_hspy(folder / "edx.hspy", phantom["edx"])
    return folder


@pytest.fixture(autouse=True)
def no_cache_in_this_process(monkeypatch):
    """The command line owns its process; this one belongs to pytest, so what it sets is put back."""
    import jax  # noqa: F401  # loaded now, so that no variable below reaches it

    for name in (FOLDER, LEAST_SECONDS, LEAST_BYTES):
        monkeypatch.setenv(name, "0")


def in_a_shell(*arguments: str, home: Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = ["-m", "tensorspec", *map(str, arguments)] if code is None else ["-c", code]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(home), "LOCALAPPDATA": str(home)}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=300,
    )


def test_demo_writes_report_file_and_picture_and_keeps_compiled_programs(tmp_path):
    done = in_a_shell("demo", "--shape", "16", "24", "--output", tmp_path / "out", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["demo.png", "fit.h5", "report.html"]
    fit = ts.open(tmp_path / "out" / "fit.h5")
    assert set(fit.tensors) == {"eels", "edx"} and fit.rank == 4
    assert set(fit.labels) == {"SrTiO3", "SrMnO3", "LaMnO3", "Fe3O4"}
    rows = {line.split("  ")[1]: line.split()[-3:] for line in done.stdout.splitlines()[-3:]}
    assert float(rows["EELS and EDX together"][0]) < float(rows["EELS alone"][0])
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    if sys.platform.startswith("linux"):
        assert kept, "nothing was kept for the next command"
    assert (tmp_path / "out" / "demo.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["doctor", "--help"], ["info", "{eels}"]])
def test_help_and_info_do_not_load_jax(arguments, files, tmp_path):
    arguments = [text.format(eels=files / "eels.hspy") for text in arguments]
    code = (
        f"from tensorspec.cli import main; import sys; status = main({arguments!r}); "
        "sys.stderr.write(' '.join({'jax', 'matplotlib', 'sklearn', 'hyperspy'} & set(sys.modules))); sys.exit(status)"
    )
    done = in_a_shell(code=code, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["tensorspec", ts.__version__]


def test_info_lists_signals_as_table_and_as_json(files, capsys):
    assert main(["info", str(files / "eels.hspy")]) == 0
    assert "12 x 14 x 64" in capsys.readouterr().out
    assert main(["info", str(files / "eels.hspy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["signals"][0]["dims"] == ["y", "x", "energy_loss"]
    assert found["signals"][0]["shape"] == [12, 14, 64]


def test_fit_of_a_file_writes_fit_and_report(files, tmp_path, capsys):
    arguments = ["fit", str(files / "eels.hspy"), "--rank", "3", "--output", str(tmp_path), "--seed", "5"]
    arguments += ["--crop", "energy_loss=440:900", "--bin", "energy_loss=2", "--exclude", "energy_loss=525:545"]
    arguments += ["--constraint", "energy_loss=Sparse:0.001", "--loss", "LeastSquares:poisson", "--max-sweeps", "30"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "component" in printed.out and "eels.fit.h5" in printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eels.fit.h5", "eels.report.html"]
    fit = ts.open(tmp_path / "eels.fit.h5")
    inside = np.arange(430, 942, 8)[(np.arange(430, 942, 8) >= 440) & (np.arange(430, 942, 8) <= 900)]
    assert fit.tensors["data"].shape == (12, 14, len(inside) // 2)
    left_out = (fit.factors["energy_loss"].energy_loss >= 525) & (fit.factors["energy_loss"].energy_loss <= 545)
    assert left_out.any()
    assert bool(np.isnan(fit.factors["energy_loss"].where(left_out, drop=True)).all())
    assert not np.isnan(fit.factors["energy_loss"].where(~left_out, drop=True)).any()
    assert fit.provenance["seed"] == 5
    assert [str(item) for item in fit.model.constraints["energy_loss"]] == ["Sparse(strength=0.001)"]
    assert fit.tensors["data"].loss == "LeastSquares(scaling='poisson')"
    assert any("cropped" in step for step in fit.tensors["data"].attrs["history"])


def test_binning_sums_counts_and_keeps_units(files):
    from tensorspec.cli.recipe_file import Source
    from tensorspec.cli.source import load_source

    whole = load_source(Source(files / "edx.hspy"))
    binned = load_source(Source(files / "edx.hspy", bin={"xray_energy": 4, "x": 2}))
    assert int(binned.sum()) == int(whole.sum())
    assert binned.shape == (12, 7, 12) and binned.dtype.kind == "u"
    assert binned.xray_energy.attrs["units"] == whole.xray_energy.attrs["units"] == "keV"
    assert float(binned.xray_energy[0]) == pytest.approx(float(whole.xray_energy[:4].mean()))


def test_a_bin_with_a_missing_value_is_missing(tmp_path):
    from tensorspec.cli.recipe_file import Source
    from tensorspec.cli.source import load_source

    phantom = ts.phantoms.cross_section(shape=(8, 8), eels_channels=32, edx_channels=32, gain=2.0)
    data = phantom["eels"].copy(data=phantom["eels"].values.astype("float32"))
    data[0, 0, 5] = np.nan
    write_hspy(tmp_path / "eels.hspy", data)
    binned = load_source(Source(tmp_path / "eels.hspy", bin={"energy_loss": 4}))
    assert binned.dtype.kind == "f" and np.isnan(binned[0, 0]).values.tolist() == [False, True, *[False] * 6]
    assert float(binned[0, 0, 0]) == pytest.approx(float(data[0, 0, :4].sum()), rel=1e-6)


RECIPE = """
output = "results"
loss = "LeastSquares"

[data.eels]
file = "{files}/eels.hspy"
exclude = {{energy_loss = [[520, 540], [630, 650]]}}

[data.edx]
file = "{files}/edx.hspy"
crop = {{xray_energy = [0.2, 9.0]}}

[model]
type = "NMF"
rank = 4
constraints = {{pixel = "Sparse:0.001", energy_loss = ["NonNegative", "Sparse(0.001, components=[1, 2])"]}}

[weights]
eels = 1.0
edx = 0.5

[fit]
restarts = 2
max_sweeps = 20
seed = 3
"""


@pytest.fixture
def recipe(files, tmp_path) -> Path:
    path = tmp_path / "fusion.toml"
    path.write_text(RECIPE.format(files=files.as_posix()))
    return path


def test_a_recipe_fits_several_files_together(recipe, capsys):
    assert main(["fit", str(recipe), "--max-sweeps", "10"]) == 0
    assert "wrote" in capsys.readouterr().out
    results = recipe.parent / "results"
    assert sorted(path.name for path in results.iterdir()) == ["fusion.fit.h5", "fusion.report.html"]
    fit = ts.open(results / "fusion.fit.h5")
    assert list(fit.tensors) == ["eels", "edx"] and set(fit.modes) == {"pixel", "energy_loss", "xray_energy"}
    assert fit.recipe["weights"] == {"eels": 1.0, "edx": 0.5}
    assert fit.recipe["restarts"] == 2 and fit.spread.size == 2
    assert fit.recipe["max_sweeps"] == 10  # what is typed goes before what is written
    assert int(np.isnan(fit.factors["energy_loss"].sel(component=1)).sum()) == 5


def test_the_report_of_a_saved_fit(recipe, tmp_path, capsys):
    main(["fit", str(recipe)])
    capsys.readouterr()
    saved = recipe.parent / "results" / "fusion.fit.h5"
    (saved.parent / "fusion.report.html").unlink()
    assert main(["report", str(saved)]) == 0
    assert (saved.parent / "fusion.report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype")
    assert main(["info", str(saved)]) == 0
    assert "4 components" in capsys.readouterr().out
    assert main(["info", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fit"]["rank"] == 4


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("tensorspec", "jaxlib", "threads", "devices", "free", "compiled programs"))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["tensorspec"] == ts.__version__


MISTAKES = {
    "no command": ([], "COMMAND"),
    "unknown command": (["fitt"], "invalid choice"),
    "no file": (["info"], "FILE"),
    "missing file": (["info", "{files}/eel.hspy"], "Did you mean 'eels.hspy'?"),
    "missing file to fit": (["fit", "{files}/eel.hspy", "--rank", "3"], "Did you mean 'eels.hspy'?"),
    "missing fit": (["report", "{files}/none.fit.h5"], "there is no file"),
    "not a fit": (["report", "{files}/edx.hspy"], "not a saved fit"),
    "unknown format": (["info", "{here}"], "can be read"),
    "no rank": (["fit", "{files}/eels.hspy"], "--rank 4"),
    "rank is no number": (["fit", "{files}/eels.hspy", "--rank", "four"], "--help"),
    "rank zero": (["fit", "{files}/eels.hspy", "--rank", "0"], "--rank 0"),
    "rank too large": (["fit", "{files}/eels.hspy", "--rank", "500"], "at most"),
    "unknown signal": (["fit", "{files}/eels.hspy", "--rank", "3", "--signal", "EDX"], "no signal 'EDX'"),
    "unknown reader": (["info", "{files}/eels.hspy", "--reader", "Digital"], "no reader 'Digital'"),
    "unknown mode": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "enrgy_loss=NonNegative"],
        "Did you mean 'energy_loss'?",
    ),
    "constraint without a mode": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "NonNegative"],
        "MODE=NAME",
    ),
    "unknown constraint": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "pixel=Sprase:1"],
        "Did you mean 'Sparse'?",
    ),
    "constraint without its argument": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "pixel=Sparse"],
        "strength",
    ),
    "argument that is code": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "pixel=Sparse:open('x')"],
        "cannot be read",
    ),
    "negative strength": (["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "pixel=Sparse:-1"], "-1"),
    "a class that is no constraint": (
        ["fit", "{files}/eels.hspy", "--rank", "3", "--constraint", "pixel=HALS"],
        "there are",
    ),
    "unknown dimension": (["fit", "{files}/eels.hspy", "--rank", "3", "--crop", "energy=1:2"], "energy_loss"),
    "empty range": (["fit", "{files}/eels.hspy", "--rank", "3", "--crop", "energy_loss=1:2"], "430 to 934 eV"),
    "range turned round": (["fit", "{files}/eels.hspy", "--rank", "3", "--crop", "energy_loss=9:2"], "LOW:HIGH"),
    "bin is no number": (["fit", "{files}/eels.hspy", "--rank", "3", "--bin", "x=two"], "whole number"),
    "bin too large": (["fit", "{files}/eels.hspy", "--rank", "3", "--bin", "x=200"], "1 to 14"),
    "output without a parent": (["fit", "{files}/eels.hspy", "--rank", "3", "--output", "{files}/a/b"], "--output"),
    "output is a file": (["demo", "--output", "{files}/eels.hspy"], "is a file"),
    "missing recipe": (["fit", "{files}/none.toml"], "there is no file"),
    "phantom too small": (["demo", "--shape", "2", "2", "--output", "{files}"], "at least"),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line_and_status_2(arguments, words, files, capsys):
    before = sorted(files.iterdir())
    status = main([text.format(files=files, here=__file__) for text in arguments])
    error = capsys.readouterr().err
    assert status == 2
    assert words in error
    assert len(error.splitlines()) == 1 and error.endswith("\n")
    assert "Traceback" not in error
    assert sorted(files.iterdir()) == before  # and nothing was written


RECIPE_MISTAKES = {
    "no TOML": ("rank = = 3", "is not TOML"),
    "no data": ("[model]\nrank = 3", "names no data"),
    "no file": ("data = {signal = 'EELS'}\n[model]\nrank = 3", "without a file"),
    "no rank": ("data = {file = 'a.hspy'}\n[model]\ntype = 'NMF'", "no 'rank'"),
    "rank is text": ("data = {file = 'a.hspy'}\n[model]\nrank = '3'", "a whole number"),
    "unknown section": ("[modle]\nrank = 3", "Did you mean 'mod"),
    "unknown option": ("data = {file = 'a.hspy'}\n[model]\nrank = 3\n[fit]\nrestart = 3", "Did you mean 'restarts'?"),
    "unknown key of data": ("data = {file = 'a.hspy', crp = {x = [0, 1]}}\n[model]\nrank = 3", "Did you mean 'crop'?"),
    "range of one number": ("data = {file = 'a.hspy', crop = {x = [1]}}\n[model]\nrank = 3", "[low, high]"),
    "constraint is a number": (
        "data = {file = 'a.hspy'}\n[model]\nrank = 3\nconstraints = {pixel = 3}",
        "a list of texts",
    ),
    "unknown model": ("data = {file = 'a.hspy'}\n[model]\nrank = 3\ntype = 'SVD'", "nmf, cp"),
}


@pytest.mark.parametrize(("text", "words"), RECIPE_MISTAKES.values(), ids=RECIPE_MISTAKES)
def test_a_mistake_in_a_recipe_gets_one_line(text, words, tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    assert main(["fit", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error and "recipe.toml" in error or words == "nmf, cp" in error
    assert len(error.splitlines()) == 1


def test_what_belongs_in_a_recipe_is_not_taken_beside_one(recipe, capsys):
    assert main(["fit", str(recipe), "--signal", "1"]) == 2
    assert "--signal goes into the recipe" in capsys.readouterr().err


def test_several_signals_are_listed_on_one_line(shared_data, capsys):
    assert main(["fit", str(shared_data / "bcf_p45" / "P45_the_default_job.bcf"), "--rank", "3", "--output", "."]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "--signal 'EDX'" in error and "signal=" not in error and "75 x 100 x 2048" in error


@pytest.mark.skipif(os.name == "nt", reason="Windows has no interrupt that reaches one process alone")
def test_ctrl_c_saves_the_best_so_far_and_says_so(files, tmp_path):
    checkpoint = tmp_path / "going.npz"
    # A shell in the background ignores Ctrl-C, and what it starts inherits that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tensorspec.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fit", files / "eels.hspy", "--rank", "3", "--output", tmp_path]
    command += ["--tol", "0", "--max-sweeps", "1000000000", "--checkpoint", checkpoint]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "interrupted" in out and "the best so far was saved" in out and "Traceback" not in err
    assert ts.open(tmp_path / "eels.fit.h5").status is ts.Status.INTERRUPTED
    assert (tmp_path / "eels.report.html").exists()


def test_ctrl_c_before_the_fit_says_that_nothing_was_saved(files, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tensorspec.cli.job.load_source", interrupted)
    assert main(["fit", str(files / "eels.hspy"), "--rank", "3"]) == 2
    assert "before there was anything to save" in capsys.readouterr().err


def test_data_larger_than_memory_stay_on_disk_and_ctrl_c_says_how_far_the_fit_came(
    files, tmp_path, monkeypatch, capsys
):
    in_blocks = importlib.import_module("tensorspec.fit.in_blocks")
    recipe = tmp_path / "large.toml"
    file = json.dumps(str(files / "eels.hspy"))
    recipe.write_text(f"[data]\nfile = {file}\nlazy = true\nbin = {{energy_loss = 2}}\n[model]\nrank = 3\n")
    commands = [["fit", str(recipe)], ["fit", str(files / "eels.hspy"), "--rank", "3", "--lazy"]]
    monkeypatch.setattr(in_blocks, "available_memory", lambda: 1000)  # less than the data take
    monkeypatch.setattr(in_blocks, "_memory_plan", lambda *arguments: {})
    for command, stem in zip(commands, ("large", "eels"), strict=True):
        assert main([*command, "--output", str(tmp_path), "--max-sweeps", "3"]) == 0
        assert "passes over the data" in ts.open(tmp_path / f"{stem}.fit.h5").why

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tensorspec.solvers.tensor_blocks.TensorBlocks.values", interrupted)
    capsys.readouterr()
    assert main(commands[1]) == 2
    error = capsys.readouterr().err
    assert "stopped in the first pass over the data, after 0 of" in error and len(error.splitlines()) == 1


def test_lazy_in_a_recipe_is_true_or_false(tmp_path, capsys):
    recipe = tmp_path / "large.toml"
    recipe.write_text('[data]\nfile = "eels.hspy"\nlazy = "yes"\n[model]\nrank = 3\n')
    assert main(["fit", str(recipe)]) == 2
    assert "lazy is 'yes'; expected true or false" in capsys.readouterr().err


def test_the_cache_of_compiled_programs_is_the_users_own(monkeypatch, tmp_path):
    for name in (FOLDER, LEAST_SECONDS, LEAST_BYTES):
        monkeypatch.delenv(name)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    if sys.platform != "darwin":
        assert tmp_path in cache_folder().parents
    keep_compiled_programs()
    assert os.environ[FOLDER] == str(cache_folder())
    assert (os.environ[LEAST_SECONDS], os.environ[LEAST_BYTES]) == ("0", "-1")


def test_what_the_user_has_set_for_the_cache_stands(monkeypatch):
    monkeypatch.setenv(FOLDER, "elsewhere")
    keep_compiled_programs()
    assert os.environ[FOLDER] == "elsewhere"
