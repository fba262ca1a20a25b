"""The threads that keep the index in step with the record and in shape while the service runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from service import clock
from service.errors import IndexUnavailable, MemvaultError
from service.index.interface import Index
from service.memories.indexing import Indexing
from service.scope import TenantId

#: Seconds between two looks at whether something is behind.
_LOOK_EVERY: Final = 1.0
#: Seconds between two passes over the outbox when nothing is: making the index durable holds up all other threads.
_PASS_EVERY: Final = 10.0
_OUTBOX: Final = "memvault-outbox"
_SHAPE: Final = "memvault-index"
_log = logging.getLogger("memvault.index")


class Upkeep:
    """Two threads that survive whatever fails, say so in `state`, and go on."""

    def __init__(
        self,
        indexing: Indexing,
        index: Index,
        tenants: Callable[[], Sequence[TenantId]],
        *,
        maintenance_interval: float,
    ) -> None:
        self._indexing = indexing
        self._index = index
        self._tenants = tenants
        self._interval = maintenance_interval
        self._stopping = threading.Event()
        self._troubles: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._keep_in_step, name=_OUTBOX, daemon=True),
            threading.Thread(target=self._keep_in_shape, name=_SHAPE, daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after what is under way."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30)

    def state(self) -> tuple[str, str | None]:
        """Return the state as readiness tells it, with the reason when something fails."""
        reasons = list(self._troubles.values())
        if self._indexing.left_out:
            reasons.append(
                f"{self._indexing.left_out} changes cannot be brought into the index: the keyring lacks their keys and "
                "is to be restored from its backup, or the log names another kind of error"
            )
        if not all(thread.is_alive() for thread in self._threads):
            reasons.append("a thread has ended: restart the service")
        return ("failed", "; ".join(reasons)) if reasons else ("ok", None)

    def _keep_in_step(self) -> None:
        due = 0.0
        while not self._stopping.is_set():
            try:
                passing = clock.monotonic() >= due
                if passing:
                    self._indexing.heal(self._tenants)
                if passing or self._indexing.behind:
                    due = 0.0
                    self._indexing.drain()
                    due = clock.monotonic() + _PASS_EVERY
                self._well(_OUTBOX)
            except Exception as error:
                self._failed(_OUTBOX, "the index could not be brought up to the record", error)
            self._stopping.wait(_LOOK_EVERY)

    def _keep_in_shape(self) -> None:
        while not self._stopping.wait(self._interval):
            started = clock.monotonic()
            try:
                self._sweep()
                if self._index.maintain():
                    _log.info("index optimised", extra={"seconds": round(clock.monotonic() - started, 2)})
                self._well(_SHAPE)
            except Exception as error:
                self._failed(_SHAPE, "the index could not be optimised", error)

    def _sweep(self) -> None:
        """Remove what a rebuild left that was killed: until then each write goes there as well."""
        # Unless it is under way, here or in another process; and that the index is away is told elsewhere.
        with suppress(IndexUnavailable):
            if self._index.has_leftovers():
                with self._indexing.claimed():
                    self._index.sweep()
                _log.info("what a rebuild of the index left that was cut short is removed")

    def _well(self, thread: str) -> None:
        if self._troubles.pop(thread, None) is not None:
            _log.info("the upkeep of the index works again")

    def _failed(self, thread: str, what: str, error: Exception) -> None:
        # Of an error that is not ours nothing but its kind is known to be free of what users wrote.
        code = error.code if isinstance(error, MemvaultError) else type(error).__name__
        reason = f"{what} ({code})"
        if self._troubles.get(thread) != reason:
            self._troubles[thread] = reason
            _log.error(what, extra={"error": code})
