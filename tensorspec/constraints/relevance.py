"""Automatic relevance determination: components that the data do not need die."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tensorspec.constraints.base import (
    AbstractConstraint,
    AbstractPenalty,
    ChecksPartners,
    Context,
    Majorised,
    Resolvable,
    Separability,
    component_field,
    strength_field,
)
from tensorspec.constraints.nonnegative import NonNegative
from tensorspec.errors import ConstraintConflict, InvalidArgument

__all__ = ["ARD"]

# Shape of the inverse gamma prior of a relevance; 1 is the limit in which its mean is left open.
_SHAPE = 1.0
# Where the logarithm is cut off: a column whose mean entry is this share of the noise is as good as dead.
_CUT_OFF = 0.01


def _as_threshold(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= 1:
        raise InvalidArgument(f"merge={value!r}: expected a cosine above 0 and up to 1, for example 0.99, or None")
    return float(value)


class ARD(AbstractPenalty, Majorised, Resolvable, ChecksPartners):
    r"""Automatic relevance determination: components that the data do not need become exactly zero.

    Every column has an exponential prior whose mean, its relevance :math:`L_r`, is learnt from the column itself, so
    that strong components are hardly shrunk and weak ones vanish.  Give the model more components than you expect, and
    several restarts; the dead ones come back with zero weight (`tensorspec.Fit.alive` lists the others).  It acts on
    the mode that carries the amplitudes and needs `NonNegative` there.

    Parameters
    ----------
    strength
        Variance of the noise :math:`\sigma^2` in the problem as solved, that is over the mean square of the data;
        ``"auto"`` estimates it, along the mean spectrum: noise of counts is largest where the signal is.  Beside a
        likelihood, whose units are those of a logarithm of probability, it is one.
    merge
        Cosine above which components count as one: when a fit has converged, those whose profiles on the other modes
        are that close are added up, and the fit goes on.  None merges nothing.
    components
        Components it acts on, counted from 1; all of them by default.
    relevance
        What is learnt while the fit runs; leave it out.
    noise
        Standard deviation of an amplitude, which `fit` settles beside a likelihood; leave it out.

    Raises
    ------
    InvalidArgument
        When `merge` is no cosine above zero.

    Notes
    -----
    With :math:`n` rows the objective is

    .. math:: \text{misfit} + \sigma^2 (n + \alpha + 1) \sum_r \log(1 + |a_r|_1 / \beta),

    the negative logarithm of the posterior in which each :math:`L_r` takes its best value
    :math:`(|a_r|_1 + \beta) / (n + \alpha + 1)`, up to a constant.  A sweep minimises the tangent of the logarithm, a
    weighted sum of absolute values with weights :math:`\sigma^2 / L_r`, so the objective falls at every sweep.  Here
    :math:`\alpha = 1` and :math:`\beta = 0.01 \sigma n`: in proportion to the data, so that their unit does not matter.
    A column that has become zero stays zero.  With several restarts the lowest objective decides which die.

    References
    ----------
    Tan and Fevotte, IEEE Transactions on Pattern Analysis and Machine Intelligence 35 (2013) 1592,
    doi:10.1109/TPAMI.2012.240; for spectrum images Shiga et al., Ultramicroscopy 170 (2016) 43,
    doi:10.1016/j.ultramic.2016.08.006.

    Examples
    --------
    >>> import numpy as np
    >>> learnt = ARD(0.01).init_state(size=2, columns=2).update_state(np.array([[1.0, 0.0], [1.0, 0.0]]))
    >>> np.asarray(learnt.prox(np.ones((2, 2)), step=1.0), float).round(3).tolist()
    [[0.98, 0.0], [0.98, 0.0]]
    """

    strength: Any = strength_field(default="auto")
    merge: float | None = eqx.field(default=None, converter=_as_threshold, static=True)
    components: tuple[int, ...] | None = component_field()
    relevance: Any = eqx.field(default=None, kw_only=True)
    noise: Any = eqx.field(default=None, kw_only=True)
    separability: ClassVar[Separability] = Separability.ENTRY
    convex: ClassVar[bool] = False
    degree: ClassVar[int | None] = 1

    def resolve(self, context: Context) -> ARD:
        """Return the constraint with its automatic strength settled; refuse a mode that carries no amplitudes."""
        if not context.carries:
            raise ConstraintConflict(
                f"constraints of mode {context.mode!r}: ARD() acts on amplitudes, and here another mode carries them; "
                f"give it to that mode, or let this one carry them: scale={context.mode!r} in the model"
            )
        if not isinstance(self.strength, str):
            return self
        noise = context.noise_deviation
        if context.curvature == 1:
            return dataclasses.replace(self, strength=noise**2)
        return dataclasses.replace(self, strength=context.curvature * noise**2, noise=noise)

    def complaint(self, others: Sequence[AbstractConstraint]) -> str | None:
        """Refuse to stand without non-negativity, or where a constraint fixes the scale of a column."""
        if any(other.degree is None for other in others):
            return "ARD() cannot let a component vanish whose scale another constraint fixes; drop one of them"
        for other in others:
            if isinstance(other, NonNegative) and (
                other.components is None or (self.components and set(self.components) <= set(other.components))
            ):
                return None
        return "ARD() needs NonNegative() on the same mode (and components); add it to the list"

    def prox(self, values: Float[Array, "..."], step: Any, column: Any = None) -> Float[Array, "..."]:
        """Return the soft threshold at strength over relevance, times step; dead columns stay zero."""
        values = jnp.asarray(values)
        relevance = self._learnt if column is None else self._learnt[column]
        weight = self._number / jnp.where(relevance > 0, relevance, 1)
        threshold = jnp.asarray(weight * step, values.dtype)
        shrunk = jnp.sign(values) * jnp.maximum(jnp.abs(values) - threshold, 0)
        return jnp.where(relevance > 0, shrunk, 0)

    def value(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the sum of the logarithms, times strength and number of rows."""
        cut, rows = self._scales(factor.shape[0])
        return self._number * rows * jnp.sum(jnp.log1p(jnp.sum(jnp.abs(factor), axis=0) / cut))

    def bound(self, factor: Float[Array, "size columns"]) -> Float[Array, ""]:
        """Return the tangents of the logarithms where the state was learnt; without bound for dead columns."""
        cut, rows = self._scales(factor.shape[0])
        sums, alive = jnp.sum(jnp.abs(factor), axis=0), self._learnt > 0
        relevance = jnp.where(alive, self._learnt, 1)
        tangent = self._number * (rows * jnp.log(relevance * rows / cut) + (sums + cut) / relevance - rows)
        return jnp.sum(jnp.where(alive, tangent, jnp.where(sums > 0, jnp.inf, 0.0)))

    def init_state(self, size: int, columns: int) -> ARD:
        """Return the constraint before anything is learnt: it shrinks nothing yet."""
        del size
        return dataclasses.replace(self, relevance=jnp.full(columns, jnp.inf))

    def update_state(self, factor: Float[Array, "size columns"]) -> ARD:
        """Return the constraint with the relevances of the factor learnt, zero for dead columns."""
        cut, rows = self._scales(factor.shape[0])
        sums = jnp.sum(jnp.abs(factor), axis=0, dtype=self._learnt.dtype)
        return dataclasses.replace(self, relevance=jnp.where(sums > 0, (sums + cut) / rows, 0))

    @property
    def _learnt(self) -> Array:
        if self.relevance is None:
            raise InvalidArgument("ARD() has learnt nothing yet; init_state comes first, fit does that")
        return self.relevance

    @property
    def _number(self) -> Any:
        if isinstance(self.strength, str):
            raise InvalidArgument("ARD(strength='auto') has to be resolved first; fit does that")
        return self.strength

    def _scales(self, size: int) -> tuple[Any, float]:
        """Return the sum of a column at which the logarithm is cut off, and what multiplies the logarithm."""
        noise = jnp.sqrt(jnp.asarray(self._number, float)) if self.noise is None else self.noise
        cut = _CUT_OFF * size * noise
        return jnp.maximum(cut, np.finfo(float).tiny), size + _SHAPE + 1
