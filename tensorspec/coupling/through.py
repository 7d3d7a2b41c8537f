"""Tensors of a problem that see a factor through an operator: equations, values and fitted parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from tensorspec.algebra.normal_equations import NormalEquations
from tensorspec.coupling.operators import Parametric, pull_back, refine
from tensorspec.problem import Problem, Tensor

__all__ = ["inside", "outside", "parameters_found", "refined", "with_operators"]


def with_operators(problem: Problem, operators: tuple[Any, ...]) -> Problem:
    """Return the problem with other operators, one tuple a tensor: those whose parameters have been fitted."""
    tensors = [
        tensor if own is None else dataclasses.replace(tensor, operators=own)
        for tensor, own in zip(problem.tensors, operators, strict=True)
    ]
    return Problem(tuple(tensors), problem.constraints, problem.links)


def parameters_found(names: Sequence[str], problem: Problem) -> dict[str, dict[str, dict[str, float]]]:
    """Return the fitted parameters of operators by tensor and mode, in the units of the coordinates."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, tensor in zip(names, problem.tensors, strict=True):
        for mode in tensor.modes:
            operator = tensor.operator(mode)
            values = operator.found() if isinstance(operator, Parametric) else {}
            if values:
                found.setdefault(name, {})[mode] = values
    return found


def inside(tensor: Tensor, mode: str, part: NormalEquations, factor: Float[Array, "size rank"]) -> NormalEquations:
    """Return the equations of a factor from those of what the tensor sees of it."""
    operator = tensor.operator(mode)
    return part if operator is None else pull_back(operator, part, factor)


def outside(tensor: Tensor, mode: str, factor: Float[Array, "size rank"]) -> Float[Array, "seen rank"]:
    """Return what the tensor sees of a factor."""
    operator = tensor.operator(mode)
    return factor if operator is None else operator.apply(factor)


def refined(tensor: Tensor, mode: str, part: NormalEquations, factor: Float[Array, "size rank"]) -> Tensor:
    """Return the tensor with the fitted parameters of one operator nearer to their best."""
    operator = tensor.operator(mode)
    if operator is None or tensor.operators is None:
        return tensor
    axis = tensor.modes.index(mode)
    own = [*tensor.operators[:axis], refine(operator, part, factor), *tensor.operators[axis + 1 :]]
    return dataclasses.replace(tensor, operators=tuple(own))
