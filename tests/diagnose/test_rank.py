"""The number of components: planted ranks at several doses, what is no count, and what the table says of it."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.diagnose.evidence import Criterion, RankEvidence
from tensorspec.diagnose.noise_edge import singular_values_above_noise
from tensorspec.diagnose.prediction import count_splitting, held_out

COUNTS = ts.NoiseModel()


def expected(rank: int, pixels: int, channels: int, mean: float, seed: int) -> np.ndarray:
    """Phases of three lines on a common falling background, in mixtures; `mean` counts an entry."""
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.full(rank, 0.5), size=pixels)
    energy = np.arange(channels) / channels
    spectra = 0.3 * np.exp(-2 * energy) * np.ones((rank, 1))
    for spectrum in spectra:
        for centre, height in zip(rng.random(3), rng.uniform(0.3, 1, 3), strict=True):
            spectrum += height * np.exp(-(((energy - centre) / 0.012) ** 2) / 2)
    return maps @ (spectra / spectra.sum(axis=1, keepdims=True)) * mean * channels


def labelled(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("x", "energy_loss"))


def planted(*arguments, seed: int) -> xr.DataArray:
    return labelled(np.random.default_rng(100 + seed).poisson(expected(*arguments, seed)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rank", "pixels", "channels", "mean"), [(3, 1024, 512, 0.39), (2, 600, 300, 2.0)])
def test_both_edges_find_the_planted_rank(rank, pixels, channels, mean, seed):
    found = singular_values_above_noise(planted(rank, pixels, channels, mean, seed=seed), COUNTS)
    assert (found.above, found.above_parallel) == (rank, rank)
    assert found.ratio[rank - 1] > 1.1 and found.ratio[rank] < 1.02


@pytest.mark.slow
@pytest.mark.parametrize("mean", [pytest.param(0.98, marks=pytest.mark.exhaustive), 0.049])
def test_the_edge_holds_at_a_twentieth_of_a_count_an_entry(mean):
    for seed in range(3):
        found = singular_values_above_noise(planted(4, 4096, 1024, mean, seed=seed), COUNTS)
        assert (found.above, found.above_parallel) == (4, 4)


def test_the_first_singular_value_is_the_root_of_all_counts():
    data = planted(2, 300, 200, 3.0, seed=0)
    found = singular_values_above_noise(data, COUNTS)
    edge = sum(np.sqrt(found.shape))
    assert found.shape == data.shape
    assert found.ratio[0] * edge == pytest.approx(np.sqrt(float(data.sum())), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_vacuum_and_spikes_are_no_components(seed):
    mean = expected(2, 1024, 512, 1.0, seed)
    mean[:200] *= 2 / mean[:200].sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean)
    assert singular_values_above_noise(labelled(counts), COUNTS).above == 2
    rows, channels = rng.integers(200, 1024, 20), rng.integers(0, 512, 20)
    rows[1], channels[3] = rows[0], channels[2]  # two in one row, two in one channel
    counts[rows, channels] += 200
    found = singular_values_above_noise(labelled(counts), COUNTS)
    assert (found.above, found.spikes) == (2, 20)


@pytest.mark.parametrize("seed", range(2))
def test_a_gain_of_three_is_told_from_counts(seed):
    data = labelled(3 * np.random.default_rng(seed).poisson(expected(2, 1024, 512, 1 / 3, seed)))
    found = ts.estimate_rank(data, criteria=["noise edge", "parallel analysis", "count splitting"])
    assert found.recommended is None and not found.answers
    edge = found.criteria[0]
    assert "gain 3" in edge.evidence and "2 singular values above" in edge.evidence
    assert "No recommendation" in found.advice


def test_correlated_noise_of_a_scintillator_is_no_component():
    noise = ts.NoiseModel(gain=17.0, read_variance=50.0, channel_correlation=0.4)
    rng = np.random.default_rng(0)
    mean = expected(2, 400, 300, 500.0, 0)
    white = rng.standard_normal((400, 302)) * 1.0
    angle = 0.5 * np.arcsin(np.sqrt(2) * 0.4)
    spread = np.sin(angle) / np.sqrt(2) * (white[:, :-2] + white[:, 2:]) + np.cos(angle) * white[:, 1:-1]
    data = labelled(mean + np.sqrt(noise.variance(mean)) * spread)
    assert singular_values_above_noise(data, noise).above == 2
    # Were the correlation not known, noise would be taken for components.
    assert singular_values_above_noise(data, ts.NoiseModel(17.0, 50.0, 0.0)).above > 5


def test_large_data_are_summed_and_keep_their_rank(monkeypatch):
    data = planted(3, 1024, 256, 2.0, seed=1)
    cube = xr.DataArray(data.values.reshape(32, 32, 256), dims=("y", "x", "energy_loss"))
    monkeypatch.setattr("tensorspec.diagnose.noise_edge._MOST_VALUES", 150_000)
    found = singular_values_above_noise(cube, COUNTS)
    assert found.summed == 2 and found.shape[0] == 512 and found.above == 3


@pytest.mark.parametrize("seed", range(2))
def test_thinned_counts_are_predicted_best_by_the_planted_rank(seed):
    data = planted(3, 400, 100, 4.0, seed=seed)
    found = count_splitting(data, ts.NMF, (1, 2, 3, 4, 5), seed=seed)
    assert found.chosen == 3
    # No fit can predict independent counts better than their own mean does: half their deviance, not less.
    mean = expected(3, 400, 100, 4.0, seed) / 2
    half = np.random.default_rng(1).poisson(mean)
    ideal = float((mean - half + np.where(half > 0, half * np.log(np.maximum(half, 1) / mean), 0)).mean())
    assert ideal < found.score.min() < 1.05 * ideal
    assert found.score[0] > 1.1 * ideal


def test_entries_left_out_are_predicted_best_by_the_planted_rank():
    data = planted(3, 400, 100, 20.0, seed=0)
    found = held_out(data, COUNTS, ts.NMF, (2, 3, 4), seed=0)
    assert found.chosen == 3
    assert 0.5 < found.score[1] < 0.56  # half of one standard deviation squared, and a little


@pytest.mark.parametrize("rank", [2, 4])
def test_robust_components_predict_the_planted_rank_with_outliers_and_without_counts(rank):
    data = planted(rank, 600, 120, 1.0, seed=rank)
    data[:40, 17:19] += 20
    assert ts.estimate_rank(data, criteria=["R-PRESS"]).answers == {"R-PRESS": rank}
    rng = np.random.default_rng(rank)
    signed = rng.normal(size=(300, rank)) @ rng.normal(size=(rank, 50)) + 0.3 * rng.normal(size=(300, 50))
    signed = xr.DataArray(signed, dims=("x", "energy_loss"))
    assert ts.estimate_rank(signed, criteria=["R-PRESS"]).answers == {"R-PRESS": rank}
    assert ts.estimate_rank(signed + 20.0, criteria=["R-PRESS"]).answers == {"R-PRESS": rank + 1}


def test_more_than_was_tried_is_said():
    found = ts.estimate_rank(planted(3, 400, 100, 4.0, seed=0), (1, 2), criteria=["count splitting"])
    assert found.criteria[0].answer == 2 and "try more" in found.criteria[0].evidence


@pytest.mark.slow
def test_all_criteria_agree_on_a_clear_case():
    data = ts.phantoms.discs(shape=(40, 40), seed=1)["data"]
    found = ts.estimate_rank(data, range(1, 6))
    assert set(found.answers.values()) == {3} and len(found.answers) == 6 and found.agree
    by_name = {item.name: item for item in found.criteria}
    assert by_name["split halves"].answer == 3
    assert by_name["stability"].answer is not None and by_name["stability"].answer >= 3
    table = found.dataset()
    assert table["split halves: least congruence"].sizes == {"rank": 5}
    assert ts.plot_rank(found).axes


@pytest.mark.slow
def test_order_three_with_a_signed_model():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 3)) for size in (60, 40, 12)]
    clean = np.einsum("ir,jr,kr->ijk", *factors)
    data = xr.DataArray(clean + 0.3 * rng.standard_normal(clean.shape), dims=("x", "energy_loss", "time"))
    criteria = ["held-out entries", "core consistency", "stability", "split halves"]
    found = ts.estimate_rank(data, (2, 3, 4), criteria=criteria)
    assert found.criteria[0].answer == 3
    # A component of noise is orthogonal to all others: its core is diagonal too, and that is said.
    assert found.criteria[1].answer is None and "says nothing" in found.criteria[1].evidence
    assert [item.answer for item in found.criteria[2:]] == [3, 3]


def test_masks_lazy_data_and_float32_change_nothing():
    data = planted(2, 600, 300, 2.0, seed=0)
    asked = {"criteria": ["noise edge", "parallel analysis"], "noise": COUNTS}
    plain = ts.estimate_rank(data, **asked)
    assert plain.recommended == 2
    lazy = ts.estimate_rank(data.chunk({"x": 150}), **asked)
    assert repr(lazy) == repr(plain)
    assert ts.estimate_rank(data.astype("float32"), **asked).answers == plain.answers
    spoilt = data.copy(data=data.values.copy())
    spoilt[:, 40] += 1000 * (np.arange(600) % 7)
    mask = xr.DataArray(np.arange(300) != 40, dims="energy_loss")
    assert ts.estimate_rank(spoilt, mask=mask, **asked).recommended == 2
    assert ts.estimate_rank(spoilt, **asked).recommended > 2


class Counted:
    """A store that counts how many of its entries were read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim, self.read = values, values.shape, values.dtype, values.ndim, 0

    def __getitem__(self, place):
        self.read += self.values[place].size
        return self.values[place]


@pytest.mark.slow
def test_large_lazy_counts_are_read_a_few_times():
    dask_array = pytest.importorskip("dask.array")
    data = planted(3, 4096, 1100, 0.5, seed=1).astype(np.uint16)
    asked = {"criteria": ["noise edge", "parallel analysis"]}
    store = Counted(data.values)
    chunks = dask_array.from_array(store, chunks=(256, 1100), asarray=False, name=False)
    lazy = ts.estimate_rank(data.copy(data=chunks), **asked)
    assert store.read <= 7 * data.size
    assert lazy.recommended == 3 and repr(lazy) == repr(ts.estimate_rank(data, **asked))


def criterion(name: str, answer: int | None, counts: bool = True) -> Criterion:
    return Criterion(name, answer, "because", counts)


def test_what_follows_from_the_answers():
    agreed = RankEvidence((criterion("a", 3), criterion("b", 3), criterion("c", None), criterion("d", 2, False)))
    assert agreed.recommended == 3 and agreed.agree and agreed.weak == ()
    assert agreed.advice == "3 components: all 2 criteria that answer say so. Not found again beyond 2 (d)."
    torn = RankEvidence((criterion("a", 3), criterion("b", 3), criterion("c", 5)), hardly=(5, 7))
    assert torn.recommended == 3 and torn.weak == (4, 5)
    assert torn.advice == "3 components, but the criteria disagree: c 5. Weakly resolved: components 4, 5."
    assert RankEvidence((criterion("a", 7), criterion("b", 2), criterion("c", 4))).recommended == 4
    assert RankEvidence((criterion("a", 2), criterion("b", 4))).recommended == 2
    assert RankEvidence((criterion("a", 2), criterion("b", None))).recommended is None


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"ranks": [0, 2]}, ts.InvalidArgument, "at least 1"),
        ({"ranks": []}, ts.InvalidArgument, "empty"),
        ({"criteria": ["noise egde"]}, ts.UnknownName, "Did you mean 'noise edge'?"),
        ({"data": np.ones((3, 4))}, ts.InvalidData, "DataArray"),
        ({"data": {"eels": labelled(np.ones((3, 4)))}}, ts.InvalidData, "one tensor at a time"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, error, said):
    arguments = {"data": labelled(np.ones((8, 8))), **arguments}
    with pytest.raises(error, match=said.replace("?", r"\?")):
        ts.estimate_rank(**arguments)


def test_stability_of_a_component_that_is_not_there():
    """Noise has a best component too, so that all starts may find it; in some data they do not."""
    least = []
    for seed in (0, 2):
        data = planted(2, 300, 60, 20.0, seed=seed)
        two, three = (ts.stability(data, ts.NMF(rank), n=6) for rank in (2, 3))
        assert float(two.stability.min()) > 0.99
        least.append(float(three.stability.min()))
    assert max(least) < 0.95
    assert int(np.argmin(two.objective.values)) + 1 == two.attrs["best"]
    with pytest.raises(ts.InvalidArgument, match="n is 1"):
        ts.stability(data, ts.NMF(2), n=1)
