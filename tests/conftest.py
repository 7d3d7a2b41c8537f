"""Fixtures that every test may use, and one store of compiled programs for all processes of a run."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Linux lets a process have 65530 mappings, and every compiled program takes some of them.
MAPPINGS = Path("/proc/self/maps")
TOO_MANY = 25_000
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# Compiling takes most of the time of the tests, and those of one process can use what another has compiled.
STORE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config):
    """Say where compiled programs are kept, before JAX is imported; a folder that is given is used, and kept."""
    if STORE not in os.environ and not hasattr(config, "workerinput"):
        config.compiled = os.environ[STORE] = tempfile.mkdtemp(prefix="tensorspec-tests-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def pytest_unconfigure(config):
    """Remove the folder that `pytest_configure` has made."""
    if hasattr(config, "compiled"):
        shutil.rmtree(config.compiled, ignore_errors=True)


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
