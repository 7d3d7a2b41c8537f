"""How a fit ended, as an enumeration whose text is advice."""

from __future__ import annotations

import enum

__all__ = ["Status"]


class Status(enum.Enum):
    """How a fit ended; the value is what to do about it.

    Examples
    --------
    >>> Status.CONVERGED.converged
    True
    >>> print(Status.TIME_LIMIT)
    time limit reached: the best so far is returned. Give a longer time_limit, or go on with start=From(fit).
    """

    CONVERGED = "converged: the objective decreased by less than tol, relative, in three consecutive sweeps."
    EXACT = (
        "converged, exact: the model reproduces the data to rounding (objective below 1e-14 of the data's). "
        "With measured data this means more components than the data can determine: lower the rank."
    )
    MAX_SWEEPS = (
        "not converged: max_sweeps was reached while the objective still decreased. "
        "Raise max_sweeps, or raise tol if the remaining decrease does not matter, or go on with start=From(fit)."
    )
    INTERRUPTED = "interrupted: the best so far is returned. Go on with start=From(fit)."
    TIME_LIMIT = (
        "time limit reached: the best so far is returned. Give a longer time_limit, or go on with start=From(fit)."
    )

    @property
    def converged(self) -> bool:
        """Whether the fit ended because there was nothing left to gain."""
        return self in (Status.CONVERGED, Status.EXACT)

    @property
    def short(self) -> str:
        """The words before the first colon, for tables and titles."""
        return self.value.partition(":")[0]

    def __str__(self) -> str:
        return self.value
