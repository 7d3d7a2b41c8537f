"""Figures of a fit: components, residual, history.  They are returned, never shown; colours are colour-blind safe."""

from tensorspec.plot.canvas import COLOURS
from tensorspec.plot.components import plot_components
from tensorspec.plot.history import plot_history
from tensorspec.plot.residual import plot_residual
from tensorspec.plot.scree import plot_scree

__all__ = ["COLOURS", "plot_components", "plot_history", "plot_residual", "plot_scree"]
