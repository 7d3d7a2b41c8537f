"""Starts on all data race: what goes on is what that start gives alone, and the best of all is found nearly always."""

import importlib

import numpy as np
import pytest
import sparse
import xarray as xr

import tensorspec as ts
from tensorspec.fit import race, runs, stages
from tensorspec.solvers import loop

RNG = np.random.default_rng(3)
STARTS = 8


def planted(rng, phases=7, pixels=300, channels=48, counts=6.0):
    """Return counts of phases that take turns, a few of them rare: some starts merge two of them and split another."""
    shares = np.eye(phases)[
        rng.choice(phases, pixels, p=np.geomspace(1, 0.1, phases) / np.geomspace(1, 0.1, phases).sum())
    ]
    shares = 0.85 * shares + 0.15 * rng.dirichlet(np.ones(phases), pixels)
    energy = np.arange(channels)
    spectra = 0.05 + sum(np.exp(-0.5 * ((energy - rng.uniform(0, channels, (phases, 1))) / 2) ** 2) for _ in range(2))
    expected = shares @ spectra
    values = rng.poisson(expected * (counts / expected.mean())).astype(np.float32)
    return xr.DataArray(values, dims=("x", "energy"))


DATA = planted(RNG)
GAPS = xr.DataArray(RNG.random(DATA.shape) > 0.1, dims=DATA.dims)
FEW = planted(RNG, counts=0.3)
COUNTS = FEW.copy(data=sparse.COO.from_numpy(FEW.values))
# What cannot be compressed, as (data, options).
CASES = {
    "gaps": (DATA, {"mask": GAPS}),
    "whole": (DATA.astype("float64"), {"solver": ts.HALS(compress=False)}),
    "sparse": (COUNTS, {}),
    "poisson": (COUNTS, {"loss": ts.Poisson()}),
}


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(race, "_ENTRIES", 0)


def fit(case, model=None, **options):
    data, given = CASES[case] if isinstance(case, str) else case
    settings = {"start": ts.Random(), "restarts": STARTS, "max_sweeps": 60, **given, **options}
    return ts.fit(data, model or ts.NMF(7), progress=False, **settings)


def raced(found):
    return "was left after" in found.why


def same(first, second):
    np.testing.assert_array_equal(first.history, second.history)
    for mode in first.factors:
        np.testing.assert_array_equal(first.factors[mode], second.factors[mode])
    assert first.status is second.status


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_is_what_its_start_gives_alone(case):
    found = fit(case)
    assert raced(found), found.why
    assert len(found.spread) == STARTS
    winner = int(np.argmin(found.spread.values))
    alone = fit(case, restarts=1, seed=winner and runs._seed_of(0, winner))
    same(found, alone)
    assert found.objective == alone.objective
    assert float(found.spread.min()) == found.history[-1]
    assert "8 starts on all data" in found.why


def test_sweeps_of_the_others_are_few_and_their_objectives_those_where_they_were_left(monkeypatch):
    swept = []
    original = loop.run_chunk

    def noting(*arguments):
        before = int(arguments[3].sweeps)
        result = original(*arguments)
        swept.append(int(result[0].sweeps) - before)
        return result

    monkeypatch.setattr(loop, "run_chunk", noting)
    found = fit("gaps", tol=1e-6, max_sweeps=100)
    assert found.sweeps < 100
    assert sum(swept) == 8 * 8 + 4 * 8 + 2 * 16 + (found.sweeps - 32)
    assert "after 8, 16 and 32 sweeps" in found.why
    swept.clear()
    values = []
    for k in range(STARTS):
        alone = fit("gaps", tol=1e-6, max_sweeps=32, restarts=1, seed=k and runs._seed_of(0, k)).history.values
        values.append(alone)
    eight = np.argsort([own[8] for own in values])
    sixteen = eight[:4][np.argsort([values[k][16] for k in eight[:4]])]
    for k in eight[4:]:
        assert found.spread[k] == values[k][8]
    for k in sixteen[2:]:
        assert found.spread[k] == values[k][16]


def test_the_best_of_all_starts_is_found_nearly_always():
    rng = np.random.default_rng(5)
    behind, single = [], []
    for seed in range(8):
        data = planted(rng)
        case = (data, {"mask": GAPS, "max_sweeps": 300})
        found = fit(case, seed=seed)
        ends = [fit(case, restarts=1, seed=seed if k == 0 else runs._seed_of(seed, k)).objective for k in range(STARTS)]
        behind.append(found.objective / min(ends) - 1)
        single.append(ends[0] / min(ends) - 1)
    assert np.median(behind) < 1e-5
    assert sum(value < 1e-3 for value in behind) >= 7
    assert np.mean(behind) < 0.3 * np.mean(single)


@pytest.mark.slow
def test_who_does_not_race():
    assert not raced(fit("gaps", restarts=3))
    assert not raced(fit("gaps", restarts=1))
    assert not raced(fit((DATA, {"solver": ts.GaussNewton(), "max_sweeps": 3}), restarts=4))
    # Its objective need not fall.
    published = ts.NMF(2, {"pixel": ts.SoftOrthogonal(0.1, method="shiga2016")})
    assert not raced(fit((DATA, {}), published, restarts=4, max_sweeps=3))
    # Its components die one after the other.
    assert not raced(fit("gaps", ts.NMF(2, {"pixel": ts.ARD()}), restarts=4, max_sweeps=3))
    # A fit without the belief comes first, and goes to its end.
    assert not raced(fit("gaps", ts.NMF(2, {"pixel": ts.SoftOrthogonal(0.1)}), restarts=4, max_sweeps=3))


def test_small_data_do_not_race(monkeypatch):
    monkeypatch.setattr(race, "_ENTRIES", DATA.size + 1)
    small = fit("gaps", max_sweeps=3)
    assert not raced(small)
    assert len(small.spread) == STARTS
    # An entry with another loss costs as much as four.
    assert raced(fit((DATA, {"loss": ts.Huber(3.0)}), max_sweeps=3))
    monkeypatch.setattr(race, "_ENTRIES", DATA.size)
    assert raced(fit("gaps", max_sweeps=3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constraints_that_tie_pixels_race_too_and_twice_gives_the_same_bits(dtype):
    data = DATA.astype(dtype)
    model = ts.NMF(3, {"pixel": ts.Smooth(0.1), "energy": ts.Unimodal()})
    first, second = (fit((data, {"mask": GAPS}), model, restarts=4, max_sweeps=20) for _ in range(2))
    assert raced(first)
    assert first.provenance["dtype"] == dtype
    same(first, second)
    np.testing.assert_array_equal(first.spread, second.spread)


@pytest.mark.parametrize("case", ["gaps", "poisson"])
@pytest.mark.parametrize("chunks", [0, 3, 17, 26])
def test_a_stopped_race_goes_on_to_the_same_bits(monkeypatch, tmp_path, case, chunks, interrupt_after):
    options = {"tol": 1e-6, "max_sweeps": 50}
    whole = fit(case, **options)
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        part = fit(case, checkpoint=path, **options)
    assert part.status is ts.Status.INTERRUPTED
    assert all(np.isfinite(factor).all() for factor in part.factors.values())
    # What was reached is said by the best of all that had begun.
    assert part.history[-1] == pytest.approx(part.objective, rel=1e-5)
    assert part.spread is None or part.spread.min() == part.history[-1]
    again = fit(case, checkpoint=path, **options)
    same(again, whole)
    np.testing.assert_array_equal(again.spread, whole.spread)
    assert again.why == whole.why
    assert not path.exists()


def test_a_stopped_race_gives_the_best_so_far(monkeypatch, interrupt_after):
    whole = fit("gaps", tol=1e-6, max_sweeps=50)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 19)
        part = fit("gaps", tol=1e-6, max_sweeps=50)
    assert len(part.spread) == STARTS
    assert part.spread.min() == part.history[-1]
    assert (part.spread >= whole.spread).all()
    assert "goes on" not in part.why


def test_a_time_limit_holds():
    found = fit("poisson", time_limit=1e-6)
    assert found.status is ts.Status.TIME_LIMIT
    assert np.isfinite(found.objective)
    assert found.history[-1] == pytest.approx(found.objective, rel=1e-5)


def test_starts_race_where_the_compressed_ones_were_no_use(monkeypatch, tmp_path, interrupt_after):
    monkeypatch.setattr(stages, "lost_something", lambda *_: True)
    options = {"tol": 1e-9, "max_sweeps": 40, "restarts": 4, "model": ts.NMF(2)}
    whole = fit((DATA, {"solver": ts.HALS(compress=True)}), **options)
    assert raced(whole)
    assert "led to a place that all data left" in whole.why
    winner = int(np.argmin(whole.spread.values))
    seed = winner and runs._seed_of(0, winner)
    same(whole, fit((DATA, {"solver": ts.HALS(compress=False)}), **{**options, "restarts": 1, "seed": seed}))
    path = tmp_path / "run.npz"
    for chunks in (3, 14, 20):
        with monkeypatch.context() as patch:
            interrupt_after(patch, chunks)
            part = fit((DATA, {"solver": ts.HALS(compress=True)}), checkpoint=path, **options)
        assert part.status is ts.Status.INTERRUPTED
        again = fit((DATA, {"solver": ts.HALS(compress=True)}), checkpoint=path, **options)
        same(again, whole)
        np.testing.assert_array_equal(again.spread, whole.spread)


def test_the_bar_tells_the_best_so_far(capfd):
    importlib.import_module("tqdm")
    ts.fit(DATA, ts.NMF(3), mask=GAPS, start=ts.Random(), restarts=4, max_sweeps=20, progress=True)
    errors = capfd.readouterr().err
    assert "start 4 of 4, best" in errors
