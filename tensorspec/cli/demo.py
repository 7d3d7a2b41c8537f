"""The demonstration: one cross-section seen by EELS and EDX at once, whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorspec.cli.cache import keep_compiled_programs
from tensorspec.cli.output import say, writable_folder, write_results

if TYPE_CHECKING:
    from tensorspec.solution import Fit

__all__ = ["run_demo"]

SPECTRA = {"energy_loss": "eels_spectra", "xray_energy": "edx_spectra"}
RANK = 4
PICTURE_DPI = 100


def run_demo(output: str, shape: list[int] | None, seed: int) -> None:
    """Fit EELS and EDX together and each alone, compare with the truth, and write report, file and picture.

    Parameters
    ----------
    output : str
        Folder to write ``report.html``, ``fit.h5`` and ``demo.png`` into.
    shape : list of int, optional
        Pixels along y and x.
    seed : int
        Of the noise and of the start.

    Raises
    ------
    TensorspecError
        If nothing can be written there, or the shape cannot be meant.
    """
    folder = writable_folder(Path(output))
    keep_compiled_programs()
    from tensorspec.diagnose.match import compare
    from tensorspec.fit import fit
    from tensorspec.models.cp import NMF
    from tensorspec.phantoms import cross_section

    options: dict[str, Any] = {} if shape is None else {"shape": tuple(shape)}
    phantom = cross_section(**options, seed=seed)
    say("A cross-section of four oxides, recorded at once as EELS and EDX (a phantom: the truth is known).")
    say(repr(phantom))
    model, truth = NMF(RANK), _truth(phantom)
    fused = fit(phantom.data, model, seed=seed)
    names = [str(phase) for phase in phantom.truth["phase"].values]
    partners = compare(truth, fused).permutation
    fused = fused.relabel({number: name for number, name in zip(partners, names, strict=True) if number is not None})
    fits = {"EELS and EDX together": fused}
    for name, tensor in phantom.data.items():
        fits[f"{name.upper()} alone"] = fit({name: tensor}, model, seed=seed)
    write_results(fused, folder / "fit.h5", folder / "report.html")
    picture = folder / "demo.png"
    fused.plot().savefig(picture, dpi=PICTURE_DPI)
    say(f"wrote {picture}")
    say("\n".join(_table({name: compare(truth, found).by_mode for name, found in fits.items()})))


def _truth(phantom: Any) -> Fit:
    """Return the truth as a fit, so that it can be compared with one."""
    from tensorspec.assemble import assemble

    known = phantom.truth
    factors = {mode: known[name].values.T for mode, name in SPECTRA.items()}
    return assemble(phantom.data, {"pixel": known["maps"].values.reshape(RANK, -1).T, **factors})


def _table(cosines: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """Return how far each fit is from the truth, a line each."""
    columns = {"pixel": "maps", "energy_loss": "EELS spectra", "xray_energy": "EDX spectra"}
    width = max(map(len, cosines))
    lines = [
        f"\nAngle between what was found and the truth, degrees, mean over the {RANK} components (0: the same):",
        "  " + " " * width + "".join(title.rjust(15) for title in columns.values()),
    ]
    for name, by_mode in cosines.items():
        cells = [f"{_angle(by_mode[mode]):.1f}" if mode in by_mode else "-" for mode in columns]
        lines.append(f"  {name.ljust(width)}" + "".join(cell.rjust(15) for cell in cells))
    return lines


def _angle(cosines: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(np.nan_to_num(cosines), -1, 1))).mean())
