"""Programs that are compiled once for a shape and soon run: what the compiler is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

from tensorspec.algebra.sparse import SparseTensor

__all__ = ["compiled"]

# Compiling takes half the time without these, and products with the data, which are what a sweep waits for, take the
# same time (measured on processors).  Not so where data go by their counts: sweeps of a likelihood over them take three
# to four times as long without these.
_WITHOUT = {"xla_cpu_use_fusion_emitters": False}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _options() -> dict[str, Any] | None:
    """Return what this version of the compiler can be told; the names of its options belong to a version."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=_WITHOUT)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return _WITHOUT


def _any_sparse(arguments: Any) -> bool:
    """Return whether a tensor among the arguments is taken by its counts."""
    leaves = jax.tree.leaves(arguments, is_leaf=lambda item: isinstance(item, SparseTensor))
    return any(isinstance(leaf, SparseTensor) for leaf in leaves)


def compiled(
    static: tuple[str, ...] | None = None,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that compiles a function when it is first called, never within another compiled one.

    Parameters
    ----------
    static
        Names of arguments that are no arrays; where it is not given, whatever is no array is static.

    Examples
    --------
    >>> @compiled()
    ... def double(values):
    ...     return 2 * values
    >>> float(double(3.0))
    6.0
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @lru_cache(maxsize=2)
        def program(by_counts: bool) -> Callable[Arguments, Result]:
            told: dict[str, Any] = {} if by_counts or _options() is None else {"compiler_options": _options()}
            if static is None:
                return eqx.filter_jit(function, **told)
            return jax.jit(function, static_argnames=static, **told)

        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return program(_any_sparse(args))(*args, **kwargs)

        return call

    return decorate
