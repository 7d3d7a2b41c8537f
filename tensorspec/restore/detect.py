"""Weak features in an image or a spectrum, with the false alarms under control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tensorspec.algebra.kernels import DEFAULT_SCALES, spread
from tensorspec.arguments import number
from tensorspec.errors import InvalidData, UnknownMode
from tensorspec.noise import NoiseModel
from tensorspec.prepare.steps import as_spectra
from tensorspec.restore.features import find, smooth_background
from tensorspec.restore.labels import as_fields, field_dimensions, noise_of_fields, response_of, with_labels

__all__ = ["detect"]

# A background is smooth over so many standard deviations of the response, or it would follow the features.
_BROADER = 10.0


def detect(
    data: xr.DataArray,
    background: xr.DataArray | xr.Dataset | None = None,
    psf: xr.DataArray | float | Mapping[str, float] | None = None,
    noise: str | NoiseModel = "poisson",
    *,
    dims: str | Sequence[str] | None = None,
    mask: xr.DataArray | None = None,
    scale: float | None = None,
    false_alarm: float = 0.05,
) -> xr.Dataset:
    """Find weak features (particles, lines, edges) that stand out from a background by more than noise.

    Parameters
    ----------
    data : DataArray
        One image or spectrum; integers or floats, NaN is missing.
    background : DataArray or Dataset, optional
        What is expected without the features, as they would be measured: an array like the data, or the result of
        `pixon` of a reference, whose ``model`` is taken. By default the smooth background of the data themselves,
        found without the points that stand out.
    psf : DataArray, float or mapping of str to float, optional
        As for `pixon`: the shape of the smallest feature. Features wider than this by a Gaussian of 1.5, 3 and 6
        points standard deviation are looked for too.
    noise : {"poisson", "gaussian"} or NoiseModel
        As for `pixon`.
    dims : str or sequence of str, optional
        The dimensions of the field; all of the data.
    mask : DataArray of bool, optional
        True = use.
    scale : float, optional
        Radius in points of the kernel that a background of the data themselves is smooth over; by default 16, or ten
        standard deviations of the psf, and no more than a quarter of the field. Features about as wide as that are not
        seen.
    false_alarm : float
        Chance that pure noise gives any feature, anywhere in the field.

    Returns
    -------
    Dataset
        ``significance``, in standard deviations: the filter that stands out most at every point; negative is a
        deficit. ``background``. By ``feature``, the most significant first: its place along each dimension (a
        coordinate ``feature_x`` and so on, or a position), ``score`` (its significance), ``amplitude`` (its whole
        signal, in units of the data, if it has the shape of the filter) and ``standard_error``, ``width`` (standard
        deviation beyond that of the psf, in points). ``attrs``: the ``limit`` that a score exceeds.

    Raises
    ------
    InvalidData, InvalidArgument, UnknownMode, ModeMismatch
        As `pixon`; or if the background has other sizes.

    Notes
    -----
    Matched filters, weighed by the variance of the background (R. N. McDonough and A. D. Whalen, Detection of Signals
    in Noise, 1995). The limit is that of the field with all its filters: the expected Euler characteristic of filtered
    noise (Worsley et al., Hum. Brain Mapp. 4 (1996) 58-73). Few counts are skew, which the scores allow for. The
    background is taken as known: near the ends, and where features fill much of the field, it is not. A feature of
    another shape, such as an edge across an image, comes as several.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> field = np.full((40, 40), 5.0)
    >>> field[11, 21] += 40
    >>> found = detect(xr.DataArray(rng.poisson(field), dims=("y", "x")))
    >>> found.sizes["feature"], found.feature_y.values, found.feature_x.values
    (1, array([11]), array([21]))
    """
    false_alarm = number("detect: false_alarm", false_alarm, 0, 0.5, above=True)
    data = as_spectra("detect", data)
    own = field_dimensions("detect", data, dims)
    if data.ndim != len(own):
        raise UnknownMode(
            f"detect: the data have dimensions {list(data.dims)}, the field {list(own)}; take one field at a time, "
            "data.isel(...), or their sum."
        )
    response = response_of("detect", data, own, psf)
    fields = as_fields("detect", data, mask, own)
    found = noise_of_fields("detect", fields, noise, str(data.dims[-1]))
    values, valid = fields.values[0], fields.valid[0]
    if background is None:
        wide = DEFAULT_SCALES[-1] if response is None else max(DEFAULT_SCALES[-1], _BROADER * spread(response))
        radius = max(1.0, min(wide, min(values.shape) / 4))
        radius = radius if scale is None else number("detect: scale", scale, 1, min(values.shape) / 2)
        expected = smooth_background(values, valid, response, found, radius, false_alarm)
    else:
        expected = _background(background, data, own)
    result = find(values, valid, expected, response, found, false_alarm)
    dataset = xr.Dataset(
        {
            "significance": with_labels(result.significance, data, fields, "significance"),
            "background": with_labels(expected, data, fields, "background"),
        }
    )
    for axis, dim in enumerate(own):
        places = result.places[:, axis]
        coord = np.asarray(data.coords[dim].values)[places] if dim in data.coords else places
        attrs = data.coords[dim].attrs if dim in data.coords else {"units": "points"}
        dataset = dataset.assign_coords({f"feature_{dim}": ("feature", coord, attrs)})
    units = {"units": data.attrs["units"]} if "units" in data.attrs else {}
    dataset["score"] = ("feature", result.scores, {"long_name": "significance"})
    dataset["amplitude"] = ("feature", result.amplitudes, {"long_name": "signal", **units})
    dataset["standard_error"] = ("feature", result.errors, units)
    dataset["width"] = ("feature", result.widths, {"units": "points"})
    step = f"detect: {len(result.scores)} features above {result.limit:.2f} standard deviations"
    dataset.attrs = {
        "limit": result.limit,
        "false_alarm": false_alarm,
        "noise": repr(NoiseModel(found.gain, float(np.mean(found.read_variance)))),
        "history": [*data.attrs.get("history", []), step],
    }
    return dataset


def _background(background: xr.DataArray | xr.Dataset, data: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    """Return the expected values, checked, without those below zero that no noise model has."""
    if isinstance(background, xr.Dataset):
        if "model" not in background:
            raise InvalidData("detect: the background is a Dataset without 'model'; expected what ts.pixon returns.")
        background = background["model"]
    background = as_spectra("detect", background, "background")
    if set(background.dims) != set(data.dims) or any(background.sizes[dim] != data.sizes[dim] for dim in dims):
        raise InvalidData(f"detect: the background is {dict(background.sizes)}, the data are {dict(data.sizes)}.")
    values = np.asarray(background.transpose(*dims).as_numpy().values, dtype=float)
    if not np.isfinite(values).all():
        raise InvalidData("detect: the background has values that are no numbers.")
    return np.maximum(values, 0.0)
