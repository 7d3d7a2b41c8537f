"""What a fit remembers of one tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["TensorRecord"]


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """What a fit remembers of one tensor.

    Attributes
    ----------
    dims : tuple of str
        Dimensions in the order in which the data had them.
    modes : tuple of str
        The modes that they make, in order.
    shape : tuple of int
        Sizes of `dims`.
    attrs : dict
        Attributes of the data: title, units, signal type, beam energy, history of preparation.
    unit : str
        Unit of the values, for instance ``"counts"``; empty where it is not known.
    explained : float
        Share of the data that the model explains, in the metric of the loss; NaN where it is not known.
    noise_variance : float or None
        Mean variance of the noise of one entry, in `unit` squared.
    data_weight : float
        Weight of this tensor among the others.
    rms : float
        Root mean square of the valid entries, in `unit`.
    loss : str
        The loss, as the call that makes it.
    explained_as : str
        What `explained` is a share of, as a method with a name of its own for it calls it: ``"explained variance"``.
    """

    dims: tuple[str, ...]
    modes: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    unit: str = ""
    explained: float = float("nan")
    noise_variance: float | None = None
    data_weight: float = 1.0
    rms: float = 1.0
    loss: str = "LeastSquares()"
    explained_as: str = "explained"
