"""The benchmarks measure what they say: objectives, the search for the cheapest call, gates; and all of it runs."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="module")
def importable() -> Iterator[None]:
    """The benchmarks are a package of the repository, not of the distribution."""
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def _random_answer(workload, rng):
    from benchmarks.objective import Parts

    sizes = {mode: len(factor) for mode, factor in workload.start.items()}
    return {
        key: Parts([rng.random((sizes[mode], workload.rank)) for mode in modes])
        for key, modes in workload.modes.items()
    }


def test_objective_of_sparse_data_is_that_of_dense_ones():
    from benchmarks.objective import objective
    from benchmarks.planted import WORKLOADS

    workload = WORKLOADS["W2"]("tiny", 1)
    dense = replace(
        workload, tensors={"data": xr.DataArray(workload.tensors["data"].data.todense(), dims="y x e".split())}
    )
    answer = _random_answer(workload, np.random.default_rng(0))
    left, right = answer["data"].factors
    full = dense.tensors["data"].values.reshape(len(left), -1).astype(float)
    assert objective(workload, answer) == pytest.approx(0.5 * ((full - left @ right.T) ** 2).sum(), rel=1e-12)
    assert objective(dense, answer) == pytest.approx(objective(workload, answer), rel=1e-12)


def test_divergence_is_its_formula():
    from scipy.special import kl_div

    from benchmarks.objective import objective
    from benchmarks.planted import WORKLOADS

    workload = WORKLOADS["W6"]("tiny", 1)
    answer = _random_answer(workload, np.random.default_rng(0))
    left, right = answer["data"].factors
    full = workload.tensors["data"].data.todense().reshape(len(left), -1)
    assert objective(workload, answer) == pytest.approx(kl_div(full, left @ right.T).sum(), rel=1e-12)


@pytest.mark.parametrize("name", ["W3", "W4", "W5"])
def test_objective_of_several_modes_tensors_and_cores(name):
    from benchmarks.objective import Parts, objective
    from benchmarks.planted import WORKLOADS

    workload, rng = WORKLOADS[name]("tiny", 1), np.random.default_rng(0)
    answer = _random_answer(replace(workload, start={k: v for k, v in workload.start.items() if k != "core"}), rng)
    expected = 0.0
    for key, data in workload.arrays.items():
        core = np.zeros((workload.rank,) * data.ndim)
        core[(np.arange(workload.rank),) * data.ndim] = 1
        if name == "W5":
            core = rng.random(core.shape)
            answer[key] = Parts(answer[key].factors, core)
        model = core
        for factor in answer[key].factors:
            model = np.tensordot(model, factor, axes=(0, 1))
        expected += 0.5 * ((data - model) ** 2).sum()
    assert objective(workload, answer) == pytest.approx(expected, rel=1e-12)


def test_sparse_counts_have_the_planted_mean():
    from benchmarks.planted import WORKLOADS

    data = WORKLOADS["W2"]("tiny", 1).tensors["data"].data
    assert float(data.sum()) / data.size == pytest.approx(0.03, rel=4 / np.sqrt(0.03 * data.size))


def test_search_finds_the_least_number_of_sweeps_and_the_loosest_tolerances(monkeypatch):
    from benchmarks import search as module
    from benchmarks.methods import Method, Setting
    from benchmarks.objective import Parts
    from benchmarks.planted import WORKLOADS
    from benchmarks.search import Search

    workload = WORKLOADS["W1"]("tiny", 1)

    class Halving(Method):
        """The factors are multiples of the start: the multiple falls with the sweeps, to the tolerance."""

        name, tolerances = "halving", (1e-1, 1e-2, 1e-3)

        def run(self, setting):
            return max(0.8**setting.sweeps, setting.tol)

        def answer(self, result):
            pixel, energy = (workload.start[mode] for mode in ("pixel", "energy"))
            return {"data": Parts([pixel * (1 + result), energy])}

    method = Halving()
    monkeypatch.setattr(module, "PAUSE", 0.0)
    search = Search(workload, method, limit=100, patience=60.0)
    search.follow(np.inf)
    settings = search.settings_for(search.value(Setting(30)))  # 0.8 ** 30 is 1.2e-3, 0.8 ** 20 is 1.2e-2
    assert search.followed == 100
    assert settings == [Setting(30), Setting(30, 1e-3)]
    assert search.settings_for(search.value(Setting(20))) == [Setting(20), Setting(20, 1e-2), Setting(20, 1e-3)]


def test_a_section_takes_the_place_of_the_one_before(tmp_path):
    from benchmarks.report import put_section

    path = tmp_path / "results.md"
    for title, text in (("One", "old"), ("Two", "other"), ("One", "### new")):
        put_section(path, title, [text])
    assert path.read_text() == "# Benchmarks\n\n## One\n\n### new\n\n## Two\n\nother\n"


def test_gates_say_what_does_not_hold():
    from benchmarks.gates import verdicts
    from benchmarks.measure import Comparison, Figures, Timing
    from benchmarks.methods import Setting

    def figures(name, seconds, reached=1.0, sweep=1e-3):
        times = {} if seconds is None else {1e-4: {Setting(5): Timing(seconds)}}
        return Figures(name, times=times, sweep=sweep, reached=reached, followed=600)

    methods = [
        figures("tensorspec", [0.1, 0.1]),
        figures("tensorly HALS", [2.0, 6.0]),
        figures("scikit-learn cd", None),
    ]
    found = verdicts({"W1": Comparison("W1", "", (1e-4,), methods, 1.0, 1, 1e-4, (0.0, 0.0))})
    assert [(line.against, line.holds, line.aimed) for line in found] == [
        ("tensorly HALS", True, False),  # 40 times: the gate is 15, the aim 50
        ("scikit-learn cd", False, False),  # at least 600 ms against 100 ms
        ("two-read floor", False, False),  # ten times
    ]
    assert found[0].measured == "**40.0** (20.0 to 60.0)"


def test_quick_comparison_of_matrix_factorization(capsys, monkeypatch):
    from benchmarks import __main__ as command
    from benchmarks import search

    for name in command.SLOWING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(search, "PAUSE", 0.0)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--tiny", "--quick", "--only", "W1", "--limit", "30"])
    assert command.main() == 0
    said = capsys.readouterr().out
    for word in ("tensorspec", "tensorly HALS", "scikit-learn cd", "two-read floor", "f_best"):
        assert word in said


def test_a_method_that_fails_does_not_end_the_others():
    from benchmarks.measure import compare
    from benchmarks.methods import Method
    from benchmarks.peers import Sklearn
    from benchmarks.planted import WORKLOADS
    from benchmarks.report import table

    class Failing(Method):
        name = "failing"

        def run(self, setting):
            raise ValueError("not today")

        def answer(self, result):
            raise AssertionError

    workload = WORKLOADS["W2"]("tiny", 1)
    found = compare(workload, [Failing(), Sklearn(workload, "cd")], 0, 10, 1.0, lambda text: None, (1e-1,))
    assert found.method("scikit-learn cd").reached == found.best
    assert "| failing | failed: ValueError: not today |" in "\n".join(table(found))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of the peers are theirs
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["peers", "--only", "W4", "W5", "W6"],
            ["matcouply", "pyttb", "non-negative Tucker"],
            marks=pytest.mark.exhaustive,
        ),
        (["memory", "--only", "W1"], ["## Memory", "uint16"]),
        (["cold"], ["## First answer", "with a warm cache"]),
        pytest.param(["threads"], ["## Threads", "tensorly HALS"], marks=pytest.mark.exhaustive),
        (["growth"], ["## Growth", "rank"]),
    ],
    ids=lambda value: value[0],
)
def test_every_measure_runs(arguments, words, tmp_path, monkeypatch):
    from benchmarks import __main__ as command
    from benchmarks import search

    for name in command.SLOWING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(search, "PAUSE", 0.0)
    results = tmp_path / "results.md"
    options = ["--tiny", "--limit", "16", "--patience", "1", "--output", str(results)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, *options])
    assert command.main() == 0
    text = results.read_text()
    assert all(word in text for word in words)
    assert "failed" not in text


@pytest.mark.slow
def test_data_on_disk_are_fitted_in_little_memory_and_few_passes(tmp_path):
    pytest.importorskip("dask")
    if int(pytest.importorskip("zarr").__version__.split(".")[0]) > 2:
        pytest.skip("the stores of the benchmark are of zarr 2")
    from benchmarks.out_of_core import child, write

    shape = (128, 128, 512)  # 17 MB: a rehearsal of `python -m benchmarks.out_of_core full`
    write(tmp_path / "counts.zarr", shape, compressed=True)
    jobs = [{"kind": "ours", "path": str(tmp_path / "counts.zarr"), "sweeps": sweeps} for sweeps in (1, 10)]
    first, long = (child(job, 120) for job in jobs)
    assert len(first["passes"]) == 4  # bins, pixels, one sweep; the last sums the residual
    assert first["objective"] / long["objective"] - 1 < 5e-4
    assert first["above"] < 1.5e9
