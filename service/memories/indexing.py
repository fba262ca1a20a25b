"""Keeps the index in step with the record: at once after a commit, from the outbox after a failure, or as a whole."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.embeddings import Embedder
from service.errors import IndexUnavailable, RecordUnavailable
from service.index.interface import Index, Point, ScopedWriter
from service.index.terms import Bm25Terms
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.outbox import Due, Outbox
from service.storage.record import Record
from service.storage.stored import IndexEntry

_BATCH: Final = 500
#: Small, since searches and writes wait while a batch is written.
_REBUILD_BATCH: Final = 100
_REMEMBERED: Final = 200_000
_log = logging.getLogger("memvault.index")


class Indexing:
    """The only writer of the index. One at a time: of two versions of a memory the newer one always wins."""

    def __init__(
        self,
        database: Database,
        record: Record,
        keyring: Keyring,
        index: Index,
        embedder: Embedder,
        outbox: Outbox,
        *,
        language: str,
    ) -> None:
        self._database = database
        self._record = record
        self._keyring = keyring
        self._index = index
        self._embedder = embedder
        self._outbox = outbox
        self._language = language
        self._lock = threading.RLock()
        self._applied: OrderedDict[UUID, int] = OrderedDict()
        self._terms: dict[TenantId, Bm25Terms] = {}
        # Set until it is known that the index is not an empty one beside a record with memories.
        self._incomplete = threading.Event()
        self._incomplete.set()

    def terms(self, scope: Scope) -> Bm25Terms:
        """Return what turns the tenant's texts into keyed keyword vectors."""
        terms = self._terms.get(scope.tenant_id)
        if terms is None:
            key = self._keyring.tenant_secret(scope.tenant_id, "keyword-terms")
            terms = self._terms.setdefault(scope.tenant_id, Bm25Terms(key, language=self._language))
        return terms

    def apply(self, scope: Scope, entries: Sequence[IndexEntry], *, gone: Mapping[UUID, int] | None = None) -> None:
        """Bring committed memories into the index and take deleted ones (id and version) out.

        When the index is away nothing is lost: the outbox rows of the commit stay, and `drain` does the work later.
        """
        points = [self._point(scope, entry) for entry in entries]
        try:
            self._apply(scope, points, gone or {})
        except IndexUnavailable:
            _log.warning("the index is behind the record", extra={"memories": len(points) + len(gone or {})})

    def check(self) -> None:
        """Return unless the index is known to miss memories; costs nothing.

        Raises:
            IndexUnavailable: while the index is being made again from the record after it was lost.
        """
        if self._incomplete.is_set():
            raise IndexUnavailable("the index is being made again from the record; try again in a minute")

    def heal(self, tenants: Callable[[], Sequence[TenantId]]) -> None:
        """Make the index again when the record has memories and the index has lost them all; searches wait for it."""
        if self._index.count() or not any(self._has_memories(tenant_id) for tenant_id in tenants()):
            self._incomplete.clear()
            return
        _log.warning("the index is empty and is made again from the record")
        self.rebuild(tenants())
        self._incomplete.clear()

    def drain(self, *, most: int | None = None) -> int:
        """Do what the outbox says and forget the rows once the index is durable; return how many were done.

        Raises:
            IndexUnavailable, RecordUnavailable: with the rest still in the outbox.
        """
        total, last = 0, 0
        while most is None or total < most:
            due = self._outbox.due(_BATCH, after=last)
            if not due:
                break
            for tenant_id, group in groupby(sorted(due, key=lambda one: one.tenant_id), key=lambda one: one.tenant_id):
                self._catch_up(tenant_id, list(group))
            self._index.flush()
            self._outbox.done([one.row for one in due])
            total, last = total + len(due), due[-1].row
        return total

    def run(self, stopping: threading.Event, *, every: float = 1.0) -> None:
        """Drain again and again until told to stop, through outages of either store."""
        while not stopping.is_set():
            try:
                self.drain()
            except (IndexUnavailable, RecordUnavailable):
                stopping.wait(every)
            stopping.wait(every)

    def rebuild(self, tenants: Sequence[TenantId], *, progress: Callable[[int], None] = lambda done: None) -> int:
        """Make the whole index anew from the record, beside the old one, and switch; return how many points it has.

        Searches and writes go on meanwhile; what is written reaches both.
        """
        done = 0
        with self._index.rebuild() as fresh:
            for tenant_id in tenants:
                scope = Scope.of(service_principal(tenant_id))
                after: UUID | None = None
                while entries := self._copy(scope, fresh.of(scope), after):
                    after = entries[-1].memory.id
                    done += len(entries)
                    progress(done)
        return done

    def _copy(self, scope: Scope, fresh: ScopedWriter, after: UUID | None) -> list[IndexEntry]:
        # Read and written under the lock: a delete that commits in between is applied after, to both indexes.
        with self._lock:
            with self._database.transaction(scope) as connection:
                entries = self._record.all_index_entries(connection, scope, after=after, limit=_REBUILD_BATCH)
                entries = self._of_this_model(connection, scope, entries)
            fresh.upsert([self._point(scope, entry) for entry in entries])
        return entries

    def _of_this_model(self, connection: Connection, scope: Scope, entries: list[IndexEntry]) -> list[IndexEntry]:
        """Embed again what another model embedded: vectors of two models cannot be compared."""
        name = self._embedder.name
        foreign = [entry for entry in entries if entry.embedder != name]
        if not foreign:
            return entries
        vectors = self._embedder.embed_documents([entry.memory.searchable for entry in foreign])
        again = {
            entry.memory.id: IndexEntry(entry.memory, vector, name, entry.tokens)
            for entry, vector in zip(foreign, vectors, strict=True)
        }
        self._record.replace_vectors(connection, scope, list(again.values()))
        return [again.get(entry.memory.id, entry) for entry in entries]

    def _has_memories(self, tenant_id: TenantId) -> bool:
        with self._database.transaction(Scope.of(service_principal(tenant_id))) as connection:
            return self._record.count(connection) > 0

    def _catch_up(self, tenant_id: TenantId, due: Sequence[Due]) -> None:
        behind = {one.memory_id: one.version for one in due if self._applied.get(one.memory_id, 0) < one.version}
        if not behind:
            return
        scope = Scope.of(service_principal(tenant_id))
        with self._lock:
            with self._database.transaction(scope) as connection:
                entries = self._record.index_entries(connection, scope, behind)
            gone = {memory_id: version for memory_id, version in behind.items() if memory_id not in entries}
            self._apply(scope, [self._point(scope, entry) for entry in entries.values()], gone)

    def _apply(self, scope: Scope, points: Sequence[Point], gone: Mapping[UUID, int]) -> None:
        with self._lock:
            newer = [point for point in points if self._applied.get(point.memory_id, 0) < point.version]
            scoped = self._index.of(scope)
            if newer:
                scoped.upsert(newer)
            if gone:
                scoped.delete(list(gone))
            for memory_id, version in [*((one.memory_id, one.version) for one in newer), *gone.items()]:
                self._applied[memory_id] = max(version, self._applied.pop(memory_id, 0))
            while len(self._applied) > _REMEMBERED:
                self._applied.popitem(last=False)

    def _point(self, scope: Scope, entry: IndexEntry) -> Point:
        memory = entry.memory
        return Point(
            memory_id=memory.id,
            version=memory.version,
            dense=entry.vector,
            text_terms=self.terms(scope).document(memory.searchable),
            user_id=memory.user_id,
            agent_id=memory.agent_id,
            app_id=memory.app_id,
            run_id=memory.run_id,
            tokens=entry.tokens,
            created_at=memory.created_at,
            updated_at=memory.updated_at,
            expires_on=memory.expires_on,
        )


class Upkeep:
    """The thread that keeps the index in step and in shape while the service runs."""

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
        self._threads = [
            threading.Thread(target=self._catch_up, name="memvault-outbox", daemon=True),
            threading.Thread(target=self._maintain, name="memvault-index", daemon=True),
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

    def _catch_up(self) -> None:
        while not self._stopping.is_set():
            try:
                self._indexing.heal(self._tenants)
                break
            except (IndexUnavailable, RecordUnavailable):
                self._stopping.wait(1.0)
        self._indexing.run(self._stopping)

    def _maintain(self) -> None:
        while not self._stopping.wait(self._interval):
            started = clock.monotonic()
            try:
                if self._index.maintain():
                    _log.info("index optimised", extra={"seconds": round(clock.monotonic() - started, 2)})
            except IndexUnavailable:
                _log.warning("the index could not be optimised")
