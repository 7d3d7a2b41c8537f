"""A mistake gets one clear line: what was given, what was expected, what exists, what to do."""

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.fit import validate

COUNTS = np.random.default_rng(0).poisson(5.0, (4, 3, 10)).astype(float)


@pytest.fixture
def eels():
    return xr.DataArray(
        COUNTS.copy(),
        dims=("y", "x", "energy_loss"),
        coords={"energy_loss": ("energy_loss", np.linspace(100, 109, 10), {"units": "eV"})},
    )


def refused(error, *words, data, model=None, **options):
    """Run a fit that has to be refused, and check that the message is one line that holds every word."""
    with pytest.raises(error) as caught:
        ts.fit(data, model or ts.NMF(2), progress=False, **options)
    text = str(caught.value)
    assert isinstance(caught.value, ts.TensorspecError)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_unknown_mode(eels):
    refused(
        ts.UnknownMode,
        "constraint given for mode 'enrgy_loss'",
        "these data have modes 'pixel', 'energy_loss'",
        "Did you mean 'energy_loss'?",
        data=eels,
        model=ts.CP(2, {"enrgy_loss": ts.NonNegative()}),
    )


def test_a_dimension_inside_a_mode(eels):
    refused(ts.UnknownMode, "'x' is part of the mode 'pixel'", data=eels, model=ts.CP(2, {"x": ts.NonNegative()}))


def test_unknown_mode_for_the_scale(eels):
    refused(ts.UnknownMode, "scale='pixels'", "Did you mean 'pixel'?", data=eels, model=ts.NMF(2, scale="pixels"))


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "3"])
def test_rank_that_is_no_number_of_components(rank):
    with pytest.raises(ts.RankOutOfRange, match="1 or more"):
        ts.NMF(rank)


def test_rank_above_what_the_data_determine(eels):
    refused(ts.RankOutOfRange, "rank=11", "at most 10", "give a rank of 1 to 10", data=eels, model=ts.NMF(11))


def test_infinity(eels):
    eels[1, 2, 3] = np.inf
    refused(ts.InvalidData, "1 infinite", "y=1, x=2, energy_loss=3", "NaN, which means missing", data=eels)


def test_nan_where_the_mask_says_use(eels):
    eels[0, 0, 0] = np.nan
    mask = xr.ones_like(eels, dtype=bool)
    refused(ts.InvalidData, "NaN in 1 entries where the mask says True", data=eels, mask=mask)


def test_no_valid_entry(eels):
    refused(ts.InvalidData, "no valid entry", data=eels * np.nan)
    refused(ts.InvalidData, "no valid entry", data=eels, mask=xr.zeros_like(eels, dtype=bool))


def test_all_zero(eels):
    refused(ts.InvalidData, "zero everywhere", data=eels * 0)


def test_text_and_complex_data(eels):
    refused(ts.InvalidData, "dtype <U", "real numbers", data=eels.astype(str))
    refused(ts.InvalidData, "complex128", "absolute value", data=eels.astype(complex))


def test_empty_data(eels):
    refused(ts.InvalidData, "empty mapping", data={})
    refused(ts.InvalidData, "'data' is empty", "'energy_loss': 0", data=eels.isel(energy_loss=slice(0)))


def test_plain_arrays(eels):
    refused(ts.InvalidData, "plain numpy array", "xr.DataArray(data, dims=('y', 'x', 'energy'))", data=eels.values)
    refused(ts.InvalidData, "tensor 'eels' is a ndarray", "xr.DataArray(eels", data={"eels": eels.values})
    refused(ts.InvalidData, "list", data=[eels])


def test_one_mode_only(eels):
    refused(ts.InvalidData, "at least two modes", data=eels[:, :, 0])


def test_contradictory_constraints(eels):
    refused(
        ts.ConstraintConflict,
        "mode 'pixel'",
        "SoftOrthogonal needs NonNegative()",
        data=eels,
        model=ts.CP(2, {"pixel": ts.SoftOrthogonal()}),
    )
    refused(
        ts.ConstraintConflict,
        "below zero",
        "drop one",
        data=eels,
        model=ts.NMF(2, {"pixel": ts.Box(-2, -1)}),
    )
    refused(
        ts.ConstraintConflict,
        "two SumToOne",
        data=eels,
        model=ts.NMF(2, {"pixel": [ts.SumToOne("component"), ts.SumToOne("mode")]}),
    )
    known = xr.DataArray(-np.ones((1, 10)), dims=("component", "energy_loss"), coords={"component": [1]})
    refused(
        ts.ConstraintConflict,
        "10 negative values",
        "NonNegative()",
        data=eels,
        model=ts.NMF(2, {"energy_loss": ts.Fixed(known)}),
    )


def test_what_is_no_constraint(eels):
    with pytest.raises(ts.InvalidArgument, match=r"with brackets, ts.NonNegative\(\)"):
        ts.CP(2, {"pixel": ts.NonNegative})
    with pytest.raises(ts.InvalidArgument, match="mapping of mode names"):
        ts.CP(2, ts.NonNegative())


def test_components_that_do_not_exist(eels):
    refused(
        ts.InvalidArgument,
        "components 1 to 2",
        data=eels,
        model=ts.NMF(2, {"pixel": ts.Sparse(0.1, components=[3])}),
    )
    with pytest.raises(ts.InvalidArgument, match="counted from 1"):
        ts.Sparse(0.1, components=[0])


def test_known_spectra_elsewhere(eels):
    elsewhere = xr.DataArray(
        np.ones((1, 5)), dims=("component", "energy_loss"), coords={"component": [1], "energy_loss": np.arange(5.0)}
    )
    refused(
        ts.ModeMismatch,
        "from 0 to 4",
        "from 100 to 109",
        "interp(energy_loss=data.energy_loss)",
        data=eels,
        model=ts.NMF(2, {"energy_loss": ts.Fixed(elsewhere)}),
    )


def test_shared_modes_that_differ(eels):
    shifted = eels.assign_coords(energy_loss=eels.energy_loss + 0.5)
    refused(
        ts.ModeMismatch,
        "100",
        "109.5",
        "rename(energy_loss=",
        data={"low": eels, "core": shifted},
    )


def test_options(eels):
    refused(ts.InvalidArgument, "model=", "ts.NMF(3)", data=eels, model="NMF")
    refused(ts.InvalidArgument, "with brackets", data=eels, model=ts.CP)
    refused(ts.InvalidArgument, "solver='hals'", "ts.HALS()", data=eels, solver="hals")
    refused(ts.InvalidArgument, "start='random'", "ts.Random()", data=eels, start="random")
    refused(ts.InvalidArgument, "restarts=0", data=eels, restarts=0)
    refused(ts.InvalidArgument, "seed=-1", data=eels, seed=-1)
    refused(ts.InvalidArgument, "max_sweeps=1.5", data=eels, max_sweeps=1.5)
    refused(ts.InvalidArgument, "tol=nan", data=eels, tol=float("nan"))
    refused(ts.InvalidArgument, "time_limit=-1", data=eels, time_limit=-1)
    refused(ts.InvalidArgument, "restarts=3", "same every time", data=eels, restarts=3, start=ts.NNDSVD())
    refused(ts.InvalidArgument, "weights", "above zero", data={"a": eels}, weights={"a": 0})
    refused(ts.UnknownName, "weights given for tensor 'b'", "'a'", data={"a": eels}, weights={"b": 1})
    refused(ts.UnknownName, "loss given for tensor 'eel'", "Did you mean", data={"eels": eels}, loss={"eel": None})
    refused(ts.InvalidArgument, "loss of tensor 'eels'", data={"eels": eels}, loss={"eels": "poisson"})
    with pytest.raises(ts.InvalidArgument, match="strength=-1"):
        ts.Sparse(-1)
    with pytest.raises(ts.InvalidArgument, match="'component'.*'mode'"):
        ts.SumToOne("rows")
    with pytest.raises(ts.InvalidArgument, match="lower bound below"):
        ts.Box(1, 0)


def test_loss_options(eels):
    refused(ts.InvalidArgument, "negative", data=eels - 10, loss=ts.LeastSquares(scaling="poisson"))
    with pytest.raises(ts.InvalidArgument, match="None or 'poisson'"):
        ts.LeastSquares(scaling="variance")
    with pytest.raises(ts.InvalidArgument, match="positive"):
        ts.LeastSquares(sigma=0)


def test_start_of_another_shape(eels):
    refused(
        ts.InvalidArgument,
        "no factor for mode 'energy_loss'",
        data=eels,
        start=ts.From({"pixel": np.ones((12, 2))}),
    )


def test_memory_plan(eels, monkeypatch):
    monkeypatch.setattr(validate, "available_memory", lambda: 100)
    refused(ts.NotEnoughMemory, "GiB", "as stored (float64)", "Bin or crop", data=eels)


def test_checkpoint_of_another_fit(eels, tmp_path):
    path = tmp_path / "run.npz"
    ts.fit(eels, ts.NMF(2), checkpoint=path, time_limit=1e-9, progress=False)
    refused(ts.InvalidArgument, "belongs to a fit of other data", "delete it", data=eels * 2, checkpoint=path)
    path.write_text("nonsense")
    refused(ts.UnreadableFile, "is not a checkpoint", data=eels, checkpoint=path)
