"""Figures show what the fit says: every number drawn is one of maps, spectra, residual and history."""

import dataclasses
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tensorspec.assemble import assemble
from tensorspec.errors import InvalidData, UnknownName
from tensorspec.plot import COLOURS, plot_components, plot_history, plot_residual

UNITS = {"energy_loss": "eV", "xray_energy": "keV", "tilt": "deg"}


def make_fit(tensors, rank=3, seed=0, sizes=None, signed=False, noise=True, units=True):
    """Return a fit to Poisson counts; `tensors` maps names to dimensions."""
    rng = np.random.default_rng(seed)
    sizes = {"y": 6, "x": 9, "z": 3, "energy_loss": 30, "xray_energy": 25, "tilt": 4} | (sizes or {})
    data = {}
    for name, dims in tensors.items():
        coords = {dim: (dim, 0.5 * np.arange(sizes[dim]), {"units": UNITS.get(dim, "nm")}) for dim in dims if units}
        attrs = {"units": "counts"} | ({"noise": {"gain": 1.0}} if noise else {})
        data[name] = xr.DataArray(np.ones([sizes[dim] for dim in dims]), dims=dims, coords=coords, attrs=attrs)
    from tensorspec.modes import find_modes

    labels, _ = find_modes(data)
    draw = rng.standard_normal if signed else rng.random
    factors = {mode: draw((label.size, rank)) for mode, label in labels.items()}
    model = assemble(data, factors, np.full((len(data), rank), 40.0))
    noisy = {key: model.reconstruct(key).copy(data=rng.poisson(abs(model.reconstruct(key)))) for key in data}
    noisy = {key: tensor.assign_attrs(data[key].attrs) for key, tensor in noisy.items()}
    columns = {mode: factor.values.reshape(rank, -1).T for mode, factor in model.factors.items()}
    history = xr.DataArray([100.0, 10.0, 5.0, 4.0], dims="sweep", coords={"sweep": np.arange(4)})
    return assemble(noisy, columns, np.atleast_2d(model.weights.values), history=history, sweeps=3)


@pytest.fixture(autouse=True)
def no_global_figures():
    yield
    assert plt.get_fignums() == []


def drawn(figure):
    """Draw the figure, so that errors of layout come out, and return its axes without colour bars."""
    figure.canvas.draw()
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def test_fused_data_have_one_map_and_every_spectrum_in_a_row():
    fit = make_fit({"eels": ("y", "x", "energy_loss"), "edx": ("xray_energy", "y", "x")}).relabel({2: "core"})
    figure = fit.plot()
    assert isinstance(figure, Figure)
    axes = np.array(drawn(figure)).reshape(3, 3)
    for row in range(3):
        shown, eels, edx = axes[row]
        np.testing.assert_allclose(shown.images[0].get_array(), fit.maps("eels")[row])
        np.testing.assert_allclose(eels.lines[0].get_xdata(), fit.factors["energy_loss"]["energy_loss"])
        np.testing.assert_allclose(eels.lines[0].get_ydata(), fit.spectra("eels")[row])
        np.testing.assert_allclose(edx.lines[0].get_ydata(), fit.spectra("edx")[row])
        assert to_hex(eels.lines[0].get_color()) == to_hex(edx.lines[0].get_color()) == COLOURS[row].lower()
        assert eels.get_title(loc="right") == f"{100 * float(fit.shares('eels')[row]):.1f} % of counts"
    assert [ax.get_title(loc="left") for ax in axes[:, 0]] == ["component 1", "2 core", "component 3"]
    assert [ax.get_title(loc="left") for ax in axes[0, 1:]] == ["eels", "edx"]
    assert [ax.get_xlabel() for ax in axes[2]] == ["", "energy loss (eV)", "X-ray energy (keV)"]
    assert axes[0, 1].get_ylabel() == "counts"
    assert [text.get_text() for text in axes[0, 0].texts] == ["1 nm"]


def test_scale_bar_has_the_length_that_it_says():
    fit = make_fit({"data": ("y", "x", "energy_loss")}, sizes={"x": 50, "y": 20})
    ax = drawn(fit.plot())[0]
    (bar,) = ax.lines
    (text,) = ax.texts
    length = float(text.get_text().removesuffix(" nm"))
    assert length == 5 and np.diff(bar.get_xdata())[0] == pytest.approx(length / (50 * 0.5))


def test_pixels_that_are_not_square_keep_their_shape():
    fit = make_fit({"data": ("y", "x", "energy_loss")})
    wide = {mode: factor.copy() for mode, factor in fit.factors.items()}
    wide["pixel"] = wide["pixel"].assign_coords(y=wide["pixel"]["y"] * 3)
    fit = dataclasses.replace(fit, factors=wide)
    assert drawn(fit.plot())[0].get_aspect() == pytest.approx(3)


def test_without_units_axes_are_named_and_no_scale_bar_is_drawn():
    ax = drawn(make_fit({"data": ("y", "x", "energy_loss")}, units=False).plot())[0]
    assert (ax.get_xlabel(), ax.get_ylabel(), len(ax.texts)) == ("x", "y", 0)


def test_line_scans_are_profiles():
    fit = make_fit({"data": ("x", "energy_loss")})
    axes = drawn(fit.plot())
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), fit.maps()[0])
    assert axes[-2].get_xlabel() == "x (nm)" and not axes[0].images


def test_further_modes_have_columns_of_their_own():
    fit = make_fit({"data": ("tilt", "y", "x", "energy_loss")})
    axes = np.array(drawn(fit.plot())).reshape(3, 3)
    np.testing.assert_allclose(axes[1, 2].lines[0].get_ydata(), fit.spectra(mode="tilt")[1])
    assert axes[2, 2].get_xlabel() == "tilt (deg)"


def test_volumes_are_projected():
    fit = make_fit({"data": ("z", "y", "x", "energy_loss")})
    np.testing.assert_allclose(drawn(fit.plot())[0].images[0].get_array(), fit.maps()[0].sum("z"))


def test_signed_maps_have_zero_in_the_middle_of_their_colours():
    fit = make_fit({"data": ("y", "x", "energy_loss")}, signed=True)
    norm = drawn(fit.plot())[0].images[0].norm
    assert norm.vmin == -norm.vmax == pytest.approx(-abs(fit.maps()[0]).max())
    assert drawn(make_fit({"data": ("y", "x", "energy_loss")}).plot())[0].images[0].norm.vmin == 0


def test_text_coordinates_are_bars_and_single_points_are_drawn():
    data = xr.DataArray(np.ones((3, 1)), dims=("sample", "energy_loss"), coords={"sample": list("abc")})
    fit = assemble({"data": data}, {"sample": np.array([[1.0], [2.0], [3.0]]), "energy_loss": np.ones((1, 1))})
    axes = drawn(fit.plot())
    assert [patch.get_height() for patch in axes[0].patches] == pytest.approx([1, 2, 3])
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["a", "b", "c"]


def test_pixels_never_measured_are_grey_not_zero():
    fit = make_fit({"data": ("y", "x", "energy_loss")})
    factor = fit.factors["pixel"].copy()
    factor[:, 2, 3] = np.nan
    shown = drawn(dataclasses.replace(fit, factors={**fit.factors, "pixel": factor}).plot())[0].images[0].get_array()
    assert shown.mask[2, 3] and shown.mask.sum() == 1


def test_chosen_components_keep_their_number_and_colour():
    fit = make_fit({"data": ("y", "x", "energy_loss")}).relabel({3: "shell"})
    axes = np.array(drawn(plot_components(fit, ["shell", 1]))).reshape(2, 2)
    assert [ax.get_title(loc="left") for ax in axes[:, 0]] == ["3 shell", "component 1"]
    assert to_hex(axes[0, 1].lines[0].get_color()) == COLOURS[2].lower()
    with pytest.raises(UnknownName):
        plot_components(fit, [4])


def test_residual_shows_the_summary():
    fit = make_fit({"eels": ("y", "x", "energy_loss"), "edx": ("xray_energy", "y", "x")})
    axes = drawn(fit.plot_residual())
    assert len(axes) == 6
    summary = fit.residual_summary("edx")
    np.testing.assert_allclose(axes[3].images[0].get_array(), summary["residual_map"])
    np.testing.assert_allclose(axes[4].lines[0].get_ydata(), summary["model_spectrum"])
    np.testing.assert_allclose(axes[5].lines[-1].get_ydata(), summary["residual_spectrum"])
    assert any(f"{summary.attrs['chi2']:.3f}" in text.get_text() for text in axes[3].texts)
    assert len(drawn(plot_residual(fit, "edx"))) == 3
    with pytest.raises(UnknownName, match="edx"):
        plot_residual(fit, "eds")


@pytest.mark.parametrize("dims", [("x", "energy_loss"), ("z", "y", "x", "energy_loss"), ("tilt", "energy_loss")])
@pytest.mark.parametrize("noise", [True, False])
def test_residual_of_every_shape_with_and_without_noise_level(dims, noise):
    fit = make_fit({"data": dims}, noise=noise)
    axes = drawn(fit.plot_residual())
    assert axes[2].get_ylabel().replace("\n", " ") == ("residual / noise" if noise else "residual")


def test_residual_after_a_file_was_opened_needs_the_summary_or_the_data():
    fit = make_fit({"data": ("y", "x", "energy_loss")})
    opened = dataclasses.replace(fit, data=None)
    with pytest.raises(InvalidData, match="data="):
        opened.plot_residual()
    assert len(drawn(opened.plot_residual(data=fit.data))) == 3
    assert len(drawn(dataclasses.replace(opened, summaries={"data": fit.residual_summary()}).plot_residual())) == 3


def test_history_and_spread():
    fit = make_fit({"data": ("x", "energy_loss")})
    (ax,) = drawn(fit.plot_history())
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 100], [1, 10], [2, 5], [3, 4]])
    assert ax.get_yscale() == "log" and "converged after 3 sweeps" in ax.get_title(loc="left")
    spread = xr.DataArray([4.4, np.nan, 4.0], dims="restart", coords={"restart": [1, 2, 3]})
    left, right = drawn(plot_history(dataclasses.replace(fit, spread=spread)))
    np.testing.assert_allclose(right.lines[0].get_ydata(), [10, np.nan, 0])
    assert right.lines[1].get_xdata() == [3]
    negative = fit.history - 50
    (ax,) = drawn(plot_history(dataclasses.replace(fit, history=negative)))
    assert ax.get_yscale() == "linear"
    drawn(plot_history(dataclasses.replace(fit, history=fit.history[:0])))


def test_notebooks_show_the_figure_without_pyplot():
    figure = make_fit({"data": ("x", "energy_loss")}).plot_history()
    assert figure._repr_png_().startswith(b"\x89PNG")
    code = "import sys, tensorspec.plot; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
