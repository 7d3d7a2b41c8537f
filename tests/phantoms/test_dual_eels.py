"""The phantom of dual EELS and EDX: what it says of itself is so."""

import numpy as np
import pytest

import tensorspec as ts

PHANTOM = ts.phantoms.dual_eels(shape=(8, 12), low_channels=1024, core_channels=256, edx_channels=256)
TRUTH = PHANTOM.truth


def test_thickness_is_the_logarithm_of_the_ratio():
    low = PHANTOM.expected("low")
    # The zero-loss peak of a specimen without thickness, at the same dose: what is left of it is exp(-t).
    empty = ts.phantoms.dual_eels(shape=(8, 12), thickness=(1e-9, 1e-9), low_channels=1024, core_channels=64)
    near = {"low_energy_loss": slice(-20, 2)}
    left = low.sel(near).sum("low_energy_loss") / low.sum("low_energy_loss")
    whole = empty.expected("low").sel(near).sum("low_energy_loss") / empty.expected("low").sum("low_energy_loss")
    np.testing.assert_allclose(-np.log(left / whole), TRUTH.thickness, rtol=0.01)
    assert float(TRUTH.thickness.min()) == pytest.approx(0.3, rel=0.1)
    assert float(TRUTH.thickness.max()) == pytest.approx(1.5, rel=0.2)


def test_low_loss_is_the_exponential_of_its_single_scattering():
    low, single = PHANTOM.expected("low").isel(y=0, x=11).values, TRUTH.single_low.isel(y=0, x=11).values
    t = float(TRUTH.thickness.isel(y=0, x=11))
    # Of areas: all losses over the zero-loss peak are exp(t) - 1, single ones t.
    area = single.sum() / t
    assert low.sum() / area == pytest.approx(np.exp(t), rel=0.005)
    assert single.sum() < 0.6 * (low.sum() - area)


def test_thin_core_loss_is_the_sum_of_products_and_thick_is_not():
    thin = ts.phantoms.dual_eels(shape=(8, 12), thickness=(1e-6, 2e-6), core_channels=256)
    product = (thin.truth.maps * thin.truth.core_spectra).sum("component").transpose("y", "x", "energy_loss")
    np.testing.assert_allclose(thin.expected("core"), product, rtol=1e-4)
    product = (TRUTH.maps * TRUTH.core_spectra).sum("component").transpose("y", "x", "energy_loss")
    ratio = PHANTOM.expected("core") / product
    assert float(ratio.max()) > 1.5


def test_counts_are_those_asked_for_and_poisson():
    for name, counts in (("low", 1e6), ("core", 3e5), ("edx", 200)):
        data, expected = PHANTOM[name], PHANTOM.expected(name)
        assert data.dtype.kind == "u" and data.dims == expected.dims
        assert float(data.sum(data.dims[2]).mean()) == pytest.approx(counts, rel=0.02)
        square = ((data - expected) ** 2 / expected.clip(1e-3)).where(expected > 1)
        assert float(square.mean()) == pytest.approx(1, abs=5 * float(square.std()) / float(square.count()) ** 0.5)
        assert float(square.mean()) == pytest.approx(1, abs=0.1)


def test_maps_count_atoms_and_edx_is_their_product():
    wedge = np.linspace(0.3, 1.5, 12)
    np.testing.assert_allclose(TRUTH.maps.sum("component"), np.broadcast_to(wedge / wedge.mean(), (8, 12)))
    product = (TRUTH.maps * TRUTH.edx_spectra).sum("component").transpose("y", "x", "xray_energy")
    np.testing.assert_allclose(PHANTOM.expected("edx"), product)


def test_same_seed_same_data_and_another_seed_others():
    again = ts.phantoms.dual_eels(shape=(8, 12), low_channels=1024, core_channels=256, edx_channels=256)
    other = ts.phantoms.dual_eels(shape=(8, 12), low_channels=1024, core_channels=256, edx_channels=256, seed=1)
    for name in PHANTOM.data:
        assert again[name].equals(PHANTOM[name])
        assert not other[name].equals(PHANTOM[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 8)}, "shape"),
        ({"thickness": 1.0}, "expected two numbers"),
        ({"thickness": (0.5, -1)}, "thickness is -1"),
        ({"low_counts": 0}, "low_counts is 0"),
        ({"zero_loss_width": 0.1}, "zero_loss_width is 0.1"),
        ({"drift": -1}, "drift is -1"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ts.InvalidArgument, match=message):
        ts.phantoms.dual_eels(**change)
