"""The noise that `tensorspec.estimate_noise` finds in public measurements.

Run it from the root of the repository, ``python -m benchmarks.noise_of_real_data DATA``, with the folder that holds
them. It prints for each set its shape, the mean, gain, read variance and channel correlation, whether this is
the noise of counts, and the seconds that the estimate took.
"""

import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import tensorspec as ts

FORMATS = {
    "16x16-spectrum_image_5x5x4000-not_square_1.ser": {},
    "16x16_12bit_packed_8bit.bcf": {"signal": "EDX"},
    "30x30_instructively_packed_16bit_compressed.bcf": {"signal": "EDX"},
    "Hitachi_TM3030Plus.bcf": {"signal": "EDX", "lazy": True},
    "bcf-edx-ebsd.bcf": {"signal": "EDX"},
    "bcf_v2_50x50px.bcf": {"signal": "EDX"},
    "test_TEM.bcf": {"signal": "EDX"},
    "EELS_SI.dm4": {},
    "EELS_STO.dm3": {},
    "EDS_SEM_TM002.hspy": {},
    "map.tvf": {},
    "renishaw_test_linescan.wdf": {"signal": "Simple mapping measurement 1"},
    "renishaw_test_map.wdf": {"signal": "Simple mapping measurement"},
    "renishaw_test_map2.wdf": {"signal": "Simple mapping measurement 1"},
    "renishaw_test_streamline.wdf": {"signal": "StreamLine image acquisition 5"},
    "test-MonarcCL_spectrum-SI.dm4": {},
}


def held(path: Path, key: str, *dims: str) -> xr.DataArray:
    """Label an array of an archive of numpy."""
    with np.load(path, allow_pickle=False) as archive:
        return xr.DataArray(archive[key], dims=dims)


def sets(data: Path) -> Iterator[tuple[str, xr.DataArray]]:
    """Name and tensor of every set in the folder."""
    yield "scifi_eels: EELS", ts.load(data / "scifi_eels" / "DMReader_SpectrumImage_SI-EELS.dm3")
    yield "scifi_eels: EDX", ts.load(data / "scifi_eels" / "EMDReader_SpectrumImage_Si.emd", signal="EDS")
    for name in ("LSMO_linescan", "LSMO_linescan_low_loss", "LSMO_STO_linescan", "LSMO_STO_linescan_low_loss"):
        yield f"lsmo_eels: {name}", ts.load(data / "lsmo_eels" / f"{name}.hdf5", reader="HSPY")
    yield "espm_eds", ts.load(data / "espm_eds" / "88_ES-LP_G8_selection2_cropped2.hspy")
    yield "sio2_eds", ts.load(data / "sio2_eds" / "SiO2_EDS_SI.hspy")
    for path in sorted((data / "bcf_p45").glob("*.bcf")):
        yield f"bcf_p45: {path.stem}", ts.load(path, signal="EDX")
    yield "xanes_stxm", held(data / "xanes_stxm" / "71214098.npz", "counts", "energy", "y", "x")
    kinetic = held(data / "kinetic" / "kinetic.npz", "X", "sample", "emission", "excitation", "time")
    missing = held(data / "kinetic" / "kinetic.npz", "missing", *map(str, kinetic.dims))
    yield "kinetic", kinetic.where(~missing).transpose("sample", "excitation", "emission", "time")
    yield "tofsims", held(data / "tofsims" / "poplar_wood_trift.npz", "counts", "y", "x", "mass")
    yield "chondro_raman", held(data / "chondro_raman" / "chondro.npz", "spc", "pixel", "raman_shift")
    yield "carbs_raman", held(data / "carbs_raman" / "carbs.npz", "D", "sample", "raman_shift")
    yield "shiga_eels (simulated)", held(data / "shiga_eels" / "SI_data.npz", "X", "y", "x", "energy_loss")
    for path in sorted((data / "cl_maps").glob("*.*")):
        if path.suffix in (".dm4", ".hspy"):
            yield f"cl_maps: {path.stem}", ts.load(path)
    for element in ("Sc", "Dy", "O", "HAADF"):
        yield f"fused_em: {element} map", held(data / "fused_em" / "PTO_Trilayer_dataset.npz", element, "row", "column")
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(data / "velox_eels_eds" / "velox_EELS_EDS.zip") as held_in,
    ):
        held_in.extractall(folder)
        for path in sorted(Path(folder).rglob("*.emd")):
            for number, info in enumerate(ts.signals(path), start=1):
                if len(info.shape) == 3:
                    yield f"velox_eels_eds: {info.name}, {number}", ts.load(path, signal=number)
    for name, options in FORMATS.items():
        yield f"formats: {name}", ts.load(data / "formats" / name, **options)


def main() -> None:
    """Print one row for each set."""
    print("| set | shape | mean | gain | read variance | correlation | counts | seconds |\n" + 8 * "|---" + "|")
    for name, tensor in sets(Path(sys.argv[1])):
        begin = time.perf_counter()
        try:
            noise = ts.estimate_noise(tensor)
        except ts.InvalidData as problem:
            print(f"| {name} | {' x '.join(map(str, tensor.shape))} | {problem} |", flush=True)
            continue
        seconds = time.perf_counter() - begin
        correlation = "-" if noise.channel_correlation is None else f"{noise.channel_correlation:.2f}"
        cells = [
            name,
            " x ".join(map(str, tensor.shape)),
            f"{float(tensor.mean()):.3g}",
            f"{noise.gain:.3g}",
            f"{noise.read_variance:.3g}",
            correlation,
            "yes" if noise.is_counts else "no",
            f"{seconds:.2f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
