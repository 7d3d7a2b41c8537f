"""How programs are compiled: those of dense least squares in six tenths of the time.

XLA has two ways to make loops out of fused operations.  The newer one vectorises logarithms and gathers, which
likelihoods and sparse tensors live on, and takes twice as long to compile.  Dense least squares are products and short
loops beside them, as fast either way: measured on the first fit of a process, 1.4 s of compiling became 0.8 s, and the
fits themselves took the same time (16384 x 1024, 4096 x 512 x 40), where a Poisson fit of sparse counts took 1.6 times
as long, and one with `Unimodal` spectra 1.17 times: constraints with loops of their own are compiled as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
from jax.core import Tracer

from tensorspec.algebra.sparse import is_sparse
from tensorspec.constraints.base import Separability
from tensorspec.problem import Problem

__all__ = ["by_problem", "sooner"]

_SOONER = {"xla_cpu_use_fusion_emitters": False}


@cache
def sooner() -> dict[str, bool] | None:
    """Return the options under which dense least squares are ready sooner; None where this XLA does not know them."""
    try:
        jax.jit(lambda: 0, compiler_options=_SOONER).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return dict(_SOONER)


def by_problem(jit: Callable[..., Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function of one `Problem` among others as suits that problem.

    Parameters
    ----------
    jit
        `jax.jit` or the like, which takes `compiler_options`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        usual = jit(function)

        @cache
        def ready_sooner() -> Callable[..., Any]:
            options = sooner()
            return usual if options is None else jit(function, compiler_options=options)

        @wraps(function)
        def chosen(*arguments: Any, **named: Any) -> Any:
            (problem,) = (item for item in arguments if isinstance(item, Problem))
            # Part of a larger program, it is compiled as that is.
            inside = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(problem))
            return (ready_sooner() if _dense_squares(problem) and not inside else usual)(*arguments, **named)

        return chosen

    return decorate


def _dense_squares(problem: Problem) -> bool:
    """Return whether data are dense, losses squares, and constraints no more than a map of each entry."""
    dense = all(tensor.loss is None and not is_sparse(tensor.blocks) for tensor in problem.tensors)
    rules = problem.constraints.values()
    return dense and all(rule.separability == Separability.ENTRY and rule.splits <= 1 for rule in rules)
