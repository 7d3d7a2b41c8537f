"""LocallySmooth: smooth where a map says so, and nowhere else."""

import jax
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.algebra.kernels import paraboloid
from tensorspec.constraints.grid import plain_grid

SHAPE = (7, 9)


def radii(seed=0):
    return np.random.default_rng(seed).choice([1.0, 1.5, 2.0, 3.0], SHAPE)


def means(scale):
    """The local means as a matrix, written out point by point, with mirrored ends."""
    rows, columns = scale.shape
    matrix = np.zeros((scale.size, scale.size))
    for row in range(rows):
        for column in range(columns):
            kernel = paraboloid(scale[row, column], 2)
            reach = kernel.shape[0] // 2
            for (dy, dx), weight in np.ndenumerate(kernel):
                y, x = row + dy - reach, column + dx - reach
                y = -y - 1 if y < 0 else 2 * rows - 1 - y if y >= rows else y
                x = -x - 1 if x < 0 else 2 * columns - 1 - x if x >= columns else x
                matrix[row * columns + column, y * columns + x] += weight
    return matrix


def on(scale, strength):
    context = plain_grid(scale.size)._replace(shape=scale.shape, coordinates=(None,) * scale.ndim)
    return ts.LocallySmooth(scale.ravel(), strength).resolve(context)


@pytest.mark.parametrize("strength", [0.2, 1e4])
def test_the_proximal_map_solves_the_normal_equations(strength):
    scale = radii()
    difference = np.eye(scale.size) - means(scale)
    values = np.random.default_rng(1).standard_normal((scale.size, 2))
    with jax.enable_x64(True):
        item = on(scale, strength)
        found = np.asarray(item.prox(values, np.array([0.7, 0.1])))
        cost = float(item.value(values))
    for k, step in enumerate((0.7, 0.1)):
        exact = np.linalg.solve(np.eye(scale.size) + step * strength * difference.T @ difference, values[:, k])
        np.testing.assert_allclose(found[:, k], exact, atol=1e-9)
    assert cost == pytest.approx(0.5 * strength * np.sum((difference @ values) ** 2), rel=1e-10)


def test_a_radius_of_one_is_left_alone_and_a_constant_costs_nothing():
    scale = np.full(40, 5.0)
    scale[18:22] = 1.0
    values = np.random.default_rng(0).standard_normal(40)
    with jax.enable_x64(True):
        free = on(np.ones(40), 1e3).prox(values, 1.0)
        np.testing.assert_allclose(free, values, atol=1e-12)
        assert float(on(scale, 1e3).value(np.full((40, 1), 3.0))) < 1e-15
        peak = np.ones(40)
        peak[19:21] = 9
        assert float(on(scale, 3.0).prox(peak, 1.0)[19:21].min()) > 8 * 0.9
        assert float(on(np.full(40, 5.0), 3.0).prox(peak, 1.0)[19:21].max()) < 7


def particles(seed):
    """Two sharp particles on an even matrix: 40 counts a pixel in 20 channels, and 120 where the particles are."""
    y, x = np.mgrid[:32, :32]
    energy = np.linspace(400, 900, 20)
    maps = np.stack([np.full((32, 32), 40.0), np.full((32, 32), 12.0)], axis=-1)
    for row, column, radius in ((11, 12, 4.5), (23, 22, 3.0)):
        maps[(y - row) ** 2 + (x - column) ** 2 < radius**2] = (12.0, 120.0)
    spectra = np.stack([np.exp(-(energy - 400) / 300), np.exp(-(((energy - 640) / 40) ** 2)) + 0.05])
    spectra /= spectra.sum(axis=1, keepdims=True)
    counts = np.random.default_rng(seed).poisson(maps @ spectra).astype(float)
    data = xr.DataArray(counts, coords={"energy_loss": energy}, dims=("y", "x", "energy_loss"))
    known = xr.DataArray(
        spectra, coords={"energy_loss": energy, "component": [1, 2]}, dims=("component", "energy_loss")
    )
    return data, maps, known


def windows(data):
    """Counts below, on and above the line of the particles."""
    cut = [data.isel(energy_loss=slice(*each)).sum("energy_loss") for each in ((0, 6), (6, 13), (13, 20))]
    return xr.concat(cut, "window")


@pytest.mark.slow
def test_maps_with_a_sharp_particle_are_nearer_to_the_truth_than_with_the_best_even_smoothness():
    data, maps, known = particles(31)

    def miss(*priors):
        model = ts.NMF(2, {"pixel": [ts.NonNegative(), *priors], "energy_loss": ts.Fixed(known)})
        found = ts.fit(data, model, seed=0, tol=1e-4).maps().transpose("y", "x", "component")
        return float(np.sqrt(((found - maps) ** 2).mean()))

    scale = ts.pixon(windows(data)).scale
    local = miss(ts.LocallySmooth(scale, 0.1))
    even = [miss(ts.Smooth(strength)) for strength in (0.003, 0.01, 0.03)]
    assert min(even) == even[1]  # the best one is among them
    assert local < 0.9 * min(even) < 0.9 * 0.9 * miss()


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.full((5, 5), 0.5), "below 1 or no numbers"),
        (np.full((5, 5), np.nan), "below 1 or no numbers"),
        (np.full((5, 5), 4.0), "wider than half of the grid"),
        (np.ones((5, 4)), "one radius a point"),
        (1 + np.arange(25.0).reshape(5, 5) / 100, None),
        (1 + np.arange(36.0).reshape(6, 6) / 100, "36 different radii"),
    ],
)
def test_maps_that_cannot_be_meant_are_refused(scale, message):
    side = max(scale.shape)
    context = plain_grid(side**2)._replace(shape=(side, side), coordinates=(None, None))
    item = ts.LocallySmooth(scale, 1.0)
    if message is None:
        item.resolve(context)
        return
    with pytest.raises(ts.InvalidArgument, match=message):
        item.resolve(context)


def test_labels_that_do_not_fit_the_mode_are_refused():
    data, _, _ = particles(0)
    scale = xr.DataArray(np.ones((32, 32)), dims=("y", "z"))
    with pytest.raises(ts.InvalidArgument, match=r"LocallySmooth\(scale=...\) on mode 'pixel'"):
        ts.fit(data, ts.NMF(2, {"pixel": ts.LocallySmooth(scale, 1.0)}))
    with pytest.raises(ts.InvalidArgument, match="no automatic strength"):
        ts.LocallySmooth(scale, "auto")
