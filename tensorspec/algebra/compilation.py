"""Programs that are compiled once for a shape and soon run: what the compiler is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

__all__ = ["compiled"]

# Compiling takes half the time without these, and products with the data, which are what a sweep waits for, take the
# same time (measured on processors).
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


def compiled(
    static: tuple[str, ...] | None = None, thorough: Callable[[tuple[Any, ...]], bool] = lambda arguments: False
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that compiles a function when it is first called, never within another compiled one.

    Parameters
    ----------
    static
        Names of arguments that are no arrays; where it is not given, whatever is no array is static.
    thorough
        Says of the arguments whether running will take so much more than compiling that the compiler had better use
        all its means.

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
        def program(wholly: bool) -> Callable[Arguments, Result]:
            told: dict[str, Any] = {} if wholly or _options() is None else {"compiler_options": _options()}
            if static is None:
                return eqx.filter_jit(function, **told)
            return jax.jit(function, static_argnames=static, **told)

        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return program(thorough(args))(*args, **kwargs)

        return call

    return decorate
