"""What a phantom is: tensors as an instrument would give them, and the truth behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from tensorspec.errors import UnknownName, suggest

__all__ = ["Phantom"]


@dataclass(frozen=True, eq=False, repr=False)
class Phantom(Mapping[str, Any]):
    """A mapping with the data by name, and ``"truth"``.

    Parameters
    ----------
    tensors : mapping of str to DataArray
        The data.
    truth : Dataset
        Factors of the data, with the dimension ``component`` counted from 1.
    factors : mapping of str to tuple of str
        For each tensor the variables of the truth whose product, summed over components, is its expected value. A
        tensor that is no such sum is not named here; the truth then holds ``<name>_expected``.

    Examples
    --------
    >>> import tensorspec as ts
    >>> phantom = ts.phantoms.discs(shape=(20, 20), seed=1)
    >>> list(phantom)
    ['data', 'truth']
    >>> phantom["data"].dims
    ('y', 'x', 'energy')
    """

    tensors: Mapping[str, xr.DataArray]
    truth: xr.Dataset
    factors: Mapping[str, tuple[str, ...]]

    @property
    def data(self) -> dict[str, xr.DataArray]:
        """The tensors alone, by name: what a fit takes."""
        return dict(self.tensors)

    def expected(self, name: str | None = None) -> xr.DataArray:
        """Noise-free data.

        Parameters
        ----------
        name : str, optional
            Of the tensor; not needed where there is one.

        Returns
        -------
        DataArray
            Expected values in the units of the data, same dimensions.

        Raises
        ------
        UnknownName
            If there is no such tensor, or several and none was named.
        """
        if name is None and len(self.tensors) == 1:
            name = next(iter(self.tensors))
        if name is None or name not in self.tensors:
            raise UnknownName(
                f"no tensor {name!r}; this phantom has {list(self.tensors)}.{suggest(name, self.tensors)}"
            )
        tensor = self.tensors[name]
        if name in self.factors:
            expected = xr.dot(*(self.truth[factor] for factor in self.factors[name]), dim="component")
        else:
            expected = self.truth[f"{name}_expected"]
        expected = expected.transpose(*tensor.dims)
        expected.name = tensor.name
        expected.attrs = {key: value for key, value in tensor.attrs.items() if key != "noise"}
        return expected

    def __getitem__(self, name: str) -> Any:
        if name == "truth":
            return self.truth
        if name not in self.tensors:
            raise KeyError(f"{name!r}; this phantom has {list(self)}")
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.tensors, "truth"))

    def __len__(self) -> int:
        return len(self.tensors) + 1

    def __repr__(self) -> str:
        lines = [f"Phantom with {self.truth.sizes['component']} components"]
        lines += [
            f"  {name}: " + ", ".join(f"{dim} {size}" for dim, size in tensor.sizes.items()) + f"  {tensor.dtype}"
            for name, tensor in self.tensors.items()
        ]
        return "\n".join([*lines, "  truth: " + ", ".join(map(str, self.truth.data_vars))])
