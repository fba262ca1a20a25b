"""Keeps in mind the writes of the index that waited in vain: they may still arrive, and are looked at again then."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from service import clock
from service.errors import IndexUnavailable
from service.index.interface import Index
from service.memories.answering import Answering, waited_in_vain
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.outbox import enqueue

#: Seconds of a write after which its outbox row may be gone before its point is there.
_LONG: Final = 20.0


class Doubts:
    """The memories whose points were written and not acknowledged in time, by tenants.

    What a network or a stopped server kept back arrives when it goes on, however long after. By then another process
    may have deleted the memory and forgotten the outbox row, so that nothing would take the point out again.
    """

    def __init__(self, database: Database, index: Index, reads: Answering, writes: Answering) -> None:
        self._database = database
        self._index = index
        self._reads = reads
        self._writes = writes
        self._lock = threading.Lock()
        self._doubtful: dict[TenantId, set[UUID]] = {}

    @contextmanager
    def writing(self, tenant_id: TenantId, ids: Iterable[UUID]) -> Iterator[None]:
        """Write these memories inside the block."""
        began = clock.monotonic()
        try:
            with self._writes.asking():
                yield
        except IndexUnavailable:
            # A search would most likely find the same.
            self._reads.failed(began)
            if waited_in_vain(began):
                self._doubt(tenant_id, ids)
            raise
        if clock.monotonic() - began > _LONG:
            self._doubt(tenant_id, ids)

    def look_again(self) -> None:
        """Note in the outbox what was in doubt, once the index answers again: it is compared with the record.

        Raises:
            RecordUnavailable: with what is left still in doubt.
        """
        with self._lock:
            for tenant_id in list(self._doubtful):
                scope = Scope.of(service_principal(tenant_id))
                with self._database.transaction(scope) as connection:
                    # The lowest version: whatever the index and the record have is compared, and not written again.
                    enqueue(connection, scope, dict.fromkeys(self._doubtful[tenant_id], 1))
                del self._doubtful[tenant_id]

    def _doubt(self, tenant_id: TenantId, ids: Iterable[UUID]) -> None:
        if self._index.shared:
            with self._lock:
                self._doubtful.setdefault(tenant_id, set()).update(ids)
