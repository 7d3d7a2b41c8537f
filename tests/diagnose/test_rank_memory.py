"""How much memory the number of components of large lazy data takes."""

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("dask")
pytest.importorskip("resource")

# Counts of three components, 0.5 GB as they are stored; every chunk is read when it is asked for and held by nobody.
# In a process of its own: what other tests have taken is not counted, and the limit stays there.
SCRIPT = """
import json
import resource
import sys
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

import tensorspec as ts

SHAPE, CHUNK, ASKED = (512, 512, 1024), 64, ["noise edge", "parallel analysis", "count splitting"]
SPECTRA = np.random.default_rng(0).gamma(0.5, size=(3, SHAPE[2]))


def read(block_info=None):
    where = block_info[None]["array-location"]
    path = Path(sys.argv[2]) / "{}-{}.npy".format(*(start for start, _ in where))
    if not path.exists():
        np.save(path, drawn(where))
    return np.load(path)


def drawn(where):
    generator = np.random.default_rng([start for start, _ in where])
    y, x = (np.arange(*span) / SHAPE[0] for span in where[:2])
    maps = np.stack([np.add.outer(y, x), np.multiply.outer(y, 1 - x), np.multiply.outer(1 - y, x)], axis=-1)
    return generator.poisson(0.5 * maps @ SPECTRA).astype(np.uint16)


def bytes_of(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))


chunks = tuple((CHUNK,) * (size // CHUNK) for size in SHAPE[:2])
lazy = dask.array.map_blocks(read, chunks=(*chunks, SHAPE[2:]), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
data = xr.DataArray(lazy, dims=("y", "x", "energy_loss"))
# What is compiled and kept for good is no memory of the data.
ts.estimate_rank(data[:64, :64].compute(), range(1, 5), criteria=ASKED)
before = bytes_of("VmData:")
limit = before + int(float(sys.argv[1]) * data.nbytes)
resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
start = bytes_of("VmRSS:")
found = ts.estimate_rank(data, range(1, 5), criteria=ASKED)
# Not ru_maxrss, which begins with the size of the process that started this one.
above = bytes_of("VmHWM:") - start
try:
    whole = data.compute()
    held = True
except MemoryError:
    held = False
print(json.dumps({"size": data.nbytes, "above": above, "found": found.recommended, "whole": held}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_the_rank_of_large_lazy_data_takes_less_memory_than_they_do(tmp_path):
    # The limit is what the data take as they are stored; as numbers that are computed with they take twice as much.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "1.0", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(tmp_path)  # half a gigabyte
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["found"] == 3
    assert told["above"] < told["size"]
    assert not told["whole"]  # the limit is one that all data do not fit under
