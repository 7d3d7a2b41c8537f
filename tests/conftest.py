"""Fixtures that every test may use."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest

# Tests compile thousands of small programs and run each for a moment: quick compilers, slower programs.  The names of
# the settings belong to a version of XLA, which stops at names that it does not know.  Not for users: without fusion
# emitters some chains of steps (mirrored columns in a custom constraint) compile for minutes.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
        "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_multi_thread_eigen=false",
    )

# As many processes of tests as cores: threads of linear algebra that wait for each other there (an eigenvalue problem
# of 240 rows) took a hundred times as long as one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Linux lets a process have 65530 mappings, and every compiled program takes some of them.
MAPPINGS = Path("/proc/self/maps")
TOO_MANY = 40_000
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real measurements beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real measurements (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="module")
def few_compiled_programs():
    """Forget compiled programs before there are so many that the process could not map another one."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > TOO_MANY:
        import jax

        jax.clear_caches()


@pytest.fixture
def interrupt_after():
    """Function of a monkeypatch and a number: after that many chunks of sweeps it raises what Ctrl-C raises."""
    from tensorspec.solvers import loop

    def patched(monkeypatch, chunks):
        original, done = loop.run_chunk, []

        def stopping(*arguments):
            if len(done) >= chunks:
                raise KeyboardInterrupt
            done.append(1)
            return original(*arguments)

        monkeypatch.setattr(loop, "run_chunk", stopping)

    return patched
