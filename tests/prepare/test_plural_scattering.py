"""Plural scattering of varying thickness makes more components than there are; deconvolution takes them away."""

import sys
from pathlib import Path

import pytest

import tensorspec as ts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="module")
def importable():
    """The benchmarks are a package of the repository, not of the distribution."""
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_number_of_components():
    from benchmarks.plural_scattering import above_noise, core_losses

    phantom = ts.phantoms.dual_eels((16, 20), thickness=(0.3, 0.9), seed=1)
    counted = {name: above_noise(*core) for name, core in core_losses(phantom).items()}
    assert counted["single scattering"] == 4
    assert counted["as recorded"] >= 6
    assert counted["deconvolved"] == 4


@pytest.mark.slow
def test_fusion():
    from benchmarks.plural_scattering import rows

    found = {kind: results["core loss and EDX"] for kind, _, results in rows((0.3, 1.2), (12, 16), restarts=1)}
    square, angle, _, maps = zip(
        *(found[kind] for kind in ("single scattering", "as recorded", "deconvolved")), strict=True
    )
    assert square[1] > 1.03 > max(square[0], square[2])
    assert angle[0] < 1.5
    assert angle[1] > 4
    assert angle[2] < 2.5
    assert maps[2] < 0.6 * maps[1]
