"""Columns made of given ones: a dictionary of shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractHardConstraint,
    ChecksPartners,
    Combinable,
    Context,
    Positive,
    Resolvable,
    Separability,
    atoms_field,
    component_field,
)
from tensorspec.constraints.known import Fixed
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import InvalidArgument

__all__ = ["Span"]

# Gradients below this share of the column's norm are rounding.
_ROUNDING = 1e-13
# Directions of the dictionary below this share of its largest singular value count as dependent.
_DEPENDENT = 1e-13


class Span(AbstractHardConstraint, Resolvable, ChecksPartners, Combinable, Positive):
    """Columns that are combinations of the dictionary's columns (atoms), by default with coefficients of zero or more.

    For example a background made of powers of the energy, or a spectrum made of calculated X-ray lines.  With
    ``components=[3]`` it holds for that component alone, and the others stay as free as they were.

    Parameters
    ----------
    dictionary
        A DataArray with the mode's own dimensions and one of atoms, which `fit` aligns by coordinates, or a plain array
        of shape ``(size, atoms)``.  The scale of an atom does not matter, only its shape.
    nonnegative
        Whether the coefficients are zero or more (a cone); False allows both signs (a subspace).
    components
        Components it acts on, counted from 1; all of them by default.

    Raises
    ------
    InvalidArgument
        By `fit`, when the dictionary does not have the size of the mode, or holds NaN, infinities or an atom of zeros.
    ModeMismatch
        By `fit`, when the coordinates of the dictionary miss points of the data.
    ConstraintConflict
        When `Fixed` or another `Span` acts on the same component.

    Notes
    -----
    The projection is exact: non-negative least squares by the active-set method of Lawson and Hanson on a QR
    decomposition of the dictionary with atoms of unit norm, in double precision; normal equations are never formed, so
    nearly dependent atoms such as neighbouring powers of the energy do no harm.

    References
    ----------
    Lawson and Hanson, Solving Least Squares Problems, SIAM 1995, doi:10.1137/1.9781611971217, chapter 23.

    Examples
    --------
    >>> import numpy as np
    >>> dictionary = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> Span(dictionary).project(np.array([1.0, 3.0, -1.0])).round(6).tolist()
    [2.0, 2.0, 0.0]
    >>> Span(dictionary, nonnegative=False).coefficients(np.array([1.0, 3.0, -1.0])).round(6).tolist()
    [2.0, -0.5]
    """

    dictionary: Any = atoms_field()
    nonnegative: bool = eqx.field(default=True, static=True)
    components: tuple[int, ...] | None = component_field()
    settled: Any = eqx.field(default=None, repr=False, kw_only=True)
    separability: ClassVar[Separability] = Separability.COLUMN
    convex: ClassVar[bool] = True
    degree: ClassVar[int | None] = 0

    def resolve(self, context: Context) -> Span:
        """Return the constraint with its dictionary decomposed."""
        atoms = _plain(self.dictionary)
        if len(atoms) != context.size:
            raise InvalidArgument(
                f"Span on mode {context.mode!r}: the dictionary has {len(atoms)} points a column, the mode "
                f"{context.size}; a DataArray with coordinates is aligned for you"
            )
        return dataclasses.replace(self, dictionary=atoms, settled=_decompose(atoms))

    @property
    def positive(self) -> bool:
        """Whether dictionary and coefficients are of zero or more."""
        if self.settled is not None:
            return self.nonnegative and self.settled.positive
        return self.nonnegative and bool(np.all(_plain(self.dictionary) >= 0))

    def project(self, values: Float[Array, "..."], column: Any = None) -> Float[Array, "..."]:
        """Return the nearest combination of the atoms."""
        del column
        values = jnp.asarray(values)
        own = self._settled()
        wide = values.reshape(values.shape[0], -1).astype(jnp.result_type(float))
        if self.nonnegative:
            nearest = jnp.asarray(own.atoms, wide.dtype) @ self._solve(wide)
        else:
            space = jnp.asarray(own.space, wide.dtype)
            nearest = space @ (space.T @ wide)
        return nearest.reshape(values.shape).astype(values.dtype)

    def violation(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the largest difference of an entry from the nearest combination."""
        return jnp.max(jnp.abs(factor - self.project(factor)))

    def coefficients(self, factor: Any) -> Any:
        """Return how much of each atom a column holds: the dictionary times this is the nearest point to it.

        Parameters
        ----------
        factor
            A column ``(size,)``, or several ``(size, columns)``; with a labelled dictionary a DataArray with the mode's
            own dimensions, such as ``fit.factors["energy_loss"].sel(component=1)``.

        Returns
        -------
        coefficients : (atoms,) or (atoms, columns) ndarray, or DataArray
            Labelled by the dictionary's atoms, and by what else the factor has, where both are labelled.

        Raises
        ------
        InvalidArgument
            When dictionary and column do not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> Span(np.array([[1.0, 0.0], [1.0, 2.0]])).coefficients(np.array([3.0, 5.0])).round(6).tolist()
        [3.0, 1.0]
        """
        if not (hasattr(factor, "dims") and hasattr(self.dictionary, "dims")):
            atoms, values = _plain(self.dictionary), np.asarray(factor, dtype=float)
            return self._combine(atoms, values)
        shared = [dim for dim in self.dictionary.dims if dim in factor.dims]
        others = [dim for dim in factor.dims if dim not in shared]
        atom = [dim for dim in self.dictionary.dims if dim not in shared]
        if not shared or len(atom) > 1:
            raise InvalidArgument(
                f"coefficients of a factor with dimensions {tuple(factor.dims)}: the dictionary has "
                f"{tuple(self.dictionary.dims)}; expected those of the mode and one of atoms"
            )
        near = {dim: factor[dim] for dim in shared if dim in factor.coords and dim in self.dictionary.coords}
        dictionary = self.dictionary.sel(near, method="nearest") if near else self.dictionary
        atoms = dictionary.transpose(*shared, *atom)
        values = factor.transpose(*shared, *others)
        flat = np.asarray(atoms.values, float).reshape(-1, atoms.sizes[atom[0]] if atom else 1)
        found = self._combine(flat, np.asarray(values.values, float).reshape(len(flat), -1))
        first = {dim: 0 for dim in shared}
        like = dictionary.isel(first, drop=True).astype(float) * 0 + factor.isel(first, drop=True).astype(float) * 0
        shape = [like.sizes[dim] for dim in (*atom, *others)]
        return like.transpose(*atom, *others).copy(data=found.reshape(shape))

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse known values and other dictionaries on the same components."""
        for other in others:
            if not isinstance(other, (Fixed, Span)) or not _meet(self.components, other.components):
                continue
            which = "" if self.components is None else f" of component {', '.join(map(str, self.components))}"
            if isinstance(other, Fixed):
                return (
                    f"Fixed gives entries{which} that Span can reach by chance only; keep one of them, or use "
                    "Near(values, strength) in place of Fixed"
                )
            return (
                f"two Span constraints act on the same columns{which}, which would have to be combinations of both "
                "dictionaries; put all atoms into one dictionary, or name different components"
            )
        return None

    def combine(self, other: AbstractConstraint) -> AbstractConstraint | None:
        """Return this constraint itself where it implies the other one, non-negativity."""
        implied = isinstance(other, NonNegative) and other.components in (None, self.components)
        return self if implied and self.positive else None

    def _settled(self) -> _Dictionary:
        return _decompose(_plain(self.dictionary)) if self.settled is None else self.settled

    def _solve(self, values: Float[Array, "size columns"]) -> Float[Array, "atoms columns"]:
        """Return the coefficients of the atoms at unit norm."""
        own = self._settled()
        target = jnp.asarray(own.basis, values.dtype).T @ values
        triangle = jnp.asarray(own.triangle, values.dtype)
        if not self.nonnegative:
            return jnp.asarray(own.inverse, values.dtype) @ target
        return jax.vmap(lambda column: _nonnegative_least_squares(triangle, column), in_axes=1, out_axes=1)(target)

    def _combine(self, atoms: np.ndarray, values: np.ndarray) -> np.ndarray:
        if values.ndim not in (1, 2) or len(values) != len(atoms):
            raise InvalidArgument(
                f"coefficients of an array of shape {values.shape}: the dictionary has {len(atoms)} points; expected "
                "(size,) or (size, columns)"
            )
        with jax.enable_x64(True):
            own = dataclasses.replace(self, dictionary=atoms, settled=_decompose(atoms))
            found = np.asarray(own._solve(jnp.asarray(values.reshape(len(values), -1), jnp.float64)))
        return (found / np.linalg.norm(atoms, axis=0)[:, None]).reshape(-1, *values.shape[1:])


class _Dictionary(eqx.Module):
    """Atoms at unit norm, their QR decomposition, its inverse, and an orthonormal basis of what they span."""

    atoms: Any
    basis: Any
    triangle: Any
    inverse: Any
    space: Any
    positive: bool = eqx.field(static=True)


def _plain(dictionary: Any) -> np.ndarray:
    atoms = np.asarray(dictionary, dtype=float)
    if atoms.ndim != 2:
        raise InvalidArgument(f"Span: the dictionary has shape {atoms.shape}; expected (size, atoms)")
    if not np.isfinite(atoms).all():
        raise InvalidArgument("Span: the dictionary holds NaN or infinite values; it needs a value at every point")
    if (atoms == 0).all(axis=0).any():
        empty = [int(k) + 1 for k in np.flatnonzero((atoms == 0).all(axis=0))]
        raise InvalidArgument(f"Span: atom {empty} of the dictionary is zero everywhere (counted from 1); drop it")
    return atoms


def _decompose(atoms: np.ndarray) -> _Dictionary:
    largest = np.abs(atoms).max(axis=0)
    unit = atoms / largest
    unit = unit / np.linalg.norm(unit, axis=0)
    basis, triangle = np.linalg.qr(unit)
    left, singular, _ = np.linalg.svd(triangle, full_matrices=False)
    space = basis @ left[:, singular > _DEPENDENT * singular[0]]
    inverse = np.linalg.pinv(triangle, rcond=_DEPENDENT)
    return _Dictionary(unit, basis, triangle, inverse, space, bool(np.all(atoms >= 0)))


def _meet(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> bool:
    return first is None or second is None or bool(set(first) & set(second))


def _nonnegative_least_squares(matrix: Float[Array, "rows atoms"], target: Float[Array, " rows"]) -> Array:
    """Return the minimiser of ``|matrix x - target|`` over x of zero or more, exactly (Lawson and Hanson).

    One least-squares solution a round, over the atoms in use.  Where it is allowed it is taken, and the atom along
    which the misfit falls fastest comes in; else the way towards it ends where the first atom reaches zero and leaves.
    """
    atoms = matrix.shape[1]
    tolerance = _ROUNDING * jnp.linalg.norm(target)

    def solve(used: Bool[Array, " atoms"]) -> Array:
        # Rows of the unit matrix keep the other atoms at zero, and the system of full rank.
        system = jnp.concatenate([jnp.where(used, matrix, 0), jnp.diag((~used).astype(matrix.dtype))])
        basis, triangle = jnp.linalg.qr(system)
        right = basis[: matrix.shape[0]].T @ target
        return jnp.where(used, jax.scipy.linalg.solve_triangular(triangle, right), 0)

    def going(state: tuple[Array, ...]) -> Array:
        return ~state[4] & (state[5] < 10 * atoms + 30)

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        found, used, barred, newest, _, count = state
        goal = solve(used)
        bad = used & ~(goal > 0)
        # An atom that would leave at once came in by rounding; it is barred until something else has moved.
        useless = bad & (jnp.arange(atoms) == newest)
        accepted = ~jnp.any(bad)

        slope = matrix.T @ (target - matrix @ goal)
        barred = jnp.where(accepted & (newest >= 0), False, barred)
        slope = jnp.where(used | barred, -jnp.inf, slope)
        best = jnp.argmax(slope)
        done = accepted & ~(slope[best] > tolerance)

        ratio = jnp.where(bad, found / jnp.where(bad, found - goal, 1), jnp.inf)
        pace = jnp.min(ratio)
        partway = jnp.where(bad & (ratio <= pace), 0, found + jnp.where(accepted, 0, pace) * (goal - found))
        leaving = bad & (ratio <= pace)

        next_found = jnp.where(accepted, goal, jnp.where(jnp.any(useless), found, partway))
        coming = (jnp.arange(atoms) == best) & ~done
        next_used = jnp.where(accepted, used | coming, used & ~jnp.where(jnp.any(useless), useless, leaving))
        next_barred = jnp.where(accepted, barred, jnp.where(jnp.any(useless), barred | useless, False))
        next_newest = jnp.where(accepted & ~done, best, -1)
        return next_found, next_used, next_barred, next_newest, done, count + 1

    nothing = jnp.zeros(atoms, bool)
    start = (jnp.zeros(atoms, matrix.dtype), nothing, nothing, jnp.asarray(-1), jnp.asarray(False), jnp.asarray(0))
    return jax.lax.while_loop(going, body, start)[0]
