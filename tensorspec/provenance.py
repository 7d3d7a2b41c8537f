"""What a result came from; some of it is still being found out when the result is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

__all__ = ["Provenance"]


class Provenance(Mapping[str, Any]):
    """A mapping of which some values are waited for when they are asked for.

    Parameters
    ----------
    known
        What is known.
    late
        What a thread is still at work on, such as the hash of large data.

    Examples
    --------
    >>> coming = Future()
    >>> record = Provenance({"seed": 0}, {"input_sha256": coming})
    >>> record["seed"]
    0
    >>> coming.set_result("4f8a")
    >>> dict(record)
    {'seed': 0, 'input_sha256': '4f8a'}
    """

    def __init__(self, known: Mapping[str, Any], late: Mapping[str, Future[Any]] | None = None) -> None:
        self._known, self._late = dict(known), dict(late or {})

    def __getitem__(self, name: str) -> Any:
        return self._late[name].result() if name in self._late else self._known[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._known
        yield from (name for name in self._late if name not in self._known)

    def __len__(self) -> int:
        return len({*self._known, *self._late})

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Provenance, (dict(self),)
