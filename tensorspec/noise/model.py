"""The noise of a measured value, in three numbers that an instrument has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from tensorspec.errors import InvalidArgument

__all__ = ["NoiseModel"]

COUNTS_GAIN = (0.8, 1.25)
COUNTS_READ_VARIANCE = 0.1
COUNTS_CORRELATION = 0.05


@dataclasses.dataclass(frozen=True)
class NoiseModel:
    """Noise of a value with mean ``m``: its variance is ``gain * m + read_variance``.

    Parameters
    ----------
    gain : float
        Data units per detected electron or photon; 1 for counts.
    read_variance : float
        Variance of the read-out, which does not depend on the signal, in data units squared.
    channel_correlation : float, optional
        Correlation of the noise in neighbouring channels of the last axis (a scintillator or a resampled energy axis
        spreads each event over several); ``None`` where it is not known.

    Raises
    ------
    InvalidArgument
        If the gain or the read variance is negative or not finite, or the correlation lies outside -1 to 1.

    Examples
    --------
    >>> noise = NoiseModel(gain=17.0, channel_correlation=0.43)
    >>> float(noise.variance(100.0))
    1700.0
    >>> noise.is_counts
    False
    """

    gain: float = 1.0
    read_variance: float = 0.0
    channel_correlation: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no instrument has; keep plain floats, so that the model prints and saves cleanly."""
        for name in ("gain", "read_variance"):
            value = _number(name, getattr(self, name))
            if not (math.isfinite(value) and value >= 0):
                raise InvalidArgument(f"NoiseModel: {name} is {value!r}; expected a finite number of zero or more.")
            object.__setattr__(self, name, value)
        if self.channel_correlation is not None:
            value = _number("channel_correlation", self.channel_correlation)
            if not abs(value) < 1:
                raise InvalidArgument(
                    f"NoiseModel: channel_correlation is {value!r}; expected a number between -1 and 1, or None."
                )
            object.__setattr__(self, "channel_correlation", value)

    def variance(self, mean: Any) -> Any:
        """Variance of values with these means.

        Parameters
        ----------
        mean : float, ndarray or DataArray
            Expected values in data units. A negative one (a background-subtracted channel) counts as zero signal.

        Returns
        -------
        float, ndarray or DataArray
            Variance in data units squared, of the same shape.
        """
        return self.gain * np.maximum(mean, 0) + self.read_variance

    @property
    def is_counts(self) -> bool:
        """Whether data with this noise can be taken as Poisson counts.

        True for a gain of 0.8 to 1.25, a read variance of at most 0.1 (single events stay distinct) and neighbouring
        channels correlated by less than 0.05.
        """
        correlation = self.channel_correlation or 0.0
        low, high = COUNTS_GAIN
        return (
            low <= self.gain <= high
            and self.read_variance <= COUNTS_READ_VARIANCE
            and abs(correlation) < COUNTS_CORRELATION
        )

    def to_attrs(self) -> dict[str, float | None]:
        """Return a plain dictionary, as kept in ``DataArray.attrs["noise"]``.

        Examples
        --------
        >>> NoiseModel(gain=3).to_attrs()
        {'gain': 3.0, 'read_variance': 0.0, 'channel_correlation': None}
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> NoiseModel | None:
        """Read the model back from the ``attrs`` of a DataArray, or from the dictionary of `to_attrs` itself.

        Parameters
        ----------
        attrs : mapping
            Attributes of the data, with the model under ``"noise"``; or that dictionary.

        Returns
        -------
        NoiseModel or None
            ``None`` where the attributes of the data hold no noise model.

        Raises
        ------
        InvalidArgument
            If the entry is not a noise model.

        Examples
        --------
        >>> NoiseModel.from_attrs({"units": "counts", "noise": {"gain": 3}})
        NoiseModel(gain=3.0, read_variance=0.0, channel_correlation=None)
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        entry = attrs if attrs and set(attrs) <= fields else attrs.get("noise")
        if entry is None or isinstance(entry, NoiseModel):
            return entry
        if not isinstance(entry, Mapping) or not set(entry) <= fields:
            raise InvalidArgument(
                f"attrs['noise'] is {entry!r}; expected a dictionary with {', '.join(sorted(fields))}, "
                "as NoiseModel.to_attrs() makes it."
            )
        return cls(**entry)


def _number(name: str, value: object) -> float:
    """Return ``value`` as a float, or refuse it by name."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgument(f"NoiseModel: {name} is {value!r}; expected a number.")
    return float(value)
