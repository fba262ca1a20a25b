"""The threads that seal the trail every few seconds and bring the checkpoints to the places outside the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from service import clock
from service.audit.checkpoints import Checkpoint, Statement
from service.audit.ledger import Ledger
from service.audit.sealing import Sealed, Sealer, TrailChanged
from service.audit.signing import TrustedKeys
from service.audit.sinks import Sink, SinkUnavailable
from service.errors import Conflict, MemvaultError
from service.scope import TenantId
from service.storage.database import Database

_log = logging.getLogger("memvault.audit")

#: Checkpoints handed to a sink at a time.
_BATCH: Final = 100
_AGAIN_SECONDS: Final = 5.0
_DECLARE_SECONDS: Final = 30.0


class Keeper:
    """Seals and delivers. What stops it is told by `state`, for `/readyz` and `memvault doctor`."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        ledger: Ledger,
        sinks: Sequence[Sink],
        trusted: TrustedKeys,
        tenants: Callable[[], Sequence[TenantId]],
        *,
        interval: float,
    ) -> None:
        """`tenants` tells all tenants, the service's own included; `interval` is in seconds."""
        self._database = database
        self._sealer = sealer
        self._ledger = ledger
        self._sinks = sinks
        self._trusted = trusted
        self._tenants = tenants
        self._interval = interval
        self._stopping = threading.Event()
        self._sealed = threading.Event()
        self._problem: str | None = None
        self._changed = False
        self._late: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._seal, name="memvault-seal", daemon=True),
            threading.Thread(target=self._deliver, name="memvault-checkpoints", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Seal and deliver what is there, then end."""
        self._stopping.set()
        self._sealed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30)

    def state(self) -> tuple[str, str | None]:
        """Return the state of sealing and what is wrong with it, if anything is."""
        if self._problem is not None:
            return "failed", self._problem
        if self._late:
            return "failed", "; ".join(self._late.values())
        return "ok", None if self._sinks else "no place outside the database is configured for checkpoints"

    @property
    def late(self) -> bool:
        """Whether a sink did not take what it should have."""
        return bool(self._late)

    @property
    def changed(self) -> bool:
        """Whether the database was found not to hold what was signed."""
        return self._changed

    def round(self, *, full: bool = False) -> Sealed:
        """Seal what is final, at once; `full` looks at every tenant."""
        return self._sealer.seal(also=self._tenants() if full else ())

    def checkpoint(self) -> None:
        """Seal what is final in every tenant, also what no note told of, and deliver it.

        Raises:
            TrailChanged, RecordUnavailable: as `Sealer.seal`.
        """
        while (sealed := self.round(full=True)).more and sealed.checkpoint is not None:
            pass
        self.deliver()

    def declare(self, statements: Sequence[Statement], *, after: Checkpoint | None = None) -> Checkpoint:
        """Sign a checkpoint that declares something, waiting for a sealer that is at work.

        Raises:
            Conflict: when another sealer is at work all the time.
        """
        until = clock.monotonic() + _DECLARE_SECONDS
        while clock.monotonic() < until:
            sealed = self._sealer.seal(statements=statements, after=after)
            if sealed.checkpoint is not None:
                return sealed.checkpoint
            self._stopping.wait(0.1)
        raise Conflict("the audit trail is being sealed by another process all the time; try again")

    def deliver(self) -> dict[str, int]:
        """Bring every sink up to date, and return what number each is at. A sink that fails is told by `state`."""
        reached = {}
        for sink in self._sinks:
            try:
                reached[sink.name] = self._bring(sink)
                self._late.pop(sink.name, None)
            except SinkUnavailable as error:
                if sink.name not in self._late:
                    _log.warning("checkpoints wait for a sink", extra={"sink": sink.name, "error": error.detail})
                self._late[sink.name] = error.detail
        return reached

    def compare_heads(self) -> None:
        """Compare the database with what was delivered, as far as the sinks can be read.

        Raises:
            TrailChanged: when a sink has checkpoints that the database has not, or other ones.
        """
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        number = 0 if head is None else head.body.number
        for sink in self._sinks:
            try:
                newest = sink.newest(beyond=max(0, number - 1))
            except SinkUnavailable as error:
                _log.warning("a sink cannot be compared with the database", extra={"error": error.detail})
                continue
            if newest is None:
                continue
            if not self._trusted.accept(newest.encoded, newest.signatures):
                raise TrailChanged(f"{sink.name} holds a checkpoint that no key of this service signed")
            if newest.body.number > number:
                raise TrailChanged(
                    f"the database is at checkpoint {number} and {sink.name} has {newest.body.number}: the"
                    " database was restored to an earlier state or cut; after a restore run `memvault audit restored`"
                )
            if head is not None and newest.hash != head.hash:
                raise TrailChanged(f"checkpoint {number} in the database is not the one that {sink.name} has")

    def find_newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that a place outside has, if it is as new as the database's own, else None.

        Raises:
            SinkUnavailable: when a place cannot be read: what it has may be newer.
        """
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        older = max(0, 0 if head is None else head.body.number - 1)
        found = [newest for sink in self._sinks if (newest := sink.newest(beyond=older)) is not None]
        return max(found, key=lambda one: one.body.number, default=None)

    def find_restored(self, *, certain: bool = False) -> Checkpoint | None:
        """Return the newest delivered checkpoint if the database is an earlier state of what it was sealed over.

        None for a database that is not behind, and for one that stands where it stood: from that one checkpoints were
        deleted, which is no restore and which `compare_heads` refuses. None also for an empty database, which may have
        been put here by mistake. With `certain` it does not matter where it stands.
        """
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
            if head is None or not self._trusted.accept(head.encoded, head.signatures):
                return None
            here = self._ledger.cluster(connection, self._ledger.horizon(connection))
        # As after a restore from a dump: nothing may be lost, and yet it counts its transactions anew.
        sealed_at = head.body.cluster
        counts_anew = head if sealed_at is not None and here.horizon < sealed_at.horizon else None
        for sink in self._sinks:
            try:
                newest = sink.newest(beyond=head.body.number)
            except SinkUnavailable:
                # It is told, and compared again, by the thread that seals.
                continue
            if newest is None or not self._trusted.accept(newest.encoded, newest.signatures):
                continue
            stood = newest.body.cluster
            if certain or (stood is not None and here.went_back_from(stood)):
                return newest
        return counts_anew

    def _bring(self, sink: Sink) -> int:
        number = self._ledger.delivered(sink.name)
        while found := self._ledger.after(number, _BATCH):
            sink.deliver(found)
            number = found[-1].body.number
            self._ledger.set_delivered(sink.name, number)
        return number

    def _seal(self) -> None:
        compared, looked = False, False
        while True:
            last = self._stopping.is_set()
            try:
                if not compared:
                    self.compare_heads()
                    compared = True
                # At every tenant once; later the job does that.
                sealed = self.round(full=not looked)
                looked |= not (sealed.more and sealed.checkpoint is None)
                if sealed.checkpoint is not None:
                    self._sealed.set()
                self._changed = False
                self._problem, wait = None, 0.0 if sealed.more and sealed.checkpoint else self._interval
            except TrailChanged as error:
                if self._problem is None:
                    _log.error("the audit trail is not sealed any more", extra={"error": error.detail})
                self._changed = True
                self._problem, compared, wait = error.detail, False, _AGAIN_SECONDS
            except MemvaultError as error:
                self._problem, wait = error.detail, min(self._interval, _AGAIN_SECONDS)
            if last:
                break
            self._stopping.wait(wait)
        self._sealed.set()

    def _deliver(self) -> None:
        while True:
            last = not self._threads[0].is_alive()
            self._sealed.clear()
            try:
                self.deliver()
            except MemvaultError as error:
                _log.warning("checkpoints cannot be read", extra={"error": error.detail})
            if last:
                break
            self._sealed.wait(1.0 if self._stopping.is_set() else _AGAIN_SECONDS)
