"""A run that is stopped returns the best so far; one that is killed goes on where it stopped."""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import xarray as xr

import tensorspec as ts
from tensorspec.solvers import loop

RNG = np.random.default_rng(1)
DATA = xr.DataArray(
    RNG.poisson(RNG.random((30, 4)) @ RNG.random((4, 25)) * 50).astype(np.float32), dims=("x", "energy")
)


def same(a, b):
    for mode in a.factors:
        np.testing.assert_array_equal(a.factors[mode], b.factors[mode])
    np.testing.assert_array_equal(a.weights, b.weights)
    np.testing.assert_array_equal(a.history, b.history)
    assert a.status is b.status


def run(**options):
    return ts.fit(DATA, ts.NMF(4), tol=1e-9, max_sweeps=150, start=ts.Random(), progress=False, **options)


def test_ctrl_c_returns_the_best_so_far(monkeypatch, interrupt_after):
    interrupt_after(monkeypatch, 2)
    fit = run()
    assert fit.status is ts.Status.INTERRUPTED
    assert not fit.converged
    assert 0 < fit.sweeps < 150
    assert np.isfinite(fit.factors["pixel"]).all()
    assert fit.history[-1] < fit.history[0]


def test_a_time_limit_returns_the_best_so_far():
    fit = run(time_limit=1e-6)
    assert fit.status is ts.Status.TIME_LIMIT
    assert np.isfinite(fit.objective)


@pytest.mark.parametrize(("restarts", "chunks"), [(1, 2), (3, 1), (3, 4)])
def test_a_stopped_run_goes_on_to_the_same_bits(monkeypatch, tmp_path, restarts, chunks, interrupt_after):
    whole = run(restarts=restarts)
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        part = run(restarts=restarts, checkpoint=path)
    assert part.status is ts.Status.INTERRUPTED
    assert path.exists()
    again = run(restarts=restarts, checkpoint=path)
    same(whole, again)
    assert not path.exists(), "a finished fit leaves no checkpoint behind"


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path):
    """The process is killed, not interrupted: nothing gets a chance to clean up."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import numpy as np, xarray as xr
            import tensorspec as ts
            from tensorspec.solvers import loop

            if sys.argv[1] == "slow":
                loop._SECONDS_PER_CHECKPOINT = 0.0
                original = loop.run_chunk

                def slow(*arguments):
                    result = original(*arguments)
                    print("chunk", flush=True)
                    time.sleep(0.5)
                    return result

                loop.run_chunk = slow
            rng = np.random.default_rng(1)
            values = rng.poisson(rng.random((30, 4)) @ rng.random((4, 25)) * 50).astype(np.float32)
            data = xr.DataArray(values, dims=("x", "energy"))
            checkpoint = None if sys.argv[1] == "whole" else "run.npz"
            options = dict(tol=0, max_sweeps=300, start=ts.Random(), progress=False, checkpoint=checkpoint)
            fit = ts.fit(data, ts.NMF(4), **options)
            np.savez(sys.argv[2], pixel=fit.factors["pixel"], energy=fit.factors["energy"], history=fit.history)
            """
        )
    )
    start = [sys.executable, str(script)]
    killed = subprocess.Popen([*start, "slow", "none.npz"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    for _ in range(3):
        assert killed.stdout.readline() == "chunk\n"
    time.sleep(0.3)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert (tmp_path / "run.npz").exists()
    assert not (tmp_path / "none.npz").exists()
    subprocess.run([*start, "again", "again.npz"], cwd=tmp_path, check=True)
    subprocess.run([*start, "whole", "whole.npz"], cwd=tmp_path, check=True)
    with np.load(tmp_path / "again.npz") as again, np.load(tmp_path / "whole.npz") as whole:
        assert len(whole["history"]) == 301
        for name in whole.files:
            np.testing.assert_array_equal(again[name], whole[name])


def test_progress_is_silent_unless_asked(capfd):
    ts.fit(DATA, ts.NMF(2), max_sweeps=5)
    assert capfd.readouterr() == ("", "")
    ts.fit(DATA, ts.NMF(2), max_sweeps=5, progress=True)
    output, errors = capfd.readouterr()
    assert output == ""
    assert "sweep" in errors


def test_an_interrupted_write_leaves_the_checkpoint_before_and_nothing_else(monkeypatch, tmp_path):
    stored = loop.Checkpoint(tmp_path / "run.npz", "this fit")
    stored.save({"history": np.arange(3.0)})

    def stopping(stream, **content):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stopping)
    with pytest.raises(KeyboardInterrupt):
        stored.save({"history": np.arange(4.0)})
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    content = stored.load()
    assert content is not None and content["history"].size == 3
