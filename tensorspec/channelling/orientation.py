"""From what a beam-rocking scan records to orientations in mrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.channelling.beams import Scan, over_directions
from tensorspec.channelling.crystal import Crystal
from tensorspec.channelling.laid_on import pattern_laid_on, row_laid_on
from tensorspec.channelling.wavefield import amplitudes, coupling
from tensorspec.errors import InvalidArgument, InvalidData, UnknownName

__all__ = ["as_orientation", "beam_intensity"]


def beam_intensity(
    crystal: Crystal, scan: Scan, thickness: float, *, beam: tuple[int, int, int] = (0, 0, 0), convergence: float = 0.0
) -> xr.DataArray:
    """Return the intensity of a diffracted beam at every orientation: what a bright- or dark-field detector sees.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    scan : Scan
        Orientations and beams.
    thickness : float
        nm.
    beam : tuple of int
        Indices; the direct beam by default.
    convergence : float
        Standard deviation of the beam's directions, mrad.

    Returns
    -------
    DataArray
        On the tilts of the scan, of one incident electron.

    Examples
    --------
    >>> from tensorspec.channelling.beams import systematic_row
    >>> silicon = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.46)})
    >>> scan = systematic_row(silicon, (2, 2, 0), [-1.0, 3.0], 200, in_bragg_angles=True)
    >>> found = beam_intensity(silicon, scan, 40.0)  # at the Bragg condition, and far from it
    >>> bool(found[0] < found[1])
    True
    """
    number("thickness (nm)", thickness, 0, above=True)
    place = np.flatnonzero((scan.beams == np.asarray(beam)).all(axis=1))
    if not len(place):
        raise UnknownName(f"beam {beam} is not among the {len(scan.beams)} of {scan.name}")
    wave = amplitudes(coupling(crystal, scan), np.array([10.0 * thickness]))[:, 0, place[0]]
    values = over_directions((np.abs(wave) ** 2).reshape(scan.shape), scan, convergence)
    coords = {dim: (dim, tilts, {"units": "mrad"}) for dim, tilts in scan.tilts.items()}
    return xr.DataArray(values, dims=scan.dims, coords=coords, attrs={"long_name": f"intensity of {beam}"})


def as_orientation(
    data: xr.DataArray,
    *,
    row: str | None = None,
    step: float | Mapping[str, float] | None = None,
    reference: xr.DataArray | None = None,
    expected: xr.DataArray | None = None,
) -> xr.DataArray:
    """Rename the axes of a beam-rocking scan to tilts in mrad.

    Parameters
    ----------
    data : DataArray
        With the dimensions ``y`` and ``x``, or one of them, as the microscope writes them.
    row : str, optional
        For a scan across a row, the dimension along it; the other, if there is one, is summed over.
    step : float or mapping of str to float
        Tilt between neighbouring points, mrad, by dimension if they differ; negative where the axis runs the other way.
        With a reference it is a first guess, within 30 %.
    reference : DataArray, optional
        What a bright- or dark-field detector recorded at the same points.
    expected : DataArray, optional
        What it should record, over ``tilt_x``, for a pattern over ``tilt_y`` and ``tilt_x`` (see `beam_intensity`), on
        a wider scan than was recorded. Scale, origin and sense are those that lay the one on the other, a slow drift of
        the intensity allowed.

    Returns
    -------
    DataArray
        With ``tilt_x`` (and ``tilt_y``) in mrad, zero in the middle or as the reference says, rising.
        ``attrs["orientation"]`` says how it was found: step, origin, the share of the reference that is explained, and
        whether the sense could be told (of a symmetric row or pattern it cannot).

    Raises
    ------
    InvalidArgument
        If there is no step, or only one of `reference` and `expected`.
    InvalidData
        If the dimensions are not those of a scan, or the reference does not look like what is expected, or a pattern is
        turned against it.

    Examples
    --------
    >>> data = xr.DataArray(np.ones((5, 3)), dims=("x", "energy_loss"))
    >>> as_orientation(data, row="x", step=0.5).tilt_x.values
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    """
    if step is None:
        raise InvalidArgument("as_orientation: step is missing: give the tilt between neighbouring points in mrad")
    if (reference is None) != (expected is None):
        raise InvalidArgument("as_orientation: reference and expected belong together")
    here = [dim for dim in ("y", "x") if dim in data.dims]
    if not here or (row is not None and row not in here):
        raise InvalidData(f"as_orientation: the data have the dimensions {list(data.dims)}; expected y and x of a scan")
    if row is None and reference is not None and len(here) < 2:
        raise InvalidArgument(f"as_orientation: a reference along one dimension calibrates a row; say row={here[0]!r}")
    if row is not None:
        across = [dim for dim in here if dim != row]
        data = data.sum(across, keep_attrs=True) if across else data
        here = [row]
    steps = {dim: _step(step, dim) for dim in here}
    tilts = {}
    record: dict[str, Any] = {"step": steps}
    for dim in here:
        size = data.sizes[dim]
        tilts[dim] = steps[dim] * (np.arange(size) - (size - 1) / 2)
    if reference is not None and expected is not None:
        own = reference.sum([dim for dim in reference.dims if dim not in here]).transpose(*here).values.astype(float)
        if own.shape != tuple(data.sizes[dim] for dim in here):
            raise InvalidData(
                f"as_orientation: the reference has {own.shape} points along {here}, the data "
                f"{tuple(data.sizes[dim] for dim in here)}"
            )
        if row is not None:
            tilts[row], found = row_laid_on(own, expected, steps[row])
        else:
            (tilts["y"], tilts["x"]), found = pattern_laid_on(own, expected, (steps["y"], steps["x"]))
        record |= found
    names = {dim: "tilt_x" if row is not None else f"tilt_{dim}" for dim in here}
    result = data.drop_vars([name for name, coord in data.coords.items() if set(coord.dims) & set(here)]).rename(names)
    for dim in here:
        result = result.assign_coords({names[dim]: (names[dim], tilts[dim], {"units": "mrad"})}).sortby(names[dim])
    history = [
        *data.attrs.get("history", []),
        "tilts in mrad from " + ("a reference" if "explained" in record else "a step"),
    ]
    return result.assign_attrs({**data.attrs, "history": history, "orientation": record})


def _step(step: Any, dim: str) -> float:
    value = step.get(dim) if isinstance(step, Mapping) else step
    if value is None:
        raise InvalidArgument(f"as_orientation: no step along {dim!r}")
    value = float(value)
    if not np.isfinite(value) or value == 0:
        raise InvalidArgument(f"as_orientation: step along {dim!r} is {value!r}; expected mrad, not zero")
    return value
