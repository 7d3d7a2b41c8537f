"""Sweeps on compressed data lead to the answer of the plain ones, or are not trusted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.algebra import contract, lowrank
from tensorspec.fit import compressed

from .runs import fit, prepared

PIXELS, CHANNELS, STEPS = 240, 60, 5
PLAIN, COMPRESSED = ts.HALS(compress=False), ts.HALS(compress=True)
SHAPES = {2: (90, 40), 3: (40, 45, 5)}


def spectra(rank, rng, channels=CHANNELS, width=0.05):
    energy = np.linspace(0, 1, channels)[:, None]
    found = np.full((channels, rank), 0.1)
    for _ in range(2):
        found += rng.uniform(0.5, 2, rank) * np.exp(-((energy - rng.random(rank)) ** 2) / (2 * width**2))
    return found


def planted(seed=0, rank=3, level=0.2, dtype=float, dims=("p", "e")):
    """Maps times spectra (times profiles) with white noise."""
    rng = np.random.default_rng(seed)
    known = {"p": rng.random((PIXELS, rank)) ** 3, "e": spectra(rank, rng), "t": 0.2 + rng.random((STEPS, rank))}
    known["v"] = spectra(rank, rng, 80)
    clean = np.asarray(contract.reconstruct([jnp.asarray(known[mode]) for mode in dims]))
    return xr.DataArray((clean + level * clean.std() * rng.standard_normal(clean.shape)).astype(dtype), dims=dims)


def start_for(data, rank=3, seed=5):
    rng = np.random.default_rng(seed)
    sizes = {dim: size for tensor in data.values() for dim, size in tensor.sizes.items()}
    level = float(next(iter(data.values())).mean()) / rank
    return ts.From({m: rng.random((n, rank)) * (level if m == "p" else 1) for m, n in sizes.items()})


def both(data, model, rank=3, **options):
    """The plain and the compressed fit from the same start."""
    tensors = data if isinstance(data, dict) else {"data": data}
    options = {"start": start_for(tensors, rank), "tol": 1e-10, "max_sweeps": 3000, **options}
    solvers = options.pop("solvers", (PLAIN, COMPRESSED))
    return [fit(data, model, solver=solver, **options) for solver in solvers]


def reduced(data, kept, rows, square):
    sketches = compressed._sketches(data.shape, kept)
    return compressed._compressed((data,), tuple(rows), square, jnp.ones(()), sketches, dtype=data.dtype)


def taken(result):
    return "sweeps on compressed data" in result.why and "without compression" not in result.why


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_contractions_of_low_rank_data_are_those_of_the_data(dtype, accuracy, order, weighted):
    rng = np.random.default_rng(order)
    shape = SHAPES[order]
    low = [jnp.asarray(rng.random((size, 3))) for size in shape]
    data = contract.reconstruct(low).astype(dtype)
    rows = [jnp.asarray(rng.random(size) * (rng.random(size) > 0.2)) if weighted else None for size in shape]
    rows[0] = None
    ones = [jnp.ones(n) if row is None else row for n, row in zip(shape, rows, strict=True)]
    square = jnp.sum(contract.reconstruct([row[:, None] for row in ones]) * jnp.square(data.astype(float)))
    kept = lowrank.columns_kept(shape, 2)
    core, bases, beyond = reduced(data, kept, rows, square)
    assert core.dtype == dtype
    assert core.size < data.size / 4
    assert float(beyond) < 1
    for basis in bases:
        if basis is not None:
            found = np.asarray(basis, float).T @ np.asarray(basis, float)
            # Directions that the data do not have are zero.
            np.testing.assert_allclose(found, np.diag(np.diag(found).round()), atol=accuracy)
    factors = [jnp.asarray(rng.random((size, 3)), dtype) for size in shape]

    def scaled(weights):
        return [f if row is None else f * row[:, None].astype(dtype) for f, row in zip(factors, weights, strict=True)]

    roots = [None if row is None else jnp.sqrt(row) for row in rows]
    for axis in range(order):
        right = contract.mttkrp((data,), scaled(rows), axis)
        found = lowrank.mttkrp(core, bases, scaled(roots), axis)
        if rows[axis] is not None:
            right, found = right * rows[axis][:, None], found * roots[axis][:, None]
        assert float(jnp.abs(found - right).max()) < accuracy * float(jnp.abs(right).max())


def test_a_basis_is_orthonormal_whatever_the_columns():
    rng = np.random.default_rng(0)
    columns = rng.random((300, 6)) * 10.0 ** -np.arange(6)
    columns[:, 4] = columns[:, 0] - columns[:, 1]
    basis = np.asarray(lowrank.orthonormal(jnp.asarray(columns)))
    square = basis.T @ basis
    np.testing.assert_allclose(square, np.diag(np.diag(square).round()), atol=1e-13)
    assert np.diag(square).round().sum() == 5
    np.testing.assert_allclose(basis @ (basis.T @ columns), columns, atol=1e-13)
    np.testing.assert_array_equal(lowrank.orthonormal(jnp.zeros((7, 2))), 0)


def test_directions_kept():
    assert lowrank.columns_kept((16384, 1024), 6) == (None, 12)
    assert lowrank.columns_kept((1024, 16384), 6) == (12, None)
    assert lowrank.columns_kept((4096, 512, 40), 6) == (12, 12, None)
    assert lowrank.columns_kept((40, 4096, 512), 6) == (None, 12, 12)
    assert lowrank.columns_kept((16384, 40), 6) is None
    assert lowrank.columns_kept((16384, 1024), 6, wide=True) == (None, 32)


def test_structure_beyond_the_model_is_told_from_noise():
    def beyond(rank):
        values = jnp.asarray(planted(rank=rank, level=0.05).values)
        return float(reduced(values, (None, 7), (None, None), jnp.sum(values**2))[2])

    assert beyond(3) < 1.5
    assert beyond(12) > 4


MODELS = {
    "plain": ({}, {}),
    "sums of one": ({"p": ts.SumToOne("component")}, {}),
    "smooth": ({"e": ts.Smooth(0.01)}, {}),
    "soft orthogonality": ({"p": ts.SoftOrthogonal(0.02)}, {}),
    "fixed": ({"e": ts.Fixed(spectra(3, np.random.default_rng(3))[:, :1], components=[1])}, {}),
    "rows and columns without data": ({}, {"mask": True}),
    "weights of rows and columns": ({}, {"loss": ts.LeastSquares(scaling="poisson")}),
}


@pytest.mark.filterwarnings("ignore:.*measured in no tensor")
@pytest.mark.parametrize("case", MODELS)
def test_the_answer_is_the_plain_one(case):
    constraints, options = MODELS[case]
    data = planted(3).clip(0)
    if "mask" in options:
        seen = np.ones(data.shape, bool)
        seen[::7], seen[:, 5:9] = False, False
        options = {"mask": xr.DataArray(seen, dims=data.dims)}
    solvers = (PLAIN, COMPRESSED)
    if case in ("sums of one", "smooth"):
        solvers = (ts.AOADMM(compress=False), ts.AOADMM(compress=True))
    plain, found = both(data, ts.NMF(3, constraints), solvers=solvers, **options)
    assert taken(found)
    assert found.objective == pytest.approx(plain.objective, rel=1e-6)
    assert len(found.history) == found.sweeps + 1
    assert np.diff(found.history).max() <= 1e-9 * found.objective


def test_the_answer_of_order_three_is_the_plain_one():
    plain, found = both(planted(1, dims=("p", "e", "t")), ts.NMF(3))
    assert taken(found)
    assert found.objective == pytest.approx(plain.objective, rel=1e-6)


def test_the_answer_of_coupled_tensors_is_the_plain_one():
    data = {"eels": planted(2), "edx": planted(2, dims=("p", "v"))}
    plain, found = both(data, ts.NMF(3), weights=1.0)
    assert taken(found)
    assert found.objective == pytest.approx(plain.objective, rel=1e-6)


def test_float32_data_end_where_the_plain_ones_do():
    plain, found = both(planted(4, dtype=np.float32), ts.NMF(3), tol=1e-7)
    assert taken(found)
    assert found.objective == pytest.approx(plain.objective, rel=1e-5)


def test_the_answer_behind_an_operator_is_the_plain_one():
    fine, other = planted(2), planted(2, dims=("p", "v"))
    halved = np.kron(np.eye(PIXELS // 2), [[0.5, 0.5]])
    data = {"eels": fine, "edx": xr.DataArray(halved @ other.values, dims=other.dims)}
    model = ts.NMF(3, operators={("edx", "p"): ts.Matrix(halved)})
    plain, found = both(data, model, weights=1.0, start=start_for({"eels": fine, "edx": other}))
    assert taken(found)
    assert found.objective == pytest.approx(plain.objective, rel=1e-6)


def noisy(clean, level, rng):
    return clean + level * clean.std() * rng.standard_normal(clean.shape)


def decaying(rng):
    """Many components, each a little weaker than the one before: no few directions hold them."""
    maps = rng.random((PIXELS, 30)) ** 8 * np.arange(1, 31.0) ** -0.3
    return np.maximum(noisy(maps @ spectra(30, rng, width=0.02).T, 0.1, rng), 0), 3


def drifting(rng):
    """Peaks that move from pixel to pixel."""
    energy, shift = np.linspace(0, 1, CHANNELS)[None], np.linspace(-0.05, 0.05, PIXELS)[:, None]
    maps = rng.random((PIXELS, 3)) ** 3
    peaks = [np.exp(-((energy - at - shift) ** 2) / (2 * 0.03**2)) for at in (0.25, 0.5, 0.75)]
    clean = sum(maps[:, [k]] * peak for k, peak in enumerate(peaks)) + 0.2 * maps.sum(axis=1, keepdims=True)
    return np.maximum(noisy(clean, 0.1, rng), 0), 3


def localised(pixels, strength):
    """A line in a few pixels, its singular value as many times the strongest of the noise."""

    def make(rng):
        values = noisy(rng.random((PIXELS, 2)) ** 3 @ spectra(2, rng).T, 0.3, rng)
        noise = 0.3 * values.std() * (PIXELS**0.5 + CHANNELS**0.5)
        line, where = np.exp(-((np.linspace(0, 1, CHANNELS) - 0.9) ** 2) / (2 * 0.02**2)), np.zeros(PIXELS)
        where[100 : 100 + pixels] = 1
        return values + strength * noise * np.outer(where, line) / np.linalg.norm(where) / np.linalg.norm(line), 3

    return make


# With seeds from which compressed data alone lead to an answer that is worse by 4e-3 to 3e-2, where there are any.
HARD = {
    "spectrum that decays slowly": (decaying, (0, 1), True),
    "energy drift": (drifting, (0, 1), True),
    "hot pixel": (localised(1, 3.0), (0, 1), True),
    "hot pixel at the noise": (localised(1, 1.0), (12, 17), False),
    "weak component below the noise": (localised(12, 0.6), (14, 16), False),
}


@pytest.mark.parametrize("case", HARD)
def test_the_answer_is_no_worse_where_a_compression_could_lose_it(case):
    make, seeds, holds = HARD[case]
    for seed in seeds:
        values, rank = make(np.random.default_rng(seed))
        plain, found = both(xr.DataArray(values, dims=("p", "e")), ts.NMF(rank), tol=1e-9)
        assert found.objective <= plain.objective * (1 + 1e-6), seed
        assert taken(found) == holds, seed


@pytest.mark.parametrize("whole", [(), ("t",)])
def test_equations_of_a_core_are_those_of_the_data(whole):
    """Of data that a Tucker model holds exactly, with row weights, for every mode and the core."""
    rng = np.random.default_rng(1)
    ranks = {m: r for m, r in {"p": 3, "e": 3, "t": 2}.items() if m not in whole}
    core = rng.standard_normal([ranks.get(m, STEPS) for m in "pet"])
    cube = core
    for axis, (mode, size) in enumerate(zip("pet", (PIXELS, CHANNELS, STEPS), strict=True)):
        if mode in ranks:
            cube = np.moveaxis(np.tensordot(rng.standard_normal((size, ranks[mode])), cube, axes=(1, axis)), 0, axis)
    data = xr.DataArray(cube, dims=("p", "e", "t"))
    mask = xr.DataArray(rng.random(PIXELS) > 0.3, dims="p")
    own = prepared(data, ts.Tucker(ranks), mask=mask)
    (tensor,) = own.problem.tensors
    assert tensor.rows[0] is not None
    with jax.enable_x64(True):
        (small,) = compressed.compress_tensors(own.problem, own.model, np.dtype(float))
        assert small.bases is not None and [basis is not None for basis in small.bases] == [True, True, False]
        factors = {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in own.shapes.items()}
        for name in own.shapes:
            one, other = (own.model.normal_equations(item, factors, name) for item in (tensor, small))
            np.testing.assert_allclose(other.right, one.right, atol=1e-9 * float(jnp.abs(one.right).max()))
            np.testing.assert_allclose(other.gram, one.gram, rtol=1e-12)
        squares = [float(own.model.squared_residual(item, factors)) for item in (tensor, small)]
        assert squares[1] == pytest.approx(squares[0], rel=1e-9)


def test_the_answer_of_a_core_is_the_plain_one():
    data, model = planted(dims=("p", "e", "t")), ts.Tucker({"p": 3, "e": 3, "t": 2})
    plain, found = (
        fit(data, model, solver=s, tol=1e-13) for s in (ts.AOADMM(compress=False), ts.AOADMM(compress=True))
    )
    assert taken(found) and not taken(plain)
    assert found.objective == pytest.approx(plain.objective, rel=1e-8)


def test_what_was_lost_is_found_again(monkeypatch):
    """Two directions cannot hold three components: all data say so, and the plain fit is what comes back."""
    monkeypatch.setattr(compressed, "columns_kept", lambda shape, rank, wide=False, allowed=None: (None, 2))
    plain, found = both(planted(), ts.NMF(3))
    assert "without compression" in found.why
    np.testing.assert_array_equal(found.history, plain.history)


def test_history_says_when_something_was_lost():
    steady = [2.0, 1.1, 1.01, 1.001, 1.0, 1.0, 1.0, 1.0, 1.0]
    falling = [2.0, 1.1, 1.08, 1.06, 1.04, 1.03, 1.02, 1.01, 1.0]
    assert not compressed.lost_something(steady, 1.0)
    assert compressed.lost_something(falling, 1.0)
    assert not compressed.lost_something(falling[:8], 1.0)
    # What is left of data without noise falls for ever and means nothing.
    assert not compressed.lost_something(falling, 1e10)


def test_only_what_can_be_compressed_is():
    data = planted()
    large = xr.DataArray(np.ones((4000, 300), np.float32), dims=("p", "e"))

    def asked(data, model, how="auto", **options):
        own = prepared(data, model, **options)
        return compressed.compressible(own.problem, own.program, own.model, how)

    assert asked(large, ts.NMF(3))
    assert not asked(large, ts.NMF(3), False)
    assert not asked(data, ts.NMF(3))
    assert asked(data, ts.NMF(3), True)
    gaps = xr.DataArray(np.random.default_rng(0).random(data.shape) < 0.9, dims=data.dims)
    assert not asked(data, ts.NMF(3), True, mask=gaps)
    assert not asked(data, ts.NMF(3), True, loss={"data": ts.Huber(1.0)})
    assert not asked(abs(data), ts.NMF(3), True, loss={"data": ts.Poisson()})
    cube = planted(dims=("p", "e", "t"))
    assert asked(cube, ts.Tucker({"p": 3, "e": 3}), True)
    assert not asked(cube.isel(t=slice(3)), ts.Tucker({"t": 3}), True)  # the other modes have no factor
    assert not asked(data, ts.Tucker({"p": 3, "e": 3}, diagonal=["data"]), True)
    assert not asked(data, ts.CP(3), True, solver=ts.GaussNewton())
    assert not asked(data, ts.NMF(3, {"p": ts.SoftOrthogonal(0.1, method="shiga2016")}), True)
    assert not asked(data.isel(e=slice(0, 20)), ts.NMF(6), True)
    with pytest.raises(ts.InvalidArgument, match="compress='yes'"):
        ts.HALS(compress="yes")


def test_an_answer_is_not_made_worse():
    data = planted()
    plain, _ = both(data, ts.NMF(3), solvers=(PLAIN, PLAIN))
    again = fit(data, ts.NMF(3), solver=COMPRESSED, start=ts.From(plain), tol=1e-10)
    assert again.history[0] == pytest.approx(plain.objective, rel=1e-9)
    assert again.objective <= plain.objective * (1 + 1e-12)


def run(**options):
    return fit(planted(), ts.NMF(3), solver=COMPRESSED, tol=1e-9, start=ts.Random(), max_sweeps=60, **options)


@pytest.mark.parametrize(("restarts", "chunks"), [(1, 0), (1, 1), (1, 3), (1, 5), (3, 4), (3, 12)])
def test_a_run_stopped_at_any_stage_goes_on_to_the_same_bits(monkeypatch, tmp_path, restarts, chunks, interrupt_after):
    whole = run(restarts=restarts)
    assert taken(whole)
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        part = run(restarts=restarts, checkpoint=path)
    assert part.status is ts.Status.INTERRUPTED
    assert np.isfinite(part.factors["p"]).all()
    assert np.isfinite(part.history).all()
    # What it is worth is said by all data.
    assert part.history[-1] == pytest.approx(part.objective, rel=1e-6)
    again = run(restarts=restarts, checkpoint=path)
    np.testing.assert_array_equal(again.history, whole.history)
    for mode in whole.factors:
        np.testing.assert_array_equal(again.factors[mode], whole.factors[mode])
    assert again.why == whole.why
    if restarts > 1:
        np.testing.assert_array_equal(again.spread, whole.spread)
    assert not path.exists()


def test_a_time_limit_holds_on_compressed_data():
    found = run(time_limit=1e-6)
    assert found.status is ts.Status.TIME_LIMIT
    assert found.history[-1] == pytest.approx(found.objective, rel=1e-6)


def test_the_best_of_several_starts_goes_on():
    found = run(restarts=4)
    assert found.spread.min() == pytest.approx(float(found.history[-1]))
    assert len(found.spread) == 4
    assert found.spread.max() < 2 * found.spread.min()


def test_sweeps_on_all_data_are_those_that_are_counted():
    found = run(time_limit=None)
    few = fit(planted(), ts.NMF(3), solver=COMPRESSED, tol=0.0, start=ts.Random(), max_sweeps=2)
    assert few.sweeps == 2 and few.status is ts.Status.MAX_SWEEPS
    assert few.objective == pytest.approx(found.objective, rel=1e-3)
