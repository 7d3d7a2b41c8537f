"""What a misfit costs: one loss a file."""

from tensorspec.losses.base import AbstractDivergence, AbstractLoss, AbstractRobustLoss, EntryWeights
from tensorspec.losses.huber import Huber
from tensorspec.losses.least_squares import LeastSquares
from tensorspec.losses.likelihood import Beta, Poisson

__all__ = [
    "AbstractDivergence",
    "AbstractLoss",
    "AbstractRobustLoss",
    "Beta",
    "EntryWeights",
    "Huber",
    "LeastSquares",
    "Poisson",
]
