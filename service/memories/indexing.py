"""Keeps the index in step with the record: at once after a commit, from the outbox after a failure, or as a whole."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from service import clock
from service.embeddings import EmbeddingRefused
from service.errors import IndexUnavailable, KeyringUnavailable, Unavailable
from service.index.failures import incomplete
from service.index.interface import Index, Point, ScopedWriter
from service.index.terms import Bm25Terms, TenantTerms
from service.memories.agreement import Agreement
from service.memories.answering import Answering
from service.memories.doubts import Doubts
from service.memories.index_points import embedded, is_of, latest, point_of, takes_texts, write
from service.memories.serving import Generations, Serving
from service.scope import Scope, TenantId, service_principal
from service.settings.languages import Language
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.outbox import GONE, Due, Outbox, by_tenant, enqueue
from service.storage.record import Record, Unreadable
from service.storage.stored import IndexEntry
from service.storage.tasks import Tasks, TaskState
from service.storage.versions import versions
from service.tenants.languages import Languages

_BATCH: Final = 500
#: Outbox rows that are done before the index is made durable and they are forgotten.
_FLUSHED_AT_ONCE: Final = 10_000
#: Small, since searches and writes wait while a batch is written.
_REBUILD_BATCH: Final = 100
_REMEMBERED: Final = 200_000
#: More than a process takes from reading a memory to having written its point, or to giving up.
_SETTLED_AFTER: Final = timedelta(seconds=60)
#: Points that are taken out at once. While more are, nobody else could write, and who deleted them would wait.
_GONE_AT_ONCE: Final = 1000
#: Seconds after which a point is not written any more: its outbox row may be gone by the time that it is there.
_STALE_POINT: Final = 30.0
#: Seconds that a write waits for those before it. An engine in this process is slow at times and never silent.
_WAITS: Final = 1.0
_WAITS_ALONE: Final = 5.0
_FILLING: Final = "fill_index"
_STALE_AFTER: Final = timedelta(minutes=2)
_log = logging.getLogger("memvault.index")


class Indexing:
    """The only writer of the index. One at a time: of two versions of a memory the newer one always wins.

    With `following` it is that of the index of another embedding model, which is filled beside the one that serves.
    """

    def __init__(
        self,
        database: Database,
        record: Record,
        keyring: Keyring,
        index: Index,
        generations: Generations,
        outbox: Outbox,
        tasks: Tasks,
        *,
        languages: Languages,
        following: Serving | None = None,
    ) -> None:
        self._database = database
        self._record = record
        self._index = index if following is None else following.index
        self._generations = generations
        self._following = following
        self._outbox = outbox
        self._tasks = tasks
        self._agreement = Agreement(database, self._index)
        self._lock = generations.lock
        # What another index does, which is filled, says nothing of the one that serves.
        self._reads = generations.reads if following is None else Answering()
        self._writes = generations.writes if following is None else Answering()
        self._doubts = Doubts(database, self._index, self._reads, self._writes)
        # Ids are unique within a tenant only: an imported one may be another tenant's too.
        self._applied: OrderedDict[tuple[TenantId, UUID], int] = OrderedDict()
        self._languages = languages
        self._terms = TenantTerms(lambda tenant_id: keyring.tenant_secret(tenant_id, "keyword-terms"))
        self._behind = threading.Event()
        self._left_out = 0
        self._differed = 0
        # Set until it is known that the index does not lack what the record had before.
        self._incomplete = threading.Event()
        self._incomplete.set()
        self._looked = threading.Event()

    @property
    def looked(self) -> bool:
        """Whether it was tried to find out if the index lacks anything, with whatever outcome."""
        return self._looked.is_set()

    @property
    def behind(self) -> bool:
        """Whether something was committed that could not be brought into the index at once, or the index hangs."""
        return self._behind.is_set() or self._reads.rests or self._writes.rests

    @property
    def left_out(self) -> int:
        """How many outbox rows the last `drain` had to leave, since their memories cannot be opened or indexed."""
        return self._left_out

    def language(self, scope: Scope) -> Language:
        """Return the language of the tenant's texts."""
        return self._languages.of(scope.tenant_id).language

    def terms(self, scope: Scope) -> Bm25Terms:
        """Return what turns the tenant's texts, which are in its language, into keyed keyword vectors."""
        spoken = self._languages.of(scope.tenant_id)
        return self._terms.of(scope.tenant_id, spoken.language, spoken.former)

    def apply(self, scope: Scope, entries: Sequence[IndexEntry], *, gone: Mapping[UUID, int] | None = None) -> None:
        """Bring committed memories into the index and take deleted ones (id and version) out.

        It never fails, for the commit stands: the outbox rows stay, and `drain` does later what could not be done now.
        So it is left while the index hangs, where other writes take long, and where many memories are gone: no request
        waits for any of this.
        """
        if gone is not None and len(gone) > _GONE_AT_ONCE:
            self._behind.set()
            return
        began = clock.monotonic()
        try:
            self._reads.check()
            self._writes.check()
            serving = self._generations.serving
            # What another model embedded: an edit of the metadata alone keeps the vector.
            foreign = [entry for entry in entries if not is_of(entry, serving.embedder)]
            made = embedded(serving.embedder, foreign) if self._generations.changing.is_set() else {}
            ours = [made.get(entry.memory.id, entry) for entry in entries]
            ours = [entry for entry in ours if is_of(entry, serving.embedder)]
            points = [self._point(scope, entry) for entry in ours]
            with self._soon():
                if self._generations.serving is not serving or clock.monotonic() - began > _STALE_POINT:
                    points = []
                self._apply(scope, points, gone or {})
            if len(points) < len(entries):
                self._behind.set()
            if gone and (filling := self._generations.filling) is not None:
                filling.index.of(scope).delete(list(gone))
        except Exception as error:
            self._behind.set()
            missing = len(entries) + len(gone or {})
            _log.warning("the index is behind the record", extra={"memories": missing, "error": type(error).__name__})

    def check(self) -> None:
        """Return unless the index is known to miss memories or to hang; costs nothing.

        Raises:
            IndexUnavailable: while the index is being made again from the record after it was lost, and for some
                seconds after somebody waited for it in vain.
        """
        self._reads.check()
        if self._incomplete.is_set():
            raise incomplete()

    def heal(self, tenants: Callable[[], Sequence[TenantId]]) -> None:
        """Make the index again if it began empty beside a record with memories; searches wait for it.

        The index itself keeps in mind whether that is done, so that a heal that was cut short is begun again. It is to
        be called from time to time: a server may lose its data while this process runs.

        Raises:
            IndexUnavailable: when the index does not answer, and while another process makes it again.
        """
        try:
            with self._reads.asking():
                complete = self._index.is_complete()
            if not complete:
                self._incomplete.set()
                if any(self._has_memories(tenant_id) for tenant_id in tenants()):
                    _log.warning("the index lacks what the record has and is made again from it")
                    self._looked.set()
                    self.rebuild(tenants)
                else:
                    self._index.mark_complete()
            self._incomplete.clear()
        finally:
            self._looked.set()

    def drain(self) -> int:
        """Do what the outbox says and forget the rows once the index is durable; return how many were done.

        A memory that cannot be opened or indexed holds up no other: its rows stay, and count as `left_out`. So do, for
        some seconds, the rows of an index that other processes write to as well: one of them may be about to write an
        older version or a memory that was deleted, and what it leaves behind is found by looking again.

        Raises:
            IndexUnavailable, RecordUnavailable: with the rest still in the outbox.
        """
        self._behind.clear()
        if self._reads.rests:
            # Whether it answers again has to be known even where there is nothing to do.
            with self._reads.asking():
                self._index.is_complete()
        total, last, left_out = 0, 0, 0
        done: list[int] = []
        serving = self._generations.serving
        while due := self._outbox.due(_BATCH, after=last):
            last = due[-1].row
            for tenant_id, rows in by_tenant(due):
                settled = self._settled(tenant_id, rows)
                done += [one.row for one in settled if self._is_past(one, serving)]
                left_out += len(rows) - len(settled)
            if len(done) >= _FLUSHED_AT_ONCE:
                total += self._forget(done)
                done = []
        total += self._forget(done)
        self._doubts.look_again()
        self._writes.answered()
        if left_out != self._left_out:
            _log.error("changes stay in the outbox: their memories do not open", extra={"count": left_out})
            self._left_out = left_out
        return total

    def rebuild(
        self, tenants: Callable[[], Sequence[TenantId]], *, progress: Callable[[int], None] = lambda done: None
    ) -> int:
        """Make the whole index anew from the record, beside the old one, and switch; return how many points it has.

        Searches and writes go on meanwhile; what is written reaches both. Memories that cannot be read or opened are
        left to the outbox. `tenants` is asked after the new index has begun: what is written to a later tenant reaches
        it.
        """
        done, left_out = 0, 0
        with self.claimed() as alive, self._index.rebuild() as fresh:
            for copied, skipped in self.copied(tenants, fresh.of):
                done, left_out = done + copied, left_out + skipped
                progress(done)
                alive(done)
        if self._index.shared:
            # What another process deleted while it was being copied may have come back.
            self._agreement.mend(tenants())
        if left_out:
            _log.error("memories that the new index lacks: they cannot be read or opened", extra={"memories": left_out})
        self._incomplete.clear()
        self._looked.set()
        return done

    def copied(
        self, tenants: Callable[[], Sequence[TenantId]], target: Callable[[Scope], ScopedWriter]
    ) -> Iterator[tuple[int, int]]:
        """Write all memories into an index, part by part; yield how many were written and how many left out."""
        for tenant_id in tenants():
            scope = Scope.of(service_principal(tenant_id))
            after: UUID | None = None
            while True:
                copied, skipped, after = self._copy(scope, target(scope), after)
                yield copied, skipped
                if after is None:
                    break

    def follow(self) -> int:
        """Bring the index up to what the outbox tells of, by comparing, and forget none of it; return what differed.

        Raises:
            IndexUnavailable, RecordUnavailable, EmbeddingUnavailable: with the rest undone.
        """
        self._differed, last = 0, 0
        while due := self._outbox.due(_BATCH, after=last):
            last = due[-1].row
            for tenant_id, rows in by_tenant(due):
                self._settled(tenant_id, rows)
        return self._differed

    def agree(self, tenants: Sequence[TenantId], alive: Callable[[], None] = lambda: None) -> None:
        """Compare the whole index with the record: what has no memory goes, what is behind is noted in the outbox.

        `alive` is called from time to time.
        """
        self._agreement.mend(tenants, alive)

    def catch_up(self) -> None:
        """Let `drain` be called soon."""
        self._behind.set()

    def begin_anew(self) -> None:
        """Hear, with the lock held, that another index serves: what was applied, was applied to the one before."""
        self._applied.clear()
        self._behind.set()

    @contextmanager
    def claimed(self) -> Iterator[Callable[[int], None]]:
        """Let one process at a time rebuild an index that several share; what is lent says that this one is alive.

        Raises:
            IndexUnavailable: while another process does it.
        """
        if not self._index.shared:
            yield lambda done: None
            return
        task = self._tasks.claim(_FILLING, stale_after=_STALE_AFTER)
        if task is None:
            raise IndexUnavailable("another process is making the index again from the record", retry_after=10)
        try:
            yield lambda done: self._tasks.progress(task, done)
        except BaseException:
            self._tasks.move(task, TaskState.FAILED, error="it ended early; the log tells the kind of error")
            raise
        self._tasks.move(task, TaskState.SUCCEEDED)

    def _copy(self, scope: Scope, fresh: ScopedWriter, after: UUID | None) -> tuple[int, int, UUID | None]:
        """Write the next memories into a new index; return how many, how many were left out, and where to go on."""
        with self._database.transaction(scope) as connection:
            ids = self._record.next_ids(connection, after=after, limit=_REBUILD_BATCH)
        copied, left_out = self._copy_these(scope, fresh, ids) if ids else (0, [])
        if left_out:
            with self._database.transaction(scope) as connection:
                enqueue(connection, scope, dict.fromkeys(left_out, 1))
        return copied, len(left_out), ids[-1] if len(ids) == _REBUILD_BATCH else None

    def _copy_these(self, scope: Scope, fresh: ScopedWriter, ids: Sequence[UUID]) -> tuple[int, list[UUID]]:
        """Write some memories into a new index; return how many, and which were left out."""
        unreadable: Unreadable = {}

        def read(connection: Connection) -> Sequence[IndexEntry]:
            unreadable.clear()
            return list(self._record.index_entries(connection, scope, ids, unreadable=unreadable).values())

        try:
            # Read and written under the lock: a delete that commits in between is applied after, to both indexes.
            with self._of_this_model(scope, read) as entries:
                points = self._points(scope, entries, unreadable)
                fresh.upsert(points)
                for memory_id in unreadable:
                    self._applied.pop((scope.tenant_id, memory_id), None)
        except (DataError, EmbeddingRefused) as error:
            # The driver cannot read a row, or the model refuses a text, and neither says which.
            if len(ids) == 1:
                self._raise_if_of_all(error)
                self._applied.pop((scope.tenant_id, ids[0]), None)
                return 0, list(ids)
            half = len(ids) // 2
            (first, bad), (second, worse) = (self._copy_these(scope, fresh, part) for part in (ids[:half], ids[half:]))
            return first + second, bad + worse
        return len(points), list(unreadable)

    @contextmanager
    def _of_this_model(
        self, scope: Scope, read: Callable[[Connection], Sequence[IndexEntry]]
    ) -> Iterator[Sequence[IndexEntry]]:
        """Read entries and hold the lock for the block that writes them.

        What another model embedded is embedded again first, since vectors of two models cannot be compared. That takes
        long, so neither the lock nor a transaction is held; then all is read again, for it may have changed.
        """
        made: dict[UUID, IndexEntry] = {}
        while True:
            with self._lock:
                embedder = (self._following or self._generations.serving).embedder
                with self._database.transaction(scope) as connection:
                    entries = [latest(entry, made) for entry in read(connection)]
                foreign = [entry for entry in entries if not is_of(entry, embedder)]
                if not foreign:
                    yield entries
                    return
            again = embedded(embedder, foreign)
            if self._following is None and self._generations.changing.is_set():
                # The record has the vectors of the model to come already, which are not thrown away for these.
                made |= again
                continue
            with self._database.transaction(scope) as connection:
                self._record.replace_vectors(connection, scope, list(again.values()))

    def _has_memories(self, tenant_id: TenantId) -> bool:
        with self._database.transaction(Scope.of(service_principal(tenant_id))) as connection:
            return self._record.count(connection) > 0

    def _forget(self, rows: Sequence[int]) -> int:
        if rows:
            self._index.flush()
            self._outbox.done(rows)
        return len(rows)

    def _is_past(self, due: Due, settled_in: Serving) -> bool:
        """Tell whether no process can still be writing what it knew when this row was made, and none needs it."""
        if self._generations.comparing.is_set() or self._generations.serving is not settled_in:
            return False
        alone = not self._index.shared and not self._generations.changing.is_set()
        return alone or clock.now() - due.since > _SETTLED_AFTER

    def _settled(self, tenant_id: TenantId, due: Sequence[Due]) -> list[Due]:
        """Bring the index up to these rows of one tenant; return those that are done with."""
        try:
            unreadable = self._catch_up(tenant_id, due)
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error, EmbeddingRefused):
                raise
            if len(due) > 1:
                # One of them is bad, and the others must not wait for it.
                half = len(due) // 2
                return self._settled(tenant_id, due[:half]) + self._settled(tenant_id, due[half:])
            self._raise_if_of_all(error)
            _log.error("a memory cannot be indexed", extra={"error": type(error).__name__})
            return []
        return [one for one in due if one.memory_id not in unreadable]

    def _raise_if_of_all(self, error: Exception) -> None:
        """Raise an error again that is not about one memory: the model takes no text at all."""
        serving = self._following or self._generations.serving
        if isinstance(error, EmbeddingRefused) and not takes_texts(serving.embedder):
            raise error

    def _catch_up(self, tenant_id: TenantId, due: Sequence[Due]) -> Unreadable:
        scope = Scope.of(service_principal(tenant_id))
        behind = self._behind_of(scope, due)
        self._differed += len(behind)
        unreadable: Unreadable = {}
        if not behind:
            return unreadable

        def read(connection: Connection) -> Sequence[IndexEntry]:
            unreadable.clear()
            return list(self._record.index_entries(connection, scope, behind, unreadable=unreadable).values())

        with self._of_this_model(scope, read) as entries:
            points = self._points(scope, entries, unreadable)
            # Its outbox row is there and its row is not: it was deleted, whatever version the outbox row is of.
            gone = behind - {point.memory_id for point in points} - unreadable.keys()
            self._apply(scope, points, dict.fromkeys(gone, GONE), recorded=True)
        return unreadable

    def _behind_of(self, scope: Scope, due: Sequence[Due]) -> set[UUID]:
        """Return the memories whose points are to be looked at: what this process has not applied, or, where it is not
        the only one that writes, what differs from the record now or is to be written again."""
        if not self._index.shared and self._following is None:
            return {one.memory_id for one in due if not self._has_applied(scope.tenant_id, one)}
        ids = {one.memory_id for one in due}
        with self._reads.asking():
            present = self._index.of(scope).existing(ids)
        with self._database.transaction(scope) as connection:
            known = versions(connection, ids)
        again = {one.memory_id for one in due if known.get(one.memory_id, GONE) < one.version}
        return again | {one for one in ids if present.get(one) != known.get(one)}

    def _has_applied(self, tenant_id: TenantId, due: Due) -> bool:
        """Tell whether the record need not be looked at again. What was taken out may have been imported since."""
        applied = self._applied.get((tenant_id, due.memory_id), 0)
        return applied == due.version or (applied > due.version and applied != GONE)

    def _apply(
        self, scope: Scope, points: Sequence[Point], gone: Mapping[UUID, int], *, recorded: bool = False
    ) -> None:
        """Write what is newer than what was applied. `recorded`: the points were read under the lock and are what is
        so, whatever was applied before: an id that was taken out, here or by another process, may be imported again."""
        with self._lock:
            tenant = scope.tenant_id
            applied = {point.memory_id: self._applied.get((tenant, point.memory_id), 0) for point in points}
            newer = [one for one in points if recorded or applied[one.memory_id] < one.version]
            written = {one.memory_id: one.version for one in newer} | dict(gone)
            if written:
                with self._doubts.writing(tenant, written):
                    write(self._index.of(scope), newer, gone, recorded=recorded)
            for memory_id, version in written.items():
                self._applied.pop((tenant, memory_id), None)
                self._applied[tenant, memory_id] = version
            while len(self._applied) > _REMEMBERED:
                self._applied.popitem(last=False)
            if len(newer) < len(points):
                # A writer that comes late, or an import under an id that was here before: the record knows.
                self._behind.set()

    @contextmanager
    def _soon(self) -> Iterator[None]:
        """Hold the lock for the block, if those who hold it and wait for it before let it go in time."""
        if not self._lock.acquire(timeout=_WAITS if self._index.shared else _WAITS_ALONE):
            raise IndexUnavailable("other writes of the index take long")
        try:
            yield
        finally:
            self._lock.release()

    def _points(self, scope: Scope, entries: Sequence[IndexEntry], unreadable: Unreadable) -> list[Point]:
        points = []
        for entry in entries:
            try:
                points.append(self._point(scope, entry))
            except KeyringUnavailable as error:
                unreadable[entry.memory.id] = error
        return points

    def _point(self, scope: Scope, entry: IndexEntry) -> Point:
        return point_of(entry, self.terms(scope).document(entry.memory.searchable))
