"""Where compiled programs are kept from one command to the next."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

__all__ = ["cache_folder", "keep_compiled_programs"]

FOLDER, LEAST_SECONDS, LEAST_BYTES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
)


def cache_folder() -> Path:
    """Return the folder of compiled programs of this user and kind of processor.

    Returns
    -------
    folder : Path
        That of the environment variable ``JAX_COMPILATION_CACHE_DIR`` where it is set.
    """
    given = os.environ.get(FOLDER)
    return Path(given) if given else _user_cache() / "tensorspec" / f"compiled-{_processor()}"


def keep_compiled_programs() -> None:
    """Switch on JAX's persistent compilation cache for this process; call it before JAX is loaded.

    A command line owns its process, so it may; the library never does.  What the user has set stands.
    """
    os.environ.setdefault(FOLDER, str(cache_folder()))
    os.environ.setdefault(LEAST_SECONDS, "0")
    os.environ.setdefault(LEAST_BYTES, "-1")


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    """Return a name of the processor's kind: home folders are shared by machines that cannot run each other's code."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            what = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        what = platform.processor()
    return f"{platform.machine().lower()}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
