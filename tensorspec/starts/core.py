"""The core that a start is given: the least-squares one for its factors."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from tensorspec.constraints.compose import ModeConstraints
from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Tensor

__all__ = ["core_for"]

# Share of the mean entry below which no entry of a non-negative core starts.
_FLOOR = 0.01


def core_for(
    model: AbstractModel, tensor: Tensor, factors: Factors, shape: tuple[int, int], rules: ModeConstraints
) -> Float[Array, "rows columns"]:
    """Return the core with which given factors come closest to a tensor.

    Parameters
    ----------
    model, tensor, factors
        The factors of all modes that are not left whole.
    shape
        Of the factor that holds the core.
    rules
        Its constraints; where it is non-negative, entries below a small share of the mean are lifted.
    """
    assert tensor.core is not None
    dtype = next(iter(factors.values())).dtype
    equations = model.normal_equations(tensor, {**factors, tensor.core: jnp.zeros(shape, dtype)}, tensor.core)
    right = equations.right.astype(jnp.float64)
    inverse = jnp.linalg.pinv(equations.gram.astype(jnp.float64), rtol=1e-10, hermitian=True)
    found = jnp.einsum("nr,nrs->ns", right, inverse) if equations.per_row else right @ inverse
    if rules.nonnegative:
        found = jnp.maximum(found, _FLOOR * jnp.mean(jnp.abs(found)))
    return found.astype(dtype)
