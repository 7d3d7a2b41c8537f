"""The likelihood of line counts over orientation, as a function of occupancies and of everything beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tensorspec.channelling.line_model import LineModel
from tensorspec.channelling.scoring import Bounds, Scored, maximise, null_space
from tensorspec.errors import InvalidArgument, UnknownName, suggest

__all__ = ["OccupancyLikelihood", "element_of"]

LARGEST_OFFSET, LARGEST_SCALE = 5.0, 0.1


class OccupancyLikelihood:
    """The likelihood of line counts as a function of one vector: shares first, then all that is fitted beside them."""

    def __init__(
        self,
        counts: dict[str, xr.DataArray],
        responses: dict[str, xr.DataArray],
        candidates: dict[str, list[str]],
        background: dict[str, np.ndarray],
        variance: dict[str, np.ndarray],
        exposure: dict[str, np.ndarray],
        thickness: dict[str, tuple[float, float] | None],
        convergence: dict[str, tuple[float, float] | None],
        free: bool,
        orientation: str,
        limits: list[tuple[dict[tuple[str, str], float], float]],
    ) -> None:
        self.counts, self.candidates, self.free = counts, candidates, free
        self.sites = [str(site) for site in next(iter(responses.values()))["site"].values]
        self.elements = list(dict.fromkeys(element_of(line) for own in counts.values() for line in own["line"].values))
        for name, own in responses.items():
            if [str(site) for site in own["site"].values] != self.sites:
                raise InvalidArgument(
                    f"response of {name!r} has sites {list(own['site'].values)}; the first has {self.sites}"
                )
        for element in self.elements:
            if element not in candidates:
                raise UnknownName(f"{element} has a line, but no candidate sites; candidates has {list(candidates)}")
            for site in candidates[element]:
                if site not in self.sites:
                    raise UnknownName(
                        f"candidates of {element}: no site {site!r}; the response has {self.sites}."
                        f"{suggest(site, self.sites)}"
                    )
            if not candidates[element]:
                raise InvalidArgument(f"candidates of {element} is empty; expected sites of {self.sites}")
        exposure = {name: (own / own.mean()).ravel() for name, own in exposure.items()}
        self.models = {
            name: LineModel(responses[name], own, exposure[name], background[name].reshape(own.sizes["line"], -1))
            for name, own in counts.items()
        }
        self.values = np.concatenate([own.values.reshape(own.sizes["line"], -1).ravel() for own in counts.values()])
        self.extra = np.concatenate([variance[name].ravel() for name in counts])
        self.names: list[str] = []
        self.shares = {
            (element, site): self._add(f"{element} on {site}")
            for element in self.elements
            for site in candidates[element]
        }
        self.depth = {name: self._add(f"{name}: thickness") for name in counts}
        move = orientation != "fixed"
        self.moves = {
            (name, dim): self._add(f"{name}: offset of {dim}")
            for name, model in self.models.items()
            for dim, own in zip(model.tilts, model.observed, strict=True)
            if move and len(own) > 2
        }
        self.scales = {name: self._add(f"{name}: scale") for name in counts if orientation == "offset and scale"}
        self.widths = {
            name: self._add(f"{name}: convergence")
            for name, model in self.models.items()
            if model.directions is not None
        }
        self.prior = {
            places[name]: known
            for places, given in ((self.depth, thickness), (self.widths, convergence))
            for name, known in given.items()
            if known is not None and name in places
        }
        self.strengths = {
            (name, str(line)): self._add(f"{name}: strength of {line}")
            for name, own in counts.items()
            for line in own["line"].values
        }
        self.constants = {key: self._add(f"{key[0]}: background of {key[1]}") for key in self.strengths if free}
        self.bounds = self._bounds(limits)

    def _add(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def _bounds(self, limits: list[tuple[dict[tuple[str, str], float], float]]) -> Bounds:
        size = len(self.names)
        equal = np.zeros((len(self.elements), size))
        for row, element in enumerate(self.elements):
            for site in self.candidates[element]:
                equal[row, self.shares[element, site]] = 1
        above, least = [], []

        def bound(place: int, low: float, high: float = np.inf) -> None:
            for sign, limit in ((1.0, low), (-1.0, -high)):
                if np.isfinite(limit):
                    row = np.zeros(size)
                    row[place] = sign
                    above.append(row)
                    least.append(limit)

        for place in self.shares.values():
            bound(place, 0.0)
        for name, place in self.depth.items():
            bound(place, 0.0, float(self.models[name].depths[-1]))
        for name, place in self.widths.items():
            bound(place, *self._directions(name))
        for place in self.moves.values():
            bound(place, -LARGEST_OFFSET, LARGEST_OFFSET)
        for place in self.scales.values():
            bound(place, 1 - LARGEST_SCALE, 1 + LARGEST_SCALE)
        for place in (*self.strengths.values(), *self.constants.values()):
            bound(place, 0.0)
        for own, most in limits:
            row = np.zeros(size)
            for key, amount in own.items():
                if key in self.shares:
                    row[self.shares[key]] = -amount
            if row.any():
                above.append(row)
                least.append(-most)
        return Bounds(equal, np.array(above).reshape(-1, size), np.array(least))

    def start(self, fraction: float) -> np.ndarray:
        """Return a point within the bounds: shares alike, as far as sites hold them, at a part of the thickest."""
        x = np.zeros(len(self.names))
        for (element, _), place in self.shares.items():
            x[place] = 1 / len(self.candidates[element])
        for name, place in self.depth.items():
            deepest = float(self.models[name].depths[-1])
            x[place] = np.clip(self.prior.get(place, (deepest * fraction,))[0], 0.0, deepest)
        for name, place in self.widths.items():
            low, high = self._directions(name)
            x[place] = np.clip(self.prior.get(place, ((low + high) / 2,))[0], low, high)
        for place in self.scales.values():
            x[place] = 1.0
        x = self._within(x)
        for name, own in self.counts.items():
            plain = self._seen(x, name)
            total = own.values.reshape(own.sizes["line"], -1).sum(axis=1)
            known = self.models[name].background.sum(axis=1)
            for k, line in enumerate(own["line"].values):
                share = 0.8 if self.free else 1.0
                level = max(share * (total[k] - known[k]) / plain.per_strength[k].sum(), 1e-6)
                x[self.strengths[name, str(line)]] = level
                if self.free:
                    x[self.constants[name, str(line)]] = max(0.2 * total[k] / plain.per_background[k].sum(), 1e-6)
        return x

    def _directions(self, name: str) -> tuple[float, float]:
        directions = self.models[name].directions
        assert directions is not None
        return float(directions[0]), float(directions[-1])

    def _within(self, x: np.ndarray) -> np.ndarray:
        """Return the nearest point that the limits of the sites allow."""
        if (self.bounds.above @ x >= self.bounds.least - 1e-12).all():
            return x
        from scipy.optimize import linprog

        order = list(self.shares.values())
        rows = self.bounds.above[:, order]
        used = np.flatnonzero(rows.any(axis=1))
        # Farthest inside of all bounds.
        found = linprog(
            np.append(np.zeros(len(order)), -1.0),
            A_ub=np.column_stack([-rows[used], np.linalg.norm(rows[used], axis=1)]),
            b_ub=-self.bounds.least[used],
            A_eq=np.column_stack([self.bounds.equal[:, order], np.zeros(len(self.elements))]),
            b_eq=np.ones(len(self.elements)),
            bounds=[(None, None)] * len(order) + [(0, 1)],
            method="highs",
        )
        if found.status != 0:
            raise InvalidArgument(
                "composition: the candidate sites have not enough places for it; see places and composition"
            )
        result = x.copy()
        result[order] = found.x[:-1]
        return result

    def _seen(self, x: np.ndarray, name: str) -> Any:
        own, model = self.counts[name], self.models[name]
        lines = [str(line) for line in own["line"].values]
        shares = np.zeros((len(lines), len(self.sites)))
        for k, line in enumerate(lines):
            for site in self.candidates[element_of(line)]:
                shares[k, self.sites.index(site)] = x[self.shares[element_of(line), site]]
        offset = np.array([x[self.moves[name, dim]] if (name, dim) in self.moves else 0.0 for dim in model.tilts])
        scale = x[self.scales[name]] if name in self.scales else 1.0
        width = x[self.widths[name]] if name in self.widths else 0.0
        strength = np.array([x[self.strengths[name, line]] for line in lines])
        constant = np.array([x[self.constants[name, line]] if self.free else 0.0 for line in lines])
        return model.seen(shares, float(x[self.depth[name]]), offset, float(scale), float(width), strength, constant)

    def mean(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected counts of all data sets, one after the other, and their derivatives."""
        means, slopes = [], []
        for name, own in self.counts.items():
            seen, model = self._seen(x, name), self.models[name]
            slope = np.zeros((*seen.mean.shape, len(x)))
            for k, line in enumerate(map(str, own["line"].values)):
                for site in self.candidates[element_of(line)]:
                    slope[k, :, self.shares[element_of(line), site]] = seen.by_share[k, self.sites.index(site)]
                slope[k, :, self.strengths[name, line]] = seen.per_strength[k]
                if self.free:
                    slope[k, :, self.constants[name, line]] = seen.per_background[k]
            slope[..., self.depth[name]] = seen.by_thickness
            for axis, dim in enumerate(model.tilts):
                if (name, dim) in self.moves:
                    slope[..., self.moves[name, dim]] = seen.by_offset[axis]
            if name in self.widths:
                slope[..., self.widths[name]] = seen.by_convergence
            if name in self.scales:
                slope[..., self.scales[name]] = seen.by_scale
            means.append(seen.mean.ravel())
            slopes.append(slope.reshape(-1, len(x)))
        return np.concatenate(means), np.concatenate(slopes)

    def solve(self, start: np.ndarray, held: tuple[int, float] | None = None, most: int = 200) -> Scored:
        """Return the most likely point, on request with one share held at a value."""
        centre, spread = np.zeros(len(start)), np.full(len(start), np.inf)
        for own, known in self.prior.items():
            centre[own], spread[own] = known
        bounds = self.bounds
        if held is not None:
            place, value = held
            row = np.zeros((1, len(start)))
            row[0, place] = 1
            bounds = Bounds(np.concatenate([bounds.equal, row]), bounds.above, bounds.least)
            start = start.copy()
            element = next(key[0] for key, own in self.shares.items() if own == place)
            others = [own for key, own in self.shares.items() if key[0] == element and own != place]
            left = start[others].sum()
            start[others] = (start[others] / left if left > 0 else 1 / len(others)) * (1 - value)
            start[place] = value
        return maximise(self.values, self.mean, start, bounds, self.extra, (centre, spread), most)

    def misfit(self, x: np.ndarray) -> float:
        """Return minus the logarithm of the likelihood and the prior, up to a constant."""
        value = np.maximum(self.mean(x)[0], 1e-12)
        if self.extra.any():
            total = 0.5 * float((np.log(value + self.extra) + (self.values - value) ** 2 / (value + self.extra)).sum())
        else:
            positive = self.values > 0
            logs = np.where(positive, self.values * np.log(np.where(positive, self.values, 1) / value), 0.0)
            total = float((value - self.values + logs).sum())
        for place, (mean, deviation) in self.prior.items():
            total += 0.5 * ((x[place] - mean) / deviation) ** 2
        return total

    def place(self, element: str, site: str) -> int:
        """Return where a share is in the vector."""
        if (element, site) not in self.shares or len(self.candidates[element]) < 2:
            known = [key for key in self.shares if len(self.candidates[key[0]]) > 1]
            raise UnknownName(f"no share of {element!r} on {site!r} was fitted; there are {known}")
        return self.shares[element, site]

    def exchange_error(self, scored: Scored, element: str, first: str, second: str) -> float:
        """Return the standard error of what is moved from one site to another, the element's other shares held."""
        own = [self.shares[element, site] for site in self.candidates[element]]
        others = [place for place in range(len(self.names)) if place not in own]
        rows = self.bounds.equal[:, others]
        scale = np.sqrt(np.maximum(np.diag(scored.fisher)[others], 1e-300))
        free = null_space(rows / scale, len(others)) / scale[:, np.newaxis]
        direction = np.zeros(len(self.names))
        direction[self.shares[element, first]], direction[self.shares[element, second]] = 0.5, -0.5
        along = scored.fisher @ direction
        inner = free.T @ scored.fisher[np.ix_(others, others)] @ free + 1e-10 * np.eye(free.shape[1])
        beside = free.T @ along[others]
        information = float(direction @ along - beside @ np.linalg.solve(inner, beside))
        return 1 / np.sqrt(max(information, 1e-8))


def element_of(line: object) -> str:
    """Return the element of a line: what stands before its shell.

    Examples
    --------
    >>> element_of("Mn K"), element_of("Ni_L")
    ('Mn', 'Ni')
    """
    return str(line).replace("-", " ").replace("_", " ").split()[0]
