"""A bar where somebody watches."""

from __future__ import annotations

import sys
from typing import Any

from tensorspec.solvers.loop import Limits, Run

__all__ = ["Progress"]


class Progress:
    """A bar where somebody watches, nothing else where not."""

    def __init__(self, wanted: bool | str, restarts: int, limits: Limits) -> None:
        self._show = _somebody_watches() if wanted == "auto" else bool(wanted)
        self._restarts, self._limits = restarts, limits
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._limits.max_sweeps, unit="sweep", leave=False)
        return self

    def __exit__(self, *details: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def restart(self, index: int, best: Run | None) -> None:
        """Begin the bar of a restart."""
        if self._bar is not None:
            self._bar.reset(total=self._limits.max_sweeps)
            text = f"start {index + 1} of {self._restarts}"
            self._bar.set_description(text if best is None else f"{text}, best {best.history[-1]:.6g}")

    def passed(self, share: float, number: int) -> None:
        """Show how far a pass over data in blocks has come."""
        if self._bar is not None:
            self._bar.set_description(f"pass {number}, {share:.0%}")

    def report(self, value: float, sweeps: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.n = sweeps
            self._bar.set_postfix_str(f"objective {value:.6g}")


def _somebody_watches() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() or "ipykernel" in sys.modules
