"""What `fit` was called with, once it has been checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensorspec.losses import AbstractLoss
from tensorspec.solvers.loop import Limits

__all__ = ["Call"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What `fit` was called with, checked.

    Attributes
    ----------
    losses
        Of each tensor.
    mask, modes, weights, solver, start, progress, checkpoint, rescale
        As the user gave them.
    restarts
        Number of starts.
    limits
        When a fit ends.
    seed
        What random starts are drawn from.
    recipe
        The settings of the call as JSON.
    began
        When it was called, on the monotonic clock.
    """

    losses: dict[str, AbstractLoss]
    mask: Any
    modes: Any
    weights: Any
    solver: Any
    start: Any
    restarts: int
    limits: Limits
    seed: int
    progress: bool | str
    checkpoint: Any
    rescale: bool
    recipe: dict[str, Any]
    began: float
