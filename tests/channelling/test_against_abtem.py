"""Beam amplitudes beside abTEM, an independent Bloch-wave program (GPL, used nowhere else)."""

import dataclasses

import numpy as np
import pytest

from tensorspec.channelling import scattering
from tensorspec.channelling.beams import zone_axis
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.electron import wavelength
from tensorspec.channelling.wavefield import amplitudes, coupling

ase = pytest.importorskip("ase", reason="ase is not installed")
bloch = pytest.importorskip("abtem.bloch", reason="abTEM is not installed")


@pytest.mark.slow
def test_amplitudes_are_those_of_abtem(monkeypatch):
    from abtem.parametrizations import LobatoParametrization

    own = LobatoParametrization()
    # The same scattering factors in both: what is compared is the diffraction.
    monkeypatch.setattr(
        scattering, "scattering_factor", lambda element, s: own.scattering_factor(element)((2 * np.asarray(s)) ** 2)
    )
    thermal, cell = 0.5, 8.08
    sites = {
        "8a": ((1 / 8,) * 3, {"Mg": 1.0}, thermal),
        "16d": ((1 / 2,) * 3, {"Al": 1.0}, thermal),
        "32e": ((0.263,) * 3, {"O": 1.0}, thermal),
    }
    crystal = Crystal.from_space_group("F d -3 m:2", (cell, cell, cell, 90.0, 90.0, 90.0), sites)
    atoms = ase.Atoms(
        "".join(f"{next(iter(site.occupants))}{len(site.positions)}" for site in crystal.sites),
        scaled_positions=np.concatenate([site.positions for site in crystal.sites]),
        cell=[cell] * 3,
        pbc=True,
    )
    factors = bloch.StructureFactor(
        atoms, g_max=6.0, thermal_sigma=np.sqrt(thermal / (8 * np.pi**2)), cutoff="hard", centering="F"
    )
    waves = bloch.BlochWaves(factors, energy=200e3, sg_max=0.06, g_max=2.0, centering="F")
    depths = np.array([50.0, 200.0, 500.0])
    theirs = waves.calculate_diffraction_patterns(depths, return_complex=True, lazy=False)
    scan = zone_axis(crystal, (0, 0, 1), (np.zeros(1), np.zeros(1)), 200, x=(4, 0, 0), largest=2.0, excitation=0.06)
    place = {tuple(beam): k for k, beam in enumerate(scan.beams.tolist())}
    order = [place[tuple(indices)] for indices in np.asarray(theirs.miller_indices).tolist()]
    assert len(order) == len(scan.beams) == 213
    found = coupling(crystal, scan, absorption=False)
    # They leave the mean potential out of the wave number; with it amplitudes differ by 1e-4.
    found = dataclasses.replace(found, wave_number=np.full(1, 1 / wavelength(200)))
    ours = amplitudes(found, depths)[0]
    np.testing.assert_allclose(ours[:, order], np.asarray(theirs.array), atol=1e-6)
