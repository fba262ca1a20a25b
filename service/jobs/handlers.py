"""What the worker can do, by task name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from service.errors import MemvaultError
from service.memories.adds import EXTRACT
from service.memories.entities import Entities
from service.memories.extraction import Extractions
from service.memories.housekeeping import forget_old_keys
from service.memories.indexing import Indexing
from service.queue.tasks import Handler
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.tasks import Tasks, TaskState
from service.tenants.actions import Tenants

#: The task that makes the whole index anew.
REBUILD_INDEX: Final = "rebuild_index"
#: The task that goes round the tenants and finishes what was left undone.
SWEEP: Final = "sweep"
#: Longer than any extraction may take with all its waits, so that only an event whose job is lost is taken up again.
_LOST_AFTER: Final = timedelta(minutes=30)


class Jobs:
    """The handlers of queued work. Each may be run again after a crash."""

    def __init__(
        self,
        database: Database,
        tenants: Tenants,
        extractions: Extractions,
        entities: Entities,
        indexing: Indexing,
        tasks: Tasks,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._extractions = extractions
        self._entities = entities
        self._indexing = indexing
        self._tasks = tasks

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by task name."""
        return {EXTRACT: self._extractions.run, REBUILD_INDEX: self.rebuild_index}

    def periodic(self) -> Mapping[str, tuple[str, Callable[[int], None]]]:
        """Return the periodic work by task name, with when it runs, as cron says it."""
        return {SWEEP: ("* * * * *", self.sweep)}

    def rebuild_index(self, task_id: str) -> None:
        """Make the index anew from the record, telling how far it is through the task."""
        task = UUID(task_id)
        self._tasks.move(task, TaskState.RUNNING)
        try:
            done = self.rebuild(lambda count: self._tasks.progress(task, count))
        except MemvaultError as error:
            self._tasks.move(task, TaskState.FAILED, error=error.detail)
        else:
            self._tasks.progress(task, done)
            self._tasks.move(task, TaskState.SUCCEEDED)

    def rebuild(self, progress: Callable[[int], None]) -> int:
        """Make the index anew and return how many memories it holds."""
        return self._indexing.rebuild(self.tenant_ids(), progress=progress)

    def tenant_ids(self) -> list[TenantId]:
        """Return the ids of all tenants."""
        return [tenant.id for tenant in self._tenants.list()]

    def sweep(self, timestamp: int) -> None:
        """Finish erasures that a crash cut short, take up lost events, forget old idempotency keys."""
        for tenant in self._tenants.list():
            self.sweep_tenant(tenant.id)

    def sweep_tenant(self, tenant_id: TenantId) -> None:
        """Do the sweep for one tenant."""
        scope = Scope.of(service_principal(tenant_id))
        self._entities.finish_all(scope)
        self._extractions.retry_unfinished(scope, older_than=_LOST_AFTER)
        with self._database.transaction(scope) as connection:
            forget_old_keys(connection)
