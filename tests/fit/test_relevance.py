"""Automatic relevance determination: the right number of components, one stated objective, whatever the scale."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.solvers import loop

pytestmark = pytest.mark.slow

ALPHA, CUT_OFF = 1.0, 0.01


def stated(factor, strength):
    """The documented value, in plain numpy."""
    factor = np.asarray(factor, float)
    size = len(factor)
    cut = CUT_OFF * np.sqrt(strength) * size
    return strength * (size + ALPHA + 1) * np.log1p(np.abs(factor).sum(axis=0) / cut).sum()


def strength_used(fit):
    text = next(text for text in fit.provenance["constraints_as_solved"]["pixel"] if text.startswith("ARD("))
    return float(text.removeprefix("ARD(strength=").split(",")[0].rstrip(")"))


def relevant(data, rank=6, restarts=1, **options):
    return ts.fit(data, ts.NMF(rank, {"pixel": ts.ARD(**options)}), restarts=restarts, progress=False)


def few_counts(seed=0, scale=1.0):
    """A small phantom without a word on its noise."""
    rng = np.random.default_rng(seed)
    maps, spectra = rng.dirichlet([0.3] * 2, 150), rng.dirichlet([0.3] * 30, 2)
    return xr.DataArray(rng.poisson(500 * maps @ spectra), dims=("x", "energy")) * scale


def degrees(fit, phantom):
    found, true = fit.select(fit.alive).spectra().values, phantom.truth["spectra"].values
    found, true = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (found, true))
    return np.degrees(np.arccos(np.clip((true @ found.T).max(axis=1), -1, 1)))


def finds_three(kind, counts, seeds, restarts, within):
    right = []
    for seed in seeds:
        phantom = ts.phantoms.discs(kind, counts=counts, seed=seed)
        for rank in (6, 10):
            fit = relevant(phantom["data"], rank, restarts)
            right.append(len(fit.alive) == 3)
            if right[-1]:
                assert degrees(fit, phantom).max() < within
    return right


def test_it_finds_the_number_of_components():
    assert all(finds_three("edx", 500, range(1), 2, within=7))


@pytest.mark.parametrize(
    ("kind", "counts", "within"),
    [
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (("edx", 500, 7), ("edx", 5000, 7), ("eels", 5000, 90))
    ],
)
def test_it_finds_the_number_of_components_in_24_fits(kind, counts, within):
    """On a common background (EELS) the count is right while the spectra stay mixed, so no angle is asked for."""
    assert sum(finds_three(kind, counts, range(12), 10, within)) >= 22


@pytest.mark.parametrize(("kind", "counts"), [("edx", 500), ("eels", 5000)])
def test_it_finds_them_beside_a_likelihood(kind, counts):
    """In units of a log-likelihood the strength is one."""
    phantom = ts.phantoms.discs(kind, counts=counts, seed=0)
    model = ts.NMF(6, {"pixel": ts.ARD()})
    fit = ts.fit(phantom["data"], model, loss=ts.Poisson(), restarts=2, progress=False)
    assert strength_used(fit) == pytest.approx(1)
    assert fit.alive == [1, 2, 3]


@pytest.mark.parametrize("rank", [1, 3])
def test_one_component_and_one_survivor(rank):
    rng = np.random.default_rng(0)
    data = xr.DataArray(np.outer(1 + rng.random(40), 1 + rng.random(20)), dims=("x", "energy"))
    fit = relevant(data + 0.05 * rng.standard_normal(data.shape), rank)
    assert fit.alive == [1]
    assert np.isfinite(fit.objective)
    assert fit.explained > 0.99
    assert all(np.isfinite(factor).all() for factor in fit.factors.values())


def test_too_strong_a_prior_leaves_nothing_and_says_so():
    fit = relevant(few_counts(), 2, strength=1e3)
    assert fit.alive == []
    assert (fit.reconstruct() == 0).all()
    assert np.isfinite(fit.objective)
    assert "2 components (0 alive)" in repr(fit)


def test_the_dead_are_those_of_the_best_restart():
    fit = relevant(few_counts(), 5, restarts=6, strength=0.005)
    assert fit.spread.max() > fit.spread.min()  # else any restart would do
    assert fit.objective == pytest.approx(float(fit.spread.min()), rel=1e-10)
    scale = next(iter(fit.provenance["scales"].values()))
    amplitudes = (fit.factors["pixel"] * fit.weights * scale).values.T
    left = 0.5 * float((fit.residual() ** 2).sum()) * scale**2
    assert left + stated(amplitudes, 0.005) == pytest.approx(fit.objective, rel=1e-6)
    dead = [number for number in range(1, 6) if number not in fit.alive]
    assert dead and (fit.maps().sel(component=dead) == 0).all() and (fit.shares().sel(component=dead) == 0).all()
    assert f"5 components ({len(fit.alive)} alive)" in repr(fit)
    assert f"5 components ({len(fit.alive)} alive)" in fit._repr_html_()


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_data_does_not_matter(factor):
    one, other = (relevant(few_counts(scale=scale)) for scale in (np.sqrt(2), np.sqrt(2) * factor))
    assert len(one.alive) == 2
    assert other.alive == one.alive
    assert strength_used(other) == pytest.approx(strength_used(one), rel=1e-6)
    np.testing.assert_allclose(other.spectra(), one.spectra() * factor, rtol=1e-4, atol=1e-6 * factor)


def test_without_rescaling_the_answer_is_the_same():
    data = few_counts(scale=3.0)
    fits = [ts.fit(data, ts.NMF(6, {"pixel": ts.ARD()}), progress=False, rescale=rescale) for rescale in (True, False)]
    assert fits[0].alive == fits[1].alive == [1, 2]
    np.testing.assert_allclose(fits[1].spectra(), fits[0].spectra(), rtol=1e-3, atol=1e-2)


def test_integer_counts_are_counts():
    counts = few_counts().astype(int)
    assert relevant(counts.astype(np.uint16)).alive == relevant(counts.astype(float)).alive == [1, 2]


def test_a_phantom_of_magnitude_one_ten_thousandth(shared_data):
    values = np.load(shared_data / "shiga_eels" / "SI_data.npz")["X"]
    data = xr.DataArray(values, dims=("y", "x", "energy_loss"))
    small, large = (relevant(data * scale, 6, 3) for scale in (1.0, 1e4))
    assert small.alive == large.alive == [1, 2]
    assert small.sweeps == large.sweeps
    np.testing.assert_allclose(large.spectra(), 1e4 * small.spectra(), rtol=1e-6, atol=1e-9)


def test_missing_entries_and_a_second_tensor():
    rng = np.random.default_rng(1)
    maps = rng.dirichlet([0.3] * 2, 150)
    tensors = {
        name: xr.DataArray(rng.poisson(500 * maps @ rng.dirichlet([0.3] * size, 2)), dims=("x", name))
        for name, size in (("a", 30), ("b", 20))
    }
    mask = xr.DataArray(rng.random((150, 30)) > 0.2, dims=("x", "a"))
    fit = ts.fit(tensors, ts.NMF(5, {"pixel": ts.ARD()}), mask={"a": mask}, progress=False)
    assert fit.alive == [1, 2]
    assert (fit.weights.sel(component=[3, 4, 5]) == 0).all()


def test_new_samples_are_judged_by_what_was_learnt():
    data = few_counts()
    fit = ts.fit(data, ts.NMF(6, {"pixel": ts.ARD()}), progress=False, tol=1e-12, max_sweeps=5000)
    again = fit.transform(data[:40])
    np.testing.assert_allclose(again, fit.factors["pixel"][:, :40], rtol=1e-4, atol=1e-6)


def test_going_on_from_a_fit_keeps_the_dead_and_the_objective():
    data = few_counts()
    fit = relevant(data)
    again = ts.fit(data, ts.NMF(6, {"pixel": ts.ARD()}), start=ts.From(fit), progress=False)
    assert again.alive == fit.alive
    assert again.history[0] == pytest.approx(fit.objective, rel=1e-6)
    assert again.objective <= fit.objective * (1 + 1e-9)


def alike():
    """One spectrum at two places, and the start in which each place has a component of its own."""
    rng = np.random.default_rng(0)
    spectra = np.array([np.r_[np.ones(10), np.zeros(10)], np.r_[np.zeros(10), np.ones(10)]])
    maps = np.zeros((60, 2))
    maps[:40, 0], maps[40:, 1] = 1, 1
    data = xr.DataArray(maps @ spectra + 0.05 * rng.standard_normal((60, 20)), dims=("x", "energy"))
    split = np.c_[maps[:, 0] * (np.arange(60) < 18), maps[:, 0] * (np.arange(60) >= 18), maps[:, 1]]
    return data, ts.From({"pixel": split, "energy": spectra[[0, 0, 1]].T})


def test_components_with_the_same_spectrum_are_merged_where_asked():
    data, start = alike()
    apart, merged = (
        ts.fit(data, ts.NMF(3, {"pixel": ts.ARD(merge=merge)}), start=start, progress=False, max_sweeps=3)
        for merge in (None, 0.99)
    )
    assert len(apart.alive) == 3
    assert len(merged.alive) == 2
    assert merged.objective < apart.objective
    found = merged.factors["pixel"].sel(component=merged.alive)
    assert (np.abs(found).max("component") > 0).all()


def test_a_merge_goes_on_to_the_same_bits_after_an_interruption(monkeypatch, tmp_path):
    data, start = alike()

    def run(checkpoint=None):
        model = ts.NMF(3, {"pixel": ts.ARD(0.003, merge=0.9)})
        # Few repeats, so that forty sweeps end before one of the two alike has died by itself.
        options = {"solver": ts.HALS(), "max_sweeps": 40, "tol": 0}
        return ts.fit(data, model, start=start, progress=False, checkpoint=checkpoint, **options)

    whole, path, seen = run(), tmp_path / "run.npz", []
    with monkeypatch.context() as patch:
        original = loop.run_chunk

        def stopping(model, program, problem, state, *rest):
            dead = (np.asarray(state.factors["pixel"]).sum(axis=0) == 0).any()
            if dead and int(state.sweeps) > 0:  # in the continuation after the merge
                seen.append(int(state.sweeps))
                raise KeyboardInterrupt
            return original(model, program, problem, state, *rest)

        patch.setattr(loop, "run_chunk", stopping)
        assert run(path).status is ts.Status.INTERRUPTED
    assert seen and path.exists()
    again = run(path)
    for mode in whole.factors:
        np.testing.assert_array_equal(again.factors[mode], whole.factors[mode])
    np.testing.assert_array_equal(again.history, whole.history)


def test_a_fit_file_keeps_it(tmp_path):
    fit = relevant(few_counts())
    again = ts.open(fit.save(tmp_path / "fit.h5"))
    assert again.alive == fit.alive
    assert repr(again.model.constraints["pixel"]) == "(ARD(strength='auto'),)"


def test_where_it_cannot_stand():
    data = few_counts()
    with pytest.raises(ts.ConstraintConflict, match="needs NonNegative"):
        ts.fit(data, ts.CP(2, {"pixel": ts.ARD()}))
    with pytest.raises(ts.ConstraintConflict, match="another mode carries them.*scale='energy'"):
        ts.fit(data, ts.NMF(2, {"energy": ts.ARD()}))
    with pytest.raises(ts.ConstraintConflict, match="cannot let a component vanish"):
        ts.fit(data, ts.NMF(2, {"pixel": [ts.ARD(), ts.SumToOne("component")]}))
    with pytest.raises(ts.InvalidArgument, match="merge=2: expected a cosine"):
        ts.ARD(merge=2)
    assert ts.fit(data, ts.NMF(2, {"energy": ts.ARD()}, scale="energy"), progress=False).alive == [1, 2]
