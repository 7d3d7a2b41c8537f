"""What a fit leaves over, which samples decide it, which components are alike: calibrated on noise and on truth."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.assemble import assemble
from tensorspec.likeness import alike

COUNTS = ts.NoiseModel()


def fitted(seed, rank=3, kind="eels", loss=None):
    phantom = ts.phantoms.discs(kind, counts=2000, seed=seed, shape=(20, 17), channels=50)
    return ts.fit(phantom["data"].astype(float), ts.NMF(rank), loss=loss, progress=False)


def test_what_enough_components_leave_is_white():
    found = [ts.whiteness(fitted(seed), noise=COUNTS) for seed in range(6)]
    scores = np.array([each.score.values for each in found])
    assert all(each.white for each in found)
    assert np.abs(scores.mean(axis=0)).max() < 1.3 and 0.4 < scores.std(axis=0).mean() < 1.6
    # Without the share that the fit took, neighbours would seem to differ.
    assert (np.array([each.expected.sel(dim="energy") for each in found]) < -0.02).all()


def test_a_component_too_few_shows_in_neighbours_in_the_map_and_in_what_is_left():
    found = ts.whiteness(fitted(0, rank=2), noise=COUNTS)
    assert not found.white and found.leading > 1.5
    assert (found.score > 5).all() and (found.map_score.dropna("dim") > 3).all()
    assert "a component is left over" in found.advice
    assert found.residual_map.dims == ("y", "x")


def test_one_pixel_of_another_kind_is_no_structure_but_an_outlier():
    fit = fitted(1)
    data = fit.data["data"].copy()
    data[3, 14, 20:30] += 60
    structure, samples = ts.whiteness(fit, data=data, noise=COUNTS), ts.leverage(fit, data=data)
    assert np.abs(structure.map_score.dropna("dim")).max() < 4
    assert samples.kind[3, 14] >= 2
    assert float((samples.kind >= 2).mean()) < 0.02


def test_correlated_channels_are_white_only_with_their_own_correlation():
    rng = np.random.default_rng(0)
    maps, spectra = rng.uniform(1, 2, (300, 2)), rng.uniform(20, 40, (2, 60))
    noise = rng.normal(size=(300, 62))
    noise = noise[:, 1:-1] + 0.5 * (noise[:, :-2] + noise[:, 2:])
    data = xr.DataArray(maps @ spectra + noise, dims=("x", "energy_loss"))
    fit = ts.fit(data, ts.CP(2), progress=False)
    own = ts.NoiseModel(0, 1.5, 1 / 1.5)
    assert ts.whiteness(fit, noise=own).score.sel(dim="energy_loss") == pytest.approx(0, abs=4)
    assert ts.whiteness(fit, noise=ts.NoiseModel(0, 1.5)).score.sel(dim="energy_loss") > 30


def test_drawn_noise_is_correlated_along_the_channels_wherever_they_stand():
    rng = np.random.default_rng(4)
    maps, spectra = rng.uniform(1, 2, (60, 1)), rng.uniform(20, 40, (1, 300))
    noise = rng.normal(size=(60, 302))
    noise = noise[:, 1:-1] + 0.5 * (noise[:, :-2] + noise[:, 2:])
    data = xr.DataArray(maps @ spectra + noise, dims=("x", "energy_loss"))
    own = ts.NoiseModel(0, 1.5, 1 / 1.5)
    ordered, turned = (
        ts.whiteness(assemble({"data": each}, {"pixel": maps, "energy_loss": spectra.T}), noise=own).leading
        for each in (data, data.transpose())
    )
    # The draws differ, the correlation of their channels may not: without it they would be a fifth smaller.
    assert turned == pytest.approx(ordered, rel=0.05)


def test_three_modes_masks_and_what_the_fit_took():
    rng = np.random.default_rng(1)
    factors = [rng.uniform(0.5, 2, (size, 2)) for size in (14, 12, 16)]
    truth = np.einsum("ir,jr,kr->ijk", *factors)
    scores = []
    for _ in range(8):
        data = xr.DataArray(truth + 0.3 * rng.normal(size=truth.shape), dims=("x", "tilt", "energy_loss"))
        mask = xr.DataArray(rng.random(truth.shape) > 0.02, dims=data.dims)
        fit = ts.fit(data, ts.CP(2), mask=mask, progress=False)
        scores.append(ts.whiteness(fit, noise=ts.NoiseModel(0, 0.09)).score.values)
    assert np.abs(np.mean(scores, axis=0)).max() < 1.2
    expected = ts.whiteness(fit, noise=ts.NoiseModel(0, 0.09)).expected
    assert (expected < -0.002).all()


def test_leverage_is_the_diagonal_of_the_hat_matrix_and_sums_to_the_rank():
    fit = fitted(2)
    found = ts.leverage(fit)
    maps = fit.factors["pixel"].values.reshape(3, -1).T.astype(float)
    hat = np.diag(maps @ np.linalg.inv(maps.T @ maps) @ maps.T)
    np.testing.assert_allclose(found.leverage.values.ravel(), hat, rtol=1e-6)
    assert float(found.leverage.sum()) == pytest.approx(3)
    assert found.attrs["leverage_limit"] == pytest.approx(9 / 340)
    channels = ts.leverage(fit, "energy")
    assert channels.leverage.dims == ("energy",) and float(channels.leverage.sum()) == pytest.approx(3)


def cube(seed=0, noise=0.05, rank=3):
    rng = np.random.default_rng(seed)
    factors = [rng.uniform(0, 1, (size, rank)) for size in (15, 12, 20)]
    tensor = np.einsum("ir,jr,kr->ijk", *factors)
    tensor = tensor + noise * tensor.std() * rng.normal(size=tensor.shape)
    return xr.DataArray(tensor, dims=("x", "tilt", "energy_loss"))


def test_core_consistency_falls_where_a_component_is_too_many():
    data = cube()
    found = {}
    for rank in (1, 2, 3, 4):
        fit = ts.fit(data, ts.CP(rank), restarts=3, progress=False)
        found[rank] = ts.core_consistency(fit)
    assert min(found[1], found[2], found[3]) > 95 and found[4] < 60
    told = ts.estimate_rank(data, (2, 3, 4), model=ts.CP, criteria=["core consistency"]).criteria[0]
    assert told.answer == 3 and not told.counts


def test_core_consistency_is_that_of_tensorly():
    tensorly = pytest.importorskip("tensorly")
    data = cube(1)
    fit = ts.fit(data, ts.CP(4), progress=False)
    factors = [np.asarray(factor) for factor in fit.to_tensorly()[1]]
    share = np.abs(fit.weights.values) ** (1 / 3)
    factors = [factor * share for factor in factors]
    core = tensorly.tenalg.multi_mode_dot(data.values, [np.linalg.pinv(factor) for factor in factors])
    ideal = np.zeros((4, 4, 4))
    ideal[np.arange(4), np.arange(4), np.arange(4)] = 1
    assert ts.core_consistency(fit) == pytest.approx(100 * (1 - ((core - ideal) ** 2).sum() / 4), abs=1e-6)


def test_core_consistency_without_constraints_by_counts_and_missing_entries():
    rng = np.random.default_rng(2)
    counts = cube(2, noise=0)
    counts = counts.copy(data=rng.poisson(200 * counts.values))
    mask = xr.DataArray(rng.random(counts.shape) > 0.05, dims=counts.dims)
    fit = ts.fit(counts, ts.NMF(3), loss=ts.LeastSquares(scaling="poisson"), mask=mask, progress=False)
    assert ts.core_consistency(fit) > 90 and ts.core_consistency(fit, unconstrained=True) > 90
    weighed = {"loss": ts.LeastSquares(scaling="poisson"), "mask": mask, "progress": False}
    wrong = ts.fit(counts, ts.NMF(6), **weighed)
    freed = ts.fit(counts, ts.CP(6), start=ts.From(wrong), **weighed)
    assert ts.core_consistency(wrong, unconstrained=True) == pytest.approx(ts.core_consistency(freed), rel=1e-6)
    assert ts.core_consistency(wrong) < 60


def test_the_core_of_counts_is_weighed_by_the_totals_of_the_counts():
    rng = np.random.default_rng(5)
    factors = [rng.uniform(0.1, 1, (size, 2)) ** 3 for size in (8, 9, 10)]
    counts = rng.poisson(40 * np.einsum("ir,jr,kr->ijk", *factors))
    data = xr.DataArray(counts, dims=("x", "tilt", "energy_loss"))
    fit = ts.fit(data, ts.NMF(2), loss=ts.LeastSquares(scaling="poisson"), progress=False)
    scales = [np.sqrt(np.maximum(counts.sum(axis=others), 1e-9)) for others in ((1, 2), (0, 2), (0, 1))]
    share = np.abs(fit.weights.values) ** (1 / 3)
    columns = [
        fit.factors[mode].values.T * share / scale[:, np.newaxis]
        for mode, scale in zip(fit.tensors["data"].modes, scales, strict=True)
    ]
    weighed = counts / np.einsum("i,j,k->ijk", *scales)
    core = np.einsum("ijk,ai,bj,ck->abc", weighed, *(np.linalg.pinv(each) for each in columns))
    core[0, 0, 0] -= 1
    core[1, 1, 1] -= 1
    assert ts.core_consistency(fit) == pytest.approx(100 * (1 - (core**2).sum() / 2), abs=1e-6)
    assert ts.core_consistency(fit, data.transpose("energy_loss", "x", "tilt")) == pytest.approx(
        ts.core_consistency(fit), abs=1e-9
    )


def test_components_alike_and_components_that_cancel_are_named():
    rng = np.random.default_rng(3)
    maps, spectra = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    maps[:, 1], spectra[:, 1] = maps[:, 0] + 0.1 * rng.normal(size=30), spectra[:, 0] + 0.1 * rng.normal(size=20)
    data = {"data": xr.DataArray(maps @ spectra.T, dims=("x", "energy_loss"))}
    same = assemble(data, {"pixel": maps, "energy_loss": spectra})
    assert [(pair.first, pair.second) for pair in alike(same)] == [(1, 2)]
    assert "one component fewer" in repr(same)
    opposed = assemble(data, {"pixel": maps * [1, -1, 1], "energy_loss": spectra})
    assert alike(opposed)[0].congruence < -0.9 and "degenerate" in repr(opposed)
    apart = assemble(data, {"pixel": np.linalg.qr(maps)[0], "energy_loss": spectra})
    assert not alike(apart) and "components 1 and 2" not in repr(apart)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ts.core_consistency(fitted(0)), ts.InvalidArgument, "with two, any turn"),
        (lambda: ts.leverage(fitted(0), "enery"), ts.UnknownMode, "Did you mean 'energy'"),
        (lambda: ts.whiteness(fitted(0), "eels"), ts.UnknownName, "no tensor 'eels'"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()
