"""What the README says is what happens: its code runs, its commands exist, its numbers are those of the demo."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tensorspec as ts

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = ['pip install -e ".[all]" && tensorspec demo', 'pip install -e ".[all,test]" && pytest']


def write_hspy(path: Path, tensor) -> None:
    """Write a spectrum image as HyperSpy does."""
    hyperspy = pytest.importorskip("hyperspy.api")
    signal = hyperspy.signals.Signal1D(tensor.values)
    for axis, dim in zip(signal.axes_manager._axes, tensor.dims, strict=True):
        axis.name, axis.units = dim, tensor[dim].attrs["units"]
        axis.offset, axis.scale = float(tensor[dim][0]), float(tensor[dim][1] - tensor[dim][0])
    signal.metadata.Signal.signal_type = tensor.attrs["signal_type"]
    signal.save(path)


@pytest.fixture(scope="module")
def phantom():
    """A small cross-section."""
    return ts.phantoms.cross_section(shape=(12, 14), eels_channels=128, edx_channels=128)


def run(block: str) -> dict:
    """Run a block of the README, in the current folder."""
    scope: dict = {}
    exec(compile(block, "README.md", "exec"), scope)
    return scope


def lines_of(block: str) -> int:
    return sum(bool(line.strip()) for line in block.splitlines())


def test_two_blocks_of_five_and_eight_lines():
    assert [lines_of(block) for block in BLOCKS] == [5, 8]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_two_commands_stand_there_once_each_on_its_own_line(command):
    assert [line.strip() for line in TEXT.splitlines()].count(command) == 1


def test_a_file_from_the_microscope(phantom, tmp_path, monkeypatch):
    write_hspy(tmp_path / "spectrum_image.hspy", phantom["eels"])
    monkeypatch.chdir(tmp_path)
    fit = run(BLOCKS[0].replace("spectrum_image.dm3", "spectrum_image.hspy"))["fit"]
    assert fit.rank == 3
    assert ts.open("spectrum_image.fit.h5").explained == pytest.approx(fit.explained)
    assert Path("spectrum_image.report.html").stat().st_size > 10_000


def test_a_real_file_from_the_microscope(shared_data, tmp_path, monkeypatch):
    source = shared_data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3"
    (tmp_path / "spectrum_image.dm3").write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    fit = run(BLOCKS[0])["fit"]
    assert fit.converged and fit.explained > 0.99
    assert fit.factors["energy_loss"].energy_loss.attrs["units"] == "eV"
    assert Path("spectrum_image.fit.h5").exists() and Path("spectrum_image.report.html").exists()


def test_two_detectors(phantom, tmp_path, monkeypatch, capsys):
    write_hspy(tmp_path / "eels.hspy", phantom["eels"])
    write_hspy(tmp_path / "edx.hspy", phantom["edx"])
    monkeypatch.chdir(tmp_path)
    fit = run(BLOCKS[1])["fit"]
    assert list(fit.tensors) == ["eels", "edx"] and list(fit.factors) == ["pixel", "energy_loss", "xray_energy"]
    assert "4 components" in capsys.readouterr().out
    assert Path("components.png").exists() and Path("residual.png").exists()


def test_pictures_and_links_are_there_and_small():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    files = [ROOT / target for target in targets if "://" not in target]
    assert files and all(path.exists() for path in files)
    assert (ROOT / "docs" / "_static" / "demo.png").stat().st_size < 300_000


@pytest.mark.slow
def test_the_table_is_what_the_demo_prints(tmp_path):
    command = [sys.executable, "-m", "tensorspec", "demo", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=600)
    written = re.findall(r"^\| (E[\w ]+?) \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(written) == 3
    for name, cells in written:
        printed = next(line for line in done.stdout.splitlines() if line.strip().startswith(name))
        for mine, found in zip(cells.split(" | "), printed.split()[-3:], strict=True):
            assert mine == found == "-" or float(found) == pytest.approx(float(mine), rel=0.1, abs=0.2)
