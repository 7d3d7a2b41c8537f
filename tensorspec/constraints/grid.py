"""The grid that a mode lives on: the steps between neighbours, in the units of the coordinates."""

from __future__ import annotations

import numpy as np

from tensorspec.constraints.base import Context
from tensorspec.errors import InvalidData

__all__ = ["grid_steps", "mean_step", "plain_grid"]


def plain_grid(size: int) -> Context:
    """Return the context of a mode with one axis of step one, for a constraint that nobody resolved."""
    return Context("mode", (size,), (None,), (None,), 1, float("nan"), 1.0)


def grid_steps(context: Context, who: str) -> tuple[np.ndarray, ...]:
    """Return for each axis of a mode the distances between neighbours.

    Parameters
    ----------
    context
        What is known of the mode; an axis without coordinates has steps of one.
    who
        Name of the constraint, for the message.

    Returns
    -------
    steps : tuple of (size - 1,) ndarray
        All above zero, in the units of each coordinate.

    Raises
    ------
    InvalidData
        When a coordinate neither rises nor falls from point to point.

    Examples
    --------
    >>> context = plain_grid(3)._replace(coordinates=(np.array([400.0, 400.5, 401.5]),))
    >>> grid_steps(context, "Smooth")
    (array([0.5, 1. ]),)
    """
    found = []
    for axis, (size, coordinate) in enumerate(zip(context.shape, context.coordinates, strict=True)):
        steps = np.ones(size - 1) if coordinate is None else np.diff(np.asarray(coordinate, dtype=float))
        if not (np.all(steps > 0) or np.all(steps < 0)):
            where = f", axis {axis + 1} of {len(context.shape)}" if len(context.shape) > 1 else ""
            raise InvalidData(
                f"{who} on mode {context.mode!r}{where}: its coordinate has to rise or fall from each point to the "
                "next; sort the data (data.sortby(...)), drop points that come twice, or drop the coordinate "
                "(data.drop_vars(...)) for steps of one"
            )
        found.append(np.abs(steps))
    return tuple(found)


def mean_step(steps: np.ndarray) -> float:
    """Return the mean distance between neighbours; one for a single point."""
    return float(steps.mean()) if len(steps) else 1.0
