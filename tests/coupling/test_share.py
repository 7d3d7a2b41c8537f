"""Tensors that have only some of the components."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.diagnose.match import match_factors

RNG = np.random.default_rng(0)
PIXEL = RNG.random((30, 4))
TRUTH = {"pixel": PIXEL, "energy": RNG.random((25, 4)), "time": RNG.random((8, 4))}
XRAY, LIGHT = RNG.random((20, 4)), RNG.random((12, 4))
CUBE = xr.DataArray(np.einsum("pr,er,tr->pet", *TRUTH.values()), dims=("x", "energy", "time"))
FIRST = xr.DataArray(PIXEL[:, :3] @ XRAY[:, :3].T, dims=("x", "xray"))
LAST = xr.DataArray(PIXEL[:, 1:] @ LIGHT[:, 1:].T, dims=("x", "light"))
OPTIONS = {"tol": 0, "max_sweeps": 3000, "restarts": 4, "seed": 1, "progress": False}


def columns(fit, mode):
    return fit.factors[mode].values.T


@pytest.mark.parametrize("solver", ["auto", pytest.param(ts.AOADMM(), marks=pytest.mark.slow)], ids=["HALS", "AOADMM"])
def test_partly_shared_components_are_recovered(solver):
    share = {"first": [1, 2, 3], "last": [2, 3, 4]}
    data = {"cube": CUBE, "first": FIRST, "last": LAST}
    fit = ts.fit(data, ts.NMF(4, share=share), solver=solver, **OPTIONS)
    match = match_factors([columns(fit, mode) for mode in TRUTH], list(TRUTH.values()))
    assert match.score > 1 - 1e-10
    assert fit.weights.sel(tensor="first").values[3] == 0 and fit.weights.sel(tensor="last").values[0] == 0
    for name, tensor in data.items():
        assert float((fit.residual(name) ** 2).sum() / (tensor**2).sum()) < 1e-13
    # Components keep their numbers, and those that a tensor has are the right ones of the shared map.
    for name, own, spectra, mode in (("first", [0, 1, 2], XRAY, "xray"), ("last", [1, 2, 3], LIGHT, "light")):
        maps, found = columns(fit, "pixel")[:, own], columns(fit, mode)[:, own]
        assert match_factors([maps, found], [PIXEL[:, own], spectra[:, own]]).score > 1 - 1e-10
        assert (fit.spectra(name).values[[k for k in range(4) if k not in own]] == 0).all()


def test_a_list_of_all_is_no_list():
    data = {"cube": CUBE.isel(time=0), "first": FIRST}
    usual = ts.fit(data, ts.NMF(3, share={"first": [1, 2, 3]}), max_sweeps=5, progress=False, start=ts.Random())
    plain = ts.fit(data, ts.NMF(3), max_sweeps=5, progress=False, start=ts.Random())
    assert usual.objective == plain.objective


def test_a_fit_goes_on_from_itself_and_new_pixels_are_fitted():
    share = {"first": [1, 2, 3], "last": [2, 3, 4]}
    data = {"first": FIRST + 0.01, "last": LAST}
    model = ts.NMF(4, {"xray": ts.Sparse(0.1)}, share=share)
    fit = ts.fit(data, model, tol=1e-6, progress=False)
    again = ts.fit(data, model, start=ts.From(fit), max_sweeps=1, progress=False)
    assert float(again.history[0]) == pytest.approx(fit.objective, rel=1e-10)
    part = {name: tensor.isel(x=slice(3, 9)) for name, tensor in data.items()}
    new = fit.transform(part)
    for name, mode in (("first", "xray"), ("last", "light")):
        model = (new * fit.strengths(name)).T.values @ fit.factors[mode].values
        own = fit.reconstruct(name).isel(x=slice(3, 9))
        assert np.linalg.norm(part[name] - model) <= 1.001 * np.linalg.norm(part[name] - own) + 1e-3
    saved = ts.NMF(4, share=share)
    assert saved.share == {"first": (1, 2, 3), "last": (2, 3, 4)} and "share=" in repr(saved)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ({"frist": [1]}, r"share names the tensor 'frist'; there are \['cube', 'first'\]. Did you mean 'first'"),
        ({"first": [1, 5]}, "'first' is given .* there are components 1 to 3"),
        ({"first": [1, 2], "cube": [1]}, "no tensor has component 3 of 3"),
    ],
)
def test_what_cannot_be_is_refused(share, words):
    with pytest.raises(ts.TensorspecError, match=words):
        ts.fit({"cube": CUBE, "first": FIRST}, ts.NMF(3, share=share))


@pytest.mark.parametrize("share", ["some", 3, {"first": []}, {"first": [0, 1]}, {"first": [1, 1]}, {"first": "12"}])
def test_what_is_no_share_is_refused_with_an_example(share):
    with pytest.raises(ts.TensorspecError, match=r"share.*\[1, 2, 3\]"):
        ts.NMF(3, share=share)


def test_a_tensor_whose_modes_are_all_shared_shows_nothing_of_what_it_has_not():
    other = xr.DataArray(TRUTH["energy"][:, :2] @ TRUTH["time"][:, :2].T, dims=("energy", "time"))
    fit = ts.fit({"cube": CUBE, "other": other}, ts.NMF(4, share={"other": [1, 2]}), **(OPTIONS | {"restarts": 6}))
    assert (fit.weights.sel(tensor="other").values[2:] == 0).all()
    assert float((fit.residual("other") ** 2).sum() / (other**2).sum()) < 1e-10
