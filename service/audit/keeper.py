"""The threads that seal the trail every few seconds and bring the checkpoints to the places outside the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from service import clock
from service.audit.checkpoints import Checkpoint, Statement
from service.audit.ledger import Ledger, TrailChanged
from service.audit.sealing import Sealed, Sealer
from service.audit.signing import TrustedKeys
from service.audit.sinks import Sink, SinkUnavailable
from service.errors import ConfigurationError, Conflict, MemvaultError
from service.scope import TenantId
from service.storage.database import Database

_log = logging.getLogger("memvault.audit")

#: Checkpoints handed to a sink at a time.
_BATCH: Final = 100
_AGAIN_SECONDS: Final = 5.0
_DECLARE_SECONDS: Final = 30.0
_REMEDY: Final = (
    "see to it that it can be read, or take a place that is lost out of the settings (audit.checkpoint_folder,"
    " audit.s3.bucket)"
)


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
        self._undelivered: str | None = None
        # How far this process brought or saw each place.
        self._reached: dict[str, int] = {}
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
        for thread in self._threads:
            if thread.ident is not None and not thread.is_alive() and not self._stopping.is_set():
                return "failed", f"{thread.name} has ended: restart this process"
        problem = self._problem or self._undelivered or "; ".join(self._late.values())
        if problem:
            return "failed", problem
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
            SinkUnavailable: when one cannot be read and the database stands elsewhere than at its last checkpoint, so
                that it may be an earlier state.
        """
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        number = 0 if head is None else head.body.number
        for sink in self._sinks:
            try:
                newest = self._newest_in(sink, beyond=max(0, number - 1))
            except SinkUnavailable as error:
                if head is not None and self._stands_elsewhere(head):
                    raise SinkUnavailable(
                        "nothing is sealed: the database may have been restored to an earlier state, and a place for"
                        f" checkpoints cannot be read: {error.detail}; {_REMEDY}"
                    ) from None
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

    def find_newest(self, known: Iterable[Checkpoint] = ()) -> Checkpoint | None:
        """Return the newest checkpoint that a place outside has, if it is as new as the database's own, else None.

        With `known`, checkpoints that somebody vouches for, it is the newest of those and of every place that can be
        read. Where there is no place that could be asked, it is the database's own, if that is genuine and the database
        counts its transactions anew since: nothing newer is to be found anywhere.

        Raises:
            ConfigurationError: without `known` when a place cannot be read: what it has may be newer.
        """
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        found, unread = self._ask_places(beyond=max(0, 0 if head is None else head.body.number - 1))
        vouched = _newest(known)
        if unread and vouched is None:
            raise _unread(unread)
        newest = _newest([*found, *([] if vouched is None else [vouched])])
        if newest is None and head is not None and not any(sink.readable for sink in self._sinks):
            return self._counts_anew(head)
        return newest

    def find_restored(self, *, certain: bool = False) -> Checkpoint | None:
        """Return the newest delivered checkpoint if the database is an earlier state of what it was sealed over.

        None for a database that is not behind, and for one that stands where it stood: from that one checkpoints were
        deleted, which is no restore and which `compare_heads` refuses. None also for an empty database, which may have
        been put here by mistake. With `certain` it does not matter where it stands.

        Raises:
            ConfigurationError: for one that was restored, while a place cannot be read: what it has may be newer than
                all that is found, and what goes on from an older one would be a second trail.
        """
        with self._database.tenant_blind() as connection:
            try:
                head = self._ledger.head(connection)
            except TrailChanged:
                # Which `compare_heads` refuses, as one that nobody trusted signed.
                return None
            if head is None or not self._trusted.accept(head.encoded, head.signatures):
                return None
            here = self._ledger.cluster(connection, self._ledger.horizon(connection))
        found, unread = self._ask_places(beyond=head.body.number)
        last = _newest(found)
        stood = None if last is None else last.body.cluster
        if not certain and (stood is None or not here.went_back_from(stood)):
            last = None
        restored = last or self._counts_anew(head)
        if unread and (certain or restored is not None):
            raise _unread(unread)
        return restored

    def _counts_anew(self, head: Checkpoint) -> Checkpoint | None:
        """Return the database's newest checkpoint if it is genuine and the database counts its transactions anew since.

        As after a restore from a dump: nothing may be lost, and yet it went back.
        """
        stood = head.body.cluster
        if stood is None or not self._trusted.accept(head.encoded, head.signatures):
            return None
        with self._database.tenant_blind() as connection:
            horizon = self._ledger.horizon(connection)
        return head if horizon < stood.horizon else None

    def _stands_elsewhere(self, head: Checkpoint) -> bool:
        """Tell whether the database is not where it was at its own last checkpoint, nor further on from there."""
        stood = head.body.cluster
        with self._database.tenant_blind() as connection:
            here = self._ledger.cluster(connection, self._ledger.horizon(connection))
        return stood is not None and here.went_back_from(stood)

    def _newest_in(self, sink: Sink, *, beyond: int) -> Checkpoint | None:
        """Return the newest checkpoint of a place if its number is above `beyond`, else None.

        Raises:
            SinkUnavailable: when it cannot be told, also by a place that has none of those that it took: what it took
                is elsewhere, as where a disk is not mounted, and may be newer than all that is found.
        """
        newest = sink.newest(beyond=beyond)
        if newest is None:
            self._refuse_emptied(sink, self._ledger.delivered(sink.name))
        return newest

    @staticmethod
    def _refuse_emptied(sink: Sink, number: int) -> None:
        if number > 0 and sink.is_empty():
            raise SinkUnavailable(
                f"{sink.name} has none of the {number} checkpoints that it took: is it mounted? Put them back, or name"
                " another place in the settings (audit.checkpoint_folder)"
            )

    def _ask_places(self, *, beyond: int) -> tuple[list[Checkpoint], list[str]]:
        """Return the newest checkpoint above `beyond` of each place that has one, and what cannot be read, and why."""
        found, unread = list[Checkpoint](), list[str]()
        for sink in self._sinks:
            try:
                newest = self._newest_in(sink, beyond=beyond)
            except SinkUnavailable as error:
                unread.append(error.detail)
                continue
            if newest is None:
                continue
            if self._trusted.accept(newest.encoded, newest.signatures):
                found.append(newest)
            else:
                unread.append(f"{sink.name} holds a checkpoint that no key of this service signed")
        return found, unread

    def _bring(self, sink: Sink) -> int:
        number = self._ledger.delivered(sink.name)
        self._refuse_emptied(sink, number)
        if self._reached.get(sink.name) != number:
            number = self._look(sink, number)
        while found := self._ledger.after(number, _BATCH):
            sink.deliver(found)
            number = found[-1].body.number
            self._ledger.set_delivered(sink.name, number)
        self._reached[sink.name] = number
        return number

    def _look(self, sink: Sink, number: int) -> int:
        """Return where to go on in a place that, as the database says, has all up to `number`.

        It may have more: the database knows of that, or was restored and says less than is so.

        Raises:
            SinkUnavailable: when it has a checkpoint that the database has not, or another one of the same number.
        """
        try:
            newest = sink.newest(beyond=max(0, number - 1))
        except SinkUnavailable:
            # It may take what it does not give, and then looks by itself what it has of each number.
            return number
        if newest is None:
            return number
        there = newest.body.number
        # In this order: what is in a place was in the database before.
        with self._database.tenant_blind() as connection:
            head = self._ledger.head(connection)
        here = self._ledger.find(there)
        # What a declared restore made void is in no database any more, and stays where it is.
        if head is None or there > head.body.number or (here is not None and here.hash != newest.hash):
            raise SinkUnavailable(
                f"{sink.name} has another trail than the database from checkpoint {there} on, which stays as it is:"
                " after a restore run `memvault audit restored`"
            )
        if here is not None:
            self._ledger.set_delivered(sink.name, there)
        return there

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
            except Exception as error:
                # Whatever it was, sealing goes on: a thread that ended would leave rows unsealed in silence.
                if self._problem is None:
                    _log.error("the audit trail cannot be sealed", extra={"error": type(error).__name__})
                self._problem, wait = f"the trail cannot be sealed: {type(error).__name__}", _AGAIN_SECONDS
                compared = False
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
                self._undelivered = None
            except Exception as error:
                told = error.detail if isinstance(error, MemvaultError) else type(error).__name__
                _log.warning("checkpoints cannot be read", extra={"error": told})
                self._undelivered = f"checkpoints cannot be read: {told}"
            if last:
                break
            self._sealed.wait(1.0 if self._stopping.is_set() else _AGAIN_SECONDS)


def _newest(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    return max(checkpoints, key=lambda one: one.body.number, default=None)


def _unread(why: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        "the database was restored to an earlier state, which is not declared while a place for checkpoints that may"
        f" have newer ones cannot be read: {'; '.join(why)}; {_REMEDY}; then start again, or run `memvault audit"
        " restored`, which takes what is in a place that this process may only write to as --checkpoints"
    )
