"""Expected counts of lines over orientation, and how they change with occupancies and everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.interpolate import CubicSpline

__all__ = ["LineModel", "Seen", "tilts_of"]


def tilts_of(response: xr.DataArray) -> tuple[str, ...]:
    """Return the dimensions of a response that are tilts."""
    return tuple(str(dim) for dim in response.dims if dim not in ("site", "line", "convergence", "thickness"))


@dataclass(frozen=True, eq=False)
class Seen:
    """Expected counts and their derivatives.

    Attributes
    ----------
    mean : (lines, orientations) array
        Counts.
    by_share : (lines, sites, orientations) array
        Change with the share of the line's element on a site.
    by_thickness, by_scale : (lines, orientations) arrays
        Change with the thickness, per nm, and with the scale of the tilts.
    by_convergence : (lines, orientations) array
        Change with the convergence, per mrad; zero where the response has only one.
    by_offset : (axes, lines, orientations) array
        Change with the offset of the tilts, per mrad.
    per_strength, per_background : (lines, orientations) arrays
        Counts for a strength, and a background, of one.
    """

    mean: np.ndarray
    by_share: np.ndarray
    by_thickness: np.ndarray
    by_scale: np.ndarray
    by_convergence: np.ndarray
    by_offset: np.ndarray
    per_strength: np.ndarray
    per_background: np.ndarray


class LineModel:
    """Expected counts: ``exposure (strength * sum over sites of share * response + constant) + background``.

    Parameters
    ----------
    response : DataArray
        Dimensions ``(site, line, *tilts, thickness)``, and ``convergence`` where that is fitted.
    counts : DataArray
        Dimensions ``(line, *tilts)``.
    exposure : (orientations,) array
        Relative live time times beam current.
    background : (lines, orientations) array
        Known counts that are no ionization of the line.
    """

    def __init__(
        self, response: xr.DataArray, counts: xr.DataArray, exposure: np.ndarray, background: np.ndarray
    ) -> None:
        self.tilts = tilts_of(response)
        self.directions = response["convergence"].values.astype(float) if "convergence" in response.dims else None
        last = ("thickness",) if self.directions is None else ("convergence", "thickness")
        picked = response.sel(line=list(counts["line"].values)).transpose("line", "site", *self.tilts, *last)
        self.depths = response["thickness"].values.astype(float)
        self.grid = [response[dim].values.astype(float) for dim in self.tilts]
        self.observed = [counts[dim].values.astype(float) for dim in self.tilts]
        # At no thickness there is a plane wave.
        values = np.concatenate([np.ones((*picked.shape[:-1], 1)), picked.values], axis=-1)
        self.over_thickness = CubicSpline(np.append(0.0, self.depths), values, axis=-1)
        self.exposure, self.background = exposure, background

    def seen(
        self,
        shares: np.ndarray,
        thickness: float,
        offset: np.ndarray,
        scale: float,
        convergence: float,
        strength: np.ndarray,
        constant: np.ndarray,
    ) -> Seen:
        """Return expected counts and derivatives.

        Parameters
        ----------
        shares : (lines, sites) array
            Share of each line's element on each site.
        thickness : float
            nm.
        offset : (axes,) array
            What is added to the tilts as observed, mrad.
        scale : float
            What they are multiplied by before.
        convergence : float
            Standard deviation of the beam's directions, mrad; not looked at where the response has only one.
        strength, constant : (lines,) arrays
            Counts of a line in a plane wave, and free background, for an exposure of one.
        """
        response, with_depth = self.over_thickness(thickness), self.over_thickness(thickness, 1)
        wider = np.zeros((*response.shape[: 2 + len(self.tilts)],))
        if self.directions is not None:
            over = _over_convergence(self.directions, response)
            response, wider = over(convergence), over(convergence, 1)
            with_depth = _over_convergence(self.directions, with_depth)(convergence)
        places = [scale * own + move for own, move in zip(self.observed, offset, strict=True)]
        values = self._at(response, places)
        slopes = [self._at(response, places, axis) for axis in range(len(places))]
        deeper, wider = self._at(with_depth, places), self._at(wider, places)
        shape = (*values.shape[:2], -1)
        scaled = np.zeros(values.shape)
        for axis, (slope, own) in enumerate(zip(slopes, self.observed, strict=True)):
            along = [1] * values.ndim
            along[2 + axis] = len(own)
            scaled += slope * own.reshape(along)
        factor = strength[:, np.newaxis] * self.exposure

        def summed(each: np.ndarray) -> np.ndarray:
            return np.einsum("ls,lso->lo", shares, each.reshape(shape))

        plain = summed(values) * self.exposure
        return Seen(
            mean=strength[:, np.newaxis] * plain + constant[:, np.newaxis] * self.exposure + self.background,
            by_share=factor[:, np.newaxis] * values.reshape(shape),
            by_thickness=factor * summed(deeper),
            by_scale=factor * summed(scaled),
            by_convergence=factor * summed(wider),
            by_offset=np.array([factor * summed(slope) for slope in slopes]),
            per_strength=plain,
            per_background=np.broadcast_to(self.exposure, plain.shape),
        )

    def _at(self, values: np.ndarray, places: list[np.ndarray], slope: int | None = None) -> np.ndarray:
        """Return values, or their slope along one axis, at other tilts; beyond the ends as at the ends."""
        for axis, (grid, place) in enumerate(zip(self.grid, places, strict=True)):
            inside = np.clip(place, grid[0], grid[-1])
            if len(grid) == 1:
                values = np.take(values, np.zeros(len(place), int), axis=2 + axis)
                values = np.zeros_like(values) if axis == slope else values
                continue
            order = 1 if axis == slope else 0
            if order == 0 and np.array_equal(inside, grid):
                continue
            values = CubicSpline(grid, values, axis=2 + axis)(inside, order)
            if order:
                along = [1] * values.ndim
                along[2 + axis] = len(place)
                values = values * (inside == place).reshape(along)
        return values


def _over_convergence(directions: np.ndarray, values: np.ndarray) -> CubicSpline:
    """Return values as a function of the convergence, their last axis: even in it, so without slope at zero."""
    ends: Any = ("clamped" if directions[0] == 0 else "not-a-knot", "not-a-knot")
    return CubicSpline(directions, values, axis=-1, bc_type=ends)
