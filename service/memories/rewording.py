"""Takes the words of a tenant's memories anew after its language was changed, while searches and writes go on."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import literal, select

from service import clock
from service.index.interface import Index
from service.memories.indexing import Indexing
from service.memories.serving import Generations
from service.queue.tasks import Queue
from service.scope import TenantId
from service.storage.database import Database
from service.tenants.languages import Languages

#: The task that takes the words of one tenant's memories anew.
REWORD: Final = "reword"
#: Time in which every process knows of a change, and has written what it was about to write in the language of before.
_KNOWN_AFTER: Final = timedelta(seconds=60)
_log: Final = logging.getLogger("memvault.index")


class Rewording:
    """Makes the keyword vectors of a tenant's points anew. Doing it twice is harmless."""

    def __init__(
        self,
        database: Database,
        languages: Languages,
        indexing: Indexing,
        index: Index,
        generations: Generations,
        queue: Queue,
    ) -> None:
        self._database = database
        self._languages = languages
        self._indexing = indexing
        self._index = index
        self._generations = generations
        self._queue = queue

    def resume(self) -> None:
        """Put into the queue what is due and is not there; for a process that comes by from time to time."""
        for tenant_id in self._languages.changed(clock.now() - _KNOWN_AFTER):
            with self._database.tenant_blind() as connection:
                has_job = select(Queue.has_job(REWORD, "tenant_id", literal(str(tenant_id))))
                if not connection.execute(has_job).scalar_one():
                    arguments = {"tenant_id": str(tenant_id)}
                    self._queue.defer(connection, REWORD, arguments, lock=f"{REWORD} {tenant_id}")

    def run(self, tenant_id: str) -> None:
        """Take the words of a tenant's memories anew if that is due, as a job.

        While another embedding model is being brought in it is left for later: its index is filled with words too.

        Raises:
            IndexUnavailable, RecordUnavailable: with the rest undone; it is begun again from the start.
        """
        tenant = TenantId(UUID(tenant_id))
        with self._database.tenant_blind() as connection:
            changed_at = self._languages.read(connection, tenant).changed_at
        if changed_at is None or changed_at > clock.now() - _KNOWN_AFTER or self._generations.changing.is_set():
            return
        self._indexing.check()
        done = sum(copied for copied, _ in self._indexing.copied(lambda: [tenant], self._index.of))
        if self._index.shared:
            # What another process deleted while it was being written may have come back.
            self._indexing.agree([tenant])
        self._index.flush()
        self._languages.settle(tenant, changed_at)
        _log.info("the words of a tenant's memories were taken anew", extra={"tenant": str(tenant), "memories": done})
