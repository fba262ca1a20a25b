"""A Qdrant Edge shard as the service has it: in a process of its own, started again when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import numpy as np

from service.errors import IndexUnavailable
from service.index.edge_process import BACKGROUND, ShardLost, ShardProcess
from service.index.edge_writes import Remove, Store, StoredPoint, Write
from service.index.failures import failures
from service.index.interface import Point
from service.index.points import checked, payload_of
from service.index.scanning import SCAN_KB
from service.index.selection import own_subject, point_id
from service.scope import TenantId

_log = logging.getLogger("memvault.index")

#: Least time before another attempt when a lost process could not be started again, or was lost again at once.
_AGAIN_SECONDS: Final = 1.0
_WHAT_TO_DO: Final = "if this goes on, run `memvault index rebuild`."


class Call(Protocol):
    """Calls a method of `service.index.edge_engine.EdgeEngine` where the shard is open."""

    def __call__(self, name: str, *given: Any) -> Any:
        """Return what the method returns."""
        ...


class Shard:
    """A shard that counts who uses it, so that it can be closed under way. Every failure is `IndexUnavailable`.

    When its process is lost the next call starts another, which has all that was written, and is made again there, so
    that questions and writes may be repeated. `held`: see `ShardProcess`.
    """

    def __init__(self, folder: Path, process: ShardProcess, *, held: Sequence[int], lasting: bool) -> None:
        self.folder = folder
        self._process = process
        self._held = held
        self._lasting = lasting
        self._starting = threading.Lock()
        self._not_before = 0.0
        self._changed = threading.Condition()
        self._users = 0
        self._closed = False

    @classmethod
    def create(cls, folder: Path, dimensions: int, *, held: Sequence[int] = (), background: bool = False) -> Shard:
        """Make an empty shard in a folder that is empty or not there; one in the background is not started again."""
        folder.mkdir(mode=0o700, exist_ok=True)
        return cls._opened(folder, "create", dimensions, SCAN_KB, held=held, background=background)

    @classmethod
    def load(cls, folder: Path, *, held: Sequence[int] = ()) -> Shard:
        """Open the shard of a folder."""
        return cls._opened(folder, "load", held=held)

    @classmethod
    def _opened(cls, folder: Path, *how: Any, held: Sequence[int], background: bool = False) -> Shard:
        with failures(how[0], what_to_do=_WHAT_TO_DO):
            process = _opened(folder, *how, held=held, niceness=BACKGROUND if background else 0)
            return cls(folder, process, held=held, lasting=not background)

    @contextmanager
    def use(self, doing: str) -> Iterator[Call]:
        """Lend the shard. It is not closed before the block is left."""
        with self._changed:
            if self._closed:
                raise IndexUnavailable("The index is closed: the service is shutting down.")
            self._users += 1
        try:
            with failures(doing, what_to_do=_WHAT_TO_DO):
                yield self._call
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def write(self, writes: Sequence[Write]) -> None:
        """Carry out writes in their order."""
        with self.use("write") as call:
            for one in writes:
                call("write", [one])

    def close(self) -> None:
        """Flush and let go of the files when the last user has left. Closing twice is closing once."""
        if self._last():
            try:
                # Of a process that is lost the engine's log has everything.
                with failures("close", what_to_do=_WHAT_TO_DO), suppress(ShardLost):
                    self._process.call("close")
            finally:
                self._process.kill()

    def discard(self) -> None:
        """Let go of the files when the last user has left, whatever becomes of them."""
        if self._last():
            self._process.kill()

    def kill(self) -> None:
        """End the process under way: what is called now fails."""
        self._process.kill()

    def _last(self) -> bool:
        """Let nobody in any more and wait for those inside; False when that was done before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0)
        return True

    def _call(self, name: str, *given: Any) -> Any:
        process = self._process
        try:
            return process.call(name, *given)
        except ShardLost as lost:
            if not self._lasting:
                raise
            _log.warning("the process of the index is lost and another is started", extra={"error": str(lost)})
        try:
            return self._another(process).call(name, *given)
        except ShardLost:
            self._not_before = time.monotonic() + _AGAIN_SECONDS
            raise

    def _another(self, lost: ShardProcess) -> ShardProcess:
        """Return a process in the place of one that is lost; of several that ask, the first starts it."""
        with self._starting:
            if self._process is lost:
                if time.monotonic() < self._not_before:
                    raise IndexUnavailable(f"The index is being opened again; {_WHAT_TO_DO}", retry_after=1)
                lost.kill()
                try:
                    self._process = _opened(self.folder, "load", held=self._held)
                except BaseException:
                    self._not_before = time.monotonic() + _AGAIN_SECONDS
                    raise
            return self._process


def _opened(folder: Path, *how: Any, held: Sequence[int], niceness: int = 0) -> ShardProcess:
    """Start a process and let it open a shard."""
    process = ShardProcess(folder, held=held, niceness=niceness)
    try:
        process.call(*how)
    except BaseException:
        process.kill()
        raise
    return process


def stored(tenant_id: TenantId, points: Sequence[Point], dimensions: int) -> Store:
    """Return the write that stores points; ValueError for a vector of a wrong size or not finite."""
    return Store(tenant_id, [_point(tenant_id, point, dimensions) for point in points])


def removed(tenant_id: TenantId, point_ids: Collection[UUID]) -> Remove:
    """Return the write that removes points."""
    return Remove(tenant_id, list(point_ids))


def _point(tenant_id: TenantId, point: Point, dimensions: int) -> StoredPoint:
    terms = point.text_terms
    return StoredPoint(
        point_id(tenant_id, point.memory_id),
        point.version,
        np.asarray(checked(point.dense, dimensions), dtype=np.float32).tobytes(),
        (list(terms.ids), list(terms.weights)) if terms else None,
        payload_of(tenant_id, point, own_subject),
    )
