"""Blocks on the machines of a cluster: through the dask client that the user has made, none is made here.

Neighbouring blocks are one task, which reads their pixels where it runs; the factors are sent to every worker once a
pass.  Sums are added within a task, then pairwise, as a tree, before they come back; what belongs to rows comes back by
itself.  Tasks of a worker that is lost are done again by others.  What was sent is no task, and may be lost with the
workers that have it: then it is sent again, and what waits for it is done again.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.algebra.blocks import Place
from tensorspec.errors import InvalidArgument, TensorspecError
from tensorspec.solvers.block_sums import Parts, add
from tensorspec.solvers.block_work import Work, one_by_one, through
from tensorspec.solvers.loop import Stopped

__all__ = ["Cluster", "users_client"]

# How often a task is tried again whose worker was lost or whose read failed.
_RETRIES = 3
# Tasks of a pass, as long as none is sent more bytes than the other number: each costs the scheduler milliseconds, and
# what is sent goes through it.  Not a matter of how many workers there are, so that sums do not depend on it.
_TASKS, _SENT = 512, 8_000_000
# From how many blocks at a time what was found is fetched.
_FETCHED = 32


def users_client() -> Any:
    """Return the user's dask client, or None: nobody who has one has not imported `distributed`."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None


class Cluster:
    """Does work with blocks on the workers of a client; after the scheduler is lost, in this process.

    Parameters
    ----------
    client
        Of `distributed`.

    Attributes
    ----------
    gives_up
        Whether a pass in which the scheduler is lost ends the run, because there is something to return; else it is
        made again in this process.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lost = self.gives_up = False

    def __call__(
        self,
        work: Work,
        places: Sequence[Place],
        rows_of: Callable[[Place], np.ndarray],
        arrays: Sequence[np.ndarray],
        watch: Callable[[float], None] = lambda share: None,
    ) -> tuple[list[tuple[np.ndarray, Any]], Parts]:
        """Do work with all blocks; see `one_by_one`.

        Raises
        ------
        Stopped
            When the scheduler is lost and there is something to return.
        """
        tries = 0
        while not self.lost:
            try:
                return self._spread(work, places, rows_of, arrays, watch)
            except (TensorspecError, KeyboardInterrupt):
                raise
            except BaseException as error:
                tries += 1
                if tries <= _RETRIES and self._lost_with_workers(error):
                    continue
                self._note_lost(error)
                if self.gives_up:
                    raise Stopped from error
        return one_by_one(work, places, rows_of, arrays, watch)

    def in_order(self, work: Callable[[Place], Any], places: Sequence[Place]) -> Iterator[Any]:
        """Yield what work finds in every block, in the order of the blocks.

        What is found waits on the workers for its turn, so that this process holds little of it at a time.

        Parameters
        ----------
        work
            What is done: a dataclass that takes a place.
        places
            The blocks.

        Raises
        ------
        TensorspecError
            Of the first block that has one.
        """
        done = tries = 0
        while not self.lost and done < len(places):
            try:
                for found in self._in_turn(work, places[done:]):
                    yield found
                    done += 1
            except (TensorspecError, KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                tries += 1
                if tries > _RETRIES or not self._lost_with_workers(error):
                    self._note_lost(error)
        yield from map(work, places[done:])

    def _lost_with_workers(self, error: BaseException) -> bool:
        """Whether the scheduler is there and gave tasks up, as it does where what they were sent is gone."""
        return getattr(self._client, "status", "") == "running" and "CancelledError" in _kinds(error)

    def _note_lost(self, error: BaseException) -> None:
        """Warn that the scheduler was lost and what happens now, or raise an error that says nothing of the kind."""
        if getattr(self._client, "status", "") == "running" and not _says_lost(error):
            raise error
        self.lost = True
        kind = type(error).__name__
        what = "the best so far is returned" if self.gives_up else "the data are read in this process"
        warnings.warn(f"the scheduler of the dask client was lost ({kind}): {what}", stacklevel=3)

    def _in_turn(self, work: Callable[[Place], Any], places: Sequence[Place]) -> Iterator[Any]:
        common = self._sent(work)
        tasks = _in_tasks(places)
        waiting = [self._client.submit(_look_at, common, own, pure=False, retries=_RETRIES) for own in tasks]
        while waiting:
            count = max(_FETCHED // len(tasks[0]), 1)
            group, waiting = waiting[:count], waiting[count:]
            found: Iterable[list[Any]]
            try:
                found = self._client.gather(group)
            except TensorspecError:
                # Of several blocks that fail the first in order is named, whichever failed first.
                found = (future.result() for future in group)
            for item in chain.from_iterable(found):
                if isinstance(item, TensorspecError):
                    raise item
                yield item

    def _sent(self, work: Any) -> Any:
        """Return work as all workers have it."""
        # JAX would read double precision as single where it arrives; numpy does not.
        try:
            (common,) = self._client.scatter([_with_arrays(work, np.asarray)], broadcast=True, hash=False)
        except TypeError as error:
            raise InvalidArgument(
                "the data cannot be sent to the workers of the dask client, as an open h5py file cannot; open them so "
                "that every worker can (zarr, or a file by its path: ts.load(path, lazy=True)), or close the client"
            ) from error
        return common

    def _spread(
        self,
        work: Work,
        places: Sequence[Place],
        rows_of: Callable[[Place], np.ndarray],
        arrays: Sequence[np.ndarray],
        watch: Callable[[float], None],
    ) -> tuple[list[tuple[np.ndarray, Any]], Parts]:
        client = self._client
        common = self._sent(work)
        all_rows = [rows_of(place) for place in places]
        sent = sum(array.nbytes for array in arrays)
        options = {"pure": False, "retries": _RETRIES}
        found = [
            client.submit(_do, common, own, rows, [[array[k] for array in arrays] for k in rows], **options)
            for own, rows in zip(_in_tasks(places, sent), _in_tasks(all_rows, sent), strict=True)
        ]
        by_row = [client.submit(_first_of, item, **options) for item in found]
        sums = [client.submit(_second_of, item, **options) for item in found]
        del found
        while len(sums) > 1:  # always the same tree, so that the result does not depend on who was first
            pairs = [sums[k : k + 2] for k in range(0, len(sums), 2)]
            sums = [client.submit(_added, *pair, **options) if len(pair) == 2 else pair[0] for pair in pairs]
        own = list(chain.from_iterable(client.gather(by_row)))
        total = client.gather(sums[0])
        watch(1.0)
        return list(zip(all_rows, own, strict=True)), total


def _in_tasks(items: Sequence[Any], sent: int = 0) -> list[Sequence[Any]]:
    """Return the items of neighbouring blocks together, so that there are not too many tasks; `sent` are all bytes."""
    tasks = min(max(_TASKS, -(-sent // _SENT)), len(items))
    length = -(-len(items) // tasks)
    return [items[k : k + length] for k in range(0, len(items), length)]


def _says_lost(error: BaseException) -> bool:
    return bool(
        _kinds(error) & {"CancelledError", "CommClosedError", "TimeoutError", "ConnectionError", "SchedulerLost"}
    )


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _do(
    work: Work, places: Sequence[Place], rows: Sequence[np.ndarray], own: Sequence[Sequence[np.ndarray]]
) -> tuple[list[Any], Parts]:
    """Do work with the blocks of a task, on a worker; what comes back are plain arrays."""
    with jax.enable_x64(True):
        found, sums = through(_with_arrays(work, jnp.asarray), zip(places, rows, own, strict=True))
        return found, jax.tree.map(np.asarray, sums)


def _look_at(work: Any, places: Sequence[Place]) -> list[Any]:
    """Do work that needs nothing but a place with the blocks of a task, on a worker.

    What is wrong with the data of a block is returned in its place, as the last.  A store that could not be read is
    another matter: that may go well where the task is tried again.
    """
    found: list[Any] = []
    with jax.enable_x64(True):
        ready = _with_arrays(work, jnp.asarray)
        for place in places:
            try:
                found.append(ready(place))
            except TensorspecError as error:
                if error.__cause__ is not None:
                    raise
                return [*found, error]
    return found


def _with_arrays(work: Any, kind: Callable[[Any], Any]) -> Any:
    """Return work with its arrays as those of numpy or of JAX."""

    def turned(leaf: Any) -> Any:
        return kind(leaf) if isinstance(leaf, (jax.Array, np.ndarray)) else leaf

    fields = {field.name: getattr(work, field.name) for field in dataclasses.fields(work)}
    return dataclasses.replace(work, **{name: jax.tree.map(turned, value) for name, value in fields.items()})


def _first_of(found: tuple[list[Any], Parts]) -> list[Any]:
    return found[0]


def _second_of(found: tuple[list[Any], Parts]) -> Parts:
    return found[1]


def _added(first: Parts, second: Parts) -> Parts:
    total = dict(first)
    add(total, second)
    return total
